//! A node's loop for tests of the door: one map, no consensus, and failures on demand.

use super::{Options, serve};
use crate::config::Limits;
use crate::error::{Code, Error};
use crate::fleet::Fleet;
use crate::fleet::apply::At;
use crate::fleet::feed::Feed;
use crate::fleet::meeting;
use crate::handle::{
    Condition, Handle, MemberChange, MemberStatus, Request, SnapshotInfo, Stamp, Status, WatchBatch,
};
use crate::metrics::Metrics;
use crate::rt::{Env, Tasks};
use crate::state::command::{
    Command, Delete, DeleteDone, Done, FleetCommand, FleetDone, Get, GetDone, KeyEvent, KeyValue,
    LeaseDone, Member, Nothing, Op, Outcome, Put, PutDone, Refusal, Refused, SessionDone, Step,
    StepDone, Txn, TxnDone, TxnStep,
};
use crate::types::{ClusterId, Epoch, Incarnation, Index, NodeId, Revision, Role, Term, WorkerId};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

/// How the loop treats the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Applies it, and says that the outcome is unknown.
    LoseAnswer,
    /// Applies it, forgets all sessions, and says that the outcome is unknown.
    LoseSession,
    /// Does not apply it: no leader.
    NoLeader,
    /// Does not apply it, and says that the outcome is unknown.
    LoseRequest,
}

/// The map and what surrounds it.
#[derive(Default)]
pub(crate) struct Fake {
    /// Records.
    pub(crate) kvs: BTreeMap<Bytes, KeyValue>,
    /// Everything that happened.
    pub(crate) history: Vec<KeyEvent>,
    /// Last entry.
    pub(crate) index: u64,
    /// Revision.
    pub(crate) revision: u64,
    /// History below is gone.
    pub(crate) compacted: u64,
    /// Last outcome of each session.
    pub(crate) sessions: BTreeMap<u64, (u64, Option<Outcome>)>,
    /// How the next writes are treated.
    pub(crate) moods: VecDeque<Mood>,
    /// Changes of membership asked for.
    pub(crate) changes: Vec<MemberChange>,
    /// Orchestration.
    pub(crate) fleet: Fleet,
}

/// A served fake.
pub(crate) struct World {
    /// The real world.
    pub(crate) env: Env,
    /// Tasks of door and loop.
    pub(crate) tasks: Tasks,
    /// Where the door is.
    pub(crate) address: String,
    /// The map.
    pub(crate) fake: Arc<Mutex<Fake>>,
    /// The picture.
    pub(crate) status: Arc<watch::Sender<Status>>,
    /// The fleet, as followers see it.
    pub(crate) fleet: Arc<Feed>,
    /// Where the key of secrets lies.
    _home: tempfile::TempDir,
}

/// A picture of a healthy leader. Its addresses lead nowhere: a client under test follows them, and whatever happens to listen on
/// this machine is not ours to write to.
pub(crate) fn status() -> Status {
    let member = |id: u64, role| MemberStatus {
        member: Member {
            id,
            name: format!("n{id}"),
            peer: format!("n{id}.invalid:7000"),
            http: format!("n{id}.invalid:8000"),
            incarnation: 7,
            replaces: 0,
            token: 0,
        },
        role,
        match_index: Some(Index(4)),
        replication_lag: Some(0),
        active: Some(true),
    };
    Status {
        cluster_id: ClusterId(0xabc),
        id: NodeId(1),
        name: "n1".to_owned(),
        incarnation: Incarnation(7),
        condition: Condition::Running,
        role: Role::Leader,
        term: Term(2),
        leader: NodeId(1),
        commit_index: Index(4),
        applied_index: Index(4),
        last_index: Index(4),
        first_index: Index(1),
        revision: Revision(0),
        compacted_revision: Revision(0),
        key_count: 0,
        members: vec![member(1, Role::Leader), member(2, Role::Learner)],
        read_only: false,
        elections: 1,
        state_hash: "00".to_owned(),
    }
}

impl World {
    /// A door with ordinary limits.
    pub(crate) async fn new() -> World {
        World::with(Limits::default()).await
    }

    /// A door with these limits.
    pub(crate) async fn with(limits: Limits) -> World {
        let env = crate::rt::real::env("test").unwrap();
        let tasks = Tasks::default();
        let (requests, queue) = mpsc::channel(64);
        let (status, picture) = watch::channel(status());
        let metrics = Metrics::new();
        let page = metrics.clone();
        let clock = env.clock.clone();
        let render = Arc::new(move || page.render());
        let (fleet, followed) = Feed::new();
        let fleet = Arc::new(fleet);
        let timeout = Duration::from_secs(5);
        let home = tempfile::tempdir().unwrap();
        let vault = crate::secrets::Vault::new(&env, home.path().to_owned());
        let handle = Handle::new(requests, picture, followed, clock, timeout, render);
        let handle = handle.with_vault(vault);
        let listener = env.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let fake = Arc::new(Mutex::new(Fake::default()));
        let status = Arc::new(status);
        // The leader the door names is the door itself.
        status.send_modify(|status| status.members[0].member.http.clone_from(&address));
        let loop_fleet = Arc::clone(&fleet);
        tasks.spawn(run(
            queue,
            Arc::clone(&fake),
            Arc::clone(&status),
            loop_fleet,
        ));
        let options = Options {
            name: "n1".to_owned(),
            limits,
            watch_progress: Duration::from_millis(100),
        };
        serve(&env, &tasks, listener, handle, metrics, options);
        World {
            env,
            tasks,
            address,
            fake,
            status,
            fleet,
            _home: home,
        }
    }

    /// Changes the fleet by hand, and tells followers.
    pub(crate) fn fleet(&self, change: impl FnOnce(&mut Fleet)) {
        let mut fake = self.fake.lock().unwrap();
        change(&mut fake.fleet);
        let told = self.fleet.tell(Arc::new(fake.fleet.clone()));
        self.fleet.wake(told);
    }

    /// Sends bytes on a connection of their own and gives all that comes back until the node closes it or is silent for long.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.env.net.connect(&self.address).await.unwrap();
        // The door may have closed already; what it said is what counts.
        stream.write_all(bytes).await.ok();
        let mut answer = Vec::new();
        let reading = async {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut part).await {
                answer.extend_from_slice(&part[..count]);
            }
        };
        self.env
            .clock
            .timeout(Duration::from_secs(3), reading)
            .await
            .ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request with a body; status and body of the answer.
    pub(crate) async fn ask(&self, method: &str, target: &str, body: &[u8]) -> (u16, String) {
        self.ask_with(method, target, "", body).await
    }

    /// One request with headers (each ended by CRLF) and a body; status and body of the answer.
    pub(crate) async fn ask_with(
        &self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
        );
        let answer = self.raw(&[head.as_bytes(), body].concat()).await;
        parse(&answer)
    }

    /// One request; status and JSON of the answer.
    pub(crate) async fn json(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> (u16, serde_json::Value) {
        let (status, text) = self.ask(method, target, body.as_bytes()).await;
        let value = serde_json::from_str(&text);
        (
            status,
            value.unwrap_or_else(|_| panic!("{method} {target}: {status} {text}")),
        )
    }

    /// Ends everything.
    pub(crate) async fn end(self) {
        self.tasks.stop().await;
    }
}

/// Status and body of an answer with a content-length.
pub(crate) fn parse(answer: &str) -> (u16, String) {
    let status = answer.get(9..12).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

/// Serves requests until the door is gone.
async fn run(
    mut queue: mpsc::Receiver<Request>,
    fake: Arc<Mutex<Fake>>,
    status: Arc<watch::Sender<Status>>,
    fleet: Arc<Feed>,
) {
    while let Some(request) = queue.recv().await {
        let mut fake = fake.lock().unwrap();
        // An asker that has given up does not matter to the loop.
        match request {
            Request::Propose { command, reply, .. } => {
                let answer = fake.propose(command);
                if fake.fleet != *fleet.fleet() {
                    let told = fleet.tell(Arc::new(fake.fleet.clone()));
                    fleet.wake(told);
                }
                reply.send(answer).ok();
                let revision = Revision(fake.revision);
                status.send_modify(|status| status.revision = revision);
            }
            Request::Read { query, reply, .. } => {
                let stamp = Stamp {
                    revision: Revision(fake.revision),
                    applied_index: Index(fake.index),
                    age_ms: None,
                };
                reply.send(Ok((fake.get(&query), stamp))).ok();
            }
            Request::History {
                from,
                key,
                range_end,
                reply,
            } => {
                reply.send(fake.watch(from.0, &key, &range_end)).ok();
            }
            Request::Change { change, reply, .. } => {
                let id = match &change {
                    MemberChange::Add { .. } => Ok(NodeId(9)),
                    MemberChange::Promote { id } | MemberChange::Remove { id } => Ok(*id),
                    MemberChange::Transfer { to } if to.0 == 4 => {
                        Err(Error::new(Code::Conflict, "4 has not caught up"))
                    }
                    MemberChange::Transfer { to } => Ok(*to),
                };
                fake.changes.push(change);
                reply.send(id).ok();
            }
            Request::Dispatch { call, reply, .. } => {
                reply.send(Ok(meet(&call))).ok();
            }
            Request::Snapshot { reply } => {
                let done = SnapshotInfo {
                    index: Index(4),
                    term: Term(2),
                    revision: Revision(3),
                    bytes: 100,
                    checksum: "00ff".to_owned(),
                    file: "4.snap".to_owned(),
                };
                reply.send(Ok(done)).ok();
            }
            Request::Stop { .. } => return,
        }
    }
}

/// True when `key` lies in the range.
fn inside(key: &Bytes, start: &Bytes, end: &Bytes) -> bool {
    match &end[..] {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

/// An answer to a worker that has the right form.
fn meet(call: &meeting::Call) -> meeting::Reply {
    match call {
        meeting::Call::Hello(hello) => meeting::Reply::Welcome {
            cluster: ClusterId(7),
            worker: WorkerId(1),
            epoch: Epoch(hello.hello.epoch.0 + 1),
            managers: vec!["n1.invalid:8000".to_owned()],
        },
        meeting::Call::Beat { number, epoch, .. } => meeting::Reply::Beat {
            number: *number,
            epoch: *epoch,
            revision: 4,
            lease_ms: 0,
            pace_ms: None,
        },
        meeting::Call::Report(reports) => meeting::Reply::Acknowledged {
            life: reports.life,
            number: reports.reports.last().map_or(0, |report| report.number),
        },
        meeting::Call::Silences => meeting::Reply::Silences {
            workers: vec![meeting::Silence {
                worker: WorkerId(1),
                ago_ms: 4_200,
                is_suspect: true,
            }],
        },
        meeting::Call::Heard { .. } => meeting::Reply::Over {
            reason: "nobody was heard here".to_owned(),
        },
    }
}

impl Fake {
    fn propose(&mut self, command: Command) -> Result<Outcome, Error> {
        let mood = self.moods.pop_front();
        match mood {
            Some(Mood::NoLeader) => return Err(Error::new(Code::NoLeader, "no leader")),
            Some(Mood::LoseRequest) => return Err(Error::new(Code::Timeout, "lost").unknown()),
            Some(Mood::LoseAnswer | Mood::LoseSession) | None => {}
        }
        let outcome = self.apply_once(command);
        if mood == Some(Mood::LoseSession) {
            self.sessions.clear();
        }
        match mood {
            Some(_) => Err(Error::new(Code::Timeout, "answer lost").unknown()),
            None => Ok(outcome),
        }
    }

    fn apply_once(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let op = command.op.unwrap();
        if command.session == 0 {
            return self.apply(op);
        }
        let refuse = |why, fake: &Fake| fake.outcome(refused(why, None));
        match self.sessions.get(&command.session) {
            None => return refuse(Refusal::SessionUnknown, self),
            Some((seq, _)) if *seq > command.seq => return refuse(Refusal::SessionStale, self),
            Some((seq, Some(kept))) if *seq == command.seq => {
                return Outcome {
                    replayed: true,
                    ..kept.clone()
                };
            }
            Some(_) => {}
        }
        let outcome = self.apply(op);
        let kept = (command.seq, Some(outcome.clone()));
        self.sessions.insert(command.session, kept);
        outcome
    }

    fn outcome(&self, done: Done) -> Outcome {
        Outcome {
            revision: self.revision,
            index: self.index,
            replayed: false,
            done: Some(done),
        }
    }

    fn apply(&mut self, op: Op) -> Outcome {
        let done = match op {
            Op::Put(put) => match self.check(&put.key, put.expect) {
                Some(refused) => refused,
                None => {
                    self.revision += 1;
                    Done::Put(self.put(put))
                }
            },
            Op::Delete(delete) => match self.check(&delete.key, delete.expect) {
                Some(refused) => refused,
                None => {
                    self.revision += 1;
                    Done::Delete(self.delete(delete))
                }
            },
            Op::Txn(txn) => self.txn(txn),
            Op::LeaseGrant(grant) => Done::Lease(LeaseDone {
                id: self.index,
                ttl_ms: grant.ttl_ms,
            }),
            Op::LeaseKeepAlive(keep) if keep.id == 404 => refused(Refusal::LeaseNotFound, None),
            Op::LeaseKeepAlive(keep) => Done::Lease(LeaseDone {
                id: keep.id,
                ttl_ms: 5,
            }),
            Op::SessionOpen(_) => {
                self.sessions.insert(self.index, (0, None));
                Done::Session(SessionDone { id: self.index })
            }
            Op::SessionClose(close) => {
                self.sessions.remove(&close.id);
                Done::Nothing(Nothing {})
            }
            Op::Compact(compact) => {
                self.compacted = compact.revision;
                Done::Nothing(Nothing {})
            }
            Op::Fleet(command) => self.command(&command),
            _ => Done::Nothing(Nothing {}),
        };
        self.outcome(done)
    }

    fn command(&mut self, command: &FleetCommand) -> Done {
        let at = At {
            index: self.index,
            term: Term(2),
            time_ms: 1_000,
        };
        let command = serde_json::from_slice(&command.json).unwrap();
        match self.fleet.apply(&command, at) {
            Ok(done) => Done::Fleet(FleetDone {
                json: serde_json::to_vec(&done).unwrap().into(),
            }),
            Err(refused) => Done::Refused(Refused {
                why: refused.why as i32,
                message: refused.message,
                current: None,
            }),
        }
    }

    fn check(&self, key: &Bytes, expect: Option<crate::state::command::Expect>) -> Option<Done> {
        let expect = expect?;
        let current = self.kvs.get(key);
        let version = current.map_or(0, |kv| kv.version);
        let fails = expect.absent && current.is_some()
            || expect.version.is_some_and(|wanted| wanted != version);
        fails.then(|| refused(Refusal::Precondition, current.cloned()))
    }

    fn put(&mut self, put: Put) -> PutDone {
        let old = self.kvs.get(&put.key).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            create_revision: old
                .as_ref()
                .map_or(self.revision, |old| old.create_revision),
            mod_revision: self.revision,
            lease: put.lease,
        };
        self.history.push(KeyEvent {
            deleted: false,
            kv: kv.clone(),
            prev_revision: old.as_ref().map_or(0, |old| old.mod_revision),
            time_ms: 1,
        });
        self.kvs.insert(put.key, kv.clone());
        PutDone {
            version: kv.version,
            create_revision: kv.create_revision,
            prev: old.filter(|_| put.prev),
        }
    }

    fn delete(&mut self, delete: Delete) -> DeleteDone {
        let keys: Vec<Bytes> = self.kvs.keys().cloned().collect();
        let mut prev = Vec::new();
        for key in keys {
            if inside(&key, &delete.key, &delete.range_end) {
                let old = self.kvs.remove(&key).unwrap();
                self.history.push(KeyEvent {
                    deleted: true,
                    kv: KeyValue {
                        key,
                        mod_revision: self.revision,
                        ..KeyValue::default()
                    },
                    prev_revision: old.mod_revision,
                    time_ms: 1,
                });
                prev.push(old);
            }
        }
        DeleteDone {
            deleted: prev.len() as u64,
            prev: if delete.prev { prev } else { Vec::new() },
        }
    }

    fn txn(&mut self, txn: Txn) -> Done {
        // Enough for the door: a comparison holds when the key's version is the number.
        let succeeded = txn.compare.iter().all(|compare| {
            let version = self.kvs.get(&compare.key).map_or(0, |kv| kv.version);
            version == compare.number
        });
        let steps = if succeeded { txn.success } else { txn.failure };
        self.revision += 1;
        let results = steps
            .into_iter()
            .map(|op| {
                let step = match op.step.unwrap() {
                    TxnStep::Put(put) => Step::Put(self.put(put)),
                    TxnStep::Delete(delete) => Step::Delete(self.delete(delete)),
                    TxnStep::Get(get) => Step::Get(self.get(&get)),
                };
                StepDone { step: Some(step) }
            })
            .collect();
        Done::Txn(TxnDone { succeeded, results })
    }

    fn get(&self, query: &Get) -> GetDone {
        let found: Vec<KeyValue> = self
            .kvs
            .values()
            .filter(|kv| inside(&kv.key, &query.key, &query.range_end))
            .cloned()
            .collect();
        let count = found.len() as u64;
        let limit = usize::try_from(query.limit).unwrap();
        GetDone {
            more: found.len() > limit && !query.count_only,
            kvs: found
                .into_iter()
                .take(if query.count_only { 0 } else { limit })
                .collect(),
            count,
        }
    }

    fn watch(&self, from: u64, key: &Bytes, range_end: &Bytes) -> Result<WatchBatch, Error> {
        if from <= self.compacted {
            return Err(Error::new(Code::Compacted, "compacted"));
        }
        let events = self
            .history
            .iter()
            .filter(|event| event.kv.mod_revision >= from)
            .filter(|event| inside(&event.kv.key, key, range_end))
            .cloned()
            .collect();
        Ok(WatchBatch {
            events,
            through: Revision(self.revision),
        })
    }
}

/// A refusal.
fn refused(why: Refusal, current: Option<KeyValue>) -> Done {
    Done::Refused(Refused {
        why: why as i32,
        message: format!("refused: {why:?}"),
        current,
    })
}
