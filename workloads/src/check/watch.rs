//! Did a watcher get exactly the log's events, from its start to where it got to?
//!
//! Left out: how long delivery took. A watcher that ended early is not wrong; to demand that it
//! caught up, end its record with the [`WatchStep::Progress`] that it was sent, or that it should
//! have been sent.

use serde::{Deserialize, Serialize};

use super::{Finding, Rule};
use crate::history::{Event, Key};

/// One thing that a watcher was sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WatchStep {
    /// An event.
    Event(
        /// The event.
        Event,
    ),
    /// All events up to this revision have been sent.
    Progress(
        /// The revision.
        u64,
    ),
    /// The events that were due next are gone; the watch goes on at `resume_at`.
    Compacted {
        /// The first revision that will be sent.
        resume_at: u64,
    },
}

/// All that one watcher was sent, over all its reconnections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRecord {
    /// Its name, for findings.
    pub name: String,
    /// The first revision that it asked for.
    pub start_revision: u64,
    /// What the watched keys start with.
    pub prefix: String,
    /// What it was sent, in order.
    pub steps: Vec<WatchStep>,
}

/// Checks a watcher's record. `compacted_revision` is the largest revision that anyone asked to
/// compact, 0 if none: events at it and before may be gone.
#[must_use]
pub fn watch(record: &WatchRecord, log: &[Event], compacted_revision: u64) -> Vec<Finding> {
    let watched = |event: &&Event| {
        event.revision >= record.start_revision && starts_with(&event.key, &record.prefix)
    };
    let due: Vec<&Event> = log.iter().filter(watched).collect();
    let mut cursor = Cursor {
        record,
        due: &due,
        next: 0,
        compacted_revision,
        findings: Vec::new(),
    };
    record.steps.iter().for_each(|step| cursor.step(step));
    cursor.findings
}

fn starts_with(key: &Key, prefix: &str) -> bool {
    key.0.starts_with(prefix)
}

struct Cursor<'a> {
    record: &'a WatchRecord,
    due: &'a [&'a Event],
    next: usize,
    compacted_revision: u64,
    findings: Vec<Finding>,
}

impl Cursor<'_> {
    fn step(&mut self, step: &WatchStep) {
        match step {
            WatchStep::Event(event) => self.event(event),
            WatchStep::Progress(revision) => self.progress(*revision),
            WatchStep::Compacted { resume_at } => self.compacted(*resume_at),
        }
    }

    /// An event out of its turn is one finding; then the watch is followed from there, so that one
    /// gap is not reported as often as there are events after it.
    fn event(&mut self, event: &Event) {
        let (due, next) = (self.due, self.next);
        let at = match due.get(next) {
            Some(expected) if *expected == event => next,
            _ => match due.iter().position(|other| *other == event) {
                Some(at) if at < next => {
                    self.found(format!("got {} again, or too late", show(event)));
                    return;
                }
                Some(at) => {
                    let missing = at - next;
                    self.found(format!(
                        "{missing} events missing from {} on",
                        show(due[next])
                    ));
                    at
                }
                None => {
                    self.found(format!("got {}, which is not in the log", show(event)));
                    return;
                }
            },
        };
        self.next = at + 1;
    }

    fn progress(&mut self, revision: u64) {
        if let Some(event) = self
            .due
            .get(self.next)
            .filter(|event| event.revision <= revision)
        {
            let text = format!("was told of progress to {revision} without {}", show(event));
            self.found(text);
            self.skip_to(revision.saturating_add(1));
        }
    }

    fn compacted(&mut self, resume_at: u64) {
        let next = self.due.get(self.next).map(|event| event.revision);
        let compacted = self.compacted_revision;
        if next.is_some_and(|next| next < resume_at && resume_at > compacted.saturating_add(1)) {
            let text =
                format!("skipped to {resume_at} as compacted, but only {compacted} was compacted");
            self.findings
                .push(Finding::new(Rule::WatchCompaction, self.named(&text)));
        }
        self.skip_to(resume_at);
    }

    fn skip_to(&mut self, revision: u64) {
        let to = self.due.partition_point(|event| event.revision < revision);
        self.next = self.next.max(to);
    }

    fn found(&mut self, text: String) {
        self.findings
            .push(Finding::new(Rule::WatchExact, self.named(&text)));
    }

    fn named(&self, text: &str) -> String {
        format!(
            "watch {} from {}: {text}",
            self.record.name, self.record.start_revision
        )
    }
}

fn show(event: &Event) -> String {
    format!("{:?} of {} at {}", event.kind, event.key, event.revision)
}
