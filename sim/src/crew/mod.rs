//! Workers and their tasks in the storm: machines with process tables, the workers on them, and what a scenario wants to run.
//!
//! Reading order: `ledger`, what really ran; `machine`, the process table and the executor over it; `ear`, what a worker is
//! granted; `secrets`, who reads and who may not see them; `worker`, the production worker as a process of its host; `caller`,
//! users of services; `alert`, who watches the metrics; here, how a run begins and ends. What a task's words mean (`behaviour`) and
//! what is measured (`measure`) are those of live runs, too: both are in `workloads`.

pub mod alert;
pub mod caller;
mod ear;
pub mod ledger;
pub mod machine;
pub mod secrets;
pub mod worker;

pub use workloads::behaviour;
pub use workloads::crew as measure;

use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::trace::Level;
use node::fleet::{Command, Fleet};
use node::scheduler::model::{Availability, Status};
use node::service::Spec;
use rand::Rng;
use scenarios::{Crash, Span, Who};
use simdisk::CrashMode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use workloads::churn::{Act, Churn, Step};

/// Longest time until all workers have joined, and until services run at the start and after the storm.
pub const SETTLE_MAX: Duration = Duration::from_secs(180);
/// How long everything must stay as it is then.
pub const STAY: Duration = Duration::from_secs(15);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Tries of an order, and the pause between two.
const TRIES: (u32, Duration) = (40, Duration::from_millis(500));

/// Longest time that operators wait for a drained worker to be empty.
const EMPTY_MAX: Duration = Duration::from_secs(40);

/// What a run leaves behind for measures.
pub fn evidence(cluster: &Cluster, storm: (Duration, Duration)) -> measure::Evidence {
    let overseer = cluster.overseer.as_ref();
    measure::Evidence {
        runs: cluster.ledger.runs(),
        looks: overseer.map(|one| one.looks()).unwrap_or_default(),
        notes: overseer.map(|one| one.notes()).unwrap_or_default(),
        specs: overseer
            .map(|one| measure::specs(&one.newest()))
            .unwrap_or_default(),
        calls: cluster.calls.all(),
        slot_tasks: overseer.map_or(0, |one| one.slot_tasks()),
        alerts: Some(cluster.alerts.all()),
        storm,
        end: cluster.recorder.now(),
    }
}

/// The newest fleet that any manager showed; an empty one where nobody looks.
fn newest(cluster: &Cluster) -> Arc<Fleet> {
    let overseer = cluster.overseer.as_ref();
    overseer.map(|one| one.newest()).unwrap_or_default()
}

/// Whether every one of these workers is ready.
fn all_ready(fleet: &Fleet, names: Vec<String>) -> bool {
    names.iter().all(|name| {
        let worker = fleet.worker(name);
        worker.is_some_and(|worker| worker.status == Status::Ready)
    })
}

/// Brings workers and services to where the storm begins.
pub async fn form(cluster: &Cluster, plan: &Plan) {
    if plan.workers == 0 {
        return;
    }
    let recorder = &cluster.recorder;
    worker::start_all(cluster, plan).await;
    let ready = || all_ready(&newest(cluster), cluster.workers());
    if !wait_until(cluster, SETTLE_MAX, ready).await {
        return recorder.fail(format!("workers did not join within {SETTLE_MAX:?}"));
    }
    recorder.line("storm", Level::Story, "All workers are ready.");
    for table in &plan.scenario.service {
        let spec: Result<Spec, _> = table.clone().try_into();
        match spec {
            Ok(spec) => {
                secrets::provide(cluster, &spec).await;
                command(cluster, Command::ServiceCreate { spec }).await;
            }
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
        let newest = newest(cluster).index;
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
    let begun = &cluster.ledger.runs()[starts..];
    if let Some(wrong) = measure::needless(&newest(cluster), begun) {
        cluster.recorder.fail(format!("services_stay: {wrong}"));
    }
}

/// What is not as it shall be, in words.
fn unsettled(cluster: &Cluster) -> Vec<String> {
    let Some(overseer) = &cluster.overseer else {
        return Vec::new();
    };
    let (runs, now) = (cluster.ledger.runs(), cluster.recorder.now());
    measure::unsettled(&overseer.newest(), &runs, now, |name| cluster.is_off(name))
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
pub async fn churn(cluster: Cluster, pause: Span, of_nodes: bool, done: Arc<AtomicBool>) -> Churn {
    let mut rng = cluster.world.rngs().stream("churn");
    let mut churn = match of_nodes {
        true => Churn::of_nodes(),
        false => Churn::default(),
    };
    while pause.high > 0.0 && !done.load(Ordering::Relaxed) {
        let step = churn.next(&cluster.workers(), &mut rng);
        act(&cluster, &mut churn, step).await;
        let share = f64::from(rng.random_range(0..1_000_u32)) / 1e3;
        madsim::time::sleep(crate::plan::seconds(&pause, share)).await;
    }
    for step in churn.last() {
        act(&cluster, &mut churn, step).await;
    }
    // Services are whole without a machine that was only just let in, and not for a moment when it joins (node-churn, seed 162).
    let back = || {
        let fleet = newest(&cluster);
        let (_, wanted) = forced_out(&cluster, &fleet);
        all_ready(&fleet, wanted)
    };
    if of_nodes && !wait_until(&cluster, SETTLE_MAX, back).await {
        let wrong = format!("workers_back: not all workers were ready within {SETTLE_MAX:?}");
        cluster.recorder.fail(wrong);
    }
    churn
}

/// Does one thing that operators want.
async fn act(cluster: &Cluster, churn: &mut Churn, step: Step) {
    match step.act {
        Act::Command(command) => give(cluster, *command, step.may_be_refused).await,
        Act::Remove { name, off } => {
            if !remove(cluster, &name, off).await {
                churn.stays(&name);
            }
        }
        Act::Return { name, empty } => worker::let_in(cluster, &name, empty).await,
    }
}

/// Removes a drained worker once it has no task; false if it has some for too long, or is not itself now.
async fn remove(cluster: &Cluster, name: &str, off: bool) -> bool {
    let has_none = || {
        let fleet = newest(cluster);
        let Some(worker) = fleet.worker(name) else {
            return false;
        };
        let mut tasks = fleet.snapshot.tasks.values();
        let drained = worker.availability == Availability::Drain && worker.status == Status::Ready;
        drained && !tasks.any(|task| task.worker == Some(worker.id) && !task.state.is_end())
    };
    if !wait_until(cluster, EMPTY_MAX, has_none).await || cluster.is_off(name) {
        return false;
    }
    if off {
        cluster.down(name, Crash::Stop, CrashMode::KeepAll).await;
    }
    cluster.recorder.sometimes("a drained worker was removed");
    let removal = Command::WorkerRemove {
        name: name.to_owned(),
        force: false,
    };
    command(cluster, removal).await;
    true
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

/// The workers that were removed by force, and the others.
fn forced_out(cluster: &Cluster, fleet: &Fleet) -> (Vec<String>, Vec<String>) {
    cluster.workers().into_iter().partition(|name| {
        let mut removed = fleet.snapshot.removed.values();
        removed.any(|one| one.by_force && one.name == *name)
    })
}

/// The workers that shall be there in the end. One that was removed by force shall not, and nothing may run on it, though its process
/// runs and its token is good.
pub fn not_forced_out(cluster: &Cluster, fleet: &Fleet) -> Vec<String> {
    let (out, wanted) = forced_out(cluster, fleet);
    for name in out {
        let mut runs = cluster.ledger.runs().into_iter();
        if fleet.worker(&name).is_some() {
            let wrong = format!("stays_out: {name} was removed by force and is there again");
            cluster.recorder.fail(wrong);
        } else if runs.any(|run| run.host == name && run.to.is_none()) {
            let wrong = format!("stays_out: {name} was removed by force and runs tasks");
            cluster.recorder.fail(wrong);
        } else if !cluster.is_off(&name) {
            let probe = "a worker that was removed by force ended its tasks and stayed out";
            cluster.recorder.sometimes(probe);
        }
    }
    wanted
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
