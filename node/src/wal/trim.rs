//! Giving up segments at the front that nobody needs any more.
//!
//! Order: what is still needed of them is written again and synced; the anchor stops asking for them; then the files go. A
//! crash in between leaves a few records twice, or files that the anchor no longer asks for and the next opening removes.

use super::recover::Replay;
use super::scan::scan;
use super::segment::{self, Prepared, Segment};
use super::{Error, Record, Wal};
use crate::types::{GroupId, Index};
use std::io;

/// What a trim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Segments given up.
    pub segments: usize,
    /// Those of them whose file is kept as the next spare.
    pub recycled: usize,
    /// Records written again: newest promises, marks, genesis, and entries of slow groups.
    pub rewritten: usize,
}

impl Wal {
    /// Gives up whole segments at the front. Unsynced batches are synced first. [`Error::Full`] leaves the log as it was.
    pub fn trim(&mut self) -> Result<Trimmed, Error> {
        self.healthy()?;
        let mut moved = 0;
        if self.segments.len() > self.options.segments_held_max {
            moved = self.move_slow_groups()?;
        }
        let Some(first) = self.first_to_keep() else {
            return Ok(Trimmed {
                rewritten: moved,
                ..Trimmed::default()
            });
        };
        let small = self.live.small_records(first);
        if !small.is_empty() {
            let segment = self.write_again(&small)?;
            self.live.moved_small(first, segment);
        }
        self.sync()?;
        let given_up = self.give_up(first);
        let (segments, recycled) = self.fatal("giving up segments", given_up)?;
        Ok(Trimmed {
            segments,
            recycled,
            rewritten: moved + small.len(),
        })
    }

    /// The first segment that must stay, if any in front of it can go. Never the current one; never one that begins with the
    /// middle of a chain.
    fn first_to_keep(&self) -> Option<u64> {
        let current = self.segments.back()?.number;
        let needed = self.live.oldest_needed().unwrap_or(current).min(current);
        let whole = self.segments.iter().filter(|one| !one.chained);
        let first = whole
            .map(|one| one.number)
            .filter(|at| *at <= needed)
            .max()?;
        (first > self.segments.front()?.number).then_some(first)
    }

    /// Writes records that the log already knows once more, past the checks for new ones; says where.
    fn write_again(&mut self, records: &[Record]) -> Result<u64, Error> {
        self.encode(records)?;
        let sectors = super::sector::sectors_for(self.payload.len()) as u64;
        let segment = self.make_room(sectors)?;
        let payload = std::mem::take(&mut self.payload);
        let written = self.write(&payload, sectors);
        self.payload = payload;
        self.fatal("writing records again", written)?;
        Ok(segment)
    }

    /// Writes the entries of groups that hold back more than the newest `segments_held_max` segments again, as far as the
    /// budget goes; says how many records.
    fn move_slow_groups(&mut self) -> Result<usize, Error> {
        let keep = self.segments.len() - self.options.segments_held_max;
        let slow = self.live.holding_back(self.segments[keep].number);
        if slow.is_empty() {
            return Ok(0);
        }
        let mut budget = self.options.moved_bytes_max;
        let mut moved = 0;
        for (record, bytes) in self.read_again(&slow)? {
            let Record::Entries { group, entries } = &record else {
                continue;
            };
            if bytes > budget {
                continue;
            }
            budget -= bytes;
            let segment = self.write_again(std::slice::from_ref(&record))?;
            self.live.moved(*group, entries, segment);
            moved += 1;
        }
        Ok(moved)
    }

    /// The needed entries of `groups` from disk, as one record per group with its size in bytes.
    fn read_again(&mut self, groups: &[(GroupId, Index)]) -> Result<Vec<(Record, u64)>, Error> {
        let mut replay = Replay::default();
        let wanted = |record: &Record| match record {
            Record::Entries { group, .. } | Record::SnapshotMark { group, .. } => {
                groups.iter().any(|(id, _)| id == group)
            }
            _ => false,
        };
        let scanned = scan(&self.dir, &mut |batch, record| {
            if wanted(&record) {
                replay.take(batch, record)?;
            }
            Ok(())
        });
        // Whatever is wrong now was not when the log was opened.
        if !matches!(&scanned, Ok(found) if found.verdict == super::Verdict::Clean) {
            let why = "the log cannot be read back".to_owned();
            return self.settle(Err(Error::Poisoned { why }));
        }
        let mut records = Vec::new();
        for (group, first) in groups {
            let mut entries = replay.groups.remove(group).unwrap_or_default().entries;
            entries.retain(|one| one.index >= *first);
            let bytes = entries
                .iter()
                .map(|one| one.data.len() + one.context.len() + 16);
            let bytes = bytes.sum::<usize>() as u64;
            let group = *group;
            records.push((Record::Entries { group, entries }, bytes));
        }
        Ok(records)
    }

    /// Lets the anchor forget the segments in front of `first`, then the directory; says how many, and how many were recycled.
    fn give_up(&mut self, first: u64) -> io::Result<(usize, usize)> {
        let keep = self.segments.partition_point(|one| one.number < first);
        let gone: Vec<Segment> = self.segments.drain(..keep).collect();
        self.live.dropped(first);
        self.write_anchor_now()?;
        let mut recycled = 0;
        for one in &gone {
            let fits = one.bytes == self.options.segment_bytes;
            if fits && self.prepared.is_empty() {
                self.recycle(one.number)?;
                recycled += 1;
            } else {
                self.dir.remove(&segment::name(one.number))?;
            }
        }
        self.dir.sync()?;
        Ok((gone.len(), recycled))
    }

    /// Gives the file of a segment that was given up the next number.
    fn recycle(&mut self, old: u64) -> io::Result<()> {
        let number = self.next_number();
        let name = segment::name(number);
        self.dir.rename(&segment::name(old), &name)?;
        let file = self.dir.file(&name, true)?;
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        self.prepared.push_back(Prepared { number, file });
        Ok(())
    }
}
