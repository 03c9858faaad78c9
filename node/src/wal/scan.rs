//! Reading a whole log: which batches are there, where they end, and whether anything that was promised is missing.
//!
//! The rule. Batches are numbered without a gap and lie one behind the other; reading accepts them in order and stops for good
//! at the first that is not whole. Every sector and the anchor also testify up to which batch everything had been
//! synced (the *floor*). If reading stopped below the floor, synced data is missing: damage. If not, whatever lies behind was
//! never acknowledged: a torn tail. A wrong checksum is damage wherever a batch could have been. Read-only.

use super::anchor::{Claim, Found};
use super::disk::Dir;
use super::record::{self, Record};
use super::sector::{Header, SECTOR, Sector, classify};
use super::{Damage, Error, Verdict, anchor, segment};
use std::collections::BTreeMap;

/// A sector's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Segment number.
    pub(super) segment: u64,
    /// Sector in the segment, from 0.
    pub(super) sector: u64,
}

impl Place {
    /// Offset in the file, bytes.
    pub(super) fn offset(self) -> u64 {
        self.sector * SECTOR as u64
    }
}

/// A batch that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Its number.
    pub(super) batch: u64,
    /// Its first sector.
    pub(super) place: Place,
    /// Sectors.
    pub(super) count: u32,
}

/// A valid sector that belongs to no accepted batch.
#[derive(Clone, Copy, Debug)]
struct Loose {
    place: Place,
    header: Header,
}

/// A live segment as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundSegment {
    /// First accepted batch in it.
    pub(super) first_batch: u64,
    /// That batch continues one of the segment before.
    pub(super) chained: bool,
    /// Length of the file, bytes.
    pub(super) bytes: u64,
}

/// What reading found.
#[derive(Debug)]
pub(super) struct Scan {
    /// The anchor's claim; `None` when there is no log at all.
    pub(super) claim: Option<Claim>,
    /// What it comes to.
    pub(super) verdict: Verdict,
    /// Segments with accepted batches.
    pub(super) segments: BTreeMap<u64, FoundSegment>,
    /// Every segment file, live or not.
    pub(super) files: Vec<u64>,
    /// The last accepted batch; one less than the first for none.
    pub(super) last_batch: u64,
    /// Where the next batch goes, unless it starts a segment.
    pub(super) end: Place,
    /// Accepted batches that nobody testifies were synced.
    pub(super) unproven: Vec<Whole>,
    /// Sectors to blank before the log goes on: a torn tail, and rot in the way of later batches.
    pub(super) cut: Vec<Place>,
}

/// Reads the log in `dir` and hands every record of every accepted batch, in order, to `visit`; an error of `visit` is damage.
pub(super) fn scan(
    dir: &Dir,
    visit: &mut dyn FnMut(Whole, Record) -> Result<(), String>,
) -> Result<Scan, Error> {
    let files = segment::list(dir).map_err(Error::reading("the directory"))?;
    let found = anchor::read(dir)?;
    if found == Found::Missing && files.is_empty() {
        return Ok(Scanner::new(Claim::default(), visit).finish(None, files));
    }
    let claim = match found {
        Found::Claim(claim) => claim,
        Found::Missing | Found::Lost => guess(dir, &files)?,
    };
    let mut scanner = Scanner::new(claim, visit);
    if !matches!(found, Found::Claim(_)) {
        scanner.damage(Place::default(), "the anchor is lost");
    }
    let mut bytes = Vec::new();
    for number in files.iter().filter(|at| **at >= claim.first_segment) {
        let opened = dir.file(&segment::name(*number), false);
        let read = opened.and_then(|file| match file {
            Some(file) => file.read_all(&mut bytes),
            None => Err(std::io::ErrorKind::NotFound.into()),
        });
        read.map_err(Error::reading("a segment"))?;
        scanner.segment(*number, &bytes)?;
    }
    Ok(scanner.finish(Some(claim), files))
}

/// Without an anchor: a claim that lets the files that are left be read.
fn guess(dir: &Dir, files: &[u64]) -> Result<Claim, Error> {
    let mut claim = Claim::default();
    let Some(first) = files.first() else {
        return Ok(claim);
    };
    claim.first_segment = *first;
    let opened = dir.file(&segment::name(*first), false);
    let mut bytes = [0; SECTOR];
    if let Ok(Some(file)) = opened
        && file.read_at(&mut bytes, 0).is_ok()
        && let Sector::Valid(header, _) = classify(&bytes)
    {
        claim.first_batch = header.batch;
    }
    Ok(claim)
}

/// Batches that only count together.
struct Chain {
    /// The first of them.
    first: Whole,
    /// Where the log ended before it.
    before: Place,
    /// Their payload so far.
    payload: Vec<u8>,
}

struct Scanner<'a> {
    claim: Claim,
    visit: &'a mut dyn FnMut(Whole, Record) -> Result<(), String>,
    /// Next batch to accept.
    want: u64,
    /// Where it would be, if in the same segment as the last.
    end: Place,
    /// Everything up to this batch had been synced, as far as testified.
    floor: u64,
    /// A chain whose last batch has not come yet.
    chain: Option<Chain>,
    /// True once a record could not be read: nothing behind it is accepted.
    broken: bool,
    segments: BTreeMap<u64, FoundSegment>,
    unproven: Vec<Whole>,
    loose: Vec<Loose>,
    bad: Vec<Place>,
    damage: Option<Damage>,
}

impl<'a> Scanner<'a> {
    fn new(claim: Claim, visit: &'a mut dyn FnMut(Whole, Record) -> Result<(), String>) -> Self {
        Scanner {
            claim,
            visit,
            want: claim.first_batch,
            end: Place {
                segment: claim.first_segment,
                sector: 0,
            },
            floor: claim.synced,
            chain: None,
            broken: false,
            segments: BTreeMap::new(),
            unproven: Vec::new(),
            loose: Vec::new(),
            bad: Vec::new(),
            damage: None,
        }
    }

    /// Remembers the first damage.
    fn damage(&mut self, at: Place, detail: &str) {
        self.damage.get_or_insert_with(|| Damage {
            segment: at.segment,
            offset: at.offset(),
            detail: detail.to_owned(),
        });
    }

    fn segment(&mut self, number: u64, bytes: &[u8]) -> Result<(), Error> {
        let sectors = bytes.len() / SECTOR;
        let mut at = 0;
        while at < sectors {
            let place = Place {
                segment: number,
                sector: at as u64,
            };
            let here = classify(&bytes[at * SECTOR..][..SECTOR]);
            if let Sector::Valid(header, _) = here
                && self.expects(place, &header)
                && let Some(payload) = whole(&header, &bytes[at * SECTOR..])
            {
                self.accept(place, &header, payload, bytes.len() as u64);
                at += header.count as usize;
            } else {
                self.leave(place, here)?;
                at += 1;
            }
        }
        Ok(())
    }

    /// True when the next batch would lie here, right behind the last or at the start of the next segment.
    fn expects(&self, place: Place, header: &Header) -> bool {
        let behind = place == self.end;
        let next = place.sector == 0
            && !self.segments.is_empty()
            && Some(place.segment) == self.end.segment.checked_add(1);
        let first = header.segment == place.segment && header.index == 0;
        !self.broken && first && header.batch == self.want && (behind || next)
    }

    fn accept(&mut self, place: Place, header: &Header, payload: Vec<u8>, bytes: u64) {
        let batch = Whole {
            batch: header.batch,
            place,
            count: header.count,
        };
        self.segments.entry(place.segment).or_insert(FoundSegment {
            first_batch: batch.batch,
            chained: self.chain.is_some(),
            bytes,
        });
        self.want += 1;
        let before = self.end;
        self.end = Place {
            segment: place.segment,
            sector: place.sector + u64::from(header.count),
        };
        self.floor = self.floor.max(header.synced);
        let floor = self.floor;
        self.unproven.retain(|one| one.batch > floor);
        self.unproven.push(batch);
        let chain = match self.chain.take() {
            Some(mut chain) => {
                chain.payload.extend_from_slice(&payload);
                chain
            }
            None => Chain {
                first: batch,
                before,
                payload,
            },
        };
        if header.continues {
            self.chain = Some(chain);
        } else {
            self.deliver(chain.first, chain.payload);
        }
    }

    fn deliver(&mut self, batch: Whole, payload: Vec<u8>) {
        let delivered = record::decode(payload.into())
            .map_err(|error| error.to_string())
            .and_then(|records| {
                let mut records = records.into_iter();
                records.try_for_each(|record| (self.visit)(batch, record))
            });
        if let Err(why) = delivered {
            self.broken = true;
            self.damage(batch.place, &why);
        }
    }

    /// Takes note of a sector that no accepted batch covers.
    fn leave(&mut self, place: Place, sector: Sector<'_>) -> Result<(), Error> {
        match sector {
            Sector::Blank => {}
            Sector::Newer(version) => {
                return Err(Error::NewerVersion {
                    file: segment::name(place.segment),
                    version,
                });
            }
            Sector::Valid(header, _) if header.segment == place.segment => {
                self.floor = self.floor.max(header.synced);
                self.loose.push(Loose { place, header });
            }
            // A file is only ever reused for a greater number.
            Sector::Valid(header, _) if header.segment < place.segment => {}
            Sector::Valid(..) | Sector::Bad => self.bad.push(place),
        }
        Ok(())
    }

    fn finish(mut self, claim: Option<Claim>, files: Vec<u64>) -> Scan {
        self.drop_open_chain();
        let last_batch = self.want.saturating_sub(1);
        // The most telling reason first.
        self.judge_bad();
        self.judge_loose(last_batch);
        self.judge_floor(last_batch, &files);
        let loose = self.loose.iter().map(|one| one.place);
        let rot = self.bad.iter().copied().filter(|at| *at >= self.end);
        let cut = loose.chain(rot).collect();
        let verdict = self.verdict(last_batch);
        let floor = self.floor;
        self.unproven.retain(|one| one.batch > floor);
        Scan {
            claim,
            verdict,
            segments: self.segments,
            files,
            last_batch,
            end: self.end,
            unproven: self.unproven,
            cut,
        }
    }

    /// A chain without its last batch is as if it had never been written.
    fn drop_open_chain(&mut self) {
        let Some(Chain { first, before, .. }) = self.chain.take() else {
            return;
        };
        let all = std::mem::take(&mut self.unproven);
        let (kept, dropped): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.batch < first.batch);
        self.unproven = kept;
        for one in dropped {
            self.loosen(one);
        }
        self.want = first.batch;
        self.end = before;
        self.segments.retain(|_, one| one.first_batch < first.batch);
    }

    fn loosen(&mut self, one: Whole) {
        for index in 0..one.count {
            let place = Place {
                segment: one.place.segment,
                sector: one.place.sector + u64::from(index),
            };
            let header = Header {
                segment: place.segment,
                batch: one.batch,
                synced: 0,
                continues: true,
                index,
                count: one.count,
            };
            self.loose.push(Loose { place, header });
        }
    }

    fn judge_floor(&mut self, last_batch: u64, files: &[u64]) {
        if self.floor <= last_batch {
            return;
        }
        let floor = self.floor;
        let gone = (self.claim.first_segment..=self.claim.newest_segment)
            .find(|number| files.binary_search(number).is_err());
        let at = match gone {
            Some(segment) => Place { segment, sector: 0 },
            None => self.end,
        };
        let what = if gone.is_some() {
            "segment file is missing; "
        } else {
            ""
        };
        let want = self.want;
        let detail =
            format!("{what}batch {want} is not whole, but everything up to {floor} was synced");
        self.damage(at, &detail);
    }

    fn judge_loose(&mut self, last_batch: u64) {
        let old = self
            .loose
            .iter()
            .find(|one| one.header.batch <= last_batch)
            .copied();
        if let Some(one) = old {
            let batch = one.header.batch;
            self.damage(
                one.place,
                &format!("a sector of batch {batch} out of place"),
            );
        }
    }

    /// A wrong checksum counts where a batch that was synced last could lie: at the end, at the start of the next segment, or
    /// inside a batch of which other sectors are there. Elsewhere it hit an old sector that means nothing.
    fn judge_bad(&mut self) {
        let end = self.end;
        let next = Place {
            segment: end.segment.saturating_add(1),
            sector: 0,
        };
        let counts = |at: &Place| {
            *at == end
                || *at == next
                || self.loose.iter().any(|one| {
                    let from = one.place.sector.saturating_sub(u64::from(one.header.index));
                    one.place.segment == at.segment
                        && (from..from + u64::from(one.header.count)).contains(&at.sector)
                })
        };
        if let Some(at) = self.bad.iter().copied().find(counts) {
            self.damage(at, "a sector's checksum does not match");
        }
    }

    fn verdict(&mut self, last_batch: u64) -> Verdict {
        if let Some(damage) = self.damage.take() {
            return Verdict::Damaged(damage);
        }
        if self.loose.is_empty() {
            return Verdict::Clean;
        }
        let batch = last_batch + 1;
        let torn = self.loose.iter().filter(|one| one.header.batch == batch);
        let of = torn.clone().map(|one| one.header.count).next().unwrap_or(0);
        Verdict::TornTail {
            batch,
            sectors_seen: u32::try_from(torn.count()).unwrap_or(u32::MAX),
            of,
        }
    }
}

/// The payload of the batch that begins `bytes`, if every sector of it is there.
fn whole(first: &Header, bytes: &[u8]) -> Option<Vec<u8>> {
    let count = first.count as usize;
    let sectors = bytes.chunks_exact(SECTOR);
    if sectors.len() < count {
        return None;
    }
    let mut payload = Vec::with_capacity(count * super::sector::ROOM);
    for (index, sector) in (0_u32..).zip(sectors.take(count)) {
        let expected = Header { index, ..*first };
        match classify(sector) {
            Sector::Valid(header, part) if header == expected => payload.extend_from_slice(part),
            _ => return None,
        }
    }
    Some(payload)
}
