//! Gives workers to pending tasks: each choice counts for the next one of the same pass.
//!
//! Tasks are taken service by service, so that what is the same for all copies is looked at once. Copies without volumes that are
//! new in their slot go through ordered sets, one for each place of the spread (such as a zone): choosing costs a look
//! at each place and a logarithm, whatever the number of workers. The few others (with a volume, of a global service, or taking the place
//! of a task that still runs) are compared worker by worker. Both give what the comparison of all workers for each task would give.

use super::change::Change;
use super::filter::Need;
use super::model::{Moment, Service, Snapshot, Task, Worker};
use super::room::Rooms;
use super::slots::{Slot, is_pinned};
use crate::service::spec::{Mode, Spec};
use crate::service::{Desired, State};
use crate::types::{ServiceId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// Assignments for all pending tasks that fit somewhere.
pub fn place(snapshot: &Snapshot, moment: &Moment) -> Vec<Change> {
    let tasks = snapshot.tasks.values();
    let waits = |task: &&Task| task.state == State::Pending && task.desired == Desired::Run;
    place_tasks(snapshot, moment, tasks.filter(waits))
}

/// Assignments for those of the pending `tasks` that fit somewhere.
pub(super) fn place_tasks<'a>(
    snapshot: &'a Snapshot,
    moment: &Moment,
    tasks: impl Iterator<Item = &'a Task>,
) -> Vec<Change> {
    let mut groups: BTreeMap<(ServiceId, u64), Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        let group = groups.entry((task.service, task.version));
        group.or_default().push(task);
    }
    if groups.is_empty() {
        return Vec::new();
    }
    let mut placer = Placer {
        snapshot,
        rooms: Rooms::new(snapshot, moment),
        changes: Vec::new(),
    };
    for ((service, version), tasks) in groups {
        let entry = snapshot.services.get(&service);
        if let Some(spec) = entry.and_then(|entry| entry.spec_of(version)) {
            placer.group(service, spec, &tasks);
        }
    }
    placer.changes
}

/// The slot of `service` whose copy would be better off elsewhere, by more than one copy at the outermost place that differs (such as the
/// zone, at last the worker); the one with most to gain, then the newest. Moving it and asking again ends: each move makes the
/// spread better.
pub(super) fn improvement<'a>(
    snapshot: &'a Snapshot,
    moment: &Moment,
    service: &'a Service,
    slots: &[Slot<'a>],
) -> Option<u64> {
    let spec = &service.current.spec;
    if spec.mode == Mode::Global {
        return None;
    }
    let placer = Placer {
        snapshot,
        rooms: Rooms::new(snapshot, moment),
        changes: Vec::new(),
    };
    let need = Need::new(service.id, spec);
    let suitable = snapshot.workers.values();
    let suitable: Vec<&Worker> = suitable.filter(|w| need.suits(w).is_ok()).collect();
    let mut places = Places::new(snapshot, &placer.rooms, service.id, spec);
    let mut gains = Vec::new();
    for slot in slots {
        let movable = slot.available().filter(|task| !is_pinned(snapshot, task));
        let Some((task, home)) = movable.and_then(|task| Some((task, task.worker?))) else {
            continue;
        };
        places.change(home, -1);
        let best = placer.best(&need, &suitable, &places, task, &[home]);
        places.change(home, 1);
        let gain = best.map_or(0, |best| placer.gain(&places, service.id, home, best.id));
        gains.push((gain, task.id, slot.number));
    }
    let best = gains.into_iter().filter(|(gain, ..)| *gain > 1).max();
    best.map(|(_, _, slot)| slot)
}

struct Placer<'a> {
    snapshot: &'a Snapshot,
    rooms: Rooms,
    changes: Vec<Change>,
}

/// What decides between workers of one place: copies, share, tasks, id. Fewer is better.
type Score = (u32, u64, u32, WorkerId);

impl<'a> Placer<'a> {
    fn group(&mut self, service: ServiceId, spec: &'a Spec, tasks: &[&'a Task]) {
        let need = Need::new(service, spec);
        let suitable = self.snapshot.workers.values();
        let suitable: Vec<&Worker> = suitable.filter(|w| need.suits(w).is_ok()).collect();
        let plain = spec.mode == Mode::Replicated && spec.volumes.is_empty();
        let (simple, special): (Vec<&Task>, Vec<&Task>) = tasks
            .iter()
            .partition(|task| plain && self.rooms.slot_workers(service, task.slot).is_empty());
        if !simple.is_empty() {
            self.batch(service, spec, &need, &suitable, &simple);
        }
        if special.is_empty() {
            return;
        }
        let mut places = Places::new(self.snapshot, &self.rooms, service, spec);
        for task in special {
            let replaced = self.rooms.slot_workers(service, task.slot).to_vec();
            replaced
                .iter()
                .for_each(|&worker| places.change(worker, -1));
            let best = self.best(&need, &suitable, &places, task, &replaced);
            replaced.iter().for_each(|&worker| places.change(worker, 1));
            if let Some(worker) = best {
                self.assign(task, worker);
                places.change(worker.id, 1);
            }
        }
    }

    /// The best worker for `task`, by comparing all; the copies on the workers in `replaced` are on their way out.
    fn best(
        &self,
        need: &Need<'_>,
        suitable: &[&'a Worker],
        places: &Places,
        task: &Task,
        replaced: &[WorkerId],
    ) -> Option<&'a Worker> {
        let fitting = suitable.iter().copied();
        let fitting =
            fitting.filter(|w| need.fits(self.snapshot, &self.rooms, w, task.slot).is_ok());
        fitting.min_by_key(|worker| {
            let going = replaced.iter().filter(|&&id| id == worker.id).count() as u32;
            let mut score = self.score(task.service, worker);
            score.0 = score.0.saturating_sub(going);
            let failed = self.rooms.failed_lately(task.service, worker.id);
            (failed, places.counts(worker.id), score)
        })
    }

    /// Places tasks that differ in nothing but their slots.
    fn batch(
        &mut self,
        service: ServiceId,
        spec: &'a Spec,
        need: &Need<'_>,
        suitable: &[&'a Worker],
        tasks: &[&'a Task],
    ) {
        let mut places = Places::new(self.snapshot, &self.rooms, service, spec);
        let mut queues: BTreeMap<(bool, Vec<usize>), BTreeSet<Score>> = BTreeMap::new();
        for worker in suitable {
            let failed = self.rooms.failed_lately(service, worker.id);
            let queue = queues.entry((failed, places.path(worker.id).to_vec()));
            queue.or_default().insert(self.score(service, worker));
        }
        for task in tasks {
            let Some(worker) = self.next(need, &places, &mut queues) else {
                return;
            };
            self.assign(task, worker);
            let failed = self.rooms.failed_lately(service, worker.id);
            let queue = queues.entry((failed, places.path(worker.id).to_vec()));
            queue.or_default().insert(self.score(service, worker));
            places.change(worker.id, 1);
        }
    }

    /// Takes the best worker out of its queue. One without room is dropped: in this batch room only shrinks.
    fn next(
        &self,
        need: &Need<'_>,
        places: &Places,
        queues: &mut BTreeMap<(bool, Vec<usize>), BTreeSet<Score>>,
    ) -> Option<&'a Worker> {
        loop {
            let best = queues.iter().filter_map(|(key, queue)| {
                let counts: Vec<i64> = key.1.iter().map(|&place| places.copies[place]).collect();
                Some(((key.0, counts, *queue.first()?), key))
            });
            let ((_, _, score), key) = best.min_by(|a, b| a.0.cmp(&b.0))?;
            let key = key.clone();
            queues.get_mut(&key)?.remove(&score);
            let worker = self.snapshot.workers.get(&score.3)?;
            if need.has_room(self.snapshot, &self.rooms, worker).is_ok() {
                return Some(worker);
            }
        }
    }

    /// Copies that the outermost place of `from` has more than that of `to`, where they differ.
    fn gain(&self, places: &Places, service: ServiceId, from: WorkerId, to: WorkerId) -> i64 {
        let pairs = places.path(from).iter().zip(places.path(to));
        for (&there, &here) in pairs {
            if there != here {
                return places.copies[there] - places.copies[here];
            }
        }
        let copies = |worker| i64::from(self.rooms.copies(service, worker));
        copies(from) - copies(to)
    }

    fn score(&self, service: ServiceId, worker: &Worker) -> Score {
        (
            self.rooms.copies(service, worker.id),
            self.rooms.share(worker),
            self.rooms.tasks(worker.id),
            worker.id,
        )
    }

    fn assign(&mut self, task: &Task, worker: &Worker) {
        self.rooms.place(task, worker.id);
        self.changes.push(Change::Assign {
            task: task.id,
            worker: worker.id,
            epoch: worker.epoch,
        });
    }
}

/// Copies by place: a place is a path of label values, such as `north`, then `north` and `rack-3`.
struct Places {
    /// The places of each worker, outermost first.
    paths: BTreeMap<WorkerId, Vec<usize>>,
    /// Copies in each place.
    copies: Vec<i64>,
}

impl Places {
    fn new(snapshot: &Snapshot, rooms: &Rooms, service: ServiceId, spec: &Spec) -> Self {
        let mut numbers: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        let mut places = Places {
            paths: BTreeMap::new(),
            copies: Vec::new(),
        };
        for worker in snapshot.workers.values() {
            let mut values = Vec::new();
            let mut path = Vec::new();
            for label in &spec.placement.spread {
                values.push(worker.labels.get(label).map_or("", String::as_str));
                let next = numbers.len();
                path.push(*numbers.entry(values.clone()).or_insert(next));
            }
            places.copies.resize(numbers.len(), 0);
            places.paths.insert(worker.id, path);
            places.change(worker.id, i64::from(rooms.copies(service, worker.id)));
        }
        places
    }

    fn path(&self, worker: WorkerId) -> &[usize] {
        self.paths.get(&worker).map_or(&[], Vec::as_slice)
    }

    fn counts(&self, worker: WorkerId) -> Vec<i64> {
        self.path(worker)
            .iter()
            .map(|&place| self.copies[place])
            .collect()
    }

    fn change(&mut self, worker: WorkerId, by: i64) {
        let path = self.paths.get(&worker).cloned().unwrap_or_default();
        for place in path {
            self.copies[place] += by;
        }
    }
}
