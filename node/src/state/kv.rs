//! Keys: put, delete, transaction, and the one place that changes a key's record ([`Batch::change`]).

use super::apply::{Batch, Step, Stop, refuse};
use super::command::Step as StepResult;
use super::command::{
    Compare, Delete, DeleteDone, Done, Expect, KeyEvent, KeyValue, Put, PutDone, Refusal, Refused,
    Relation, StepDone, Target, Txn, TxnDone, TxnOp, TxnStep,
};
use super::read::{self, Span};
use super::record::{Current, Past, decode, encode};
use super::view::{Error, View};
use super::{VALUE_BYTES_MAX, keys};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// A current record with the bytes it was decoded from.
pub(super) struct Held {
    /// As stored.
    raw: Bytes,
    /// What it says.
    pub(super) current: Current,
}

impl Batch<'_> {
    /// [`Put`] as a command.
    pub(super) fn put_command(&mut self, step: &mut Step, put: &Put) -> Result<Done, Stop> {
        check_put(put)?;
        self.check_expect(&put.key, put.expect)?;
        self.check_lease(put.lease)?;
        Ok(Done::Put(self.put(step, put)?))
    }

    /// [`Delete`] as a command.
    pub(super) fn delete_command(&mut self, step: &mut Step, del: &Delete) -> Result<Done, Stop> {
        check_delete(del)?;
        self.check_expect(&del.key, del.expect)?;
        Ok(Done::Delete(self.delete(step, del)?))
    }

    /// [`Txn`] as a command.
    pub(super) fn txn_command(&mut self, step: &mut Step, txn: &Txn) -> Result<Done, Stop> {
        check_branch(&txn.success)?;
        check_branch(&txn.failure)?;
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded &= self.compare(compare)?;
        }
        let branch = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        self.check_reach(branch)?;
        let mut results = Vec::with_capacity(branch.len());
        for op in branch {
            let result = self.txn_step(step, op)?;
            results.push(StepDone { step: Some(result) });
        }
        Ok(Done::Txn(TxnDone { succeeded, results }))
    }

    /// One step of a transaction that was checked.
    fn txn_step(&mut self, step: &mut Step, op: &TxnOp) -> Result<StepResult, Error> {
        Ok(match &op.step {
            Some(TxnStep::Put(put)) => StepResult::Put(self.put(step, put)?),
            Some(TxnStep::Delete(delete)) => StepResult::Delete(self.delete(step, delete)?),
            Some(TxnStep::Get(get)) => {
                StepResult::Get(read::lookup(&self.over, get, read::TXN_RANGE_MAX)?)
            }
            None => unreachable!("an empty step was refused"),
        })
    }

    /// What of a branch may fail for the state as it is: leases and revisions.
    fn check_reach(&self, branch: &[TxnOp]) -> Result<(), Stop> {
        for op in branch {
            match &op.step {
                Some(TxnStep::Put(put)) => self.check_lease(put.lease)?,
                Some(TxnStep::Get(get)) => self.check_revision(get.revision)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses a read at a revision that is gone or not yet there.
    fn check_revision(&self, revision: u64) -> Result<(), Stop> {
        if revision > self.meta.revision {
            return Err(refuse(Refusal::FutureRevision, "no such revision yet"));
        }
        if revision != 0 && revision < self.meta.compacted {
            return Err(refuse(Refusal::Compacted, "the revision was compacted"));
        }
        Ok(())
    }

    /// The current record of a key.
    pub(super) fn held(&self, key: &[u8]) -> Result<Option<Held>, Error> {
        let Some(raw) = self.over.get(&keys::current(key))? else {
            return Ok(None);
        };
        let current = decode("current key", raw.clone())?;
        Ok(Some(Held { raw, current }))
    }

    /// Refuses when a condition does not hold.
    fn check_expect(&self, key: &[u8], expect: Option<Expect>) -> Result<(), Stop> {
        let Some(expect) = expect else { return Ok(()) };
        let kv = self.held(key)?.map(|held| held.current.kv);
        let (version, mod_revision) = kv
            .as_ref()
            .map_or((0, 0), |kv| (kv.version, kv.mod_revision));
        let holds = !(expect.absent && kv.is_some())
            && expect.version.is_none_or(|wanted| wanted == version)
            && expect
                .mod_revision
                .is_none_or(|wanted| wanted == mod_revision);
        if holds {
            return Ok(());
        }
        Err(Stop::Refused(Box::new(Refused {
            why: Refusal::Precondition.into(),
            message: "the key is not as the condition expects".to_owned(),
            current: kv,
        })))
    }

    /// Writes a key; all checks are done.
    fn put(&mut self, step: &mut Step, put: &Put) -> Result<PutDone, Error> {
        let held = self.held(&put.key)?;
        let before = held.as_ref().map(|held| &held.current.kv);
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            version: before.map_or(0, |kv| kv.version) + 1,
            create_revision: before.map_or(step.revision, |kv| kv.create_revision),
            mod_revision: step.revision,
            lease: put.lease,
        };
        let done = PutDone {
            version: kv.version,
            create_revision: kv.create_revision,
            prev: before.filter(|_| put.prev).cloned(),
        };
        self.change(step, held, Some(kv));
        Ok(done)
    }

    /// Removes a key or range; all checks are done.
    fn delete(&mut self, step: &mut Step, delete: &Delete) -> Result<DeleteDone, Error> {
        let mut done = DeleteDone::default();
        for key in self.keys_in(&Span::new(&delete.key, &delete.range_end))? {
            let Some(held) = self.held(&key)? else {
                continue;
            };
            done.deleted += 1;
            if delete.prev {
                done.prev.push(held.current.kv.clone());
            }
            self.change(step, Some(held), None);
        }
        Ok(done)
    }

    /// The keys of a span, without their values, for there may be many; one key alone may be absent.
    fn keys_in(&self, span: &Span) -> Result<Vec<Bytes>, Error> {
        if let Some(key) = span.single() {
            return Ok(vec![key.clone()]);
        }
        let (start, end) = span.bounds();
        let records = self.over.scan(&start, &end);
        records
            .map(|record| Ok(keys::user_key(&record?.0)))
            .collect()
    }

    /// Removes a key if it is there.
    pub(super) fn remove(&mut self, step: &mut Step, key: &[u8]) -> Result<(), Error> {
        if let Some(held) = self.held(key)? {
            self.change(step, Some(held), None);
        }
        Ok(())
    }

    /// The one place where a key changes: current record, event, and the links of leases. At least one of `before`
    /// and `after` is there.
    fn change(&mut self, step: &mut Step, before: Option<Held>, after: Option<KeyValue>) {
        let sub = step.events;
        step.events += 1;
        let old = before.as_ref().map(|held| &held.current.kv);
        let key = after.as_ref().or(old).map(|kv| kv.key.clone());
        let key = key.expect("a change has a before or an after");
        match (old.is_some(), after.is_some()) {
            (false, true) => self.meta.keys += 1,
            // A state of the first nodes, which did not count, would go below zero.
            (true, false) => self.meta.keys = self.meta.keys.saturating_sub(1),
            _ => {}
        }
        self.relink(&key, old, after.as_ref());
        let past = Past {
            prev_sub: before.as_ref().map_or(0, |held| held.current.sub),
            prev_hash: before.as_ref().map_or(0, |held| held.current.event_hash),
            event: KeyEvent {
                deleted: after.is_none(),
                prev_revision: old.map_or(0, |kv| kv.mod_revision),
                time_ms: step.time_ms,
                kv: after.clone().unwrap_or_else(|| tombstone(&key, step)),
            },
        };
        let event_key = keys::history(step.revision, sub);
        let event_hash = self.over.add(event_key, encode(&past));
        let raw = before.as_ref().map(|held| &held.raw[..]);
        let after = after.map(|kv| {
            encode(&Current {
                kv,
                sub,
                event_hash,
            })
        });
        self.over.replace(keys::current(&key), raw, after);
    }

    /// Moves a key from the lease it had to the one it gets.
    fn relink(&mut self, key: &[u8], old: Option<&KeyValue>, new: Option<&KeyValue>) {
        let old = old.map_or(0, |kv| kv.lease);
        let new = new.map_or(0, |kv| kv.lease);
        if old == new {
            return;
        }
        if old != 0 {
            self.over
                .replace(keys::lease_key(old, key), Some(&[]), None);
        }
        if new != 0 {
            self.over
                .replace(keys::lease_key(new, key), None, Some(Bytes::new()));
        }
    }

    /// Whether a comparison holds.
    fn compare(&self, compare: &Compare) -> Result<bool, Stop> {
        let (Ok(target), Ok(relation)) = (
            Target::try_from(compare.target),
            Relation::try_from(compare.relation),
        ) else {
            return Err(invalid("a comparison has an unknown target or relation"));
        };
        check_key(&compare.key)?;
        let kv = self.held(&compare.key)?.map(|held| held.current.kv);
        // No value is like no value, whatever it is compared with: an absent key satisfies `NotEqual` alone.
        let order = match (&kv, target) {
            (None, Target::Value) => return Ok(relation == Relation::NotEqual),
            (Some(kv), Target::Value) => kv.value.cmp(&compare.value),
            (kv, target) => number(kv.as_ref(), target).cmp(&compare.number),
        };
        Ok(match relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
        })
    }
}

/// The number a comparison looks at; zero for an absent key.
fn number(kv: Option<&KeyValue>, target: Target) -> u64 {
    kv.map_or(0, |kv| match target {
        Target::Version => kv.version,
        Target::CreateRevision => kv.create_revision,
        Target::ModRevision => kv.mod_revision,
        Target::Lease => kv.lease,
        Target::Value => 0,
    })
}

/// What an event says of a key that was removed.
fn tombstone(key: &Bytes, step: &Step) -> KeyValue {
    KeyValue {
        key: key.clone(),
        mod_revision: step.revision,
        ..KeyValue::default()
    }
}

/// A refusal for a command that makes no sense.
fn invalid(message: &str) -> Stop {
    refuse(Refusal::Invalid, message)
}

/// Refuses a key that is empty or too long.
fn check_key(key: &[u8]) -> Result<(), Stop> {
    check_span(key, &[])
}

/// Refuses a put that makes no sense.
fn check_put(put: &Put) -> Result<(), Stop> {
    if put.value.len() > VALUE_BYTES_MAX {
        return Err(invalid("the value is too long"));
    }
    check_key(&put.key)
}

/// Refuses a delete that makes no sense.
fn check_delete(delete: &Delete) -> Result<(), Stop> {
    check_span(&delete.key, &delete.range_end)?;
    if !delete.range_end.is_empty() && delete.expect.is_some() {
        return Err(invalid("a condition goes with one key, not with a range"));
    }
    Ok(())
}

/// Refuses a branch with a step that makes no sense, or that writes one key twice.
fn check_branch(branch: &[TxnOp]) -> Result<(), Stop> {
    let mut puts: BTreeSet<&Bytes> = BTreeSet::new();
    let mut deletes = Vec::new();
    for op in branch {
        let conditional = match &op.step {
            Some(TxnStep::Put(put)) => {
                check_put(put)?;
                if !puts.insert(&put.key) {
                    return Err(invalid("a transaction puts one key twice"));
                }
                put.expect.is_some()
            }
            Some(TxnStep::Delete(delete)) => {
                check_delete(delete)?;
                deletes.push(Span::new(&delete.key, &delete.range_end));
                delete.expect.is_some()
            }
            Some(TxnStep::Get(get)) => {
                check_span(&get.key, &get.range_end)?;
                false
            }
            None => return Err(invalid("unknown step in a transaction")),
        };
        if conditional {
            return Err(invalid("a step of a transaction has a condition"));
        }
    }
    // A key is put and removed only if some put lies inside some removed span.
    if deletes.iter().any(|span| span.holds_one_of(&puts)) {
        return Err(invalid("a transaction puts and removes one key"));
    }
    Ok(())
}

/// Refuses a key or range that makes no sense.
fn check_span(key: &[u8], range_end: &[u8]) -> Result<(), Stop> {
    read::check_span(key, range_end).map_err(invalid)
}
