//! Roughly when a task wrote what it wrote: beside each file of output lies one (`*.log.times`) of marks, "this many bytes by this time".
//!
//! A task's process writes its files itself, so nobody sees its lines come; the worker looks at their length every few seconds and
//! notes what it finds. So "since ten minutes ago" begins up to one look too early, and never too late, but for clocks: a wall clock
//! that was set back shows more than was asked for.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files of tasks; runs on a lane and is simulated underneath"
)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Marks of one file at most: more than an hour and a half of output without a pause, at a look each 5 s; then every other old one goes.
const MARKS_MAX: usize = 1_200;

/// So many bytes were written by that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// The worker's wall clock, milliseconds.
    wall_ms: u64,
    /// Bytes since the task's first.
    offset: u64,
}

fn path(file: &Path) -> PathBuf {
    file.with_extension("log.times")
}

/// The marks, oldest first. A line that makes no sense (a loss of power tore it) is left out.
fn marks(file: &Path) -> Vec<Mark> {
    let text = fs::read_to_string(path(file)).unwrap_or_default();
    let parse = |line: &str| {
        let (wall_ms, offset) = line.split_once(' ')?;
        Some(Mark {
            wall_ms: wall_ms.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Notes that `file` had `end` bytes since the task's first at `wall_ms`, unless that is no news. Marks before `oldest` are of bytes
/// that are gone.
pub(super) fn note(file: &Path, wall_ms: u64, oldest: u64, end: u64) -> io::Result<()> {
    let mut marks = marks(file);
    if marks.last().map_or(0, |last| last.offset) == end {
        return Ok(());
    }
    marks.push(Mark {
        wall_ms,
        offset: end,
    });
    let line = |mark: &Mark| format!("{} {}\n", mark.wall_ms, mark.offset);
    if marks.len() <= MARKS_MAX {
        let text: String = marks[marks.len() - 1..].iter().map(line).collect();
        let mut options = OpenOptions::new();
        let mut times = options.create(true).append(true).open(path(file))?;
        return times.write_all(text.as_bytes());
    }
    // One before the oldest byte says how old that byte is at most.
    let gone = marks.iter().filter(|mark| mark.offset < oldest).count();
    marks.drain(..gone.saturating_sub(1));
    let (half, mut at) = (marks.len() / 2, 0);
    marks.retain(|_| {
        at += 1;
        at > half || at % 2 == 1
    });
    let new = file.with_extension("log.times.tmp");
    fs::write(&new, marks.iter().map(line).collect::<String>())?;
    fs::rename(new, path(file))
}

/// Offset before which everything was written by `wall_ms`.
pub(super) fn offset_at(file: &Path, wall_ms: u64) -> u64 {
    let marks = marks(file);
    let before = marks.iter().take_while(|mark| mark.wall_ms <= wall_ms);
    before.last().map_or(0, |mark| mark.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_by_a_time_is_left_out_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("stdout.log");
        for (wall_ms, end) in [(5, 0), (10, 100), (15, 100), (20, 250)] {
            note(&file, wall_ms, 0, end).unwrap();
        }
        assert_eq!(marks(&file).len(), 2, "no news is not noted");
        let found = [9, 10, 19, 20, 99].map(|wall_ms| offset_at(&file, wall_ms));
        assert_eq!(found, [0, 100, 100, 250, 250]);
        // The clock is set back: rather too much than too little.
        note(&file, 12, 0, 300).unwrap();
        note(&file, 30, 0, 400).unwrap();
        assert_eq!(offset_at(&file, 15), 100);
        assert_eq!(offset_at(&file, 30), 400);
        fs::write(path(&file), "10 100\nrubb\u{fffd}sh\n20 2").unwrap();
        assert_eq!(offset_at(&file, 15), 100);
    }

    #[test]
    fn there_are_only_so_many_marks_and_the_newest_stay() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("stdout.log");
        for at in 1..=4_000_u64 {
            note(&file, at * 5, at * 3 / 4, at).unwrap();
        }
        assert!(marks(&file).len() <= MARKS_MAX);
        let newest: Vec<u64> = [4_000, 3_999, 3_500]
            .map(|at| offset_at(&file, at * 5))
            .into();
        assert_eq!(newest[..2], [4_000, 3_999]);
        assert!((3_490..=3_500).contains(&newest[2]), "{newest:?}");
    }
}
