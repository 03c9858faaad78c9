//! Scenario and seed give a plan: everything a run will do, drawn beforehand, as data.

use crate::planted::Seedling;
use node::knobs::{Knobs, Profile};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use scenarios::Scenario;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use workloads::draw::{self, SHARES, share, whole};
pub use workloads::draw::{PlannedStep, seconds};
use workloads::drive::Habits;

/// The largest cluster of a plan.
const NODES_MAX: u32 = 9;
/// The most workers of a plan.
const WORKERS_MAX: u32 = 50;

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
        let mut habits = draw::habits(scenario, rng);
        let mut steps: Vec<PlannedStep> = scenario
            .step
            .iter()
            .filter_map(|step| draw::step(step, rng))
            .collect();
        steps.sort_by_key(|step| step.at);
        habits.busy = draw::busy(&steps);
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

/// Whether a number says nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
