//! `server`: one node under the operating system's signals.
//!
//! TERM and INT stop it in order: leadership handed over, work under way finished, everything flushed, exit 0. A second
//! one, or a stop beyond its bound, ends the process at once with exit 1; nothing acknowledged is lost by that either.
//! USR1 cuts a snapshot.

use crate::logs;
use crate::start::{Ended, start};
use node::cli::{Error, Exit};
use node::config::Config;
use node::handle::Handle;
use node::knobs::Knobs;
use node::rt::{Tasks, real};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the program allows beyond the node's own limit for stopping.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Runs a node until it ends.
pub(crate) async fn run(config: Config) -> Result<Exit, Error> {
    logs::begin(&config.log.filter, config.log.format)?;
    let mut signals = Signals::new()
        .map_err(|error| Error::local(format!("cannot listen for signals: {error}"), ""))?;
    let knobs = Knobs::default();
    let stop_bound = knobs.stop_timeout + STOP_GRACE;
    let env = real::env(&config.name).map_err(|error| Error::local(error.to_string(), ""))?;
    let clock = env.clock.clone();
    let running = start(env, config, knobs)
        .await
        .map_err(|error| Error::local(format!("the node cannot start: {error}"), ""))?;
    tracing::info!(
        http = running.http_address,
        peer = running.peer_address,
        "serving"
    );
    let handle = running.handle.clone();
    let tasks = Tasks::default();
    let ended = running.ended();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            biased; // A node that has ended needs no signal any more.
            ended = &mut ended => return told(&ended),
            meaning = signals.next() => match meaning {
                Meaning::Snapshot => snapshot(&tasks, handle.clone()),
                Meaning::Stop(reason) => {
                    tracing::info!(reason, "stopping");
                    handle.stop(reason).await;
                    break;
                }
            }
        }
    }
    tokio::select! {
        biased; // A node that has stopped in order counts as such, even if the bound is up.
        ended = &mut ended => told(&ended),
        reason = signals.stop() => Err(cut_off(&format!("{reason} again"))),
        () = clock.sleep(stop_bound) => Err(cut_off(&format!("not stopped within {stop_bound:?}"))),
    }
}

/// What a signal asks for.
enum Meaning {
    /// Stop in order; the signal's name.
    Stop(&'static str),
    /// Cut a snapshot.
    Snapshot,
}

/// Signals that mean something to a node.
struct Signals {
    /// Stop.
    terminate: Signal,
    /// Stop, from a keyboard.
    interrupt: Signal,
    /// Cut a snapshot.
    snapshot: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            snapshot: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next signal.
    async fn next(&mut self) -> Meaning {
        tokio::select! {
            biased; // Whoever wants the end gets it first.
            _ = self.terminate.recv() => Meaning::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Meaning::Stop("SIGINT"),
            _ = self.snapshot.recv() => Meaning::Snapshot,
        }
    }

    /// The next signal to stop, by name.
    async fn stop(&mut self) -> &'static str {
        loop {
            if let Meaning::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}

/// Cuts a snapshot beside everything else; it may take long.
fn snapshot(tasks: &Tasks, handle: Handle) {
    tasks.spawn(async move {
        match handle.snapshot().await {
            Ok(done) => tracing::info!(
                index = %done.index, bytes = done.bytes, checksum = done.checksum, file = done.file,
                "SIGUSR1: snapshot is durable"
            ),
            Err(error) => tracing::error!(%error, "SIGUSR1: no snapshot"),
        }
    });
}

/// How the process ends when the node has.
fn told(ended: &Ended) -> Result<Exit, Error> {
    if ended.poisoned {
        return Err(Error::local(
            format!("the node gave up: {}", ended.reason),
            "everything acknowledged is on the disk; correct that, then start the node again",
        ));
    }
    tracing::info!(reason = ended.reason, "stopped");
    Ok(Exit::Ok)
}

fn cut_off(why: &str) -> Error {
    Error::local(
        format!("the node was cut off: {why}"),
        "everything acknowledged is on the disk",
    )
}
