//! A worker as a pure machine: its tasks, what managers gave, what they have not heard yet, its lease, and what is on its disk.
//!
//! [`Worker::step`] takes what happened and the time and gives effects; a shell carries them out in their order and brings the
//! answers back.
//! Nothing depends on managers being there: their absence is the absence of a few inputs.
//!
//! Invariants: nothing older than what is on the disk is ever followed (epoch, then revision); a report that was given out is on the disk
//! under its number; tasks with a single-writer volume have leave only while the lease lasts, none while an orphan
//! lives, and one of them for each volume. The time is the worker's own, counted over all its lives
//! ([`Worker::time_ms`]): while it is away its time stands still.

use super::exchange::{Assignments, Effect, Found, Hello, Identity, Input, Saved};
use super::lease::Lease;
use super::report::Report;
use super::task::Task;
use super::words::{self, Exit, FREE, Handle, Observation, Timing};
use crate::service::{Desired, State};
use crate::types::{ClusterId, Epoch, TaskId, WorkerId};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Where the worker stands with managers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    /// None answers.
    #[default]
    Down,
    /// One answers; the worker has said who it is.
    Greeted,
    /// The worker was welcomed: reports and heartbeats flow.
    Ready,
}

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// What is on its disk, or about to be.
    saved: Saved,
    /// Its numbers.
    timing: Timing,
    /// Whether it has not been welcomed in this life of its process.
    is_anew: bool,
    /// Where it stands with managers.
    link: Link,
    /// Between two heartbeats, as the leader asked last, milliseconds.
    pace_ms: u64,
    /// When the next heartbeat is due, milliseconds.
    heartbeat_at_ms: u64,
    /// Its right to single-writer volumes.
    lease: Lease,
    /// Processes that carry its mark and are none of its attempts, and when each is killed again, milliseconds.
    orphans: BTreeMap<(TaskId, u32), u64>,
}

impl Worker {
    /// A worker that begins with what is on its disk and with the processes that it finds: those of its tasks' newest
    /// attempts are taken up as they are, all others are orphans and are ended.
    pub fn resume(saved: Saved, found: Vec<Found>, timing: Timing) -> (Self, Vec<Effect>) {
        let mut worker = Worker {
            saved,
            timing,
            is_anew: true,
            link: Link::Down,
            pace_ms: timing.heartbeat_ms,
            heartbeat_at_ms: 0,
            lease: Lease::default(),
            orphans: BTreeMap::new(),
        };
        let now_ms = worker.time_ms();
        worker.saved.tasks.values_mut().for_each(Task::lose_leave);
        let mut taken: BTreeMap<TaskId, Handle> = BTreeMap::new();
        for Found {
            task,
            attempt,
            handle,
        } in found
        {
            let known = worker.saved.tasks.get(&task);
            match known.is_some_and(|known| known.owns(attempt, &handle))
                && !taken.contains_key(&task)
            {
                true => drop(taken.insert(task, handle)),
                false => drop(worker.orphans.insert((task, attempt), now_ms)),
            }
        }
        let mut effects = Vec::new();
        // Leave comes first: a task that needs none must not be taken for one that has lost it.
        worker.give_leave(now_ms, &mut effects);
        for id in worker.ids() {
            let found = taken.remove(&id);
            worker.step_task(id, words::Input::Resumed { found }, now_ms, &mut effects);
        }
        worker.settle(now_ms, &mut effects);
        (worker, in_order(effects))
    }

    /// What must be on the disk before the effects behind [`Effect::Persist`].
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The worker's own time at its last step, milliseconds. The first step of a life is never earlier: a shell adds the time since
    /// [`Worker::resume`] to what this said then.
    pub fn time_ms(&self) -> u64 {
        self.saved.time_ms
    }

    /// One of its tasks.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.saved.tasks.get(&id)
    }

    /// Its tasks, in order.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.saved.tasks.values()
    }

    /// End of its lease, milliseconds of its own time; zero: none.
    pub fn lease_until_ms(&self) -> u64 {
        self.lease.until_ms()
    }

    /// When guards kill what needs a lease, milliseconds of its own time; zero: there is none. Later than the worker does it itself, so
    /// that one that can tells its tasks first; and long enough before the lease's end for what a guard has to do.
    pub fn guarded_until_ms(&self) -> u64 {
        let margin_ms = self.timing.lease_margin_ms / 2;
        self.lease.until_ms().saturating_sub(margin_ms)
    }

    /// Reports that managers have not acknowledged, oldest first.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.saved.reports.waiting()
    }

    /// When it wants to be stepped next, if time alone can change anything.
    pub fn wake_ms(&self) -> Option<u64> {
        let heartbeat = (self.link == Link::Ready).then_some(self.heartbeat_at_ms);
        let orphans = self.orphans.values().copied();
        let tasks = self.tasks().filter_map(|task| task.wake_ms(&self.timing));
        tasks.chain(heartbeat).chain(orphans).min()
    }

    /// Takes `input` in at `now_ms` of the worker's time and says what is to be done. Time never goes back.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        let now_ms = now_ms.max(self.saved.time_ms);
        self.saved.time_ms = now_ms;
        let mut effects = Vec::new();
        match input {
            Input::Tick => {}
            Input::Connected => self.connected(&mut effects),
            Input::Disconnected => {
                self.link = Link::Down;
                self.lease.disconnected();
            }
            Input::Welcome {
                cluster,
                worker,
                epoch,
            } => self.welcome(cluster, worker, epoch, now_ms, &mut effects),
            Input::Removed { worker } => {
                // Who it is stays, so that managers know it for what was removed; a welcome under another name changes that.
                if worker == self.saved.identity.worker {
                    self.give_all_up(now_ms, &mut effects);
                }
            }
            Input::Assigned(assignments) => self.assigned(assignments, now_ms, &mut effects),
            Input::Answered {
                heartbeat,
                epoch,
                revision,
                lease_ms,
                pace_ms,
            } => {
                if epoch == self.saved.epoch {
                    self.pace(pace_ms, now_ms);
                }
                // A grant of managers that have newer assignments than the worker might be for what they have taken away;
                // so might one before the session's first assignments.
                let known = 1..=self.saved.revision;
                if epoch == self.saved.epoch && known.contains(&revision) {
                    self.lease.answered(heartbeat, lease_ms);
                }
            }
            Input::Acknowledged { life, number } => {
                if life == self.saved.identity.life {
                    self.saved.reports.acknowledged(number);
                }
            }
            Input::Task(id, input) => match input {
                // These two are the core's own to give.
                words::Input::Leave { .. } | words::Input::Resumed { .. } => {}
                input => self.step_task(id, input, now_ms, &mut effects),
            },
            Input::OrphanGone { task, attempt } => self.orphan_gone(task, attempt, &mut effects),
        }
        self.settle(now_ms, &mut effects);
        in_order(effects)
    }

    /// A manager answers: it hears who this is, and everything this has.
    fn connected(&mut self, effects: &mut Vec<Effect>) {
        self.link = Link::Greeted;
        effects.push(Effect::Hello(Box::new(Hello {
            identity: self.saved.identity,
            epoch: self.saved.epoch,
            revision: self.saved.revision,
            is_anew: self.is_anew,
            tasks: (self.saved.tasks.iter())
                .map(|(id, task)| (*id, task.observation()))
                .collect(),
            newest_report: self.saved.reports.newest(),
        })));
    }

    /// The cluster has taken the worker's word.
    fn welcome(
        &mut self,
        cluster: ClusterId,
        worker: WorkerId,
        epoch: Epoch,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let identity = self.saved.identity;
        if self.link == Link::Down {
            return;
        }
        if identity.worker != WorkerId::default() && identity.cluster != cluster {
            let own = identity.cluster;
            return effects.push(Effect::Refused(format!(
                "cluster {cluster} welcomes this worker, which belongs to {own}: give it an empty data directory to move it"
            )));
        }
        if epoch < self.saved.epoch || (self.is_anew && epoch == self.saved.epoch) {
            let own = self.saved.epoch;
            return effects.push(Effect::Refused(format!(
                "a manager welcomes this worker in epoch {epoch}, which is over: {own} has begun"
            )));
        }
        if identity.worker != WorkerId::default() && identity.worker != worker {
            // It was removed and has joined again: nobody wants its tasks, and its reports are of no one they know.
            self.give_all_up(now_ms, effects);
        }
        if epoch > self.saved.epoch {
            self.saved.epoch = epoch;
            self.saved.revision = 0;
            // Grants of the session before are kept: managers count them too. Answers on their way are not.
            self.lease.disconnected();
        }
        self.saved.identity = Identity {
            cluster,
            worker,
            ..identity
        };
        self.is_anew = false;
        self.link = Link::Ready;
        self.heartbeat_at_ms = now_ms;
        effects.push(Effect::Persist);
        effects.extend(self.reports().cloned().map(Effect::Report));
    }

    /// The leader says how often it must hear of this worker.
    fn pace(&mut self, pace_ms: Option<u64>, now_ms: u64) {
        let usual_ms = self.timing.heartbeat_ms;
        let pace_ms = pace_ms.map_or(usual_ms, |pace_ms| pace_ms.max(words::PACE_MS_MIN));
        self.pace_ms = pace_ms.min(usual_ms);
        let next_ms = now_ms.saturating_add(self.pace_ms);
        self.heartbeat_at_ms = self.heartbeat_at_ms.min(next_ms);
    }

    /// Nobody wants its tasks any more.
    fn give_all_up(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for id in self.ids() {
            let gone = words::Input::Desired(Desired::Remove);
            self.step_task(id, gone, now_ms, effects);
        }
        self.lease.revoke();
    }

    /// Managers say what it shall do.
    fn assigned(&mut self, assignments: Assignments, now_ms: u64, effects: &mut Vec<Effect>) {
        let Assignments {
            epoch,
            revision,
            tasks,
        } = assignments;
        if (epoch, revision) <= (self.saved.epoch, self.saved.revision) || epoch != self.saved.epoch
        {
            return; // Old news, or of a session to which nobody has welcomed this worker.
        }
        if self.link != Link::Ready {
            return; // What is meant for it comes after its welcome.
        }
        self.saved.revision = revision;
        effects.push(Effect::Persist);
        let wanted: BTreeSet<TaskId> = tasks.iter().map(|given| given.task).collect();
        for id in self.ids() {
            if !wanted.contains(&id) {
                let gone = words::Input::Desired(Desired::Remove);
                self.step_task(id, gone, now_ms, effects);
            }
        }
        for given in tasks {
            let (id, desired) = (given.task, given.desired);
            if given.spec.is_single_writer() && !self.saved.tasks.contains_key(&id) {
                self.heartbeat_at_ms = now_ms; // It waits for a lease, which only comes for assignments that the worker has.
            }
            match self.saved.tasks.entry(id) {
                Entry::Occupied(mut known) => known.get_mut().renew_secrets(given.secrets),
                Entry::Vacant(place) => drop(place.insert(Task::new(given))),
            }
            self.step_task(id, words::Input::Desired(desired), now_ms, effects);
        }
    }

    /// An orphan is gone. If nothing else is known of its task here, managers hear that it has ended.
    fn orphan_gone(&mut self, task: TaskId, attempt: u32, effects: &mut Vec<Effect>) {
        if self.orphans.remove(&(task, attempt)).is_none() || self.task(task).is_some() {
            return;
        }
        let observation = Observation {
            state: State::Failed,
            attempts: attempt,
            exit: Some(Exit::UNSEEN),
            message: "it ran here and this worker knew nothing of it: ended".to_owned(),
        };
        self.report(task, observation, effects);
    }

    /// Brings everything to rest: leave as it is now, and what is due.
    fn settle(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.give_leave(now_ms, effects);
        for id in self.due(now_ms) {
            self.step_task(id, words::Input::Tick, now_ms, effects);
        }
        // A task that ended just now may have had a volume that another one waits for.
        self.give_leave(now_ms, effects);
        for ((task, attempt), again_ms) in &mut self.orphans {
            if *again_ms <= now_ms {
                *again_ms = now_ms.saturating_add(self.timing.kill_retry_ms);
                let (task, attempt) = (*task, *attempt);
                effects.push(Effect::EndOrphan { task, attempt });
            }
        }
        if self.link == Link::Ready && self.heartbeat_at_ms <= now_ms {
            self.heartbeat_at_ms = now_ms.saturating_add(self.pace_ms);
            effects.push(Effect::Heartbeat {
                number: self.lease.sending(now_ms),
                epoch: self.saved.epoch,
                revision: self.saved.revision,
                reports: self.saved.reports.newest(),
            });
        }
    }

    /// Gives each task the leave that it has now.
    fn give_leave(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut held: BTreeSet<String> = BTreeSet::new();
        for task in self.tasks().filter(|task| task.is_live()) {
            held.extend(volumes(task).map(str::to_owned));
        }
        for id in self.ids() {
            let Some(task) = self.task(id) else { continue };
            let until_ms = match task.is_live() {
                true if !task.assignment().spec.is_single_writer() => FREE,
                true => self.lease.until_ms(),
                false => self.leave_to_start(task, &held),
            };
            if !task.is_live() && task.is_waiting() && until_ms > now_ms {
                held.extend(volumes(task).map(str::to_owned));
            }
            if task.leave_until_ms() != until_ms {
                self.step_task(id, words::Input::Leave { until_ms }, now_ms, effects);
            }
        }
    }

    /// The leave of a task that has no process, while others hold these volumes.
    fn leave_to_start(&self, task: &Task, held: &BTreeSet<String>) -> u64 {
        let id = task.assignment().task;
        let own_orphan = self
            .orphans
            .range((id, 0)..=(id, u32::MAX))
            .next()
            .is_some();
        if !task.assignment().spec.is_single_writer() {
            return if own_orphan { 0 } else { FREE };
        }
        if !self.orphans.is_empty() || volumes(task).any(|volume| held.contains(volume)) {
            return 0;
        }
        self.lease.until_ms()
    }

    /// Steps one task; its reports get their numbers here.
    fn step_task(
        &mut self,
        id: TaskId,
        input: words::Input,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.saved.tasks.get_mut(&id) else {
            return;
        };
        for effect in task.step(input, now_ms, &self.timing) {
            match effect {
                words::Effect::Persist => effects.push(Effect::Persist),
                words::Effect::Report(observation) => self.report(id, observation, effects),
                words::Effect::Forget => {
                    self.saved.tasks.remove(&id);
                    effects.push(Effect::Persist);
                    effects.push(Effect::Forget(id));
                }
                effect => effects.push(Effect::Task(id, effect)),
            }
        }
    }

    /// Numbers and keeps a report; sends it if managers hear.
    fn report(&mut self, task: TaskId, observation: Observation, effects: &mut Vec<Effect>) {
        let report = self.saved.reports.add(task, observation);
        effects.push(Effect::Persist);
        if self.link == Link::Ready {
            effects.push(Effect::Report(report));
        }
    }

    /// The tasks for which time alone may change something now: a quiet one costs nothing.
    fn due(&self, now_ms: u64) -> Vec<TaskId> {
        let due = |task: &&Task| {
            let wake_ms = task.wake_ms(&self.timing);
            task.is_waiting() || wake_ms.is_some_and(|wake_ms| wake_ms <= now_ms)
        };
        let due = self.tasks().filter(due);
        due.map(|task| task.assignment().task).collect()
    }

    /// The tasks it has now.
    fn ids(&self) -> Vec<TaskId> {
        self.saved.tasks.keys().copied().collect()
    }
}

/// The volumes that a task must have alone.
fn volumes(task: &Task) -> impl Iterator<Item = &str> {
    let mounts = task.assignment().spec.volumes.iter();
    mounts
        .filter(|mount| !mount.shared)
        .map(|mount| mount.volume.as_str())
}

/// Effects in the order in which they are carried out, with one `Persist` at most.
fn in_order(mut effects: Vec<Effect>) -> Vec<Effect> {
    effects.sort_by_key(Effect::order);
    effects.dedup_by(|a, b| *a == Effect::Persist && *b == Effect::Persist);
    effects
}
