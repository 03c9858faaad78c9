//! The log in words, for people with a broken cluster: read-only, and useful on damaged data.

use super::disk::Dir;
use super::scan::scan;
use super::{Error, Verdict};
use std::fmt;
use std::path::Path;

/// One record and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Segment number.
    pub segment: u64,
    /// Offset of its batch in the segment file, bytes.
    pub offset: u64,
    /// Number of its batch.
    pub batch: u64,
    /// The record in words.
    pub what: String,
}

impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segment, offset, batch) = (self.segment, self.offset, self.batch);
        write!(
            out,
            "{segment:>6} {offset:>10} batch {batch:>8}  {}",
            self.what
        )
    }
}

/// A log in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What must exist, as the anchor has it; empty for a directory without a log.
    pub anchor: String,
    /// Segment files, live or not, by number.
    pub files: Vec<u64>,
    /// Every record in front of the end or the damage, oldest first.
    pub items: Vec<Item>,
    /// What the log comes to.
    pub verdict: Verdict,
}

/// Explains the log in `path`. Changes nothing.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let dir = Dir::open(path).map_err(Error::reading("the log's directory"))?;
    let mut items = Vec::new();
    let found = scan(&dir, &mut |batch, record| {
        items.push(Item {
            segment: batch.place.segment,
            offset: batch.place.offset(),
            batch: batch.batch,
            what: record.to_string(),
        });
        Ok(())
    })?;
    let anchor = found.claim.map(|claim| {
        format!(
            "segments {}..={} from batch {} on, synced through batch {}",
            claim.first_segment, claim.newest_segment, claim.first_batch, claim.synced
        )
    });
    Ok(Inspection {
        anchor: anchor.unwrap_or_default(),
        files: found.files,
        items,
        verdict: found.verdict,
    })
}
