//! Oracles: what must be true of every run, judged from the outside.
//!
//! [`raft`] follows the journals of all nodes, step by step, [`fleet`] what each manager says of services, tasks and workers; the client-side oracles (durability, linearizability, sessions,
//! watches, staleness) are the checkers of `workloads`, run over the clients' history when the run is over.

pub mod fleet;
pub mod raft;
