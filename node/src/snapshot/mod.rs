//! Snapshot files: the whole state at one index, checked from end to end, in one file that can be sent to another node.
//!
//! Together with the WAL they are a node's durable truth. A file has its final name only when it is complete and
//! durable; it is written under a temporary name, synced, renamed, and the directory synced. The format is version 1,
//! described in `docs/format/snapshot-v1.md`; a committed fixture keeps it readable.
//!
//! Map: `format`, the bytes; [`write()`], [`verify`], [`load`]; `dir`, names, [`list`] and [`remove_old`]; `transfer`, chunks
//! of a file for another node and the [`Receiver`] that puts them together.
//!
//! Invariants: no bytes, however damaged, make a reader panic or take more memory than the file is long; the records in
//! a file that verifies add up to the state hash in it. Everything here blocks: call it on a lane.
//!
//! Left out: when to cut one, whom to send it to, and the log below it (the node's loop).

mod dir;
mod file;
mod format;
#[cfg(test)]
mod tests;
mod transfer;

pub use dir::{Listed, file_name, list, prepare, remove_old};
pub use file::{load, read_meta, verify, write};
pub use format::Meta;
pub use transfer::{Offer, Receiver, offer, read_chunk};

use crate::{state, store};
use std::path::{Path, PathBuf};

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full. Nothing was left behind.
    #[error("cannot {what}: the disk is full")]
    NoSpace {
        /// What was tried.
        what: &'static str,
    },
    /// The file system failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The file is not a whole, undamaged snapshot.
    #[error("{} is not a good snapshot: {why}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The sender's chunk does not go here.
    #[error("chunk at {got} does not follow the {expected} bytes received")]
    OutOfPlace {
        /// Bytes received so far.
        expected: u64,
        /// Where the chunk belongs.
        got: u64,
    },
    /// The state that was to be written is damaged.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The store that was to be loaded failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// An error of the file system, for `map_err`.
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull => Error::NoSpace { what },
            _ => Error::Io { what, path, source },
        }
    }

    /// A damaged file.
    fn bad(path: &Path, why: impl Into<String>) -> Self {
        Error::Bad {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}
