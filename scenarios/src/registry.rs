//! Every scenario, by name. A file that is not listed here fails the tidy check.

use super::Scenario;

/// The files, in the order of the handbook.
const FILES: [(&str, &str); 34] = [
    ("leader-crash", include_str!("../files/leader-crash.toml")),
    (
        "follower-crash",
        include_str!("../files/follower-crash.toml"),
    ),
    (
        "partition-heal",
        include_str!("../files/partition-heal.toml"),
    ),
    ("disk-stall", include_str!("../files/disk-stall.toml")),
    ("disk-full", include_str!("../files/disk-full.toml")),
    ("empty-disk", include_str!("../files/empty-disk.toml")),
    ("clock-skew", include_str!("../files/clock-skew.toml")),
    ("power-loss", include_str!("../files/power-loss.toml")),
    ("task-crash", include_str!("../files/task-crash.toml")),
    ("worker-crash", include_str!("../files/worker-crash.toml")),
    ("fast-failover", include_str!("../files/fast-failover.toml")),
    (
        "worker-cut-off",
        include_str!("../files/worker-cut-off.toml"),
    ),
    (
        "mass-false-down",
        include_str!("../files/mass-false-down.toml"),
    ),
    ("volume-lease", include_str!("../files/volume-lease.toml")),
    (
        "rolling-update",
        include_str!("../files/rolling-update.toml"),
    ),
    ("drain", include_str!("../files/drain.toml")),
    (
        "deploy-and-scale",
        include_str!("../files/deploy-and-scale.toml"),
    ),
    ("bad-version", include_str!("../files/bad-version.toml")),
    ("no-room", include_str!("../files/no-room.toml")),
    ("workers-split", include_str!("../files/workers-split.toml")),
    ("autonomy", include_str!("../files/autonomy.toml")),
    (
        "alone-for-a-day",
        include_str!("../files/alone-for-a-day.toml"),
    ),
    (
        "service-traffic",
        include_str!("../files/service-traffic.toml"),
    ),
    ("rack-loss", include_str!("../files/rack-loss.toml")),
    ("one-rack", include_str!("../files/one-rack.toml")),
    ("manager-list", include_str!("../files/manager-list.toml")),
    ("stuck-tasks", include_str!("../files/stuck-tasks.toml")),
    ("node-churn", include_str!("../files/node-churn.toml")),
    ("canary-drop", include_str!("../files/canary-drop.toml")),
    ("clock-set", include_str!("../files/clock-set.toml")),
    ("secrets", include_str!("../files/secrets.toml")),
    ("crew-storm", include_str!("../files/crew-storm.toml")),
    ("add-a-manager", include_str!("../files/add-a-manager.toml")),
    (
        "forced-removal",
        include_str!("../files/forced-removal.toml"),
    ),
];

/// All scenarios, in the order of the handbook.
pub fn all() -> Vec<Scenario> {
    FILES.iter().map(|(name, text)| read(name, text)).collect()
}

/// The scenario called `name`.
pub fn find(name: &str) -> Option<Scenario> {
    FILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(name, text)| read(name, text))
}

/// Reads one; the files are part of the program, so a wrong one is a bug that the tests find.
fn read(name: &str, text: &str) -> Scenario {
    let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}.toml: {error}"));
    assert_eq!(scenario.name, name, "a scenario is called like its file");
    scenario
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_is_read_and_has_a_bound() {
        for scenario in super::all() {
            assert!(
                !scenario.expect.is_empty(),
                "{} expects nothing",
                scenario.name
            );
            assert!(
                !scenario.covers.is_empty(),
                "{} covers nothing",
                scenario.name
            );
            assert!(
                !scenario.probes.is_empty(),
                "{} says of nothing rare that it must happen",
                scenario.name
            );
        }
    }
}
