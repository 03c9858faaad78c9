//! The managers' side of orchestration: sessions with workers, and the loop that keeps what runs equal to what is wanted.
//!
//! One task on every node. On the leader it answers workers (hello, heartbeat, report), watches for silence, asks the scheduler and
//! proposes what it says. Elsewhere it only says when its node heard from each worker, for a leader that asks.
//!
//! # The picture
//!
//! ```text
//!  workers ──▶ any node's HTTP door ──▶ node's loop ──▶ the leader's manager::run ──▶ reign::Reign
//!                    │ (hearing)                          ▲      │                       │
//!                    ▼                                    │      ▼                       ▼
//!            who was heard here                     Finished ◀── errands (entries, confirmations, questions to managers)
//! ```
//!
//! [`run`] owns a `Reign` while its node leads, and nothing otherwise: all that a leader knows beside the log is made anew in each term.
//! Everything that waits is an errand; the loop itself never does, so heartbeats are answered while a plan is on its way.
//!
//! # What must hold
//!
//! - *A lease is granted only by a leader.* A heartbeat that wants one waits for a linearizable read that began after it had come.
//!   A successor that was elected before would have kept that read from succeeding in our term; one that is elected later counts its
//!   wait from later than the worker counts its lease. The term is looked at after the read: a node that was deposed
//!   meanwhile gets its read answered too, by its successor.
//! - *No grant between a decision and its entry.* While a plan is on its way no lease is granted: the plan may rest on one that ended.
//! - *A leader acts on what all leaders before it did*: its first act is a linearizable read, and calls wait for that.
//! - *One pass at a time*, each on the fleet with the last plan applied.
//! - *Silence is judged by a manager that listened.* When this task itself was held up, every worker gets a full bound anew; and a
//!   leader that no majority answers steps down (check quorum), so one that led all through a silence had one all through it.
//!
//! # Map
//!
//! `meeting`, what a worker's word is worth; `sessions` with `phi`, who was heard when; `leases`, until when leases run;
//! `hearing`, whom this node's door heard; `assignments`, what a worker is told to do; `reign`, one leader's term; `errands`.
//!
//! # Caveats
//!
//! - A silent worker is found at the earliest after the whole bound, and suspicion (phi) is told as a metric alone.
//! - The mass check asks managers, not workers: where the leader's side of the network carries all managers' traffic and no worker's,
//!   and no worker reaches any other manager, the workers are marked down.

pub(crate) mod assignments;
mod errands;
pub(crate) mod hearing;
mod leases;
pub(crate) mod meeting;
mod phi;
mod reign;
mod sessions;
#[cfg(test)]
mod tests;

use crate::error::{Code, Error};
use crate::fleet::meeting::{Call, Reply};
use crate::handle::{Condition, Handle, Status};
use crate::knobs::Knobs;
use crate::metrics::Metrics;
use crate::rt::clock::Sleep;
use crate::rt::{Clock, Env, Journal, Mono};
use crate::types::{Epoch, Role, Term, WorkerId};
use errands::Finished;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
pub use meeting::token_hash;
use reign::Reign;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Takes an answer.
pub(crate) type Answer = Box<dyn FnOnce(Result<Reply, Error>) + Send>;

/// A call on its way to the manager's task.
pub(crate) struct Asked {
    /// What is asked.
    pub(crate) call: Call,
    /// Takes the answer.
    pub(crate) answer: Answer,
}

/// What the manager works with. A clone is the same.
#[derive(Clone)]
struct Hands {
    /// The node's clock.
    clock: Clock,
    /// Our numbers.
    knobs: Arc<Knobs>,
    /// The node.
    handle: Handle,
    /// Its picture.
    status: watch::Receiver<Status>,
    /// The numbers it tells of itself.
    metrics: Metrics,
    /// Where what it decides by itself is written down.
    journal: Journal,
}

/// What wakes the manager.
enum Wake {
    /// An errand has ended.
    Finished(Finished),
    /// Somebody asks.
    Asked(Asked),
    /// The picture, the fleet or the time has changed.
    News,
    /// The node is gone.
    Over,
}

/// Runs until the node's tasks are stopped.
pub(crate) async fn run(
    env: Env,
    knobs: Knobs,
    handle: Handle,
    metrics: Metrics,
    mut calls: mpsc::Receiver<Asked>,
) {
    let hands = Hands {
        clock: env.clock.clone(),
        knobs: Arc::new(knobs),
        status: handle.follow_status(),
        handle,
        metrics,
        journal: env.journal.clone(),
    };
    let (mut status, mut fleets) = (hands.handle.follow_status(), hands.handle.follow_fleet());
    let mut errands = FuturesUnordered::new();
    let mut timer = Timer::default();
    let mut reign: Option<Reign> = None;
    let mut wake = Wake::News;
    loop {
        // The role first: whoever asks shall be answered by what this node is now.
        let term = leads(&status.borrow_and_update());
        if reign.as_ref().map(Reign::term) != term {
            if let Some(over) = reign.take() {
                over.end();
            }
            reign = term.map(|term| Reign::new(hands.clone(), term));
        }
        let fleet = Arc::clone(&fleets.borrow_and_update());
        if let Some(reign) = &mut reign {
            reign.look(fleet);
        }
        match wake {
            Wake::Finished(finished) => match &mut reign {
                Some(reign) if reign.term() == finished.term => reign.finished(finished.what),
                _ => reign::late(&hands, finished.what),
            },
            Wake::Asked(asked) => match (&asked.call, &mut reign) {
                (Call::Heard { workers }, _) => {
                    let reply = hands.heard(workers);
                    (asked.answer)(Ok(reply));
                }
                (_, Some(reign)) => reign.asked(asked),
                (_, None) => (asked.answer)(Err(not_leader(&hands))),
            },
            Wake::News => {}
            Wake::Over => return,
        }
        if let Some(reign) = &mut reign {
            errands.extend(reign.act(calls.is_empty()));
        }
        timer.set(&hands.clock, reign.as_ref().and_then(Reign::wake));
        let rests = reign
            .as_ref()
            .is_some_and(|reign| reign.rests(hands.clock.now()));
        wake = tokio::select! {
            biased; // What has ended makes room; then who waits; then news.
            Some(finished) = errands.next() => Wake::Finished(finished),
            asked = calls.recv() => asked.map_or(Wake::Over, Wake::Asked),
            turned = status.wait_for(|status| leads(status) != term) => turned.map_or(Wake::Over, |_| Wake::News),
            changed = fleets.changed(), if !rests => changed.map_or(Wake::Over, |()| Wake::News),
            () = timer.passed() => Wake::News,
        };
    }
}

/// The term in which this node leads, if it does.
fn leads(status: &Status) -> Option<Term> {
    let leads = status.role == Role::Leader && status.condition == Condition::Running;
    leads.then_some(status.term)
}

/// Why a worker's call is not answered here.
fn not_leader(hands: &Hands) -> Error {
    let leader = hands.status.borrow().leader_info();
    Error::new(Code::NotLeader, "this manager does not lead any more")
        .leader(leader)
        .hint("try again in a moment, with any manager")
}

impl Hands {
    /// The welcome to a worker.
    fn welcome(&self, worker: WorkerId, epoch: Epoch) -> Reply {
        let status = self.status.borrow();
        Reply::Welcome {
            cluster: status.cluster_id,
            worker,
            epoch,
            managers: managers(&status),
        }
    }

    /// The answer to a heartbeat.
    fn beaten(&self, number: u64, epoch: Epoch, revision: u64, lease_ms: u64) -> Reply {
        let pace = self.knobs.worker_pace();
        let is_usual = pace == self.knobs.worker_heartbeat;
        let pace_ms = u64::try_from(pace.as_millis()).unwrap_or(u64::MAX);
        Reply::Beat {
            number,
            epoch,
            revision,
            lease_ms,
            pace_ms: (!is_usual).then_some(pace_ms),
        }
    }

    /// When this node's own door heard from `workers`.
    fn heard(&self, workers: &[WorkerId]) -> Reply {
        let ago = self.handle.hearing().ago(workers, self.clock.now());
        let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Reply::Heard {
            ago_ms: ago.into_iter().map(|(id, ago)| (id, ms(ago))).collect(),
        }
    }
}

/// The HTTP addresses of all managers.
pub(crate) fn managers(status: &Status) -> Vec<String> {
    let members = status.members.iter();
    members.map(|one| one.member.http.clone()).collect()
}

/// One timer that is set anew only for an earlier moment; it may ring for nothing.
#[derive(Default)]
struct Timer {
    /// The moment and its sleep.
    set: Option<(Mono, Sleep)>,
}

impl Timer {
    /// Rings at `at` at the latest.
    fn set(&mut self, clock: &Clock, at: Option<Mono>) {
        let Some(at) = at else { return };
        if self.set.as_ref().is_none_or(|(set, _)| at < *set) {
            self.set = Some((at, clock.sleep_until(at)));
        }
    }

    /// Ends when it rings. May be dropped and called again.
    async fn passed(&mut self) {
        match &mut self.set {
            Some((_, sleep)) => sleep.await,
            None => std::future::pending().await,
        }
        self.set = None;
    }
}
