//! What happened to services, tasks, workers and volumes: every transition is one event, kept with the state and told to whoever
//! follows.

use crate::types::{ServiceId, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The stamp of the entry that did it, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What happened: a noun and a past participle, such as `task.failed`, `node.down`, `service.updated`.
    pub kind: String,
    /// Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// Task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// One sentence for people that names everything by its name, and says why.
    pub message: String,
}
