//! Commands on their way through the log, and who waits for them.
//!
//! A proposal is known by its boot nonce and sequence number, which travel in the entry's context, and is answered when an
//! entry is applied at its index: with the outcome if it is the same entry, with "not done, try again" if another took its
//! place (then it can never commit). Until then its outcome is unknown, and a deadline says so.

use crate::error::{Code, Error, Leader};
use crate::handle::Reply;
use crate::raft::core::parse_context;
use crate::rt::Mono;
use crate::state::command::Outcome;
use crate::types::{Index, NodeId};
use crate::wire::Answer;
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Who waits for what.
pub(crate) enum Waiter {
    /// A command.
    Command(Reply<Outcome>),
    /// A change of membership about this member.
    Change(NodeId, Reply<NodeId>),
    /// A call of a worker.
    Dispatch(Reply<crate::fleet::meeting::Reply>),
    /// A peer that forwarded a client's request.
    Remote(oneshot::Sender<Result<Answer, Error>>),
    /// A peer that forwarded a change of membership about this member.
    RemoteChange(NodeId, oneshot::Sender<Result<Answer, Error>>),
    /// Nobody: the node's own business.
    Nobody,
}

/// One command under way.
struct Pending {
    /// Who waits.
    waiter: Waiter,
    /// Where it was proposed.
    index: Index,
    /// When it was proposed.
    since: Mono,
    /// When to give up waiting.
    deadline: Mono,
}

/// All commands under way on this node.
pub(crate) struct Proposals {
    /// Tells this start of the node from all others.
    nonce: u64,
    /// Last sequence number given out.
    sequence: u64,
    /// Under way, by sequence number.
    pending: BTreeMap<u64, Pending>,
    /// The same, by index and sequence number.
    by_index: BTreeMap<(Index, u64), ()>,
}

/// An answered proposal, for the metrics.
pub(crate) struct Answered {
    /// When it was proposed.
    pub(crate) since: Mono,
}

impl Proposals {
    /// None under way; `nonce` is fresh for this start.
    pub(crate) fn new(nonce: u64) -> Self {
        Proposals {
            nonce,
            sequence: 0,
            pending: BTreeMap::new(),
            by_index: BTreeMap::new(),
        }
    }

    /// The context of the next proposal.
    pub(crate) fn next_context(&mut self) -> Vec<u8> {
        self.sequence += 1;
        crate::raft::core::context(self.nonce, self.sequence)
    }

    /// The proposal of the last context went into the log at `index`.
    pub(crate) fn proposed(&mut self, index: Index, waiter: Waiter, since: Mono, deadline: Mono) {
        if matches!(waiter, Waiter::Nobody) {
            return;
        }
        self.by_index.insert((index, self.sequence), ());
        self.pending.insert(
            self.sequence,
            Pending {
                waiter,
                index,
                since,
                deadline,
            },
        );
    }

    /// Number under way.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// An entry was applied at `index`: answers its proposer, and all who hoped for that place.
    pub(crate) fn applied(
        &mut self,
        index: Index,
        context: &Bytes,
        outcome: Option<Outcome>,
    ) -> Option<Answered> {
        let own = parse_context(context).filter(|(nonce, _)| *nonce == self.nonce);
        let answered = own.and_then(|(_, sequence)| {
            let pending = self.take(sequence)?;
            answer(pending.waiter, outcome);
            Some(Answered {
                since: pending.since,
            })
        });
        self.lose_through(index);
        answered
    }

    /// Answers all that hoped for a place at or below `index`: another entry is there now.
    pub(crate) fn lose_through(&mut self, index: Index) {
        while let Some((&(place, sequence), ())) = self.by_index.first_key_value() {
            if place > index {
                return;
            }
            if let Some(pending) = self.take(sequence) {
                refuse(pending.waiter, superseded());
            }
        }
    }

    /// Gives up on those whose deadline has passed or whose waiter is gone.
    pub(crate) fn expire(&mut self, now: Mono, leader: Option<&Leader>) {
        let late: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, one)| one.deadline <= now || one.waiter.is_gone())
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in late {
            if let Some(pending) = self.take(sequence) {
                refuse(pending.waiter, timed_out(leader.cloned()));
            }
        }
    }

    /// Answers everybody: the node stops.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        self.by_index.clear();
        for (_, pending) in std::mem::take(&mut self.pending) {
            refuse(pending.waiter, error.clone());
        }
    }

    /// Removes one.
    fn take(&mut self, sequence: u64) -> Option<Pending> {
        let pending = self.pending.remove(&sequence)?;
        self.by_index.remove(&(pending.index, sequence));
        Some(pending)
    }
}

impl Waiter {
    /// The same waiter, now for a change about `id`.
    pub(crate) fn about(self, id: NodeId) -> Self {
        match self {
            Waiter::Change(_, reply) => Waiter::Change(id, reply),
            Waiter::Remote(reply) => Waiter::RemoteChange(id, reply),
            other => other,
        }
    }

    /// What was asked for is under way; there is nothing more to wait for.
    pub(crate) fn done(self) {
        match self {
            Waiter::Change(id, reply) => drop(reply.send(Ok(id))),
            Waiter::RemoteChange(id, reply) => drop(reply.send(Ok(Answer::Member(id)))),
            Waiter::Command(_) | Waiter::Dispatch(_) | Waiter::Remote(_) | Waiter::Nobody => {}
        }
    }

    /// Gives another node's answer to who waits here.
    pub(crate) fn answer(self, answer: Result<Answer, Error>) {
        let odd = || Error::new(Code::Internal, "the leader answered something else").unknown();
        match (self, answer) {
            (waiter, Err(error)) => refuse(waiter, error),
            (Waiter::Command(reply), Ok(Answer::Outcome(outcome))) => {
                drop(reply.send(Ok(outcome)));
            }
            (Waiter::Change(_, reply), Ok(Answer::Member(id))) => drop(reply.send(Ok(id))),
            (Waiter::Dispatch(reply), Ok(Answer::Dispatch(answer))) => drop(reply.send(Ok(answer))),
            (Waiter::Remote(reply), Ok(answer)) => drop(reply.send(Ok(answer))),
            (waiter, Ok(_)) => refuse(waiter, odd()),
        }
    }

    /// True when nobody listens any more.
    fn is_gone(&self) -> bool {
        match self {
            Waiter::Command(reply) => reply.is_closed(),
            Waiter::Change(_, reply) => reply.is_closed(),
            Waiter::Dispatch(reply) => reply.is_closed(),
            Waiter::Remote(reply) | Waiter::RemoteChange(_, reply) => reply.is_closed(),
            Waiter::Nobody => true,
        }
    }
}

/// Gives the outcome to who waits. A closed reply means that nobody waits any more.
fn answer(waiter: Waiter, outcome: Option<Outcome>) {
    let answer = outcome.map(Answer::Outcome);
    let answer = answer.ok_or_else(|| {
        Error::new(
            Code::Internal,
            "the command had no outcome, although it was applied",
        )
        .unknown()
    });
    match waiter {
        Waiter::Change(id, reply) => drop(reply.send(Ok(id))),
        Waiter::RemoteChange(id, reply) => drop(reply.send(Ok(Answer::Member(id)))),
        other => other.answer(answer),
    }
}

/// Gives an error to who waits.
pub(crate) fn refuse(waiter: Waiter, error: Error) {
    match waiter {
        Waiter::Command(reply) => drop(reply.send(Err(error))),
        Waiter::Change(_, reply) => drop(reply.send(Err(error))),
        Waiter::Dispatch(reply) => drop(reply.send(Err(error))),
        Waiter::Remote(reply) | Waiter::RemoteChange(_, reply) => drop(reply.send(Err(error))),
        Waiter::Nobody => {}
    }
}

/// Another entry took the place: this one can never commit.
fn superseded() -> Error {
    Error::new(
        Code::NotLeader,
        "leadership changed before the command was committed",
    )
    .hint("it was not done; send it again")
}

/// The deadline passed.
fn timed_out(leader: Option<Leader>) -> Error {
    Error::new(Code::Timeout, "no majority confirmed the command in time")
        .unknown()
        .leader(leader)
        .hint("it may still be done; read before sending it again, or use a session")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    fn propose(
        all: &mut Proposals,
        index: u64,
    ) -> (Bytes, oneshot::Receiver<Result<Outcome, Error>>) {
        let context = all.next_context();
        let (reply, answer) = oneshot::channel();
        all.proposed(Index(index), Waiter::Command(reply), at(0), at(5));
        (context.into(), answer)
    }

    #[test]
    fn the_same_entry_answers_its_proposer() {
        let mut all = Proposals::new(7);
        let (context, mut answer) = propose(&mut all, 4);
        let outcome = Outcome {
            revision: 9,
            ..Outcome::default()
        };
        assert!(
            all.applied(Index(4), &context, Some(outcome.clone()))
                .is_some()
        );
        assert_eq!(answer.try_recv(), Ok(Ok(outcome)));
        assert_eq!(all.len(), 0);
    }

    #[test]
    fn another_entry_in_its_place_means_certainly_not_done() {
        let mut all = Proposals::new(7);
        let (_, mut answer) = propose(&mut all, 4);
        let foreign = crate::raft::core::context(8, 1).into();
        assert!(all.applied(Index(4), &foreign, None).is_none());
        let error = answer.try_recv().expect("answered").expect_err("refused");
        assert!(error.retryable && !error.outcome_unknown);
    }

    #[test]
    fn a_deadline_means_outcome_unknown() {
        let mut all = Proposals::new(7);
        let (_, mut answer) = propose(&mut all, 4);
        all.expire(at(4), None);
        assert!(answer.try_recv().is_err());
        all.expire(at(5), None);
        assert!(
            answer
                .try_recv()
                .expect("answered")
                .expect_err("late")
                .outcome_unknown
        );
    }
}
