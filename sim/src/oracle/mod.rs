//! Oracles: what must be true of every run, judged from the outside.
//!
//! [`raft`] follows the journals of all nodes, step by step; [`fleet`] what each manager says of services, tasks and workers. The
//! client-side oracles (durability, linearizability, sessions, watches, staleness) are the checkers of `workloads`, run over the
//! clients' history when the run is over; so are those of the processes that really ran.

pub mod fleet;
pub mod raft;
