//! Secrets: values that the log, snapshots, backups and workers' disks hold only as ciphertext, and that tasks read as files.
//!
//! ```text
//!  value ──▶ any manager's door ──▶ sealed by the data key ──▶ an entry of the log (ciphertext)
//!                                                                 │
//!  data key: sealed in the log for each manager's public key      ▼
//!                          ──▶ opened by any manager ──▶ sealed for one worker ──▶ its assignments, its disk (ciphertext)
//!                                                                                        │
//!                                      a file in memory that the task reads ◀── opened when an attempt starts
//! ```
//!
//! Every node has an X25519 key pair. Its private half lies in a file of its own in the data directory (`keyfile`), made at the
//! first need and told to nobody; its public half is told in a worker's hello, or is an entry for a manager.
//!
//! The **data key** is made by the manager that is given the first secret, and is in the log only as **shares**: sealed once for each
//! manager. So any manager opens any secret, whoever leads, and one that comes back with an empty disk gets a new share from any that
//! has one (`keeper`). A value is acknowledged only when a majority of voters have shares: what was acknowledged does not hang on
//! one disk. This is Warren's defect 7 turned round, where each manager derived a key of its own and none could read another's.
//!
//! Nothing is drawn, and no file is made, in a cluster without secrets, but for the worker's key pair.
//!
//! Map: [`seal`], the cryptography, pure; `keyfile`, the private half on its disk; [`vault`], what a manager seals and opens; `put`, how
//! a value gets in; `keeper`, how every manager comes to its share. What commands do is in [`crate::fleet`]; what a worker opens, and
//! where the files lie, in [`crate::worker::secrets`].
//!
//! # Caveats
//!
//! - It protects what is written and copied: logs, snapshots, backups, support output, a disk without its key file. Who is root on a
//!   worker reads the secrets of its tasks, who is root on a manager reads all.
//! - Peers and clients talk without TLS yet, and nobody proves who he is: who may speak to a manager's peer port can ask for a share, and
//!   who listens hears a value on its way to the door.
//! - The data key is not rotated. A removed manager has known it: update the secrets after removing one that is not trusted.

pub(crate) mod keeper;
pub(crate) mod keyfile;
mod put;
pub mod seal;
#[cfg(test)]
mod tests;
pub mod vault;

pub use seal::{Clear, KeyPair, PublicKey, Sealed};
pub use vault::Vault;

/// Longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
