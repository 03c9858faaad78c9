//! A group's log as raft-rs reads it: the entries still held, in memory, over a base that a snapshot covers.
//!
//! Invariants: entries are consecutive; the first follows `base`; the newest snapshot file reaches at least `base`, so a
//! follower that needs an older entry can always be given a snapshot. What is here is durable or on its way to the WAL (the
//! shell tells raft-rs which). Memory is bounded by the snapshot triggers, which count entries and bytes.

use crate::types::{Index, NodeId, Term};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// The log of one group on one node.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Term, vote and commit at start; raft-rs reads it once.
    hard_state: HardState,
    /// Configuration at `applied`; raft-rs reads it once.
    conf_state: ConfState,
    /// Last entry that is covered by a snapshot and no longer held.
    base: (Index, Term),
    /// Entries after `base`.
    entries: VecDeque<Entry>,
    /// Payload bytes of `entries`.
    bytes: u64,
    /// The newest snapshot, ready to be offered to followers: metadata, and a descriptor as data.
    snapshot: Option<Snapshot>,
}

impl Log {
    /// A log over `base` with `entries` after it (consecutive, or the WAL would not have given them).
    pub fn new(
        base: (Index, Term),
        entries: impl IntoIterator<Item = Entry>,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        let mut log = Log {
            hard_state,
            conf_state,
            base,
            ..Log::default()
        };
        log.append(entries);
        log
    }

    /// Appends `entries`; the first may replace the end of the log. Gives the first index that was replaced.
    pub fn append(&mut self, entries: impl IntoIterator<Item = Entry>) -> Option<Index> {
        let mut replaced = None;
        for entry in entries {
            let index = Index(entry.index);
            if index <= self.last().0 {
                replaced.get_or_insert(index);
                self.truncate(index);
            }
            assert_eq!(
                entry.index,
                self.last().0.0 + 1,
                "entries of a log are consecutive"
            );
            self.bytes += weight(&entry);
            self.entries.push_back(entry);
        }
        replaced
    }

    /// Drops the entries from `from` on.
    fn truncate(&mut self, from: Index) {
        assert!(
            from > self.base.0,
            "an entry below the base was replaced: it was committed"
        );
        while self.last().0 >= from {
            let entry = self
                .entries
                .pop_back()
                .expect("the log is not empty above its base");
            self.bytes -= weight(&entry);
        }
    }

    /// Gives up the entries at and below `through`, which a snapshot covers.
    pub fn compact(&mut self, through: Index) {
        while let Some(first) = self.entries.front() {
            if first.index > through.0 {
                break;
            }
            self.base = (Index(first.index), Term(first.term));
            self.bytes -= weight(first);
            self.entries.pop_front();
        }
    }

    /// The log starts again at a snapshot that replaced the state.
    pub fn restart_at(&mut self, base: (Index, Term), conf_state: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.base = base;
        self.conf_state = conf_state;
    }

    /// Offers `snapshot` to followers that need one.
    pub fn offer(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// The snapshot on offer to member `to`. One from before `to` became a member is none: a node does not install a
    /// state in which it does not exist.
    pub fn offered(&self, to: NodeId) -> Option<&Snapshot> {
        self.snapshot.as_ref().filter(|one| {
            let conf = one.get_metadata().get_conf_state();
            conf.voters.contains(&to.0) || conf.learners.contains(&to.0)
        })
    }

    /// The entry before the first one held.
    pub fn base(&self) -> (Index, Term) {
        self.base
    }

    /// The last entry, or the base.
    pub fn last(&self) -> (Index, Term) {
        self.entries
            .back()
            .map_or(self.base, |entry| (Index(entry.index), Term(entry.term)))
    }

    /// Payload bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entry at `index`, if held.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.0.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }
}

/// What an entry counts for.
fn weight(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 32) as u64
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.conf_state.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        let mut size = 0;
        for index in low..high {
            let entry = self
                .entry(Index(index))
                .ok_or(raft::Error::Store(StorageError::Unavailable))?;
            size += weight(entry);
            // At least one entry always goes, however large, or a large one would block for ever.
            if size > limit && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0.0 {
            return Ok(self.base.1.0);
        }
        if index < self.base.0.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let entry = self.entry(Index(index));
        entry
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0.0)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let offered = self.offered(NodeId(to));
        let newest = offered
            .filter(|one| one.get_metadata().index >= request_index)
            .cloned();
        // The shell cuts one as soon as it sees a follower that waits for it.
        newest.ok_or(raft::Error::Store(
            StorageError::SnapshotTemporarilyUnavailable,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![7; 10].into(),
            ..Entry::default()
        }
    }

    fn log() -> Log {
        let entries = (3..=6).map(|index| entry(index, 1));
        Log::new(
            (Index(2), Term(1)),
            entries,
            HardState::default(),
            ConfState::default(),
        )
    }

    #[test]
    fn appended_entries_replace_the_end() {
        let mut log = log();
        assert_eq!(log.append([entry(5, 2)]), Some(Index(5)));
        assert_eq!(log.last(), (Index(5), Term(2)));
        assert_eq!(log.term(4), Ok(1));
        assert!(log.term(6).is_err());
    }

    #[test]
    fn compaction_moves_the_base_and_keeps_its_term() {
        let mut log = log();
        log.compact(Index(4));
        assert_eq!(log.base(), (Index(4), Term(1)));
        assert_eq!(log.first_index(), Ok(5));
        assert_eq!(log.term(4), Ok(1));
        assert_eq!(
            log.term(3),
            Err(raft::Error::Store(StorageError::Compacted))
        );
        log.compact(Index(99));
        assert_eq!((log.last(), log.bytes()), ((Index(6), Term(1)), 0));
    }

    #[test]
    fn a_read_gives_at_least_one_entry_and_respects_the_limit() {
        let log = log();
        let context = || GetEntriesContext::empty(false);
        assert_eq!(
            log.entries(3, 7, 1, context()).map(|list| list.len()),
            Ok(1)
        );
        assert_eq!(
            log.entries(3, 7, 90, context()).map(|list| list.len()),
            Ok(2)
        );
        assert_eq!(
            log.entries(3, 7, None, context()).map(|list| list.len()),
            Ok(4)
        );
        assert!(log.entries(2, 7, None, context()).is_err());
    }

    #[test]
    fn a_snapshot_is_offered_to_its_members_alone() {
        let mut log = log();
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = 4;
        snapshot
            .mut_metadata()
            .set_conf_state(ConfState::from((vec![1, 2], vec![4])));
        log.offer(snapshot);
        assert!(log.snapshot(0, 1).is_ok() && log.snapshot(0, 4).is_ok());
        let unavailable = raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        assert_eq!(log.snapshot(0, 5), Err(unavailable));
    }

    #[test]
    #[should_panic(expected = "consecutive")]
    fn a_gap_is_a_bug() {
        log().append([entry(9, 1)]);
    }
}
