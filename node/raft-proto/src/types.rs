//! The nine messages and four enums that `raft` exchanges and stores.
//!
//! Invariant: a field's number and wire type are those of `eraftpb.proto` and never change, since
//! they are on disk and on the wire. Enum fields are declared `int32` (the same bytes as an enum):
//! prost's `enumeration` would add a second accessor that turns an unknown number into the first
//! variant without a word. Methods are in `accessors` and `confchange`.

#![expect(
    clippy::enum_variant_names,
    reason = "the schema's own names, which raft spells out"
)]

use bytes::Bytes;
use prost::{Enumeration, Message as Prost};

/// What an entry's `data` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum EntryType {
    /// A command of the application, or nothing at all after an election.
    EntryNormal = 0,
    /// An encoded [`ConfChange`].
    EntryConfChange = 1,
    /// An encoded [`ConfChangeV2`]; empty data means "leave the joint configuration".
    EntryConfChangeV2 = 2,
}

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Prost)]
pub struct Entry {
    /// Number of an [`EntryType`].
    #[prost(int32, tag = "1")]
    pub entry_type: i32,
    /// Term of the leader that created the entry.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Position in the log, counted from 1.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The command or encoded membership change.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// Bytes that travel with `data` for the proposer's own use.
    #[prost(bytes = "bytes", tag = "6")]
    pub context: Bytes,
    /// Without effect; kept because the schema has it.
    #[prost(bool, tag = "5")]
    pub sync_log: bool,
}

/// The point in the log that a snapshot stands for.
#[derive(Clone, PartialEq, Prost)]
pub struct SnapshotMetadata {
    /// Membership as of `index`.
    #[prost(message, optional, tag = "1")]
    pub conf_state: Option<ConfState>,
    /// Index of the last entry the snapshot contains; 0 means no snapshot.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// Term of that entry.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

/// The application's state at one log index.
#[derive(Clone, PartialEq, Prost)]
pub struct Snapshot {
    /// The state, in the application's own encoding.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// Where in the log the state belongs.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SnapshotMetadata>,
}

/// What a [`Message`] asks or answers. "Local" ones never cross the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum MessageType {
    /// Local: start an election.
    MsgHup = 0,
    /// Local: the leader's heartbeat timer fired.
    MsgBeat = 1,
    /// Append these entries to the log, if you lead.
    MsgPropose = 2,
    /// Leader to follower: entries to append.
    MsgAppend = 3,
    /// Follower to leader: entries taken or refused.
    MsgAppendResponse = 4,
    /// Candidate asks for a vote.
    MsgRequestVote = 5,
    /// Vote given or refused.
    MsgRequestVoteResponse = 6,
    /// Leader to follower: a snapshot in place of compacted entries.
    MsgSnapshot = 7,
    /// Leader to follower: still here, and the commit index.
    MsgHeartbeat = 8,
    /// Follower to leader: heard.
    MsgHeartbeatResponse = 9,
    /// Local: the transport could not reach a peer.
    MsgUnreachable = 10,
    /// Local: a snapshot was delivered, or not.
    MsgSnapStatus = 11,
    /// Local: the leader checks that a majority is active.
    MsgCheckQuorum = 12,
    /// Hand leadership to the node in `from`.
    MsgTransferLeader = 13,
    /// Leader to its chosen successor: campaign now.
    MsgTimeoutNow = 14,
    /// Ask for a safe read index.
    MsgReadIndex = 15,
    /// The read index asked for.
    MsgReadIndexResp = 16,
    /// Would you vote for me in the next term?
    MsgRequestPreVote = 17,
    /// Answer to a pre-vote request.
    MsgRequestPreVoteResponse = 18,
}

/// What raft nodes send each other; which fields mean something depends on `msg_type`.
#[derive(Clone, PartialEq, Prost)]
pub struct Message {
    /// Number of a [`MessageType`].
    #[prost(int32, tag = "1")]
    pub msg_type: i32,
    /// Raft id of the receiver.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// Raft id of the sender.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// Sender's term; 0 in local messages.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// Term of the entry at `index`.
    #[prost(uint64, tag = "5")]
    pub log_term: u64,
    /// Log index: before the first of `entries`, or what the answer is about.
    #[prost(uint64, tag = "6")]
    pub index: u64,
    /// Consecutive entries, first one at `index` + 1.
    #[prost(message, repeated, tag = "7")]
    pub entries: Vec<Entry>,
    /// Sender's commit index.
    #[prost(uint64, tag = "8")]
    pub commit: u64,
    /// Term of the entry at `commit`.
    #[prost(uint64, tag = "15")]
    pub commit_term: u64,
    /// The snapshot of a `MsgSnapshot`.
    #[prost(message, optional, tag = "9")]
    pub snapshot: Option<Snapshot>,
    /// Follower's wish for a snapshot at this index or later; 0 for none.
    #[prost(uint64, tag = "13")]
    pub request_snapshot: u64,
    /// The answer is no.
    #[prost(bool, tag = "10")]
    pub reject: bool,
    /// Index from which the leader should try again.
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    /// Read request id, or the kind of campaign.
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
    /// Unsigned priority of older nodes; read only when `priority` is 0.
    #[prost(uint64, tag = "14")]
    pub deprecated_priority: u64,
    /// Candidate's election priority, higher wins.
    #[prost(int64, tag = "16")]
    pub priority: i64,
}

/// What a node must have on disk before it answers.
#[derive(Clone, PartialEq, Prost)]
pub struct HardState {
    /// Latest term the node has seen.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Raft id voted for in `term`; 0 for nobody.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// Highest index known to be committed.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

/// The members of the group, by raft id.
#[derive(Clone, PartialEq, Eq, Prost)]
pub struct ConfState {
    /// Members that vote (in the incoming configuration, if joint).
    #[prost(uint64, repeated, tag = "1")]
    pub voters: Vec<u64>,
    /// Members that only receive the log.
    #[prost(uint64, repeated, tag = "2")]
    pub learners: Vec<u64>,
    /// Voters of the configuration being left; empty unless joint.
    #[prost(uint64, repeated, tag = "3")]
    pub voters_outgoing: Vec<u64>,
    /// Outgoing voters that turn into learners when the joint phase ends.
    #[prost(uint64, repeated, tag = "4")]
    pub learners_next: Vec<u64>,
    /// Raft itself ends the joint phase once that is safe.
    #[prost(bool, tag = "5")]
    pub auto_leave: bool,
}

/// What happens to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum ConfChangeType {
    /// Becomes a voter, whether new or a learner before.
    AddNode = 0,
    /// Leaves the group.
    RemoveNode = 1,
    /// Becomes a learner.
    AddLearnerNode = 2,
}

/// How a [`ConfChangeV2`] passes from one membership to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum ConfChangeTransition {
    /// In one step if a single member changes, else like `Implicit`.
    Auto = 0,
    /// Through a joint phase that raft ends by itself.
    Implicit = 1,
    /// Through a joint phase that the application ends.
    Explicit = 2,
}

/// A change of one member, in the older form.
#[derive(Clone, PartialEq, Prost)]
pub struct ConfChange {
    /// Number of a [`ConfChangeType`].
    #[prost(int32, tag = "2")]
    pub change_type: i32,
    /// Raft id of the member.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// Bytes for the application, applied together with the change.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
    /// The application's number for this change; raft ignores it.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// One member's part of a [`ConfChangeV2`].
#[derive(Clone, PartialEq, Prost)]
pub struct ConfChangeSingle {
    /// Number of a [`ConfChangeType`].
    #[prost(int32, tag = "1")]
    pub change_type: i32,
    /// Raft id of the member.
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
}

/// Any number of member changes that take effect together.
#[derive(Clone, PartialEq, Prost)]
pub struct ConfChangeV2 {
    /// Number of a [`ConfChangeTransition`].
    #[prost(int32, tag = "1")]
    pub transition: i32,
    /// The members that change; none means "leave the joint configuration".
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfChangeSingle>,
    /// Bytes for the application, applied together with the change.
    #[prost(bytes = "bytes", tag = "3")]
    pub context: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a fixed field: each test value is its own field number, so a swap would show.
    fn bytes(number: u8) -> Bytes {
        Bytes::copy_from_slice(&[number])
    }

    /// Encodes to exactly `wire`, and `wire` decodes to the same message.
    #[track_caller]
    fn assert_wire<M: Prost + PartialEq + Default + std::fmt::Debug>(message: M, wire: &[u8]) {
        assert_eq!(message.encode_to_vec(), wire);
        assert_eq!(M::decode(wire).expect("own encoding"), message);
    }

    #[test]
    fn entry_fields_have_the_schema_numbers() {
        let entry = Entry {
            entry_type: 1,
            term: 2,
            index: 3,
            data: bytes(4),
            context: bytes(6),
            sync_log: true,
        };
        assert_wire(
            entry,
            &[0x08, 1, 0x10, 2, 0x18, 3, 0x22, 1, 4, 0x28, 1, 0x32, 1, 6],
        );
    }

    #[test]
    fn snapshot_fields_have_the_schema_numbers() {
        let conf_state = ConfState {
            voters: vec![1],
            learners: vec![2],
            voters_outgoing: vec![3],
            learners_next: vec![4],
            auto_leave: true,
        };
        // Repeated numbers are packed: a length, then the numbers.
        let state = [0x0a, 1, 1, 0x12, 1, 2, 0x1a, 1, 3, 0x22, 1, 4, 0x28, 1];
        assert_wire(conf_state.clone(), &state);
        let metadata = SnapshotMetadata {
            conf_state: Some(conf_state),
            index: 2,
            term: 3,
        };
        let snapshot = Snapshot {
            data: bytes(1),
            metadata: Some(metadata),
        };
        let wire = [
            &[0x0a, 1, 1, 0x12, 20, 0x0a, 14][..],
            &state,
            &[0x10, 2, 0x18, 3],
        ]
        .concat();
        assert_wire(snapshot, &wire);
    }

    #[test]
    fn message_fields_have_the_schema_numbers() {
        let message = Message {
            msg_type: 1,
            to: 2,
            from: 3,
            term: 4,
            log_term: 5,
            index: 6,
            entries: vec![Entry::default()],
            commit: 8,
            commit_term: 15,
            snapshot: Some(Snapshot::default()),
            request_snapshot: 13,
            reject: true,
            reject_hint: 11,
            context: bytes(12),
            deprecated_priority: 14,
            priority: 16,
        };
        let low = [
            0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4, 0x28, 5, 0x30, 6, 0x3a, 0, 0x40, 8,
        ];
        let high = [
            0x4a, 0, 0x50, 1, 0x58, 11, 0x62, 1, 12, 0x68, 13, 0x70, 14, 0x78, 15,
        ];
        assert_wire(message, &[&low[..], &high, &[0x80, 1, 16]].concat());
    }

    #[test]
    fn state_and_change_fields_have_the_schema_numbers() {
        assert_wire(
            HardState {
                term: 1,
                vote: 2,
                commit: 3,
            },
            &[0x08, 1, 0x10, 2, 0x18, 3],
        );
        let change = ConfChange {
            id: 1,
            change_type: 2,
            node_id: 3,
            context: bytes(4),
        };
        assert_wire(change, &[0x08, 1, 0x10, 2, 0x18, 3, 0x22, 1, 4]);
        let single = ConfChangeSingle {
            change_type: 1,
            node_id: 2,
        };
        let many = ConfChangeV2 {
            transition: 1,
            changes: vec![single],
            context: bytes(3),
        };
        assert_wire(many, &[0x08, 1, 0x12, 4, 0x08, 1, 0x10, 2, 0x1a, 1, 3]);
    }

    #[test]
    fn default_fields_take_no_bytes_and_unknown_fields_are_skipped() {
        assert_wire(Message::default(), &[]);
        let newer = [0x10, 7, 0x9a, 0x06, 2, 1, 2];
        let state = HardState::decode(&newer[..]).expect("a field of a newer schema");
        assert_eq!(
            state,
            HardState {
                vote: 7,
                ..HardState::default()
            }
        );
    }

    #[test]
    fn enum_numbers_end_where_the_schema_ends() {
        assert_eq!(
            MessageType::try_from(18),
            Ok(MessageType::MsgRequestPreVoteResponse)
        );
        assert!(MessageType::try_from(19).is_err());
        assert!(MessageType::try_from(-1).is_err());
        assert!(EntryType::try_from(3).is_err());
        assert!(ConfChangeType::try_from(3).is_err());
        assert!(ConfChangeTransition::try_from(3).is_err());
    }

    #[test]
    fn decoding_from_bytes_shares_the_payload() {
        let entry = Entry {
            data: Bytes::from(vec![7; 64]),
            ..Entry::default()
        };
        let wire = Bytes::from(entry.encode_to_vec());
        let decoded = Entry::decode(wire.clone()).expect("own encoding");
        let within = wire.as_ptr_range();
        assert!(
            within.contains(&decoded.data.as_ptr()),
            "a decoded payload is not copied"
        );
        assert_eq!(decoded.clone().data.as_ptr(), decoded.data.as_ptr());
    }
}
