//! Is each acknowledged write in the log at its revision, is the log in order, and is the final
//! state its replay?
//!
//! Left out: whether a write is there more than once ([`super::sessions`]).

use std::collections::{BTreeMap, BTreeSet};

use super::log::Spans;
use super::{Finding, Rule};
use crate::history::{Entry, Event, EventKind, History, Key};

/// Checks the log for acknowledged writes, and `final_state` (all keys that exist at the end) for
/// the log's replay.
#[must_use]
pub fn durability(
    history: &History,
    log: &[Event],
    final_state: &BTreeMap<Key, Entry>,
) -> Vec<Finding> {
    let mut findings = disorder(log);
    findings.extend(lost(history, log));
    findings.extend(differences(log, final_state));
    findings
}

fn disorder(log: &[Event]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut written: BTreeSet<(u64, &Key)> = BTreeSet::new();
    let mut newest = 0;
    for event in log {
        let Event { revision, key, .. } = event;
        if *revision < newest || *revision == 0 {
            let text = format!("the log has {key} at revision {revision} after revision {newest}");
            findings.push(Finding::new(Rule::LogOrder, text));
        }
        if !written.insert((*revision, key)) {
            let text = format!("the log has {key} twice at revision {revision}");
            findings.push(Finding::new(Rule::LogOrder, text));
        }
        newest = newest.max(*revision);
    }
    findings
}

fn lost(history: &History, log: &[Event]) -> Vec<Finding> {
    let there: BTreeMap<(u64, &Key), EventKind> = log
        .iter()
        .map(|event| ((event.revision, &event.key), event.kind))
        .collect();
    let mut findings = Vec::new();
    for operation in &history.operations {
        let Some(revision) = operation.write_revision() else {
            continue;
        };
        for (key, value) in operation.acknowledged_writes() {
            let kind = there.get(&(revision, key));
            if kind.map(|kind| kind.value()) != Some(value) {
                let found = kind.map_or("nothing".to_owned(), |kind| format!("{kind:?}"));
                let text = format!(
                    "acknowledged, but at {revision} the log has {found} for {key}: {operation}"
                );
                findings.push(Finding::new(Rule::Durable, text));
            }
        }
    }
    findings
}

fn differences(log: &[Event], final_state: &BTreeMap<Key, Entry>) -> Vec<Finding> {
    let spans = Spans::of(log);
    let replayed: BTreeMap<&Key, Entry> = spans.state(u64::MAX).collect();
    let keys: BTreeSet<&Key> = replayed.keys().copied().chain(final_state.keys()).collect();
    let differs = |key: &&Key| replayed.get(*key) != final_state.get(*key);
    let finding = |key: &Key| {
        let show = |entry: Option<&Entry>| entry.map_or("nothing".to_owned(), ToString::to_string);
        let (log, found) = (show(replayed.get(key)), show(final_state.get(key)));
        Finding::new(
            Rule::FinalState,
            format!("{key} is {found}, but by the log it is {log}"),
        )
    };
    keys.into_iter().filter(differs).map(finding).collect()
}
