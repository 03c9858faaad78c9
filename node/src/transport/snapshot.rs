//! Snapshot transfer: the receiver asks for a file from a position on, the sender streams pieces, TCP does the pacing.
//!
//! Each piece is read when the one before it has been taken by the stream, so neither side holds more than a piece. A cut
//! connection is taken up again from the last piece that was stored.

use super::accept::Error;
use super::dial::{self, Link, Pause};
use super::{Inbound, PeerAddress, Shared};
use crate::error::{Code, Error as ClientError};
use crate::rt::net::BoxFuture;
use crate::types::NodeId;
use crate::wire::request::{error_from_json, error_to_json};
use crate::wire::{Kind, Purpose, SnapshotChunk, SnapshotFile, SnapshotRequest, frame};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Reads a piece: position, greatest length, to the bytes (none at the end). Works on a lane.
pub type ReadPiece = Box<dyn FnMut(u64, usize) -> BoxFuture<'static, io::Result<Bytes>> + Send>;

/// An open snapshot file to be sent.
pub struct SnapshotSource {
    /// Size of the file, bytes.
    pub total: u64,
    /// Reads a piece of it.
    pub read: ReadPiece,
}

/// Why a snapshot was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The peer has no such snapshot, or cannot read it: wait for another offer.
    #[error("node {from} does not give the snapshot: {error}")]
    Refused {
        /// The peer.
        from: NodeId,
        /// Its reason.
        error: ClientError,
    },
    /// Nothing has come for `Knobs::snapshot_timeout`: wait for another offer.
    #[error("the snapshot from node {from} stopped at byte {offset}: {why}")]
    Silent {
        /// The peer.
        from: NodeId,
        /// Bytes stored so far; a later fetch may start here.
        offset: u64,
        /// The last thing that went wrong.
        why: String,
    },
    /// A piece could not be stored: this node's disk.
    #[error("a piece of the snapshot cannot be stored: {0}")]
    Sink(io::Error),
}

/// Why one attempt ended.
enum Cut {
    /// Another attempt may go better.
    Again(String),
    /// No attempt will.
    Never(FetchError),
}

impl From<frame::Error> for Cut {
    fn from(error: frame::Error) -> Self {
        Cut::Again(error.to_string())
    }
}

/// A fetch under way.
struct Fetch<S> {
    /// The peer.
    from: NodeId,
    /// What, and from where on.
    request: SnapshotRequest,
    /// The file as the leader described it.
    file: SnapshotFile,
    /// Takes pieces.
    sink: S,
}

/// See [`super::Transport::fetch_snapshot`].
pub(super) async fn fetch<S>(
    shared: Arc<Shared>,
    from: NodeId,
    request: SnapshotRequest,
    file: SnapshotFile,
    sink: S,
) -> Result<(), FetchError>
where
    S: FnMut(u64, Bytes) -> BoxFuture<'static, io::Result<()>>,
{
    let mut pause = Pause::new(&shared, &format!("transport.snapshot.{from}"));
    let mut progress = shared.env.clock.now();
    let mut fetch = Fetch {
        from,
        request,
        file,
        sink,
    };
    loop {
        let before = fetch.request.offset;
        let why = match fetch.attempt(&shared).await {
            Ok(()) => return Ok(()),
            Err(Cut::Never(error)) => return Err(error),
            Err(Cut::Again(why)) => why,
        };
        let (now, offset) = (shared.env.clock.now(), fetch.request.offset);
        if offset > before {
            progress = now;
            pause.reset();
        }
        if now.since(progress) >= shared.knobs.snapshot_timeout {
            return Err(FetchError::Silent { from, offset, why });
        }
        pause.wait().await;
    }
}

impl<S> Fetch<S>
where
    S: FnMut(u64, Bytes) -> BoxFuture<'static, io::Result<()>>,
{
    /// One connection's worth of pieces.
    async fn attempt(&mut self, shared: &Shared) -> Result<(), Cut> {
        let address = self.address(shared)?;
        let link = dial::dial(shared, self.from, &address, Purpose::Snapshot).await;
        let mut link = link.map_err(|error| Cut::Again(error.to_string()))?;
        link.say(shared, Kind::SnapshotRequest, &self.request)
            .await?;
        loop {
            let chunk = hear(shared, &mut link).await?;
            if self.store(chunk).await? {
                return Ok(());
            }
        }
    }

    fn address(&self, shared: &Shared) -> Result<PeerAddress, Cut> {
        let peers = shared.peers();
        let peer = peers.get(&self.from);
        peer.map(|peer| peer.address.clone())
            .ok_or_else(|| Cut::Again("it is not in the address book".to_owned()))
    }

    /// Stores a piece; true after the last one.
    async fn store(&mut self, chunk: SnapshotChunk) -> Result<bool, Cut> {
        if !chunk.error.is_empty() {
            return Err(self.refused(error_from_json(&chunk.error)));
        }
        if let Some(why) = self.misfit(&chunk) {
            return Err(self.refused(ClientError::new(Code::Internal, why)));
        }
        let length = chunk.data.len() as u64;
        if length > 0 {
            let stored = (self.sink)(chunk.offset, chunk.data).await;
            stored.map_err(|error| Cut::Never(FetchError::Sink(error)))?;
        }
        self.request.offset += length;
        Ok(chunk.last)
    }

    fn refused(&self, error: ClientError) -> Cut {
        let from = self.from;
        Cut::Never(FetchError::Refused { from, error })
    }

    /// Why the piece is not the next one of the file described.
    fn misfit(&self, chunk: &SnapshotChunk) -> Option<String> {
        let (expected, size) = (self.request.offset, self.file.size);
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        if chunk.total != size {
            let total = chunk.total;
            return Some(format!("the file has {total} bytes, {size} were announced"));
        }
        if chunk.offset != expected || end > size || chunk.last != (end == size) {
            let start = chunk.offset;
            return Some(format!(
                "a piece covers bytes {start} to {end} of {size}, expected was one from {expected} on"
            ));
        }
        if chunk.data.is_empty() && !chunk.last {
            return Some("a piece is empty".to_owned());
        }
        None
    }
}

/// The next piece.
async fn hear(shared: &Shared, link: &mut Link) -> Result<SnapshotChunk, Cut> {
    let limit = shared.knobs.peer_idle_timeout;
    let heard = shared.env.clock.timeout(limit, link.reader.next()).await;
    let heard = heard.map_err(|error| Cut::Again(error.to_string()))?;
    let closed = || Cut::Again("the peer closed the connection".to_owned());
    let frame = heard?.ok_or_else(closed)?;
    Ok(frame.open(Kind::SnapshotChunk, "a piece of a snapshot")?)
}

/// Serves one snapshot request.
pub(super) async fn serve(shared: &Shared, link: &mut Link, from: NodeId) -> Result<(), Error> {
    let limit = shared.knobs.connect_timeout;
    let Ok(frame) = shared.env.clock.timeout(limit, link.reader.next()).await else {
        return Ok(());
    };
    let Some(frame) = frame? else { return Ok(()) };
    let request: SnapshotRequest = frame.open(Kind::SnapshotRequest, "a snapshot request")?;
    let streamed = match open(shared, from, request).await {
        Ok(source) => stream(shared, link, request.offset, source).await?,
        Err(error) => Err(error),
    };
    if let Err(error) = streamed {
        let chunk = SnapshotChunk {
            error: error_to_json(&error),
            ..SnapshotChunk::default()
        };
        link.say(shared, Kind::SnapshotChunk, &chunk).await?;
    }
    // The receiver closes when it has read everything; closing first could cut off what is still on its way.
    shared
        .env
        .clock
        .timeout(limit, link.reader.next())
        .await
        .ok();
    Ok(())
}

/// The open file, from the loop.
async fn open(
    shared: &Shared,
    from: NodeId,
    request: SnapshotRequest,
) -> Result<SnapshotSource, ClientError> {
    let (reply, answer) = oneshot::channel();
    let ask = Inbound::Snapshot {
        from,
        request,
        reply,
    };
    let stopping = |_| ClientError::new(Code::ShuttingDown, "the node is stopping");
    shared.inbound.send(ask).await.map_err(|_| stopping(()))?;
    let limit = shared.knobs.snapshot_timeout;
    let late = |error| ClientError::new(Code::Timeout, format!("opening the snapshot {error}"));
    let answer = shared.env.clock.timeout(limit, answer).await;
    let source = answer.map_err(late)?.map_err(|_| stopping(()))??;
    if request.offset > source.total {
        let (offset, total) = (request.offset, source.total);
        let message = format!("byte {offset} of a snapshot of {total} bytes");
        return Err(ClientError::new(Code::InvalidArgument, message));
    }
    Ok(source)
}

/// Streams the file from `offset` on. The outer error is the connection's, the inner one the file's.
async fn stream(
    shared: &Shared,
    link: &mut Link,
    mut offset: u64,
    mut source: SnapshotSource,
) -> Result<Result<(), ClientError>, Error> {
    let total = source.total;
    loop {
        let data = match (source.read)(offset, shared.knobs.snapshot_chunk_bytes).await {
            Ok(data) => data,
            Err(error) => return Ok(Err(unreadable(&error.to_string()))),
        };
        let end = offset + data.len() as u64;
        if end > total || (data.is_empty() && end < total) {
            return Ok(Err(unreadable("the file does not have the size it had")));
        }
        let chunk = SnapshotChunk {
            offset,
            data,
            last: end == total,
            total,
            error: String::new(),
        };
        link.say(shared, Kind::SnapshotChunk, &chunk).await?;
        if chunk.last {
            return Ok(Ok(()));
        }
        offset = end;
    }
}

fn unreadable(why: &str) -> ClientError {
    ClientError::new(
        Code::Internal,
        format!("the snapshot cannot be read: {why}"),
    )
}
