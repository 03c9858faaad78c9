//! Opening a log: replaying it, judging it, and putting its end in order.
//!
//! Nothing is written before the verdict is sound. Then, and in this order: a torn tail is blanked, batches that nobody
//! testifies were synced are written once more as they are (a failed sync may have left them in memory only, and the
//! next sync would not say so), both are synced, and the anchor testifies to what was handed out. A crash at any point
//! leaves a log that opens to the same contents.

use super::anchor::Anchor;
use super::disk::{Dir, Handle};
use super::live::{Effect, Live};
use super::record::{self, Genesis, HardState, Record, SnapshotMark};
use super::scan::{Place, Scan, Whole, scan};
use super::sector::SECTOR;
use super::segment::{self, Prepared, Segment, TEMPORARY};
use super::{Damage, Error, Options, Verdict, Wal, Wreck};
use crate::types::GroupId;
use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::path::Path;

/// What the log holds of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// Newest promise; `None` when the group made none yet.
    pub hard_state: Option<HardState>,
    /// Newest snapshot mark: a snapshot file with this index and term must exist.
    pub snapshot: Option<SnapshotMark>,
    /// Entries, consecutive. They may begin below the mark, never more than one above it.
    pub entries: Vec<record::Entry>,
}

/// Everything a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Who the directory belongs to; `None` for a new one.
    pub genesis: Option<Genesis>,
    /// Every group that was ever written.
    pub groups: BTreeMap<GroupId, GroupLog>,
    /// `Clean` or `TornTail`, never `Damaged`: that is [`Error::Damaged`].
    pub verdict: Verdict,
    /// Live segments.
    pub segments: usize,
    /// Bytes of the live segment files.
    pub bytes: u64,
}

/// Builds groups from records.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The log's picture of itself.
    pub(super) live: Live,
    /// Newest genesis.
    pub(super) genesis: Option<Genesis>,
    /// The groups.
    pub(super) groups: BTreeMap<GroupId, GroupLog>,
}

impl Replay {
    /// Takes one record in.
    pub(super) fn take(&mut self, batch: Whole, record: Record) -> Result<(), String> {
        let effect = self.live.apply(&record, batch.place.segment)?;
        match record {
            Record::Genesis(genesis) => self.genesis = Some(genesis),
            Record::Entries { group, entries } => {
                self.groups.entry(group).or_default().take(effect, entries);
            }
            Record::HardState { group, state } => {
                self.groups.entry(group).or_default().hard_state = Some(state);
            }
            Record::SnapshotMark { group, mark } => {
                let group = self.groups.entry(group).or_default();
                group.snapshot = Some(mark);
                group.take(effect, Vec::new());
            }
            Record::Restart { group } => {
                self.groups
                    .entry(group)
                    .or_default()
                    .take(effect, Vec::new());
            }
            Record::Note(_) => {}
        }
        Ok(())
    }
}

impl GroupLog {
    fn take(&mut self, effect: Effect, mut entries: Vec<record::Entry>) {
        match effect {
            Effect::Keep => {}
            Effect::Clear => self.entries.clear(),
            Effect::CutFrom(index) => {
                let keep = self.entries.partition_point(|one| one.index < index);
                self.entries.truncate(keep);
            }
        }
        self.entries.append(&mut entries);
    }
}

impl Wal {
    /// Opens the log in `path`, or begins one. A damaged log is left exactly as it is and comes back as [`Error::Damaged`]:
    /// no [`Wal`] exists for it, so nothing can be promised on it.
    pub fn open(path: &Path, options: Options) -> Result<(Wal, Recovered), Error> {
        options.validate()?;
        let dir = Dir::open_or_create(path).map_err(Error::reading("the log's directory"))?;
        let mut replay = Replay::default();
        let found = scan(&dir, &mut |batch, record| replay.take(batch, record))?;
        let found = sound(found, &mut replay)?;
        let wal = repair(dir, options, &found, replay.live).map_err(Error::repairing)?;
        let recovered = Recovered {
            genesis: replay.genesis,
            groups: replay.groups,
            verdict: found.verdict,
            segments: wal.segments.len(),
            bytes: wal.segments.iter().map(|one| one.bytes).sum(),
        };
        Ok((wal, recovered))
    }
}

/// Passes a sound log on, and turns a damaged one into an error with its remains.
fn sound(found: Scan, replay: &mut Replay) -> Result<Scan, Error> {
    let damage = match &found.verdict {
        Verdict::Damaged(damage) => damage.clone(),
        _ => match replay.live.check_whole() {
            Ok(()) => return Ok(found),
            Err(detail) => Damage {
                segment: found.end.segment,
                offset: found.end.offset(),
                detail,
            },
        },
    };
    let genesis = replay.genesis.take();
    let groups = std::mem::take(&mut replay.groups);
    Err(Error::Damaged(Box::new(Wreck {
        damage,
        genesis,
        groups,
    })))
}

fn repair(dir: Dir, options: Options, found: &Scan, live: Live) -> io::Result<Wal> {
    mend(&dir, found)?;
    let anchor = match found.claim {
        Some(claim) => Anchor::open(&dir, claim)?,
        None => Anchor::create(&dir)?,
    };
    let first = anchor.claim().first_segment;
    let segments = open_segments(&dir, found)?;
    let next = segments.back().map_or(first, |one| one.number + 1);
    remove_leftovers(&dir, found, first)?;
    let prepared = open_prepared(&dir, found, next, options.segment_bytes)?;
    dir.sync()?;
    let mut wal = Wal {
        dir,
        options,
        tail: if segments.is_empty() {
            0
        } else {
            found.end.sector
        },
        segments,
        prepared,
        next_batch: found.last_batch.max(anchor.claim().first_batch - 1) + 1,
        synced: found.last_batch,
        anchor,
        live,
        payload: Vec::new(),
        frames: Vec::new(),
        poisoned: None,
        syncs: 0,
        spare_jobs: 0,
    };
    // Twice: both slots are fresh and whole afterwards, whatever they were.
    wal.write_anchor_now()?;
    wal.write_anchor_now()?;
    Ok(wal)
}

/// Blanks what is to be cut, writes what is unproven once more, and syncs both.
fn mend(dir: &Dir, found: &Scan) -> io::Result<()> {
    let mut files: BTreeMap<u64, Handle> = BTreeMap::new();
    for place in &found.cut {
        handle(dir, &mut files, *place)?.write_at(&[0; SECTOR], place.offset())?;
    }
    let mut bytes = Vec::new();
    for one in &found.unproven {
        bytes.clear();
        bytes.resize(one.count as usize * SECTOR, 0);
        let file = handle(dir, &mut files, one.place)?;
        file.read_at(&mut bytes, one.place.offset())?;
        file.write_at(&bytes, one.place.offset())?;
    }
    files.values().try_for_each(Handle::sync)
}

/// The file of `place`, opened once.
fn handle<'a>(
    dir: &Dir,
    files: &'a mut BTreeMap<u64, Handle>,
    place: Place,
) -> io::Result<&'a Handle> {
    match files.entry(place.segment) {
        Entry::Occupied(open) => Ok(open.into_mut()),
        Entry::Vacant(vacant) => Ok(vacant.insert(must_open(dir, place.segment)?)),
    }
}

fn must_open(dir: &Dir, number: u64) -> io::Result<Handle> {
    let file = dir.file(&segment::name(number), true)?;
    file.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn open_segments(dir: &Dir, found: &Scan) -> io::Result<VecDeque<Segment>> {
    let open = |(number, one): (&u64, &super::scan::FoundSegment)| {
        Ok(Segment {
            number: *number,
            first_batch: one.first_batch,
            chained: one.chained,
            bytes: one.bytes,
            file: must_open(dir, *number)?,
            dirty: false,
        })
    };
    found.segments.iter().map(open).collect()
}

/// Removes files that were trimmed but not yet gone, and files that were not yet finished.
fn remove_leftovers(dir: &Dir, found: &Scan, first: u64) -> io::Result<()> {
    for number in found.files.iter().filter(|number| **number < first) {
        dir.remove(&segment::name(*number))?;
    }
    for name in dir.names()?.iter().filter(|one| one.ends_with(TEMPORARY)) {
        dir.remove(name)?;
    }
    Ok(())
}

/// Opens the segments made ready behind the last live one, and removes those that are of no use.
fn open_prepared(
    dir: &Dir,
    found: &Scan,
    mut next: u64,
    segment_bytes: u64,
) -> io::Result<VecDeque<Prepared>> {
    let mut prepared = VecDeque::new();
    let newer = found.files.iter().copied().filter(|number| *number >= next);
    for number in Vec::from_iter(newer) {
        let file = must_open(dir, number)?;
        if number == next && file.len()? == segment_bytes {
            prepared.push_back(Prepared { number, file });
            next += 1;
        } else {
            dir.remove(&segment::name(number))?;
        }
    }
    Ok(prepared)
}
