//! One live run: processes, clients, storm, calm, and the judgement.

use crate::clock::RunClock;
use crate::cluster::Cluster;
use crate::crew::{Crew, STAY};
use crate::ground::sync_once;
use crate::journal;
use crate::plan::Plan;
use crate::report::{Report, Story, StoryLine};
use crate::storm::{Labels, Storm};
use anyhow::{Context, Result, bail};
use futures::future::join_all;
use node::api::wire::Record;
use node::client::watch::Told;
use node::client::{Client, Options, Page, Range, Reading};
use node::handle::Consistency;
use node::rt::{Env, Tasks, real};
use node::types::Revision;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use workloads::check::WatchStep;
use workloads::crew::Evidence as CrewEvidence;
use workloads::drive::{Driver, Lives, Notebook, Notes, SharedClock, entry_of, event_of, follow};
use workloads::history::{Entry, Event, Key};
use workloads::measure::{self, MEASURES, Mark, Seen};
use workloads::verdict::{self, Evidence};

/// Longest time until a fresh cluster has a leader that all know.
const FORM_MAX: Duration = Duration::from_secs(30);
/// Longest time from the end of the storm until everybody must agree, as in simulation.
const CONVERGE_MAX: Duration = Duration::from_secs(30);
/// How often somebody looks whether they do.
const LOOK: Duration = Duration::from_millis(50);
/// How often the supervisor looks at the processes.
const SUPERVISE: Duration = Duration::from_millis(250);
/// How often the disk is asked how long a durable write takes.
const DISK_PROBE: Duration = Duration::from_millis(250);
/// How long watchers may take to hear the last of it.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Longest time to read everything that the cluster has at the end.
const READ_MAX: Duration = Duration::from_secs(30);

/// What a run needs of the world.
struct Stage {
    /// The real world.
    env: Env,
    /// Tasks of clients.
    tasks: Tasks,
    /// The nodes.
    cluster: Cluster,
    /// Workers and services, if the scenario has any.
    crew: Option<Crew>,
}

/// What was seen of the part under faults, for measures.
struct Observed {
    /// What clients noted.
    notes: Notes,
    /// When steps happened.
    labels: Labels,
    /// What was seen of workers and tasks, if there were any.
    crew: Option<CrewEvidence>,
}

impl Drop for Stage {
    /// No process outlives its run, also when the run is dropped half-way: tasks that still know the cluster would keep it.
    fn drop(&mut self) {
        self.cluster.abandon();
        self.crew.iter().for_each(Crew::end);
    }
}

/// Carries out `plan` with `program` in `dir`, which is the run's own.
pub(crate) async fn run(plan: &Plan, program: PathBuf, dir: &Path) -> Result<Report> {
    let env = real::env("live")?;
    let (tasks, clock, story) = (Tasks::default(), RunClock::start(), Story::default());
    let parts = (clock, story.clone());
    let cluster = Cluster::found(plan, dir, program, (&env, &tasks), parts)?;
    let crew = match plan.workers {
        0 => None,
        _ => Some(Crew::found(&cluster, dir).await?),
    };
    let stage = Stage {
        env,
        tasks,
        cluster,
        crew,
    };
    let (disk_probe, worst_sync_us) = start_disk_probe(dir);
    for name in stage.cluster.names() {
        stage.cluster.up(&name);
    }
    let mut report = Report {
        commit: sim_launch::commit(),
        ..Report::default()
    };
    let formed = agree_within(&stage.cluster, FORM_MAX).await.is_some();
    let mut seen = None;
    if !formed {
        let why = stage.cluster.disagreement().await;
        story.fail(format!("the cluster did not begin as it should: {why}"));
    } else if let Some(Err(error)) = form_crew(plan, &stage).await {
        story.fail(format!("the crew did not begin as it should: {error:#}"));
    } else if story.told().failures.is_empty() {
        seen = Some(weather(plan, &stage, &mut report).await);
    }
    if let Some(crew) = &stage.crew {
        crew.tell_events().await;
    }
    stage.cluster.end().await;
    stage.crew.iter().for_each(Crew::end);
    stage.tasks.stop().await;
    let marks = stage.cluster.marks();
    disk_probe.abort();
    report.worst_sync = Duration::from_micros(worst_sync_us.load(Ordering::Relaxed));
    report.length = clock.now();
    report.told = story.told();
    if let Some(seen) = &seen {
        expect(plan, &marks, seen, &mut report);
    }
    tell_marks(&marks, &mut report);
    Ok(report)
}

/// Brings workers and services to where the storm begins, if there are any.
async fn form_crew(plan: &Plan, stage: &Stage) -> Option<Result<()>> {
    let crew = stage.crew.as_ref()?;
    Some(crew.form(plan).await)
}

/// Waits until all nodes agree; gives the time it took.
async fn agree_within(cluster: &Cluster, longest: Duration) -> Option<Duration> {
    let start = cluster.clock.now();
    while cluster.clock.now() - start < longest {
        cluster.supervise();
        if cluster.agrees().await {
            return Some(cluster.clock.now() - start);
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}

/// Clients and storm together; then calm, agreement and judgement.
async fn weather(plan: &Plan, stage: &Stage, report: &mut Report) -> Observed {
    let (cluster, story) = (&stage.cluster, &stage.cluster.story);
    let start = cluster.clock.now();
    let (notebook, done) = (Notebook::default(), Arc::new(AtomicBool::new(false)));
    let clients = start_clients(plan, start, stage, &notebook, &done);
    let watchers = start_watchers(plan, stage, &notebook);
    let supervisor = start_supervisor(cluster.clone());
    let storm = Storm::new(cluster.clone(), stage.crew.clone(), plan.seed);
    storm.rage(plan, start).await;
    let calm = cluster.clock.now();
    done.store(true, Ordering::Relaxed);
    for ended in join_all(clients).await {
        if let Err(error) = ended {
            story.fail(format!("a client came to a bad end: {error}"));
        }
    }
    supervisor.abort();
    match agree_within(cluster, CONVERGE_MAX).await {
        Some(took) => {
            let took_ms = took.as_secs_f64() * 1_000.0;
            report.measures.insert("converged_ms".to_owned(), took_ms);
            if let Some(crew) = &stage.crew {
                calm_down(plan, crew, cluster, report).await;
            }
            tokio::time::sleep(LAST_WORDS).await;
            watchers.iter().for_each(JoinHandle::abort);
            if let Err(error) = judge(stage, &notebook.notes(), report).await {
                story.fail(format!("the end could not be judged: {error:#}"));
            }
        }
        None => {
            let why = cluster.disagreement().await;
            let what = "the cluster did not come together within";
            story.fail(format!("{what} {CONVERGE_MAX:?} after the storm: {why}"));
        }
    }
    watchers.iter().for_each(JoinHandle::abort);
    let notes = notebook.notes();
    report.operations = notes.operations.len() as u64;
    report.acknowledged = notes.acknowledged.len() as u64;
    report.errors.clone_from(&notes.errors);
    report.first_errors.clone_from(&notes.first_errors);
    let crew = stage.crew.as_ref().map(|crew| {
        let evidence = crew.evidence((start, calm));
        report
            .measures
            .extend(crew.judge(&evidence, &storm.faults()));
        evidence
    });
    Observed {
        notes,
        labels: storm.labels(),
        crew,
    }
}

/// Services come to be as they shall after the storm, and stay so.
async fn calm_down(plan: &Plan, crew: &Crew, cluster: &Cluster, report: &mut Report) {
    let Some(took) = crew.settle("after the storm").await else {
        return;
    };
    let took_ms = took.as_secs_f64() * 1_000.0;
    let key = "services_settled_ms".to_owned();
    report.measures.insert(key, took_ms);
    crew.stays(STAY.min(plan.duration)).await;
    // The log may have gone on with them; what the judges compare must rest. Services whose tasks never rest are an exception.
    agree_within(cluster, CONVERGE_MAX).await;
}

/// Starts the clients.
fn start_clients(
    plan: &Plan,
    start: Duration,
    stage: &Stage,
    notebook: &Notebook,
    done: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let (clock, names) = (stage.cluster.clock, stage.cluster.names());
    let shared: SharedClock = Arc::new(move || clock.nanos());
    let of = stage.cluster.clone();
    let lives: Lives = Arc::new(move |place| of.lives(&names[place]));
    let mut habits = plan.habits.clone();
    for (from, to) in &mut habits.busy {
        (*from, *to) = (*from + start, *to + start);
    }
    let client = |number| {
        let driver = Driver::new(
            number,
            &stage.env,
            &stage.tasks,
            stage.cluster.endpoints(),
            habits.clone(),
            Arc::clone(&shared),
            Arc::clone(&lives),
            notebook.clone(),
        );
        let done = Arc::clone(done);
        tokio::spawn(driver.run(move || done.load(Ordering::Relaxed)))
    };
    (1..=u64::from(plan.clients)).map(client).collect()
}

/// Starts the watchers; whoever holds them ends them.
fn start_watchers(plan: &Plan, stage: &Stage, notebook: &Notebook) -> Vec<JoinHandle<()>> {
    let watcher = |number| {
        let name = format!("w{number}");
        let client = reader(stage, &name, stage.cluster.endpoints());
        let (notebook, clock) = (notebook.clone(), stage.env.clock.clone());
        // It ends after the clients, by an abort: what it hears last is what they did last.
        tokio::spawn(follow(client, name, notebook, clock, || false))
    };
    (1..=plan.watchers).map(watcher).collect()
}

/// A client that only reads.
fn reader(stage: &Stage, name: &str, endpoints: Vec<String>) -> Client {
    let options = Options {
        sessions: false,
        stream: format!("reader {name}"),
        ..Options::default()
    };
    Client::with_options(&stage.env, &stage.tasks, endpoints, options)
}

/// Starts what asks the disk under `dir`, again and again, how long a durable write takes; the longest is in the cell, microseconds.
fn start_disk_probe(dir: &Path) -> (JoinHandle<()>, Arc<AtomicU64>) {
    let (dir, worst) = (dir.to_owned(), Arc::new(AtomicU64::new(0)));
    let cell = Arc::clone(&worst);
    let probe = tokio::spawn(async move {
        loop {
            let dir = dir.clone();
            let asked = tokio::task::spawn_blocking(move || sync_once(&dir)).await;
            // A disk that refuses fails the nodes as well, and they say so.
            if let Ok(Ok(took)) = asked {
                let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                cell.fetch_max(took_us, Ordering::Relaxed);
            }
            tokio::time::sleep(DISK_PROBE).await;
        }
    });
    (probe, worst)
}

/// Starts what starts processes again.
fn start_supervisor(cluster: Cluster) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SUPERVISE).await;
            cluster.supervise();
        }
    })
}

/// Judges everything that clients saw against what the cluster has in the end.
async fn judge(stage: &Stage, notes: &Notes, report: &mut Report) -> Result<()> {
    let (cluster, story) = (&stage.cluster, &stage.cluster.story);
    let asker = reader(stage, "judge", cluster.endpoints());
    let reading = async {
        let finals = everything(&asker, Consistency::Linearizable).await?;
        let log = history(&asker, finals.revision).await?;
        anyhow::Ok((finals, log))
    };
    let (finals, log) = tokio::time::timeout(READ_MAX, reading)
        .await
        .context("reading the end took too long")??;
    let evidence = Evidence {
        notes,
        log: &log,
        finals: &finals.entries,
    };
    let judged = verdict::judge(&evidence);
    report.measures.extend(judged.measures);
    judged.failures.into_iter().for_each(|one| story.fail(one));
    judged.probes.into_iter().for_each(|one| story.probe(one));
    for (name, endpoint) in cluster.names().into_iter().zip(cluster.endpoints()) {
        let one = reader(stage, &name, vec![endpoint]);
        let its = everything(&one, Consistency::Local).await?;
        // A lease may have ended in between; then the later one proves nothing.
        if its.revision == finals.revision && its.entries != finals.entries {
            story.fail(format!(
                "{name} has other values than the leader at {}",
                its.revision
            ));
        }
    }
    Ok(())
}

/// All keys at one moment.
struct Everything {
    /// Values by key.
    entries: BTreeMap<Key, Entry>,
    /// Revision at which they were read.
    revision: Revision,
}

/// Reads all keys, page by page, all at the revision of the first.
async fn everything(client: &Client, consistency: Consistency) -> Result<Everything> {
    let mut entries = BTreeMap::new();
    let (mut page, mut revision) = (Page::default(), None);
    loop {
        let reading = Reading {
            consistency,
            revision,
        };
        let answer = client.range(&Range::All, &page, reading).await?;
        let at = *revision.get_or_insert(answer.fresh.revision);
        let last = answer
            .found
            .kvs
            .last()
            .and_then(|record| record.key.clone());
        entries.extend(answer.found.kvs.iter().filter_map(keyed));
        match last {
            Some(last) if answer.found.more => page.after = Some(last.into()),
            _ => {
                return Ok(Everything {
                    entries,
                    revision: at,
                });
            }
        }
    }
}

/// A record with its key, as the history has them.
fn keyed(record: &Record) -> Option<(Key, Entry)> {
    Some((Key(record.key.clone()?), entry_of(record)?))
}

/// The log of all changes up to `last`, as a watch from the first revision tells it.
async fn history(client: &Client, last: Revision) -> Result<Vec<Event>> {
    let mut log = Vec::new();
    let mut watch = client.watch(&Range::All, Some(Revision(1))).await?;
    loop {
        let step = match watch.next().await? {
            Told::Put(change) => event_of(&change, false),
            Told::Delete(change) => event_of(&change, true),
            Told::Progress(revision) if revision >= last => break,
            Told::Progress(_) => continue,
        };
        match step {
            Some(WatchStep::Event(event)) => log.push(event),
            _ => bail!("a change has no key or no value that is text"),
        }
    }
    // What was written while the log was read is no part of what is judged.
    log.retain(|event| event.revision <= last.0);
    Ok(log)
}

/// Measures what the scenario expects, and holds it against the bounds.
fn expect(plan: &Plan, marks: &[Mark], observed: &Observed, report: &mut Report) {
    let labels = &observed.labels;
    let seen = Seen {
        marks,
        acknowledged: &observed.notes.acknowledged,
        now: report.length,
    };
    let of_crew = |expectation: &scenarios::Expectation, span| {
        let crew = observed.crew.as_ref()?;
        crew.take(&expectation.measure, expectation.service.as_deref(), span)
    };
    let of_this_profile = |profile: &Option<String>| {
        profile
            .as_ref()
            .is_none_or(|profile| profile == plan.profile_name())
    };
    let expectations = plan.scenario.expect.iter();
    for expectation in expectations.filter(|one| of_this_profile(&one.profile)) {
        let name = &expectation.measure;
        let span = match &expectation.after {
            None => None,
            // The step did not happen with this seed.
            Some(label) if !labels.contains_key(label) => continue,
            Some(label) => Some(labels[label]),
        };
        let key = match &expectation.after {
            None => name.clone(),
            Some(label) => format!("{name}@{label}"),
        };
        let judged = report.measures.get(&key).copied();
        let taken = || measure::take(name, span, &seen).or_else(|| of_crew(expectation, span));
        let Some(value) = judged.or_else(taken) else {
            let known = MEASURES.iter().chain(&workloads::crew::MEASURES);
            let why = if known.copied().any(|one| one == name) {
                "nothing to measure in this run"
            } else {
                "only the simulator sees it"
            };
            let line = format!("{} ({}): {why}", expectation.id, expectation.text);
            report.unmeasured.push(line);
            continue;
        };
        report.measures.insert(key, value);
        report.met.push((expectation.clone(), value));
        report.told.failures.extend(expectation.broken_by(value));
    }
}

/// Puts what nodes wrote of themselves into the story; a membership once, when the first node applies it.
fn tell_marks(marks: &[Mark], report: &mut Report) {
    let mut membership = String::new();
    for mark in marks {
        if let Some(text) = journal::told(&mark.event) {
            let is_membership = matches!(mark.event, node::rt::Event::MembershipChanged { .. });
            if is_membership && std::mem::replace(&mut membership, text.clone()) == text {
                continue;
            }
            let (at, place) = (mark.at, mark.place.clone());
            report.told.lines.push(StoryLine { at, place, text });
        }
    }
    report.told.lines.sort_by_key(|line| line.at);
}
