//! Consensus messages on the wire, and the checks between the wire and raft-rs.
//!
//! raft-rs trusts its messages: an unknown enum number, a read request without an entry or a configuration that contradicts
//! itself makes it panic. So a decoded [`RaftMessage`] becomes raft's own `Message` only through [`RaftMessage::open`], which
//! refuses everything that no correct node sends. What depends on the receiver's state as well is checked by [`admit`],
//! which the node's loop calls right before `step`.
//!
//! Neither sent nor accepted although raft-rs knows them: `MsgPropose` and `MsgTransferLeader`, because requests travel as
//! [`super::Forward`] (and raft-rs 0.7.0 panics when a follower that knows a leader receives a `MsgTransferLeader`). Negative
//! priorities are refused too: a node of term zero would panic over one.
//!
//! A snapshot's contents never travel here: `Snapshot.data` is an encoded [`SnapshotFile`], by which the receiver fetches
//! the file over a connection of its own.

use crate::types::{GroupId, NodeId};
use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType,
    Snapshot, SnapshotMetadata,
};
use raft::{RawNode, Storage};
use std::collections::BTreeSet;

/// Greatest term, index or id believed: far beyond any real one, and far from overflow in raft-rs's sums.
const NUMBER_MAX: u64 = 1 << 62;

/// Longest context of a message or read request, bytes.
const CONTEXT_LEN_MAX: usize = 4 << 10;

/// Most members of a snapshot's configuration, in any one list.
const MEMBERS_LEN_MAX: usize = 1024;

/// A consensus message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaftMessage {
    /// Raft group.
    #[prost(uint64, tag = "1")]
    pub group: u64,
    /// Number of raft's message type.
    #[prost(int32, tag = "2")]
    pub kind: i32,
    /// Sender.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// Receiver.
    #[prost(uint64, tag = "4")]
    pub to: u64,
    /// Sender's term.
    #[prost(uint64, tag = "5")]
    pub term: u64,
    /// Term of the entry at `index`.
    #[prost(uint64, tag = "6")]
    pub log_term: u64,
    /// Index before the first of `entries`, or what the answer is about.
    #[prost(uint64, tag = "7")]
    pub index: u64,
    /// Consecutive entries.
    #[prost(message, repeated, tag = "8")]
    pub entries: Vec<WireEntry>,
    /// Sender's commit index.
    #[prost(uint64, tag = "9")]
    pub commit: u64,
    /// Term of the entry at `commit`.
    #[prost(uint64, tag = "10")]
    pub commit_term: u64,
    /// The snapshot offered.
    #[prost(message, optional, tag = "11")]
    pub snapshot: Option<WireSnapshot>,
    /// Follower's wish for a snapshot at this index or later.
    #[prost(uint64, tag = "12")]
    pub request_snapshot: u64,
    /// The answer is no.
    #[prost(bool, tag = "13")]
    pub reject: bool,
    /// Index from which the leader should try again.
    #[prost(uint64, tag = "14")]
    pub reject_hint: u64,
    /// Read request id, or the kind of campaign.
    #[prost(bytes = "bytes", tag = "15")]
    pub context: Bytes,
    /// Candidate's priority.
    #[prost(int64, tag = "16")]
    pub priority: i64,
    /// The sender takes no writes for want of space: leadership is not for it. Not raft's: the transport sets and reads it.
    #[prost(bool, tag = "17")]
    pub read_only: bool,
}

/// A log entry on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireEntry {
    /// Number of raft's entry type.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Term of the leader that created it.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Position in the log.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The command or membership change.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// The proposer's own bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub context: Bytes,
}

/// A snapshot offered: where it belongs and which file it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireSnapshot {
    /// Last entry it contains.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Term of that entry.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Voters as of `index`.
    #[prost(uint64, repeated, tag = "3")]
    pub voters: Vec<u64>,
    /// Learners.
    #[prost(uint64, repeated, tag = "4")]
    pub learners: Vec<u64>,
    /// Voters of the configuration being left.
    #[prost(uint64, repeated, tag = "5")]
    pub voters_outgoing: Vec<u64>,
    /// Outgoing voters that become learners.
    #[prost(uint64, repeated, tag = "6")]
    pub learners_next: Vec<u64>,
    /// Raft itself ends the joint phase.
    #[prost(bool, tag = "7")]
    pub auto_leave: bool,
    /// The file.
    #[prost(message, optional, tag = "8")]
    pub file: Option<SnapshotFile>,
}

/// What `Snapshot.data` holds in place of the state: which file to fetch.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SnapshotFile {
    /// Size of the file, bytes.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Checksum of the contents (xxh3-64).
    #[prost(fixed64, tag = "2")]
    pub checksum: u64,
}

impl SnapshotFile {
    /// As the `data` of a raft snapshot.
    pub fn to_data(self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// From the `data` of a raft snapshot.
    pub fn from_data(data: &[u8]) -> Result<Self, Invalid> {
        Self::decode(data).map_err(|_| Invalid::Snapshot("its data names no file"))
    }
}

/// Why a message is refused. A correct peer never causes one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A type raft does not know.
    #[error("unknown message type {0}")]
    UnknownType(i32),
    /// A type that must not come from outside.
    #[error("a {0:?} does not belong on the wire")]
    NotForWire(MessageType),
    /// The message is not from or not for the ends of its connection.
    #[error("a message from {from} to {to} came on the connection from {peer} to {me}")]
    WrongEnds {
        /// Sender in the message.
        from: u64,
        /// Receiver in the message.
        to: u64,
        /// Whose connection it is.
        peer: NodeId,
        /// This node.
        me: NodeId,
    },
    /// A number is out of any reason.
    #[error("{field} is {value}, which no log ever reaches")]
    Number {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Terms contradict each other.
    #[error("term {term} does not fit a {kind:?} with log term {log_term}")]
    Term {
        /// Type.
        kind: MessageType,
        /// Term of the message.
        term: u64,
        /// Term of the entry it speaks of.
        log_term: u64,
    },
    /// An entry is damaged or out of its order.
    #[error("entry {position} of the message is wrong: {why}")]
    Entry {
        /// Which, from zero.
        position: usize,
        /// Why.
        why: &'static str,
    },
    /// The snapshot offered is wrong.
    #[error("the snapshot offered is wrong: {0}")]
    Snapshot(&'static str),
    /// Something is missing or too much for the type.
    #[error("a {kind:?} {why}")]
    Shape {
        /// Type.
        kind: MessageType,
        /// Why.
        why: &'static str,
    },
    /// The sender believes that this node holds entries which it does not hold.
    #[error(
        "the leader says that entry {commit} is committed and held here, but the log ends at {last}: it lost entries"
    )]
    LostEntries {
        /// Commit index in the message.
        commit: u64,
        /// Last entry here.
        last: u64,
    },
}

/// `message` of `group` as it travels; payloads are shared, not copied.
pub fn to_wire(group: GroupId, message: &Message) -> Result<RaftMessage, Invalid> {
    message_type(message.msg_type)?;
    let snapshot = message.snapshot.as_ref().map(snapshot_to_wire);
    Ok(RaftMessage {
        group: group.0,
        kind: message.msg_type,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry_to_wire).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: snapshot.transpose()?,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.clone(),
        priority: message.priority,
        read_only: false,
    })
}

fn entry_to_wire(entry: &Entry) -> WireEntry {
    WireEntry {
        kind: entry.entry_type,
        term: entry.term,
        index: entry.index,
        data: entry.data.clone(),
        context: entry.context.clone(),
    }
}

fn snapshot_to_wire(snapshot: &Snapshot) -> Result<WireSnapshot, Invalid> {
    let metadata = snapshot.get_metadata();
    let members = metadata.get_conf_state();
    Ok(WireSnapshot {
        index: metadata.index,
        term: metadata.term,
        voters: members.voters.clone(),
        learners: members.learners.clone(),
        voters_outgoing: members.voters_outgoing.clone(),
        learners_next: members.learners_next.clone(),
        auto_leave: members.auto_leave,
        file: Some(SnapshotFile::from_data(&snapshot.data)?),
    })
}

impl RaftMessage {
    /// The raft message, if it came from `peer`, is for `me`, and makes sense.
    pub fn open(self, peer: NodeId, me: NodeId) -> Result<Message, Invalid> {
        let (from, to) = (self.from, self.to);
        if from != peer.0 || to != me.0 || from == 0 || to == 0 || from == to {
            return Err(Invalid::WrongEnds { from, to, peer, me });
        }
        self.try_into()
    }

    /// Numbers that raft-rs adds to.
    fn check_numbers(&self) -> Result<(), Invalid> {
        let numbers = [
            ("from", self.from),
            ("to", self.to),
            ("term", self.term),
            ("log_term", self.log_term),
            ("index", self.index),
            ("commit", self.commit),
            ("commit_term", self.commit_term),
            ("request_snapshot", self.request_snapshot),
            ("reject_hint", self.reject_hint),
        ];
        match numbers.into_iter().find(|(_, value)| *value > NUMBER_MAX) {
            Some((field, value)) => Err(Invalid::Number { field, value }),
            None => Ok(()),
        }
    }

    /// Terms: none is younger than the message's own, and only read requests have none.
    fn check_terms(&self, kind: MessageType) -> Result<(), Invalid> {
        let has_term = self.term > 0;
        let ordered = self.log_term <= self.term && self.commit_term <= self.term;
        let fits = match kind {
            MessageType::MsgReadIndex => !has_term && ordered,
            // The place before the first entry is the start of the log, or an entry with a term.
            MessageType::MsgAppend => {
                has_term && ordered && (self.index == 0) == (self.log_term == 0)
            }
            _ => has_term && ordered,
        };
        if fits {
            return Ok(());
        }
        let (term, log_term) = (self.term, self.log_term);
        Err(Invalid::Term {
            kind,
            term,
            log_term,
        })
    }

    /// What must and must not be there, by type.
    fn check_shape(&self, kind: MessageType) -> Result<(), Invalid> {
        let wrong = |why| Err(Invalid::Shape { kind, why });
        let is_read = matches!(
            kind,
            MessageType::MsgReadIndex | MessageType::MsgReadIndexResp
        );
        if is_read && !matches!(self.entries.as_slice(), [one] if is_read_request(one)) {
            return wrong("needs exactly one request id");
        }
        if !is_read && kind != MessageType::MsgAppend && !self.entries.is_empty() {
            return wrong("has entries");
        }
        if (kind == MessageType::MsgSnapshot) != self.snapshot.is_some() {
            return wrong("has a snapshot where none belongs, or none where one does");
        }
        if self.context.len() > CONTEXT_LEN_MAX {
            return wrong("has too long a context");
        }
        if self.priority < 0 {
            return wrong("has a negative priority");
        }
        Ok(())
    }
}

/// True for the one entry of a read request or its answer.
fn is_read_request(entry: &WireEntry) -> bool {
    !entry.data.is_empty()
        && entry.data.len() <= CONTEXT_LEN_MAX
        && entry.kind == EntryType::EntryNormal as i32
}

/// The type, if it may come from outside.
fn message_type(number: i32) -> Result<MessageType, Invalid> {
    let kind = MessageType::try_from(number).map_err(|_| Invalid::UnknownType(number))?;
    match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => Ok(kind),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => Err(Invalid::NotForWire(kind)),
    }
}

impl TryFrom<RaftMessage> for Message {
    type Error = Invalid;

    /// Everything [`RaftMessage::open`] checks but the ends of the connection.
    fn try_from(wire: RaftMessage) -> Result<Message, Invalid> {
        let kind = message_type(wire.kind)?;
        wire.check_numbers()?;
        wire.check_terms(kind)?;
        wire.check_shape(kind)?;
        if kind == MessageType::MsgAppend {
            check_entries(&wire)?;
        }
        let snapshot = wire
            .snapshot
            .map(|one| snapshot_from_wire(one, wire.term))
            .transpose()?;
        Ok(Message {
            msg_type: wire.kind,
            to: wire.to,
            from: wire.from,
            term: wire.term,
            log_term: wire.log_term,
            index: wire.index,
            entries: wire.entries.into_iter().map(entry_from_wire).collect(),
            commit: wire.commit,
            commit_term: wire.commit_term,
            snapshot,
            request_snapshot: wire.request_snapshot,
            reject: wire.reject,
            reject_hint: wire.reject_hint,
            context: wire.context,
            deprecated_priority: 0,
            priority: wire.priority,
        })
    }
}

/// Entries follow the message's index without a gap, and terms never fall nor exceed the message's.
fn check_entries(wire: &RaftMessage) -> Result<(), Invalid> {
    let (mut index, mut term) = (wire.index, wire.log_term);
    for (position, entry) in wire.entries.iter().enumerate() {
        let wrong = |why| Err(Invalid::Entry { position, why });
        if entry.index != index + 1 {
            return wrong("its index does not follow the one before");
        }
        if entry.term == 0 || entry.term < term || entry.term > wire.term {
            return wrong("its term is below the one before or above the message's");
        }
        if !payload_is_sound(entry) {
            return wrong("its type is unknown or its membership change cannot be read");
        }
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

/// The entry's type is known, and a membership change in it can be applied without a panic.
fn payload_is_sound(entry: &WireEntry) -> bool {
    let known = |kind: i32, id: u64| {
        ConfChangeType::try_from(kind).is_ok() && (1..=NUMBER_MAX).contains(&id)
    };
    match EntryType::try_from(entry.kind) {
        Err(_) => false,
        Ok(EntryType::EntryNormal) => true,
        Ok(EntryType::EntryConfChange) => ConfChange::decode(entry.data.clone())
            .is_ok_and(|change| known(change.change_type, change.node_id)),
        Ok(EntryType::EntryConfChangeV2) => {
            ConfChangeV2::decode(entry.data.clone()).is_ok_and(|change| {
                let steps = &change.changes;
                (0..=2).contains(&change.transition)
                    && steps.len() <= MEMBERS_LEN_MAX
                    && steps.iter().all(|one| known(one.change_type, one.node_id))
            })
        }
    }
}

fn entry_from_wire(wire: WireEntry) -> Entry {
    Entry {
        entry_type: wire.kind,
        term: wire.term,
        index: wire.index,
        data: wire.data,
        context: wire.context,
        sync_log: false,
    }
}

/// The snapshot, if its position is possible and its configuration does not contradict itself.
fn snapshot_from_wire(wire: WireSnapshot, message_term: u64) -> Result<Snapshot, Invalid> {
    if !(1..=NUMBER_MAX).contains(&wire.index) || !(1..=message_term).contains(&wire.term) {
        return Err(Invalid::Snapshot("its position is impossible"));
    }
    let Some(file) = wire.file.filter(|file| file.size > 0) else {
        return Err(Invalid::Snapshot("it names no file"));
    };
    let (index, term) = (wire.index, wire.term);
    let conf_state = members_from_wire(wire)?;
    Ok(Snapshot {
        data: file.to_data(),
        metadata: Some(SnapshotMetadata {
            conf_state: Some(conf_state),
            index,
            term,
        }),
    })
}

/// The configuration, if raft-rs can restore it: it panics over one that it would not itself produce.
fn members_from_wire(wire: WireSnapshot) -> Result<ConfState, Invalid> {
    let voters = id_set(&wire.voters)?;
    let learners = id_set(&wire.learners)?;
    let outgoing = id_set(&wire.voters_outgoing)?;
    let next = id_set(&wire.learners_next)?;
    let joint = !outgoing.is_empty();
    let contradicts = voters.is_empty()
        || !learners.is_disjoint(&voters)
        || !learners.is_disjoint(&outgoing)
        || !next.is_disjoint(&voters)
        || !next.is_subset(&outgoing)
        || (wire.auto_leave && !joint);
    if contradicts {
        return Err(Invalid::Snapshot("its members contradict each other"));
    }
    Ok(ConfState {
        voters: wire.voters,
        learners: wire.learners,
        voters_outgoing: wire.voters_outgoing,
        learners_next: wire.learners_next,
        auto_leave: wire.auto_leave,
    })
}

/// The ids as a set, if each is possible and named once.
fn id_set(ids: &[u64]) -> Result<BTreeSet<u64>, Invalid> {
    let set: BTreeSet<u64> = ids.iter().copied().collect();
    let possible = |id: &u64| (1..=NUMBER_MAX).contains(id);
    if ids.len() > MEMBERS_LEN_MAX || set.len() != ids.len() || !set.iter().all(possible) {
        return Err(Invalid::Snapshot("its members are impossible"));
    }
    Ok(set)
}

/// What must hold of `message` against the receiving node's state, right before `step`.
///
/// raft-rs panics when a leader of the present term says that entries are committed here which this log does not have. A
/// correct leader says so only to a node that has lost entries it acknowledged: the caller decides what then becomes of
/// this node (it must not vote).
pub fn admit<S: Storage>(message: &Message, node: &RawNode<S>) -> Result<(), Invalid> {
    let last = node.raft.raft_log.last_index();
    let believed = message.msg_type == MessageType::MsgHeartbeat as i32
        && message.term >= node.raft.term
        && message.commit > last;
    if believed {
        let commit = message.commit;
        return Err(Invalid::LostEntries { commit, last });
    }
    Ok(())
}
