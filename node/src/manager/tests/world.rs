//! A manager over a node's loop that keeps no log: one fleet, a majority that can be lost, other managers that say what they are told
//! to, and the commands that came.

use crate::error::{Code, Error};
use crate::fleet::apply::At;
use crate::fleet::command::Machine;
use crate::fleet::feed::Feed;
use crate::fleet::meeting::{Call, HelloCall, Reply};
use crate::fleet::{Command, Fleet};
use crate::handle::{Handle, MemberChange, Request, Stamp, Status};
use crate::knobs::Knobs;
use crate::manager::Asked;
use crate::metrics::Metrics;
use crate::rt::{Env, Tasks};
use crate::scheduler::model;
use crate::service::spec::Amounts;
use crate::state::command::{Done, FleetDone, GetDone, Op, Outcome, Refused};
use crate::types::{ClusterId, Epoch, Incarnation, NodeId, Revision, Role, Term, WorkerId};
use crate::worker::exchange::{Hello, Identity};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What stands behind the handle.
#[derive(Default)]
pub(super) struct Behind {
    /// The fleet.
    pub(super) fleet: Fleet,
    /// The last entry.
    pub(super) index: u64,
    /// How far stamps are ahead of their index, milliseconds.
    pub(super) ahead_ms: u64,
    /// Commands that came, oldest first.
    pub(super) commands: Vec<Command>,
    /// Changes of membership that came.
    pub(super) changes: Vec<MemberChange>,
    /// Linearizable reads that came.
    pub(super) reads: usize,
    /// Whether reads get no answer for want of a majority.
    pub(super) is_cut_off: bool,
    /// Reads that wait for a majority.
    waiting: Vec<oneshot::Sender<()>>,
    /// How long ago each other manager heard each worker, milliseconds.
    pub(super) heard: BTreeMap<NodeId, Vec<(WorkerId, u64)>>,
    /// Errors that the next commands get.
    pub(super) failures: Vec<Error>,
}

/// A manager and what surrounds it.
pub(super) struct World {
    pub(super) env: Env,
    tasks: Tasks,
    pub(super) handle: Handle,
    pub(super) status: Arc<watch::Sender<Status>>,
    behind: Arc<Mutex<Behind>>,
    calls: mpsc::Sender<Asked>,
    pub(super) metrics: Metrics,
}

/// Fast numbers.
pub(super) fn knobs() -> Knobs {
    Knobs {
        worker_heartbeat: Duration::from_millis(50),
        worker_down: Duration::from_millis(300),
        worker_call_timeout: Duration::from_millis(100),
        worker_retry_max: Duration::from_millis(100),
        worker_lease: Duration::from_millis(400),
        manager_retry: Duration::from_millis(30),
        ..Knobs::default()
    }
}

impl World {
    /// Three members, of which this one leads.
    pub(super) fn new(knobs: Knobs) -> World {
        let env = crate::rt::real::env("test").unwrap();
        let tasks = Tasks::default();
        let (requests, queue) = mpsc::channel(1_024);
        let mut picture = crate::api::fake::status();
        let mut third = picture.members[1].clone();
        picture.members[1].role = Role::Follower;
        (third.member.id, third.role) = (3, Role::Follower);
        picture.members.push(third);
        let (status, pictures) = watch::channel(picture);
        let (fleet, fleets) = Feed::new();
        let metrics = Metrics::new();
        let handle = Handle::new(
            requests,
            pictures,
            fleets,
            env.clock.clone(),
            Duration::from_secs(2),
            Arc::new(String::new),
        );
        let status = Arc::new(status);
        let behind = Arc::new(Mutex::new(Behind {
            index: 100,
            ..Behind::default()
        }));
        tasks.spawn(serve(
            queue,
            Arc::clone(&behind),
            fleet,
            Arc::clone(&status),
            tasks.clone(),
        ));
        let (calls, asked) = mpsc::channel(64);
        tasks.spawn(crate::manager::run(
            env.clone(),
            knobs,
            handle.clone(),
            metrics.clone(),
            asked,
        ));
        World {
            env,
            tasks,
            handle,
            status,
            behind,
            calls,
            metrics,
        }
    }

    /// What stands behind the handle.
    pub(super) fn behind(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().unwrap()
    }

    /// Waits this long.
    pub(super) async fn pass(&self, ms: u64) {
        self.env.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// Waits until `holds`, but not for ever.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Behind) -> bool) {
        for _ in 0..500 {
            if holds(&self.behind()) {
                return;
            }
            self.pass(10).await;
        }
        panic!("{what} never happened");
    }

    /// Asks the manager.
    pub(super) async fn ask(&self, call: Call) -> Result<Reply, Error> {
        self.send(call).await.await.unwrap()
    }

    /// Asks the manager; the answer comes later.
    pub(super) async fn send(&self, call: Call) -> oneshot::Receiver<Result<Reply, Error>> {
        let (tell, told) = oneshot::channel();
        let answer = Box::new(move |reply| drop(tell.send(reply)));
        let sent = self.calls.send(Asked { call, answer }).await;
        assert!(sent.is_ok(), "the manager is there");
        told
    }

    /// Commits a command as an operator would.
    pub(super) async fn command(&self, command: Command) {
        self.handle.command(&command, None).await.unwrap();
    }

    /// A token's worker says hello for the first time; its name and session.
    pub(super) async fn join(&self, name: &str) -> (WorkerId, Epoch) {
        let hash = super::super::meeting::token_hash("secret");
        if self.behind().fleet.tokens.is_empty() {
            let ttl_ms = 1_000_000;
            self.command(Command::TokenCreate {
                hash,
                ttl_ms,
                role: crate::fleet::TokenRole::Worker,
            })
            .await;
        }
        let reply = self.ask(hello(name, 0, 0)).await.unwrap();
        let Reply::Welcome { worker, epoch, .. } = reply else {
            panic!("{reply:?}");
        };
        (worker, epoch)
    }

    /// A heartbeat; the lease that it is granted.
    pub(super) async fn beat(&self, (worker, epoch): (WorkerId, Epoch)) -> u64 {
        match self.ask(beat(worker, epoch)).await.unwrap() {
            Reply::Beat { lease_ms, .. } => lease_ms,
            other => panic!("{other:?}"),
        }
    }

    /// What the cluster believes of a worker.
    pub(super) fn believed(&self, worker: WorkerId) -> model::Status {
        self.behind().fleet.snapshot.workers[&worker].status
    }

    /// Stops everything.
    pub(super) async fn end(self) {
        self.tasks.stop().await;
    }
}

/// A hello with a token. The life of a disk follows from the name.
pub(super) fn hello(name: &str, worker: u64, epoch: u64) -> Call {
    let life = name
        .bytes()
        .fold(7, |life, byte| life * 31 + u64::from(byte));
    Call::Hello(Box::new(HelloCall {
        token: Some("secret".to_owned()),
        machine: Machine {
            name: name.to_owned(),
            address: format!("{name}.invalid:8200"),
            platform: "linux/amd64".to_owned(),
            capacity: Amounts {
                cpu_milli: 4_000,
                memory_bytes: 8 << 30,
            },
            ..Machine::default()
        },
        hello: Hello {
            identity: Identity {
                cluster: ClusterId(0),
                worker: WorkerId(worker),
                life: Incarnation(life),
            },
            epoch: Epoch(epoch),
            revision: 0,
            is_anew: epoch == 0,
            tasks: BTreeMap::new(),
            newest_report: 0,
        },
    }))
}

/// A heartbeat.
pub(super) fn beat(worker: WorkerId, epoch: Epoch) -> Call {
    Call::Beat {
        worker,
        number: 1,
        epoch,
        revision: 0,
        reports: 0,
    }
}

/// The loop.
async fn serve(
    mut queue: mpsc::Receiver<Request>,
    behind: Arc<Mutex<Behind>>,
    fleet: Feed,
    status: Arc<watch::Sender<Status>>,
    tasks: Tasks,
) {
    while let Some(request) = queue.recv().await {
        let mut behind = behind.lock().unwrap();
        // Whoever does not wait any more does not matter.
        match request {
            Request::Propose { command, reply, .. } => {
                let term = status.borrow().term;
                let result = behind.propose(command.op, term);
                let told = fleet.tell(Arc::new(behind.fleet.clone()));
                fleet.wake(told);
                status.send_modify(|status| status.applied_index.0 = behind.index);
                reply.send(result).ok();
            }
            Request::Read { reply, .. } => {
                behind.reads += 1;
                let stamp = Stamp {
                    revision: Revision(0),
                    applied_index: status.borrow().applied_index,
                    age_ms: None,
                };
                let answer = Ok((GetDone::default(), stamp));
                if !behind.is_cut_off {
                    reply.send(answer).ok();
                    continue;
                }
                let (tell, told) = oneshot::channel();
                behind.waiting.push(tell);
                tasks.spawn(async move {
                    if told.await.is_ok() {
                        reply.send(answer).ok();
                    }
                });
            }
            Request::Dispatch { to, reply, .. } => {
                let heard = to.and_then(|to| behind.heard.get(&to));
                let unreachable = || Error::new(Code::Unreachable, "it does not answer");
                let heard = heard.cloned().map(|ago_ms| Reply::Heard { ago_ms });
                reply.send(heard.ok_or_else(unreachable)).ok();
            }
            Request::Change { change, reply, .. } => {
                behind.changes.push(change);
                reply.send(Ok(NodeId(2))).ok();
            }
            Request::History { .. } | Request::Snapshot { .. } | Request::Stop { .. } => {}
        }
    }
}

impl Behind {
    fn propose(&mut self, op: Option<Op>, term: Term) -> Result<Outcome, Error> {
        if let Some(error) = self.failures.pop() {
            return Err(error);
        }
        let Some(Op::Fleet(command)) = op else {
            panic!("{op:?}");
        };
        let command: Command = serde_json::from_slice(&command.json).unwrap();
        self.index += 1;
        let at = At {
            index: self.index,
            term,
            time_ms: self.index + self.ahead_ms,
        };
        let done = match self.fleet.apply(&command, at) {
            Ok(done) => Done::Fleet(FleetDone {
                json: serde_json::to_vec(&done).unwrap().into(),
            }),
            Err(refused) => Done::Refused(Refused {
                why: refused.why as i32,
                message: refused.message,
                current: None,
            }),
        };
        self.commands.push(command);
        Ok(Outcome {
            revision: 0,
            index: self.index,
            replayed: false,
            done: Some(done),
        })
    }

    /// The majority is back: reads that waited are answered.
    pub(super) fn reach_majority(&mut self) {
        self.is_cut_off = false;
        for waiting in self.waiting.drain(..) {
            waiting.send(()).ok();
        }
    }
}
