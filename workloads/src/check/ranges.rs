//! Did each range read show one consistent moment?
//!
//! The keys and entries must be those at the revision that the answer states. A linearizable range
//! must also contain every write that was acknowledged before it was called, and none that was
//! called after it returned.

use super::log::{Spans, Times};
use super::{Finding, Rule};
use crate::history::{Consistency, Entry, Event, History, Input, Key, Operation, Output};

/// Checks all ranges of a history against the log.
#[must_use]
pub fn ranges(history: &History, log: &[Event]) -> Vec<Finding> {
    let (spans, times) = (Spans::of(log), Times::of(history));
    let answered = history
        .operations
        .iter()
        .filter(|op| op.known_at_ns().is_some());
    answered
        .filter_map(|operation| judge(operation, &spans, &times))
        .collect()
}

fn judge(operation: &Operation, spans: &Spans<'_>, times: &Times) -> Option<Finding> {
    let Input::Range {
        prefix,
        limit,
        consistency,
    } = &operation.input
    else {
        return None;
    };
    let Output::Entries { entries, revision } = &operation.output else {
        return None;
    };
    let why = if !same(entries, prefix, *limit, *revision, spans) {
        format!("this is not what the keys held at revision {revision}")
    } else if operation.known_at_ns()? < times.earliest(*revision) {
        format!("revision {revision} was not there yet")
    } else if *consistency == Consistency::Linearizable
        && *revision < times.there_before(operation.call_ns)
    {
        let newer = times.there_before(operation.call_ns);
        format!("revision {newer} was acknowledged before the read was called")
    } else {
        return None;
    };
    Some(Finding::new(
        Rule::RangeConsistent,
        format!("{why}: {operation}"),
    ))
}

fn same(
    entries: &[(Key, Entry)],
    prefix: &str,
    limit: Option<u32>,
    revision: u64,
    spans: &Spans<'_>,
) -> bool {
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let matching = spans
        .state(revision)
        .filter(|(key, _)| key.0.starts_with(prefix));
    matching
        .take(limit)
        .eq(entries.iter().map(|(key, entry)| (key, *entry)))
}
