//! What the manager has others do while it goes on: each errand is a future that ends with what came of it.
//!
//! An errand that answers a worker does so itself; what the manager must know of it comes back as [`Finished`].

use super::meeting::acknowledged;
use super::sessions::Witness;
use super::{Answer, Hands, leads};
use crate::error::{Code, Error};
use crate::fleet::command::{Command, Done, WorkerHello, WorkerReports};
use crate::fleet::meeting::{Call, Reply};
use crate::handle::{Consistency, MemberChange};
use crate::rt::net::BoxFuture;
use crate::scheduler::Change;
use crate::scheduler::model::Status;
use crate::types::{Epoch, NodeId, Role, Term, WorkerId};
use std::time::Duration;

/// A future that ends with what came of it.
pub(super) type Errand = BoxFuture<'static, Finished>;

/// A heartbeat that waits for a lease.
pub(super) struct Beat {
    /// Who.
    pub(super) worker: WorkerId,
    /// Its number.
    pub(super) number: u64,
    /// In which session.
    pub(super) epoch: Epoch,
    /// Number of its newest report.
    pub(super) reports: u64,
    /// Takes the answer.
    pub(super) answer: Answer,
}

/// Reports that wait for an entry.
pub(super) struct Told {
    /// The reports.
    pub(super) reports: WorkerReports,
    /// Takes the answer.
    pub(super) answer: Answer,
}

/// What came of an errand.
pub(super) struct Finished {
    /// The term in which it was begun.
    pub(super) term: Term,
    /// What.
    pub(super) what: What,
}

/// What came of an errand.
pub(super) enum What {
    /// Everything that was committed before the term is applied here, or not.
    Settled(Result<(), Error>),
    /// This node led after these heartbeats came, or nobody knows.
    Confirmed(Vec<Beat>, Result<(), Error>),
    /// A hello was answered.
    Greeted,
    /// Reports were answered.
    Reported,
    /// A plan was applied whole, or not.
    Planned(Result<(), Error>),
    /// These workers were marked down, or not.
    Marked(Vec<(WorkerId, Epoch)>, Result<(), Error>),
    /// A majority follows this leader, and these managers say what they heard.
    Doubted(Vec<(WorkerId, Epoch)>, Result<Vec<Witness>, Error>),
    /// Leadership was handed over, or not.
    HandedOver(Result<(), Error>),
}

/// Waits until everything that was committed before is applied here.
pub(super) fn settle(hands: Hands, term: Term) -> Errand {
    Box::pin(async move {
        let what = What::Settled(hands.confirm().await);
        Finished { term, what }
    })
}

/// Asks a majority whether this node leads still.
pub(super) fn confirm(hands: Hands, term: Term, beats: Vec<Beat>) -> Errand {
    Box::pin(async move {
        let what = What::Confirmed(beats, hands.confirm().await);
        Finished { term, what }
    })
}

/// Proposes a hello and answers it.
pub(super) fn hello(hands: Hands, term: Term, hello: Box<WorkerHello>, answer: Answer) -> Errand {
    Box::pin(async move {
        let result = hands.command(&Command::WorkerHello(hello)).await;
        answer(result.and_then(|done| match done {
            Done::Welcome { worker, epoch } => Ok(hands.welcome(worker, epoch)),
            other => {
                let message = format!("a hello was answered with {other:?}");
                Err(Error::new(Code::Internal, message).unknown())
            }
        }));
        let what = What::Greeted;
        Finished { term, what }
    })
}

/// Proposes the reports of several workers and answers each.
pub(super) fn report(hands: Hands, term: Term, told: Vec<Told>) -> Errand {
    Box::pin(async move {
        let (batch, answers): (Vec<_>, Vec<_>) = told
            .into_iter()
            .map(|one| (one.reports, one.answer))
            .unzip();
        let command = Command::WorkerReports { batch };
        let result = hands.command(&command).await;
        let Command::WorkerReports { batch } = command else {
            unreachable!("it was made just above");
        };
        let fleet = hands.handle.fleet();
        for (reports, answer) in batch.iter().zip(answers) {
            answer(match &result {
                Ok(_) => Ok(acknowledged(&fleet, reports)),
                Err(error) => Err(error.clone()),
            });
        }
        let what = What::Reported;
        Finished { term, what }
    })
}

/// Proposes a plan, entry by entry, each applied before the next.
pub(super) fn plan(hands: Hands, term: Term, changes: Vec<Change>) -> Errand {
    Box::pin(async move {
        let (most, bytes_max) = (hands.knobs.plan_changes_max, hands.knobs.plan_bytes_max);
        let mut result = Ok(());
        for changes in chunks(changes, most, bytes_max) {
            if leads(&hands.status.borrow()) != Some(term) {
                break; // Void for whoever leads now.
            }
            let done = hands.command(&Command::Plan { term, changes }).await;
            result = done.map(drop);
            if result.is_err() {
                break;
            }
        }
        let what = What::Planned(result);
        Finished { term, what }
    })
}

/// `changes` in pieces of at most so many and about so many bytes, in order.
fn chunks(changes: Vec<Change>, most: usize, bytes_max: usize) -> Vec<Vec<Change>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for change in changes {
        let length = serde_json::to_vec(&change).map_or(0, |json| json.len());
        if !chunk.is_empty() && (chunk.len() >= most || bytes + length > bytes_max) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        chunk.push(change);
        bytes += length;
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Marks workers down.
pub(super) fn mark(hands: Hands, term: Term, silent: Vec<(WorkerId, Epoch)>) -> Errand {
    Box::pin(async move {
        let changes = silent.iter();
        let changes = changes
            .map(|(worker, epoch)| (*worker, *epoch, Status::Down))
            .collect();
        let command = Command::WorkerStatus { term, changes };
        let result = hands.command(&command).await.map(drop);
        let what = What::Marked(silent, result);
        Finished { term, what }
    })
}

/// Asks a majority whether this node leads still, then every other manager when it heard from the workers.
pub(super) fn doubt(
    hands: Hands,
    term: Term,
    silent: Vec<(WorkerId, Epoch)>,
    ready: Vec<WorkerId>,
) -> Errand {
    Box::pin(async move {
        let witnesses = match hands.confirm().await {
            Ok(()) => Ok(witnesses(&hands, &ready).await),
            Err(error) => Err(error),
        };
        let what = What::Doubted(silent, witnesses);
        Finished { term, what }
    })
}

/// What the other managers heard; one that does not answer has heard nothing.
async fn witnesses(hands: &Hands, ready: &[WorkerId]) -> Vec<Witness> {
    let status = hands.handle.status();
    let others = status.members.iter().map(|one| (one.member.id, one.role));
    let others = others.filter(|(id, _)| *id != status.id.0);
    let asked = others.map(async |(id, role)| {
        let id = NodeId(id);
        let workers = ready.to_vec();
        let call = Call::Heard { workers };
        let heard = hands.handle.dispatch(Some(id), call, None).await;
        let Ok(Reply::Heard { ago_ms }) = heard else {
            return None;
        };
        let ago = ago_ms.into_iter();
        Some(Witness {
            id,
            is_voter: role != Role::Learner,
            ago: ago
                .map(|(worker, ms)| (worker, Duration::from_millis(ms)))
                .collect(),
        })
    });
    let answers = futures::future::join_all(asked).await;
    answers.into_iter().flatten().collect()
}

/// Hands leadership to `heir`.
pub(super) fn hand_over(hands: Hands, term: Term, heir: NodeId) -> Errand {
    Box::pin(async move {
        let change = MemberChange::Transfer { to: heir };
        let result = hands.handle.change_members(change, None).await;
        let what = What::HandedOver(result.map(drop));
        Finished { term, what }
    })
}

impl Hands {
    /// Ends well when this node, or whoever leads by now, was followed by a majority after the call, and everything that was
    /// committed before it is applied here.
    async fn confirm(&self) -> Result<(), Error> {
        let read = self.handle.read_fleet(Consistency::Linearizable, None);
        read.await.map(drop)
    }

    async fn command(&self, command: &Command) -> Result<Done, Error> {
        self.handle
            .command(command, None)
            .await
            .map(|(done, _)| done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TaskId;

    #[test]
    fn a_plan_is_cut_by_number_and_by_bytes_and_stays_in_order() {
        let changes: Vec<Change> = (1..=25)
            .map(|id| Change::MarkLost { task: TaskId(id) })
            .collect();
        let length = serde_json::to_vec(&changes[20]).unwrap().len();
        for (most, bytes_max, pieces) in [(10, usize::MAX, 3), (100, 5 * length, 5), (7, 1, 25)] {
            let cut = chunks(changes.clone(), most, bytes_max);
            assert_eq!(cut.len(), pieces);
            assert_eq!(cut.concat(), changes);
        }
        assert!(chunks(Vec::new(), 1, 1).is_empty());
    }
}
