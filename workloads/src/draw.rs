//! What a seed draws from a scenario, whoever carries it out: steps with their moments, and the habits of clients.
//!
//! Pure but for the stream of chance that is passed in. The order of draws is part of what a seed means: a new draw goes to
//! the end of its caller. Left out: the world around it (network, disks, internal numbers), which only a simulation draws.

use crate::drive::{Habits, Kind};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use scenarios::{Action, Scenario, Span, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Shares that a step has.
pub const SHARES: usize = 4;
/// How long before a step that breaks something its clients are busy.
const BUSY_BEFORE: Duration = Duration::from_secs(1);
/// And how long after its beginning: longer than most such steps last.
const BUSY_AFTER: Duration = Duration::from_secs(6);

/// One step, drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// When, since the start of the part under faults.
    pub at: Duration,
    /// The step.
    pub step: Step,
    /// The share that every span of the step is read at, in order of use.
    pub shares: Vec<f64>,
}

/// What the clients of this seed do: kinds are switched off at random (swarm), but for those that must stay.
pub fn habits(scenario: &Scenario, rng: &mut ChaCha8Rng) -> Habits {
    let workload = &scenario.workload;
    let mut mix = BTreeMap::new();
    for (name, weight) in &workload.mix {
        let kind =
            Kind::named(name).unwrap_or_else(|| panic!("no kind of operation is called '{name}'"));
        let stays = workload.always.contains(name) || rng.random_bool(0.7);
        if stays {
            mix.insert(kind, *weight);
        }
    }
    let pause = &workload.pause_ms;
    Habits {
        mix,
        keys: whole(&workload.keys, rng),
        pause: (millis(pause.low), millis(pause.high)),
        timeout: seconds(&workload.timeout_s, share(rng)),
        value_len: value_len(&workload.value_bytes, rng),
        busy: Vec::new(),
        calm_factor: workload.calm_factor,
    }
}

/// The shortest value in half of the seeds, any of the span in the others.
fn value_len(span: &Span, rng: &mut ChaCha8Rng) -> usize {
    let share = [0.0, rng.random()][rng.random_range(0..2)];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "values are small"
    )]
    let length = span.at(share) as usize;
    length
}

/// When clients are busy: around each step that breaks something. Counted from the start of the part under faults.
pub fn busy(steps: &[PlannedStep]) -> Vec<(Duration, Duration)> {
    let calm = |step: &PlannedStep| {
        matches!(
            step.step.action,
            Action::Command { .. } | Action::Order { .. }
        )
    };
    let breaks = |step: &&PlannedStep| !calm(step);
    let around = |step: &PlannedStep| (step.at.saturating_sub(BUSY_BEFORE), step.at + BUSY_AFTER);
    steps.iter().filter(breaks).map(around).collect()
}

/// Whether and when a step happens.
pub fn step(step: &Step, rng: &mut ChaCha8Rng) -> Option<PlannedStep> {
    let at = seconds(&step.at_s, share(rng));
    let shares = (0..SHARES).map(|_| share(rng)).collect();
    rng.random_bool(step.chance).then(|| PlannedStep {
        at,
        step: step.clone(),
        shares,
    })
}

/// A share of a span, in millionths: such a number survives being written down and read.
pub fn share(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.random_range(0..1_000_000_u32)) / 1e6
}

/// A point of a span of seconds.
pub fn seconds(span: &Span, share: f64) -> Duration {
    Duration::from_secs_f64(span.at(share).max(0.0))
}

/// Milliseconds.
fn millis(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1_000.0)
}

/// A whole number of a span.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "spans of counts are small"
)]
pub fn whole(span: &Span, rng: &mut ChaCha8Rng) -> u32 {
    rng.random_range(span.low as u32..=span.high as u32)
}

impl PlannedStep {
    /// True when the step destroys what a node had promised: at most one such step is safe in a run.
    pub fn is_destructive(&self) -> bool {
        matches!(
            self.step.action,
            Action::Wipe { .. } | Action::LogRot { .. } | Action::RemoveManager { .. }
        )
    }

    /// One choice of several.
    pub fn pick<'a, T>(&self, from: &'a [T], share: usize) -> &'a T {
        let place = (self.shares[share] * from.len() as f64).floor();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below the length"
        )]
        let place = (place as usize).min(from.len() - 1);
        &from[place]
    }
}
