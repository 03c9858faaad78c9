//! `cargo run -p fuzz`: a longer run than the smoke test, or one iteration again.
//!
//! ```text
//! cargo run -p fuzz --release                          every target, 100,000 iterations of seed 0
//! cargo run -p fuzz --release -- all 7 1000000         every target, another seed, more iterations
//! cargo run -p fuzz -- TARGET SEED ITERATION           that iteration alone, with its panic and backtrace
//! ```
#![expect(
    clippy::disallowed_macros,
    reason = "a program for people; never runs inside the simulator"
)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual: u64| args.get(at).map_or(Some(usual), |text| text.parse().ok());
    let (Some(seed), Some(count)) = (number(1, 0), number(2, 100_000)) else {
        eprintln!("usage: fuzz [all SEED ITERATIONS | TARGET SEED ITERATION]");
        return ExitCode::from(2);
    };
    let name = args.first().map_or("all", String::as_str);
    let chosen = fuzz::targets()
        .into_iter()
        .filter(|target| name == "all" || name == target.name);
    let mut code = ExitCode::from(2); // No target of that name.
    for target in chosen {
        let outcome = match name {
            "all" => fuzz::run(target, seed, (count / target.cost).max(1)),
            _ => fuzz::once(target, seed, count).map(u64::from),
        };
        match outcome {
            Ok(accepted) => println!("{}: held; {accepted} accepted", target.name),
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
        code = ExitCode::SUCCESS;
    }
    code
}
