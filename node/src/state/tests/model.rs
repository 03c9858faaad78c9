//! Random logs against a reference that keeps a full copy of the keys for every revision.
//!
//! The reference knows nothing of records, chains, sweeps or hashes, so that it cannot share their mistakes.

#![expect(
    clippy::result_large_err,
    reason = "the reference values brevity over speed"
)]

use super::super::command::*;
use super::super::*;
use super::founded;
use crate::types::{Index, Revision, Term};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;

const SESSIONS_MAX: u64 = 3;
const HISTORY_REVISIONS: u64 = 12;
const KEYS: [&str; 6] = ["a", "aa", "b", "ba", "c", "d"];

type Keys = BTreeMap<Bytes, KeyValue>;

/// The reference.
struct Model {
    /// Keys at each revision.
    at: Vec<Keys>,
    /// Events with their revision.
    events: Vec<KeyEvent>,
    leases: BTreeMap<u64, u64>,
    sessions: BTreeMap<u64, (u64, u64, Option<Outcome>)>,
    compacted: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.at.len() as u64 - 1
    }

    fn now(&self) -> &Keys {
        self.at.last().unwrap()
    }

    /// Applies a command.
    fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        if command.session != 0 {
            match self.sessions.get_mut(&command.session) {
                None => return self.outcome(index, refused(Refusal::SessionUnknown)),
                Some((seq, used, outcome)) => {
                    if command.seq < *seq {
                        return self.outcome(index, refused(Refusal::SessionStale));
                    }
                    *used = index;
                    if command.seq == *seq {
                        let mut outcome = outcome.clone().unwrap();
                        outcome.replayed = true;
                        return outcome;
                    }
                }
            }
        }
        let mut next = self.now().clone();
        let mut events = Vec::new();
        let done = match self.execute(index, command, &mut next, &mut events) {
            Ok(done) => done,
            Err(done) => {
                events.clear();
                done
            }
        };
        if !events.is_empty() {
            self.at.push(next);
            self.events.append(&mut events);
        }
        let outcome = self.outcome(index, done);
        if let Some(session) = self.sessions.get_mut(&command.session) {
            session.0 = command.seq;
            session.2 = Some(outcome.clone());
        }
        let oldest = self.revision().saturating_sub(HISTORY_REVISIONS);
        self.compacted = self.compacted.max(oldest);
        outcome
    }

    fn outcome(&self, index: u64, done: Done) -> Outcome {
        Outcome {
            revision: self.revision(),
            index,
            replayed: false,
            done: Some(done),
        }
    }

    fn execute(
        &mut self,
        index: u64,
        command: &Command,
        keys: &mut Keys,
        events: &mut Vec<KeyEvent>,
    ) -> Result<Done, Done> {
        let lease_not_found = refused(Refusal::LeaseNotFound);
        let mut writer = Writer {
            keys,
            events,
            revision: self.revision() + 1,
            time_ms: command.time_ms,
        };
        Ok(match command.op.as_ref().unwrap() {
            Op::Put(put) => {
                self.expect(&put.key, put.expect)?;
                self.lease(put.lease)?;
                Done::Put(writer.put(put))
            }
            Op::Delete(delete) => {
                self.expect(&delete.key, delete.expect)?;
                Done::Delete(writer.delete(delete))
            }
            Op::Txn(txn) => self.txn(txn, writer)?,
            Op::LeaseGrant(grant) => {
                self.leases.insert(index, 0);
                Done::Lease(LeaseDone {
                    id: index,
                    ttl_ms: grant.ttl_ms,
                })
            }
            Op::LeaseRevoke(revoke) => {
                self.leases.remove(&revoke.id).ok_or(lease_not_found)?;
                writer.end_lease(revoke.id);
                Done::Nothing(Nothing {})
            }
            Op::LeaseKeepAlive(alive) => {
                *self.leases.get_mut(&alive.id).ok_or(lease_not_found)? += 1;
                Done::Lease(LeaseDone {
                    id: alive.id,
                    ttl_ms: 1000,
                })
            }
            Op::LeaseExpire(expire) => {
                for one in &expire.leases {
                    if self.leases.get(&one.id) == Some(&one.renewals) {
                        self.leases.remove(&one.id);
                        writer.end_lease(one.id);
                    }
                }
                Done::Nothing(Nothing {})
            }
            Op::SessionOpen(_) => {
                self.sessions.insert(index, (0, index, None));
                while self.sessions.len() as u64 > SESSIONS_MAX {
                    let oldest = self.sessions.iter().min_by_key(|(_, session)| session.1);
                    let oldest = *oldest.unwrap().0;
                    self.sessions.remove(&oldest);
                }
                Done::Session(SessionDone { id: index })
            }
            Op::SessionClose(close) => {
                let closed = self.sessions.remove(&close.id);
                closed.ok_or(refused(Refusal::SessionUnknown))?;
                Done::Nothing(Nothing {})
            }
            Op::Compact(compact) => {
                if compact.revision > self.revision() {
                    return Err(refused(Refusal::FutureRevision));
                }
                if compact.revision <= self.compacted {
                    return Err(refused(Refusal::Compacted));
                }
                self.compacted = compact.revision;
                Done::Nothing(Nothing {})
            }
            other => panic!("not generated: {other:?}"),
        })
    }

    fn expect(&self, key: &Bytes, expect: Option<Expect>) -> Result<(), Done> {
        let Some(expect) = expect else { return Ok(()) };
        let kv = self.now().get(key).cloned();
        let number = |number: fn(&KeyValue) -> u64| kv.as_ref().map_or(0, number);
        let fails = expect.absent && kv.is_some()
            || expect
                .version
                .is_some_and(|is| is != number(|kv| kv.version))
            || expect
                .mod_revision
                .is_some_and(|is| is != number(|kv| kv.mod_revision));
        match fails {
            false => Ok(()),
            true => Err(Done::Refused(Refused {
                why: Refusal::Precondition.into(),
                message: String::new(),
                current: kv,
            })),
        }
    }

    fn lease(&self, id: u64) -> Result<(), Done> {
        match id == 0 || self.leases.contains_key(&id) {
            true => Ok(()),
            false => Err(refused(Refusal::LeaseNotFound)),
        }
    }

    fn txn(&self, txn: &Txn, mut writer: Writer<'_>) -> Result<Done, Done> {
        let succeeded = txn.compare.iter().all(|compare| {
            let kv = self.now().get(&compare.key);
            let version = kv.map_or(0, |kv| kv.version);
            match compare.relation() {
                Relation::Equal => version == compare.number,
                Relation::NotEqual => version != compare.number,
                Relation::Greater => version > compare.number,
                Relation::Less => version < compare.number,
            }
        });
        let branch = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        for branch in [&txn.success, &txn.failure] {
            let mut put_keys = Vec::new();
            for op in branch {
                if let Some(TxnStep::Put(put)) = &op.step {
                    put_keys.push(&put.key);
                }
            }
            let puts = put_keys.len();
            put_keys.sort();
            put_keys.dedup();
            let removed = branch.iter().any(|op| match &op.step {
                Some(TxnStep::Delete(delete)) => put_keys
                    .iter()
                    .any(|key| inside(key, &delete.key, &delete.range_end)),
                _ => false,
            });
            if puts != put_keys.len() || removed {
                return Err(refused(Refusal::Invalid));
            }
        }
        for op in branch {
            match &op.step {
                Some(TxnStep::Put(put)) => self.lease(put.lease)?,
                Some(TxnStep::Get(get)) if get.revision > self.revision() => {
                    return Err(refused(Refusal::FutureRevision));
                }
                Some(TxnStep::Get(get)) if get.revision != 0 && get.revision < self.compacted => {
                    return Err(refused(Refusal::Compacted));
                }
                _ => {}
            }
        }
        let mut results = Vec::new();
        for op in branch {
            let step = match op.step.as_ref().unwrap() {
                TxnStep::Put(put) => Step::Put(writer.put(put)),
                TxnStep::Delete(delete) => Step::Delete(writer.delete(delete)),
                TxnStep::Get(get) => {
                    let keys = match get.revision {
                        0 => &*writer.keys,
                        revision => &self.at[revision as usize],
                    };
                    Step::Get(get_from(keys, get))
                }
            };
            results.push(StepDone { step: Some(step) });
        }
        Ok(Done::Txn(TxnDone { succeeded, results }))
    }
}

/// Changes keys and notes events.
struct Writer<'m> {
    keys: &'m mut Keys,
    events: &'m mut Vec<KeyEvent>,
    revision: u64,
    time_ms: u64,
}

impl Writer<'_> {
    fn put(&mut self, put: &Put) -> PutDone {
        let old = self.keys.get(&put.key).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            version: old.as_ref().map_or(1, |kv| kv.version + 1),
            create_revision: old.as_ref().map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            lease: put.lease,
        };
        self.keys.insert(put.key.clone(), kv.clone());
        self.event(false, kv.clone(), old.as_ref());
        PutDone {
            version: kv.version,
            create_revision: kv.create_revision,
            prev: old.filter(|_| put.prev),
        }
    }

    fn event(&mut self, deleted: bool, kv: KeyValue, old: Option<&KeyValue>) {
        self.events.push(KeyEvent {
            deleted,
            kv,
            prev_revision: old.map_or(0, |kv| kv.mod_revision),
            time_ms: self.time_ms,
        });
    }

    fn remove(&mut self, wanted: impl Fn(&KeyValue) -> bool) -> Vec<KeyValue> {
        let gone: Vec<_> = self
            .keys
            .values()
            .filter(|kv| wanted(kv))
            .cloned()
            .collect();
        for kv in &gone {
            self.keys.remove(&kv.key);
            let tombstone = KeyValue {
                key: kv.key.clone(),
                mod_revision: self.revision,
                ..KeyValue::default()
            };
            self.event(true, tombstone, Some(kv));
        }
        gone
    }

    fn delete(&mut self, delete: &Delete) -> DeleteDone {
        let gone = self.remove(|kv| inside(&kv.key, &delete.key, &delete.range_end));
        DeleteDone {
            deleted: gone.len() as u64,
            prev: if delete.prev { gone } else { Vec::new() },
        }
    }

    fn end_lease(&mut self, id: u64) {
        self.remove(|kv| kv.lease == id);
    }
}

fn inside(key: &Bytes, start: &Bytes, end: &Bytes) -> bool {
    match &end[..] {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

fn get_from(keys: &Keys, get: &Get) -> GetDone {
    let found = keys
        .values()
        .filter(|kv| inside(&kv.key, &get.key, &get.range_end));
    let kvs: Vec<_> = found.cloned().collect();
    GetDone {
        count: kvs.len() as u64,
        more: false,
        kvs,
    }
}

fn refused(why: Refusal) -> Done {
    Done::Refused(Refused {
        why: why.into(),
        ..Refused::default()
    })
}

/// Messages are for people: the reference has none.
fn without_message(mut outcome: Outcome) -> Outcome {
    if let Some(Done::Refused(refused)) = &mut outcome.done {
        refused.message.clear();
    }
    outcome
}

/// A command before its lease, session and revision are chosen among those that exist.
#[derive(Clone, Debug)]
struct Action {
    kind: u8,
    keys: (usize, usize),
    value: u8,
    /// Chooses a lease, session or revision.
    pick: u64,
    flags: u8,
    session: Option<(u64, u64)>,
}

fn action() -> impl Strategy<Value = Action> {
    let session = proptest::option::weighted(0.4, (any::<u64>(), 0u64..3));
    let keys = (0..KEYS.len(), 0..KEYS.len());
    (
        0u8..20,
        keys,
        any::<u8>(),
        any::<u64>(),
        any::<u8>(),
        session,
    )
        .prop_map(|(kind, keys, value, pick, flags, session)| Action {
            kind,
            keys,
            value,
            pick,
            flags,
            session,
        })
}

/// One of `ids`, or, one time in eight, one that may not exist.
fn pick_of<'i>(ids: impl Iterator<Item = &'i u64>, pick: u64) -> u64 {
    let ids: Vec<_> = ids.copied().collect();
    match pick % 8 {
        0 => pick % 50 + 1,
        _ => ids
            .get(pick as usize / 8 % ids.len().max(1))
            .copied()
            .unwrap_or(1),
    }
}

impl Action {
    fn key(&self, which: usize) -> Bytes {
        Bytes::from_static(KEYS[which].as_bytes())
    }

    fn range_end(&self) -> Bytes {
        match self.flags % 4 {
            0 => Bytes::from_static(&[0]),
            1 => self.key(self.keys.1),
            _ => Bytes::new(),
        }
    }

    fn put(&self, model: &Model, which: usize) -> Put {
        Put {
            key: self.key(which),
            value: vec![self.value; 3].into(),
            lease: match self.flags & 32 {
                0 => 0,
                _ => pick_of(model.leases.keys(), self.pick),
            },
            expect: None,
            prev: self.flags & 16 != 0,
        }
    }

    fn delete(&self) -> Delete {
        Delete {
            key: self.key(self.keys.0),
            range_end: self.range_end(),
            expect: None,
            prev: self.flags & 16 != 0,
        }
    }

    fn expect(&self, model: &Model) -> Option<Expect> {
        let kv = model.now().get(&self.key(self.keys.0));
        (self.flags & 64 != 0).then(|| Expect {
            absent: self.pick.is_multiple_of(4),
            version: Some(kv.map_or(self.pick % 2, |kv| kv.version)),
            mod_revision: (self.pick % 4 > 1).then(|| self.pick % (model.revision() + 1)),
        })
    }

    fn txn(&self, model: &Model) -> Txn {
        let step = |step| TxnOp { step: Some(step) };
        let get = |revision| Get {
            key: self.key(self.keys.0),
            range_end: self.range_end(),
            revision,
            ..Get::default()
        };
        let mut success = vec![
            step(TxnStep::Put(self.put(model, self.keys.1))),
            step(TxnStep::Get(get(0))),
            step(TxnStep::Delete(self.delete())),
            step(TxnStep::Get(get(self.pick % (model.revision() + 2)))),
        ];
        if self.flags & 128 != 0 {
            success.push(step(TxnStep::Put(self.put(model, self.keys.0))));
        }
        Txn {
            compare: vec![Compare {
                key: self.key(self.keys.0),
                target: Target::Version.into(),
                relation: i32::from(self.value % 4),
                number: self.pick % 3,
                value: Bytes::new(),
            }],
            success,
            failure: vec![step(TxnStep::Put(self.put(model, self.keys.0)))],
        }
    }

    fn command(&self, model: &Model) -> Command {
        let op = match self.kind {
            0..=6 => Op::Put(Put {
                expect: self.expect(model),
                ..self.put(model, self.keys.0)
            }),
            7..=8 => Op::Delete(self.delete()),
            9 => Op::Delete(Delete {
                range_end: Bytes::new(),
                expect: self.expect(model),
                ..self.delete()
            }),
            10..=12 => Op::Txn(self.txn(model)),
            13 => Op::LeaseGrant(LeaseGrant { ttl_ms: 1000 }),
            14 => Op::LeaseKeepAlive(LeaseKeepAlive {
                id: pick_of(model.leases.keys(), self.pick),
            }),
            15 if self.flags & 1 == 0 => Op::LeaseRevoke(LeaseRevoke {
                id: pick_of(model.leases.keys(), self.pick),
            }),
            15 => Op::LeaseExpire(LeaseExpire {
                leases: model
                    .leases
                    .iter()
                    .map(|(id, renewals)| ExpiredLease {
                        id: *id,
                        renewals: renewals.saturating_sub(id % 2),
                    })
                    .collect(),
            }),
            16 => Op::Compact(Compact {
                revision: self.pick % (model.revision() + 2),
            }),
            17 if self.flags & 3 == 0 => Op::SessionClose(SessionClose {
                id: pick_of(model.sessions.keys(), self.pick),
            }),
            _ => Op::SessionOpen(SessionOpen {}),
        };
        let mut command = Command {
            time_ms: u64::from(self.value),
            op: Some(op),
            ..Command::default()
        };
        if let Some((pick, ahead)) = self.session {
            command.session = pick_of(model.sessions.keys(), pick);
            let last = model.sessions.get(&command.session).map_or(0, |one| one.0);
            command.seq = (last + ahead).saturating_sub(1).max(1);
        }
        command
    }
}

/// Compares everything that can be read.
fn compare(memory: &Memory, model: &Model) {
    let applied = applied(memory).unwrap().unwrap();
    assert_eq!(full_hash(memory).unwrap(), applied.state_hash);
    let counted = meta(memory).unwrap().unwrap().keys;
    assert_eq!(counted, model.at.last().map_or(0, |keys| keys.len()) as u64);
    let all = |revision| Get {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        revision,
        ..Get::default()
    };
    for revision in 0..=model.revision() + 1 {
        let answer = read(memory, &all(revision), 1000);
        if revision > model.revision() {
            assert!(matches!(answer, Err(ReadError::FutureRevision { .. })));
        } else if revision != 0 && revision < model.compacted {
            assert!(matches!(answer, Err(ReadError::Compacted { .. })));
        } else {
            let at = match revision {
                0 => model.now(),
                revision => &model.at[revision as usize],
            };
            assert_eq!(answer.unwrap().0, get_from(at, &all(revision)));
            for key in KEYS {
                let get = Get {
                    key: key.into(),
                    revision,
                    ..Get::default()
                };
                assert_eq!(read(memory, &get, 9).unwrap().0, get_from(at, &get));
            }
        }
    }
    compare_history(memory, model, 1);
    compare_history(memory, model, 1000);
    let leases = leases(memory).unwrap();
    let leases: BTreeMap<_, _> = leases
        .iter()
        .map(|(id, one)| (id.0, one.renewals))
        .collect();
    assert_eq!(leases, model.leases);
}

/// Reads history page by page.
fn compare_history(memory: &Memory, model: &Model, events_max: usize) {
    let wanted = |event: &&KeyEvent| event.kv.mod_revision > model.compacted;
    let expected: Vec<_> = model.events.iter().filter(wanted).cloned().collect();
    let (mut found, mut from) = (Vec::new(), model.compacted + 1);
    while from <= model.revision() {
        let all = Bytes::from_static(&[0]);
        let batch = history(memory, Revision(from), &all, &all, events_max).unwrap();
        assert!(batch.through.0 >= from, "a page makes progress");
        found.extend(batch.events);
        from = batch.through.0 + 1;
    }
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_logs_agree_with_the_reference(
        actions in proptest::collection::vec(action(), 1..160),
        splits in proptest::collection::vec(1usize..20, 1..16),
    ) {
        let mut model = Model {
            at: vec![Keys::new()],
            events: Vec::new(),
            leases: BTreeMap::new(),
            sessions: BTreeMap::new(),
            compacted: 0,
        };
        let mut memory = founded(SESSIONS_MAX, HISTORY_REVISIONS);
        let mut log = Vec::new();
        for (index, action) in (1..).zip(&actions) {
            let command = action.command(&model);
            let payload = Bytes::from(command.encode_to_vec());
            log.push(Entry { index: Index(index), term: Term(1), payload });
            let mut batch = Batch::new(&memory).unwrap();
            let outcome = batch.apply(log.last().unwrap()).unwrap();
            let writes = batch.finish();
            memory.write(&writes);
            prop_assert_eq!(without_message(outcome), without_message(model.apply(index, &command)));
            if index % 8 == 0 {
                compare(&memory, &model);
            }
        }
        compare(&memory, &model);
        prop_assert_eq!(replay(&log, &splits), memory);
    }

    #[test]
    fn no_payload_makes_apply_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
        let memory = founded(SESSIONS_MAX, HISTORY_REVISIONS);
        let mut batch = Batch::new(&memory).unwrap();
        let entry = Entry { index: Index(1), term: Term(1), payload: payload.into() };
        prop_assert!(batch.apply(&entry).unwrap().done.is_some());
    }
}

/// The same log in other batches.
fn replay(log: &[Entry], splits: &[usize]) -> Memory {
    let mut memory = founded(SESSIONS_MAX, HISTORY_REVISIONS);
    let mut rest = log;
    for size in splits.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*size).min(rest.len()));
        let mut batch = Batch::new(&memory).unwrap();
        for entry in now {
            batch.apply(entry).unwrap();
        }
        let writes = batch.finish();
        memory.write(&writes);
        rest = later;
    }
    memory
}
