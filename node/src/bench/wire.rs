//! HTTP/1.1 by hand: a request is a template patched in place, an answer is its status and its length.
//!
//! Only what our own server sends is understood: a status line, headers, `content-length`. Anything else is an error
//! of the connection, which is then given up.

use super::plan::{Plan, Request};
use crate::rt::Stream;
use rand_core::RngCore;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Digits of a key's number.
const KEY_DIGITS: usize = 9;
/// Bytes at the front of a value that change from write to write.
const STAMP_BYTES: usize = 8;
/// Largest head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes taken from the connection at once.
const READ_BYTES: usize = 16 << 10;

/// The bytes of a put and of a get, ready but for the key.
pub(super) struct Requests {
    /// A whole put.
    put: Vec<u8>,
    /// Where its value begins.
    value_at: usize,
    /// A whole get.
    get: Vec<u8>,
}

/// Method and path up to the key's number; the same length for both, so that one offset serves.
const PUT: &[u8] = b"PUT /v1/kv/bench/";
const GET: &[u8] = b"GET /v1/kv/bench/";
const _: () = assert!(PUT.len() == GET.len());

impl Requests {
    /// Requests to `host` as `plan` wants them, with a random text as value.
    pub(super) fn new(host: &str, plan: &Plan, rng: &mut impl RngCore) -> Self {
        let key = "0".repeat(KEY_DIGITS);
        let bytes = plan.value_bytes;
        let mut put = PUT.to_vec();
        let head = format!("{key} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {bytes}\r\n\r\n");
        put.extend_from_slice(head.as_bytes());
        let value_at = put.len();
        put.extend((0..bytes).map(|_| b'a' + (rng.next_u32() % 26) as u8));
        let mut get = GET.to_vec();
        let head = format!(
            "{key}?consistency={} HTTP/1.1\r\nhost: {host}\r\naccept: application/octet-stream\r\n\r\n",
            plan.consistency
        );
        get.extend_from_slice(head.as_bytes());
        Requests { put, value_at, get }
    }

    /// The bytes of `request`.
    pub(super) fn bytes(&mut self, request: Request, rng: &mut impl RngCore) -> &[u8] {
        let (bytes, key) = match request {
            Request::Put(key) => {
                let end = self.put.len().min(self.value_at + STAMP_BYTES);
                let mut stamp = rng.next_u64();
                for byte in &mut self.put[self.value_at..end] {
                    *byte = b'a' + (stamp % 26) as u8;
                    stamp /= 26;
                }
                (&mut self.put, key)
            }
            Request::Get(key) => (&mut self.get, key),
        };
        let mut rest = key;
        for byte in bytes[PUT.len()..PUT.len() + KEY_DIGITS].iter_mut().rev() {
            *byte = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        bytes
    }
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Status.
    status: u16,
    /// Bytes of the head itself, the empty line included.
    bytes: usize,
    /// Bytes of the body.
    body: usize,
    /// True when the server closes the connection after it.
    closes: bool,
}

/// An open connection.
pub(super) struct Connection {
    /// The stream.
    stream: Stream,
    /// Bytes come in here.
    buffer: Vec<u8>,
    /// True when no further request may be sent on it.
    pub(super) closed: bool,
}

impl Connection {
    /// A connection over `stream`.
    pub(super) fn new(stream: Stream) -> Self {
        Connection {
            stream,
            buffer: vec![0; READ_BYTES],
            closed: false,
        }
    }

    /// Sends one request, waits for its answer, gives the status.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let head = loop {
            let count = self.stream.read(&mut self.buffer[filled..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            if let Some(head) = head(&self.buffer[..filled])? {
                break head;
            }
            if filled >= HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        self.closed = head.closes;
        let mut left = (head.bytes + head.body)
            .checked_sub(filled)
            .ok_or(io::ErrorKind::InvalidData)?;
        while left > 0 {
            let most = left.min(READ_BYTES);
            let count = self.stream.read(&mut self.buffer[..most]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count;
        }
        Ok(head.status)
    }
}

/// The head at the front of `bytes`; nothing while it is incomplete.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid())?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or_else(invalid)?;
    let mut body = None;
    let mut closes = false;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(invalid)?;
        if name.eq_ignore_ascii_case("content-length") {
            body = Some(value.trim().parse().map_err(|_| invalid())?);
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let body = match (body, status) {
        (Some(body), _) => body,
        (None, 204 | 304) => 0,
        // A body without a length is none that our server sends to such requests.
        (None, _) => return Err(invalid()),
    };
    Ok(Some(Head {
        status,
        bytes: end + 4,
        body,
        closes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nconnection: close\r\n\r\nhello";
        assert_eq!(
            head(text).unwrap(),
            Some(Head {
                status: 200,
                bytes: text.len() - 5,
                body: 5,
                closes: true
            })
        );
        assert_eq!(head(&text[..30]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"garbage\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_err());
    }
}
