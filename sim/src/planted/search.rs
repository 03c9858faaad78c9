//! The search: seeds in growing order until the right oracle speaks, then the same seed without the bug.
//!
//! What is found does not depend on how many runs go side by side: every run before the first hit has been judged as well.

use super::{Bug, Seedling, Witness};
use crate::report::Report;
use crate::runner::{Job, run_all};
use scenarios::Scenario;
use serde::Serialize;
use std::cell::Cell;
use std::collections::BTreeMap;

/// What became of one bug.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The bug.
    pub bug: &'static str,
    /// The mistake.
    pub words: &'static str,
    /// How it is planted.
    pub how: &'static str,
    /// The run that found it; none when no run did.
    pub hit: Option<Hit>,
    /// Runs up to the one that found it, or all.
    pub runs: u64,
    /// Runs that failed without a witness of this bug, with the first words of one.
    pub others: u64,
    /// Such a failure.
    pub other: Option<String>,
    /// What the same run without the bug fails with; empty when it is clean, as it must be.
    pub without: Vec<String>,
    /// Processor time of all its runs, milliseconds.
    pub cpu_ms: u64,
}

/// The run that found a bug.
#[derive(Clone, Debug, Serialize)]
pub struct Hit {
    /// Scenario.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// The oracle that spoke first.
    pub witness: &'static str,
    /// Its words.
    pub failure: String,
    /// All oracles that spoke.
    pub witnesses: Vec<&'static str>,
}

impl Finding {
    /// True when the bug was found, and only because it was there.
    pub fn is_good(&self) -> bool {
        self.hit.is_some() && self.without.is_empty()
    }
}

/// Looks for `bug` in at most `runs_max` runs, `at_once` at a time.
pub fn search(bug: &'static Bug, runs_max: u64, at_once: usize) -> Finding {
    let weather = bug.weather();
    let seedling = Seedling { bug, alive: true };
    let found = Cell::new(false);
    let many = weather.len() as u64;
    let jobs = (0..runs_max)
        // Asked for a run at a time: none begins after a hit.
        .take_while(|_| !found.get())
        .map(|place| {
            job(
                &weather[usize::try_from(place % many).unwrap_or(0)],
                1 + place / many,
                seedling,
            )
        });
    let mut reports: BTreeMap<u64, Report> = BTreeMap::new();
    run_all(jobs, at_once, |report| {
        found.set(found.get() || hit(bug, &report).is_some());
        let scenario = weather
            .iter()
            .position(|one| one.name == report.scenario)
            .unwrap_or(0);
        reports.insert((report.seed - 1) * many + scenario as u64, report);
    });
    conclude(bug, &weather, reports, at_once)
}

/// What the reports, in order of their runs, amount to.
fn conclude(
    bug: &'static Bug,
    weather: &[Scenario],
    reports: BTreeMap<u64, Report>,
    at_once: usize,
) -> Finding {
    let mut finding = Finding {
        bug: bug.name,
        words: bug.words,
        how: bug.how,
        hit: None,
        runs: 0,
        others: 0,
        other: None,
        without: Vec::new(),
        cpu_ms: reports.values().map(|report| report.cpu_us / 1_000).sum(),
    };
    for report in reports.into_values() {
        finding.runs += 1;
        finding.hit = hit(bug, &report);
        if finding.hit.is_some() {
            break;
        }
        if let Some(failure) = report.failures.first() {
            finding.others += 1;
            finding.other.get_or_insert_with(|| {
                format!("{} seed {}: {failure}", report.scenario, report.seed)
            });
        }
    }
    if let Some(hit) = finding
        .hit
        .as_ref()
        .filter(|_| bug.plant != super::Plant::Nothing)
    {
        finding.without = without(bug, weather, hit, at_once);
    }
    finding
}

/// Failures of the same run without the bug.
fn without(bug: &'static Bug, weather: &[Scenario], hit: &Hit, at_once: usize) -> Vec<String> {
    let scenario = weather.iter().find(|one| one.name == hit.scenario);
    let jobs = scenario.map(|one| job(one, hit.seed, Seedling { bug, alive: false }));
    let mut failures = Vec::new();
    run_all(jobs, at_once, |report| failures = report.failures);
    failures
}

/// A run to do.
fn job(scenario: &Scenario, seed: u64, seedling: Seedling) -> Job {
    Job {
        seedling: Some(seedling),
        ..Job::new(scenario, seed, None)
    }
}

/// The hit, if a witness of `bug` spoke in `report`.
fn hit(bug: &Bug, report: &Report) -> Option<Hit> {
    let spoke: Vec<(Witness, &String)> = report
        .failures
        .iter()
        .filter_map(|failure| Witness::of(failure).map(|witness| (witness, failure)))
        .collect();
    let (witness, failure) = spoke
        .iter()
        .find(|(witness, _)| bug.witnesses.contains(witness))?;
    let mut witnesses: Vec<Witness> = spoke.iter().map(|(witness, _)| *witness).collect();
    witnesses.sort();
    witnesses.dedup();
    Some(Hit {
        scenario: report.scenario.clone(),
        seed: report.seed,
        witness: witness.name(),
        failure: failure.lines().next().unwrap_or_default().to_owned(),
        witnesses: witnesses.into_iter().map(Witness::name).collect(),
    })
}
