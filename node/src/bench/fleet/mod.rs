//! The load of a fleet: light workers that say they run what they are given, and clients that create, update and remove services.
//!
//! Reading order: `run`, the phases and their clean-up; `worker`, one light worker; `crew`, what all of them count;
//! `clients`, many requests by a few connections; `line`, one connection; `report`, the numbers.
//!
//! Light workers speak the workers' protocol over HTTP (hello with a token, a heartbeat each second, the question for
//! assignments that is held, reports), each on two connections as a real one. They start no process: a task runs as soon as it is
//! assigned and has stopped as soon as it is told to. So this measures what managers and protocol cost, and no executor.
//!
//! A task counts as running when a manager has acknowledged the report of it, which is after that report was applied.
//!
//! The cluster must have no services: light workers take whatever they are given, and would only pretend to run it. A bench that
//! is killed leaves its workers behind; they are marked down, and `node rm` removes them.

mod clients;
mod crew;
mod line;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod worker;

pub use report::Report;
pub use run::run;
