//! Tasks as containers, run by an installed OCI runtime (`crun`, `runc`); tasks without an image stay processes.
//!
//! The runtime runs in the foreground, one process for each attempt, with a mark as every process of a task has one; the container's own
//! processes carry the mark too. So what runs is waited for and found again as for [`super::process`], whose directories,
//! output and volumes these are too. What only the runtime can do is asked of it by the container's name, which follows from worker,
//! task and attempt: `kill` sends a signal inside, `exec` runs a health check, `delete --force` clears.
//!
//! ```text
//! images/                `store`: what was fetched
//! containers/            the runtime's own notes on what runs
//! tasks/ID/bundle/       rootfs, a copy of the image's that lives as long as the task; config.json of the newest attempt
//! ```
//!
//! A single-writer container ends with its worker: the guard that kills the runtime tells it to kill the container first.
//!
//! Map: `image`, what images say (pure); `layers`, archives to directories; `store`, the cache; `bundle`, what the runtime is told (pure).
//!
//! Caveats:
//! - A container has its worker's network. What is written to its file system outlives an attempt, not the task.
//! - A container's first process gets no signal that it does not handle (it is process 1 there): programs that do not handle TERM end by
//!   KILL after their grace.
//! - Exit codes are the runtime's: 128 + N stands for signal N, and a kill for lack of memory cannot be told from another one, except
//!   where the worker is not root (then limits are control groups of our own).
//! - A worker that is not root gives a container one user; images that change users do not run there.
//! - `crun` refuses machines whose control groups are of both versions at once with controllers in the second; `runc` does not.
#![expect(
    clippy::disallowed_methods,
    reason = "directories of tasks; runs on a lane and is simulated underneath"
)]

mod bundle;
mod image;
mod layers;
mod store;
#[cfg(test)]
mod tests;

use super::exchange::Found;
use super::executor::Executor;
use super::logs::{LogPage, LogQuery};
use super::process::{PATH, ProcessExecutor, never, not_now, on_lane};
use super::secrets::SecretFile;
use super::words::{Assignment, Exit, Handle, Refusal, Signal};
use crate::knobs::Knobs;
use crate::rt::net::BoxFuture;
use crate::rt::process::ContainerRuntime;
use crate::rt::processes::{self, Command, Ended, ProcessId};
use crate::rt::{Clock, Env, Images, Lane, Mono, Processes, Tasks};
use crate::service::spec::HealthCheck;
use crate::types::TaskId;
use bundle::{Bundle, STOP_SIGNAL, User};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::{Kept, ROOTFS, Store, WISHES};
use tokio::sync::Semaphore;

/// First and longest pause between two looks whether a container has begun.
const BEGIN_LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// Longest time that a runtime may take for anything but running a container.
const RUNTIME_TIME: Duration = Duration::from_secs(20);
/// Bytes of a runtime's last words that are told.
const SAID_BYTES_MAX: usize = 500;
/// What a handle of a container begins with; the others are those of processes.
const KIND: char = 'c';
/// Files of the host that containers see: its network is theirs.
const SHARED: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// What a worker needs to run containers.
#[derive(Clone)]
pub struct Containers {
    /// What runs them.
    pub runtime: ContainerRuntime,
    /// Where images come from that are not on this machine.
    pub images: Images,
    /// What this machine runs, such as `linux/amd64`.
    pub platform: String,
}

/// Runs tasks with an image as containers, and others as processes.
#[derive(Clone)]
pub struct ContainerExecutor {
    /// Runs what has no image, and knows the directories.
    process: ProcessExecutor,
    /// Where processes come from.
    processes: Processes,
    /// For time-outs.
    clock: Clock,
    /// Where files of bundles are touched.
    lane: Lane,
    /// What runs containers.
    runtime: ContainerRuntime,
    /// Images.
    store: Store,
    /// Where signals are on their way.
    tasks: Tasks,
    /// How runtimes ended that ended before anybody asked: a container may be short.
    early: Arc<Mutex<BTreeMap<ProcessId, Ended>>>,
    /// The worker's directory.
    dir: PathBuf,
}

/// One attempt of a task: what a container's names are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The task.
    task: TaskId,
    /// The attempt.
    attempt: u32,
}

impl Key {
    /// From `TASK.ATTEMPT`.
    fn parse(text: &str) -> Option<Key> {
        let (task, attempt) = text.split_once('.')?;
        Some(Key {
            task: TaskId(task.parse().ok()?),
            attempt: attempt.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.task, self.attempt)
    }
}

/// The handle of a container: its attempt, and the process of the runtime that runs it.
fn handle(key: Key, process: ProcessId) -> Handle {
    Handle(format!("{KIND}{key}/{process}"))
}

/// Attempt and process in a handle; none if it is not a container's.
fn parse_handle(handle: &Handle) -> Option<(Key, ProcessId)> {
    let (key, process) = handle.0.strip_prefix(KIND)?.split_once('/')?;
    Some((Key::parse(key)?, process.parse().ok()?))
}

impl ContainerExecutor {
    /// An executor for the worker in `dir`, which must be an absolute path that stays the same: containers are found again by it.
    pub fn new(env: &Env, dir: PathBuf, knobs: &Knobs, containers: Containers) -> Self {
        let Containers {
            runtime,
            images,
            platform,
        } = containers;
        let store = Store {
            lane: env.lanes.open("images"),
            clock: env.clock.clone(),
            images,
            dir: dir.join("images"),
            platform,
            is_root: runtime.is_root(),
            turn: Arc::new(Semaphore::new(1)),
        };
        ContainerExecutor {
            process: ProcessExecutor::new(env, dir.clone(), knobs),
            processes: env.processes.clone(),
            clock: env.clock.clone(),
            lane: env.lanes.open("containers"),
            runtime,
            store,
            tasks: Tasks::default(),
            early: Arc::default(),
            dir,
        }
    }

    /// The same executor, with files of secrets in `base`, which must be in memory.
    pub fn with_secrets_dir(self, base: &Path) -> Self {
        let process = self.process.with_secrets_dir(base);
        ContainerExecutor { process, ..self }
    }

    /// The same executor, whose tasks all end with this program ([`ProcessExecutor::tied_to_program`]).
    pub fn tied_to_program(self) -> Self {
        let process = self.process.tied_to_program();
        ContainerExecutor { process, ..self }
    }

    /// Where the runtime notes what runs.
    fn notes(&self) -> PathBuf {
        self.dir.join("containers")
    }

    /// A task's bundle.
    fn bundle(&self, task: TaskId) -> PathBuf {
        self.process.task_dir(task).join("bundle")
    }

    /// What the names of this worker's containers begin with: no two workers of a machine may have the same ones.
    fn id_prefix(&self) -> String {
        let own = xxhash_rust::xxh3::xxh3_64(self.dir.as_os_str().as_encoded_bytes());
        format!("sw-{own:016x}-")
    }

    /// The container's name at the runtime.
    fn id(&self, key: Key) -> String {
        format!("{}{key}", self.id_prefix())
    }

    /// What every mark of this worker's containers begins with. Those of its other processes have a `#` there.
    fn mark_prefix(&self) -> String {
        format!("{}%", self.dir.display())
    }

    /// The mark of an attempt.
    fn mark(&self, key: Key) -> String {
        format!("{}{key}", self.mark_prefix())
    }

    /// The mark of an attempt's health check.
    fn check_mark(&self, key: Key) -> String {
        format!("{}check.{key}", self.mark_prefix())
    }

    /// The runtime with these arguments.
    fn words(&self, arguments: &[&str]) -> Vec<String> {
        let mut words = vec![
            self.runtime.program.display().to_string(),
            "--root".to_owned(),
            self.notes().display().to_string(),
        ];
        // Without root its own groups could not be made; then the container stays in those that we have made for it, if we can.
        if self.runtime.is_crun() && !self.runtime.is_root() {
            words.push("--cgroup-manager=disabled".to_owned());
        }
        words.extend(arguments.iter().map(|&argument| argument.to_owned()));
        words
    }

    /// A process outside of containers.
    fn plain(&self, words: Vec<String>) -> Command {
        Command {
            words,
            env: BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]),
            ..Command::default()
        }
    }

    /// Runs the runtime to its end; true if it succeeded.
    async fn ask(&self, arguments: &[&str]) -> bool {
        let command = self.plain(self.words(arguments));
        let process = match self.processes.start(command).await {
            Ok(process) => process,
            Err(error) => {
                let program = self.runtime.program.display();
                tracing::warn!(%program, %error, "cannot run the container runtime");
                return false;
            }
        };
        let ended = self
            .clock
            .timeout(RUNTIME_TIME, self.processes.wait(process));
        match ended.await {
            Ok(ended) => ended.code == Some(0),
            Err(_) => {
                tracing::warn!(?arguments, "the container runtime takes too long");
                self.process.kill(process);
                false
            }
        }
    }

    /// Fetches the image and makes what the task finds on the disk.
    async fn prepare_container(&self, assignment: &Assignment, image: &str) -> Result<(), Refusal> {
        let mut dirs = vec![self.process.task_dir(assignment.task), self.notes()];
        dirs.extend(self.process.volumes(assignment)?.into_values());
        on_lane(&self.lane, move || super::process::make_dirs(&dirs)).await?;
        self.store
            .provide(image, self.bundle(assignment.task))
            .await
    }

    /// Writes what the runtime is told of an attempt; answers with the user that it runs as, where that is another than this one's.
    async fn describe(
        &self,
        assignment: Arc<Assignment>,
        key: Key,
    ) -> Result<Option<(u32, u32)>, Refusal> {
        let this = self.clone();
        on_lane(&self.lane, move || {
            let dir = this.bundle(key.task);
            for old in ["pid", "runtime.log"] {
                // Not there, or the runtime says so.
                drop(fs::remove_file(dir.join(old)));
            }
            let (id, mark) = (this.id(key), this.mark(key));
            let (config, user) = this.with_bundle(&assignment, &id, &mark, |bundle| {
                let user = (bundle.user.uid, bundle.user.gid);
                Ok((bundle.config()?, user))
            })?;
            write(&dir.join("config.json"), &config)?;
            Ok(Some(user).filter(|user| this.runtime.is_root() && *user != (0, 0)))
        })
        .await
    }

    /// Builds what a runtime is told; on the lane.
    fn with_bundle<T>(
        &self,
        assignment: &Assignment,
        id: &str,
        mark: &str,
        build: impl FnOnce(&Bundle<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let dir = self.bundle(assignment.task);
        let Kept { wishes, .. } = store::read_wishes(&dir.join(WISHES))?;
        let root = dir.join(ROOTFS);
        // No such file, or none that is text: then only numbers name users.
        let text = |name: &str| {
            let path = layers::resolve(&root, Path::new(name)).ok()?;
            fs::read_to_string(path).ok()
        };
        let (passwd, group) = (text("etc/passwd"), text("etc/group"));
        let user = User::find(
            wishes.user.as_deref().unwrap_or_default(),
            &passwd.unwrap_or_default(),
            &group.unwrap_or_default(),
        )?;
        let shared = SHARED.map(PathBuf::from).into_iter();
        build(&Bundle {
            assignment,
            wishes: &wishes,
            user,
            volumes: &self.dir.join("volumes"),
            secrets: &self.process.secrets_dir(assignment.task),
            shared: shared.filter(|file| file.exists()).collect(),
            runtime: &self.runtime,
            id,
            mark,
        })
    }

    /// The runtime in the foreground, running an attempt.
    fn run(&self, assignment: &Assignment, key: Key) -> Command {
        let (dir, bundle, id) = (
            self.process.task_dir(key.task),
            self.bundle(key.task),
            self.id(key),
        );
        let path = |name: &str| bundle.join(name).display().to_string();
        let (log, pid, at) = (path("runtime.log"), path("pid"), path(""));
        let limits = &assignment.spec.resources.limits;
        let run = [
            "--log",
            &log,
            "run",
            "--bundle",
            &at,
            "--pid-file",
            &pid,
            &id,
        ];
        Command {
            stdout: Some(dir.join("stdout.log")),
            stderr: Some(dir.join("stderr.log")),
            mark: self.mark(key),
            tie: self.process.tie(assignment),
            last_words: self.words(&["kill", &id, "KILL"]),
            limits: match self.runtime.is_root() {
                true => processes::Limits::default(),
                false => processes::Limits {
                    cpu_milli: limits.cpu_milli,
                    memory_bytes: limits.memory_bytes,
                },
            },
            ..self.plain(self.words(&run))
        }
    }

    /// Starts an attempt and waits until its container is there, or cannot be.
    async fn start_container(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        secrets: Vec<SecretFile>,
        image: &str,
    ) -> Result<Handle, Refusal> {
        let key = Key {
            task: assignment.task,
            attempt,
        };
        self.prepare_container(&assignment, image).await?;
        let owner = self.describe(Arc::clone(&assignment), key).await?;
        self.process.put_secrets(key.task, secrets, owner).await?;
        let started = self.processes.start(self.run(&assignment, key)).await;
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                self.process.clear_secrets(key.task).await;
                let program = self.runtime.program.display();
                return Err(not_now(format!(
                    "cannot run the container runtime {program}: {error}; is it still installed on this worker?"
                )));
            }
        };
        match self.begins(key, process).await {
            Ok(()) => Ok(handle(key, process)),
            Err(ended) => Err(self.failed(key, ended).await),
        }
    }

    /// Waits until the runtime says that a container is there; how it ended, when it has ended before that.
    async fn begins(&self, key: Key, process: ProcessId) -> Result<(), Ended> {
        let (mut pause, longest) = BEGIN_LOOK;
        loop {
            let look = self.clock.timeout(pause, self.processes.wait(process));
            let ended = look.await.ok();
            let pid = self.bundle(key.task).join("pid");
            // The process first: what it wrote before it ended is there when it is not.
            let is_there = self.lane.run(move || pid.exists()).await != Ok(false);
            match ended {
                Some(ended) if is_there => {
                    self.early().insert(process, ended);
                    return Ok(());
                }
                Some(ended) => return Err(ended),
                None if is_there => return Ok(()),
                None => pause = (pause * 2).min(longest),
            }
        }
    }

    fn early(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Ended>> {
        self.early.lock().expect("nobody panics while holding it")
    }

    /// Why a runtime could not start a container; nothing of it is left then.
    async fn failed(&self, key: Key, ended: Ended) -> Refusal {
        self.clear(key).await;
        let log = self.bundle(key.task).join("runtime.log");
        let read = self.lane.run(move || fs::read_to_string(log).ok()).await;
        let text = read.ok().flatten().unwrap_or_default();
        let said = text.trim().lines().last().unwrap_or_default();
        let said: String = said.chars().take(SAID_BYTES_MAX).collect();
        let program = self.runtime.program.display();
        let code = ended
            .code
            .map_or("without an exit code".to_owned(), |code| {
                format!("with code {code}")
            });
        let lower = said.to_lowercase();
        let hopeless = ["not found", "no such file", "permission denied"];
        Refusal {
            is_permanent: hopeless.iter().any(|word| lower.contains(word)),
            message: format!(
                "{program} ended {code} before the container began: {said}{}",
                advice(&lower)
            ),
        }
    }

    /// Ends what is left of an attempt, and makes the runtime forget it.
    async fn clear(&self, key: Key) {
        let (id, note) = (self.id(key), self.notes().join(self.id(key)));
        if self.lane.run(move || note.exists()).await != Ok(false) {
            self.ask(&["delete", "--force", &id]).await;
        }
        self.process.clear(&self.mark(key)).await;
        self.process.clear_secrets(key.task).await;
    }

    /// The signal that ends a container in order.
    async fn stop_signal(&self, task: TaskId) -> String {
        let file = self.bundle(task).join("config.json");
        let read = self.lane.run(move || fs::read(file).ok()).await;
        let config: serde_json::Value = read
            .ok()
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let named = config["annotations"][STOP_SIGNAL].as_str();
        named.unwrap_or("TERM").to_owned()
    }

    /// Passes a signal to a container; if the runtime cannot, to the runtime itself.
    async fn tell(&self, key: Key, process: ProcessId, signal: Signal) {
        let (name, direct) = match signal {
            Signal::Term => (self.stop_signal(key.task).await, processes::Signal::Term),
            Signal::Kill => ("KILL".to_owned(), processes::Signal::Kill),
        };
        if self.ask(&["kill", &self.id(key), &name]).await {
            return;
        }
        // It has ended, or has hardly begun.
        if let Err(error) = self.processes.signal(process, direct) {
            tracing::warn!(%key, ?signal, %error, "cannot signal a container");
        }
    }

    /// Runs a program in a container. One that takes too long is killed there.
    async fn exec(
        &self,
        assignment: Arc<Assignment>,
        key: Key,
        words: &[String],
        span: Duration,
    ) -> bool {
        let file = self.bundle(key.task).join("check.json");
        let (this, mark, id) = (self.clone(), self.check_mark(key), self.id(key));
        let (words, path) = (words.to_vec(), file.display().to_string());
        let tie = self.process.check_tie(&assignment);
        let described = on_lane(&self.lane, move || {
            let (id, mark) = (this.id(key), this.check_mark(key));
            let process = this.with_bundle(&assignment, &id, &mark, |bundle| {
                bundle.process(&words, &mark)
            })?;
            write(&file, &process)
        });
        if described.await.is_err() {
            return false;
        }
        let command = Command {
            tie,
            ..self.plain(self.words(&["exec", "--process", &path, &id]))
        };
        let Ok(process) = self.processes.start(command).await else {
            return false;
        };
        if let Ok(ended) = self.clock.timeout(span, self.processes.wait(process)).await {
            return ended.code == Some(0);
        }
        self.process.clear(&mark).await;
        self.process.kill(process);
        self.processes.wait(process).await;
        false
    }

    /// Every container of this worker that runs.
    async fn found_containers(&self) -> Result<Vec<Found>, String> {
        let prefix = self.mark_prefix();
        let marked = self.processes.marked(&prefix).await;
        let marked =
            marked.map_err(|error| format!("cannot look for running containers: {error}"))?;
        let mut first = BTreeMap::new();
        for found in marked {
            // The oldest with a mark is the runtime; the others are in the container.
            if let Some(key) = found.mark.strip_prefix(&prefix).and_then(Key::parse) {
                first.entry(key).or_insert(found.process);
            }
        }
        let found = first.into_iter().map(|(key, process)| Found {
            task: key.task,
            attempt: key.attempt,
            handle: handle(key, process),
        });
        Ok(found.collect())
    }

    /// Makes the runtime forget every attempt of a task: a machine that was switched off has left its notes.
    async fn forget_containers(&self, task: TaskId) {
        let (notes, prefix) = (self.notes(), self.id_prefix());
        let attempts = self.lane.run(move || attempts_in(&notes, &prefix)).await;
        let all = attempts.unwrap_or_default();
        for key in all.into_iter().filter(|key| key.task == task) {
            self.clear(key).await;
        }
    }
}

/// The attempts that a runtime has notes on.
fn attempts_in(notes: &Path, prefix: &str) -> Vec<Key> {
    let listed = fs::read_dir(notes).into_iter().flatten().flatten();
    let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
    let mut all: Vec<Key> = names
        .filter_map(|name| Key::parse(name.strip_prefix(prefix)?))
        .collect();
    all.sort_unstable();
    all
}

/// Writes JSON.
fn write(file: &Path, value: &serde_json::Value) -> Result<(), Refusal> {
    fs::write(file, value.to_string()).map_err(|error| store::trouble("write", file, &error))
}

/// What to do about what a runtime said, in small letters; nothing when it says it itself.
fn advice(said: &str) -> &'static str {
    match said.contains("cgroups in hybrid mode") {
        true => {
            " (this machine has control groups of both versions, which crun refuses: boot it with one of them, \
             or name runc with `worker start --runtime`)"
        }
        false => "",
    }
}

impl Executor for ContainerExecutor {
    fn prepare(&self, assignment: Arc<Assignment>) -> BoxFuture<'static, Result<(), Refusal>> {
        let this = self.clone();
        match assignment.spec.image.clone() {
            None => self.process.prepare(assignment),
            Some(image) => {
                Box::pin(async move { this.prepare_container(&assignment, &image).await })
            }
        }
    }

    fn start(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        secrets: Vec<SecretFile>,
    ) -> BoxFuture<'static, Result<Handle, Refusal>> {
        let this = self.clone();
        match assignment.spec.image.clone() {
            None => self.process.start(assignment, attempt, secrets),
            Some(image) => Box::pin(async move {
                this.start_container(assignment, attempt, secrets, &image)
                    .await
            }),
        }
    }

    fn lease(&self, until: Mono) {
        self.process.lease(until);
    }

    fn wait(&self, task: TaskId, attempt: u32, handle: Handle) -> BoxFuture<'static, Exit> {
        let this = self.clone();
        let Some((key, process)) = parse_handle(&handle) else {
            return self.process.wait(task, attempt, handle);
        };
        Box::pin(async move {
            let early = this.early().remove(&process);
            let ended = match early {
                Some(ended) => ended,
                None => this.processes.wait(process).await,
            };
            this.clear(key).await;
            Exit {
                code: ended.code,
                signal: ended.signal,
                oom: ended.oom,
            }
        })
    }

    fn signal(&self, handle: &Handle, signal: Signal) {
        let Some((key, process)) = parse_handle(handle) else {
            return self.process.signal(handle, signal);
        };
        let this = self.clone();
        self.tasks
            .spawn(async move { this.tell(key, process, signal).await });
    }

    fn check(&self, assignment: Arc<Assignment>, attempt: u32) -> BoxFuture<'static, bool> {
        let (this, spec) = (self.clone(), &assignment.spec);
        let inside = spec
            .image
            .is_some()
            .then_some(spec.health.as_ref())
            .flatten();
        let Some((HealthCheck::Exec { command }, timeout_ms)) =
            inside.map(|health| (&health.check, health.timeout_ms))
        else {
            // Its network is the machine's.
            return self.process.check(assignment, attempt);
        };
        let (words, span) = (command.clone(), Duration::from_millis(timeout_ms));
        let key = Key {
            task: assignment.task,
            attempt,
        };
        Box::pin(async move { this.exec(assignment, key, &words, span).await })
    }

    fn found(&self) -> BoxFuture<'static, Result<Vec<Found>, String>> {
        let this = self.clone();
        Box::pin(async move {
            let mut found = this.process.found_processes().await?;
            found.extend(this.found_containers().await?);
            let running = found.iter().map(|one| one.task).collect();
            this.process.sweep_secrets(running).await;
            Ok(found)
        })
    }

    fn end_orphan(&self, task: TaskId, attempt: u32) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            this.process.end_orphan(task, attempt).await;
            this.clear(Key { task, attempt }).await;
        })
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            this.forget_containers(task).await;
            this.process.forget(task).await;
        })
    }

    fn make_room(&self) -> BoxFuture<'static, bool> {
        self.process.make_room()
    }

    fn tidy(&self) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            this.process.tidy().await;
            this.store.tidy().await;
        })
    }

    fn logs(&self, task: TaskId, query: LogQuery) -> BoxFuture<'static, Result<LogPage, Refusal>> {
        self.process.logs(task, query)
    }
}
