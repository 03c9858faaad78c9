//! What clients do, and what must then be true; speaks to a cluster through its public API only.
//!
//! Reading order: [`history`] is the vocabulary, [`drive`] the clients that make one, [`check`] the judges. The judges are
//! pure: no clock, no randomness, no I/O, and the same history always gives the same verdict with the same words.

pub mod check;
pub mod churn;
pub mod drive;
pub mod history;
pub mod ledger;
