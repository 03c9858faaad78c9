//! What one run says of itself: verdict, measures, evidence. The unit of sweeps, files and the handbook.

use crate::storm::CommandRun;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Scenario.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// Voters.
    pub nodes: u32,
    /// Profile.
    pub profile: String,
    /// What went wrong; empty for a good run.
    pub failures: Vec<String>,
    /// Measures by the key of their expectation.
    pub measures: BTreeMap<String, f64>,
    /// Probes that were hit, with how often.
    pub probes: BTreeMap<String, u64>,
    /// Hash over everything that happened, hex.
    pub hash: String,
    /// Events hashed.
    pub events: u64,
    /// Length of the run, virtual milliseconds.
    pub virtual_ms: u64,
    /// Processor time its process took, microseconds; the runner knows. Not part of the hash, and not the same in two runs.
    pub cpu_us: u64,
    /// Operations that clients did.
    pub operations: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Errors that clients saw, by code.
    pub errors: BTreeMap<String, u64>,
    /// Commands that operators ran.
    pub commands: Vec<CommandRun>,
    /// Labelled steps that happened: begin and end, virtual microseconds since the start.
    pub labels: BTreeMap<String, (u64, u64)>,
    /// What a picture needs; none unless the story was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// The story's lines, for pictures and replays; empty unless asked for.
    pub lines: Vec<StoryLine>,
}

/// One line of the story.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoryLine {
    /// When, virtual microseconds since the start.
    pub at_us: u64,
    /// Where.
    pub place: String,
    /// 0 story, 1 detail, 2 all.
    pub level: u8,
    /// What.
    pub text: String,
}

impl Report {
    /// A run that ended before it could say anything.
    pub fn lost(scenario: &str, seed: u64, why: String) -> Self {
        Report {
            scenario: scenario.to_owned(),
            seed,
            failures: vec![why],
            ..Report::default()
        }
    }

    /// The command that shows this run again.
    pub fn replay_command(&self) -> String {
        format!("storm replay {} --seed {}", self.scenario, self.seed)
    }
}
