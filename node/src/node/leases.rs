//! The leader's clock of leases. Expiry is a log entry; only its timing is local.
//!
//! Deadlines run on the leader's monotonic clock and are never written down: a new leader gives every lease its full time
//! again, so a lease may live longer than its time to live (by at most one time to live per change of leader) but never
//! shorter by more than the clocks' drift. Wall clocks play no part (inventory X-14).

use crate::rt::Mono;
use crate::state::command::ExpiredLease;
use crate::types::LeaseId;
use std::collections::BTreeMap;
use std::time::Duration;

/// One lease as the leader times it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    /// When it runs out.
    deadline: Mono,
    /// Renewals known.
    renewals: u64,
    /// True when an expiry was proposed and is not yet applied.
    proposed: bool,
}

/// The leases of a leader.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Timers by lease.
    timers: BTreeMap<LeaseId, Timer>,
}

impl Leases {
    /// A lease was granted, renewed or found at a change of leader: it gets its full time from `now`.
    pub(crate) fn set(&mut self, id: LeaseId, ttl: Duration, renewals: u64, now: Mono) {
        self.timers.insert(
            id,
            Timer {
                deadline: now.plus(ttl),
                renewals,
                proposed: false,
            },
        );
    }

    /// A lease ended.
    pub(crate) fn remove(&mut self, id: LeaseId) {
        self.timers.remove(&id);
    }

    /// Forgets everything: this node does not lead any more, or begins to.
    pub(crate) fn clear(&mut self) {
        self.timers.clear();
    }

    /// Leases that have run out and were not yet proposed for expiry, at most `limit`.
    pub(crate) fn take_expired(&mut self, now: Mono, limit: usize) -> Vec<ExpiredLease> {
        let due = self
            .timers
            .iter_mut()
            .filter(|(_, one)| !one.proposed && one.deadline <= now);
        due.take(limit)
            .map(|(id, timer)| {
                timer.proposed = true;
                ExpiredLease {
                    id: id.0,
                    renewals: timer.renewals,
                }
            })
            .collect()
    }

    /// An expiry could not be proposed: it is tried again.
    pub(crate) fn not_proposed(&mut self, leases: &[ExpiredLease]) {
        for lease in leases {
            if let Some(timer) = self.timers.get_mut(&LeaseId(lease.id)) {
                timer.proposed = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn a_lease_expires_once_and_not_before_its_time() {
        let mut leases = Leases::default();
        leases.set(LeaseId(5), Duration::from_millis(100), 3, at(0));
        assert!(leases.take_expired(at(99), 10).is_empty());
        let due = leases.take_expired(at(100), 10);
        assert_eq!(due, [ExpiredLease { id: 5, renewals: 3 }]);
        assert!(leases.take_expired(at(200), 10).is_empty());
        leases.not_proposed(&due);
        assert_eq!(leases.take_expired(at(200), 10).len(), 1);
    }

    #[test]
    fn a_renewal_gives_the_full_time_again() {
        let mut leases = Leases::default();
        leases.set(LeaseId(5), Duration::from_millis(100), 0, at(0));
        leases.set(LeaseId(5), Duration::from_millis(100), 1, at(90));
        assert!(leases.take_expired(at(189), 10).is_empty());
        assert_eq!(
            leases.take_expired(at(190), 10),
            [ExpiredLease { id: 5, renewals: 1 }]
        );
    }
}
