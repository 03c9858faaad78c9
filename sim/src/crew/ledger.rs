//! The ledger of a run while it is written: judged at once where a moment is enough to see a wrong.

use super::secrets::Safe;
use crate::trace::{Level, Recorder};
use node::service::spec::Amounts;
use node::types::TaskId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use workloads::ledger::Run;

/// One part in this many is what a worker's clock may lose (docs/orchestration.md, section 3).
const DRIFT: u32 = 100;

/// Every process of every task of a run. A clone is the same ledger.
#[derive(Clone)]
pub struct Ledger {
    /// The processes, in the order in which they began.
    runs: Arc<Mutex<Vec<Run>>>,
    /// When each worker's host last heard that it was granted a lease.
    grants: Arc<Mutex<BTreeMap<String, Duration>>>,
    /// A lease by the slowest clock.
    lease: Duration,
    /// What each machine has.
    capacity: Amounts,
    /// What is known of secrets.
    pub safe: Safe,
    /// Where each beginning and end is told.
    recorder: Recorder,
}

impl Ledger {
    /// An empty ledger of machines that have `capacity` each, and of workers that are granted leases of this length.
    pub fn new(recorder: Recorder, lease: Duration, capacity: Amounts) -> Self {
        Ledger {
            runs: Arc::default(),
            grants: Arc::default(),
            lease: lease + lease / DRIFT,
            capacity,
            safe: Safe::new(recorder.clone()),
            recorder,
        }
    }

    /// The worker of `host` has heard that it was granted a lease.
    pub fn granted(&self, host: &str) {
        let now = self.recorder.now();
        // What went on between two leases had none.
        self.judge_leases(Some(host), now);
        let mut grants = self
            .grants
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        grants.insert(host.to_owned(), now);
    }

    /// When the last lease that was granted to the worker of `host` has certainly ended.
    fn lease_end(&self, host: &str) -> Duration {
        let grants = self
            .grants
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        grants
            .get(host)
            .map_or(Duration::ZERO, |granted| *granted + self.lease)
    }

    /// Judges which single writers are there at `now`, on `host` or anywhere, although the lease of their worker has ended.
    pub fn judge_leases(&self, host: Option<&str>, now: Duration) {
        let there: Vec<(String, String)> = {
            let runs = self.lock();
            let alone = runs.iter().filter(|run| {
                run.to.is_none()
                    && !run.volumes.is_empty()
                    && host.is_none_or(|host| run.host == host)
            });
            alone.map(|run| (run.host.clone(), name(run))).collect()
        };
        for (host, task) in there {
            self.judge_lease(&host, &task, now);
        }
    }

    /// A single writer is there at `now`: so must be the lease of its worker.
    fn judge_lease(&self, host: &str, task: &str, now: Duration) {
        let end = self.lease_end(host);
        if now > end {
            self.recorder.fail(format!(
                "lease_outlived: {task} is there on {host} at {now:.3?}, and the lease ended at {end:.3?}"
            ));
        }
    }

    /// The newest process of a task.
    pub fn newest_of(&self, task: TaskId) -> Option<Run> {
        let runs = self.lock();
        runs.iter().rev().find(|run| run.task == task).cloned()
    }

    /// Everything so far.
    pub fn runs(&self) -> Vec<Run> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A process begins; gives its place in the ledger. One more writer of a volume fails the run (U-9), a writer without a
    /// lease, and more than the machine has.
    pub fn begins(&self, run: Run) -> usize {
        let text = format!(
            "{} begins ({}, version {})",
            name(&run),
            run.service,
            run.version
        );
        self.recorder.line(&run.host, Level::Detail, text);
        let mut wrongs = Vec::new();
        let mut runs = self.lock();
        for other in runs.iter().filter(|other| other.is_there(run.from)) {
            if other.may_share(&run, run.from) {
                continue;
            }
            if let Some(volume) = other.volumes.iter().find(|one| run.volumes.contains(one)) {
                wrongs.push(format!(
                    "writers_at_once: volume {volume} has two writers: {} on {} and {} on {}",
                    name(other),
                    other.host,
                    name(&run),
                    run.host
                ));
            }
        }
        wrongs.extend(self.crowded(&runs, &run));
        let (host, task, alone) = (run.host.clone(), name(&run), !run.volumes.is_empty());
        let begins = run.from;
        runs.push(run);
        let place = runs.len() - 1;
        drop(runs);
        if alone {
            self.judge_lease(&host, &task, begins);
        }
        wrongs
            .into_iter()
            .for_each(|wrong| self.recorder.fail(wrong));
        place
    }

    /// What is wrong with one more process, if those that are there and were not told to end leave no room for it.
    fn crowded(&self, runs: &[Run], run: &Run) -> Option<String> {
        let there = runs.iter().filter(|other| {
            other.host == run.host && other.is_there(run.from) && other.told.is_none()
        });
        let (mut cpu_milli, mut memory_bytes) = (run.reserved.cpu_milli, run.reserved.memory_bytes);
        for other in there {
            cpu_milli += other.reserved.cpu_milli;
            memory_bytes += other.reserved.memory_bytes;
        }
        let has = self.capacity;
        (cpu_milli > has.cpu_milli || memory_bytes > has.memory_bytes).then(|| {
            format!(
                "machine_overfull: with {} on {} {cpu_milli} thousandths of a processor and {memory_bytes} bytes are reserved, \
                 and it has {} and {}",
                name(run), run.host, has.cpu_milli, has.memory_bytes
            )
        })
    }

    /// An operator says that the machine `host` is dead: what may run there may be replaced.
    pub fn given_up(&self, host: &str) {
        let now = self.recorder.now();
        let mut runs = self.lock();
        for run in runs.iter_mut() {
            if run.host == host && run.to.is_none() {
                run.given_up.get_or_insert(now);
            }
        }
    }

    /// A process was told to end.
    pub fn told(&self, place: usize) {
        let now = self.recorder.now();
        self.lock()[place].told.get_or_insert(now);
    }

    /// A process has ended.
    pub fn ends(&self, place: usize, why: &str) {
        let now = self.recorder.now();
        let mut runs = self.lock();
        let run = &mut runs[place];
        if run.to.is_some() {
            return;
        }
        if !run.volumes.is_empty() {
            self.judge_lease(&run.host, &name(run), now);
        }
        run.to = Some(now);
        why.clone_into(&mut run.why);
        let (host, text) = (run.host.clone(), format!("{} ends: {why}", name(run)));
        drop(runs);
        self.recorder.line(&host, Level::Detail, text);
    }
}

/// A process in words.
fn name(run: &Run) -> String {
    format!(
        "task {}.{} of {} slot {}",
        run.task, run.attempt, run.service, run.slot
    )
}
