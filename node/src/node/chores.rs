//! What time alone changes: leases that run out, reads that got lost, a disk that fills up or stalls.

use super::apply::Item;
use super::proposals::Waiter;
use super::run::{Internal, Run};
use crate::rt::{Event, Mono};
use crate::state::command::{Command, LeaseExpire, Op};
use crate::types::Role;
use std::time::Duration;

/// Leases that one entry expires at most.
const EXPIRE_MAX: usize = 64;
/// How long a follower's sync may hold up what it applies. The tick looks again.
const APPLY_HELD_MAX: Duration = Duration::from_millis(5);

impl Run {
    /// Looks after what time alone changes.
    pub(super) fn chores(&mut self, now: Mono) {
        let leader = self.leader_info();
        self.proposals.expire(now, leader.as_ref());
        self.reads
            .sweep(now, self.shared.knobs.read_retry, leader.as_ref());
        self.unpark(now);
        self.expire_leases(now);
        self.yield_if_unfit(now);
        self.tend_members(now);
        self.tend_snapshots(now);
    }

    /// Proposes the end of leases that ran out.
    pub(super) fn expire_leases(&mut self, now: Mono) {
        if self.wants_leases && self.core.has_committed_in_term() && self.applier.is_idle() {
            self.wants_leases = false;
            self.applier.push(Item::Leases);
        }
        if self.core.role() != Role::Leader {
            return;
        }
        let leases = self.leases.take_expired(now, EXPIRE_MAX);
        if leases.is_empty() {
            return;
        }
        let op = Op::LeaseExpire(LeaseExpire {
            leases: leases.clone(),
        });
        if self
            .propose(
                Command {
                    op: Some(op),
                    ..Command::default()
                },
                Waiter::Nobody,
                now,
            )
            .is_err()
        {
            self.leases.not_proposed(&leases);
        }
    }

    /// Sees to it that followers learn what is committed soon, although no append tells them.
    pub(super) fn mind_commit(&mut self) {
        let within = self.shared.knobs.commit_told_within;
        match self.core.has_untold_commit() {
            true => self.commit_due.set_once(within),
            false => self.commit_due.clear(),
        }
    }

    /// Starts the next batch. A follower's waits for the sync that is under way, as the leader does, and takes all that was committed until
    /// then, unless that takes long.
    pub(super) fn start_applier(&mut self) {
        let follows = self.core.role() != Role::Leader;
        let syncs = self.writer.running_for(self.now());
        if !(follows && syncs.is_some_and(|since| since < APPLY_HELD_MAX)) {
            self.applier.start();
        }
    }

    /// Asks for the free space of the disk.
    pub(super) fn look_at_disk(&mut self) {
        let dir = self.shared.config.data_dir.clone();
        let looked = self
            .snapshots
            .lane()
            .run(move || crate::store::free_bytes(&dir));
        let news = self.news.clone();
        self.shared.tasks.spawn(async move {
            if let Ok(Ok(free)) = looked.await {
                // The loop may have ended.
                drop(news.send(Internal::DiskFree(free)).await);
            }
        });
    }

    /// Enters or leaves read-only mode; leaves only with some room to spare, so that it does not flutter.
    pub(super) fn on_disk_free(&mut self, free: u64) {
        self.disk_free = Some(free);
        let low = self.shared.knobs.disk_low_bytes;
        if free < low {
            self.set_read_only(true);
        } else if free >= low + low / 4 {
            self.set_read_only(false);
        }
    }

    /// Sets the read-only mode.
    pub(super) fn set_read_only(&mut self, on: bool) {
        if self.read_only != on {
            self.read_only = on;
            self.shared.transport.set_read_only(on);
            self.record(Event::ReadOnly {
                on,
                free_bytes: self.disk_free.unwrap_or(0),
            });
        }
    }
}
