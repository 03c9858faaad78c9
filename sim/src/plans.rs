//! `storm plan` and `storm shrink`: plans as files, and the smallest one that still fails.
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "commands talk to the terminal and to real files"
)]

use crate::plan::Plan;
use crate::planted::Seedling;
use crate::runner::{Job, run_all};
use crate::shrink::{kind_of, shrink};
use anyhow::{Context, Result, bail};
use clap::Args;
use scenarios::Scenario;
use std::path::{Path, PathBuf};

/// Arguments of `plan`.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Scenario
    scenario: String,
    /// Seed
    #[arg(long)]
    seed: u64,
    /// Plant this bug in the nodes (`storm planted --list`)
    #[arg(long)]
    bug: Option<String>,
}

/// Arguments of `shrink`.
#[derive(Args)]
pub(crate) struct ShrinkArgs {
    /// What fails
    #[command(flatten)]
    plan: PlanArgs,
    /// Where the smallest plan goes
    #[arg(long, default_value = "plan.json")]
    out: PathBuf,
    /// Runs that may be spent
    #[arg(long, default_value_t = 300)]
    runs: u64,
}

/// The plan of a scenario and a seed.
fn planned(args: &PlanArgs) -> Result<Plan> {
    let seedling = args.bug.as_deref().map(|name| {
        let bug = crate::planted::find(name).with_context(|| format!("no bug is called '{name}'"));
        bug.map(|bug| Seedling { bug, alive: true })
    });
    let seedling = seedling.transpose()?;
    let scenario = weather(&args.scenario, seedling)?;
    Ok(Plan::of(&scenario, args.seed, seedling))
}

/// The scenario, as the bug changes it.
fn weather(name: &str, seedling: Option<Seedling>) -> Result<Scenario> {
    let of_bug = seedling.into_iter().flat_map(|one| one.bug.weather());
    of_bug
        .into_iter()
        .find(|one| one.name == name)
        .or_else(|| crate::planted::weather(name))
        .with_context(|| format!("no scenario is called '{name}'"))
}

/// Prints a plan.
pub(crate) fn plan(args: &PlanArgs) -> Result<bool> {
    let text = planned(args)?.to_json().map_err(anyhow::Error::msg)?;
    println!("{text}");
    Ok(true)
}

/// Reads a plan.
pub(crate) fn read(path: &Path) -> Result<Plan> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Plan::from_json(&text)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{} is no plan", path.display()))
}

/// What fails in a run of `plan`.
fn failures(plan: &Plan) -> Vec<String> {
    let mut failures = Vec::new();
    run_all([Job::of_plan(plan.clone(), None)], 1, |report| {
        failures = report.failures
    });
    failures
}

/// Looks for the smallest plan that fails in the same way, and writes it; false, as in any command that saw a failure.
pub(crate) fn shrunk(args: &ShrinkArgs) -> Result<bool> {
    let whole = planned(&args.plan)?;
    let first = failures(&whole);
    let Some(failure) = first.first() else {
        bail!("this run does not fail: there is nothing to shrink");
    };
    let kind = kind_of(failure);
    println!("fails: {}", failure.lines().next().unwrap_or_default());
    let mut runs = 0;
    let small = shrink(&whole, &kind, args.runs, |plan| {
        runs += 1;
        failures(plan)
    });
    let text = small.to_json().map_err(anyhow::Error::msg)?;
    std::fs::write(&args.out, text + "\n")
        .with_context(|| format!("writing {}", args.out.display()))?;
    println!(
        "in {runs} runs, from {}\n              to {}\nsee it: storm replay --plan {}",
        size(&whole),
        size(&small),
        args.out.display()
    );
    Ok(false)
}

/// A plan's size in words.
fn size(plan: &Plan) -> String {
    format!(
        "{} steps, {} nodes, {} clients, {} kinds of operations, {} keys, {:.1} s",
        plan.steps.len(),
        plan.nodes,
        plan.clients,
        plan.habits.mix.len(),
        plan.habits.keys,
        plan.duration.as_secs_f64()
    )
}
