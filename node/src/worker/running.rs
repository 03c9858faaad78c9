//! Where a worker begins and how it ends.
//!
//! It runs unchanged under the operating system and in the simulator: both give it a world ([`Env`]) and an executor.

use super::config::WorkerConfig;
use super::disk::{self, Claim, Disk};
use super::door;
use super::executor::Executor;
use super::link::{Link, Plan};
use super::managers::Managers;
use super::outbox::Outbox;
use super::shell::{self, Ask, Inputs, Surroundings};
use super::status::Status;
use super::words::{Signal, Timing};
use crate::knobs::Knobs;
use crate::rt::net::Listener;
use crate::rt::{Clock, Env, Tasks};
use crate::secrets::keyfile;
use crate::secrets::seal::{KEY_BYTES, KeyPair};
use crate::types::Incarnation;
use rand_core::RngCore;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Questions that wait for the loop at most; more are refused.
const ASKS_LEN_MAX: usize = 64;
/// Pause between two looks whether tasks that were told to end have ended.
const END_LOOK: Duration = Duration::from_millis(50);

/// Why a worker could not be started at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// Its private key cannot be read or written.
    #[error("{0}")]
    Key(String),
    /// Its address cannot be listened on.
    #[error("the worker's door: {0}")]
    Listen(std::io::Error),
    /// Its file cannot be read, or a first one not be written.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// A running worker. Dropping it changes nothing; it runs on with its tasks.
pub struct RunningWorker {
    /// Where its door is.
    pub http_address: String,
    /// How to ask it.
    view: View,
    /// What runs its tasks.
    executor: Arc<dyn Executor>,
    /// Its clock.
    clock: Clock,
    /// Everything that runs for it.
    tasks: Tasks,
    /// Set when it shall stop.
    stop: CancellationToken,
    /// Set when its loop has ended.
    gone: CancellationToken,
    /// Longest orderly stop.
    stop_timeout: Duration,
}

/// The way to ask a worker how it stands.
#[derive(Clone)]
pub(super) struct View(mpsc::Sender<Ask>);

impl View {
    /// How it stands; none when it has ended, has not begun, or has too many questions waiting.
    pub(super) async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Ask::Status(reply)).ok()?;
        answer.await.ok()
    }
}

/// Starts a worker: opens its file, asks `executor` what runs, takes that up, and goes to the managers. Answers as soon as the file
/// is open and the door is; all else takes as long as it takes.
pub async fn start(
    env: Env,
    config: WorkerConfig,
    knobs: Knobs,
    executor: Arc<dyn Executor>,
) -> Result<RunningWorker, StartError> {
    config.validate().map_err(StartError::Config)?;
    let listener = env.net.listen(&config.listen).await;
    let listener = listener.map_err(StartError::Listen)?;
    let disk = Disk::new(env.lanes.open("worker"), config.data_dir.clone());
    let claim = disk.claim().await?;
    let life = Incarnation(env.rngs.stream("worker.life").next_u64() | 1);
    let opened = disk.open(life).await?;
    if let Some(damage) = &opened.damage {
        tracing::error!(
            worker = config.machine.name,
            damage,
            "this worker begins with nothing"
        );
    }
    let pair = key_pair(&env, &config).await?;
    let managers = Managers::new(config.join.clone(), disk.managers().await);
    Ok(begin(
        &env,
        config,
        &knobs,
        executor,
        Opening {
            listener,
            disk,
            claim,
            saved: opened.saved,
            pair: Arc::new(pair),
            managers,
        },
    ))
}

/// The worker's key pair; made now if its directory has none.
async fn key_pair(env: &Env, config: &WorkerConfig) -> Result<KeyPair, StartError> {
    let mut fresh = Zeroizing::new([0; KEY_BYTES]);
    env.rngs.stream("worker.key").fill_bytes(&mut *fresh);
    let dir = config.data_dir.clone();
    let lane = env.lanes.open("worker.key");
    let opened = lane.run(move || keyfile::open(&dir, &fresh)).await;
    let opened = opened.map_err(|closed| StartError::Key(closed.to_string()))?;
    opened.map_err(StartError::Key)
}

/// What was opened before anything runs.
struct Opening {
    /// The door's socket.
    listener: Box<dyn Listener>,
    /// The worker's file.
    disk: Disk,
    /// The claim to its directory.
    claim: Claim,
    /// What it held.
    saved: super::exchange::Saved,
    /// What opens its secrets.
    pair: Arc<KeyPair>,
    /// Where managers are.
    managers: Managers,
}

/// Starts everything that runs.
fn begin(
    env: &Env,
    config: WorkerConfig,
    knobs: &Knobs,
    executor: Arc<dyn Executor>,
    opening: Opening,
) -> RunningWorker {
    let http_address = opening.listener.local_address();
    let mut machine = config.machine;
    if machine.address.is_empty() {
        machine.address.clone_from(&http_address);
    }
    machine.public_key = Some(opening.pair.public());
    let tasks = Tasks::default();
    let (stop, gone) = (CancellationToken::new(), CancellationToken::new());
    let (results, result_queue) = mpsc::channel(knobs.worker_queue_len_max);
    let (news, news_queue) = mpsc::channel(knobs.worker_queue_len_max);
    let (asks, ask_queue) = mpsc::channel(ASKS_LEN_MAX);
    let outbox = Arc::new(Outbox::default());
    let view = View(asks);
    let around = Surroundings {
        clock: env.clock.clone(),
        tasks: tasks.clone(),
        executor: Arc::clone(&executor),
        disk: opening.disk.clone(),
        outbox: Arc::clone(&outbox),
        results,
        pair: opening.pair,
        stop: stop.clone(),
        name: machine.name.clone(),
        retry: knobs.worker_save_retry,
    };
    let inputs = Inputs {
        results: result_queue,
        news: news_queue,
        asks: ask_queue,
    };
    let plan = Plan {
        disk: opening.disk,
        outbox,
        news,
        machine,
        token: config.token,
        managers: opening.managers,
    };
    let (ends, claim) = (gone.clone().drop_guard(), opening.claim);
    let round = shell::run(opening.saved, Timing::of(knobs), around, inputs);
    tasks.spawn(async move {
        round.await;
        drop((ends, claim));
    });
    tasks.spawn(Link::new(env, &tasks, knobs, plan).run());
    tasks.spawn(door::serve(
        env,
        &tasks,
        opening.listener,
        view.clone(),
        Arc::clone(&executor),
    ));
    tasks.spawn(tidy(
        env.clock.clone(),
        knobs.worker_tidy,
        Arc::clone(&executor),
    ));
    RunningWorker {
        http_address,
        view,
        executor,
        clock: env.clock.clone(),
        tasks,
        stop,
        gone,
        stop_timeout: knobs.stop_timeout,
    }
}

/// Keeps what tasks have written within its bounds.
async fn tidy(clock: Clock, every: Duration, executor: Arc<dyn Executor>) {
    loop {
        clock.sleep(every).await;
        executor.tidy().await;
    }
}

impl RunningWorker {
    /// How it stands; none when it has ended, or does not know yet what runs.
    pub async fn status(&self) -> Option<Status> {
        self.view.status().await
    }

    /// Ends when the worker has ended, by whatever.
    pub async fn ended(&self) {
        self.gone.cancelled().await;
    }

    /// Stops it in order. Its tasks run on, but for those with a single-writer volume, which end with this process.
    pub async fn stop(self) {
        self.halt().await;
    }

    /// Stops it, and its tasks with it: they are told to end, and killed when `grace` is over.
    pub async fn stop_with_tasks(self, grace: Duration) {
        self.halt().await;
        if let Ok(found) = self.executor.found().await {
            for found in &found {
                self.executor.signal(&found.handle, Signal::Term);
            }
        }
        let all_ended = async {
            while self
                .executor
                .found()
                .await
                .is_ok_and(|found| !found.is_empty())
            {
                self.clock.sleep(END_LOOK).await;
            }
        };
        if self.clock.timeout(grace, all_ended).await.is_ok() {
            return;
        }
        for found in self.executor.found().await.unwrap_or_default() {
            self.executor.end_orphan(found.task, found.attempt).await;
        }
    }

    /// Ends it at once, as a kill would: nothing more is written.
    pub async fn cut_off(self) {
        self.tasks.stop().await;
    }

    /// Lets the loop end, within the bound, and then everything else.
    async fn halt(&self) {
        self.stop.cancel();
        let ended = self.clock.timeout(self.stop_timeout, self.gone.cancelled());
        if let Err(elapsed) = ended.await {
            tracing::warn!(%elapsed, "the worker did not stop in order");
        }
        self.tasks.stop().await;
    }
}
