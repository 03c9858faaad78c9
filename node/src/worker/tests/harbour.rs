//! What a whole worker needs around it in a test: a scripted manager on a real socket, and an executor whose processes are entries in
//! a table that outlives the worker.

use crate::fleet::command::Machine;
use crate::fleet::meeting::{AssignmentsAnswer, Call, Reply};
use crate::knobs::Knobs;
use crate::rt::net::BoxFuture;
use crate::rt::{Clock, Env, Mono, Tasks, real};
use crate::service::spec::Amounts;
use crate::types::{ClusterId, Epoch, TaskId, WorkerId};
use crate::worker::exchange::{Assignments, Found, Hello};
use crate::worker::executor::Executor;
use crate::worker::secrets::SecretFile;
use crate::worker::status::Status;
use crate::worker::words::{Assignment, Exit, Handle, Refusal, Signal};
use crate::worker::{Report, RunningWorker, StartError, WorkerConfig, start};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Longest wait for anything in a test.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// How a manager takes calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should.
    #[default]
    Well,
    /// Not at all: it never answers.
    Silent,
    /// With an error that says to try elsewhere.
    Lost,
}

/// What a cluster of scripted managers wants and has heard.
#[derive(Default)]
pub(super) struct Script {
    /// The worker's session.
    pub(super) epoch: u64,
    /// Revision of its assignments.
    pub(super) revision: u64,
    /// Its assignments.
    pub(super) tasks: Vec<Assignment>,
    /// The lease that is granted, milliseconds.
    pub(super) lease_ms: u64,
    /// Whether the session is said to be over at the next heartbeat.
    pub(super) is_over: bool,
    /// How often they want to hear of the worker.
    pub(super) pace_ms: Option<u64>,
    /// Whether the worker was removed.
    pub(super) is_removed: bool,
    /// Hellos, in order.
    pub(super) hellos: Vec<Hello>,
    /// Heartbeats by the manager that took them.
    pub(super) beats: BTreeMap<usize, u64>,
    /// The newest report of each task.
    pub(super) reports: BTreeMap<TaskId, Report>,
    /// How each manager takes calls.
    pub(super) moods: BTreeMap<usize, Mood>,
    /// Addresses of all managers.
    managers: Vec<String>,
}

impl Script {
    /// Changes what the worker shall do.
    pub(super) fn assign(&mut self, tasks: Vec<Assignment>) {
        self.tasks = tasks;
        self.revision += 1;
    }

    fn take(&mut self, manager: usize, call: Call) -> Option<Reply> {
        match call {
            Call::Hello(call) if self.is_removed => {
                self.hellos.push(call.hello);
                Some(Reply::Removed {
                    worker: WorkerId(9),
                    reason: "worker w1 was removed from this cluster".to_owned(),
                })
            }
            Call::Hello(call) => {
                let hello = call.hello;
                if hello.is_anew || self.epoch == 0 || self.is_over {
                    self.epoch += 1;
                }
                self.is_over = false;
                self.hellos.push(hello);
                Some(Reply::Welcome {
                    cluster: ClusterId(3),
                    worker: WorkerId(9),
                    epoch: Epoch(self.epoch),
                    managers: self.managers.clone(),
                })
            }
            Call::Beat { epoch, .. }
                if self.is_over || self.is_removed || epoch.0 != self.epoch =>
            {
                Some(Reply::Over {
                    reason: "another session".to_owned(),
                })
            }
            Call::Beat {
                number, revision, ..
            } => {
                *self.beats.entry(manager).or_default() += 1;
                Some(Reply::Beat {
                    number,
                    epoch: Epoch(self.epoch),
                    revision,
                    lease_ms: self.lease_ms,
                    pace_ms: self.pace_ms,
                })
            }
            Call::Report(batch) => {
                let number = batch.reports.last()?.number;
                let reports = batch.reports.into_iter();
                (self.reports).extend(reports.map(|report| (report.task, report)));
                Some(Reply::Acknowledged {
                    life: batch.life,
                    number,
                })
            }
            Call::Heard { .. } | Call::Silences => None,
        }
    }
}

/// An executor whose processes are entries in a table.
#[derive(Clone, Default)]
pub(super) struct Table(Arc<Mutex<Processes>>);

#[derive(Default)]
pub(super) struct Processes {
    /// Those that live.
    pub(super) alive: BTreeMap<(TaskId, u32), Handle>,
    /// Every start, in order.
    pub(super) started: Vec<(TaskId, u32)>,
    /// Every signal, in order.
    pub(super) signals: Vec<(Handle, Signal)>,
    /// Orphans that were ended.
    pub(super) orphans: Vec<(TaskId, u32)>,
    /// Tasks that were forgotten.
    pub(super) forgotten: Vec<TaskId>,
    /// How often `found` fails before it answers.
    pub(super) found_fails: u32,
    /// The end of the lease as guards heard it last.
    pub(super) lease: Mono,
    /// Exit codes of those that ended.
    exits: BTreeMap<(TaskId, u32), i32>,
}

impl Table {
    pub(super) fn lock(&self) -> MutexGuard<'_, Processes> {
        self.0.lock().unwrap()
    }

    /// A process ends by itself.
    pub(super) fn end(&self, task: u64, attempt: u32, code: i32) {
        let key = (TaskId(task), attempt);
        let mut table = self.lock();
        table.alive.remove(&key).expect("it lives");
        table.exits.insert(key, code);
    }
}

fn clock() -> Clock {
    real::env("test").unwrap().clock
}

impl Executor for Table {
    fn prepare(&self, _: Arc<Assignment>) -> BoxFuture<'static, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn start(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        _: Vec<SecretFile>,
    ) -> BoxFuture<'static, Result<Handle, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            let key = (assignment.task, attempt);
            let handle = Handle(format!("{}.{attempt}", assignment.task));
            let mut table = this.lock();
            table.started.push(key);
            table.alive.insert(key, handle.clone());
            Ok(handle)
        })
    }

    fn lease(&self, until: Mono) {
        self.lock().lease = until;
    }

    fn wait(&self, task: TaskId, attempt: u32, _: Handle) -> BoxFuture<'static, Exit> {
        let this = self.clone();
        Box::pin(async move {
            let clock = clock();
            while this.lock().alive.contains_key(&(task, attempt)) {
                clock.sleep(LOOK).await;
            }
            let code = this.lock().exits.get(&(task, attempt)).copied();
            Exit {
                code,
                ..Exit::UNSEEN
            }
        })
    }

    fn signal(&self, handle: &Handle, signal: Signal) {
        let mut table = self.lock();
        table.signals.push((handle.clone(), signal));
        table.alive.retain(|_, alive| alive != handle);
    }

    fn check(&self, _: Arc<Assignment>, _: u32) -> BoxFuture<'static, bool> {
        Box::pin(async { true })
    }

    fn found(&self) -> BoxFuture<'static, Result<Vec<Found>, String>> {
        let this = self.clone();
        Box::pin(async move {
            let mut table = this.lock();
            if table.found_fails > 0 {
                table.found_fails -= 1;
                return Err("not now".to_owned());
            }
            let found = table.alive.iter().map(|((task, attempt), handle)| Found {
                task: *task,
                attempt: *attempt,
                handle: handle.clone(),
            });
            Ok(found.collect())
        })
    }

    fn end_orphan(&self, task: TaskId, attempt: u32) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            let mut table = this.lock();
            table.alive.remove(&(task, attempt));
            table.orphans.push((task, attempt));
        })
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move { this.lock().forgotten.push(task) })
    }

    fn tidy(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Everything around a worker.
pub(super) struct Harbour {
    pub(super) root: tempfile::TempDir,
    pub(super) table: Table,
    pub(super) knobs: Knobs,
    script: Arc<Mutex<Script>>,
    env: Env,
    _tasks: Tasks,
}

impl Harbour {
    /// A cluster of `managers`, and nothing else yet.
    pub(super) async fn new(managers: usize) -> Self {
        let env = real::env("test").unwrap();
        let (tasks, script) = (Tasks::default(), Arc::new(Mutex::new(Script::default())));
        for number in 0..managers {
            let mut listener = env.net.listen("127.0.0.1:0").await.unwrap();
            let address = listener.local_address();
            script.lock().unwrap().managers.push(address);
            let (clock, script, group) = (env.clock.clone(), Arc::clone(&script), tasks.clone());
            tasks.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (clock, script) = (clock.clone(), Arc::clone(&script));
                    let service = service_fn(move |request| {
                        let (clock, script) = (clock.clone(), Arc::clone(&script));
                        async move { Ok::<_, Infallible>(serve(number, &clock, &script, request).await) }
                    });
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    group.spawn(async move { drop(connection.await) });
                }
            });
        }
        let ms = Duration::from_millis;
        let knobs = Knobs {
            worker_heartbeat: ms(50),
            worker_lease_margin: ms(300),
            worker_lease_grace_max: ms(200),
            worker_call_timeout: ms(300),
            worker_poll_wait: ms(500),
            worker_retry_min: ms(10),
            worker_retry_max: ms(100),
            worker_patience: ms(500),
            worker_save_retry: ms(20),
            ..Knobs::default()
        };
        Harbour {
            root: tempfile::tempdir().unwrap(),
            table: Table::default(),
            knobs,
            script,
            env,
            _tasks: tasks,
        }
    }

    /// What managers want and have heard.
    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Where the worker keeps its file.
    pub(super) fn dir(&self) -> &Path {
        self.root.path()
    }

    /// The worker's process begins.
    pub(super) async fn start(&self) -> RunningWorker {
        self.try_start().await.unwrap()
    }

    /// The worker's process begins, if it can.
    pub(super) async fn try_start(&self) -> Result<RunningWorker, StartError> {
        let config = WorkerConfig {
            machine: Machine {
                name: "w1".to_owned(),
                capacity: Amounts {
                    cpu_milli: 1_000,
                    memory_bytes: 1 << 30,
                },
                ..Machine::default()
            },
            join: self.script().managers.clone(),
            token: None,
            data_dir: self.dir().to_owned(),
            listen: "127.0.0.1:0".to_owned(),
        };
        let executor = Arc::new(self.table.clone());
        start(self.env.clone(), config, self.knobs.clone(), executor).await
    }

    /// Waits until `holds`.
    pub(super) async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let waited = async {
            while !holds(self) {
                self.env.clock.sleep(LOOK).await;
            }
        };
        let waited = self.env.clock.timeout(PATIENCE, waited).await;
        assert!(waited.is_ok(), "never came: {what}");
    }

    /// Waits until the worker's status `holds`.
    pub(super) async fn until_status(
        &self,
        worker: &RunningWorker,
        what: &str,
        mut holds: impl FnMut(&Status) -> bool,
    ) -> Status {
        let waited = async {
            loop {
                match worker.status().await {
                    Some(status) if holds(&status) => return status,
                    _ => self.env.clock.sleep(LOOK).await,
                }
            }
        };
        let waited = self.env.clock.timeout(PATIENCE, waited).await;
        waited.unwrap_or_else(|_| panic!("never came: {what}"))
    }

    /// What the door answers to `GET`.
    pub(super) async fn get(&self, address: &str, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = self.env.net.connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// A manager answers.
async fn serve(
    number: usize,
    clock: &Clock,
    script: &Mutex<Script>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let mood = script.lock().unwrap().moods.get(&number).copied();
    match mood.unwrap_or_default() {
        Mood::Well => {}
        Mood::Silent => std::future::pending().await,
        Mood::Lost => {
            let error = crate::error::Error::new(crate::error::Code::NoLeader, "nobody leads");
            return answer(StatusCode::SERVICE_UNAVAILABLE, &error);
        }
    }
    if request.method() == http::Method::GET {
        let query = request.uri().query().unwrap_or_default().to_owned();
        return assignments(clock, script, &query).await;
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let call: Call = serde_json::from_slice(&body).unwrap();
    let reply = script.lock().unwrap().take(number, call);
    answer(StatusCode::OK, &reply.expect("workers ask no other"))
}

/// Waits for newer assignments, as a manager does.
async fn assignments(clock: &Clock, script: &Mutex<Script>, query: &str) -> Response<Full<Bytes>> {
    let numbers: BTreeMap<&str, u64> = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect();
    let end = clock.now().plus(Duration::from_millis(numbers["wait_ms"]));
    loop {
        let (assignments, managers) = {
            let script = script.lock().unwrap();
            let is_news = script.epoch == numbers["epoch"] && script.revision > numbers["revision"];
            let assignments = is_news.then(|| Assignments {
                epoch: Epoch(script.epoch),
                revision: script.revision,
                tasks: script.tasks.clone(),
            });
            (assignments, script.managers.clone())
        };
        if assignments.is_some() || clock.now() >= end {
            let found = AssignmentsAnswer {
                assignments,
                managers,
            };
            return answer(StatusCode::OK, &found);
        }
        clock.sleep(LOOK).await;
    }
}

fn answer(status: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).unwrap();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
