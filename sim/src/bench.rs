//! What runs cost: virtual seconds and runs per second of one core, for each scenario, over seeds that are always the same.
//!
//! Counted is processor time of the run's whole process, from its fork to its end, so that the figures mean the same with any
//! number of runs at once; a machine that others use still makes them worse. Runs that ended without a report (a panic, a
//! hang) are left out and counted. Left out also: the parent, which does next to nothing.

use crate::deal::share;
use crate::report::Report;
use crate::runner::Job;
use scenarios::Scenario;
use std::collections::BTreeMap;
use std::fmt;

/// Runs of the sweep that the figures are turned into minutes for.
const SWEEP_RUNS: f64 = 10_000.0;
/// Cores of the machine that it is turned into minutes for.
const SWEEP_CORES: f64 = 2.0;

/// The runs to measure: the first `seeds` seeds of each of `scenarios` (fewer of those with long runs), in turn, so that a slow moment of
/// the machine hits all.
pub fn jobs(scenarios: &[Scenario], seeds: u64) -> Vec<Job> {
    let has = |one: &&Scenario, seed| seed <= share(one, scenarios, seeds);
    let of_seed = |seed| {
        let those = scenarios.iter().filter(move |one| has(one, seed));
        those.map(move |one| Job::new(one, seed, None))
    };
    (1..=seeds).flat_map(of_seed).collect()
}

/// What the runs of one scenario add up to.
#[derive(Clone, Debug, Default)]
struct Cost {
    /// Processor time of each run, microseconds.
    cpu_us: Vec<u64>,
    /// Length of all runs, virtual milliseconds.
    virtual_ms: u64,
    /// Operations of all clients.
    operations: u64,
    /// Events of all nodes and of the network that were hashed.
    events: u64,
}

impl Cost {
    /// Adds another scenario's.
    fn merge(&mut self, other: &Cost) {
        self.cpu_us.extend(&other.cpu_us);
        self.virtual_ms += other.virtual_ms;
        self.operations += other.operations;
        self.events += other.events;
    }

    /// Processor time of all runs, seconds; never zero.
    fn seconds(&self) -> f64 {
        (self.cpu_us.iter().sum::<u64>() as f64 / 1e6).max(1e-9)
    }

    /// The run that `share` of all runs cost less than, milliseconds.
    fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.cpu_us.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a list"
        )]
        let place = (last as f64 * share) as usize;
        sorted.get(place).map_or(0.0, |us| *us as f64 / 1e3)
    }

    /// One line of the table.
    fn line(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (runs, seconds) = (self.cpu_us.len() as f64, self.seconds());
        let virtual_s = self.virtual_ms as f64 / 1e3;
        writeln!(
            f,
            "{name:16} {runs:5} {:12.1} {:10.0} {:19.0} {:14.1} {:9.1} {:9.1} {:9.1}",
            virtual_s / runs.max(1.0),
            self.operations as f64 / runs.max(1.0),
            virtual_s / seconds,
            runs / seconds,
            seconds * 1e3 / runs.max(1.0),
            self.quantile_ms(0.5),
            self.quantile_ms(0.95),
        )
    }
}

/// What all runs add up to, and the table of it.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// By scenario.
    scenarios: BTreeMap<String, Cost>,
    /// Runs that ended without a report.
    lost: u64,
}

impl Costs {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        if report.virtual_ms == 0 {
            self.lost += 1;
            return;
        }
        let cost = self.scenarios.entry(report.scenario.clone()).or_default();
        cost.cpu_us.push(report.cpu_us);
        cost.virtual_ms += report.virtual_ms;
        cost.operations += report.operations;
        cost.events += report.events;
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "scenario          runs  virtual s/run  ops/run  virtual s/core s  runs/core s    ms/run    median     95 %"
        )?;
        let mut all = Cost::default();
        for (name, cost) in &self.scenarios {
            cost.line(name, f)?;
            all.merge(cost);
        }
        all.line("all", f)?;
        let minutes =
            SWEEP_RUNS * all.seconds() / all.cpu_us.len().max(1) as f64 / SWEEP_CORES / 60.0;
        writeln!(
            f,
            "\n{SWEEP_RUNS} runs on {SWEEP_CORES} cores: {minutes:.1} minutes; {} events hashed, {} runs lost",
            all.events, self.lost
        )
    }
}
