//! The JSON of what happened, why it is so, what would be, and what tasks write, as types both sides share.

use super::fleet_wire::{TaskInfo, service_name, worker_name};
use super::wire::Fresh;
use crate::fleet::{Event, Fleet};
use crate::types::{ServiceId, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInfo {
    /// The entry that did it.
    pub index: u64,
    /// Its number within the entry, from 0.
    pub number: u32,
    /// When.
    pub time_ms: u64,
    /// What: a noun and a past participle, such as `task.failed`.
    pub kind: String,
    /// Name of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Id of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_id: Option<ServiceId>,
    /// Task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Name of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Id of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<WorkerId>,
    /// One sentence for people.
    pub message: String,
}

impl EventInfo {
    /// `event` as `fleet` names what it is about.
    pub(crate) fn of(fleet: &Fleet, (index, number): (u64, u32), event: &Event) -> Self {
        EventInfo {
            index,
            number,
            time_ms: event.time_ms,
            kind: event.kind.clone(),
            service: event.service.map(|id| service_name(fleet, id)),
            service_id: event.service,
            task: event.task,
            node: event.worker.map(|id| worker_name(fleet, id)),
            node_id: event.worker,
            message: event.message.clone(),
        }
    }
}

/// Answer to a read of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// Events, the oldest first.
    pub events: Vec<EventInfo>,
    /// Whether the limit cut the list short at its end: ask again with `after=` the last index.
    pub more: bool,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// A part of a task's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsAnswer {
    /// The task.
    pub task: TaskId,
    /// Name of its node.
    pub node: String,
    /// Offset of the first byte, from the task's first on; greater than what was asked for when that is gone.
    pub from_offset: u64,
    /// Offset to go on with: `since_offset=` of the next question.
    pub next_offset: u64,
    /// What it wrote, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What it wrote in base64, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_base64: Option<String>,
}

/// Why the tasks of a service are as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// All of it in a few sentences.
    pub summary: Vec<String>,
    /// Tasks that are not forgotten, by slot, the newest of a slot first.
    pub tasks: Vec<TaskExplained>,
    /// What happened to the service itself lately.
    pub events: Vec<EventInfo>,
    /// How fresh it is.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Why a task is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskExplained {
    /// The task.
    #[serde(flatten)]
    pub task: TaskInfo,
    /// Why, in one line.
    pub why: String,
    /// Why each node does not fit, for a task that waits for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Unfit>,
    /// What happened to it, the oldest first.
    pub events: Vec<EventInfo>,
}

impl TaskExplained {
    /// Whether nothing later stands in its slot.
    pub fn is_latest(&self, told: &ExplainAnswer) -> bool {
        let mut all = told.tasks.iter();
        !all.any(|other| other.task.slot == self.task.slot && other.task.id > self.task.id)
    }
}

/// Why a node does not fit a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    /// Name of the node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// What a change would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAnswer {
    /// Name of the service.
    pub service: String,
    /// `create`, `update` or `none`, when nothing would change.
    pub action: String,
    /// Version that it would have.
    pub version: u64,
    /// Whether tasks would be replaced by a rollout.
    pub rollout: bool,
    /// Tasks of the service that would be started.
    pub starts: u64,
    /// Tasks of the service that would be stopped.
    pub stops: u64,
    /// Tasks of other services that would be started or stopped meanwhile.
    pub others: u64,
    /// Where that would be.
    pub nodes: Vec<NodePlan>,
    /// Tasks that would wait, and why.
    pub waiting: Vec<Waiting>,
    /// How long it would take at least, if each task ran at once, milliseconds.
    pub takes_ms: u64,
    /// Whether it was followed to its end; a long rollout is cut short.
    pub complete: bool,
    /// How fresh the state is from which it begins.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// What a change would do on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Name of the node.
    pub node: String,
    /// Tasks of the service there before.
    pub before: u64,
    /// Tasks of the service there in the end.
    pub after: u64,
    /// Tasks of the service that would be started there.
    pub starts: u64,
    /// Tasks of the service that would be stopped there.
    pub stops: u64,
}

/// A task that would wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its slot.
    pub slot: u64,
    /// Why.
    pub why: String,
}
