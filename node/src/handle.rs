//! The node as everybody else in the process sees it: a cloneable [`Handle`] over the bounded queue of the node's loop.
//!
//! The HTTP door, the command line of `dev` and the simulator use nothing else. Every call ends: with an answer or with an
//! [`Error`] that says whether the command may have happened.

use crate::error::{Code, Error, Leader};
use crate::fleet::feed::Followed;
use crate::fleet::{self, Fleet, meeting};
use crate::manager::hearing::Hearing;
use crate::rt::{Clock, Mono};
use crate::secrets::Vault;
use crate::state::command::{
    Command, Done, FleetCommand, Get, GetDone, KeyEvent, Member, Op, Outcome, Refusal, Refused,
};
use crate::types::{ClusterId, Incarnation, Index, NodeId, Revision, Role, Term};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Reflects every write acknowledged before the read began.
    Linearizable,
    /// No older than this; the answer says how old at most.
    Bounded {
        /// Greatest age allowed.
        max_age: Duration,
    },
    /// Whatever this node has; the answer says how old, if that is known.
    Local,
}

/// What a read answer says of its freshness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// Revision the answer reflects.
    pub revision: Revision,
    /// Last entry applied on the answering node.
    pub applied_index: Index,
    /// Upper bound of the answer's age, milliseconds; absent for linearizable reads and when not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// Events of a watch, in order, whole revisions only.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchBatch {
    /// Events, oldest first; empty when there was nothing for this filter.
    pub events: Vec<KeyEvent>,
    /// Everything up to and including this revision has been looked at.
    pub through: Revision,
}

/// A change of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a learner; it is given a fresh id.
    Add {
        /// Name.
        name: String,
        /// Peer address.
        peer: String,
        /// HTTP address.
        http: String,
    },
    /// Makes a learner that has caught up a voter.
    Promote {
        /// Who.
        id: NodeId,
    },
    /// Removes a member.
    Remove {
        /// Who.
        id: NodeId,
    },
    /// Hands leadership to a voter that has caught up.
    Transfer {
        /// To whom; zero lets the leader choose the most complete follower.
        to: NodeId,
    },
}

/// A finished snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// Last entry it holds.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Revision it holds.
    pub revision: Revision,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// Checksum of the contents, as written in the file (xxh3-64, hex).
    pub checksum: String,
    /// File name inside the data directory.
    pub file: String,
}

/// How far a follower is behind, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// Its role as far as known: leader, follower (a voter) or learner.
    pub role: Role,
    /// Last entry it is known to hold; known to the leader alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_index: Option<Index>,
    /// Entries it is behind the leader's last (replication lag); known to the leader alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_lag: Option<u64>,
    /// True when the leader heard of it within an election time-out; known to the leader alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
}

/// Whether the node can serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Condition {
    /// Opening its data, or waiting for the other founders.
    Starting {
        /// What it waits for.
        waiting_for: String,
    },
    /// Takes part.
    Running,
    /// Its durable state is gone or damaged; it votes for nobody and waits to be let in as a learner.
    Rejoining {
        /// What happened.
        reason: String,
    },
    /// Removed from the cluster.
    Removed,
    /// Its disk failed or an invariant broke.
    Poisoned {
        /// What happened.
        reason: String,
    },
    /// Stopping in order.
    Stopping,
}

/// A picture of the node, replaced whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Cluster.
    pub cluster_id: ClusterId,
    /// This node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Life of its data directory.
    pub incarnation: Incarnation,
    /// Whether it can serve.
    pub condition: Condition,
    /// Its role.
    pub role: Role,
    /// Current term.
    pub term: Term,
    /// Known leader, zero if none.
    pub leader: NodeId,
    /// Commit index.
    pub commit_index: Index,
    /// Last entry applied.
    pub applied_index: Index,
    /// Last entry in the log.
    pub last_index: Index,
    /// First entry in the log.
    pub first_index: Index,
    /// Revision applied.
    pub revision: Revision,
    /// History below this revision is gone.
    pub compacted_revision: Revision,
    /// Keys that are there, as applied.
    pub key_count: u64,
    /// Members as applied.
    pub members: Vec<MemberStatus>,
    /// True when writes are refused for want of disk space.
    pub read_only: bool,
    /// Elections this node has seen since its start.
    pub elections: u64,
    /// Digest of the state at `applied_index`, hex.
    pub state_hash: String,
}

impl Status {
    /// The leader with its addresses, if known.
    pub fn leader_info(&self) -> Option<Leader> {
        let known = self
            .members
            .iter()
            .find(|one| one.member.id == self.leader.0)?;
        Some(Leader {
            id: self.leader,
            name: known.member.name.clone(),
            http: known.member.http.clone(),
        })
    }
}

/// The receiving end of an answer.
pub type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the node's loop is asked. Public so that a door can be tested against a loop of its own.
#[derive(Debug)]
pub enum Request {
    /// Commit and apply `command` (forwarded if need be).
    Propose {
        /// What.
        command: Command,
        /// Not after this; the outcome is then unknown.
        deadline: Mono,
        /// Answer.
        reply: Reply<Outcome>,
    },
    /// Read.
    Read {
        /// What.
        query: Get,
        /// How fresh.
        consistency: Consistency,
        /// Not after this.
        deadline: Mono,
        /// Answer.
        reply: Reply<(GetDone, Stamp)>,
    },
    /// History from a revision on, from this node's own store.
    History {
        /// First revision wanted.
        from: Revision,
        /// Start of the key range.
        key: bytes::Bytes,
        /// End of the key range, as in [`Get`].
        range_end: bytes::Bytes,
        /// Answer; empty and at once when nothing is newer.
        reply: Reply<WatchBatch>,
    },
    /// Change the membership.
    Change {
        /// How.
        change: MemberChange,
        /// Not after this.
        deadline: Mono,
        /// Answer: the member changed (its id, when added).
        reply: Reply<NodeId>,
    },
    /// Ask a manager's task, on behalf of a worker.
    Dispatch {
        /// Which manager; none: the leader.
        to: Option<NodeId>,
        /// What.
        call: Box<meeting::Call>,
        /// Not after this.
        deadline: Mono,
        /// Answer.
        reply: Reply<meeting::Reply>,
    },
    /// Cut a snapshot now.
    Snapshot {
        /// Answer when it is durable.
        reply: Reply<SnapshotInfo>,
    },
    /// Stop in order.
    Stop {
        /// Why.
        reason: String,
    },
}

/// A running node.
#[derive(Clone)]
pub struct Handle {
    /// The loop's queue.
    requests: mpsc::Sender<Request>,
    /// The latest picture.
    status: watch::Receiver<Status>,
    /// The fleet as applied.
    fleet: Followed,
    /// Which workers spoke through this handle.
    hearing: Hearing,
    /// What seals and opens secrets here; none behind a door without a node.
    vault: Option<Vault>,
    /// The node's clock, for deadlines.
    clock: Clock,
    /// Limit of a request that names none.
    timeout: Duration,
    /// The node's metrics in Prometheus text.
    metrics: std::sync::Arc<dyn Fn() -> String + Send + Sync>,
}

impl Handle {
    /// A handle over a loop's queue and picture; requests end after `timeout` unless they say otherwise.
    pub fn new(
        requests: mpsc::Sender<Request>,
        status: watch::Receiver<Status>,
        fleet: Followed,
        clock: Clock,
        timeout: Duration,
        metrics: std::sync::Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Self {
        Handle {
            requests,
            status,
            fleet,
            hearing: Hearing::default(),
            vault: None,
            clock,
            timeout,
            metrics,
        }
    }

    /// The same handle, with the node's vault.
    pub fn with_vault(self, vault: Vault) -> Self {
        Handle {
            vault: Some(vault),
            ..self
        }
    }

    /// What seals and opens secrets here.
    pub(crate) fn vault(&self) -> Result<&Vault, Error> {
        self.vault
            .as_ref()
            .ok_or_else(|| Error::new(Code::Internal, "there is no vault behind this door"))
    }

    /// Which workers spoke through this handle and its clones.
    pub(crate) fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    /// The latest picture of the node.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the picture.
    pub fn follow_status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The fleet as this node has applied it.
    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet.fleet.borrow())
    }

    /// Follows the fleet.
    pub fn follow_fleet(&self) -> watch::Receiver<Arc<Fleet>> {
        self.fleet.fleet.clone()
    }

    /// Rings when the fleet's workers changed, or their assignments.
    pub(crate) fn follow_workers(&self) -> watch::Receiver<()> {
        self.fleet.workers.clone()
    }

    /// The fleet, as fresh as asked.
    pub async fn read_fleet(
        &self,
        consistency: Consistency,
        timeout: Option<Duration>,
    ) -> Result<(Arc<Fleet>, Stamp), Error> {
        // A read of nothing, for its freshness: the fleet is told before the reads of the same position are served.
        let query = Get {
            key: bytes::Bytes::from_static(&[0]),
            count_only: true,
            ..Get::default()
        };
        let (_, stamp) = self.read(query, consistency, timeout).await?;
        Ok((self.fleet(), stamp))
    }

    /// Commits and applies a command of orchestration. A refusal is an error.
    pub async fn command(
        &self,
        command: &fleet::Command,
        timeout: Option<Duration>,
    ) -> Result<(fleet::Done, Outcome), Error> {
        let json = command.to_json();
        let op = Op::Fleet(FleetCommand { json });
        let command = Command {
            op: Some(op),
            ..Command::default()
        };
        let mut outcome = self.propose(command, timeout).await?;
        match outcome.done.take() {
            Some(Done::Fleet(done)) => match serde_json::from_slice(&done.json) {
                Ok(done) => Ok((done, outcome)),
                Err(error) => {
                    let message = format!("the outcome cannot be read: {error}");
                    Err(Error::new(Code::Internal, message).unknown())
                }
            },
            Some(Done::Refused(refused)) => Err(refusal(refused)),
            other => {
                let message = format!("unexpected outcome {other:?}");
                Err(Error::new(Code::Internal, message).unknown())
            }
        }
    }

    /// Asks the manager's task of `to`, or of the leader; a worker that asks the leader was heard here.
    pub async fn dispatch(
        &self,
        to: Option<NodeId>,
        call: meeting::Call,
        timeout: Option<Duration>,
    ) -> Result<meeting::Reply, Error> {
        let deadline = self.deadline(timeout);
        if to.is_none() {
            let now = self.clock.now();
            self.hearing.note(&call, &self.fleet.fleet.borrow(), now);
        }
        let call = Box::new(call);
        self.ask(deadline, true, |reply| Request::Dispatch {
            to,
            call,
            deadline,
            reply,
        })
        .await
    }

    /// The node's metrics in Prometheus text format.
    pub fn metrics_text(&self) -> String {
        (self.metrics)()
    }

    /// The node's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Commits and applies `command`, within `timeout` or the node's own limit.
    pub async fn propose(
        &self,
        command: Command,
        timeout: Option<Duration>,
    ) -> Result<Outcome, Error> {
        let deadline = self.deadline(timeout);
        self.ask(deadline, true, |reply| Request::Propose {
            command,
            deadline,
            reply,
        })
        .await
    }

    /// Reads.
    pub async fn read(
        &self,
        query: Get,
        consistency: Consistency,
        timeout: Option<Duration>,
    ) -> Result<(GetDone, Stamp), Error> {
        let deadline = self.deadline(timeout);
        self.ask(deadline, false, |reply| Request::Read {
            query,
            consistency,
            deadline,
            reply,
        })
        .await
    }

    /// History of a key range from `from` on, as far as this node has applied it. Wait for news with
    /// [`Handle::follow_status`].
    pub async fn history(
        &self,
        from: Revision,
        key: bytes::Bytes,
        range_end: bytes::Bytes,
    ) -> Result<WatchBatch, Error> {
        let deadline = self.deadline(None);
        self.ask(deadline, false, |reply| Request::History {
            from,
            key,
            range_end,
            reply,
        })
        .await
    }

    /// Changes the membership; answers when the change is applied here.
    pub async fn change_members(
        &self,
        change: MemberChange,
        timeout: Option<Duration>,
    ) -> Result<NodeId, Error> {
        let deadline = self.deadline(timeout);
        self.ask(deadline, true, |reply| Request::Change {
            change,
            deadline,
            reply,
        })
        .await
    }

    /// Cuts a snapshot; answers when it is durable.
    pub async fn snapshot(&self) -> Result<SnapshotInfo, Error> {
        let deadline = self.clock.now().plus(Duration::from_secs(600));
        self.ask(deadline, false, |reply| Request::Snapshot { reply })
            .await
    }

    /// Tells the node to stop in order: hand over leadership, finish what is under way, flush. Ends when it was told.
    pub async fn stop(&self, reason: &str) {
        let request = Request::Stop {
            reason: reason.to_owned(),
        };
        // A loop that is gone has stopped already.
        drop(self.requests.send(request).await);
    }

    /// The moment `timeout` from now, or the node's own limit.
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Mono {
        self.clock.now().plus(timeout.unwrap_or(self.timeout))
    }

    /// Asks the loop and waits until `deadline`; `writes` says whether a lost answer may hide an effect.
    async fn ask<T>(
        &self,
        deadline: Mono,
        writes: bool,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(request(reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(overloaded()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(gone(false)),
        }
        let wait = deadline.since(self.clock.now());
        match self.clock.timeout(wait, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone(writes)),
            Err(_) => Err(late(wait, writes)),
        }
    }
}

/// A deterministic refusal, as an error: nothing changed, and trying again changes nothing.
pub(crate) fn refusal(refused: Refused) -> Error {
    let (code, hint) = match refused.why() {
        Refusal::Invalid => (Code::InvalidArgument, None),
        Refusal::Precondition => (Code::PreconditionFailed, None),
        Refusal::LeaseNotFound => (Code::LeaseNotFound, Some("grant a new lease")),
        Refusal::SessionUnknown => (Code::SessionUnknown, Some("open a new session")),
        Refusal::SessionStale => (Code::SessionStale, Some("number each write higher")),
        Refusal::Compacted => (Code::Compacted, Some("read the keys anew")),
        Refusal::FutureRevision => (Code::FutureRevision, None),
        Refusal::NotFound => (Code::NotFound, None),
        Refusal::Conflict => (Code::Conflict, None),
        Refusal::Forbidden => (Code::Forbidden, None),
    };
    let mut error = Error::new(code, refused.message);
    error.hint = hint.map(str::to_owned);
    if let Some(current) = refused.current {
        error.hint = Some(match current.version {
            0 => "the key does not exist".to_owned(),
            version => format!(
                "the key has version {version} and modify revision {}",
                current.mod_revision
            ),
        });
    }
    error
}

/// The loop's queue is full.
fn overloaded() -> Error {
    Error::new(Code::Overloaded, "this node has too many requests waiting")
        .hint("try again in a moment, or ask another node")
}

/// The loop has ended.
fn gone(outcome_unknown: bool) -> Error {
    let mut error = Error::new(Code::ShuttingDown, "this node is stopping")
        .hint("ask another node of the cluster");
    error.outcome_unknown = outcome_unknown;
    error
}

/// No answer in time.
fn late(waited: Duration, outcome_unknown: bool) -> Error {
    let mut error = Error::new(Code::Timeout, format!("no answer within {waited:.1?}"));
    error.outcome_unknown = outcome_unknown;
    error
}
