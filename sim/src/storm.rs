//! The storm: carries out the steps of a plan, each at its time, and clears up after them. What it does to disks is in [`disks`].

mod disks;

use crate::cluster::Cluster;
use crate::crew::worker::rack;
use crate::newcomer;
use crate::plan::{Plan, PlannedStep, seconds};
use crate::timeline::BandKind;
use crate::trace::Level;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use scenarios::{Action, Crash, Cut, Flow, Moment, Who};
use simdisk::{CrashMode, Fault, OpKind, Rule, Stall, disk};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest wait of a step for its moment.
const MOMENT_MAX: Duration = Duration::from_secs(10);
/// How often a step that waits for its moment looks.
const MOMENT_LOOK: Duration = Duration::from_millis(1);
/// How long a power loss waits for a sync to fail in.
const SYNC_WAIT: Duration = Duration::from_millis(60);

/// When labelled steps happened and ended.
#[derive(Clone, Debug, Default)]
pub struct Happened {
    /// Start and end of each label, virtual time; the end is the start for things that do not last.
    pub labels: BTreeMap<String, (Duration, Duration)>,
    /// Commands that operators ran: line, exit code, output.
    pub commands: Vec<CommandRun>,
    /// Begin and end of each step that breaks something.
    pub faults: Vec<(Duration, Duration)>,
    /// True when a promise was destroyed (a disk wiped or rotten).
    pub destroyed: bool,
}

/// One command of an operator.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct CommandRun {
    /// When, since the start of the part under faults, milliseconds.
    pub at_ms: u64,
    /// The line, without the program's name.
    pub line: String,
    /// Exit code.
    pub exit: u8,
    /// How long it took, milliseconds.
    #[serde(default)]
    pub took_ms: f64,
    /// What it printed.
    pub output: String,
}

/// The storm of one run.
#[derive(Clone)]
pub struct Storm {
    cluster: Cluster,
    /// What has happened.
    happened: Arc<Mutex<Happened>>,
    /// Chance inside steps.
    rng: Arc<Mutex<ChaCha8Rng>>,
}

impl Storm {
    /// A storm over `cluster`.
    pub fn new(cluster: Cluster) -> Self {
        let rng = cluster.world.rngs().stream("storm");
        Storm {
            cluster,
            happened: Arc::default(),
            rng: Arc::new(Mutex::new(rng)),
        }
    }

    /// What has happened so far.
    pub fn happened(&self) -> Happened {
        self.with_happened(|happened| happened.clone())
    }

    fn with_happened<T>(&self, look: impl FnOnce(&mut Happened) -> T) -> T {
        look(
            &mut self
                .happened
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    fn chance<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(
            &mut self
                .rng
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    /// Carries out all steps of `plan`, which began at `start`.
    pub async fn rage(&self, plan: &Plan, start: Duration) {
        let mut under_way = Vec::new();
        for step in &plan.steps {
            let wait = (start + step.at).saturating_sub(self.cluster.recorder.now());
            madsim::time::sleep(wait).await;
            let (storm, step) = (self.clone(), step.clone());
            under_way.push(madsim::task::spawn(
                async move { storm.act(&step, start).await },
            ));
        }
        let wait = (start + plan.duration).saturating_sub(self.cluster.recorder.now());
        madsim::time::sleep(wait).await;
        for step in under_way {
            // A step that panicked has ended the simulation already.
            step.await.ok();
        }
    }

    /// One step, from its beginning to its end.
    async fn act(&self, planned: &PlannedStep, start: Duration) {
        if let Some(moment) = planned.step.when
            && !self.wait_for(moment).await
        {
            return;
        }
        if planned.is_destructive() && !self.may_destroy() {
            return;
        }
        self.cluster
            .recorder
            .line("storm", Level::Story, format!("— {}", planned.step.text));
        let label = planned.step.label.clone();
        let begin = self.cluster.recorder.now();
        self.note(label.as_deref(), begin, begin);
        self.carry_out(planned, start).await;
        let end = self.cluster.recorder.now();
        self.note(label.as_deref(), begin, end);
        if matches!(
            planned.step.action,
            Action::Crash { .. } | Action::Wipe { .. }
        ) {
            crate::crew::secrets::look_at_disks(&self.cluster);
        }
        if !matches!(
            planned.step.action,
            Action::Command { .. } | Action::Order { .. }
        ) {
            self.with_happened(|happened| happened.faults.push((begin, end)));
        }
    }

    /// Waits for `moment`; false when it does not come.
    async fn wait_for(&self, moment: Moment) -> bool {
        let recorder = &self.cluster.recorder;
        let end = recorder.now() + MOMENT_MAX;
        loop {
            let now_is = match moment {
                Moment::VoterRemoved => recorder.read(|marks| marks.rare.voter_is_being_replaced()),
                Moment::ManagerLearns => recorder.read(|marks| marks.rare.learner_catches_up()),
                Moment::ManagerAdmitted => self.cluster.manager_waits(),
            };
            if now_is || recorder.now() >= end {
                return now_is;
            }
            madsim::time::sleep(MOMENT_LOOK).await;
        }
    }

    /// Only one promise may be destroyed in a run: what a majority acknowledged must stay on a majority that is whole.
    fn may_destroy(&self) -> bool {
        self.with_happened(|happened| !std::mem::replace(&mut happened.destroyed, true))
    }

    fn note(&self, label: Option<&str>, begin: Duration, end: Duration) {
        if let Some(label) = label {
            self.with_happened(|happened| {
                happened.labels.insert(label.to_owned(), (begin, end));
            });
        }
    }

    /// What a step does.
    async fn carry_out(&self, planned: &PlannedStep, start: Duration) {
        let span = |span, share: usize| seconds(span, planned.shares[share]);
        match &planned.step.action {
            Action::Crash { who, how, down_s } => {
                let how = *planned.pick(how, 0);
                self.crash(self.who(who), how, span(down_s, 1)).await;
            }
            Action::Partition { cut, flow, for_s } => {
                let (cut, flow) = (*planned.pick(cut, 0), *planned.pick(flow, 1));
                self.partition(cut, flow, span(for_s, 2)).await;
            }
            Action::DiskStall { who, for_s } => self.stall(self.who(who), span(for_s, 0)).await,
            Action::DiskSlow { who, factor, for_s } => {
                self.slow(self.who(who), factor.at(planned.shares[0]), span(for_s, 1))
                    .await;
            }
            Action::DiskSyncError { who, down_s } => {
                self.sync_error(self.who(who), span(down_s, 0)).await;
            }
            Action::DiskFull {
                who,
                left_kb,
                for_s,
            } => {
                let left_kb = left_kb.at(planned.shares[1]);
                self.fill(self.who(who), left_kb, span(for_s, 0)).await;
            }
            Action::StoreDamage { who } => self.damage_store(self.who(who)).await,
            Action::LogRot { who, down_s } => self.rot(self.who(who), span(down_s, 0)).await,
            Action::Wipe { who, down_s } => self.wipe(self.who(who), span(down_s, 0)).await,
            Action::ClockDrift { who, ppm } => self.drift(self.who(who), ppm),
            Action::ClockJump { who, by_s } => {
                #[expect(clippy::cast_possible_truncation, reason = "days in milliseconds fit")]
                let by_ms = (by_s.at(planned.shares[0]) * 1_000.0) as i64;
                for name in self.who(who) {
                    self.strike(&name, BandKind::Clock, Duration::ZERO, "clock jumps");
                    self.tell(&name, format!("its wall clock jumps by {by_ms} ms"));
                    self.cluster.world.clocks.jump_wall(&name, by_ms);
                }
            }
            Action::ClockFreeze { who, for_s } => {
                for name in self.who(who) {
                    let frozen = span(for_s, 0);
                    self.strike(&name, BandKind::Clock, frozen, "clock stands still");
                    self.tell(
                        &name,
                        format!("its wall clock stands still for {} ms", frozen.as_millis()),
                    );
                    self.cluster.world.clocks.freeze_wall(&name, frozen);
                }
            }
            Action::Pause { who, for_s } => self.pause(self.who(who), span(for_s, 0)).await,
            Action::CutOff {
                who,
                from,
                flow,
                for_s,
            } => {
                let (who, mut from, flow) = (self.who(who), self.who(from), *planned.pick(flow, 0));
                from.retain(|name| !who.contains(name));
                self.cut(vec![who, from], flow, span(for_s, 1)).await;
            }
            Action::TableFull { who, for_s } => {
                self.fill_tables(self.who(who), span(for_s, 0)).await;
            }
            Action::ExecutorFails { who, for_s } => {
                let span = span(for_s, 0);
                for name in self.who(who) {
                    self.tell(
                        &name,
                        format!("cannot start tasks for {} ms", span.as_millis()),
                    );
                    if let Some(machine) = self.cluster.machine(&name) {
                        machine.fails_until(self.cluster.recorder.now() + span);
                    }
                }
                madsim::time::sleep(span).await;
            }
            Action::Order { command } => {
                let command = crate::crew::named(command, |who| self.who(who));
                crate::crew::order(&self.cluster, command).await;
            }
            Action::AddManager { token, for_s } => {
                let shown = *planned.pick(token, 0);
                newcomer::add(&self.cluster, shown, span(for_s, 1)).await;
            }
            Action::RemoveManager { who } => {
                for name in self.who(who) {
                    newcomer::remove(&self.cluster, &name).await;
                }
            }
            Action::Transfer => self.command("cluster transfer", None, start).await,
            Action::Command { line, exit } => self.command(line, *exit, start).await,
        }
    }

    fn tell(&self, name: &str, what: String) {
        self.cluster.recorder.line(name, Level::Story, what);
    }

    /// Shows the picture that something of `name` is broken from now on for `span`.
    fn strike(&self, name: &str, kind: BandKind, span: Duration, words: &str) {
        let now = self.cluster.recorder.now();
        self.cluster
            .recorder
            .band(name, kind, (now, now + span), words);
    }

    /// The nodes that a step is about, now.
    fn who(&self, who: &Who) -> Vec<String> {
        let all = self.cluster.names();
        let up = self.cluster.running();
        let pool = if up.is_empty() {
            all.clone()
        } else {
            up.clone()
        };
        let leader = self.cluster.leader();
        let any = || self.chance(|rng| pool[rng.random_range(0..pool.len())].clone());
        let shuffled = || {
            let mut list = all.clone();
            self.chance(|rng| list.shuffle(rng));
            list
        };
        match who {
            Who::Leader => vec![leader.unwrap_or_else(any)],
            Who::Any => vec![any()],
            Who::Follower => {
                let others: Vec<&String> = pool
                    .iter()
                    .filter(|name| Some(*name) != leader.as_ref())
                    .collect();
                if others.is_empty() {
                    return vec![any()];
                }
                vec![self.chance(|rng| others[rng.random_range(0..others.len())].clone())]
            }
            Who::Minority => shuffled().into_iter().take((all.len() - 1) / 2).collect(),
            Who::Majority => {
                let mut list = shuffled();
                if let Some(place) = list.iter().position(|name| Some(name) == leader.as_ref()) {
                    list.swap(0, place);
                }
                list.into_iter().take(all.len() / 2 + 1).collect()
            }
            Who::All => all,
            Who::Newest => {
                let newest = self.cluster.newcomers.newest();
                newest
                    .into_iter()
                    .filter(|name| all.contains(name))
                    .collect()
            }
            Who::LeaderSide | Who::FollowerSide => {
                let mut side = match who {
                    Who::LeaderSide => self.who(&Who::Leader),
                    _ => self.who(&Who::Follower),
                };
                side.extend(self.workers(&Who::SomeWorkers));
                side
            }
            Who::Everybody => self.cluster.everybody(),
            Who::Rack(number) => rack(self.cluster.everybody(), *number),
            Who::ManagersAndRack(number) => {
                let workers = rack(self.cluster.workers(), *number);
                all.into_iter().chain(workers).collect()
            }
            of_workers => self.workers(of_workers),
        }
    }

    /// The workers that a step is about, now.
    fn workers(&self, who: &Who) -> Vec<String> {
        let mut all = self.cluster.workers();
        match who {
            Who::AllWorkers => return all,
            Who::Worker(number) => all.retain(|name| *name == format!("w{number}")),
            Who::WorkerOf(service) => {
                let runs = self.cluster.ledger.runs();
                let mut there = runs
                    .iter()
                    .filter(|run| run.to.is_none() && run.service == *service);
                if let Some(run) = there.next() {
                    all.retain(|name| *name == run.host);
                }
            }
            _ => {}
        }
        self.chance(|rng| all.shuffle(rng));
        let many = match who {
            Who::SomeWorkers => (all.len().saturating_sub(1) / 2).max(1),
            _ => 1,
        };
        all.truncate(many);
        all
    }

    /// Processes end and come back, each at its own pace within the time.
    async fn crash(&self, names: Vec<String>, how: Crash, down: Duration) {
        let mut ends = Vec::new();
        for name in names {
            let (cluster, many) = (self.cluster.clone(), self.clone());
            let mode = self.chance(|rng| CrashMode::ALL[rng.random_range(0..CrashMode::ALL.len())]);
            let share = self.chance(|rng| rng.random_range(0.5..1.0));
            let in_a_sync = self.chance(|rng| rng.random_bool(0.5));
            ends.push(madsim::task::spawn(async move {
                if cluster.is_off(&name) {
                    return;
                }
                cluster
                    .recorder
                    .sometimes(probe_of(how, cluster.machine(&name).is_some()));
                if how == Crash::PowerLoss && in_a_sync && !cluster.is_planted() {
                    many.fail_in_a_sync(&name, mode).await;
                }
                if cluster.manager_waits() && cluster.leader().as_ref() == Some(&name) {
                    let probe = "the leader died between a manager's admission and its membership";
                    cluster.recorder.sometimes(probe);
                }
                cluster.down(&name, how, mode).await;
                madsim::time::sleep(down.mul_f64(share)).await;
                many.cluster.up(&name);
            }));
        }
        for end in ends {
            end.await.ok();
        }
    }

    /// The power of `name` fails in the middle of the next sync of its log, if there is one soon. Storage work is atomic in
    /// virtual time, so at any other moment everything that was written is synced, and no log would ever end torn.
    async fn fail_in_a_sync(&self, name: &str, mode: CrashMode) {
        disk(name).inject(Rule::once(OpKind::Sync, "/wal/", Fault::Crash(mode)));
        let end = self.cluster.recorder.now() + SYNC_WAIT;
        while self.cluster.recorder.now() < end && !disk(name).is_down() {
            madsim::time::sleep(Duration::from_millis(1)).await;
        }
        disk(name).clear_faults();
    }

    /// The network is cut for a while.
    async fn partition(&self, cut: Cut, flow: Flow, span: Duration) {
        self.cut(self.sides(cut), flow, span).await;
    }

    /// Nothing goes from one of these sides to another for a while.
    async fn cut(&self, sides: Vec<Vec<String>>, flow: Flow, span: Duration) {
        let text: Vec<String> = sides.iter().map(|side| side.join("+")).collect();
        self.cluster.recorder.line(
            "net",
            Level::Story,
            format!("CUT {} ({})", text.join(" | "), flow_words(flow)),
        );
        self.cluster.recorder.sometimes("the network was cut");
        let words = match flow {
            Flow::Symmetric => format!("cut: {}", text.join(" | ")),
            Flow::Outbound => format!("{} unheard by {}", text[0], text[1..].join(", ")),
            Flow::Inbound => format!("{} cannot hear {}", text[0], text[1..].join(", ")),
        };
        self.strike("net", BandKind::Cut, span, &words);
        let network = &self.cluster.world.network;
        let mut blocked = Vec::new();
        for (place, side) in sides.iter().enumerate() {
            for other in sides.iter().skip(place + 1) {
                for a in side {
                    for b in other {
                        if flow != Flow::Inbound {
                            blocked.push((a.clone(), b.clone()));
                        }
                        if flow != Flow::Outbound {
                            blocked.push((b.clone(), a.clone()));
                        }
                    }
                }
            }
        }
        for (from, to) in &blocked {
            network.block(from, to);
        }
        madsim::time::sleep(span).await;
        for (from, to) in &blocked {
            network.unblock(from, to);
        }
        self.cluster
            .recorder
            .line("net", Level::Story, "is whole again");
    }

    /// The sides of a cut.
    fn sides(&self, cut: Cut) -> Vec<Vec<String>> {
        let mut all = self.cluster.names();
        self.chance(|rng| all.shuffle(rng));
        let leader = self.cluster.leader();
        if let Some(place) = all.iter().position(|name| Some(name) == leader.as_ref()) {
            all.swap(0, place);
        }
        let minority = (all.len() - 1) / 2;
        let first = match cut {
            Cut::Shattered => return all.into_iter().map(|name| vec![name]).collect(),
            Cut::LeaderAlone => 1,
            Cut::LeaderInMinority => minority,
            Cut::LeaderInMajority => all.len() - minority,
            Cut::Random => {
                self.chance(|rng| all.shuffle(rng));
                self.chance(|rng| rng.random_range(1..all.len()))
            }
        };
        let rest = all.split_off(first);
        vec![all, rest]
    }

    /// Clocks drift, each its own way.
    fn drift(&self, names: Vec<String>, ppm: &scenarios::Span) {
        for name in names {
            let share = self.chance(|rng| rng.random());
            #[expect(
                clippy::cast_possible_truncation,
                reason = "parts per million are small"
            )]
            let ppm = ppm.at(share) as i64;
            self.strike(
                &name,
                BandKind::Clock,
                Duration::ZERO,
                &format!("drift {ppm} ppm"),
            );
            self.tell(&name, format!("its clocks drift by {ppm} ppm"));
            self.cluster.world.clocks.set_drift(&name, ppm);
        }
    }

    /// Machines take no new connections for a while.
    async fn fill_tables(&self, names: Vec<String>, span: Duration) {
        let network = &self.cluster.world.network;
        for name in &names {
            let words = "takes no new connections: its table of connections is full";
            self.tell(name, words.to_owned());
            self.strike(name, BandKind::Cut, span, words);
            self.cluster
                .recorder
                .sometimes("a table of connections was full");
            network.fill_table(name);
        }
        madsim::time::sleep(span).await;
        for name in &names {
            network.empty_table(name);
            self.tell(name, "takes connections again".to_owned());
        }
    }

    /// Processes are stopped and go on.
    async fn pause(&self, names: Vec<String>, span: Duration) {
        for name in &names {
            self.cluster.recorder.sometimes("a process was paused");
            self.cluster.pause(name);
        }
        madsim::time::sleep(span).await;
        for name in &names {
            self.cluster.resume(name);
        }
    }

    /// An operator types a command at a machine of his own.
    async fn command(&self, line: &str, exit: Option<u8>, start: Duration) {
        let at = self.cluster.recorder.now().saturating_sub(start);
        let asked = self.cluster.recorder.now();
        let (code, output) = crate::operator::run(&self.cluster, line).await;
        let took = self.cluster.recorder.now() - asked;
        self.cluster.recorder.line(
            "operator",
            Level::Story,
            format!("$ seaworthy {line}  -> exit {code}"),
        );
        self.cluster.recorder.sometimes("an operator's command ran");
        if let Some(right) = exit.filter(|right| *right != code) {
            self.cluster.recorder.fail(format!(
                "`seaworthy {line}` ended with exit code {code} instead of {right}:\n{output}"
            ));
        }
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let run = CommandRun {
            at_ms,
            line: line.to_owned(),
            exit: code,
            took_ms: took.as_secs_f64() * 1e3,
            output,
        };
        self.with_happened(|happened| happened.commands.push(run));
    }

    /// Ends all faults and starts everything that is down.
    pub fn heal(&self) {
        let network = &self.cluster.world.network;
        network.heal_all();
        network.calm_all();
        self.cluster
            .recorder
            .line("storm", Level::Story, "— The storm is over.");
        for name in self.cluster.everybody() {
            let disk = disk(&name);
            disk.clear_faults();
            disk.stall_until(Stall::Everything, 0);
            disk.slow_down(1, 0);
            self.cluster.hold(&name, Duration::ZERO);
            self.cluster.resume(&name);
            if self.cluster.is_off(&name) {
                self.cluster.up(&name);
            }
            if let Some(machine) = self.cluster.machine(&name) {
                machine.fails_until(Duration::ZERO);
            }
        }
    }
}

/// The probe of a way to end.
fn probe_of(how: Crash, is_worker: bool) -> &'static str {
    match how {
        Crash::PowerLoss if is_worker => "a worker lost power",
        Crash::Kill if is_worker => "a worker was killed",
        Crash::Stop if is_worker => "a worker was told to stop",
        Crash::PowerLoss => "a node lost power",
        Crash::Kill => "a node was killed",
        Crash::Stop => "a node was told to stop",
    }
}

/// A cut's directions in words; the first side is named first.
fn flow_words(flow: Flow) -> &'static str {
    match flow {
        Flow::Symmetric => "both directions",
        Flow::Outbound => "the first side cannot send",
        Flow::Inbound => "the first side cannot hear",
    }
}

/// Virtual time as the disk counts it.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
