//! The link: a worker's talk with managers, over HTTP and JSON (`fleet::meeting`).
//!
//! ```text
//!   connect -> Connected -> hello -> welcome -> session: heartbeats and reports on one connection,
//!      ^                                                 the question for assignments on another
//!      +---- Disconnected <- over, refused, or nobody answered for `worker_patience`
//! ```
//!
//! A session belongs to the cluster and not to a manager: when one is silent or cannot help, the next one gets the same heartbeats and
//! reports, without another hello. Only when all have been silent for a while, or a manager says that the session is over, does the
//! worker say hello again. So an election, or a manager that goes away, costs the cluster no entry of its log.
//!
//! A worker that was removed hears so at its hello: it ends its tasks, and asks again so seldom that it costs nobody anything, for the
//! case that its cluster has been restored to an older state.
//!
//! Each side of a session goes round the managers by itself, with pauses that double and are drawn by chance. Nothing here decides
//! anything: what is sent is the core's ([`Outbox`]), and what comes back is the core's input ([`News`]).

use super::disk::Disk;
use super::exchange::{Hello, Input};
use super::managers::{Managers, Pauses};
use super::outbox::{Beat, Due, Outbox};
use super::report::Report;
use crate::client::Raw;
use crate::client::connection::{Connection, Outgoing};
use crate::error::{Code, Error};
use crate::fleet::command::{Machine, WorkerReports};
use crate::fleet::meeting::{AssignmentsAnswer, Call, HelloCall, Reply};
use crate::knobs::Knobs;
use crate::rt::{Clock, Env, Mono, Net, Tasks};
use crate::types::{Epoch, Incarnation, WorkerId};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Where a hello goes.
const HELLO: &str = "/v1/workers/hello";
/// Where heartbeats go.
const BEAT: &str = "/v1/workers/beat";
/// Where reports go.
const REPORT: &str = "/v1/workers/report";

/// Reasons without a session that are told between two sessions at most.
const REASONS_MAX: usize = 16;

/// Pauses before a hello is said again to managers that have too much to do.
const BUSY_PAUSES: u32 = 2;
/// Pauses between two hellos of a worker that was removed. They double up to the longest.
const REMOVED_PAUSES: u32 = 16;

/// What the link tells the worker's loop.
#[derive(Debug)]
pub(super) enum News {
    /// A manager takes connections.
    Connected {
        /// Which.
        manager: String,
    },
    /// The acquaintance is over.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// Something for the core.
    Input(Input),
}

/// Why a call came to nothing.
#[derive(Debug)]
enum Failure {
    /// Another manager, or the same one later, may help.
    Elsewhere(String),
    /// The managers have too much to do just now.
    Busy(String),
    /// The session is over, or was never begun.
    Over(String),
    /// The cluster has removed this worker.
    Removed(String),
    /// The worker's loop has gone.
    Gone,
}

/// A session as the link knows it.
struct Session {
    /// The worker's name in the cluster.
    worker: WorkerId,
    /// The session.
    epoch: Epoch,
    /// Revision of the assignments that the worker has in it.
    revision: u64,
    /// Life of the worker's disk.
    life: Incarnation,
    /// The newest revision that a heartbeat's answer told of.
    told: watch::Sender<u64>,
}

impl Session {
    /// A heartbeat's answer told of `revision`.
    fn hear(&self, revision: u64) {
        self.told.send_if_modified(|told| {
            let is_news = revision > *told;
            *told = (*told).max(revision);
            is_news
        });
    }
}

/// The link.
pub(super) struct Link {
    /// For connections.
    net: Net,
    /// For time-outs and pauses.
    clock: Clock,
    /// Where connections run.
    tasks: Tasks,
    /// Where managers are remembered.
    disk: Disk,
    /// What the loop has for managers.
    outbox: Arc<Outbox>,
    /// What the loop is told.
    news: mpsc::Sender<News>,
    /// What the worker is.
    machine: Machine,
    /// The token that it shows.
    token: Option<String>,
    /// Where managers are.
    managers: Mutex<Managers>,
    /// Pauses of calls, and of the question for assignments.
    pauses: [Mutex<Pauses>; 2],
    /// Longest time for a connection and for an answer.
    call_timeout: Duration,
    /// Between two heartbeats, if the leader needs them more often than they come by themselves.
    pace: Mutex<Option<Duration>>,
    /// Longest time a question for assignments is held.
    poll_wait: Duration,
    /// Time within which an answer without news was not waited for.
    haste: Duration,
    /// Time without an answer after which a session is given up.
    patience: Duration,
    /// Reports in a call.
    report_len_max: usize,
}

/// A connection to a manager, and the manager.
struct Line {
    /// `host:port`.
    manager: String,
    /// The connection.
    connection: Connection,
}

/// One of the two sides of a session: its place in the round of managers, and its connection.
struct Side {
    /// Which pauses it takes.
    number: usize,
    /// Its place in the round of managers.
    turn: u64,
    /// Its connection, while it has one.
    line: Option<Line>,
    /// Whether there was a welcome since this was looked at last.
    is_welcome: bool,
}

/// What a link needs beside the world.
pub(super) struct Plan {
    /// Where managers are remembered.
    pub(super) disk: Disk,
    /// What the loop has for managers.
    pub(super) outbox: Arc<Outbox>,
    /// What the loop is told.
    pub(super) news: mpsc::Sender<News>,
    /// What the worker is.
    pub(super) machine: Machine,
    /// The token that it shows.
    pub(super) token: Option<String>,
    /// Managers of its configuration, and those remembered.
    pub(super) managers: Managers,
}

impl Link {
    /// A link in the world `env`.
    pub(super) fn new(env: &Env, tasks: &Tasks, knobs: &Knobs, plan: Plan) -> Self {
        let pauses = |name| {
            let (min, max) = (knobs.worker_retry_min, knobs.worker_retry_max);
            Mutex::new(Pauses::new(min, max, env.rngs.stream(name)))
        };
        Link {
            net: env.net.clone(),
            clock: env.clock.clone(),
            tasks: tasks.clone(),
            disk: plan.disk,
            outbox: plan.outbox,
            news: plan.news,
            machine: plan.machine,
            token: plan.token,
            managers: Mutex::new(plan.managers),
            pauses: [pauses("worker.calls"), pauses("worker.polls")],
            call_timeout: knobs.worker_call_timeout,
            pace: Mutex::new(None),
            poll_wait: knobs.worker_poll_wait,
            haste: knobs.worker_retry_min,
            patience: knobs.worker_patience,
            report_len_max: knobs.worker_report_len_max,
        }
    }

    /// Goes from acquaintance to acquaintance until the worker's loop is gone.
    pub(super) async fn run(self) {
        let turn = lock(&self.pauses[0]).any(); // Not all workers begin with the same manager.
        let mut calls = Side::new(0, turn);
        let mut told = BTreeSet::new();
        loop {
            let failure = self.meet(&mut calls).await;
            let is_busy = matches!(failure, Failure::Busy(_));
            let (reason, moves_on, pauses) = match failure {
                Failure::Elsewhere(reason) => (reason, true, 1),
                // All managers ask the same leader: it is given time, not another way to be asked.
                Failure::Busy(reason) => (reason, false, BUSY_PAUSES),
                Failure::Over(reason) => (reason, false, 1),
                Failure::Removed(reason) => (reason, true, REMOVED_PAUSES),
                Failure::Gone => return,
            };
            if std::mem::take(&mut calls.is_welcome) {
                told.clear();
            }
            if told.len() < REASONS_MAX && told.insert(reason.clone()) {
                // Each once until the next session: the same comes again with each try.
                let (worker, manager) = (&self.machine.name, self.manager(&calls));
                match is_busy {
                    true => tracing::info!(worker, manager, reason, "waits for its turn"),
                    false => tracing::warn!(worker, manager, reason, "no session with the cluster"),
                }
            }
            if self.tell(News::Disconnected { reason }).await.is_err() {
                return;
            }
            calls.leave(moves_on);
            for _ in 0..pauses {
                self.pause(&calls).await;
            }
        }
    }

    /// One acquaintance: hello, and the session that follows until it ends.
    async fn meet(&self, calls: &mut Side) -> Failure {
        let session = match self.greet(calls).await {
            Ok(session) => session,
            Err(failure) => return failure,
        };
        lock(&self.pauses[0]).reset();
        calls.is_welcome = true;
        let mut polls = Side::new(1, calls.turn);
        tokio::select! {
            biased; // What ends first is the reason; at once, the calls know more.
            failure = self.talk(calls, &session) => failure,
            failure = self.ask(&mut polls, &session) => failure,
        }
    }

    /// Says hello to the manager whose turn it is.
    async fn greet(&self, calls: &mut Side) -> Result<Session, Failure> {
        let manager = self.line(calls).await?.manager.clone();
        self.outbox.begin();
        self.tell(News::Connected { manager }).await?;
        // The core answers at once, unless its disk does not take what the hello says.
        let hello = self
            .clock
            .timeout(self.call_timeout, self.outbox.next_hello());
        let hello: Box<Hello> = hello.await.map_err(|_| {
            Failure::Elsewhere("this worker's own state cannot be written".to_owned())
        })?;
        let (life, epoch, revision) = (hello.identity.life, hello.epoch, hello.revision);
        let call = Call::Hello(Box::new(HelloCall {
            token: self.token.clone(),
            machine: self.machine.clone(),
            hello: *hello,
        }));
        let (cluster, worker, welcomed, managers) = match self.call(calls, HELLO, &call).await? {
            Reply::Welcome {
                cluster,
                worker,
                epoch,
                managers,
            } => (cluster, worker, epoch, managers),
            Reply::Removed { worker, reason } => {
                *lock(&self.pace) = None; // Nobody waits for it.
                self.tell(News::Input(Input::Removed { worker })).await?;
                return Err(Failure::Removed(reason));
            }
            other => return Err(unexpected(&other)),
        };
        self.learn(&managers).await;
        let revision = if welcomed == epoch { revision } else { 0 };
        let epoch = welcomed;
        self.tell(News::Input(Input::Welcome {
            cluster,
            worker,
            epoch,
        }))
        .await?;
        Ok(Session {
            worker,
            epoch,
            revision,
            life,
            told: watch::Sender::new(0),
        })
    }

    /// Sends heartbeats and reports as they come.
    async fn talk(&self, calls: &mut Side, session: &Session) -> Failure {
        let mut heard = self.clock.now();
        loop {
            let failure = match self.outbox.next_due(self.report_len_max).await {
                Due::Refused(why) => return Failure::Over(why),
                Due::Beat(beat) => self.beat(calls, session, beat).await,
                Due::Reports(reports) => self.report(calls, session, reports).await,
            };
            match failure {
                Ok(()) => {
                    heard = self.clock.now();
                    lock(&self.pauses[calls.number]).reset();
                }
                Err(Failure::Elsewhere(reason) | Failure::Busy(reason)) => {
                    if self.clock.now().since(heard) >= self.patience {
                        return Failure::Elsewhere(reason);
                    }
                    tracing::debug!(manager = self.manager(calls), reason, "next manager");
                    calls.leave(true);
                    self.pause(calls).await;
                }
                Err(failure) => return failure,
            }
        }
    }

    /// Sends a heartbeat.
    async fn beat(&self, calls: &mut Side, session: &Session, beat: Beat) -> Result<(), Failure> {
        let call = Call::Beat {
            worker: session.worker,
            number: beat.number,
            epoch: beat.epoch,
            revision: beat.revision,
            reports: beat.reports,
        };
        match self.call(calls, BEAT, &call).await? {
            Reply::Beat {
                number,
                epoch,
                revision,
                lease_ms,
                pace_ms,
            } => {
                session.hear(revision);
                *lock(&self.pace) = pace_ms.map(Duration::from_millis);
                let answered = Input::Answered {
                    heartbeat: number,
                    epoch,
                    revision,
                    lease_ms,
                    pace_ms,
                };
                self.tell(News::Input(answered)).await
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Sends reports.
    async fn report(
        &self,
        calls: &mut Side,
        session: &Session,
        reports: Vec<Report>,
    ) -> Result<(), Failure> {
        let oldest = reports.first().map_or(0, |report| report.number);
        let call = Call::Report(WorkerReports {
            worker: session.worker,
            epoch: session.epoch,
            life: session.life,
            reports,
        });
        match self.call(calls, REPORT, &call).await? {
            Reply::Acknowledged { life, number } if life == session.life && number >= oldest => {
                self.outbox.acknowledged(number);
                let acknowledged = Input::Acknowledged { life, number };
                self.tell(News::Input(acknowledged)).await
            }
            Reply::Acknowledged { number, .. } => Err(Failure::Elsewhere(format!(
                "reports from {oldest} on were sent and {number} was acknowledged"
            ))),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for assignments again and again. What it hears of managers is remembered.
    async fn ask(&self, polls: &mut Side, session: &Session) -> Failure {
        let mut revision = session.revision;
        loop {
            let asked = self.clock.now();
            let asking = async {
                tokio::select! {
                    biased; // An answer that comes with the news is the news.
                    answer = self.poll(polls, session, revision) => answer,
                    () = self.overtaken(session, revision) => Err(Failure::Elsewhere(
                        "heartbeats tell of newer assignments than this manager".to_owned(),
                    )),
                }
            };
            let answer = match asking.await {
                Ok(answer) => answer,
                Err(Failure::Elsewhere(reason) | Failure::Busy(reason)) => {
                    tracing::debug!(manager = self.manager(polls), reason, "no assignments");
                    polls.leave(true);
                    self.pause(polls).await;
                    continue;
                }
                Err(failure) => return failure,
            };
            self.learn(&answer.managers).await;
            let news = answer
                .assignments
                .filter(|given| given.epoch == session.epoch && given.revision > revision);
            if let Some(given) = news {
                revision = given.revision;
                let assigned = News::Input(Input::Assigned(given));
                if let Err(failure) = self.tell(assigned).await {
                    return failure;
                }
                lock(&self.pauses[polls.number]).reset();
            } else if self.is_hasty(asked) {
                // Nothing new, and not even waited for: such a manager is not asked in a tight loop.
                self.pause(polls).await;
            } else {
                lock(&self.pauses[polls.number]).reset();
            }
        }
    }

    /// Ends when heartbeats have told of assignments newer than `revision` for a while: the manager that was asked for them does not
    /// know, or is dead, and its silence alone would be noticed only when the whole wait is over (deploy-and-scale, seed 153).
    async fn overtaken(&self, session: &Session, revision: u64) {
        let mut told = session.told.subscribe();
        if told.wait_for(|told| *told > revision).await.is_err() {
            return std::future::pending().await;
        }
        // One that knows them has answered by then, even over a slow line.
        self.clock.sleep(self.call_longest()).await;
    }

    /// Whether an answer to what was asked at `asked` came before any wait could have ended.
    fn is_hasty(&self, asked: Mono) -> bool {
        self.clock.now().since(asked) < self.haste
    }

    /// Asks once for assignments newer than `revision`.
    async fn poll(
        &self,
        polls: &mut Side,
        session: &Session,
        revision: u64,
    ) -> Result<AssignmentsAnswer, Failure> {
        let (worker, epoch) = (session.worker, session.epoch);
        let wait_ms = self.poll_wait.as_millis();
        let target = format!(
            "/v1/workers/{worker}/assignments?epoch={epoch}&revision={revision}&wait_ms={wait_ms}"
        );
        let limit = self.poll_wait + self.call_timeout;
        self.exchange(polls, Method::GET, &target, Bytes::new(), limit)
            .await
    }

    /// Makes a call.
    async fn call(&self, side: &mut Side, target: &str, call: &Call) -> Result<Reply, Failure> {
        let body = serde_json::to_vec(call).expect("calls are plain data with text keys");
        // A manager gives up a little before the worker does, and says what it knows.
        let limit = match call {
            Call::Hello(_) => self.call_timeout, // It may have to wait in line.
            _ => self.call_longest(),
        };
        let node_limit = limit * 9 / 10;
        let target = format!("{target}?timeout_ms={}", node_limit.as_millis());
        let reply = self.exchange(side, Method::POST, &target, body.into(), limit);
        match reply.await? {
            Reply::Over { reason } => Err(Failure::Over(reason)),
            reply => Ok(reply),
        }
    }

    /// Sends a request and reads its answer. A connection that fails, or is silent, is not used again.
    async fn exchange<T: DeserializeOwned>(
        &self,
        side: &mut Side,
        method: Method,
        target: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, Failure> {
        self.line(side).await?;
        // Taken out: whatever ends this wait, a request under way must not be followed by another on the same connection.
        let Some(mut line) = side.line.take() else {
            return Err(Failure::Elsewhere("there is no connection".to_owned()));
        };
        let request = request(&line.manager, method, target, body)?;
        let answered = self
            .clock
            .timeout(limit, line.connection.exchange(request))
            .await;
        let raw = match answered {
            Ok(Ok(raw)) => raw,
            Ok(Err(failure)) => return Err(Failure::Elsewhere(failure.reason)),
            Err(elapsed) => return Err(Failure::Elsewhere(elapsed.to_string())),
        };
        side.line = Some(line);
        if !raw.status.is_success() {
            return Err(refused(target, &raw));
        }
        serde_json::from_slice(&raw.body).map_err(|error| {
            Failure::Elsewhere(format!(
                "the answer of {target} makes no sense to this worker: {error}"
            ))
        })
    }

    /// The side's connection, opened if need be.
    async fn line<'a>(&self, side: &'a mut Side) -> Result<&'a Line, Failure> {
        let line = match side.line.take().filter(|line| line.connection.is_usable()) {
            Some(line) => line,
            None => {
                let manager = self.manager(side);
                let opening = Connection::open(&self.net, &self.tasks, &manager);
                let opened = self.clock.timeout(self.call_longest(), opening).await;
                let connection = match opened {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(reason)) => {
                        return Err(Failure::Elsewhere(format!("{manager}: {reason}")));
                    }
                    Err(elapsed) => {
                        return Err(Failure::Elsewhere(format!("{manager}: {elapsed}")));
                    }
                };
                Line {
                    manager,
                    connection,
                }
            }
        };
        Ok(side.line.insert(line))
    }

    /// The manager whose turn it is.
    fn manager(&self, side: &Side) -> String {
        lock(&self.managers).at(side.turn)
    }

    /// The cluster says who its managers are. It is remembered for the next life of this process.
    async fn learn(&self, managers: &[String]) {
        let told = {
            let mut known = lock(&self.managers);
            known.tell(managers).then(|| known.told().to_vec())
        };
        if let Some(told) = told
            && let Err(error) = self.disk.remember(&told).await
        {
            tracing::warn!(%error, "managers are not remembered");
        }
    }

    /// Waits before the side's next try.
    async fn pause(&self, side: &Side) {
        // A leader that hears of its workers often misses one soon.
        let longest = lock(&self.pace).unwrap_or(Duration::MAX);
        let pause = lock(&self.pauses[side.number]).draw(longest);
        self.clock.sleep(pause).await;
    }

    /// Longest time for a connection, and for an answer within a session. After a manager that is dead another one must still hear of
    /// this worker in time (`Knobs::worker_pace`).
    fn call_longest(&self) -> Duration {
        let pace = *lock(&self.pace);
        pace.map_or(self.call_timeout, |pace| self.call_timeout.min(2 * pace))
    }

    /// Tells the worker's loop.
    async fn tell(&self, news: News) -> Result<(), Failure> {
        self.news.send(news).await.map_err(|_| Failure::Gone)
    }
}

impl Side {
    /// A side at its place in the round.
    fn new(number: usize, turn: u64) -> Self {
        Side {
            number,
            turn,
            line: None,
            is_welcome: false,
        }
    }

    /// Gives the connection up, and the manager if it `moves_on`.
    fn leave(&mut self, moves_on: bool) {
        self.line = None;
        self.turn = self.turn.wrapping_add(u64::from(moves_on));
    }
}

/// A request to a manager.
fn request(
    manager: &str,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<http::Request<Outgoing>, Failure> {
    http::Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, manager)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Outgoing::new(body))
        .map_err(|error| Failure::Elsewhere(format!("{manager} cannot be asked: {error}")))
}

/// An answer that is not a success. A conflict that waiting does not mend is about the session.
fn refused(target: &str, raw: &Raw) -> Failure {
    match serde_json::from_slice::<Error>(&raw.body) {
        Ok(error) if error.code == Code::Conflict && !error.retryable => {
            Failure::Over(error.to_string())
        }
        Ok(error) if error.code == Code::Overloaded => Failure::Busy(error.to_string()),
        Ok(error) => Failure::Elsewhere(error.to_string()),
        Err(_) => Failure::Elsewhere(format!("{target} was answered with {}", raw.status)),
    }
}

/// An answer to another question.
fn unexpected(reply: &Reply) -> Failure {
    Failure::Elsewhere(format!("an answer to another question: {reply:?}"))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("nobody panics while holding it")
}
