//! Did reads that may be stale tell the truth about how stale they are?
//!
//! A bounded or local read must show what the key held at a revision that the answering node had
//! applied; the applied revision must not fall on one connection; and where an age is stated, what
//! was shown must have been current that long before the call or later. (The node states the age
//! when it answers, at some time between call and return; an answer that then spent seconds on the
//! way was still true.) Times of revisions are known only as bounds, from the calls and returns of
//! acknowledged writes; only what is wrong for every time within them is reported.

use std::collections::BTreeMap;

use super::log::{Span, Spans, Times};
use super::{Finding, Rule};
use crate::history::{Consistency, Entry, Event, History, Input, Key, Operation, Output, ReadMark};

/// How strictly stale reads are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleRules {
    /// How far the answering node's clock may run wrong while the age accrues, in nanoseconds.
    pub tolerance_ns: u64,
    /// Whether a read must show the state at exactly the applied revision that it states, as it
    /// does when that revision and the value come from one snapshot; else any earlier state will
    /// do.
    pub exact: bool,
}

/// Checks all bounded and local gets of a history against the log.
#[must_use]
pub fn stale(history: &History, log: &[Event], rules: StaleRules) -> Vec<Finding> {
    let (spans, times) = (Spans::of(log), Times::of(history));
    let mut findings = Vec::new();
    let mut marked: Vec<(&Operation, ReadMark)> = Vec::new();
    for operation in &history.operations {
        let Some(read) = stale_read(operation) else {
            continue;
        };
        if let Some(mark) = read.mark {
            marked.push((operation, mark));
        }
        findings.extend(
            judge(&read, &spans, &times, rules)
                .map(|(rule, why)| Finding::new(rule, format!("{why}: {operation}"))),
        );
    }
    findings.extend(falling(&marked));
    findings
}

struct Read<'a> {
    key: &'a Key,
    consistency: Consistency,
    entry: Option<Entry>,
    mark: Option<ReadMark>,
    call_ns: u64,
    return_ns: u64,
}

fn stale_read(operation: &Operation) -> Option<Read<'_>> {
    let return_ns = operation.known_at_ns()?;
    match (&operation.input, &operation.output) {
        (
            Input::Get {
                consistency: Consistency::Linearizable,
                ..
            },
            _,
        ) => None,
        (Input::Get { key, consistency }, Output::Value { entry, mark }) => Some(Read {
            key,
            consistency: *consistency,
            entry: *entry,
            mark: *mark,
            call_ns: operation.call_ns,
            return_ns,
        }),
        _ => None,
    }
}

fn judge(
    read: &Read<'_>,
    spans: &Spans<'_>,
    times: &Times,
    rules: StaleRules,
) -> Option<(Rule, String)> {
    let Some(mark) = read.mark else {
        return Some((Rule::ReadMarked, "a stale read without a mark".to_owned()));
    };
    if read.consistency == Consistency::Bounded && mark.age_ns.is_none() {
        return Some((Rule::ReadMarked, "a bounded read without an age".to_owned()));
    }
    let applied = mark.applied_revision;
    let shown = |span: &&Span| {
        span.entry == read.entry
            && span.from <= applied
            && (!rules.exact || span.until.is_none_or(|until| applied < until))
            && times.earliest(span.from) <= read.return_ns
    };
    let shown: Vec<&Span> = spans.key(read.key).iter().filter(shown).collect();
    if shown.is_empty() {
        let when = if rules.exact { "at" } else { "at or before" };
        let why = format!("the key held nothing like it {when} applied revision {applied}");
        return Some((Rule::ReadCommitted, why));
    }
    let age = mark.age_ns?;
    let since = read
        .call_ns
        .saturating_sub(age.saturating_add(rules.tolerance_ns));
    let current = |span: &&Span| span.until.is_none_or(|until| times.latest(until) >= since);
    if shown.iter().any(current) {
        return None;
    }
    let until = shown
        .iter()
        .filter_map(|span| span.until)
        .max()
        .unwrap_or(0);
    let by = times.latest(until);
    let why = format!(
        "age {age} ns was stated, but revision {until} had replaced it by {by}, before {since}"
    );
    Some((Rule::AgeTruthful, why))
}

/// Reads on one connection that follow each other must not go back. Those that overlap may have
/// been answered in any order.
fn falling(marked: &[(&Operation, ReadMark)]) -> Vec<Finding> {
    let mut connections: BTreeMap<(u64, u64), Vec<(&Operation, u64)>> = BTreeMap::new();
    for (operation, mark) in marked {
        let reads = connections.entry((mark.node, mark.connection)).or_default();
        reads.push((operation, mark.applied_revision));
    }
    connections
        .values()
        .flat_map(|reads| falling_on_one(reads))
        .collect()
}

fn falling_on_one(reads: &[(&Operation, u64)]) -> Vec<Finding> {
    let mut calls: Vec<_> = reads.to_vec();
    calls.sort_by_key(|(operation, _)| operation.call_ns);
    let mut returns = calls.clone();
    returns.sort_by_key(|(operation, _)| operation.return_ns);
    let mut returns = returns.into_iter().peekable();
    let mut newest: Option<(&Operation, u64)> = None;
    let mut findings = Vec::new();
    for (operation, applied) in calls {
        while let Some(read) = returns.next_if(|(op, _)| op.return_ns < Some(operation.call_ns)) {
            newest = newest.filter(|(_, best)| *best >= read.1).or(Some(read));
        }
        if let Some((before, best)) = newest.filter(|(_, best)| applied < *best) {
            let text = format!(
                "applied revision fell from {best} to {applied}: {before}; then {operation}"
            );
            findings.push(Finding::new(Rule::ReadMonotonic, text));
        }
    }
    findings
}
