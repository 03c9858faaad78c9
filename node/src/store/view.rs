//! A frozen picture of the store, for snapshots and for readers beside the writer.

use crate::state::{self, Record, Scan, View};
use bytes::Bytes;
use fjall::{Keyspace, Readable, Snapshot};

/// The state as it was at one moment. Old data is kept on disk as long as it lives: do not hold it for ever.
#[derive(Clone)]
pub struct StoreView {
    /// The moment.
    moment: Snapshot,
    /// What is looked at.
    keyspace: Keyspace,
}

impl StoreView {
    /// A picture of `keyspace` at `moment`.
    pub(super) fn new(moment: Snapshot, keyspace: Keyspace) -> Self {
        StoreView { moment, keyspace }
    }
}

impl View for StoreView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, state::Error> {
        let found = self.moment.get(&self.keyspace, key);
        Ok(found.map_err(|error| unreadable(&error))?.map(bytes))
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Scan<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        Box::new(self.moment.range(&self.keyspace, start..end).map(record))
    }
}

/// An error of fjall as the state machine sees it.
pub(super) fn unreadable(error: &fjall::Error) -> state::Error {
    state::Error::Unreadable {
        why: error.to_string(),
    }
}

/// A value of fjall's as bytes.
pub(super) fn bytes(value: fjall::Slice) -> Bytes {
    Bytes::copy_from_slice(&value)
}

/// A record of fjall's as ours.
pub(super) fn record(guard: fjall::Guard) -> Result<Record, state::Error> {
    let (key, value) = guard.into_inner().map_err(|error| unreadable(&error))?;
    Ok((bytes(key), bytes(value)))
}
