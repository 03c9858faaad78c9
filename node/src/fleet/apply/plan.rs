//! What the scheduler decided, checked again: what no longer makes sense is left out, and decided anew by the next pass.
//!
//! [`Snapshot::apply`](crate::scheduler::Snapshot) says what a change means; here is when it still does, what it leaves behind for
//! people, and which workers hear of it. Assignments in a row share one count of what is taken on each worker.

use super::At;
use crate::fleet::command::Done;
use crate::fleet::records::Key;
use crate::fleet::{Fleet, TaskNote};
use crate::scheduler::Change;
use crate::scheduler::filter::Need;
use crate::scheduler::model::{Leases, Moment, Phase, Rollout, Status};
use crate::scheduler::room::Rooms;
use crate::service::{Desired, Spec, State};
use crate::types::{Epoch, ServiceId, TaskId, Term, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far ahead of the counter a new task's id may be: changes before it may have been left out.
const TASK_GAP_MAX: u64 = 1 << 20;

impl Fleet {
    pub(super) fn plan(&mut self, term: Term, changes: &[Change], at: At) -> Done {
        if term != at.term {
            return Done::Nothing;
        }
        let mut rest = changes;
        let mut freed = BTreeSet::new();
        while let Some(first) = rest.first() {
            let is_assign = |change: &&Change| matches!(change, Change::Assign { .. });
            let assigns = rest.iter().take_while(is_assign).count();
            if assigns > 0 {
                self.assign_all(&rest[..assigns], at);
            } else {
                freed.extend(self.frees(first));
                self.change(first, at);
            }
            rest = &rest[assigns.max(1)..];
        }
        if !freed.is_empty() {
            self.drop_secret_versions();
        }
        for service in freed {
            self.drop_specs(service);
        }
        Done::Nothing
    }

    /// The service that may need a specification less after `change`.
    fn frees(&self, change: &Change) -> Option<ServiceId> {
        match *change {
            Change::Forget { task } => self.snapshot.tasks.get(&task).map(|task| task.service),
            Change::ForgetService { service } | Change::RollBack { service, .. } => Some(service),
            _ => None,
        }
    }

    /// One change that is no assignment.
    fn change(&mut self, change: &Change, at: At) {
        match *change {
            Change::Assign { .. } => self.assign_all(std::slice::from_ref(change), at),
            Change::Create { task, service, .. } => self.create(change, task, service, at),
            Change::SetDesired { task, desired } => self.want(task, desired, at),
            Change::MarkLost { task } => self.mark_lost(change, task, at),
            Change::ClearLost { task } => self.clear_lost(change, task, at),
            Change::End { task, .. } => {
                let gone = self.status_of(task).is_none();
                let unended = self.snapshot.tasks.get(&task);
                if gone && unended.is_some_and(|task| task.worker.is_some()) {
                    self.end_task(task, "its worker was removed", at);
                }
            }
            Change::CountFailure { task } => self.count_failure(change, task, at),
            Change::Forget { task } => self.forget(change, task, at),
            Change::SetRollout {
                service,
                version,
                rollout,
            } => self.set_rollout(change, (service, version), rollout, at),
            Change::RollBack { service, version } => {
                let entry = self.snapshot.services.get(&service);
                let fits = entry.is_some_and(|service| {
                    service.current.version == version && service.previous.is_some()
                });
                if fits {
                    self.roll_back(service, "too many tasks of the new one failed", at);
                }
            }
            Change::EndRebalance { service } => self.end_rebalance(change, service, at),
            Change::ForgetService { service } => self.forget_service(change, service, at),
        }
    }

    fn create(&mut self, change: &Change, id: TaskId, service: ServiceId, at: At) {
        let entry = self.snapshot.services.get(&service);
        let next = self.snapshot.next_task.0;
        let near = (next..=next.saturating_add(TASK_GAP_MAX)).contains(&id.0) && id.0 < u64::MAX;
        if !near || entry.is_none_or(|service| service.removing) {
            return;
        }
        self.snapshot.apply(change, at.time_ms);
        let Some(task) = self.snapshot.tasks.get(&id) else {
            return;
        };
        let says = match task.failures {
            0 => format!("was made, of version {}", task.version),
            failures => format!(
                "was made, of version {}, after {failures} failures in a row",
                task.version
            ),
        };
        self.notes.insert(id, TaskNote::default());
        self.mark(Key::Task(id));
        self.tell_task("task.created", id, &says, at);
    }

    /// Assignments: each goes only to a worker that is ready, in that session, and has room for it beside those before.
    fn assign_all(&mut self, assigns: &[Change], at: At) {
        let mut specs: BTreeMap<(ServiceId, u64), Arc<Spec>> = BTreeMap::new();
        for change in assigns {
            let Change::Assign { task, .. } = change else {
                continue;
            };
            let Some(task) = self.snapshot.tasks.get(task) else {
                continue;
            };
            let key = (task.service, task.version);
            if let Some(spec) = self.specs.get(&key) {
                specs.entry(key).or_insert_with(|| Arc::clone(spec));
            }
        }
        let needs: BTreeMap<_, _> = specs
            .iter()
            .map(|(key, spec)| (*key, Need::new(key.0, spec)))
            .collect();
        let mut rooms = self.rooms(assigns, &needs, at);
        for change in assigns {
            let Change::Assign {
                task,
                worker,
                epoch,
            } = *change
            else {
                continue;
            };
            if !self.fits(&needs, &rooms, task, (worker, epoch)) {
                continue;
            }
            self.assign(change, task, worker, at);
            if let Some(task) = self.snapshot.tasks.get(&task) {
                rooms.place(task, worker);
            }
        }
    }

    /// What is taken on the workers that get a task. Who uses a volume is looked for everywhere.
    fn rooms(
        &self,
        assigns: &[Change],
        needs: &BTreeMap<(ServiceId, u64), Need<'_>>,
        at: At,
    ) -> Rooms {
        let moment = self.moment(at);
        if needs.values().any(Need::has_volumes) {
            return Rooms::new(&self.snapshot, &moment);
        }
        let workers = assigns.iter().filter_map(|change| match change {
            Change::Assign { worker, .. } => Some(*worker),
            _ => None,
        });
        let workers: BTreeSet<WorkerId> = workers.collect();
        Rooms::of_workers(&self.snapshot, &moment, workers)
    }

    /// What the log knows of leases: a worker that is ready may have one, and for one that is down the leader has waited.
    fn moment(&self, at: At) -> Moment {
        let workers = self.snapshot.workers.values();
        let ready = workers.filter(|worker| worker.status == Status::Ready);
        Moment {
            now_ms: at.time_ms,
            leases: Leases {
                until_ms: ready.map(|worker| (worker.id, u64::MAX)).collect(),
                ..Leases::default()
            },
            ..Moment::default()
        }
    }

    fn fits(
        &self,
        needs: &BTreeMap<(ServiceId, u64), Need<'_>>,
        rooms: &Rooms,
        task: TaskId,
        (worker, epoch): (WorkerId, Epoch),
    ) -> bool {
        let (Some(task), Some(worker)) = (
            self.snapshot.tasks.get(&task),
            self.snapshot.workers.get(&worker),
        ) else {
            return false;
        };
        let waits = task.state == State::Pending && task.desired == Desired::Run;
        let need = needs.get(&(task.service, task.version));
        let fits = |need: &Need<'_>| need.fits(&self.snapshot, rooms, worker, task.slot).is_ok();
        waits && worker.epoch == epoch && need.is_some_and(fits)
    }

    fn assign(&mut self, change: &Change, id: TaskId, worker: WorkerId, at: At) {
        let Some(task) = self.snapshot.tasks.get(&id) else {
            return;
        };
        let names = task.volumes.iter().map(|mount| mount.volume.clone());
        let placeless = |name: &String| {
            let volume = self.snapshot.volumes.get(name);
            volume.is_none_or(|volume| volume.worker.is_none())
        };
        let volumes: Vec<String> = names.filter(placeless).collect();
        self.snapshot.apply(change, at.time_ms);
        self.pin_secrets(id);
        self.mark(Key::Task(id));
        self.assignments_changed(worker, at);
        let place = self.worker_name(worker);
        for name in volumes {
            let message = format!("volume {name} lies on {place} from now on");
            self.mark(Key::Volume(name));
            self.tell("volume.placed", worker, message, at);
        }
        self.tell_task("task.assigned", id, &format!("was given to {place}"), at);
    }

    fn want(&mut self, id: TaskId, desired: Desired, at: At) {
        let Some(task) = self.snapshot.tasks.get(&id) else {
            return;
        };
        if task.desired >= desired {
            return;
        }
        let (state, worker) = (task.state, task.worker);
        self.snapshot
            .apply(&Change::SetDesired { task: id, desired }, at.time_ms);
        self.mark(Key::Task(id));
        if let Some(worker) = worker {
            self.assignments_changed(worker, at);
        }
        if state == State::Pending {
            self.tell_state(id, at);
        } else if !state.is_end() {
            let says = match desired {
                Desired::Remove => "shall stop: its place is not wanted any more",
                _ => "shall stop: another takes its place",
            };
            self.tell_task("task.told", id, says, at);
        }
    }

    /// What is believed of a task's worker; none if it has none that belongs to the cluster.
    fn status_of(&self, id: TaskId) -> Option<Status> {
        let worker = self.snapshot.tasks.get(&id)?.worker?;
        self.snapshot
            .workers
            .get(&worker)
            .map(|worker| worker.status)
    }

    fn mark_lost(&mut self, change: &Change, id: TaskId, at: At) {
        let here = matches!(self.status_of(id), Some(Status::Ready | Status::Joining));
        let Some(task) = self.snapshot.tasks.get(&id) else {
            return;
        };
        let Some(worker) = task.worker.filter(|_| !here) else {
            return;
        };
        if task.state.is_end() || task.lost_ms.is_some() {
            return;
        }
        self.snapshot.apply(change, at.time_ms);
        self.mark(Key::Task(id));
        let place = self.worker_name(worker);
        self.tell_task(
            "task.lost",
            id,
            &format!("is lost: its worker {place} is down"),
            at,
        );
    }

    fn clear_lost(&mut self, change: &Change, id: TaskId, at: At) {
        let back = self.status_of(id) == Some(Status::Ready);
        let task = self.snapshot.tasks.get(&id);
        if !back || task.is_none_or(|task| task.lost_ms.is_none()) {
            return;
        }
        self.snapshot.apply(change, at.time_ms);
        self.mark(Key::Task(id));
        self.tell_task("task.found", id, "is back with its worker", at);
    }

    fn count_failure(&mut self, change: &Change, id: TaskId, at: At) {
        let task = self.snapshot.tasks.get(&id).filter(|task| !task.counted);
        let Some(service) = task.map(|task| task.service) else {
            return;
        };
        self.snapshot.apply(change, at.time_ms);
        self.mark(Key::Task(id));
        if self.snapshot.services.contains_key(&service) {
            self.mark(Key::Service(service));
        }
        self.tell_task("task.counted", id, "counts as a failure of the rollout", at);
    }

    /// Only what has ended, or is presumed to have: a task whose worker is back is not forgotten by a plan from before.
    fn forget(&mut self, change: &Change, id: TaskId, at: At) {
        let back = self.status_of(id) == Some(Status::Ready);
        let Some(task) = self.snapshot.tasks.get(&id) else {
            return;
        };
        let presumed = task.lost_ms.is_some() && task.desired == Desired::Remove && !back;
        if !task.state.is_end() && !presumed {
            return;
        }
        let worker = task.worker;
        self.tell_task("task.forgotten", id, "is forgotten", at);
        self.snapshot.apply(change, at.time_ms);
        self.notes.remove(&id);
        self.mark(Key::Task(id));
        if let Some(worker) = worker {
            self.assignments_changed(worker, at);
        }
    }

    fn set_rollout(
        &mut self,
        change: &Change,
        (id, version): (ServiceId, u64),
        rollout: Rollout,
        at: At,
    ) {
        let service = self.snapshot.services.get(&id);
        let Some(service) = service.filter(|service| service.current.version == version) else {
            return;
        };
        let before = service.rollout;
        if before == rollout {
            return;
        }
        let name = service.current.spec.name.clone();
        self.snapshot.apply(change, at.time_ms);
        self.mark(Key::Service(id));
        let (kind, says) = match rollout.phase {
            Phase::Completed if before.phase != Phase::Completed => (
                "service.rollout.completed",
                format!("every task of service {name} has version {version}"),
            ),
            Phase::RolledBack if before.phase != Phase::RolledBack => (
                "service.rollout.completed",
                format!("every task of service {name} is back at the version before"),
            ),
            Phase::Paused if before.phase != Phase::Paused => (
                "service.paused",
                format!(
                    "the rollout of service {name} is paused: {} tasks of version {version} failed; \
                     `service continue`, `update` or `rollback`",
                    rollout.failures
                ),
            ),
            _ if rollout.canary > before.canary => (
                "service.rollout.canary",
                format!(
                    "the rollout of service {name} passed canary step {}",
                    rollout.canary
                ),
            ),
            _ => return,
        };
        self.tell(kind, id, says, at);
    }

    fn end_rebalance(&mut self, change: &Change, id: ServiceId, at: At) {
        let service = self.snapshot.services.get(&id);
        if service.is_none_or(|service| !service.rebalancing) {
            return;
        }
        self.snapshot.apply(change, at.time_ms);
        self.mark(Key::Service(id));
        let name = self.service_name(id);
        let message = format!("the tasks of service {name} are spread as well as they can be");
        self.tell("service.rebalanced", id, message, at);
    }

    fn forget_service(&mut self, change: &Change, id: ServiceId, at: At) {
        let service = self.snapshot.services.get(&id);
        let Some(service) = service.filter(|service| service.removing) else {
            return;
        };
        if self.snapshot.tasks.of_service(id).next().is_some() {
            return;
        }
        let message = format!(
            "service {} is gone with all its tasks",
            service.current.spec.name
        );
        self.snapshot.apply(change, at.time_ms);
        self.services.remove(&id);
        self.mark(Key::Service(id));
        self.tell("service.deleted", id, message, at);
    }
}
