//! The fleet on its way from who applies entries to who follows it, on one node.
//!
//! Each change is shown to all, but not all are woken by it: a worker's question for its assignments waits for a change of workers, and
//! would be woken by each new service for nothing, beside all the others that wait so.

use super::Fleet;
use std::sync::Arc;
use tokio::sync::watch;

/// Where the fleet is told.
pub(crate) struct Feed {
    /// The fleet.
    fleet: watch::Sender<Arc<Fleet>>,
    /// Rings when workers changed, or their assignments.
    workers: watch::Sender<()>,
}

/// Where it is heard. A clone hears the same.
#[derive(Clone)]
pub struct Followed {
    /// The fleet, as it was told last.
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    /// Rings when workers changed, or their assignments.
    pub(crate) workers: watch::Receiver<()>,
}

/// A fleet was told, and nobody was woken yet.
#[must_use = "who follows the fleet waits for it"]
pub(crate) struct Told {
    /// The fleet before.
    before: Arc<Fleet>,
}

impl Feed {
    /// An empty fleet, and where it is heard.
    pub(crate) fn new() -> (Feed, Followed) {
        let (fleet, heard) = watch::channel(Arc::default());
        let (workers, rung) = watch::channel(());
        let followed = Followed {
            fleet: heard,
            workers: rung,
        };
        (Feed { fleet, workers }, followed)
    }

    /// The fleet as it was told last.
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet.borrow())
    }

    /// Tells a fleet: whoever looks finds it from now on. Whoever waits is woken by [`Feed::wake`].
    pub(crate) fn tell(&self, mut fleet: Arc<Fleet>) -> Told {
        self.fleet.send_if_modified(|told| {
            std::mem::swap(told, &mut fleet);
            false
        });
        Told { before: fleet }
    }

    /// Wakes those who wait for what was told.
    pub(crate) fn wake(&self, told: Told) {
        self.fleet.send_modify(|_| ());
        let (before, now) = (told.before, self.fleet());
        let same = now.workers.is_shared(&before.workers)
            && (now.snapshot.workers).is_shared(&before.snapshot.workers);
        if !same {
            self.workers.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::TaskNote;
    use crate::types::{TaskId, WorkerId};

    #[test]
    fn what_is_told_is_seen_at_once_and_wakes_whom_it_concerns() {
        let (feed, mut followed) = Feed::new();
        let mut fleet = Fleet::default();
        let mut tell = |change: &dyn Fn(&mut Fleet)| {
            change(&mut fleet);
            fleet.index += 1;
            let told = feed.tell(Arc::new(fleet.clone()));
            assert_eq!(followed.fleet.borrow().index, fleet.index);
            assert!(!followed.fleet.has_changed().unwrap());
            feed.wake(told);
            let woken = followed.fleet.has_changed().unwrap();
            followed.fleet.mark_unchanged();
            let rung = followed.workers.has_changed().unwrap();
            followed.workers.mark_unchanged();
            (woken, rung)
        };
        let noted = |fleet: &mut Fleet| _ = fleet.notes.insert(TaskId(1), TaskNote::default());
        assert_eq!(tell(&noted), (true, false));
        let joined = |fleet: &mut Fleet| _ = fleet.workers.or_default(WorkerId(2));
        assert_eq!(tell(&joined), (true, true));
        assert_eq!(tell(&noted), (true, false));
        let assigned = |fleet: &mut Fleet| fleet.workers.or_default(WorkerId(2)).revision = 7;
        assert_eq!(tell(&assigned), (true, true));
    }
}
