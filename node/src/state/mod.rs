//! The replicated state machine, pure: entries of the log in, writes and outcomes out.
//!
//! Keys with versions and revisions in the manner of etcd, leases, client sessions, the members and the
//! configuration. All of it lies in an ordered map of bytes, seen through [`View`]; nothing is remembered between
//! batches, so a state is exactly its records, and two replicas that applied the same entries hold the same bytes.
//!
//! ```text
//! Batch::new(&view)? -> apply(entry) -> Outcome, ..., finish() -> Writes -> store.write(&writes)
//! ```
//!
//! Map, in reading order: [`command`], what goes in and comes out; `keys` and `record`, what is kept and where;
//! `view` and `writes`, how it is read and changed; `apply`, the entry's way through; `kv`, `lease`, `session`,
//! `conf`, `compact` and `fleet`, one kind of command each; [`read()`] and [`history()`], the readers.
//!
//! Invariants:
//! - A command that changes a key gets one revision, the next one; any other leaves the revision alone.
//! - A refusal is an [`command::Outcome`] like any other, the same on every replica; an [`Error`] means that this
//!   replica's store is broken and says nothing about the command. No input makes this module panic.
//! - Nothing depends on a clock, on this node's knobs, or on how entries are cut into batches.
//! - For every event in history whose former record is still readable, that record is in history too.
//! - The state hash is the wrapping sum of a digest of every record but the applied position ([`full_hash`]).

mod apply;
pub mod command;
mod compact;
mod conf;
mod fleet;
mod keys;
mod kv;
mod lease;
mod read;
mod record;
mod session;
#[cfg(test)]
mod tests;
mod view;
mod writes;

pub use apply::{Batch, Entry, full_hash};
pub use conf::{ConfEntry, Genesis, genesis, member, members};
pub use lease::{lease, lease_keys, leases};
pub use read::{ReadError, history, read};
pub use record::{Applied, FORMAT, Lease, Meta, applied, meta};
pub use view::{Error, Memory, Record, Scan, View};
pub use writes::Writes;

pub(crate) use keys::{APPLIED as APPLIED_KEY, END as END_KEY, is_history};
pub(crate) use keys::{fleet as fleet_key, fleet_parts as fleet_key_parts, fleet_range};
pub(crate) use writes::record_hash;

/// Longest key, bytes; a longer one is refused. The doors have a lower limit of their own.
pub const KEY_BYTES_MAX: usize = 16 << 10;
/// Longest value, bytes; a longer one is refused.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
