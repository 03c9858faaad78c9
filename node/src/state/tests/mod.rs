//! Facts about the state machine, one by one; `model` compares whole random logs with a simple reference.

mod model;

use super::command::*;
use super::*;
use crate::error::Code;
use crate::types::{ClusterId, Index, LeaseId, NodeId, Revision, Term};
use bytes::Bytes;
use prost::Message;
use raft::eraftpb::ConfState;

/// A member of that id.
fn some_member(id: u64) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer: format!("n{id}:1"),
        http: format!("n{id}:2"),
        incarnation: 0,
        replaces: 0,
        token: 0,
    }
}

/// A founded state with small limits.
pub(super) fn founded(sessions_max: u64, history_revisions: u64) -> Memory {
    let mut memory = Memory::default();
    memory.write(&genesis(&Genesis {
        cluster_id: ClusterId(7),
        members: (1..=3).map(some_member).collect(),
        limits: Limits {
            sessions_max,
            history_revisions,
        },
        position: (Index(0), Term(0)),
    }));
    memory
}

/// A state and the way to apply to it.
struct Machine(Memory);

impl Machine {
    fn new() -> Self {
        Machine(founded(3, 1000))
    }

    /// Applies one command at the next index, in a batch of its own, and checks the hash.
    fn run(&mut self, command: Command) -> Outcome {
        self.run_bytes(command.encode_to_vec().into())
    }

    fn run_bytes(&mut self, payload: Bytes) -> Outcome {
        let index = applied(&self.0).unwrap().unwrap().index + 1;
        let mut batch = Batch::new(&self.0).unwrap();
        let entry = Entry {
            index: Index(index),
            term: Term(1),
            payload,
        };
        let outcome = batch.apply(&entry).unwrap();
        let hash = batch.state_hash();
        let writes = batch.finish();
        self.0.write(&writes);
        assert_eq!(full_hash(&self.0).unwrap(), hash);
        assert_eq!(applied(&self.0).unwrap().unwrap().state_hash, hash);
        outcome
    }

    fn op(&mut self, op: Op) -> Outcome {
        self.run(Command {
            op: Some(op),
            ..Command::default()
        })
    }

    fn in_session(&mut self, session: u64, seq: u64, op: Op) -> Outcome {
        self.run(Command {
            session,
            seq,
            op: Some(op),
            ..Command::default()
        })
    }

    fn get(&self, key: &'static str, revision: u64) -> Option<KeyValue> {
        let get = Get {
            key: key.into(),
            revision,
            ..Get::default()
        };
        read(&self.0, &get, 10).unwrap().0.kvs.pop()
    }
}

fn put(key: &'static str, value: &'static str) -> Put {
    Put {
        key: key.into(),
        value: value.into(),
        ..Put::default()
    }
}

fn delete(key: &'static str) -> Delete {
    Delete {
        key: key.into(),
        ..Delete::default()
    }
}

fn txn(success: Vec<TxnStep>) -> Op {
    let success = success.into_iter();
    Op::Txn(Txn {
        success: success.map(|step| TxnOp { step: Some(step) }).collect(),
        ..Txn::default()
    })
}

fn refusal(outcome: &Outcome) -> Option<Refusal> {
    match &outcome.done {
        Some(Done::Refused(refused)) => Some(refused.why()),
        _ => None,
    }
}

fn lease_of(outcome: &Outcome) -> u64 {
    match &outcome.done {
        Some(Done::Lease(done)) => done.id,
        other => panic!("not a lease: {other:?}"),
    }
}

fn session_of(outcome: &Outcome) -> u64 {
    match &outcome.done {
        Some(Done::Session(done)) => done.id,
        other => panic!("not a session: {other:?}"),
    }
}

fn grant(machine: &mut Machine) -> u64 {
    lease_of(&machine.op(Op::LeaseGrant(LeaseGrant { ttl_ms: 5000 })))
}

fn open(machine: &mut Machine) -> u64 {
    session_of(&machine.op(Op::SessionOpen(SessionOpen {})))
}

#[test]
fn versions_and_revisions_count_as_in_etcd() {
    let mut m = Machine::new();
    assert_eq!(m.op(Op::Put(put("a", "1"))).revision, 1);
    assert_eq!(m.op(Op::Put(put("a", "2"))).revision, 2);
    let kv = m.get("a", 0).unwrap();
    assert_eq!((kv.version, kv.create_revision, kv.mod_revision), (2, 1, 2));
    assert_eq!(m.op(Op::Delete(delete("a"))).revision, 3);
    assert_eq!(m.op(Op::Delete(delete("a"))).revision, 3);
    assert_eq!(m.op(Op::Put(put("a", "3"))).revision, 4);
    let kv = m.get("a", 0).unwrap();
    assert_eq!((kv.version, kv.create_revision, kv.mod_revision), (1, 4, 4));
    assert_eq!(m.get("a", 2).unwrap().value, "2");
    assert_eq!(m.get("a", 3), None);
}

#[test]
fn a_failed_condition_tells_the_current_record() {
    let mut m = Machine::new();
    m.op(Op::Put(put("a", "1")));
    let expect = |absent, version, mod_revision| {
        Some(Expect {
            absent,
            version,
            mod_revision,
        })
    };
    let mut conditional = put("a", "2");
    conditional.expect = expect(true, None, None);
    let outcome = m.op(Op::Put(conditional.clone()));
    let Some(Done::Refused(refused)) = &outcome.done else {
        panic!("refused")
    };
    assert_eq!(refused.why(), Refusal::Precondition);
    assert_eq!(refused.current.as_ref().unwrap().value, "1");
    conditional.expect = expect(false, Some(1), Some(1));
    assert_eq!(refusal(&m.op(Op::Put(conditional.clone()))), None);
    assert_eq!(
        refusal(&m.op(Op::Put(conditional))),
        Some(Refusal::Precondition)
    );
    assert_eq!(m.get("a", 0).unwrap().version, 2);
}

#[test]
fn nonsense_is_refused_and_changes_nothing_but_the_position() {
    let mut m = Machine::new();
    let long = Bytes::from(vec![b'x'; KEY_BYTES_MAX + 1]);
    let mut conditional = put("a", "");
    conditional.expect = Some(Expect::default());
    let range = Delete {
        range_end: "z".into(),
        expect: Some(Expect::default()),
        ..delete("a")
    };
    let bad_compare = Op::Txn(Txn {
        compare: vec![Compare {
            target: 99,
            key: "a".into(),
            ..Compare::default()
        }],
        ..Txn::default()
    });
    let all_of_a = Delete {
        range_end: "b".into(),
        ..delete("a")
    };
    let ops = vec![
        Op::Put(put("", "x")),
        Op::Put(Put {
            key: long.clone(),
            ..Put::default()
        }),
        Op::Delete(Delete {
            key: "a".into(),
            range_end: long,
            ..Delete::default()
        }),
        Op::Delete(range),
        txn(vec![
            TxnStep::Put(put("a", "1")),
            TxnStep::Put(put("a", "2")),
        ]),
        txn(vec![TxnStep::Put(put("a", "1")), TxnStep::Delete(all_of_a)]),
        txn(vec![TxnStep::Put(conditional)]),
        bad_compare,
        Op::LeaseGrant(LeaseGrant { ttl_ms: 0 }),
        Op::MemberUpdate(some_member(9)),
        Op::SetLimits(Limits::default()),
    ];
    let before = full_hash(&m.0).unwrap();
    for op in ops {
        let outcome = m.op(op.clone());
        assert_eq!(refusal(&outcome), Some(Refusal::Invalid), "{op:?}");
    }
    for bytes in [&b"\xff\xff\xff"[..], b"\x08\x01", b"\xfa\x01\x00"] {
        let outcome = m.run_bytes(Bytes::from_static(bytes));
        assert_eq!(refusal(&outcome), Some(Refusal::Invalid), "{bytes:?}");
    }
    assert_eq!(
        m.run_bytes(Bytes::new()).done,
        Some(Done::Nothing(Nothing {}))
    );
    assert_eq!(full_hash(&m.0).unwrap(), before);
}

#[test]
fn a_transaction_takes_one_revision_and_sees_its_own_steps() {
    let mut m = Machine::new();
    m.op(Op::Put(put("a", "1")));
    let get = Get {
        key: "b".into(),
        ..Get::default()
    };
    let past = Get {
        key: "a".into(),
        revision: 1,
        ..Get::default()
    };
    let outcome = m.op(txn(vec![
        TxnStep::Put(put("b", "2")),
        TxnStep::Get(get),
        TxnStep::Delete(delete("a")),
        TxnStep::Get(past),
    ]));
    assert_eq!(outcome.revision, 2);
    let Some(Done::Txn(done)) = outcome.done else {
        panic!("a transaction")
    };
    let values = done.results.iter().map(|result| match &result.step {
        Some(Step::Get(done)) => done.kvs[0].value.clone(),
        _ => Bytes::new(),
    });
    let values: Vec<_> = values.collect();
    assert_eq!(values, ["", "2", "", "1"]);
    let batch = history(&m.0, Revision(2), &"a".into(), &"z".into(), 9).unwrap();
    assert_eq!(batch.events.len(), 2);
    assert!(batch.events.iter().all(|event| event.kv.mod_revision == 2));
}

#[test]
fn an_unknown_lease_is_refused_before_anything_is_written() {
    let mut m = Machine::new();
    let leased = Put {
        lease: 77,
        ..put("b", "2")
    };
    let outcome = m.op(txn(vec![TxnStep::Put(put("a", "1")), TxnStep::Put(leased)]));
    assert_eq!(refusal(&outcome), Some(Refusal::LeaseNotFound));
    assert_eq!((m.get("a", 0), outcome.revision), (None, 0));
}

#[test]
fn a_lease_ends_with_its_keys_at_one_revision() {
    let mut m = Machine::new();
    let (first, second) = (grant(&mut m), grant(&mut m));
    for key in ["b", "a", "c"] {
        m.op(Op::Put(Put {
            lease: first,
            ..put(key, "x")
        }));
    }
    // Moved to another lease, a key outlives the first.
    m.op(Op::Put(Put {
        lease: second,
        ..put("c", "y")
    }));
    assert_eq!(lease_keys(&m.0, LeaseId(first)).unwrap(), ["a", "b"]);
    let outcome = m.op(Op::LeaseRevoke(LeaseRevoke { id: first }));
    assert_eq!(outcome.revision, 5);
    let batch = history(&m.0, Revision(5), &"a".into(), &"z".into(), 9).unwrap();
    let keys: Vec<_> = batch
        .events
        .iter()
        .map(|event| event.kv.key.clone())
        .collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(m.get("c", 0).is_some());
    let again = m.op(Op::LeaseRevoke(LeaseRevoke { id: first }));
    assert_eq!(refusal(&again), Some(Refusal::LeaseNotFound));
    assert_eq!(leases(&m.0).unwrap().len(), 1);
}

#[test]
fn a_renewal_makes_an_expiry_under_way_void() {
    let mut m = Machine::new();
    let id = grant(&mut m);
    m.op(Op::Put(Put {
        lease: id,
        ..put("a", "x")
    }));
    let expire = |renewals| {
        Op::LeaseExpire(LeaseExpire {
            leases: vec![ExpiredLease { id, renewals }],
        })
    };
    m.op(Op::LeaseKeepAlive(LeaseKeepAlive { id }));
    m.op(expire(0));
    assert!(m.get("a", 0).is_some());
    assert_eq!(lease(&m.0, LeaseId(id)).unwrap().unwrap().renewals, 1);
    m.op(expire(1));
    assert!(m.get("a", 0).is_none());
    assert_eq!(lease(&m.0, LeaseId(id)).unwrap(), None);
}

#[test]
fn a_repeated_command_is_done_once() {
    let mut m = Machine::new();
    let session = open(&mut m);
    let first = m.in_session(session, 1, Op::Put(put("a", "1")));
    let again = m.in_session(session, 1, Op::Put(put("a", "1")));
    assert!(again.replayed);
    assert_eq!((first.index, first.done), (again.index, again.done));
    assert_eq!(m.get("a", 0).unwrap().version, 1);
    m.in_session(session, 3, Op::Put(put("a", "2")));
    let stale = m.in_session(session, 2, Op::Put(put("a", "3")));
    assert_eq!(refusal(&stale), Some(Refusal::SessionStale));
    let unknown = m.in_session(999, 1, Op::Put(put("a", "3")));
    assert_eq!(refusal(&unknown), Some(Refusal::SessionUnknown));
    let zero = m.in_session(session, 0, Op::Put(put("a", "3")));
    assert_eq!(refusal(&zero), Some(Refusal::Invalid));
    m.in_session(session, 4, Op::SessionClose(SessionClose { id: session }));
    let closed = m.in_session(session, 5, Op::Put(put("a", "3")));
    assert_eq!(refusal(&closed), Some(Refusal::SessionUnknown));
    assert_eq!(m.get("a", 0).unwrap().value, "2");
}

#[test]
fn a_refusal_is_remembered_like_any_outcome() {
    let mut m = Machine::new();
    let session = open(&mut m);
    let absent = Put {
        expect: Some(Expect {
            version: Some(1),
            ..Expect::default()
        }),
        ..put("a", "1")
    };
    let first = m.in_session(session, 1, Op::Put(absent.clone()));
    m.op(Op::Put(put("a", "0")));
    let again = m.in_session(session, 1, Op::Put(absent));
    assert_eq!((again.replayed, &again.done), (true, &first.done));
    assert_eq!(refusal(&first), Some(Refusal::Precondition));
}

#[test]
fn the_least_recently_used_session_is_forgotten() {
    let mut m = Machine::new();
    let (one, two, three) = (open(&mut m), open(&mut m), open(&mut m));
    m.in_session(one, 1, Op::Put(put("a", "1")));
    let four = open(&mut m);
    let gone = m.in_session(two, 1, Op::Put(put("a", "2")));
    assert_eq!(refusal(&gone), Some(Refusal::SessionUnknown));
    for session in [one, three, four] {
        let outcome = m.in_session(session, 9, Op::Put(put("a", "3")));
        assert_eq!(refusal(&outcome), None);
    }
    assert_eq!(meta(&m.0).unwrap().unwrap().sessions, 3);
}

#[test]
fn compaction_gives_up_history_and_keeps_what_later_reads_need() {
    let mut m = Machine::new();
    for value in ["1", "2", "3", "4"] {
        m.op(Op::Put(put("a", value)));
    }
    m.op(Op::Put(put("b", "x")));
    m.op(Op::Delete(delete("b")));
    let compact = |revision| Op::Compact(Compact { revision });
    assert_eq!(refusal(&m.op(compact(99))), Some(Refusal::FutureRevision));
    m.op(compact(3));
    assert_eq!(refusal(&m.op(compact(3))), Some(Refusal::Compacted));
    let size = m.0.len();
    while !applied(&m.0).unwrap().unwrap().index.is_multiple_of(1024) {
        m.run_bytes(Bytes::new());
    }
    assert_eq!(m.0.len(), size - 2, "revisions 1 and 2 of `a` are gone");
    assert_eq!(m.get("a", 3).unwrap().value, "3");
    let get = Get {
        key: "a".into(),
        revision: 2,
        ..Get::default()
    };
    let compacted = ReadError::Compacted {
        wanted: Revision(2),
        compacted: Revision(3),
    };
    assert_eq!(read(&m.0, &get, 1), Err(compacted));
    let watch = |from| history(&m.0, Revision(from), &"a".into(), &Bytes::new(), 9);
    assert!(matches!(watch(3), Err(ReadError::Compacted { .. })));
    assert_eq!(watch(4).unwrap().events[0].kv.value, "4");
}

#[test]
fn a_watch_from_the_future_waits() {
    let mut m = Machine::new();
    m.op(Op::Put(put("a", "1")));
    let batch = history(&m.0, Revision(9), &"a".into(), &Bytes::new(), 9).unwrap();
    assert_eq!((batch.events.len(), batch.through), (0, Revision(8)));
}

#[test]
fn a_range_read_keeps_to_its_limit() {
    let mut m = Machine::new();
    for key in ["a", "b", "c"] {
        m.op(Op::Put(put(key, "v")));
    }
    let mut get = Get {
        key: "a".into(),
        range_end: Bytes::from_static(&[0]),
        limit: 2,
        keys_only: true,
        ..Get::default()
    };
    let (done, _, _) = read(&m.0, &get, 10).unwrap();
    assert_eq!((done.kvs.len(), done.more, done.count), (2, true, 3));
    assert!(done.kvs.iter().all(|kv| kv.value.is_empty()));
    get.count_only = true;
    let (done, _, _) = read(&m.0, &get, 10).unwrap();
    assert_eq!((done.kvs.len(), done.more, done.count), (0, false, 3));
}

#[test]
fn members_follow_the_configuration() {
    let mut m = Machine::new();
    let mut batch = Batch::new(&m.0).unwrap();
    let conf = ConfState {
        voters: vec![1, 3],
        learners: vec![4],
        ..ConfState::default()
    };
    let entry = ConfEntry {
        index: Index(1),
        term: Term(1),
        conf: conf.clone(),
        add: Some(some_member(4)),
        remove: Some(NodeId(2)),
    };
    batch.apply_conf(&entry).unwrap();
    let writes = batch.finish();
    m.0.write(&writes);
    let ids: Vec<_> = members(&m.0).unwrap().iter().map(|one| one.id).collect();
    assert_eq!(ids, [1, 3, 4]);
    let meta = meta(&m.0).unwrap().unwrap();
    assert_eq!(
        (meta.conf, meta.conf_index, meta.next_node_id),
        (conf, 1, 5)
    );
    let mut update = some_member(4);
    update.incarnation = 5;
    assert_eq!(refusal(&m.op(Op::MemberUpdate(update.clone()))), None);
    update.incarnation = 6;
    let outcome = m.op(Op::MemberUpdate(update.clone()));
    assert_eq!(refusal(&outcome), Some(Refusal::Precondition));
    update.name = "n1".to_owned();
    let outcome = m.op(Op::MemberUpdate(update));
    assert_eq!(refusal(&outcome), Some(Refusal::Invalid));
}

#[test]
fn a_damaged_record_is_an_error_and_no_panic() {
    let mut m = Machine::new();
    m.op(Op::Put(put("a", "1")));
    let mut writes = Writes::default();
    writes.set(keys::current(b"a"), Some(Bytes::from_static(b"\xff\xff")));
    m.0.write(&writes);
    let get = Get {
        key: "a".into(),
        ..Get::default()
    };
    let error = read(&m.0, &get, 1).unwrap_err();
    assert!(matches!(error, ReadError::State(Error::Corrupt { .. })));
    assert_eq!(error.code(), Code::Poisoned);
}

#[test]
fn a_node_without_state_has_nothing_to_read_yet_and_is_not_broken() {
    let empty = Memory::default();
    assert_eq!(Batch::new(&empty).err(), Some(Error::Unfounded));
    let get = Get {
        key: "a".into(),
        ..Get::default()
    };
    for error in [
        read(&empty, &get, 1).unwrap_err(),
        history(&empty, Revision(1), &get.key, &get.range_end, 10).unwrap_err(),
    ] {
        let answer = crate::error::Error::from(error);
        assert_eq!(answer.code, Code::TooStale);
        assert!(answer.retryable && !answer.outcome_unknown);
        assert!(answer.to_string().contains("no data yet"), "{answer}");
    }
}
