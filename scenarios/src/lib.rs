//! Which cluster meets which weather: TOML files with prose, and the types that read them (pure data).
//!
//! A [`Scenario`] is written for two readers: an operator, who gets it as a page of the handbook, and the simulator, which
//! draws a plan from it for every seed. Every number that a seed may vary is a [`Span`]. This crate knows nobody: what a
//! step means is decided in `sim`, what a workload does in `workloads`.

mod live;
mod registry;
mod step;

pub use live::{LiveMeasure, LiveRecord, LiveRun};
pub use registry::{all, find};
pub use step::{Action, Crash, Cut, Flow, Moment, Shown, Step, Who};

use serde::{Deserialize, Serialize};

/// A range that a seed draws from, both ends included. A single number in TOML is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "SpanText")]
pub struct Span {
    /// Least value.
    pub low: f64,
    /// Greatest value.
    pub high: f64,
}

/// How a span is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpanText {
    /// One number.
    One(f64),
    /// Low and high.
    Two([f64; 2]),
    /// Fields, as serialised.
    Full { low: f64, high: f64 },
}

impl From<SpanText> for Span {
    fn from(text: SpanText) -> Self {
        match text {
            SpanText::One(value) => Span {
                low: value,
                high: value,
            },
            SpanText::Two([low, high]) | SpanText::Full { low, high } => Span { low, high },
        }
    }
}

impl Span {
    /// The value at `share` (0 to 1) of the range.
    pub fn at(&self, share: f64) -> f64 {
        self.low + (self.high - self.low) * share
    }
}

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name in commands and file names: lower case and dashes.
    pub name: String,
    /// Heading of its page.
    pub title: String,
    /// One sentence for the index.
    pub summary: String,
    /// Ids of the inventory that it covers.
    pub covers: Vec<String>,
    /// What an operator sees when it happens.
    pub symptoms: String,
    /// What the cluster does, and why.
    pub what_happens: String,
    /// What the operator does; often nothing.
    pub what_to_do: String,
    /// What makes it rarer or milder.
    #[serde(default)]
    pub prevention: String,
    /// The cluster.
    pub cluster: Cluster,
    /// What clients do meanwhile.
    pub workload: Workload,
    /// Services that run from the start, as people write them; what their tasks do stands in their commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<toml::Table>,
    /// What happens, in order of time.
    pub step: Vec<Step>,
    /// What must be true, with bounds.
    pub expect: Vec<Expectation>,
    /// Rare things that this scenario is there to bring about: each with the number of its runs of which at least one must show
    /// it. A sweep with so many runs that shows none fails: it would be green without having tested what it is for.
    #[serde(default)]
    pub probes: std::collections::BTreeMap<String, u64>,
    /// One run for so many that a scenario of ordinary length gets. More than 1 where a run is long: in sweeps, in the
    /// determinism check and on pages, which say so.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub one_in: u32,
}

/// The cluster of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Numbers of voters a seed chooses from.
    pub nodes: Vec<u32>,
    /// Profiles a seed chooses from: `lan`, `edge`, `wan`.
    pub profiles: Vec<String>,
    /// Length of the part under faults, virtual seconds.
    pub duration_s: Span,
    /// Share of seeds that draw the node's internal numbers from their simulation ranges instead of the defaults (0 to 1).
    #[serde(default = "half")]
    pub drawn_knobs: f64,
    /// `workers.down_after_ms` in every manager's configuration; none: as it ships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_after_ms: Option<u64>,
    /// Workers; none unless a scenario is about tasks.
    #[serde(default = "zero", skip_serializing_if = "is_nothing")]
    pub workers: Span,
}

/// Whether a span is zero.
fn is_nothing(span: &Span) -> bool {
    *span == zero()
}

fn patience() -> Span {
    Span {
        low: 2.0,
        high: 6.0,
    }
}

fn one() -> u32 {
    1
}

/// Whether a number is one.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(number: &u32) -> bool {
    *number == one()
}

fn zero() -> Span {
    Span {
        low: 0.0,
        high: 0.0,
    }
}

fn half() -> f64 {
    0.5
}

/// What clients do. Weights are relative; a seed switches whole kinds off (swarm) unless `always` names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Clients at work at the same time.
    pub clients: Span,
    /// Different keys.
    pub keys: Span,
    /// Pause between two operations of a client, milliseconds.
    pub pause_ms: Span,
    /// How long a client waits for an answer before it gives up, seconds.
    #[serde(default = "patience")]
    pub timeout_s: Span,
    /// How many times longer pauses are in calm stretches: away from the steps that break something.
    #[serde(default = "one")]
    pub calm_factor: u32,
    /// Least length of a written value, bytes: large values make a write to the log that power can tear. Half of the seeds
    /// write the shortest.
    #[serde(default = "zero")]
    pub value_bytes: Span,
    /// Kinds of operations with their weights: put, get, delete, txn, session_put, bounded_get, local_get, lease.
    pub mix: std::collections::BTreeMap<String, u32>,
    /// Kinds that no seed switches off.
    #[serde(default)]
    pub always: Vec<String>,
    /// Watchers that follow everything from the start.
    #[serde(default)]
    pub watchers: u32,
    /// Pause between two things that operators want of services and workers, seconds; zero: they want nothing.
    #[serde(default = "zero", skip_serializing_if = "is_nothing")]
    pub churn_pause_s: Span,
    /// Whether operators, while they want one thing after another, also label workers, stop and remove drained ones, and bring them back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub node_churn: bool,
    /// Services whose copies users call all the time, by the cluster's own answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
}

/// Something that must be true of every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Id of the inventory's assertion, such as T-3.
    pub id: String,
    /// What is measured: a name known to `sim` (`storm list --measures` prints them).
    pub measure: String,
    /// Label of the step it is measured from, if the measure needs one.
    #[serde(default)]
    pub after: Option<String>,
    /// Service whose calls are measured, for measures of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Holds for runs of this profile only.
    #[serde(default)]
    pub profile: Option<String>,
    /// Greatest value allowed in any run.
    #[serde(default)]
    pub max: Option<f64>,
    /// Least value allowed in any run.
    #[serde(default)]
    pub min: Option<f64>,
    /// Greatest median allowed over the runs of a handbook page.
    #[serde(default)]
    pub median_max: Option<f64>,
    /// Unit for the page: `ms`, `writes`, ...
    pub unit: String,
    /// The sentence on the page.
    pub text: String,
    /// What the runbook of the inventory promised, when it differs.
    #[serde(default)]
    pub runbook: Option<String>,
}

impl Expectation {
    /// The key under which a run keeps what was measured: `measure`, `measure@label`, `measure@label of service`.
    pub fn key(&self) -> String {
        let after = self.after.iter().map(|label| format!("@{label}"));
        let service = self.service.iter().map(|name| format!(" of {name}"));
        std::iter::once(self.measure.clone())
            .chain(after)
            .chain(service)
            .collect()
    }

    /// Says in one sentence which bound `value` is beyond, if it is beyond one.
    pub fn broken_by(&self, value: f64) -> Option<String> {
        let over = self.max.filter(|max| value > *max);
        let under = self.min.filter(|min| value < *min);
        let bound = over.or(under)?;
        Some(format!(
            "{} ({}): {value} {}, the bound is {bound}",
            self.id, self.text, self.unit
        ))
    }
}

/// Why a scenario file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong and where.
    pub message: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Scenario {
    /// Reads a scenario file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| Error {
            message: error.to_string(),
        })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Finds contradictions that types cannot.
    fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| {
            Err(Error {
                message: format!("{}: {message}", self.name),
            })
        };
        if self.cluster.nodes.is_empty() || self.cluster.profiles.is_empty() {
            return wrong("cluster.nodes and cluster.profiles need at least one choice".to_owned());
        }
        if self.one_in == 0 {
            return wrong(
                "one_in = 0 would be no run at all: 1 is as many as others get".to_owned(),
            );
        }
        for expectation in &self.expect {
            let called = |name| self.workload.calls.contains(name);
            if let Some(name) = expectation.service.as_ref().filter(|name| !called(name)) {
                return wrong(format!(
                    "expectation {} is about calls of '{name}', which workload.calls does not name",
                    expectation.id
                ));
            }
            let label = expectation.after.as_deref();
            let known = |label| {
                self.step
                    .iter()
                    .any(|step| step.label.as_deref() == Some(label))
            };
            if let Some(label) = label.filter(|label| !known(*label)) {
                return wrong(format!(
                    "expectation {} is after '{label}', which no step is called",
                    expectation.id
                ));
            }
            if expectation.max.is_none()
                && expectation.min.is_none()
                && expectation.median_max.is_none()
            {
                return wrong(format!("expectation {} has no bound", expectation.id));
            }
        }
        if !self.service.is_empty() && self.cluster.workers.low < 1.0 {
            return wrong("services need cluster.workers, at least one".to_owned());
        }
        if let Some((probe, _)) = self.probes.iter().find(|(_, runs)| **runs == 0) {
            return wrong(format!(
                "probe '{probe}' is expected in one of no runs: give a number above zero"
            ));
        }
        Ok(())
    }
}
