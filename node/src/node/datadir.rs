//! The data directory: its parts, whose it is, and how it is changed so that a loss of power leaves it whole.
//!
//! Everything here blocks: it runs on a lane. A directory is claimed by one process at a time; what is damaged is set aside for
//! a person to look at, never removed.

use super::Shared;
use crate::store::Store;
use crate::types::Incarnation;
use std::path::{Path, PathBuf};

/// The data directory's parts.
#[derive(Clone)]
pub(crate) struct Dirs {
    /// The log.
    pub(crate) wal: PathBuf,
    /// Snapshot files.
    pub(crate) snapshots: PathBuf,
    /// The store.
    pub(crate) store: PathBuf,
    /// Name and incarnation.
    pub(super) identity: PathBuf,
    /// The whole.
    pub(super) root: PathBuf,
}

impl Dirs {
    /// Parts of `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Dirs {
            wal: root.join("wal"),
            snapshots: root.join("snapshots"),
            store: root.join("store"),
            identity: root.join("identity.json"),
            root: root.to_owned(),
        }
    }
}

/// A data directory that is this process's alone for as long as this lives.
pub(crate) struct Claim {
    /// The locked file; the operating system unlocks it when the process ends, however it ends.
    #[expect(
        clippy::disallowed_types,
        reason = "a lock that vanishes with the process"
    )]
    _locked: std::fs::File,
}

/// Makes the data directory and claims it. Two processes on one log would write over each other's acknowledged entries.
pub(crate) async fn claim(shared: &Shared) -> Result<Claim, String> {
    let root = shared.config.data_dir.clone();
    let claimed = shared
        .env
        .lanes
        .open("claim")
        .run(move || claim_dir(&root))
        .await;
    claimed.map_err(|closed| closed.to_string())?
}

#[expect(
    clippy::disallowed_types,
    reason = "runs on a lane, inside the data directory"
)]
pub(super) fn claim_dir(root: &Path) -> Result<Claim, String> {
    let shown = root.display();
    let io = |error: std::io::Error| format!("the data directory {shown} cannot be used: {error}");
    create_dir_durably(root).map_err(io)?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Claim { _locked: file }),
        Err(std::fs::TryLockError::WouldBlock) => Err(format!(
            "the data directory {shown} is in use by another process: stop that one first"
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Moves what is left of a member's data out of the way, for a person to look at.
#[expect(
    clippy::disallowed_methods,
    reason = "runs on the log's lane, inside the data directory"
)]
pub(super) fn set_aside(dirs: &Dirs, life: Incarnation) -> Result<(), String> {
    let words = |error: std::io::Error| format!("setting damaged data aside: {error}");
    let aside = dirs.root.join(format!("damaged-{life}"));
    std::fs::create_dir_all(&aside).map_err(words)?;
    for part in [&dirs.wal, &dirs.snapshots] {
        if part.exists() {
            let name = part.file_name().expect("the parts have names");
            std::fs::rename(part, aside.join(name)).map_err(words)?;
        }
    }
    Store::destroy(&dirs.store).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(&dirs.snapshots).map_err(words)?;
    sync_dir(&aside).map_err(words)?;
    sync_dir(&dirs.root).map_err(words)
}

/// What a data directory says of itself.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Note {
    /// Name of the node.
    pub(super) name: String,
    /// Life of the directory.
    pub(super) incarnation: Incarnation,
    /// True once it belonged to a member.
    pub(super) member: bool,
}

/// Reads the note.
#[expect(
    clippy::disallowed_methods,
    reason = "runs on the log's lane, inside the data directory"
)]
pub(super) fn read_note(path: &Path) -> Result<Option<Note>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("reading {}: {error}", path.display())),
    }
}

/// Writes the note, whole or not at all.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "runs on the log's lane, inside the data directory"
)]
pub(super) fn write_note(dirs: &Dirs, note: &Note) -> Result<(), String> {
    let words = |error: std::io::Error| format!("writing {}: {error}", dirs.identity.display());
    let bytes = serde_json::to_vec_pretty(note).expect("a note is plain data");
    let fresh = dirs.identity.with_extension("json.new");
    std::fs::write(&fresh, bytes).map_err(words)?;
    std::fs::File::open(&fresh)
        .and_then(|file| file.sync_all())
        .map_err(words)?;
    std::fs::rename(&fresh, &dirs.identity).map_err(words)?;
    sync_dir(&dirs.root).map_err(words)
}

/// Makes a directory and its missing parents, each with its name durable: a data directory whose own name is lost with the
/// power takes everything in it along, however well that was synced.
pub(super) fn create_dir_durably(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_durably(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
#[expect(
    clippy::disallowed_types,
    reason = "runs on the log's lane, inside the data directory"
)]
pub(super) fn sync_dir(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}
