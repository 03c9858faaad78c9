//! Scenario and seed give a plan: everything a run will do, drawn beforehand, as data.

use crate::planted::Seedling;
use node::knobs::{Knobs, Profile};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use scenarios::{Action, Scenario, Span, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use workloads::drive::{Habits, Kind};

/// Shares that a step has.
const SHARES: usize = 4;
/// The largest cluster of a plan.
const NODES_MAX: u32 = 9;
/// The most workers of a plan.
const WORKERS_MAX: u32 = 50;
/// How long before a step that breaks something its clients are busy.
const BUSY_BEFORE: Duration = Duration::from_secs(1);
/// And how long after its beginning: longer than most such steps last.
const BUSY_AFTER: Duration = Duration::from_secs(6);

/// What one run will do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The scenario.
    pub scenario: Scenario,
    /// The seed.
    pub seed: u64,
    /// Voters.
    pub nodes: u32,
    /// Workers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workers: u32,
    /// Profile of all nodes.
    pub profile: Profile,
    /// Internal numbers of all nodes.
    pub knobs: Knobs,
    /// The network's calm behaviour.
    pub net: crate::net::NetConfig,
    /// Whether names on disk are only durable after a sync of their directory (POSIX's least promise).
    pub strict_names: bool,
    /// Length of the part under faults.
    pub duration: Duration,
    /// Clients.
    pub clients: u32,
    /// What clients do.
    pub habits: Habits,
    /// Watchers.
    pub watchers: u32,
    /// Steps in order of time.
    pub steps: Vec<PlannedStep>,
    /// The bug planted in the nodes; none but in tests of the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seedling: Option<Seedling>,
}

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

/// What all chances of a run follow from.
pub fn master(seed: u64) -> [u8; 32] {
    let mut master = [0; 32];
    master[..8].copy_from_slice(&seed.to_le_bytes());
    master[8..16].copy_from_slice(b"seaworth");
    master
}

impl Plan {
    /// The plan of `seed`, with a bug planted in the nodes, if one is given.
    pub fn of(scenario: &Scenario, seed: u64, seedling: Option<Seedling>) -> Plan {
        let mut rng = ChaCha8Rng::from_seed(master(seed));
        Plan {
            seedling,
            ..Plan::draw(scenario, seed, &mut rng)
        }
    }

    /// The plan as text that people can read and change.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
    }

    /// A plan from text, checked: what a person has changed must not end in a panic.
    pub fn from_json(text: &str) -> Result<Plan, String> {
        let mut plan: Plan = serde_json::from_str(text).map_err(|error| error.to_string())?;
        plan.steps.sort_by_key(|step| step.at);
        plan.check()?;
        Ok(plan)
    }

    /// What a run takes for granted.
    fn check(&self) -> Result<(), String> {
        let sound = |step: &PlannedStep| {
            step.shares.len() >= SHARES && step.shares.iter().all(|one| (0.0..1.0).contains(one))
        };
        let rules = [
            (
                (1..=NODES_MAX).contains(&self.nodes),
                "nodes must be 1 to 9",
            ),
            (self.workers <= WORKERS_MAX, "workers must be 50 at most"),
            (
                self.habits.pause.0 <= self.habits.pause.1,
                "habits.pause: the shortest comes first",
            ),
            (
                self.habits.mix.values().any(|weight| *weight > 0),
                "habits.mix needs a kind with a weight",
            ),
            (
                self.steps.iter().all(sound),
                "each step needs four shares, from 0 to below 1",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err((*rule).to_owned()),
            None => Ok(()),
        }
    }

    /// Draws the plan of `seed`.
    pub fn draw(scenario: &Scenario, seed: u64, rng: &mut ChaCha8Rng) -> Plan {
        let nodes = scenario.cluster.nodes[rng.random_range(0..scenario.cluster.nodes.len())];
        let profiles = &scenario.cluster.profiles;
        let profile = match profiles[rng.random_range(0..profiles.len())].as_str() {
            "lan" => Profile::Lan,
            "wan" => Profile::Wan,
            _ => Profile::Edge,
        };
        let knobs = draw_knobs(scenario, rng);
        let net = draw_net(profile, rng);
        let mut habits = draw_habits(scenario, rng);
        let mut steps: Vec<PlannedStep> = scenario
            .step
            .iter()
            .filter_map(|step| draw_step(step, rng))
            .collect();
        steps.sort_by_key(|step| step.at);
        habits.busy = busy(&steps);
        let last = steps.last().map_or(Duration::ZERO, |step| step.at);
        let drawn = seconds(&scenario.cluster.duration_s, share(rng));
        let workers = &scenario.cluster.workers;
        let workers = if workers.high > 0.0 {
            whole(workers, rng)
        } else {
            0
        };
        Plan {
            nodes,
            workers,
            profile,
            knobs,
            net,
            strict_names: rng.random_bool(0.3),
            duration: drawn.max(last + Duration::from_secs(1)),
            clients: whole(&scenario.workload.clients, rng),
            habits,
            watchers: scenario.workload.watchers,
            steps,
            scenario: scenario.clone(),
            seed,
            seedling: None,
        }
    }
}

/// The nodes' internal numbers: as shipped, or all drawn from their simulation ranges.
fn draw_knobs(scenario: &Scenario, rng: &mut ChaCha8Rng) -> Knobs {
    if rng.random_bool(scenario.cluster.drawn_knobs) {
        return Knobs::drawn(|low, high| rng.random_range(low..=high));
    }
    // As shipped, but for sizes that a run of seconds would never reach, and its disk never hold.
    Knobs {
        segment_bytes: 256 << 10,
        snapshot_entries: rng.random_range(100..2_000),
        disk_low_bytes: 2 << 20,
        store_cache_bytes: 256 << 10,
        store_memtable_bytes: 256 << 10,
        ..Knobs::default()
    }
}

/// A network that suits the profile.
fn draw_net(profile: Profile, rng: &mut ChaCha8Rng) -> crate::net::NetConfig {
    use crate::net::config::Span;
    let drawn = crate::net::NetConfig::draw(rng);
    // What the profiles are made for (inventory W-K12). A lost segment comes again after 200 ms, which is an election
    // time-out of the profile lan: rooms that lose packets are for the other two.
    let (base, tail_us, loss) = match profile {
        Profile::Lan => (Span::micros(50, 500), 10_000, 0.0),
        Profile::Edge => (
            Span::micros(500, 10_000),
            50_000,
            [0.0, 0.0005][rng.random_range(0..2)],
        ),
        Profile::Wan => (
            Span::micros(5_000, 60_000),
            100_000,
            [0.0, 0.002][rng.random_range(0..2)],
        ),
    };
    let tail = Span::micros(1_000, rng.random_range(2_000..=tail_us));
    let jitter = Duration::from_micros(rng.random_range(0..500));
    crate::net::NetConfig {
        base,
        jitter,
        tail,
        loss,
        ..drawn
    }
}

/// What the clients of this seed do: kinds are switched off at random (swarm), but for those that must stay.
fn draw_habits(scenario: &Scenario, rng: &mut ChaCha8Rng) -> Habits {
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
fn busy(steps: &[PlannedStep]) -> Vec<(Duration, Duration)> {
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
fn draw_step(step: &Step, rng: &mut ChaCha8Rng) -> Option<PlannedStep> {
    let at = seconds(&step.at_s, share(rng));
    let shares = (0..SHARES).map(|_| share(rng)).collect();
    rng.random_bool(step.chance).then(|| PlannedStep {
        at,
        step: step.clone(),
        shares,
    })
}

/// A share of a span, in millionths: such a number survives being written down and read.
fn share(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.random_range(0..1_000_000_u32)) / 1e6
}

/// Whether a number says nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
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
fn whole(span: &Span, rng: &mut ChaCha8Rng) -> u32 {
    rng.random_range(span.low as u32..=span.high as u32)
}

impl PlannedStep {
    /// True when the step destroys what a node had promised: at most one such step is safe in a run.
    pub fn is_destructive(&self) -> bool {
        matches!(
            self.step.action,
            Action::Wipe { .. } | Action::LogRot { .. }
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
