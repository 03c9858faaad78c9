//! The worker's own file: who it is, its assignments, its tasks' states, and what managers have not heard.
//!
//! One file, written whole: into a temporary one, synced, renamed, and the directory synced, so that a loss of power leaves the old
//! or the new one. Checked by length and CRC-32C; the format is `docs/format/worker-v1.md`. A damaged file is set aside for a person
//! to look at and the worker begins with nothing: it says so in its next hello by a new life, and managers replace what it had. A
//! file of a newer version is refused, since a newer program could still read it.
//!
//! Beside it lies a list of managers, which is worth nothing but a shorter way back into the cluster.
//!
//! No bytes, however damaged, make a reader panic. Everything that touches files runs on the worker's lane.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the worker's file; runs on a lane and is simulated underneath"
)]

use super::exchange::Saved;
use crate::rt::Lane;
use crate::rt::lane::Closed;
use crate::rt::net::BoxFuture;
use crate::types::Incarnation;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"swworker";
/// The version that this program writes.
const VERSION: u32 = 1;
/// Bytes in front of the payload.
const HEADER_BYTES: usize = 24;
/// Name of the file.
const NAME: &str = "worker.state";
/// Name under which it is written.
const TEMPORARY: &str = "worker.state.tmp";
/// Name under which a damaged one is kept; only the newest is.
const DAMAGED: &str = "worker.state.damaged";
/// Name of the file that remembers where managers are: a JSON list of addresses.
const MANAGERS: &str = "managers.json";
/// Name under which that is written.
const MANAGERS_TEMPORARY: &str = "managers.json.tmp";
/// Name of the file that a living worker holds locked.
const LOCK: &str = "lock";

/// Why the worker's file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full. The file is as it was.
    #[error("cannot write {}: the disk is full", .0.display())]
    NoSpace(PathBuf),
    /// The file system failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The file is of a newer version.
    #[error("{} has version {version}; this program knows up to {VERSION}: run the newer program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Another worker has the directory.
    #[error("{} is in use by another worker: stop that one first", .0.display())]
    InUse(PathBuf),
    /// The lane has closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Error {
    /// An error of the file system, for `map_err`.
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull => Error::NoSpace(path),
            _ => Error::Io { what, path, source },
        }
    }
}

/// What bytes are, read as the worker's file.
#[derive(Debug, PartialEq)]
pub enum Decoded {
    /// A whole, sound state.
    Good(Box<Saved>),
    /// Damage, and what is wrong.
    Damaged(String),
    /// Of this newer version.
    Newer(u32),
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The state to begin with.
    pub saved: Saved,
    /// Why it is empty although there was a file; for the journal.
    pub damage: Option<String>,
}

/// The file's bytes for a state.
pub fn encode(saved: &Saved) -> Vec<u8> {
    let payload = serde_json::to_vec(saved).expect("the state is plain data with text keys");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((payload.len() as u64).to_le_bytes());
    bytes.extend(checksum(&bytes, &payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// CRC-32C over the header's first 20 bytes and the payload.
fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), payload)
}

/// Reads bytes as the worker's file.
pub fn decode(bytes: &[u8]) -> Decoded {
    let damaged = |why: &str| Decoded::Damaged(why.to_owned());
    let Some((header, payload)) = bytes.split_at_checked(HEADER_BYTES) else {
        return damaged("it is shorter than its header");
    };
    if !header.starts_with(MAGIC) {
        return damaged("it does not begin like a worker's file");
    }
    let number = |at: usize| {
        header[at..at + 4]
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u32::from(*byte))
    };
    let (version, length) = (
        number(8),
        u64::from(number(12)) | u64::from(number(16)) << 32,
    );
    if length != payload.len() as u64 {
        return damaged("its length is not what its header says");
    }
    if checksum(&header[..20], payload) != number(20) {
        return damaged("its checksum does not fit");
    }
    if version > VERSION {
        return Decoded::Newer(version);
    }
    match serde_json::from_slice::<Saved>(payload) {
        Ok(saved) if saved.is_sound() => Decoded::Good(Box::new(saved)),
        Ok(_) => damaged("what it says contradicts itself"),
        Err(error) => Decoded::Damaged(format!("its contents cannot be read: {error}")),
    }
}

/// A directory that is this worker's alone for as long as this lives, and as the process does.
#[derive(Debug)]
pub struct Claim {
    /// The locked file.
    _locked: File,
}

/// The worker's file and the lane on which it is read and written.
#[derive(Clone)]
pub struct Disk {
    /// Where the work is done.
    lane: Lane,
    /// The directory of the file.
    dir: PathBuf,
}

impl Disk {
    /// The file in `dir`.
    pub fn new(lane: Lane, dir: PathBuf) -> Self {
        Disk { lane, dir }
    }

    /// Makes the directory and claims it: two workers on one file would each take the other's tasks for orphans.
    pub async fn claim(&self) -> Result<Claim, Error> {
        let dir = self.dir.clone();
        self.lane.run(move || claim(&dir)).await?
    }

    /// Reads the file. Where there is none or a damaged one, a new life begins under the name `life`, and is made durable.
    pub async fn open(&self, life: Incarnation) -> Result<Opened, Error> {
        let dir = self.dir.clone();
        self.lane.run(move || open(&dir, life)).await?
    }

    /// Makes a state durable, as it is at the call. Dropping the future does not recall the work.
    pub fn save(&self, saved: &Saved) -> BoxFuture<'static, Result<(), Error>> {
        let (dir, bytes) = (self.dir.clone(), encode(saved));
        let written = self.lane.run(move || write(&dir, &bytes));
        Box::pin(async move { written.await? })
    }

    /// As [`Disk::save`]; when the disk is full, once more if `make_room` has found something that counts for less.
    pub fn save_first(
        &self,
        saved: &Saved,
        make_room: BoxFuture<'static, bool>,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let (lane, dir) = (self.lane.clone(), self.dir.clone());
        let bytes: Arc<[u8]> = encode(saved).into();
        let work = {
            let bytes = Arc::clone(&bytes);
            move |dir: PathBuf| move || write(&dir, &bytes)
        };
        let written = lane.run(work.clone()(dir.clone()));
        Box::pin(async move {
            match written.await? {
                Err(Error::NoSpace(_)) if make_room.await => lane.run(work(dir)).await?,
                result => result,
            }
        })
    }

    /// The managers that were remembered. They are a help and no promise: what cannot be read counts as none.
    pub async fn managers(&self) -> Vec<String> {
        let path = self.dir.join(MANAGERS);
        let read = self.lane.run(move || fs::read(path).unwrap_or_default());
        let bytes = read.await.unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Remembers where managers are.
    pub async fn remember(&self, managers: &[String]) -> Result<(), Error> {
        let (dir, json) = (self.dir.clone(), serde_json::json!(managers).to_string());
        let work = move || replace(&dir, MANAGERS, MANAGERS_TEMPORARY, json.as_bytes());
        self.lane.run(work).await?
    }
}

/// Makes the directory and locks a file in it.
fn claim(dir: &Path) -> Result<Claim, Error> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let path = dir.join(LOCK);
    let mut options = fs::OpenOptions::new();
    let options = options.create(true).truncate(false).write(true);
    let file = options.open(&path).map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Claim { _locked: file }),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

/// Reads the file, or begins a new one.
fn open(dir: &Path, life: Incarnation) -> Result<Opened, Error> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
        sync_dir(above)?;
    }
    let path = dir.join(NAME);
    let damage = match fs::read(&path) {
        Ok(bytes) => match decode(&bytes) {
            Decoded::Good(saved) => {
                return Ok(Opened {
                    saved: *saved,
                    damage: None,
                });
            }
            Decoded::Newer(version) => return Err(Error::Newer { path, version }),
            Decoded::Damaged(why) => {
                let aside = dir.join(DAMAGED);
                fs::rename(&path, &aside).map_err(Error::io("set aside", &path))?;
                Some(format!(
                    "{} is damaged: {why}; kept as {DAMAGED}",
                    path.display()
                ))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let saved = Saved::empty(life);
    write(dir, &encode(&saved))?;
    Ok(Opened { saved, damage })
}

/// Replaces the worker's file, whole or not at all.
fn write(dir: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(dir, NAME, TEMPORARY, bytes)
}

/// Replaces a file, whole or not at all.
fn replace(dir: &Path, name: &str, temporary: &str, bytes: &[u8]) -> Result<(), Error> {
    let (temporary, path) = (dir.join(temporary), dir.join(name));
    let written = write_synced(&temporary, bytes)
        .map_err(Error::io("write", &temporary))
        .and_then(|()| fs::rename(&temporary, &path).map_err(Error::io("rename", &path)));
    if written.is_err() {
        drop(fs::remove_file(&temporary)); // The first error is the one to tell.
    }
    written?;
    sync_dir(dir)
}

/// Writes and syncs a file.
fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io("sync", dir))
}
