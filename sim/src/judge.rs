//! The judge: looks at a run from all sides when the storm is over, and measures what the scenario expects.

use crate::cluster::Cluster;
use crate::crew::measure::{self as tasks, Evidence as Crew};
use crate::report::Report;
use crate::storm::{CommandRun, Happened};
use crate::trace::Recorder;
use bytes::Bytes;
use node::handle::{Condition, Status};
use node::types::{Revision, Role};
use scenarios::Scenario;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use workloads::drive::Notes;
use workloads::history::{Entry, Event, EventKind, Key, ValueId};
pub use workloads::measure::MEASURES;
use workloads::measure::{self, Seen};
use workloads::verdict;
pub use workloads::verdict::Evidence;

/// Longest time from the end of all faults until everybody must agree.
pub const CONVERGE_MAX: Duration = Duration::from_secs(30);

/// Waits until all nodes take part, follow one leader, and have applied the same log; gives the time it took.
pub async fn converge(cluster: &Cluster) -> Option<Duration> {
    let start = cluster.recorder.now();
    loop {
        cluster.supervise().await;
        if agree(&cluster.statuses(), cluster.names().len()) {
            return Some(cluster.recorder.now() - start);
        }
        if cluster.recorder.now() - start > CONVERGE_MAX {
            return None;
        }
        madsim::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether all `nodes` run, know one leader, are voters, and stand at the same entry.
fn agree(statuses: &[(String, Status)], nodes: usize) -> bool {
    let Some((_, first)) = statuses.first() else {
        return false;
    };
    statuses.len() == nodes
        && first.leader.0 != 0
        && first.members.len() == nodes
        && first.members.iter().all(|one| one.role != Role::Learner)
        && statuses.iter().all(|(_, one)| {
            one.condition == Condition::Running
                && one.leader == first.leader
                && one.term == first.term
                && one.applied_index == first.applied_index
                && one.applied_index == one.commit_index
                && one.last_index == first.last_index
                && one.members.len() == nodes
        })
}

/// Says why nodes do not agree.
pub fn disagreement(cluster: &Cluster) -> String {
    let mut words = Vec::new();
    for name in cluster.names() {
        match cluster.handle(&name).map(|handle| handle.status()) {
            None => words.push(format!("{name} does not run")),
            Some(one) => words.push(format!(
                "{name}: {:?}, {} in term {}, leader {}, applied {} of {}, log to {}, {} members",
                one.condition,
                one.role,
                one.term,
                one.leader,
                one.applied_index,
                one.commit_index,
                one.last_index,
                one.members.len()
            )),
        }
    }
    words.join("; ")
}

/// The log of all changes, and the final values, as `name` has them.
pub async fn final_state(
    cluster: &Cluster,
    name: &str,
) -> Result<(Vec<Event>, BTreeMap<Key, Entry>), String> {
    let handle = cluster.handle(name).ok_or("the node does not run")?;
    let mut log = Vec::new();
    let mut from = Revision(1);
    let end = Bytes::from_static(&[0]);
    loop {
        let batch = handle
            .history(from, Bytes::new(), end.clone())
            .await
            .map_err(|error| format!("reading the final history: {error}"))?;
        for event in batch.events {
            let text = String::from_utf8_lossy(&event.kv.value).into_owned();
            let key = Key(String::from_utf8_lossy(&event.kv.key).into_owned());
            let kind = if event.deleted {
                EventKind::Delete
            } else {
                EventKind::Put(value_of(&text))
            };
            log.push(Event {
                revision: event.kv.mod_revision,
                key,
                kind,
            });
        }
        from = Revision(batch.through.0 + 1);
        if batch.through >= handle.status().revision {
            break;
        }
    }
    let entries = replay(&log);
    Ok((log, entries))
}

/// The identity of a value.
fn value_of(text: &str) -> ValueId {
    text.trim_end()
        .parse()
        .map_or_else(|_| ValueId::of_bytes(text.as_bytes()), ValueId)
}

/// Final values, from the log.
fn replay(log: &[Event]) -> BTreeMap<Key, Entry> {
    let mut entries: BTreeMap<Key, Entry> = BTreeMap::new();
    for event in log {
        match event.kind {
            EventKind::Delete => {
                entries.remove(&event.key);
            }
            EventKind::Put(value) => {
                let before = entries.get(&event.key).copied();
                let entry = Entry {
                    value,
                    version: before.map_or(1, |one| one.version + 1),
                    create_revision: before.map_or(event.revision, |one| one.create_revision),
                    mod_revision: event.revision,
                };
                entries.insert(event.key.clone(), entry);
            }
        }
    }
    entries
}

/// Final values, as linearizable reads give them.
pub async fn read_finals(
    cluster: &Cluster,
    name: &str,
    keys: &BTreeSet<Key>,
) -> Result<BTreeMap<Key, Entry>, String> {
    let handle = cluster.handle(name).ok_or("the node does not run")?;
    let mut finals = BTreeMap::new();
    for key in keys {
        let query = node::state::command::Get {
            key: Bytes::copy_from_slice(key.0.as_bytes()),
            ..node::state::command::Get::default()
        };
        let consistency = node::handle::Consistency::Linearizable;
        let (done, _) = handle
            .read(query, consistency, None)
            .await
            .map_err(|error| format!("reading {key} at the end: {error}"))?;
        if let Some(kv) = done.kvs.first() {
            let entry = Entry {
                value: value_of(&String::from_utf8_lossy(&kv.value)),
                version: kv.version,
                create_revision: kv.create_revision,
                mod_revision: kv.mod_revision,
            };
            finals.insert(key.clone(), entry);
        }
    }
    Ok(finals)
}

/// Judges the clients' history; gives the measures that come out of it.
pub fn judge_history(evidence: &Evidence<'_>, recorder: &Recorder) -> BTreeMap<String, f64> {
    let judged = verdict::judge(evidence);
    for failure in judged.failures {
        recorder.fail(failure);
    }
    for probe in judged.probes {
        recorder.sometimes(probe);
    }
    judged.measures
}

/// How long after a fault slots may still hold two tasks: somebody leads again, the worker finds a manager that answers (8 s of
/// patience with a dead connection, a pause of 5 s, a call of 3 s) and says hello; then a process gets its grace of 10 s.
const DOUBLE_AFTER: Duration = Duration::from_secs(30);

/// Judges what workers really ran.
pub fn judge_tasks(crew: &Crew, happened: &Happened, report: &mut Report, recorder: &Recorder) {
    let faults = happened.faults.iter();
    let excused: Vec<_> = faults
        .map(|(begin, end)| (*begin, *end + DOUBLE_AFTER))
        .collect();
    let judged = tasks::judge(crew, &excused);
    report.measures.extend(judged.measures);
    judged
        .failures
        .into_iter()
        .for_each(|one| recorder.fail(one));
    judged
        .probes
        .into_iter()
        .for_each(|one| recorder.sometimes(one));
}

/// Measures what the scenario expects, and holds it against the bounds.
pub fn measure(
    scenario: &Scenario,
    happened: &Happened,
    (notes, crew): (&Notes, &Crew),
    report: &mut Report,
    recorder: &Recorder,
) {
    for expectation in &scenario.expect {
        if expectation
            .profile
            .as_ref()
            .is_some_and(|profile| *profile != report.profile)
        {
            continue;
        }
        let key = expectation.key();
        if !report.measures.contains_key(&key) {
            let span = match &expectation.after {
                Some(label) => match happened.labels.get(label) {
                    Some(span) => Some(*span),
                    // The step did not happen in this seed.
                    None => continue,
                },
                None => None,
            };
            let (measure, of) = (&expectation.measure, expectation.service.as_deref());
            let taken = match measure.as_str() {
                "command_ms" => {
                    slowest(&happened.commands, span.unwrap_or(crew.storm), crew.storm.0)
                }
                measure if tasks::MEASURES.contains(&measure) => crew.take(measure, of, span),
                measure => take(measure, span, notes, recorder),
            };
            let Some(value) = taken else {
                continue;
            };
            report.measures.insert(key.clone(), value);
        }
        let value = report.measures[&key];
        if let Some(broken) = expectation.broken_by(value) {
            recorder.fail(broken);
        }
    }
}

/// Measures of what operators typed.
pub const OF_COMMANDS: [&str; 1] = ["command_ms"];

/// The longest time that a command took which was typed within a span, milliseconds; commands count from `start`.
fn slowest(
    commands: &[CommandRun],
    (begin, end): (Duration, Duration),
    start: Duration,
) -> Option<f64> {
    let at = |one: &CommandRun| start + Duration::from_millis(one.at_ms);
    let within = commands
        .iter()
        .filter(|one| at(one) >= begin && at(one) < end);
    within.map(|one| one.took_ms).reduce(f64::max)
}

/// One measure of nodes and clients; none when there is nothing to measure in this run.
fn take(
    name: &str,
    span: Option<(Duration, Duration)>,
    notes: &Notes,
    recorder: &Recorder,
) -> Option<f64> {
    assert!(MEASURES.contains(&name), "no measure is called '{name}'");
    let now = recorder.now();
    recorder.read(|marks| {
        let seen = Seen {
            marks: marks.marks,
            acknowledged: &notes.acknowledged,
            now,
        };
        measure::take(name, span, &seen)
    })
}
