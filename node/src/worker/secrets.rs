//! Secrets on a worker: sealed in its file, opened when an attempt starts, and files in memory for as long as that runs.
//!
//! Managers seal each value for the worker's public key; that form alone is on its disk, beside the key file that opens it
//! (`crate::secrets::keyfile`). So an attempt starts without managers too. The clear text is in this process from the opening until the
//! files are written, and then in the files: in a directory of a file system that lives in memory, mode 0700, one directory a task,
//! removed when the attempt has ended and swept when a worker begins. A worker without such a place starts no task with secrets: it
//! does not write them to a disk instead.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files in memory for tasks; runs on the executor's lane"
)]

use super::process::{never, not_now};
use super::words::{Assignment, Refusal};
use crate::secrets::seal::{About, Clear, KeyPair};
use crate::types::{TaskId, WorkerId};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the files lie unless the operator says otherwise.
pub const BASE: &str = "/dev/shm";
/// The variable in which a task finds the directory of its secrets.
pub(super) const VARIABLE: &str = "SEAWORTHY_SECRETS";
/// Where a container finds them.
pub(super) const IN_CONTAINER: &str = "/run/secrets";
/// Kinds of file systems that live in memory: tmpfs and ramfs.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// A secret in the clear, for one attempt.
pub struct SecretFile {
    /// The secret.
    pub secret: String,
    /// Its version.
    pub version: u64,
    /// Name of its file.
    pub target: String,
    /// Mode of its file.
    pub mode: u32,
    /// Its value.
    pub value: Clear,
}

/// Opens the secrets of a task.
pub(crate) fn open(
    pair: &KeyPair,
    worker: WorkerId,
    assignment: &Assignment,
) -> Result<Vec<SecretFile>, Refusal> {
    let mounts = assignment.spec.secrets.iter();
    let open = |mount: &crate::service::spec::SecretMount| {
        let name = &*mount.secret;
        let Some(given) = assignment.secrets.get(name) else {
            return Err(not_now(format!("managers have not sent secret {name}")));
        };
        let version = given.version;
        let Some(sealed) = &given.sealed else {
            let why = given.why.as_deref().unwrap_or("managers could not send it");
            return Err(not_now(format!("secret {name} is missing: {why}")));
        };
        let about = About::Delivery {
            worker: worker.0,
            name,
            version,
        };
        let value = pair.open(sealed, about).ok_or_else(|| {
            not_now(format!(
                "version {version} of secret {name} was sealed for another key than this worker has now: managers send it again"
            ))
        })?;
        Ok(SecretFile {
            secret: name.to_owned(),
            version,
            target: mount.target.clone(),
            mode: mount.mode,
            value,
        })
    };
    mounts.map(open).collect()
}

/// Where a worker's executor puts files of secrets. Everything here blocks: it runs on a lane.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The place in memory.
    base: PathBuf,
    /// This worker's directory there.
    own: PathBuf,
}

impl Shelf {
    /// The shelf in `base` of the worker in `dir`.
    pub fn new(base: &Path, dir: &Path) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(dir.as_os_str().as_encoded_bytes());
        Shelf {
            base: base.to_owned(),
            own: base.join(format!("seaworthy-{hash:016x}")),
        }
    }

    /// The directory of a task's secrets.
    pub fn dir(&self, task: TaskId) -> PathBuf {
        self.own.join(task.to_string())
    }

    /// Writes the files of an attempt, in place of those before. `owner`: whose they are, if not this process's user.
    pub fn put(
        &self,
        task: TaskId,
        files: &[SecretFile],
        owner: Option<(u32, u32)>,
    ) -> Result<(), Refusal> {
        self.check_base()?;
        let dir = self.dir(task);
        let trouble =
            |error: io::Error| not_now(format!("cannot put secrets in {}: {error}", dir.display()));
        self.check_own().map_err(trouble)?;
        self.clear(task);
        let write = || {
            make_dir(&dir)?;
            for file in files {
                let path = dir.join(&file.target);
                let mut options = fs::OpenOptions::new();
                let options = options.write(true).create_new(true).mode(0o600);
                let mut open = options.open(&path)?;
                open.write_all(&file.value)?;
                // Not what the umask leaves of it.
                let mode = std::os::unix::fs::PermissionsExt::from_mode(file.mode);
                open.set_permissions(mode)?;
                if let Some((uid, gid)) = owner {
                    std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
                }
            }
            match owner {
                Some((uid, gid)) => std::os::unix::fs::chown(&dir, Some(uid), Some(gid)),
                None => Ok(()),
            }
        };
        write().map_err(|error| {
            self.clear(task);
            trouble(error)
        })
    }

    /// Removes the files of a task.
    pub fn clear(&self, task: TaskId) {
        remove(&self.dir(task));
    }

    /// Removes the files of all tasks but these.
    pub fn sweep(&self, running: &BTreeSet<TaskId>) {
        let listed = fs::read_dir(&self.own).into_iter().flatten().flatten();
        for entry in listed {
            let name = entry.file_name();
            let task = name.to_str().and_then(|name| name.parse().ok());
            if !task.is_some_and(|id| running.contains(&TaskId(id))) {
                remove(&entry.path());
            }
        }
    }

    /// Whether the place is in memory.
    fn check_base(&self) -> Result<(), Refusal> {
        let base = self.base.display();
        let advice = "mount a tmpfs there, or name one with --secrets-dir";
        match rustix::fs::statfs(&self.base) {
            Ok(found) if IN_MEMORY.contains(&(found.f_type as u32)) => Ok(()),
            Ok(_) => Err(never(format!(
                "{base} is not in memory, and this worker writes no secret to a disk: {advice}"
            ))),
            Err(error) => Err(never(format!(
                "this worker has no place in memory for secrets: {base}: {error}; {advice}"
            ))),
        }
    }

    /// Makes this worker's directory, or makes sure that it is: others may write to the place.
    fn check_own(&self) -> io::Result<()> {
        match make_dir(&self.own) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let found = fs::symlink_metadata(&self.own)?;
        let own = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
            let message = format!("{} is not this worker's alone", self.own.display());
            return Err(io::Error::other(message));
        }
        Ok(())
    }
}

/// Makes a directory for its owner alone.
fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Removes a directory; a missing one is no error.
fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(dir = %dir.display(), %error, "cannot remove files of secrets");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use zeroize::Zeroizing;

    fn file(target: &str, value: &str) -> SecretFile {
        SecretFile {
            secret: target.to_owned(),
            version: 1,
            target: target.to_owned(),
            mode: 0o440,
            value: Zeroizing::new(value.as_bytes().to_vec()),
        }
    }

    #[test]
    fn files_are_there_for_their_task_and_gone_after_it() {
        let work = tempfile::tempdir_in(BASE).unwrap();
        let shelf = Shelf::new(work.path(), Path::new("/w"));
        let (first, second) = (TaskId(1), TaskId(2));
        shelf
            .put(first, &[file("a", "one"), file("b", "two")], None)
            .unwrap();
        shelf.put(first, &[file("a", "three")], None).unwrap();
        shelf.put(second, &[file("a", "four")], None).unwrap();
        let path = shelf.dir(first).join("a");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert!(!shelf.dir(first).join("b").exists(), "the files of before");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&shelf.dir(first))), (0o440, 0o700));
        assert_eq!(mode(&shelf.own), 0o700);
        shelf.sweep(&BTreeSet::from([second]));
        assert!(!shelf.dir(first).exists() && shelf.dir(second).exists());
        shelf.clear(second);
        assert!(!shelf.dir(second).exists());
    }

    #[test]
    fn a_disk_is_no_place_for_secrets() {
        let work = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for base in [work.path().to_owned(), work.path().join("missing")] {
            let shelf = Shelf::new(&base, Path::new("/w"));
            let refused = shelf.put(TaskId(1), &[file("a", "one")], None).unwrap_err();
            assert!(refused.is_permanent && refused.message.contains("--secrets-dir"));
            assert!(!shelf.own.exists());
        }
    }

    #[test]
    fn a_directory_that_others_made_is_not_used() {
        let work = tempfile::tempdir_in(BASE).unwrap();
        let shelf = Shelf::new(work.path(), Path::new("/w"));
        fs::create_dir(&shelf.own).unwrap();
        fs::set_permissions(&shelf.own, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = shelf.put(TaskId(1), &[file("a", "one")], None).unwrap_err();
        assert!(refused.message.contains("alone"), "{}", refused.message);
    }
}
