//! What is kept of live runs: one file per scenario, written by `storm live --record` and read for the handbook's pages.
//!
//! Pure data. A live run cannot be had again byte by byte, so what it measured is kept, with the machine it was measured on.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The live runs of a scenario that are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveRecord {
    /// The scenario.
    pub scenario: String,
    /// Its runs, by seed; none of them failed.
    pub runs: Vec<LiveRun>,
}

/// One live run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveRun {
    /// Seed of its plan.
    pub seed: u64,
    /// Day on which it was made, UTC.
    pub date: String,
    /// The machine: processor, memory, kernel.
    pub machine: String,
    /// The machine's load over the minute before it.
    pub load: Option<f64>,
    /// The longest time that a small durable write took beside the nodes, milliseconds.
    #[serde(default)]
    pub worst_sync_ms: Option<f64>,
    /// Version of the program.
    pub version: String,
    /// `release`, or `debug` for a build that is slower and checks more.
    pub build: String,
    /// The commit it was built from; with `+` when files were changed.
    pub commit: String,
    /// Nodes.
    pub nodes: u32,
    /// Workers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workers: u32,
    /// Profile.
    pub profile: String,
    /// Length, seconds.
    pub seconds: f64,
    /// Clients.
    pub clients: u32,
    /// Operations judged.
    pub operations: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Errors that clients saw, by code.
    pub errors: BTreeMap<String, u64>,
    /// What was measured.
    pub measures: Vec<LiveMeasure>,
    /// What the run did otherwise than the scenario says, in sentences.
    pub departures: Vec<String>,
}

/// One expectation of the scenario, as it was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveMeasure {
    /// Id of the expectation.
    pub id: String,
    /// Its sentence.
    pub text: String,
    /// Unit.
    pub unit: String,
    /// What was measured.
    pub value: f64,
    /// Greatest value allowed.
    pub max: Option<f64>,
    /// Least value allowed.
    pub min: Option<f64>,
}

/// Whether a number says nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl LiveRecord {
    /// Takes in a run, in the place of an older one of the same seed.
    pub fn keep(&mut self, run: LiveRun) {
        self.runs.retain(|one| one.seed != run.seed);
        self.runs.push(run);
        self.runs.sort_by_key(|one| one.seed);
    }
}
