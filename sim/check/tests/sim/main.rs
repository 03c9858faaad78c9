//! Tests of the simulated world: what a program sees of its network, clocks and lanes.
//!
//! Run: `RUSTFLAGS='--cfg madsim' cargo test -p sim-check --target-dir target/sim`. Without the cfg there is nothing to test.
#![cfg(madsim)]

mod clock;
mod determinism;
mod faults;
mod http;
mod lane;
mod net;
mod support;
