//! Passes that follow each other: the first looks at everything, the next ones at what may have come to differ.
//!
//! A pass ends when nothing is left to do for any service that it looked at. That stays so until one of these changes, and a service
//! is looked at again when one of them does:
//!
//! - its own record, or one of its tasks: found by comparing the snapshot with the one that the last pass left, which costs what
//!   was changed, because copies share the rest ([`Map`](crate::map::Map));
//! - the time that it waits for: each look says when it wants the next one;
//! - something outside its own tasks on which its last look depended: what a worker is known to have told, or, while its copies are
//!   being moved, the whole cluster: such services are looked at each time;
//! - workers, volumes, secrets, limits or the leader's wall clock, which was set: then everything is looked at.
//!
//! Pending tasks are placed in every pass, whosever they are. So a pass gives the plan that a first one would give for the same snapshot
//! and moment, as long as moments come in order; the world's tests compare the two at each of their steps.
//!
//! A pass remembers the snapshot with its plan applied. If nothing, or something else, came of the plan, the next snapshot differs from
//! that and the services are looked at again.

use super::change::{Change, Plan};
use super::model::{Limits, Moment, Snapshot, Task};
use super::place::place_tasks;
use super::reconcile::Round;
use crate::service::{Desired, State};
use crate::types::{ServiceId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of one pass. A change has no more consequences than this within a moment; what is left waits for the next pass.
const ROUNDS_MAX: usize = 32;

/// Makes plans, each pass after the other on newer snapshots.
#[derive(Debug, Default)]
pub struct Reconciler {
    /// The snapshot as the last pass left it, its plan applied.
    seen: Snapshot,
    /// The limits of the last pass; none: there was none.
    limits: Option<Limits>,
    /// Since when time went on steadily, as of the last pass.
    steady_since_ms: u64,
    /// The tasks in `seen` that want a worker.
    pending: BTreeSet<TaskId>,
    /// When services want to be looked at although nothing changes, milliseconds.
    wakes: BTreeMap<ServiceId, u64>,
    /// Services that are looked at in each pass.
    restless: BTreeSet<ServiceId>,
}

impl Reconciler {
    /// What to change in `snapshot` at `moment`, and when to look again if nothing else happens.
    pub fn pass(&mut self, snapshot: &Snapshot, moment: &Moment) -> Plan {
        let mut look = self.follow(snapshot, moment);
        let mut plan = Plan::default();
        for _ in 0..ROUNDS_MAX {
            let (mut changes, notes) = {
                let tasks = |service| self.seen.tasks.of_service(service);
                let mut round = Round::new(&self.seen, moment);
                round.run(look.iter().map(|&service| (service, tasks(service))));
                (round.changes, round.notes)
            };
            if changes.is_empty() {
                let pending = self.pending.iter();
                let pending = pending.filter_map(|id| self.seen.tasks.get(id));
                changes = place_tasks(&self.seen, moment, pending);
            }
            if changes.is_empty() {
                for (service, note) in notes {
                    self.note(service, note.wake_ms, note.is_restless);
                }
                plan.wake_ms = self.wakes.values().min().copied();
                return plan;
            }
            self.take(&changes, moment.now_ms, &mut look);
            plan.changes.append(&mut changes);
        }
        for service in look {
            self.note(service, Some(moment.now_ms), true);
        }
        plan.wake_ms = Some(moment.now_ms);
        plan
    }

    /// When the oldest of the tasks was made that the last pass left without a worker, milliseconds; none: none waits.
    pub fn pending_since_ms(&self) -> Option<u64> {
        let waiting = self.pending.iter();
        let waiting = waiting.filter_map(|id| self.seen.tasks.get(id));
        waiting.map(|task| task.created_ms).min()
    }

    /// Goes on to `snapshot`; gives the services to be looked at.
    fn follow(&mut self, snapshot: &Snapshot, moment: &Moment) -> BTreeSet<ServiceId> {
        let all = self.limits.as_ref() != Some(&moment.limits)
            || self.steady_since_ms != moment.steady_since_ms
            || self.seen.workers != snapshot.workers
            || self.seen.volumes != snapshot.volumes
            || self.seen.secrets != snapshot.secrets;
        let mut look = std::mem::take(&mut self.restless);
        let due = self.wakes.iter().filter(|(_, at)| **at <= moment.now_ms);
        look.extend(due.map(|(&service, _)| service));
        look.extend(snapshot.services.differences(&self.seen.services));
        for id in snapshot.tasks.differences(&self.seen.tasks) {
            let (old, new) = (self.seen.tasks.get(id), snapshot.tasks.get(id));
            look.extend(concerned(old, new));
            note_pending(&mut self.pending, *id, new);
        }
        self.seen = snapshot.clone();
        self.limits = Some(moment.limits.clone());
        self.steady_since_ms = moment.steady_since_ms;
        if all {
            look.extend(self.everything());
        }
        look
    }

    /// Applies what a round found to do; services that it concerns are looked at in the next one.
    fn take(&mut self, changes: &[Change], now_ms: u64, look: &mut BTreeSet<ServiceId>) {
        let volumes = self.seen.volumes.clone();
        for change in changes {
            let task = change.task();
            look.extend(task.and_then(|id| concerned(self.seen.tasks.get(&id), None)));
            self.seen.apply(change, now_ms);
            if let Some(id) = task {
                note_pending(&mut self.pending, id, self.seen.tasks.get(&id));
            }
        }
        if volumes != self.seen.volumes {
            look.extend(self.everything());
        }
    }

    /// All services that there are or that have tasks.
    fn everything(&self) -> Vec<ServiceId> {
        let services = self.seen.services.keys();
        services
            .copied()
            .chain(self.seen.tasks.services())
            .collect()
    }

    fn note(&mut self, service: ServiceId, wake_ms: Option<u64>, is_restless: bool) {
        match wake_ms {
            Some(at) => self.wakes.insert(service, at),
            None => self.wakes.remove(&service),
        };
        if is_restless {
            self.restless.insert(service);
        }
    }
}

/// The service whose task was `old` and is `new`.
fn concerned(old: Option<&Task>, new: Option<&Task>) -> Option<ServiceId> {
    new.or(old).map(|task| task.service)
}

/// Notes whether a task wants a worker.
fn note_pending(pending: &mut BTreeSet<TaskId>, id: TaskId, task: Option<&Task>) {
    let waits = |task: &Task| task.state == State::Pending && task.desired == Desired::Run;
    match task.is_some_and(waits) {
        true => pending.insert(id),
        false => pending.remove(&id),
    };
}
