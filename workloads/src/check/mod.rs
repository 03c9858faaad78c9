//! The judges: each takes what clients saw and says what no correct cluster could have answered.
//!
//! | judge | question |
//! |---|---|
//! | [`linearizable`] | is there one order of all operations that explains every answer? |
//! | [`revisions`] | are write revisions unique, and do they follow real time across all keys? |
//! | [`sessions`] | did each logical write happen at most once, and exactly once if acknowledged? |
//! | [`durability`] | is each acknowledged write in the log, and is the final state the log's replay? |
//! | [`watch`] | did a watcher get exactly the log's events: no gap, no duplicate, no reordering? |
//! | [`stale`] | did reads that may be stale tell the truth about how stale they are? |
//! | [`ranges`] | did each range read show one consistent moment? |
//! | [`fleet`] | does what managers have of services, tasks and workers keep the contract, step by step? |
//! | [`tasks`] | did the processes that really ran keep it? |
//!
//! `linearizable` needs the history alone. The others but `revisions` also take the *event log*:
//! all events in order, as a watch from revision 1 shows them once faults are over. A judge
//! condemns only what is certainly wrong: an outcome that is unknown excuses everything that it
//! could explain.

mod durability;
pub mod fleet;
mod hints;
mod linearizable;
mod log;
mod model;
mod partition;
mod ranges;
mod revisions;
mod search;
mod sessions;
mod stale;
pub mod tasks;
mod watch;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use durability::durability;
pub use linearizable::{STEPS_MAX, Verdict, Violation, linearizable, linearizable_within};
pub use ranges::ranges;
pub use revisions::revisions;
pub use sessions::sessions;
pub use stale::{StaleRules, stale};
pub use watch::{WatchRecord, WatchStep, watch};

/// The rule that a finding shows to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    /// The event log itself is in order: revisions never fall, and no key is written twice at one
    /// revision.
    LogOrder,
    /// No two acknowledged writes have the same revision.
    RevisionUnique,
    /// What was known before a write was called has a smaller revision than the write.
    RevisionRealTime,
    /// A logical write takes effect at most once, and never after it was refused.
    AtMostOnce,
    /// An acknowledged write is in the log, at the revision that was acknowledged.
    Durable,
    /// A logical write is acknowledged once.
    AcknowledgedOnce,
    /// The final state is what replaying the log gives.
    FinalState,
    /// A watch shows the log's events, in order, without gap or duplicate.
    WatchExact,
    /// A watch says "compacted" only for what was compacted.
    WatchCompaction,
    /// A stale read carries the mark that its consistency demands.
    ReadMarked,
    /// A read shows what the key held at a revision that the node had applied.
    ReadCommitted,
    /// The applied revision does not fall on one connection.
    ReadMonotonic,
    /// A bounded read is no older than it says.
    AgeTruthful,
    /// A range read shows the state at one revision, fresh enough for its consistency.
    RangeConsistent,
    /// What is known of a task, and what is wanted of it, only moves forward.
    Forward,
    /// A task is given only to a worker that fits.
    TaskPlace,
    /// Reservations never exceed a worker's capacity.
    Reservations,
    /// Every change of a task's state has an event.
    Explained,
    /// A volume has one writer at every moment.
    SingleWriter,
    /// A task runs on one worker, one attempt at a time.
    OneAttempt,
    /// Two processes of one slot are a handover, which ends.
    SlotDoubled,
    /// A slot has and remembers few tasks, whatever happens to it.
    SlotBounded,
    /// A worker that was removed stays out until an operator lets it in.
    StaysOut,
}

/// One thing that no correct cluster could have done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The broken rule.
    pub rule: Rule,
    /// What was seen and why it is wrong, for a person.
    pub text: String,
}

impl Finding {
    pub(crate) fn new(rule: Rule, text: String) -> Self {
        Self { rule, text }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}
