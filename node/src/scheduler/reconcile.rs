//! Compares what is wanted with what there is, and says what to change.
//!
//! It goes in rounds over a copy of the snapshot: what one round changes is applied to the copy, and the next one looks again, until
//! nothing is left to do; so a plan that was applied whole leaves nothing for the same moment. Here is one round;
//! [`Reconciler`] says which services it looks at.

use super::change::{Change, Plan};
use super::model::{Moment, Phase, Rollout, Service, Snapshot, Status, Task};
use super::reconciler::Reconciler;
use super::slots::{self, Gate, Pace, Slot};
use crate::service::{Desired, State};
use crate::types::{ServiceId, TaskId};
use std::collections::BTreeMap;

/// What to change in `snapshot` at `moment`, and when to look again if nothing else happens: a pass that looks at everything.
pub fn reconcile(snapshot: &Snapshot, moment: &Moment) -> Plan {
    Reconciler::default().pass(snapshot, moment)
}

type Slots<'a> = BTreeMap<u64, Vec<&'a Task>>;

/// One look at some services.
pub(super) struct Round<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) moment: &'a Moment,
    /// What is to be done, in this order.
    pub(super) changes: Vec<Change>,
    /// When each service is to be looked at again. Complete only if there are no changes.
    pub(super) notes: Vec<(ServiceId, Note)>,
    note: Note,
    next_task: TaskId,
}

/// When a service is to be looked at again although neither it nor its tasks change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    /// At this time at the latest, milliseconds; none: never.
    pub(super) wake_ms: Option<u64>,
    /// In each pass: it waits for something that has no time and is none of its own.
    pub(super) is_restless: bool,
}

impl<'a> Round<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, moment: &'a Moment) -> Self {
        Round {
            snapshot,
            moment,
            changes: Vec::new(),
            notes: Vec::new(),
            note: Note::default(),
            next_task: snapshot.next_task,
        }
    }

    /// Looks at `services`, in order of their ids, each with its tasks in order of theirs.
    pub(super) fn run<T: Iterator<Item = &'a Task>>(
        &mut self,
        services: impl Iterator<Item = (ServiceId, T)>,
    ) {
        let mut looked: Vec<(ServiceId, Slots<'a>, Note)> = Vec::new();
        for (service, tasks) in services {
            let mut slots = Slots::new();
            for task in tasks {
                slots.entry(task.slot).or_default().push(task);
            }
            self.note = Note::default();
            for slot in slots.values() {
                slot.iter().for_each(|task| self.life(task, slot));
            }
            looked.push((service, slots, self.note));
        }
        if !self.changes.is_empty() {
            return;
        }
        for (id, slots, note) in looked {
            self.note = note;
            if let Some(service) = self.snapshot.services.get(&id) {
                self.service(service, &slots);
                // What moves for a better spread depends on everybody's tasks.
                self.note.is_restless |= service.rebalancing;
            }
            self.notes.push((id, self.note));
        }
    }

    /// What is to be done about a task whatever its service wants: its worker is down, back or gone, or it can be forgotten.
    fn life(&mut self, task: &'a Task, slot: &[&'a Task]) {
        let id = task.id;
        let service = self.snapshot.services.get(&task.service);
        if service.is_none_or(|service| service.removing) && task.desired != Desired::Remove {
            self.want(task, Desired::Remove);
        }
        if !task.state.is_end() {
            self.presence(task, slot);
        }
        // A lost one may be forgotten too: should its worker come back with it, it is a task nobody gave, and is stopped.
        let ended = task.state.is_end() || self.presumed_ended(task);
        if task.desired == Desired::Remove && ended {
            self.changes.push(Change::Forget { task: id });
        }
    }

    fn presence(&mut self, task: &'a Task, slot: &[&'a Task]) {
        let id = task.id;
        let Some(worker) = task.worker else { return };
        match self
            .snapshot
            .workers
            .get(&worker)
            .map(|worker| worker.status)
        {
            None => {
                let told = task.desired != Desired::Run;
                let state = if told { State::Stopped } else { State::Failed };
                self.changes.push(Change::MarkLost { task: id });
                self.changes.push(Change::End { task: id, state });
            }
            Some(Status::Down) if task.lost_ms.is_none() => {
                self.changes.push(Change::MarkLost { task: id });
            }
            Some(Status::Ready) if task.lost_ms.is_some() => self.returned(task, slot),
            Some(_) => {
                // Its lease may be what others wait for.
                let wait_ms = task.presumed_end_ms(&self.moment.leases).unwrap_or(0);
                self.is_time(self.moment.now_ms + wait_ms);
            }
        }
    }

    /// A lost task whose worker is back: it goes if its replacement runs, or has another version.
    fn returned(&mut self, task: &'a Task, slot: &[&'a Task]) {
        self.changes.push(Change::ClearLost { task: task.id });
        let mut others = slot.iter().filter(|other| other.is_live());
        if others.any(|other| other.is_available() || other.version != task.version) {
            self.want(task, Desired::Stop);
        }
    }

    fn service(&mut self, service: &'a Service, slots: &Slots<'a>) {
        if service.removing {
            if slots.is_empty() {
                let service = service.id;
                self.changes.push(Change::ForgetService { service });
            }
            return;
        }
        let before = self.changes.len();
        let (wanted, surplus) = slots::wanted(self.snapshot, service, slots);
        for task in surplus {
            self.want(task, Desired::Remove);
        }
        let stages: [fn(&mut Self, &'a Service, &[Slot<'a>]); 6] = [
            Self::judge,
            Self::resolve,
            Self::advance,
            Self::fill,
            Self::rebalance,
            Self::forget,
        ];
        for stage in stages {
            if self.changes.len() > before {
                return;
            }
            stage(self, service, &wanted);
        }
    }

    /// Fills empty slots.
    fn fill(&mut self, service: &'a Service, wanted: &[Slot<'a>]) {
        for slot in wanted {
            if slot.live().next().is_some() || slot.is_done(service) || !self.is_open(service, slot)
            {
                continue;
            }
            let version = version_for(service, slot, wanted);
            self.begin(service, slot, version);
        }
    }

    /// Makes a task of `version` in `slot`, unless its last failures ask for patience.
    pub(super) fn begin(&mut self, service: &'a Service, slot: &Slot<'a>, version: u64) {
        let (failures, ready_ms) = patience(service, slot, version);
        if !self.is_time(ready_ms) {
            return;
        }
        let task = self.next_task;
        self.next_task = TaskId(task.0 + 1);
        self.changes.push(Change::Create {
            task,
            service: service.id,
            slot: slot.number,
            version,
            failures,
        });
    }

    /// Whether `slot` may get another task now as far as its others are concerned.
    pub(super) fn is_open(&mut self, service: &Service, slot: &Slot<'_>) -> bool {
        if self.is_absent(service, slot) {
            return false;
        }
        match slot.gate(&self.moment.leases) {
            Gate::Open => true,
            Gate::Shut => false,
            Gate::Lease(wait_ms) => self.is_time(self.moment.now_ms + wait_ms),
        }
    }

    /// Whether it is the slot of a global service on a worker that is not ready: nobody else can take it.
    pub(super) fn is_absent(&self, service: &Service, slot: &Slot<'_>) -> bool {
        let worker = crate::types::WorkerId(slot.number);
        let worker = self.snapshot.workers.get(&worker);
        service.current.spec.mode == crate::service::spec::Mode::Global
            && worker.is_none_or(|worker| worker.status != Status::Ready)
    }

    /// Forgets the oldest ended tasks of a slot.
    fn forget(&mut self, _: &'a Service, wanted: &[Slot<'a>]) {
        for slot in wanted {
            let ended = slot.tasks.iter().filter(|task| task.state.is_end());
            let mut ended: Vec<&Task> = ended.copied().collect();
            ended.sort_by_key(|task| (task.changed_ms, task.id));
            let many = ended
                .len()
                .saturating_sub(self.moment.limits.history_max + 1);
            let oldest = ended.iter().take(many);
            self.changes
                .extend(oldest.map(|task| Change::Forget { task: task.id }));
        }
    }

    pub(super) fn want(&mut self, task: &Task, desired: Desired) {
        let task = task.id;
        self.changes.push(Change::SetDesired { task, desired });
    }

    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(super) fn set_rollout(&mut self, service: &Service, rollout: Rollout) {
        self.changes.push(Change::SetRollout {
            service: service.id,
            version: service.current.version,
            rollout,
        });
    }

    /// It waits for what a worker says next: the service is looked at in the next pass, whenever that is.
    pub(super) fn be_restless(&mut self) {
        self.note.is_restless = true;
    }

    /// Whether `at_ms` has come; if not, the next pass is due then.
    pub(super) fn is_time(&mut self, at_ms: u64) -> bool {
        let come = at_ms <= self.moment.now_ms;
        if !come {
            let wake_ms = self.note.wake_ms.map_or(at_ms, |wake| wake.min(at_ms));
            self.note.wake_ms = Some(wake_ms);
        }
        come
    }

    /// Whether `wait_ms` have passed since the stamp `since_ms`, as far as this leader knows.
    pub(super) fn has_passed(&mut self, wait_ms: u64, since_ms: u64) -> bool {
        self.is_time(self.moment.steady(since_ms).saturating_add(wait_ms))
    }

    fn presumed_ended(&mut self, task: &Task) -> bool {
        match task.presumed_end_ms(&self.moment.leases) {
            None => false,
            Some(wait_ms) if task.desired == Desired::Remove => {
                self.is_time(self.moment.now_ms + wait_ms)
            }
            Some(_) => false,
        }
    }
}

/// The version that an empty slot gets. A slot that lost its task for no fault of a rollout keeps its version until the
/// rollout comes to it, as long as that version is kept.
fn version_for(service: &Service, slot: &Slot<'_>, wanted: &[Slot<'_>]) -> u64 {
    let current = service.current.contents;
    let kept = |version: &u64| service.spec_of(*version).is_some();
    let previous = service.previous.as_ref().map(|previous| previous.contents);
    let old = match (service.rollout.phase, slot.last()) {
        (Phase::Paused, Some(last)) => Some(last.version),
        (Phase::Paused, None) => previous,
        (Phase::Running, Some(last)) if !slot.is_between() => Some(last.version),
        (Phase::Running, None) => previous.filter(|_| {
            let reached = super::rollout::reached(service, wanted);
            super::rollout::canary_limit(service, wanted).is_some_and(|limit| reached >= limit)
        }),
        _ => None,
    };
    old.filter(kept).unwrap_or(current)
}

/// Failures in a row of `version` in `slot`, and when the next task may begin after them.
pub(super) fn patience(service: &Service, slot: &Slot<'_>, version: u64) -> (u32, u64) {
    let Some(last) = slot.newest_of(version).filter(|task| task.state.is_end()) else {
        return (0, 0);
    };
    let failed = match last.state {
        _ if last.lost_ms.is_some() => false,
        State::Failed | State::Rejected => true,
        State::Complete => last.desired == Desired::Run,
        _ => last.counted,
    };
    if !failed {
        return (0, 0);
    }
    let spec = service.spec_of(version).unwrap_or(&service.current.spec);
    let restart = &spec.restart;
    let ran_ms = last
        .running_since_ms
        .map_or(0, |since| last.changed_ms.saturating_sub(since));
    let failures = match ran_ms >= restart.window_ms.max(1) {
        true => 1,
        false => last.failures.saturating_add(1),
    };
    let doublings = (failures - 1).min(32);
    let delay_ms = restart.delay_ms.max(1).saturating_mul(1 << doublings);
    let delay_ms = delay_ms.min(restart.delay_max_ms.max(1));
    (failures, last.changed_ms.saturating_add(delay_ms))
}

/// What may be taken away on purpose now: rollout and drain together.
pub(super) struct Budget {
    /// Tasks that may stop before another runs.
    pub(super) spare: i64,
    /// Tasks that may begin before another stops.
    pub(super) surge: i64,
}

impl Budget {
    /// What the slots of a service allow.
    pub(super) fn new(service: &Service, pace: &Pace, wanted: &[Slot<'_>]) -> Self {
        let needed = wanted.iter().filter(|slot| !slot.is_done(service)).count() as i64;
        let available = wanted
            .iter()
            .filter(|slot| slot.available().is_some())
            .count() as i64;
        let extra = wanted
            .iter()
            .map(|slot| slot.standing().saturating_sub(1) as i64);
        Budget {
            spare: available - (needed - pace.unavailable),
            surge: pace.surge - extra.sum::<i64>(),
        }
    }
}
