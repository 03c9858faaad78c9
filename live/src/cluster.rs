//! The cluster of a live run: `seaworthy server` and `seaworthy worker start` processes on loopback, each with a home of its own.
//!
//! Where nothing else is said a node is a manager; workers are nodes under names of their own (w1, w2, ...).
//!
//! A node can be down, paused or on. One that is on and whose process has ended by itself is a failure here, because no step of a
//! live run gives it a reason; its supervisor starts it again all the same, as a machine's would.

use crate::clock::RunClock;
use crate::ground::free_addresses;
use crate::journal;
use crate::plan::Plan;
use crate::report::Story;
use anyhow::{Context, Result};
use futures::future::join_all;
use node::api::wire::ClusterAnswer;
use node::client::{Client, Options, Retry};
use node::rt::{Env, Tasks};
use node::types::Role;
use rustix::process::{Pid, Signal, kill_process};
use scenarios::Crash;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use workloads::measure::Mark;

/// Longest orderly stop: the node's own bound and some grace.
const STOP_MAX: Duration = Duration::from_secs(12);
/// How often somebody looks whether a process has stopped.
const STOP_LOOK: Duration = Duration::from_millis(20);
/// How long the supervisor leaves a process alone that has ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for a node's word on the cluster.
const ASK_MAX: Duration = Duration::from_millis(500);

/// What each worker has to give, as in simulation.
const CAPACITY: [&str; 4] = ["--cpu", "4", "--memory", "8GiB"];

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    /// Its process runs, or has ended by itself.
    On,
    /// It is down on purpose.
    Off,
    /// Its process is stopped by a signal and will go on.
    Paused,
}

/// One node.
struct Slot {
    /// Address of its HTTP door.
    http: String,
    /// The address that others are told instead, if there is a gate before its door.
    gate: Option<String>,
    /// Whether it is a worker.
    is_worker: bool,
    /// What its program is started with.
    words: Vec<OsString>,
    /// Where its configuration, log and data are.
    home: PathBuf,
    /// Its process, while there is one.
    process: Option<Process>,
    /// How it is.
    power: Power,
    /// How often it was started.
    lives: u64,
    /// When the supervisor starts it again, after it has ended by itself.
    again_at: Option<Duration>,
}

impl Slot {
    /// A manager that is down.
    fn new(http: String, gate: Option<String>, home: PathBuf, words: Vec<OsString>) -> Self {
        Slot {
            http,
            gate,
            is_worker: false,
            words,
            home,
            process: None,
            power: Power::Off,
            lives: 0,
            again_at: None,
        }
    }
}

/// What a node is started through: it becomes the program behind it, and leaves a guard that reads from a pipe of ours. When that closes
/// because this program has ended, `kill -9` included, the guard kills the node; it never kills what is not its parent any more.
const TIED: &str = r#"exec 3<&0 </dev/null
( trap '' HUP INT TERM; exec >/dev/null 2>&1
read -r _ <&3; read -r _ _ _ parent _ </proc/self/stat
[ "$parent" != $$ ] || kill -KILL $$ ) &
exec 3<&-; exec "$@""#;

/// A process that does not outlive whoever holds it. Its input is the pipe of its guard.
struct Process(Child);

impl Drop for Process {
    /// SIGKILL, and no process left.
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, and waiting only collects it.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Process {
    /// How it ended, if it has.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Sends it a signal.
    fn tell(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself, which the supervisor sees.
            kill_process(pid, signal).ok();
        }
    }
}

/// The cluster. A clone is the same cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The run's clock.
    pub(crate) clock: RunClock,
    /// What is told of the run.
    pub(crate) story: Story,
    /// The program that is every node, and the operator's.
    pub(crate) program: PathBuf,
    /// Asks single nodes.
    asks: Client,
    /// Nodes by name.
    slots: Arc<Mutex<BTreeMap<String, Slot>>>,
}

impl Cluster {
    /// Makes the homes of all nodes of `plan` under `dir`; starts none.
    pub(crate) fn found(
        plan: &Plan,
        dir: &Path,
        program: PathBuf,
        (env, tasks): (&Env, &Tasks),
        (clock, story): (RunClock, Story),
    ) -> Result<Self> {
        let names: Vec<String> = (1..=plan.nodes).map(|one| format!("n{one}")).collect();
        let workers: Vec<String> = (1..=plan.workers).map(|one| format!("w{one}")).collect();
        let mut addresses = free_addresses(3 * names.len() + workers.len())?.into_iter();
        let mut of_each = || -> Vec<String> { addresses.by_ref().take(names.len()).collect() };
        let (http, peer, mut told) = (of_each(), of_each(), of_each());
        let is_gated = plan.needs_gates();
        if !is_gated {
            told.clone_from(&http);
        }
        let mut members = String::new();
        for ((name, http), peer) in names.iter().zip(&told).zip(&peer) {
            write!(
                members,
                "[[cluster.members]]\nname = \"{name}\"\nhttp = \"{http}\"\npeer = \"{peer}\"\n"
            )?;
        }
        let mut slots = BTreeMap::new();
        for (((name, http), peer), told) in names.iter().zip(&http).zip(&peer).zip(&told) {
            let home = new_home(dir, name)?;
            let text = format!(
                "name = \"{name}\"\ndata_dir = {:?}\nprofile = \"{}\"\n[listen]\nhttp = \"{http}\"\npeer = \"{peer}\"\n\
                 advertise_http = \"{told}\"\n[log]\nformat = \"json\"\nfilter = \"info\"\n{members}",
                home.join("data"),
                plan.profile_name()
            );
            let bound = plan.scenario.cluster.down_after_ms;
            let workers = bound.map(|ms| format!("[workers]\ndown_after_ms = {ms}\n"));
            let config = home.join("node.toml");
            fs::write(&config, text + &workers.unwrap_or_default())?;
            let words = ["server".into(), "--config".into(), config.into()];
            let gate = is_gated.then(|| told.clone());
            let slot = Slot::new(http.clone(), gate, home, words.to_vec());
            slots.insert(name.clone(), slot);
        }
        for (name, address) in workers.iter().zip(addresses) {
            let home = new_home(dir, name)?;
            let (join, data) = (told.join(","), home.join("data"));
            let words = ["worker", "start", "--join", &join, "--name", name];
            let mut words: Vec<OsString> = words.map(OsString::from).to_vec();
            words.extend(["--listen".into(), OsString::from(&address)]);
            words.extend(["--data-dir".into(), data.into()]);
            words.extend(CAPACITY.map(OsString::from));
            let slot = Slot {
                is_worker: true,
                ..Slot::new(address, None, home, words)
            };
            slots.insert(name.clone(), slot);
        }
        let options = Options {
            timeout: ASK_MAX,
            connect_timeout: ASK_MAX,
            retry: Retry::never(),
            sessions: false,
            follow_leader: false,
            stream: "the run's own questions".to_owned(),
            ..Options::default()
        };
        Ok(Cluster {
            clock,
            story,
            program,
            asks: Client::with_options(env, tasks, http.to_vec(), options),
            slots: Arc::new(Mutex::new(slots)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of all managers.
    pub(crate) fn names(&self) -> Vec<String> {
        self.named(|slot| !slot.is_worker)
    }

    /// Names of all workers.
    pub(crate) fn workers(&self) -> Vec<String> {
        self.named(|slot| slot.is_worker)
    }

    /// Names of the nodes of which something holds, in order.
    fn named(&self, holds: impl Fn(&Slot) -> bool) -> Vec<String> {
        let slots = self.lock();
        let found = slots.iter().filter(|(_, slot)| holds(slot));
        found.map(|(name, _)| name.clone()).collect()
    }

    /// Addresses of all managers, in the order of their names.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let slots = self.lock();
        let managers = slots.values().filter(|slot| !slot.is_worker);
        managers.map(|slot| slot.http.clone()).collect()
    }

    /// Names of the managers whose process should run.
    pub(crate) fn running(&self) -> Vec<String> {
        self.named(|slot| !slot.is_worker && slot.power == Power::On)
    }

    /// For each gate where it is, and what is behind it.
    pub(crate) fn ways(&self) -> Vec<(String, String)> {
        let slots = self.lock();
        let gates = slots.values();
        gates
            .filter_map(|slot| Some((slot.gate.clone()?, slot.http.clone())))
            .collect()
    }

    /// Processes of workers, by name.
    pub(crate) fn worker_pids(&self) -> Vec<(String, u32)> {
        let slots = self.lock();
        let workers = slots.iter().filter(|(_, slot)| slot.is_worker);
        workers
            .filter_map(|(name, slot)| Some((name.clone(), slot.process.as_ref()?.0.id())))
            .collect()
    }

    /// Starts a worker for the first time, with more words for its program.
    pub(crate) fn add_worker(&self, name: &str, words: &[OsString]) {
        if let Some(slot) = self.lock().get_mut(name) {
            slot.words.extend_from_slice(words);
        }
        self.up(name);
    }

    /// The address of one node.
    pub(crate) fn endpoint(&self, name: &str) -> Option<String> {
        self.lock().get(name).map(|slot| slot.http.clone())
    }

    /// The home of one node.
    pub(crate) fn home(&self, name: &str) -> Option<PathBuf> {
        self.lock().get(name).map(|slot| slot.home.clone())
    }

    /// How often `name` was started.
    pub(crate) fn lives(&self, name: &str) -> u64 {
        self.lock().get(name).map_or(0, |slot| slot.lives)
    }

    /// True when somebody has put `name` down, or stopped it.
    pub(crate) fn is_off(&self, name: &str) -> bool {
        let slots = self.lock();
        slots.get(name).is_none_or(|slot| slot.power != Power::On)
    }

    /// What each running node says of the cluster, if it answers.
    pub(crate) async fn words(&self) -> Vec<(String, ClusterAnswer)> {
        let asked = self.running().into_iter().map(|name| async move {
            let endpoint = self.endpoint(&name)?;
            let answer = self.asks.cluster_at(&endpoint).await.ok()?;
            Some((name, answer))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The node that says of itself that it leads, with the highest term.
    pub(crate) async fn leader(&self) -> Option<String> {
        let words = self.words().await;
        let leading = words.into_iter().filter(|(_, one)| one.leader == one.id);
        leading
            .max_by_key(|(_, one)| one.term)
            .map(|(name, _)| name)
    }

    /// Starts the process of `name`, unless it runs.
    pub(crate) fn up(&self, name: &str) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(name).filter(|slot| slot.power == Power::Off) else {
            return;
        };
        slot.power = Power::On;
        slot.again_at = None;
        slot.lives += 1;
        if slot.lives > 1 {
            self.story.line(self.clock.now(), name, "is started");
        }
        match spawn(&self.program, slot) {
            Ok(process) => slot.process = Some(process),
            Err(error) => self
                .story
                .fail(format!("{name} cannot be started: {error:#}")),
        }
    }

    /// Ends the process of `name`; a power loss counts as a kill.
    pub(crate) async fn down(&self, name: &str, how: Crash) {
        let process = self.take(name, how);
        let Some(mut process) = process.filter(|_| how == Crash::Stop) else {
            return;
        };
        match self.stop_in_order(&mut process).await {
            Some(status) if status.success() => self.story.probe("an orderly stop ended by itself"),
            Some(status) => {
                let what = format!("{name} was told to stop: {status}");
                self.story.fail(what);
            }
            None => {
                let what = format!("{name} did not stop within {STOP_MAX:?}");
                self.story.fail(what);
            }
        }
    }

    /// Takes the process of `name` out, to be ended: dropping it is a kill.
    fn take(&self, name: &str, how: Crash) -> Option<Process> {
        let mut slots = self.lock();
        let slot = slots.get_mut(name)?;
        slot.power = Power::Off;
        let words = match how {
            Crash::PowerLoss if slot.is_worker => "LOSES POWER (killed with all its tasks)",
            Crash::Kill | Crash::PowerLoss => "is KILLED (kill -9)",
            Crash::Stop => "is told to stop (SIGTERM)",
        };
        self.story.line(self.clock.now(), name, words);
        slot.process.take()
    }

    /// Tells a process to stop, and waits for a while until it has.
    async fn stop_in_order(&self, process: &mut Process) -> Option<ExitStatus> {
        process.tell(Signal::TERM);
        let end = self.clock.now() + STOP_MAX;
        while self.clock.now() < end {
            if let Some(status) = process.ended() {
                return Some(status);
            }
            tokio::time::sleep(STOP_LOOK).await;
        }
        None
    }

    /// Stops the process of `name` by a signal; it goes on with [`Cluster::resume`].
    pub(crate) fn pause(&self, name: &str) {
        self.signal(
            name,
            Power::On,
            Power::Paused,
            Signal::STOP,
            "is STOPPED (SIGSTOP)",
        );
    }

    /// Lets a stopped process go on.
    pub(crate) fn resume(&self, name: &str) {
        self.signal(
            name,
            Power::Paused,
            Power::On,
            Signal::CONT,
            "goes on (SIGCONT)",
        );
    }

    /// Sends a signal that makes of one power another.
    fn signal(&self, name: &str, from: Power, to: Power, signal: Signal, words: &str) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(name).filter(|slot| slot.power == from) else {
            return;
        };
        slot.power = to;
        self.story.line(self.clock.now(), name, words);
        if let Some(process) = &slot.process {
            process.tell(signal);
        }
    }

    /// Starts processes that ended by themselves again after a moment, and says that they did.
    pub(crate) fn supervise(&self) {
        let now = self.clock.now();
        let (mut ended, mut due) = (Vec::new(), Vec::new());
        for (name, slot) in self.lock().iter_mut() {
            let process = slot.process.as_mut().filter(|_| slot.power == Power::On);
            if let Some(status) = process.and_then(Process::ended) {
                slot.process = None;
                slot.power = Power::Off;
                slot.again_at = Some(now + RESTART_AFTER);
                ended.push((name.clone(), status));
            }
            if slot.again_at.is_some_and(|at| at <= now) {
                due.push(name.clone());
            }
        }
        for (name, status) in ended {
            self.story
                .fail(format!("{name} has ended by itself: {status}"));
        }
        due.iter().for_each(|name| self.up(name));
    }

    /// Lets everything go on and starts everything that is down.
    pub(crate) fn heal(&self) {
        for name in self.named(|_| true) {
            self.resume(&name);
            self.up(&name);
        }
    }

    /// Ends all processes at once and without a word; nobody starts them again.
    pub(crate) fn abandon(&self) {
        for slot in self.lock().values_mut() {
            slot.power = Power::Off;
            slot.again_at = None;
            slot.process = None;
        }
    }

    /// Ends all nodes in order, at the same time.
    pub(crate) async fn end(&self) {
        let names = self.named(|slot| slot.power == Power::On);
        let on = names.iter();
        join_all(on.map(|name| self.down(name, Crash::Stop))).await;
    }

    /// What all nodes wrote into their logs, in order of time.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let mut marks = Vec::new();
        for name in self.names() {
            let log = self.home(&name).map(|home| home.join("log"));
            let text = log.and_then(|log| fs::read(log).ok()).unwrap_or_default();
            // A kill can tear a line, also within a character.
            marks.extend(journal::read(
                &name,
                &String::from_utf8_lossy(&text),
                &self.clock,
            ));
        }
        marks.sort_by_key(|mark| mark.at);
        marks
    }

    /// Says why nodes do not agree.
    pub(crate) async fn disagreement(&self) -> String {
        let words = self.words().await;
        let say = |name: &String| match words.iter().find(|(place, _)| place == name) {
            None => format!("{name} does not answer"),
            Some((_, one)) => format!(
                "{name}: term {}, leader {}, applied {} of {}, {} members",
                one.term,
                one.leader,
                one.applied_index,
                one.commit_index,
                one.members.len()
            ),
        };
        self.names().iter().map(say).collect::<Vec<_>>().join("; ")
    }

    /// Whether all nodes answer, know one leader, are voters, and stand at the same entry.
    pub(crate) async fn agrees(&self) -> bool {
        let (words, nodes) = (self.words().await, self.names().len());
        let Some((_, first)) = words.first() else {
            return false;
        };
        words.len() == nodes
            && first.leader.0 != 0
            && words.iter().all(|(_, one)| {
                one.leader == first.leader
                    && one.term == first.term
                    && one.applied_index == first.applied_index
                    && one.applied_index == one.commit_index
                    && one.members.len() == nodes
                    && one
                        .members
                        .iter()
                        .all(|member| member.role != Role::Learner)
            })
    }
}

/// A new folder for one node.
fn new_home(dir: &Path, name: &str) -> Result<PathBuf> {
    let home = dir.join(name);
    fs::create_dir(&home).with_context(|| format!("creating {}", home.display()))?;
    Ok(home)
}

/// Starts the program of a node; what it says goes to the end of `log` in its home.
fn spawn(program: &Path, slot: &Slot) -> Result<Process> {
    let log = File::options()
        .append(true)
        .create(true)
        .open(slot.home.join("log"))?;
    Command::new("/bin/sh")
        .args(["-c", TIED, "sh"])
        .arg(program)
        .args(&slot.words)
        // `SEAWORTHY_` variables are settings of the node, and whoever runs this may have some.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map(Process)
        .with_context(|| program.display().to_string())
}
