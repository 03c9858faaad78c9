//! An entry's way through the state machine: decode, session, command, outcome, housekeeping.
//!
//! A [`Batch`] applies several entries over one view and gives all their writes at the end. When it returns an
//! [`Error`] it is spoilt and must be dropped: some of an entry's writes may be in it.

use super::command::{Command, Done, Nothing, Op, Outcome, Refusal, Refused};
use super::keys;
use super::record::{self, Applied, Meta};
use super::view::{Error, View};
use super::writes::{Overlay, Writes, record_hash};
use crate::fleet::Fleet;
use crate::types::{Index, Revision, Term};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log.
    pub index: Index,
    /// Term.
    pub term: Term,
    /// An encoded [`Command`]; empty for the entry a new leader begins its term with.
    pub payload: Bytes,
}

/// Why a command ends early.
pub(super) enum Stop {
    /// With an outcome; boxed, for most commands are not refused.
    Refused(Box<Refused>),
    /// With a broken store.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

/// A refusal.
pub(super) fn refuse(why: Refusal, message: impl Into<String>) -> Stop {
    Stop::Refused(Box::new(Refused {
        why: why.into(),
        message: message.into(),
        current: None,
    }))
}

/// The command under way.
pub(super) struct Step {
    /// Its entry.
    pub(super) index: u64,
    /// Leader's wall clock, milliseconds.
    pub(super) time_ms: u64,
    /// The revision its changes get.
    pub(super) revision: u64,
    /// Changes so far.
    pub(super) events: u32,
}

/// Entries being applied on top of a view.
pub struct Batch<'a> {
    /// The state with the writes so far; its hash leaves out meta.
    pub(super) over: Overlay<'a>,
    /// Meta after the last entry.
    pub(super) meta: Meta,
    /// Meta as the view has it.
    meta_before: Bytes,
    /// Position as the view has it.
    applied_before: Bytes,
    /// Position after the last entry; its hash is not kept up to date.
    pub(super) applied: Applied,
    /// The fleet as of the last entry; none until it is needed.
    pub(super) fleet: Option<Arc<Fleet>>,
    /// Whether the fleet is another than before the batch.
    pub(super) fleet_changed: bool,
}

impl<'a> Batch<'a> {
    /// Begins on a founded state.
    pub fn new(view: &'a dyn View) -> Result<Self, Error> {
        let record::Founded {
            meta,
            applied,
            meta_bytes: meta_before,
            applied_bytes: applied_before,
        } = record::founded(view)?;
        let meta_hash = record_hash(&keys::META, &meta_before);
        Ok(Batch {
            over: Overlay::new(view, applied.state_hash.wrapping_sub(meta_hash)),
            meta,
            meta_before,
            applied_before,
            applied,
            fleet: None,
            fleet_changed: false,
        })
    }

    /// Spares the batch to load the fleet: `fleet` is what the records of its view say.
    pub fn with_fleet(mut self, fleet: Arc<Fleet>) -> Self {
        self.fleet = Some(fleet);
        self
    }

    /// The fleet after the last entry, if the batch changed it.
    pub fn changed_fleet(&self) -> Option<Arc<Fleet>> {
        self.fleet.clone().filter(|_| self.fleet_changed)
    }

    /// Applies the next entry. Its index must be the one after the last applied.
    pub fn apply(&mut self, entry: &Entry) -> Result<Outcome, Error> {
        self.advance(entry.index, entry.term);
        let done = self.answer(entry)?;
        self.sweep(entry.index.0)?;
        Ok(done)
    }

    /// Position after the last entry.
    pub fn applied_index(&self) -> Index {
        Index(self.applied.index)
    }

    /// Revision after the last entry.
    pub fn revision(&self) -> Revision {
        Revision(self.meta.revision)
    }

    /// Meta after the last entry.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The state as it is after the last entry.
    pub fn view(&self) -> &dyn View {
        // Meta and position lag behind until `finish`; readers of keys, leases and members do not look at them.
        &self.over
    }

    /// Hash of the whole state after the last entry.
    pub fn state_hash(&self) -> u64 {
        let meta = record_hash(&keys::META, &record::encode(&self.meta));
        self.over.hash().wrapping_add(meta)
    }

    /// Everything to write, in one piece.
    pub fn finish(mut self) -> Writes {
        let applied = Applied {
            state_hash: self.state_hash(),
            ..self.applied
        };
        let meta = record::encode(&self.meta);
        self.set_special(&keys::META, self.meta_before.clone(), meta);
        let applied = record::encode(&applied);
        self.set_special(&keys::APPLIED, self.applied_before.clone(), applied);
        self.over.into_writes()
    }

    /// Writes one of the two records that are kept apart during the batch.
    fn set_special(&mut self, key: &'static [u8], old: Bytes, new: Bytes) {
        let key = Bytes::from_static(key);
        self.over.replace(key, Some(&old), Some(new));
    }

    /// Moves the position to the next entry.
    pub(super) fn advance(&mut self, index: Index, term: Term) {
        assert_eq!(
            index.0,
            self.applied.index + 1,
            "entries are applied in order, each once"
        );
        assert!(
            term.0 >= self.applied.term,
            "terms never fall along the log"
        );
        self.applied.index = index.0;
        self.applied.term = term.0;
    }

    /// Decodes an entry and does it, with its session around it.
    fn answer(&mut self, entry: &Entry) -> Result<Outcome, Error> {
        let mut step = self.step(entry.index, 0);
        if entry.payload.is_empty() {
            return Ok(self.outcome(&step, Done::Nothing(Nothing {})));
        }
        let command = match Command::decode(entry.payload.clone()) {
            Ok(command) => command,
            Err(error) => {
                let stop = refuse(Refusal::Invalid, format!("unreadable command: {error}"));
                return self.conclude(step, Err(stop));
            }
        };
        step.time_ms = command.time_ms;
        if command.session == 0 {
            let result = self.execute(&mut step, &command);
            return self.conclude(step, result);
        }
        match self.begin_session(&step, command.session, command.seq) {
            Ok(Some(replay)) => return Ok(replay),
            Ok(None) => {}
            Err(stop) => return self.conclude(step, Err(stop)),
        }
        let result = self.execute(&mut step, &command);
        let outcome = self.conclude(step, result)?;
        self.end_session(command.session, command.seq, &outcome)?;
        Ok(outcome)
    }

    /// A command that begins now.
    pub(super) fn step(&self, index: Index, time_ms: u64) -> Step {
        Step {
            index: index.0,
            time_ms,
            revision: self.meta.revision + 1,
            events: 0,
        }
    }

    /// Does a command. Everything that may refuse it happens before its first write.
    fn execute(&mut self, step: &mut Step, command: &Command) -> Result<Done, Stop> {
        match &command.op {
            Some(Op::Put(put)) => self.put_command(step, put),
            Some(Op::Delete(delete)) => self.delete_command(step, delete),
            Some(Op::Txn(txn)) => self.txn_command(step, txn),
            Some(Op::LeaseGrant(grant)) => self.lease_grant(step, grant),
            Some(Op::LeaseRevoke(revoke)) => self.lease_revoke(step, revoke),
            Some(Op::LeaseKeepAlive(alive)) => self.lease_keep_alive(alive),
            Some(Op::LeaseExpire(expire)) => self.lease_expire(step, expire),
            Some(Op::SessionOpen(_)) => self.session_open(step),
            Some(Op::SessionClose(close)) => self.session_close(close),
            Some(Op::Compact(compact)) => self.compact(compact),
            Some(Op::MemberUpdate(member)) => self.member_update(member),
            Some(Op::SetLimits(limits)) => self.set_limits(limits),
            Some(Op::Fleet(command)) => self.fleet_command(step, command),
            None => Err(refuse(Refusal::Invalid, "unknown operation")),
        }
    }

    /// Ends a command: takes its revision if it changed a key, and puts its outcome together.
    fn conclude(&mut self, step: Step, result: Result<Done, Stop>) -> Result<Outcome, Error> {
        let done = match result {
            Ok(done) => done,
            Err(Stop::Refused(refused)) => {
                assert_eq!(step.events, 0, "a refused command changes nothing");
                Done::Refused(*refused)
            }
            Err(Stop::Error(error)) => return Err(error),
        };
        if step.events > 0 {
            self.meta.revision = step.revision;
        }
        Ok(self.outcome(&step, done))
    }

    /// An outcome as of now.
    pub(super) fn outcome(&self, step: &Step, done: Done) -> Outcome {
        Outcome {
            revision: self.meta.revision,
            index: step.index,
            replayed: false,
            done: Some(done),
        }
    }
}

/// The state hash from scratch, by a walk over every record.
pub fn full_hash(view: &dyn View) -> Result<u64, Error> {
    let mut sum = 0u64;
    for record in view.scan(&[], &keys::END) {
        let (key, value) = record?;
        if key != keys::APPLIED[..] {
            sum = sum.wrapping_add(record_hash(&key, &value));
        }
    }
    Ok(sum)
}
