//! What the worker's loop has for managers and the link has not sent yet.
//!
//! No queue: a hello or a heartbeat takes the place of an older one, and a report that of an older one of its task. So it never holds
//! more than the worker has tasks, however long no manager listens, and the loop never waits for a network.

use super::exchange::Hello;
use super::report::Report;
use crate::types::Epoch;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// A heartbeat to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    /// Its number.
    pub(super) number: u64,
    /// The session.
    pub(super) epoch: Epoch,
    /// Revision of the worker's assignments.
    pub(super) revision: u64,
    /// Number of its newest report.
    pub(super) reports: u64,
}

/// What is to be sent next within a session.
#[derive(Debug, PartialEq)]
pub(super) enum Due {
    /// The core does not accept this session.
    Refused(String),
    /// A heartbeat.
    Beat(Beat),
    /// Reports, oldest first. They stay until they are acknowledged.
    Reports(Vec<Report>),
}

/// What waits.
#[derive(Default)]
struct Waiting {
    /// The newest hello.
    hello: Option<Box<Hello>>,
    /// The newest heartbeat.
    beat: Option<Beat>,
    /// Reports by number.
    reports: BTreeMap<u64, Report>,
    /// Why the core refused the newest welcome.
    refused: Option<String>,
}

/// The loop's side puts in, the link takes out.
#[derive(Default)]
pub(super) struct Outbox {
    /// What waits. The lock is never held across a wait.
    waiting: Mutex<Waiting>,
    /// Rung when something was put in.
    news: Notify,
}

impl Outbox {
    /// A new acquaintance begins: what was meant for the one before is not sent any more; reports come again after the welcome.
    pub(super) fn begin(&self) {
        *self.lock() = Waiting::default();
    }

    /// Puts a hello in.
    pub(super) fn hello(&self, hello: Box<Hello>) {
        self.put(|waiting| waiting.hello = Some(hello));
    }

    /// Puts a heartbeat in.
    pub(super) fn beat(&self, beat: Beat) {
        self.put(|waiting| waiting.beat = Some(beat));
    }

    /// Puts a report in.
    pub(super) fn report(&self, report: Report) {
        self.put(|waiting| {
            waiting.reports.retain(|_, older| older.task != report.task);
            waiting.reports.insert(report.number, report);
        });
    }

    /// The core does not accept the newest welcome.
    pub(super) fn refuse(&self, why: String) {
        self.put(|waiting| waiting.refused = Some(why));
    }

    /// Managers have all reports up to `number`.
    pub(super) fn acknowledged(&self, number: u64) {
        self.lock().reports.retain(|waiting, _| *waiting > number);
    }

    /// The next hello.
    pub(super) async fn next_hello(&self) -> Box<Hello> {
        self.next(|waiting| waiting.hello.take()).await
    }

    /// What is to be sent next: heartbeats first, since a lease hangs on them; then at most `len_max` reports.
    pub(super) async fn next_due(&self, len_max: usize) -> Due {
        let due = |waiting: &mut Waiting| {
            if let Some(why) = waiting.refused.take() {
                return Some(Due::Refused(why));
            }
            if let Some(beat) = waiting.beat.take() {
                return Some(Due::Beat(beat));
            }
            let oldest = waiting.reports.values().take(len_max).cloned();
            let reports: Vec<Report> = oldest.collect();
            (!reports.is_empty()).then_some(Due::Reports(reports))
        };
        self.next(due).await
    }

    /// What `take` finds, as soon as it finds something. One waits at a time.
    async fn next<T>(&self, mut take: impl FnMut(&mut Waiting) -> Option<T>) -> T {
        loop {
            // The bell keeps one ring for whoever comes too late, so nothing is missed between look and wait.
            if let Some(found) = take(&mut self.lock()) {
                return found;
            }
            self.news.notified().await;
        }
    }

    /// Changes what waits, and rings.
    fn put(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.lock());
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nobody panics while holding the outbox")
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "#[tokio::test] builds a runtime")]
mod tests {
    use super::*;
    use crate::service::State;
    use crate::types::TaskId;
    use crate::worker::words::Observation;

    fn report(number: u64, task: u64) -> Report {
        Report {
            number,
            task: TaskId(task),
            observation: Observation {
                state: State::Running,
                attempts: 1,
                exit: None,
                message: String::new(),
            },
        }
    }

    fn beat(number: u64) -> Beat {
        Beat {
            number,
            epoch: Epoch(1),
            revision: 1,
            reports: 0,
        }
    }

    #[tokio::test]
    async fn the_newest_takes_the_place_of_older_ones_and_heartbeats_go_first() {
        let outbox = Outbox::default();
        for (number, task) in [(1, 1), (2, 2), (3, 1)] {
            outbox.report(report(number, task));
        }
        outbox.beat(beat(1));
        outbox.beat(beat(2));
        assert_eq!(outbox.next_due(9).await, Due::Beat(beat(2)));
        let both = Due::Reports(vec![report(2, 2), report(3, 1)]);
        assert_eq!(outbox.next_due(9).await, both);
        assert_eq!(
            outbox.next_due(9).await,
            both,
            "until they are acknowledged"
        );
        outbox.acknowledged(2);
        let rest = Due::Reports(vec![report(3, 1)]);
        assert_eq!(outbox.next_due(1).await, rest);
        outbox.begin();
        outbox.beat(beat(3));
        assert_eq!(outbox.next_due(9).await, Due::Beat(beat(3)));
    }
}
