//! Runs of one scenario, added up: measures, probes, evidence. Refuses when a run failed or an expectation was not met.

use crate::report::Report;
use scenarios::{Expectation, LiveRecord, Scenario};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::Xxh3;

/// Everything a page is written from.
#[derive(Debug)]
pub struct Model {
    /// The scenario.
    pub scenario: Scenario,
    /// The runs, by seed.
    pub runs: Vec<Report>,
    /// The expectations, in the order of the scenario file.
    pub rows: Vec<Row>,
    /// Seed of the run that the page shows.
    pub shown: u64,
    /// Hash over the traces of all runs, hex.
    pub hash: String,
    /// What was kept of live runs.
    pub live: Option<LiveRecord>,
}

/// One expectation with what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was expected.
    pub expectation: Expectation,
    /// Runs in which it could be measured.
    pub runs: usize,
    /// Half of the runs were no worse.
    pub median: f64,
    /// Ninety-nine of a hundred runs were no worse.
    pub p99: f64,
    /// The worst run.
    pub worst: f64,
}

/// Adds the runs of a scenario up; or says, in full sentences, why no page may be written.
pub fn gather(scenario: &Scenario, mut runs: Vec<Report>) -> Result<Model, Vec<String>> {
    runs.sort_by_key(|run| run.seed);
    let mut wrong: Vec<String> = runs.iter().filter_map(failed).collect();
    let mut rows = Vec::new();
    for expectation in &scenario.expect {
        match row(expectation, &runs) {
            Ok(row) => rows.push(row),
            Err(why) => wrong.push(format!("{}: {why}", scenario.name)),
        }
    }
    let Some(shown) = richest(&runs) else {
        return Err(vec![format!("{}: there is no run", scenario.name)]);
    };
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let hash = combined_hash(&runs);
    Ok(Model {
        scenario: scenario.clone(),
        runs,
        rows,
        shown,
        hash,
        live: None,
    })
}

impl Model {
    /// The run that the page shows.
    pub fn shown_run(&self) -> &Report {
        let shown = self.runs.iter().find(|run| run.seed == self.shown);
        shown.expect("the shown seed was chosen among the runs")
    }

    /// First and last seed.
    pub fn seeds(&self) -> (u64, u64) {
        let first = self.runs.first().map_or(0, |run| run.seed);
        (first, self.runs.last().map_or(0, |run| run.seed))
    }

    /// In how many runs each probe was hit.
    pub fn probes(&self) -> BTreeMap<&str, usize> {
        count(
            self.runs
                .iter()
                .flat_map(|run| run.probes.keys().map(String::as_str)),
        )
    }

    /// How many runs had each number of nodes and profile.
    pub fn topologies(&self) -> BTreeMap<(u32, &str), usize> {
        count(
            self.runs
                .iter()
                .map(|run| (run.nodes, run.profile.as_str())),
        )
    }

    /// The sum of something over all runs.
    pub fn sum(&self, of: impl Fn(&Report) -> u64) -> u64 {
        self.runs.iter().map(of).sum()
    }
}

/// How often each thing comes up.
fn count<T: Ord>(things: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}

/// Says what went wrong in a run that failed.
fn failed(run: &Report) -> Option<String> {
    let first = run.failures.first()?;
    let first = first.lines().next().unwrap_or_default();
    Some(format!(
        "{} seed {} failed: {first}",
        run.scenario, run.seed
    ))
}

/// Measures one expectation over all runs.
fn row(expectation: &Expectation, runs: &[Report]) -> Result<Row, String> {
    let key = expectation.key();
    let mut values: Vec<f64> = runs
        .iter()
        .filter(|run| {
            expectation
                .profile
                .as_ref()
                .is_none_or(|profile| *profile == run.profile)
        })
        .filter_map(|run| run.measures.get(&key).copied())
        .collect();
    // From good to bad: small values are good, unless there is a least value.
    values.sort_by(f64::total_cmp);
    if expectation.max.is_none() && expectation.min.is_some() {
        values.reverse();
    }
    let Some(worst) = values.last().copied() else {
        return Err(format!(
            "{} ({}) was not measured in any run",
            expectation.id, expectation.text
        ));
    };
    let median = percentile(&values, 0.5);
    if let Some(bound) = expectation.median_max.filter(|bound| median > *bound) {
        return Err(format!(
            "{} ({}): the median is {median:.0} {unit}, the bound is {bound:.0} {unit}",
            expectation.id,
            expectation.text,
            unit = expectation.unit
        ));
    }
    let p99 = percentile(&values, 0.99);
    Ok(Row {
        expectation: expectation.clone(),
        runs: values.len(),
        median,
        p99,
        worst,
    })
}

/// The value that `share` (0 to 1) of the sorted `values` do not go beyond (nearest rank); 0 when there are none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the length"
)]
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or_default()
}

/// The seed of the first run in which most of the labelled steps happened.
fn richest(runs: &[Report]) -> Option<u64> {
    let most = runs.iter().map(|run| run.labels.len()).max()?;
    runs.iter()
        .find(|run| run.labels.len() == most)
        .map(|run| run.seed)
}

/// A hash over the hashes of all runs, in order of their seeds.
fn combined_hash(runs: &[Report]) -> String {
    let mut hash = Xxh3::new();
    for run in runs {
        hash.update(
            format!(
                "{} {} {} {}\n",
                run.scenario, run.seed, run.hash, run.events
            )
            .as_bytes(),
        );
    }
    format!("{:016x}", hash.digest())
}
