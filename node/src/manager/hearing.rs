//! Which workers this node's own door has heard, and when: for a leader that asks whether it is the one cut off.

use crate::fleet::Fleet;
use crate::fleet::meeting::Call;
use crate::rt::Mono;
use crate::types::WorkerId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// When each worker spoke to this node last. A clone is the same table; it never has more workers than the fleet.
#[derive(Clone, Default)]
pub(crate) struct Hearing(Arc<Mutex<BTreeMap<WorkerId, Mono>>>);

impl Hearing {
    /// A call came through this node's door. Workers that the fleet does not know leave no trace.
    pub(crate) fn note(&self, call: &Call, fleet: &Fleet, now: Mono) {
        let worker = match call {
            Call::Hello(hello) => hello.hello.identity.worker,
            Call::Beat { worker, .. } => *worker,
            Call::Report(reports) => reports.worker,
            Call::Heard { .. } | Call::Silences => return,
        };
        let known = |worker: &WorkerId| fleet.snapshot.workers.contains_key(worker);
        if !known(&worker) {
            return;
        }
        let mut heard = self.lock();
        heard.insert(worker, now);
        if heard.len() > fleet.snapshot.workers.len() {
            heard.retain(|worker, _| known(worker));
        }
    }

    /// How long ago each of `workers` was heard that was at all.
    pub(crate) fn ago(&self, workers: &[WorkerId], now: Mono) -> Vec<(WorkerId, Duration)> {
        let heard = self.lock();
        let ago = |worker: &WorkerId| Some((*worker, now.since(*heard.get(worker)?)));
        workers.iter().filter_map(ago).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, Mono>> {
        self.0
            .lock()
            .expect("nobody panics while holding the table")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::model::Worker;
    use crate::types::Epoch;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    fn beat(worker: u64) -> Call {
        Call::Beat {
            worker: WorkerId(worker),
            number: 1,
            epoch: Epoch(1),
            revision: 0,
            reports: 0,
        }
    }

    #[test]
    fn known_workers_are_remembered_and_no_others() {
        let mut fleet = Fleet::default();
        for id in [1, 2] {
            (fleet.snapshot.workers).insert(WorkerId(id), Worker::default());
        }
        let hearing = Hearing::default();
        hearing.note(&beat(1), &fleet, at(10));
        hearing.note(&beat(1), &fleet, at(20));
        hearing.note(&beat(9), &fleet, at(20));
        let asked = [WorkerId(1), WorkerId(2), WorkerId(9)];
        let ago = hearing.ago(&asked, at(50));
        assert_eq!(ago, [(WorkerId(1), Duration::from_millis(30))]);
        hearing.note(&beat(2), &fleet, at(60));
        fleet.snapshot.workers.remove(&WorkerId(1));
        hearing.note(&beat(2), &fleet, at(70));
        assert_eq!(hearing.ago(&asked, at(70)), [(WorkerId(2), Duration::ZERO)]);
    }
}
