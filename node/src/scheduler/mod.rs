//! Decides what runs where: a snapshot in, a plan out.

pub mod change;
pub mod constraint;
pub mod filter;
pub mod model;
pub mod place;
pub mod reconcile;
mod rollout;
pub mod room;
mod slots;

pub use change::{Change, Plan};
pub use filter::{Explanation, Reason, explain};
pub use model::{Moment, Snapshot};
pub use place::place;
pub use reconcile::reconcile;

#[cfg(test)]
mod place_tests;
#[cfg(test)]
mod world;
#[cfg(test)]
mod world_tests;
