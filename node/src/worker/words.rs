//! The words that a task's machine, the worker's core and the executors share: what is given, what happens, what is to be done.

use crate::knobs::Knobs;
use crate::secrets::Sealed;
use crate::service::{Desired, Spec, State};
use crate::types::{ServiceId, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The worker's numbers, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats for a leader that does not ask for more.
    pub heartbeat_ms: u64,
    /// How long before a lease's end the last process that needs it has been killed.
    pub lease_margin_ms: u64,
    /// Longest grace of a task that stops because its lease runs out.
    pub lease_grace_max_ms: u64,
    /// Longest pause between two health checks until the first that succeeds.
    pub probe_ms: u64,
    /// Pause before a process that did not die is killed again.
    pub kill_retry_ms: u64,
}

impl Timing {
    /// The numbers among the knobs.
    pub fn of(knobs: &Knobs) -> Self {
        let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Timing {
            heartbeat_ms: ms(knobs.worker_heartbeat),
            lease_margin_ms: ms(knobs.worker_lease_margin),
            lease_grace_max_ms: ms(knobs.worker_lease_grace_max),
            probe_ms: ms(knobs.worker_probe),
            kill_retry_ms: ms(knobs.worker_kill_retry),
        }
    }
}

/// A task that the log gave to this worker. All but `desired` and the sealing of its secrets stays as it is for
/// the task's whole life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Its slot, from 1; for a global service the number of its worker.
    pub slot: u64,
    /// Version of the service that it runs, from 1.
    pub version: u64,
    /// What managers want of it.
    pub desired: Desired,
    /// That version's specification, shared by all of a manager's answers.
    #[serde(with = "crate::service::shared")]
    pub spec: Arc<Spec>,
    /// Its secrets, sealed for this worker, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, GivenSecret>,
}

/// A secret as managers give it to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenSecret {
    /// Its version.
    pub version: u64,
    /// Its value, sealed for the worker's key; none: managers could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// Why they could not, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// An executor's name for one running attempt, by which it is found again after the worker's own restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(pub String);

/// How a process ended; nothing is set when it ended while nobody watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether it was killed because it used more memory than its limit.
    #[serde(default)]
    pub oom: bool,
}

impl Exit {
    /// It ended while nobody watched.
    pub const UNSEEN: Exit = Exit {
        code: None,
        signal: None,
        oom: false,
    };

    /// Whether it counts as a success.
    pub fn is_success(self) -> bool {
        self.code == Some(0) && !self.oom
    }

    /// It in words, after "it".
    pub fn describe(self) -> String {
        match self {
            Exit { oom: true, .. } => "killed: it used more memory than its limit".to_owned(),
            Exit {
                code: Some(code), ..
            } => format!("ended with code {code}"),
            Exit {
                signal: Some(signal),
                ..
            } => format!("ended by signal {signal}"),
            _ => "ended while nobody watched".to_owned(),
        }
    }
}

/// Why something ended, from its exit and from what its worker says of it, which mostly tells the exit already; may be empty.
pub fn why(exit: Option<Exit>, message: &str) -> String {
    match exit.map(Exit::describe) {
        Some(how) if message.is_empty() => how,
        Some(how) if !message.contains(&how) => format!("{how}: {message}"),
        _ => message.to_owned(),
    }
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Whether trying again on this worker cannot help.
    pub is_permanent: bool,
    /// One sentence for people.
    pub message: String,
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in order.
    Term,
    /// End now.
    Kill,
}

/// What happens to a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// What managers want of it.
    Desired(Desired),
    /// It may run until then (exclusive) by the worker's own clock; [`FREE`]: it needs no lease.
    Leave {
        /// The end, milliseconds.
        until_ms: u64,
    },
    /// What it needs is there, or not.
    Prepared(Result<(), Refusal>),
    /// An attempt's process runs, or could not be started.
    Started {
        /// The attempt.
        attempt: u32,
        /// Its process.
        result: Result<Handle, Refusal>,
    },
    /// An attempt's process has ended, and whatever it left behind.
    Exited {
        /// The attempt.
        attempt: u32,
        /// How.
        exit: Exit,
    },
    /// A health check has its result.
    Checked {
        /// The attempt.
        attempt: u32,
        /// Which check of it.
        number: u32,
        /// Whether it succeeded.
        healthy: bool,
    },
    /// The worker itself was away; this process of the newest attempt was found, or none.
    Resumed {
        /// The process.
        found: Option<Handle>,
    },
}

/// What is to be done for a task, in this order: what stands before [`Effect::Persist`] waits for nothing, what stands
/// behind it waits until the task is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Signal a process.
    Signal {
        /// The attempt.
        attempt: u32,
        /// Its process.
        handle: Handle,
        /// What to tell it.
        signal: Signal,
    },
    /// Make the task durable as it is now.
    Persist,
    /// Tell managers.
    Report(Observation),
    /// Fetch what it needs.
    Prepare,
    /// Start a process.
    Start {
        /// The attempt; greater than any before.
        attempt: u32,
        /// Not at or after this time, milliseconds; [`FREE`]: at any time.
        until_ms: u64,
    },
    /// Check its health once.
    Check {
        /// The attempt.
        attempt: u32,
        /// Which check of it.
        number: u32,
    },
    /// Remove everything that is kept for it: nobody wants to know of it any more.
    Forget,
}

impl Effect {
    /// Its place among the effects of one step.
    pub(super) fn order(&self) -> u8 {
        match self {
            Effect::Signal { .. } => 0,
            Effect::Persist => 1,
            _ => 2,
        }
    }
}

/// What a worker says of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Its state.
    pub state: State,
    /// Attempts begun so far.
    pub attempts: u32,
    /// How the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why, in a sentence; may be empty.
    pub message: String,
}

/// No leader makes a worker send heartbeats faster than this, milliseconds: it would be a mistake.
pub(super) const PACE_MS_MIN: u64 = 20;

/// The leave of a task that needs no lease.
pub const FREE: u64 = u64::MAX;
