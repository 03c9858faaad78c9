//! Random logs through the state machine: what is in memory is what the records say, refused commands change nothing, and how a log
//! is cut into batches changes nothing either.
//!
//! Half of the commands are the real reconciler's plans, some of them late or of another leader; the workers are played by dice, and
//! sometimes lie, repeat themselves or come late.

use super::*;
use crate::fleet::TokenRole;
use crate::scheduler::model::{Availability, Leases, Limits};
use crate::service::spec::{OnFailure, Rebalance};
use crate::state::command::{self, FleetCommand, Op, Outcome};
use crate::state::{Batch, Entry, Genesis, full_hash, genesis};
use crate::types::{ClusterId, Index};
use proptest::prelude::*;
use prost::Message;
use std::sync::Arc;

const NAMES: [&str; 3] = ["web", "db", "each"];
const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

/// States as workers report them, most often one that runs.
const REPORTED: [State; 11] = [
    State::Assigned,
    State::Preparing,
    State::Starting,
    State::Running,
    State::Running,
    State::Running,
    State::Stopping,
    State::Stopped,
    State::Complete,
    State::Failed,
    State::Rejected,
];

/// What happens next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, u32),
    Update(usize, u8),
    Scale(usize, u32),
    RollBack(usize),
    Pause(usize, bool),
    Rebalance(usize),
    RemoveService(usize),
    Hello(usize, Hail),
    Report(usize, usize, u64, usize),
    Down(usize, bool),
    Set(usize, bool),
    RemoveWorker(usize, bool),
    Plan,
    LatePlan,
    Volume(bool, usize),
    Token(u64),
    Manager(usize, u64),
    Revoke,
    Term,
    Wait(u64),
    Unreadable,
}

/// How a worker says hello.
#[derive(Clone, Copy, Debug)]
enum Hail {
    Honest,
    Anew,
    Forgetful,
    OtherDisk,
    Stranger,
    Late,
}

fn hail() -> impl Strategy<Value = Hail> {
    prop_oneof![
        4 => Just(Hail::Honest),
        2 => Just(Hail::Anew),
        1 => Just(Hail::Forgetful),
        1 => Just(Hail::OtherDisk),
        1 => Just(Hail::Stranger),
        1 => Just(Hail::Late),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (name, worker) = (0..NAMES.len(), 0..WORKERS.len());
    prop_oneof![
        3 => (name.clone(), 0..5u32).prop_map(|(name, count)| Step::Create(name, count)),
        2 => (name.clone(), 0..4u8).prop_map(|(name, number)| Step::Update(name, number)),
        2 => (name.clone(), 0..6u32).prop_map(|(name, count)| Step::Scale(name, count)),
        1 => name.clone().prop_map(Step::RollBack),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, paused)| Step::Pause(name, paused)),
        1 => name.clone().prop_map(Step::Rebalance),
        1 => name.clone().prop_map(Step::RemoveService),
        5 => (worker.clone(), hail()).prop_map(|(worker, hail)| Step::Hello(worker, hail)),
        16 => (worker.clone(), 0..9usize, 0..3u64, 0..REPORTED.len())
            .prop_map(|(worker, task, number, state)| Step::Report(worker, task, number, state)),
        2 => (worker.clone(), any::<bool>()).prop_map(|(worker, right)| Step::Down(worker, right)),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, drain)| Step::Set(worker, drain)),
        1 => (worker, any::<bool>()).prop_map(|(worker, force)| Step::RemoveWorker(worker, force)),
        16 => Just(Step::Plan),
        2 => Just(Step::LatePlan),
        1 => (any::<bool>(), name).prop_map(|(make, name)| Step::Volume(make, name)),
        1 => (0..50_000u64).prop_map(Step::Token),
        1 => Just(Step::Revoke),
        1 => Just(Step::Term),
        4 => (0..40_000u64).prop_map(Step::Wait),
        1 => Just(Step::Unreadable),
        1 => (0..3usize, 0..4u64).prop_map(|(token, life)| Step::Manager(token, life)),
    ]
}

/// Two replicas of one log: one applies each entry in a batch of its own and keeps the fleet, the other applies several at once and
/// reads the fleet anew.
struct Pair {
    /// The first replica's records.
    records: Memory,
    /// Its fleet.
    fleet: Arc<Fleet>,
    /// Entries that the second has not applied.
    waiting: Vec<Entry>,
    /// The second replica's records.
    second: Memory,
    term: Term,
    index: u64,
    now_ms: u64,
    /// A plan that was made and not proposed.
    late: Vec<Change>,
}

impl Pair {
    fn new() -> Self {
        let mut records = Memory::default();
        records.write(&genesis(&Genesis {
            cluster_id: ClusterId(7),
            members: Vec::new(),
            limits: command::Limits {
                sessions_max: 10,
                history_revisions: 100,
            },
            position: (Index(0), Term(0)),
        }));
        let mut pair = Pair {
            second: records.clone(),
            records,
            fleet: Arc::default(),
            waiting: Vec::new(),
            term: Term(1),
            index: 0,
            now_ms: 1_000_000,
            late: Vec::new(),
        };
        pair.propose(&Command::TokenCreate {
            hash: hash('a'),
            ttl_ms: 100_000_000,
            role: TokenRole::Worker,
        });
        pair
    }

    fn propose(&mut self, command: &Command) -> Outcome {
        self.propose_json(serde_json::to_vec(command).unwrap())
    }

    fn propose_json(&mut self, json: Vec<u8>) -> Outcome {
        self.index += 1;
        let op = Op::Fleet(FleetCommand { json: json.into() });
        let command = command::Command {
            time_ms: self.now_ms,
            op: Some(op),
            ..command::Command::default()
        };
        let entry = Entry {
            index: Index(self.index),
            term: self.term,
            payload: command.encode_to_vec().into(),
        };
        self.waiting.push(entry.clone());
        let batch = Batch::new(&self.records).unwrap();
        let mut batch = batch.with_fleet(Arc::clone(&self.fleet));
        let outcome = batch.apply(&entry).unwrap();
        let changed = batch.changed_fleet();
        let writes = batch.finish();
        if matches!(outcome.done, Some(command::Done::Refused(_))) {
            assert!(changed.is_none(), "a refused command changes nothing");
        }
        // Nothing but meta and position is written by a command that does nothing.
        if changed.is_none() {
            let (start, end) = crate::state::fleet_range();
            assert!(writes.iter().all(|(key, _)| key < &start || key >= &end));
        }
        self.records.write(&writes);
        if let Some(fleet) = changed {
            self.fleet = fleet;
        }
        assert_eq!(outcome.revision, 0, "orchestration takes no revision");
        outcome
    }

    /// The second replica applies what waits, in one batch.
    fn catch_up(&mut self) {
        let mut batch = Batch::new(&self.second).unwrap();
        for entry in self.waiting.drain(..) {
            batch.apply(&entry).unwrap();
        }
        let hash = batch.state_hash();
        let writes = batch.finish();
        self.second.write(&writes);
        assert_eq!(full_hash(&self.second).unwrap(), hash);
        assert_eq!(self.second, self.records);
    }

    fn moment(&self) -> Moment {
        Moment {
            now_ms: self.now_ms,
            steady_since_ms: 0,
            leases: Leases::default(),
            limits: Limits::default(),
            known_ms: None,
        }
    }

    /// What the dice say, as a command; none if it makes no sense now.
    fn command(&mut self, step: &Step) -> Option<Command> {
        let name = |at: &usize| NAMES[*at].to_owned();
        let worker = |at: &usize| WORKERS[*at].to_owned();
        let term = self.term;
        Some(match step {
            Step::Create(at, count) => Command::ServiceCreate {
                spec: service(*at, *count, 0),
            },
            Step::Update(at, number) => {
                let replicas = self.fleet.service(NAMES[*at])?.current.spec.replicas;
                Command::ServiceUpdate {
                    name: name(at),
                    spec: service(*at, replicas, *number),
                    expect_version: None,
                }
            }
            Step::Scale(at, replicas) => Command::ServiceScale {
                name: name(at),
                replicas: *replicas,
            },
            Step::RollBack(at) => Command::ServiceRollBack { name: name(at) },
            Step::Pause(at, paused) => Command::ServicePause {
                name: name(at),
                paused: *paused,
            },
            Step::Rebalance(at) => Command::ServiceRebalance { name: name(at) },
            Step::RemoveService(at) => Command::ServiceRemove { name: name(at) },
            Step::Hello(at, hail) => self.hello(WORKERS[*at], *hail),
            Step::Report(at, task, number, state) => {
                self.reports(WORKERS[*at], *task, *number, REPORTED[*state])?
            }
            Step::Down(at, right) => {
                let worker = self.fleet.worker(WORKERS[*at])?;
                let epoch = Epoch(worker.epoch.0 + u64::from(!right));
                Command::WorkerStatus {
                    term,
                    changes: vec![(worker.id, epoch, Status::Down)],
                }
            }
            Step::Set(at, drain) => Command::WorkerSet {
                name: worker(at),
                availability: Some(match drain {
                    true => Availability::Drain,
                    false => Availability::Active,
                }),
                labels: [("a".to_owned(), drain.then(|| "b".to_owned()))].into(),
            },
            Step::RemoveWorker(at, force) => Command::WorkerRemove {
                name: worker(at),
                force: *force,
            },
            Step::Plan => {
                let changes = reconcile(&self.fleet.snapshot, &self.moment()).changes;
                self.late.clone_from(&changes);
                Command::Plan { term, changes }
            }
            Step::LatePlan => Command::Plan {
                term,
                changes: self.late.clone(),
            },
            Step::Volume(true, at) => Command::VolumeCreate {
                name: name(at),
                worker: None,
            },
            Step::Volume(false, at) => Command::VolumeRemove { name: name(at) },
            Step::Token(ttl_ms) => Command::TokenCreate {
                hash: format!("{:064x}", self.index),
                ttl_ms: *ttl_ms,
                role: match ttl_ms % 2 {
                    0 => TokenRole::Worker,
                    _ => TokenRole::Manager,
                },
            },
            Step::Manager(at, life) => Command::ManagerJoin {
                name: format!("n{life}"),
                life: Incarnation(*life),
                token_hash: self.fleet.tokens.values().nth(*at)?.hash.clone(),
            },
            Step::Revoke => Command::TokenRevoke {
                id: *self.fleet.tokens.keys().nth(1)?,
            },
            Step::Term | Step::Wait(_) | Step::Unreadable => return None,
        })
    }

    fn hello(&self, name: &str, hail: Hail) -> Command {
        let mut crew = Crew::new();
        crew.fleet = (*self.fleet).clone();
        let mut word = crew.word_of(name);
        let hello = &mut word.hello;
        match hail {
            Hail::Honest => {}
            Hail::Anew => hello.is_anew = true,
            Hail::Forgetful => hello.tasks.clear(),
            Hail::OtherDisk => {
                hello.identity.life = Incarnation(self.index);
                hello.tasks.clear();
                hello.newest_report = 0;
            }
            Hail::Stranger => word.token_hash = None,
            Hail::Late => hello.newest_report = hello.newest_report.saturating_sub(1),
        }
        Command::WorkerHello(Box::new(word))
    }

    fn reports(&self, name: &str, task: usize, number: u64, state: State) -> Option<Command> {
        let worker = self.fleet.worker(name)?;
        let note = &self.fleet.workers[&worker.id];
        let tasks = self.fleet.snapshot.tasks.values();
        let own: Vec<_> = tasks.filter(|one| one.worker == Some(worker.id)).collect();
        let task = own.get(task % own.len().max(1))?;
        let report = Report {
            number: note.acknowledged + number,
            task: task.id,
            observation: seen(state),
        };
        Some(Command::WorkerReports {
            batch: vec![WorkerReports {
                worker: worker.id,
                epoch: worker.epoch,
                life: note.life,
                reports: vec![report],
            }],
        })
    }

    fn check(&self) {
        let fleet = &*self.fleet;
        let loaded = Fleet::load(&self.records).unwrap();
        assert_eq!(loaded, *fleet, "what is loaded is what is in memory");
        let snapshot = &fleet.snapshot;
        assert!(snapshot.tasks.keys().eq(fleet.notes.keys()));
        assert!(snapshot.workers.keys().eq(fleet.workers.keys()));
        assert!(snapshot.services.keys().eq(fleet.services.keys()));
        for task in snapshot.tasks.values() {
            let spec = fleet.specs.contains_key(&(task.service, task.version));
            assert!(spec, "the specification of {task:?} is kept");
            assert!(task.id < snapshot.next_task);
        }
        for worker in snapshot.workers.values() {
            let tasks = snapshot.tasks.values();
            let here = tasks.filter(|task| task.worker == Some(worker.id));
            let here = here.filter(|task| task.state.is_on_worker());
            let reserved: u64 = here.map(|task| task.reservations.cpu_milli).sum();
            assert!(reserved <= worker.capacity.cpu_milli, "over-committed");
        }
    }
}

/// One of three services: some copies; one with a single writer; one on each worker.
fn service(at: usize, replicas: u32, number: u8) -> Spec {
    let mut spec = spec(NAMES[at], replicas);
    spec.command.push(number.to_string());
    spec.resources.reservations.cpu_milli = 250;
    spec.update.on_failure = match number {
        0 | 1 => OnFailure::Continue,
        2 => OnFailure::Pause,
        _ => OnFailure::Rollback,
    };
    spec.placement.rebalance = match number {
        1 => Rebalance::OnJoin,
        _ => Rebalance::Manual,
    };
    match NAMES[at] {
        "db" => with_volume(spec, "data"),
        "each" => Spec {
            mode: crate::service::spec::Mode::Global,
            ..spec
        },
        _ => spec,
    }
}

/// States only move forward, and so does what is wanted.
fn assert_forward(before: &Fleet, after: &Fleet) {
    for (id, old) in before.snapshot.tasks.iter() {
        if let Some(new) = after.snapshot.tasks.get(id) {
            assert!(old.state == new.state || old.state.may_become(new.state));
            assert!(old.desired <= new.desired);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memory_records_and_replicas_agree(
        steps in prop::collection::vec((step(), prop::bool::weighted(0.2)), 1..160),
    ) {
        let mut pair = Pair::new();
        for (step, cut) in steps {
            match &step {
                Step::Wait(ms) => pair.now_ms += ms,
                Step::Term => pair.term.0 += 1,
                Step::Unreadable => drop(pair.propose_json(b"{\"do\":\"what\"}".to_vec())),
                step => {
                    if let Some(command) = pair.command(step) {
                        let before = Arc::clone(&pair.fleet);
                        pair.propose(&command);
                        assert_forward(&before, &pair.fleet);
                    }
                }
            }
            pair.check();
            if cut {
                pair.catch_up();
            }
        }
        pair.catch_up();
    }
}
