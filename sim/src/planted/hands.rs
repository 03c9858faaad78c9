//! Bugs planted in what runs a worker's tasks: an executor over the machine's own that forgets, repeats or says what is not so.
//!
//! The machine and the ledger of what really ran are untouched: they see what the mistake does.

use node::rt::Mono;
use node::rt::net::BoxFuture;
use node::rt::{Env, Lane};
use node::secrets::Clear;
use node::types::TaskId;
use node::worker::exchange::Found;
use node::worker::executor::Executor;
use node::worker::secrets::SecretFile;
use node::worker::words::{Assignment, Exit, Handle, Refusal, Signal};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What runs a worker's tasks.
pub type Hand = Arc<dyn Executor>;

/// One start in this many is done twice.
const TWICE: u64 = 4;

/// Longer than any run.
const ENDLESS: Duration = Duration::from_secs(1_000_000);

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slip {
    /// A process that was told to end counts as ended.
    EndsWhenTold,
    /// An end that nobody asked for is not noticed.
    MissesEnds,
    /// What runs is not found again.
    FindsNothing,
    /// What runs is found under the number of another attempt.
    FindsOthers,
    /// Whoever is killed is asked to end.
    AsksForKill,
    /// Some starts are done twice.
    StartsTwice,
    /// Orphans are called gone and are not.
    LeavesOrphans,
    /// Guards never hear that a lease ends.
    EndlessLease,
    /// Every check succeeds.
    AlwaysWell,
    /// Every end is a success.
    AlwaysDone,
    /// Secrets are written to the worker's disk.
    WritesSecrets,
    /// A service's secrets are opened once and never again.
    OpensOnce,
}

/// Version and value, by service and name.
type Opened = BTreeMap<(String, String), (u64, Vec<u8>)>;

/// Hands that slip.
pub(super) struct Hands {
    /// The real ones.
    inner: Hand,
    /// What they do wrong.
    slip: Slip,
    /// Handles of those that were told to end.
    told: watch::Sender<BTreeSet<String>>,
    /// Starts so far.
    starts: AtomicU64,
    /// Where the worker's disk is written.
    lane: Lane,
    /// The worker's directory.
    dir: PathBuf,
    /// Secrets that were opened first.
    opened: Mutex<Opened>,
}

impl Hands {
    /// Hands over `inner`.
    pub(super) fn new(inner: Hand, slip: Slip, name: &str, env: &Env) -> Self {
        Hands {
            inner,
            slip,
            told: watch::Sender::default(),
            starts: AtomicU64::new(0),
            lane: env.lanes.open("planted"),
            dir: format!("/simdisk/{name}/worker").into(),
            opened: Mutex::default(),
        }
    }

    /// Puts secrets of a service in the place of these that were opened before.
    fn reopen(&self, service: &str, secrets: &mut [SecretFile]) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        for file in secrets {
            let key = (service.to_owned(), file.secret.clone());
            let first = || (file.version, file.value.to_vec());
            let (version, value) = opened.entry(key).or_insert_with(first).clone();
            (file.version, file.value) = (version, Clear::new(value));
        }
    }

    /// Writes secrets to the disk.
    fn write(&self, secrets: &[SecretFile]) -> BoxFuture<'static, ()> {
        let dir = self.dir.clone();
        let files = copies(secrets);
        let ran = self.lane.run(move || write(&dir, &files));
        Box::pin(async move { ran.await.unwrap_or(()) })
    }

    /// Ends when `handle` has been told to end.
    fn told(&self, handle: &Handle) -> impl Future<Output = ()> + use<> {
        let (mut told, name) = (self.told.subscribe(), handle.0.clone());
        async move {
            if told.wait_for(|told| told.contains(&name)).await.is_err() {
                std::future::pending::<()>().await; // The worker is gone, and nobody waits.
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the mistake itself, on a simulated disk and a lane"
)]
fn write(dir: &Path, files: &[SecretFile]) {
    for file in files {
        // A full disk saves the value from being there.
        std::fs::write(dir.join(&file.target), &*file.value).ok();
    }
}

fn copies(secrets: &[SecretFile]) -> Vec<SecretFile> {
    let copy = |file: &SecretFile| SecretFile {
        secret: file.secret.clone(),
        version: file.version,
        target: file.target.clone(),
        mode: file.mode,
        value: file.value.clone(),
    };
    secrets.iter().map(copy).collect()
}

impl Executor for Hands {
    fn prepare(&self, assignment: Arc<Assignment>) -> BoxFuture<'static, Result<(), Refusal>> {
        self.inner.prepare(assignment)
    }

    fn start(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        mut secrets: Vec<SecretFile>,
    ) -> BoxFuture<'static, Result<Handle, Refusal>> {
        if self.slip == Slip::OpensOnce {
            self.reopen(&assignment.spec.name, &mut secrets);
        }
        let written = (self.slip == Slip::WritesSecrets).then(|| self.write(&secrets));
        let again = self.slip == Slip::StartsTwice
            && self.starts.fetch_add(1, Ordering::Relaxed) % TWICE == TWICE - 1;
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            if let Some(written) = written {
                written.await;
            }
            let again = again.then(|| copies(&secrets));
            let handle = inner
                .start(Arc::clone(&assignment), attempt, secrets)
                .await?;
            match again {
                Some(secrets) => inner.start(assignment, attempt, secrets).await,
                None => Ok(handle),
            }
        })
    }

    fn lease(&self, until: Mono) {
        self.inner.lease(match self.slip {
            Slip::EndlessLease => Mono(ENDLESS),
            _ => until,
        });
    }

    fn wait(&self, task: TaskId, attempt: u32, handle: Handle) -> BoxFuture<'static, Exit> {
        let told = self.told(&handle);
        let (ended, slip) = (self.inner.wait(task, attempt, handle), self.slip);
        const SUCCESS: Exit = Exit {
            code: Some(0),
            ..Exit::UNSEEN
        };
        Box::pin(async move {
            match slip {
                Slip::EndsWhenTold => tokio::select! {
                    biased; // A real end is a real end.
                    exit = ended => exit,
                    () = told => SUCCESS,
                },
                Slip::MissesEnds => {
                    let exit = ended.await;
                    told.await;
                    exit
                }
                Slip::AlwaysDone => {
                    ended.await;
                    SUCCESS
                }
                _ => ended.await,
            }
        })
    }

    fn signal(&self, handle: &Handle, signal: Signal) {
        let signal = match self.slip {
            Slip::AsksForKill => Signal::Term,
            _ => signal,
        };
        self.inner.signal(handle, signal);
        self.told.send_modify(|told| {
            told.insert(handle.0.clone());
        });
    }

    fn check(&self, assignment: Arc<Assignment>, attempt: u32) -> BoxFuture<'static, bool> {
        let checked = self.inner.check(assignment, attempt);
        let well = self.slip == Slip::AlwaysWell;
        Box::pin(async move { checked.await || well })
    }

    fn found(&self) -> BoxFuture<'static, Result<Vec<Found>, String>> {
        let (found, slip) = (self.inner.found(), self.slip);
        Box::pin(async move {
            let mut found = found.await?;
            match slip {
                Slip::FindsNothing => found.clear(),
                Slip::FindsOthers => found.iter_mut().for_each(|one| one.attempt += 1),
                _ => {}
            }
            Ok(found)
        })
    }

    fn end_orphan(&self, task: TaskId, attempt: u32) -> BoxFuture<'static, ()> {
        match self.slip {
            Slip::LeavesOrphans => Box::pin(async {}),
            // Found under another number, it is killed under its own.
            Slip::FindsOthers => self.inner.end_orphan(task, attempt.saturating_sub(1)),
            _ => self.inner.end_orphan(task, attempt),
        }
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'static, ()> {
        self.inner.forget(task)
    }

    fn tidy(&self) -> BoxFuture<'static, ()> {
        self.inner.tidy()
    }
}
