//! What a pass may change, and what each change does to a snapshot.
//!
//! Changes are small and checked again when applied: one that no longer makes sense does nothing. The replicated state
//! applies the same rules; [`Snapshot::apply`] is their definition, used to see the effect of one change on the next, and by
//! `plan` to show what would happen.

use super::model::{Rollout, Service, Snapshot, Task};
use crate::service::{Desired, State};
use crate::types::{Epoch, ServiceId, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

/// One change of the cluster's desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Make a task in a slot.
    Create {
        /// Its id, the next of the cluster's counter.
        task: TaskId,
        /// Its service.
        service: ServiceId,
        /// Its slot.
        slot: u64,
        /// Its version, one of the two whose specification is kept.
        version: u64,
        /// Failures in a row before it.
        failures: u32,
    },
    /// Give a pending task to a worker; volumes that lie nowhere yet come to lie there.
    Assign {
        /// The task.
        task: TaskId,
        /// Its worker.
        worker: WorkerId,
        /// The worker's session; in another one the assignment is void.
        epoch: Epoch,
    },
    /// Want something else of a task. A pending one told to stop has stopped.
    SetDesired {
        /// The task.
        task: TaskId,
        /// What is wanted; never less than before.
        desired: Desired,
    },
    /// Its worker was marked down: it is presumed dead.
    MarkLost {
        /// The task.
        task: TaskId,
    },
    /// Its worker is back and has said what it does.
    ClearLost {
        /// The task.
        task: TaskId,
    },
    /// Its worker will never say how it ended, because it is no worker of this cluster any more.
    End {
        /// The task.
        task: TaskId,
        /// `failed`, or `stopped` if it had been told to end.
        state: State,
    },
    /// Its failure counts against its service's rollout, once.
    CountFailure {
        /// The task.
        task: TaskId,
    },
    /// Forget an ended task.
    Forget {
        /// The task.
        task: TaskId,
    },
    /// A rollout comes further, is paused, or is complete.
    SetRollout {
        /// The service.
        service: ServiceId,
        /// The version that this was decided for; for any other it is void.
        version: u64,
        /// How far it is now.
        rollout: Rollout,
    },
    /// The copies of a service are spread as well as they can be.
    EndRebalance {
        /// The service.
        service: ServiceId,
    },
    /// Too many tasks of the new version failed: go back to the one before.
    RollBack {
        /// The service.
        service: ServiceId,
        /// The version that this was decided for; for any other it is void.
        version: u64,
    },
    /// A removed service has no task left.
    ForgetService {
        /// The service.
        service: ServiceId,
    },
}

/// What a pass found to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes, to be applied in this order.
    pub changes: Vec<Change>,
    /// When there will be something to do although nothing else happens, milliseconds; none: never.
    pub wake_ms: Option<u64>,
}

impl Change {
    /// The task that it changes, if it is one.
    pub fn task(&self) -> Option<TaskId> {
        match *self {
            Change::Create { task, .. }
            | Change::Assign { task, .. }
            | Change::SetDesired { task, .. }
            | Change::MarkLost { task }
            | Change::ClearLost { task }
            | Change::End { task, .. }
            | Change::CountFailure { task }
            | Change::Forget { task } => Some(task),
            Change::SetRollout { .. }
            | Change::EndRebalance { .. }
            | Change::RollBack { .. }
            | Change::ForgetService { .. } => None,
        }
    }
}

impl Snapshot {
    /// Applies `change` as of `now_ms`; one that no longer makes sense does nothing.
    pub fn apply(&mut self, change: &Change, now_ms: u64) {
        match *change {
            Change::Create {
                task,
                service,
                slot,
                version,
                failures,
            } => self.create(task, service, (slot, version), failures, now_ms),
            Change::Assign {
                task,
                worker,
                epoch,
            } => self.assign(task, worker, epoch, now_ms),
            Change::SetDesired { task, desired } => {
                self.with_task(task, |task| want(task, desired, now_ms))
            }
            Change::MarkLost { task } => self.with_task(task, |task| {
                task.lost_ms.get_or_insert(now_ms);
            }),
            Change::ClearLost { task } => self.with_task(task, |task| task.lost_ms = None),
            Change::End { task, state } => self.with_task(task, |task| {
                if state.is_end() && !task.state.is_end() {
                    task.state = state;
                    task.changed_ms = now_ms;
                }
            }),
            Change::CountFailure { task } => self.count_failure(task),
            Change::Forget { task } => {
                self.tasks.remove(&task);
            }
            Change::SetRollout {
                service,
                version,
                rollout,
            } => self.with_version(service, version, |service| service.rollout = rollout),
            Change::EndRebalance { service } => {
                if let Some(service) = self.services.get_mut(&service) {
                    service.rebalancing = false;
                }
            }
            Change::RollBack { service, version } => {
                self.with_version(service, version, |service| service.roll_back(now_ms))
            }
            Change::ForgetService { service } => {
                self.services.remove(&service);
            }
        }
    }

    fn create(
        &mut self,
        id: TaskId,
        service: ServiceId,
        (slot, version): (u64, u64),
        failures: u32,
        now_ms: u64,
    ) {
        let spec = self.services.get(&service).and_then(|s| s.spec_of(version));
        let Some(spec) = spec.filter(|_| id >= self.next_task) else {
            return;
        };
        let task = Task {
            id,
            service,
            slot,
            version,
            created_ms: now_ms,
            changed_ms: now_ms,
            reservations: spec.resources.reservations,
            volumes: spec.volumes.clone(),
            ports: spec.ports.iter().map(|port| port.host).collect(),
            failures,
            ..Task::default()
        };
        self.next_task = TaskId(id.0 + 1);
        self.tasks.insert(id, task);
    }

    fn assign(&mut self, id: TaskId, worker: WorkerId, epoch: Epoch, now_ms: u64) {
        let there = self.workers.get(&worker).is_some_and(|w| w.epoch == epoch);
        let waits = |task: &Task| task.state == State::Pending && task.desired == Desired::Run;
        if !there || !self.tasks.get(&id).is_some_and(waits) {
            return;
        }
        self.tasks.give(id, worker);
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        task.state = State::Assigned;
        task.epoch = epoch;
        task.assigned_ms = Some(now_ms);
        task.changed_ms = now_ms;
        for mount in &task.volumes {
            let volume = self.volumes.or_default(mount.volume.clone());
            volume.name.clone_from(&mount.volume);
            volume.worker.get_or_insert(worker);
        }
    }

    fn count_failure(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| !task.counted) else {
            return;
        };
        task.counted = true;
        if let Some(service) = self.services.get_mut(&task.service) {
            service.rollout.failures += 1;
        }
    }

    fn with_task(&mut self, id: TaskId, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.get_mut(&id) {
            change(task);
        }
    }

    fn with_version(&mut self, id: ServiceId, version: u64, change: impl FnOnce(&mut Service)) {
        let service = self.services.get_mut(&id);
        if let Some(service) = service.filter(|service| service.current.version == version) {
            change(service);
        }
    }
}

fn want(task: &mut Task, desired: Desired, now_ms: u64) {
    task.desired = task.desired.max(desired);
    if task.desired != Desired::Run && task.state == State::Pending {
        task.state = State::Stopped;
        task.changed_ms = now_ms;
    }
}
