//! Records that were read or written lately, in memory, for the one who applies entries.
//!
//! An entry looks up the record it replaces, and fjall's answer (memtables, filters, blocks) cost a fifth of all the time
//! that applying took. What is here is always what fjall would say, because every write goes through [`Recent::set`];
//! dropping any of it is harmless.
//!
//! Two generations take turns: when the young one is full it becomes the old one, and the old one is forgotten. So what is used stays,
//! what is not goes, memory is bounded, and there is no list to keep in order.

use bytes::Bytes;
use std::collections::BTreeMap;

/// What one record costs beside its own bytes: a tree's share, and two counted buffers.
const RECORD_OVERHEAD_BYTES: usize = 160;

/// Records by key; `None` is known to be absent.
type Generation = BTreeMap<Bytes, Option<Bytes>>;

/// The records used lately.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Used since the last turn.
    young: Generation,
    /// Used in the turn before; what is used again moves to the young.
    old: Generation,
    /// What the young ones cost, bytes, about.
    young_bytes: usize,
    /// What one generation may cost, bytes.
    generation_bytes_max: usize,
}

impl Recent {
    /// Nothing yet; about `bytes_max` at the most.
    pub(super) fn new(bytes_max: usize) -> Self {
        Recent {
            generation_bytes_max: bytes_max / 2,
            ..Recent::default()
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Recent::new(self.generation_bytes_max * 2);
    }

    /// What is known of a record: `Some(None)` when it is known to be absent, `None` when nothing is known.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<Option<Bytes>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.set(key, value.clone());
        Some(value)
    }

    /// Remembers a record as it is now.
    pub(super) fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        let cost = cost(&key, value.as_ref());
        if self.young_bytes + cost > self.generation_bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        // Nobody may find a former value when the young one is forgotten first.
        self.old.remove(&key);
        if cost > self.generation_bytes_max {
            return; // The young generation is empty now: nothing of the key is left.
        }
        self.young_bytes += cost;
        if let Some(former) = self.young.insert(key.clone(), value) {
            self.young_bytes -= self::cost(&key, former.as_ref());
        }
    }
}

/// What a record costs, bytes, about.
fn cost(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len) + RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn what_was_set_last_is_found() {
        let mut recent = Recent::new(10_000);
        recent.set(bytes("a"), Some(bytes("1")));
        recent.set(bytes("a"), Some(bytes("2")));
        recent.set(bytes("b"), None);
        assert_eq!(recent.get(b"a"), Some(Some(bytes("2"))));
        assert_eq!(recent.get(b"b"), Some(None));
        assert_eq!(recent.get(b"c"), None);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut recent = Recent::new(20 * RECORD_OVERHEAD_BYTES);
        recent.set(bytes("used"), Some(bytes("x")));
        for number in 0..1_000 {
            recent.set(bytes(&format!("{number}")), Some(bytes("y")));
            assert_eq!(recent.get(b"used"), Some(Some(bytes("x"))));
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        assert_eq!(recent.get(b"0"), None);
    }

    #[test]
    fn a_forgotten_generation_never_brings_an_old_value_back() {
        let mut recent = Recent::new(8 * RECORD_OVERHEAD_BYTES);
        for round in 0..200u32 {
            let value = Some(bytes(&round.to_string()));
            recent.set(bytes("k"), value.clone());
            for other in 0..round % 7 {
                recent.set(bytes(&format!("{other}")), None);
            }
            if let Some(found) = recent.get(b"k") {
                assert_eq!(found, value);
            }
        }
    }

    #[test]
    fn a_record_larger_than_a_generation_is_not_kept_nor_is_its_former_value() {
        let mut recent = Recent::new(1_000);
        recent.set(bytes("k"), Some(bytes("small")));
        recent.set(bytes("k"), Some(Bytes::from(vec![0; 5_000])));
        assert_eq!(recent.get(b"k"), None);
    }
}
