//! Segment files: their names, and how one is made ready before it is needed.
//!
//! A segment with a `.wal` name always has its full length, because it gets the name only after its zeros are durable.
//! A recycled file keeps its old sectors; they carry a smaller segment number and so never count.

use super::Error;
use super::disk::{Dir, Handle};
use std::io;

/// Bytes written at a time when a segment is filled with zeros: a page. The page cache keeps what came in one write as one
/// piece, and what `/proc/self/io` then counts for each later append is that piece, not the page that went to the disk.
const FILL: usize = 4 << 10;
/// Ending of segment files.
const ENDING: &str = ".wal";
/// Ending of files that are being prepared; they mean nothing and are removed.
pub(super) const TEMPORARY: &str = ".tmp";

/// The file name of segment `number`.
pub(super) fn name(number: u64) -> String {
    format!("{number:020}{ENDING}")
}

/// The segment a file name stands for.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| *number > 0)?;
    plain.then_some(number)
}

/// Numbers of the segment files in `dir`, ascending.
pub(super) fn list(dir: &Dir) -> io::Result<Vec<u64>> {
    Ok(dir.names()?.iter().filter_map(|one| number(one)).collect())
}

/// A live segment: it holds at least one batch.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u64,
    /// First batch in it.
    pub(super) first_batch: u64,
    /// True when that batch continues one of the segment before, so that both go together.
    pub(super) chained: bool,
    /// Length of the file, bytes.
    pub(super) bytes: u64,
    /// The file.
    pub(super) file: Handle,
    /// True while it holds bytes that were not synced.
    pub(super) dirty: bool,
}

/// A segment made ready: durable, of full length, with nothing in it that counts.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its number.
    pub(super) number: u64,
    /// The file.
    pub(super) file: Handle,
}

/// The making of one spare segment: everything slow about it, free of the log so that it can run on another lane.
#[derive(Debug)]
pub struct SpareJob {
    /// Where.
    dir: Dir,
    /// Name while it is being made.
    name: String,
    /// Length, bytes.
    bytes: u64,
}

/// A file full of durable zeros, ready to become a segment: hand it to `Wal::adopt_spare`.
#[derive(Debug)]
pub struct Spare {
    /// Name so far.
    pub(super) name: String,
    /// The file.
    pub(super) file: Handle,
}

impl SpareJob {
    /// A job in `dir` under a name that nobody else uses.
    pub(super) fn new(dir: Dir, name: &str, bytes: u64) -> Self {
        SpareJob {
            dir,
            name: format!("{name}{TEMPORARY}"),
            bytes,
        }
    }

    /// Writes and syncs the zeros. No error here touches the log itself; [`Error::Full`] leaves nothing behind.
    pub fn run(self) -> Result<Spare, Error> {
        let made = self.dir.create(&self.name).and_then(|file| {
            fill(&file, self.bytes)?;
            file.sync_all()?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Spare {
                name: self.name,
                file,
            }),
            Err(error) => {
                // Removing is a courtesy to a full disk; opening the log removes leftovers anyway.
                drop(self.dir.remove(&self.name));
                Err(Error::preparing(error, self.bytes))
            }
        }
    }
}

fn fill(file: &Handle, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; FILL];
    let mut at = 0;
    while at < bytes {
        let part = usize::try_from(bytes - at).unwrap_or(FILL).min(FILL);
        file.write_at(&zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_segments() {
        assert_eq!(name(7), "00000000000000000007.wal");
        assert_eq!(number(&name(u64::MAX)), Some(u64::MAX));
        for other in [
            "7.wal",
            "anchor",
            "00000000000000000000.wal",
            "0000000000000000007+.wal",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
