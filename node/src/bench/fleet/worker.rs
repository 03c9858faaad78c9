//! A light worker: it says that it runs what it is given, and that it has stopped what it is told to.
//!
//! Any trouble ends its session: it turns to the next manager and says hello there. A hello of a worker that the cluster knows as it
//! is costs no entry of the log, so that is no dearer than what a real worker does, and simpler.

use super::crew::Crew;
use super::line::{Dialer, Failure, Line};
use crate::error::{Code, Error};
use crate::fleet::command::{Machine, WorkerReports};
use crate::fleet::meeting::{AssignmentsAnswer, Call, HelloCall, Reply};
use crate::rt::{Env, Mono};
use crate::service::spec::Amounts;
use crate::service::{Desired, State};
use crate::types::{ClusterId, Epoch, Incarnation, TaskId, WorkerId};
use crate::worker::Report;
use crate::worker::exchange::{Assignments, Hello, Identity};
use crate::worker::words::Observation;
use http::Method;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Longest time that a manager holds the question for assignments, milliseconds.
const WAIT_MS: u64 = 20_000;
/// Reports in one call at most.
const REPORTS_MAX: usize = 256;
/// Shortest pause after trouble; it is drawn from here to twice that.
const PAUSE_MS: u64 = 100;
/// What each has to give: room for any number of tasks that ask for nothing, and for some that do.
const CAPACITY: Amounts = Amounts {
    cpu_milli: 64_000,
    memory_bytes: 256 << 30,
};
/// The label by which services find the workers of a bench.
pub(super) const LABEL: &str = "bench";

/// What a light worker has.
#[derive(Default)]
struct Held {
    /// Its tasks.
    tasks: BTreeMap<TaskId, State>,
    /// Reports that were not acknowledged, by number.
    waiting: BTreeMap<u64, Report>,
    /// Number of the newest report.
    newest: u64,
    /// Revision of its assignments.
    revision: u64,
}

/// A light worker.
pub(super) struct Worker {
    /// What all share.
    crew: Arc<Crew>,
    /// What its connections are made of.
    dialer: Dialer,
    /// Who it is.
    identity: Identity,
    /// Its session.
    epoch: Epoch,
    /// Its name.
    name: String,
    /// Which manager it turns to.
    turn: usize,
    /// Chance.
    rng: ChaCha8Rng,
    /// What it has.
    held: Mutex<Held>,
    /// Rung when there are reports.
    told: Notify,
}

/// A session.
struct Session {
    /// The worker's name in the cluster.
    worker: WorkerId,
    /// Its number.
    epoch: Epoch,
}

impl Worker {
    /// The `number`th worker of `crew`.
    pub(super) fn new(number: usize, crew: Arc<Crew>, dialer: Dialer, env: &Env) -> Self {
        let mut rng = env.rngs.stream(&format!("bench worker {number}"));
        let life = Incarnation(rng.next_u64());
        let name = format!("{}-{number}", crew.tag);
        Worker {
            crew,
            dialer,
            identity: Identity {
                life,
                ..Identity::default()
            },
            epoch: Epoch(0),
            name,
            turn: number,
            rng,
            held: Mutex::default(),
            told: Notify::new(),
        }
    }

    /// Works until its task is stopped.
    pub(super) async fn run(mut self) {
        let began = self.dialer.clock.now();
        let mut is_known = false;
        loop {
            let mut calls = self.line();
            let failure = match self.hello(&mut calls).await {
                Ok(session) => {
                    if !std::mem::replace(&mut is_known, true) {
                        self.crew.joined(self.dialer.clock.now().since(began));
                    }
                    let beat_from = self.draw(BEAT);
                    let mut polls = self.line();
                    tokio::select! {
                        biased; // What ends first is the reason.
                        failure = self.talk(&mut calls, &session, beat_from) => failure,
                        failure = self.ask(&mut polls, &session) => failure,
                    }
                }
                Err(failure) => failure,
            };
            self.crew.trouble(&failure);
            self.turn += 1;
            let pause = Duration::from_millis(PAUSE_MS);
            let pause = pause + self.draw(pause);
            self.dialer.clock.sleep(pause).await;
        }
    }

    /// A connection to the manager whose turn it is.
    fn line(&self) -> Line {
        let managers = &self.crew.managers;
        let manager = managers[self.turn % managers.len()].clone();
        Line::new(self.dialer.clone(), manager)
    }

    /// Some of `span`.
    fn draw(&mut self, span: Duration) -> Duration {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.rng.next_u64() % millis.max(1))
    }

    async fn hello(&mut self, calls: &mut Line) -> Result<Session, Failure> {
        let call = Call::Hello(Box::new(HelloCall {
            token: Some(self.crew.token.clone()),
            machine: self.machine(),
            hello: self.says(),
        }));
        let (cluster, worker, epoch) = match self.call(calls, "hello", &call).await? {
            Reply::Welcome {
                cluster,
                worker,
                epoch,
                ..
            } => (cluster, worker, epoch),
            other => return Err(unexpected(&other)),
        };
        if epoch != self.epoch {
            self.lock().revision = 0;
        }
        self.epoch = epoch;
        (self.identity.cluster, self.identity.worker) = (cluster, worker);
        Ok(Session { worker, epoch })
    }

    fn machine(&self) -> Machine {
        Machine {
            name: self.name.clone(),
            address: format!("{}.invalid:1", self.name),
            platform: "linux/amd64".to_owned(),
            containers: false,
            public_key: None,
            capacity: CAPACITY,
            labels: BTreeMap::from([(LABEL.to_owned(), self.crew.tag.clone())]),
        }
    }

    fn says(&self) -> Hello {
        let held = self.lock();
        let tasks = held.tasks.iter();
        Hello {
            identity: self.identity,
            epoch: self.epoch,
            revision: held.revision,
            is_anew: self.identity.cluster == ClusterId(0),
            tasks: tasks.map(|(id, state)| (*id, seen(*state))).collect(),
            newest_report: held.newest,
        }
    }

    /// Heartbeats and reports as they come.
    async fn talk(&self, calls: &mut Line, session: &Session, beat_from: Duration) -> Failure {
        let clock = &self.dialer.clock;
        let mut due = clock.now().plus(beat_from);
        let mut number = 0;
        loop {
            let is_beat = tokio::select! {
                biased; // A heartbeat that is due goes before reports, which may come without end.
                () = clock.sleep_until(due) => true,
                () = self.reports() => false,
            };
            let sent = match is_beat {
                true => {
                    number += 1;
                    let sent = self.beat(calls, session, number).await;
                    let pace = sent.as_ref().map_or(BEAT, |pace| *pace);
                    due = later(due, pace, clock.now());
                    sent.map(drop)
                }
                false => self.report(calls, session).await,
            };
            if let Err(failure) = sent {
                return failure;
            }
        }
    }

    /// A heartbeat; how long until the next.
    async fn beat(
        &self,
        calls: &mut Line,
        session: &Session,
        number: u64,
    ) -> Result<Duration, Failure> {
        let clock = &self.dialer.clock;
        let began = clock.now();
        let (revision, reports) = {
            let held = self.lock();
            (held.revision, held.newest)
        };
        let call = Call::Beat {
            worker: session.worker,
            number,
            epoch: session.epoch,
            revision,
            reports,
        };
        match self.call(calls, "beat", &call).await? {
            Reply::Beat { pace_ms, .. } => {
                self.crew.beat(clock.now().since(began));
                Ok(pace_ms.map_or(BEAT, Duration::from_millis))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Ends when there are reports.
    async fn reports(&self) {
        while self.lock().waiting.is_empty() {
            self.told.notified().await;
        }
    }

    async fn report(&self, calls: &mut Line, session: &Session) -> Result<(), Failure> {
        let reports = self.lock().next_reports();
        let call = Call::Report(WorkerReports {
            worker: session.worker,
            epoch: session.epoch,
            life: self.identity.life,
            reports,
        });
        match self.call(calls, "report", &call).await? {
            Reply::Acknowledged { number, .. } => {
                let (running, stopped) = self.lock().acknowledged(number);
                let now = self.dialer.clock.now();
                self.crew.acknowledged(running, stopped, now);
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for assignments again and again.
    async fn ask(&self, polls: &mut Line, session: &Session) -> Failure {
        loop {
            let revision = self.lock().revision;
            let target = format!(
                "/v1/workers/{}/assignments?epoch={}&revision={revision}&wait_ms={WAIT_MS}",
                session.worker, session.epoch
            );
            let more = Duration::from_millis(WAIT_MS);
            let answer = polls.ask(Method::GET, &target, Vec::new(), more).await;
            let answer: AssignmentsAnswer = match answer {
                Ok(answer) => answer,
                Err(failure) => return failure,
            };
            if let Some(given) = answer.assignments {
                self.lock().take(given);
                self.told.notify_one();
            }
        }
    }

    async fn call(&self, calls: &mut Line, word: &str, call: &Call) -> Result<Reply, Failure> {
        let body = serde_json::to_vec(call).expect("calls are plain data with text keys");
        let target = format!("/v1/workers/{word}");
        let reply = calls.ask(Method::POST, &target, body, Duration::ZERO).await;
        match reply? {
            Reply::Over { .. } => Err(Failure::Silent("session over".to_owned())),
            reply => Ok(reply),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held
            .lock()
            .expect("nobody panics while changing what a worker has")
    }
}

impl Held {
    /// Does what it is told, at once.
    fn take(&mut self, given: Assignments) {
        let mut before = std::mem::take(&mut self.tasks);
        for one in given.tasks {
            let state = match one.desired {
                Desired::Run => State::Running,
                Desired::Stop | Desired::Remove => State::Stopped,
            };
            let state = match before.remove(&one.task) {
                // What has ended does not begin again.
                Some(State::Stopped) => State::Stopped,
                Some(was) if was == state => was,
                _ => {
                    self.report(one.task, state);
                    state
                }
            };
            self.tasks.insert(one.task, state);
        }
        // What it has not been told of is forgotten, and so are reports of it.
        self.waiting
            .retain(|_, report| !before.contains_key(&report.task));
        self.revision = given.revision;
    }

    fn report(&mut self, task: TaskId, state: State) {
        self.waiting.retain(|_, older| older.task != task);
        self.newest += 1;
        let report = Report {
            number: self.newest,
            task,
            observation: seen(state),
        };
        self.waiting.insert(self.newest, report);
    }

    /// The oldest reports, as many as go into one call.
    fn next_reports(&self) -> Vec<Report> {
        self.waiting.values().take(REPORTS_MAX).cloned().collect()
    }

    /// Reports up to `number` were taken: so many of running and of stopped tasks.
    fn acknowledged(&mut self, number: u64) -> (usize, usize) {
        let later = self.waiting.split_off(&number.saturating_add(1));
        let taken = std::mem::replace(&mut self.waiting, later);
        let is_running = |report: &&Report| report.observation.state == State::Running;
        let running = taken.values().filter(is_running).count();
        (running, taken.len() - running)
    }
}

/// When the heartbeat after the one that was due at `due` is due: `pace` later, or at once when that has passed.
fn later(due: Mono, pace: Duration, now: Mono) -> Mono {
    due.plus(pace).max(now)
}

/// A task in its first attempt.
fn seen(state: State) -> Observation {
    Observation {
        state,
        attempts: 1,
        exit: None,
        message: String::new(),
    }
}

fn unexpected(reply: &Reply) -> Failure {
    let message = format!("an answer to another question: {reply:?}");
    Failure::Refused(Error::new(Code::Internal, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Spec;
    use crate::types::ServiceId;
    use crate::worker::words::Assignment;

    fn given(revision: u64, tasks: &[(u64, Desired)]) -> Assignments {
        let tasks = tasks.iter().map(|(id, desired)| Assignment {
            task: TaskId(*id),
            service: ServiceId(1),
            slot: *id,
            version: 1,
            desired: *desired,
            spec: Spec::new("a", &["a"]).into(),
            secrets: BTreeMap::new(),
        });
        Assignments {
            epoch: Epoch(1),
            revision,
            tasks: tasks.collect(),
        }
    }

    #[test]
    fn what_is_given_runs_and_what_is_told_stops() {
        let mut held = Held::default();
        held.take(given(5, &[(1, Desired::Run), (2, Desired::Run)]));
        assert_eq!((held.revision, held.acknowledged(1)), (5, (1, 0)));
        held.take(given(6, &[(1, Desired::Stop), (2, Desired::Run)]));
        assert_eq!(held.acknowledged(3), (1, 1));
        held.take(given(7, &[(1, Desired::Stop), (2, Desired::Remove)]));
        held.take(given(8, &[]));
        assert_eq!(held.acknowledged(9), (0, 0), "nobody asks any more");
        assert!(held.tasks.is_empty());
    }

    #[test]
    fn a_newer_report_takes_the_place_of_an_older_one() {
        let mut held = Held::default();
        held.take(given(5, &[(1, Desired::Run)]));
        held.take(given(6, &[(1, Desired::Remove)]));
        assert_eq!(held.acknowledged(2), (0, 1));
    }
}
