//! Decoders and parsers under random bytes.
//!
//! A [`Target`] is a function that gets bytes and panics when a rule is broken; the rule is never "it succeeds" but "no
//! panic, and what was accepted is sound". [`run`] feeds it: each iteration draws from a ChaCha stream of its own, named by
//! target, seed and iteration, so that any failure is replayed alone by `cargo run -p fuzz -- TARGET SEED ITERATION`.
//!
//! Map: [`mutate`], where bytes come from; [`disk`], [`wire`] and [`words`], the targets: files, peers, and what people
//! write. Coverage guidance is left out: it needs a nightly compiler, and our formats are checksummed, so that what
//! matters is to start from valid samples and to repair checksums after a mutation where a target wants to get behind them.

pub mod disk;
pub mod mutate;
pub mod wire;
pub mod words;

use mutate::Source;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Something that takes bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name in commands and failures.
    pub name: &'static str,
    /// What one iteration costs compared with a decoder in memory; `smoke` divides its iterations by it.
    pub cost: u64,
    /// Takes bytes from the source and panics when a rule is broken; true when the bytes were accepted.
    pub run: fn(&mut Source) -> bool,
}

/// A broken rule and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the target.
    pub target: &'static str,
    /// Seed of the run.
    pub seed: u64,
    /// Iteration in the run.
    pub iteration: u64,
    /// What the panic said.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure {
            target,
            seed,
            iteration,
            message,
        } = self;
        write!(
            out,
            "{target}: {message}\n  again: cargo run -p fuzz -- {target} {seed} {iteration}"
        )
    }
}

/// Every target.
pub fn targets() -> Vec<Target> {
    [disk::TARGETS, wire::TARGETS, words::TARGETS].concat()
}

/// Runs `iterations` of a target and says how many were accepted; ends at the first broken rule.
pub fn run(target: Target, seed: u64, iterations: u64) -> Result<u64, Failure> {
    let accepted = (0..iterations).map(|iteration| once(target, seed, iteration));
    accepted.map(|accepted| accepted.map(u64::from)).sum()
}

/// Runs one iteration; true when its bytes were accepted.
pub fn once(target: Target, seed: u64, iteration: u64) -> Result<bool, Failure> {
    let mut source = Source::new(target.name, seed, iteration);
    catch_unwind(AssertUnwindSafe(|| (target.run)(&mut source))).map_err(|panic| Failure {
        target: target.name,
        seed,
        iteration,
        message: message(panic.as_ref()),
    })
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}
