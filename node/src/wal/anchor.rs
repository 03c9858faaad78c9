//! The anchor: 1,024 bytes beside the segments that say which of them must exist.
//!
//! Sectors prove what is there; the anchor proves what must be: without it a directory that lost its newest segments
//! would look like a shorter, healthy log. Two slots are written in turn, so that one claim is always whole. An older claim
//! is weaker, never false: it asks for segments that were there and batches that were synced. One slot that is damaged
//! is therefore survived; two are damage.

use super::disk::{Dir, Handle};
use super::sector::{SECTOR, u64_at};
use super::{Error, sector};
use std::io;

/// Name of the file.
const NAME: &str = "anchor";
/// Name under which it is made.
const TEMPORARY: &str = "anchor.tmp";
/// First bytes of a slot; the format version follows.
const MAGIC: &[u8; 7] = b"swanchr";

/// What must exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// Counts the claims; the greater is the newer.
    pub(super) sequence: u64,
    /// Oldest live segment; files with smaller numbers are leftovers of trimming.
    pub(super) first_segment: u64,
    /// First batch of that segment.
    pub(super) first_batch: u64,
    /// Newest segment that holds a synced batch; zero for none.
    pub(super) newest_segment: u64,
    /// Every batch up to this one was synced when the claim was written.
    pub(super) synced: u64,
}

impl Claim {
    /// The claim of a new log: nothing yet, and batch 1 comes first in segment 1.
    fn new_log() -> Self {
        Claim {
            sequence: 1,
            first_segment: 1,
            first_batch: 1,
            ..Claim::default()
        }
    }

    fn encode(&self) -> [u8; SECTOR] {
        let mut slot = [0; SECTOR];
        slot[4..11].copy_from_slice(MAGIC);
        slot[11] = sector::VERSION;
        let numbers = [
            self.sequence,
            self.first_segment,
            self.first_batch,
            self.newest_segment,
            self.synced,
        ];
        for (place, number) in numbers.iter().enumerate() {
            slot[16 + 8 * place..24 + 8 * place].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&slot[4..]);
        slot[..4].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    /// The claim in a slot; `None` when the slot is blank or damaged.
    fn decode(slot: &[u8]) -> Result<Option<Self>, Error> {
        if sector::u32_at(slot, 0) != crc32c::crc32c(&slot[4..]) || &slot[4..11] != MAGIC {
            return Ok(None);
        }
        if slot[11] > sector::VERSION {
            return Err(Error::NewerVersion {
                file: NAME.to_owned(),
                version: slot[11],
            });
        }
        Ok(Some(Claim {
            sequence: u64_at(slot, 16),
            first_segment: u64_at(slot, 24),
            first_batch: u64_at(slot, 32),
            newest_segment: u64_at(slot, 40),
            synced: u64_at(slot, 48),
        }))
    }
}

/// What a look at the file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no file.
    Missing,
    /// There is a file, and no claim in it can be read.
    Lost,
    /// The newest readable claim.
    Claim(Claim),
}

/// Looks at the anchor of `dir` without changing it.
pub(super) fn read(dir: &Dir) -> Result<Found, Error> {
    let opened = dir.file(NAME, false);
    let Some(file) = opened.map_err(Error::reading("the anchor"))? else {
        return Ok(Found::Missing);
    };
    let mut bytes = Vec::new();
    file.read_all(&mut bytes)
        .map_err(Error::reading("the anchor"))?;
    let mut newest = Found::Lost;
    for slot in bytes.chunks_exact(SECTOR).take(2) {
        if let Some(claim) = Claim::decode(slot)? {
            newest = match newest {
                Found::Claim(other) if other.sequence > claim.sequence => newest,
                _ => Found::Claim(claim),
            };
        }
    }
    Ok(newest)
}

/// The anchor of an open log.
#[derive(Debug)]
pub(super) struct Anchor {
    /// The file.
    file: Handle,
    /// The newest claim in it.
    claim: Claim,
}

impl Anchor {
    /// Makes the anchor of a new log, durably.
    pub(super) fn create(dir: &Dir) -> io::Result<Self> {
        let file = dir.create(TEMPORARY)?;
        let claim = Claim::new_log();
        file.write_at(&claim.encode(), 0)?;
        file.write_at(&claim.encode(), SECTOR as u64)?;
        file.sync_all()?;
        dir.rename(TEMPORARY, NAME)?;
        dir.sync()?;
        Ok(Anchor { file, claim })
    }

    /// Opens the anchor that holds `claim`.
    pub(super) fn open(dir: &Dir, claim: Claim) -> io::Result<Self> {
        let file = dir.file(NAME, true)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Anchor { file, claim })
    }

    /// The newest claim.
    pub(super) fn claim(&self) -> Claim {
        self.claim
    }

    /// Replaces the older of the two claims by `claim` (its sequence number is set here) and syncs.
    pub(super) fn write(&mut self, claim: Claim) -> io::Result<()> {
        let sequence = self.claim.sequence + 1;
        let claim = Claim { sequence, ..claim };
        let slot = sequence % 2 * SECTOR as u64;
        self.file.write_at(&claim.encode(), slot)?;
        self.file.sync()?;
        self.claim = claim;
        Ok(())
    }
}
