//! Reads on their way: linearizable ones gather in rounds of read index, then wait until the state has come that far.
//!
//! The age of a bounded or local read is the time since the start of the last round that the state has caught up with:
//! whatever was acknowledged before that start is in the answer. Rounds wait for a leader and its first commit (raft-rs would
//! drop them in silence). Those that a new term or the network swallowed are asked again under a fresh context, never the old one.

use crate::error::{Code, Error, Leader};
use crate::handle::{Consistency, Reply, Stamp};
use crate::rt::Mono;
use crate::state::command::{Get, GetDone};
use crate::types::Index;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Rounds under way at once; more reads wait for the next. Each costs a message to every peer and back, so that few and large
/// ones serve more reads; a second one keeps reads going while the first is lost.
const ROUNDS_MAX: usize = 2;

/// Age from which a local or bounded read starts a round of its own in the background.
const REFRESH_AGE: Duration = Duration::from_millis(100);

/// A read under way.
pub(crate) struct Read {
    /// What.
    pub(crate) query: Get,
    /// How fresh.
    pub(crate) consistency: Consistency,
    /// Answer.
    pub(crate) reply: Reply<(GetDone, Stamp)>,
    /// When to give up.
    pub(crate) deadline: Mono,
}

/// A round of read index.
struct Round {
    /// When it was asked.
    started: Mono,
    /// The reads it carries.
    reads: Vec<Read>,
}

/// All reads under way on this node.
pub(crate) struct Reads {
    /// Tells this start of the node from all others.
    nonce: u64,
    /// Last round number.
    sequence: u64,
    /// Not yet in a round.
    gathering: Vec<Read>,
    /// Asked, by round number.
    rounds: BTreeMap<u64, Round>,
    /// Answered by Raft, waiting for the state to reach the index: with the start of their round.
    waiting: BTreeMap<(Index, u64), Round>,
    /// May be served now.
    due: Vec<Read>,
    /// The state reflects everything that was acknowledged before this moment.
    fresh_as_of: Option<Mono>,
    /// True when a background round is wanted.
    refresh: bool,
}

impl Reads {
    /// None under way; `nonce` is fresh for this start.
    pub(crate) fn new(nonce: u64) -> Self {
        Reads {
            nonce,
            sequence: 0,
            gathering: Vec::new(),
            rounds: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: Vec::new(),
            fresh_as_of: None,
            refresh: false,
        }
    }

    /// A read has arrived.
    pub(crate) fn arrive(&mut self, read: Read, now: Mono) {
        let age = self.age(now);
        let at_once = match read.consistency {
            Consistency::Linearizable => false,
            Consistency::Local => true,
            Consistency::Bounded { max_age } => age.is_some_and(|age| age <= max_age),
        };
        if at_once {
            self.refresh |= age.is_none_or(|age| age > REFRESH_AGE);
            self.due.push(read);
        } else {
            self.gathering.push(read);
        }
    }

    /// The context of a new round, if there is need and room for one.
    pub(crate) fn start_round(&mut self, now: Mono) -> Option<Vec<u8>> {
        let wanted = !self.gathering.is_empty() || (self.refresh && self.rounds.is_empty());
        if !wanted || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        self.refresh = false;
        self.sequence += 1;
        let reads = std::mem::take(&mut self.gathering);
        self.rounds.insert(
            self.sequence,
            Round {
                started: now,
                reads,
            },
        );
        Some(crate::raft::core::context(self.nonce, self.sequence))
    }

    /// Raft answers a round: its reads may be served once the state has reached `index`.
    pub(crate) fn confirmed(&mut self, context: &[u8], index: Index) {
        let context = Bytes::copy_from_slice(context);
        let Some((nonce, sequence)) = crate::raft::core::parse_context(&context) else {
            return;
        };
        if nonce != self.nonce {
            return;
        }
        if let Some(round) = self.rounds.remove(&sequence) {
            self.waiting.insert((index, sequence), round);
        }
    }

    /// The state has reached `applied`.
    pub(crate) fn applied(&mut self, applied: Index) {
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > applied {
                return;
            }
            let round = first.remove();
            self.due.extend(round.reads);
            self.fresh_as_of = self.fresh_as_of.max(Some(round.started));
        }
    }

    /// Reads that may be served now.
    pub(crate) fn take_due(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.due)
    }

    /// How old the state is at most.
    pub(crate) fn age(&self, now: Mono) -> Option<Duration> {
        self.fresh_as_of.map(|moment| now.since(moment))
    }

    /// A new term has begun: nobody answers what was asked in the one before.
    pub(crate) fn ask_again(&mut self) {
        let rounds = std::mem::take(&mut self.rounds).into_values();
        self.gathering.extend(rounds.flat_map(|round| round.reads));
    }

    /// Asks again what got lost, and gives up on what is late.
    pub(crate) fn sweep(&mut self, now: Mono, retry: Duration, leader: Option<&Leader>) {
        let lost: Vec<u64> = self
            .rounds
            .iter()
            .filter(|(_, round)| now.since(round.started) >= retry)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in lost {
            if let Some(round) = self.rounds.remove(&sequence) {
                self.gathering.extend(round.reads);
            }
        }
        expire(&mut self.gathering, now, leader);
        for round in self.waiting.values_mut() {
            expire(&mut round.reads, now, leader);
        }
    }

    /// Answers everybody: the node stops.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        let rounds = std::mem::take(&mut self.rounds).into_values();
        let waiting = std::mem::take(&mut self.waiting).into_values();
        let carried = rounds.chain(waiting).flat_map(|round| round.reads);
        let gathered = std::mem::take(&mut self.gathering);
        for read in carried.chain(gathered).chain(self.take_due()) {
            refuse(read, error.clone());
        }
    }
}

/// Gives up on the reads that are late.
fn expire(reads: &mut Vec<Read>, now: Mono, leader: Option<&Leader>) {
    let (late, kept) = std::mem::take(reads)
        .into_iter()
        .partition(|read| read.deadline <= now);
    *reads = kept;
    for read in late {
        refuse(read, unconfirmed(leader.cloned()));
    }
}

/// Gives an error to who waits. A closed reply means that nobody waits any more.
pub(crate) fn refuse(read: Read, error: Error) {
    drop(read.reply.send(Err(error)));
}

/// No majority confirmed the leadership in time.
fn unconfirmed(leader: Option<Leader>) -> Error {
    let code = if leader.is_some() {
        Code::Timeout
    } else {
        Code::NoLeader
    };
    Error::new(
        code,
        "no majority confirmed a leader in time, so a linearizable read is impossible",
    )
    .leader(leader)
    .hint("read with consistency=local for whatever this node has, with its age")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    /// Where a read's answer arrives.
    type Answer = oneshot::Receiver<Result<(GetDone, Stamp), Error>>;

    fn read(consistency: Consistency) -> (Read, Answer) {
        let (reply, answer) = oneshot::channel();
        let read = Read {
            query: Get::default(),
            consistency,
            reply,
            deadline: at(1_000),
        };
        (read, answer)
    }

    #[test]
    fn a_linearizable_read_waits_for_its_round_and_for_the_state() {
        let mut reads = Reads::new(1);
        reads.arrive(read(Consistency::Linearizable).0, at(0));
        let context = reads.start_round(at(1)).expect("a round starts");
        reads.confirmed(&context, Index(7));
        reads.applied(Index(6));
        assert!(reads.take_due().is_empty());
        reads.applied(Index(7));
        assert_eq!(reads.take_due().len(), 1);
        assert_eq!(reads.age(at(11)), Some(Duration::from_millis(10)));
    }

    #[test]
    fn a_dropped_read_index_is_asked_again() {
        let mut reads = Reads::new(1);
        reads.arrive(read(Consistency::Linearizable).0, at(0));
        let first = reads.start_round(at(0)).expect("a round starts");
        reads.sweep(at(300), Duration::from_millis(300), None);
        let second = reads.start_round(at(300)).expect("it is asked again");
        assert_ne!(first, second, "a context is never used twice");
        reads.confirmed(&first, Index(1));
        reads.applied(Index(1));
        assert!(
            reads.take_due().is_empty(),
            "a late answer to a lost round serves nobody"
        );
    }

    #[test]
    fn a_new_term_asks_again_at_once() {
        let mut reads = Reads::new(1);
        reads.arrive(read(Consistency::Linearizable).0, at(0));
        let first = reads.start_round(at(0)).expect("a round starts");
        assert_eq!(reads.start_round(at(1)), None);
        reads.ask_again();
        let second = reads.start_round(at(1)).expect("it is asked again");
        reads.confirmed(&first, Index(1));
        reads.applied(Index(1));
        assert!(reads.take_due().is_empty(), "the old term's answer is void");
        reads.confirmed(&second, Index(1));
        reads.applied(Index(1));
        assert_eq!(reads.take_due().len(), 1);
    }

    #[test]
    fn a_bounded_read_is_served_only_while_the_state_is_young_enough() {
        let mut reads = Reads::new(1);
        reads.refresh = true;
        let context = reads.start_round(at(0)).expect("a background round starts");
        reads.confirmed(&context, Index(1));
        reads.applied(Index(1));
        let bounded = || Consistency::Bounded {
            max_age: Duration::from_millis(50),
        };
        reads.arrive(read(bounded()).0, at(50));
        assert_eq!(reads.take_due().len(), 1);
        reads.arrive(read(bounded()).0, at(51));
        assert!(reads.take_due().is_empty());
        assert!(reads.start_round(at(51)).is_some());
    }

    #[test]
    fn a_late_read_says_that_no_leader_is_known() {
        let mut reads = Reads::new(1);
        let (one, mut answer) = read(Consistency::Linearizable);
        reads.arrive(one, at(0));
        reads.sweep(at(1_000), Duration::from_millis(300), None);
        let error = answer.try_recv().expect("answered").expect_err("late");
        assert_eq!((error.code, error.outcome_unknown), (Code::NoLeader, false));
    }
}
