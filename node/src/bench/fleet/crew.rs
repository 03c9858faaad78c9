//! What all light workers share: who they are, and what they have counted.

use super::line::Failure;
use crate::bench::report::Tally;
use crate::rt::Mono;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// Counts since the last [`Crew::begin`].
#[derive(Default)]
struct Counts {
    /// When it was.
    began: Mono,
    /// Workers that have said hello since the bench began, with how long each waited for its first welcome.
    joined: Tally,
    /// Heartbeats and how long each waited for its answer.
    beats: Tally,
    /// Tasks that were acknowledged as running, each with the time since the beginning.
    running: Tally,
    /// Tasks that were acknowledged as stopped, each with the time since the beginning.
    stopped: Tally,
    /// Troubles of workers by kind, since the bench began.
    troubles: BTreeMap<String, u64>,
}

/// What all light workers share.
pub(super) struct Crew {
    /// What their names begin with, and the label by which services find them.
    pub(super) tag: String,
    /// The token with which they join.
    pub(super) token: String,
    /// Addresses of managers.
    pub(super) managers: Vec<String>,
    /// The counts. The lock is never held across a wait.
    counts: Mutex<Counts>,
    /// Rung when a count has grown.
    news: Notify,
}

/// Tasks that were seen running and stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Workers that were welcomed once.
    pub(super) joined: u64,
    /// Acknowledged as running.
    pub(super) running: u64,
    /// Acknowledged as stopped.
    pub(super) stopped: u64,
}

impl Crew {
    /// A crew without workers.
    pub(super) fn new(tag: String, token: String, managers: Vec<String>) -> Self {
        Crew {
            tag,
            token,
            managers,
            counts: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Tasks count from here on.
    pub(super) fn begin(&self, now: Mono) {
        let mut counts = self.lock();
        counts.began = now;
        counts.running = Tally::new();
        counts.stopped = Tally::new();
    }

    /// A worker was welcomed for the first time.
    pub(super) fn joined(&self, waited: Duration) {
        self.lock().joined.done(waited, true);
        self.news.notify_one();
    }

    /// A heartbeat was answered.
    pub(super) fn beat(&self, waited: Duration) {
        self.lock().beats.done(waited, true);
    }

    /// Something of a worker's went wrong.
    pub(super) fn trouble(&self, failure: &Failure) {
        let mut counts = self.lock();
        *counts.troubles.entry(failure.kind()).or_default() += 1;
    }

    /// So many tasks were acknowledged as running and as stopped.
    pub(super) fn acknowledged(&self, running: usize, stopped: usize, now: Mono) {
        let mut counts = self.lock();
        let since = now.since(counts.began);
        (0..running).for_each(|_| counts.running.done(since, true));
        (0..stopped).for_each(|_| counts.stopped.done(since, true));
        drop(counts);
        self.news.notify_one();
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Seen {
        let counts = self.lock();
        Seen {
            joined: counts.joined.finished,
            running: counts.running.finished,
            stopped: counts.stopped.finished,
        }
    }

    /// Ends when `is` holds of what was seen.
    pub(super) async fn until(&self, is: impl Fn(Seen) -> bool) {
        while !is(self.seen()) {
            self.news.notified().await;
        }
    }

    /// Takes the workers' hellos.
    pub(super) fn take_joined(&self) -> Tally {
        std::mem::take(&mut self.lock().joined)
    }

    /// Takes the heartbeats so far.
    pub(super) fn take_beats(&self) -> Tally {
        std::mem::take(&mut self.lock().beats)
    }

    /// The tasks acknowledged as running.
    pub(super) fn running(&self) -> Tally {
        self.lock().running.clone()
    }

    /// The tasks acknowledged as stopped.
    pub(super) fn stopped(&self) -> Tally {
        self.lock().stopped.clone()
    }

    /// Takes the troubles so far.
    pub(super) fn take_troubles(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.lock().troubles)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no worker panics while counting")
    }
}
