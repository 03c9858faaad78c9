//! The workers of `dev`: a token, and workers w1..wN in the same process, whose tasks end with it, however it ends.

use crate::worker::{self, Means};
use node::cli::Error;
use node::config::Founder;
use node::fleet::Command;
use node::fleet::command::Machine;
use node::handle::Handle;
use node::knobs::Knobs;
use node::rt::{Clock, Tasks, real};
use node::service::spec::Amounts;
use node::worker::{RunningWorker, WorkerConfig};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the token is good: workers join at once.
const TOKEN_TTL: Duration = Duration::from_secs(600);
/// Longest wait for the cluster to take the token.
const TOKEN_WAIT: Duration = Duration::from_secs(10);

/// Longest end of all workers and their tasks.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Where a worker listens.
pub(crate) fn address(number: u16, base: u16) -> String {
    format!("127.0.0.1:{}", base + 200 + number)
}

/// Makes a token and starts `count` workers that share the machine.
pub(crate) async fn start(
    count: u16,
    base: u16,
    handle: &Handle,
    members: &[Founder],
    home: &Path,
) -> Result<Vec<RunningWorker>, Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let token = token(handle).await?;
    let host = real::host();
    let share = |amount: u64| (amount / u64::from(count)).max(1);
    // Nobody starts them again: a task that outlived a `kill -9` of this program would be nobody's.
    let means = Means {
        is_tied: true,
        ..Means::default()
    };
    let mut workers = Vec::new();
    for number in 1..=count {
        let name = format!("w{number}");
        let config = WorkerConfig {
            machine: Machine {
                name: name.clone(),
                capacity: Amounts {
                    cpu_milli: share(host.cpu_milli),
                    memory_bytes: share(host.memory_bytes),
                },
                ..Machine::default()
            },
            join: members.iter().map(|one| one.http.clone()).collect(),
            token: Some(token.clone()),
            data_dir: home.join(name),
            listen: address(number, base),
        };
        workers.push(worker::start(config, Knobs::default(), &means).await?);
    }
    Ok(workers)
}

/// Ends the workers and their tasks, all at once, within a bound.
pub(crate) async fn stop(workers: Vec<RunningWorker>, clock: &Clock) {
    let (tasks, (stopped, mut all_stopped)) = (Tasks::default(), mpsc::channel::<()>(1));
    for worker in workers {
        let stopped = stopped.clone();
        tasks.spawn(async move {
            worker.stop_with_tasks(worker::GRACE).await;
            drop(stopped);
        });
    }
    drop(stopped);
    // It closes when the last has stopped.
    let stopping = clock.timeout(STOP_MAX, all_stopped.recv()).await;
    if stopping.is_err() {
        tracing::error!("not all tasks have ended: look for SEAWORTHY_MARK in /proc/*/environ");
    }
}

/// A new token that the cluster has taken.
async fn token(handle: &Handle) -> Result<String, Error> {
    let secret = real::secret().map_err(|error| Error::local(error.to_string(), ""))?;
    let token = format!("swt-{secret}");
    let create = Command::TokenCreate {
        hash: hex(&Sha256::digest(token.as_bytes())),
        ttl_ms: u64::try_from(TOKEN_TTL.as_millis()).unwrap_or(u64::MAX),
        role: node::fleet::TokenRole::Worker,
    };
    match handle.command(&create, Some(TOKEN_WAIT)).await {
        Ok(_) => Ok(token),
        Err(error) => Err(Error::local(
            format!("the cluster takes no token for the workers: {error}"),
            "start again with --log info",
        )),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text += &format!("{byte:02x}");
        text
    })
}
