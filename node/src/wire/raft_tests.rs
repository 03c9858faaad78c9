//! Tests of [`super::raft`]: what a correct node sends comes through unchanged, and whatever else comes, raft-rs never
//! panics over what came through.

use super::raft::{Invalid, RaftMessage, SnapshotFile, WireEntry, WireSnapshot, admit, to_wire};
use crate::types::{GroupId, NodeId};
use bytes::Bytes;
use proptest::prelude::*;
use raft::eraftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata};
use raft::storage::MemStorage;
use raft::{Config, RawNode};

const PEER: NodeId = NodeId(2);
const ME: NodeId = NodeId(1);

/// An append of two entries, as a correct leader sends it.
fn append() -> RaftMessage {
    let entry = |index, term| WireEntry {
        term,
        index,
        data: Bytes::from_static(b"x"),
        ..WireEntry::default()
    };
    RaftMessage {
        kind: MessageType::MsgAppend as i32,
        from: PEER.0,
        to: ME.0,
        term: 3,
        log_term: 1,
        index: 5,
        entries: vec![entry(6, 2), entry(7, 3)],
        commit: 5,
        ..RaftMessage::default()
    }
}

fn of(kind: MessageType) -> RaftMessage {
    RaftMessage {
        kind: kind as i32,
        from: PEER.0,
        to: ME.0,
        term: 3,
        ..RaftMessage::default()
    }
}

fn offer() -> RaftMessage {
    RaftMessage {
        snapshot: Some(WireSnapshot {
            index: 10,
            term: 2,
            voters: vec![1, 2, 3],
            learners: vec![4],
            file: Some(SnapshotFile {
                size: 9,
                checksum: 8,
            }),
            ..WireSnapshot::default()
        }),
        ..of(MessageType::MsgSnapshot)
    }
}

fn open(wire: RaftMessage) -> Result<Message, Invalid> {
    wire.open(PEER, ME)
}

#[test]
fn a_correct_message_comes_through_unchanged() {
    let read = RaftMessage {
        term: 0,
        entries: vec![WireEntry {
            data: Bytes::from_static(b"id"),
            ..WireEntry::default()
        }],
        ..of(MessageType::MsgReadIndex)
    };
    for wire in [append(), offer(), read, of(MessageType::MsgHeartbeat)] {
        let message = open(wire.clone()).unwrap();
        assert_eq!(to_wire(GroupId(0), &message).unwrap(), wire);
    }
}

#[test]
fn a_snapshot_without_a_file_and_a_local_message_cannot_leave() {
    let mut message = Message::default();
    let local = to_wire(GroupId(0), &message);
    assert_eq!(local, Err(Invalid::NotForWire(MessageType::MsgHup)));
    message.set_msg_type(MessageType::MsgSnapshot);
    message.set_snapshot(Snapshot {
        data: Bytes::from_static(b"\xff\xff"),
        metadata: None,
    });
    assert!(to_wire(GroupId(0), &message).is_err());
}

#[test]
fn local_and_unknown_types_are_refused() {
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
    ] {
        assert_eq!(open(of(kind)), Err(Invalid::NotForWire(kind)));
    }
    for number in [-1, 19, i32::MAX] {
        let wire = RaftMessage {
            kind: number,
            ..append()
        };
        assert_eq!(open(wire), Err(Invalid::UnknownType(number)));
    }
}

#[test]
fn the_ends_must_be_those_of_the_connection() {
    for (from, to) in [(0, 1), (2, 0), (3, 1), (2, 3), (1, 1)] {
        let wire = RaftMessage {
            from,
            to,
            ..append()
        };
        assert!(matches!(open(wire), Err(Invalid::WrongEnds { .. })));
    }
}

/// `change` makes an append that is refused.
#[track_caller]
fn spoiled(change: impl FnOnce(&mut RaftMessage)) -> Invalid {
    let mut wire = append();
    change(&mut wire);
    open(wire).expect_err("spoiled")
}

#[test]
fn entries_out_of_order_are_refused() {
    let position = |error| match error {
        Invalid::Entry { position, .. } => position,
        other => panic!("{other}"),
    };
    assert_eq!(position(spoiled(|wire| wire.entries[1].index = 8)), 1);
    assert_eq!(position(spoiled(|wire| wire.entries[0].index = 7)), 0);
    assert_eq!(position(spoiled(|wire| wire.entries[1].term = 1)), 1);
    assert_eq!(position(spoiled(|wire| wire.entries[1].term = 4)), 1);
    assert_eq!(position(spoiled(|wire| wire.entries[0].term = 0)), 0);
    assert_eq!(position(spoiled(|wire| wire.entries[0].kind = 3)), 0);
    let garbled = |wire: &mut RaftMessage| wire.entries[1].kind = 1;
    assert_eq!(position(spoiled(garbled)), 1, "x is no membership change");
}

#[test]
fn impossible_numbers_terms_and_shapes_are_refused() {
    let number = spoiled(|wire| wire.commit = u64::MAX);
    assert!(matches!(number, Invalid::Number { .. }));
    for error in [
        spoiled(|wire| wire.term = 0),
        spoiled(|wire| wire.log_term = 0),
        spoiled(|wire| wire.log_term = 4),
        spoiled(|wire| wire.index = 0),
        spoiled(|wire| wire.commit_term = 4),
    ] {
        assert!(matches!(error, Invalid::Term { .. }), "{error}");
    }
    let vote = MessageType::MsgRequestVote as i32;
    for error in [
        spoiled(|wire| wire.kind = vote),
        spoiled(|wire| wire.priority = -1),
        spoiled(|wire| wire.context = vec![0; 5000].into()),
        spoiled(|wire| wire.snapshot = offer().snapshot),
        open(of(MessageType::MsgSnapshot)).unwrap_err(),
        open(of(MessageType::MsgReadIndexResp)).unwrap_err(),
    ] {
        assert!(matches!(error, Invalid::Shape { .. }), "{error}");
    }
}

#[test]
fn contradicting_members_are_refused() {
    let refused = |change: &dyn Fn(&mut WireSnapshot)| {
        let mut wire = offer();
        change(wire.snapshot.as_mut().unwrap());
        assert!(matches!(open(wire), Err(Invalid::Snapshot(_))));
    };
    refused(&|one| one.voters.clear());
    refused(&|one| one.voters.push(0));
    refused(&|one| one.voters.push(1));
    refused(&|one| one.learners.push(1));
    refused(&|one| one.learners_next.push(5));
    refused(&|one| one.auto_leave = true);
    refused(&|one| one.voters_outgoing.push(4));
    refused(&|one| one.index = 0);
    refused(&|one| one.term = 4);
    refused(&|one| one.file = None);
}

/// A node of three with a disk in memory.
struct Node {
    raw: RawNode<MemStorage>,
}

impl Node {
    fn new() -> Self {
        let storage = MemStorage::new();
        // Group history begins with a snapshot, as in `raft`: so storage always has one to offer.
        let mut start = Snapshot::default();
        let metadata: &mut SnapshotMetadata = start.mut_metadata();
        metadata.index = 1;
        metadata.term = 1;
        metadata.set_conf_state(ConfState::from((vec![1, 2, 3], vec![])));
        storage.wl().apply_snapshot(start).unwrap();
        let config = Config {
            id: ME.0,
            election_tick: 10,
            heartbeat_tick: 2,
            max_inflight_msgs: 16,
            max_size_per_msg: 1 << 20,
            pre_vote: true,
            check_quorum: true,
            applied: 1,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, storage, &logger).unwrap();
        Node { raw }
    }

    /// Steps `wire` if it is let through, then does what a node's loop does.
    fn take(&mut self, wire: RaftMessage) -> bool {
        let Ok(message) = wire.open(PEER, ME) else {
            return false;
        };
        if admit(&message, &self.raw).is_err() {
            return false;
        }
        self.raw.step(message).ok();
        self.settle();
        true
    }

    fn settle(&mut self) {
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let store = self.raw.raft.raft_log.store.clone();
            if !ready
                .snapshot()
                .get_metadata()
                .eq(&SnapshotMetadata::default())
            {
                store.wl().apply_snapshot(ready.snapshot().clone()).unwrap();
            }
            store.wl().append(ready.entries()).unwrap();
            if let Some(hard) = ready.hs() {
                store.wl().set_hardstate(hard.clone());
            }
            drop(ready.take_messages());
            let mut light = self.raw.advance(ready);
            drop(light.take_messages());
            self.raw.advance_apply();
        }
    }
}

#[test]
fn a_leader_that_counts_on_lost_entries_does_not_crash_the_node() {
    let mut node = Node::new();
    let wire = RaftMessage {
        commit: 50,
        ..of(MessageType::MsgHeartbeat)
    };
    let message = open(wire.clone()).unwrap();
    let refused = admit(&message, &node.raw);
    assert_eq!(
        refused,
        Err(Invalid::LostEntries {
            commit: 50,
            last: 1
        })
    );
    assert!(!node.take(wire));
}

/// Small numbers collide with each other and with the node's state; a few are extreme.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0u64..6, 1 => Just(1 << 62), 1 => Just(u64::MAX)]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::new()),
        Just(Bytes::from_static(b"CampaignTransfer")),
        Just(Bytes::from_static(&[0x10, 1, 0x18, 3])),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from),
    ]
}

prop_compose! {
    fn entry()(kind in -1i32..4, term in number(), index in number(), data in bytes()) -> WireEntry {
        WireEntry { kind, term, index, data, context: Bytes::new() }
    }
}

prop_compose! {
    fn snapshot()(
        index in number(), term in number(),
        voters in prop::collection::vec(number(), 0..4),
        learners in prop::collection::vec(number(), 0..2),
        voters_outgoing in prop::collection::vec(number(), 0..3),
        learners_next in prop::collection::vec(number(), 0..2),
        auto_leave in any::<bool>(), size in 0u64..3,
    ) -> WireSnapshot {
        let file = Some(SnapshotFile { size, checksum: 0 });
        WireSnapshot {
            index, term, voters, learners, voters_outgoing, learners_next, auto_leave, file,
        }
    }
}

prop_compose! {
    /// Anything at all, half of the time bent so that more of it comes through.
    fn message()(
        kind in -1i32..21,
        from in prop_oneof![9 => Just(2u64), 1 => number()],
        to in prop_oneof![9 => Just(1u64), 1 => number()],
        numbers in prop::array::uniform8(number()),
        mut entries in prop::collection::vec(entry(), 0..4),
        snapshot in prop::option::of(snapshot()),
        reject in any::<bool>(), context in bytes(), priority in -1i64..2, tidy in any::<bool>(),
    ) -> RaftMessage {
        let [term, log_term, index, commit, commit_term, request_snapshot, reject_hint, _] = numbers;
        let (mut log_term, mut term, mut snapshot) = (log_term, term, snapshot);
        if tidy {
            term = if kind == MessageType::MsgReadIndex as i32 { 0 } else { term.max(1) };
            log_term = log_term.min(term);
            if kind == MessageType::MsgAppend as i32 {
                log_term = if index == 0 { 0 } else { log_term.max(1) };
                for (position, entry) in entries.iter_mut().enumerate() {
                    entry.index = index.wrapping_add(position as u64 + 1);
                    entry.term = term;
                }
            } else if kind == MessageType::MsgReadIndex as i32 || kind == MessageType::MsgReadIndexResp as i32 {
                entries = vec![WireEntry { data: Bytes::from_static(b"id"), ..WireEntry::default() }];
            } else {
                entries.clear();
            }
            if kind == MessageType::MsgSnapshot as i32 {
                snapshot.get_or_insert_with(|| offer().snapshot.unwrap()).term = 1;
            } else {
                snapshot = None;
            }
        }
        RaftMessage {
            group: 0, kind, from, to, term, log_term, index, entries, commit,
            commit_term: commit_term.min(term), snapshot, request_snapshot, reject, reject_hint,
            context, priority, read_only: false,
        }
    }
}

/// What else happens between messages.
#[derive(Clone, Debug)]
enum Turn {
    /// Ticks pass.
    Ticks(u8),
    /// A client proposes.
    Propose,
    /// The node is made leader, if it can be.
    Elect,
    /// A client asks for a safe read.
    Read(u8),
    /// Something comes over the wire.
    Wire(Box<RaftMessage>),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        1 => (1u8..25).prop_map(Turn::Ticks),
        1 => Just(Turn::Propose),
        1 => Just(Turn::Elect),
        1 => any::<u8>().prop_map(Turn::Read),
        20 => message().prop_map(|message| Turn::Wire(Box::new(message))),
    ]
}

fn play(node: &mut Node, turn: Turn) {
    match turn {
        Turn::Ticks(count) => (0..count).for_each(|_| {
            node.raw.tick();
            node.settle();
        }),
        Turn::Propose => {
            node.raw.propose(vec![], b"p".to_vec()).ok();
        }
        Turn::Read(id) => node.raw.read_index(vec![id]),
        Turn::Elect => {
            node.raw.campaign().ok();
            node.settle();
            for kind in [
                MessageType::MsgRequestPreVoteResponse,
                MessageType::MsgRequestVoteResponse,
            ] {
                let candidate = node.raw.raft.term;
                let extra = u64::from(kind == MessageType::MsgRequestPreVoteResponse);
                node.take(RaftMessage {
                    term: candidate + extra,
                    ..of(kind)
                });
            }
        }
        Turn::Wire(wire) => {
            node.take(*wire);
        }
    }
    node.settle();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn raft_never_panics_over_what_came_through(
        turns in prop::collection::vec(turn(), 1..40),
    ) {
        let mut node = Node::new();
        for turn in turns {
            play(&mut node, turn);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = <RaftMessage as prost::Message>::decode(&bytes[..]) {
            Node::new().take(wire);
        }
    }
}
