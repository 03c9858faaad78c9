//! What a worker and its surroundings say to each other: what it is given, what is to be done, and what it keeps on its disk.

use super::report::{Report, Reports};
use super::task::Task;
use super::words::{self, Assignment, Handle, Observation};
use crate::types::{ClusterId, Epoch, Incarnation, TaskId, WorkerId};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Who the worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its cluster; zero: it belongs to none yet.
    pub cluster: ClusterId,
    /// Its name in the cluster; zero: none yet.
    pub worker: WorkerId,
    /// One life of its disk. Reports are numbered within it.
    pub life: Incarnation,
}

/// Everything that a worker keeps on its disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Who it is.
    pub(super) identity: Identity,
    /// The highest epoch it has heard.
    pub(super) epoch: Epoch,
    /// Revision of its assignments in that epoch.
    pub(super) revision: u64,
    /// Its own time at its last step, milliseconds.
    pub(super) time_ms: u64,
    /// Its tasks.
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// What managers have not acknowledged.
    pub(super) reports: Reports,
}

impl Saved {
    /// A worker that has nothing, on a disk whose life was drawn just now.
    pub fn empty(life: Incarnation) -> Self {
        Saved {
            identity: Identity {
                life,
                ..Identity::default()
            },
            ..Saved::default()
        }
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The highest epoch it has heard.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Revision of its assignments in that epoch.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether what was read from a disk makes sense.
    pub(super) fn is_sound(&self) -> bool {
        let named = self
            .tasks
            .iter()
            .all(|(id, task)| *id == task.assignment().task && task.is_sound());
        named && self.reports.is_sound()
    }
}

/// A process that carries the worker's mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its task.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: u32,
    /// The process.
    pub handle: Handle,
}

/// All assignments of a worker as managers see them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// The worker's epoch.
    pub epoch: Epoch,
    /// Counts the changes within an epoch, from 1.
    pub revision: u64,
    /// Every task that it shall have or know of; what is missing is not wanted any more.
    pub tasks: Vec<Assignment>,
}

/// What a worker says of itself when it meets a manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Who it is.
    pub identity: Identity,
    /// The highest epoch it has heard.
    pub epoch: Epoch,
    /// Revision of its assignments in that epoch.
    pub revision: u64,
    /// Whether its process has been away since that epoch began: the next epoch must be a greater one.
    pub is_anew: bool,
    /// Every task it has.
    #[serde(deserialize_with = "by_task")]
    pub tasks: BTreeMap<TaskId, Observation>,
    /// Number of its newest report: all of those are in `tasks`, or about tasks that managers had removed.
    pub newest_report: u64,
}

/// Reads a map by task. Inside an enum with a tag, serde no longer takes the text of a JSON key for a number.
fn by_task<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<TaskId, Observation>, D::Error> {
    let by_text: BTreeMap<String, Observation> = Deserialize::deserialize(from)?;
    let entry = |(key, seen): (String, Observation)| {
        let id = key.parse().map_err(serde::de::Error::custom)?;
        Ok((TaskId(id), seen))
    };
    by_text.into_iter().map(entry).collect()
}

/// What happens to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A manager answers.
    Connected,
    /// No manager answers any more.
    Disconnected,
    /// The cluster has taken the worker's word, and this is its session.
    Welcome {
        /// The cluster.
        cluster: ClusterId,
        /// The worker's name there.
        worker: WorkerId,
        /// The session.
        epoch: Epoch,
    },
    /// The cluster has removed it: nobody wants its tasks.
    Removed {
        /// Which worker was.
        worker: WorkerId,
    },
    /// What it shall do.
    Assigned(Assignments),
    /// A heartbeat was answered.
    Answered {
        /// Its number.
        heartbeat: u64,
        /// The session in which it was answered.
        epoch: Epoch,
        /// Revision of the worker's assignments that the manager knows.
        revision: u64,
        /// The lease that it grants, milliseconds from before the heartbeat was sent; zero: none.
        lease_ms: u64,
        /// From one heartbeat to the next, if the leader needs them more often than they come by themselves, milliseconds.
        pace_ms: Option<u64>,
    },
    /// Managers have its reports.
    Acknowledged {
        /// Life of the disk in which they were numbered.
        life: Incarnation,
        /// The greatest number.
        number: u64,
    },
    /// Something happened to a task.
    Task(TaskId, words::Input),
    /// An orphan is gone, with everything that it began.
    OrphanGone {
        /// The task that it was.
        task: TaskId,
        /// Its attempt.
        attempt: u32,
    },
}

/// What is to be done, in this order: what stands before [`Effect::Persist`] waits for nothing, what stands behind it waits
/// until [`Worker::saved`] is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// For a task; never its `Persist`, `Report` or `Forget`, which follow as the worker's own.
    Task(TaskId, words::Effect),
    /// Kill a process that carries the worker's mark and is none of its attempts, then say [`Input::OrphanGone`].
    EndOrphan {
        /// The task that it was.
        task: TaskId,
        /// Its attempt.
        attempt: u32,
    },
    /// Make [`Worker::saved`] durable.
    Persist,
    /// Say who it is to the manager that answers.
    Hello(Box<Hello>),
    /// Send a report. Lost ones are sent again after the next welcome.
    Report(Report),
    /// Send a heartbeat. The time that counts for the lease is already noted.
    Heartbeat {
        /// Its number.
        number: u64,
        /// The session.
        epoch: Epoch,
        /// Revision of the worker's assignments.
        revision: u64,
        /// Number of its newest report.
        reports: u64,
    },
    /// Remove everything that is kept for a task.
    Forget(TaskId),
    /// Something was refused; a sentence for people.
    Refused(String),
}

impl Effect {
    /// Its place among the effects of one step.
    pub(super) fn order(&self) -> u8 {
        match self {
            Effect::Task(_, effect) => effect.order(),
            Effect::EndOrphan { .. } => 0,
            Effect::Persist => 1,
            _ => 2,
        }
    }
}
