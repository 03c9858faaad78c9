//! Bugs planted at the clients' door: a proxy between a node's HTTP door and its network that edits heads of requests, or pieces
//! of answers, into what a node with the bug would have understood or said.
//!
//! Edits keep the length wherever something else counts bytes; bodies of requests pass untouched.

use bytes::{Bytes, BytesMut};
use node::rt::net::{BoxFuture, Listener, NetDriver};
use node::rt::{Net, Stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Most bytes on their way through in one direction.
const PIPE_BYTES: usize = 64 << 10;
/// How requests begin.
const METHODS: [&[u8]; 4] = [b"GET /", b"PUT /", b"POST /", b"DELETE /"];
/// How the head of a request ends.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// One in this many changes is kept from a watcher.
const KEPT_BACK: u64 = 50;

/// What is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// While the node believes to lead, linearizable reads are asked as local ones.
    Unasked,
    /// Session and sequence number of a request are not seen.
    NoSession,
    /// Stale reads say that they are fresh.
    Young,
    /// Some changes are not told to watchers.
    Silent,
    /// A token that is to end is not ended.
    Kept,
}

/// A node's network with an editor at the clients' door.
pub(super) struct Editor {
    /// The real one.
    inner: Net,
    /// What is edited.
    edit: Edit,
    /// True while the node believes to lead.
    leads: Arc<AtomicBool>,
}

impl Editor {
    /// Edits what passes the clients' door of `inner`; `leads` says whether the node believes to lead.
    pub(super) fn new(inner: Net, edit: Edit, leads: Arc<AtomicBool>) -> Self {
        Editor { inner, edit, leads }
    }
}

impl NetDriver for Editor {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (inner, edit, leads) = (self.inner.clone(), self.edit, Arc::clone(&self.leads));
        let address = address.to_owned();
        Box::pin(async move {
            let listener = inner.listen(&address).await?;
            if !address.ends_with(":8080") {
                return Ok(listener);
            }
            Ok(Box::new(EditedListener {
                listener,
                edit,
                leads,
            }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let (inner, address) = (self.inner.clone(), address.to_owned());
        Box::pin(async move { inner.connect(&address).await })
    }
}

/// The clients' listener.
struct EditedListener {
    /// The real one.
    listener: Box<dyn Listener>,
    /// What is edited.
    edit: Edit,
    /// True while the node believes to lead.
    leads: Arc<AtomicBool>,
}

impl Listener for EditedListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, String)>> {
        let pen = Pen {
            edit: self.edit,
            leads: Arc::clone(&self.leads),
            changes: 0,
        };
        let accepted = self.listener.accept();
        Box::pin(async move {
            let (stream, from) = accepted.await?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            drop(madsim::task::spawn(async move {
                // Either end closes or fails: so does the other.
                drop(pass(far, stream, pen).await);
            }));
            Ok((Box::new(near) as Stream, from))
        })
    }

    fn local_address(&self) -> String {
        self.listener.local_address()
    }
}

/// Passes bytes both ways, edited, until one side ends.
async fn pass(node: DuplexStream, wire: Stream, mut pen: Pen) -> io::Result<()> {
    let (mut from_node, mut to_node) = tokio::io::split(node);
    let (mut from_wire, mut to_wire) = tokio::io::split(wire);
    let (mut answers, mut requests) = (BytesMut::new(), BytesMut::new());
    loop {
        tokio::select! {
            biased; // Answers first: they free the client.
            count = from_node.read_buf(&mut answers) => {
                if count? == 0 { return Ok(()) }
                pen.edit_answer(&mut answers);
                to_wire.write_all(&answers.split()).await?;
                to_wire.flush().await?;
            }
            count = from_wire.read_buf(&mut requests) => {
                if count? == 0 { return Ok(()) }
                while let Some(bytes) = pen.take_request(&mut requests) {
                    to_node.write_all(&bytes).await?;
                }
            }
        }
    }
}

/// Who edits one connection.
struct Pen {
    /// What.
    edit: Edit,
    /// True while the node believes to lead.
    leads: Arc<AtomicBool>,
    /// Changes told so far.
    changes: u64,
}

impl Pen {
    /// Takes what can be passed on: the head of a request once it is whole, edited, or what is no head at once.
    fn take_request(&mut self, from: &mut BytesMut) -> Option<Bytes> {
        let begins = |method: &&[u8]| from.iter().zip(*method).all(|(a, b)| a == b);
        if from.is_empty() {
            return None;
        }
        if !METHODS.iter().any(begins) {
            return Some(from.split().freeze());
        }
        let end = find(from, HEAD_END)? + HEAD_END.len();
        let head = from.split_to(end);
        Some(match self.edit {
            Edit::Unasked if self.leads.load(Ordering::Relaxed) => ask_locally(head),
            Edit::NoSession => hide_session(head),
            Edit::Kept => keep_token(&head),
            _ => head.freeze(),
        })
    }

    /// Edits a piece of answers in its place.
    fn edit_answer(&mut self, piece: &mut BytesMut) {
        match self.edit {
            Edit::Young => make_young(piece),
            Edit::Silent => self.keep_back(piece),
            _ => {}
        }
    }

    /// Makes comments of some of the changes that a watcher is told.
    fn keep_back(&mut self, piece: &mut BytesMut) {
        const CHANGE: &[u8] = b"event: put\ndata: ";
        let mut at = 0;
        while let Some(place) = find(&piece[at..], CHANGE).map(|place| at + place) {
            at = place + CHANGE.len();
            self.changes += 1;
            if self.changes.is_multiple_of(KEPT_BACK) {
                piece[place] = b':';
                piece[place + b"event: put\n".len()] = b':';
            }
        }
    }
}

/// Where `what` begins in `bytes`.
fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A read of a key that names no freshness asks for a local one.
fn ask_locally(head: BytesMut) -> Bytes {
    let named = find(&head, b"consistency=").is_some();
    let Some(end) = find(&head, b" HTTP/1.1\r\n").filter(|_| !named) else {
        return head.freeze();
    };
    if !head.starts_with(b"GET /v1/kv/") {
        return head.freeze();
    }
    let mut edited = BytesMut::from(&head[..end]);
    edited.extend_from_slice(if head[..end].contains(&b'?') {
        b"&"
    } else {
        b"?"
    });
    edited.extend_from_slice(b"consistency=local");
    edited.extend_from_slice(&head[end..]);
    edited.freeze()
}

/// The headers of a session get names that nobody knows.
fn hide_session(mut head: BytesMut) -> Bytes {
    for name in [&b"\r\nseaworthy-session:"[..], b"\r\nseaworthy-seq:"] {
        if let Some(at) = find(&head.to_ascii_lowercase(), name) {
            head[at + 2] = b'x';
        }
    }
    head.freeze()
}

/// The wish to end a token becomes a look at all of them.
fn keep_token(head: &[u8]) -> Bytes {
    let end = find(head, b" HTTP/1.1\r\n").filter(|_| head.starts_with(b"DELETE /v1/tokens/"));
    match end {
        Some(end) => [b"GET /v1/tokens", &head[end..]].concat().into(),
        None => Bytes::copy_from_slice(head),
    }
}

/// Every age becomes zero, in headers and in JSON: blanks keep the length where zeros in front would not be JSON.
fn make_young(piece: &mut BytesMut) {
    for age in [&b"seaworthy-age-ms: "[..], b"\"age_ms\":"] {
        let mut at = 0;
        while let Some(place) = find(&piece[at..], age).map(|place| at + place) {
            at = place + age.len();
            let digits = piece[at..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            piece[at..at + digits].fill(b' ');
            if digits > 0 {
                piece[at + digits - 1] = b'0';
            }
        }
    }
}
