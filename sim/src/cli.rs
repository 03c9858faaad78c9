//! The command line `storm`: run, replay, check determinism, write the handbook, list.
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the simulator's own command line talks to the terminal and knows real time"
)]

use crate::deal::{deal, is_long, share};
use crate::handbook::command::{HandbookArgs, handbook};
use crate::plan::Plan;
use crate::plans::{self, PlanArgs, ShrinkArgs};
use crate::report::Report;
use crate::runner::{Job, run_all, warm_up};
use crate::tally::{Missing, Tally, missing, tell_failure};
use crate::trace::Level;
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use scenarios::Scenario;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Set in a process whose addresses are fixed.
const FIXED: &str = "STORM_FIXED";
/// Seeds of each scenario whose plans are written down, read and run by the determinism check.
const PLAN_SEEDS: u64 = 5;
/// Seeds of each scenario that the determinism check runs in fresh processes.
const FRESH_SEEDS: u64 = 3;

/// Sails a cluster through storms, and shows what happened.
#[derive(Parser)]
#[command(name = "storm", version, about, long_about = None)]
struct Storm {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Subcommand)]
enum Command {
    /// Run many seeds over the scenarios; exit code 1 if any fails
    Run(RunArgs),
    /// Run one seed again and tell its story
    Replay(ReplayArgs),
    /// Print the plan of a seed: everything its run will do, as data
    Plan(PlanArgs),
    /// Look for the smallest plan that fails as this seed does; exit code 1 when it does fail
    Shrink(ShrinkArgs),
    /// Run seeds twice in two processes and compare their traces
    Determinism(DeterminismArgs),
    /// Measure what runs cost: virtual seconds and runs per second of one core
    Bench(BenchArgs),
    /// Write the operator's handbook from runs, or check that it is current
    Handbook(HandbookArgs),
    /// List the scenarios
    List(ListArgs),
    /// Run a scenario on real processes in real time (an ordinary build of storm does it)
    #[command(disable_help_flag = true)]
    Live(LiveArgs),
    /// Plant bugs in the nodes and see whether they are found; exit code 1 if one is not
    Planted(crate::planted::command::PlantedArgs),
}

/// Arguments of `run`.
#[derive(Args)]
struct RunArgs {
    /// How many runs, dealt over the chosen scenarios; those with long runs get fewer
    #[arg(long, default_value_t = 60)]
    seeds: u64,
    /// Only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// First seed
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only this scenario (may be given several times)
    #[arg(long)]
    scenario: Vec<String>,
    /// Runs at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Only every N-th run, starting with the I-th: `I/N`, I from 1
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Write one JSON line per run to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Stop dealing new runs after this many failures
    #[arg(long, default_value_t = 50)]
    failures_max: usize,
}

/// Arguments of `replay`.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// Scenario
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    scenario: Option<String>,
    /// Seed
    #[arg(long, required_unless_present = "plan", conflicts_with = "plan")]
    seed: Option<u64>,
    /// A plan from `storm plan` or `storm shrink` instead of scenario and seed
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Stop the story after this many virtual seconds
    #[arg(long)]
    until: Option<f64>,
    /// Only lines that contain this
    #[arg(long)]
    grep: Option<String>,
    /// How much to tell
    #[arg(long, value_enum, default_value_t = TellLevel::Story)]
    level: TellLevel,
}

/// How much of a story to tell.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum TellLevel {
    /// Faults, elections, membership, recoveries
    Story,
    /// Also connections, commits, commands' output
    Detail,
    /// Everything
    All,
}

/// Arguments of `determinism`.
#[derive(Args)]
struct DeterminismArgs {
    /// Seeds of every scenario; those with long runs get fewer
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// Only this scenario (may be given several times)
    #[arg(long)]
    scenario: Vec<String>,
    /// Runs at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

/// Arguments of `bench`.
#[derive(Args)]
struct BenchArgs {
    /// Seeds of every scenario; always the same ones, from 1; those with long runs get fewer
    #[arg(long, default_value_t = 40)]
    seeds: u64,
    /// Only this scenario (may be given several times)
    #[arg(long)]
    scenario: Vec<String>,
    /// Runs at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

/// Arguments of `list`.
#[derive(Args)]
struct ListArgs {
    /// List the measures that expectations may use instead
    #[arg(long)]
    measures: bool,
}

/// Arguments of `live`, which are another build's.
#[derive(Args)]
struct LiveArgs {
    /// Whatever it is given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// The program.
pub fn main() -> ExitCode {
    fix_addresses();
    end_with_the_reader();
    warm_up();
    let storm = Storm::parse();
    let result = match storm.command {
        Command::Run(args) => sweep(&args),
        Command::Replay(args) => replay(&args),
        Command::Plan(args) => plans::plan(&args),
        Command::Shrink(args) => plans::shrunk(&args),
        Command::Determinism(args) => determinism(&args),
        Command::Bench(args) => bench(&args),
        Command::Handbook(args) => handbook(&args, at_once(0)),
        Command::List(args) => list(&args),
        Command::Live(args) => Err(anyhow::anyhow!(
            "this is the simulation build, in which time is not real; an ordinary build runs scenarios live: \
             cargo run -p seaworthy --bin storm -- live {}",
            args.rest.join(" ")
        )),
        Command::Planted(args) => crate::planted::command::planted(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs this program again with address randomisation off, so that nothing can depend on where memory lies, and with the
/// allocator set as a simulation wants it.
#[expect(unsafe_code, reason = "personality and exec have no safe door in std")]
fn fix_addresses() {
    use std::os::unix::process::CommandExt;
    if std::env::var_os(FIXED).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // SAFETY: only changes how the next exec of this process lays out memory.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    let mut again = std::process::Command::new(program);
    again.args(std::env::args_os().skip(1)).env(FIXED, "1");
    // The allocator would give memory back by the clock, which in here is the simulated one and races: never, then.
    again.env("MIMALLOC_PURGE_DELAY", "-1");
    // A run uses a little of many huge pages; to clear them took a sixth of its time.
    again.env("MIMALLOC_ALLOW_THP", "0");
    // Comes back only when it failed; then the run goes on with random addresses, which is no more than a precaution lost.
    drop(again.exec());
}

/// Ends this program in silence, as every filter does, when nobody reads its output any more (`storm replay ... | head`). Rust
/// ignores the signal and would panic instead.
#[expect(unsafe_code, reason = "signal dispositions have no safe door in std")]
fn end_with_the_reader() {
    // SAFETY: restores the default disposition of one signal, before any other thread runs.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The scenarios called for, or all.
fn chosen(names: &[String]) -> Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(scenarios::all());
    }
    names
        .iter()
        .map(|name| {
            scenarios::find(name).with_context(|| {
                let known: Vec<String> = scenarios::all().into_iter().map(|one| one.name).collect();
                format!(
                    "no scenario is called '{name}'; there are: {}",
                    known.join(", ")
                )
            })
        })
        .collect()
}

/// Processes at a time.
pub(crate) fn at_once(jobs: usize) -> usize {
    if jobs > 0 {
        jobs
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// Runs many seeds.
fn sweep(args: &RunArgs) -> Result<bool> {
    let scenarios = chosen(&args.scenario)?;
    let mut jobs: Vec<Job> = Vec::new();
    match args.seed {
        Some(seed) => jobs.extend(scenarios.iter().map(|one| Job::new(one, seed, None))),
        None => {
            for (place, turn) in deal(&scenarios, args.seeds) {
                jobs.push(Job::new(&scenarios[place], args.first_seed + turn, None));
            }
        }
    }
    if let Some(shard) = &args.shard {
        let (part, parts) = parse_shard(shard)?;
        jobs = jobs.into_iter().skip(part - 1).step_by(parts).collect();
    }
    let mut file = args
        .json
        .as_ref()
        .map(File::create)
        .transpose()
        .context("creating --json")?;
    let total = jobs.len();
    let bar = progress(total as u64);
    let mut tally = Tally::new();
    let stopped = Cell::new(false);
    // Asked for a run at a time: none begins after too many failures.
    let jobs = jobs.into_iter().take_while(|_| !stopped.get());
    run_all(jobs, at_once(args.jobs), |report| {
        if let Some(file) = &mut file {
            let line = serde_json::to_string(&report).unwrap_or_default();
            // A full disk must not end the sweep; what is missing shows in the file.
            writeln!(file, "{line}").ok();
        }
        if !report.failures.is_empty() {
            bar.suspend(|| tell_failure(&report));
        }
        tally.add(report);
        bar.inc(1);
        bar.set_message(tally.pace());
        if tally.failed() >= args.failures_max && !stopped.replace(true) {
            bar.suspend(|| eprintln!("{} failures: no new runs begin", args.failures_max));
        }
    });
    bar.finish_and_clear();
    tally.print();
    let probes = missing(&scenarios, tally.probes());
    for probe in &probes {
        println!("{probe}");
    }
    Ok(tally.failed() == 0 && !probes.iter().any(Missing::is_failure))
}

/// `I/N`.
fn parse_shard(text: &str) -> Result<(usize, usize)> {
    let parsed = text.split_once('/').and_then(|(part, parts)| {
        Some((part.parse::<usize>().ok()?, parts.parse::<usize>().ok()?))
    });
    match parsed {
        Some((part, parts)) if part >= 1 && part <= parts => Ok((part, parts)),
        _ => bail!("--shard takes I/N with I from 1 to N, such as 2/8; got '{text}'"),
    }
}

/// A progress bar on the terminal, nothing elsewhere.
fn progress(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs  {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

/// Runs one seed again and tells its story.
fn replay(args: &ReplayArgs) -> Result<bool> {
    let level = Some(args.level());
    let job = match (&args.plan, args.run()) {
        (Some(path), _) => Job::of_plan(plans::read(path)?, level),
        (None, Some((name, seed))) => {
            let scenario = chosen(&[name.to_owned()])?.remove(0);
            Job::new(&scenario, seed, level)
        }
        (None, None) => bail!("a replay needs scenario and seed, or a plan"),
    };
    let mut good = true;
    run_all([job], 1, |report| {
        good = report.failures.is_empty();
        tell_story(&report, args);
    });
    Ok(good)
}

impl ReplayArgs {
    /// How much to keep for the story.
    pub(crate) fn level(&self) -> Level {
        match self.level {
            TellLevel::Story => Level::Story,
            TellLevel::Detail => Level::Detail,
            TellLevel::All => Level::All,
        }
    }

    /// Scenario and seed, unless it is a plan.
    pub(crate) fn run(&self) -> Option<(&str, u64)> {
        Some((self.scenario.as_deref()?, self.seed?))
    }
}

/// Prints a story: one aligned line per event, verdict last.
pub(crate) fn tell_story(report: &Report, args: &ReplayArgs) {
    let width = report
        .lines
        .iter()
        .map(|line| line.place.len())
        .max()
        .unwrap_or(4);
    for line in &report.lines {
        let seconds = line.at_us as f64 / 1e6;
        if args.until.is_some_and(|until| seconds > until) {
            break;
        }
        if args
            .grep
            .as_ref()
            .is_some_and(|word| !line.text.contains(word) && line.place != *word)
        {
            continue;
        }
        for (place, text) in line.text.lines().enumerate() {
            if place == 0 {
                println!("{seconds:10.6} s  {:width$}  {text}", line.place);
            } else {
                println!("{:12}  {:width$}  {text}", "", "");
            }
        }
    }
    println!();
    for (key, value) in &report.measures {
        println!("{key}: {value:.1}");
    }
    println!(
        "{} operations, {} writes acknowledged, {} virtual s, trace {} over {} events",
        report.operations,
        report.acknowledged,
        report.virtual_ms as f64 / 1_000.0,
        report.hash,
        report.events
    );
    if !report.errors.is_empty() {
        println!("errors that clients saw: {:?}", report.errors);
    }
    match report.failures.as_slice() {
        [] => println!("verdict: all is well"),
        failures => {
            for failure in failures {
                println!("verdict: FAILED: {failure}");
            }
        }
    }
}

/// Runs seeds twice and compares.
fn determinism(args: &DeterminismArgs) -> Result<bool> {
    let scenarios = chosen(&args.scenario)?;
    let jobs = |keep| -> Vec<Job> {
        let has = |one: &&Scenario, seed| seed <= share(one, &scenarios, args.seeds);
        let seeds = 1..=args.seeds;
        let of_seed = |seed| {
            scenarios
                .iter()
                .filter(move |one| has(one, seed))
                .map(move |one| Job::new(one, seed, keep))
        };
        seeds.flat_map(of_seed).collect()
    };
    let mut first = Traces::new();
    run_all(jobs(None), at_once(args.jobs), |report| {
        first.insert((report.scenario, report.seed), (report.hash, report.events));
    });
    let mut differ = Vec::new();
    // The second time with another number of processes at once and with the story kept: neither may matter.
    run_all(jobs(Some(Level::Story)), at_once(args.jobs) + 1, |report| {
        let key = (report.scenario.clone(), report.seed);
        let again = (report.hash.clone(), report.events);
        if first.get(&key) != Some(&again) {
            differ.push(key);
        }
    });
    differ.extend(by_other_ways(&scenarios, args, &first)?);
    differ.sort();
    differ.dedup();
    for (name, seed) in &differ {
        println!("DIFFERS {name} seed {seed}");
        let scenario = scenarios::find(name).context("the scenario was just run")?;
        show_first_difference(&scenario, *seed);
    }
    let total = first.len();
    println!("{} passed, {} failed", total - differ.len(), differ.len());
    Ok(differ.is_empty())
}

/// Hash and count of each run, by scenario and seed.
type Traces = BTreeMap<(String, u64), (String, u64)>;

/// A few of the runs again, on the other ways that lead to a run: from a plan that was written down and read, and in a fresh
/// process of this program, as somebody has who replays what a sweep has found. Scenarios with long runs are left out: the ways are
/// the same for all. Gives those that differ.
fn by_other_ways(
    scenarios: &[Scenario],
    args: &DeterminismArgs,
    first: &Traces,
) -> Result<Vec<(String, u64)>> {
    let is_short = |one: &&Scenario| !is_long(one, scenarios);
    let mut differ = Vec::new();
    let mut jobs = Vec::new();
    for seed in 1..=args.seeds.min(PLAN_SEEDS) {
        for scenario in scenarios.iter().filter(is_short) {
            let text = Plan::of(scenario, seed, None).to_json();
            let plan = text.and_then(|text| Plan::from_json(&text));
            jobs.push(Job::of_plan(plan.map_err(anyhow::Error::msg)?, None));
        }
    }
    run_all(jobs, at_once(args.jobs), |report| {
        let key = (report.scenario.clone(), report.seed);
        if first.get(&key) != Some(&(report.hash, report.events)) {
            differ.push(key);
        }
    });
    for seed in 1..=args.seeds.min(FRESH_SEEDS) {
        for scenario in scenarios.iter().filter(is_short) {
            let report = in_a_fresh_process(&scenario.name, seed)?;
            let key = (scenario.name.clone(), seed);
            if first.get(&key) != Some(&(report.hash, report.events)) {
                differ.push(key);
            }
        }
    }
    Ok(differ)
}

/// A run in a fresh process of this program.
fn in_a_fresh_process(scenario: &str, seed: u64) -> Result<Report> {
    let name = format!("storm-{}-{scenario}-{seed}.json", std::process::id());
    let file = std::env::temp_dir().join(name);
    let mut program = std::process::Command::new(std::env::current_exe()?);
    program.args([
        "run",
        "--scenario",
        scenario,
        "--seed",
        &seed.to_string(),
        "--json",
    ]);
    program.arg(&file).env_remove(FIXED);
    // Whether the run is well is not asked here; a process that did not run leaves no report.
    let told = program.output().context("starting this program again")?;
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::remove_file(&file).ok();
    serde_json::from_str(text.lines().next().unwrap_or_default()).with_context(|| {
        format!(
            "no report of {scenario} seed {seed}: {}",
            String::from_utf8_lossy(&told.stderr)
        )
    })
}

/// Prints the first line in which two runs of a seed differ.
fn show_first_difference(scenario: &Scenario, seed: u64) {
    let mut both = Vec::new();
    for _ in 0..2 {
        run_all(
            vec![Job::new(scenario, seed, Some(Level::All))],
            1,
            |report| both.push(report),
        );
    }
    let [a, b] = both.as_slice() else { return };
    let show = |line: Option<&crate::report::StoryLine>| {
        line.map_or("(ended)".to_owned(), |line| {
            format!(
                "{:.6} s {} {}",
                line.at_us as f64 / 1e6,
                line.place,
                line.text
            )
        })
    };
    for place in 0..a.lines.len().max(b.lines.len()) {
        let (one, other) = (show(a.lines.get(place)), show(b.lines.get(place)));
        if one != other {
            println!("  line {place}:\n    {one}\n    {other}");
            return;
        }
    }
    println!(
        "  the lines are the same; file operations or hidden draws differ ({} and {})",
        a.hash, b.hash
    );
}

/// Measures what runs cost. Whether they are well is not asked here.
fn bench(args: &BenchArgs) -> Result<bool> {
    let mut costs = crate::bench::Costs::default();
    run_all(
        crate::bench::jobs(&chosen(&args.scenario)?, args.seeds),
        at_once(args.jobs),
        |report| {
            costs.add(&report);
        },
    );
    print!("{costs}");
    Ok(true)
}

/// Lists what there is.
fn list(args: &ListArgs) -> Result<bool> {
    if args.measures {
        let of_tasks = crate::crew::measure::MEASURES;
        let of_nodes = crate::judge::MEASURES.into_iter();
        for measure in of_nodes.chain(crate::judge::OF_COMMANDS).chain(of_tasks) {
            println!("{measure}");
        }
        return Ok(true);
    }
    for scenario in scenarios::all() {
        let weight = match scenario.one_in {
            1 => String::new(),
            many => format!(" (long: one run for {many} of others)"),
        };
        println!("{:16} {}{weight}", scenario.name, scenario.summary);
    }
    Ok(true)
}
