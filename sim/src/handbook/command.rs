//! `storm handbook`: runs the seeds, writes the pages or compares them.
#![expect(clippy::disallowed_macros, reason = "a command talks to the terminal")]

use super::model::gather;
use super::{book, live};
use crate::deal::share;
use crate::report::Report;
use crate::runner::{Job, run_all};
use crate::trace::Level;
use anyhow::{Result, ensure};
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of `handbook`.
#[derive(Args)]
pub struct HandbookArgs {
    /// Seeds of every scenario, from 1 on (fewer of those with long runs); the committed pages are made with the default
    #[arg(long, default_value_t = 40)]
    seeds: u64,
    /// Where the book is
    #[arg(long, default_value = "docs/handbook")]
    out: PathBuf,
    /// Write nothing; say what in the book is not what the runs give now, exit code 1 if anything
    #[arg(long)]
    check: bool,
    /// Runs at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

/// Makes the handbook; false when it must not be written, or is not current.
pub fn handbook(args: &HandbookArgs, at_once: usize) -> Result<bool> {
    ensure!(
        args.seeds > 0,
        "--seeds must be at least 1: pages without runs are no evidence"
    );
    let at_once = if args.jobs > 0 { args.jobs } else { at_once };
    let mut runs = run_everything(args.seeds, at_once);
    let (mut models, mut wrong) = (Vec::new(), Vec::new());
    for scenario in scenarios::all() {
        match gather(&scenario, runs.remove(&scenario.name).unwrap_or_default()) {
            Ok(mut model) => {
                model.live = live::read(&args.out, &scenario)?;
                models.push(model);
            }
            Err(why) => wrong.extend(why),
        }
    }
    if !wrong.is_empty() {
        wrong.iter().for_each(|why| println!("{why}"));
        println!(
            "no page is written: {} findings stand against it",
            wrong.len()
        );
        return Ok(false);
    }
    let files = book::files(&models);
    if args.check {
        return check(args, &files);
    }
    book::write(&args.out, &files, &commit(&args.out))?;
    println!("{} files in {}", files.len(), args.out.display());
    Ok(true)
}

/// Runs all seeds of all scenarios, with their stories.
fn run_everything(seeds: u64, at_once: usize) -> BTreeMap<String, Vec<Report>> {
    let all = scenarios::all();
    let mut jobs = Vec::new();
    for scenario in &all {
        let keep = Some(Level::Story);
        jobs.extend((1..=share(scenario, &all, seeds)).map(|seed| Job::new(scenario, seed, keep)));
    }
    // Long runs first, or one core would wait for the other at the end.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.scenario.one_in));
    let mut runs: BTreeMap<String, Vec<Report>> = BTreeMap::new();
    run_all(jobs, at_once, |report| {
        runs.entry(report.scenario.clone())
            .or_default()
            .push(report)
    });
    runs
}

/// The commit that is checked out where the book is, as pages name it. Without git, or outside of a repository, it is unknown.
#[expect(
    clippy::disallowed_methods,
    reason = "the handbook's command runs in an ordinary process and asks git"
)]
fn commit(out: &Path) -> String {
    let asked = std::process::Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .current_dir(
            out.parent()
                .filter(|dir| dir.is_dir())
                .unwrap_or(Path::new(".")),
        )
        .output();
    let told = asked.ok().filter(|told| told.status.success());
    let hash = told.and_then(|told| String::from_utf8(told.stdout).ok());
    match hash.as_deref().map(str::trim) {
        Some(hash) if !hash.is_empty() => format!("`{hash}`"),
        _ => "unknown (git could not tell)".to_owned(),
    }
}

/// Compares the book with what the runs give.
fn check(args: &HandbookArgs, files: &book::Files) -> Result<bool> {
    let differ = book::compare(&args.out, files)?;
    for one in &differ {
        println!("{one}");
    }
    if differ.is_empty() {
        println!("{} files are current", files.len());
    } else {
        println!(
            "{} files are not current: run `storm handbook` and look at what changed",
            differ.len()
        );
    }
    Ok(differ.is_empty())
}
