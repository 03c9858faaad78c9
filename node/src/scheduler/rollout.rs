//! Replacing tasks on purpose: rollouts step by step, drains, and slots with two tasks of which one shall go.
//!
//! Nothing here remembers anything: where a rollout is, is read off the tasks and the service's [`Rollout`], so that a new leader
//! finds the same next step as the old one.

use super::change::Change;
use super::model::{Phase, Rollout, Service, Task};
use super::place::improvement;
use super::reconcile::{Budget, Round, patience};
use super::slots::{Pace, Slot, is_drained, is_pinned, keeper};
use crate::service::spec::OnFailure;
use crate::service::{Desired, State};

/// Pause before it is looked again whether a worker has told all that it knew, milliseconds.
const KNOWN_LOOK_MS: u64 = 200;

impl<'a> Round<'a> {
    /// Counts the failures of a rollout and decides what they mean for it.
    pub(super) fn judge(&mut self, service: &'a Service, wanted: &[Slot<'a>]) {
        if service.rollout.phase != Phase::Running {
            return;
        }
        for task in wanted.iter().flat_map(|slot| slot.tasks.iter()) {
            if task.counted || task.version != service.current.contents {
                continue;
            }
            if failed_early(service, task) {
                self.change(Change::CountFailure { task: task.id });
            } else if self.is_stuck(service, task) {
                self.change(Change::CountFailure { task: task.id });
                self.want(task, Desired::Stop);
            }
        }
        let update = &service.current.spec.update;
        let failed_percent = u64::from(service.rollout.failures) * 100;
        if failed_percent <= u64::from(update.failures_max_percent) * wanted.len() as u64 {
            return;
        }
        match update.on_failure {
            OnFailure::Continue => (),
            OnFailure::Rollback if service.previous.is_some() => self.change(Change::RollBack {
                service: service.id,
                version: service.current.version,
            }),
            OnFailure::Rollback | OnFailure::Pause => self.set_rollout(
                service,
                Rollout {
                    phase: Phase::Paused,
                    ..service.rollout
                },
            ),
        }
    }

    /// Whether a task of a rollout has not run within the time that it has for that.
    fn is_stuck(&mut self, service: &Service, task: &Task) -> bool {
        let begins = matches!(
            task.state,
            State::Assigned | State::Preparing | State::Starting
        );
        let assigned_ms = task.assigned_ms.filter(|_| begins && task.is_live());
        let progress_ms = service.current.spec.update.progress_ms;
        assigned_ms.is_some_and(|ms| self.has_passed(progress_ms, ms))
    }

    /// Of a slot with several live tasks, stops those that are not needed any more.
    pub(super) fn resolve(&mut self, service: &'a Service, wanted: &[Slot<'a>]) {
        let pace = Pace::new(&service.current.spec);
        let mut budget = Budget::new(service, &pace, wanted);
        for slot in wanted {
            let Some(keeper) = keeper(self.snapshot, service, slot) else {
                continue;
            };
            let gone = service.spec_of(keeper.version).is_none();
            if keeper.state == State::Pending && gone {
                self.want(keeper, Desired::Stop);
            }
            let others: Vec<&Task> = slot.live().filter(|task| task.id != keeper.id).collect();
            let serving = others.iter().find(|task| task.is_available()).copied();
            let stays = serving.filter(|other| !self.may_go(service, keeper, other, &mut budget));
            for other in others {
                if stays.is_none_or(|stays| stays.id != other.id) {
                    self.want(other, Desired::Stop);
                }
            }
        }
    }

    /// Whether `other`, which serves, may go for `keeper`: that one serves and has proven itself; or it finds no worker, and the
    /// service may be unavailable by one more.
    fn may_go(
        &mut self,
        service: &Service,
        keeper: &Task,
        other: &Task,
        budget: &mut Budget,
    ) -> bool {
        if keeper.is_available() {
            return keeper.version == other.version || self.is_proven(service, keeper);
        }
        let patience_ms = self.moment.limits.pending_patience_ms.max(1);
        let allowed = service.current.spec.update.unavailable_max > 0 && budget.spare > 0;
        let waits = keeper.state == State::Pending && allowed;
        let gives_way = waits && self.is_time(keeper.created_ms.saturating_add(patience_ms));
        budget.spare -= i64::from(gives_way);
        gives_way
    }

    /// Drains workers and takes the next step of a rollout, as far as the budget goes.
    pub(super) fn advance(&mut self, service: &'a Service, wanted: &[Slot<'a>]) {
        let pace = Pace::new(&service.current.spec);
        let mut budget = Budget::new(service, &pace, wanted);
        let moves = self.step(service, &pace, wanted);
        for slot in &moves {
            self.replace(service, slot, service.current.contents, &pace, &mut budget);
        }
        for slot in wanted {
            let mut live = slot.live();
            let (Some(task), None) = (live.next(), live.next()) else {
                continue;
            };
            let chosen = moves.iter().any(|chosen| chosen.number == slot.number);
            if is_drained(self.snapshot, task) && !chosen {
                let kept = service.spec_of(task.version).is_some();
                let version = if kept {
                    task.version
                } else {
                    service.current.contents
                };
                self.replace(service, slot, version, &pace, &mut budget);
            }
        }
    }

    /// Moves one copy for a better spread, when this is wanted, nothing else is under way, and the last one moved serves.
    pub(super) fn rebalance(&mut self, service: &'a Service, wanted: &[Slot<'a>]) {
        let busy = service.rollout.is_moving()
            || wanted.iter().any(|slot| {
                let begins = slot.live().any(|task| !task.is_available());
                begins || slot.standing() > 1 || slot.is_between()
            });
        if !service.rebalancing {
            return;
        }
        let patience_ms = self.moment.limits.pending_patience_ms.max(1);
        let mut waits = wanted.iter().filter(|slot| slot.available().is_some());
        let waits = waits.find_map(|slot| slot.live().find(|task| task.state == State::Pending));
        // The room that it was meant for is gone: with the end of the moves, the copy that serves is the one that stays.
        if waits.is_some_and(|task| self.is_time(task.created_ms.saturating_add(patience_ms))) {
            let service = service.id;
            return self.change(Change::EndRebalance { service });
        }
        if busy {
            return;
        }
        let slot = improvement(self.snapshot, self.moment, service, wanted);
        let slot = slot.and_then(|number| wanted.iter().find(|slot| slot.number == number));
        let task = slot.and_then(|slot| Some((slot, slot.available()?)));
        let Some((slot, task)) = task else {
            let service = service.id;
            return self.change(Change::EndRebalance { service });
        };
        let pace = Pace::new(&service.current.spec);
        let mut budget = Budget::new(service, &pace, wanted);
        self.replace(service, slot, task.version, &pace, &mut budget);
    }

    /// The slots that get the current contents in this step.
    fn step(&mut self, service: &'a Service, pace: &Pace, wanted: &[Slot<'a>]) -> Vec<Slot<'a>> {
        let contents = service.current.contents;
        if service.rollout.phase == Phase::Paused {
            return Vec::new();
        }
        let present = wanted.iter().filter(|slot| !self.is_absent(service, slot));
        let present: Vec<&Slot<'a>> = present.collect();
        let right = present.iter().flat_map(|slot| slot.live());
        let right: Vec<&Task> = right.filter(|task| task.version == contents).collect();
        let proven = right
            .iter()
            .filter(|task| self.is_proven(service, task))
            .count();
        let moving = present
            .iter()
            .any(|slot| slot.is_between() && slot.standing() > 0);
        if proven < right.len() || moving {
            return Vec::new();
        }
        let is_right = |slot: &Slot<'a>| slot.live().any(|task| task.version == contents);
        let left = present
            .into_iter()
            .filter(|slot| !is_right(slot) && !slot.is_done(service));
        let mut left: Vec<Slot<'a>> = left.cloned().collect();
        if left.is_empty() {
            let several = wanted.iter().any(|slot| slot.standing() > 1);
            if !several && service.rollout.is_moving() {
                self.complete(service);
            }
            return Vec::new();
        }
        let known = |slot: &Slot<'_>| !slot.tasks.is_empty() || slot.live().next().is_some();
        left.retain(|slot| known(slot) && slot.live().count() < 2);
        let Some(most) = self.canary(service, wanted, proven) else {
            return Vec::new();
        };
        let update = &service.current.spec.update;
        let since = right.iter().filter_map(|task| task.running_since_ms).max();
        let pause_ms = monitor_ms(service).saturating_add(update.delay_ms);
        let moving = service.rollout.is_moving();
        if moving && since.is_some_and(|ms| !self.is_time(ms.saturating_add(pause_ms))) {
            return Vec::new();
        }
        left.retain(|slot| {
            let (_, ready_ms) = patience(service, slot, contents);
            self.is_time(ready_ms)
        });
        left.sort_by_key(|slot| (slot.available().is_some(), slot.number));
        left.truncate(pace.step().min(most));
        left
    }

    fn complete(&mut self, service: &Service) {
        let phase = match service.rollout.phase {
            Phase::RollingBack => Phase::RolledBack,
            _ => Phase::Completed,
        };
        self.set_rollout(
            service,
            Rollout {
                phase,
                canary_since_ms: None,
                ..service.rollout
            },
        );
    }

    /// How many slots more may get the current contents; none while a canary is being watched.
    fn canary(&mut self, service: &Service, wanted: &[Slot<'a>], proven: usize) -> Option<usize> {
        let Some(limit) = canary_limit(service, wanted) else {
            return Some(usize::MAX);
        };
        if proven < limit {
            let more = limit.saturating_sub(reached(service, wanted));
            return Some(more).filter(|&more| more > 0);
        }
        let rollout = service.rollout;
        let Some(since_ms) = rollout.canary_since_ms else {
            let canary_since_ms = Some(self.moment.now_ms);
            self.set_rollout(
                service,
                Rollout {
                    canary_since_ms,
                    ..rollout
                },
            );
            return None;
        };
        let window_ms = service.current.spec.update.canary_window_ms;
        if self.has_passed(window_ms, since_ms) {
            self.set_rollout(
                service,
                Rollout {
                    canary: rollout.canary + 1,
                    canary_since_ms: None,
                    ..rollout
                },
            );
        }
        None
    }

    /// Brings `version` into a slot, as the pace of the service wants it.
    fn replace(
        &mut self,
        service: &'a Service,
        slot: &Slot<'a>,
        version: u64,
        pace: &Pace,
        budget: &mut Budget,
    ) {
        let Some(serving) = slot.available() else {
            if slot.live().next().is_none() && self.is_open(service, slot) {
                self.begin(service, slot, version);
            }
            slot.live().for_each(|task| self.want(task, Desired::Stop));
            return;
        };
        // A volume never leaves its worker: no replacement could run before this one has gone, and waiting would not help.
        if is_drained(self.snapshot, serving) && is_pinned(self.snapshot, serving) {
            self.want(serving, Desired::Stop);
        } else if pace.start_first {
            if budget.surge > 0 && slot.standing() == 1 {
                self.begin(service, slot, version);
                budget.surge -= 1;
            }
        } else if budget.spare > 0 {
            self.want(serving, Desired::Stop);
            budget.spare -= 1;
        }
    }

    /// Whether a task of a rollout has run for the monitor time since it was started last, by what its worker knew then: silence
    /// proves nothing (bad-version, seed 124).
    fn is_proven(&mut self, service: &Service, task: &Task) -> bool {
        let monitor_ms = monitor_ms(service);
        let since_ms = task.running_since_ms.filter(|_| task.is_available());
        let Some(since_ms) = since_ms.max(since_ms.and(task.restarted_ms)) else {
            return false;
        };
        if !self.has_passed(monitor_ms, since_ms) {
            return false;
        }
        let at_ms = self.moment.steady(since_ms).saturating_add(monitor_ms);
        let is_known = monitor_ms == 0 || self.moment.is_known(task, at_ms);
        if !is_known {
            self.is_time(self.moment.now_ms + KNOWN_LOOK_MS);
            self.be_restless();
        }
        is_known
    }
}

/// How long a new task must run before it counts as good. Going back needs no proof: those contents ran before.
fn monitor_ms(service: &Service) -> u64 {
    match service.rollout.phase {
        Phase::Running => service.current.spec.update.monitor_ms,
        _ => 0,
    }
}

/// Whether a task of a rollout failed before it counted as good, and not with its worker.
fn failed_early(service: &Service, task: &Task) -> bool {
    let failed = matches!(task.state, State::Failed | State::Rejected) && task.lost_ms.is_none();
    let monitor_ms = service.current.spec.update.monitor_ms;
    let good_ms = task
        .running_since_ms
        .map(|ms| ms.saturating_add(monitor_ms));
    let early = good_ms.is_none_or(|good_ms| task.changed_ms < good_ms);
    failed && early && task.changed_ms >= service.rollout.started_ms
}

/// The number of slots at which a rollout waits next, if it is a canary and not past its last step.
pub(super) fn canary_limit(service: &Service, wanted: &[Slot<'_>]) -> Option<usize> {
    if service.rollout.phase != Phase::Running {
        return None;
    }
    let percents = &service.current.spec.update.canary_percent;
    let percent = *percents.get(service.rollout.canary as usize)? as usize;
    let limit = (wanted.len() * percent).div_ceil(100).max(1);
    Some(limit).filter(|&limit| limit < wanted.len())
}

/// Slots that have the current contents, or will when the task in them has ended.
pub(super) fn reached(service: &Service, wanted: &[Slot<'_>]) -> usize {
    let contents = service.current.contents;
    let has = |slot: &&Slot<'_>| slot.live().any(|task| task.version == contents);
    wanted
        .iter()
        .filter(|slot| has(slot) || slot.is_between())
        .count()
}
