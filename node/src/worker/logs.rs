//! What tasks write, within bounds: a file that has grown too long is copied aside and cut.
//!
//! A task's process has its files open itself, because it outlives the worker; so a file cannot be renamed under it. It is copied and
//! cut to nothing instead; the process appends, so its next line is the first. What it writes between the copy and the cut is lost,
//! and between two looks a file may grow past its bound: both are the price of tasks that need no worker to run.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files of tasks; runs on a lane and is simulated underneath"
)]

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Rotates every `*.log` below `tasks` (one directory a task) that is longer than `bytes_max`, keeping `kept` older parts of each.
/// A file that cannot be handled does not keep the others waiting; the first error is given.
pub(super) fn rotate_all(tasks: &Path, bytes_max: u64, kept: usize) -> io::Result<()> {
    let mut first = Ok(());
    for dir in entries(tasks)? {
        for file in entries(&dir).unwrap_or_default() {
            if file.extension().is_some_and(|extension| extension == "log") {
                first = first.and(rotate(&file, bytes_max, kept));
            }
        }
    }
    first
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
    if kept > 0 {
        fs::copy(file, part(1))?;
    }
    OpenOptions::new().write(true).open(file)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
            rotate_all(root.path(), 50, 2).unwrap();
        }
        writer.write_all(b"end").unwrap();
        rotate_all(root.path(), 50, 2).unwrap();
        let mut names: Vec<_> = entries(&dir).unwrap();
        names.sort();
        let names: Vec<_> = names
            .iter()
            .map(|name| name.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["stdout.log", "stdout.log.1", "stdout.log.2"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "end");
        let part = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert!(part("stdout.log.1").starts_with("round 4"));
        assert!(part("stdout.log.2").starts_with("round 3"));
    }

    #[test]
    fn no_directory_is_no_error() {
        rotate_all(Path::new("/nonexistent/tasks"), 1, 1).unwrap();
    }
}
