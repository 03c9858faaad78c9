//! Requests: of this node's clients, and those that peers forward.

use super::handover::Heard;
use super::proposals::{Waiter, refuse};
use super::reads::Read;
use super::run::{Internal, Run};
use crate::error::{Code, Error};
use crate::fleet::meeting::Call;
use crate::handle::{Reply, Request, Stamp, WatchBatch};
use crate::manager::Asked;
use crate::rt::Mono;
use crate::state::command::{Command, GetDone};
use crate::store::StoreView;
use crate::transport::Inbound;
use crate::types::{NodeId, Revision, Role};
use crate::wire::{Answer, Ask, ProbeAnswer};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::watch;

/// Events that one look into history gives at most.
const HISTORY_EVENTS_MAX: usize = 1_000;

/// Ticks that a leader which was succeeded has to answer what was handed to it: in the profile `lan`, whose heartbeat is 50 ms, 50 ms.
const SUCCESSOR_TICKS: u32 = 5;

/// Pause before a request that found no leader is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(30);

/// A request that needs a leader.
pub(super) struct Parked {
    /// What.
    pub(super) ask: Ask,
    /// Who waits.
    pub(super) waiter: Waiter,
    /// Not after this.
    pub(super) deadline: Mono,
    /// Not before this.
    pub(super) not_before: Mono,
}

/// A look into history that waits for the read lane.
pub(super) struct Look {
    from: Revision,
    key: Bytes,
    range_end: Bytes,
    reply: Reply<WatchBatch>,
}

/// What a read found.
type Found = Result<(GetDone, Stamp), Error>;

/// What was found, with who asked.
type Answered = (Reply<(GetDone, Stamp)>, Found);

/// Reads that were served.
pub(super) struct Served {
    /// How many.
    count: usize,
    /// How long it took.
    took: Duration,
    /// What was found, with those who asked.
    answers: Vec<Answered>,
}

impl Run {
    /// A request of this node's clients.
    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::Propose {
                command,
                deadline,
                reply,
            } => {
                self.lead_or_forward(Ask::Propose(command), Waiter::Command(reply), deadline);
            }
            Request::Change {
                change,
                deadline,
                reply,
            } => {
                self.lead_or_forward(
                    Ask::Change(change),
                    Waiter::Change(NodeId(0), reply),
                    deadline,
                );
            }
            Request::Read {
                query,
                consistency,
                deadline,
                reply,
            } => {
                let read = Read {
                    query,
                    consistency,
                    reply,
                    deadline,
                };
                let now = self.now();
                self.reads.arrive(read, now);
            }
            Request::History {
                from,
                key,
                range_end,
                reply,
            } => {
                if from > self.revision {
                    let nothing = WatchBatch {
                        events: Vec::new(),
                        through: self.revision,
                    };
                    drop(reply.send(Ok(nothing)));
                } else {
                    self.snapshots.looks.push(Look {
                        from,
                        key,
                        range_end,
                        reply,
                    });
                }
            }
            Request::Dispatch {
                to,
                call,
                deadline,
                reply,
            } => self.dispatch(to, call, Waiter::Dispatch(reply), deadline),
            Request::Snapshot { reply } => self.snapshot_wanted(reply),
            Request::Stop { reason } => self.stop(reason),
        }
    }

    /// News from a peer.
    pub(super) fn on_inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Raft {
                from,
                messages,
                read_only,
                ..
            } => {
                let at = self.now();
                self.heard.insert(from, Heard { at, read_only });
                for message in messages {
                    self.on_message(from, message);
                }
            }
            Inbound::Unreachable { peer } => self.core.unreachable(peer),
            Inbound::Rejected { reject, .. } => self.on_rejected(&reject),
            Inbound::Forward {
                ask,
                deadline,
                reply,
                ..
            } => self.on_forward(ask, deadline, reply),
            Inbound::Snapshot {
                from,
                request,
                reply,
            } => self.serve_snapshot(from, request, reply),
            Inbound::Probe { reply, .. } => {
                let answer = ProbeAnswer {
                    name: self.me.name.clone(),
                    incarnation: self.me.incarnation.0,
                    cluster_id: self.me.cluster_id.0,
                    id: self.me.id.0,
                    founders: self.founders.clone(),
                    members: self.members.clone(),
                };
                drop(reply.send(answer));
            }
            Inbound::Join { join, reply } => self.on_join(join, reply),
        }
    }

    /// A peer forwards a request: it is led here or refused, never forwarded again.
    fn on_forward(
        &mut self,
        ask: Ask,
        deadline: Mono,
        reply: tokio::sync::oneshot::Sender<Result<Answer, Error>>,
    ) {
        let waiter = Waiter::Remote(reply);
        if let Ask::Dispatch(call) = ask {
            return self.hand_to_manager(*call, waiter);
        }
        if self.core.role() == Role::Leader {
            self.lead(ask, waiter, deadline);
        } else {
            let error = Error::new(Code::NotLeader, "this node does not lead any more")
                .leader(self.leader_info());
            refuse(waiter, error);
        }
    }

    /// Does `ask` if this node leads, else hands it to who does, or waits for a leader.
    fn lead_or_forward(&mut self, ask: Ask, waiter: Waiter, deadline: Mono) {
        if self.stopping.is_some() {
            let error = Error::new(Code::ShuttingDown, "this node is stopping")
                .leader(self.leader_info())
                .hint("ask another node of the cluster");
            return refuse(waiter, error);
        }
        if self.is_removed() {
            let error = Error::new(
                Code::NoLeader,
                "this node is no member of the cluster any more",
            )
            .hint("ask a member; this node's process may be stopped");
            return refuse(waiter, error);
        }
        let leader = self.core.leader();
        if leader == self.me.id {
            self.lead(ask, waiter, deadline);
        } else if leader.0 == 0 {
            let not_before = self.now().plus(RETRY_PAUSE);
            self.parked.push(Parked {
                ask,
                waiter,
                deadline,
                not_before,
            });
        } else {
            self.forward(leader, ask, waiter, deadline);
        }
    }

    /// Does `ask` as the leader.
    fn lead(&mut self, ask: Ask, waiter: Waiter, deadline: Mono) {
        match ask {
            Ask::Propose(command) => self.lead_command(command, waiter, deadline),
            Ask::Change(change) => self.lead_change(change, waiter, deadline),
            Ask::Dispatch(call) => self.hand_to_manager(*call, waiter),
        }
    }

    /// Hands a worker's call to the manager that it is for.
    fn dispatch(&mut self, to: Option<NodeId>, call: Box<Call>, waiter: Waiter, deadline: Mono) {
        let ask = Ask::Dispatch(call);
        match to {
            None => self.lead_or_forward(ask, waiter, deadline),
            Some(to) if to == self.me.id => self.lead(ask, waiter, deadline),
            Some(to) => {
                let answer = self.shared.transport.forward(to, ask, deadline);
                (self.shared.tasks).spawn(async move { waiter.answer(answer.await) });
            }
        }
    }

    /// Hands a worker's call to this node's manager.
    fn hand_to_manager(&mut self, call: Call, waiter: Waiter) {
        let answer = move |reply: Result<_, Error>| waiter.answer(reply.map(Answer::Dispatch));
        let asked = Asked {
            call,
            answer: Box::new(answer),
        };
        if let Err(full) = self.shared.manager.try_send(asked) {
            let error = Error::new(Code::Overloaded, "too many workers wait for this manager")
                .hint("try again in a moment");
            (full.into_inner().answer)(Err(error));
        }
    }

    /// Proposes a client's command.
    fn lead_command(&mut self, command: Command, waiter: Waiter, deadline: Mono) {
        if self.read_only {
            let error = Error::new(
                Code::ReadOnly,
                "the leader's disk is nearly full, and it takes no writes",
            )
            .leader(self.leader_info())
            .hint(
                "it hands leadership to a member with room, if there is one: try again in a moment; \
                 else free space on the members' disks, and writes resume by themselves",
            );
            return refuse(waiter, error);
        }
        if let Err(refused) = self.propose(command, waiter, deadline) {
            let (waiter, error) = *refused;
            refuse(waiter, error);
        }
    }

    /// Hands a request to the leader. One that was certainly not done comes back to be tried again.
    fn forward(&mut self, leader: NodeId, ask: Ask, waiter: Waiter, deadline: Mono) {
        let answer = self.shared.transport.forward(leader, ask.clone(), deadline);
        let (news, clock) = (self.news.clone(), self.shared.env.clock.clone());
        let successor = successor(self.leads.subscribe(), leader);
        let timing = self.shared.config.profile.timing();
        let grace = timing.tick * SUCCESSOR_TICKS;
        self.shared.tasks.spawn(async move {
            let succeeded = async {
                let next = successor.await;
                // A leader that handed over in order still answers what it had begun.
                clock.sleep(grace).await;
                next
            };
            let answer = tokio::select! {
                biased; // An answer that comes with the news still counts.
                answer = answer => answer,
                next = succeeded => Err(superseded(leader, next)),
            };
            match answer {
                Err(error) if may_retry(&error) && clock.now() < deadline => {
                    let not_before = clock.now().plus(RETRY_PAUSE);
                    let parked = Parked {
                        ask,
                        waiter,
                        deadline,
                        not_before,
                    };
                    // When the loop has ended, the waiter is dropped and its asker told so.
                    drop(news.send(Internal::Retry(parked)).await);
                }
                answer => waiter.answer(answer),
            }
        });
    }

    /// Tries the requests that waited for a leader.
    pub(super) fn unpark(&mut self, now: Mono) {
        let limit = self.shared.knobs.request_queue_len_max;
        for (place, parked) in std::mem::take(&mut self.parked).into_iter().enumerate() {
            if now >= parked.deadline {
                refuse(parked.waiter, no_leader());
            } else if place >= limit {
                refuse(
                    parked.waiter,
                    Error::new(Code::Overloaded, "too many requests wait for a leader"),
                );
            } else if parked.not_before > now || self.core.leader().0 == 0 {
                self.parked.push(parked);
            } else {
                self.lead_or_forward(parked.ask, parked.waiter, parked.deadline);
            }
        }
    }

    /// Serves the reads that are due, on their lane, together.
    pub(super) fn serve_due(&mut self) {
        if self.serving.is_some() {
            return;
        }
        let reads = self.reads.take_due();
        let looks = std::mem::take(&mut self.snapshots.looks);
        if reads.is_empty() && looks.is_empty() {
            return;
        }
        let now = self.now();
        let age_ms = self
            .reads
            .age(now)
            .map(|age| age.as_millis().try_into().unwrap_or(u64::MAX));
        let store = self.applier.store();
        let range_max = self.shared.config.limits.range_max as u64;
        let count = reads.len();
        let clock = self.shared.env.clock.clone();
        let job = self.read_lane.run(move || {
            let found = super::apply::lock(&store).store().map(|store| store.view());
            // Without a store the node is ending: whoever asked is told so when their reply is dropped.
            let Some(view) = found else { return Vec::new() };
            let answer = |read| answer_read(&view, read, range_max, age_ms);
            let answers = reads.into_iter().map(answer).collect();
            for look in looks {
                let Look {
                    from,
                    key,
                    range_end,
                    reply,
                } = look;
                let batch =
                    crate::state::history(&view, from, &key, &range_end, HISTORY_EVENTS_MAX);
                drop(reply.send(batch.map_err(Error::from)));
            }
            answers
        });
        self.serving = Some(Box::pin(async move {
            // A lane that has closed answers nobody: the node is stopping.
            let answers = job.await.unwrap_or_default();
            Served {
                count,
                took: clock.now().since(now),
                answers,
            }
        }));
    }

    /// Reads were served.
    pub(super) fn on_served(&mut self, served: Served) {
        // Sent from here and not from the lane: that wakes the lane's reader once, not every asker across threads.
        for (reply, answer) in served.answers {
            drop(reply.send(answer));
        }
        if served.count > 0 {
            self.shared
                .metrics
                .observe_storage("read", "ok", served.took);
        }
    }
}

/// Reads for who asked.
fn answer_read(view: &StoreView, read: Read, range_max: u64, age_ms: Option<u64>) -> Answered {
    let linearizable = matches!(read.consistency, crate::handle::Consistency::Linearizable);
    let answer = crate::state::read(view, &read.query, range_max).map_err(Error::from);
    let answer = answer.map(|(done, revision, applied_index)| {
        let age_ms = age_ms.filter(|_| !linearizable);
        (
            done,
            Stamp {
                revision,
                applied_index,
                age_ms,
            },
        )
    });
    (read.reply, answer)
}

/// The leader after `leader`; pending as long as no other is known.
async fn successor(mut leads: watch::Receiver<NodeId>, leader: NodeId) -> NodeId {
    let other = leads.wait_for(|next| next.0 != 0 && *next != leader).await;
    match other.map(|next| *next) {
        Ok(next) => next,
        // The loop has ended: the reply's end says so.
        Err(_) => std::future::pending().await,
    }
}

/// A request that `leader` did not answer before `next` took its place: without this it would wait for a dead node until its own
/// deadline (leader-crash, seed 227).
fn superseded(leader: NodeId, next: NodeId) -> Error {
    let message = format!("node {leader} had not answered when node {next} became leader");
    Error::new(Code::NotLeader, message)
        .unknown()
        .hint("look whether it happened before sending it again; a write in a session may simply be sent again")
}

/// Whether a forwarded request was certainly not done, for a reason that passes.
fn may_retry(error: &Error) -> bool {
    !error.outcome_unknown
        && matches!(
            error.code,
            Code::NotLeader | Code::NoLeader | Code::Overloaded
        )
}

/// No leader was found in time.
fn no_leader() -> Error {
    Error::new(
        Code::NoLeader,
        "no leader was found in time; the command was not done",
    )
    .hint("a majority of the members must reach each other; see /v1/cluster on each of them")
}
