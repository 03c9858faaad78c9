//! Workers.
mod attempt;
pub mod core;
pub mod exchange;
mod health;
mod lease;
mod report;
mod restart;
pub mod task;
pub mod words;
pub use core::Worker;
pub use report::Report;
