//! Incoming connections: accept, the called side of the handshake, and what comes over a consensus connection.
//!
//! At most `Knobs::peer_connections_max` are open; a caller has `Knobs::connect_timeout` to say what it wants.

use super::dial::Link;
use super::{Inbound, Shared, serve, snapshot};
use crate::rt::clock::Deadline;
use crate::rt::net::{Listener, Stream};
use crate::types::{GroupId, NodeId};
use crate::wire::frame::{self, Frame, Kind};
use crate::wire::{Hello, Invalid, Purpose, RaftMessage, Reason, Reject, Welcome};
use raft::eraftpb::Message;
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Why an incoming connection ended, when not by being closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The stream or the conversation failed.
    #[error(transparent)]
    Frame(#[from] frame::Error),
    /// A message that no correct peer sends.
    #[error("a consensus message is refused: {0}")]
    Invalid(#[from] Invalid),
    /// The caller was turned away.
    #[error("{}", .0.text)]
    Rejected(Reject),
    /// The node's loop is gone.
    #[error("this node is stopping")]
    Stopping,
}

impl Error {
    /// True when a person should hear of it, as opposed to connections that simply break.
    fn is_refusal(&self) -> bool {
        match self {
            Error::Frame(error) => {
                !matches!(error, frame::Error::Io(_) | frame::Error::Torn { .. })
            }
            // A caller that comes before this node is ready concerns nobody: it calls again.
            Error::Rejected(reject) => reject.reason() != Reason::NotReady,
            Error::Invalid(_) => true,
            Error::Stopping => false,
        }
    }
}

/// Accepts connections until the task is ended.
pub(super) async fn run(shared: Arc<Shared>, mut listener: Box<dyn Listener>) {
    let slots = Arc::new(Semaphore::new(shared.knobs.peer_connections_max));
    loop {
        match listener.accept().await {
            Ok((stream, address)) => start(&shared, &slots, stream, address),
            Err(error) => {
                // Out of file descriptors, most likely: the pause lets connections end before the next try.
                shared.refused("cannot accept a peer connection", &error.to_string());
                shared.env.clock.sleep(shared.knobs.reconnect_max).await;
            }
        }
    }
}

fn start(shared: &Arc<Shared>, slots: &Arc<Semaphore>, stream: Stream, address: String) {
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        let max = shared.knobs.peer_connections_max;
        return shared.refused(&whom(&address), &format!("{max} are open already"));
    };
    let world = Arc::clone(shared);
    shared.tasks.spawn(connection(world, stream, address, slot));
}

/// An incoming connection, for people.
fn whom(address: &str) -> String {
    format!("peer connection from {address}")
}

/// One connection from its first frame to its end; `_slot` is free again after it.
async fn connection(
    shared: Arc<Shared>,
    stream: Stream,
    address: String,
    _slot: OwnedSemaphorePermit,
) {
    let mut link = Link::over(stream, &shared);
    let limit = shared.knobs.connect_timeout;
    let first = shared.env.clock.timeout(limit, link.reader.next()).await;
    let ended = match first {
        Ok(Ok(Some(frame))) => answer(&shared, &mut link, frame).await,
        Ok(Err(error @ (frame::Error::Io(_) | frame::Error::Torn { .. }))) => Err(error.into()),
        Ok(Err(error)) => {
            let reject = Reject::new(Reason::BadGreeting, error.to_string());
            turn_away(&shared, &mut link, reject).await
        }
        // Closed without a word, or silent for too long: a port scan or a dead caller.
        Ok(Ok(None)) | Err(_) => Ok(()),
    };
    if let Err(error) = ended
        && error.is_refusal()
    {
        shared.refused(&whom(&address), &error.to_string());
    }
}

/// Does what the first frame asks.
async fn answer(shared: &Arc<Shared>, link: &mut Link, frame: Frame) -> Result<(), Error> {
    match frame.kind {
        Kind::Hello => {
            let hello: Hello = frame.open(Kind::Hello, "a hello")?;
            member(shared, link, hello).await
        }
        Kind::Probe => serve::probe(shared, link, frame.open(Kind::Probe, "a probe")?).await,
        Kind::Join => serve::join(shared, link, frame.open(Kind::Join, "a join")?).await,
        other => {
            let text = format!("a connection cannot begin with a {other:?} frame");
            turn_away(shared, link, Reject::new(Reason::BadGreeting, text)).await
        }
    }
}

/// Tells the caller why not.
async fn turn_away(shared: &Shared, link: &mut Link, reject: Reject) -> Result<(), Error> {
    // The caller may be gone, or no Seaworthy node at all: the refusal stands either way.
    link.say(shared, Kind::Reject, &reject).await.ok();
    Err(Error::Rejected(reject))
}

/// A connection between members.
async fn member(shared: &Arc<Shared>, link: &mut Link, hello: Hello) -> Result<(), Error> {
    let purpose = match check(shared, &hello) {
        Ok(purpose) => purpose,
        Err(reject) => return turn_away(shared, link, reject).await,
    };
    let Some(me) = shared.gate.me() else {
        let text = "this node is still starting";
        return turn_away(shared, link, Reject::new(Reason::NotReady, text)).await;
    };
    super::meet(shared, &hello);
    let end = enter(shared, hello.sender(), purpose);
    let welcome = Welcome {
        id: me.id.0,
        incarnation: me.incarnation.0,
    };
    link.say(shared, Kind::Welcome, &welcome).await?;
    link.reader.set_max(shared.knobs.frame_bytes_max);
    let from = hello.sender();
    tokio::select! {
        biased; // A connection that was replaced hands over nothing more.
        () = end.cancelled() => Ok(()),
        ended = talk(shared, link, from, me.id, purpose) => ended,
    }
}

async fn talk(
    shared: &Arc<Shared>,
    link: &mut Link,
    from: NodeId,
    me: NodeId,
    purpose: Purpose,
) -> Result<(), Error> {
    match purpose {
        Purpose::Raft => receive(shared, link, from, me).await,
        Purpose::Rpc => serve::requests(shared, link, from).await,
        Purpose::Snapshot => snapshot::serve(shared, link, from).await,
    }
}

/// The purpose, if the caller may connect.
fn check(shared: &Shared, hello: &Hello) -> Result<Purpose, Reject> {
    let purpose = Purpose::try_from(hello.purpose)
        .map_err(|_| Reject::new(Reason::BadGreeting, "the connection has no known purpose"))?;
    shared.gate.admit(hello)?;
    Ok(purpose)
}

/// Ends the older connection of the same caller and purpose. The token ends this one in turn. Snapshots of several groups
/// may be under way at a time; a dead one ends by itself, because it always writes.
fn enter(shared: &Shared, from: NodeId, purpose: Purpose) -> CancellationToken {
    let end = CancellationToken::new();
    if purpose == Purpose::Snapshot {
        return end;
    }
    let older = shared.incoming().insert((from, purpose), end.clone());
    if let Some(older) = older {
        older.cancel();
    }
    end
}

/// Takes consensus messages until the connection ends.
async fn receive(shared: &Shared, link: &mut Link, from: NodeId, me: NodeId) -> Result<(), Error> {
    let every = shared.knobs.peer_idle_timeout / 4;
    let mut due = Deadline::new(&shared.env.clock);
    loop {
        let frame = tokio::select! {
            biased; // Messages first: the acknowledgement that is due is looked at after them.
            frame = link.reader.next() => frame?,
            () = due.passed() => {
                link.say(shared, Kind::Ack, &()).await?;
                continue;
            }
        };
        let Some(frame) = frame else { return Ok(()) };
        // Acknowledged before it is handed over: a full loop is not a dead peer, until it lasts.
        due.set_once(every);
        if due.is_due() {
            link.say(shared, Kind::Ack, &()).await?;
            due.clear();
        }
        hand_over(shared, link, frame, from, me).await?;
    }
}

/// Hands over `first` and what came with it, validated, group by group.
async fn hand_over(
    shared: &Shared,
    link: &mut Link,
    first: Frame,
    from: NodeId,
    me: NodeId,
) -> Result<(), Error> {
    let (mut group, message) = open(first, from, me)?;
    let mut messages = vec![message];
    while messages.len() < shared.knobs.turn_len_max
        && let Some(frame) = link.reader.ready()?
    {
        let (next, message) = open(frame, from, me)?;
        if next != group {
            let batch = std::mem::take(&mut messages);
            give(shared, from, group, batch).await?;
            group = next;
        }
        messages.push(message);
    }
    give(shared, from, group, messages).await
}

async fn give(
    shared: &Shared,
    from: NodeId,
    group: GroupId,
    messages: Vec<Message>,
) -> Result<(), Error> {
    let batch = Inbound::Raft {
        from,
        group,
        messages,
    };
    let given = shared.inbound.send(batch).await;
    given.map_err(|_| Error::Stopping)
}

fn open(frame: Frame, from: NodeId, me: NodeId) -> Result<(GroupId, Message), Error> {
    let wire: RaftMessage = frame.open(Kind::Raft, "a consensus message")?;
    let group = GroupId(wire.group);
    Ok((group, wire.open(from, me)?))
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Frame(error.into())
    }
}
