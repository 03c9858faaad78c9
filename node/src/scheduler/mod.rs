//! Decides what runs where: a snapshot in, a plan out.
//!
//! # What it is
//!
//! Two functions without clock, disk, network or chance. [`reconcile()`] compares what people want with what there is and gives a
//! [`Plan`]: changes to be proposed to the log, and the time at which to ask again if nothing else happens. [`place()`] gives
//! workers to pending tasks; the reconciler calls it when nothing else is left to do. [`explain()`] says why a task waits. Every
//! manager would give the same answer to the same [`Snapshot`] at the same [`Moment`]; only the leader asks.
//!
//! `docs/orchestration.md` is the contract. Read it first; this page says how the code keeps it.
//!
//! # Map, in reading order
//!
//! [`model`], what is given, with [`lookup`]; [`change`], what may be changed and what each change means; [`constraint`], rules for
//! workers; [`room`], what is taken on each worker; [`filter`], why a worker does not fit; [`mod@place`], which of the fitting ones is
//! best; `slots`, the slots of a service and what each is worth; [`mod@reconcile`], from wanted and observed to changes; `rollout`,
//! replacing tasks on purpose; [`reconciler`], which services a pass looks at.
//!
//! # A pass
//!
//! ```text
//! snapshot ---> copy ---> round ---> changes? --yes--> apply to the copy, next round
//!                                        |
//!                                        no ---> place ---> assignments? --yes--> apply, next round
//!                                                               |
//!                                                               no ---> plan
//! ```
//!
//! A round first looks at each task alone: its worker is down (mark it lost), back (clear the mark, and stop it if a replacement runs)
//! or gone (it has ended); or it can be forgotten. Only when there is nothing of that kind does it look at services, one stage at a
//! time, and a stage that changes something ends the round for this service:
//!
//! 1. *slots*: which there shall be; the tasks of the others shall be removed;
//! 2. *judge*: count failures of a rollout, and pause it or go back if there are too many;
//! 3. *resolve*: of two live tasks in a slot, stop the one that is not needed any more;
//! 4. *advance*: the next step of the rollout, then drains, as far as the budget goes;
//! 5. *fill*: a task for each empty slot, after its back-off;
//! 6. *rebalance*: when asked to, move one copy for a better spread;
//! 7. *forget*: old ended tasks beyond the bound.
//!
//! So each stage sees clean data, no two stages change one slot in one round, and a plan that was applied whole leaves nothing to do
//! for the same moment. The first pass of a leader looks at everything, the next ones at what may have come to differ since the one
//! before ([`reconciler`]); the tests compare the two at each step.
//!
//! # What is remembered, and where
//!
//! Nothing here. Where a rollout is, is read off the tasks: a slot has the new contents or not, its task has run for the monitor
//! time or not. What tasks cannot tell is in [`model::Rollout`]: its phase, failures counted, canary steps passed. How often a slot failed
//! in a row is in its newest task. A new leader that asks with the same snapshot gets the same next step.
//!
//! Versions: each change of a specification has a number; a task carries the number under which its *contents* appeared first. So
//! scaling makes no task outdated, and after a rollback the tasks that never left the old version are right again.
//!
//! # Budget
//!
//! A task that serves is taken away on purpose in three places only: by `resolve`, when another in its slot serves in its stead or
//! when the service may be unavailable by one more; by `replace` (rollouts, drains, rebalancing), within [`reconcile`]'s budget,
//! counted over all slots of the service at that moment; and because its slot is not wanted any more. One exception: a task whose
//! volume lies on a drained worker is stopped without a budget, for no replacement could ever run first.
//!
//! Start-first: at most `surge_max` slots have a second task, counted until the first has ended, not until it was told to. Stop-first:
//! at most `max(1, unavailable_max)` slots are without one. A slot's tasks that neither ended nor are lost keep it shut for the next.
//!
//! # Single-writer volumes
//!
//! Always stop-first. A lost task with such a volume keeps its slot shut, and its volume held against any other task of any service,
//! until [`model::Leases`] says that its worker's lease has certainly ended, by the leader's monotonic clock.
//!
//! # Caveats
//!
//! - The caller must not call a worker [`model::Status::Ready`] before its report has been taken whole, tasks that it does not have
//!   being recorded as failed. All of section 6 rests on this.
//! - A leader must have applied its own last plan before it asks again, or it will propose the same tasks twice; [`Change::Create`]
//!   with an id that was used is void, so the second proposal does no harm.
//! - A worker that is not in the snapshot is taken for dead at once, leases included: `node rm` of a worker that may live must be
//!   refused unless forced.
//! - Stamps of different leaders may differ by their clocks. That lengthens or shortens waits (back-off, monitor, canary), and
//!   nothing else; leases do not use them.
//! - Tasks are placed service by service, the oldest service first: when room is short, older services get it. There are no priorities.
//! - A start-first replacement that finds no room waits, and its rollout or drain with it, unless `unavailable_max` is above zero.
//!   `explain` says so.
//! - Scaling down looks at workers, not at spread labels.
//! - A worker that stops satisfying a constraint keeps its tasks of replicated services. Changing the mode of a service is not supported.
//! - While tasks wait for a worker, each pass counts what is taken on all workers: a walk over all tasks.

pub mod change;
pub mod constraint;
pub mod filter;
pub mod lookup;
pub mod model;
pub mod place;
pub mod reconcile;
pub mod reconciler;
mod rollout;
pub mod room;
mod slots;

pub use change::{Change, Plan};
pub use filter::{Explanation, Reason, explain};
pub use model::{Moment, Snapshot};
pub use place::place;
pub use reconcile::reconcile;
pub use reconciler::Reconciler;

#[cfg(test)]
mod place_tests;
#[cfg(test)]
mod world;
#[cfg(test)]
mod world_tests;
