//! What a batch of entries changes: [`Writes`], and [`Overlay`], which shows them on top of the state they change.
//!
//! The overlay also keeps the state hash: a wrapping sum of one digest per record, so that it follows each write at
//! constant cost and does not depend on the order of writes.

use super::view::{Error, Record, Scan, View};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Records up to this length with their key are hashed in one piece, bytes.
const HASH_WHOLE_LEN_MAX: usize = 256;

/// Final values of the records that a batch touches; `None` removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes(BTreeMap<Bytes, Option<Bytes>>);

impl Writes {
    /// The touched records in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.0.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Number of touched records.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when nothing is touched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the final value of one record.
    pub(crate) fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.0.insert(key, value);
    }
}

/// The share of one record in the state hash.
pub(crate) fn record_hash(key: &[u8], value: &[u8]) -> u64 {
    // The key's length keeps (ab, c) and (a, bc) apart.
    let prefix = (key.len() as u64).to_le_bytes();
    let length = prefix.len() + key.len() + value.len();
    let mut whole = [0; HASH_WHOLE_LEN_MAX];
    if let Some(whole) = whole.get_mut(..length) {
        // In one piece: the hasher's own state is larger than most records.
        let (to_prefix, rest) = whole.split_at_mut(prefix.len());
        let (to_key, to_value) = rest.split_at_mut(key.len());
        to_prefix.copy_from_slice(&prefix);
        to_key.copy_from_slice(key);
        to_value.copy_from_slice(value);
        return xxh3_64(whole);
    }
    let mut hasher = Xxh3::new();
    hasher.update(&prefix);
    hasher.update(key);
    hasher.update(value);
    hasher.digest()
}

/// A view with writes on top of it.
pub(super) struct Overlay<'a> {
    /// What was there before the batch.
    base: &'a dyn View,
    /// What the batch has written so far.
    writes: Writes,
    /// Wrapping sum of [`record_hash`] over all records that went through [`Overlay::replace`], plus the sum it began with.
    hash: u64,
}

impl<'a> Overlay<'a> {
    /// Nothing written yet; `hash` is the sum over the base.
    pub(super) fn new(base: &'a dyn View, hash: u64) -> Self {
        Overlay {
            base,
            writes: Writes::default(),
            hash,
        }
    }

    /// The sum now.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Replaces a record whose value the caller knows to be `old`.
    pub(super) fn replace(&mut self, key: Bytes, old: Option<&[u8]>, new: Option<Bytes>) {
        // An unreadable store is for the next real read to report.
        debug_assert!(
            self.get(&key).map_or(true, |found| found.as_deref() == old),
            "the caller knows the record it replaces"
        );
        if let Some(old) = old {
            self.hash = self.hash.wrapping_sub(record_hash(&key, old));
        }
        if let Some(new) = &new {
            self.hash = self.hash.wrapping_add(record_hash(&key, new));
        }
        self.writes.set(key, new);
    }

    /// The writes, without the hash.
    pub(super) fn into_writes(self) -> Writes {
        self.writes
    }
}

impl View for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.writes.0.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Scan<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let written = self.writes.0.range::<[u8], _>(bounds);
        Box::new(Merged {
            below: self.base.scan(start, end).peekable(),
            above: written.peekable(),
        })
    }
}

/// Two ordered scans as one; the upper hides the lower.
struct Merged<'a> {
    /// The base.
    below: Peekable<Scan<'a>>,
    /// The writes.
    above: Peekable<std::collections::btree_map::Range<'a, Bytes, Option<Bytes>>>,
}

impl Iterator for Merged<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((key, _)) = self.above.peek() else {
                return self.below.next();
            };
            match self.below.peek() {
                Some(Err(_)) => return self.below.next(),
                Some(Ok((below, _))) if below < *key => return self.below.next(),
                Some(Ok((below, _))) if below == *key => drop(self.below.next()),
                _ => {}
            }
            if let Some((key, Some(value))) = self.above.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}
