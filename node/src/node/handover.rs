//! Handing leadership over: when a leader does it by itself, and to whom.
//!
//! A leader whose log stalls, or whose disk has no room for writes, is of no use to clients while another voter could serve
//! them. It asks one heir after the other: each try ends by itself within an election time-out, and no heir is asked twice
//! within a pause. Every message between peers says whether its sender is read-only, so a node without room is never asked:
//! when all are full, leadership stays where it is.

use super::run::Run;
use crate::rt::{Event, Mono};
use crate::types::{Index, NodeId, Role};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest silences of the profile after which an heir may be asked again.
const PAUSE_ELECTIONS: u32 = 4;

/// A voter that could lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heir {
    /// Who.
    id: NodeId,
    /// Last entry it is known to hold.
    matched: Index,
    /// It takes no writes for want of space.
    read_only: bool,
}

/// What a peer's last messages told beside their contents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// When they came.
    pub(super) at: Mono,
    /// Whether the peer takes no writes for want of space.
    pub(super) read_only: bool,
}

/// Whom this node has asked to take over lately.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// When each was asked.
    asked: BTreeMap<NodeId, Mono>,
}

impl Handover {
    /// The next to ask: with room for writes, not asked within `pause`, and the one with the longest log among those.
    fn next(&mut self, heirs: &[Heir], now: Mono, pause: Duration) -> Option<NodeId> {
        self.asked.retain(|_, at| now.since(*at) < pause);
        let fit = heirs
            .iter()
            .filter(|one| !one.read_only && !self.asked.contains_key(&one.id));
        let heir = fit.max_by_key(|one| (one.matched, Reverse(one.id)))?;
        self.asked.insert(heir.id, now);
        Some(heir.id)
    }
}

impl Run {
    /// A leader that cannot serve writes hands leadership over: what it leads can be committed by the others, but it cannot
    /// answer for it, or takes nothing new.
    pub(super) fn yield_if_unfit(&mut self, now: Mono) {
        let leads = self.core.role() == Role::Leader && self.stopping.is_none();
        if !leads || self.core.transferring_to().is_some() {
            return;
        }
        let Some(reason) = self.why_unfit(now) else {
            return;
        };
        let pause = self.shared.config.profile.election_max() * PAUSE_ELECTIONS;
        let heirs = self.heirs();
        if let Some(to) = self.handover.next(&heirs, now, pause) {
            self.record(Event::HandsOver {
                group: super::run::GROUP,
                to,
                reason: reason.to_owned(),
            });
            self.core.transfer(to);
        }
    }

    /// Why this node should not lead, if so.
    fn why_unfit(&self, now: Mono) -> Option<&'static str> {
        let patience = self.shared.config.profile.election_max();
        let stalled = self
            .writer
            .running_for(now)
            .is_some_and(|span| span >= patience);
        if self.read_only {
            Some("its disk is nearly full")
        } else if stalled {
            Some("its disk has stalled")
        } else {
            None
        }
    }

    /// The voters that could lead.
    fn heirs(&self) -> Vec<Heir> {
        let voters = self.core.configuration().voters;
        self.progress()
            .into_iter()
            .filter(|(id, one)| *id != self.me.id && one.active && voters.contains(&id.0))
            .map(|(id, one)| Heir {
                id,
                matched: one.matched,
                read_only: self.is_read_only(id),
            })
            .collect()
    }

    /// Whether `peer` has said that it takes no writes for want of space.
    pub(super) fn is_read_only(&self, peer: NodeId) -> bool {
        self.heard.get(&peer).is_some_and(|heard| heard.read_only)
    }

    /// The follower that would lose the least time as a leader; one without room for writes only if there is no other.
    pub(super) fn best_heir(&self) -> Option<NodeId> {
        let heirs = self.heirs().into_iter();
        heirs
            .max_by_key(|one| (!one.read_only, one.matched, Reverse(one.id)))
            .map(|one| one.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    fn heir(id: u64, matched: u64, read_only: bool) -> Heir {
        Heir {
            id: NodeId(id),
            matched: Index(matched),
            read_only,
        }
    }

    #[test]
    fn the_longest_log_with_room_is_asked_first() {
        let mut handover = Handover::default();
        let heirs = [heir(2, 9, true), heir(3, 5, false), heir(4, 7, false)];
        assert_eq!(handover.next(&heirs, at(0), PAUSE), Some(NodeId(4)));
    }

    #[test]
    fn nobody_is_asked_twice_within_the_pause() {
        let mut handover = Handover::default();
        let heirs = [heir(2, 7, false), heir(3, 7, false)];
        assert_eq!(handover.next(&heirs, at(0), PAUSE), Some(NodeId(2)));
        assert_eq!(handover.next(&heirs, at(300), PAUSE), Some(NodeId(3)));
        assert_eq!(handover.next(&heirs, at(600), PAUSE), None);
        assert_eq!(handover.next(&heirs, at(2_000), PAUSE), Some(NodeId(2)));
    }

    #[test]
    fn leadership_stays_when_all_are_full() {
        let mut handover = Handover::default();
        let heirs = [heir(2, 7, true), heir(3, 7, true)];
        assert_eq!(handover.next(&heirs, at(0), PAUSE), None);
        assert!(handover.asked.is_empty());
    }
}
