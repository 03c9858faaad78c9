//! How nodes talk: connections to and from peers over the seam's byte streams.
//!
//! To each peer goes one connection for consensus messages, one for forwarded requests, and one for each snapshot fetched.
//! Each carries data one way (answers to requests and acknowledgements aside), so that a slow snapshot or a full request
//! queue never delays a heartbeat. A new connection of the same purpose from the same peer replaces the older one, which is
//! dead even if this end has not noticed.
//!
//! Reading order: [`gate`], who may connect; `dial`, the calling side of the handshake; `peer`, outgoing consensus messages;
//! `rpc`, outgoing requests; `accept` and `serve`, everything incoming; `snapshot`, both ends of a transfer; `report`.
//!
//! Invariants:
//! - [`Transport::send`] never waits. What does not fit a queue is dropped, and the loop hears [`Inbound::Unreachable`].
//! - The loop's queue is bounded: when it is full, the connection that has news waits, and TCP makes the peer wait.
//! - A forwarded request is sent at most once. Its error says `outcome_unknown` unless it certainly never left this node.
//! - Every wait has a time-out; everything ends with the node's [`Tasks`].
//!
//! Caveats: raft-rs is not told of a `MsgSnapshot` that was dropped (its sender has `Knobs::snapshot_timeout`); a peer's
//! silence is noticed only while something waits for its acknowledgement; there is no encryption and no authentication beyond
//! cluster id, node id and incarnation, which guard against accidents, not against attackers.

mod accept;
mod dial;
pub mod gate;
mod peer;
mod report;
mod rpc;
mod serve;
mod snapshot;
#[cfg(test)]
mod testnet;
#[cfg(test)]
mod tests;

pub use gate::{Door, Gate, Identity};
pub use snapshot::{FetchError, ReadPiece, SnapshotSource};

use crate::error::Error;
use crate::knobs::Knobs;
use crate::rt::clock::Sleep;
use crate::rt::net::{BoxFuture, Listener};
use crate::rt::{Env, Event, Mono, Tasks};
use crate::types::{GroupId, Incarnation, NodeId};
use crate::wire::{
    Answer, Ask, Hello, Join, Joined, Probe, ProbeAnswer, Purpose, Reject, SnapshotFile,
    SnapshotRequest,
};
use bytes::Bytes;
use raft::eraftpb::Message;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What the transport brings to the node's loop.
pub enum Inbound {
    /// Validated consensus messages of one group from one peer, in the order they were sent.
    Raft {
        /// Sender.
        from: NodeId,
        /// Raft group.
        group: GroupId,
        /// Messages, at least one. [`crate::wire::raft::admit`] has still to be asked before each `step`.
        messages: Vec<Message>,
        /// The sender takes no writes for want of space, as it said with the last of them.
        read_only: bool,
    },
    /// Messages to this peer were lost, or may have been. Reports about one peer are merged.
    Unreachable {
        /// The peer.
        peer: NodeId,
    },
    /// A peer refuses this node's connections. Comes again with each attempt.
    Rejected {
        /// The peer.
        by: NodeId,
        /// Its reason.
        reject: Reject,
    },
    /// A peer forwards a request. Dropping `reply` answers with an error of unknown outcome.
    Forward {
        /// The peer.
        from: NodeId,
        /// What.
        ask: Ask,
        /// The asker waits no longer than this.
        deadline: Mono,
        /// Answer.
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
    /// A peer wants a snapshot file.
    Snapshot {
        /// The peer.
        from: NodeId,
        /// Which, and from where on.
        request: SnapshotRequest,
        /// The open file, or why not.
        reply: oneshot::Sender<Result<SnapshotSource, Error>>,
    },
    /// A starting node asks who this one is.
    Probe {
        /// Who asks.
        probe: Probe,
        /// Answer; dropping it closes the connection.
        reply: oneshot::Sender<ProbeAnswer>,
    },
    /// A node wants to be let in.
    Join {
        /// Who.
        join: Join,
        /// Answer.
        reply: oneshot::Sender<Result<Joined, Error>>,
    },
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its name, for people.
    pub name: String,
    /// Its peer address, `host:port`.
    pub peer: String,
    /// Life of its data directory; zero accepts any.
    pub incarnation: Incarnation,
}

/// What [`Transport::start`] needs.
pub struct Setup {
    /// The world.
    pub env: Env,
    /// Numbers.
    pub knobs: Knobs,
    /// The node's tasks.
    pub tasks: Tasks,
    /// The listening peer socket.
    pub listener: Box<dyn Listener>,
    /// Who this node is and whom it lets in.
    pub gate: Arc<dyn Gate>,
    /// The loop's queue.
    pub inbound: mpsc::Sender<Inbound>,
    /// The peer address that others reach this node by.
    pub advertise: String,
}

/// The node's connections. A clone is the same transport.
#[derive(Clone)]
pub struct Transport {
    /// What all tasks of the transport share.
    shared: Arc<Shared>,
}

/// What all tasks of the transport share.
struct Shared {
    /// The world.
    env: Env,
    /// Numbers.
    knobs: Knobs,
    /// The node's tasks.
    tasks: Tasks,
    /// Who this node is and whom it lets in.
    gate: Arc<dyn Gate>,
    /// The loop's queue.
    inbound: mpsc::Sender<Inbound>,
    /// The peer address that others reach this node by.
    advertise: String,
    /// Whether this node takes no writes for want of space; told with every consensus message.
    read_only: AtomicBool,
    /// News about peers on their way to the loop.
    reports: report::Reports,
    /// What was told of refusals lately.
    complaints: report::Complaints,
    /// Peers by id.
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    /// Ends of incoming connections, by who called for what.
    incoming: Mutex<BTreeMap<(NodeId, Purpose), CancellationToken>>,
}

/// A peer and the queues of its tasks.
struct Peer {
    /// Where it is.
    address: PeerAddress,
    /// Consensus messages to it.
    messages: mpsc::Sender<(GroupId, Message)>,
    /// Requests to it.
    calls: mpsc::Sender<rpc::Call>,
    /// Ends its tasks.
    stop: CancellationToken,
}

impl Shared {
    /// The peers.
    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Peer>> {
        self.peers
            .lock()
            .expect("no task panics while holding the peers")
    }

    /// The incoming connections.
    fn incoming(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Purpose), CancellationToken>> {
        self.incoming
            .lock()
            .expect("no task panics while holding the incoming connections")
    }

    /// Ends when a stream that makes no progress is to be given up.
    fn idle(&self) -> Sleep {
        self.env.clock.sleep(self.knobs.peer_idle_timeout)
    }

    /// Notes that `what` of `whom` was refused. The same refusal within `Knobs::peer_idle_timeout` is not news, from
    /// whatever port it comes.
    fn refused(&self, whom: &str, what: &str) {
        let now = self.env.clock.now();
        let span = self.knobs.peer_idle_timeout;
        if self.complaints.is_news(what, now, span) {
            let detail = format!("{whom}: {what}");
            self.env.journal.record(Event::Refused { detail });
        }
    }

    /// Starts `work`, which ends with `stop` or the node.
    fn spawn(&self, stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
        let stop = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased; // A peer that is gone gets nothing more, even if something is ready.
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}

impl Transport {
    /// Starts to listen. Nobody is called before [`Transport::set_peers`].
    pub fn start(setup: Setup) -> Transport {
        let shared = Arc::new(Shared {
            env: setup.env,
            knobs: setup.knobs,
            tasks: setup.tasks,
            gate: setup.gate,
            inbound: setup.inbound,
            advertise: setup.advertise,
            read_only: AtomicBool::new(false),
            reports: report::Reports::default(),
            complaints: report::Complaints::default(),
            peers: Mutex::default(),
            incoming: Mutex::default(),
        });
        let tasks = shared.tasks.clone();
        tasks.spawn(accept::run(Arc::clone(&shared), setup.listener));
        tasks.spawn(report::run(Arc::clone(&shared)));
        Transport { shared }
    }

    /// Replaces the address book (this node itself left out). Connections to and from others end; a peer whose address or
    /// incarnation changed is called anew; the others are left alone.
    pub fn set_peers(&self, book: BTreeMap<NodeId, PeerAddress>) {
        let mut peers = self.shared.peers();
        peers.retain(|id, peer| {
            let stays = book.get(id) == Some(&peer.address);
            if !stays {
                peer.stop.cancel();
            }
            stays
        });
        self.shared.incoming().retain(|(from, _), end| {
            let stays = book.contains_key(from);
            if !stays {
                end.cancel();
            }
            stays
        });
        for (id, address) in book {
            peers
                .entry(id)
                .or_insert_with(|| start_peer(&self.shared, id, address));
        }
    }

    /// Hands `messages` of `group` to the connection to `to`, without waiting. What cannot be taken is dropped and
    /// reported by [`Inbound::Unreachable`].
    pub fn send(&self, to: NodeId, group: GroupId, messages: Vec<Message>) {
        let peers = self.shared.peers();
        let taken = peers.get(&to).is_some_and(|peer| {
            messages
                .into_iter()
                .all(|message| peer.messages.try_send((group, message)).is_ok())
        });
        if !taken {
            self.shared.reports.unreachable(to);
        }
    }

    /// Says from now on whether this node takes no writes for want of space.
    pub fn set_read_only(&self, on: bool) {
        self.shared.read_only.store(on, Ordering::Relaxed);
    }

    /// Asks `to`, and gives its answer or an error by `deadline`. The request is on its way when this returns, before the
    /// future is polled.
    pub fn forward(
        &self,
        to: NodeId,
        ask: Ask,
        deadline: Mono,
    ) -> BoxFuture<'static, Result<Answer, Error>> {
        Box::pin(rpc::forward(&self.shared, to, ask, deadline))
    }

    /// Asks the node at `address`, whoever it is, whether there is a cluster already.
    pub async fn probe(&self, address: &str, probe: Probe) -> Result<ProbeAnswer, Error> {
        dial::probe(&self.shared, address, probe).await
    }

    /// Asks the node at `address` to let this one in; ends by `deadline`.
    pub async fn join(&self, address: &str, join: Join, deadline: Mono) -> Result<Joined, Error> {
        dial::join(&self.shared, address, join, deadline).await
    }

    /// Fetches the snapshot `request` from `from`, from `request.offset` on, and gives each piece to `sink` (position,
    /// bytes), one at a time and in order. A lost connection is taken up again where it ended, until nothing has come for
    /// `Knobs::snapshot_timeout`. The caller verifies the checksum of the whole.
    pub fn fetch_snapshot<S>(
        &self,
        from: NodeId,
        request: SnapshotRequest,
        file: SnapshotFile,
        sink: S,
    ) -> BoxFuture<'static, Result<(), FetchError>>
    where
        S: FnMut(u64, Bytes) -> BoxFuture<'static, io::Result<()>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Box::pin(snapshot::fetch(shared, from, request, file, sink))
    }
}

/// Makes the caller a peer until the next [`Transport::set_peers`], if the gate let it in although this node does not
/// know it: a node that lags behind learns of new members only from them, and must be able to answer.
fn meet(shared: &Arc<Shared>, hello: &Hello) {
    if hello.peer.is_empty() {
        return;
    }
    let address = PeerAddress {
        name: hello.name.clone(),
        peer: hello.peer.clone(),
        incarnation: Incarnation(hello.incarnation),
    };
    let mut peers = shared.peers();
    peers
        .entry(hello.sender())
        .or_insert_with(|| start_peer(shared, hello.sender(), address));
}

/// A peer with its two tasks.
fn start_peer(shared: &Arc<Shared>, id: NodeId, address: PeerAddress) -> Peer {
    let (messages, queue) = mpsc::channel(shared.knobs.peer_queue_len_max);
    let (calls, requests) = mpsc::channel(shared.knobs.peer_queue_len_max);
    let stop = CancellationToken::new();
    let world = Arc::clone(shared);
    shared.spawn(&stop, peer::run(world, id, address.clone(), queue));
    let world = Arc::clone(shared);
    shared.spawn(&stop, rpc::run(world, id, address.clone(), requests));
    Peer {
        address,
        messages,
        calls,
        stop,
    }
}
