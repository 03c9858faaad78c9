//! The fleet as records: one for each service, specification, task, worker, volume, token and event, and one for the counters.

use crate::types::{ServiceId, TaskId, WorkerId};

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
}
