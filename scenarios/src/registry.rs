//! Every scenario, by name. A file that is not listed here fails the tidy check.

use super::Scenario;

/// The files, in the order of the handbook.
const FILES: [(&str, &str); 6] = [
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
    ("clock-skew", include_str!("../files/clock-skew.toml")),
    ("power-loss", include_str!("../files/power-loss.toml")),
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
