//! The managers of the model world: what they want, what they say, what they must count on.

use super::model::World;
use super::{assignment, kind};
use crate::service::Desired;
use crate::types::{ClusterId, Epoch, WorkerId};
use crate::worker::exchange::{Assignments, Input, Saved};

impl World {
    pub(super) fn want_less(&mut self, a: u16, b: u16) {
        let place = usize::from(a) % self.wanted.len().max(1);
        if let Some((desired, _)) = self.wanted.values_mut().nth(place) {
            *desired = (*desired).max(if b.is_multiple_of(2) {
                Desired::Stop
            } else {
                Desired::Remove
            });
            self.assign();
        }
    }

    /// Managers say what they want; tasks that shall go are left out as often as not.
    pub(super) fn assign(&mut self) {
        self.revision += 1;
        let assignments = self.assignments();
        self.feed(Input::Assigned(assignments));
    }

    pub(super) fn assignments(&self) -> Assignments {
        let kept = self
            .wanted
            .iter()
            .filter(|(_, (desired, _))| *desired < Desired::Remove);
        let tasks = kept.map(|(id, (desired, number))| {
            let mut given = assignment(id.0, kind(*number));
            given.desired = *desired;
            given
        });
        Assignments {
            epoch: Epoch(self.epoch),
            revision: self.revision,
            tasks: tasks.collect(),
        }
    }

    /// Managers that are behind repeat themselves: nothing of it is followed.
    pub(super) fn old_news(&mut self, a: u16, b: u16) {
        let before = self.worker.saved().clone();
        let mut old = self.assignments();
        old.revision = u64::from(a) % (before.revision + 1);
        old.epoch = Epoch(before.epoch.0.saturating_sub(u64::from(b % 2)));
        old.tasks.truncate(usize::from(b % 3));
        self.feed(Input::Assigned(old));
        let after = self.worker.saved();
        assert_eq!(
            (before.epoch, before.revision),
            (after.epoch, after.revision)
        );
        let desired = |saved: &Saved| -> Vec<_> {
            let tasks = saved.tasks.values().map(|task| task.assignment());
            tasks.map(|given| (given.task, given.desired)).collect()
        };
        assert_eq!(desired(&before), desired(after));
    }

    /// A manager answers the newest heartbeat: from now on it must count on a lease that long.
    pub(super) fn grant(&mut self, lease_ms: u64) {
        if let Some((number, sent_ms)) = self.heartbeats.pop() {
            self.granted_until_ms = self.granted_until_ms.max(sent_ms + lease_ms);
            self.feed(Input::Answered {
                heartbeat: number,
                epoch: Epoch(self.epoch),
                revision: self.revision,
                lease_ms,
                pace_ms: None,
            });
        }
    }

    /// A manager meets the worker in a new session and says everything it wants.
    pub(super) fn meet(&mut self) {
        self.feed(Input::Disconnected);
        self.heartbeats.clear();
        self.feed(Input::Connected);
        self.epoch += 1;
        self.revision = 0;
        self.feed(Input::Welcome {
            cluster: ClusterId(1),
            worker: WorkerId(1),
            epoch: Epoch(self.epoch),
        });
        self.assign();
    }
}
