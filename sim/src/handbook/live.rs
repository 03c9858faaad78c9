//! What a page says of live runs: real processes in real time, as `storm live --record` kept them in `docs/live`.
//!
//! Nothing is run here: a live run never gives the same numbers twice, and a page must. A file that does not fit its scenario
//! any more is an error, so that no page shows numbers of something else.

use super::page::amount;
use anyhow::{Context, Result, ensure};
use scenarios::{LiveMeasure, LiveRecord, LiveRun, Scenario};
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

/// What was kept of live runs of `scenario`, beside the book at `out`; nothing when there is no file.
pub fn read(out: &Path, scenario: &Scenario) -> Result<Option<LiveRecord>> {
    let docs = out.parent().unwrap_or(Path::new("."));
    let path = docs.join("live").join(format!("{}.json", scenario.name));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    parse(&text, scenario)
        .map(Some)
        .with_context(|| path.display().to_string())
}

/// Reads a record, and holds it against the scenario of today.
pub fn parse(text: &str, scenario: &Scenario) -> Result<LiveRecord> {
    let record: LiveRecord =
        serde_json::from_str(text).context("this is no record of live runs")?;
    ensure!(
        record.scenario == scenario.name,
        "it is about {}, not about {}",
        record.scenario,
        scenario.name
    );
    for (run, measure) in measures(&record) {
        let known = scenario.expect.iter().find(|one| {
            (&one.id, &one.text, one.max, one.min)
                == (&measure.id, &measure.text, measure.max, measure.min)
        });
        ensure!(
            known.is_some(),
            "seed {} has measured {} ({}), which the scenario does not expect so any more: storm live {} --seed {0} --record",
            run.seed,
            measure.id,
            measure.text,
            scenario.name
        );
    }
    Ok(record)
}

/// All measures with their runs.
fn measures(record: &LiveRecord) -> impl Iterator<Item = (&LiveRun, &LiveMeasure)> {
    let runs = record.runs.iter();
    runs.flat_map(|run| run.measures.iter().map(move |measure| (run, measure)))
}

/// The part of the page; nothing when nothing was run live.
pub fn part(record: Option<&LiveRecord>) -> String {
    let Some(record) = record.filter(|record| !record.runs.is_empty()) else {
        return String::new();
    };
    let mut out = "Not simulated: real processes of `seaworthy` on the loopback of one machine, in real time, judged by the same judges. \
         The numbers are that machine's, and another run gives others. What only a simulator can do or see is left out.\n\n\
         | Seed | Cluster | Id | What | Measured | Bound |\n| ---: | --- | --- | --- | ---: | ---: |\n"
        .to_owned();
    for (run, measure) in measures(record) {
        let unit = measure.unit.as_str();
        let max = measure
            .max
            .map(|max| format!("at most {}", amount(max, unit)));
        let min = measure
            .min
            .map(|min| format!("at least {}", amount(min, unit)));
        let bounds: Vec<String> = max.into_iter().chain(min).collect();
        // Writing to a string cannot fail.
        writeln!(
            out,
            "| {} | {} nodes{}, {} | {} | {} | {} | {} |",
            run.seed,
            run.nodes,
            workers(run.workers),
            run.profile,
            measure.id,
            measure.text,
            amount(measure.value, unit),
            bounds.join(", ")
        )
        .ok();
    }
    out.push('\n');
    for run in &record.runs {
        writeln!(out, "- {}", told(run, &record.scenario)).ok();
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

/// Where and when a run was made, and what it was.
fn told(run: &LiveRun, scenario: &str) -> String {
    let load = run.load.map(|load| format!(", load {load:.1}"));
    let sync = run
        .worst_sync_ms
        .map(|worst| format!(", worst sync {}", amount(worst, "ms")));
    let mut text = format!(
        "Seed {}, {}: {}{}{}; version {}, {} build of `{}`; {:.0} s, {} clients, {} operations judged, {} writes acknowledged. \
         Again: `storm live {scenario} --seed {0}`.",
        run.seed,
        run.date,
        run.machine,
        load.unwrap_or_default(),
        sync.unwrap_or_default(),
        run.version,
        run.build,
        run.commit,
        run.seconds,
        run.clients,
        run.operations,
        run.acknowledged
    );
    for departure in &run.departures {
        // Writing to a string cannot fail.
        write!(text, " {departure}.").ok();
    }
    text
}
