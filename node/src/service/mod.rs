//! What people ask for: services, their specifications, and the states that their tasks go through.
//!
//! One definition for the API, the command line, files and the log: a specification travels and is stored as the JSON of
//! [`Spec`], so that nothing can be lost between two spellings of it. `docs/orchestration.md` defines every word.
//!
//! Map: [`spec`], what an operator writes; [`mod@file`], the files it is written in, with `yaml` and `compose`; [`units`], amounts
//! as people write them; [`task`], the states of a task and their order; [`check`], what is wrong with a specification, said all at once.
//!
//! Pure: no clock, no disk, no network. Left out: who decides what runs where ([`crate::scheduler`]), and how it runs
//! ([`crate::worker`]).

pub mod check;
mod compose;
pub mod file;
pub(crate) mod shared;
pub mod spec;
pub mod task;
pub mod units;
mod yaml;

pub use spec::Spec;
pub use task::{Desired, State};

/// The parts of `SERVICE.SLOT`; none if `name` is not of that form. Names of services have no dot.
pub fn name_and_slot(name: &str) -> Option<(&str, u64)> {
    let (service, slot) = name.rsplit_once('.')?;
    Some((service, slot.parse().ok()?))
}
