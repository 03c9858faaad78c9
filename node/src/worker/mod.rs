//! Workers.
mod attempt;
pub mod core;
pub mod disk;
pub mod exchange;
pub mod executor;
mod health;
mod lease;
mod logs;
pub mod process;
mod report;
mod restart;
pub mod task;
pub mod words;
pub use core::Worker;
pub use report::Report;
#[cfg(test)]
mod tests;
