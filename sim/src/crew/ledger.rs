//! The ledger of a run while it is written: judged at once where a moment is enough to see a wrong.

use crate::trace::{Level, Recorder};
use std::sync::{Arc, Mutex, MutexGuard};
use workloads::ledger::Run;

/// Every process of every task of a run. A clone is the same ledger.
#[derive(Clone)]
pub struct Ledger {
    /// The processes, in the order in which they began.
    runs: Arc<Mutex<Vec<Run>>>,
    /// Where each beginning and end is told.
    recorder: Recorder,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(recorder: Recorder) -> Self {
        Ledger {
            runs: Arc::default(),
            recorder,
        }
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

    /// A process begins; gives its place in the ledger. One more writer of a volume fails the run (U-9).
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
        runs.push(run);
        let place = runs.len() - 1;
        drop(runs);
        wrongs
            .into_iter()
            .for_each(|wrong| self.recorder.fail(wrong));
        place
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
