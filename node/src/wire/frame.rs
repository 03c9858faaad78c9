//! Frames: the envelope of every message between peers.
//!
//! ```text
//! length  u32 LE   bytes after the checksum: version, kind and payload
//! crc     u32 LE   CRC-32C of those bytes
//! version u8       VERSION; another one is refused before anything else is believed
//! kind    u8       Kind
//! payload          one prost message
//! ```
//!
//! Invariants: a reader holds no more memory than has really arrived, plus one read's worth; a length above its limit ends the
//! connection before the payload is read; [`FrameReader::next`] may be dropped between polls without losing a byte. The
//! writer sends every frame gathered so far in one write and flushes once.
//!
//! Left out: time-outs (`transport` has the clock) and secrecy (the peer network is trusted, or tunnelled).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Version of the conversation between peers.
pub const VERSION: u8 = 1;

/// Bytes of length and checksum.
const HEADER_LEN: usize = 8;

/// Bytes of version and kind, counted by the length.
const PREFIX_LEN: usize = 2;

/// Bytes asked of the stream at a time.
const READ_LEN: usize = 64 << 10;

/// Room below which a reader makes room for a whole [`READ_LEN`] again, bytes.
const READ_LEN_MIN: usize = READ_LEN / 4;

/// A writer keeps its buffer between batches unless it has grown beyond this, bytes.
const KEEP_LEN_MAX: usize = 1 << 20;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`super::Hello`]: first frame of a connection between members.
    Hello = 1,
    /// [`super::Welcome`]: the connection may be used.
    Welcome = 2,
    /// [`super::Reject`]: it may not; last frame.
    Reject = 3,
    /// [`super::RaftMessage`].
    Raft = 4,
    /// Empty: everything sent so far on this raft connection has arrived.
    Ack = 5,
    /// [`super::Forward`].
    Forward = 6,
    /// [`super::ForwardReply`].
    ForwardReply = 7,
    /// [`super::SnapshotRequest`].
    SnapshotRequest = 8,
    /// [`super::SnapshotChunk`].
    SnapshotChunk = 9,
    /// [`super::Probe`]: first frame of a question to a node that may belong to no cluster yet.
    Probe = 10,
    /// [`super::ProbeAnswer`].
    ProbeAnswer = 11,
    /// [`super::Join`]: first frame of a wish to be let in.
    Join = 12,
    /// [`super::JoinAnswer`].
    JoinAnswer = 13,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 13] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Reject,
        Kind::Raft,
        Kind::Ack,
        Kind::Forward,
        Kind::ForwardReply,
        Kind::SnapshotRequest,
        Kind::SnapshotChunk,
        Kind::Probe,
        Kind::ProbeAnswer,
        Kind::Join,
        Kind::JoinAnswer,
    ];

    /// The kind with this number.
    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why a connection cannot be read or written on. None of them can be repaired: the connection is dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stream ended inside a frame.
    #[error("the connection was closed inside a frame ({have} bytes of it had come)")]
    Torn {
        /// Bytes of the frame that had come.
        have: usize,
    },
    /// The length is over the limit, or too short for a frame.
    #[error(
        "a frame claims {length} bytes, allowed are 2 to {max}: not a Seaworthy peer, or damaged on the way"
    )]
    Length {
        /// Length claimed, bytes.
        length: u64,
        /// Greatest length allowed, bytes.
        max: usize,
    },
    /// The other side speaks another version.
    #[error(
        "the peer speaks version {theirs} of the peer protocol, this node {VERSION}: upgrade the older of the two"
    )]
    Version {
        /// The other side's version.
        theirs: u8,
    },
    /// The checksum does not hold.
    #[error("a frame's checksum is {found:08x}, announced was {announced:08x}: damaged on the way")]
    Checksum {
        /// Checksum of the bytes that came.
        found: u32,
        /// Checksum in the header.
        announced: u32,
    },
    /// Nothing of this version has this number.
    #[error("a frame has the unknown kind {0}")]
    UnknownKind(u8),
    /// A frame that has no place here.
    #[error("a {found:?} frame came where {expected} was expected")]
    Unexpected {
        /// Kind that came.
        found: Kind,
        /// What may come here.
        expected: &'static str,
    },
    /// The payload is not what the kind says.
    #[error("a {kind:?} frame cannot be decoded: {error}")]
    Payload {
        /// The frame's kind.
        kind: Kind,
        /// What prost says.
        error: prost::DecodeError,
    },
    /// A message to be sent is larger than a frame may be.
    #[error("a {kind:?} message of {length} bytes does not fit a frame of at most {max}")]
    TooLarge {
        /// The message's kind.
        kind: Kind,
        /// Its encoded length, bytes.
        length: usize,
        /// Greatest length allowed, bytes.
        max: usize,
    },
}

/// One frame, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// One encoded message.
    pub payload: Bytes,
}

impl Frame {
    /// The message inside, if the frame is of `kind`; `expected` names it in the error.
    pub fn open<M: prost::Message + Default>(
        self,
        kind: Kind,
        expected: &'static str,
    ) -> Result<M, Error> {
        if self.kind != kind {
            let found = self.kind;
            return Err(Error::Unexpected { found, expected });
        }
        M::decode(self.payload).map_err(|error| Error::Payload { kind, error })
    }
}

/// Appends one frame to `to`, or nothing when the message is too large for `max` bytes.
pub fn encode<M: prost::Message>(
    to: &mut BytesMut,
    kind: Kind,
    message: &M,
    max: usize,
) -> Result<(), Error> {
    let length = message.encoded_len() + PREFIX_LEN;
    let claimed = u32::try_from(length).ok().filter(|_| length <= max);
    let Some(claimed) = claimed else {
        return Err(Error::TooLarge { kind, length, max });
    };
    let start = to.len();
    to.reserve(HEADER_LEN + length);
    to.put_u32_le(claimed);
    to.put_u32_le(0);
    to.put_u8(VERSION);
    to.put_u8(kind as u8);
    message
        .encode(to)
        .expect("a BytesMut grows as far as prost needs");
    let crc = crc32c::crc32c(&to[start + HEADER_LEN..]);
    to[start + 4..start + HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Takes one frame off the front of `from`; `None` when more bytes are needed.
pub fn decode(from: &mut BytesMut, max: usize) -> Result<Option<Frame>, Error> {
    let Some(mut header) = from.get(..HEADER_LEN) else {
        return Ok(None);
    };
    let claimed = header.get_u32_le();
    let announced = header.get_u32_le();
    let length = usize::try_from(claimed).unwrap_or(usize::MAX);
    if length < PREFIX_LEN || length > max {
        let length = u64::from(claimed);
        return Err(Error::Length { length, max });
    }
    // A newer version may lay out everything behind this byte differently, so it comes before the checksum.
    match from.get(HEADER_LEN) {
        Some(&theirs) if theirs != VERSION => return Err(Error::Version { theirs }),
        _ => {}
    }
    if from.len() < HEADER_LEN + length {
        return Ok(None);
    }
    from.advance(HEADER_LEN);
    let mut body = from.split_to(length);
    let found = crc32c::crc32c(&body);
    if found != announced {
        return Err(Error::Checksum { found, announced });
    }
    let number = body[1];
    let kind = Kind::from_byte(number).ok_or(Error::UnknownKind(number))?;
    body.advance(PREFIX_LEN);
    let payload = body.freeze();
    Ok(Some(Frame { kind, payload }))
}

/// Reads frames off a stream.
pub struct FrameReader<R> {
    /// The stream.
    stream: R,
    /// Bytes that came and belong to no finished frame yet.
    buffer: BytesMut,
    /// Greatest length of a frame, bytes.
    max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `max` bytes off `stream`.
    pub fn new(stream: R, max: usize) -> Self {
        FrameReader {
            stream,
            buffer: BytesMut::new(),
            max,
        }
    }

    /// From now on frames may have `max` bytes: little is believed before the handshake, more after it.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// The next frame that has come in whole already, without waiting.
    pub fn ready(&mut self) -> Result<Option<Frame>, Error> {
        decode(&mut self.buffer, self.max)
    }

    /// The next frame; `None` when the other side has closed between frames. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(frame) = self.ready()? {
                return Ok(Some(frame));
            }
            // Not before each read: payloads still held keep the old buffer, and a short message would cost a whole new one.
            if self.buffer.capacity() - self.buffer.len() < READ_LEN_MIN {
                self.buffer.reserve(READ_LEN);
            }
            let came = self.stream.read_buf(&mut self.buffer).await?;
            if came == 0 {
                let have = self.buffer.len();
                return if have == 0 {
                    Ok(None)
                } else {
                    Err(Error::Torn { have })
                };
            }
        }
    }
}

/// Writes frames to a stream, many at once.
pub struct FrameWriter<W> {
    /// The stream.
    stream: W,
    /// Frames not written yet.
    buffer: BytesMut,
    /// Greatest length of a frame, bytes.
    max: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames of at most `max` bytes to `stream`.
    pub fn new(stream: W, max: usize) -> Self {
        FrameWriter {
            stream,
            buffer: BytesMut::new(),
            max,
        }
    }

    /// Gathers one frame for the next [`FrameWriter::flush`].
    pub fn push<M: prost::Message>(&mut self, kind: Kind, message: &M) -> Result<(), Error> {
        encode(&mut self.buffer, kind, message, self.max)
    }

    /// Bytes gathered.
    pub fn gathered(&self) -> usize {
        self.buffer.len()
    }

    /// Writes everything gathered and flushes once; `guard` is put around each single wait, so that a slow but living
    /// stream has no time-out over the whole. After an error or a dropped future the stream is of no use.
    pub async fn flush<G, F>(&mut self, guard: G) -> Result<(), Error>
    where
        G: Fn() -> F,
        F: Future<Output = ()>,
    {
        if self.buffer.is_empty() {
            return Ok(());
        }
        while !self.buffer.is_empty() {
            let wrote = guarded(&guard, self.stream.write(&self.buffer)).await?;
            if wrote == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.buffer.advance(wrote);
        }
        if self.buffer.capacity() > KEEP_LEN_MAX {
            self.buffer = BytesMut::new();
        }
        guarded(&guard, self.stream.flush()).await?;
        Ok(())
    }
}

/// The output of `work`, or a time-out when the limit of `guard` ends first. Most streams take what they get at once, so the
/// limit begins only when this one does not.
async fn guarded<T, F: Future<Output = ()>>(
    guard: &impl Fn() -> F,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut work = pin!(work);
    if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        return output;
    }
    tokio::select! {
        biased; // Work that is done in the same instant as the limit counts as done.
        output = work => output,
        () = guard() => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing any more")),
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tokio::test builds the runtime of a test"
)]
mod tests {
    use super::super::{Reason, Reject};
    use super::*;
    use proptest::prelude::*;
    use std::pin::Pin;
    use std::task::Context;

    const MAX: usize = 1 << 16;

    fn reject(text: &str) -> Reject {
        Reject::new(Reason::NotReady, text)
    }

    fn encoded(text: &str) -> BytesMut {
        let mut bytes = BytesMut::new();
        encode(&mut bytes, Kind::Reject, &reject(text), MAX).unwrap();
        bytes
    }

    #[test]
    fn a_frame_has_exactly_these_bytes() {
        let mut bytes = BytesMut::new();
        encode(&mut bytes, Kind::Ack, &(), MAX).unwrap();
        let crc = crc32c::crc32c(&[VERSION, 5]).to_le_bytes();
        assert_eq!(bytes[..4], [2, 0, 0, 0]);
        assert_eq!(bytes[4..8], crc);
        assert_eq!(bytes[8..], [VERSION, 5]);
    }

    #[test]
    fn every_kind_is_found_by_its_number() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_byte(kind as u8), Some(kind));
        }
        assert_eq!(Kind::from_byte(0), None);
        assert_eq!(Kind::from_byte(14), None);
    }

    #[test]
    fn another_version_is_named_before_the_checksum_is_believed() {
        let mut bytes = encoded("x");
        bytes[HEADER_LEN] = VERSION + 1;
        bytes[4] ^= 0xff;
        let error = decode(&mut bytes, MAX).unwrap_err();
        assert!(matches!(error, Error::Version { theirs } if theirs == VERSION + 1));
    }

    #[test]
    fn a_length_over_the_limit_ends_before_the_payload() {
        let mut bytes = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
        assert!(matches!(decode(&mut bytes, MAX), Err(Error::Length { .. })));
        let mut short = BytesMut::from(&[1, 0, 0, 0, 0, 0, 0, 0, 1][..]);
        assert!(matches!(decode(&mut short, MAX), Err(Error::Length { .. })));
    }

    #[test]
    fn a_message_too_large_leaves_the_buffer_as_it_was() {
        let mut bytes = encoded("kept");
        let before = bytes.clone();
        let error = encode(&mut bytes, Kind::Reject, &reject(&"x".repeat(50)), 40);
        assert!(matches!(error, Err(Error::TooLarge { max: 40, .. })));
        assert_eq!(bytes, before);
    }

    #[test]
    fn an_unknown_kind_and_a_kind_out_of_place_are_errors() {
        let mut bytes = encoded("x");
        bytes[HEADER_LEN + 1] = 99;
        let crc = crc32c::crc32c(&bytes[HEADER_LEN..]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        assert!(matches!(
            decode(&mut bytes, MAX),
            Err(Error::UnknownKind(99))
        ));
        let frame = decode(&mut encoded("x"), MAX).unwrap().unwrap();
        let opened = frame.open::<()>(Kind::Ack, "an acknowledgement");
        assert!(matches!(opened, Err(Error::Unexpected { .. })));
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_torn_and_between_frames_is_closed() {
        let bytes = encoded("x");
        let mut whole = FrameReader::new(&bytes[..], MAX);
        assert!(whole.next().await.unwrap().is_some());
        assert!(whole.next().await.unwrap().is_none());
        let mut cut = FrameReader::new(&bytes[..bytes.len() - 1], MAX);
        assert!(matches!(cut.next().await, Err(Error::Torn { .. })));
    }

    /// Counts writes and flushes; takes at most `piece` bytes at a time.
    struct Counting {
        piece: usize,
        bytes: Vec<u8>,
        writes: usize,
        flushes: usize,
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = data.len().min(self.piece);
            self.bytes.extend_from_slice(&data[..taken]);
            self.writes += 1;
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn written(piece: usize) -> Counting {
        let to = Counting {
            piece,
            bytes: Vec::new(),
            writes: 0,
            flushes: 0,
        };
        let mut writer = FrameWriter::new(to, MAX);
        for number in 0..10 {
            let message = reject(&number.to_string());
            writer.push(Kind::Reject, &message).unwrap();
        }
        writer.flush(std::future::pending).await.unwrap();
        writer.flush(std::future::pending).await.unwrap();
        writer.stream
    }

    #[tokio::test]
    async fn many_frames_leave_in_one_write_and_one_flush() {
        let one = written(usize::MAX).await;
        assert_eq!((one.writes, one.flushes), (1, 1));
        let partial = written(7).await;
        assert_eq!(partial.bytes, one.bytes);
        assert_eq!(partial.flushes, 1);
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let mut writer = FrameWriter::new(near, MAX);
        writer
            .push(Kind::Reject, &reject("longer than the window"))
            .unwrap();
        let error = writer.flush(|| std::future::ready(())).await.unwrap_err();
        assert!(matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut));
    }

    proptest! {
        #[test]
        fn frames_come_back_however_the_stream_is_split(
            texts in prop::collection::vec(".{0,300}", 1..20),
            splits in prop::collection::vec(1usize..200, 1..50),
        ) {
            let mut stream = BytesMut::new();
            for text in &texts {
                encode(&mut stream, Kind::Reject, &reject(text), MAX).unwrap();
            }
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for size in splits.iter().cycle() {
                if stream.is_empty() {
                    break;
                }
                let size = (*size).min(stream.len());
                buffer.extend_from_slice(&stream.split_to(size));
                while let Some(frame) = decode(&mut buffer, MAX).unwrap() {
                    let message: Reject = frame.open(Kind::Reject, "a refusal").unwrap();
                    found.push(message.text);
                }
            }
            prop_assert_eq!(found, texts);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = decode(&mut buffer, MAX) {
                frame.open::<Reject>(Kind::Reject, "a refusal").ok();
            }
        }

        #[test]
        fn a_changed_byte_is_never_taken_for_the_message(
            text in ".{1,100}",
            at in any::<prop::sample::Index>(),
            bit in 0u32..8,
        ) {
            let mut bytes = encoded(&text);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // A longer length waits for more; everything else is an error.
            prop_assert!(!matches!(decode(&mut bytes, MAX), Ok(Some(_))));
        }
    }
}
