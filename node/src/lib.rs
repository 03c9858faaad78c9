//! The Seaworthy node: everything a cluster does, as a library that knows the world only through its seam.
//!
//! Reading order: [`types`], [`error`], [`config`], [`knobs`]; [`rt`], the door to the world; [`wal`], what is durable;
//! [`state`], what the cluster remembers; [`store`], where it lies; [`snapshot`], the whole of it as a
//! file; [`raft`], how it is agreed; [`transport`], how nodes talk; [`handle`] and `node`, the loop that ties them; `api`, `client`
//! and `cli`, the doors for people and programs.
//!
//! No code outside [`rt`] touches a clock, socket, thread, process, environment variable or random source; there is
//! no `cfg(madsim)` and no test hook. See `docs/ARCHITECTURE.md`.

pub mod api;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod error;
pub mod fleet;
pub mod handle;
pub mod knobs;
pub mod manager;
pub mod map;
pub mod metrics;
pub mod node;
pub mod raft;
pub mod rt;
pub mod scheduler;
pub mod secrets;
pub mod service;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod transport;
pub mod types;
pub mod wal;
pub mod wire;
pub mod worker;
