//! The command line `storm live`.

use crate::plan::Plan;
use crate::report::{Report, opening};
use crate::run::run;
use crate::task;
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a scenario on real processes in real time; exit code 1 if anything is wrong
///
/// Starts `seaworthy server` processes on loopback, works on them with the clients of the simulation, carries out the steps that real
/// processes can do (kill, stop, restart, pause, damaged and removed data, operators' commands), and holds the same history judges and
/// expectations against real time. Scenarios with workers run `seaworthy worker start` processes and real tasks, which behave as the
/// simulated ones do; a worker is cut off by a proxy of this program's. A scenario with other steps is refused.
#[derive(Parser)]
#[command(name = "storm live", version)]
struct Live {
    /// Scenario, such as leader-crash
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    scenario: Option<String>,
    /// Seed: cluster, clients and the moments of steps follow from it, what happens then does not
    #[arg(long, default_value_t = 1, conflicts_with = "plan")]
    seed: u64,
    /// A plan from --print-plan or `storm plan` instead of scenario and seed
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Print the plan and do nothing
    #[arg(long)]
    print_plan: bool,
    /// Keep what a good run has measured in this file, such as docs/live/leader-crash.json
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The program to run as every node; otherwise the one beside this program, built if need be
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Keep the nodes' logs and data also after a good run
    #[arg(long)]
    keep: bool,
}

/// Runs the command line in `args`, the word `live` first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    if args.get(1).is_some_and(|word| word == task::VERB) {
        let words = args[2..]
            .iter()
            .map(|word| word.to_string_lossy().into_owned());
        return task::run(&words.collect::<Vec<_>>());
    }
    match begin(&Live::parse_from(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn begin(args: &Live) -> Result<bool> {
    let plan = plan(args)?;
    if args.print_plan {
        println!("{}", plan.to_json()?);
        return Ok(true);
    }
    plan.refuse_the_impossible()?;
    let program = program(args)?;
    let build = build_of(&program);
    println!("{}", opening(&plan, build));
    let home = tempfile::Builder::new().prefix("storm-live-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(until_told_to_stop(&plan, program, home.path()));
    // Whatever still runs belongs to a run that is over; processes end with what holds them.
    runtime.shutdown_background();
    let good = matches!(&done, Ok(report) if report.is_good());
    if args.keep || !good {
        println!("logs and data: {}", home.keep().display());
    }
    let report = done?;
    print!("{}", report.text());
    match &args.record {
        Some(path) if good => {
            report.record(&plan, build, path)?;
            println!("kept in {}", path.display());
        }
        Some(path) => println!("not kept in {}: only a good run is", path.display()),
        None => {}
    }
    Ok(good)
}

/// The plan that is asked for.
fn plan(args: &Live) -> Result<Plan> {
    if let Some(path) = &args.plan {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        return Plan::read(&text).with_context(|| path.display().to_string());
    }
    let name = args.scenario.as_deref().unwrap_or_default();
    let Some(scenario) = scenarios::find(name) else {
        let known: Vec<String> = scenarios::all().into_iter().map(|one| one.name).collect();
        bail!(
            "no scenario is called '{name}'; there are: {}",
            known.join(", ")
        );
    };
    Ok(Plan::draw(&scenario, args.seed))
}

/// The program that every node is.
fn program(args: &Live) -> Result<PathBuf> {
    if let Some(program) = &args.program {
        // A node runs in another folder than this program.
        let found = std::path::absolute(program)?;
        anyhow::ensure!(found.is_file(), "there is no program {}", found.display());
        return Ok(found);
    }
    let own = std::env::current_exe().context("this program does not know where it is")?;
    let dir = own.parent().context("this program lies in no folder")?;
    sim_launch::build_product(dir, !cfg!(debug_assertions)).map_err(anyhow::Error::msg)?;
    let beside = dir.join("seaworthy");
    anyhow::ensure!(
        beside.is_file(),
        "there is no {}: build it with `cargo build -p seaworthy`, or name one with --program",
        beside.display()
    );
    Ok(beside)
}

/// How the program was built, by the folder that cargo puts it in.
fn build_of(program: &Path) -> &'static str {
    let folder = program.parent().and_then(Path::file_name);
    match folder.and_then(|name| name.to_str()) {
        Some("release") => "release",
        Some("debug") => "debug",
        _ => "unknown build",
    }
}

/// The run, unless somebody ends this program first: then its processes end with it.
async fn until_told_to_stop(plan: &Plan, program: PathBuf, home: &Path) -> Result<Report> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        biased; // A run that is over is told, whatever came meanwhile.
        report = run(plan, program, home) => report,
        () = tokio::time::sleep(plan.longest()) => bail!("the run did not end within {:?}", plan.longest()),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("told to stop"),
    }
}
