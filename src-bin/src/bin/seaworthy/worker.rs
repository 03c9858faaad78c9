//! `worker start`: one worker under the operating system's signals.
//!
//! TERM and INT stop it in order, and leave its tasks running unless it was told otherwise; a second one ends the process at once. Tasks
//! survive that too: the next start takes them up again.

use crate::logs;
use node::cli::worker::Run;
use node::cli::{Error, Exit};
use node::config::LogFormat;
use node::knobs::Knobs;
use node::rt::process::ContainerRuntime;
use node::rt::{Images, real};
use node::service::spec::Amounts;
use node::worker::container::{ContainerExecutor, Containers};
use node::worker::executor::Executor;
use node::worker::process::ProcessExecutor;
use node::worker::{RunningWorker, WorkerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long tasks get to end in order when they end with their worker.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Runs a worker until it is told to stop.
pub(crate) async fn run(run: Run) -> Result<Exit, Error> {
    logs::begin(&run.log, LogFormat::Text)?;
    let listen = |kind| {
        signal(kind)
            .map_err(|error| Error::local(format!("cannot listen for signals: {error}"), ""))
    };
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let means = Means {
        runtime: run.runtime,
        registry_credentials: run.registry_credentials,
        secrets_dir: run.secrets_dir,
        is_tied: false,
    };
    let worker = start(run.config, Knobs::default(), &means).await?;
    tracing::info!(http = worker.http_address, "worker runs");
    tokio::select! {
        biased; // A worker that has ended needs no signal any more.
        () = worker.ended() => return Err(Error::local("the worker has ended", "its log says why")),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    let stopping = async {
        match run.stops_tasks {
            true => worker.stop_with_tasks(GRACE).await,
            false => worker.stop().await,
        }
    };
    tokio::select! {
        biased; // A worker that has stopped in order counts as such.
        () = stopping => Ok(Exit::Ok),
        _ = terminate.recv() => Err(cut_off()),
        _ = interrupt.recv() => Err(cut_off()),
    }
}

/// With what a worker runs tasks.
#[derive(Debug)]
pub(crate) struct Means {
    /// What runs containers, if not the first program that is found.
    pub(crate) runtime: Option<PathBuf>,
    /// Credentials for registries.
    pub(crate) registry_credentials: Option<PathBuf>,
    /// Where files of secrets go.
    pub(crate) secrets_dir: PathBuf,
    /// Whether tasks end with this program, however it ends.
    pub(crate) is_tied: bool,
}

impl Default for Means {
    fn default() -> Self {
        Means {
            runtime: None,
            registry_credentials: None,
            secrets_dir: node::worker::secrets::BASE.into(),
            is_tied: false,
        }
    }
}

/// Starts a worker that runs tasks as processes of this machine, and as containers if something here runs those.
pub(crate) async fn start(
    mut config: WorkerConfig,
    knobs: Knobs,
    means: &Means,
) -> Result<RunningWorker, Error> {
    let called = config.machine.name.clone();
    let wrong = |error: &dyn std::fmt::Display| {
        Error::local(format!("worker {called} cannot start: {error}"), "")
    };
    let env = real::env(&config.machine.name).map_err(|error| wrong(&error))?;
    let host = real::host();
    let dir = std::path::absolute(&config.data_dir).map_err(|error| wrong(&error))?;
    let (machine, name) = (&mut config.machine, config.data_dir.display().to_string());
    machine.platform = host.platform.clone();
    let runtime = container_runtime(means.runtime.as_deref()).map_err(|error| wrong(&error))?;
    machine.containers = runtime.is_some();
    let given = |said: u64, has: u64| if said == 0 { has } else { said };
    machine.capacity = Amounts {
        cpu_milli: given(machine.capacity.cpu_milli, host.cpu_milli),
        memory_bytes: given(machine.capacity.memory_bytes, host.memory_bytes),
    };
    config.data_dir = dir.clone();
    let executor: Arc<dyn Executor> = match runtime {
        None => {
            let executor = ProcessExecutor::new(&env, dir, &knobs);
            let executor = executor.with_secrets_dir(&means.secrets_dir);
            match means.is_tied {
                true => Arc::new(executor.tied_to_program()),
                false => Arc::new(executor),
            }
        }
        Some(runtime) => {
            tracing::info!(program = %runtime.program.display(), "runs containers");
            let containers = Containers {
                runtime,
                images: images(means.registry_credentials.as_deref())
                    .map_err(|error| wrong(&error))?,
                platform: host.platform,
            };
            let executor = ContainerExecutor::new(&env, dir, &knobs, containers);
            let executor = executor.with_secrets_dir(&means.secrets_dir);
            match means.is_tied {
                true => Arc::new(executor.tied_to_program()),
                false => Arc::new(executor),
            }
        }
    };
    let started = node::worker::start(env, config, knobs, executor).await;
    started.map_err(|error| Error::local(format!("the worker in {name} cannot start: {error}"), ""))
}

/// What runs containers here.
#[expect(
    clippy::disallowed_methods,
    reason = "where programs are is the operating system's to say"
)]
fn container_runtime(named: Option<&Path>) -> std::io::Result<Option<ContainerRuntime>> {
    let path = std::env::var("PATH").unwrap_or_default();
    real::container_runtime(named, &path)
}

/// Where images come from; a simulator's build has no registries.
#[cfg(not(madsim))]
fn images(credentials: Option<&Path>) -> Result<Images, String> {
    registry::images(credentials)
}

#[cfg(madsim)]
fn images(_: Option<&Path>) -> Result<Images, String> {
    Ok(Images::none())
}

fn cut_off() -> Error {
    Error::local(
        "the worker was cut off by a second signal",
        "its tasks run on, and are taken up again at the next start",
    )
}
