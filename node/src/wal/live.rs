//! Which segment still holds something that is needed: the log's picture of itself, without the data.
//!
//! [`Live::apply`] is the one place that knows what records mean for each other (what replaces what); recovery and append
//! both go through it, so that they cannot disagree. Pure: no files.

use super::record::{Entry, Genesis, HardState, Record, SnapshotMark};
use crate::types::{GroupId, Index, Term};
use std::collections::BTreeMap;

/// Entries of one term that lie in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// First index.
    first: u64,
    /// Last index.
    last: u64,
    /// Their term.
    term: Term,
    /// Segment in which their batch begins.
    segment: u64,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Entries, ascending and without a hole.
    runs: Vec<Run>,
    /// Newest promise and its segment.
    hard_state: Option<(HardState, u64)>,
    /// Newest snapshot mark and its segment.
    mark: Option<(SnapshotMark, u64)>,
    /// Entries up to this one may go.
    released: u64,
}

/// What a record did to the group's entries, for whoever keeps the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Keep,
    /// Everything from this index on is gone.
    CutFrom(Index),
    /// Everything is gone.
    Clear,
}

/// Every group, and the genesis.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// Newest genesis and its segment.
    genesis: Option<(Genesis, u64)>,
    /// The groups.
    groups: BTreeMap<GroupId, Group>,
}

impl Group {
    fn first(&self) -> Option<u64> {
        self.runs.first().map(|run| run.first)
    }

    fn last(&self) -> Option<u64> {
        self.runs.last().map(|run| run.last)
    }

    /// The last index a snapshot covers; zero for none.
    fn base(&self) -> u64 {
        self.mark.map_or(0, |(mark, _)| mark.index.0)
    }

    /// Refuses entries that would leave a hole or change what a snapshot covers.
    fn check_entries(&self, entries: &[Entry]) -> Result<(), String> {
        let first = entries.first().ok_or("no entries in an entries record")?;
        let next = self.last().unwrap_or(self.base()) + 1;
        if first.index.0 > next || first.index.0 <= self.base() {
            let base = self.base();
            let index = first.index;
            return Err(format!(
                "entries from {index} on do not follow: the snapshot ends at {base}, {next} is next"
            ));
        }
        let consecutive = entries
            .windows(2)
            .all(|two| two[0].index.0.checked_add(1) == Some(two[1].index.0));
        if !consecutive {
            return Err("entries are not consecutive".to_owned());
        }
        Ok(())
    }

    /// Takes entries in; a hole is possible only in a damaged log.
    fn take_entries(&mut self, entries: &[Entry], segment: u64) -> Result<Effect, String> {
        let first = entries.first().ok_or("no entries in an entries record")?;
        let from = first.index.0;
        if self.last().is_some_and(|last| from > last + 1) {
            let last = self.last().unwrap_or_default();
            return Err(format!("entries {last} and {from} have a hole between"));
        }
        self.cut_from(from);
        for entry in entries {
            self.push(entry, segment);
        }
        Ok(Effect::CutFrom(first.index))
    }

    fn push(&mut self, entry: &Entry, segment: u64) {
        match self.runs.last_mut() {
            Some(run) if run.term == entry.term && run.segment == segment => {
                run.last = entry.index.0;
            }
            _ => self.runs.push(Run {
                first: entry.index.0,
                last: entry.index.0,
                term: entry.term,
                segment,
            }),
        }
    }

    fn cut_from(&mut self, from: u64) {
        self.runs.retain(|run| run.first < from);
        if let Some(run) = self.runs.last_mut() {
            run.last = run.last.min(from - 1);
        }
    }

    /// Takes a mark in. The log stays when it holds the marked entry or begins right behind it.
    fn take_mark(&mut self, mark: SnapshotMark, segment: u64) -> Effect {
        self.mark = Some((mark, segment));
        let at = mark.index.0;
        let stays = match (self.first(), self.last()) {
            (None, _) => true,
            (Some(first), _) if first > at => true,
            (_, Some(last)) if last < at => false,
            _ => self.term_at(at) == Some(mark.term),
        };
        if stays {
            return Effect::Keep;
        }
        self.runs.clear();
        Effect::Clear
    }

    fn term_at(&self, index: u64) -> Option<Term> {
        let run = self
            .runs
            .iter()
            .find(|run| (run.first..=run.last).contains(&index))?;
        Some(run.term)
    }

    /// First entry that is still needed, if any.
    fn first_needed(&self) -> Option<u64> {
        let first = self.first()?.max(self.released + 1);
        (first <= self.last()?).then_some(first)
    }

    /// Oldest segment with an entry that is still needed.
    fn oldest_needed(&self) -> Option<u64> {
        let needed = self.runs.iter().filter(|run| run.last > self.released);
        needed.map(|run| run.segment).min()
    }
}

impl Live {
    /// The picture after `record`, which lies in `segment`.
    pub(super) fn apply(&mut self, record: &Record, segment: u64) -> Result<Effect, String> {
        match record {
            Record::Genesis(genesis) => self.genesis = Some((genesis.clone(), segment)),
            Record::Entries { group, entries } => {
                let group = self.groups.entry(*group).or_default();
                return group.take_entries(entries, segment);
            }
            Record::HardState { group, state } => {
                self.groups.entry(*group).or_default().hard_state = Some((*state, segment));
            }
            Record::SnapshotMark { group, mark } => {
                let group = self.groups.entry(*group).or_default();
                return Ok(group.take_mark(*mark, segment));
            }
            Record::Restart { group } => {
                self.groups.entry(*group).or_default().runs.clear();
                return Ok(Effect::Clear);
            }
            Record::Note(_) => {}
        }
        Ok(Effect::Keep)
    }

    /// The changes `records` make when they are appended to `segment`, kept apart until they are written.
    pub(super) fn stage(&self, records: &[Record], segment: u64) -> Result<Live, String> {
        let mut staged = Live::default();
        for record in records {
            let group = match record {
                Record::Entries { group, .. } => Some(*group),
                Record::HardState { group, .. }
                | Record::SnapshotMark { group, .. }
                | Record::Restart { group } => Some(*group),
                Record::Genesis(_) | Record::Note(_) => None,
            };
            if let Some(id) = group {
                let known = || self.groups.get(&id).cloned().unwrap_or_default();
                let group = staged.groups.entry(id).or_insert_with(known);
                check(group, record).map_err(|why| format!("group {}: {why}", id.0))?;
            }
            staged.apply(record, segment)?;
        }
        Ok(staged)
    }

    /// Which of `records` (by place) are marks that restart their group's log.
    pub(super) fn restarts(&self, records: &[Record]) -> Vec<usize> {
        let mut ahead = Live::default();
        let mut restarts = Vec::new();
        if !records
            .iter()
            .any(|one| matches!(one, Record::SnapshotMark { .. }))
        {
            return restarts;
        }
        ahead.groups.clone_from(&self.groups);
        for (place, record) in records.iter().enumerate() {
            let is_mark = matches!(record, Record::SnapshotMark { .. });
            if ahead.apply(record, 0) == Ok(Effect::Clear) && is_mark {
                restarts.push(place);
            }
        }
        restarts
    }

    /// Takes over what [`Live::stage`] prepared.
    pub(super) fn commit(&mut self, staged: Live) {
        self.groups.extend(staged.groups);
        self.genesis = staged.genesis.or(self.genesis.take());
    }

    /// The group no longer needs entries up to `through`, as far as a snapshot covers them.
    pub(super) fn release(&mut self, group: GroupId, through: Index) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.released = group.released.max(through.0.min(group.base()));
        }
    }

    /// Groups whose needed entries begin in front of segment `before`, with the first needed index.
    pub(super) fn holding_back(&self, before: u64) -> Vec<(GroupId, Index)> {
        let groups = self.groups.iter();
        let slow = groups.filter(|(_, one)| one.oldest_needed().is_some_and(|at| at < before));
        slow.filter_map(|(id, one)| Some((*id, Index(one.first_needed()?))))
            .collect()
    }

    /// Oldest segment with an entry that some group still needs.
    pub(super) fn oldest_needed(&self) -> Option<u64> {
        self.groups.values().filter_map(Group::oldest_needed).min()
    }

    /// The newest genesis, promises and marks that lie in front of segment `before`, to be written again.
    pub(super) fn small_records(&self, before: u64) -> Vec<Record> {
        let mut records = Vec::new();
        let genesis = self.genesis.iter().filter(|(_, at)| *at < before);
        records.extend(genesis.map(|(one, _)| Record::Genesis(one.clone())));
        for (id, one) in &self.groups {
            let group = *id;
            let mark = one.mark.iter().filter(|(_, at)| *at < before);
            records.extend(mark.map(|&(mark, _)| Record::SnapshotMark { group, mark }));
            let state = one.hard_state.iter().filter(|(_, at)| *at < before);
            records.extend(state.map(|&(state, _)| Record::HardState { group, state }));
        }
        records
    }

    /// Entries rewritten as they are into `segment`: only their place changes.
    pub(super) fn moved(&mut self, group: GroupId, entries: &[Entry], segment: u64) {
        if let (Some(group), Some(first)) = (self.groups.get_mut(&group), entries.first()) {
            group.cut_from(first.index.0);
            for entry in entries {
                group.push(entry, segment);
            }
        }
    }

    /// Small records rewritten into `segment`: only their place changes.
    pub(super) fn moved_small(&mut self, before: u64, segment: u64) {
        let groups = self.groups.values_mut();
        let places = groups.flat_map(|one| {
            let mark = one.mark.as_mut().map(|(_, at)| at);
            mark.into_iter()
                .chain(one.hard_state.as_mut().map(|(_, at)| at))
        });
        let genesis = self.genesis.as_mut().map(|(_, at)| at);
        for at in places.chain(genesis).filter(|at| **at < before) {
            *at = segment;
        }
    }

    /// Forgets entries in segments in front of `first`, which are gone.
    pub(super) fn dropped(&mut self, first: u64) {
        for group in self.groups.values_mut() {
            group.runs.retain(|run| run.segment >= first);
        }
    }

    /// Says which group has a hole between its snapshot and its first entry, if any.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        for (id, group) in &self.groups {
            let base = group.base();
            if let Some(first) = group.first().filter(|first| *first > base + 1) {
                return Err(format!(
                    "group {}: the snapshot ends at {base}, but the log begins at {first}",
                    id.0
                ));
            }
        }
        Ok(())
    }
}

/// Refuses a record that contradicts the group's log.
fn check(group: &Group, record: &Record) -> Result<(), String> {
    match record {
        Record::Entries { entries, .. } => group.check_entries(entries),
        Record::SnapshotMark { mark, .. } if mark.index.0 < group.base() => Err(format!(
            "snapshot mark {} is older than {}",
            mark.index,
            group.base()
        )),
        _ => Ok(()),
    }
}
