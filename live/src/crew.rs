//! The crew of a live run: `seaworthy worker start` processes, the services of the scenario, and what is wanted of them.
//!
//! Orders go to the public API and are given until they are taken, as in simulation; one that is refused fails the run.

use crate::cluster::Cluster;
use crate::gate::Gates;
use crate::overseer::{LOOK, NoAnswer, Overseer, ask};
use crate::plan::Plan;
use crate::scribe::Scribe;
use crate::task::Stage;
use anyhow::{Context, Result, bail};
use node::api::fleet_wire::{LabelsRequest, ScaleRequest, TokenMade, VolumeRequest};
use node::fleet::Command;
use node::scheduler::model::{Availability, Status};
use node::service::Spec;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use workloads::crew::{self, Evidence};

/// Longest time until all workers have joined, and until services run at the start and after the storm, as in simulation.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(180);
/// How long everything must stay as it is then; after a plan that a person has made shorter than this, as long as that.
pub(crate) const STAY: Duration = Duration::from_secs(15);
/// Tries of an order, and the pause between two.
const TRIES: (u32, Duration) = (40, Duration::from_millis(500));
/// Zones over which workers are dealt, as in simulation.
const ZONES: u32 = 3;
/// How long after a fault two tasks in a slot are excused, as in simulation.
const DOUBLE_AFTER: Duration = Duration::from_secs(30);

/// Workers and services of a run. A clone is the same.
#[derive(Clone)]
pub(crate) struct Crew {
    /// The processes.
    cluster: Cluster,
    /// What really runs.
    pub(crate) scribe: Scribe,
    /// What managers show.
    overseer: Overseer,
    /// The ways between workers and managers, if they can be cut in this run.
    pub(crate) gates: Option<Gates>,
    /// Where tasks play.
    stage: Stage,
    /// Whoever looks.
    looks: Arc<JoinHandle<()>>,
}

impl Crew {
    /// Prepares a crew for `cluster` in `dir`; nothing is started.
    pub(crate) async fn found(cluster: &Cluster, dir: &Path) -> Result<Self> {
        let scribe = Scribe::start(cluster.clock, cluster.story.clone()).await?;
        let locks = dir.join("locks");
        fs::create_dir(&locks)?;
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let stage = Stage {
            program,
            scribe: scribe.address,
            locks,
        };
        let gates = match cluster.ways() {
            ways if ways.is_empty() => None,
            ways => {
                let of = cluster.clone();
                Some(Gates::open(&ways, Arc::new(move || of.worker_pids())).await?)
            }
        };
        let overseer = Overseer::new(cluster.clone());
        let looks = Arc::new(tokio::spawn(overseer.clone().watch()));
        Ok(Crew {
            cluster: cluster.clone(),
            scribe,
            overseer,
            gates,
            stage,
            looks,
        })
    }

    /// Starts the workers and the services of the scenario; says what went wrong.
    pub(crate) async fn form(&self, plan: &Plan) -> Result<()> {
        let token: TokenMade = self.first_token().await?;
        for number in 1..=plan.workers {
            let zone = format!("zone=z{}", (number - 1) % ZONES + 1);
            let words = ["--token", &token.token, "--label", &zone];
            self.cluster
                .add_worker(&format!("w{number}"), &words.map(OsString::from));
        }
        let ready = || {
            let fleet = self.overseer.newest();
            let workers = &fleet.snapshot.workers;
            let ready = workers.values().filter(|one| one.status == Status::Ready);
            ready.count() == plan.workers as usize
        };
        if !self.wait_until(ready).await {
            bail!("workers did not join within {SETTLE_MAX:?}");
        }
        self.tell("All workers are ready.");
        for table in &plan.scenario.service {
            let spec: Spec = table.clone().try_into()?;
            self.command(&Command::ServiceCreate { spec }).await;
        }
        self.settle("at the start").await;
        Ok(())
    }

    /// The token by which all workers join.
    async fn first_token(&self) -> Result<TokenMade> {
        for _ in 0..TRIES.0 {
            for endpoint in self.cluster.endpoints() {
                if let Ok(token) = ask(&endpoint, "POST", "/v1/tokens", "{}").await {
                    return Ok(token);
                }
            }
            tokio::time::sleep(TRIES.1).await;
        }
        bail!("no manager gives a token")
    }

    fn tell(&self, text: &str) {
        let now = self.cluster.clock.now();
        self.cluster.story.line(now, "storm", text);
    }

    /// Waits until every service is as it shall be; gives how long it took.
    pub(crate) async fn settle(&self, when: &str) -> Option<Duration> {
        let begin = self.cluster.clock.now();
        // What was just asked for must be seen before it can be missed.
        self.overseer.look().await;
        if self.wait_until(|| self.unsettled().is_empty()).await {
            return Some(self.cluster.clock.now() - begin);
        }
        let why = self.unsettled().join("; ");
        self.cluster.story.fail(format!(
            "services_whole: not as wanted {when}, after {SETTLE_MAX:?}: {why}"
        ));
        None
    }

    /// Everything is as it shall be, and stays so for a while.
    pub(crate) async fn stays(&self, span: Duration) {
        let (begin, starts) = (self.cluster.clock.now(), self.scribe.runs().len());
        while self.cluster.clock.now() - begin < span {
            tokio::time::sleep(LOOK).await;
            let wrong = self.unsettled();
            if !wrong.is_empty() {
                let wrong = wrong.join("; ");
                return self.cluster.story.fail(format!("services_stay: {wrong}"));
            }
        }
        let begun = &self.scribe.runs()[starts..];
        if let Some(wrong) = crew::needless(&self.overseer.newest(), begun) {
            self.cluster.story.fail(format!("services_stay: {wrong}"));
        }
    }

    /// What is not as it shall be, in words.
    fn unsettled(&self) -> Vec<String> {
        let (runs, now) = (self.scribe.runs(), self.cluster.clock.now());
        let is_off = |name: &str| self.cluster.is_off(name);
        crew::unsettled(&self.overseer.newest(), &runs, now, is_off)
    }

    /// Waits until `holds`; false when it does not in time.
    async fn wait_until(&self, holds: impl Fn() -> bool) -> bool {
        let end = self.cluster.clock.now() + SETTLE_MAX;
        while !holds() {
            if self.cluster.clock.now() >= end {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Gives a command to the cluster until it is taken; one that is refused fails the run, unless an earlier try was taken unheard.
    pub(crate) async fn command(&self, command: &Command) {
        let story = &self.cluster.story;
        let (method, path, body) = match self.request(command) {
            Ok(request) => request,
            Err(error) => return story.fail(format!("an order cannot be given: {error:#}")),
        };
        let mut in_doubt = false;
        for turn in 0..TRIES.0 {
            let up = self.cluster.running();
            let place = turn as usize % up.len().max(1);
            let endpoint = up.get(place).and_then(|name| self.cluster.endpoint(name));
            if let Some(endpoint) = endpoint {
                match ask::<Value>(&endpoint, method, &path, &body).await {
                    Ok(_) => return self.tell(&format!("{method} {path} is taken")),
                    Err(NoAnswer::Refused(error)) if error.outcome_unknown => in_doubt = true,
                    Err(NoAnswer::Refused(error)) if error.code.is_retryable() => {}
                    Err(NoAnswer::Refused(_)) if in_doubt => return,
                    Err(NoAnswer::Refused(error)) => {
                        return story.fail(format!("{method} {path} was refused: {error}"));
                    }
                    Err(NoAnswer::Unknown(_)) => in_doubt = true,
                }
            }
            tokio::time::sleep(TRIES.1).await;
        }
        story.fail(format!(
            "{method} {path} was not taken in {} tries",
            TRIES.0
        ));
    }

    /// A command of the log as a request to the door.
    fn request(&self, command: &Command) -> Result<(&'static str, String, String)> {
        Ok(match command {
            Command::ServiceCreate { spec } => (
                "POST",
                "/v1/services".to_owned(),
                serde_json::to_string(&self.stage.cast(spec)?)?,
            ),
            Command::ServiceUpdate {
                name,
                spec,
                expect_version,
            } => {
                let expect = expect_version.map(|version| format!("?expect_version={version}"));
                let path = format!("/v1/services/{name}{}", expect.unwrap_or_default());
                ("PUT", path, serde_json::to_string(&self.stage.cast(spec)?)?)
            }
            Command::ServiceScale { name, replicas } => {
                let replicas = *replicas;
                let body = serde_json::to_string(&ScaleRequest { replicas })?;
                ("POST", format!("/v1/services/{name}/scale"), body)
            }
            Command::ServiceRollBack { name } => (
                "POST",
                format!("/v1/services/{name}/rollback"),
                String::new(),
            ),
            Command::ServicePause { name, paused } => {
                let verb = if *paused { "pause" } else { "continue" };
                ("POST", format!("/v1/services/{name}/{verb}"), String::new())
            }
            Command::ServiceRebalance { name } => (
                "POST",
                format!("/v1/services/{name}/rebalance"),
                String::new(),
            ),
            Command::ServiceRemove { name } => {
                ("DELETE", format!("/v1/services/{name}"), String::new())
            }
            Command::WorkerSet {
                name,
                availability: Some(availability),
                ..
            } => {
                let verb = match availability {
                    Availability::Active => "activate",
                    Availability::Drain => "drain",
                };
                ("POST", format!("/v1/nodes/{name}/{verb}"), String::new())
            }
            Command::WorkerSet { name, labels, .. } => {
                let labels = labels.clone();
                let body = serde_json::to_string(&LabelsRequest { labels })?;
                ("PUT", format!("/v1/nodes/{name}/labels"), body)
            }
            Command::WorkerRemove { name, force } => (
                "DELETE",
                format!("/v1/nodes/{name}?force={force}"),
                String::new(),
            ),
            Command::VolumeCreate { name, worker } => {
                let request = VolumeRequest {
                    name: name.clone(),
                    node: worker.clone(),
                };
                (
                    "POST",
                    "/v1/volumes".to_owned(),
                    serde_json::to_string(&request)?,
                )
            }
            Command::VolumeRemove { name } => {
                ("DELETE", format!("/v1/volumes/{name}"), String::new())
            }
            other => bail!("no operator gives this order: {other:?}"),
        })
    }

    /// What the run leaves behind for measures; `storm` is the part under faults.
    pub(crate) fn evidence(&self, storm: (Duration, Duration)) -> Evidence {
        self.scribe.tell_versions(&self.overseer.versions());
        let seen = self.overseer.seen();
        Evidence {
            runs: self.scribe.runs(),
            looks: seen.looks,
            notes: seen.notes,
            specs: crew::specs(&seen.newest),
            slot_tasks: seen.slot_tasks,
            // Nobody calls copies here, and nobody watches the metrics.
            calls: Vec::new(),
            alerts: None,
            storm,
            end: self.cluster.clock.now(),
        }
    }

    /// Judges what really ran; gives the measures that come out of it. What led to doubled slots within `faults` is excused.
    pub(crate) fn judge(
        &self,
        evidence: &Evidence,
        faults: &[(Duration, Duration)],
    ) -> std::collections::BTreeMap<String, f64> {
        let excused = faults.iter();
        let excused: Vec<_> = excused
            .map(|(begin, end)| (*begin, *end + DOUBLE_AFTER))
            .collect();
        let judged = crew::judge(evidence, &excused);
        let story = &self.cluster.story;
        judged.failures.into_iter().for_each(|one| story.fail(one));
        judged.probes.into_iter().for_each(|one| story.probe(one));
        judged.measures
    }

    /// What managers say has happened, into the story.
    pub(crate) async fn tell_events(&self) {
        if let Err(error) = self.overseer.tell_events().await {
            self.tell(&format!("what happened cannot be read: {error:#}"));
        }
    }

    /// Nobody looks any more, and every task is killed.
    pub(crate) fn end(&self) {
        self.looks.abort();
        self.scribe.end();
    }
}
