//! Facts about the fleet, one by one; `random` applies random logs to two replicas.
//!
//! [`Crew`] is a fleet with a clock and the records that were written of it; after each command both must say the same.

mod meeting;
mod plan;
mod random;
mod secrets;

mod services;
mod workers;

use super::apply::{At, Refused};
use super::command::{Command, Done, Machine, WorkerHello, WorkerReports};
use super::records::Changed;
use super::{Event, Fleet};
use crate::scheduler::model::{Moment, Status, Task, Worker};
use crate::scheduler::{Change, reconcile};
use crate::service::spec::Amounts;
use crate::service::{Spec, State};
use crate::state::command::Refusal;
use crate::state::{Memory, Writes};
use crate::types::{Epoch, Incarnation, ServiceId, TaskId, Term, WorkerId};
use crate::worker::Report;
use crate::worker::exchange::{Hello, Identity};
use crate::worker::words::Observation;

/// A token's hash, from one letter.
fn hash(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn seen(state: State) -> Observation {
    Observation {
        state,
        attempts: 1,
        exit: None,
        message: String::new(),
    }
}

/// A fleet, its records and a clock.
struct Crew {
    fleet: Fleet,
    records: Memory,
    index: u64,
    term: Term,
    now_ms: u64,
    moment: Moment,
}

impl Crew {
    /// Nothing but a token `a`, good for a day.
    fn new() -> Self {
        let mut crew = Crew {
            fleet: Fleet::default(),
            records: Memory::default(),
            index: 100,
            term: Term(3),
            now_ms: 1_000_000,
            moment: Moment::default(),
        };
        crew.good(Command::TokenCreate {
            hash: hash('a'),
            ttl_ms: 86_400_000,
            role: crate::fleet::TokenRole::Worker,
        });
        crew
    }

    /// With these workers, each with one processor and 1 GiB.
    fn with_workers(names: &[&str]) -> Self {
        let mut crew = Crew::new();
        for name in names {
            crew.hello(name).unwrap();
        }
        crew
    }

    fn run(&mut self, command: Command) -> Result<Done, Refused> {
        self.index += 1;
        self.now_ms += 10;
        let at = At {
            index: self.index,
            term: self.term,
            time_ms: self.now_ms,
        };
        let read = Command::from_json(&command.to_json()).unwrap();
        assert_eq!(read, command);
        let before = self.fleet.clone();
        let result = self.fleet.apply(&command, at);
        if result.is_err() {
            assert_eq!(self.fleet, before, "a refused command changes nothing");
        }
        let mut writes = Writes::default();
        for Changed { key, value, .. } in self.fleet.take_changes() {
            writes.set(key, value);
        }
        self.records.write(&writes);
        assert_eq!(Fleet::load(&self.records).unwrap(), self.fleet);
        result
    }

    fn good(&mut self, command: Command) -> Done {
        self.run(command).unwrap()
    }

    /// Why a command is refused; the sentence must contain `says`.
    fn refused(&mut self, command: Command, says: &str) -> Refusal {
        let refused = self.run(command).unwrap_err();
        assert!(refused.message.contains(says), "{}", refused.message);
        refused.why
    }

    fn create(&mut self, spec: Spec) -> ServiceId {
        match self.good(Command::ServiceCreate { spec }) {
            Done::Service { id, version: 1 } => id,
            other => panic!("{other:?}"),
        }
    }

    fn plan(&mut self, changes: Vec<Change>) {
        let term = self.term;
        self.good(Command::Plan { term, changes });
    }

    /// Asks the reconciler and applies what it says, until it says nothing.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.moment.now_ms = self.now_ms;
            let plan = reconcile(&self.fleet.snapshot, &self.moment);
            if plan.changes.is_empty() {
                return;
            }
            self.plan(plan.changes);
        }
        panic!("the reconciler does not come to rest");
    }

    fn service(&self, name: &str) -> &crate::scheduler::model::Service {
        self.fleet.service(name).unwrap()
    }

    fn worker(&self, name: &str) -> &Worker {
        self.fleet.worker(name).unwrap()
    }

    fn task(&self, id: u64) -> &Task {
        &self.fleet.snapshot.tasks[&TaskId(id)]
    }

    fn states(&self) -> Vec<(u64, State)> {
        let tasks = self.fleet.snapshot.tasks.values();
        tasks.map(|task| (task.id.0, task.state)).collect()
    }

    /// What `name` would say: with all its tasks as they are known here, and token `a`.
    fn word_of(&self, name: &str) -> WorkerHello {
        let letter = name.bytes().map(u64::from).sum();
        let mut hello = Hello {
            identity: Identity {
                life: Incarnation(letter),
                ..Identity::default()
            },
            epoch: Epoch(0),
            revision: 0,
            is_anew: false,
            tasks: Default::default(),
            newest_report: 0,
        };
        if let Some(worker) = self.fleet.worker(name) {
            let note = &self.fleet.workers[&worker.id];
            hello.identity.worker = worker.id;
            hello.identity.life = note.life;
            hello.epoch = worker.epoch;
            hello.newest_report = note.acknowledged;
            let tasks = self.fleet.snapshot.tasks.values();
            let tasks = tasks.filter(|task| task.worker == Some(worker.id));
            let on_disk = tasks.filter(|task| task.state.rank() > State::Assigned.rank());
            hello.tasks = on_disk.map(|task| (task.id, seen(task.state))).collect();
        }
        WorkerHello {
            token_hash: Some(hash('a')),
            machine: Machine {
                name: name.to_owned(),
                address: format!("{name}:8201"),
                platform: "linux/amd64".to_owned(),
                containers: true,
                public_key: None,
                capacity: Amounts {
                    cpu_milli: 1_000,
                    memory_bytes: 1 << 30,
                },
                labels: [("zone".to_owned(), "north".to_owned())].into(),
            },
            hello,
        }
    }

    fn say(&mut self, word: WorkerHello) -> Result<(WorkerId, Epoch), Refused> {
        match self.run(Command::WorkerHello(Box::new(word)))? {
            Done::Welcome { worker, epoch } => Ok((worker, epoch)),
            other => panic!("{other:?}"),
        }
    }

    fn hello(&mut self, name: &str) -> Result<(WorkerId, Epoch), Refused> {
        self.say(self.word_of(name))
    }

    /// Why a hello is refused.
    fn hello_refused(&mut self, word: WorkerHello, says: &str) -> Refusal {
        self.refused(Command::WorkerHello(Box::new(word)), says)
    }

    /// The worker of a task reports its state, with the next number.
    fn report(&mut self, task: u64, state: State) {
        self.report_as(task, seen(state));
    }

    fn report_as(&mut self, task: u64, observation: Observation) {
        let worker = self.task(task).worker.unwrap();
        let number = self.fleet.workers[&worker].acknowledged + 1;
        self.report_numbered(worker, number, task, observation);
    }

    fn report_numbered(
        &mut self,
        worker: WorkerId,
        number: u64,
        task: u64,
        observation: Observation,
    ) {
        let reports = vec![Report {
            number,
            task: TaskId(task),
            observation,
        }];
        let batch = vec![WorkerReports {
            worker,
            epoch: self.fleet.snapshot.workers[&worker].epoch,
            life: self.fleet.workers[&worker].life,
            reports,
        }];
        self.good(Command::WorkerReports { batch });
    }

    fn down(&mut self, name: &str) {
        let worker = self.worker(name);
        let changes = vec![(worker.id, worker.epoch, Status::Down)];
        let term = self.term;
        self.good(Command::WorkerStatus { term, changes });
    }

    fn revision(&self, name: &str) -> u64 {
        self.fleet.workers[&self.worker(name).id].revision
    }

    /// Kinds of the events of the last entry.
    fn told(&self) -> Vec<&str> {
        let events = self.fleet.events.range((self.index, 0)..);
        events.map(|(_, event)| event.kind.as_str()).collect()
    }

    fn last_event(&self) -> &Event {
        self.fleet.events.last_key_value().unwrap().1
    }
}

/// A service of `replicas` copies of a command, a tenth of a processor each.
fn spec(name: &str, replicas: u32) -> Spec {
    let mut spec = Spec::new(name, &["run", "1"]);
    spec.replicas = replicas;
    spec.resources.reservations.cpu_milli = 100;
    spec.update.monitor_ms = 0;
    spec
}

/// The same with a single-writer volume.
fn with_volume(mut spec: Spec, volume: &str) -> Spec {
    spec.volumes = vec![crate::service::spec::Mount {
        volume: volume.to_owned(),
        target: "/data".to_owned(),
        shared: false,
    }];
    spec
}
