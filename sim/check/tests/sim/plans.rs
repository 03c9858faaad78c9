//! Tests of plans as data: they survive being written down, and a failing one shrinks to what makes it fail.

use sim::plan::Plan;
use sim::shrink::{kind_of, shrink};

#[test]
fn a_plan_survives_being_written_down() {
    for scenario in scenarios::all() {
        for seed in 1..=50 {
            let text = Plan::of(&scenario, seed, None).to_json().unwrap();
            let again = Plan::from_json(&text).unwrap().to_json().unwrap();
            assert_eq!(text, again, "{} seed {seed}", scenario.name);
        }
    }
}

#[test]
fn a_plan_that_a_person_has_broken_is_refused_with_a_reason() {
    let plan = Plan::of(&scenarios::find("leader-crash").unwrap(), 1, None);
    let none = Plan {
        nodes: 0,
        ..plan.clone()
    };
    let error = Plan::from_json(&none.to_json().unwrap()).unwrap_err();
    assert_eq!(error, "nodes must be 1 to 9");
    let mut few = plan;
    few.steps[0].shares.pop();
    let error = Plan::from_json(&few.to_json().unwrap()).unwrap_err();
    assert!(error.contains("four shares"), "{error}");
}

#[test]
fn a_failing_plan_shrinks_to_what_makes_it_fail() {
    let scenario = scenarios::find("disk-stall").unwrap();
    let has_rot = |plan: &Plan| {
        let mut labels = plan.steps.iter().map(|one| one.step.label.as_deref());
        labels.any(|label| label == Some("rot"))
    };
    let whole = (1..100)
        .map(|seed| Plan::of(&scenario, seed, None))
        .find(|plan| has_rot(plan) && plan.clients > 2 && plan.steps.len() > 3)
        .unwrap();
    // Needs the rotten log and two clients; with one it fails otherwise.
    let run = |plan: &Plan| match (has_rot(plan), plan.clients) {
        (true, 2..) => vec![format!(
            "linearizable: not linearizable: key k{}",
            plan.clients
        )],
        (true, _) => vec!["no leader at the end".to_owned()],
        _ => Vec::new(),
    };
    let kind = kind_of(&run(&whole)[0]);
    assert_eq!(kind, "linearizability");
    let small = shrink(&whole, &kind, 1_000, run);
    assert_eq!(small.steps.len(), 1);
    assert!(has_rot(&small));
    assert_eq!((small.clients, small.nodes, small.watchers), (2, 3, 0));
    assert_eq!((small.habits.mix.len(), small.habits.keys), (1, 1));
    assert!(small.duration < whole.duration);
    assert!(small.scenario.expect.iter().all(|one| one.after.is_none()));
    // With no runs to spend, the plan stays as it is.
    assert_eq!(shrink(&whole, &kind, 0, run).steps.len(), whole.steps.len());
}

#[test]
fn failures_of_one_kind_differ_in_their_numbers_only() {
    assert_eq!(
        kind_of("T-3 (a new leader): 1203 ms, the bound is 1000"),
        kind_of("T-3 (a new leader): 99 ms, the bound is 1000")
    );
    assert_ne!(
        kind_of("no leader at the end"),
        kind_of("no leader within 30s: n1")
    );
}
