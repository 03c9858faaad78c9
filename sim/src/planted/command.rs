//! The command `storm planted`: plants each bug, searches, and prints one line for each.
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_types,
    reason = "the simulator's own command line talks to the terminal and writes its report"
)]

use super::search::{Finding, search};
use super::{Bug, Seedling, all, find, weather};
use crate::cli::{ReplayArgs, at_once, tell_story};
use crate::runner::{Job, run_all};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `planted`.
#[derive(Args)]
pub struct PlantedArgs {
    /// Tell a story instead of searching
    #[command(subcommand)]
    tell: Option<Tell>,
    /// Runs after which a bug counts as not found
    #[arg(long, default_value_t = 1_000)]
    seeds_max: u64,
    /// Only this bug (may be given several times)
    #[arg(long)]
    bug: Vec<String>,
    /// List the bugs and how they are planted
    #[arg(long)]
    list: bool,
    /// Runs at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Write one JSON line per bug to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What to tell.
#[derive(Subcommand)]
enum Tell {
    /// Run one seed with a bug planted and tell its story
    Replay {
        /// The bug
        bug: String,
        /// Leave the bug out: the same run, healthy
        #[arg(long)]
        without: bool,
        /// The run
        #[command(flatten)]
        run: ReplayArgs,
    },
}

/// Plants the bugs called for and looks for them; false if one was not found, or its run fails without it too.
pub fn planted(args: &PlantedArgs) -> Result<bool> {
    if let Some(Tell::Replay { bug, without, run }) = &args.tell {
        return replay(bug, !without, run);
    }
    let bugs = chosen(&args.bug)?;
    if args.list {
        bugs.iter().for_each(|bug| describe(bug));
        return Ok(true);
    }
    let mut file = args
        .json
        .as_ref()
        .map(File::create)
        .transpose()
        .context("creating --json")?;
    let mut findings = Vec::new();
    for bug in bugs {
        let finding = search(bug, args.seeds_max, at_once(args.jobs));
        tell(&finding);
        if let Some(file) = &mut file {
            writeln!(file, "{}", serde_json::to_string(&finding)?).context("writing --json")?;
        }
        findings.push(finding);
    }
    let good = findings.iter().filter(|finding| finding.is_good()).count();
    let runs: u64 = findings.iter().map(|finding| finding.runs).sum();
    let cpu_ms: u64 = findings.iter().map(|finding| finding.cpu_ms).sum();
    println!(
        "\n{good} of {} planted bugs found, {runs} runs, {} core s",
        findings.len(),
        cpu_ms / 1_000
    );
    Ok(good == findings.len())
}

/// The bugs called for, or all.
fn chosen(names: &[String]) -> Result<Vec<&'static Bug>> {
    if names.is_empty() {
        return Ok(all().collect());
    }
    names.iter().map(|name| named(name)).collect()
}

/// The bug called `name`.
fn named(name: &str) -> Result<&'static Bug> {
    find(name).with_context(|| {
        let known: Vec<&str> = all().map(|bug| bug.name).collect();
        format!(
            "no planted bug is called '{name}'; there are: {}",
            known.join(", ")
        )
    })
}

/// Prints what a bug is.
fn describe(bug: &Bug) {
    let witnesses: Vec<&str> = bug.witnesses.iter().map(|one| one.name()).collect();
    println!("{}: {}", bug.name, bug.words);
    println!("    planted   {}", bug.how);
    println!("    weather   {}", bug.scenarios.join(", "));
    println!("    witnesses {}", witnesses.join(", "));
}

/// Prints what became of a bug.
fn tell(finding: &Finding) {
    let seconds = finding.cpu_ms as f64 / 1_000.0;
    match &finding.hit {
        Some(hit) => {
            println!(
                "found    {:24} after {:4} runs, {seconds:5.1} core s",
                finding.bug, finding.runs
            );
            println!("         planted: {}", finding.how);
            println!("         by {}: {}", hit.witness, hit.failure);
            if hit.witnesses.len() > 1 {
                println!("         oracles that spoke: {}", hit.witnesses.join(", "));
            }
            println!(
                "         storm planted replay {} {} --seed {}",
                finding.bug, hit.scenario, hit.seed
            );
        }
        None => {
            println!(
                "MISSED   {:24} after {:4} runs, {seconds:5.1} core s",
                finding.bug, finding.runs
            );
            println!("         planted: {}", finding.how);
        }
    }
    if let Some(other) = &finding.other {
        let other = other.lines().next().unwrap_or_default();
        println!(
            "         {} runs failed without the right oracle, such as {other}",
            finding.others
        );
    }
    for failure in &finding.without {
        println!("UNSOUND  the same run fails without the bug: {failure}");
    }
}

/// Runs one seed with or without a bug and tells its story.
fn replay(bug: &str, alive: bool, run: &ReplayArgs) -> Result<bool> {
    let bug = named(bug)?;
    let Some((name, seed)) = run.run() else {
        bail!(
            "a planted bug is told by scenario and seed; a plan that has one is told by `storm replay --plan`"
        );
    };
    let known = bug.weather().into_iter().find(|one| one.name == name);
    let Some(scenario) = known.or_else(|| weather(name)) else {
        bail!("no scenario is called '{name}'");
    };
    let job = Job {
        seedling: Some(Seedling { bug, alive }),
        ..Job::new(&scenario, seed, Some(run.level()))
    };
    let mut good = true;
    run_all([job], 1, |report| {
        good = report.failures.is_empty();
        tell_story(&report, run);
    });
    Ok(good)
}
