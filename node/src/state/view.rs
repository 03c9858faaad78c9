//! What the state machine reads from: an ordered map of bytes, as a trait, and the simplest implementation of it.
//!
//! The store implements [`View`] for its live state and for frozen pictures of it; [`Memory`] serves tests, tools and
//! the reference side of checks. A view answers with bytes alone: what they mean is decided in this module's siblings.

use super::writes::Writes;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Why the state could not be read. Never the fault of a command: but for a state that is not there yet, the node that gets one has a
/// broken store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store below failed to answer.
    #[error("the store cannot be read: {why}")]
    Unreadable {
        /// What it said.
        why: String,
    },
    /// The store answered with something that the state machine never wrote.
    #[error("the state is damaged: {why}")]
    Corrupt {
        /// Which record, and what is wrong with it.
        why: String,
    },
    /// Nothing was founded or loaded here yet: a node that lost its disk, or has just joined, before the leader has sent it the state.
    #[error("this node has no data yet: it is waiting for a snapshot from the leader")]
    Unfounded,
}

impl Error {
    /// A damaged record.
    pub(crate) fn corrupt(why: impl Into<String>) -> Self {
        Error::Corrupt { why: why.into() }
    }
}

/// One record: key and value.
pub type Record = (Bytes, Bytes);

/// Records in key order.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<Record, Error>> + 'a>;

/// An ordered map of bytes that does not change while it is looked at.
pub trait View {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Records with `start <= key < end`, in key order; none when `end <= start`.
    fn scan(&self, start: &[u8], end: &[u8]) -> Scan<'_>;
}

/// State in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory(BTreeMap<Bytes, Bytes>);

impl Memory {
    /// Does `writes`.
    pub fn write(&mut self, writes: &Writes) {
        for (key, value) in writes.iter() {
            match value {
                Some(value) => self.0.insert(key.clone(), value.clone()),
                None => self.0.remove(key),
            };
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is no record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl View for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Scan<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let records = self.0.range::<[u8], _>(bounds);
        Box::new(records.map(|(key, value)| Ok((key.clone(), value.clone()))))
    }
}
