//! What workers and managers say to each other, as JSON over HTTP, and between managers when one passes it on to the leader.
//!
//! A worker goes to any manager. Hellos, heartbeats and reports are answered by the leader, to whom any other manager passes
//! them; assignments are read from whichever manager is asked, as far as it has applied the log.

use super::command::{Machine, WorkerReports};
use crate::types::{ClusterId, Epoch, Incarnation, WorkerId};
use crate::worker::exchange::{Assignments, Hello};
use serde::{Deserialize, Serialize};

/// What the leader is asked on behalf of workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// A worker says who it is. Answered by [`Reply::Welcome`].
    Hello(Box<HelloCall>),
    /// A worker gives a sign of life. Answered by [`Reply::Beat`].
    Beat {
        /// Who.
        worker: WorkerId,
        /// Number of the heartbeat, given back.
        number: u64,
        /// In which session.
        epoch: Epoch,
        /// Revision of its assignments.
        revision: u64,
        /// Number of its newest report: when that is acknowledged, the log knows all that the worker knew.
        #[serde(default)]
        reports: u64,
    },
    /// A worker reports. Answered by [`Reply::Acknowledged`].
    Report(WorkerReports),
    /// The leader asks another manager when it last heard from these workers. Answered by [`Reply::Heard`].
    Heard {
        /// Which.
        workers: Vec<WorkerId>,
    },
    /// A door asks the leader how long each ready worker has been silent. Answered by [`Reply::Silences`].
    Silences,
}

/// How long nothing was heard of a worker, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Which.
    pub worker: WorkerId,
    /// How long, milliseconds; counted from the leader's own first moment at most.
    pub ago_ms: u64,
    /// Whether that is longer than two heartbeats, or most unlikely for this worker.
    pub is_suspect: bool,
}

/// A hello on its way to the leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HelloCall {
    /// The token that it shows, if it has no name in the cluster yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What it is.
    pub machine: Machine,
    /// Who it is, and what it has.
    pub hello: Hello,
}

/// What the leader answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The worker's word was taken.
    Welcome {
        /// The cluster.
        cluster: ClusterId,
        /// The worker's name there.
        worker: WorkerId,
        /// Its session.
        epoch: Epoch,
        /// HTTP addresses of all managers.
        managers: Vec<String>,
    },
    /// A heartbeat was taken.
    Beat {
        /// Its number.
        number: u64,
        /// The session.
        epoch: Epoch,
        /// Revision of the worker's assignments that the leader knows.
        revision: u64,
        /// The lease that is granted, milliseconds from before the heartbeat was sent; zero: none.
        lease_ms: u64,
        /// From one heartbeat to the next, milliseconds, where the leader marks workers down so soon that it needs more of them; none: as
        /// often as a worker sends them by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pace_ms: Option<u64>,
    },
    /// Reports were taken.
    Acknowledged {
        /// Life of the disk in which they are numbered.
        life: Incarnation,
        /// The greatest number.
        number: u64,
    },
    /// When workers were last heard from: milliseconds ago, for each that was at all.
    Heard {
        /// Worker, milliseconds.
        ago_ms: Vec<(WorkerId, u64)>,
    },
    /// How long workers have been silent.
    Silences {
        /// The ready ones; none from a leader that has only begun.
        workers: Vec<Silence>,
    },
    /// The worker was removed, and its hello does not let it in again: it ends its tasks and stays out.
    Removed {
        /// Which.
        worker: WorkerId,
        /// That it was, and what lets its machine in again, in sentences.
        reason: String,
    },
    /// This session is over, or the worker is unknown: it says hello again.
    Over {
        /// Why, in a sentence.
        reason: String,
    },
}

/// The answer of `GET /v1/workers/{id}/assignments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignmentsAnswer {
    /// All assignments, if they are newer than what the worker has; none when the wait ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignments: Option<Assignments>,
    /// HTTP addresses of all managers.
    pub managers: Vec<String>,
}
