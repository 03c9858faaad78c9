//! Scenarios on real processes in real time: what `storm live` does.
//!
//! The scenario files, the clients, the judges and the expectations are those of the simulation ([`scenarios`], [`workloads`]);
//! nodes are `seaworthy server` and `seaworthy worker start` processes on loopback with their data in a folder of the run's own, and
//! tasks are processes that behave as the simulated ones do. So a live run asks two things
//! that a simulated one cannot: does the world below the seam (kernel, sockets, files, threads) keep what the simulated one
//! promises, and how long do things take when the processor has to compute, too?
//!
//! Reading order: [`plan`] is what a seed makes of a scenario, and why a scenario may be refused; [`cluster`] the processes;
//! [`storm`] the steps; [`run`] a whole run; [`journal`] what nodes wrote of themselves; [`report`] what is printed and kept;
//! [`cli`] the command line; [`clock`] the one clock that all of it shares; [`ground`] free ports and the machine. Of workers:
//! [`task`] is what a simulated task is here; [`scribe`] hears what really runs; [`gate`] the ways that can be cut; [`overseer`] what
//! managers show; [`crew`] workers, services and orders.
//!
//! Never: two runs are never the same, so nothing here may be compared byte by byte. A live run does not watch the insides
//! of nodes (what is on whose disk, which entry was applied where): only the simulation does.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "real processes, files, sockets and time are the point; nothing of this is ever compiled into the simulator"
)]

mod cli;
mod clock;
mod cluster;
mod crew;
mod gate;
mod ground;
mod journal;
mod overseer;
mod plan;
mod report;
mod run;
mod scribe;
mod storm;
mod task;

pub use cli::main;
