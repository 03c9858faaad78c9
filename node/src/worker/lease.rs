//! The right to run tasks with single-writer volumes, as the worker knows it (docs/orchestration.md, section 3).
//!
//! Granted by answered heartbeats and counted from the moment before each was sent, so that the worker's end of the lease is never
//! later than the managers'. It is never stored: a worker that starts anew has no lease.

use std::collections::VecDeque;

/// Heartbeats whose answer is still waited for; an older answer is worth nothing.
const IN_FLIGHT_LEN_MAX: usize = 64;

/// The lease and the heartbeats that ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lease {
    /// End of the lease, milliseconds; zero: none.
    until_ms: u64,
    /// Number of the newest heartbeat.
    number: u64,
    /// Numbers and times (milliseconds) of heartbeats without an answer, oldest first.
    in_flight: VecDeque<(u64, u64)>,
}

impl Lease {
    /// End of the lease, milliseconds.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// A heartbeat is about to be sent: its number.
    pub(super) fn sending(&mut self, now_ms: u64) -> u64 {
        self.number += 1;
        self.in_flight.push_back((self.number, now_ms));
        if self.in_flight.len() > IN_FLIGHT_LEN_MAX {
            self.in_flight.pop_front();
        }
        self.number
    }

    /// A heartbeat was answered with a grant.
    pub(super) fn answered(&mut self, number: u64, lease_ms: u64) {
        let Some(place) = self.in_flight.iter().position(|(sent, _)| *sent == number) else {
            return;
        };
        if let Some((_, sent_ms)) = self.in_flight.remove(place) {
            self.until_ms = self.until_ms.max(sent_ms.saturating_add(lease_ms));
        }
    }

    /// The connection is gone: no answer can come any more. The lease goes on to its end.
    pub(super) fn disconnected(&mut self) {
        self.in_flight.clear();
    }

    /// The worker has become another one: nothing that it was granted holds.
    pub(super) fn revoke(&mut self) {
        self.until_ms = 0;
        self.in_flight.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_before_its_heartbeat_was_sent_and_once() {
        let mut lease = Lease::default();
        let (first, second) = (lease.sending(1_000), lease.sending(2_000));
        lease.answered(second, 10_000);
        assert_eq!(lease.until_ms(), 12_000);
        lease.answered(first, 10_000);
        assert_eq!(lease.until_ms(), 12_000, "a late answer takes nothing away");
        lease.answered(second, 90_000);
        assert_eq!(lease.until_ms(), 12_000, "an answer counts once");
        let third = lease.sending(3_000);
        lease.disconnected();
        lease.answered(third, 10_000);
        assert_eq!(lease.until_ms(), 12_000);
    }
}
