//! What a seed makes of a scenario here, and why some scenarios cannot be run live.
//!
//! The steps and habits are drawn by the functions that the simulation uses ([`workloads::draw`]), from a stream of their own: seed
//! 3 of a live run is another plan than seed 3 of a simulated one. A plan that `storm plan` has printed can be carried out
//! as well; what only a simulator can do with it (network, disks, internal numbers) is not read.

use anyhow::{Context, Result, bail, ensure};
use node::knobs::Profile;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use scenarios::{Action, Crash, Scenario, Who};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use workloads::draw::{self, PlannedStep, SHARES, seconds, share, whole};
use workloads::drive::Habits;

/// The largest cluster of a plan.
const NODES_MAX: u32 = 9;

/// What one live run will do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The scenario.
    pub(crate) scenario: Scenario,
    /// The seed.
    pub(crate) seed: u64,
    /// Voters.
    pub(crate) nodes: u32,
    /// Workers; a plan that has some is refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) workers: u32,
    /// Profile of all nodes.
    pub(crate) profile: Profile,
    /// Length of the part under faults.
    pub(crate) duration: Duration,
    /// Clients.
    pub(crate) clients: u32,
    /// What clients do.
    pub(crate) habits: Habits,
    /// Watchers.
    pub(crate) watchers: u32,
    /// Steps in order of time.
    pub(crate) steps: Vec<PlannedStep>,
    /// A bug planted in simulated nodes; a plan that has one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seedling: Option<serde_json::Value>,
}

/// Whether a number says nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A stream of chance of a live run.
pub(crate) fn stream(seed: u64, name: &[u8; 8]) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(b"sea-live");
    key[16..24].copy_from_slice(name);
    ChaCha8Rng::from_seed(key)
}

impl Plan {
    /// Draws the plan of `seed`.
    pub(crate) fn draw(scenario: &Scenario, seed: u64) -> Plan {
        let mut rng = stream(seed, b"the plan");
        let rng = &mut rng;
        let cluster = &scenario.cluster;
        let nodes = cluster.nodes[rng.random_range(0..cluster.nodes.len())];
        let profile = match cluster.profiles[rng.random_range(0..cluster.profiles.len())].as_str() {
            "lan" => Profile::Lan,
            "wan" => Profile::Wan,
            _ => Profile::Edge,
        };
        let mut habits = draw::habits(scenario, rng);
        let steps = scenario.step.iter();
        let mut steps: Vec<PlannedStep> = steps.filter_map(|step| draw::step(step, rng)).collect();
        steps.sort_by_key(|step| step.at);
        habits.busy = draw::busy(&steps);
        let last = steps.last().map_or(Duration::ZERO, |step| step.at);
        let drawn = seconds(&cluster.duration_s, share(rng));
        Plan {
            nodes,
            workers: whole(&cluster.workers, rng),
            profile,
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

    /// Reads a plan that this program or `storm plan` has printed, and that a person may have changed.
    pub(crate) fn read(text: &str) -> Result<Plan> {
        let mut plan: Plan = serde_json::from_str(text).context("this is not a plan")?;
        plan.steps.sort_by_key(|step| step.at);
        let sound = |step: &PlannedStep| {
            step.shares.len() >= SHARES && step.shares.iter().all(|one| (0.0..1.0).contains(one))
        };
        ensure!(
            (1..=NODES_MAX).contains(&plan.nodes),
            "nodes must be 1 to {NODES_MAX}"
        );
        ensure!(
            plan.habits.pause.0 <= plan.habits.pause.1,
            "habits.pause: the shortest comes first"
        );
        ensure!(
            plan.habits.mix.values().any(|weight| *weight > 0),
            "habits.mix needs a kind with a weight"
        );
        ensure!(
            plan.steps.iter().all(sound),
            "each step needs four shares, from 0 to below 1"
        );
        Ok(plan)
    }

    /// The plan as text that people can read and change.
    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The profile, as scenarios write it.
    pub(crate) fn profile_name(&self) -> &'static str {
        match self.profile {
            Profile::Lan => "lan",
            Profile::Edge => "edge",
            Profile::Wan => "wan",
        }
    }

    /// Refuses what real processes cannot do, all of it at once, each with its reason.
    pub(crate) fn refuse_the_impossible(&self) -> Result<()> {
        let mut reasons = Vec::new();
        if self.workers > 0 {
            reasons
                .push("its workers run simulated tasks, which have no real counterpart".to_owned());
        }
        if self.seedling.is_some() {
            reasons.push("a bug can be planted in simulated nodes only".to_owned());
        }
        for planned in &self.steps {
            if let Some(why) = impossible(planned) {
                let at = planned.at.as_secs_f64();
                reasons.push(format!("\"{}\" (at {at:.1} s): {why}", planned.step.text));
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let always = |planned: &&PlannedStep| planned.step.chance >= 1.0;
        let hopeless = self.workers > 0
            || self
                .steps
                .iter()
                .filter(always)
                .any(|one| impossible(one).is_some());
        let advice = if hopeless {
            "no other seed changes that"
        } else {
            "another seed may draw other steps"
        };
        bail!(
            "{} seed {} cannot be run live:\n  - {}\n{advice}; in simulation: storm run --scenario {0}",
            self.scenario.name,
            self.seed,
            reasons.join("\n  - ")
        );
    }

    /// What this run does otherwise than the scenario says, in sentences.
    pub(crate) fn departures(&self) -> Vec<String> {
        let mut said = Vec::new();
        for planned in &self.steps {
            if let Action::Crash { how, .. } = &planned.step.action
                && how.contains(&Crash::PowerLoss)
            {
                said.push(format!(
                    "\"{}\": power_loss is left out of the ways to end, because the kernel keeps what a process wrote",
                    planned.step.text
                ));
            }
        }
        said
    }
}

/// The ways to end that a process has.
pub(crate) fn possible_ends(how: &[Crash]) -> Vec<Crash> {
    let possible = |one: &&Crash| **one != Crash::PowerLoss;
    how.iter().filter(possible).copied().collect()
}

/// Why a step cannot be done to real processes; nothing when it can.
fn impossible(planned: &PlannedStep) -> Option<&'static str> {
    let who = match &planned.step.action {
        Action::Crash { how, .. } if possible_ends(how).is_empty() => {
            return Some(
                "a process cannot lose power: the kernel keeps what it wrote; \"kill\" and \"stop\" are possible",
            );
        }
        Action::Crash { who, .. }
        | Action::Pause { who, .. }
        | Action::StoreDamage { who }
        | Action::Wipe { who, .. } => who,
        Action::Transfer | Action::Command { .. } => return None,
        Action::Partition { .. } | Action::CutOff { .. } | Action::TableFull { .. } => {
            return Some("loopback cannot be cut between two processes without privileges");
        }
        Action::DiskStall { .. }
        | Action::DiskSlow { .. }
        | Action::DiskSyncError { .. }
        | Action::DiskFull { .. }
        | Action::LogRot { .. } => {
            return Some("the real disk is shared by all nodes and has no faults to order");
        }
        Action::ClockDrift { .. } | Action::ClockJump { .. } | Action::ClockFreeze { .. } => {
            return Some("all processes share this machine's clock");
        }
        Action::ExecutorFails { .. } | Action::Order { .. } => {
            return Some("it is about workers and services, which live runs do not have");
        }
    };
    match who {
        Who::Leader | Who::Follower | Who::Any | Who::Minority | Who::Majority | Who::All => None,
        _ => Some("it is about workers, which live runs do not have"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, seed: u64) -> Plan {
        let scenario = scenarios::find(name).expect("it is registered");
        Plan::draw(&scenario, seed)
    }

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        let text = |seed| plan("leader-crash", seed).to_json().expect("it is data");
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        let read = Plan::read(&text(3)).expect("it was just written");
        assert_eq!(read.to_json().expect("it is data"), text(3));
    }

    #[test]
    fn crashes_of_processes_are_possible_and_all_of_their_seeds_run() {
        for name in ["leader-crash", "follower-crash", "empty-disk"] {
            for seed in 1..50 {
                let plan = plan(name, seed);
                plan.refuse_the_impossible().expect("processes can do it");
            }
        }
    }

    #[test]
    fn a_loss_of_power_that_becomes_a_kill_is_told() {
        let said = plan("leader-crash", 1).departures();
        assert!(
            said[0].starts_with("\"The leader dies.\": power_loss"),
            "{said:?}"
        );
    }

    #[test]
    fn what_is_impossible_is_refused_by_the_name_of_its_step() {
        let said = |name| {
            let refused = plan(name, 1).refuse_the_impossible();
            refused.expect_err("it cannot be done").to_string()
        };
        let cut = said("partition-heal");
        assert!(cut.contains("loopback cannot be cut"), "{cut}");
        assert!(cut.contains("partition-heal seed 1"), "{cut}");
        assert!(cut.contains("no other seed changes that"), "{cut}");
        assert!(said("clock-skew").contains("this machine's clock"));
        assert!(said("power-loss").contains("cannot lose power"));
        assert!(said("worker-crash").contains("simulated tasks"));
    }

    #[test]
    fn a_plan_that_a_person_has_spoilt_is_refused_and_does_no_harm() {
        assert!(Plan::read("{}").is_err());
        let mut spoilt = plan("leader-crash", 1);
        spoilt.nodes = 0;
        let text = spoilt.to_json().expect("it is data");
        let why = Plan::read(&text).expect_err("no nodes").to_string();
        assert_eq!(why, "nodes must be 1 to 9");
    }
}
