//! What tasks write, within bounds: a file that has grown too long is copied aside and cut.
//!
//! A task's process has its files open itself, because it outlives the worker; so a file cannot be renamed under it. It is copied and
//! cut to nothing instead; the process appends, so its next line is the first. What it writes between the copy and the cut is lost,
//! and between two looks a file may grow past its bound: both are the price of tasks that need no worker to run.
//!
//! Readers count bytes from the first that the task ever wrote: beside each file that was cut lies one (`*.log.base`) that says how many
//! were before its present beginning. So a reader goes on where it was, into older parts if it must, and sees by the offset
//! when something is missing. Or they ask by time ([`log_times`]). A loss of power between the two may make some bytes count twice.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files of tasks; runs on a lane and is simulated underneath"
)]

use super::log_times;
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The shortest output that is given up for room, bytes: a disk that is full in spite of shorter ones is full of something else.
const WORTH_BYTES_MIN: u64 = 64 << 10;
/// Bytes of output in one page at most. A shorter one reaches to the end.
pub const PAGE_BYTES_MAX: u64 = 256 << 10;

/// Which of a task's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// What it says.
    Stdout,
    /// What it complains of.
    Stderr,
}

impl Tell {
    /// Name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Tell::Stdout => "stdout.log",
            Tell::Stderr => "stderr.log",
        }
    }
}

/// Which part of a task's output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Which output.
    pub stream: Tell,
    /// Its last lines, as many as fit into a page; none: as much as fits. Without meaning when there is a beginning.
    pub tail: Option<usize>,
    /// Where it begins.
    pub since: Option<Since>,
}

/// Where a part of a task's output begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// At this offset: bytes since the task's first.
    Offset(u64),
    /// With what was written since this long ago, milliseconds, and up to one look of the worker before (`worker_tidy`).
    AgoMs(u64),
}

/// A part of a task's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// What it wrote.
    pub bytes: Bytes,
    /// Offset of the first of them. Greater than what was asked for when that is gone.
    pub from_offset: u64,
    /// Offset to go on with.
    pub next_offset: u64,
}

/// Rotates every `*.log` below `tasks` (one directory a task) that is longer than `bytes_max`, keeping `kept` older parts of
/// each, and notes how long each is at `wall_ms`. A file that cannot be handled does not keep the others waiting; the first error is given.
pub(super) fn rotate_all(
    tasks: &Path,
    bytes_max: u64,
    kept: usize,
    wall_ms: u64,
) -> io::Result<()> {
    let mut first = Ok(());
    for dir in entries(tasks)? {
        for file in entries(&dir).unwrap_or_default() {
            if file.extension().is_some_and(|extension| extension == "log") {
                first = first
                    .and(note_time(&file, kept, wall_ms))
                    .and(rotate(&file, bytes_max, kept));
            }
        }
    }
    first
}

/// Gives up output below `tasks` because the disk is full: all older parts or, when there are none, the longest file of the present
/// ones, which goes on from nothing. Says what; none when there is nothing that would be worth it.
pub(super) fn give_up(tasks: &Path) -> io::Result<Option<String>> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for dir in entries(tasks)? {
        for file in entries(&dir).unwrap_or_default() {
            // One that its task's end has removed meanwhile is no more.
            files.extend(fs::metadata(&file).ok().map(|found| (found.len(), file)));
        }
    }
    let name = |file: &Path| {
        file.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let is_older = |file: &Path| {
        let name = name(file).unwrap_or_default();
        name.split_once(".log.")
            .is_some_and(|(_, part)| part.parse::<usize>().is_ok())
    };
    let (older, present): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(_, file)| is_older(file));
    if !older.is_empty() {
        let bytes: u64 = older.iter().map(|(length, _)| length).sum();
        for (_, file) in &older {
            fs::remove_file(file)?;
        }
        return Ok(Some(format!(
            "{bytes} bytes of older output of tasks are gone"
        )));
    }
    let is_output = |file: &Path| file.extension().is_some_and(|extension| extension == "log");
    let outputs = present.into_iter().filter(|(_, file)| is_output(file));
    let Some((length, file)) = outputs
        .max()
        .filter(|(length, _)| *length >= WORTH_BYTES_MIN)
    else {
        return Ok(None);
    };
    let before = base(&file);
    OpenOptions::new().write(true).open(&file)?.set_len(0)?;
    // Only now is there room for it; a reader in between sees offsets that went back.
    set_base(&file, before.saturating_add(length))?;
    Ok(Some(format!(
        "{length} bytes of {} are gone",
        file.display()
    )))
}

/// What is in a directory, in order; nothing if there is none.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in listed {
        paths.push(entry?.path());
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Notes how long a file is.
fn note_time(file: &Path, kept: usize, wall_ms: u64) -> io::Result<()> {
    let end = base(file).saturating_add(fs::metadata(file)?.len());
    log_times::note(file, wall_ms, parts(file, kept)[0].0, end)
}

/// Rotates one file if it is too long.
fn rotate(file: &Path, bytes_max: u64, kept: usize) -> io::Result<()> {
    if fs::metadata(file)?.len() <= bytes_max {
        return Ok(());
    }
    let part = |number: usize| file.with_extension(format!("log.{number}"));
    for number in (1..kept).rev() {
        match fs::rename(part(number), part(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let length = match kept {
        0 => fs::metadata(file)?.len(),
        _ => fs::copy(file, part(1))?,
    };
    set_base(file, base(file).saturating_add(length))?;
    OpenOptions::new().write(true).open(file)?.set_len(0)
}

/// Where the number of bytes is kept that were before a file's present beginning.
fn base_path(file: &Path) -> PathBuf {
    file.with_extension("log.base")
}

/// Bytes before a file's present beginning; none for one that was never cut.
fn base(file: &Path) -> u64 {
    let text = fs::read_to_string(base_path(file)).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// Notes how many bytes are before a file's present beginning.
fn set_base(file: &Path, base: u64) -> io::Result<()> {
    let new = file.with_extension("log.base.tmp");
    fs::write(&new, base.to_string())?;
    fs::rename(new, base_path(file))
}

/// A file and its older parts, at most `kept`, from the oldest on, each with the offset of its first byte.
fn parts(file: &Path, kept: usize) -> Vec<(u64, PathBuf)> {
    let length = |path: &Path| fs::metadata(path).map(|found| found.len());
    let mut parts = vec![(base(file), file.to_owned())];
    for number in 1..=kept {
        let part = file.with_extension(format!("log.{number}"));
        let Ok(length) = length(&part) else { break };
        let Some(first) = parts[0].0.checked_sub(length) else {
            break;
        };
        parts.insert(0, (first, part));
    }
    parts
}

/// A part of the output in `file`, which has at most `kept` older parts, at `wall_ms`.
pub(super) fn read(
    file: &Path,
    kept: usize,
    query: &LogQuery,
    wall_ms: u64,
) -> io::Result<LogPage> {
    let end = base(file).saturating_add(fs::metadata(file)?.len());
    let parts = parts(file, kept);
    let oldest = parts[0].0;
    let from = match query.since {
        Some(Since::Offset(offset)) => offset.clamp(oldest, end),
        Some(Since::AgoMs(ago)) => {
            log_times::offset_at(file, wall_ms.saturating_sub(ago)).clamp(oldest, end)
        }
        None => end.saturating_sub(PAGE_BYTES_MAX).max(oldest),
    };
    let mut bytes = Vec::new();
    for (first, path) in parts {
        let at = from.saturating_add(bytes.len() as u64);
        let room = PAGE_BYTES_MAX.saturating_sub(bytes.len() as u64);
        if at >= first && room > 0 {
            let mut part = File::open(path)?;
            part.seek(SeekFrom::Start(at - first))?;
            part.take(room.min(end.saturating_sub(at)))
                .read_to_end(&mut bytes)?;
        }
    }
    let next_offset = from.saturating_add(bytes.len() as u64);
    if let (Some(lines), None) = (query.tail, query.since) {
        bytes.drain(..bytes.len() - tail_len(&bytes, lines));
    }
    Ok(LogPage {
        from_offset: next_offset - bytes.len() as u64,
        next_offset,
        bytes: bytes.into(),
    })
}

/// Length of the last `lines` lines; a last one without an end counts.
fn tail_len(bytes: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return 0;
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body.iter().enumerate().rev();
    let mut ends = ends.filter(|(_, byte)| **byte == b'\n');
    match ends.nth(lines - 1) {
        Some((at, _)) => bytes.len() - at - 1,
        None => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_full_disk_costs_older_output_first_and_then_the_longest() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("7");
        fs::create_dir(&dir).unwrap();
        let long = usize::try_from(WORTH_BYTES_MIN).unwrap();
        fs::write(dir.join("stdout.log"), "x".repeat(2 * long)).unwrap();
        fs::write(dir.join("stdout.log.1"), "older").unwrap();
        fs::write(dir.join("stderr.log"), "y".repeat(long)).unwrap();
        fs::write(dir.join("config.json"), "z".repeat(3 * long)).unwrap();
        let length = |name: &str| fs::metadata(dir.join(name)).map(|found| found.len()).ok();
        let said = give_up(root.path()).unwrap().unwrap();
        assert!(said.contains("5 bytes of older"), "{said}");
        assert_eq!(
            (length("stdout.log.1"), length("stdout.log")),
            (None, Some(2 * WORTH_BYTES_MIN))
        );
        assert!(
            give_up(root.path())
                .unwrap()
                .unwrap()
                .contains("stdout.log")
        );
        assert_eq!(
            (length("stdout.log"), length("stderr.log")),
            (Some(0), Some(WORTH_BYTES_MIN))
        );
        assert_eq!(base(&dir.join("stdout.log")), 2 * WORTH_BYTES_MIN);
        assert!(give_up(root.path()).unwrap().is_some());
        assert_eq!(
            give_up(root.path()).unwrap(),
            None,
            "what is left is short, or no output"
        );
        assert!(length("config.json").is_some());
        assert_eq!(give_up(&root.path().join("nowhere")).unwrap(), None);
    }

    #[test]
    fn a_long_file_is_cut_and_only_so_many_parts_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("7");
        fs::create_dir(&dir).unwrap();
        let path = dir.join("stdout.log");
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        for round in 0..5 {
            writer
                .write_all(format!("round {round} {}", "x".repeat(100)).as_bytes())
                .unwrap();
            rotate_all(root.path(), 50, 2, 0).unwrap();
        }
        writer.write_all(b"end").unwrap();
        rotate_all(root.path(), 50, 2, 0).unwrap();
        let mut names: Vec<_> = entries(&dir).unwrap();
        names.sort();
        let names: Vec<_> = names
            .iter()
            .map(|name| name.file_name().unwrap().to_str().unwrap())
            .collect();
        let wanted = [
            "stdout.log",
            "stdout.log.1",
            "stdout.log.2",
            "stdout.log.base",
            "stdout.log.times",
        ];
        assert_eq!(names, wanted);
        assert_eq!(fs::read_to_string(&path).unwrap(), "end");
        let part = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert!(part("stdout.log.1").starts_with("round 4"));
        assert!(part("stdout.log.2").starts_with("round 3"));
    }

    #[test]
    fn a_reader_goes_on_where_it_was_through_older_parts() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("7");
        fs::create_dir(&dir).unwrap();
        let path = dir.join("stdout.log");
        let write = |text: &str| {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let now = std::cell::Cell::new(1_000);
        let get = |tail, since| {
            let query = LogQuery {
                stream: Tell::Stdout,
                tail,
                since,
            };
            let page = read(&path, 2, &query, now.get()).unwrap();
            let text = String::from_utf8(page.bytes.to_vec()).unwrap();
            (page.from_offset, text, page.next_offset)
        };
        let page = |offset: Option<u64>, tail| get(tail, offset.map(Since::Offset));
        write("one\ntwo\n");
        assert_eq!(page(Some(4), None), (4, "two\n".to_owned(), 8));
        rotate_all(root.path(), 1, 2, now.get()).unwrap();
        assert_eq!(page(Some(8), None), (8, String::new(), 8), "nothing new");
        now.set(2_000);
        write("three\n");
        assert_eq!(
            get(None, Some(Since::AgoMs(500))),
            (8, "three\n".to_owned(), 14)
        );
        assert_eq!(
            get(None, Some(Since::AgoMs(1_500))).0,
            0,
            "before the first look"
        );
        assert_eq!(page(Some(4), None), (4, "two\nthree\n".to_owned(), 14));
        rotate_all(root.path(), 1, 2, now.get()).unwrap();
        assert_eq!(get(None, Some(Since::AgoMs(0))), (14, String::new(), 14));
        write("four");
        assert_eq!(page(None, Some(2)), (8, "three\nfour".to_owned(), 18));
        assert_eq!(page(None, Some(0)), (18, String::new(), 18));
        rotate_all(root.path(), 1, 2, now.get()).unwrap();
        let rest = (8, "three\nfour".to_owned(), 18);
        assert_eq!(
            page(Some(0), None),
            rest,
            "the first part is gone, and seen to be"
        );
        assert_eq!(page(Some(99), None), (18, String::new(), 18));
    }

    #[test]
    fn no_directory_is_no_error() {
        rotate_all(Path::new("/nonexistent/tasks"), 1, 1, 0).unwrap();
    }
}
