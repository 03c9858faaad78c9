//! Secrets in the storm: given before services are, read by tasks, and looked for in the clear wherever bytes can be seen.
//!
//! Every value begins with [`MARK`] and the secret's name, so that one look finds all of them. A value that an operator gives in a step
//! (`secret update`, by the production command line) must begin so too.
//!
//! What is judged: no disk of any node, after each death and at the end of the run, has a value in the clear or in base64, and no bytes
//! that a worker hears; every task that names secrets gets each of them, in the version that the log gave it; and one version has one
//! value everywhere.

use crate::cluster::Cluster;
use crate::trace::{Level, Recorder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use node::secrets::Clear;
use node::service::Spec;
use node::worker::secrets::SecretFile;
use node::worker::words::Assignment;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What every value begins with.
pub const MARK: &str = "clear.text.of.";
/// Tries to give a secret, and the pause between two.
const TRIES: (u32, Duration) = (40, Duration::from_millis(500));
/// A page that was never written.
const PAGE: [u8; 4_096] = [0; 4_096];
/// Silence after which a worker counts as alone.
const ALONE: Duration = Duration::from_secs(5);
/// Longest time of a try.
const TRY_MAX: Duration = Duration::from_secs(5);

/// Values by name and version.
type Values = BTreeMap<(String, u64), Vec<u8>>;

/// What is known of secrets in a run. A clone is the same.
#[derive(Clone)]
pub struct Safe {
    /// Values that tasks have read, by name and version.
    read: Arc<Mutex<Values>>,
    /// What a value looks like in the clear, and in base64 wherever it begins.
    shapes: Arc<Vec<Vec<u8>>>,
    /// When each worker's host heard something last.
    heard: Arc<Mutex<BTreeMap<String, Duration>>>,
    /// Places where one was found already.
    found: Arc<Mutex<BTreeSet<String>>>,
    /// Where wrongs are told.
    recorder: Recorder,
}

impl Safe {
    /// One that knows nothing.
    pub fn new(recorder: Recorder) -> Self {
        let in_base64 = (0..3).map(in_base64);
        Safe {
            read: Arc::default(),
            shapes: Arc::new(
                std::iter::once(MARK.as_bytes().to_vec())
                    .chain(in_base64)
                    .collect(),
            ),
            heard: Arc::default(),
            found: Arc::default(),
            recorder,
        }
    }

    /// Bytes in which a value may not be.
    pub fn look(&self, place: &str, bytes: &[u8]) {
        // Some files are mostly pages that were never written, and no value has a zero: only what lies between zeros is looked at.
        let pages = bytes.chunks(PAGE.len()).rev();
        let unwritten = pages.take_while(|page| **page == PAGE[..page.len()]);
        let end = bytes.len() - unwritten.map(<[u8]>::len).sum::<usize>();
        let mut runs = bytes[..end].split(|byte| *byte == 0);
        let is_in = |run: &[u8]| self.shapes.iter().any(|shape| holds(run, shape));
        if runs.any(is_in) && lock(&self.found).insert(place.to_owned()) {
            self.recorder
                .fail(format!("secrets_in_clear: {place} has a secret's value"));
        }
    }

    /// The worker of `host` hears `bytes`; `tail` is what it heard just before.
    pub fn hears(&self, host: &str, tail: &mut Vec<u8>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        lock(&self.heard).insert(host.to_owned(), self.recorder.now());
        if !self.is_used() {
            return;
        }
        tail.extend_from_slice(bytes);
        self.look(&format!("what {host} hears"), tail);
        let longest = self.shapes.iter().map(Vec::len).max().unwrap_or(0);
        let kept = tail.len().min(longest);
        tail.drain(..tail.len() - kept);
    }

    /// A task on `host` starts with these secrets.
    pub fn starts(&self, host: &str, assignment: &Assignment, files: &[SecretFile]) {
        for mount in &assignment.spec.secrets {
            let name = &mount.secret;
            let file = files.iter().find(|file| file.target == mount.target);
            let Some(file) = file.filter(|file| file.secret == *name) else {
                self.wrong(host, assignment, &format!("it lacks {name}"));
                continue;
            };
            let given = assignment.secrets.get(name).map(|given| given.version);
            if given != Some(file.version) {
                let version = file.version;
                let what = format!("it has version {version} of {name}, and was given {given:?}");
                self.wrong(host, assignment, &what);
            }
            self.reads(host, assignment, file);
            let heard = lock(&self.heard).get(host).copied().unwrap_or_default();
            if self.recorder.now().saturating_sub(heard) > ALONE {
                self.recorder.sometimes("a worker alone opened a secret");
            }
        }
        if files.len() != assignment.spec.secrets.len() {
            self.wrong(host, assignment, "it has secrets that it does not name");
        }
    }

    /// One secret of a task.
    fn reads(&self, host: &str, assignment: &Assignment, file: &SecretFile) {
        let (name, version) = (&file.secret, file.version);
        let value = &*file.value;
        if !value.starts_with(format!("{MARK}{name}.").as_bytes()) {
            let what = format!("what it has as version {version} of {name} is none of its values");
            self.wrong(host, assignment, &what);
        }
        let mut read = lock(&self.read);
        let others = read.iter().filter(|((known, _), _)| known == name);
        let others = others.filter(|((_, other), known)| (*other == version) != (*known == value));
        let wrongs: Vec<String> = others
            .map(|((_, other), _)| {
                format!("its version {version} of {name} does not fit version {other} elsewhere")
            })
            .collect();
        read.insert((name.clone(), version), value.clone());
        drop(read);
        for what in wrongs {
            self.wrong(host, assignment, &what);
        }
        self.recorder.sometimes("a task read a secret");
        if version > 1 {
            self.recorder
                .sometimes("a task read a later version of a secret");
        }
    }

    fn wrong(&self, host: &str, assignment: &Assignment, what: &str) {
        let (task, service) = (assignment.task, &assignment.spec.name);
        self.recorder.fail(format!(
            "secrets_right: task {task} of {service} on {host}: {what}"
        ));
    }

    /// Whether any task has read one.
    fn is_used(&self) -> bool {
        !lock(&self.read).is_empty()
    }
}

/// Whether `shape` stands in `bytes`.
fn holds(bytes: &[u8], shape: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(place) = rest.iter().position(|byte| *byte == shape[0]) {
        rest = &rest[place..];
        if rest.starts_with(shape) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// What is the same in base64 of every value with `shift` bytes before it in its group of three.
fn in_base64(shift: usize) -> Vec<u8> {
    let padded = [&vec![0; shift][..], MARK.as_bytes()].concat();
    let text = STANDARD_NO_PAD.encode(&padded).into_bytes();
    // Characters that other bytes have a part in are left out at both ends.
    let (first, end) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
    text[first..end].to_vec()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at every file of every node's disk.
pub fn look_at_disks(cluster: &Cluster) {
    let safe = &cluster.ledger.safe;
    if !safe.is_used() {
        return;
    }
    let founders = cluster.names().len() as u64; // They have the first ids; who comes back with a new disk gets another.
    let handles = cluster.running().into_iter();
    for handle in handles.filter_map(|name| cluster.handle(&name)) {
        let id = handle.status().id;
        if id.0 > founders && handle.fleet().keyring.share(id).is_some() {
            safe.recorder
                .sometimes("a manager with a new disk was given the key");
        }
    }
    for host in cluster.everybody() {
        let disk = simdisk::disk(&host);
        for (path, _) in disk.list_files() {
            let bytes = disk.read_file(&path).unwrap_or_default();
            safe.look(&format!("{path} of {host}"), &bytes);
        }
    }
}

/// Gives the cluster the secrets that `spec` names and that are not there yet.
pub async fn provide(cluster: &Cluster, spec: &Spec) {
    for mount in &spec.secrets {
        give(cluster, &mount.secret).await;
    }
}

/// Makes a secret, through any manager, if there is none of that name.
async fn give(cluster: &Cluster, name: &str) {
    let value = Clear::new(format!("{MARK}{name}.first").into_bytes());
    let recorder = &cluster.recorder;
    for turn in 0..TRIES.0 as usize {
        let running = cluster.running();
        let manager = running.get((turn + name.len()) % running.len().max(1));
        let handle = manager.and_then(|manager| cluster.handle(manager));
        if let Some(handle) = handle {
            if handle.fleet().secrets.contains_key(name) {
                return;
            }
            match handle.put_secret(name, &value, true, Some(TRY_MAX)).await {
                Ok((version, _)) => {
                    let text = format!("secret {name} has version {version}");
                    return recorder.line("storm", Level::Detail, text);
                }
                Err(error) => {
                    let text = format!("secret {name} was not taken: {error}");
                    recorder.line("storm", Level::Detail, text);
                }
            }
        }
        madsim::time::sleep(TRIES.1).await;
    }
    recorder.fail(format!("secret {name} was not taken in {} tries", TRIES.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_found_wherever_the_value_begins() {
        for before in 0..9 {
            let value = format!("{}{MARK}db.1", "x".repeat(before));
            let text = STANDARD_NO_PAD.encode(value).into_bytes();
            let shape = in_base64(before % 3);
            assert!(text.windows(shape.len()).any(|part| part == &*shape));
        }
    }
}
