//! What each command does to the fleet.
//!
//! Everything that may refuse a command happens before its first change, so a refused one changes nothing. Each change marks the
//! records that it touches and leaves one event.
//!
//! Map: `services`, `workers` with `hello`, `plan`, `volumes`, `tokens` and `secrets`, one kind of command each; `tell`, the events.

mod hello;
mod plan;
mod secrets;
mod services;
mod tell;
mod tokens;
mod volumes;
mod workers;

use super::Fleet;
use super::command::{Command, Done};
use super::records::Key;
use crate::state::command::Refusal;
use crate::types::{ServiceId, TaskId, Term, WorkerId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where in the log a command stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Its entry.
    pub index: u64,
    /// The term of its entry.
    pub term: Term,
    /// The leader's wall clock when it proposed, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// A command was refused: the same on every manager, nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, as a word.
    pub why: Refusal,
    /// Why, in a sentence that says what to do.
    pub message: String,
}

/// A refusal.
fn refuse<T>(why: Refusal, message: impl Into<String>) -> Result<T, Refused> {
    let message = message.into();
    Err(Refused { why, message })
}

impl Fleet {
    /// Applies `command`.
    pub fn apply(&mut self, command: &Command, at: At) -> Result<Done, Refused> {
        let mut earlier = std::mem::take(&mut self.dirty);
        let result = self.execute(command, at);
        if result.is_err() {
            assert!(self.dirty.is_empty(), "a refused command changes nothing");
        }
        if !self.dirty.is_empty() {
            self.index = at.index;
            self.mark(Key::Meta);
        }
        self.dirty.append(&mut earlier);
        result
    }

    fn execute(&mut self, command: &Command, at: At) -> Result<Done, Refused> {
        match command {
            Command::ServiceCreate { spec } => self.create_service(spec, at),
            Command::ServiceUpdate {
                name,
                spec,
                expect_version,
            } => self.update_service(name, spec, *expect_version, at),
            Command::ServiceScale { name, replicas } => self.scale_service(name, *replicas, at),
            Command::ServiceRollBack { name } => self.roll_service_back(name, at),
            Command::ServicePause { name, paused } => self.pause_service(name, *paused, at),
            Command::ServiceRebalance { name } => self.rebalance_service(name, at),
            Command::ServiceRemove { name } => self.remove_service(name, at),
            Command::WorkerHello(said) => self.hello(said, at),
            Command::WorkerReports { batch } => Ok(self.take_reports(batch, at)),
            Command::WorkerStatus { term, changes } => Ok(self.set_status(*term, changes, at)),
            Command::WorkerSet {
                name,
                availability,
                labels,
            } => self.set_worker(name, *availability, labels, at),
            Command::WorkerRemove { name, force } => self.remove_worker(name, *force, at),
            Command::Plan { term, changes } => Ok(self.plan(*term, changes, at)),
            Command::VolumeCreate { name, worker } => {
                self.create_volume(name, worker.as_deref(), at)
            }
            Command::VolumeRemove { name } => self.remove_volume(name, at),
            Command::TokenCreate { hash, ttl_ms, role } => {
                self.create_token(hash, *ttl_ms, *role, at)
            }
            Command::TokenRevoke { id } => self.revoke_token(*id, at),
            Command::SecretPut {
                name,
                version,
                what,
            } => self.put_secret(name, *version, what, at),
            Command::SecretRemove { name } => self.remove_secret(name, at),
            Command::KeyringMake {
                node,
                public,
                share,
            } => self.make_keyring(*node, *public, share, at),
            Command::KeyringJoin { node, public } => Ok(self.join_keyring(*node, *public)),
            Command::KeyringShare {
                key,
                node,
                public,
                share,
            } => Ok(self.share_key(*key, *node, *public, share, at)),
            Command::KeyringLeave { node } => Ok(self.leave_keyring(*node)),
            Command::ManagerJoin {
                name,
                life,
                token_hash,
            } => self.admit_manager(name, *life, token_hash, at),
        }
    }

    /// Notes that a record changed.
    fn mark(&mut self, key: Key) {
        self.dirty.insert(key);
    }

    /// Notes that the assignments of `worker` changed.
    fn assignments_changed(&mut self, worker: WorkerId, at: At) {
        if let Some(note) = self.workers.get_mut(&worker) {
            note.revision = at.index;
            self.mark(Key::Worker(worker));
        }
    }

    /// Keeps the specification of the service's present contents, as it was when they appeared.
    fn keep_spec(&mut self, service: ServiceId) {
        let Some(entry) = self.snapshot.services.get(&service) else {
            return;
        };
        let key = (service, entry.current.contents);
        if !self.specs.contains_key(&key) {
            self.specs.insert(key, Arc::clone(&entry.current.spec));
            self.mark(Key::Spec(key.0, key.1));
        }
    }

    /// Drops specifications of `service` that neither it nor one of its tasks needs any more.
    fn drop_specs(&mut self, service: ServiceId) {
        let entry = self.snapshot.services.get(&service);
        let named = entry.into_iter().flat_map(|service| {
            let both = std::iter::once(&service.current).chain(&service.previous);
            both.map(|revision| revision.contents)
        });
        let tasks = self.snapshot.tasks.of_service(service);
        let needed: BTreeSet<u64> = named.chain(tasks.map(|task| task.version)).collect();
        let kept = self.specs.range((service, 0)..=(service, u64::MAX));
        let kept = kept.map(|(key, _)| *key);
        let gone: Vec<_> = kept
            .filter(|(_, version)| !needed.contains(version))
            .collect();
        for key in gone {
            self.specs.remove(&key);
            self.mark(Key::Spec(key.0, key.1));
        }
    }

    /// Ends a task on behalf of its worker, which will not say how it ended.
    fn end_task(&mut self, id: TaskId, why: &str, at: At) {
        use crate::service::{Desired, State};
        let Some(task) = self.snapshot.tasks.get_mut(&id) else {
            return;
        };
        if task.state.is_end() {
            return;
        }
        let told = task.desired != Desired::Run;
        task.state = if told { State::Stopped } else { State::Failed };
        task.changed_ms = at.time_ms;
        if let Some(note) = self.notes.get_mut(&id) {
            why.clone_into(&mut note.message);
        }
        self.mark(Key::Task(id));
        self.tell_state(id, at);
    }
}
