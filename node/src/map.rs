//! An ordered map whose copies share what neither changed.
//!
//! Entries lie in order in chunks, and a map is the list of its chunks. A copy takes the list and no entry; whoever changes
//! an entry afterwards copies its chunk's list of pointers and the one value. So a fleet of ten thousand tasks that somebody still
//! reads is copied for the price of some hundred counters, with each batch of entries that changes any of it.
//!
//! Equality is that of the entries; where chunks begin depends on history. [`Map::differences`] passes by what two maps share, so
//! that it costs about what was changed since one was copied from the other.
//!
//! Left out: anything that needs an owned value back without a copy, and trees of more than two levels: the list of chunks is
//! copied whole.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, Index, RangeBounds};
use std::sync::Arc;

/// Entries of a chunk. Copying a map costs its length divided by this, changing an entry up to this.
const CHUNK_LEN_MAX: usize = 32;
/// Two neighbours that have no more than this together become one.
const CHUNK_LEN_JOIN: usize = CHUNK_LEN_MAX / 2;

/// An entry. The value has a counter of its own, so that copying a chunk copies no value.
type Pair<K, V> = (K, Arc<V>);
/// Neighbouring entries in order; never empty.
type Chunk<K, V> = Arc<Vec<Pair<K, V>>>;

/// An ordered map whose copies share what neither changed.
pub struct Map<K, V> {
    /// In order.
    chunks: Vec<Chunk<K, V>>,
    /// Entries in all of them.
    len: usize,
}

/// Pairs of one chunk.
type PairsOf<'a, K, V> = fn(&'a Chunk<K, V>) -> std::slice::Iter<'a, Pair<K, V>>;
/// Pairs of all chunks.
type Pairs<'a, K, V> = std::iter::FlatMap<
    std::slice::Iter<'a, Chunk<K, V>>,
    std::slice::Iter<'a, Pair<K, V>>,
    PairsOf<'a, K, V>,
>;
/// All entries of a map in order.
pub type Iter<'a, K, V> = std::iter::Map<Pairs<'a, K, V>, fn(&'a Pair<K, V>) -> (&'a K, &'a V)>;

/// Where an entry is, or belongs: chunk and place in it.
type Place = (usize, usize);

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// A map without entries.
    pub fn new() -> Self {
        Map::default()
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.find(key).ok()?;
        Some(&self.chunks[chunk][at].1)
    }

    /// The value of `key`, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.find(key).ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[chunk]);
        Some(Arc::make_mut(&mut chunk[at].1))
    }

    /// Whether it has an entry for `key`.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Sets the value of `key` and gives the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<Arc<V>> {
        let value = Arc::new(value);
        match self.find(&key) {
            Ok((chunk, at)) => {
                let chunk = Arc::make_mut(&mut self.chunks[chunk]);
                Some(std::mem::replace(&mut chunk[at].1, value))
            }
            Err(place) => {
                self.insert_at(place, (key, value));
                None
            }
        }
    }

    /// The value of `key`, to be changed; a default one where there was none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        if !self.contains_key(&key) {
            self.insert(key.clone(), V::default());
        }
        self.get_mut(&key).expect("it is there by now")
    }

    /// Takes an entry away and gives its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.find(key).ok()?;
        let (_, value) = Arc::make_mut(&mut self.chunks[chunk]).remove(at);
        self.len -= 1;
        match self.chunks[chunk].is_empty() {
            true => drop(self.chunks.remove(chunk)),
            false => self.join(chunk),
        }
        Some(value)
    }

    /// Keeps the entries that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let gone = self.iter().filter(|(key, value)| !keep(key, value));
        let gone: Vec<K> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// All entries in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.into_iter()
    }

    /// All keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// All values, to be changed; copies every one that is shared.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = self.chunks.iter_mut();
        let pairs = chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut());
        pairs.map(|(_, value)| Arc::make_mut(value))
    }

    /// The entries whose keys are in `range`, in order.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        let from = match range.start_bound() {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => self.place(key, false),
            Bound::Excluded(key) => self.place(key, true),
        };
        let to = match range.end_bound() {
            Bound::Unbounded => (self.chunks.len(), 0),
            Bound::Included(key) => self.place(key, true),
            Bound::Excluded(key) => self.place(key, false),
        };
        let last = self.chunks.len().min(to.0 + 1);
        let numbers = from.0.min(last)..if from < to { last } else { 0 };
        let pairs = numbers.flat_map(move |number| {
            let chunk = &self.chunks[number];
            let first = if number == from.0 { from.1 } else { 0 };
            let end = if number == to.0 { to.1 } else { chunk.len() };
            chunk[first..end].iter()
        });
        pairs.map(|(key, value)| (key, &**value))
    }

    /// The first entry.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// The last entry.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next_back()
    }

    /// Whether nothing was changed in either since one was copied from the other. An entry that was replaced by an equal one counts.
    pub fn is_shared(&self, other: &Self) -> bool {
        let pairs = self.chunks.iter().zip(&other.chunks);
        self.chunks.len() == other.chunks.len() && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// The keys whose values differ between this map and `other`, in order; those that only one of them has among them.
    pub fn differences<'a>(&'a self, other: &'a Self) -> Vec<&'a K>
    where
        V: PartialEq,
    {
        let mut found = Vec::new();
        let (mut left, mut right) = (Cursor::new(self), Cursor::new(other));
        loop {
            if left.skip_shared(&mut right) {
                continue;
            }
            let order = match (left.pair(), right.pair()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(left), Some(right)) => left.0.cmp(&right.0),
            };
            match (order, left.pair(), right.pair()) {
                (Ordering::Equal, Some((key, one)), Some((_, two))) => {
                    if !Arc::ptr_eq(one, two) && one != two {
                        found.push(key);
                    }
                    left.step();
                    right.step();
                }
                (Ordering::Less, Some((key, _)), _) => {
                    found.push(key);
                    left.step();
                }
                (_, _, Some((key, _))) => {
                    found.push(key);
                    right.step();
                }
                _ => return found,
            }
        }
    }

    /// Where `key` is, or else where it belongs.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Place, Place>
    where
        K: Borrow<Q>,
    {
        let begins_by_then = |chunk: &Chunk<K, V>| chunk[0].0.borrow() <= key;
        let chunk = self.chunks.partition_point(begins_by_then);
        let chunk = chunk.saturating_sub(1);
        let Some(pairs) = self.chunks.get(chunk) else {
            return Err((0, 0));
        };
        match pairs.binary_search_by(|(one, _)| one.borrow().cmp(key)) {
            Ok(at) => Ok((chunk, at)),
            Err(at) => Err((chunk, at)),
        }
    }

    /// The place of the first entry at `key` or, if `after`, beyond it.
    fn place(&self, key: &K, after: bool) -> Place {
        match self.find(key) {
            Ok((chunk, at)) => (chunk, at + usize::from(after)),
            Err(place) => place,
        }
    }

    fn insert_at(&mut self, (chunk, at): Place, pair: Pair<K, V>) {
        self.len += 1;
        let Some(pairs) = self.chunks.get_mut(chunk) else {
            return self.chunks.push(Arc::new(vec![pair]));
        };
        if pairs.len() < CHUNK_LEN_MAX {
            return Arc::make_mut(pairs).insert(at, pair);
        }
        if at == CHUNK_LEN_MAX {
            // Ids mostly grow: the full chunk stays as it is, shared.
            return self.chunks.insert(chunk + 1, Arc::new(vec![pair]));
        }
        let mut low = pairs.to_vec();
        let mut high = low.split_off(CHUNK_LEN_MAX / 2);
        match at <= low.len() {
            true => low.insert(at, pair),
            false => high.insert(at - low.len(), pair),
        }
        *pairs = Arc::new(low);
        self.chunks.insert(chunk + 1, Arc::new(high));
    }

    /// Makes one chunk of `chunk` and a neighbour if both have become small.
    fn join(&mut self, chunk: usize) {
        let fits = |first: usize| {
            let both = self.chunks.get(first..first + 2);
            both.is_some_and(|both| both[0].len() + both[1].len() <= CHUNK_LEN_JOIN)
        };
        let before = chunk.checked_sub(1).filter(|&first| fits(first));
        if let Some(first) = before.or_else(|| fits(chunk).then_some(chunk)) {
            let second = self.chunks.remove(first + 1);
            Arc::make_mut(&mut self.chunks[first]).extend(second.iter().cloned());
        }
    }
}

/// A place in a map that goes forward.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    at: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(map: &'a Map<K, V>) -> Self {
        Cursor {
            chunks: &map.chunks,
            at: 0,
        }
    }

    fn pair(&self) -> Option<&'a Pair<K, V>> {
        self.chunks.first().map(|chunk| &chunk[self.at])
    }

    fn step(&mut self) {
        self.at += 1;
        if self.chunks.first().is_some_and(|c| c.len() == self.at) {
            self.next_chunk();
        }
    }

    fn next_chunk(&mut self) {
        self.chunks = &self.chunks[1..];
        self.at = 0;
    }

    /// Passes by a chunk that both have; whether there was one.
    fn skip_shared(&mut self, other: &mut Self) -> bool {
        let (Some(one), Some(two)) = (self.chunks.first(), other.chunks.first()) else {
            return false;
        };
        let shared = self.at == other.at && Arc::ptr_eq(one, two);
        if shared {
            self.next_chunk();
            other.next_chunk();
        }
        shared
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Map {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<K, V, Q> Index<&Q> for Map<K, V>
where
    K: Ord + Clone + Borrow<Q>,
    V: Clone,
    Q: Ord + ?Sized,
{
    type Output = V;

    /// The value of a key that is there.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("there is an entry of this key")
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        let pairs_of: PairsOf<'a, K, V> = |chunk| chunk.iter();
        let parts: fn(&'a Pair<K, V>) -> (&'a K, &'a V) = |(key, value)| (key, &**value);
        self.chunks.iter().flat_map(pairs_of).map(parts)
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Map {
            chunks: self.chunks.clone(),
            len: self.len,
        }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differences(other).is_empty()
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for Map<K, V> {}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Map::new();
        map.extend(pairs);
        map
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Deed {
        Insert(u16, u8),
        Append(u8),
        Change(u16, u8),
        Remove(u16),
        RemoveFirst,
        Copy,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let key = 0..400u16;
        prop_oneof![
            4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Deed::Insert(key, value)),
            4 => any::<u8>().prop_map(Deed::Append),
            2 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Deed::Change(key, value)),
            3 => key.prop_map(Deed::Remove),
            1 => Just(Deed::RemoveFirst),
            1 => Just(Deed::Copy),
        ]
    }

    fn is_equal(map: &Map<u16, u8>, model: &BTreeMap<u16, u8>) {
        assert!(map.iter().eq(model.iter()), "{map:?} is not {model:?}");
        assert!(map.iter().rev().eq(model.iter().rev()));
        assert_eq!(map.len(), model.len());
        assert_eq!(map.first_key_value(), model.first_key_value());
        assert_eq!(map.last_key_value(), model.last_key_value());
        for chunk in &map.chunks {
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK_LEN_MAX);
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_stay_as_they_were(
            deeds in proptest::collection::vec(deed(), 0..600),
            bounds in (0..400u16, 0..400u16),
        ) {
            let (mut map, mut model) = (Map::new(), BTreeMap::new());
            let mut copies = vec![(map.clone(), model.clone())];
            for deed in deeds {
                match deed {
                    Deed::Insert(key, value) => {
                        let before = map.insert(key, value);
                        prop_assert_eq!(before.as_deref().copied(), model.insert(key, value));
                    }
                    Deed::Append(value) => {
                        let key = model.last_key_value().map_or(0, |(key, _)| key + 1);
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                    Deed::Change(key, value) => {
                        if let Some(place) = map.get_mut(&key) {
                            *place = value;
                        }
                        model.entry(key).and_modify(|place| *place = value);
                    }
                    Deed::Remove(key) => {
                        let before = map.remove(&key);
                        prop_assert_eq!(before.as_deref().copied(), model.remove(&key));
                    }
                    Deed::RemoveFirst => {
                        if let Some((key, _)) = model.pop_first() {
                            map.remove(&key);
                        }
                    }
                    Deed::Copy => copies.push((map.clone(), model.clone())),
                }
            }
            is_equal(&map, &model);
            let (start, end) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            prop_assert!(map.range(start..end).eq(model.range(start..end)));
            prop_assert!(map.range(start..).rev().eq(model.range(start..).rev()));
            prop_assert!(map.range(..=end).eq(model.range(..=end)));
            let after = (Bound::Excluded(start), Bound::Unbounded);
            prop_assert!(map.range(after).eq(model.range(after)));
            for (copy, was) in &copies {
                is_equal(copy, was);
                let all: std::collections::BTreeSet<_> = model.keys().chain(was.keys()).collect();
                let others = all.into_iter().filter(|key| model.get(key) != was.get(key));
                prop_assert!(map.differences(copy).into_iter().eq(others));
            }
            let again: Map<u16, u8> = model.into_iter().collect();
            prop_assert_eq!(&again, &map);
        }
    }

    #[test]
    fn a_change_copies_one_chunk_and_one_value() {
        let map: Map<u32, u32> = (0..1_000).map(|key| (key, key)).collect();
        let mut copy = map.clone();
        *copy.get_mut(&500).unwrap() = 0;
        let shared = map.chunks.iter().zip(&copy.chunks);
        let copied = shared.filter(|(one, two)| !Arc::ptr_eq(one, two)).count();
        assert_eq!(copied, 1);
        assert_eq!(map.differences(&copy), vec![&500]);
    }
}
