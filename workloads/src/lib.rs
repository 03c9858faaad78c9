//! What clients do, and what must then be true; speaks to a cluster through its public API only.
//!
//! Reading order: [`draw`] is what a seed makes of a scenario, [`history`] the vocabulary, [`drive`] the clients that make one,
//! [`check`] the judges, [`verdict`] all of them over one run, [`measure`] the numbers that expectations are about. Of workers and
//! tasks: [`behaviour`] is what a task does, [`ledger`] what really ran, [`looks`] what managers show, [`crew`] the numbers. The judges are
//! pure: no clock, no randomness, no I/O, and the same history always gives the same verdict with the same words. A simulated
//! run and a live one have all of this in common.

pub mod behaviour;
pub mod calls;
pub mod check;
pub mod churn;
pub mod crew;
pub mod draw;
pub mod drive;
pub mod history;
pub mod ledger;
pub mod looks;
pub mod measure;
pub mod verdict;
