//! The files around fjall's own: the directory of each store, and the marker of an orderly close.
//!
//! The marker is one line of text, `seaworthy-store 1 <directory> <cluster> <index> <term> <state hash> <crc>`,
//! described in `docs/format/store.md`. It is there only while the store is closed and whole.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the store's own files; runs on the storage lane and is simulated underneath"
)]

use crate::state::{Applied, Meta};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Name of the marker.
const NAME: &str = "clean";
/// Longest marker that is looked at, bytes.
const BYTES_MAX: u64 = 4096;

/// What an orderly close leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// Name of the store's directory.
    pub(super) directory: String,
    /// Cluster, applied index and term, state hash.
    state: [u64; 4],
}

impl Marker {
    /// The marker of the store at `path`.
    pub(super) fn new(path: &Path, meta: &Meta, applied: &Applied) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str());
        let directory = name.ok_or(ErrorKind::InvalidInput)?.to_owned();
        Ok(Marker {
            directory,
            state: numbers(meta, applied),
        })
    }

    /// Whether it was written for this state.
    pub(super) fn fits(&self, meta: &Meta, applied: &Applied) -> bool {
        self.state == numbers(meta, applied)
    }

    /// Makes the store's directories durable, then itself, beside the directory `path`.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().ok_or(ErrorKind::InvalidInput)?;
        // Fjall does not sync the directory that it makes for a keyspace (hazard 3).
        sync_tree(path)?;
        let temporary = dir.join("clean.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(NAME))?;
        sync_dir(dir)
    }

    /// The line.
    fn text(&self) -> String {
        let [cluster, index, term, hash] = self.state;
        let directory = &self.directory;
        let line =
            format!("seaworthy-store 1 {directory} {cluster:016x} {index} {term} {hash:016x}");
        format!("{line} {:08x}\n", crc32c::crc32c(line.as_bytes()))
    }

    /// Reads the line; `None` if it is not one of ours, whole.
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[
            "seaworthy-store",
            "1",
            directory,
            cluster,
            index,
            term,
            hash,
            _,
        ] = &words[..]
        else {
            return None;
        };
        let marker = Marker {
            directory: directory.to_owned(),
            state: [
                u64::from_str_radix(cluster, 16).ok()?,
                index.parse().ok()?,
                term.parse().ok()?,
                u64::from_str_radix(hash, 16).ok()?,
            ],
        };
        (number(directory).is_some() && marker.text() == text).then_some(marker)
    }
}

/// What a marker says of a state.
fn numbers(meta: &Meta, applied: &Applied) -> [u64; 4] {
    let Applied {
        index,
        term,
        state_hash,
    } = *applied;
    [meta.cluster_id, index, term, state_hash]
}

/// The number of a store's directory.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix("db-")?.parse().ok()
}

/// Takes the marker away, durably, and says what it said.
pub(super) fn take(dir: &Path) -> io::Result<Option<Marker>> {
    let path = dir.join(NAME);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = match length {
        0..=BYTES_MAX => String::from_utf8(fs::read(&path)?).ok(),
        _ => None,
    };
    fs::remove_file(&path)?;
    sync_dir(dir)?;
    Ok(text.and_then(|text| Marker::parse(&text)))
}

/// A number above those of all directories in `dir`.
pub(super) fn next_number(dir: &Path) -> io::Result<u64> {
    let numbers = names(dir)?;
    let last = numbers.iter().filter_map(|name| number(name)).max();
    Ok(last.unwrap_or(0).saturating_add(1))
}

/// The names in a directory, in order; none if there is no directory.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes a store's directory and those above it. Its name is durable at once, so that no later store gets the same one.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Removes the marker, durably, and then every store in `dir`.
pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
    take(dir)?;
    for name in names(dir)? {
        if number(&name).is_some() {
            fs::remove_dir_all(dir.join(name))?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the names in a directory, in those below it, and in the one above it durable.
fn sync_tree(path: &Path) -> io::Result<()> {
    for name in names(path)? {
        let below = path.join(name);
        // A file may vanish meanwhile: fjall's worker removes those that it has merged.
        if fs::metadata(&below).is_ok_and(|metadata| metadata.is_dir()) {
            sync_tree(&below)?;
        }
    }
    sync_dir(path)
}
