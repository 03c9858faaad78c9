//! The sequential model: what one partition's keys hold, and whether an answer fits.
//!
//! Every request is compiled to one form, a [`Step`]: conditions and two branches. A put with a
//! condition is a transaction whose `then` puts and whose `otherwise` looks at the version.
//!
//! A write whose outcome nobody was told took *some* revision between its neighbours. The model
//! keeps it as an interval ([`Rev`]) that later answers narrow; a write that is never seen never
//! gets an exact revision.
//!
//! Invariants: [`State::rollback`] restores exactly what [`State::mark`] saw, so the search walks
//! back and forth on one state without copying it; [`State::print`] is a function of the content
//! alone, not of the way to it; and `floor` is the smallest revision that the last write can have
//! taken.

use crate::history::{Entry, Expect, ValueId};

/// One action of a branch; keys are indices into the partition's keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// Write a value; `None` stands for any value that no answer ever showed.
    Put(usize, Option<ValueId>),
    /// Read a key.
    Get(usize),
    /// Delete a key.
    Delete(usize),
    /// Look at a key's version, as a failed condition reports it.
    Version(usize),
}

impl Act {
    /// The key that it touches.
    pub(super) fn key(&self) -> usize {
        match self {
            Self::Put(key, _) | Self::Get(key) | Self::Delete(key) | Self::Version(key) => *key,
        }
    }
}

/// A compiled request.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    /// All must hold for `then`.
    pub(super) compares: Vec<(usize, Expect)>,
    /// Done when they hold.
    pub(super) then: Vec<Act>,
    /// Done when one does not.
    pub(super) otherwise: Vec<Act>,
}

impl Step {
    /// The branch that is done when the conditions hold, or the other.
    pub(super) fn branch(&self, succeeded: bool) -> &[Act] {
        if succeeded {
            &self.then
        } else {
            &self.otherwise
        }
    }
}

/// What the client was told about one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The put's version and create revision.
    Put(u64, u64),
    /// What the get showed.
    Get(Option<Entry>),
    /// Whether the delete found something.
    Delete(bool),
    /// The version that a failed condition reported.
    Version(Option<u64>),
}

/// What the client was told.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Which branch was done.
    pub(super) succeeded: bool,
    /// What each of its actions answered.
    pub(super) seen: Vec<Seen>,
}

/// A revision that may not be known exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rev {
    /// The smallest revision that it can be.
    pub(super) lo: u64,
    /// The largest revision that it can be.
    pub(super) hi: u64,
    /// Which of the inexact writes it was, counted from 1; 0 once it is exact.
    nth: u64,
}

impl Rev {
    fn exact(revision: u64) -> Self {
        Self {
            lo: revision,
            hi: revision,
            nth: 0,
        }
    }

    fn is_open(self) -> bool {
        self.nth != 0
    }

    /// Whether it can be `revision`.
    pub(super) fn may_be(self, revision: u64) -> bool {
        (self.lo..=self.hi).contains(&revision)
    }
}

/// What an existing key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    /// The value; `None` if it is one that no answer ever showed.
    pub(super) value: Option<ValueId>,
    /// The number of puts in this life.
    pub(super) version: u64,
    /// When this life began.
    pub(super) create: Rev,
    /// When it was last put.
    pub(super) modified: Rev,
}

impl Live {
    fn is_open(&self) -> bool {
        self.create.is_open() || self.modified.is_open()
    }
}

/// What was there before a change.
#[derive(Debug)]
enum Undo {
    Key(usize, Option<Live>),
    Floor(u64),
}

/// What all keys of one partition hold.
#[derive(Debug)]
pub(super) struct State {
    lives: Vec<Option<Live>>,
    floor: u64,
    open: usize,
    print: u128,
    undo: Vec<Undo>,
}

/// A point to come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(usize);

impl State {
    /// A store in which none of `keys` keys exists.
    pub(super) fn empty(keys: usize) -> Self {
        Self {
            lives: vec![None; keys],
            floor: 0,
            open: 0,
            print: 0,
            undo: Vec::new(),
        }
    }

    /// What a key holds.
    pub(super) fn live(&self, key: usize) -> Option<&Live> {
        self.lives[key].as_ref()
    }

    /// The smallest revision that the last write can have taken.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether some revision is not known exactly, so that an answer may teach the state something.
    pub(super) fn has_open(&self) -> bool {
        self.open > 0
    }

    /// A 128-bit fingerprint of the content. Two different states share one with a chance of about
    /// 2^-128, which is taken for never.
    pub(super) fn print(&self) -> u128 {
        self.print ^ fold(&[u64::MAX, self.floor])
    }

    /// Remembers the present content.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Goes back to `mark`.
    pub(super) fn rollback(&mut self, mark: Mark) {
        while self.undo.len() > mark.0 {
            match self.undo.pop().expect("the length was just compared") {
                Undo::Key(key, live) => self.replace(key, live),
                Undo::Floor(floor) => self.floor = floor,
            }
        }
    }

    /// Does an answered request. False if the answer does not fit; then the caller rolls back.
    pub(super) fn answer(&mut self, step: &Step, answer: &Answer, revision: Option<u64>) -> bool {
        let acts = step.branch(answer.succeeded);
        acts.len() == answer.seen.len()
            && self.decide(&step.compares, answer.succeeded)
            && match revision {
                Some(revision) => self.take_revision(revision),
                None => true,
            }
            && acts
                .iter()
                .zip(&answer.seen)
                .all(|(act, seen)| self.act(act, *seen, revision))
    }

    /// Does a request whose answer nobody got, taking the given branch, at `revision` if it is
    /// known from elsewhere. False if it cannot go this way or would change nothing.
    pub(super) fn guess(&mut self, step: &Step, succeeded: bool, revision: Option<u64>) -> bool {
        if !self.decide(&step.compares, succeeded) {
            return false;
        }
        let acts = step.branch(succeeded);
        let writes = acts.iter().any(|act| match act {
            Act::Put(..) => true,
            Act::Delete(key) => self.lives[*key].is_some(),
            Act::Get(_) | Act::Version(_) => false,
        });
        if !writes {
            return false;
        }
        let rev = match revision {
            Some(revision) if !self.take_revision(revision) => return false,
            Some(revision) => Rev::exact(revision),
            None => self.take_open_revision(),
        };
        for act in acts {
            match act {
                Act::Put(key, value) => self.put(*key, *value, rev),
                Act::Delete(key) => self.set(*key, None),
                Act::Get(_) | Act::Version(_) => {}
            }
        }
        true
    }

    fn act(&mut self, act: &Act, seen: Seen, revision: Option<u64>) -> bool {
        match (act, seen) {
            (Act::Put(key, value), Seen::Put(version, create)) => {
                let Some(revision) = revision else {
                    return false;
                };
                self.put(*key, *value, Rev::exact(revision));
                let live = self.lives[*key].expect("it was just put");
                live.version == version
                    && has_room(create, version, revision)
                    && self.observe(live.create, create)
            }
            (Act::Get(key), Seen::Get(entry)) => self.shows(*key, entry),
            (Act::Delete(key), Seen::Delete(existed)) => {
                let fits = self.lives[*key].is_some() == existed;
                if existed {
                    self.set(*key, None);
                }
                fits
            }
            (Act::Version(key), Seen::Version(version)) => {
                self.lives[*key].map(|live| live.version) == version
            }
            _ => false,
        }
    }

    fn shows(&mut self, key: usize, entry: Option<Entry>) -> bool {
        let (live, entry) = match (self.lives[key], entry) {
            (None, None) => return true,
            (Some(live), Some(entry)) => (live, entry),
            _ => return false,
        };
        live.value == Some(entry.value)
            && live.version == entry.version
            && has_room(entry.create_revision, entry.version, entry.mod_revision)
            && self.observe(live.modified, entry.mod_revision)
            && self.observe(
                self.lives[key].unwrap_or(live).create,
                entry.create_revision,
            )
    }

    /// Whether the conditions come out as `want`. A condition on an inexact revision may come out
    /// either way; if it must hold, the revision becomes exact. (That it must *not* hold is not
    /// remembered: lenient.)
    fn decide(&mut self, compares: &[(usize, Expect)], want: bool) -> bool {
        if !want {
            return compares
                .iter()
                .any(|(key, expect)| self.may_fail(*key, *expect));
        }
        compares
            .iter()
            .all(|(key, expect)| match (self.lives[*key], *expect) {
                (_, Expect::Any) => true,
                (live, Expect::Absent | Expect::Version(0) | Expect::ModRevision(0)) => {
                    live.is_none()
                }
                (Some(live), Expect::Version(version)) => live.version == version,
                (Some(live), Expect::ModRevision(revision)) => {
                    self.observe(live.modified, revision)
                }
                (None, _) => false,
            })
    }

    fn may_fail(&self, key: usize, expect: Expect) -> bool {
        match (self.lives[key], expect) {
            (_, Expect::Any) => false,
            (live, Expect::Absent | Expect::Version(0) | Expect::ModRevision(0)) => live.is_some(),
            (Some(live), Expect::Version(version)) => live.version != version,
            (Some(live), Expect::ModRevision(revision)) => {
                live.modified.is_open() || live.modified.lo != revision
            }
            (None, _) => true,
        }
    }

    /// Somebody was told that `rev` is `revision`.
    fn observe(&mut self, rev: Rev, revision: u64) -> bool {
        if !rev.may_be(revision) {
            return false;
        }
        if !rev.is_open() {
            return true;
        }
        // Writes behind the one that became exact took at least one revision each.
        let latest = self
            .open_revs()
            .map(|open| open.nth)
            .max()
            .unwrap_or(rev.nth);
        self.raise_floor(revision.saturating_add(latest.saturating_sub(rev.nth)));
        self.narrow(|open| match open.nth.cmp(&rev.nth) {
            std::cmp::Ordering::Less => Rev {
                hi: open.hi.min(revision - 1),
                ..open
            },
            std::cmp::Ordering::Equal => Rev::exact(revision),
            std::cmp::Ordering::Greater => Rev {
                lo: open.lo.max(revision.saturating_add(open.nth - rev.nth)),
                ..open
            },
        })
    }

    fn take_revision(&mut self, revision: u64) -> bool {
        if revision <= self.floor {
            return false;
        }
        self.raise_floor(revision);
        self.narrow(|open| Rev {
            hi: open.hi.min(revision - 1),
            ..open
        })
    }

    fn take_open_revision(&mut self) -> Rev {
        let nth = 1 + self.open_revs().map(|open| open.nth).max().unwrap_or(0);
        self.raise_floor(self.floor.saturating_add(1));
        Rev {
            lo: self.floor,
            hi: u64::MAX,
            nth,
        }
    }

    fn raise_floor(&mut self, floor: u64) {
        if floor > self.floor {
            self.undo.push(Undo::Floor(self.floor));
            self.floor = floor;
        }
    }

    fn open_revs(&self) -> impl Iterator<Item = Rev> + '_ {
        // Most states have none; then a partition of many keys need not be walked.
        let lives: &[Option<Live>] = if self.open > 0 { &self.lives } else { &[] };
        let revs = lives
            .iter()
            .flatten()
            .flat_map(|live| [live.create, live.modified]);
        revs.filter(|rev| rev.is_open())
    }

    /// Changes all inexact revisions; false if one can then be nothing at all.
    fn narrow(&mut self, change: impl Fn(Rev) -> Rev) -> bool {
        if self.open == 0 {
            return true;
        }
        let changed = |rev: Rev| if rev.is_open() { change(rev) } else { rev };
        for key in 0..self.lives.len() {
            let Some(live) = self.lives[key].filter(Live::is_open) else {
                continue;
            };
            let (create, modified) = (changed(live.create), changed(live.modified));
            if create.lo > create.hi || modified.lo > modified.hi {
                return false;
            }
            self.set(
                key,
                Some(Live {
                    create,
                    modified,
                    ..live
                }),
            );
        }
        true
    }

    fn put(&mut self, key: usize, value: Option<ValueId>, modified: Rev) {
        let live = match self.lives[key] {
            Some(old) => Live {
                value,
                version: old.version + 1,
                modified,
                ..old
            },
            None => Live {
                value,
                version: 1,
                create: modified,
                modified,
            },
        };
        self.set(key, Some(live));
    }

    fn set(&mut self, key: usize, live: Option<Live>) {
        if self.lives[key] != live {
            self.undo.push(Undo::Key(key, self.lives[key]));
            self.replace(key, live);
        }
    }

    fn replace(&mut self, key: usize, live: Option<Live>) {
        let old = std::mem::replace(&mut self.lives[key], live);
        if let Some(old) = old {
            self.open -= usize::from(old.is_open());
            self.print ^= live_print(key, &old);
        }
        if let Some(new) = live {
            self.open += usize::from(new.is_open());
            self.print ^= live_print(key, &new);
        }
    }
}

/// Whether `version` puts can have happened from `create` to `modified`: each took a revision of
/// its own.
fn has_room(create: u64, version: u64, modified: u64) -> bool {
    create.saturating_add(version.saturating_sub(1)) <= modified
}

fn live_print(key: usize, live: &Live) -> u128 {
    let Live {
        value,
        version,
        create,
        modified,
    } = live;
    let value_words = value.map_or([0, 0], |value| [1, value.0]);
    let [create, modified] = [create, modified].map(|rev| [rev.lo, rev.hi, rev.nth]);
    let mut words = [0; 10];
    words[0] = key as u64;
    words[1..3].copy_from_slice(&value_words);
    words[3] = *version;
    words[4..7].copy_from_slice(&create);
    words[7..].copy_from_slice(&modified);
    fold(&words)
}

/// Mixes words into 128 bits: two independent chains of the splitmix64 finaliser.
pub(super) fn fold(words: &[u64]) -> u128 {
    let chain = |seed: u64| {
        words
            .iter()
            .fold(seed, |hash, word| mix(hash ^ mix(*word ^ seed)))
    };
    (u128::from(chain(0x9e37_79b9_7f4a_7c15)) << 64) | u128::from(chain(0x2545_f491_4f6c_dd1d))
}

fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: u64) -> Step {
        Step {
            then: vec![Act::Put(0, Some(ValueId(value)))],
            ..Step::default()
        }
    }

    fn sees(state: &mut State, value: u64, version: u64, create: u64, modified: u64) -> bool {
        let mark = state.mark();
        let entry = Entry {
            value: ValueId(value),
            version,
            create_revision: create,
            mod_revision: modified,
        };
        let fits = state.shows(0, Some(entry));
        if !fits {
            state.rollback(mark);
        }
        fits
    }

    #[test]
    fn rollback_restores_content_and_print() {
        let mut state = State::empty(1);
        assert!(state.guess(&put(1), true, Some(4)));
        let (mark, print, live) = (state.mark(), state.print(), state.live(0).copied());
        assert!(state.guess(&put(2), true, None));
        assert!(state.has_open() && state.print() != print);
        state.rollback(mark);
        assert_eq!((print, live), (state.print(), state.live(0).copied()));
        assert!(!state.has_open());
    }

    #[test]
    fn unseen_write_takes_a_revision_between_its_neighbours() {
        let mut state = State::empty(2);
        assert!(state.guess(&put(1), true, Some(10)));
        assert!(state.guess(&put(2), true, None));
        assert!(!sees(&mut state, 2, 2, 10, 10), "10 was taken");
        let other = Step {
            then: vec![Act::Put(1, Some(ValueId(3)))],
            ..Step::default()
        };
        assert!(state.guess(&other, true, Some(15)));
        assert!(
            !sees(&mut state, 2, 2, 10, 15),
            "15 was taken by a later write"
        );
        assert!(sees(&mut state, 2, 2, 10, 14));
        assert!(!sees(&mut state, 2, 2, 10, 13), "it was 14 before");
    }

    #[test]
    fn unseen_writes_leave_each_other_room() {
        let mut state = State::empty(1);
        assert!(state.guess(&put(1), true, Some(10)));
        assert!(state.guess(&put(2), true, None));
        assert!(state.guess(&put(3), true, None));
        assert!(
            !sees(&mut state, 3, 3, 10, 11),
            "two writes do not fit into 11"
        );
        assert!(sees(&mut state, 3, 3, 10, 12));
    }
}
