//! What the loop tells of itself: the picture behind health, status and watches, and the numbers.

use super::run::Run;
use crate::handle::MemberStatus;
use crate::types::{Index, NodeId, Role};
use std::time::Duration;

/// How old the members' progress and the numbers may be: both change with every message, and building them costs more than
/// handling one.
const DETAIL_EVERY: Duration = Duration::from_millis(100);

impl Run {
    /// Replaces the picture where it has changed. Watchers are woken only when it has.
    pub(super) fn report(&mut self) {
        let (role, term, leader) = (self.core.role(), self.core.term(), self.core.leader());
        let log = self.core.log();
        let (first, last) = (Index(log.base().0.0 + 1), log.last().0);
        let commit = self.core.commit();
        let now = self.now();
        let turned = self.detail_told.0 != (role, term, leader);
        let members = (turned || now.since(self.detail_told.1) >= DETAIL_EVERY).then(|| {
            self.detail_told = ((role, term, leader), now);
            self.member_statuses()
        });
        let detailed = members.is_some();
        self.shared.status.send_if_modified(|status| {
            let before = (
                status.role,
                status.term,
                status.leader,
                status.applied_index,
            );
            let news = before != (role, term, leader, self.applied.0)
                || (status.commit_index, status.last_index, status.first_index)
                    != (commit, last, first)
                || status.revision != self.revision
                || status.read_only != self.read_only
                || status.id != self.me.id
                || members
                    .as_ref()
                    .is_some_and(|members| *members != status.members);
            if !news {
                return false;
            }
            status.cluster_id = self.me.cluster_id;
            status.id = self.me.id;
            status.incarnation = self.me.incarnation;
            (status.role, status.term, status.leader) = (role, term, leader);
            (status.commit_index, status.last_index, status.first_index) = (commit, last, first);
            (status.revision, status.compacted_revision) = (self.revision, self.compacted);
            status.read_only = self.read_only;
            status.elections = self.elections;
            if status.applied_index != self.applied.0 || status.state_hash.is_empty() {
                status.applied_index = self.applied.0;
                status.state_hash = format!("{:016x}", self.state_hash);
            }
            if let Some(members) = members {
                status.members = members;
            }
            true
        });
        if detailed {
            self.tell_metrics();
        }
    }

    /// The members, with what the leader knows of them.
    fn member_statuses(&self) -> Vec<MemberStatus> {
        let (conf, progress) = (self.core.configuration(), self.progress());
        let last = self.core.log().last().0;
        let leader = self.core.leader();
        self.members
            .iter()
            .map(|member| {
                let id = NodeId(member.id);
                let role = match id {
                    _ if id == leader => Role::Leader,
                    _ if conf.learners.contains(&member.id) => Role::Learner,
                    _ => Role::Follower,
                };
                let known = progress.get(&id);
                MemberStatus {
                    member: member.clone(),
                    role,
                    match_index: known.map(|one| one.matched),
                    replication_lag: known.map(|one| last.0.saturating_sub(one.matched.0)),
                    active: known.map(|one| one.active || id == self.me.id),
                }
            })
            .collect()
    }

    /// The numbers that follow from the picture.
    fn tell_metrics(&self) {
        let metrics = &self.shared.metrics;
        let status = self.shared.status.borrow();
        metrics.set_leader(status.role == Role::Leader);
        metrics.set_peers(status.members.len() as u64);
        let entries = status.last_index.0 + 1 - status.first_index.0;
        metrics.set_log(status.last_index.0, entries);
        metrics.set_progress(status.commit_index.0, status.applied_index.0);
        metrics.set_term(status.term.0);
        metrics.set_elections(status.elections);
        metrics.set_read_only(status.read_only);
        for member in &status.members {
            if let Some(lag) = member.replication_lag {
                metrics.set_replication_lag(&member.member.name, lag);
            }
        }
        if let Some(stats) = self.writer.stats() {
            metrics.set_wal(stats.bytes, stats.segments as u64);
        }
        if let Some(free) = self.disk_free {
            metrics.set_disk_free(free);
        }
    }
}
