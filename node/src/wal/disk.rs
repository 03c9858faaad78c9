//! Files and directory entries of the log: the one file of `wal` that names `std::fs`.
//!
//! A directory entry is durable once [`Dir::sync`] returned; file contents once [`Handle::sync`] returned. Nothing here
//! retries or hides an error. It knows nothing of sectors or segments.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the log is std::fs by design: run on a storage lane, simulated underneath (design.md, section 5)"
)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One open file, read and written at offsets.
#[derive(Debug)]
pub(super) struct Handle(File);

impl Handle {
    /// Length, bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// The whole file into `into`, which is emptied first.
    pub(super) fn read_all(&self, into: &mut Vec<u8>) -> io::Result<()> {
        let len = usize::try_from(self.len()?).map_err(io::Error::other)?;
        into.clear();
        into.resize(len, 0);
        self.0.read_exact_at(into, 0)
    }

    /// Fills `into` from `offset` on.
    pub(super) fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    /// Writes all of `bytes` at `offset`.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Makes the contents durable (fdatasync).
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Makes contents and length durable (fsync), for files that grew.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// The log's directory.
#[derive(Debug)]
pub(super) struct Dir {
    /// Where it is.
    path: PathBuf,
    /// Held open for `fsync`.
    handle: File,
}

impl Dir {
    /// Opens the directory, and creates it durably if it is missing.
    pub(super) fn open_or_create(path: &Path) -> io::Result<Self> {
        if !path.try_exists()? {
            fs::create_dir_all(path)?;
            sync_parent(path)?;
        }
        Dir::open(path)
    }

    /// Opens an existing directory.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Dir {
            path: path.to_owned(),
            handle: File::open(path)?,
        })
    }

    /// Another handle on the same directory.
    pub(super) fn again(&self) -> io::Result<Self> {
        Dir::open(&self.path)
    }

    /// Names of its files, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not text is not ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Opens a file for reading and writing, or `None` if there is none.
    pub(super) fn file(&self, name: &str, writable: bool) -> io::Result<Option<Handle>> {
        let mut how = OpenOptions::new();
        how.read(true).write(writable);
        match how.open(self.path.join(name)) {
            Ok(file) => Ok(Some(Handle(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an empty file, in place of any that has the name.
    pub(super) fn create(&self, name: &str) -> io::Result<Handle> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(true);
        Ok(Handle(how.open(self.path.join(name))?))
    }

    /// Renames a file; durable after [`Dir::sync`].
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Removes a file; durable after [`Dir::sync`].
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    /// Makes every creation, rename and removal so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Renames the directory `path` to the first free `path.damaged-N`, durably.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1_u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let aside = PathBuf::from(name);
        if !aside.try_exists()? {
            fs::rename(path, &aside)?;
            sync_parent(path)?;
            return Ok(aside);
        }
        number += 1;
    }
}

/// Makes the entry of `path` in its parent durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
