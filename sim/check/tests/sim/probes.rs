//! Tests of the probes' budgets: what a sweep says when something that should have happened never did.

use sim::report::Report;
use sim::tally::{Missing, Tally, missing};

/// `runs` runs of the scenario, in one of which `hit` happened.
fn swept(scenario: &scenarios::Scenario, runs: u64, hit: &str) -> Tally {
    let mut tally = Tally::new();
    for seed in 1..=runs {
        let mut report = Report {
            scenario: scenario.name.clone(),
            seed,
            ..Report::default()
        };
        if seed == 1 {
            report.probes.insert(hit.to_owned(), 3);
        }
        tally.add(report);
    }
    tally
}

#[test]
fn a_probe_that_no_run_hit_fails_a_sweep_that_is_large_enough() {
    let mut scenario = scenarios::find("power-loss").unwrap();
    scenario.probes = [("it rained", 20), ("it snowed", 30)]
        .map(|(probe, within)| (probe.to_owned(), within))
        .into();
    let scenarios = [scenario.clone()];
    let after = |runs| missing(&scenarios, swept(&scenario, runs, "it rained").probes());

    let few = after(29);
    assert_eq!(few.len(), 1, "the other one was hit");
    assert!(!few.iter().any(Missing::is_failure));
    assert!(
        few[0]
            .to_string()
            .starts_with("note: probe never hit: it snowed in 29 runs")
    );

    let enough = after(30);
    assert!(enough.iter().all(Missing::is_failure));
    assert_eq!(
        enough[0].to_string(),
        "FAILED probe never hit: it snowed in 30 runs of power-loss, expected at least one in 30"
    );

    let other = scenarios::find("clock-skew").unwrap();
    assert!(
        missing(&[other], swept(&scenario, 30, "it rained").probes()).is_empty(),
        "a scenario that was not chosen expects nothing"
    );
}
