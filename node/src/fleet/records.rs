//! The fleet as records: one for each service, specification, task, worker, removed worker, volume, token, event and secret, and one
//! for the counters.
//!
//! Values are JSON, the same bytes for the same fleet: maps are ordered, and fields stand in the order of their types. Where a record
//! lies is decided in `state::keys`. A fleet that is loaded from its records equals the one in memory.

use super::secret::{Keyring, Secret};
use super::{Event, Fleet, ServiceNote, TaskNote, Token, WorkerNote};
use crate::scheduler::model::{Removed, Service, Task, Volume, Worker};
use crate::service::Spec;
use crate::state::{Error, View, fleet_key, fleet_key_parts, fleet_range};
use crate::types::{ServiceId, TaskId, WorkerId};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Room for the JSON of most records, bytes.
const JSON_LEN_USUAL: usize = 1 << 10;

/// Names a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Counters.
    Meta,
    /// A service with its note.
    Service(ServiceId),
    /// A specification.
    Spec(ServiceId, u64),
    /// A task with its note.
    Task(TaskId),
    /// A worker with its note.
    Worker(WorkerId),
    /// A volume.
    Volume(String),
    /// A token.
    Token(u64),
    /// An event.
    Event(u64, u32),
    /// A secret.
    Secret(String),
    /// Who can open secrets.
    Keyring,
    /// A worker that was removed.
    Removed(WorkerId),
}

impl Key {
    /// Whether it is of something that has its name from the entry `index`, by which it was made.
    fn is_named_by(&self, index: u64) -> bool {
        match self {
            Key::Service(id) | Key::Spec(id, _) => id.0 == index,
            Key::Worker(id) => id.0 == index,
            Key::Token(id) | Key::Event(id, _) => *id == index,
            Key::Meta
            | Key::Task(_)
            | Key::Volume(_)
            | Key::Secret(_)
            | Key::Keyring
            | Key::Removed(_) => false,
        }
    }
}

/// A record that changed.
pub(crate) struct Changed {
    /// Where it lies.
    pub(crate) key: Bytes,
    /// As it is to be written; none: removed.
    pub(crate) value: Option<Bytes>,
    /// Whether it was made by the entry that changed it: there was no record of this key before.
    pub(crate) is_new: bool,
}

/// The counters.
#[derive(Serialize, Deserialize)]
struct Meta {
    /// The entry that changed anything last.
    index: u64,
    /// The id that the next task gets.
    next_task: TaskId,
}

/// A thing of the scheduler's with what is known beside.
#[derive(Serialize, Deserialize)]
struct Noted<T, N> {
    /// The thing.
    is: T,
    /// What is known beside.
    note: N,
}

impl Fleet {
    /// The fleet that the records of `view` say.
    pub fn load(view: &dyn View) -> Result<Fleet, Error> {
        let mut fleet = Fleet::default();
        let (start, end) = fleet_range();
        for record in view.scan(&start, &end) {
            let (key, value) = record?;
            let Some(key) = fleet_key_parts(&key) else {
                let message = format!("a record of the fleet has the key {key:?}");
                return Err(Error::corrupt(message));
            };
            fleet.take_record(key, &value)?;
        }
        Ok(fleet)
    }

    /// The records that changed since this was asked last.
    pub(crate) fn take_changes(&mut self) -> Vec<Changed> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = |key: Key| Changed {
            key: fleet_key(&key),
            value: self.record(&key),
            is_new: key.is_named_by(self.index),
        };
        dirty.into_iter().map(changed).collect()
    }

    fn take_record(&mut self, key: Key, value: &[u8]) -> Result<(), Error> {
        match &key {
            Key::Meta => {
                let meta: Meta = read(&key, value)?;
                self.index = meta.index;
                self.snapshot.next_task = meta.next_task;
            }
            Key::Service(id) => {
                let noted: Noted<Service, ServiceNote> = read(&key, value)?;
                self.snapshot.services.insert(*id, noted.is);
                self.services.insert(*id, noted.note);
            }
            Key::Spec(id, version) => {
                let spec: Spec = read(&key, value)?;
                self.specs.insert((*id, *version), Arc::new(spec));
            }
            Key::Task(id) => {
                let noted: Noted<Task, TaskNote> = read(&key, value)?;
                self.snapshot.tasks.insert(*id, noted.is);
                self.notes.insert(*id, noted.note);
            }
            Key::Worker(id) => {
                let noted: Noted<Worker, WorkerNote> = read(&key, value)?;
                self.snapshot.workers.insert(*id, noted.is);
                self.workers.insert(*id, noted.note);
            }
            Key::Volume(name) => {
                let volume: Volume = read(&key, value)?;
                self.snapshot.volumes.insert(name.clone(), volume);
            }
            Key::Token(id) => {
                let token: Token = read(&key, value)?;
                self.tokens.insert(*id, token);
            }
            Key::Event(index, number) => {
                let event: Event = read(&key, value)?;
                self.events.insert((*index, *number), event);
            }
            Key::Secret(name) => {
                let secret: Secret = read(&key, value)?;
                let newest = secret.newest();
                self.snapshot.secrets.insert(name.clone(), newest);
                self.secrets.insert(name.clone(), secret);
            }
            Key::Keyring => {
                let keyring: Keyring = read(&key, value)?;
                self.keyring = Arc::new(keyring);
            }
            Key::Removed(id) => {
                let removed: Removed = read(&key, value)?;
                self.snapshot.removed.insert(*id, removed);
            }
        }
        Ok(())
    }

    /// The value of a record as it is now; none: there is no such thing.
    fn record(&self, key: &Key) -> Option<Bytes> {
        match key {
            Key::Meta => Some(write(&Meta {
                index: self.index,
                next_task: self.snapshot.next_task,
            })),
            Key::Service(id) => noted(self.snapshot.services.get(id)?, self.services.get(id)?),
            Key::Spec(id, version) => {
                let spec = self.specs.get(&(*id, *version))?;
                Some(write(&**spec))
            }
            Key::Task(id) => noted(self.snapshot.tasks.get(id)?, self.notes.get(id)?),
            Key::Worker(id) => noted(self.snapshot.workers.get(id)?, self.workers.get(id)?),
            Key::Volume(name) => self.snapshot.volumes.get(name).map(write),
            Key::Token(id) => self.tokens.get(id).map(write),
            Key::Event(index, number) => {
                let event = self.events.get(&(*index, *number))?;
                Some(write(event))
            }
            Key::Secret(name) => self.secrets.get(name).map(write),
            Key::Keyring => Some(write(&*self.keyring)),
            Key::Removed(id) => self.snapshot.removed.get(id).map(write),
        }
    }
}

fn noted<T: Serialize, N: Serialize>(is: &T, note: &N) -> Option<Bytes> {
    Some(write(&Noted { is, note }))
}

/// The JSON of a record or a command.
pub(super) fn write<T: Serialize>(value: &T) -> Bytes {
    // Most fit, so that nothing is copied while it grows; then it takes what it needs.
    let mut json = Vec::with_capacity(JSON_LEN_USUAL);
    serde_json::to_writer(&mut json, value).expect("records are plain data with text keys");
    Bytes::copy_from_slice(&json)
}

fn read<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value)
        .map_err(|error| Error::corrupt(format!("the fleet's record {key:?}: {error}")))
}
