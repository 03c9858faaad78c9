//! Where the applied state lies: fjall, one keyspace, and a rule that makes its crashes harmless.
//!
//! The log is the truth and the store a cache of it (design.md, section 5). Ordinary writes are atomic but not synced, so
//! after a crash the files may hold anything that fjall left there: an older state, a torn journal tail that it refuses to
//! open, a manifest with a flipped bit (research/simulated-disk.md, hazards 1 to 4). Therefore:
//!
//! - **A store is reopened only after an orderly [`Store::close`]**, which syncs everything and leaves a marker.
//!   [`Store::open`] removes the marker durably *before* fjall sees a byte, so a panic inside fjall's recovery can happen
//!   once, not for ever. Any other store is [`Error::Unusable`]: the caller makes a new one with [`Store::create`]
//!   and loads the newest snapshot and the log into it.
//! - **A reopened store is checked whole**: every record is read, and the state hash must be the one that was
//!   written with the applied position. That costs about as much as reading the snapshot would, and needs no trust in
//!   fjall's manifest.
//!
//! The alternative, to keep a store over a crash by cutting the journal after its last whole batch and comparing
//! the hash, was left out: it would save the load of a snapshot and the replay of at most `snapshot_entries`
//! entries, at the price of a parser for fjall's journal and an open path that is only walked after crashes.
//!
//! Each store has a directory of its own (`db-1`, `db-2`, ...), so that late clean-up of a store that was given up
//! cannot touch its successor's files. Everything here blocks: call it on a lane.
//!
//! Left out: what the records mean ([`crate::state`]), and rebuilding ([`crate::snapshot`], the node's loop).

mod marker;
mod recent;
#[cfg(test)]
mod tests;
mod view;

pub use view::StoreView;

use crate::knobs::Knobs;
use crate::state::{self, Scan, View, Writes};
use crate::types::ClusterId;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use marker::Marker;
use recent::Recent;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Files that fjall may hold open.
const CACHED_FILES_MAX: usize = 100;
/// Name of the one keyspace.
const KEYSPACE: &str = "state";

/// Free bytes of the file system that holds `dir`, as an ordinary user may use them.
pub fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Why the store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is there cannot be used; make a new store and rebuild it.
    #[error("the store cannot be used: {why}")]
    Unusable {
        /// What was found.
        why: String,
    },
    /// The store failed while in use. The node must stop.
    #[error("the store failed to {what}: {why}")]
    Failed {
        /// What it was asked to do.
        what: &'static str,
        /// What happened.
        why: String,
    },
    /// The disk is full.
    #[error("the store failed to {what}: the disk is full")]
    NoSpace {
        /// What it was asked to do.
        what: &'static str,
    },
    /// The state in it is damaged. The node must stop.
    #[error(transparent)]
    State(#[from] state::Error),
}

impl Error {
    /// An error of the file system.
    fn io(what: &'static str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Error::NoSpace { what },
            _ => Error::Failed {
                what,
                why: error.to_string(),
            },
        }
    }

    /// An error of fjall. A full disk is found however deep it is wrapped.
    fn fjall(what: &'static str, error: &fjall::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<std::io::Error>() {
                return Error::io(what, error);
            }
            cause = error.source();
        }
        Error::Failed {
            what,
            why: error.to_string(),
        }
    }

    /// A store that is to be rebuilt.
    fn unusable(why: impl Into<String>) -> Self {
        Error::Unusable { why: why.into() }
    }
}

/// The applied state on disk.
pub struct Store {
    /// Where it lies: `db-<n>` below the store's directory.
    path: PathBuf,
    /// Fjall.
    database: Database,
    /// The one keyspace.
    keyspace: Keyspace,
    /// What the applier read or wrote lately. Readers beside it use views, and those see fjall alone.
    recent: Mutex<Recent>,
    /// True once closed: nothing may be written behind the marker's back.
    closed: AtomicBool,
}

impl Store {
    /// Makes an empty store below `dir`, in place of whatever was there. Drop the old [`Store`] and its views first.
    pub fn create(dir: &Path, knobs: &Knobs) -> Result<Self, Error> {
        let next = marker::next_number(dir).map_err(|error| Error::io("be created", &error))?;
        Self::destroy(dir)?;
        let path = dir.join(format!("db-{next}"));
        marker::create_dir(&path).map_err(|error| Error::io("be created", &error))?;
        Self::open_path(path, knobs).map_err(|error| Error::fjall("be created", &error))
    }

    /// Opens the store that was closed in order, and checks all of it. [`Error::Unusable`] when there is none such.
    pub fn open(dir: &Path, knobs: &Knobs) -> Result<Self, Error> {
        let found = marker::take(dir).map_err(|error| Error::io("be opened", &error))?;
        let marker = found.ok_or_else(|| Error::unusable("it was not closed in order"))?;
        let path = dir.join(&marker.directory);
        let opened =
            Self::open_path(path, knobs).map_err(|error| Error::fjall("be opened", &error));
        match opened {
            Ok(store) => store.check(&marker),
            Err(Error::NoSpace { what }) => Err(Error::NoSpace { what }),
            Err(error) => Err(Error::unusable(error.to_string())),
        }
    }

    /// Removes every store below `dir`.
    pub fn destroy(dir: &Path) -> Result<(), Error> {
        marker::remove_all(dir).map_err(|error| Error::io("be removed", &error))
    }

    /// Opens fjall at `path`.
    fn open_path(path: PathBuf, knobs: &Knobs) -> fjall::Result<Self> {
        let database = Database::builder(&path)
            .worker_threads(1)
            .cache_size(knobs.store_cache_bytes)
            .max_cached_files(Some(CACHED_FILES_MAX))
            .manual_journal_persist(true)
            .open()?;
        let memtable_bytes = knobs.store_memtable_bytes;
        let keyspace = database.keyspace(KEYSPACE, || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memtable_bytes)
                .manual_journal_persist(true)
        })?;
        Ok(Store {
            path,
            database,
            keyspace,
            recent: Mutex::new(Recent::new(knobs.store_recent_bytes)),
            closed: AtomicBool::new(false),
        })
    }

    /// Compares a reopened store with its marker and itself.
    fn check(self, marker: &Marker) -> Result<Self, Error> {
        let unusable = |error: state::Error| Error::unusable(error.to_string());
        let meta = state::meta(&self).map_err(unusable)?;
        let applied = state::applied(&self).map_err(unusable)?;
        let (Some(meta), Some(applied)) = (meta, applied) else {
            return Err(Error::unusable("it is empty"));
        };
        if !marker.fits(&meta, &applied) {
            return Err(Error::unusable("it is not the state that was closed"));
        }
        if state::full_hash(&self).map_err(unusable)? != applied.state_hash {
            return Err(Error::unusable(
                "its records do not add up to its state hash",
            ));
        }
        Ok(self)
    }

    /// Whether the state in it belongs to `cluster`; true for an empty store.
    pub fn belongs_to(&self, cluster: ClusterId) -> Result<bool, Error> {
        let meta = state::meta(self)?;
        Ok(meta.is_none_or(|meta| meta.cluster_id == cluster.0))
    }

    /// Does `writes`, all or nothing. They are readable at once and durable only after [`Store::close`].
    pub fn write(&self, writes: &Writes) -> Result<(), Error> {
        // Held over the write, so that nobody remembers a former value behind it.
        let mut recent = self.recent();
        let records = writes.iter();
        self.commit(records.map(|(key, value)| (&key[..], value.map(|value| &value[..]))))?;
        for (key, value) in writes.iter().filter(|(key, _)| is_read_again(key)) {
            recent.set(key.clone(), value.cloned());
        }
        Ok(())
    }

    /// What was used lately.
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent
            .lock()
            .expect("nothing panics while it holds what was used lately")
    }

    /// Writes records into a store that nobody has read from yet, all or nothing; `None` removes.
    pub(crate) fn fill<'r>(
        &self,
        records: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) -> Result<(), Error> {
        let mut recent = self.recent();
        recent.clear();
        self.commit(records)
    }

    /// Writes records, all or nothing; `None` removes.
    fn commit<'r>(
        &self,
        records: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) -> Result<(), Error> {
        assert!(
            !self.closed.load(Ordering::Acquire),
            "a closed store is not written to"
        );
        let mut batch = self.database.batch();
        for (key, value) in records {
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        batch
            .commit()
            .map_err(|error| Error::fjall("write", &error))
    }

    /// A frozen picture of the state, cheap to take, unaffected by later writes.
    pub fn view(&self) -> StoreView {
        StoreView::new(self.database.snapshot(), self.keyspace.clone())
    }

    /// Bytes on disk, about.
    pub fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    /// Makes everything durable and marks the store as closed in order. Nothing may be written afterwards.
    pub fn close(&self) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (Some(meta), Some(applied)) = (state::meta(self)?, state::applied(self)?) else {
            return Ok(()); // An empty store is not worth reopening.
        };
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(|error| Error::fjall("be closed", &error))?;
        Marker::new(&self.path, &meta, &applied)
            .and_then(|marker| marker.write(&self.path))
            .map_err(|error| Error::io("be closed", &error))
    }
}

/// Whether the applier will look for a record again: an event of history is written once and dropped unread.
fn is_read_again(key: &[u8]) -> bool {
    !state::is_history(key)
}

/// The live state. A reader that asks more than once, while others write, takes a [`Store::view`] instead.
impl View for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, state::Error> {
        // Held over the read, as over a write: what is remembered is what fjall says.
        let mut recent = self.recent();
        if let Some(known) = recent.get(key) {
            return Ok(known);
        }
        let found = self
            .keyspace
            .get(key)
            .map_err(|error| view::unreadable(&error))?;
        let found = found.map(view::bytes);
        if is_read_again(key) {
            recent.set(Bytes::copy_from_slice(key), found.clone());
        }
        Ok(found)
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Scan<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        Box::new(self.keyspace.range(start..end).map(view::record))
    }
}
