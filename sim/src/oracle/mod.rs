//! Oracles: what must be true of every run, judged from the outside.
//!
//! [`raft`] follows the journals of all nodes, step by step; the client-side oracles (durability, linearizability, sessions,
//! watches, staleness) are the checkers of `workloads`, run over the clients' history when the run is over.

pub mod raft;
