//! Reports to managers: numbered, kept until they are acknowledged, one for each task at most.
//!
//! A report says everything of its task, so a newer one makes the older needless: the queue is never longer than the worker had
//! tasks, however long no manager hears it. A number is never used for two contents.

use super::words::Observation;
use crate::types::TaskId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a worker says of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its number in the life of the worker's disk, from 1; greater is newer.
    pub number: u64,
    /// The task.
    pub task: TaskId,
    /// What is said of it.
    #[serde(flatten)]
    pub observation: Observation,
}

/// The reports that managers have not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reports {
    /// Number of the newest report.
    newest: u64,
    /// Those not acknowledged, by number.
    waiting: BTreeMap<u64, Report>,
}

impl Reports {
    /// A new report, in the place of an older one of the same task.
    pub(super) fn add(&mut self, task: TaskId, observation: Observation) -> Report {
        self.waiting.retain(|_, report| report.task != task);
        self.newest += 1;
        let report = Report {
            number: self.newest,
            task,
            observation,
        };
        self.waiting.insert(report.number, report.clone());
        report
    }

    /// Managers have everything up to `number`.
    pub(super) fn acknowledged(&mut self, number: u64) {
        if number <= self.newest {
            self.waiting.retain(|waiting, _| *waiting > number);
        }
    }

    /// Those not acknowledged, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Report> {
        self.waiting.values()
    }

    /// Number of the newest report.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether what was read from a disk makes sense.
    pub(super) fn is_sound(&self) -> bool {
        self.waiting
            .iter()
            .all(|(number, report)| *number == report.number && (1..=self.newest).contains(number))
    }
}
