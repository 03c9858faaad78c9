//! How a worker stands, for its own door and for whoever runs it.

use super::exchange::Identity;
use super::task::Task;
use super::words::{Handle, Observation};
use crate::service::Desired;
use crate::types::{Epoch, ServiceId, TaskId};
use serde::Serialize;

/// A worker at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Who it is in the cluster.
    pub identity: Identity,
    /// The highest epoch it has heard.
    pub epoch: Epoch,
    /// Revision of its assignments in that epoch.
    pub revision: u64,
    /// Where it stands with managers.
    pub contact: Contact,
    /// What is left of its lease, milliseconds.
    pub lease_left_ms: u64,
    /// Reports that no manager has acknowledged.
    pub reports_waiting: usize,
    /// Things that wait for its disk.
    pub effects_held: usize,
    /// Why its state is not written, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
    /// What it refused last, until the cluster takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Its tasks, in order.
    pub tasks: Vec<TaskStatus>,
}

impl Status {
    /// What is not as it should be, each in a sentence.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(why) = &self.unsaved {
            complaints.push(format!(
                "{why}: nothing is started or reported until it is written"
            ));
        }
        complaints.extend(self.refused.clone());
        if self.contact.is_removed {
            complaints.extend(self.contact.lost.clone());
        } else if !self.contact.is_welcome {
            let why = match self.contact.lost.as_deref() {
                Some(why) => format!(" ({why})"),
                None => String::new(),
            };
            complaints.push(format!(
                "no session with managers{why}: its tasks go on without"
            ));
        }
        complaints
    }
}

/// Where a worker stands with managers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contact {
    /// Whether it has a session.
    pub is_welcome: bool,
    /// Whether the cluster has removed it.
    pub is_removed: bool,
    /// The manager that took its hello, or took its connection last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// Why its last session, or its last try, ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

impl Contact {
    /// A session began.
    pub(super) fn welcomed(&mut self) {
        self.is_welcome = true;
        self.is_removed = false;
        self.lost = None;
    }

    /// The session, or a try, ended.
    pub(super) fn lost(&mut self, why: String) {
        self.is_welcome = false;
        self.lost = Some(why);
    }
}

/// A task at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskStatus {
    /// The task.
    pub task: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Name of the service.
    pub service_name: String,
    /// Its slot.
    pub slot: u64,
    /// Version of the service that it runs.
    pub version: u64,
    /// What managers want of it.
    pub desired: Desired,
    /// What managers are told of it.
    #[serde(flatten)]
    pub observation: Observation,
    /// Its process, in the executor's words, while one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Handle>,
}

impl TaskStatus {
    /// Of a task.
    pub(super) fn of(task: &Task) -> Self {
        let assignment = task.assignment();
        TaskStatus {
            task: assignment.task,
            service: assignment.service,
            service_name: assignment.spec.name.clone(),
            slot: assignment.slot,
            version: assignment.version,
            desired: assignment.desired,
            observation: task.observation(),
            process: task.handle().cloned(),
        }
    }
}
