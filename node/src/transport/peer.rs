//! The outgoing connection for consensus messages to one peer.
//!
//! Kept open whether or not there is something to say, so that a vote request does not wait for a handshake. Queued messages
//! leave in one write. The peer acknowledges now and then; when something was sent and nothing comes back for
//! `Knobs::peer_idle_timeout`, the connection is given up, because a peer that lost its power does not close it.

use super::dial::{self, Link, Pause};
use super::{PeerAddress, Shared};
use crate::rt::Event;
use crate::rt::clock::Deadline;
use crate::types::{GroupId, NodeId};
use crate::wire::raft::to_wire;
use crate::wire::{Kind, Purpose, frame};
use raft::eraftpb::Message;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Messages waiting for the connection.
type Queue = mpsc::Receiver<(GroupId, Message)>;

/// Keeps the connection to `id` until the task is ended.
pub(super) async fn run(shared: Arc<Shared>, id: NodeId, address: PeerAddress, mut queue: Queue) {
    let mut pause = Pause::new(&shared, &format!("transport.raft.{id}"));
    let mut complaint = String::new();
    loop {
        match dial::dial(&shared, id, &address, Purpose::Raft).await {
            Ok(link) => {
                complaint.clear();
                journal(&shared, id, true, format!("connected to {}", address.peer));
                let since = shared.env.clock.now();
                let error = talk(&shared, id, link, &mut queue).await;
                // One that is closed as soon as it stands is no success: somebody else may speak for this node's id.
                if shared.env.clock.now().since(since) >= shared.knobs.reconnect_max {
                    pause.reset();
                }
                journal(&shared, id, false, error.to_string());
                shared.reports.unreachable(id);
            }
            Err(error) => {
                complain(&shared, id, &error, &mut complaint);
                if drop_queued(&mut queue) {
                    shared.reports.unreachable(id);
                }
            }
        }
        pause.wait().await;
    }
}

fn journal(shared: &Shared, peer: NodeId, up: bool, detail: String) {
    shared.env.journal.record(Event::Peer { peer, up, detail });
}

/// Notes a refusal, once for as long as it stays the same.
fn complain(shared: &Shared, id: NodeId, error: &dial::Error, last: &mut String) {
    if let dial::Error::Rejected(reject) = error {
        shared.reports.rejected(id, reject.clone());
    }
    let text = error.to_string();
    if error.is_refusal() && *last != text {
        shared.refused(&format!("calling node {id}"), &text);
        *last = text;
    }
}

/// Drops what would be stale by the time a connection is there. True when there was something.
fn drop_queued(queue: &mut Queue) -> bool {
    let mut any = false;
    while queue.try_recv().is_ok() {
        any = true;
    }
    any
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The stream or the conversation failed.
    #[error("connection lost: {0}")]
    Frame(#[from] frame::Error),
    /// The peer closed it.
    #[error("closed by the peer")]
    Closed,
    /// Nothing came back.
    #[error("the peer has been silent for too long")]
    Silent,
}

/// Sends what is queued until the connection ends.
async fn talk(shared: &Shared, id: NodeId, mut link: Link, queue: &mut Queue) -> Ended {
    let mut batch = Vec::new();
    // Set while something was sent and nothing has come back.
    let mut silence = Deadline::new(&shared.env.clock);
    let turn = shared.knobs.turn_len_max;
    loop {
        tokio::select! {
            biased; // Signs of life first, else a busy queue could hide them.
            heard = link.reader.next() => match check_ack(heard) {
                Ok(()) => silence.clear(),
                Err(ended) => return ended,
            },
            () = silence.passed() => return Ended::Silent,
            taken = queue.recv_many(&mut batch, turn) => {
                if taken == 0 {
                    return Ended::Closed;
                }
                silence.set_once(shared.knobs.peer_idle_timeout);
                if let Err(error) = write(shared, id, &mut link, batch.drain(..)).await {
                    return error.into();
                }
            }
        }
    }
}

/// The peer says nothing but acknowledgements here.
fn check_ack(heard: Result<Option<frame::Frame>, frame::Error>) -> Result<(), Ended> {
    let frame = heard?.ok_or(Ended::Closed)?;
    Ok(frame.open::<()>(Kind::Ack, "an acknowledgement")?)
}

/// Writes a batch at once, or in parts when it is very large.
async fn write(
    shared: &Shared,
    id: NodeId,
    link: &mut Link,
    batch: impl Iterator<Item = (GroupId, Message)>,
) -> Result<(), frame::Error> {
    let part = usize::try_from(shared.knobs.append_bytes_max).unwrap_or(usize::MAX);
    for (group, message) in batch {
        if let Err(why) = push(link, group, &message) {
            // Nothing this peer can do about it; the connection is sound and other messages may go.
            shared.refused(&format!("not sent to node {id}"), &why);
        }
        if link.writer.gathered() >= part {
            link.writer.flush(|| shared.idle()).await?;
        }
    }
    link.writer.flush(|| shared.idle()).await
}

/// Gathers one message; the error is for people.
fn push(link: &mut Link, group: GroupId, message: &Message) -> Result<(), String> {
    let wire = to_wire(group, message).map_err(|error| error.to_string())?;
    let pushed = link.writer.push(Kind::Raft, &wire);
    pushed.map_err(|error| error.to_string())
}
