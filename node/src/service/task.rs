//! The states of a task, and the order in which it goes through them (docs/orchestration.md, section 2).

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is known of a task's life. It only moves forward: an observation of lower or equal rank is old news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It exists and has no worker.
    #[default]
    Pending,
    /// It has a worker, which may not know yet.
    Assigned,
    /// The worker has it on its disk and fetches what it needs.
    Preparing,
    /// The process runs, and its health is not known yet.
    Starting,
    /// The process runs and is healthy, or has no health check.
    Running,
    /// It was told to stop and has its grace period.
    Stopping,
    /// It ended with code 0.
    Complete,
    /// It ended otherwise: by its code, by a lack of memory, or because its health check gave up.
    Failed,
    /// It cannot run on this worker.
    Rejected,
    /// It ended because it was told to, or was never begun.
    Stopped,
}

impl State {
    /// Every state, in order of rank.
    pub const ALL: [State; 10] = [
        State::Pending,
        State::Assigned,
        State::Preparing,
        State::Starting,
        State::Running,
        State::Stopping,
        State::Complete,
        State::Failed,
        State::Rejected,
        State::Stopped,
    ];

    /// Place in a task's life; the four ends share the last one, so that none replaces another.
    pub fn rank(self) -> u8 {
        match self {
            State::Pending => 0,
            State::Assigned => 1,
            State::Preparing => 2,
            State::Starting => 3,
            State::Running => 4,
            State::Stopping => 5,
            State::Complete | State::Failed | State::Rejected | State::Stopped => 6,
        }
    }

    /// Whether the task has ended.
    pub fn is_end(self) -> bool {
        self.rank() == 6
    }

    /// Whether a task in this state may be observed in `next`.
    pub fn may_become(self, next: State) -> bool {
        self.rank() < next.rank()
    }

    /// Whether a worker has it, so that it uses a place, a reservation and perhaps a volume.
    pub fn is_on_worker(self) -> bool {
        (1..6).contains(&self.rank())
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            State::Pending => "pending",
            State::Assigned => "assigned",
            State::Preparing => "preparing",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Complete => "complete",
            State::Failed => "failed",
            State::Rejected => "rejected",
            State::Stopped => "stopped",
        })
    }
}

/// What managers want of a task. Only moves down this list.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// It shall run.
    #[default]
    Run,
    /// It shall end.
    Stop,
    /// It shall end and be forgotten.
    Remove,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_never_goes_back_and_no_end_replaces_another() {
        for from in State::ALL {
            for to in State::ALL {
                assert_eq!(from.may_become(to), from.rank() < to.rank());
                if from.is_end() {
                    assert!(!from.may_become(to), "{from} -> {to}");
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_the_json() {
        for state in State::ALL {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{state}\""));
        }
    }
}
