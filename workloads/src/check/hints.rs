//! What the answers of a partition, taken together, rule out before the search tries it.
//!
//! Everything here is a shortcut: it only forbids placements after which no order can exist, or
//! which could be left out of any order that does. Without it, a search that took a wrong turn
//! learns of it dozens of operations later.

use std::collections::BTreeMap;

use super::model::{Act, Seen, State, Step};
use super::partition::Partition;
use crate::history::Expect;

/// The facts, by key.
#[derive(Debug)]
pub(super) struct Hints {
    /// `(version, create revision)` of the put of a key at a revision.
    puts: BTreeMap<(usize, u64), (u64, u64)>,
    /// The largest version that anyone was told of, by key and create revision.
    tops: BTreeMap<(usize, u64), u64>,
    /// Reads that wrote nothing, by key and the mod revision that they saw.
    readers: BTreeMap<(usize, u64), Vec<usize>>,
    keys: Vec<KeyHints>,
    /// Whether puts that only a condition could have noticed count as idle.
    is_hasty: bool,
}

#[derive(Clone, Debug, Default)]
struct KeyHints {
    /// Known revisions of writes that touch the key, in order.
    touches: Vec<u64>,
    /// The largest version that a condition told of.
    failed_top: u64,
    /// The largest version that anyone was told of, in any life.
    top: u64,
    /// Whether a write of unknown outcome can need a certain unseen version to have its effect.
    fussy: bool,
}

impl Hints {
    /// Gathers the facts; `guesses` are the kinds of writes whose outcome is unknown. A hasty
    /// search skips more than it may if it finds nothing.
    pub(super) fn of<'s>(
        partition: &Partition<'_>,
        guesses: impl Iterator<Item = &'s Step>,
        is_hasty: bool,
    ) -> Self {
        let mut hints = Self {
            puts: BTreeMap::new(),
            tops: BTreeMap::new(),
            readers: BTreeMap::new(),
            is_hasty,
            keys: vec![KeyHints::default(); partition.keys.len()],
        };
        for (at, item) in partition.items.iter().enumerate() {
            if let Some(revision) = item.revision {
                hints.touched(&item.step, revision);
            }
            if let Some(answer) = &item.answer {
                let acts = item.step.branch(answer.succeeded);
                for (act, seen) in acts.iter().zip(&answer.seen) {
                    hints.told(act.key(), *seen, item.revision, at);
                }
            }
        }
        for key in &mut hints.keys {
            key.touches.sort_unstable();
        }
        for item in partition.items.iter() {
            if item.answer.is_some() || item.revision.is_some() {
                hints.conditions(&item.step);
            }
        }
        guesses.for_each(|step| hints.guessable(step));
        hints
    }

    fn touched(&mut self, step: &Step, revision: u64) {
        for act in step.then.iter().chain(&step.otherwise) {
            if let Act::Put(key, _) | Act::Delete(key) = act {
                self.keys[*key].touches.push(revision);
            }
        }
    }

    fn told(&mut self, key: usize, seen: Seen, revision: Option<u64>, item: usize) {
        match (seen, revision) {
            (Seen::Put(version, create), Some(revision)) => {
                self.put(key, revision, version, create);
            }
            (Seen::Get(Some(entry)), _) => {
                let modified = entry.mod_revision;
                self.put(key, modified, entry.version, entry.create_revision);
                if revision.is_none() {
                    self.readers.entry((key, modified)).or_default().push(item);
                }
            }
            (Seen::Version(Some(version)), _) => {
                let top = &mut self.keys[key].failed_top;
                *top = version.max(*top);
            }
            _ => {}
        }
    }

    fn put(&mut self, key: usize, revision: u64, version: u64, create: u64) {
        self.puts.insert((key, revision), (version, create));
        let top = self.tops.entry((key, create)).or_default();
        *top = version.max(*top);
        self.keys[key].top = version.max(self.keys[key].top);
    }

    /// A condition of a known operation tells of versions too, even if it failed.
    fn conditions(&mut self, step: &Step) {
        let is_single = step
            .otherwise
            .iter()
            .all(|act| matches!(act, Act::Version(_)));
        for (key, expect) in &step.compares {
            match expect {
                Expect::Version(version) => {
                    let top = &mut self.keys[*key].failed_top;
                    *top = version.saturating_add(1).max(*top);
                }
                Expect::ModRevision(revision) => {
                    let known = self.puts.contains_key(&(*key, *revision));
                    self.keys[*key].fussy |= !(known && is_single);
                }
                Expect::Any | Expect::Absent => {}
            }
        }
    }

    /// A conditional delete can make an unseen put matter, and so can a transaction.
    fn guessable(&mut self, step: &Step) {
        let plain = |(_, expect): &(usize, Expect)| *expect == Expect::Any;
        let one_put = matches!(step.then[..], [Act::Put(..)])
            && step
                .otherwise
                .iter()
                .all(|act| matches!(act, Act::Version(_)));
        if step.compares.iter().all(plain) || one_put {
            return;
        }
        let keys = step.compares.iter().map(|(key, _)| *key);
        let acts = step.then.iter().chain(&step.otherwise).map(Act::key);
        for key in keys.chain(acts) {
            self.keys[key].fussy = true;
        }
    }

    /// The reads that must come before `key` is written again, as it stands now: those that saw its
    /// mod revision.
    pub(super) fn readers(&self, state: &State, key: usize) -> &[usize] {
        let exact = state
            .live(key)
            .map(|live| live.modified)
            .filter(|rev| rev.lo == rev.hi);
        let readers = exact.and_then(|rev| self.readers.get(&(key, rev.lo)));
        readers.map_or(&[], Vec::as_slice)
    }

    /// Whether, after a guess at `key`, the next known write of it can still come to the version
    /// and create revision that it is known to have. Known writes from revision `next` on are still
    /// to come.
    pub(super) fn viable(&self, state: &State, key: usize, next: Option<u64>) -> bool {
        let touches = &self.keys[key].touches;
        let Some(next) = next else { return true };
        if state.floor() >= next {
            return false; // The guess left no revision for it.
        }
        let Some(&at) = touches.get(touches.partition_point(|revision| *revision < next)) else {
            return true;
        };
        let Some(&(version, create)) = self.puts.get(&(key, at)) else {
            return true;
        };
        // Nobody knows of a life that has not begun; it may begin behind the last write.
        let another_life = create > state.floor();
        match state.live(key) {
            None => another_life,
            Some(live) => {
                let same_life = live.create.may_be(create) && live.version < version;
                same_life || version == 1 || another_life
            }
        }
    }

    /// Whether an unseen put that led to the present state of `key` is one that no answer can tell
    /// from none.
    pub(super) fn is_idle_put(&self, state: &State, key: usize) -> bool {
        let hints = &self.keys[key];
        let Some(live) = state.live(key).filter(|live| live.version > 1) else {
            return false;
        };
        let top = match (live.create.lo, live.create.hi) {
            (lo, hi) if lo == hi => self.tops.get(&(key, lo)).copied().unwrap_or(0),
            _ => hints.top,
        };
        (self.is_hasty || !hints.fussy) && live.version > top.max(hints.failed_top)
    }
}
