//! Events: what happened, with names, for people.

use super::At;
use crate::fleet::records::Key;
use crate::fleet::{EVENTS_MAX, Event, Fleet};
use crate::scheduler::model::Task;
use crate::service::State;
use crate::types::{ServiceId, TaskId, WorkerId};
use crate::worker::words::why;

/// What an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About {
    service: Option<ServiceId>,
    task: Option<TaskId>,
    worker: Option<WorkerId>,
}

impl From<ServiceId> for About {
    fn from(service: ServiceId) -> Self {
        About {
            service: Some(service),
            ..About::default()
        }
    }
}

impl From<WorkerId> for About {
    fn from(worker: WorkerId) -> Self {
        About {
            worker: Some(worker),
            ..About::default()
        }
    }
}

impl From<&Task> for About {
    fn from(task: &Task) -> Self {
        About {
            service: Some(task.service),
            task: Some(task.id),
            worker: task.worker,
        }
    }
}

impl Fleet {
    /// Leaves an event; the oldest are forgotten beyond the bound.
    pub(super) fn tell(&mut self, kind: &str, about: impl Into<About>, message: String, at: At) {
        let About {
            service,
            task,
            worker,
        } = about.into();
        let event = Event {
            time_ms: at.time_ms,
            kind: kind.to_owned(),
            service,
            task,
            worker,
            message,
        };
        let newest = self.events.last_key_value().map(|(key, _)| *key);
        let number = match newest {
            Some((index, number)) if index == at.index => number + 1,
            _ => 0,
        };
        self.events.insert((at.index, number), event);
        self.mark(Key::Event(at.index, number));
        while self.events.len() > EVENTS_MAX {
            let Some(&(index, number)) = self.events.keys().next() else {
                break;
            };
            self.events.remove(&(index, number));
            self.mark(Key::Event(index, number));
        }
    }

    /// Leaves an event about a task that is there: its name, then `says`.
    pub(super) fn tell_task(&mut self, kind: &str, id: TaskId, says: &str, at: At) {
        let Some(task) = self.snapshot.tasks.get(&id) else {
            return;
        };
        let (about, message) = (About::from(task), self.task_name(task) + " " + says);
        self.tell(kind, about, message, at);
    }

    /// Leaves the event of the state in which a task has come.
    pub(super) fn tell_state(&mut self, id: TaskId, at: At) {
        let Some(task) = self.snapshot.tasks.get(&id) else {
            return;
        };
        let place = match task.worker {
            Some(worker) => format!(" on {}", self.worker_name(worker)),
            None => String::new(),
        };
        let (state, kind) = (task.state, format!("task.{}", task.state));
        let mut says = format!("is {state}{place}");
        if let Some(note) = self.notes.get(&id) {
            let exit = note
                .exit
                .filter(|_| state.is_end() || state == State::Stopping);
            let why = why(exit, &note.message);
            if !why.is_empty() {
                says += &format!(": {why}");
            }
        }
        self.tell_task(&kind, id, &says, at);
    }

    /// Leaves the event of a task that its worker started again by itself.
    pub(super) fn tell_restart(&mut self, id: TaskId, at: At) {
        let (task, note) = (self.snapshot.tasks.get(&id), self.notes.get(&id));
        let (Some(worker), Some(note)) = (task.and_then(|task| task.worker), note) else {
            return;
        };
        let place = self.worker_name(worker);
        let mut says = format!("was started again on {place}, attempt {}", note.attempts);
        if let Some(exit) = note.exit {
            says += &format!("; the one before {}", exit.describe());
        }
        self.tell_task("task.restarted", id, &says, at);
    }

    /// `web.3 (task 12)`.
    fn task_name(&self, task: &Task) -> String {
        let service = self.service_name(task.service);
        format!("{service}.{} (task {})", task.slot, task.id)
    }

    /// A service's name, or its number when it is gone.
    pub(super) fn service_name(&self, id: ServiceId) -> String {
        let service = self.snapshot.services.get(&id);
        service.map_or_else(
            || format!("service-{id}"),
            |service| service.current.spec.name.clone(),
        )
    }

    /// A worker's name, also when it is gone.
    pub(super) fn worker_name(&self, id: WorkerId) -> String {
        self.snapshot.worker_name(id)
    }
}
