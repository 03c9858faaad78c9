//! Until when workers may run tasks with single-writer volumes: what a leader granted, and what others may have granted before it.
//!
//! A worker counts its lease from before it sent the heartbeat; the leader counts from after it answered, and adds what clocks
//! may drift. So the leader's end is never before the worker's.

use crate::rt::Mono;
use crate::scheduler::model;
use crate::types::WorkerId;
use std::collections::BTreeMap;
use std::time::Duration;

/// One part in this many is what a clock may lose or gain against another (docs/orchestration.md, section 3).
const DRIFT: u32 = 100;

/// What a leader knows of leases, by its own monotonic clock.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    /// A lease with its drift.
    whole: Duration,
    /// When every lease that earlier leaders granted has certainly ended.
    others_until: Mono,
    /// When the lease of each worker to which this leader granted one has certainly ended.
    until: BTreeMap<WorkerId, Mono>,
}

impl Leases {
    /// Of a leader whose first moment is `now`.
    pub(super) fn new(lease: Duration, now: Mono) -> Self {
        let whole = lease + lease / DRIFT;
        Leases {
            whole,
            others_until: now.plus(whole),
            until: BTreeMap::new(),
        }
    }

    /// A grant to `worker` was answered by `now`.
    pub(super) fn granted(&mut self, worker: WorkerId, now: Mono) {
        self.until.insert(worker, now.plus(self.whole));
    }

    /// How long until the lease of `worker` has certainly ended; zero: it has.
    pub(super) fn remaining(&self, worker: WorkerId, now: Mono) -> Duration {
        let until = self.until.get(&worker).unwrap_or(&self.others_until);
        until.since(now)
    }

    /// As the scheduler takes it. What has ended is forgotten once nothing depends on it.
    pub(super) fn at(&mut self, now: Mono) -> model::Leases {
        if self.others_until <= now {
            self.until.retain(|_, until| *until > now);
        }
        let until = self.until.iter();
        model::Leases {
            now_ms: floor_ms(now),
            others_until_ms: ceil_ms(self.others_until),
            until_ms: until
                .map(|(worker, until)| (*worker, ceil_ms(*until)))
                .collect(),
        }
    }
}

fn floor_ms(at: Mono) -> u64 {
    u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX)
}

fn ceil_ms(at: Mono) -> u64 {
    floor_ms(at.plus(Duration::from_nanos(999_999)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn a_new_leader_waits_for_what_others_granted() {
        let mut leases = Leases::new(Duration::from_millis(30_000), at(1_000));
        let worker = WorkerId(1);
        assert_eq!(leases.at(at(1_000)).remaining_ms(worker), 30_300);
        assert_eq!(leases.at(at(31_299)).remaining_ms(worker), 1);
        assert_eq!(leases.at(at(31_300)).remaining_ms(worker), 0);
    }

    #[test]
    fn a_grant_counts_from_its_answer_and_is_forgotten_after_its_end() {
        let mut leases = Leases::new(Duration::from_millis(10_000), at(0));
        leases.granted(WorkerId(1), at(5_000));
        assert_eq!(leases.at(at(12_000)).remaining_ms(WorkerId(1)), 3_100);
        assert_eq!(leases.at(at(12_000)).remaining_ms(WorkerId(2)), 0);
        let ended = leases.at(at(15_100));
        assert_eq!(ended.until_ms, BTreeMap::new());
        assert_eq!(ended.remaining_ms(WorkerId(1)), 0);
        assert_eq!(leases.remaining(WorkerId(1), at(15_100)), Duration::ZERO);
    }

    #[test]
    fn parts_of_a_millisecond_never_end_a_lease_early() {
        let start = Mono(Duration::from_micros(10));
        let mut leases = Leases::new(Duration::from_millis(100), start);
        let just_before = Mono(start.0 + Duration::from_millis(101) - Duration::from_nanos(1));
        assert_eq!(leases.at(just_before).remaining_ms(WorkerId(1)), 1);
    }
}
