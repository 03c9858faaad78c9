//! Tests of the simulated world: what a program sees of its network, clocks and lanes; and of the handbook written from it.
//!
//! Run: `RUSTFLAGS='--cfg madsim' cargo test -p sim-check --target-dir target/sim`. Without the cfg there is nothing to test.
#![cfg(madsim)]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "tests may fail anywhere, print, and start threads and processes around a simulation"
)]

mod clock;
mod crew;
mod deal;
mod determinism;
mod faults;
mod fence;
mod handbook;
mod http;
mod lane;
mod net;
mod plans;
mod planted;
mod probes;
mod rare;
mod support;
