//! The node's journal: one typed record for each thing that happened to it.
//!
//! In production the journal becomes log lines (and feeds `seaworthy events` later); in simulation the same records are the
//! trace, the story of a replay and the food of the oracles. So the oracles judge what operators see, and no test
//! hook is needed. Recording never blocks and never fails.

use crate::types::{ClusterId, GroupId, Incarnation, Index, NodeId, Revision, Role, Term};
use std::sync::Arc;

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The node has opened its data and starts to take part.
    Started {
        /// Its id in the cluster.
        id: NodeId,
        /// The cluster it belongs to.
        cluster: ClusterId,
        /// The life of its data directory.
        incarnation: Incarnation,
        /// Entries applied before the start, according to the store.
        applied: Index,
        /// Last entry of the log.
        last: Index,
        /// Term of the hard state.
        term: Term,
    },
    /// The log was opened; `detail` says what recovery found (torn tail cut, damage, nothing).
    Recovered {
        /// One sentence.
        detail: String,
    },
    /// The node's role, term or known leader changed.
    RoleChanged {
        /// Raft group.
        group: GroupId,
        /// New role.
        role: Role,
        /// New term.
        term: Term,
        /// Known leader, zero if none.
        leader: NodeId,
    },
    /// A vote (or pre-vote) left this node, after it was durable.
    Voted {
        /// Raft group.
        group: GroupId,
        /// Term of the vote.
        term: Term,
        /// Who got it.
        candidate: NodeId,
    },
    /// The leader proposed an entry.
    Proposed {
        /// Raft group.
        group: GroupId,
        /// Position the entry got.
        index: Index,
    },
    /// A batch is durable on this node's disk.
    Persisted {
        /// Raft group.
        group: GroupId,
        /// Last durable entry.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// Entries were cut from the end of the log because the leader's log differs.
    Truncated {
        /// Raft group.
        group: GroupId,
        /// First index that was replaced.
        from: Index,
    },
    /// The known commit index advanced.
    Committed {
        /// Raft group.
        group: GroupId,
        /// New commit index.
        index: Index,
    },
    /// One entry was applied to the state machine.
    Applied {
        /// Raft group.
        group: GroupId,
        /// Position.
        index: Index,
        /// Term of the entry.
        term: Term,
        /// Digest of the entry's payload.
        entry_hash: u64,
        /// Digest of the whole state after it.
        state_hash: u64,
        /// Revision after it.
        revision: Revision,
    },
    /// The group's configuration changed, as applied.
    MembershipChanged {
        /// Raft group.
        group: GroupId,
        /// Entry that changed it.
        index: Index,
        /// Voters after it.
        voters: Vec<NodeId>,
        /// Learners after it.
        learners: Vec<NodeId>,
    },
    /// A snapshot file was written, verified and made durable.
    SnapshotCut {
        /// Raft group.
        group: GroupId,
        /// Last entry it holds.
        index: Index,
        /// Size, bytes.
        bytes: u64,
    },
    /// A snapshot replaced this node's state.
    SnapshotInstalled {
        /// Raft group.
        group: GroupId,
        /// Last entry it holds.
        index: Index,
        /// Digest of the whole state.
        state_hash: u64,
    },
    /// Log segments below a snapshot were given up.
    Trimmed {
        /// Raft group.
        group: GroupId,
        /// First entry still kept.
        first: Index,
    },
    /// The store was thrown away and is rebuilt.
    StoreRebuilt {
        /// Why.
        reason: String,
    },
    /// The node left or entered read-only mode (disk nearly full).
    ReadOnly {
        /// True on entering.
        on: bool,
        /// Free bytes at that moment.
        free_bytes: u64,
    },
    /// A leader that cannot serve asks another voter to lead.
    HandsOver {
        /// Raft group.
        group: GroupId,
        /// Whom it asks.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// A leader that missed many workers at once asked the other managers before it believed that they are down.
    Doubted {
        /// Workers that it missed.
        silent: usize,
        /// Those of them that another manager has heard lately.
        heard: usize,
    },
    /// A connection to a peer came up or went down.
    Peer {
        /// The peer.
        peer: NodeId,
        /// True when up.
        up: bool,
        /// Why it went down, or how it came up.
        detail: String,
    },
    /// The node refused something that looked dangerous (wrong cluster, old incarnation, bad frame).
    Refused {
        /// What and why, and what to do.
        detail: String,
    },
    /// The node gave up for good: its disk failed or an invariant broke. It acknowledges nothing any more.
    Poisoned {
        /// Why.
        reason: String,
    },
    /// The node stops in order.
    Stopping {
        /// Why.
        reason: String,
    },
}

/// Takes events.
pub trait JournalSink: Send + Sync {
    /// Takes one event, at once.
    fn record(&self, event: &Event);
}

/// A node's journal.
#[derive(Clone)]
pub struct Journal(Arc<dyn JournalSink>);

impl Journal {
    /// A journal into `sink`.
    pub fn new(sink: impl JournalSink + 'static) -> Self {
        Journal(Arc::new(sink))
    }

    /// Records `event`.
    pub fn record(&self, event: Event) {
        self.0.record(&event);
    }
}
