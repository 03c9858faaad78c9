//! A failing plan made smaller: fewer steps, clients, nodes, workers, services and kinds of operations, a shorter run, as long as
//! the same oracle speaks.
//!
//! Pure but for the question "what fails in this plan?", which the caller answers by running it. The answer is another run:
//! everything that a plan leaves to chance while it is carried out may fall differently, so a smaller plan may be lucky where
//! the larger one was not. What is given back has failed.

use crate::plan::Plan;
use crate::planted::Witness;
use std::time::Duration;

/// The shortest part under faults that is tried, and what is left after the last step.
const TAIL: Duration = Duration::from_secs(1);

/// What kind of failure a sentence tells of: its oracle, or its words without the numbers, which differ from run to run.
pub fn kind_of(failure: &str) -> String {
    if let Some(witness) = Witness::of(failure) {
        return witness.name().to_owned();
    }
    let line = failure.lines().next().unwrap_or_default();
    let words = line.chars().filter(|one| !one.is_ascii_digit());
    words.take(60).collect()
}

/// The smallest plan found, in at most `runs_max` runs, in which a failure of `kind` remains. `failures` runs a plan.
pub fn shrink(
    plan: &Plan,
    kind: &str,
    runs_max: u64,
    mut failures: impl FnMut(&Plan) -> Vec<String>,
) -> Plan {
    let mut best = plan.clone();
    let mut left = runs_max;
    loop {
        let mut smaller = false;
        let mut place = 0;
        // What is left to try is asked for anew after each success: it depends on the plan.
        while let Some(candidate) = candidates(&best).get(place) {
            if left == 0 {
                return best;
            }
            left -= 1;
            if failures(candidate).iter().any(|one| kind_of(one) == kind) {
                best = candidate.clone();
                smaller = true;
            } else {
                place += 1;
            }
        }
        if !smaller {
            return best;
        }
    }
}

/// Smaller plans, the boldest first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut offer = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        fit(&mut smaller);
        all.push(smaller);
    };
    for place in (0..plan.steps.len()).rev() {
        offer(&|one| drop(one.steps.remove(place)));
    }
    if plan.clients > 1 {
        offer(&|one| one.clients = 1);
        offer(&|one| one.clients -= 1);
    }
    if plan.watchers > 0 {
        offer(&|one| one.watchers = 0);
    }
    if plan.nodes > 3 {
        offer(&|one| one.nodes = 3);
    }
    if plan.workers > 1 {
        offer(&|one| one.workers -= 1);
    }
    for place in (0..plan.scenario.service.len()).rev() {
        offer(&|one| drop(one.scenario.service.remove(place)));
    }
    let shortest = shortest(plan);
    if plan.duration > shortest {
        offer(&|one| one.duration = shortest);
    }
    if plan.duration > shortest + TAIL {
        offer(&|one| one.duration = shortest + (one.duration - shortest) / 2);
    }
    for kind in plan.habits.mix.keys().filter(|_| plan.habits.mix.len() > 1) {
        offer(&|one| one.habits.mix.retain(|other, _| other != kind));
    }
    if plan.habits.keys > 1 {
        offer(&|one| one.habits.keys = 1);
    }
    all
}

/// The shortest run that has time for all steps.
fn shortest(plan: &Plan) -> Duration {
    plan.steps.last().map_or(Duration::ZERO, |step| step.at) + TAIL
}

/// Leaves nothing in the scenario that speaks of steps that are gone.
fn fit(plan: &mut Plan) {
    let steps = &plan.steps;
    let there = |label: &str| {
        steps
            .iter()
            .any(|step| step.step.label.as_deref() == Some(label))
    };
    let expect = &mut plan.scenario.expect;
    expect.retain(|one| one.after.as_deref().is_none_or(there));
}
