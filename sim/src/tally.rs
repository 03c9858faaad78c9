//! What a sweep adds up to: speed, failures, and in how many runs the things happened that the scenarios are there for.
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a sweep talks to the terminal and takes real time"
)]

use crate::report::Report;
use scenarios::Scenario;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// Prints a failure with the command that shows it again.
pub fn tell_failure(report: &Report) {
    let first = report.failures.first().map_or("", String::as_str);
    let first = first.lines().next().unwrap_or("");
    println!("FAILED {} seed {}: {first}", report.scenario, report.seed);
    println!(
        "       cargo run --release --bin storm -- {}",
        &report.replay_command()["storm ".len()..]
    );
}

/// What a sweep adds up to.
pub struct Tally {
    /// When it began.
    since: Instant,
    /// Runs so far.
    runs: u64,
    /// Their length.
    virtual_ms: u64,
    /// Operations of their clients.
    operations: u64,
    /// The failed ones.
    failed: Vec<Report>,
    /// By scenario.
    by_scenario: BTreeMap<String, Part>,
}

/// The runs of one scenario.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// How many.
    pub runs: u64,
    /// Their length, virtual milliseconds.
    pub virtual_ms: u64,
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// In how many of them each probe was hit.
    pub probes: BTreeMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally::new()
    }
}

impl Tally {
    /// Nothing yet; the time of the sweep begins.
    pub fn new() -> Self {
        Tally {
            since: Instant::now(),
            runs: 0,
            virtual_ms: 0,
            operations: 0,
            failed: Vec::new(),
            by_scenario: BTreeMap::new(),
        }
    }

    /// Adds a run.
    pub fn add(&mut self, report: Report) {
        self.runs += 1;
        self.virtual_ms += report.virtual_ms;
        self.operations += report.operations;
        let one = self.by_scenario.entry(report.scenario.clone()).or_default();
        one.runs += 1;
        one.virtual_ms += report.virtual_ms;
        one.cpu_us += report.cpu_us;
        for probe in report.probes.keys() {
            // Counted by run: a probe says in how many runs something happened.
            *one.probes.entry(probe.clone()).or_default() += 1;
        }
        if !report.failures.is_empty() {
            self.failed.push(report);
        }
    }

    /// How many runs failed.
    pub fn failed(&self) -> usize {
        self.failed.len()
    }

    /// The runs by scenario.
    pub fn probes(&self) -> &BTreeMap<String, Part> {
        &self.by_scenario
    }

    /// Speed so far.
    pub fn pace(&self) -> String {
        let seconds = self.since.elapsed().as_secs_f64().max(0.001);
        let ratio = self.virtual_ms as f64 / 1_000.0 / seconds;
        format!(
            "{:.1} runs/s, {ratio:.0}x real time, {} failed",
            self.runs as f64 / seconds,
            self.failed.len()
        )
    }

    /// Prints the speed, the probes and the failures.
    pub fn print(&self) {
        println!(
            "scenario          runs   virtual s/run   virtual s/core s   runs/core s   ms/run"
        );
        let mut probes: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, part) in &self.by_scenario {
            let cpu_s = (part.cpu_us as f64 / 1e6).max(1e-9);
            let (virtual_s, runs) = (part.virtual_ms as f64 / 1e3, part.runs as f64);
            println!(
                "{name:16} {runs:5}   {:13.1}   {:16.0}   {:11.1}   {:6.1}",
                virtual_s / runs,
                virtual_s / cpu_s,
                runs / cpu_s,
                cpu_s * 1e3 / runs
            );
            for (probe, count) in &part.probes {
                *probes.entry(probe).or_default() += count;
            }
        }
        println!("\nin how many runs");
        for (probe, runs) in &probes {
            println!("{runs:6}  {probe}");
        }
        println!(
            "\n{} runs, {} operations, {}",
            self.runs,
            self.operations,
            self.pace()
        );
        for report in &self.failed {
            tell_failure(report);
        }
        println!(
            "{} passed, {} failed",
            self.runs - self.failed.len() as u64,
            self.failed.len()
        );
    }
}

/// An expected probe that no run has hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The scenario that expects it.
    pub scenario: String,
    /// The probe.
    pub probe: String,
    /// Runs of the scenario.
    pub runs: u64,
    /// Runs of which at least one should have hit it.
    pub within: u64,
}

impl Missing {
    /// True when there were runs enough. With fewer it is only worth a word.
    pub fn is_failure(&self) -> bool {
        self.runs >= self.within
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.is_failure() { "FAILED" } else { "note:" };
        write!(
            out,
            "{weight} probe never hit: {} in {} runs of {}, expected at least one in {}",
            self.probe, self.runs, self.scenario, self.within
        )
    }
}

/// The probes that `scenarios` expect and that `parts`, their runs, never hit.
pub fn missing(scenarios: &[Scenario], parts: &BTreeMap<String, Part>) -> Vec<Missing> {
    let mut all = Vec::new();
    for scenario in scenarios {
        let Some(part) = parts.get(&scenario.name) else {
            continue;
        };
        let never = |probe: &str| part.probes.get(probe).is_none_or(|runs| *runs == 0);
        let budgets = scenario.probes.iter().filter(|(probe, _)| never(probe));
        all.extend(budgets.map(|(probe, within)| Missing {
            scenario: scenario.name.clone(),
            probe: probe.clone(),
            runs: part.runs,
            within: *within,
        }));
    }
    all
}
