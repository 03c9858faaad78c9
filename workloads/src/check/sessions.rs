//! Did each logical write happen at most once, and exactly once if it was acknowledged?
//!
//! Events do not name their session, so writes are told apart by key and value, and counted: at
//! least the acknowledged ones, at most these and those of unknown outcome. With a value of its own
//! for each write that is exact; deletes are counted per key. Only keys that occur in the history
//! are judged, so that the log may hold other writes. Left out: at which revision a write happened
//! ([`super::durability`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Rule};
use crate::history::{Event, History, Key, Operation, ValueId};

/// How often a write was acknowledged, may have happened, and did happen.
#[derive(Default)]
struct Tally<'a> {
    acknowledged: usize,
    possible: usize,
    revisions: Vec<u64>,
    example: Option<&'a Operation>,
}

/// Checks a history against the log.
#[must_use]
pub fn sessions(history: &History, log: &[Event]) -> Vec<Finding> {
    let mut findings = repeated_ids(history);
    findings.extend(
        tallies(history, log)
            .iter()
            .filter_map(|(write, tally)| judge(*write, tally)),
    );
    findings
}

fn repeated_ids(history: &History) -> Vec<Finding> {
    let mut known: BTreeMap<(u64, u64), &Operation> = BTreeMap::new();
    let mut findings = Vec::new();
    for operation in history
        .operations
        .iter()
        .filter(|op| op.known_at_ns().is_some())
    {
        if let Some(other) = known.insert((operation.client, operation.id), operation) {
            let text = format!("one logical request was answered twice: {other}; {operation}");
            findings.push(Finding::new(Rule::AcknowledgedOnce, text));
        }
    }
    findings
}

fn tallies<'a>(
    history: &'a History,
    log: &'a [Event],
) -> BTreeMap<(&'a Key, Option<ValueId>), Tally<'a>> {
    let mut tallies: BTreeMap<_, Tally<'a>> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for operation in &history.operations {
        for write in operation.acknowledged_writes() {
            let tally = tallies.entry(write).or_default();
            tally.acknowledged += 1;
            tally.example = Some(operation);
        }
        // A transaction whose two branches do the same thing still does it once.
        let possible: BTreeSet<_> = operation.possible_writes().into_iter().collect();
        for write in possible {
            let tally = tallies.entry(write).or_default();
            tally.possible += 1;
            tally.example.get_or_insert(operation);
        }
        keys.extend(operation.input.keys());
        for write in operation.input.writes() {
            tallies
                .entry(write)
                .or_default()
                .example
                .get_or_insert(operation);
        }
    }
    for event in log.iter().filter(|event| keys.contains(&event.key)) {
        let write = (&event.key, event.kind.value());
        tallies
            .entry(write)
            .or_default()
            .revisions
            .push(event.revision);
    }
    tallies
}

fn judge((key, value): (&Key, Option<ValueId>), tally: &Tally<'_>) -> Option<Finding> {
    let (happened, acknowledged) = (tally.revisions.len(), tally.acknowledged);
    let most = acknowledged + tally.possible;
    let rule = if happened < acknowledged {
        Rule::Durable
    } else if happened > most {
        Rule::AtMostOnce
    } else {
        return None;
    };
    let write = value.map_or_else(
        || format!("delete {key}"),
        |value| format!("put {key} {value}"),
    );
    let example = tally
        .example
        .map_or("nobody asked for it".to_owned(), ToString::to_string);
    let text = format!(
        "{write} is in the log {happened} times, at {:?}; acknowledged {acknowledged}, at most {most} possible: {example}",
        tally.revisions
    );
    Some(Finding::new(rule, text))
}
