//! What each command does to the fleet.
//!
//! Everything that may refuse a command happens before its first change, so a refused one changes nothing.

use super::Fleet;
use super::command::{Command, Done};
use crate::types::Term;

/// Where in the log a command stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Its entry.
    pub index: u64,
    /// The term of its entry.
    pub term: Term,
    /// The leader's wall clock when it proposed, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// A command was refused: the same on every manager, nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, as a word.
    pub why: crate::state::command::Refusal,
    /// Why, in a sentence that says what to do.
    pub message: String,
}

impl Fleet {
    /// Applies `command`.
    pub fn apply(&mut self, command: &Command, at: At) -> Result<Done, Refused> {
        let _ = (command, at);
        Err(Refused {
            why: crate::state::command::Refusal::Invalid,
            message: "not built yet".to_owned(),
        })
    }
}
