//! Is there one order of all operations, within their times, in which a single copy of the store
//! would have answered the same?
//!
//! Judged: puts, linearizable gets, deletes and transactions. Every part of an answer counts:
//! value, version, create and mod revision, the version that a failed condition reports; and writes
//! must have been ordered as their revisions are. An operation with unknown outcome may have taken
//! effect at any time after its call, or never. Left out: reads that may be stale
//! ([`super::stale`]) and ranges ([`super::ranges`]).
//!
//! Caveats, all on the lenient side: where the mod revision of a write with unknown outcome stays
//! unknown, a condition on it may come out either way; and of several such writes, one that was
//! overwritten before anyone saw it need not find a revision of its own between its neighbours.

use std::fmt;

use super::model::{Live, Rev};
use super::partition::{Item, Partition, partitions};
use super::search::{Mode, Outcome, Stuck, search};
use crate::history::{History, Key};

/// The number of steps after which [`linearizable`] gives up on a partition: about a second of
/// work.
pub const STEPS_MAX: u64 = 10_000_000;

/// How many operations of the prefix an explanation shows.
const PREFIX_SHOWN: usize = 8;

/// The judgement of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order exists.
    Linearizable,
    /// No order exists.
    Violation(Box<Violation>),
    /// Nobody knows: the reason, for a person.
    Undecided(String),
}

impl Verdict {
    /// Whether an order exists for certain.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        *self == Self::Linearizable
    }
}

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The keys on which it fails: one, or those that transactions tie together.
    pub keys: Vec<Key>,
    /// The longest beginning of an order that was found: `(client, id)` of each operation.
    pub prefix: Vec<(u64, u64)>,
    /// The operations that had to come next, of which none could: `(client, id)`.
    pub blocked: Vec<(u64, u64)>,
    /// The story, for a person; several lines.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Judges a history, with [`STEPS_MAX`] steps for each partition.
#[must_use]
pub fn linearizable(history: &History) -> Verdict {
    linearizable_within(history, STEPS_MAX)
}

/// Judges a history, with at most `steps_max` steps for each of three searches of a
/// partition. A violation is reported for the first
/// partition, by key, that has one.
#[must_use]
pub fn linearizable_within(history: &History, steps_max: u64) -> Verdict {
    let backwards = |operation: &&_| returned_before_called(operation);
    if let Some(operation) = history.operations.iter().find(backwards) {
        return Verdict::Undecided(format!("returned before it was called: {operation}"));
    }
    let mut verdict = Verdict::Linearizable;
    for partition in partitions(&history.operations) {
        match judge(&partition, steps_max) {
            Verdict::Linearizable => {}
            Verdict::Violation(violation) => return Verdict::Violation(violation),
            undecided @ Verdict::Undecided(_) => verdict = undecided,
        }
    }
    verdict
}

/// The hasty search usually finds an order if there is one, and the lenient one usually sees that
/// there is none. The exact one is left with what lies between.
fn judge(partition: &Partition<'_>, steps_max: u64) -> Verdict {
    let hasty = search(partition, Mode::Hasty, steps_max.div_ceil(10));
    if matches!(hasty, Outcome::Found) {
        return Verdict::Linearizable;
    }
    let lenient = search(partition, Mode::Lenient, steps_max);
    let outcome = match lenient {
        Outcome::Stuck(_) => lenient,
        Outcome::Found | Outcome::GaveUp => search(partition, Mode::Exact, steps_max),
    };
    match outcome {
        Outcome::Found => Verdict::Linearizable,
        Outcome::Stuck(stuck) => Verdict::Violation(Box::new(violation(partition, &stuck))),
        Outcome::GaveUp => Verdict::Undecided(gave_up(partition, steps_max)),
    }
}

fn returned_before_called(operation: &crate::history::Operation) -> bool {
    operation
        .return_ns
        .is_some_and(|return_ns| return_ns < operation.call_ns)
}

fn gave_up(partition: &Partition<'_>, steps_max: u64) -> String {
    let (operations, keys) = (partition.items.len(), key_list(partition));
    format!(
        "no order of {operations} operations on {keys} was found or ruled out in {steps_max} steps"
    )
}

fn violation(partition: &Partition<'_>, stuck: &Stuck) -> Violation {
    let names = |items: &[usize]| {
        let operations = items.iter().map(|item| partition.items[*item].operation);
        operations
            .map(|operation| (operation.client, operation.id))
            .collect()
    };
    Violation {
        keys: partition.keys.iter().map(|key| (*key).clone()).collect(),
        prefix: names(&stuck.prefix),
        blocked: names(&stuck.blocked),
        text: story(partition, stuck),
    }
}

fn story(partition: &Partition<'_>, stuck: &Stuck) -> String {
    let (placed, total) = (stuck.prefix.len(), partition.items.len());
    let mut lines = vec![
        format!("not linearizable on {}", key_list(partition)),
        format!("{placed} of {total} operations can be put in order; the last of them:"),
    ];
    let shown = &stuck.prefix[placed.saturating_sub(PREFIX_SHOWN)..];
    lines.extend(
        shown
            .iter()
            .map(|item| format!("  {}", partition.items[*item].operation)),
    );
    lines.push("after which the store holds:".to_owned());
    let touched = |key: &usize| {
        stuck
            .blocked
            .iter()
            .any(|item| touches(&partition.items[*item], *key))
    };
    let keys = (0..partition.keys.len()).filter(touched);
    lines.extend(keys.map(|key| {
        format!(
            "  {}: {}",
            partition.keys[key],
            live(stuck.lives[key].as_ref())
        )
    }));
    lines.push("and none of these, one of which must be next, fits:".to_owned());
    for item in &stuck.blocked {
        let item = &partition.items[*item];
        lines.push(format!(
            "  {}{}",
            item.operation,
            waits_for(partition, stuck, item)
        ));
    }
    lines.join("\n")
}

fn key_list(partition: &Partition<'_>) -> String {
    let shown: Vec<String> = partition
        .keys
        .iter()
        .take(6)
        .map(ToString::to_string)
        .collect();
    match partition.keys.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more keys", shown.join(", ")),
    }
}

fn touches(item: &Item<'_>, key: usize) -> bool {
    let acts = item.step.then.iter().chain(&item.step.otherwise);
    item.step.compares.iter().any(|(at, _)| *at == key)
        || acts.into_iter().any(|act| act.key() == key)
}

/// Names the write of a smaller revision that must come before a blocked write, if there is one.
fn waits_for(partition: &Partition<'_>, stuck: &Stuck, item: &Item<'_>) -> String {
    let unplaced = partition
        .items
        .iter()
        .enumerate()
        .filter(|(at, _)| !stuck.prefix.contains(at));
    let earlier = unplaced
        .map(|(_, other)| other)
        .filter(|other| other.revision < item.revision);
    match earlier
        .filter(|other| other.revision.is_some())
        .min_by_key(|other| other.revision)
    {
        Some(other) => {
            let (client, id) = (other.operation.client, other.operation.id);
            format!(" (after the smaller revision of client {client} op {id})")
        }
        None => String::new(),
    }
}

fn live(live: Option<&Live>) -> String {
    let Some(Live {
        value,
        version,
        create,
        modified,
    }) = live
    else {
        return "nothing".to_owned();
    };
    let value = value.map_or("a value that nobody saw".to_owned(), |value| {
        value.to_string()
    });
    let (create, modified) = (revision(*create), revision(*modified));
    format!("{value} (version {version}, created at {create}, put at {modified})")
}

fn revision(rev: Rev) -> String {
    match (rev.lo, rev.hi) {
        (lo, hi) if lo == hi => lo.to_string(),
        (lo, u64::MAX) => format!("{lo} or later"),
        (lo, hi) => format!("{lo} to {hi}"),
    }
}
