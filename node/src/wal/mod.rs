//! The write-ahead log: what a node promised, on disk, for all its Raft groups.
//!
//! # What it promises
//!
//! After [`Wal::sync`] returned, every batch so far comes back from [`Wal::open`], whole and in order, or `open` says that it
//! cannot be proven ([`Error::Damaged`]). A batch that was not synced comes back whole or not at all. Nothing that was trimmed,
//! cut or overwritten ever comes back. The bytes are in `docs/format/wal-v1.md`.
//!
//! # How it lies on the disk
//!
//! A directory holds segments, files of equal length named by a number that only grows, and a small `anchor`. A segment is a
//! row of 512-byte sectors. One call of [`Wal::append`] is one *batch*: it starts at a fresh sector and lies in one
//! segment, one sector behind the other; what is too large for a segment becomes a chain of batches that count only
//! together. So no sector is written again once it was synced, and a power cut can only hurt what was being written.
//!
//! Segments are made before they are needed, filled with zeros, and recycled when they are trimmed. So an append changes no file
//! length and no directory, and `fdatasync` has the least to do. A recycled file still holds its old sectors: every sector names
//! its segment, a file is only ever reused under a greater number, and so an old sector is recognised wherever it shows.
//!
//! # Torn or damaged
//!
//! Both look alike from afar: the log stops making sense somewhere. Three things tell them apart.
//!
//! 1. Every sector has a checksum over all of it. A disk writes a sector whole or not at all, so a power cut leaves it new or
//!    old, both with a good checksum. A bad checksum is therefore damage, wherever a batch could have been. (A device that
//!    tears inside a sector would be judged damaged, which is the safe mistake.)
//! 2. Every sector says up to which batch everything was synced when it was written. The greatest such number is the
//!    *floor*. Reading accepts batches in order until one is not whole. Stopping below the floor means that synced
//!    data is missing: damage. Stopping at or above it means a torn tail, however the pieces behind it are mixed, even
//!    when a later unsynced batch arrived whole and an earlier one did not.
//! 3. The anchor says which segments must exist and raises the floor. It is synced before the first sync in a new segment is
//!    reported, and before a trimmed segment is given up, so a lost segment, first, middle or last, is missed.
//!
//! A torn tail is blanked and synced before anything is written behind it, so its batch numbers can be used again: there are no
//! pieces left to mistake for the new batch. Damage is touched by nobody: `open` returns an error with a [`Wreck`],
//! and no `Wal`, so a node cannot vote or acknowledge on top of it. It sets the directory aside and comes back as a learner
//! under a new incarnation.
//!
//! # Failures while running
//!
//! A failed write or sync poisons the log for good: after a failed `fdatasync` the kernel may have dropped the data and report
//! success next time. For the same reason, `open` writes every batch above the floor once more, as it is, and syncs it
//! before it is handed out. Running out of space is different: room is made before the first byte of a batch is written,
//! and if there is none, [`Error::Full`] leaves the log as it was.
//!
//! # Trimming
//!
//! The log remembers for each group which segment holds which entries. [`Wal::release`] says what a group no longer needs (never
//! more than its snapshot mark covers); [`Wal::trim`] gives up segments at the front that hold nothing needed. The few small
//! things in them that still count, the newest promise, mark and genesis, are written again first, and so are the
//! entries of a group so slow that it would hold back everybody. Then the anchor, then the files.
//!
//! A mark that empties a group's log (a snapshot from the leader that the log does not agree with) is preceded by a
//! [`Record::Restart`]: replaying a log whose front is gone could not find out that the two disagreed.
//!
//! # Reading order
//!
//! `sector` and `record` (bytes), `live` (what records mean for each other), `scan` (reading and judging), `recover`
//! (opening), this file (writing), `trim`, `anchor`, `segment`, `disk`, `inspect`.
//!
//! # Caveats
//!
//! - The last synced batch, as long as nothing was written behind it and the log was not opened since, has no witness. If
//!   the disk acknowledged it and lost every sector of it without a trace, the log opens clean and shorter. One sector that
//!   arrived and one that did not look like a torn tail. No log without a second copy can do better.
//! - Two damaged places can hide each other in rare cases (both anchor slots stale, and the newest segment gone).
//! - Opening reads everything and keeps all entries in memory: entries share the memory of their batch.
//! - One call of `append` is encoded in memory as a whole, twice (payload and sectors), and the buffers are kept.
//! - A trim on a full disk may need a segment of its own for what it writes again, and then fails with [`Error::Full`]; stop
//!   accepting writes before the disk is full.
//! - `release` is not remembered. After opening, the log holds a little more than it needs until it is said again.
//! - One directory must be opened by one process; the caller keeps the lock.

mod anchor;
mod disk;
mod inspect;
mod live;
mod record;
mod recover;
mod scan;
mod sector;
mod segment;
mod trim;

#[cfg(test)]
mod tests;

pub use inspect::{Inspection, Item, inspect};
pub use record::{DecodeError, Entry, Genesis, HardState, Record, SnapshotMark, decode, encode};
pub use recover::{GroupLog, Recovered};
pub use segment::{Spare, SpareJob};
pub use trim::Trimmed;

use crate::types::{GroupId, Index};
use anchor::{Anchor, Claim};
use disk::Dir;
use live::Live;
use sector::{Header, ROOM, SECTOR};
use segment::{Prepared, Segment};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Fewest sectors of a segment.
const SEGMENT_SECTORS_MIN: u64 = 8;

/// How the log is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Length of a new segment file, bytes; a multiple of 512, at least 4,096.
    pub segment_bytes: u64,
    /// At least 1. More live segments than this, and [`Wal::trim`] writes the entries of slow groups again instead of waiting for them.
    pub segments_held_max: usize,
    /// Most bytes of entries that one [`Wal::trim`] writes again for slow groups.
    pub moved_bytes_max: u64,
}

impl Options {
    /// The usual proportions for segments of `segment_bytes`.
    pub fn new(segment_bytes: u64) -> Self {
        Options {
            segment_bytes,
            segments_held_max: 8,
            moved_bytes_max: segment_bytes / 4,
        }
    }

    fn validate(&self) -> Result<(), Error> {
        let sector = SECTOR as u64;
        if !self.segment_bytes.is_multiple_of(sector)
            || self.segment_bytes < SEGMENT_SECTORS_MIN * sector
        {
            let bytes = self.segment_bytes;
            return Err(Error::Invalid(format!(
                "segment_bytes is {bytes}; it must be a multiple of 512 and at least 4096"
            )));
        }
        if self.segments_held_max == 0 {
            return Err(Error::Invalid("segments_held_max is 0".to_owned()));
        }
        Ok(())
    }
}

/// The number of a batch. Numbers count up by one and never repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Batch(pub u64);

/// Where and how a log is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Segment; zero when it is the anchor.
    pub segment: u64,
    /// Offset in the segment file, bytes.
    pub offset: u64,
    /// What is wrong, for a person.
    pub detail: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segment, offset) = (self.segment, self.offset);
        write!(out, "segment {segment}, offset {offset}: {}", self.detail)
    }
}

/// What a log turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whole, and nothing behind its end.
    Clean,
    /// Whole, and behind its end the pieces of what was being written when the node stopped. It was never acknowledged.
    TornTail {
        /// The first batch that is not whole.
        batch: u64,
        /// Its sectors that are there.
        sectors_seen: u32,
        /// Its sectors in all; zero if none is there (a later one is).
        of: u32,
    },
    /// Something that was synced is missing or changed.
    Damaged(Damage),
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Clean => out.write_str("clean"),
            Verdict::TornTail {
                batch,
                sectors_seen,
                of,
            } => write!(
                out,
                "torn tail: batch {batch} has {sectors_seen} of {of} sectors; it was never acknowledged"
            ),
            Verdict::Damaged(damage) => write!(out, "damaged: {damage}"),
        }
    }
}

/// What is left of a damaged log: good for finding out who this node was, not for taking part. It is deliberately neither a
/// [`Recovered`] nor convertible into one.
#[derive(Clone, PartialEq, Eq)]
pub struct Wreck {
    /// What is wrong.
    pub damage: Damage,
    genesis: Option<Genesis>,
    groups: BTreeMap<GroupId, GroupLog>,
}

impl fmt::Debug for Wreck {
    /// Without the entries, which would flood a journal.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.groups.len();
        write!(out, "Wreck({}; {groups} groups readable)", self.damage)
    }
}

impl Wreck {
    /// The genesis, if it could be read: under this identity the node must not vote again.
    pub fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    /// The groups as far as they can be read in front of the damage. Promises made behind it are unknown, so no vote and no
    /// acknowledgement may rest on this.
    pub fn groups_without_promise(&self) -> &BTreeMap<GroupId, GroupLog> {
        &self.groups
    }
}

/// What went wrong, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Synced data is missing or changed: rejoin under a new incarnation after [`set_aside`].
    #[error("the log is damaged: {}", .0.damage)]
    Damaged(Box<Wreck>),
    /// The log was written by a newer version of this program: use that one. Nothing was changed.
    #[error(
        "{file} has format version {version}; this program knows {} (use a newer one)",
        sector::VERSION
    )]
    NewerVersion {
        /// File name.
        file: String,
        /// Its version.
        version: u8,
    },
    /// No space for another segment. Nothing was written; try again when there is space.
    #[error("no space for a segment of {bytes} bytes: {source}")]
    Full {
        /// What was needed, bytes.
        bytes: u64,
        /// What the file system said.
        source: io::Error,
    },
    /// A write or sync failed once, so nothing is certain any more: stop the node.
    #[error("the log is poisoned: {why}")]
    Poisoned {
        /// What failed.
        why: String,
    },
    /// The log could not be read or put in order when it was opened.
    #[error("{doing}: {source}")]
    Open {
        /// What was being done.
        doing: String,
        /// What the file system said.
        source: io::Error,
    },
    /// The caller asked for something that contradicts the log: a bug. Nothing was written.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// An error after which nothing more is certain.
    pub fn poisoned(why: String) -> Error {
        Error::Poisoned { why }
    }

    /// True when nothing was written for want of space, and a later try may go better.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }

    /// For `map_err`: an error while `what` is read.
    fn reading(what: &str) -> impl FnOnce(io::Error) -> Error {
        let doing = format!("reading {what}");
        move |source| Error::Open { doing, source }
    }

    fn repairing(source: io::Error) -> Error {
        let doing = "putting the end of the log in order".to_owned();
        Error::Open { doing, source }
    }

    /// An error while a segment of `bytes` was prepared.
    fn preparing(source: io::Error, bytes: u64) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::Full { bytes, source }
            }
            _ => Error::Poisoned {
                why: format!("preparing a segment: {source}"),
            },
        }
    }
}

/// Numbers of an open log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all segment files, spares included.
    pub bytes: u64,
    /// Live segments.
    pub segments: usize,
    /// Segments made ready.
    pub prepared: usize,
    /// Number of the oldest live segment; zero for none.
    pub first_segment: u64,
    /// Number of the newest live segment; zero for none.
    pub last_segment: u64,
    /// Last batch written.
    pub batch: Batch,
    /// Last batch known to be durable.
    pub synced: Batch,
    /// Syncs since the log was opened.
    pub syncs: u64,
}

/// An open log. One owner; every call blocks on the disk.
#[derive(Debug)]
pub struct Wal {
    dir: Dir,
    options: Options,
    /// Live segments, oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Segments made ready, numbered on from the last live one.
    prepared: VecDeque<Prepared>,
    /// Sectors used in the last live segment.
    tail: u64,
    /// Number of the next batch.
    next_batch: u64,
    /// Every batch up to this one is durable.
    synced: u64,
    anchor: Anchor,
    live: Live,
    /// Encoded records, kept for its memory.
    payload: Vec<u8>,
    /// Framed sectors, kept for its memory.
    frames: Vec<u8>,
    /// The first failure.
    poisoned: Option<String>,
    syncs: u64,
    /// Spare jobs handed out, for their file names.
    spare_jobs: u64,
}

impl Wal {
    /// Writes `records` as one batch: after a crash all of them are there or none. Durable only after [`Wal::sync`].
    /// Fails without a trace with [`Error::Full`] and [`Error::Invalid`].
    pub fn append(&mut self, records: &[Record]) -> Result<Batch, Error> {
        self.healthy()?;
        if records.is_empty() {
            return Ok(Batch(self.next_batch - 1));
        }
        self.encode(records)?;
        let sectors = sector::sectors_for(self.payload.len()) as u64;
        let segment = self.make_room(sectors)?;
        let staged = self.live.stage(records, segment).map_err(Error::Invalid)?;
        let payload = std::mem::take(&mut self.payload);
        let written = self.write(&payload, sectors);
        self.payload = payload;
        self.fatal("writing a batch", written)?;
        self.live.commit(staged);
        Ok(Batch(self.next_batch - 1))
    }

    /// Makes every batch so far durable, and says which was the last.
    pub fn sync(&mut self) -> Result<Batch, Error> {
        self.healthy()?;
        let synced = self.sync_now();
        self.fatal("syncing", synced)?;
        Ok(Batch(self.synced))
    }

    /// [`Wal::append`] and [`Wal::sync`].
    pub fn append_and_sync(&mut self, records: &[Record]) -> Result<Batch, Error> {
        self.append(records)?;
        self.sync()
    }

    /// The group no longer needs its entries up to `through`. What no snapshot mark covers stays all the same. Kept in memory
    /// only: say it again after opening.
    pub fn release(&mut self, group: GroupId, through: Index) {
        self.live.release(group, through);
    }

    /// Makes sure that a segment is ready for when the current one is full.
    pub fn prepare_spare(&mut self) -> Result<(), Error> {
        match self.spare_job()? {
            Some(job) => {
                let spare = self.settle(job.run())?;
                self.adopt_spare(spare)
            }
            None => Ok(()),
        }
    }

    /// The making of a spare segment as a job to be run elsewhere, if none is ready. Give the result to [`Wal::adopt_spare`].
    pub fn spare_job(&mut self) -> Result<Option<SpareJob>, Error> {
        self.healthy()?;
        if !self.prepared.is_empty() {
            return Ok(None);
        }
        let dir = self.dir.again();
        let dir = self.fatal("opening the log's directory", dir)?;
        self.spare_jobs += 1;
        let name = format!("spare-{}", self.spare_jobs);
        Ok(Some(SpareJob::new(dir, &name, self.options.segment_bytes)))
    }

    /// Takes a finished spare in as the next segment to be used.
    pub fn adopt_spare(&mut self, spare: Spare) -> Result<(), Error> {
        self.healthy()?;
        let number = self.next_number();
        let renamed = self.dir.rename(&spare.name, &segment::name(number));
        let renamed = renamed.and_then(|()| self.dir.sync());
        self.fatal("naming a segment", renamed)?;
        let file = spare.file;
        self.prepared.push_back(Prepared { number, file });
        Ok(())
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        let live: u64 = self.segments.iter().map(|one| one.bytes).sum();
        Stats {
            bytes: live + self.prepared.len() as u64 * self.options.segment_bytes,
            segments: self.segments.len(),
            prepared: self.prepared.len(),
            first_segment: self.segments.front().map_or(0, |one| one.number),
            last_segment: self.segments.back().map_or(0, |one| one.number),
            batch: Batch(self.next_batch - 1),
            synced: Batch(self.synced),
            syncs: self.syncs,
        }
    }

    /// Why the log is poisoned, if it is.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    fn encode(&mut self, records: &[Record]) -> Result<(), Error> {
        self.payload.clear();
        let restarts = self.live.restarts(records);
        for (place, record) in records.iter().enumerate() {
            if let (true, Record::SnapshotMark { group, .. }) = (restarts.contains(&place), record)
            {
                let restart = Record::Restart { group: *group };
                encode(&restart, &mut self.payload)
                    .map_err(|why| Error::Invalid(why.to_string()))?;
            }
            encode(record, &mut self.payload).map_err(|why| Error::Invalid(why.to_string()))?;
        }
        Ok(())
    }

    /// Sees to it that `sectors` can be written without creating a file, and says in which segment they will begin.
    fn make_room(&mut self, sectors: u64) -> Result<u64, Error> {
        if self.fits(sectors) {
            return Ok(self.segments.back().map_or(0, |one| one.number));
        }
        let each = self.options.segment_bytes / SECTOR as u64;
        let needed = sectors.div_ceil(each);
        while (self.prepared.len() as u64) < needed {
            let dir = self.dir.again();
            let dir = self.fatal("opening the log's directory", dir)?;
            let made = SpareJob::new(dir, "next", self.options.segment_bytes).run();
            let spare = self.settle(made)?;
            self.adopt_spare(spare)?;
        }
        Ok(self.prepared.front().map_or(0, |one| one.number))
    }

    /// True when the current segment has room.
    fn fits(&self, sectors: u64) -> bool {
        let room = self.segments.back().map(|one| one.bytes / SECTOR as u64);
        room.is_some_and(|room| self.tail + sectors <= room)
    }

    /// Writes the payload as one batch, or as a chain of batches that fill a segment each.
    fn write(&mut self, payload: &[u8], sectors: u64) -> io::Result<()> {
        if self.fits(sectors) {
            return self.write_batch(payload, false);
        }
        let each = usize::try_from(self.options.segment_bytes).map_err(io::Error::other)?;
        let parts = payload.chunks(each / SECTOR * ROOM);
        let last = parts.len() - 1;
        for (place, part) in parts.enumerate() {
            self.begin_segment(place > 0);
            self.write_batch(part, place < last)?;
        }
        Ok(())
    }

    /// Goes on in the next segment made ready.
    fn begin_segment(&mut self, chained: bool) {
        let ready = self.prepared.pop_front();
        let Prepared { number, file } = ready.expect("make_room prepared enough segments");
        self.segments.push_back(Segment {
            number,
            first_batch: self.next_batch,
            chained,
            bytes: self.options.segment_bytes,
            file,
            dirty: false,
        });
        self.tail = 0;
    }

    fn write_batch(&mut self, payload: &[u8], continues: bool) -> io::Result<()> {
        let segment = self.segments.back_mut().expect("a segment was begun");
        let like = Header {
            segment: segment.number,
            batch: self.next_batch,
            synced: self.synced,
            continues,
            index: 0,
            count: 0,
        };
        self.frames.clear();
        sector::frame(payload, like, &mut self.frames);
        segment.dirty = true;
        segment
            .file
            .write_at(&self.frames, self.tail * SECTOR as u64)?;
        self.tail += (self.frames.len() / SECTOR) as u64;
        self.next_batch += 1;
        Ok(())
    }

    fn sync_now(&mut self) -> io::Result<()> {
        for segment in self.segments.iter_mut().filter(|one| one.dirty) {
            segment.file.sync()?;
            segment.dirty = false;
        }
        self.syncs += 1;
        self.synced = self.next_batch - 1;
        // Before anybody is told: otherwise a new segment could vanish as a whole without a trace.
        let newest = self.segments.back().map_or(0, |one| one.number);
        if newest != self.anchor.claim().newest_segment {
            self.write_anchor_now()?;
        }
        Ok(())
    }

    /// Testifies to the segments there are and to what is synced.
    fn write_anchor_now(&mut self) -> io::Result<()> {
        let old = self.anchor.claim();
        let first = self.segments.front();
        self.anchor.write(Claim {
            sequence: 0,
            first_segment: first.map_or(old.first_segment, |one| one.number),
            first_batch: first.map_or(old.first_batch, |one| one.first_batch),
            newest_segment: self.segments.back().map_or(0, |one| one.number),
            synced: self.synced,
        })
    }

    /// The number of the next segment to be made ready.
    fn next_number(&self) -> u64 {
        let live = self.segments.back().map(|one| one.number + 1);
        let ready = self.prepared.back().map(|one| one.number + 1);
        let first = self.anchor.claim().first_segment;
        ready.or(live).unwrap_or(first)
    }

    fn healthy(&self) -> Result<(), Error> {
        match &self.poisoned {
            Some(why) => Err(Error::Poisoned { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Poisons the log if `result` is an error.
    fn fatal<T>(&mut self, doing: &str, result: io::Result<T>) -> Result<T, Error> {
        let why = |error: io::Error| Error::Poisoned {
            why: format!("{doing}: {error}"),
        };
        self.settle(result.map_err(why))
    }

    /// Poisons the log if `result` says that it is.
    fn settle<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Poisoned { why }) = &result {
            self.poisoned = Some(why.clone());
        }
        result
    }
}

/// Moves a log that cannot be used out of the way, so that a new one can begin at `path`; says where it went. Nothing is lost.
pub fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    disk::set_aside(path).map_err(|source| Error::Open {
        doing: format!("setting {} aside", path.display()),
        source,
    })
}
