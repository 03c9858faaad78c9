//! Workers and their tasks in the storm: machines with process tables, the workers on them, and what a scenario wants to run.
//!
//! Reading order: `behaviour`, what a task's words mean; `ledger`, what really ran; `machine`, the process table and the executor
//! over it; `ear`, what a worker is granted; `worker`, the production worker as a process of its host; here, how a run begins and
//! ends; `measure`, what is measured.

pub mod behaviour;
mod ear;
pub mod ledger;
pub mod machine;
pub mod measure;
pub mod worker;

use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::trace::Level;
use node::fleet::Command;
use node::scheduler::model::Status;
use node::service::Spec;
use rand::Rng;
use scenarios::{Span, Who};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use workloads::churn::Churn;

/// Longest time until all workers have joined, and until services run at the start and after the storm.
pub const SETTLE_MAX: Duration = Duration::from_secs(180);
/// How long everything must stay as it is then.
pub const STAY: Duration = Duration::from_secs(15);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Tries of an order, and the pause between two.
const TRIES: (u32, Duration) = (40, Duration::from_millis(500));

/// Longest pause before a task that ended runs again on its worker, with a moment to spare.
const AGAIN_MAX: Duration = Duration::from_secs(65);

/// Label of a service that is never whole: what its tasks do does not let it.
pub const RESTLESS: &str = "sim.restless";

/// Brings workers and services to where the storm begins.
pub async fn form(cluster: &Cluster, plan: &Plan) {
    if plan.workers == 0 {
        return;
    }
    let recorder = &cluster.recorder;
    worker::start_all(cluster, plan).await;
    let ready = || {
        let fleet = cluster
            .overseer
            .as_ref()
            .map(super::oracle::fleet::Overseer::newest);
        let workers = fleet
            .map(|fleet| fleet.snapshot.workers.clone())
            .unwrap_or_default();
        workers.len() == plan.workers as usize
            && workers
                .values()
                .all(|worker| worker.status == Status::Ready)
    };
    if !wait_until(cluster, SETTLE_MAX, ready).await {
        return recorder.fail(format!("workers did not join within {SETTLE_MAX:?}"));
    }
    recorder.line("storm", Level::Story, "All workers are ready.");
    for table in &plan.scenario.service {
        let spec: Result<Spec, _> = table.clone().try_into();
        match spec {
            Ok(spec) => command(cluster, Command::ServiceCreate { spec }).await,
            Err(error) => {
                recorder.fail(format!("a service of the scenario cannot be read: {error}"))
            }
        }
    }
    settle(cluster, "at the start").await;
}

/// Waits until every service is as it shall be.
pub async fn settle(cluster: &Cluster, when: &str) -> Option<Duration> {
    let begin = cluster.recorder.now();
    // What was just asked for must be seen before it can be missed.
    let seen = || {
        let newest = cluster
            .overseer
            .as_ref()
            .map_or(0, |one| one.newest().index);
        let names = cluster.names().into_iter();
        names
            .filter_map(|name| cluster.handle(&name))
            .all(|one| one.fleet().index <= newest)
    };
    if wait_until(cluster, SETTLE_MAX, || {
        seen() && unsettled(cluster).is_empty()
    })
    .await
    {
        return Some(cluster.recorder.now() - begin);
    }
    let why = unsettled(cluster).join("; ");
    cluster.recorder.fail(format!(
        "services_whole: not as wanted {when}, after {SETTLE_MAX:?}: {why}"
    ));
    None
}

/// Everything is as it shall be, and stays so for a while.
pub async fn stays(cluster: &Cluster) {
    let begin = cluster.recorder.now();
    let starts = cluster.ledger.runs().len();
    while cluster.recorder.now() - begin < STAY {
        madsim::time::sleep(LOOK).await;
        let wrong = unsettled(cluster);
        if !wrong.is_empty() {
            return cluster
                .recorder
                .fail(format!("services_stay: {}", wrong.join("; ")));
        }
    }
    let runs = cluster.ledger.runs();
    let restless = |service: &str| is_restless(cluster, service);
    if let Some(run) = runs[starts..].iter().find(|run| !restless(&run.service)) {
        cluster.recorder.fail(format!(
            "services_stay: task {}.{} of {} began on {} although all was well",
            run.task, run.attempt, run.service, run.host
        ));
    }
}

/// Whether a service's tasks come and go by what they are.
fn is_restless(cluster: &Cluster, service: &str) -> bool {
    let fleet = cluster
        .overseer
        .as_ref()
        .map(super::oracle::fleet::Overseer::newest);
    let fleet = fleet.unwrap_or_default();
    let service = fleet.service(service);
    service.is_some_and(|service| service.current.spec.labels.contains_key(RESTLESS))
}

/// What is not as it shall be, in words.
fn unsettled(cluster: &Cluster) -> Vec<String> {
    let Some(overseer) = &cluster.overseer else {
        return Vec::new();
    };
    let (fleet, runs) = (overseer.newest(), cluster.ledger.runs());
    let mut wrong = measure::unwhole(&fleet, RESTLESS);
    for run in runs.iter().filter(|run| run.to.is_none()) {
        let task = fleet.snapshot.tasks.get(&run.task);
        if task.is_none_or(|task| !task.is_live()) && !is_restless(cluster, &run.service) {
            wrong.push(format!(
                "task {} of {} runs on {} and nobody wants it",
                run.task, run.service, run.host
            ));
        }
    }
    for task in fleet
        .snapshot
        .tasks
        .values()
        .filter(|task| task.is_available())
    {
        let there = runs
            .iter()
            .any(|run| run.task == task.id && run.to.is_none());
        let name = fleet
            .snapshot
            .services
            .get(&task.service)
            .map(|service| service.current.spec.name.clone());
        let ended = runs.iter().filter(|run| run.task == task.id);
        let ended = ended.filter_map(|run| run.to).max();
        let is_pausing = ended.is_some_and(|ended| cluster.recorder.now() - ended < AGAIN_MAX);
        if !(there || is_pausing && is_restless(cluster, &name.unwrap_or_default())) {
            wrong.push(format!("task {} is said to run and does not", task.id));
        }
    }
    for worker in fleet.snapshot.workers.values() {
        if worker.status != Status::Ready && !cluster.is_off(&worker.name) {
            let (name, status) = (&worker.name, worker.status);
            wrong.push(format!("the worker of {name} runs and is {status:?}"));
        }
    }
    wrong
}

/// Waits until `holds`; false when it does not in time.
async fn wait_until(cluster: &Cluster, longest: Duration, holds: impl Fn() -> bool) -> bool {
    let end = cluster.recorder.now() + longest;
    while !holds() {
        if cluster.recorder.now() >= end {
            return false;
        }
        madsim::time::sleep(LOOK).await;
    }
    true
}

/// Operators who want something new all the time, until `done`; gives what must be wanted in the end.
pub async fn churn(cluster: Cluster, pause: Span, done: Arc<AtomicBool>) -> Churn {
    let mut rng = cluster.world.rngs().stream("churn");
    let mut churn = Churn::default();
    while pause.high > 0.0 && !done.load(Ordering::Relaxed) {
        let step = churn.next(&cluster.workers(), &mut rng);
        give(&cluster, step.command, step.may_be_refused).await;
        let share = f64::from(rng.random_range(0..1_000_u32)) / 1e3;
        madsim::time::sleep(crate::plan::seconds(&pause, share)).await;
    }
    if let Some(last) = churn.last() {
        command(&cluster, last).await;
    }
    churn
}

/// An order with names in the place of `the worker of NAME`.
pub fn named(order: &toml::Table, who: impl Fn(&Who) -> Vec<String>) -> toml::Table {
    let named = |value: &toml::Value| {
        let meant = Who::try_from(value.as_str()?.to_owned()).ok()?;
        let is_worker = matches!(meant, Who::WorkerOf(_));
        let names = is_worker.then(|| who(&meant))?;
        names.first().cloned().map(toml::Value::from)
    };
    let fields = order.iter();
    fields
        .map(|(name, value)| (name.clone(), named(value).unwrap_or_else(|| value.clone())))
        .collect()
}

/// A command of a scenario.
pub async fn order(cluster: &Cluster, table: toml::Table) {
    match table.try_into() {
        Ok(wanted) => {
            if let Command::WorkerRemove { name, force: true } = &wanted {
                cluster.ledger.given_up(name);
            }
            command(cluster, wanted).await;
        }
        Err(error) => cluster
            .recorder
            .fail(format!("an order cannot be read: {error}")),
    }
}

/// Gives a command to the cluster until it is taken; one that is refused fails the run, unless an earlier try was taken unheard.
pub async fn command(cluster: &Cluster, command: Command) {
    give(cluster, command, false).await;
}

/// Gives a command that may perhaps be refused with good reason.
async fn give(cluster: &Cluster, command: Command, may_be_refused: bool) {
    let recorder = &cluster.recorder;
    let mut in_doubt = false;
    for _ in 0..TRIES.0 {
        let name = cluster
            .leader()
            .or_else(|| cluster.running().first().cloned());
        if let Some(handle) = name.and_then(|name| cluster.handle(&name)) {
            match handle.command(&command, Some(Duration::from_secs(5))).await {
                Ok((done, _)) => {
                    return recorder.line("storm", Level::Detail, format!("{command:?}: {done:?}"));
                }
                Err(error) if error.outcome_unknown => in_doubt = true,
                Err(error) if error.code.is_retryable() => {}
                Err(_) if in_doubt || may_be_refused => return,
                Err(error) => {
                    return recorder.fail(format!("{command:?} was refused: {error}"));
                }
            }
        }
        madsim::time::sleep(TRIES.1).await;
    }
    recorder.fail(format!("{command:?} was not taken in {} tries", TRIES.0));
}
