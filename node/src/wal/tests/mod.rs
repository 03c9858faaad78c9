//! Facts about the log, each against a model that only knows what records mean, and against images of its files.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests copy, tear and flip the files that the log wrote"
)]

mod crash;
mod facts;
mod fixture;
mod model;
mod rot;

use super::*;
use crate::types::{ClusterId, Incarnation, NodeId, Term};
use bytes::Bytes;
use std::fs;

/// Small segments, so that everything happens often.
pub(super) const SEGMENT: u64 = 4096;

pub(super) fn options() -> Options {
    Options {
        segment_bytes: SEGMENT,
        segments_held_max: 4,
        moved_bytes_max: 2048,
    }
}

pub(super) fn open(path: &Path) -> (Wal, Recovered) {
    Wal::open(path, options()).unwrap()
}

/// A repeatable source of choices (splitmix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(super) fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry {
        index: Index(index),
        term: Term(term),
        kind: (index % 3) as u8,
        context: Bytes::from(vec![index as u8; (index % 4) as usize]),
        data: Bytes::from(vec![(index * 31 + term) as u8; bytes]),
    }
}

pub(super) fn entries(group: u64, from: u64, count: u64, term: u64, bytes: usize) -> Record {
    Record::Entries {
        group: GroupId(group),
        entries: (from..from + count)
            .map(|index| entry(index, term, bytes))
            .collect(),
    }
}

pub(super) fn mark(group: u64, index: u64, term: u64) -> Record {
    Record::SnapshotMark {
        group: GroupId(group),
        mark: SnapshotMark {
            index: Index(index),
            term: Term(term),
        },
    }
}

pub(super) fn promise(group: u64, term: u64, commit: u64) -> Record {
    Record::HardState {
        group: GroupId(group),
        state: HardState {
            term: Term(term),
            vote: NodeId(2),
            commit: Index(commit),
        },
    }
}

pub(super) fn genesis(node: u64) -> Record {
    Record::Genesis(Genesis {
        cluster_id: ClusterId(0xc1),
        node_id: NodeId(node),
        incarnation: Incarnation(7),
        extra: Bytes::from_static(b"founders"),
    })
}

/// The indexes of a recovered group's entries.
pub(super) fn indexes(recovered: &Recovered, group: u64) -> Vec<u64> {
    let group = recovered.groups.get(&GroupId(group));
    let entries = group.map(|one| one.entries.iter().map(|entry| entry.index.0));
    entries.into_iter().flatten().collect()
}

/// Every file of a directory, by name.
pub(super) type Image = BTreeMap<String, Vec<u8>>;

pub(super) fn image(path: &Path) -> Image {
    let files = fs::read_dir(path).unwrap().map(|one| one.unwrap());
    files
        .map(|one| {
            let name = one.file_name().into_string().unwrap();
            (name, fs::read(one.path()).unwrap())
        })
        .collect()
}

/// Makes `path` hold exactly `image`.
pub(super) fn restore(path: &Path, image: &Image) {
    if path.exists() {
        fs::remove_dir_all(path).unwrap();
    }
    fs::create_dir_all(path).unwrap();
    for (name, bytes) in image {
        fs::write(path.join(name), bytes).unwrap();
    }
}

/// One group as the model has it: nothing is ever trimmed.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelGroup {
    pub(super) state: Option<HardState>,
    pub(super) mark: Option<SnapshotMark>,
    pub(super) log: BTreeMap<u64, Entry>,
    pub(super) released: u64,
}

impl ModelGroup {
    pub(super) fn base(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.index.0)
    }

    pub(super) fn last(&self) -> u64 {
        self.log.keys().next_back().copied().unwrap_or(self.base())
    }
}

/// What records mean, without a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) genesis: Option<Genesis>,
    pub(super) groups: BTreeMap<GroupId, ModelGroup>,
}

impl Model {
    pub(super) fn apply(&mut self, records: &[Record]) {
        for record in records {
            self.apply_one(record);
        }
    }

    fn apply_one(&mut self, record: &Record) {
        match record {
            Record::Genesis(one) => self.genesis = Some(one.clone()),
            Record::Note(_) => {}
            Record::Restart { group } => self.groups.entry(*group).or_default().log.clear(),
            Record::HardState { group, state } => {
                self.groups.entry(*group).or_default().state = Some(*state);
            }
            Record::Entries { group, entries } => {
                let log = &mut self.groups.entry(*group).or_default().log;
                log.split_off(&entries[0].index.0);
                log.extend(entries.iter().map(|one| (one.index.0, one.clone())));
            }
            Record::SnapshotMark { group, mark } => {
                let group = self.groups.entry(*group).or_default();
                let at = mark.index.0;
                let begins_behind = group.log.keys().next().is_some_and(|first| *first > at);
                let same = group.log.get(&at).is_some_and(|one| one.term == mark.term);
                if !begins_behind && !same {
                    group.log.clear();
                }
                group.mark = Some(*mark);
            }
        }
    }

    /// Says how `recovered` differs from what it must be.
    pub(super) fn compare(&self, recovered: &Recovered) -> Result<(), String> {
        if self.genesis != recovered.genesis {
            return Err("genesis".to_owned());
        }
        if !self.groups.keys().eq(recovered.groups.keys()) {
            return Err(format!("groups {:?}", recovered.groups.keys()));
        }
        for (id, group) in &self.groups {
            let found = &recovered.groups[id];
            if group.state != found.hard_state || group.mark != found.snapshot {
                return Err(format!("{id}: {:?} {:?}", found.hard_state, found.snapshot));
            }
            let kept: BTreeMap<u64, &Entry> =
                found.entries.iter().map(|one| (one.index.0, one)).collect();
            if let Some(index) = group
                .log
                .keys()
                .find(|index| **index > group.released && !kept.contains_key(index))
            {
                return Err(format!("{id}: entry {index} is lost"));
            }
            if let Some(index) = kept.iter().find(|(at, one)| group.log.get(at) != Some(one)) {
                return Err(format!("{id}: entry {} is wrong", index.0));
            }
        }
        Ok(())
    }

    /// A random batch that a correct node could write now.
    pub(super) fn batch(&self, chance: &mut Chance) -> Vec<Record> {
        let mut ahead = self.clone();
        let mut records = Vec::new();
        for _ in 0..=chance.below(3) {
            let record = ahead.record(chance);
            ahead.apply_one(&record);
            records.push(record);
        }
        records
    }

    fn record(&self, chance: &mut Chance) -> Record {
        let group = chance.below(3);
        let known = self
            .groups
            .get(&GroupId(group))
            .cloned()
            .unwrap_or_default();
        let (base, last) = (known.base(), known.last());
        match chance.below(16) {
            0 => genesis(chance.below(5)),
            1 => Record::Note(format!("note {}", chance.next())),
            2..=4 => promise(group, chance.below(9), chance.below(99)),
            5..=6 if last > base => {
                let at = base + 1 + chance.below(last - base);
                mark(group, at, known.log[&at].term.0)
            }
            7 => mark(group, last + 1 + chance.below(9), chance.below(9)),
            8 if last > base => {
                let at = base + 1 + chance.below(last - base);
                mark(group, at, known.log[&at].term.0 + 1)
            }
            9 if last > base => {
                let from = base + 1 + chance.below(last - base);
                entries(group, from, 1 + chance.below(4), chance.below(9), 40)
            }
            10 => {
                let bytes = 300 * chance.below(50) as usize;
                entries(group, last + 1, 1, chance.below(9), bytes)
            }
            _ => {
                let bytes = chance.below(400) as usize;
                entries(group, last + 1, 1 + chance.below(5), chance.below(9), bytes)
            }
        }
    }

    /// Releases a random stretch of a random group, in both.
    pub(super) fn release(&mut self, wal: &mut Wal, chance: &mut Chance) {
        let group = GroupId(chance.below(3));
        if let Some(known) = self.groups.get_mut(&group) {
            let through = known.base().saturating_sub(chance.below(4));
            known.released = known.released.max(through);
            wal.release(group, Index(through));
        }
    }
}

/// A log with some random, synced history.
pub(super) fn history(path: &Path, steps: u64, chance: &mut Chance) -> (Wal, Model) {
    let (mut wal, _) = open(path);
    let mut model = Model::default();
    for _ in 0..steps {
        let batch = model.batch(chance);
        wal.append_and_sync(&batch).unwrap();
        model.apply(&batch);
        if chance.below(4) == 0 {
            model.release(&mut wal, chance);
            wal.trim().unwrap();
        }
    }
    (wal, model)
}
