//! The simulated cluster: one host with a disk per node, on which the production node starts, dies and starts again.
//!
//! Order at a death: the network falls silent or resets, the disk stops, the executor drops the node's tasks; 1 ms later,
//! when they are gone, the disk comes back and the node may start again. In between nothing of the dead life can reach
//! the wire or the platter.

use crate::crew::alert::Alerts;
use crate::crew::caller::Calls;
use crate::crew::ledger::Ledger;
use crate::crew::machine::Machine;
use crate::crew::worker::{Boot, CAPACITY};
use crate::lane::SimLanes;
use crate::newcomer::Newcomers;
use crate::oracle::fleet::Overseer;
use crate::plan::Plan;
use crate::planted::{Ground, Hand};
use crate::timeline::State;
use crate::trace::{Level, Recorder};
use crate::world::SimWorld;
use madsim::runtime::{Handle, NodeHandle};
use node::config::{
    Cluster as ClusterConfig, Config, Founder, Limits, Listen, Log, Storage, TokenText, Workers,
};
use node::handle::{Condition, Status};
use node::rt::Env;
use node::types::{NodeId, Role};
use node::worker::WorkerConfig;
use scenarios::Crash;
use simdisk::CrashMode;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// A node's way of being, as the simulator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Its process runs (or has just ended by itself).
    On,
    /// It is down on purpose, until somebody starts it.
    Off,
    /// Its process is stopped by a signal and will go on.
    Paused,
}

/// One node.
struct Slot {
    /// madsim's name for its tasks.
    task_node: madsim::task::NodeId,
    /// How it is.
    power: Power,
    /// How to talk to it, while it runs.
    handle: Arc<Mutex<Option<node::handle::Handle>>>,
    /// Set when its process has ended by itself.
    exited: Arc<Mutex<Option<node::node::Ended>>>,
    /// Not started by the supervisor before this.
    not_before: Duration,
    /// How often it was started.
    lives: u64,
    /// The machine under it, when it is a worker.
    machine: Option<Machine>,
    /// SIGTERM, for a worker.
    term: Arc<Notify>,
    /// The token that a worker's next life shows, if not its first.
    token: Arc<Mutex<Option<String>>>,
}

/// The cluster. A clone is the same cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Network, clocks, lanes.
    pub world: SimWorld,
    /// Where everything is written down.
    pub recorder: Recorder,
    /// Nodes by name.
    slots: Arc<Mutex<BTreeMap<String, Slot>>>,
    /// The executor.
    executor: Handle,
    /// A bug planted in the nodes.
    ground: Option<Ground>,
    /// Who looks at what managers have, when there are workers.
    pub overseer: Option<Overseer>,
    /// What workers ran.
    pub ledger: Ledger,
    /// What became of users' calls.
    pub calls: Calls,
    /// What the alert on waiting tasks did.
    pub alerts: Alerts,
    /// Where processes of tasks live, when there are workers.
    home: Option<Arc<NodeHandle>>,
    /// The plan of the run.
    pub plan: Arc<Plan>,
    /// Managers that came later.
    pub newcomers: Newcomers,
}

/// Longest orderly stop before the process is killed all the same.
const STOP_MAX: Duration = Duration::from_secs(8);

impl Cluster {
    /// Starts all nodes of `plan`.
    pub fn start(plan: &Plan, world: SimWorld, recorder: Recorder) -> Self {
        let ground = plan.seedling.map(|seedling| {
            let rng = world.rngs().stream("planted");
            Ground::new(seedling, &plan.knobs, &recorder, rng)
        });
        let executor = Handle::current();
        let home =
            (plan.workers > 0).then(|| Arc::new(executor.create_node().name("tasks").build()));
        let cluster = Cluster {
            world,
            slots: Arc::default(),
            executor,
            ground,
            overseer: (plan.workers > 0).then(|| Overseer::new(recorder.clone())),
            ledger: Ledger::new(recorder.clone(), plan.knobs.worker_lease, CAPACITY),
            calls: Calls::default(),
            alerts: Alerts::default(),
            home,
            recorder,
            plan: Arc::new(plan.clone()),
            newcomers: Newcomers::default(),
        };
        let names: Vec<String> = (1..=plan.nodes)
            .map(|number| format!("n{number}"))
            .collect();
        for name in &names {
            cluster.unpack(name);
            cluster.add(name, config(plan, name, &names), plan.knobs.clone());
        }
        cluster
    }

    /// A fresh machine for a manager.
    fn unpack(&self, name: &str) {
        self.world.network.add_host(name);
        let disk = simdisk::disk(name);
        disk.set_capacity(256 << 20);
        if self.plan.strict_names {
            disk.set_name_mode(simdisk::NameMode::Strict);
        }
    }

    /// Starts a manager that was not there before, on a fresh machine: it joins by `token` through those that are.
    pub fn add_manager(&self, name: &str, token: String) {
        self.unpack(name);
        let mut config = config(&self.plan, name, &self.names());
        config.cluster.join = true;
        config.cluster.token = Some(TokenText(token));
        self.recorder
            .line(name, Level::Story, "is a fresh machine, and starts");
        self.add(name, config, self.plan.knobs.clone());
    }

    /// Takes a manager's machine away for good.
    pub async fn retire(&self, name: &str) {
        self.down(name, Crash::Kill, CrashMode::KeepAll).await;
        self.lock().remove(name);
        self.recorder
            .line(name, Level::Story, "is gone, machine and all");
    }

    /// Makes the host of `name` and starts its node.
    fn add(&self, name: &str, config: Config, knobs: node::knobs::Knobs) {
        let handle: Arc<Mutex<Option<node::handle::Handle>>> = Arc::default();
        let exited: Arc<Mutex<Option<node::node::Ended>>> = Arc::default();
        let (world, recorder, place) = (self.world.clone(), self.recorder.clone(), name.to_owned());
        let (ground, overseer) = (self.ground.clone(), self.overseer.clone());
        let (to_handle, to_exited) = (Arc::clone(&handle), Arc::clone(&exited));
        let init = move || {
            let (world, recorder, place) = (world.clone(), recorder.clone(), place.clone());
            let (ground, overseer) = (ground.clone(), overseer.clone());
            let (config, knobs) = (config.clone(), knobs.clone());
            let (handle, exited) = (Arc::clone(&to_handle), Arc::clone(&to_exited));
            async move {
                let mut env = world.env(&place, recorder.journal(&place));
                let host = place.clone();
                let lanes = SimLanes::new(env.rngs.clone(), simdisk::take_debt);
                let lanes = lanes.on_power(move || !simdisk::disk(&host).is_down());
                env.lanes = node::rt::Lanes::new(lanes);
                let env = match ground {
                    Some(ground) => ground.env(&place, env),
                    None => env,
                };
                let tell = |running: &node::handle::Handle| {
                    if let Some(overseer) = overseer {
                        let fleets = running.follow_fleet();
                        drop(madsim::task::spawn(overseer.follow(place.clone(), fleets)));
                    }
                };
                process(
                    env,
                    recorder,
                    place.clone(),
                    config,
                    knobs,
                    handle,
                    exited,
                    tell,
                )
                .await;
                // madsim takes a returning `init` for the end of the node; the supervisor decides that here.
                std::future::pending::<()>().await;
            }
        };
        let made = self.executor.create_node().name(name).init(init).build();
        let slot = Slot {
            task_node: made.id(),
            power: Power::On,
            handle,
            exited,
            not_before: Duration::ZERO,
            lives: 1,
            machine: None,
            term: Arc::default(),
            token: Arc::default(),
        };
        self.lock().insert(name.to_owned(), slot);
    }

    /// Makes the machine of a worker and starts the worker on it; its host is there.
    pub fn add_worker(&self, name: &str, config: WorkerConfig, knobs: node::knobs::Knobs) {
        let Some(home) = self.home.clone() else {
            return; // A plan without workers starts none.
        };
        let rng = self.world.rngs().stream(&format!("tasks.{name}"));
        let machine = Machine::new(name, home, self.ledger.clone(), rng);
        let boot = Boot {
            cluster: self.clone(),
            name: name.to_owned(),
            config,
            knobs,
            machine: machine.clone(),
            exited: Arc::default(),
            term: Arc::default(),
            token: Arc::default(),
        };
        let (exited, term) = (Arc::clone(&boot.exited), Arc::clone(&boot.term));
        let token = Arc::clone(&boot.token);
        let init = move || {
            let life = boot.clone().run();
            async move {
                life.await;
                // As for managers: the supervisor decides what an end is.
                std::future::pending::<()>().await;
            }
        };
        let made = self.executor.create_node().name(name).init(init).build();
        let slot = Slot {
            task_node: made.id(),
            power: Power::On,
            handle: Arc::default(),
            exited,
            not_before: Duration::ZERO,
            lives: 1,
            machine: Some(machine),
            term,
            token,
        };
        self.lock().insert(name.to_owned(), slot);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The token with which `name` starts from now on.
    pub(crate) fn give_token(&self, name: &str, token: String) {
        if let Some(slot) = self.lock().get(name) {
            put(&slot.token, Some(token));
        }
    }

    /// Does something where a bug is planted.
    pub fn planted(&self, tend: impl FnOnce(&Ground)) {
        if let Some(ground) = &self.ground {
            tend(ground);
        }
    }

    /// A worker's process is gone: guards end what was tied to it, unless it is planted that they do not.
    pub fn guard(&self, machine: &Machine) {
        if self.ground.as_ref().is_none_or(Ground::has_guards) {
            machine.worker_ended();
        }
    }

    /// What a worker's life begins with, where a bug is planted.
    pub fn outfit(&self, name: &str, env: Env, executor: Hand) -> (Env, Hand) {
        match &self.ground {
            Some(ground) => ground.outfit(name, env, executor),
            None => (env, executor),
        }
    }

    /// True when a bug is planted in the nodes, or could be: some are rules of a disk, which then belong to it.
    pub fn is_planted(&self) -> bool {
        self.ground.is_some()
    }

    /// Names of all managers.
    pub fn names(&self) -> Vec<String> {
        let slots = self.lock();
        let managers = slots.iter().filter(|(_, slot)| slot.machine.is_none());
        managers.map(|(name, _)| name.clone()).collect()
    }

    /// Names of all workers.
    pub fn workers(&self) -> Vec<String> {
        let slots = self.lock();
        let workers = slots.iter().filter(|(_, slot)| slot.machine.is_some());
        workers.map(|(name, _)| name.clone()).collect()
    }

    /// Names of everybody.
    pub fn everybody(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// The machine under a worker.
    pub fn machine(&self, name: &str) -> Option<Machine> {
        self.lock().get(name)?.machine.clone()
    }

    /// Names of the managers whose process runs.
    pub fn running(&self) -> Vec<String> {
        let slots = self.lock();
        let up = slots.iter().filter(|(_, slot)| {
            slot.machine.is_none() && slot.power == Power::On && peek(&slot.exited).is_none()
        });
        up.map(|(name, _)| name.clone()).collect()
    }

    /// How to talk to `name`, while it runs.
    pub fn handle(&self, name: &str) -> Option<node::handle::Handle> {
        let slots = self.lock();
        let slot = slots.get(name)?;
        let up = slot.power == Power::On && peek(&slot.exited).is_none();
        up.then(|| peek(&slot.handle)).flatten()
    }

    /// The pictures of all running nodes.
    pub fn statuses(&self) -> Vec<(String, Status)> {
        let names = self.running();
        names
            .into_iter()
            .filter_map(|name| self.handle(&name).map(|handle| (name, handle.status())))
            .collect()
    }

    /// The leader of the highest term, if any running node leads.
    pub fn leader(&self) -> Option<String> {
        let leading = self.statuses().into_iter().filter(|(_, status)| {
            status.role == Role::Leader && status.condition == Condition::Running
        });
        leading
            .max_by_key(|(_, status)| status.term)
            .map(|(name, _)| name)
    }

    /// Whether a manager that shows a token is let in by the log, as the leader has it, and is no member yet.
    pub fn manager_waits(&self) -> bool {
        let handle = self.leader().and_then(|name| self.handle(&name));
        handle.is_some_and(|handle| {
            let (fleet, status) = (handle.fleet(), handle.status());
            let is_in = |name: &String| status.members.iter().any(|one| one.member.name == *name);
            let mut admitted = fleet.tokens.values().flat_map(|token| &token.admitted);
            admitted.any(|one| !is_in(&one.name))
        })
    }

    /// Ends the process of `name`.
    pub async fn down(&self, name: &str, how: Crash, mode: CrashMode) {
        self.recorder.line(
            name,
            Level::Story,
            match how {
                Crash::PowerLoss => "LOSES POWER".to_owned(),
                Crash::Kill => "is KILLED (kill -9)".to_owned(),
                Crash::Stop => "is told to stop".to_owned(),
            },
        );
        if how == Crash::Stop {
            self.stop_in_order(name).await;
        }
        let Some(task_node) = self.set_power(name, Power::Off) else {
            return;
        };
        self.planted(|ground| ground.fell(name, how));
        let mode = self
            .ground
            .as_ref()
            .and_then(Ground::crash_mode)
            .unwrap_or(mode);
        let disk = simdisk::disk(name);
        if how == Crash::PowerLoss {
            self.world.network.host_power_loss(name);
            disk.power_loss(mode);
        } else {
            self.world.network.host_killed(name);
            disk.kill();
        }
        self.executor.kill(task_node);
        if let Some(machine) = self.machine(name) {
            match how {
                Crash::PowerLoss => machine.power_lost(),
                Crash::Kill | Crash::Stop => self.guard(&machine),
            }
        }
        madsim::time::sleep(Duration::from_millis(1)).await;
        if how != Crash::PowerLoss {
            disk.power_on();
        }
    }

    /// Tells a node to stop and waits until it has, for a while.
    async fn stop_in_order(&self, name: &str) {
        let (handle, is_worker) = (self.handle(name), self.machine(name).is_some());
        if handle.is_none() && !is_worker {
            return;
        }
        // Whoever stops a node on purpose tells its supervisor not to start it again.
        self.hold(name, Duration::MAX);
        if let Some(handle) = handle {
            handle.stop("SIGTERM").await;
        }
        if let Some(slot) = self.lock().get(name).filter(|_| is_worker) {
            slot.term.notify_one();
        }
        let end = self.recorder.now() + STOP_MAX;
        while self.recorder.now() < end {
            let gone = self
                .lock()
                .get(name)
                .is_none_or(|slot| peek(&slot.exited).is_some());
            if gone {
                self.recorder.sometimes("an orderly stop ended by itself");
                return;
            }
            madsim::time::sleep(Duration::from_millis(20)).await;
        }
        self.recorder
            .fail(format!("{name} did not stop within {STOP_MAX:?}"));
    }

    /// Starts the node of `name`.
    pub fn up(&self, name: &str) {
        let Some(task_node) = self.set_power(name, Power::On) else {
            return;
        };
        let disk = simdisk::disk(name);
        if disk.is_down() {
            disk.power_on();
        }
        self.planted(|ground| ground.rises(name));
        self.world.network.host_up(name);
        self.recorder.line(name, Level::Story, "is started");
        self.executor.restart(task_node);
    }

    /// Stops the process of `name` by a signal, if there is one; it goes on with [`Cluster::resume`].
    pub fn pause(&self, name: &str) {
        if self.is_off(name) {
            return;
        }
        if let Some(task_node) = self.set_power(name, Power::Paused) {
            self.recorder
                .line(name, Level::Story, "is STOPPED (SIGSTOP)");
            self.executor.pause(task_node);
        }
    }

    /// Lets a stopped process go on.
    pub fn resume(&self, name: &str) {
        let paused = self
            .lock()
            .get(name)
            .is_some_and(|slot| slot.power == Power::Paused);
        if !paused {
            return;
        }
        if let Some(task_node) = self.set_power(name, Power::On) {
            self.recorder.line(name, Level::Story, "goes on (SIGCONT)");
            self.executor.resume(task_node);
        }
    }

    /// How often `name` was started.
    pub fn lives(&self, name: &str) -> u64 {
        self.lock().get(name).map_or(0, |slot| slot.lives)
    }

    /// True when somebody has put `name` down, or stopped it.
    pub fn is_off(&self, name: &str) -> bool {
        self.lock()
            .get(name)
            .is_none_or(|slot| slot.power != Power::On)
    }

    /// The supervisor of the machine leaves `name` alone until then, if its process ends by itself.
    pub fn hold(&self, name: &str, until: Duration) {
        if let Some(slot) = self.lock().get_mut(name) {
            slot.not_before = until;
        }
    }

    /// Starts processes that ended by themselves again, as a machine's supervisor does.
    pub async fn supervise(&self) {
        let now = self.recorder.now();
        let ended: Vec<String> = {
            let mut slots = self.lock();
            let gone = slots.iter_mut().filter(|(_, slot)| {
                slot.power == Power::On && slot.not_before <= now && peek(&slot.exited).is_some()
            });
            gone.map(|(name, _)| name.clone()).collect()
        };
        for name in ended {
            self.down(&name, Crash::Kill, CrashMode::KeepAll).await;
            self.up(&name);
        }
    }

    /// Ends everything, so that nothing of this run outlives it.
    pub async fn end(&self) {
        let all: Vec<madsim::task::NodeId> =
            self.lock().values().map(|slot| slot.task_node).collect();
        for name in self.everybody() {
            simdisk::disk(&name).freeze();
        }
        for task_node in all {
            self.executor.kill(task_node);
        }
        if let Some(home) = &self.home {
            self.executor.kill(home.id());
        }
        self.world.network.shutdown();
        madsim::time::sleep(Duration::from_millis(2)).await;
    }

    /// Notes the power of `name`; nothing when it is so already.
    fn set_power(&self, name: &str, power: Power) -> Option<madsim::task::NodeId> {
        let mut slots = self.lock();
        let slot = slots.get_mut(name)?;
        if slot.power == power {
            return None;
        }
        let state = match (slot.power, power) {
            (_, Power::Off) => State::Down,
            (_, Power::Paused) => State::Paused,
            (Power::Paused, Power::On) => State::Resumed,
            (_, Power::On) => State::Starting,
        };
        slot.power = power;
        self.recorder.becomes(name, state);
        if power == Power::Off {
            put(&slot.handle, None);
        }
        if power == Power::On {
            put(&slot.exited, None);
            slot.not_before = Duration::ZERO;
            slot.lives += 1;
        }
        Some(slot.task_node)
    }
}

/// A copy of what is in a shared place.
pub(crate) fn peek<T: Clone>(place: &Mutex<Option<T>>) -> Option<T> {
    place
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone()
}

/// Puts something in a shared place.
pub(crate) fn put<T>(place: &Mutex<Option<T>>, value: Option<T>) {
    *place
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = value;
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of a process's world, each given once"
)]
/// One life of a node's process: the production node, started as the program starts it.
async fn process(
    env: node::rt::Env,
    recorder: Recorder,
    name: String,
    config: Config,
    knobs: node::knobs::Knobs,
    handle: Arc<Mutex<Option<node::handle::Handle>>>,
    exited: Arc<Mutex<Option<node::node::Ended>>>,
    tell: impl FnOnce(&node::handle::Handle),
) {
    match node::node::start(env, config, knobs).await {
        Ok(running) => {
            tell(&running.handle);
            put(&handle, Some(running.handle.clone()));
            let ended = running.ended().await;
            let word = if ended.poisoned {
                "exit code 1"
            } else {
                "exit code 0"
            };
            recorder.line(
                &name,
                Level::Story,
                format!("has ended ({word}): {}", ended.reason),
            );
            put(&handle, None);
            recorder.becomes(&name, State::Down);
            put(&exited, Some(ended));
        }
        Err(error) => {
            recorder.line(&name, Level::Story, format!("cannot start: {error}"));
            recorder.becomes(&name, State::Down);
            let reason = error.to_string();
            put(
                &exited,
                Some(node::node::Ended {
                    reason,
                    poisoned: true,
                }),
            );
        }
    }
}

/// The configuration of `name`, as an operator would write it.
fn config(plan: &Plan, name: &str, names: &[String]) -> Config {
    let founder = |name: &String| Founder {
        name: name.clone(),
        peer: format!("{name}:7000"),
        http: format!("{name}:8080"),
    };
    Config {
        name: name.to_owned(),
        data_dir: format!("/simdisk/{name}/data").into(),
        profile: plan.profile,
        listen: Listen {
            http: format!("{name}:8080"),
            peer: format!("{name}:7000"),
            advertise_http: None,
            advertise_peer: None,
        },
        cluster: ClusterConfig {
            members: names.iter().map(founder).collect(),
            ..ClusterConfig::default()
        },
        limits: Limits::default(),
        storage: Storage::default(),
        workers: Workers {
            down_after_ms: plan.scenario.cluster.down_after_ms,
        },
        log: Log::default(),
    }
}

/// The id of a node's founding, which is its place in the order of names.
pub fn founding_id(names: &[String], name: &str) -> Option<NodeId> {
    let place = names.iter().position(|one| one == name)?;
    Some(NodeId(place as u64 + 1))
}
