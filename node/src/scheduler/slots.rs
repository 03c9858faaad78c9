//! The slots of one service and the tasks in them: which slots there shall be, and what each of them is worth.

use super::model::{Availability, Leases, Phase, Service, Snapshot, Status, Task};
use crate::service::spec::{Mode, Order, RestartCondition, Spec};
use crate::service::{Desired, State};
use crate::types::WorkerId;
use std::collections::{BTreeMap, BTreeSet};

/// One slot with every task in it that is not forgotten, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot<'a> {
    /// Its number.
    pub(super) number: u64,
    /// Its tasks, the oldest first.
    pub(super) tasks: Vec<&'a Task>,
}

/// Whether another task may begin in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may.
    Open,
    /// Not before this many milliseconds, when a lease has certainly ended.
    Lease(u64),
    /// Not before a task there has ended.
    Shut,
}

impl<'a> Slot<'a> {
    /// Tasks that shall run and are not lost.
    pub(super) fn live(&self) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().copied().filter(|task| task.is_live())
    }

    /// The task that serves.
    pub(super) fn available(&self) -> Option<&'a Task> {
        self.live().find(|task| task.is_available())
    }

    /// Tasks that hold a place: all that have not ended and are not lost.
    pub(super) fn standing(&self) -> usize {
        let standing = |task: &&&Task| !task.state.is_end() && task.lost_ms.is_none();
        self.tasks.iter().filter(standing).count()
    }

    /// The task that stood last: one that has not ended, or else the last to end.
    pub(super) fn last(&self) -> Option<&'a Task> {
        let tasks = self.tasks.iter().copied();
        tasks.max_by_key(|task| (!task.state.is_end(), task.changed_ms, task.id))
    }

    /// The newest task of `version`.
    pub(super) fn newest_of(&self, version: u64) -> Option<&'a Task> {
        let mut newest_first = self.tasks.iter().rev().copied();
        newest_first.find(|task| task.version == version)
    }

    /// Whether another task may begin here as far as the others are concerned.
    pub(super) fn gate(&self, leases: &Leases) -> Gate {
        let mut gate = Gate::Open;
        for task in self.tasks.iter().filter(|task| !task.state.is_end()) {
            match task.presumed_end_ms(leases) {
                Some(0) => (),
                None => return Gate::Shut,
                Some(wait_ms) => {
                    gate = match gate {
                        Gate::Lease(other_ms) => Gate::Lease(other_ms.max(wait_ms)),
                        _ => Gate::Lease(wait_ms),
                    }
                }
            }
        }
        gate
    }

    /// Whether its task did all it had to: it ended, and its restart policy wants no other.
    pub(super) fn is_done(&self, service: &Service) -> bool {
        let paused = service.rollout.phase == Phase::Paused;
        let condition = service.current.spec.restart.condition;
        self.last().is_some_and(|task| {
            let ended_for_good = match condition {
                RestartCondition::Always => false,
                RestartCondition::OnFailure => task.state == State::Complete,
                RestartCondition::Never => matches!(task.state, State::Complete | State::Failed),
            };
            let right = paused || task.version == service.current.contents;
            ended_for_good && right && task.desired == Desired::Run && task.lost_ms.is_none()
        })
    }

    /// Whether it waits for the task that a rollout or a drain told to stop, so that the next one has the new version.
    pub(super) fn is_between(&self) -> bool {
        self.live().next().is_none()
            && self
                .last()
                .is_some_and(|task| task.desired == Desired::Stop)
    }
}

/// How a service's tasks take each other's places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The new one first, as far as `surge` goes.
    pub(super) start_first: bool,
    /// Tasks above the wanted number.
    pub(super) surge: i64,
    /// Tasks below the wanted number.
    pub(super) unavailable: i64,
}

impl Pace {
    /// The pace of `spec`. Stop-first whatever it says where two tasks of a slot can never run at once: a volume with a single
    /// writer, or a port on the one worker of a global task. Stop-first without anything unavailable could not begin, so
    /// it means one.
    pub(super) fn new(spec: &Spec) -> Self {
        let update = &spec.update;
        let never_two =
            spec.is_single_writer() || spec.mode == Mode::Global && !spec.ports.is_empty();
        let start_first = update.order == Order::StartFirst && update.surge_max > 0 && !never_two;
        let least = if start_first { 0 } else { 1 };
        Pace {
            start_first,
            surge: if start_first {
                i64::from(update.surge_max)
            } else {
                0
            },
            unavailable: i64::from(update.unavailable_max).max(least),
        }
    }

    /// Slots in one step.
    pub(super) fn step(&self) -> usize {
        self.surge.max(self.unavailable).max(1) as usize
    }
}

/// The slots of `service` that there shall be, and the tasks of those that there shall not.
pub(super) fn wanted<'a>(
    snapshot: &'a Snapshot,
    service: &Service,
    slots: &BTreeMap<u64, Vec<&'a Task>>,
) -> (Vec<Slot<'a>>, Vec<&'a Task>) {
    let kept = |task: &&&Task| task.desired != Desired::Remove;
    let in_use = slots
        .iter()
        .filter(|(_, tasks)| tasks.iter().any(|task| kept(&task)));
    let in_use = in_use.map(|(&number, tasks)| Slot {
        number,
        tasks: tasks.clone(),
    });
    let in_use: Vec<Slot<'a>> = in_use.collect();
    let (wanted, surplus) = match service.current.spec.mode {
        Mode::Replicated => replicated(service, slots, in_use),
        Mode::Global => global(snapshot, service, in_use),
    };
    let surplus = surplus.into_iter().flat_map(|slot| slot.tasks);
    (
        wanted,
        surplus
            .filter(|task| task.desired != Desired::Remove)
            .collect(),
    )
}

fn replicated<'a>(
    service: &Service,
    slots: &BTreeMap<u64, Vec<&'a Task>>,
    mut in_use: Vec<Slot<'a>>,
) -> (Vec<Slot<'a>>, Vec<Slot<'a>>) {
    let count = service.current.spec.replicas as usize;
    let surplus = in_use.len().saturating_sub(count);
    let surplus = take_surplus(&mut in_use, surplus);
    let busy = |number: &u64| {
        let tasks = slots.get(number);
        tasks.is_some_and(|tasks| tasks.iter().any(|task| !task.state.is_end()))
    };
    let taken: BTreeSet<u64> = in_use.iter().map(|slot| slot.number).collect();
    let free = (1..).filter(|number| !taken.contains(number) && !busy(number));
    let missing = count.saturating_sub(in_use.len());
    let fresh: Vec<u64> = free.take(missing).collect();
    in_use.extend(fresh.into_iter().map(|number| Slot {
        number,
        tasks: Vec::new(),
    }));
    in_use.sort_by_key(|slot| slot.number);
    (in_use, surplus)
}

/// Takes `count` slots out: first those that do not serve, the newest first; then, one by one, one on the worker with most copies.
fn take_surplus<'a>(slots: &mut Vec<Slot<'a>>, count: usize) -> Vec<Slot<'a>> {
    let mut copies: BTreeMap<WorkerId, u32> = BTreeMap::new();
    let home = |slot: &Slot<'_>| slot.available().and_then(|task| task.worker);
    for worker in slots.iter().filter_map(home) {
        *copies.entry(worker).or_default() += 1;
    }
    let mut surplus = Vec::new();
    for _ in 0..count {
        let worst = slots.iter().enumerate().max_by_key(|(_, slot)| {
            let home = home(slot);
            let crowd = home.and_then(|worker| copies.get(&worker)).copied();
            let newest = slot.tasks.last().map(|task| task.id);
            (home.is_none(), crowd.unwrap_or(0), newest)
        });
        let Some((index, _)) = worst else { break };
        let slot = slots.remove(index);
        if let Some(crowd) = home(&slot).and_then(|worker| copies.get_mut(&worker)) {
            *crowd -= 1;
        }
        surplus.push(slot);
    }
    surplus
}

/// One slot for each active worker that fits, also while it is down; a new one only where the worker is ready.
fn global<'a>(
    snapshot: &Snapshot,
    service: &Service,
    in_use: Vec<Slot<'a>>,
) -> (Vec<Slot<'a>>, Vec<Slot<'a>>) {
    let need = super::filter::Need::new(service.id, &service.current.spec);
    let belongs = |number: u64| {
        let worker = snapshot.workers.get(&WorkerId(number));
        worker.is_some_and(|worker| match need.belongs(worker) {
            Err(super::filter::Reason::BadConstraint(_)) => true,
            fits => fits.is_ok() && worker.availability == Availability::Active,
        })
    };
    let (mut wanted, surplus): (Vec<Slot<'a>>, Vec<Slot<'a>>) =
        in_use.into_iter().partition(|slot| belongs(slot.number));
    for worker in snapshot.workers.values() {
        let here = wanted.iter().any(|slot| slot.number == worker.id.0);
        if !here && worker.status == Status::Ready && belongs(worker.id.0) {
            wanted.push(Slot {
                number: worker.id.0,
                tasks: Vec::new(),
            });
        }
    }
    wanted.sort_by_key(|slot| slot.number);
    (wanted, surplus)
}

/// The task that a slot with several live ones shall keep in the end: the right version first, then one on a worker that
/// keeps its tasks, then one that runs, then the oldest; while copies are moved for a better spread, the newest.
pub(super) fn keeper<'a>(
    snapshot: &Snapshot,
    service: &Service,
    slot: &Slot<'a>,
) -> Option<&'a Task> {
    let paused = service.rollout.phase == Phase::Paused;
    slot.live().max_by_key(|task| {
        let right = !paused && task.version == service.current.contents;
        let stays = !is_drained(snapshot, task);
        let id = task.id.0;
        match service.rebalancing {
            true => (right, stays, true, id),
            false => (right, stays, task.is_available(), u64::MAX - id),
        }
    })
}

/// Whether a task is on a worker that an operator drains.
pub(super) fn is_drained(snapshot: &Snapshot, task: &Task) -> bool {
    let worker = task.worker.and_then(|worker| snapshot.workers.get(&worker));
    worker.is_some_and(|worker| worker.availability == Availability::Drain)
}

/// Whether a task's volumes tie it to the worker where it is.
pub(super) fn is_pinned(snapshot: &Snapshot, task: &Task) -> bool {
    let lies = |volume: &str| {
        snapshot
            .volumes
            .get(volume)
            .is_some_and(|v| v.worker.is_some())
    };
    task.volumes.iter().any(|mount| lies(&mount.volume))
}
