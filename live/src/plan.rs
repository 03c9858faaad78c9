//! What a seed makes of a scenario here, and why some scenarios cannot be run live.
//!
//! The steps and habits are drawn by the functions that the simulation uses ([`workloads::draw`]), from a stream of their own: seed
//! 3 of a live run is another plan than seed 3 of a simulated one. A plan that `storm plan` has printed can be carried out
//! as well; what only a simulator can do with it (network, disks, internal numbers) is not read.

use crate::crew::{SETTLE_MAX, STAY};
use crate::task;
use anyhow::{Context, Result, bail, ensure};
use node::knobs::Profile;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use scenarios::{Action, Crash, Moment, Scenario, Who};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use workloads::draw::{self, PlannedStep, SHARES, seconds, share, whole};
use workloads::drive::Habits;

/// Longest time of everything beside the part under faults and the crew: the cluster forms, agrees, is read and ends.
const BASE_MAX: Duration = Duration::from_secs(180);
/// The largest crew of a plan: all of it is on one machine.
const WORKERS_MAX: u32 = 20;
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
    /// Workers.
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
            plan.workers <= WORKERS_MAX,
            "workers must be at most {WORKERS_MAX}"
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
        // Each with whether every seed meets it.
        let mut reasons: Vec<(String, bool)> = Vec::new();
        if self.seedling.is_some() {
            reasons.push((
                "a bug can be planted in simulated nodes only".to_owned(),
                true,
            ));
        }
        for planned in self.steps.iter().filter(|one| left_out(one).is_none()) {
            if let Some(why) = impossible(planned) {
                let (at, step) = (planned.at.as_secs_f64(), &planned.step);
                let reason = format!("\"{}\" (at {at:.1} s): {why}", step.text);
                reasons.push((reason, step.chance >= 1.0));
            }
        }
        for command in self.commands() {
            if let Some(why) = task::impossible(&command) {
                reasons.push((format!("`{}`: {why}", command.join(" ")), true));
            }
        }
        if self.scenario.workload.churn_pause_s.high > 0.0 {
            let why = "operators who never rest are judged by every entry, and only the simulator sees each";
            reasons.push((why.to_owned(), true));
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let advice = match reasons.iter().any(|(_, always)| *always) {
            true => "no other seed changes that",
            false => "another seed may draw other steps",
        };
        let reasons: Vec<String> = reasons.into_iter().map(|(reason, _)| reason).collect();
        bail!(
            "{} seed {} cannot be run live:\n  - {}\n{advice}; in simulation: storm run --scenario {0}",
            self.scenario.name,
            self.seed,
            reasons.join("\n  - ")
        );
    }

    /// The commands of all services that this run wants.
    fn commands(&self) -> Vec<Vec<String>> {
        let orders = self.steps.iter().filter_map(|one| match &one.step.action {
            Action::Order { command } => command.get("spec")?.as_table(),
            _ => None,
        });
        let command = |spec: &toml::Table| {
            let words = spec.get("command")?.as_array()?.iter();
            Some(
                words
                    .filter_map(|word| Some(word.as_str()?.to_owned()))
                    .collect(),
            )
        };
        let services = self.scenario.service.iter();
        services.chain(orders).filter_map(command).collect()
    }

    /// Whether ways between workers and managers are cut in this run.
    pub(crate) fn needs_gates(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|one| matches!(one.step.action, Action::CutOff { .. }))
    }

    /// A run that takes longer than this hangs.
    pub(crate) fn longest(&self) -> Duration {
        let settled = 3 * SETTLE_MAX + STAY;
        let crew = if self.workers > 0 {
            settled
        } else {
            Duration::ZERO
        };
        self.duration + BASE_MAX + crew
    }

    /// What this run does otherwise than the scenario says, in sentences.
    pub(crate) fn departures(&self) -> Vec<String> {
        let mut said = Vec::new();
        for planned in &self.steps {
            let text = &planned.step.text;
            if let Some(why) = left_out(planned) {
                said.push(format!("\"{text}\": left out, because {why}"));
            }
            if let Action::CutOff { .. } = &planned.step.action {
                said.push(format!(
                    "\"{text}\": a proxy between the worker and the managers holds everything back, but new connections are still accepted"
                ));
            }
            if is_of_workers(&planned.step.action)
                && let Action::Crash { how, .. } = &planned.step.action
                && how.contains(&Crash::PowerLoss)
            {
                said.push(format!(
                    "\"{text}\": power_loss kills the worker and all its tasks; the kernel keeps what they wrote"
                ));
                continue;
            }
            if let Action::Crash { how, .. } = &planned.step.action
                && how.contains(&Crash::PowerLoss)
            {
                said.push(format!(
                    "\"{}\": power_loss is left out of the ways to end, because the kernel keeps what a process wrote",
                    planned.step.text
                ));
            }
        }
        if self
            .commands()
            .iter()
            .flatten()
            .any(|word| word == "oom-after")
        {
            said.push(
                "tasks that run out of memory here kill themselves as the kernel would".to_owned(),
            );
        }
        said
    }
}

/// Whether an action is about workers.
fn is_of_workers(action: &Action) -> bool {
    let (Action::Crash { who, .. }
    | Action::Pause { who, .. }
    | Action::CutOff { who, .. }
    | Action::ClockDrift { who, .. }
    | Action::ClockJump { who, .. }) = action
    else {
        return false;
    };
    is_workers(who)
}

/// Whether somebody is one or more workers.
pub(crate) fn is_workers(who: &Who) -> bool {
    matches!(
        who,
        Who::Worker(_) | Who::AnyWorker | Who::SomeWorkers | Who::AllWorkers | Who::WorkerOf(_)
    )
}

/// Why a step is left out of a live run, which goes on without it; nothing for most.
pub(crate) fn left_out(planned: &PlannedStep) -> Option<&'static str> {
    let is_clock = matches!(
        planned.step.action,
        Action::ClockDrift { .. } | Action::ClockJump { .. }
    );
    (is_clock && is_of_workers(&planned.step.action))
        .then_some("all processes share this machine's clock")
}

/// The ways to end that somebody's process has.
pub(crate) fn possible_ends(who: &Who, how: &[Crash]) -> Vec<Crash> {
    let possible = |one: &&Crash| **one != Crash::PowerLoss || is_workers(who);
    how.iter().filter(possible).copied().collect()
}

/// Why a step cannot be done to real processes; nothing when it can.
fn impossible(planned: &PlannedStep) -> Option<&'static str> {
    const MACHINES: &str = "live runs start no machine that was not there, and take none away";
    if let Some(Moment::ManagerAdmitted | Moment::ManagerLearns) = planned.step.when {
        return Some(MACHINES);
    }
    let who = match &planned.step.action {
        Action::Crash { who, how, .. } if possible_ends(who, how).is_empty() => {
            return Some(
                "a process cannot lose power: the kernel keeps what it wrote; \"kill\" and \"stop\" are possible",
            );
        }
        Action::CutOff {
            who,
            from: Who::All,
            ..
        } if is_workers(who) => return None,
        Action::StoreDamage { who } | Action::Wipe { who, .. } if is_workers(who) => {
            return Some("it is about the disk of a manager");
        }
        Action::Crash { who, .. }
        | Action::Pause { who, .. }
        | Action::StoreDamage { who }
        | Action::Wipe { who, .. } => who,
        Action::Transfer | Action::Command { .. } | Action::Order { .. } => return None,
        Action::Partition { .. } | Action::CutOff { .. } | Action::TableFull { .. } => {
            return Some("loopback cannot be cut between two managers without privileges");
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
        Action::AddManager { .. } | Action::RemoveManager { .. } => return Some(MACHINES),
        Action::ExecutorFails { .. } => {
            return Some("the operating system starts processes whenever it is asked");
        }
    };
    match who {
        Who::Leader | Who::Follower | Who::Any | Who::Minority | Who::Majority | Who::All => None,
        who if is_workers(who) => None,
        _ => Some("live runs do not know whom it is about"),
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
        for name in [
            "leader-crash",
            "follower-crash",
            "empty-disk",
            "task-crash",
            "worker-crash",
            "worker-cut-off",
            "volume-lease",
            "rolling-update",
            "autonomy",
            "drain",
            "deploy-and-scale",
            "bad-version",
        ] {
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
    fn what_is_done_otherwise_with_workers_is_told() {
        let said = plan("volume-lease", 1).departures().join("\n");
        assert!(
            said.contains("left out, because all processes share this machine's clock"),
            "{said}"
        );
        assert!(
            said.contains("a proxy between the worker and the managers"),
            "{said}"
        );
        let said = plan("worker-crash", 1).departures().join("\n");
        assert!(
            said.contains("power_loss kills the worker and all its tasks"),
            "{said}"
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
        assert!(said("crew-storm").contains("no chance or time to order"));
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
