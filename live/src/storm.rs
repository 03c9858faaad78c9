//! The storm: carries out the steps of a plan on real processes, each at its time, and clears up after them.

use crate::cluster::Cluster;
use crate::crew::Crew;
use crate::plan::{Plan, is_workers, left_out, possible_ends, stream};
use futures::future::join_all;
use node::types::Role;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use scenarios::{Action, Crash, Flow, Moment, Span, Who};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use workloads::draw::{PlannedStep, seconds};

/// Longest wait of a step for its moment.
const MOMENT_MAX: Duration = Duration::from_secs(10);
/// How often a step that waits for its moment looks: such a moment lasts for some ten milliseconds.
const MOMENT_LOOK: Duration = Duration::from_millis(2);
/// How long a node whose store is damaged stays down.
const DAMAGE_DOWN: Duration = Duration::from_millis(100);

/// When labelled steps happened and ended, on the run's clock.
pub(crate) type Labels = BTreeMap<String, (Duration, Duration)>;

/// What has happened so far.
#[derive(Default)]
struct Happened {
    /// Labelled steps.
    labels: Labels,
    /// From when to when something was broken.
    faults: Vec<(Duration, Duration)>,
    /// True when a promise was destroyed (a disk wiped).
    destroyed: bool,
}

/// The storm of one run. A clone is the same storm.
#[derive(Clone)]
pub(crate) struct Storm {
    /// Whom it strikes.
    cluster: Cluster,
    /// Workers and services, if the run has any.
    crew: Option<Crew>,
    /// What has happened.
    happened: Arc<Mutex<Happened>>,
    /// Chance inside steps.
    rng: Arc<Mutex<ChaCha8Rng>>,
}

impl Storm {
    /// A storm over `cluster` and `crew`.
    pub(crate) fn new(cluster: Cluster, crew: Option<Crew>, seed: u64) -> Self {
        Storm {
            cluster,
            crew,
            happened: Arc::default(),
            rng: Arc::new(Mutex::new(stream(seed, b"thestorm"))),
        }
    }

    /// Labelled steps that have happened.
    pub(crate) fn labels(&self) -> Labels {
        self.with_happened(|happened| happened.labels.clone())
    }

    /// From when to when something was broken.
    pub(crate) fn faults(&self) -> Vec<(Duration, Duration)> {
        self.with_happened(|happened| happened.faults.clone())
    }

    fn with_happened<T>(&self, look: impl FnOnce(&mut Happened) -> T) -> T {
        look(&mut self.happened.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn chance<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Duration {
        self.cluster.clock.now()
    }

    /// Carries out all steps of `plan`, which began at `start`; then everybody is let go on and started.
    pub(crate) async fn rage(&self, plan: &Plan, start: Duration) {
        let steps = plan.steps.iter().map(|step| self.at_its_time(step, start));
        let length = (start + plan.duration).saturating_sub(self.now());
        let whole = tokio::time::sleep(length);
        futures::future::join(join_all(steps), whole).await;
        self.tell("storm", "— The storm is over.");
        if let Some(crew) = &self.crew {
            let workers = self.cluster.workers();
            workers
                .iter()
                .for_each(|one| crew.scribe.power_is_back(one));
            crew.gates.iter().for_each(|gates| gates.heal_all());
        }
        self.cluster.heal();
    }

    /// One step, from its beginning to its end.
    async fn at_its_time(&self, planned: &PlannedStep, start: Duration) {
        let wait = (start + planned.at).saturating_sub(self.now());
        tokio::time::sleep(wait).await;
        if left_out(planned).is_some() {
            return;
        }
        if let Some(moment) = planned.step.when
            && !self.wait_for(moment).await
        {
            return;
        }
        if planned.is_destructive() && !self.may_destroy() {
            return;
        }
        self.tell("storm", &format!("— {}", planned.step.text));
        let begin = self.now();
        self.carry_out(planned).await;
        let is_calm = matches!(
            planned.step.action,
            Action::Command { .. } | Action::Order { .. }
        );
        if !is_calm {
            let end = self.now();
            self.with_happened(|happened| happened.faults.push((begin, end)));
        }
        if let Some(label) = planned.step.label.clone() {
            let end = self.now();
            self.with_happened(|happened| happened.labels.insert(label, (begin, end)));
        }
    }

    /// Waits for `moment`, as far as nodes' answers show it; false when it does not come.
    async fn wait_for(&self, moment: Moment) -> bool {
        let end = self.now() + MOMENT_MAX;
        while self.now() < end {
            let words = self.cluster.words().await;
            let now_is = match moment {
                Moment::VoterRemoved => words.iter().any(|(_, one)| {
                    let learners = one
                        .members
                        .iter()
                        .filter(|member| member.role == Role::Learner);
                    learners.count() > 0 && one.members.len() == self.cluster.names().len()
                }),
                other => {
                    unreachable!("a plan that waits for {other:?} is refused before it begins")
                }
            };
            if now_is {
                return true;
            }
            tokio::time::sleep(MOMENT_LOOK).await;
        }
        false
    }

    /// Only one promise may be destroyed in a run: what a majority acknowledged must stay on a majority that is whole.
    fn may_destroy(&self) -> bool {
        self.with_happened(|happened| !std::mem::replace(&mut happened.destroyed, true))
    }

    fn tell(&self, place: &str, what: &str) {
        self.cluster.story.line(self.now(), place, what);
    }

    /// What a step does. What is not possible was refused with the plan.
    async fn carry_out(&self, planned: &PlannedStep) {
        let span = |span: &Span, share: usize| seconds(span, planned.shares[share]);
        match &planned.step.action {
            Action::Crash { who, how, down_s } => {
                let how = *planned.pick(&possible_ends(who, how), 0);
                self.crash(self.who(who).await, how, span(down_s, 1)).await;
            }
            Action::Pause { who, for_s } => self.pause(self.who(who).await, span(for_s, 0)).await,
            Action::StoreDamage { who } => self.damage_store(self.who(who).await).await,
            Action::Wipe { who, down_s } => self.wipe(self.who(who).await, span(down_s, 0)).await,
            Action::CutOff {
                who, flow, for_s, ..
            } => {
                let flow = *planned.pick(flow, 0);
                self.cut_off(self.who(who).await, flow, span(for_s, 1))
                    .await;
            }
            Action::Order { command } => self.order(command).await,
            Action::Transfer => self.command("cluster transfer", None).await,
            Action::Command { line, exit } => self.command(line, *exit).await,
            other => unreachable!("a plan with {other:?} is refused before it begins"),
        }
    }

    /// The nodes that a step is about, now.
    async fn who(&self, who: &Who) -> Vec<String> {
        if is_workers(who) {
            return self.workers(who);
        }
        let all = self.cluster.names();
        let up = self.cluster.running();
        let pool = if up.is_empty() { all.clone() } else { up };
        let leader = self.cluster.leader().await;
        let one_of = |from: &[String]| {
            let place = self.chance(|rng| rng.random_range(0..from.len()));
            vec![from[place].clone()]
        };
        let mut shuffled = all.clone();
        self.chance(|rng| shuffled.shuffle(rng));
        match who {
            Who::Leader => leader.map_or_else(|| one_of(&pool), |leader| vec![leader]),
            Who::Follower => {
                let mut others = pool.clone();
                others.retain(|name| Some(name) != leader.as_ref());
                one_of(if others.is_empty() { &pool } else { &others })
            }
            Who::Minority => shuffled.into_iter().take((all.len() - 1) / 2).collect(),
            Who::Majority => {
                // The leader first.
                shuffled.sort_by_key(|name| Some(name) != leader.as_ref());
                shuffled.into_iter().take(all.len() / 2 + 1).collect()
            }
            Who::All => all,
            _ => one_of(&pool),
        }
    }

    /// The workers that a step is about, now.
    fn workers(&self, who: &Who) -> Vec<String> {
        let mut all = self.cluster.workers();
        let runs = self.crew.as_ref().map(|crew| crew.scribe.runs());
        match who {
            Who::AllWorkers => return all,
            Who::Worker(number) => all.retain(|name| *name == format!("w{number}")),
            Who::WorkerOf(service) => {
                let runs = runs.unwrap_or_default();
                let mut there = runs.iter().filter(|run| run.to.is_none());
                if let Some(run) = there.find(|run| run.service == *service) {
                    all.retain(|name| *name == run.host);
                }
            }
            _ => {}
        }
        self.chance(|rng| all.shuffle(rng));
        all.truncate(match who {
            Who::SomeWorkers => (all.len().saturating_sub(1) / 2).max(1),
            _ => 1,
        });
        all
    }

    /// Workers hear nothing of managers, or managers nothing of them, or both.
    async fn cut_off(&self, names: Vec<String>, flow: Flow, span: Duration) {
        let Some(gates) = self.crew.as_ref().and_then(|crew| crew.gates.as_ref()) else {
            return self
                .cluster
                .story
                .fail("there is no gate to close".to_owned());
        };
        for name in &names {
            let words = match flow {
                Flow::Symmetric => "is CUT OFF from all managers",
                Flow::Outbound => "is CUT OFF: no manager hears it",
                Flow::Inbound => "is CUT OFF: it hears no manager",
            };
            self.tell(name, words);
            self.cluster.story.probe("a worker was cut off");
            gates.cut(name, flow);
        }
        tokio::time::sleep(span).await;
        for name in &names {
            self.tell(name, "is reached again");
            gates.heal(name);
        }
    }

    /// Something is wanted of the cluster.
    async fn order(&self, table: &toml::Table) {
        let Some(crew) = &self.crew else {
            return self
                .cluster
                .story
                .fail("there is no crew to order".to_owned());
        };
        match table.clone().try_into() {
            Ok(command) => crew.command(&command).await,
            Err(error) => {
                let why = format!("an order cannot be read: {error}");
                self.cluster.story.fail(why);
            }
        }
    }

    /// Ends one process; a worker's machine that loses power takes its tasks with it.
    async fn strike(&self, name: &str, how: Crash) {
        let is_worker = self.cluster.workers().iter().any(|one| one == name);
        self.cluster.story.probe(match (how, is_worker) {
            (Crash::PowerLoss, true) => "a worker lost power",
            (Crash::Kill, true) => "a worker was killed",
            (Crash::Stop, true) => "a worker was told to stop",
            (Crash::Stop, false) => "a node was told to stop",
            (_, false) => "a node was killed",
        });
        self.cluster.down(name, how).await;
        if let Some(crew) = self.crew.as_ref().filter(|_| is_worker)
            && how == Crash::PowerLoss
        {
            crew.scribe.power_is_lost(name);
        }
    }

    /// Processes end and come back, each at its own pace within the time.
    async fn crash(&self, names: Vec<String>, how: Crash, down: Duration) {
        let each = names.iter().map(|name| async move {
            if self.cluster.is_off(name) {
                return;
            }
            let share = self.chance(|rng| rng.random_range(0.5..1.0));
            self.strike(name, how).await;
            tokio::time::sleep(down.mul_f64(share)).await;
            if let Some(crew) = &self.crew {
                crew.scribe.power_is_back(name);
            }
            self.cluster.up(name);
        });
        join_all(each).await;
    }

    /// Processes are stopped and go on.
    async fn pause(&self, names: Vec<String>, span: Duration) {
        for name in &names {
            self.cluster.story.probe("a process was paused");
            self.cluster.pause(name);
        }
        tokio::time::sleep(span).await;
        for name in &names {
            self.cluster.resume(name);
        }
    }

    /// Nodes stop, a file of their stores is cut or removed, and they start.
    async fn damage_store(&self, names: Vec<String>) {
        for name in names.iter().filter(|name| !self.cluster.is_off(name)) {
            let how = *self.choose(&[Crash::Stop, Crash::Kill]);
            self.cluster.down(name, how).await;
            match self.damage(name) {
                Ok(what) => self.tell(name, &what),
                Err(error) => {
                    let why = format!("the store of {name} cannot be damaged: {error}");
                    self.cluster.story.fail(why);
                }
            }
            tokio::time::sleep(DAMAGE_DOWN).await;
            self.cluster.up(name);
        }
    }

    /// Damages one file of a store; says which.
    fn damage(&self, name: &str) -> io::Result<String> {
        let home = self.cluster.home(name).ok_or(io::ErrorKind::NotFound)?;
        let mut files = Vec::new();
        files_under(&home.join("data"), &mut files)?;
        files.retain(|(path, size)| *size > 0 && path.iter().any(|part| part == "store"));
        files.sort();
        if files.is_empty() {
            return Ok("its store has no files to damage".to_owned());
        }
        let (path, size) = self.choose(&files);
        self.cluster.story.probe("a store was damaged");
        let shown = path.strip_prefix(&home).unwrap_or(path).display();
        if *self.choose(&[true, false]) {
            fs::remove_file(path)?;
            return Ok(format!("its store is damaged: {shown} is gone"));
        }
        let left = self.chance(|rng| rng.random_range(0..*size));
        File::options().write(true).open(path)?.set_len(left)?;
        Ok(format!(
            "its store is damaged: {shown} is cut to {left} of {size} bytes"
        ))
    }

    /// One of several.
    fn choose<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.chance(|rng| rng.random_range(0..from.len()))]
    }

    /// Nodes come back with an empty disk.
    async fn wipe(&self, names: Vec<String>, down: Duration) {
        for name in names.iter().filter(|name| !self.cluster.is_off(name)) {
            self.cluster.down(name, Crash::Kill).await;
            self.tell(name, "its data directory is REMOVED");
            self.cluster.story.probe("a disk was replaced");
            let data = self.cluster.home(name).map(|home| home.join("data"));
            if let Some(Err(error)) = data.map(fs::remove_dir_all) {
                let why = format!("the data of {name} cannot be removed: {error}");
                self.cluster.story.fail(why);
            }
            tokio::time::sleep(down).await;
            self.cluster.up(name);
        }
    }

    /// An operator types a command: the program itself, told of all nodes.
    async fn command(&self, line: &str, exit: Option<u8>) {
        let mut command = Command::new(&self.cluster.program);
        let endpoints: Vec<String> = self.cluster.endpoints();
        let urls: Vec<String> = endpoints
            .iter()
            .map(|one| format!("http://{one}"))
            .collect();
        command.args(line.split_whitespace());
        command.arg("--endpoints").arg(urls.join(","));
        command.env_clear().stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || command.output()).await;
        let output = match ran {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return self.cluster.story.fail(format!("`{line}`: {error}")),
            Err(error) => return self.cluster.story.fail(format!("`{line}`: {error}")),
        };
        let code = output.status.code();
        let shown = code.map_or_else(|| output.status.to_string(), |code| format!("exit {code}"));
        self.tell("operator", &format!("$ seaworthy {line}  -> {shown}"));
        self.cluster.story.probe("an operator's command ran");
        if let Some(right) = exit.filter(|right| code != Some(i32::from(*right))) {
            self.cluster.story.fail(format!(
                "`seaworthy {line}` ended with {shown} instead of exit {right}:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
    }
}

/// All files under a folder, with their sizes.
fn files_under(dir: &Path, into: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        if kind.is_dir() {
            files_under(&entry.path(), into)?;
        } else {
            into.push((entry.path(), kind.len()));
        }
    }
    Ok(())
}
