//! The judge: looks at a run from all sides when the storm is over, and measures what the scenario expects.

use crate::cluster::Cluster;
use crate::crew::measure::{self as tasks, Evidence as Crew};
use crate::report::Report;
use crate::storm::Happened;
use crate::trace::{Mark, Recorder};
use bytes::Bytes;
use node::handle::{Condition, Status};
use node::rt::Event as NodeEvent;
use node::types::{Revision, Role};
use scenarios::Scenario;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use workloads::check::{self, StaleRules, Verdict, WatchStep};
use workloads::drive::Notes;
use workloads::history::{Entry, Event, EventKind, History, Key, ValueId};

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

/// What the clients' history is judged against.
pub struct Evidence<'a> {
    /// What clients noted.
    pub notes: &'a Notes,
    /// All changes, in order.
    pub log: &'a [Event],
    /// Final values.
    pub finals: &'a BTreeMap<Key, Entry>,
}

/// Keys of the workload's own rules (leases end by themselves), which the history's judges do not know.
fn is_leased(key: &Key) -> bool {
    key.0.starts_with("lease-")
}

/// Judges the clients' history; gives the measures that come out of it.
pub fn judge_history(evidence: &Evidence<'_>, recorder: &Recorder) -> BTreeMap<String, f64> {
    let history = History {
        operations: evidence.notes.operations.clone(),
    };
    let log: Vec<Event> = evidence
        .log
        .iter()
        .filter(|event| !is_leased(&event.key))
        .cloned()
        .collect();
    let finals: BTreeMap<Key, Entry> = evidence
        .finals
        .iter()
        .filter(|(key, _)| !is_leased(key))
        .map(|(key, entry)| (key.clone(), *entry))
        .collect();
    match check::linearizable(&history) {
        Verdict::Linearizable => {}
        Verdict::Violation(violation) => recorder.fail(format!("not linearizable: {violation}")),
        Verdict::Undecided(why) => recorder.fail(format!("linearizability undecided: {why}")),
    }
    let mut measures = BTreeMap::new();
    let mut count = |name: &str, findings: Vec<check::Finding>| {
        measures.insert(name.to_owned(), findings.len() as f64);
        for finding in findings {
            recorder.fail(format!("{name}: {finding}"));
        }
    };
    count(
        "acknowledged_writes_lost",
        check::durability(&history, &log, &finals),
    );
    count("revisions_out_of_order", check::revisions(&history));
    count("writes_done_twice", check::sessions(&history, &log));
    // Ages are whole milliseconds; clients and nodes share no clock in production, but here they do.
    let rules = StaleRules {
        tolerance_ns: 2_000_000,
        exact: true,
    };
    count(
        "stale_reads_unlabelled",
        check::stale(&history, &log, rules),
    );
    let mut gaps = Vec::new();
    for record in &evidence.notes.watches {
        // A watcher sees everything, the leased keys too.
        gaps.extend(check::watch(record, evidence.log, 0));
    }
    count("watch_gaps", gaps);
    measures.insert(
        "leases_ended_early".to_owned(),
        leases_ended_early(evidence, recorder),
    );
    let events = evidence.notes.watches.iter().flat_map(|one| &one.steps);
    let seen = events
        .filter(|step| matches!(step, WatchStep::Event(_)))
        .count();
    if seen > 0 {
        recorder.sometimes("a watcher saw changes");
    }
    if evidence.notes.departures > 0 {
        recorder.sometimes("a client left a silent node for the new leader");
    }
    measures
}

/// Leases whose key was gone before the time that its client had paid for.
fn leases_ended_early(evidence: &Evidence<'_>, recorder: &Recorder) -> f64 {
    let mut early = 0.0;
    for lease in &evidence.notes.leases {
        let Some(gone_ns) = lease.gone_ns else {
            continue;
        };
        recorder.sometimes("a lease ended");
        // 500 ppm of drift either way on both clocks, and the grain of timers.
        let tolerance = lease.ttl_ns / 500 + 2_000_000;
        if gone_ns + tolerance < lease.renewed_ns + lease.ttl_ns {
            early += 1.0;
            let short = (lease.renewed_ns + lease.ttl_ns - gone_ns) / 1_000_000;
            recorder.fail(format!("the lease of {} ended {short} ms early", lease.key));
        }
    }
    early
}

/// How long after a fault slots may still hold two tasks: a worker is heard again, its hello is taken, a process gets its grace.
const DOUBLE_AFTER: Duration = Duration::from_secs(60);

/// How long a handover within a slot may take when nothing is broken: monitor time, grace, and room for a slow start.
const DOUBLE_MAX: Duration = Duration::from_secs(45);

/// Judges what workers really ran.
pub fn judge_tasks(crew: &Crew, happened: &Happened, report: &mut Report, recorder: &Recorder) {
    let faults = happened.faults.iter();
    let excused: Vec<_> = faults
        .map(|(begin, end)| (*begin, *end + DOUBLE_AFTER))
        .collect();
    report
        .measures
        .extend(tasks::judge(crew, DOUBLE_MAX, &excused, recorder));
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
        let key = Report::key(&expectation.measure, expectation.after.as_deref());
        if !report.measures.contains_key(&key) {
            let span = match &expectation.after {
                Some(label) => match happened.labels.get(label) {
                    Some(span) => Some(*span),
                    // The step did not happen in this seed.
                    None => continue,
                },
                None => None,
            };
            let Some(value) = take(&expectation.measure, span, (notes, crew), recorder) else {
                continue;
            };
            report.measures.insert(key.clone(), value);
        }
        let value = report.measures[&key];
        let over = expectation.max.filter(|max| value > *max);
        let under = expectation.min.filter(|min| value < *min);
        if let Some(bound) = over.or(under) {
            recorder.fail(format!(
                "{} ({}): {value} {}, the bound is {bound}",
                expectation.id, expectation.text, expectation.unit
            ));
        }
    }
}

/// One measure; none when there is nothing to measure in this run.
fn take(
    measure: &str,
    span: Option<(Duration, Duration)>,
    (notes, crew): (&Notes, &Crew),
    recorder: &Recorder,
) -> Option<f64> {
    match measure {
        "leaders_per_term" => Some(recorder.read(|marks| leaders_per_term(marks.marks))),
        "new_leader_ms" => {
            let (begin, _) = span?;
            let before = recorder.read(|marks| term_before(marks.marks, begin));
            recorder
                .read(|marks| {
                    leaders(marks.marks).find(|(at, term)| *at >= begin && *term > before)
                })
                .map(|(at, _)| millis(at - begin))
        }
        "write_gap_ms" => {
            let (begin, _) = span?;
            next_write(&notes.acknowledged, begin)
        }
        "write_pause_ms" => Some(longest_pause(&notes.acknowledged, span?)),
        "write_resumed_ms" => {
            let (_, end) = span?;
            next_write(&notes.acknowledged, end)
        }
        "read_only_left_ms" => {
            let (_, end) = span?;
            let now = recorder.now();
            recorder.read(|marks| read_only_left(marks.marks, end, now))
        }
        "voters_again_ms" => {
            let (begin, _) = span?;
            recorder.read(|marks| voters_again(marks.marks, begin))
        }
        "elections_between" => {
            let (begin, end) = span?;
            let count = recorder.read(|marks| {
                leaders(marks.marks)
                    .filter(|(at, _)| *at >= begin && *at < end)
                    .count()
            });
            Some(count as f64)
        }
        // The judge's own findings are measured when there was a judgement; without one the run has failed already.
        known if tasks::MEASURES.contains(&known) => crew.take(known, span),
        known if MEASURES.contains(&known) => None,
        other => panic!("no measure is called '{other}'"),
    }
}

/// Virtual time as clients count it.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds from `moment` to the first answer to a write that was sent after it.
fn next_write(acknowledged: &[(u64, u64)], moment: Duration) -> Option<f64> {
    let begin_ns = nanos(moment);
    let later = acknowledged.iter().filter(|(call, _)| *call >= begin_ns);
    let answered = later.map(|(_, answered)| *answered).min()?;
    Some((answered - begin_ns) as f64 / 1e6)
}

/// The longest time within a span, milliseconds, in which no write was acknowledged.
fn longest_pause(acknowledged: &[(u64, u64)], (begin, end): (Duration, Duration)) -> f64 {
    let (begin, end) = (nanos(begin), nanos(end));
    let answers = acknowledged.iter().map(|(_, answered)| *answered);
    let mut moments: Vec<u64> = answers.filter(|at| (begin..end).contains(at)).collect();
    moments.extend([begin, end]);
    moments.sort_unstable();
    let pauses = moments.windows(2).map(|pair| pair[1] - pair[0]);
    pauses.max().unwrap_or(0) as f64 / 1e6
}

/// Milliseconds from `end` until no node was read-only; the whole rest of the run when one stays so.
fn read_only_left(marks: &[Mark], end: Duration, now: Duration) -> Option<f64> {
    let mut full: BTreeSet<&str> = BTreeSet::new();
    let mut left = Duration::ZERO;
    for mark in marks {
        if mark.at >= end && full.is_empty() {
            break;
        }
        match &mark.event {
            NodeEvent::ReadOnly { on: true, .. } => {
                full.insert(&mark.place);
            }
            NodeEvent::ReadOnly { on: false, .. } | NodeEvent::Started { .. } => {
                full.remove(mark.place.as_str());
            }
            _ => continue,
        }
        left = mark.at.saturating_sub(end);
    }
    // Somebody never ceased to be read-only.
    let stays = !full.is_empty();
    Some(millis(if stays { now - end } else { left }))
}

/// Milliseconds from `begin` until there were as many voters as before it, and no learner.
fn voters_again(marks: &[Mark], begin: Duration) -> Option<f64> {
    let changes = marks.iter().filter_map(|mark| match &mark.event {
        NodeEvent::MembershipChanged {
            voters, learners, ..
        } => Some((mark.at, voters.len(), learners.len())),
        _ => None,
    });
    let mut removed = None;
    for (at, voters, learners) in changes.filter(|(at, ..)| *at >= begin) {
        // The old member is removed first, its successor promoted then.
        let before = *removed.get_or_insert(voters);
        if voters >= before && learners == 0 && at > begin {
            return Some(millis(at - begin));
        }
    }
    None
}

/// Moments at which a node began to lead, with the term.
fn leaders(marks: &[Mark]) -> impl Iterator<Item = (Duration, u64)> {
    marks.iter().filter_map(|mark| match &mark.event {
        NodeEvent::RoleChanged {
            role: Role::Leader,
            term,
            ..
        } => Some((mark.at, term.0)),
        _ => None,
    })
}

/// The most nodes that led one and the same term.
fn leaders_per_term(marks: &[Mark]) -> f64 {
    let mut terms: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for mark in marks {
        if let NodeEvent::RoleChanged {
            role: Role::Leader,
            term,
            ..
        } = &mark.event
        {
            terms.entry(term.0).or_default().insert(&mark.place);
        }
    }
    terms.values().map(BTreeSet::len).max().unwrap_or(0) as f64
}

/// The highest term led before `moment`.
fn term_before(marks: &[Mark], moment: Duration) -> u64 {
    leaders(marks)
        .filter(|(at, _)| *at < moment)
        .map(|(_, term)| term)
        .max()
        .unwrap_or(0)
}

/// Milliseconds.
fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

/// Names of the measures that expectations may use.
pub const MEASURES: [&str; 15] = [
    "leaders_per_term",
    "new_leader_ms",
    "write_gap_ms",
    "write_pause_ms",
    "write_resumed_ms",
    "read_only_left_ms",
    "voters_again_ms",
    "elections_between",
    "converged_ms",
    "acknowledged_writes_lost",
    "revisions_out_of_order",
    "writes_done_twice",
    "stale_reads_unlabelled",
    "watch_gaps",
    "leases_ended_early",
];
