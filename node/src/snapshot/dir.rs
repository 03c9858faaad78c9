//! The directory of snapshots: names, order, and what is kept.
//!
//! `<index, 20 digits>-<term>.snap` is a complete file, `*.tmp` one being written, `*.part` one being received.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "snapshot files; runs on the storage lane and is simulated underneath"
)]

use super::Error;
use super::file::read_meta;
use super::format::Meta;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The name of a snapshot at an index and term.
pub fn file_name(index: u64, term: u64) -> String {
    format!("{index:020}-{term}.snap")
}

/// Index and term in a name.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_suffix(".snap")?.split_once('-')?;
    let parsed = (index.parse().ok()?, term.parse().ok()?);
    (file_name(parsed.0, parsed.1) == name).then_some(parsed)
}

/// One file with a snapshot's name.
#[derive(Debug)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// What it says of itself, or what is wrong with it.
    pub meta: Result<Meta, Error>,
}

/// Makes the directory, durably, and removes what a crash left half-written.
pub fn prepare(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    if let Some(above) = dir.parent() {
        sync_dir(above)?;
    }
    for name in names(dir)? {
        if name.ends_with(".tmp") {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// All snapshots, newest first, by what they say of themselves ([`read_meta`]). [`super::verify`] the one to be used.
pub fn list(dir: &Path) -> Result<Vec<Listed>, Error> {
    let mut found: Vec<_> = names(dir)?
        .into_iter()
        .filter_map(|name| Some((parse_name(&name)?, dir.join(name))))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    let listed = found.into_iter().map(|((index, term), path)| {
        let meta = read_meta(&path).and_then(|meta| match (meta.index.0, meta.term.0) {
            said if said == (index, term) => Ok(meta),
            _ => Err(Error::bad(&path, "its name does not fit its header")),
        });
        Listed { path, meta }
    });
    Ok(listed.collect())
}

/// Removes all snapshots but the newest `keep` that look good (at least one). Bad ones older than those go too.
pub fn remove_old(dir: &Path, keep: usize) -> Result<(), Error> {
    let mut good = 0;
    for listed in list(dir)? {
        if good >= keep.max(1) {
            remove(&listed.path)?;
        }
        good += usize::from(listed.meta.is_ok());
    }
    sync_dir(dir)
}

/// The names in the directory, in order; none if there is no directory.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        names.extend(name.into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(Error::io("remove", path))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io("sync", dir))
}
