//! The machine under a simulated worker: its process table, which outlives the worker's process, and the executor over it.
//!
//! What ends what: the worker's `kill -9` leaves processes running, but for those that are tied to it (single-writer volumes), whose
//! guards kill them within a moment; power loss ends everything; a stopped worker (SIGSTOP) stops nothing else, and the guards go by the
//! machine's clock and the end of the lease that they heard last. A process that a dead worker began is nobody's child: its end is seen,
//! its exit code is not.
//!
//! Every process is a line in the [`Ledger`]. What a task does stands in its command ([`Behaviour`]); the rest is chance, from one
//! stream a machine.

use super::ledger::Ledger;
use madsim::runtime::NodeHandle;
use node::rt::net::BoxFuture;
use node::rt::{Clock, Mono};
use node::types::TaskId;
use node::worker::exchange::Found;
use node::worker::executor::Executor;
use node::worker::secrets::SecretFile;
use node::worker::words::{Assignment, Exit, Handle, Refusal, Signal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use workloads::behaviour::{Behaviour, End};
use workloads::ledger::{self, DONE, LEASE_ENDED, Run, STOPPED};

/// Longest time until a guard has killed what was tied to a worker.
const GUARD_MAX: Duration = Duration::from_millis(20);
/// Longest time that a process takes to end when it is told and nothing else is said.
const STOP_MAX: Duration = Duration::from_millis(200);
/// Longest time to fetch, to start or to check, if nothing else is said.
const MOMENT_MAX: Duration = Duration::from_millis(30);

/// Ended by SIGKILL.
const KILLED: Exit = Exit {
    code: None,
    signal: Some(9),
    oom: false,
};

/// One machine. A clone is the same.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

/// What a machine is.
struct Inner {
    /// Its name, which is its worker's host.
    host: String,
    /// Where its processes live: a place of the executor that no worker's death touches.
    home: Arc<NodeHandle>,
    /// The ledger.
    ledger: Ledger,
    /// The process table.
    table: Mutex<Table>,
}

/// A process table.
struct Table {
    /// Chance.
    rng: ChaCha8Rng,
    /// Processes that are there, by number.
    processes: BTreeMap<u64, Process>,
    /// How processes ended whose parent, the worker's present life, has not asked yet.
    ends: BTreeMap<u64, Exit>,
    /// Number of the newest process.
    newest: u64,
    /// Lives of the worker's process so far.
    life: u64,
    /// Until when the executor answers with errors.
    fails_until: Duration,
    /// End of the lease of the worker's present life, on the clock as that life sees it.
    lease_until: Mono,
}

/// A process that is there.
struct Process {
    /// Its task.
    task: TaskId,
    /// Which attempt.
    attempt: u32,
    /// What it does.
    behaviour: Behaviour,
    /// When it began.
    from: Duration,
    /// The life of the worker that began it.
    parent: u64,
    /// Whether it ends with the worker.
    is_tied: bool,
    /// Its line in the ledger.
    place: usize,
    /// How it ended, once it has.
    ended: watch::Sender<Option<Exit>>,
}

impl Machine {
    /// A machine without processes. `rng` is its own stream of the seed.
    pub fn new(host: &str, home: Arc<NodeHandle>, ledger: Ledger, rng: ChaCha8Rng) -> Self {
        Machine(Arc::new(Inner {
            host: host.to_owned(),
            home,
            ledger,
            table: Mutex::new(Table {
                rng,
                processes: BTreeMap::new(),
                ends: BTreeMap::new(),
                newest: 0,
                life: 0,
                fails_until: Duration::ZERO,
                lease_until: Mono::default(),
            }),
        }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0
            .table
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A worker's process begins: the executor that it gets. `clock` is the machine's, as this process sees it.
    pub fn boots(&self, clock: Clock) -> SimExecutor {
        let mut table = self.table();
        table.life += 1;
        table.ends.clear();
        table.lease_until = Mono::default();
        SimExecutor {
            machine: self.clone(),
            life: table.life,
            clock,
        }
    }

    /// A guard of the worker's present life stands beside a process from now on.
    fn guard(&self, number: u64, clock: Clock) {
        let machine = self.clone();
        drop(self.0.home.spawn(async move {
            while let Some(until) = machine
                .lease_of(number)
                .filter(|until| clock.now() < *until)
            {
                clock.sleep_until(until).await;
            }
            let reacts = machine.draw(GUARD_MAX);
            madsim::time::sleep(reacts).await;
            machine.end(number, KILLED, LEASE_ENDED);
        }));
    }

    /// The end of the lease on which a process hangs, if it is there.
    fn lease_of(&self, number: u64) -> Option<Mono> {
        let table = self.table();
        let process = table.processes.get(&number)?;
        (process.parent == table.life).then_some(table.lease_until)
    }

    /// The worker's process is gone: guards kill what was tied to it.
    pub fn worker_ended(&self) {
        let tied: Vec<u64> = {
            let table = self.table();
            let tied = table.processes.iter().filter(|(_, one)| one.is_tied);
            tied.map(|(number, _)| *number).collect()
        };
        for number in tied {
            let after = self.draw(GUARD_MAX);
            self.ends_after(number, after, KILLED, "its worker has ended");
        }
    }

    /// The machine loses power.
    pub fn power_lost(&self) {
        let all: Vec<u64> = self.table().processes.keys().copied().collect();
        for number in all {
            self.end(number, Exit::UNSEEN, "the machine lost power");
        }
    }

    /// The executor answers with errors for a while.
    pub fn fails_until(&self, end: Duration) {
        self.table().fails_until = end;
    }

    /// Tasks of which a process is there.
    pub fn tasks(&self) -> Vec<TaskId> {
        self.table()
            .processes
            .values()
            .map(|one| one.task)
            .collect()
    }

    /// A part of `longest`.
    fn draw(&self, longest: Duration) -> Duration {
        let longest_us = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.table().rng.random_range(0..=longest_us))
    }

    /// True with a chance; none costs nothing.
    fn happens(&self, chance: f64) -> bool {
        chance > 0.0 && self.table().rng.random_bool(chance)
    }

    /// A process ends after a while, whoever lives then.
    fn ends_after(&self, number: u64, after: Duration, exit: Exit, why: &'static str) {
        let machine = self.clone();
        drop(self.0.home.spawn(async move {
            madsim::time::sleep(after).await;
            machine.end(number, exit, why);
        }));
    }

    /// A process is gone; nothing when it was already.
    fn end(&self, number: u64, exit: Exit, why: &str) {
        let mut table = self.table();
        let Some(process) = table.processes.remove(&number) else {
            return;
        };
        if process.parent == table.life {
            table.ends.insert(number, exit);
        }
        drop(table);
        self.0.ledger.ends(process.place, why);
        process.ended.send_replace(Some(exit));
    }

    /// A process begins.
    fn begin(
        &self,
        assignment: &Assignment,
        attempt: u32,
        behaviour: Behaviour,
        parent: u64,
    ) -> Handle {
        let (spec, from) = (
            &assignment.spec,
            madsim::time::TimeHandle::current().elapsed(),
        );
        let alone = spec.volumes.iter().filter(|mount| !mount.shared);
        let place = self.0.ledger.begins(Run {
            host: self.0.host.clone(),
            task: assignment.task,
            attempt,
            service: spec.name.clone(),
            slot: assignment.slot,
            version: assignment.version,
            volumes: alone.map(|mount| mount.volume.clone()).collect(),
            reserved: spec.resources.reservations,
            from,
            ready_after: spec
                .health
                .as_ref()
                .map_or(Duration::ZERO, |_| behaviour.healthy_from),
            told: None,
            given_up: None,
            to: None,
            why: String::new(),
        });
        let end = behaviour.end;
        let process = Process {
            task: assignment.task,
            attempt,
            behaviour,
            from,
            parent,
            is_tied: spec.is_single_writer(),
            place,
            ended: watch::Sender::new(None),
        };
        let number = {
            let mut table = self.table();
            table.newest += 1;
            let number = table.newest;
            table.processes.insert(number, process);
            number
        };
        if let Some((after, end)) = end {
            let (exit, why) = exit_of(end);
            self.ends_after(number, after, exit, why);
        }
        Handle(number.to_string())
    }

    /// Tells a process to end.
    fn signal(&self, number: u64, signal: Signal) {
        let told = {
            let table = self.table();
            table
                .processes
                .get(&number)
                .map(|one| (one.place, one.behaviour.clone()))
        };
        let Some((place, behaviour)) = told else {
            return;
        };
        self.0.ledger.told(place);
        match signal {
            Signal::Kill => {
                self.ends_after(number, Duration::from_micros(500), KILLED, ledger::KILLED)
            }
            Signal::Term if behaviour.ignores_term => {}
            Signal::Term => {
                let after = behaviour.stop.unwrap_or_else(|| self.draw(STOP_MAX));
                let exit = Exit {
                    code: Some(0),
                    ..Exit::UNSEEN
                };
                self.ends_after(number, after, exit, STOPPED);
            }
        }
    }

    /// Whether the executor answers with errors now.
    fn is_failing(&self) -> bool {
        madsim::time::TimeHandle::current().elapsed() < self.table().fails_until
    }

    /// Processes of an attempt.
    fn of_attempt(&self, task: TaskId, attempt: u32) -> Vec<(u64, watch::Receiver<Option<Exit>>)> {
        let table = self.table();
        let all = table.processes.iter();
        let mine = all.filter(|(_, one)| one.task == task && one.attempt == attempt);
        mine.map(|(number, one)| (*number, one.ended.subscribe()))
            .collect()
    }
}

/// What is seen of an end.
fn exit_of(end: End) -> (Exit, &'static str) {
    match end {
        End::Done => (
            Exit {
                code: Some(0),
                ..Exit::UNSEEN
            },
            DONE,
        ),
        End::Crash => (
            Exit {
                code: Some(1),
                ..Exit::UNSEEN
            },
            "crashed",
        ),
        End::Oom => (
            Exit {
                oom: true,
                ..KILLED
            },
            "out of memory",
        ),
    }
}

/// The executor that one life of a worker has.
#[derive(Clone)]
pub struct SimExecutor {
    /// The machine.
    machine: Machine,
    /// Which life of its worker.
    life: u64,
    /// The machine's clock as that life sees it.
    clock: Clock,
}

impl SimExecutor {
    /// Takes a while.
    async fn pause(&self, said: Option<Duration>) {
        let span = said.unwrap_or_else(|| self.machine.draw(MOMENT_MAX));
        madsim::time::sleep(span).await;
    }

    /// What a task does; an error if it can never run here.
    fn behaviour(&self, assignment: &Assignment) -> Result<Behaviour, Refusal> {
        let never = |message| Refusal {
            is_permanent: true,
            message,
        };
        if let Some(image) = &assignment.spec.image {
            return Err(never(format!(
                "simulated workers run commands, not images ({image})"
            )));
        }
        let behaviour = Behaviour::parse(&assignment.spec.command).map_err(never)?;
        match behaviour.is_refused_on(&self.machine.0.host) {
            true => Err(never("there is no such program here".to_owned())),
            false => Ok(behaviour),
        }
    }
}

/// An error that may pass.
fn not_now(message: &str) -> Refusal {
    Refusal {
        is_permanent: false,
        message: message.to_owned(),
    }
}

impl Executor for SimExecutor {
    fn prepare(&self, assignment: Arc<Assignment>) -> BoxFuture<'static, Result<(), Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            let behaviour = this.behaviour(&assignment)?;
            this.pause(behaviour.prepare).await;
            if this.machine.is_failing() || this.machine.happens(behaviour.prepare_fails) {
                return Err(not_now("what the task needs cannot be fetched now"));
            }
            Ok(())
        })
    }

    fn start(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        secrets: Vec<SecretFile>,
    ) -> BoxFuture<'static, Result<Handle, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            let behaviour = this.behaviour(&assignment)?;
            this.pause(behaviour.start).await;
            if this.machine.is_failing() || this.machine.happens(behaviour.start_fails) {
                return Err(not_now("the machine cannot start a process now"));
            }
            let is_tied = assignment.spec.is_single_writer();
            if is_tied && this.machine.table().lease_until <= this.clock.now() {
                return Err(not_now("its lease has ended"));
            }
            let machine = &this.machine.0;
            machine
                .ledger
                .safe
                .starts(&machine.host, &assignment, &secrets);
            let handle = this
                .machine
                .begin(&assignment, attempt, behaviour, this.life);
            if let (true, Ok(number)) = (is_tied, handle.0.parse()) {
                this.machine.guard(number, this.clock.clone());
            }
            // The process is there before its worker knows: one that dies in between leaves it behind.
            this.pause(None).await;
            Ok(handle)
        })
    }

    fn lease(&self, until: Mono) {
        let mut table = self.machine.table();
        if table.life == self.life {
            table.lease_until = until;
        }
    }

    fn wait(&self, _: TaskId, _: u32, handle: Handle) -> BoxFuture<'static, Exit> {
        let this = self.clone();
        Box::pin(async move {
            let number = handle.0.parse().unwrap_or(0);
            let found = {
                let mut table = this.machine.table();
                if let Some(exit) = table.ends.remove(&number) {
                    return exit;
                }
                let process = table.processes.get(&number);
                process.map(|one| (one.parent == this.life, one.ended.subscribe()))
            };
            let Some((is_child, mut ended)) = found else {
                return Exit::UNSEEN;
            };
            let exit = match ended.wait_for(Option::is_some).await {
                Ok(exit) => exit.unwrap_or(Exit::UNSEEN),
                Err(_) => Exit::UNSEEN,
            };
            this.machine.table().ends.remove(&number);
            if is_child { exit } else { Exit::UNSEEN }
        })
    }

    fn signal(&self, handle: &Handle, signal: Signal) {
        if let Ok(number) = handle.0.parse() {
            self.machine.signal(number, signal);
        }
    }

    fn check(&self, assignment: Arc<Assignment>, attempt: u32) -> BoxFuture<'static, bool> {
        let this = self.clone();
        Box::pin(async move {
            this.pause(None).await;
            let now = madsim::time::TimeHandle::current().elapsed();
            let flaky = {
                let table = this.machine.table();
                let mut mine = table.processes.values();
                let process =
                    mine.find(|one| one.task == assignment.task && one.attempt == attempt);
                match process {
                    Some(one) if one.behaviour.is_well(now.saturating_sub(one.from)) => {
                        one.behaviour.flaky
                    }
                    _ => 1.0,
                }
            };
            flaky < 1.0 && !this.machine.happens(flaky)
        })
    }

    fn found(&self) -> BoxFuture<'static, Result<Vec<Found>, String>> {
        let this = self.clone();
        Box::pin(async move {
            this.pause(None).await;
            if this.machine.is_failing() {
                return Err("the machine does not say what runs".to_owned());
            }
            let table = this.machine.table();
            let found = table.processes.iter().map(|(number, one)| Found {
                task: one.task,
                attempt: one.attempt,
                handle: Handle(number.to_string()),
            });
            Ok(found.collect())
        })
    }

    fn end_orphan(&self, task: TaskId, attempt: u32) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            for (number, mut ended) in this.machine.of_attempt(task, attempt) {
                this.machine.signal(number, Signal::Kill);
                // A sender that is gone has ended too.
                drop(ended.wait_for(Option::is_some).await);
            }
        })
    }

    fn forget(&self, _: TaskId) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn tidy(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
