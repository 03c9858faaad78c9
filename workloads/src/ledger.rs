//! What really ran, and when: every process of every task, as the world saw it.
//!
//! Managers believe and workers report; the ledger knows. It is written by whoever runs the processes (in simulation: the executor)
//! and read by the judges of [`crate::check`]. All times are those of one clock, since the start of the run.

use node::service::spec::Amounts;
use node::types::TaskId;
use std::time::Duration;

/// Why a process ended that was told to and did.
pub const STOPPED: &str = "stopped as told";
/// Why a process ended that had nothing more to do.
pub const DONE: &str = "done";
/// Why a process ended that a guard killed although its worker had not ended.
pub const LEASE_ENDED: &str = "its lease has ended";
/// Why a process ended that was killed.
pub const KILLED: &str = "killed";

/// One process.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The worker's host.
    pub host: String,
    /// Its task.
    pub task: TaskId,
    /// Which attempt of it.
    pub attempt: u32,
    /// Its service's name.
    pub service: String,
    /// Its slot; for a global service the number of its worker.
    pub slot: u64,
    /// The version of its service in which its contents appeared first.
    pub version: u64,
    /// Volumes that it has for itself.
    pub volumes: Vec<String>,
    /// What is set aside for it.
    pub reserved: Amounts,
    /// When it began.
    pub from: Duration,
    /// How long after that it serves.
    pub ready_after: Duration,
    /// When it was first told to end.
    pub told: Option<Duration>,
    /// When an operator said that its machine is dead (`node rm --force`): from then on another may take its place.
    pub given_up: Option<Duration>,
    /// When nothing of it was left.
    pub to: Option<Duration>,
    /// How it ended.
    pub why: String,
}

impl Run {
    /// Whether a process of it is there at `at`.
    pub fn is_there(&self, at: Duration) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }

    /// From when to when it serves: not before it is ready, and not once it was told to end. Nothing if it never does; an
    /// open end is `now`.
    pub fn serves(&self, now: Duration) -> Option<(Duration, Duration)> {
        let begin = self.from + self.ready_after;
        let end = self.told.into_iter().chain(self.to).min().unwrap_or(now);
        (begin < end).then_some((begin, end))
    }

    /// Whether it and `other` may write to one volume from `at` on: an operator has given one of them up, in words that name the risk.
    pub fn may_share(&self, other: &Run, at: Duration) -> bool {
        let given_up = |run: &Run| run.given_up.is_some_and(|given_up| given_up <= at);
        given_up(self) || given_up(other)
    }

    /// The time in which both this and `other` are there; an open end is `now`.
    pub fn overlap(&self, other: &Run, now: Duration) -> Option<(Duration, Duration)> {
        let begin = self.from.max(other.from);
        let end = self.to.unwrap_or(now).min(other.to.unwrap_or(now));
        (begin < end).then_some((begin, end))
    }
}
