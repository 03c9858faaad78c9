//! What a live run says of itself: the story as it goes on, the report, and the record that is kept of it.

use crate::clock::today;
use crate::ground::{load, machine};
use crate::plan::Plan;
use anyhow::{Context, Result};
use scenarios::{Expectation, LiveMeasure, LiveRecord, LiveRun};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The first words of everything that is printed of a live run.
pub(crate) const HEAD: &str = "LIVE, real processes, real time";

/// A durable write that takes longer than this stalls any cluster: elections in the profile lan begin after 150 ms.
const SLOW_DISK: Duration = Duration::from_millis(500);

/// One line of the story.
#[derive(Clone, Debug)]
pub(crate) struct StoryLine {
    /// When, on the run's clock.
    pub(crate) at: Duration,
    /// Where.
    pub(crate) place: String,
    /// What.
    pub(crate) text: String,
}

/// What is written down while a run goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The story.
    pub(crate) lines: Vec<StoryLine>,
    /// What went wrong.
    pub(crate) failures: Vec<String>,
    /// Things that happened, with how often.
    pub(crate) probes: BTreeMap<&'static str, u64>,
}

/// Where a run's parts write down what happens. A clone is the same story.
#[derive(Clone, Default)]
pub(crate) struct Story(Arc<Mutex<Told>>);

impl Story {
    /// Adds a line.
    pub(crate) fn line(&self, at: Duration, place: &str, text: &str) {
        let (place, text) = (place.to_owned(), text.to_owned());
        self.write(|told| told.lines.push(StoryLine { at, place, text }));
    }

    /// Something went wrong.
    pub(crate) fn fail(&self, what: String) {
        self.write(|told| told.failures.push(what));
    }

    /// Something happened that a run may show or not.
    pub(crate) fn probe(&self, probe: &'static str) {
        self.write(|told| *told.probes.entry(probe).or_default() += 1);
    }

    /// Everything so far.
    pub(crate) fn told(&self) -> Told {
        self.write(|told| told.clone())
    }

    fn write<T>(&self, write: impl FnOnce(&mut Told) -> T) -> T {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One live run that is over.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Story, failures, probes.
    pub(crate) told: Told,
    /// Measures by `measure` or `measure@label`.
    pub(crate) measures: BTreeMap<String, f64>,
    /// Expectations that could be measured, with their values.
    pub(crate) met: Vec<(Expectation, f64)>,
    /// Expectations of this profile that could not be measured, with the reason.
    pub(crate) unmeasured: Vec<String>,
    /// Operations that clients did.
    pub(crate) operations: u64,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Errors that clients saw, by code.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The first error of each code, in words.
    pub(crate) first_errors: BTreeMap<String, String>,
    /// The longest time that a small durable write of our own took beside the nodes.
    pub(crate) worst_sync: Duration,
    /// Length of the run.
    pub(crate) length: Duration,
    /// The commit that the program was built from, as it was when the run began.
    pub(crate) commit: Option<String>,
}

/// What is said before a run begins.
pub(crate) fn opening(plan: &Plan, build: &str) -> String {
    let mut out = format!(
        "{HEAD}: {}, seed {}: {} nodes{}, profile {}, {} clients, {:.0} s\n{}; seaworthy {} ({build})\n",
        plan.scenario.name,
        plan.seed,
        plan.nodes,
        workers(plan.workers),
        plan.profile_name(),
        plan.clients,
        plan.duration.as_secs_f64(),
        machine(),
        env!("CARGO_PKG_VERSION"),
    );
    for departure in plan.departures() {
        // Writing to a string cannot fail.
        writeln!(out, "note: {departure}").ok();
    }
    out
}

/// Workers in words; nothing for none.
fn workers(count: u32) -> String {
    match count {
        0 => String::new(),
        one => format!(", {one} workers"),
    }
}

impl Report {
    /// True when nothing went wrong.
    pub(crate) fn is_good(&self) -> bool {
        self.told.failures.is_empty()
    }

    /// Story, measures and verdict, as `storm replay` tells them.
    pub(crate) fn text(&self) -> String {
        let width = self.told.lines.iter().map(|line| line.place.len()).max();
        let width = width.unwrap_or(4);
        let mut out = String::new();
        for line in &self.told.lines {
            let seconds = line.at.as_secs_f64();
            writeln!(
                out,
                "{seconds:10.3} s  {:width$}  {}",
                line.place, line.text
            )
            .ok();
        }
        out.push('\n');
        for (key, value) in &self.measures {
            writeln!(out, "{key}: {value:.1}").ok();
        }
        for why in &self.unmeasured {
            writeln!(out, "not measured: {why}").ok();
        }
        writeln!(
            out,
            "{} operations, {} writes acknowledged, {:.1} real s",
            self.operations,
            self.acknowledged,
            self.length.as_secs_f64()
        )
        .ok();
        if !self.errors.is_empty() {
            writeln!(out, "errors that clients saw: {:?}", self.errors).ok();
        }
        for (code, words) in &self.first_errors {
            writeln!(out, "  first {code}: {words}").ok();
        }
        let worst_sync = self.worst_sync;
        writeln!(
            out,
            "worst sync of a small file beside the nodes: {worst_sync:.1?}"
        )
        .ok();
        if worst_sync > SLOW_DISK {
            out.push_str("note: something else keeps this machine's disk busy; times say more about that than about the cluster\n");
        }
        let probes = self.told.probes.iter();
        let probes: Vec<String> = probes
            .map(|(probe, count)| format!("{probe} ({count})"))
            .collect();
        writeln!(out, "happened: {}", probes.join(", ")).ok();
        if self.is_good() {
            out.push_str("verdict: all is well\n");
        }
        for failure in &self.told.failures {
            writeln!(out, "verdict: FAILED: {failure}").ok();
        }
        let failed = usize::from(!self.is_good());
        writeln!(out, "{} passed, {failed} failed ({HEAD})", 1 - failed).ok();
        out
    }

    /// Keeps this run in the file of its scenario's live runs.
    pub(crate) fn record(&self, plan: &Plan, build: &str, path: &Path) -> Result<()> {
        let mut record = match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} holds no live runs", path.display()))?,
            Err(_) => LiveRecord {
                scenario: plan.scenario.name.clone(),
                runs: Vec::new(),
            },
        };
        anyhow::ensure!(
            record.scenario == plan.scenario.name,
            "{} is about {}, not about {}: give a file for each scenario",
            path.display(),
            record.scenario,
            plan.scenario.name
        );
        record.keep(self.run_of(plan, build));
        let text = serde_json::to_string_pretty(&record)? + "\n";
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// This run as it is kept.
    fn run_of(&self, plan: &Plan, build: &str) -> LiveRun {
        let measure = |(expectation, value): &(Expectation, f64)| LiveMeasure {
            id: expectation.id.clone(),
            text: expectation.text.clone(),
            unit: expectation.unit.clone(),
            value: rounded(*value),
            max: expectation.max,
            min: expectation.min,
        };
        LiveRun {
            seed: plan.seed,
            date: today(),
            machine: machine(),
            load: load(),
            worst_sync_ms: Some(rounded(self.worst_sync.as_secs_f64() * 1_000.0)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: build.to_owned(),
            commit: self.commit.clone().unwrap_or_else(|| "unknown".to_owned()),
            nodes: plan.nodes,
            workers: plan.workers,
            profile: plan.profile_name().to_owned(),
            seconds: rounded(self.length.as_secs_f64()),
            clients: plan.clients,
            operations: self.operations,
            acknowledged: self.acknowledged,
            errors: self.errors.clone(),
            measures: self.met.iter().map(measure).collect(),
            departures: plan.departures(),
        }
    }
}

/// A number with one digit behind the point: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        let scenario = scenarios::find("leader-crash").expect("it is registered");
        Plan::draw(&scenario, seed)
    }

    #[test]
    fn a_run_is_kept_once_for_each_seed_and_only_with_its_own_scenario() {
        let dir = tempfile::tempdir().expect("there is room");
        let path = dir.path().join("live/leader-crash.json");
        for seed in [2, 1, 2] {
            let report = Report::default();
            report
                .record(&plan(seed), "debug", &path)
                .expect("there is room");
        }
        let text = fs::read_to_string(&path).expect("it was written");
        let record: LiveRecord = serde_json::from_str(&text).expect("it is a record");
        let seeds: Vec<u64> = record.runs.iter().map(|run| run.seed).collect();
        assert_eq!(seeds, [1, 2]);
        let mut other = plan(3);
        other.scenario.name = "another".to_owned();
        let refused = Report::default().record(&other, "debug", &path);
        assert!(
            refused
                .expect_err("it is another")
                .to_string()
                .contains("is about leader-crash")
        );
    }

    #[test]
    fn a_report_says_that_it_is_live_and_what_went_wrong() {
        let story = Story::default();
        story.line(Duration::from_millis(1_500), "n1", "LEADS term 2");
        let mut report = Report {
            told: story.told(),
            ..Report::default()
        };
        assert!(report.text().contains("     1.500 s  n1  LEADS term 2"));
        assert!(
            report
                .text()
                .ends_with(&format!("1 passed, 0 failed ({HEAD})\n"))
        );
        story.fail("a write was lost".to_owned());
        report.told = story.told();
        assert!(report.text().contains("verdict: FAILED: a write was lost"));
        assert!(opening(&plan(1), "debug").starts_with(HEAD));
    }
}
