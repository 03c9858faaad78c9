//! The bytes of one file: what programs see, and what the platter holds.
//!
//! Programs see `pages` up to `len`. For each page changed since the last good sync, `dirty` keeps
//! what the platter still holds. A failed sync moves pages from `dirty` to `doomed`: programs go
//! on reading the new bytes, no later sync writes them, and the next power loss brings the old
//! ones back; only writing the page again saves it.
//!
//! Invariants: no page is both dirty and doomed; `charged` counts allocated pages, written or
//! reserved. Left out: extents, block sharing, partial metadata. After an unsynced truncate and
//! rewrite, old and new pages may mix, which is harsher than a journalling file system.

use crate::Rng;
use crate::fault::CrashMode;
pub(crate) use crate::page::{PAGE, Page};
use std::collections::BTreeMap;

/// Bytes in a sector: the unit that a power loss never splits.
pub(crate) const SECTOR: usize = 512;

/// The content of a regular file.
#[derive(Debug, Default)]
pub(crate) struct FileData {
    /// What programs see, by page number; an absent page reads as zeros.
    pub(crate) pages: BTreeMap<u64, Page>,
    /// What the platter holds of each page not yet synced (`None`: a hole).
    pub(crate) dirty: BTreeMap<u64, Option<Page>>,
    /// What the platter holds of each page that a failed sync gave up (`None`: a hole).
    pub(crate) doomed: BTreeMap<u64, Option<Page>>,
    /// Length that programs see, in bytes.
    pub(crate) len: u64,
    /// Length on the platter, in bytes.
    pub(crate) durable_len: u64,
    /// Pages below this number are allocated even if never written.
    pub(crate) reserved: u64,
    /// Pages that count against the disk's capacity.
    pub(crate) charged: u64,
}

/// What a power loss does to one dirty page.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The new bytes reached the platter.
    Kept,
    /// The old bytes are still there.
    Lost,
    /// Sector `i` is new if bit `i` is set.
    Torn(u64),
}

impl FileData {
    /// Copies bytes from `offset` into `buf`; returns how many there were.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.len.saturating_sub(offset) as usize);
        for (page, within, range) in pieces(offset, n) {
            let out = &mut buf[range];
            match self.pages.get(&page) {
                Some(bytes) => out.copy_from_slice(&bytes[within..within + out.len()]),
                None => out.fill(0),
            }
        }
        n
    }

    /// Writes until done or until `room` new pages are used up; returns the bytes written.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], mut room: u64) -> usize {
        let mut done = 0;
        for (page, within, range) in pieces(offset, data.len()) {
            let allocates = page >= self.reserved && !self.pages.contains_key(&page);
            if allocates && room == 0 {
                break;
            }
            room -= u64::from(allocates);
            self.charged += u64::from(allocates);
            self.remember(page);
            self.pages
                .entry(page)
                .or_default()
                .put(within, &data[range.clone()]);
            done = range.end;
        }
        if done > 0 {
            self.len = self.len.max(offset + done as u64);
        }
        done
    }

    /// Keeps what the platter holds of `page` before its first change.
    fn remember(&mut self, page: u64) {
        if !self.dirty.contains_key(&page) {
            let durable = self
                .doomed
                .remove(&page)
                .unwrap_or_else(|| self.pages.get(&page).cloned());
            self.dirty.insert(page, durable);
        }
    }

    /// Sets the length; growth is sparse.
    pub(crate) fn truncate(&mut self, len: u64) {
        if len < self.len {
            let gone: Vec<u64> = self
                .pages
                .range(len.div_ceil(PAGE)..)
                .map(|(p, _)| *p)
                .collect();
            for page in gone {
                self.remember(page);
                self.pages.remove(&page);
            }
            if !len.is_multiple_of(PAGE) && self.pages.contains_key(&(len / PAGE)) {
                self.remember(len / PAGE);
            }
            self.reserved = self.reserved.min(len.div_ceil(PAGE));
        }
        self.len = len;
        self.trim();
    }

    /// Allocates every page below `end` (a page number) if `room` allows; false if it does not.
    pub(crate) fn reserve(&mut self, end: u64, room: u64) -> bool {
        if end <= self.reserved {
            return true;
        }
        let there = self.pages.range(self.reserved..end).count() as u64;
        let wanted = end - self.reserved - there;
        if wanted > room {
            return false;
        }
        self.reserved = end;
        self.charged += wanted;
        true
    }

    /// A sync that worked: what programs see is on the platter, except doomed pages.
    pub(crate) fn sync(&mut self) {
        self.dirty.clear();
        self.durable_len = self.len;
    }

    /// A sync that failed: some dirty pages, at least one, are given up for good.
    pub(crate) fn sync_failed(&mut self, rng: &mut Rng) {
        let sure = rng.below(self.dirty.len() as u64);
        let all = rng.coin();
        let dirty = std::mem::take(&mut self.dirty);
        for (k, (page, durable)) in dirty.into_iter().enumerate() {
            if all || k as u64 == sure || rng.coin() {
                self.doomed.insert(page, durable);
            } else {
                self.dirty.insert(page, durable);
            }
        }
    }

    /// Power loss: decides what the platter holds and makes that what programs see.
    pub(crate) fn lose_power(&mut self, mode: CrashMode, rng: &mut Rng) {
        for (page, durable) in std::mem::take(&mut self.doomed) {
            self.put(page, durable);
        }
        let dirty = std::mem::take(&mut self.dirty);
        let shrunk = self.len < self.durable_len;
        let shrink_lost = shrunk && !survives(mode, rng);
        let cut = rng.below(dirty.len() as u64 + 1);
        let any_dirty = !dirty.is_empty();
        let mut kept_end = None;
        for (k, (page, durable)) in dirty.into_iter().enumerate() {
            let beyond = page >= self.len.div_ceil(PAGE);
            let fate = match fate(mode, k as u64, cut, rng) {
                _ if shrink_lost && beyond => Fate::Lost,
                fate => fate,
            };
            if !matches!(fate, Fate::Lost) {
                kept_end = Some((page + 1) * PAGE);
            }
            self.apply(page, durable, fate);
        }
        self.len = match kept_end {
            _ if mode == CrashMode::KeepAll => self.len,
            _ if shrunk => {
                if shrink_lost {
                    self.durable_len
                } else {
                    self.len
                }
            }
            // The length reaches the platter with the data that made it, or with all of it.
            Some(_) if mode == CrashMode::Random && rng.coin() => self.len,
            Some(end) => self.len.min(end.max(self.durable_len)),
            None if !any_dirty && survives(mode, rng) => self.len,
            None => self.durable_len,
        };
        self.durable_len = self.len;
        self.trim();
    }

    /// Puts one page into the state that the power loss left.
    fn apply(&mut self, page: u64, durable: Option<Page>, fate: Fate) {
        match fate {
            Fate::Kept => {}
            Fate::Lost => self.put(page, durable),
            Fate::Torn(mask) => {
                let mut mixed = durable.unwrap_or_default();
                let new = self.pages.get(&page).cloned().unwrap_or_default();
                for s in (0..PAGE as usize / SECTOR).filter(|s| mask >> s & 1 == 1) {
                    let range = s * SECTOR..(s + 1) * SECTOR;
                    mixed[range.clone()].copy_from_slice(&new[range]);
                }
                self.pages.insert(page, mixed);
            }
        }
    }

    /// Replaces a page, `None` leaves a hole.
    fn put(&mut self, page: u64, bytes: Option<Page>) {
        match bytes {
            Some(bytes) => self.pages.insert(page, bytes),
            None => self.pages.remove(&page),
        };
    }

    /// Drops what lies beyond the length and counts the pages again.
    fn trim(&mut self) {
        self.pages.split_off(&self.len.div_ceil(PAGE));
        if let Some(last) = self.pages.get_mut(&(self.len / PAGE)) {
            last[(self.len % PAGE) as usize..].fill(0);
        }
        self.charged = self.reserved + self.pages.range(self.reserved..).count() as u64;
    }

    /// Cuts the file on the platter as well as in the cache.
    pub(crate) fn damage_truncate(&mut self, len: u64) {
        self.truncate(len);
        self.dirty.split_off(&len.div_ceil(PAGE));
        self.doomed.split_off(&len.div_ceil(PAGE));
        self.durable_len = self.durable_len.min(len);
    }

    /// The pages that are the same on the platter and in the cache and not all zeros.
    pub(crate) fn clean_pages(&self) -> impl Iterator<Item = (u64, &Page)> {
        let settled = |p: &u64| !self.dirty.contains_key(p) && !self.doomed.contains_key(p);
        let kept = move |(p, bytes): &(&u64, &Page)| settled(p) && !bytes.is_zeros();
        self.pages.iter().filter(kept).map(|(p, bytes)| (*p, bytes))
    }
}

/// Whether an unsynced change that is all or nothing reaches the platter.
fn survives(mode: CrashMode, rng: &mut Rng) -> bool {
    match mode {
        CrashMode::LoseAll => false,
        CrashMode::KeepAll => true,
        CrashMode::Prefix | CrashMode::Random => rng.coin(),
    }
}

/// What happens to the `k`-th dirty page; `cut` is the first page that Prefix does not keep whole.
fn fate(mode: CrashMode, k: u64, cut: u64, rng: &mut Rng) -> Fate {
    match mode {
        CrashMode::LoseAll => Fate::Lost,
        CrashMode::KeepAll => Fate::Kept,
        CrashMode::Prefix if k < cut => Fate::Kept,
        CrashMode::Prefix if k > cut => Fate::Lost,
        CrashMode::Prefix => Fate::Torn((1 << rng.below(9)) - 1),
        CrashMode::Random => match rng.below(3) {
            0 => Fate::Kept,
            1 => Fate::Lost,
            _ => Fate::Torn(rng.next_u64()),
        },
    }
}

/// Splits a byte range at page borders: page number, offset within it, range within the buffer.
fn pieces(offset: u64, n: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = offset + at as u64;
        let within = (here % PAGE) as usize;
        let size = (PAGE as usize - within).min(n - at);
        let range = at..at + size;
        at += size;
        (size > 0).then_some((here / PAGE, within, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(file: &FileData) -> Vec<u8> {
        let mut buf = vec![9; file.len as usize + 3];
        let n = file.read(0, &mut buf);
        buf.truncate(n);
        buf
    }

    #[test]
    fn write_read_truncate_follow_posix() {
        let mut f = FileData::default();
        assert_eq!(f.write(4090, b"0123456789", 10), 10);
        assert_eq!((f.len, f.charged), (4100, 2));
        f.truncate(4092);
        assert_eq!((f.len, f.charged), (4092, 1));
        f.truncate(4100);
        assert_eq!(&content(&f)[4088..], b"\0\x0001\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn out_of_room_writes_what_fits() {
        let mut f = FileData::default();
        assert_eq!(f.write(0, &[1; 10_000], 2), 8192);
        assert_eq!(f.write(8192, &[1; 10], 0), 0);
        assert_eq!(f.len, 8192);
        assert!(!f.reserve(5, 2));
        assert!(f.reserve(5, 3));
        assert_eq!(f.write(8192, &[1; 10], 0), 10);
        assert_eq!(f.charged, 5);
    }

    #[test]
    fn synced_bytes_survive_every_mode_and_seed() {
        for seed in 0..200 {
            for mode in CrashMode::ALL {
                let mut f = FileData::default();
                f.write(0, &[1; 6000], 99);
                f.sync();
                f.write(6000, &[2; 9000], 99);
                f.lose_power(mode, &mut Rng::new(seed));
                assert!(content(&f).starts_with(&[1; 6000]), "{mode:?} {seed}");
                assert_eq!(f.durable_len, f.len);
            }
        }
    }

    #[test]
    fn torn_pages_change_at_sector_borders_only() {
        let mut torn = 0;
        for seed in 0..200 {
            let mut f = FileData::default();
            f.write(0, &[1; 4096], 99);
            f.sync();
            f.write(0, &[2; 4096], 99);
            f.lose_power(CrashMode::Random, &mut Rng::new(seed));
            let all = content(&f);
            assert!(all.chunks(SECTOR).all(|s| s.iter().all(|b| *b == s[0])));
            torn += u32::from(all.contains(&1) && all.contains(&2));
        }
        assert!(torn > 20, "{torn}");
    }

    #[test]
    fn a_failed_sync_dooms_pages_until_they_are_written_again() {
        let mut f = FileData::default();
        f.write(0, b"old", 9);
        f.sync();
        f.write(0, b"new", 9);
        f.sync_failed(&mut Rng::new(1));
        f.sync();
        assert_eq!(content(&f), b"new");
        f.lose_power(CrashMode::KeepAll, &mut Rng::new(1));
        assert_eq!(content(&f), b"old");

        f.write(0, b"new", 9);
        f.sync_failed(&mut Rng::new(1));
        f.write(0, b"n", 9);
        f.sync();
        f.lose_power(CrashMode::LoseAll, &mut Rng::new(1));
        assert_eq!(content(&f), b"new");
    }

    #[test]
    fn an_unsynced_shrink_is_all_or_nothing() {
        for seed in 0..100 {
            let mut f = FileData::default();
            f.write(0, &[1; 9000], 99);
            f.sync();
            f.truncate(4096);
            f.lose_power(CrashMode::Random, &mut Rng::new(seed));
            assert!(
                content(&f) == [1; 4096] || content(&f) == [1; 9000],
                "{seed}"
            );
        }
    }
}
