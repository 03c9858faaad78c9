//! The replicated state machine, pure.
pub mod command;
