//! The table of planted bugs is sound: each has a name of its own, weather that can be read, and a judge whose words are known.

use sim::planted::{Witness, all, find};
use std::collections::BTreeSet;

#[test]
fn each_bug_has_its_own_name_its_weather_and_its_judges() {
    let names: BTreeSet<&str> = all().map(|bug| bug.name).collect();
    assert_eq!(names.len(), all().count());
    for bug in all() {
        assert!(find(bug.name).is_some_and(|found| std::ptr::eq(found, bug)));
        assert_eq!(bug.weather().len(), bug.scenarios.len(), "{}", bug.name);
        assert!(!bug.witnesses.is_empty(), "{}", bug.name);
    }
}

#[test]
fn who_speaks_is_known_by_the_words() {
    let cases = [
        (
            "lease_outlived: task 1.1 of db slot 1 is there on w1",
            Some(Witness::VolumeLease),
        ),
        (
            "OneAttempt: task 1: attempts 1 on w3 and 2 on w3 at 7.3s",
            Some(Witness::OneAttempt),
        ),
        (
            "services_whole: not as wanted after the storm",
            Some(Witness::Whole),
        ),
        (
            "W-S21 (Processes that were started because a worker's process died.): 2 starts, the bound is 0",
            Some(Witness::Untouched),
        ),
        ("panic: services_whole: no", None),
        ("workers did not join within 180s", None),
    ];
    for (failure, witness) in cases {
        assert_eq!(Witness::of(failure), witness, "{failure}");
    }
}
