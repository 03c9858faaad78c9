//! Who was heard when, and who has been silent too long.
//!
//! Kept in a leader's memory alone and never part of the log. A leader that knows nothing yet, or was away itself, takes every worker
//! as heard just now, so that each gets one full bound (moby/swarmkit#921). Before many are marked down at once the leader must doubt
//! itself ([`Sessions::is_mass`], [`verdict`]; kubernetes/kubernetes#105617).

use super::phi::Gaps;
use crate::fleet::meeting::Silence;
use crate::rt::Mono;
use crate::scheduler::Snapshot;
use crate::scheduler::model::Status;
use crate::types::{Epoch, NodeId, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Fewer ready workers than this are never a mass.
const MASS_READY_MIN: usize = 3;

/// A silence of more heartbeats than this makes a worker suspect: one lost on the way does not.
const SUSPECT_BEATS: u32 = 2;
/// So does one with this phi: one in a hundred million.
const SUSPECT_PHI: f64 = 8.0;

/// The ready workers and their last signs of life.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// The ready workers.
    known: BTreeMap<WorkerId, Session>,
    /// The same by their last sign of life.
    by_time: BTreeSet<(Mono, WorkerId)>,
    /// When workers were marked down lately, and how many.
    marked: VecDeque<(Mono, usize)>,
    /// How much longer than the bound a worker may be silent that was never heard.
    unheard: Duration,
}

/// One ready worker.
#[derive(Debug)]
struct Session {
    /// Its session.
    epoch: Epoch,
    /// Its last sign of life.
    last: Mono,
    /// Whether that was a sign, rather than an assumption.
    is_heard: bool,
    /// Whether it has said hello since its last heartbeat.
    has_greeted: bool,
    /// What was between the signs.
    gaps: Gaps,
    /// When it was last heard with nothing left to report, as stamps are, milliseconds.
    known_ms: Option<u64>,
}

impl Sessions {
    /// Knows nobody. A worker that is never heard may be silent for `unheard` more than the bound.
    pub(super) fn new(unheard: Duration) -> Self {
        Sessions {
            unheard,
            ..Sessions::default()
        }
    }

    /// Takes over which workers are ready. New ones count as heard `now`, or even later.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now: Mono) {
        let ready = |id: &WorkerId| {
            let worker = snapshot.workers.get(id)?;
            (worker.status == Status::Ready).then_some(worker.epoch)
        };
        let by_time = &mut self.by_time;
        self.known.retain(|id, session| {
            let stays = ready(id) == Some(session.epoch);
            if !stays {
                by_time.remove(&(session.last, *id));
            }
            stays
        });
        let last = now.plus(self.unheard);
        for id in snapshot.workers.keys() {
            if let Some(epoch) = ready(id)
                && !self.known.contains_key(id)
            {
                let session = Session {
                    epoch,
                    last,
                    is_heard: false,
                    has_greeted: false,
                    gaps: Gaps::default(),
                    known_ms: None,
                };
                self.known.insert(*id, session);
                self.by_time.insert((last, *id));
            }
        }
    }

    /// It said hello in the session that it has. That is a sign of life once: a worker that says hello again and again and nothing else
    /// does not hear what it is answered, and does none of what it shall.
    pub(super) fn greeted(&mut self, worker: WorkerId, now: Mono) {
        let session = self.known.get_mut(&worker);
        if session.is_some_and(|session| !std::mem::replace(&mut session.has_greeted, true)) {
            self.heard_elsewhere(worker, now);
        }
    }

    /// A sign of life came.
    pub(super) fn heard(&mut self, worker: WorkerId, now: Mono) {
        let Some(session) = self.known.get_mut(&worker) else {
            return;
        };
        if session.is_heard {
            session.gaps.add(now.since(session.last));
        }
        (session.is_heard, session.has_greeted) = (true, false);
        self.set_last(worker, now);
    }

    /// It had nothing left to report at `now_ms`.
    pub(super) fn knew(&mut self, worker: WorkerId, now_ms: u64) {
        if let Some(session) = self.known.get_mut(&worker) {
            session.known_ms = Some(now_ms);
        }
    }

    /// When each worker was last heard with nothing left to report, milliseconds.
    pub(super) fn known_ms(&self) -> BTreeMap<WorkerId, u64> {
        let all = self.known.iter();
        all.filter_map(|(id, session)| Some((*id, session.known_ms?)))
            .collect()
    }

    /// Somebody else heard it `at` that moment.
    pub(super) fn heard_elsewhere(&mut self, worker: WorkerId, at: Mono) {
        let Some(session) = self.known.get_mut(&worker) else {
            return;
        };
        if at > session.last {
            session.is_heard = false;
            self.set_last(worker, at);
        }
    }

    /// This manager was away itself: what it did not hear says nothing.
    pub(super) fn pardon(&mut self, now: Mono) {
        self.by_time.clear();
        for (id, session) in &mut self.known {
            (session.last, session.is_heard) = (now, false);
            self.by_time.insert((now, *id));
        }
    }

    fn set_last(&mut self, worker: WorkerId, at: Mono) {
        if let Some(session) = self.known.get_mut(&worker) {
            self.by_time.remove(&(session.last, worker));
            session.last = at;
            self.by_time.insert((at, worker));
        }
    }

    /// The ready workers.
    pub(super) fn ready(&self) -> Vec<WorkerId> {
        self.known.keys().copied().collect()
    }

    /// Those that have been silent for `bound` or longer, with their sessions.
    pub(super) fn silent(&self, now: Mono, bound: Duration) -> Vec<(WorkerId, Epoch)> {
        let late = |at: &Mono| now.since(*at) >= bound;
        let late = self.by_time.iter().take_while(|(at, _)| late(at));
        late.filter_map(|(_, id)| Some((*id, self.known.get(id)?.epoch)))
            .collect()
    }

    /// When the next one will have been silent for `bound`, if all stay silent.
    pub(super) fn next(&self, bound: Duration) -> Option<Mono> {
        self.by_time.first().map(|(at, _)| at.plus(bound))
    }

    /// Whether `count` more workers down would make more than a third of at least three within one bound.
    pub(super) fn is_mass(&mut self, count: usize, now: Mono, bound: Duration) -> bool {
        self.marked.retain(|(at, _)| now.since(*at) < bound);
        let before: usize = self.marked.iter().map(|(_, count)| count).sum();
        let ready = self.known.len() + before;
        ready >= MASS_READY_MIN && (before + count) * 3 > ready
    }

    /// So many workers were marked down.
    pub(super) fn marked(&mut self, count: usize, now: Mono) {
        self.marked.push_back((now, count));
    }

    /// How long each ready worker has been silent, and whether that makes it suspect.
    pub(super) fn silences(&self, now: Mono, heartbeat: Duration) -> Vec<Silence> {
        let all = self.known.iter().map(|(&worker, session)| {
            let ago = now.since(session.last);
            let is_late = ago > heartbeat * SUSPECT_BEATS;
            Silence {
                worker,
                ago_ms: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
                is_suspect: is_late || session.gaps.phi(ago) >= SUSPECT_PHI,
            }
        });
        all.collect()
    }

    /// The greatest suspicion, and of whom.
    pub(super) fn most_suspect(&self, now: Mono) -> Option<(WorkerId, f64)> {
        let phi = |session: &Session| session.gaps.phi(now.since(session.last));
        let all = self.known.iter().map(|(id, session)| (*id, phi(session)));
        all.max_by(|(_, one), (_, other)| one.total_cmp(other))
    }
}

/// What another manager has heard.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    /// Who says so.
    pub(super) id: NodeId,
    /// Whether it may lead.
    pub(super) is_voter: bool,
    /// How long ago it heard each worker that it heard at all.
    pub(super) ago: BTreeMap<WorkerId, Duration>,
}

/// What follows from the witnesses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Workers that nobody heard.
    pub(super) down: Vec<(WorkerId, Epoch)>,
    /// Workers that somebody heard within the bound, and how long ago.
    pub(super) alive: Vec<(WorkerId, Duration)>,
    /// A manager that hears more workers than this one.
    pub(super) heir: Option<NodeId>,
}

/// Judges the `silent` workers of a leader that has heard `ours` of the ready ones lately.
pub(super) fn verdict(
    silent: &[(WorkerId, Epoch)],
    ours: usize,
    witnesses: &[Witness],
    bound: Duration,
) -> Verdict {
    let mut verdict = Verdict::default();
    for (worker, epoch) in silent {
        let heard = witnesses.iter().filter_map(|one| one.ago.get(worker)).min();
        match heard.filter(|ago| **ago < bound) {
            Some(ago) => verdict.alive.push((*worker, *ago)),
            None => verdict.down.push((*worker, *epoch)),
        }
    }
    let hears = |one: &Witness| one.ago.values().filter(|ago| **ago < bound).count();
    let better = witnesses
        .iter()
        .filter(|one| one.is_voter && hears(one) > ours);
    let best = better.max_by_key(|one| (hears(one), std::cmp::Reverse(one.id)));
    verdict.heir = best
        .filter(|_| !verdict.alive.is_empty())
        .map(|best| best.id);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_suspect_after_two_heartbeats_or_when_it_never_was_so_late() {
        let mut sessions = Sessions::default();
        sessions.follow(&snapshot(2), at(0));
        for second in 1..=20 {
            sessions.heard(WorkerId(1), at(second));
        }
        sessions.heard(WorkerId(2), at(20));
        let told = |ms: u64| {
            let now = Mono(Duration::from_millis(ms));
            let all = sessions.silences(now, Duration::from_secs(1));
            all.iter()
                .map(|one| (one.ago_ms, one.is_suspect))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(21_100), [(1_100, false), (1_100, false)]);
        assert_eq!(
            told(21_700),
            [(1_700, true), (1_700, false)],
            "one is punctual"
        );
        assert_eq!(told(22_001), [(2_001, true), (2_001, true)]);
    }
    use crate::map::Map;
    use crate::scheduler::model::Worker;

    const BOUND: Duration = Duration::from_secs(30);

    fn at(secs: u64) -> Mono {
        Mono(Duration::from_secs(secs))
    }

    fn snapshot(count: u64) -> Snapshot {
        let workers = (1..=count).map(|id| {
            let worker = Worker {
                id: WorkerId(id),
                status: Status::Ready,
                epoch: Epoch(1),
                ..Worker::default()
            };
            (WorkerId(id), worker)
        });
        Snapshot {
            workers: workers.collect(),
            ..Snapshot::default()
        }
    }

    fn sessions(count: u64) -> Sessions {
        let mut sessions = Sessions::default();
        sessions.follow(&snapshot(count), at(0));
        sessions
    }

    fn ids(silent: &[(WorkerId, Epoch)]) -> Vec<u64> {
        silent.iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn a_new_leader_gives_every_worker_one_full_bound() {
        let sessions = sessions(2);
        assert_eq!(sessions.silent(at(29), BOUND), []);
        assert_eq!(sessions.next(BOUND), Some(at(30)));
        assert_eq!(ids(&sessions.silent(at(30), BOUND)), [1, 2]);
    }

    #[test]
    fn one_that_was_never_heard_gets_more_and_one_that_was_does_not() {
        let mut sessions = Sessions::new(Duration::from_secs(4));
        sessions.follow(&snapshot(2), at(0));
        sessions.heard(WorkerId(1), at(1));
        let bound = Duration::from_secs(1);
        assert_eq!(sessions.next(bound), Some(at(2)));
        assert_eq!(ids(&sessions.silent(at(2), bound)), [1]);
        assert_eq!(ids(&sessions.silent(at(4), bound)), [1]);
        assert_eq!(ids(&sessions.silent(at(5), bound)), [1, 2]);
    }

    #[test]
    fn whoever_is_heard_is_not_silent() {
        let mut sessions = sessions(3);
        sessions.heard(WorkerId(2), at(10));
        sessions.heard(WorkerId(9), at(10));
        assert_eq!(ids(&sessions.silent(at(39), BOUND)), [1, 3]);
        assert_eq!(ids(&sessions.silent(at(40), BOUND)), [1, 3, 2]);
        sessions.heard_elsewhere(WorkerId(1), at(25));
        sessions.heard_elsewhere(WorkerId(2), at(5));
        assert_eq!(ids(&sessions.silent(at(40), BOUND)), [3, 2]);
        sessions.pardon(at(50));
        assert_eq!(sessions.silent(at(79), BOUND), []);
        assert_eq!(ids(&sessions.silent(at(80), BOUND)), [1, 2, 3]);
    }

    #[test]
    fn a_hello_is_a_sign_of_life_once_for_each_heartbeat() {
        let mut sessions = sessions(1);
        (1..=20).for_each(|secs| sessions.greeted(WorkerId(1), at(secs)));
        assert_eq!(ids(&sessions.silent(at(31), BOUND)), [1], "since the first");
        sessions.heard(WorkerId(1), at(40));
        sessions.greeted(WorkerId(1), at(50));
        sessions.greeted(WorkerId(1), at(60));
        assert_eq!(sessions.silent(at(79), BOUND), []);
        assert_eq!(ids(&sessions.silent(at(80), BOUND)), [1]);
    }

    #[test]
    fn only_ready_workers_are_watched_and_a_new_session_begins_anew() {
        let (mut sessions, mut fleet) = (sessions(3), snapshot(3));
        let set = |fleet: &mut Snapshot, id, status, epoch| {
            let worker = fleet.workers.get_mut(&WorkerId(id)).unwrap();
            (worker.status, worker.epoch) = (status, Epoch(epoch));
        };
        set(&mut fleet, 1, Status::Down, 1);
        set(&mut fleet, 2, Status::Ready, 2);
        sessions.follow(&fleet, at(20));
        assert_eq!(sessions.silent(at(49), BOUND), [(WorkerId(3), Epoch(1))]);
        assert_eq!(sessions.silent(at(50), BOUND).len(), 2);
        sessions.knew(WorkerId(2), 7);
        sessions.knew(WorkerId(9), 7);
        assert_eq!(sessions.known_ms(), [(WorkerId(2), 7)].into());
        set(&mut fleet, 2, Status::Ready, 3);
        sessions.follow(&fleet, at(55));
        assert_eq!(sessions.known_ms(), [].into(), "another session's word");
        fleet.workers = Map::new();
        sessions.follow(&fleet, at(60));
        assert_eq!((sessions.next(BOUND), sessions.ready().len()), (None, 0));
    }

    #[test]
    fn more_than_a_third_of_three_within_one_bound_is_a_mass() {
        assert!(!sessions(2).is_mass(2, at(0), BOUND), "too few to tell");
        assert!(!sessions(3).is_mass(1, at(0), BOUND));
        assert!(sessions(3).is_mass(2, at(0), BOUND));
        let mut nine = sessions(9);
        assert!(!nine.is_mass(3, at(0), BOUND));
        nine.marked(3, at(0));
        let mut six = snapshot(9);
        (1..=3).for_each(|id| drop(six.workers.remove(&WorkerId(id))));
        nine.follow(&six, at(0));
        assert!(nine.is_mass(1, at(10), BOUND), "drop by drop is a mass too");
        assert!(!nine.is_mass(1, at(30), BOUND));
    }

    #[test]
    fn suspicion_grows_with_silence() {
        let mut sessions = sessions(2);
        assert_eq!(sessions.most_suspect(at(5)).unwrap().1, 0.0);
        (1..=10).for_each(|secs| sessions.heard(WorkerId(1), at(secs)));
        let (who, phi) = sessions.most_suspect(at(12)).unwrap();
        assert_eq!(who, WorkerId(1));
        assert!(phi > 8.0);
    }

    fn witness(id: u64, is_voter: bool, ago: &[(u64, u64)]) -> Witness {
        let ago = ago.iter();
        Witness {
            id: NodeId(id),
            is_voter,
            ago: ago
                .map(|(worker, secs)| (WorkerId(*worker), Duration::from_secs(*secs)))
                .collect(),
        }
    }

    #[test]
    fn whom_another_manager_heard_is_not_marked_and_who_hears_more_leads() {
        let silent = [1, 2, 3].map(|id| (WorkerId(id), Epoch(1)));
        let witnesses = [
            witness(2, true, &[(1, 5), (4, 1), (2, 30)]),
            witness(3, true, &[(1, 2), (2, 29), (4, 1)]),
            witness(4, false, &[(1, 1), (2, 1), (4, 1), (5, 1)]),
        ];
        let found = verdict(&silent, 2, &witnesses[..2], BOUND);
        assert_eq!(ids(&found.down), [3]);
        let secs = Duration::from_secs;
        let alive = vec![(WorkerId(1), secs(2)), (WorkerId(2), secs(29))];
        assert_eq!(found.alive, alive);
        assert_eq!(found.heir, Some(NodeId(3)), "three are more than two");
        assert_eq!(
            verdict(&silent, 3, &witnesses[..2], BOUND).heir,
            None,
            "three are not more than three"
        );
        assert_eq!(
            verdict(&silent, 2, &witnesses[2..], BOUND).heir,
            None,
            "a learner cannot lead"
        );
        let alone = verdict(&silent, 0, &[], BOUND);
        assert_eq!((alone.down.len(), alone.heir), (3, None));
    }
}
