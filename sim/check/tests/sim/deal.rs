//! Tests of dealing: scenarios with long runs come up less often, wherever runs are dealt.

use scenarios::Scenario;
use sim::deal::{deal, is_long, share};
use std::collections::BTreeMap;

/// Scenarios that come up once in so many turns.
fn weighted(one_in: &[u32]) -> Vec<Scenario> {
    let of = |one_in: &u32| Scenario {
        one_in: *one_in,
        ..scenarios::find("leader-crash").unwrap()
    };
    one_in.iter().map(of).collect()
}

#[test]
fn runs_are_dealt_in_turn_and_long_ones_once_in_so_many_turns() {
    let all = weighted(&[1, 3, 1]);
    let dealt = deal(&all, 9);
    let expected = [
        (0, 0),
        (2, 0),
        (0, 1),
        (2, 1),
        (0, 2),
        (1, 0),
        (2, 2),
        (0, 3),
        (2, 3),
    ];
    assert_eq!(dealt, expected);
    assert!(deal(&[], 3).is_empty());
}

#[test]
fn weights_are_relative_to_the_lightest_that_is_dealt() {
    let alone = weighted(&[20]);
    assert_eq!(deal(&alone, 3), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(share(&alone[0], &alone, 7), 7);
    assert!(!is_long(&alone[0], &alone));
    let all = weighted(&[1, 20]);
    assert_eq!(share(&all[1], &all, 40), 2);
    assert_eq!(share(&all[1], &all, 7), 1, "at least one");
    assert_eq!(share(&all[1], &all, 0), 0);
    assert!(is_long(&all[1], &all));
}

/// The default sweep of `ci/test` meets every scenario and every probe's budget that it is said to be enough for.
#[test]
fn a_sweep_of_four_thousand_meets_every_scenario() {
    let all = scenarios::all();
    let mut runs: BTreeMap<&str, u64> = BTreeMap::new();
    for (place, turn) in deal(&all, 4_000) {
        let name = all[place].name.as_str();
        let so_far = runs.entry(name).or_default();
        assert_eq!(*so_far, turn, "{name}: seeds follow each other");
        *so_far += 1;
    }
    for scenario in &all {
        let many = runs
            .get(scenario.name.as_str())
            .copied()
            .unwrap_or_default();
        assert!(many > 0, "{} never comes up", scenario.name);
    }
}
