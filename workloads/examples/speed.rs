//! How long the linearizability checker takes, on good histories and on ones with a planted error.
//!
//! `cargo run --release --example speed`

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a stopwatch for a person at a terminal"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::generate::{PLAIN, Run, Shape, generate};
use workloads::check::{Verdict, linearizable};
use workloads::history::{Consistency, Input, Output, ValueId};

fn main() {
    let base = Shape {
        operations: 10_000,
        ..PLAIN
    };
    let shapes = [
        (
            "20 keys, 10 clients, 2 % unknown",
            Shape {
                keys: 20,
                clients: 10,
                ..base
            },
        ),
        (
            "1 key, 20 clients, 2 % unknown",
            Shape {
                keys: 1,
                clients: 20,
                ..base
            },
        ),
        (
            "1 key, 20 clients, 10 % unknown",
            Shape {
                keys: 1,
                clients: 20,
                unknown: 10,
                ..base
            },
        ),
        (
            "1 key, 100 clients, 10 % unknown",
            Shape {
                keys: 1,
                clients: 100,
                unknown: 10,
                ..base
            },
        ),
        (
            "1 key, 20 clients, 10 % unknown, 3 values",
            Shape {
                keys: 1,
                clients: 20,
                unknown: 10,
                values: 3,
                ..base
            },
        ),
        (
            "1 key, 20 clients, 10 % unknown, 30 % deletes",
            Shape {
                keys: 1,
                clients: 20,
                unknown: 10,
                deletes: 30,
                ..base
            },
        ),
        (
            "200 keys, 20 clients, 2 % unknown, 20 % txns",
            Shape {
                keys: 200,
                clients: 20,
                txns: 20,
                ..base
            },
        ),
        (
            "1 key pair, 20 clients, 10 % unknown, 20 % txns",
            Shape {
                keys: 1,
                clients: 20,
                unknown: 10,
                txns: 20,
                ..base
            },
        ),
    ];
    for (name, shape) in shapes {
        for seed in 1..=2 {
            let run = generate(seed, shape);
            measure(&format!("{name} (seed {seed})"), &run);
            for (what, broken) in [
                ("wrong read", wrong_read(&run)),
                ("lost update", wrong_version(&run)),
            ] {
                measure(&format!("  with a {what} at three quarters"), &broken);
            }
        }
    }
}

fn measure(name: &str, run: &Run) {
    let start = Instant::now();
    let verdict = linearizable(&run.history);
    let took = start.elapsed();
    let word = match verdict {
        Verdict::Linearizable => "linearizable".to_owned(),
        Verdict::Violation(violation) => format!("violation after {}", violation.prefix.len()),
        Verdict::Undecided(why) => format!("undecided: {why}"),
    };
    println!("{:>9.1} ms  {name}: {word}", took.as_secs_f64() * 1000.0);
}

fn wrong_read(run: &Run) -> Run {
    let mut run = run.clone();
    let late = run.history.operations.iter_mut().skip(7_500);
    for operation in late {
        let Input::Get {
            consistency: Consistency::Linearizable,
            ..
        } = operation.input
        else {
            continue;
        };
        if let Output::Value {
            entry: Some(entry), ..
        } = &mut operation.output
        {
            entry.value = ValueId(u64::MAX);
            break;
        }
    }
    run
}

fn wrong_version(run: &Run) -> Run {
    let mut run = run.clone();
    for operation in run.history.operations.iter_mut().skip(7_500) {
        if let Output::PutOk { version, .. } = &mut operation.output
            && *version > 1
        {
            *version -= 1;
            break;
        }
    }
    run
}
