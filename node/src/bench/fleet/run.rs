//! The phases: workers join, rest, get services of several sizes, then many small services; and everything is removed again.

use super::clients::{Clients, Wish};
use super::crew::{Crew, Seen};
use super::line::Dialer;
use super::report::{Line, Report};
use super::worker::{LABEL, Worker};
use crate::api::fleet_wire::TokenMade;
use crate::bench::cost::{Costs, Difference};
use crate::bench::report::Tally;
use crate::cli::args::BenchFleet;
use crate::cli::remote::{Ask, Remote, address};
use crate::cli::{Error, World};
use crate::error::Code;
use crate::rt::{Mono, Tasks};
use crate::service::Spec;
use http::Method;
use rand_core::RngCore;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How often one task alone is placed: its time is small, and one of them says little.
const ROUNDS_OF_ONE: u32 = 20;
/// Pause between two looks whether a service is gone.
const LOOK: Duration = Duration::from_millis(5);
/// The same for many services, of which a look is dear.
const LOOK_AT_ALL: Duration = Duration::from_millis(100);
/// How long the token is good, milliseconds: workers show it with each hello.
const TOKEN_MS: u64 = 3_600_000;

/// A bench under way.
struct Bench<'a> {
    /// What to measure.
    options: &'a BenchFleet,
    /// The cluster.
    remote: &'a Remote,
    /// The world.
    world: &'a World,
    /// Addresses of all nodes.
    nodes: Vec<String>,
    /// Makes connections.
    dialer: Dialer,
    /// What workers have counted.
    crew: Arc<Crew>,
    /// What was measured so far.
    lines: Vec<Line>,
}

/// Measures the fleet of the cluster behind `remote`.
pub async fn run(options: &BenchFleet, remote: &Remote, world: &World) -> Result<Report, Error> {
    refuse_services(remote).await?;
    let (_, members) = remote.members().await?;
    let http = members.iter().filter_map(|one| one.get("http")?.as_str());
    let nodes: Vec<String> = http.filter_map(|one| address(one).ok()).collect();
    let ask = Ask::post("/v1/tokens", &json!({ "ttl_ms": TOKEN_MS }));
    let token: TokenMade = read(remote.ask(&ask).await?)?;
    // The workers' tasks end before their workers are removed.
    let tasks = Tasks::default();
    let tag = world.env.rngs.stream("bench fleet").next_u64() & 0xffff;
    let tag = format!("bench-{tag:04x}");
    let managers = remote.endpoints.clone();
    let mut bench = Bench {
        options,
        remote,
        world,
        nodes,
        dialer: Dialer {
            net: world.env.net.clone(),
            clock: world.env.clock.clone(),
            tasks: world.tasks.clone(),
            timeout: remote.timeout,
        },
        crew: Arc::new(Crew::new(tag, token.token, managers)),
        lines: Vec::new(),
    };
    let measured = bench.measure(&tasks).await;
    let troubles = bench.crew.take_troubles();
    tasks.stop().await;
    let cleaned = bench.clean(token.id).await;
    measured?;
    cleaned?;
    Ok(Report {
        workers: options.workers,
        clients: options.clients,
        lines: bench.lines,
        troubles,
    })
}

/// Light workers would take the tasks of services that are there.
async fn refuse_services(remote: &Remote) -> Result<(), Error> {
    let names = services(remote, "linearizable").await?;
    if names.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the cluster has services ({}): light workers would take their tasks without running them",
        names.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
    );
    let hint = "measure a cluster that has none, such as one of `seaworthy dev`";
    Err(Error::local(message, hint))
}

/// Names of all services.
async fn services(remote: &Remote, consistency: &str) -> Result<Vec<String>, Error> {
    let ask = Ask::get(format!("/v1/services?consistency={consistency}"));
    let answer = remote.ask(&ask).await?;
    let all = answer.get("services").and_then(Value::as_array);
    let names = all.into_iter().flatten();
    let name = |one: &Value| Some(one.get("name")?.as_str()?.to_owned());
    Ok(names.filter_map(name).collect())
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Error> {
    serde_json::from_value(answer).map_err(|error| {
        let hint = "is the cluster of another version than this program?";
        Error::local(format!("an answer makes no sense: {error}"), hint)
    })
}

impl Bench<'_> {
    async fn measure(&mut self, tasks: &Tasks) -> Result<(), Error> {
        self.join(tasks).await?;
        let rested = self.rest().await;
        for size in &self.options.tasks {
            self.place(*size).await?;
        }
        if self.options.services > 0 {
            self.submit(self.options.services).await?;
        }
        let beats = self.crew.take_beats();
        let took = self.now().since(rested);
        self.add(
            "heartbeats while all that went on",
            beats,
            took,
            Difference::default(),
        );
        Ok(())
    }

    /// All workers say hello at once.
    async fn join(&mut self, tasks: &Tasks) -> Result<(), Error> {
        let (began, before) = (self.now(), self.costs().await);
        for number in 0..self.options.workers as usize {
            let (crew, dialer) = (Arc::clone(&self.crew), self.dialer.clone());
            let dialer = Dialer {
                tasks: tasks.clone(),
                ..dialer
            };
            let worker = Worker::new(number, crew, dialer, &self.world.env);
            tasks.spawn(worker.run());
        }
        let all = u64::from(self.options.workers);
        self.until("all workers have joined", |seen| seen.joined >= all)
            .await?;
        let (took, cost) = self.spent(began, &before).await;
        let joined = self.crew.take_joined();
        self.add("workers joined", joined, took, cost);
        Ok(())
    }

    /// Nothing but heartbeats, after one round of them; gives its end.
    async fn rest(&mut self) -> Mono {
        let clock = self.dialer.clock.clone();
        clock.sleep(Duration::from_secs(1)).await;
        let (began, before) = (self.now(), self.costs().await);
        self.crew.take_beats();
        clock.sleep(self.options.duration).await;
        let beats = self.crew.take_beats();
        let (took, cost) = self.spent(began, &before).await;
        self.add("heartbeats at rest", beats, took, cost);
        began.plus(took)
    }

    /// A service of `size` tasks, from its creation until all run, and from its removal until it is gone.
    async fn place(&mut self, size: u32) -> Result<(), Error> {
        let rounds = if size == 1 { ROUNDS_OF_ONE } else { 1 };
        let (mut up, mut down) = (Tally::new(), Tally::new());
        let mut took = (Duration::ZERO, Duration::ZERO);
        let before = self.costs().await;
        let mut between = None;
        for round in 0..rounds {
            let name = format!("{}-{size}-{round}", self.crew.tag);
            let began = self.begin();
            self.remote
                .ask(&Ask::post(
                    "/v1/services",
                    &json!(self.spec(&name, size, 1)),
                ))
                .await?;
            let all = u64::from(size);
            self.until("all tasks run", |seen| seen.running >= all)
                .await?;
            took.0 += self.now().since(began);
            up.add(&self.crew.running());
            if between.is_none() && rounds == 1 {
                between = Some(self.costs().await);
            }
            let began = self.begin();
            let path = format!("/v1/services/{name}");
            self.remote
                .ask(&Ask::write(Method::DELETE, &path, ""))
                .await?;
            self.until("all tasks have stopped", |seen| seen.stopped >= all)
                .await?;
            self.until_gone(&path).await?;
            took.1 += self.now().since(began);
            down.add(&self.crew.stopped());
        }
        let after = self.costs().await;
        let (cost_up, cost_down) = match between {
            Some(between) => (between.since(&before), after.since(&between)),
            None => (after.since(&before), Difference::default()),
        };
        let what = |verb: &str| match size {
            1 => format!("1 task {verb}, {rounds} times"),
            _ => format!("{size} tasks {verb}"),
        };
        self.add(&what("running"), up, took.0, cost_up);
        self.add(&what("stopped, service gone"), down, took.1, cost_down);
        Ok(())
    }

    /// Many services with a few copies, or none: created, updated, removed by several clients.
    async fn submit(&mut self, count: u32) -> Result<(), Error> {
        let clients = Clients {
            dialer: self.dialer.clone(),
            managers: self.remote.endpoints.clone(),
            count: self.options.clients,
        };
        let (all, copies) = (u64::from(count), self.options.copies);
        let tasks = all * u64::from(copies);
        let name = |number: u64| format!("{}-s-{number}", self.crew.tag);
        let path = |number: u64| format!("/v1/services/{}", name(number));
        let body = |number, version| {
            let spec = self.spec(&name(number), copies, version);
            serde_json::to_vec(&spec).expect("specifications are plain data with text keys")
        };
        let mut lines = Vec::new();
        for (verb, then) in [
            ("created", "their tasks running"),
            ("updated", "their tasks replaced"),
            ("removed", "all gone"),
        ] {
            let before = self.costs().await;
            let began = self.begin();
            let wish = |number| match verb {
                "created" => Wish {
                    method: Method::POST,
                    target: "/v1/services".to_owned(),
                    body: body(number, 1),
                },
                "updated" => Wish {
                    method: Method::PUT,
                    target: path(number),
                    body: body(number, 2),
                },
                _ => Wish {
                    method: Method::DELETE,
                    target: path(number),
                    body: Vec::new(),
                },
            };
            let sent = clients.send(all, wish).await?;
            let sent_in = self.now().since(began);
            let done = match verb {
                "created" => {
                    self.until("all tasks run", |seen| seen.running >= tasks)
                        .await?;
                    self.crew.running()
                }
                "updated" => {
                    let both = |seen: Seen| seen.running >= tasks && seen.stopped >= tasks;
                    self.until("all tasks are replaced", both).await?;
                    self.crew.running()
                }
                _ => {
                    self.until("all tasks have stopped", |seen| seen.stopped >= tasks)
                        .await?;
                    self.until_all_gone().await?;
                    self.crew.stopped()
                }
            };
            let (took, cost) = self.spent(began, &before).await;
            lines.push((
                format!("services {verb}"),
                sent,
                sent_in,
                Difference::default(),
            ));
            if copies > 0 {
                lines.push((format!("... {then}"), done, took, cost));
            }
        }
        for (what, tally, took, cost) in lines {
            self.add(&what, tally, took, cost);
        }
        Ok(())
    }

    /// A service of `replicas` tasks on the bench's own workers; another `version` needs other tasks.
    fn spec(&self, name: &str, replicas: u32, version: u32) -> Spec {
        let mut spec = Spec::new(name, &["light"]);
        spec.replicas = replicas;
        spec.env = [("VERSION".to_owned(), version.to_string())].into();
        spec.update.monitor_ms = 0;
        let constraint = format!("node.labels.{LABEL} == {}", self.crew.tag);
        spec.placement.constraints = vec![constraint];
        spec
    }

    /// Removes what the bench has made. Its workers have ended.
    async fn clean(&self, token: u64) -> Result<(), Error> {
        let names = services(self.remote, "linearizable").await?;
        let ours = |name: &String| name.starts_with(&self.crew.tag);
        let ours: Vec<String> = names.into_iter().filter(ours).collect();
        let is_whole = ours.is_empty();
        let clients = Clients {
            dialer: self.dialer.clone(),
            managers: self.remote.endpoints.clone(),
            count: self.options.clients.max(16),
        };
        let remove = |target: String| Wish {
            method: Method::DELETE,
            target,
            body: Vec::new(),
        };
        let service = |number: u64| {
            let name = &ours[usize::try_from(number).unwrap_or(0)];
            remove(format!("/v1/services/{name}"))
        };
        clients.send(ours.len() as u64, service).await?;
        let ask = Ask::write(Method::DELETE, format!("/v1/tokens/{token}"), "");
        self.remote.ask(&ask).await?;
        // After a failure workers may have tasks still, which are none: they have ended.
        let force = if is_whole { "" } else { "?force=true" };
        let joined = self.joined().await?;
        let worker = |number: u64| {
            let name = &joined[usize::try_from(number).unwrap_or(0)];
            remove(format!("/v1/nodes/{name}{force}"))
        };
        clients.send(joined.len() as u64, worker).await?;
        Ok(())
    }

    /// Names of the workers of this bench that the cluster knows.
    async fn joined(&self) -> Result<Vec<String>, Error> {
        let answer = self.remote.ask(&Ask::get("/v1/nodes")).await?;
        let all = answer.get("nodes").and_then(Value::as_array);
        let prefix = format!("{}-", self.crew.tag);
        let name = |one: &Value| Some(one.get("name")?.as_str()?.to_owned());
        let names = all.into_iter().flatten().filter_map(name);
        Ok(names.filter(|name| name.starts_with(&prefix)).collect())
    }

    /// Tasks count from now on.
    fn begin(&self) -> Mono {
        let now = self.now();
        self.crew.begin(now);
        now
    }

    /// Waits until `is` holds of what workers have seen.
    async fn until(&self, what: &str, is: impl Fn(Seen) -> bool) -> Result<(), Error> {
        let patience = self.options.patience;
        let waited = self
            .dialer
            .clock
            .timeout(patience, self.crew.until(is))
            .await;
        waited.map_err(|_| {
            let seen = self.crew.seen();
            let message = format!("not within {patience:.0?}: {what}; seen: {seen:?}");
            Error::local(message, "--patience makes the bench wait for longer")
        })
    }

    async fn until_gone(&self, path: &str) -> Result<(), Error> {
        let ask = Ask::get(format!("{path}?consistency=local"));
        let end = self.now().plus(self.options.patience);
        while self.now() < end {
            match self.remote.ask(&ask).await {
                Err(error) if error.code == Code::NotFound => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(_) => self.dialer.clock.sleep(LOOK).await,
            }
        }
        Err(self.still_there(path))
    }

    async fn until_all_gone(&self) -> Result<(), Error> {
        let end = self.now().plus(self.options.patience);
        while self.now() < end {
            if services(self.remote, "local").await?.is_empty() {
                return Ok(());
            }
            self.dialer.clock.sleep(LOOK_AT_ALL).await;
        }
        Err(self.still_there("services"))
    }

    fn still_there(&self, what: &str) -> Error {
        let patience = self.options.patience;
        let message = format!("not within {patience:.0?}: {what} gone");
        Error::local(message, "--patience makes the bench wait for longer")
    }

    async fn costs(&self) -> Costs {
        Costs::read(self.remote, &self.nodes).await
    }

    /// Time and costs since `began`, when they were `before`.
    async fn spent(&self, began: Mono, before: &Costs) -> (Duration, Difference) {
        let took = self.now().since(began);
        (took, self.costs().await.since(before))
    }

    fn add(&mut self, what: &str, tally: Tally, took: Duration, cost: Difference) {
        self.lines.push(Line {
            what: what.to_owned(),
            tally,
            took,
            cost,
        });
    }

    fn now(&self) -> Mono {
        self.dialer.clock.now()
    }
}
