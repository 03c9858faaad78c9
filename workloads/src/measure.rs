//! Measures of a run: numbers that expectations hold against bounds, taken from what nodes wrote in their journals and from when
//! clients' writes were acknowledged. The same for a simulated run and for a live one.
//!
//! Pure: no clock, no I/O. Times count from the run's own zero. Left out: what only the judgement of a history gives
//! ([`crate::verdict`]), and measures of tasks on workers.

use node::rt::Event as NodeEvent;
use node::types::{NodeId, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Something in a node's journal that a measure or the story refers to later.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// Where.
    pub place: String,
    /// What, as the journal had it.
    pub event: NodeEvent,
}

/// What was seen of a run.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Journals of all nodes, in order of time.
    pub marks: &'a [Mark],
    /// Moments at which a write was acknowledged: called and answered, nanoseconds.
    pub acknowledged: &'a [(u64, u64)],
    /// The end of what was seen.
    pub now: Duration,
}

/// One measure, within or after `span` if it belongs to a step; none when there is nothing to measure in this run, and for what
/// the judges count themselves.
pub fn take(measure: &str, span: Option<(Duration, Duration)>, seen: &Seen<'_>) -> Option<f64> {
    let marks = seen.marks;
    match measure {
        "leaders_per_term" => Some(leaders_per_term(marks)),
        "new_leader_ms" => {
            let (begin, _) = span?;
            let before = term_before(marks, begin);
            leaders(marks)
                .find(|(at, term)| *at >= begin && *term > before)
                .map(|(at, _)| millis(at - begin))
        }
        "write_gap_ms" => next_write(seen.acknowledged, span?.0),
        "write_pause_ms" => Some(longest_pause(seen.acknowledged, span?)),
        "write_resumed_ms" => next_write(seen.acknowledged, span?.1),
        "read_only_left_ms" => read_only_left(marks, span?.1, seen.now),
        "voters_again_ms" => voters_again(marks, span?.0),
        "new_voter_ms" => new_voter(marks, span?.0),
        "elections_between" => {
            let (begin, end) = span?;
            let within = |at: Duration| at >= begin && at < end;
            Some(leaders(marks).filter(|(at, _)| within(*at)).count() as f64)
        }
        _ => None,
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

/// Milliseconds from `begin` until a learner that was not there before votes.
fn new_voter(marks: &[Mark], begin: Duration) -> Option<f64> {
    let (mut known, mut new) = (BTreeSet::<NodeId>::new(), BTreeSet::<NodeId>::new());
    for mark in marks {
        let NodeEvent::MembershipChanged {
            voters, learners, ..
        } = &mark.event
        else {
            continue;
        };
        if mark.at < begin {
            known.extend(voters.iter().chain(learners));
            continue;
        }
        if voters.iter().any(|id| new.contains(id)) {
            return Some(millis(mark.at - begin));
        }
        new.extend(learners.iter().filter(|id| !known.contains(id)));
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

/// Names of the measures that expectations may use of any run; those of tasks are not among them.
pub const MEASURES: [&str; 16] = [
    "leaders_per_term",
    "new_leader_ms",
    "write_gap_ms",
    "write_pause_ms",
    "write_resumed_ms",
    "read_only_left_ms",
    "voters_again_ms",
    "new_voter_ms",
    "elections_between",
    "converged_ms",
    "acknowledged_writes_lost",
    "revisions_out_of_order",
    "writes_done_twice",
    "stale_reads_unlabelled",
    "watch_gaps",
    "leases_ended_early",
];
