//! A snapshot on its way to another node: an [`Offer`] says what comes, chunks follow in order, the [`Receiver`] keeps
//! them in a `.part` file. After a break the transfer goes on where the part ends, if the same file is offered again.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "snapshot files; runs on the storage lane and is simulated underneath"
)]

use super::Error;
use super::dir::{file_name, names, remove, sync_dir};
use super::file::{read_meta, verify};
use super::format::Meta;
use crate::types::{Index, Term};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What a sender has to give. Two nodes' files of one index may differ in a time stamp, so the checksum is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Last entry the snapshot holds.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// Checksum in its trailer.
    pub checksum: u64,
}

/// What a file would be offered as.
pub fn offer(path: &Path) -> Result<Offer, Error> {
    let meta = read_meta(path)?;
    Ok(Offer {
        index: meta.index,
        term: meta.term,
        bytes: meta.bytes,
        checksum: meta.checksum,
    })
}

/// Up to `length_max` bytes of a file from `offset`; empty at its end.
pub fn read_chunk(path: &Path, offset: u64, length_max: usize) -> Result<Vec<u8>, Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("look at", path))?.len();
    let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut chunk = vec![0; left.min(length_max)];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut chunk))
        .map_err(Error::io("read", path))?;
    Ok(chunk)
}

/// A snapshot being received.
#[derive(Debug)]
pub struct Receiver {
    /// What was offered.
    offer: Offer,
    /// The snapshots' directory.
    dir: PathBuf,
    /// The `.part` file's path.
    path: PathBuf,
    /// The `.part` file.
    file: File,
    /// Bytes in it.
    offset: u64,
}

impl Receiver {
    /// Begins, or goes on with, the file offered; parts of other files are removed.
    pub fn open(dir: &Path, offer: Offer) -> Result<Self, Error> {
        let snapshot = file_name(offer.index.0, offer.term.0);
        let own = format!("{snapshot}.{:016x}.part", offer.checksum);
        for name in names(dir)? {
            if name.ends_with(".part") && name != own {
                remove(&dir.join(name))?;
            }
        }
        let path = dir.join(own);
        let mut options = OpenOptions::new();
        let opened = options.create(true).append(true).open(&path);
        let file = opened.map_err(Error::io("create", &path))?;
        let metadata = file.metadata().map_err(Error::io("look at", &path))?;
        let mut offset = metadata.len();
        if offset > offer.bytes {
            file.set_len(0).map_err(Error::io("empty", &path))?;
            offset = 0;
        }
        let dir = dir.to_owned();
        Ok(Receiver {
            offer,
            dir,
            path,
            file,
            offset,
        })
    }

    /// What is being received.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Bytes received: where the next chunk belongs.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True when all bytes are there.
    pub fn is_complete(&self) -> bool {
        self.offset == self.offer.bytes
    }

    /// Takes the chunk at `offset`. After an error of the file system the receiver is to be opened again.
    pub fn append(&mut self, offset: u64, chunk: &[u8]) -> Result<(), Error> {
        if offset != self.offset {
            return Err(Error::OutOfPlace {
                expected: self.offset,
                got: offset,
            });
        }
        if chunk.len() as u64 > self.offer.bytes - self.offset {
            return Err(Error::bad(
                &self.path,
                "the sender sends more than it offered",
            ));
        }
        let written = self.file.write_all(chunk);
        written.map_err(Error::io("write", &self.path))?;
        self.offset += chunk.len() as u64;
        Ok(())
    }

    /// Checks the whole file and gives it its name. A bad file is removed: the transfer begins anew.
    pub fn finish(self) -> Result<(Meta, PathBuf), Error> {
        let synced = self.file.sync_all();
        synced.map_err(Error::io("sync", &self.path))?;
        let checked = verify(&self.path).and_then(|meta| self.check(meta));
        let meta = match checked {
            Err(Error::Bad { path, why }) => {
                remove(&self.path)?;
                return Err(Error::Bad { path, why });
            }
            other => other?,
        };
        let name = file_name(self.offer.index.0, self.offer.term.0);
        let path = self.dir.join(name);
        fs::rename(&self.path, &path).map_err(Error::io("rename", &path))?;
        sync_dir(&self.dir)?;
        Ok((meta, path))
    }

    /// Whether the file is the one offered.
    fn check(&self, meta: Meta) -> Result<Meta, Error> {
        let said = Offer {
            index: meta.index,
            term: meta.term,
            bytes: meta.bytes,
            checksum: meta.checksum,
        };
        match said == self.offer {
            true => Ok(meta),
            false => Err(Error::bad(
                &self.path,
                "it is not the snapshot that was offered",
            )),
        }
    }
}
