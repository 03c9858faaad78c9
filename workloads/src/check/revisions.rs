//! Are write revisions unique, and do they follow real time across all keys?
//!
//! What a client knew when a write was called, be it from its own write or from a read of someone
//! else's, has a smaller revision than that write. This holds across keys, where the search for
//! linearizability does not look. Left out: whether reads are fresh.

use std::collections::BTreeMap;

use super::{Finding, Rule};
use crate::history::{History, Operation};

/// Checks all acknowledged writes of a history.
#[must_use]
pub fn revisions(history: &History) -> Vec<Finding> {
    let mut findings = duplicates(history);
    findings.extend(backwards(history));
    findings
}

fn duplicates(history: &History) -> Vec<Finding> {
    let mut owners: BTreeMap<u64, &Operation> = BTreeMap::new();
    let mut findings = Vec::new();
    for operation in &history.operations {
        let Some(revision) = operation.write_revision() else {
            continue;
        };
        if let Some(other) = owners.insert(revision, operation) {
            let text = format!("revision {revision} was given twice: {other}; {operation}");
            findings.push(Finding::new(Rule::RevisionUnique, text));
        }
    }
    findings
}

/// Walks through time; at each write's call, compares with the largest revision known before it.
fn backwards(history: &History) -> Vec<Finding> {
    let mut calls: Vec<&Operation> = history
        .operations
        .iter()
        .filter(|op| op.write_revision().is_some())
        .collect();
    calls.sort_by_key(|operation| operation.call_ns);
    let mut returns: Vec<(u64, u64, &Operation)> = history
        .operations
        .iter()
        .filter_map(|op| Some((op.known_at_ns()?, largest_revision(op)?, op)))
        .collect();
    returns.sort_by_key(|(known_at, ..)| *known_at);
    let mut returns = returns.into_iter().peekable();
    let mut newest: Option<(u64, &Operation)> = None;
    let mut findings = Vec::new();
    for write in calls {
        while let Some((_, known, op)) = returns.next_if(|(at, ..)| *at < write.call_ns) {
            if newest.is_none_or(|(revision, _)| known > revision) {
                newest = Some((known, op));
            }
        }
        let revision = write.write_revision().expect("only writes were kept");
        if let Some((known, before)) = newest.filter(|(known, _)| revision <= *known) {
            let text = format!(
                "revision {known} was known before a write got {revision}: {before}; then {write}"
            );
            findings.push(Finding::new(Rule::RevisionRealTime, text));
        }
    }
    findings
}

fn largest_revision(operation: &Operation) -> Option<u64> {
    operation.known_at_ns()?;
    let seen = operation
        .seen_entries()
        .into_iter()
        .map(|(_, entry)| entry.mod_revision);
    seen.chain(operation.write_revision()).max()
}
