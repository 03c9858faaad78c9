//! The fleet: services, tasks, workers, volumes and tokens as the log keeps them, pure.
//!
//! ```text
//! Command (JSON in an entry) -> Fleet::apply -> Done or a refusal, and the records that changed
//! ```
//!
//! [`Fleet`] is what every manager holds in memory: the scheduler's [`Snapshot`] and what people and sessions need beside it.
//! It is built from replicated records and from nothing else ([`records`]), so that it can be thrown away and read again at any
//! time; `state` keeps the two equal. What a command means is [`apply`]; what changes of the scheduler mean is
//! [`crate::scheduler::change`].
//!
//! Map, in reading order: [`command`], what goes in and comes out; [`event`], what is told of it; [`apply`]; [`records`];
//! [`secret`], sealed values and who opens them; [`meeting`], what workers and managers say to each other; [`feed`], how it is told.
//!
//! Nothing here looks at a clock, a disk or a network. `docs/orchestration.md` is the contract.

pub mod apply;
pub mod command;
pub mod event;
pub mod feed;
pub mod meeting;
pub mod records;
pub mod secret;
#[cfg(test)]
mod tests;

pub use command::{Command, Done};
pub use event::Event;

use crate::map::Map;
use crate::scheduler::Snapshot;
use crate::service::Spec;
use crate::types::{Incarnation, ServiceId, TaskId, WorkerId};
use crate::worker::words::Exit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Events that are remembered; the oldest are forgotten beyond.
pub const EVENTS_MAX: usize = 4_096;
/// Most services, and most volumes: the leader looks at all of them.
pub const NAMES_MAX: usize = 10_000;
/// Removed workers that are remembered; beyond, the oldest on which no volume lies are forgotten.
pub const REMOVED_MAX: usize = 4_096;
/// Longest specification, bytes of its JSON.
pub const SPEC_BYTES_MAX: usize = 64 << 10;

/// Everything that the log says about orchestration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// What the scheduler decides on.
    pub snapshot: Snapshot,
    /// What is known of each task beside that.
    pub notes: Map<TaskId, TaskNote>,
    /// What is known of each worker beside that.
    pub workers: Map<WorkerId, WorkerNote>,
    /// What is known of each service beside that.
    pub services: Map<ServiceId, ServiceNote>,
    /// The specification of each contents that a task or a service still needs, by service and version.
    pub specs: Map<(ServiceId, u64), Arc<Spec>>,
    /// Tokens by which workers and managers may join, by id.
    pub tokens: Map<u64, Token>,
    /// Secrets, by name; only their ciphertext.
    pub secrets: Map<String, secret::Secret>,
    /// Who can open them.
    pub keyring: Arc<secret::Keyring>,
    /// What happened lately, by the entry that did it and a number within the entry.
    pub events: Map<(u64, u32), Event>,
    /// The entry that changed anything here last.
    pub index: u64,
    /// Records that changed since they were last written.
    dirty: BTreeSet<records::Key>,
}

/// What is known of a task beside what the scheduler needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNote {
    /// Attempts begun, by its worker's report.
    pub attempts: u32,
    /// How the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why, in a sentence; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What is known of a worker beside what the scheduler needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerNote {
    /// Its HTTP address, `host:port`, for the output of its tasks.
    pub address: String,
    /// Life of its disk.
    pub life: Incarnation,
    /// The key for which its tasks' secrets are sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<crate::secrets::PublicKey>,
    /// The token by which that life joined; zero: nobody knows any more.
    #[serde(default)]
    pub token: u64,
    /// Greatest report of that life that was taken.
    pub acknowledged: u64,
    /// The entry that changed its assignments last: their revision. Grows within an epoch and across epochs.
    pub revision: u64,
    /// When it joined, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// When its status changed last, milliseconds since the Unix epoch.
    pub changed_ms: u64,
}

/// What is known of a service beside what the scheduler needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNote {
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its specification changed last, milliseconds since the Unix epoch.
    pub updated_ms: u64,
}

/// What joins by a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    /// Workers.
    #[default]
    Worker,
    /// Managers: members of group 0.
    Manager,
}

impl TokenRole {
    /// Whether it is that of workers, as all tokens were before there were roles.
    pub fn is_worker(&self) -> bool {
        *self == TokenRole::Worker
    }

    /// The word that people read and write.
    pub fn word(self) -> &'static str {
        match self {
            TokenRole::Worker => "worker",
            TokenRole::Manager => "manager",
        }
    }
}

/// A manager that a token lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Its name.
    pub name: String,
    /// Life of its disk.
    pub life: Incarnation,
}

/// A token by which workers or managers may join. Only its hash is known here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token's text, hex.
    pub hash: String,
    /// When it ends, milliseconds since the Unix epoch, by the stamp of the entry that uses it.
    pub expires_ms: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Workers that joined with it, or managers that it let in.
    pub used: u64,
    /// What joins by it.
    #[serde(default, skip_serializing_if = "TokenRole::is_worker")]
    pub role: TokenRole,
    /// The managers that it let in last, oldest first: one that asks again is not counted again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admitted: Vec<Admission>,
}

impl Fleet {
    /// The stamp of the newest event, milliseconds since the Unix epoch; zero: there is none.
    pub fn newest_ms(&self) -> u64 {
        self.events
            .last_key_value()
            .map_or(0, |(_, event)| event.time_ms)
    }

    /// The service called `name`.
    pub fn service(&self, name: &str) -> Option<&crate::scheduler::model::Service> {
        self.snapshot.services.named(name)
    }

    /// What `name` is, if not a service's: the number of a task, or a slot. For whoever typed it where a service's name belongs.
    pub fn other_than_service(&self, name: &str) -> Option<String> {
        if let Ok(id) = name.parse() {
            let task = self.snapshot.tasks.get(&TaskId(id))?;
            let service = self.snapshot.services.get(&task.service)?;
            let service = &service.current.spec.name;
            return Some(format!(
                "{id} is a task, of service {service}: name the service"
            ));
        }
        let (service, slot) = crate::service::name_and_slot(name)?;
        self.service(service)?;
        Some(format!(
            "{name} is slot {slot} of service {service}: name the service"
        ))
    }

    /// The worker called `name`.
    pub fn worker(&self, name: &str) -> Option<&crate::scheduler::model::Worker> {
        self.snapshot
            .workers
            .values()
            .find(|worker| worker.name == name)
    }
}
