//! `cargo test -p sim -- --seeds N`: every scenario over N seeds, from an ordinary build.
//!
//! This is a launcher, not a test of libtest (`harness = false`): whatever stands behind `--` goes to `storm run`, which
//! `sim-launch` builds with `--cfg madsim` in `target/sim`. Without arguments it runs a few seeds, so that plain `cargo test`
//! stays quick. Called with a filter or with flags of libtest (`cargo test some_name`, `-- --nocapture`) it does nothing, as
//! any other test would that was not asked for.
#![expect(
    clippy::disallowed_macros,
    reason = "a launcher of the ordinary build; it never runs inside the simulator"
)]

use std::process::ExitCode;

/// Seeds of a plain `cargo test`, per scenario.
const SEEDS: &str = "20";

/// Options of `storm run` that make this call ours.
const OURS: [&str; 7] = [
    "--seeds",
    "--seed",
    "--first-seed",
    "--scenario",
    "--shard",
    "--jobs",
    "--json",
];

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let asked = |arg: &String| OURS.contains(&arg.split('=').next().unwrap_or_default());
    let mut args = vec!["run".to_owned()];
    if given.is_empty() {
        args.extend(["--seeds".to_owned(), SEEDS.to_owned()]);
    } else if given.iter().any(asked) {
        args.extend(given);
    } else {
        println!("seeds: not asked for (`cargo test -p sim -- --seeds N` runs them)");
        return ExitCode::SUCCESS;
    }
    sim_launch::exec(args)
}
