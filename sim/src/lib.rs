//! The simulated world of a Seaworthy cluster.
//!
//! A production node runs here unchanged on madsim's executor; what it receives as `node::rt::Env` is simulated by this
//! crate. Reading order: `clock`, `net`, `lane`, then `world`, which ties them together per host.
//!
//! Everything is `cfg(madsim)`: an ordinary build of the workspace sees an empty crate. Nothing here reads the real
//! clock, entropy or a thread; every chance comes from a named stream of the seed, never from madsim's own generator.
#![cfg(madsim)]

mod alarm;
pub mod clock;
pub mod lane;
pub mod net;
pub mod world;

pub use clock::SimClock;
pub use net::{NetConfig, Network};
pub use world::SimWorld;
