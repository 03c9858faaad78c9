//! A worker says who it is: it joins, comes back, or takes the place of one whose disk was lost.

use super::{At, Refused, refuse};
use crate::fleet::command::{Done, Machine, WorkerHello};
use crate::fleet::records::Key;
use crate::fleet::{Fleet, WorkerNote};
use crate::scheduler::model::{Status, Worker};
use crate::service::State;
use crate::state::command::Refusal;
use crate::types::{Epoch, TaskId, WorkerId};
use crate::worker::exchange::Identity;

/// Longest address or platform of a worker, bytes.
const WORD_LEN_MAX: usize = 255;

/// Who says hello.
enum Who {
    /// A worker on the disk that is known of it.
    Known(WorkerId),
    /// A machine that takes the place of a worker, by this token.
    Heir(WorkerId, u64),
    /// Somebody new, by this token.
    New(u64),
}

impl Fleet {
    pub(super) fn hello(&mut self, said: &WorkerHello, at: At) -> Result<Done, Refused> {
        check_machine(&said.machine)?;
        let who = self.who(said, at)?;
        let hello = &said.hello;
        let (id, heir) = match who {
            Who::Known(id) => (id, false),
            Who::Heir(id, token) => {
                self.use_token(token);
                (id, true)
            }
            Who::New(token) => {
                self.use_token(token);
                (self.join(&said.machine, at), false)
            }
        };
        if let (Who::Heir(_, token) | Who::New(token), Some(note)) =
            (&who, self.workers.get_mut(&id))
        {
            note.token = *token;
        }
        let Some(worker) = self.snapshot.workers.get_mut(&id) else {
            return Ok(Done::Nothing); // Never: it was found, or made just now.
        };
        let before = (worker.epoch, worker.status);
        let over = worker.status != Status::Ready || hello.epoch < worker.epoch;
        if over || hello.is_anew || heir {
            worker.epoch = Epoch(worker.epoch.max(hello.epoch).0.saturating_add(1));
        }
        let epoch = worker.epoch;
        take_machine(worker, &said.machine);
        worker.status = Status::Ready;
        let mut new_key = false;
        if let Some(note) = self.workers.get_mut(&id) {
            note.address.clone_from(&said.machine.address);
            note.life = hello.identity.life;
            new_key = note.public_key != said.machine.public_key;
            note.public_key = said.machine.public_key;
            note.acknowledged = hello.newest_report;
            if before.1 != Status::Ready {
                note.changed_ms = at.time_ms;
            }
        }
        self.mark(Key::Worker(id));
        if epoch != before.0 || new_key {
            self.assignments_changed(id, at);
        }
        self.tell_hello(id, &who, before, at);
        for (&task, seen) in &hello.tasks {
            self.observe(id, task, seen, at);
        }
        self.end_missing(id, said, at);
        if before.1 != Status::Ready {
            self.spread_on_join(&said.machine.name, at);
        }
        Ok(Done::Welcome { worker: id, epoch })
    }

    /// Who it is. Everything that refuses a hello is here.
    fn who(&self, said: &WorkerHello, at: At) -> Result<Who, Refused> {
        let identity = said.hello.identity;
        let by_id = self.snapshot.workers.get(&identity.worker);
        let named = by_id.or_else(|| self.worker(&said.machine.name));
        let token = said.token_hash.as_deref();
        if let Some(message) = self.stays_out(identity, &said.machine.name, token) {
            return refuse(Refusal::NotFound, message);
        }
        let Some(worker) = named else {
            if identity.worker != WorkerId::default() && token.is_none() {
                let message = format!(
                    "worker {} is not known in this cluster: start it with a token to join again",
                    said.machine.name
                );
                return refuse(Refusal::NotFound, message);
            }
            return Ok(Who::New(self.workers_token(token, at)?));
        };
        let name = &worker.name;
        let note = self.workers.get(&worker.id);
        if note.is_some_and(|note| note.life == identity.life) {
            if note.is_some_and(|note| said.hello.newest_report < note.acknowledged) {
                let message = format!(
                    "this hello of worker {name} is older than reports of it that were taken: it says hello again; \
                     if its data directory was put back from a copy, give it an empty one and a token"
                );
                return refuse(Refusal::Conflict, message);
            }
            if *name != said.machine.name {
                let message = format!(
                    "this data directory is that of worker {name}: start it under that name, or give {} an empty one and a token",
                    said.machine.name
                );
                return refuse(Refusal::Conflict, message);
            }
            return Ok(Who::Known(worker.id));
        }
        if by_id.is_some() && token.is_none() {
            let message = format!(
                "worker {name} has another data directory here: start it with a token to take that one's place"
            );
            return refuse(Refusal::Conflict, message);
        }
        let token = self.workers_token(token, at)?;
        if worker.status == Status::Ready {
            let message = format!(
                "worker {name} is there and ready, on another machine or data directory: choose another name, \
                 or stop that one and wait until it is down"
            );
            return refuse(Refusal::Conflict, message);
        }
        Ok(Who::Heir(worker.id, token))
    }

    /// Why a worker stays out that was removed; none: it was not, has joined again, or shows a token that was made after it was
    /// removed. An older one may stand in its machine's files, and would let it in again without anybody wanting it.
    pub(crate) fn stays_out(
        &self,
        identity: Identity,
        name: &str,
        token_hash: Option<&str>,
    ) -> Option<String> {
        let named = self.worker(name).and_then(|one| self.workers.get(&one.id));
        if named.is_some_and(|note| note.life == identity.life) {
            return None;
        }
        let removed = self.snapshot.removed.get(&identity.worker)?;
        let mut tokens = self.tokens.iter();
        let shown = tokens.find(|(_, token)| Some(token.hash.as_str()) == token_hash);
        if shown.is_some_and(|(&id, _)| id > removed.index) {
            return None;
        }
        let name = &removed.name;
        let how = if removed.by_force { " by force" } else { "" };
        Some(format!(
            "worker {name} was removed from this cluster{how}: it stays out, and its tasks end; to use this machine again, make a token \
             now (`seaworthy cluster token`; one from before the removal does not do) and start the worker with it, or give it \
             an empty data directory"
        ))
    }

    /// Makes a worker that has no session yet.
    fn join(&mut self, machine: &Machine, at: At) -> WorkerId {
        let id = WorkerId(at.index);
        let worker = Worker {
            id,
            name: machine.name.clone(),
            labels: machine.labels.clone(),
            ..Worker::default()
        };
        self.snapshot.workers.insert(id, worker);
        let note = WorkerNote {
            joined_ms: at.time_ms,
            ..WorkerNote::default()
        };
        self.workers.insert(id, note);
        id
    }

    fn tell_hello(&mut self, id: WorkerId, who: &Who, before: (Epoch, Status), at: At) {
        let Some(worker) = self.snapshot.workers.get(&id) else {
            return;
        };
        let (name, epoch) = (&worker.name, worker.epoch);
        let (kind, message) = match who {
            Who::New(token) => (
                "node.joined",
                format!("worker {name} joined with token {token} and is ready"),
            ),
            Who::Heir(_, token) => (
                "node.ready",
                format!(
                    "worker {name} has a new disk, by token {token}, and is ready (session {epoch})"
                ),
            ),
            Who::Known(_) if before.1 != Status::Ready => (
                "node.ready",
                format!("worker {name} is back and ready (session {epoch})"),
            ),
            Who::Known(_) if before.0 != epoch => (
                "node.restarted",
                format!("worker {name} began session {epoch}; its tasks went on"),
            ),
            Who::Known(_) => return,
        };
        self.tell(kind, id, message, at);
    }

    /// Tasks that the worker had and has no more have ended. It would begin them anew.
    fn end_missing(&mut self, worker: WorkerId, said: &WorkerHello, at: At) {
        let tasks = self.snapshot.tasks.values();
        let missing = tasks.filter(|task| {
            let had = task.state.is_on_worker() && task.state != State::Assigned;
            task.worker == Some(worker) && had && !said.hello.tasks.contains_key(&task.id)
        });
        let missing: Vec<TaskId> = missing.map(|task| task.id).collect();
        for &id in &missing {
            let why = format!("worker {} came back without it", self.worker_name(worker));
            self.end_task(id, &why, at);
        }
        if !missing.is_empty() {
            self.assignments_changed(worker, at);
        }
    }
}

fn take_machine(worker: &mut Worker, machine: &Machine) {
    worker.platform.clone_from(&machine.platform);
    worker.containers = machine.containers;
    worker.capacity = machine.capacity;
}

fn check_machine(machine: &Machine) -> Result<(), Refused> {
    let name = &machine.name;
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let ends = edge(name.chars().next()) && edge(name.chars().next_back());
    if name.len() > crate::service::check::NAME_LEN_MAX || !ends || !name.chars().all(known) {
        let message = format!(
            "the worker's name is `{}`: it must be 1 to 63 letters, digits, `-`, `.` or `_`, with a letter or digit at both ends",
            name.escape_debug()
        );
        return refuse(Refusal::Invalid, message);
    }
    for (what, word) in [
        ("address", &machine.address),
        ("platform", &machine.platform),
    ] {
        if word.len() > WORD_LEN_MAX || word.contains(char::is_whitespace) {
            let message = format!("the {what} of worker {name} is too long or has spaces");
            return refuse(Refusal::Invalid, message);
        }
    }
    let labels = machine.labels.iter();
    super::workers::check_labels(labels.map(|(key, value)| (key, Some(value))))
}
