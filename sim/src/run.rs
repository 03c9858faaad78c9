//! One run: a cluster, its clients, its storm, and the judgement. Everything follows from the scenario and the seed.

use crate::cluster::{Cluster, founding_id};
use crate::crew;
use crate::judge::{self, Evidence};
use crate::newcomer;
use crate::operator::NoJournal;
use crate::plan::{Plan, master};
use crate::report::{Report, StoryLine};
use crate::storm::Storm;
use crate::timeline::Timeline;
use crate::trace::{Level, Recorder, micros};
use crate::world::SimWorld;
use madsim::runtime::{Handle, Runtime};
use node::client::Client;
use node::rt::Tasks;
use node::types::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use workloads::drive::{Driver, Notebook, SharedClock, follow};
use workloads::history::Output;

/// Longest time until a fresh cluster has a leader.
const FORM_MAX: Duration = Duration::from_secs(30);
/// How often the machines' supervisors look at their processes.
const SUPERVISE: Duration = Duration::from_millis(250);
/// A run that takes longer than this, in virtual time, hangs.
const VIRTUAL_MAX: Duration = Duration::from_secs(300);

/// Carries out `plan` in this process, which must not have run anything before.
pub fn run(plan: Plan, keep: Option<Level>) -> Report {
    let seed = plan.seed;
    let guard = simdisk::World::install(seed);
    let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.set_allow_system_thread(true);
    runtime.set_time_limit(VIRTUAL_MAX + longest(&plan));
    let recorder = Recorder::new(keep, virtual_now);
    let mut report = runtime.block_on(whole(plan, recorder.clone()));
    drop(runtime);
    let escapes = simdisk::escapes();
    if !escapes.is_empty() {
        report.failures.push(format!(
            "file operations reached the real disk: {escapes:?}"
        ));
    }
    drop(guard);
    report
}

/// How much longer than others a run with workers may take: until they have joined, run what they shall, and stay.
fn longest(plan: &Plan) -> Duration {
    if plan.workers == 0 {
        return Duration::ZERO;
    }
    plan.duration + 3 * crew::SETTLE_MAX + crew::STAY
}

/// Virtual time since the start of the simulation.
fn virtual_now() -> Duration {
    madsim::time::TimeHandle::try_current().map_or(Duration::ZERO, |time| time.elapsed())
}

/// The run, inside the simulation.
async fn whole(plan: Plan, recorder: Recorder) -> Report {
    madsim::task::spawn(simdisk::pump());
    let notes = recorder.clone();
    let trace: crate::net::NetTrace = Arc::new(move |_, note| {
        notes.line("net", Level::Detail, format!("{note:?}"));
    });
    let (scenario, seed) = (&plan.scenario, plan.seed);
    let world = SimWorld::new(master(seed), plan.net.clone(), trace, simdisk::take_debt);
    world.network.add_host(crate::operator::HOST);
    let profile = format!("{:?}", plan.profile).to_lowercase();
    recorder.line(
        "storm",
        Level::Story,
        format!(
            "{}, seed {seed}: {} nodes, profile {profile}, {} clients",
            scenario.name, plan.nodes, plan.clients
        ),
    );
    let cluster = Cluster::start(&plan, world, recorder.clone());
    let mut report = Report {
        scenario: scenario.name.clone(),
        seed,
        nodes: plan.nodes,
        profile,
        ..Report::default()
    };
    if form(&cluster, &recorder).await {
        cluster.planted(|ground| ground.begins(&cluster.names(), &cluster.world.clocks));
        crew::form(&cluster, &plan).await;
        cluster.planted(|ground| ground.crew_begins(&cluster.workers(), &cluster.world.clocks));
        weather(&plan, &cluster, &mut report).await;
    } else {
        recorder.fail(format!(
            "no leader within {FORM_MAX:?}: {}",
            judge::disagreement(&cluster)
        ));
    }
    cluster.end().await;
    conclude(&mut report, &recorder);
    report
}

/// Waits for the first leader.
async fn form(cluster: &Cluster, recorder: &Recorder) -> bool {
    let names = cluster.names();
    let ids: Vec<_> = names
        .iter()
        .filter_map(|name| founding_id(&names, name))
        .collect();
    recorder.founded(ids);
    for name in &names {
        if let Some(id) = founding_id(&names, name) {
            recorder.name_id(name, id);
        }
    }
    while recorder.now() < FORM_MAX {
        if cluster.leader().is_some() {
            return true;
        }
        madsim::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Clients and storm together; then calm, agreement and judgement.
async fn weather(plan: &Plan, cluster: &Cluster, report: &mut Report) {
    let recorder = cluster.recorder.clone();
    let start = recorder.now();
    let notebook = Notebook::default();
    let done = Arc::new(AtomicBool::new(false));
    let clients = start_clients(plan, start, cluster, &notebook, &done);
    let watchers = start_watchers(plan, cluster, &notebook, &done);
    let supervisor = {
        let cluster = cluster.clone();
        madsim::task::spawn(async move {
            loop {
                madsim::time::sleep(SUPERVISE).await;
                cluster.supervise().await;
            }
        })
    };
    let churn = (plan.workers > 0).then(|| {
        let pause = plan.scenario.workload.churn_pause_s;
        let of_nodes = plan.scenario.workload.node_churn;
        let churn = crew::churn(cluster.clone(), pause, of_nodes, Arc::clone(&done));
        madsim::task::spawn(churn)
    });
    let callers: Vec<_> = plan
        .scenario
        .workload
        .calls
        .iter()
        .map(|service| {
            let call = crew::caller::call(cluster.clone(), service.clone(), Arc::clone(&done));
            madsim::task::spawn(call)
        })
        .collect();
    let watching = crew::alert::is_wanted(&plan.scenario).then(|| {
        let watch = crew::alert::watch(cluster.clone(), Arc::clone(&done));
        madsim::task::spawn(watch)
    });
    let storm = Storm::new(cluster.clone());
    storm.rage(plan, start).await;
    storm.heal();
    let calm = recorder.now();
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.ok();
    }
    for other in callers.into_iter().chain(watching) {
        other.await.ok();
    }
    let churn = match churn {
        Some(churn) => churn.await.ok(),
        None => None,
    };
    supervisor.abort();
    let converged = judge::converge(cluster).await;
    match converged {
        Some(took) => {
            report
                .measures
                .insert("converged_ms".to_owned(), took.as_secs_f64() * 1_000.0);
        }
        None => recorder.fail(format!(
            "the cluster did not come together within {:?} after the storm: {}",
            judge::CONVERGE_MAX,
            judge::disagreement(cluster)
        )),
    }
    newcomer::judge(cluster);
    if plan.workers > 0 && converged.is_some() {
        if let Some(took) = crew::settle(cluster, "after the storm").await {
            let took_ms = took.as_secs_f64() * 1_000.0;
            report
                .measures
                .insert("services_settled_ms".to_owned(), took_ms);
            crew::stays(cluster).await;
        }
        if let (Some(churn), Some(overseer)) = (churn, &cluster.overseer) {
            let fleet = overseer.newest();
            let wanted = crew::not_forced_out(cluster, &fleet);
            for wrong in churn.differences(&fleet, &wanted) {
                recorder.fail(format!("services_as_wanted: {wrong}"));
            }
        }
        judge::converge(cluster).await;
    }
    // Watchers get a moment to hear the last of it.
    madsim::time::sleep(Duration::from_millis(300)).await;
    for watcher in watchers {
        watcher.abort();
    }
    let notes = notebook.notes();
    if converged.is_some() {
        judge_run(cluster, &notes, report).await;
    }
    let happened = storm.happened();
    let crew = crew::evidence(cluster, (start, calm));
    if plan.workers > 0 {
        cluster.ledger.judge_leases(None, recorder.now());
        crew::secrets::look_at_disks(cluster);
        judge::judge_tasks(&crew, &happened, report, &recorder);
    }
    judge::measure(
        &plan.scenario,
        &happened,
        (&notes, &crew),
        report,
        &recorder,
    );
    report.operations = notes.operations.len() as u64;
    report.acknowledged = notes.acknowledged.len() as u64;
    report.errors = notes.errors.clone();
    report.commands = happened.commands;
    report.labels = happened
        .labels
        .into_iter()
        .map(|(label, (begin, end))| (label, (micros(begin), micros(end))))
        .collect();
    report.timeline = recorder
        .read(|marks| marks.timeline.cloned())
        .map(|timeline| Timeline {
            start_us: micros(start),
            calm_us: micros(calm),
            end_us: micros(recorder.now()),
            ..with_clients(timeline, &notes)
        });
}

/// Adds to a timeline when clients were answered, and when not.
fn with_clients(mut timeline: Timeline, notes: &workloads::drive::Notes) -> Timeline {
    timeline.acknowledged_us = notes
        .acknowledged
        .iter()
        .map(|(_, at)| at / 1_000)
        .collect();
    for operation in &notes.operations {
        match (&operation.output, operation.return_ns) {
            (Output::Unknown, _) => timeline.unknown_us.push(operation.call_ns / 1_000),
            (Output::Refused, Some(at)) => timeline.refused_us.push(at / 1_000),
            _ => {}
        }
    }
    timeline
}

/// Judges everything that clients saw against what the cluster has in the end.
async fn judge_run(cluster: &Cluster, notes: &workloads::drive::Notes, report: &mut Report) {
    let recorder = &cluster.recorder;
    let Some(name) = cluster.leader() else {
        return recorder.fail("no leader at the end");
    };
    let (log, _) = match judge::final_state(cluster, &name).await {
        Ok(state) => state,
        Err(why) => return recorder.fail(why),
    };
    let keys: BTreeSet<_> = log.iter().map(|event| event.key.clone()).collect();
    match judge::read_finals(cluster, &name, &keys).await {
        Ok(finals) => {
            let evidence = Evidence {
                notes,
                log: &log,
                finals: &finals,
            };
            report
                .measures
                .extend(judge::judge_history(&evidence, recorder));
        }
        Err(why) => recorder.fail(why),
    }
    let mut hashes: BTreeMap<Index, BTreeSet<String>> = BTreeMap::new();
    for (_, status) in cluster.statuses() {
        // Where tasks come and go by themselves the log never rests: nodes are compared where they stand at the same entry.
        let at = hashes.entry(status.applied_index).or_default();
        at.insert(status.state_hash);
    }
    for hashes in hashes.values().filter(|hashes| hashes.len() > 1) {
        recorder.fail(format!("the nodes' final states differ: {hashes:?}"));
    }
}

/// The run's own clock, nanoseconds, for the clients' history.
fn shared_clock(recorder: &Recorder) -> SharedClock {
    let recorder = recorder.clone();
    Arc::new(move || u64::try_from(recorder.now().as_nanos()).unwrap_or(u64::MAX))
}

/// Addresses of all nodes.
fn endpoints(cluster: &Cluster) -> Vec<String> {
    cluster
        .names()
        .iter()
        .map(|name| format!("{name}:8080"))
        .collect()
}

/// Starts the clients, each on a host of its own; `start` is when the part under faults begins.
fn start_clients(
    plan: &Plan,
    start: Duration,
    cluster: &Cluster,
    notebook: &Notebook,
    done: &Arc<AtomicBool>,
) -> Vec<madsim::task::JoinHandle<()>> {
    let executor = Handle::current();
    (1..=u64::from(plan.clients))
        .map(|number| {
            let host = format!("c{number}");
            cluster.world.network.add_host(&host);
            let node = executor.create_node().name(&host).build();
            let (cluster, notebook, done) = (cluster.clone(), notebook.clone(), Arc::clone(done));
            let mut habits = plan.habits.clone();
            for (from, to) in &mut habits.busy {
                (*from, *to) = (*from + start, *to + start);
            }
            node.spawn(async move {
                let env = cluster.world.env(&host, NoJournal);
                let clock = shared_clock(&cluster.recorder);
                let tasks = Tasks::default();
                let (names, of) = (cluster.names(), cluster.clone());
                let lives: workloads::drive::Lives = Arc::new(move |place| of.lives(&names[place]));
                let all = endpoints(&cluster);
                let driver = Driver::new(number, &env, &tasks, all, habits, clock, lives, notebook);
                driver.run(|| done.load(Ordering::Relaxed)).await;
                tasks.stop().await;
            })
        })
        .collect()
}

/// Starts the watchers, each on a host of its own.
fn start_watchers(
    plan: &Plan,
    cluster: &Cluster,
    notebook: &Notebook,
    done: &Arc<AtomicBool>,
) -> Vec<madsim::task::JoinHandle<()>> {
    let executor = Handle::current();
    (1..=plan.watchers)
        .map(|number| {
            // Workers have these names when there are any.
            let host = match plan.workers {
                0 => format!("w{number}"),
                _ => format!("e{number}"),
            };
            cluster.world.network.add_host(&host);
            let node = executor.create_node().name(&host).build();
            let (cluster, notebook, _) = (cluster.clone(), notebook.clone(), Arc::clone(done));
            node.spawn(async move {
                let env = cluster.world.env(&host, NoJournal);
                let tasks = Tasks::default();
                let options = node::client::Options {
                    watch_silence: Duration::from_secs(5),
                    stream: host.clone(),
                    ..node::client::Options::default()
                };
                let client = Client::with_options(&env, &tasks, endpoints(&cluster), options);
                follow(client, host, notebook, env.clock.clone(), || false).await;
            })
        })
        .collect()
}

/// Puts what the recorder knows into the report.
fn conclude(report: &mut Report, recorder: &Recorder) {
    report.virtual_ms = u64::try_from(recorder.now().as_millis()).unwrap_or(u64::MAX);
    recorder.read(|marks| {
        report
            .failures
            .extend(marks.oracle.violations().iter().cloned());
        report.failures.extend(marks.failures.iter().cloned());
        report.probes = marks
            .probes
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        report.hash = format!("{:016x}{:016x}", marks.hash, simdisk::op_hash());
        report.events = marks.count;
        report.lines = marks
            .lines
            .iter()
            .map(|line| StoryLine {
                at_us: u64::try_from(line.at.as_micros()).unwrap_or(u64::MAX),
                place: line.place.clone(),
                level: line.level as u8,
                text: line.text.clone(),
            })
            .collect();
    });
}
