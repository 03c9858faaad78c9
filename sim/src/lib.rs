//! The simulated world of a Seaworthy cluster, and what drives and judges it.
//!
//! A production node runs here unchanged on madsim's executor; what it receives as `node::rt::Env` is simulated by this
//! crate. Reading order: `clock`, `net`, `lane`, then `world`, which ties them together per host; `plan`, what a seed will do;
//! `cluster`, `crew`, `storm` and `operator`, who does it; `trace`, `rare`, `oracle` and `judge`, who watches; `run`, one run; `report`;
//! `fence`, which keeps a run's hands off the real disk; `runner`, many runs; `bench`, what they cost; `planted`, the test of
//! the test; `timeline` and `handbook`, the pages that operators
//! read; `cli`, the command line `storm`.
//!
//! Everything is `cfg(madsim)`: an ordinary build of the workspace sees an empty crate. Nothing here reads the real
//! clock, entropy or a thread (but for `runner`, outside of runs); every chance comes from a named stream of the seed, never
//! from madsim's own generator.
#![cfg(madsim)]

mod alarm;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod crew;
pub mod deal;
pub mod fence;
pub mod handbook;
pub mod judge;
pub mod lane;
pub mod net;
pub mod newcomer;
pub mod operator;
pub mod oracle;
pub mod plan;
mod plans;
pub mod planted;
pub mod rare;
pub mod report;
pub mod run;
pub mod runner;
pub mod shrink;
pub mod storm;
pub mod tally;
pub mod timeline;
pub mod trace;
pub mod world;

pub use clock::SimClock;
pub use net::{NetConfig, Network};
pub use world::SimWorld;

/// The simulator's allocator. A run makes some hundred thousand small allocations; the system's took a fifth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
