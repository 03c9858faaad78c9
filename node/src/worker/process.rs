//! Tasks as processes of the operating system: the executor that needs no privileges.
//!
//! Each task has a directory `tasks/<id>` for what it writes, each volume one under `volumes/<name>`; processes find theirs in
//! `SEAWORTHY_VOLUME_<NAME>`, since nothing can be mounted for them. A process has a group of its own, an environment of its own, and a
//! mark: the worker's directory, the task and the attempt. When it has ended, whatever still carries the mark is killed.
//!
//! Left out: a root file system, and users. A specification with an image is refused: it is for [`super::container`].
#![expect(
    clippy::disallowed_methods,
    reason = "directories of tasks; runs on a lane and is simulated underneath"
)]

use super::exchange::Found;
use super::executor::Executor;
use super::logs::{self, LogPage, LogQuery};
use super::secrets::{self, SecretFile, Shelf};
use super::words::{Assignment, Exit, Handle, Refusal, Signal};
use crate::knobs::Knobs;
use crate::rt::net::BoxFuture;
use crate::rt::processes::{self, Command, ProcessId, Tie};
use crate::rt::{Clock, Env, Lane, Mono, Net, Processes};
use crate::service::spec::HealthCheck;
use crate::types::TaskId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where programs are looked for.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// First and longest pause between two looks whether what was killed is gone.
const GONE_LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(1_000));
/// Bytes of an HTTP answer that a check reads: enough for its first line.
const ANSWER_BYTES: usize = 12;

/// Runs tasks as processes.
#[derive(Clone)]
pub struct ProcessExecutor {
    /// Where processes come from.
    processes: Processes,
    /// For health checks.
    net: Net,
    /// For time-outs.
    clock: Clock,
    /// Where directories are made and files are cut.
    lane: Lane,
    /// The worker's directory.
    dir: PathBuf,
    /// Where files of secrets go.
    shelf: Shelf,
    /// What a task dies with that needs no lease.
    tie: Tie,
    /// Length at which a task's output is rotated, bytes.
    log_bytes: u64,
    /// Older parts of it that are kept.
    logs_kept: usize,
}

impl ProcessExecutor {
    /// An executor for the worker in `dir`, which must be an absolute path that stays the same: processes are found again by it.
    pub fn new(env: &Env, dir: PathBuf, knobs: &Knobs) -> Self {
        ProcessExecutor {
            processes: env.processes.clone(),
            net: env.net.clone(),
            clock: env.clock.clone(),
            lane: env.lanes.open("tasks"),
            shelf: Shelf::new(Path::new(secrets::BASE), &dir),
            tie: Tie::None,
            dir,
            log_bytes: knobs.task_log_bytes,
            logs_kept: knobs.task_logs_kept,
        }
    }

    /// The same executor, with files of secrets in `base`, which must be in memory.
    pub fn with_secrets_dir(self, base: &Path) -> Self {
        let shelf = Shelf::new(base, &self.dir);
        ProcessExecutor { shelf, ..self }
    }

    /// The same executor, whose tasks all end with this program, however that ends: for workers that nobody will start again.
    pub fn tied_to_program(self) -> Self {
        let tie = Tie::Program;
        ProcessExecutor { tie, ..self }
    }

    /// What a task's process dies with.
    pub(super) fn tie(&self, assignment: &Assignment) -> Tie {
        match assignment.spec.is_single_writer() {
            true => Tie::Lease,
            false => self.tie,
        }
    }

    /// What a check of a task dies with: it would be no orphan that anybody finds.
    pub(super) fn check_tie(&self, assignment: &Assignment) -> Tie {
        match self.tie(assignment) {
            Tie::None => Tie::Program,
            tied => tied,
        }
    }

    /// The directory of a task's secrets.
    pub(super) fn secrets_dir(&self, task: TaskId) -> PathBuf {
        self.shelf.dir(task)
    }

    /// Writes a task's secrets where it finds them; `owner` as of [`Shelf::put`].
    pub(super) async fn put_secrets(
        &self,
        task: TaskId,
        files: Vec<SecretFile>,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Refusal> {
        if files.is_empty() {
            return Ok(());
        }
        let shelf = self.shelf.clone();
        let put = self.lane.run(move || shelf.put(task, &files, owner)).await;
        put.unwrap_or_else(|closed| Err(not_now(closed.to_string())))
    }

    /// Removes a task's secrets. A closed lane: the worker is stopping, and its next life sweeps.
    pub(super) async fn clear_secrets(&self, task: TaskId) {
        let shelf = self.shelf.clone();
        self.lane.run(move || shelf.clear(task)).await.unwrap_or(())
    }

    /// Removes the secrets of all tasks but these.
    pub(super) async fn sweep_secrets(&self, running: BTreeSet<TaskId>) {
        let shelf = self.shelf.clone();
        self.lane
            .run(move || shelf.sweep(&running))
            .await
            .unwrap_or(())
    }

    /// Every attempt that runs as a process.
    pub(super) async fn found_processes(&self) -> Result<Vec<Found>, String> {
        let marked = self.processes.marked(&self.mark_prefix()).await;
        let marked = marked.map_err(|error| format!("cannot look for running tasks: {error}"))?;
        let mut first = BTreeMap::new();
        for found in marked {
            // The oldest with a mark is the task; the others are what it began.
            if let Some(key) = self.parse_mark(&found.mark) {
                first.entry(key).or_insert(found.process);
            }
        }
        let found = first.into_iter().map(|((task, attempt), process)| Found {
            task,
            attempt,
            handle: Handle(process.to_string()),
        });
        Ok(found.collect())
    }

    /// The directory of a task.
    pub(super) fn task_dir(&self, task: TaskId) -> PathBuf {
        self.dir.join("tasks").join(task.to_string())
    }

    /// What every mark of this worker begins with.
    fn mark_prefix(&self) -> String {
        format!("{}#", self.dir.display())
    }

    /// The mark of an attempt.
    fn mark(&self, task: TaskId, attempt: u32) -> String {
        format!("{}{task}.{attempt}", self.mark_prefix())
    }

    /// Task and attempt in a mark.
    fn parse_mark(&self, mark: &str) -> Option<(TaskId, u32)> {
        let (task, attempt) = mark.strip_prefix(&self.mark_prefix())?.split_once('.')?;
        Some((TaskId(task.parse().ok()?), attempt.parse().ok()?))
    }

    /// Directories of a task's volumes, by the variable that names each.
    pub(super) fn volumes(
        &self,
        assignment: &Assignment,
    ) -> Result<BTreeMap<String, PathBuf>, Refusal> {
        let mut dirs = BTreeMap::new();
        for mount in &assignment.spec.volumes {
            let name = &mount.volume;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
                return Err(never(format!(
                    "volume {name:?} cannot be the name of a directory"
                )));
            }
            dirs.insert(volume_variable(name), self.dir.join("volumes").join(name));
        }
        Ok(dirs)
    }

    /// How an attempt is started.
    fn command(&self, assignment: &Assignment, attempt: u32) -> Result<Command, Refusal> {
        let (spec, dir) = (&assignment.spec, self.task_dir(assignment.task));
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("SEAWORTHY_SERVICE".to_owned(), spec.name.clone()),
            ("SEAWORTHY_SLOT".to_owned(), assignment.slot.to_string()),
            ("SEAWORTHY_TASK".to_owned(), assignment.task.to_string()),
        ]);
        for (name, path) in self.volumes(assignment)? {
            env.insert(name, path.display().to_string());
        }
        if !spec.secrets.is_empty() {
            let path = self.secrets_dir(assignment.task);
            env.insert(secrets::VARIABLE.to_owned(), path.display().to_string());
        }
        env.extend(spec.env.clone());
        Ok(Command {
            words: spec.command.clone(),
            env,
            working_dir: Some(spec.working_dir.as_ref().map_or(dir.clone(), PathBuf::from)),
            stdout: Some(dir.join("stdout.log")),
            stderr: Some(dir.join("stderr.log")),
            mark: self.mark(assignment.task, attempt),
            tie: self.tie(assignment),
            last_words: Vec::new(),
            limits: processes::Limits {
                cpu_milli: spec.resources.limits.cpu_milli,
                memory_bytes: spec.resources.limits.memory_bytes,
            },
        })
    }

    /// Kills what carries a mark until nothing does.
    pub(super) async fn clear(&self, mark: &str) {
        let (mut pause, longest) = GONE_LOOK;
        loop {
            match self.processes.marked(mark).await {
                Ok(mut found) => {
                    found.retain(|found| found.mark == mark);
                    if found.is_empty() {
                        return;
                    }
                    for found in found {
                        self.kill(found.process);
                    }
                }
                Err(error) => {
                    tracing::warn!(%mark, %error, "cannot look for what a task left behind")
                }
            }
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Kills a process.
    pub(super) fn kill(&self, process: ProcessId) {
        if let Err(error) = self.processes.signal(process, processes::Signal::Kill) {
            tracing::warn!(%process, %error, "cannot kill");
        }
    }

    /// One program as a health check. One that takes too long is killed and waited for: it must not pile up.
    async fn run_check(
        &self,
        assignment: &Assignment,
        command: &[String],
        span: Duration,
    ) -> io::Result<bool> {
        let mut run = self
            .command(assignment, 0)
            .map_err(|no| io::Error::other(no.message))?;
        run.words = command.to_vec();
        (run.stdout, run.stderr, run.mark) = (None, None, String::new());
        run.tie = self.check_tie(assignment);
        let process = self.processes.start(run).await?;
        if let Ok(ended) = self.clock.timeout(span, self.processes.wait(process)).await {
            return Ok(ended.code == Some(0));
        }
        self.kill(process);
        self.processes.wait(process).await;
        Ok(false)
    }

    /// The result of `check`, unless it takes too long.
    async fn within(
        &self,
        span: Duration,
        check: impl Future<Output = io::Result<bool>>,
    ) -> io::Result<bool> {
        let tried = self.clock.timeout(span, check).await;
        tried.unwrap_or_else(|elapsed| Err(io::Error::other(elapsed)))
    }

    /// Whether a port takes connections.
    async fn connect(&self, port: u16) -> io::Result<bool> {
        self.net.connect(&format!("127.0.0.1:{port}")).await?;
        Ok(true)
    }

    /// Whether `GET` answers with a status below 400.
    async fn get(&self, port: u16, path: &str) -> io::Result<bool> {
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(false);
        }
        let mut stream = self.net.connect(&format!("127.0.0.1:{port}")).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; ANSWER_BYTES];
        stream.read_exact(&mut answer).await?;
        Ok(status(&answer).is_some_and(|status| (100..400).contains(&status)))
    }
}

/// The variable that tells a task where a volume is.
pub(super) fn volume_variable(name: &str) -> String {
    let word = name.to_ascii_uppercase().replace(['-', '.'], "_");
    format!("SEAWORTHY_VOLUME_{word}")
}

/// The status in the beginning of an HTTP answer.
fn status(answer: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(answer).ok()?;
    let rest = text.strip_prefix("HTTP/1.")?;
    rest.get(2..5)?.parse().ok()
}

/// Trying again cannot help.
pub(super) fn never(message: impl Into<String>) -> Refusal {
    Refusal {
        is_permanent: true,
        message: message.into(),
    }
}

/// Trying again may help.
pub(super) fn not_now(message: impl Into<String>) -> Refusal {
    Refusal {
        is_permanent: false,
        message: message.into(),
    }
}

/// What `work` gives, which may wait for the disk. A closed lane refuses: the worker is stopping.
pub(super) async fn on_lane<T: Send + 'static>(
    lane: &Lane,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = lane.run(work).await;
    done.unwrap_or_else(|closed| Err(not_now(closed.to_string())))
}

/// Makes directories.
pub(super) fn make_dirs(dirs: &[PathBuf]) -> Result<(), Refusal> {
    for dir in dirs {
        let made = std::fs::create_dir_all(dir);
        made.map_err(|error| not_now(format!("cannot make {}: {error}", dir.display())))?;
    }
    Ok(())
}

/// Removes a directory; a missing one is no error.
pub(super) fn remove_dir(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove what a task left");
        }
        _ => {}
    }
}

impl Executor for ProcessExecutor {
    fn prepare(&self, assignment: Arc<Assignment>) -> BoxFuture<'static, Result<(), Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            if let Some(image) = &assignment.spec.image {
                return Err(never(format!(
                    "this worker has no container runtime for image {image}: install crun or runc on it, or give the service a command without image"
                )));
            }
            if assignment.spec.command.is_empty() {
                return Err(never("there is no command to run"));
            }
            let mut dirs = vec![this.task_dir(assignment.task)];
            dirs.extend(this.volumes(&assignment)?.into_values());
            on_lane(&this.lane, move || make_dirs(&dirs)).await
        })
    }

    fn start(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        secrets: Vec<SecretFile>,
    ) -> BoxFuture<'static, Result<Handle, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            let command = this.command(&assignment, attempt)?;
            let program = command.words.first().cloned().unwrap_or_default();
            this.put_secrets(assignment.task, secrets, None).await?;
            let started = this.processes.start(command).await;
            if started.is_err() && !assignment.spec.secrets.is_empty() {
                this.clear_secrets(assignment.task).await;
            }
            match started {
                Ok(process) => Ok(Handle(process.to_string())),
                Err(error) => Err(Refusal {
                    is_permanent: matches!(
                        error.kind(),
                        io::ErrorKind::NotFound
                            | io::ErrorKind::PermissionDenied
                            | io::ErrorKind::InvalidInput
                    ),
                    message: format!("cannot start {program}: {error}"),
                }),
            }
        })
    }

    fn lease(&self, until: Mono) {
        if let Err(error) = self.processes.lease(until) {
            // They go by what they heard last, which is never later.
            tracing::error!(%error, "guards do not hear of the lease, and will kill what hangs on it");
        }
    }

    fn wait(&self, task: TaskId, attempt: u32, handle: Handle) -> BoxFuture<'static, Exit> {
        let this = self.clone();
        Box::pin(async move {
            let ended = match handle.0.parse() {
                Ok(process) => this.processes.wait(process).await,
                Err(_) => processes::Ended::default(), // No process ever had this name.
            };
            this.clear(&this.mark(task, attempt)).await;
            this.clear_secrets(task).await;
            Exit {
                code: ended.code,
                signal: ended.signal,
                oom: ended.oom,
            }
        })
    }

    fn signal(&self, handle: &Handle, signal: Signal) {
        let Ok(process) = handle.0.parse::<ProcessId>() else {
            return;
        };
        let signal = match signal {
            Signal::Term => processes::Signal::Term,
            Signal::Kill => processes::Signal::Kill,
        };
        if let Err(error) = self.processes.signal(process, signal) {
            tracing::warn!(%process, ?signal, %error, "cannot signal");
        }
    }

    fn check(&self, assignment: Arc<Assignment>, _attempt: u32) -> BoxFuture<'static, bool> {
        let this = self.clone();
        Box::pin(async move {
            let Some(health) = &assignment.spec.health else {
                return true;
            };
            let span = Duration::from_millis(health.timeout_ms);
            let tried = match &health.check {
                HealthCheck::Exec { command } => this.run_check(&assignment, command, span).await,
                HealthCheck::Tcp { port } => this.within(span, this.connect(*port)).await,
                HealthCheck::Http { port, path } => this.within(span, this.get(*port, path)).await,
            };
            tried.unwrap_or(false)
        })
    }

    fn found(&self) -> BoxFuture<'static, Result<Vec<Found>, String>> {
        let this = self.clone();
        Box::pin(async move {
            let found = this.found_processes().await?;
            this.sweep_secrets(found.iter().map(|one| one.task).collect())
                .await;
            Ok(found)
        })
    }

    fn end_orphan(&self, task: TaskId, attempt: u32) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            this.clear(&this.mark(task, attempt)).await;
            this.clear_secrets(task).await;
        })
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'static, ()> {
        let (this, dir) = (self.clone(), self.task_dir(task));
        // A closed lane: the worker is stopping, and the directory is removed another time or by a person.
        Box::pin(async move { this.lane.run(move || remove_dir(&dir)).await.unwrap_or(()) })
    }

    fn tidy(&self) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            let (dir, bytes, kept) = (this.dir.join("tasks"), this.log_bytes, this.logs_kept);
            let now = this.clock.wall_ms();
            let rotated = this
                .lane
                .run(move || logs::rotate_all(&dir, bytes, kept, now))
                .await;
            if let Ok(Err(error)) = rotated {
                tracing::warn!(%error, "cannot rotate what tasks have written");
            }
        })
    }

    fn make_room(&self) -> BoxFuture<'static, bool> {
        let (lane, dir) = (self.lane.clone(), self.dir.join("tasks"));
        Box::pin(async move {
            match lane.run(move || logs::give_up(&dir)).await {
                Ok(Ok(Some(what))) => {
                    tracing::warn!(
                        "the disk is full, and the worker's own file comes first: {what}"
                    );
                    true
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot give up what tasks have written");
                    false
                }
                Ok(Ok(None)) | Err(_) => false,
            }
        })
    }

    fn logs(&self, task: TaskId, query: LogQuery) -> BoxFuture<'static, Result<LogPage, Refusal>> {
        let file = self.task_dir(task).join(query.stream.file_name());
        let (kept, now) = (self.logs_kept, self.clock.wall_ms());
        let read = self.lane.run(move || logs::read(&file, kept, &query, now));
        Box::pin(async move {
            match read.await {
                Ok(Ok(page)) => Ok(page),
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(never(format!(
                    "task {task} has written nothing on this worker"
                ))),
                Ok(Err(error)) => Err(not_now(format!(
                    "what task {task} has written cannot be read: {error}"
                ))),
                Err(closed) => Err(not_now(closed.to_string())),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_found_or_not() {
        assert_eq!(status(b"HTTP/1.1 204"), Some(204));
        assert_eq!(status(b"HTTP/1.0 404"), Some(404));
        assert_eq!(status(b"SSH-2.0-Open"), None);
        assert_eq!(status(b"HTTP/1.1 2\xff4"), None);
    }
}
