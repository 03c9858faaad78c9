//! What workers report, what the leader believes of them, and what operators want of them.

use super::{At, Refused, refuse};
use crate::fleet::command::{Done, WorkerReports};
use crate::fleet::records::Key;
use crate::fleet::{Fleet, REMOVED_MAX, WorkerNote};
use crate::scheduler::model::{Availability, Removed, Status, Worker};
use crate::service::State;
use crate::state::command::Refusal;
use crate::types::{Epoch, TaskId, Term, WorkerId};
use crate::worker::words::Observation;
use std::collections::{BTreeMap, BTreeSet};

/// Most of a worker's message that is kept, characters.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// Most labels of a worker.
const LABELS_MAX: usize = 64;
/// Longest name or value of a label, bytes.
const LABEL_LEN_MAX: usize = 255;

impl Fleet {
    pub(super) fn take_reports(&mut self, batch: &[WorkerReports], at: At) -> Done {
        for one in batch {
            let worker = self.snapshot.workers.get(&one.worker);
            let note = self.workers.get(&one.worker);
            let fits = |note: &&WorkerNote| note.life == one.life;
            let Some(note) = note.filter(fits) else {
                continue;
            };
            if worker.is_none_or(|worker| worker.epoch != one.epoch) {
                continue;
            }
            let before = note.acknowledged;
            let mut acknowledged = before;
            for report in &one.reports {
                if report.number > acknowledged {
                    acknowledged = report.number;
                    self.observe(one.worker, report.task, &report.observation, at);
                }
            }
            if let Some(note) = self.workers.get_mut(&one.worker) {
                note.acknowledged = acknowledged;
            }
            if acknowledged != before {
                self.mark(Key::Worker(one.worker));
            }
        }
        Done::Nothing
    }

    /// Takes what a worker says of one of its tasks, newer than all it said before. The state only moves forward.
    pub(super) fn observe(&mut self, worker: WorkerId, id: TaskId, seen: &Observation, at: At) {
        let task = self.snapshot.tasks.get_mut(&id);
        let Some(task) = task.filter(|task| task.worker == Some(worker)) else {
            return; // Nobody gave it to this worker, or nobody wants to know of it any more.
        };
        let moves = task.state.may_become(seen.state);
        if moves {
            task.state = seen.state;
            task.changed_ms = at.time_ms;
            if seen.state == State::Running {
                task.running_since_ms.get_or_insert(at.time_ms);
            }
        }
        let note = self.notes.or_default(id);
        let message: String = seen.message.chars().take(MESSAGE_CHARS_MAX).collect();
        let news =
            (note.attempts, note.exit, &note.message) != (seen.attempts, seen.exit, &message);
        let again = seen.attempts > note.attempts.max(1);
        if again {
            task.restarted_ms = Some(at.time_ms);
        }
        note.attempts = seen.attempts;
        note.exit = seen.exit;
        note.message = message;
        if moves || news {
            self.mark(Key::Task(id));
        }
        if again && !seen.state.is_end() {
            self.tell_restart(id, at);
        }
        if moves {
            self.tell_state(id, at);
        }
    }

    /// A worker is ready by its hello alone; the leader can only say that it is down.
    pub(super) fn set_status(
        &mut self,
        term: Term,
        changes: &[(WorkerId, Epoch, Status)],
        at: At,
    ) -> Done {
        if term != at.term {
            return Done::Nothing;
        }
        for &(id, epoch, status) in changes {
            let worker = self.snapshot.workers.get_mut(&id);
            let Some(worker) = worker.filter(|worker| worker.epoch == epoch) else {
                continue;
            };
            if status != Status::Down || worker.status == Status::Down {
                continue;
            }
            worker.status = Status::Down;
            let message = format!("worker {} is down: nothing was heard of it", worker.name);
            if let Some(note) = self.workers.get_mut(&id) {
                note.changed_ms = at.time_ms;
            }
            self.mark(Key::Worker(id));
            self.tell("node.down", id, message, at);
        }
        Done::Nothing
    }

    pub(super) fn set_worker(
        &mut self,
        name: &str,
        availability: Option<Availability>,
        labels: &BTreeMap<String, Option<String>>,
        at: At,
    ) -> Result<Done, Refused> {
        check_labels(labels.iter().map(|(key, value)| (key, value.as_ref())))?;
        let worker = self.known_worker(name)?;
        let (id, mut worker) = (worker.id, worker.clone());
        for (key, value) in labels {
            match value {
                Some(value) => worker.labels.insert(key.clone(), value.clone()),
                None => worker.labels.remove(key),
            };
        }
        if worker.labels.len() > LABELS_MAX {
            let message = format!("worker {name} would have more than {LABELS_MAX} labels");
            return refuse(Refusal::Invalid, message);
        }
        worker.availability = availability.unwrap_or(worker.availability);
        let Some(place) = self.snapshot.workers.get_mut(&id) else {
            return Ok(Done::Nothing); // Never: it was found above.
        };
        let before = std::mem::replace(place, worker.clone());
        if before != worker {
            self.mark(Key::Worker(id));
        }
        if before.labels != worker.labels {
            let changed: Vec<&str> = labels.keys().map(String::as_str).collect();
            let message = format!("labels of worker {name} were set: {}", changed.join(", "));
            self.tell("node.labelled", id, message, at);
        }
        if before.availability != worker.availability {
            let (kind, says) = match worker.availability {
                Availability::Drain => ("node.drained", "is drained: its tasks go elsewhere"),
                Availability::Active => ("node.activated", "takes tasks again"),
            };
            self.tell(kind, id, format!("worker {name} {says}"), at);
            if worker.availability == Availability::Active {
                self.spread_on_join(name, at);
            }
        }
        Ok(Done::Nothing)
    }

    /// Its tasks that have not ended end with it, as lost: they count as nobody's failure.
    pub(super) fn remove_worker(
        &mut self,
        name: &str,
        force: bool,
        at: At,
    ) -> Result<Done, Refused> {
        let worker = self.known_worker(name)?;
        let (id, down) = (worker.id, worker.status == Status::Down);
        let all = self.snapshot.tasks.values();
        let tasks = all.filter(|task| task.worker == Some(id) && !task.state.is_end());
        let (count, alone) = tasks.clone().fold((0, 0), |(count, alone), task| {
            (count + 1, alone + u32::from(task.is_single_writer()))
        });
        if !force && !down && count > 0 {
            let message = format!(
                "worker {name} has {count} tasks: drain it first (`node drain {name}`), or, if its machine is dead, `node rm --force {name}`"
            );
            return refuse(Refusal::Conflict, message);
        }
        if !force && alone > 0 {
            let message = format!(
                "worker {name} is down, and may still run {alone} tasks that must never run twice: only if its machine is \
                 certainly dead, `node rm --force {name}`"
            );
            return refuse(Refusal::Conflict, message);
        }
        let tasks: Vec<TaskId> = tasks.map(|task| task.id).collect();
        for task in tasks {
            if let Some(task) = self.snapshot.tasks.get_mut(&task) {
                task.lost_ms.get_or_insert(at.time_ms);
            }
            self.end_task(task, &format!("worker {name} was removed with it"), at);
        }
        self.remember_removed(id, name, force, at);
        self.snapshot.workers.remove(&id);
        self.workers.remove(&id);
        self.mark(Key::Worker(id));
        let says = if force { ", by force" } else { "" };
        let message = format!("worker {name} was removed{says}");
        self.tell("node.removed", id, message, at);
        Ok(Done::Nothing)
    }

    /// Keeps what people knew of a worker that goes.
    fn remember_removed(&mut self, id: WorkerId, name: &str, by_force: bool, at: At) {
        let life = self.workers.get(&id).map(|note| note.life);
        let life = life.unwrap_or_default();
        let removed = Removed {
            name: name.to_owned(),
            index: at.index,
            removed_ms: at.time_ms,
            life,
            by_force,
        };
        self.snapshot.removed.insert(id, removed);
        self.mark(Key::Removed(id));
        if self.snapshot.removed.len() <= REMOVED_MAX {
            return;
        }
        let volumes = self.snapshot.volumes.values();
        let needed: BTreeSet<WorkerId> = volumes.filter_map(|volume| volume.worker).collect();
        let all = self.snapshot.removed.iter();
        let free = all.filter(|(id, _)| !needed.contains(id));
        let oldest = free.min_by_key(|(_, removed)| removed.index);
        if let Some((&oldest, _)) = oldest {
            self.snapshot.removed.remove(&oldest);
            self.mark(Key::Removed(oldest));
        }
    }

    pub(super) fn known_worker(&self, name: &str) -> Result<&Worker, Refused> {
        let unknown = || {
            let name = name.escape_debug();
            let message = format!("there is no worker `{name}`; `node ls` shows which there are");
            Refused {
                why: Refusal::NotFound,
                message,
            }
        };
        self.worker(name).ok_or_else(unknown)
    }
}

/// Whether labels may be set on a worker; one without a value is removed.
pub(super) fn check_labels<'a>(
    labels: impl Iterator<Item = (&'a String, Option<&'a String>)>,
) -> Result<(), Refused> {
    let mut count = 0;
    for (key, value) in labels {
        count += 1;
        let value = value.map_or("", String::as_str);
        let spaces = key.contains(char::is_whitespace) || value.contains(char::is_whitespace);
        let long = key.len().max(value.len()) > LABEL_LEN_MAX;
        if key.is_empty() || key.contains('=') || key.contains('!') || spaces || long {
            let message = format!(
                "label `{}` is refused: names and values are up to {LABEL_LEN_MAX} bytes without spaces, names without = and !",
                key.chars().take(64).collect::<String>().escape_debug()
            );
            return refuse(Refusal::Invalid, message);
        }
    }
    if count > LABELS_MAX {
        let message = format!("{count} labels are too many: at most {LABELS_MAX}");
        return refuse(Refusal::Invalid, message);
    }
    Ok(())
}
