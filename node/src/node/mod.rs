//! The node: one loop that owns a Raft group's state machine, and the few tasks around it.
//!
//! # Append, sync, send, apply, answer
//!
//! ```text
//!  clients ──▶ api ──▶ Handle ──▶ requests ┐
//!  peers ────▶ transport ────▶ inbound ────┤
//!  clock ─────────────────────▶ tick ──────┼──▶ run: one loop owns Core, Writer, Applier, Proposals, Reads
//!  lanes ──▶ written, applied, cut ────────┘          │
//!                                                     ▼
//!     Core.work ──▶ messages ──────────────────────▶ send at once (a leader's entries overlap its own sync)
//!               ──▶ entries, vote ──▶ Writer (lane "wal": append, sync) ──▶ Core.persisted ──▶ send what waited for it
//!               ──▶ committed ─────▶ Applier (lane "store") ──▶ answers, watches, Core.applied
//!               ──▶ read states ───▶ Reads ──▶ (lane "read") ──▶ answers
//! ```
//!
//! The reason for each arrow:
//! - *A leader sends before it syncs* (thesis 10.2.1): followers' syncs and its own run side by side. Its own copy counts
//!   for the majority only after [`Core::persisted`](crate::raft::Core::persisted).
//! - *A follower answers after its sync*, and a vote leaves after it is durable: both are promises.
//! - *The next batch gathers while one is synced*: one `fdatasync` carries all that came meanwhile (group commit).
//! - *The commit index travels with the next append*, or by itself after 1 ms: a message and an answer for each follower less.
//! - *Entries are applied only when committed and durable here*; on a leader, applying overlaps with the next write. A follower's waits
//!   for the sync under way (5 ms at most), for which the leader waits, too.
//! - *A client is answered after its entry is applied*, so that it can read what it wrote on this node.
//!
//! Reading order: `boot`, how a node finds out who it is, with `datadir` and `seat`; `run`, the loop; `persist`, `apply`,
//! `proposals`, `reads`, `leases`, what the loop owns; `chores`, what time alone changes; `handover`, when a leader gives up the
//! lead; `members`, `snapshots`, `serve`, what it does on request; `report`, what it tells.
//!
//! # Caveats
//!
//! Founding needs all founders up at once, one time (a majority would do for Raft, but not for knowing each member's
//! incarnation, on which the protection against lost disks rests). One loop serves one group; more groups get loops of their own over
//! the same writer when they come.

mod apply;
mod boot;
mod chores;
mod datadir;
mod handover;
mod leases;
mod members;
mod persist;
mod proposals;
mod reads;
mod report;
mod run;
mod seat;
mod serve;
mod snapshots;

use crate::config::{Config, Level};
use crate::fleet::feed::Feed;
use crate::handle::{Condition, Handle, Status};
use crate::knobs::Knobs;
use crate::manager::Asked;
use crate::metrics::Metrics;
use crate::rt::{Env, Event, Tasks};
use crate::secrets::Vault;
use crate::transport::{Door, Setup, Transport};
use crate::types::{ClusterId, Incarnation, Index, NodeId, Revision, Role, Term};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Why a node could not be started at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// An address cannot be listened on.
    #[error("{what}: {source}")]
    Listen {
        /// Which door.
        what: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: String,
    /// True when it gave up (disk failure, broken invariant); false after an orderly stop.
    pub poisoned: bool,
}

/// A running node.
pub struct Running {
    /// The way to talk to it.
    pub handle: Handle,
    /// Where its HTTP door is.
    pub http_address: String,
    /// Where its peer door is.
    pub peer_address: String,
    /// Told when it has ended.
    ended: oneshot::Receiver<Ended>,
}

impl Running {
    /// Ends when the node has ended, and says how.
    pub async fn ended(self) -> Ended {
        let lost = Ended {
            reason: "the node's loop is gone".to_owned(),
            poisoned: true,
        };
        self.ended.await.unwrap_or(lost)
    }
}

/// What every part of a node shares.
#[derive(Clone)]
struct Shared {
    /// The world.
    env: Env,
    /// The operator's configuration.
    config: Arc<Config>,
    /// Our numbers.
    knobs: Knobs,
    /// The node's tasks.
    tasks: Tasks,
    /// Whom the peer door lets in.
    door: Arc<Door>,
    /// Connections to peers.
    transport: Transport,
    /// The numbers it tells of itself.
    metrics: Metrics,
    /// The picture of the node.
    status: Arc<watch::Sender<Status>>,
    /// The fleet as applied.
    fleet: Arc<Feed>,
    /// Calls for the manager's task.
    manager: mpsc::Sender<Asked>,
}

impl Shared {
    /// Changes the picture's condition.
    fn set_condition(&self, condition: Condition) {
        self.status.send_if_modified(|status| {
            let changed = status.condition != condition;
            if changed {
                tell(&status.name, &condition);
            }
            status.condition = condition;
            changed
        });
    }

    /// Records that the node gives up.
    fn poisoned(&self, reason: &str) -> Ended {
        let reason = reason.to_owned();
        self.env.journal.record(Event::Poisoned {
            reason: reason.clone(),
        });
        self.set_condition(Condition::Poisoned {
            reason: reason.clone(),
        });
        Ended {
            reason,
            poisoned: true,
        }
    }
}

/// Starts a node: opens its doors, then its data, then takes part. The doors answer from the first moment (health says what it
/// waits for); the future ends when they are open.
pub async fn start(env: Env, config: Config, knobs: Knobs) -> Result<Running, StartError> {
    let wrong = config
        .validate()
        .into_iter()
        .filter(|one| one.level == Level::Error);
    let wrong: Vec<String> = wrong.map(|one| one.to_string()).collect();
    if !wrong.is_empty() {
        return Err(StartError::Config(wrong.join("; ")));
    }
    let knobs = adjusted(knobs, &config);
    let listen = async |what, address: &str| {
        env.net
            .listen(address)
            .await
            .map_err(|source| StartError::Listen { what, source })
    };
    let peer_listener = listen("peer door (listen.peer)", &config.listen.peer).await?;
    let http_listener = listen("HTTP door (listen.http)", &config.listen.http).await?;
    let (peer_address, http_address) =
        (peer_listener.local_address(), http_listener.local_address());

    let tasks = Tasks::default();
    let metrics = Metrics::new();
    let (status, pictures) = watch::channel(first_picture(&config));
    let (fleet, fleets) = Feed::new();
    let (requests, request_queue) = mpsc::channel(knobs.request_queue_len_max);
    let (inbound, inbox) = mpsc::channel(knobs.inbox_len_max);
    let text = metrics.clone();
    let handle = Handle::new(
        requests,
        pictures,
        fleets,
        env.clock.clone(),
        knobs.request_timeout,
        Arc::new(move || text.render()),
    );
    let vault = Vault::new(&env, config.data_dir.clone());
    let handle = handle.with_vault(vault.clone());
    let door = Arc::new(Door::default());
    let transport = Transport::start(Setup {
        env: env.clone(),
        knobs: knobs.clone(),
        tasks: tasks.clone(),
        listener: peer_listener,
        gate: Arc::clone(&door) as Arc<dyn crate::transport::Gate>,
        inbound,
        advertise: config.peer_address(),
    });
    let options = crate::api::Options {
        name: config.name.clone(),
        limits: config.limits.clone(),
        watch_progress: knobs.watch_progress,
    };
    crate::api::serve(
        &env,
        &tasks,
        http_listener,
        handle.clone(),
        metrics.clone(),
        options,
    );
    let (manager, calls) = mpsc::channel(knobs.request_queue_len_max);
    tasks.spawn(crate::manager::run(
        env.clone(),
        knobs.clone(),
        handle.clone(),
        metrics.clone(),
        calls,
    ));
    let keeper = crate::secrets::keeper::run(env.clock.clone(), handle.clone(), vault);
    tasks.spawn(keeper);
    let shared = Shared {
        env,
        config: Arc::new(config),
        knobs,
        tasks: tasks.clone(),
        door,
        transport,
        metrics,
        status: Arc::new(status),
        fleet: Arc::new(fleet),
        manager,
    };
    let (tell, ended) = oneshot::channel();
    crate::rt::tasks::detach(async move {
        let claimed = datadir::claim(&shared).await;
        let end = match &claimed {
            Ok(_) => live(shared, request_queue, inbox).await,
            Err(reason) => shared.poisoned(reason),
        };
        tasks.stop().await;
        // Nothing writes any more: another process may have the directory.
        drop(claimed);
        // Nobody may be waiting for the end.
        drop(tell.send(end));
    });
    Ok(Running {
        handle,
        http_address,
        peer_address,
        ended,
    })
}

/// A node's life: find out who it is, then take part until the end.
async fn live(
    shared: Shared,
    mut requests: mpsc::Receiver<crate::handle::Request>,
    mut inbox: mpsc::Receiver<crate::transport::Inbound>,
) -> Ended {
    let booted = match boot::boot(&shared, &mut requests, &mut inbox).await {
        Ok(booted) => booted,
        Err(boot::Halt::Stopped(reason)) => {
            return Ended {
                reason,
                poisoned: false,
            };
        }
        Err(boot::Halt::Failed(reason)) => return shared.poisoned(&reason),
    };
    match run::Run::new(shared.clone(), booted, requests, inbox) {
        Ok(run) => run.run().await,
        Err(reason) => shared.poisoned(&reason),
    }
}

/// Knobs that an operator may set, taken from the configuration.
fn adjusted(mut knobs: Knobs, config: &Config) -> Knobs {
    if let Some(entries) = config.storage.snapshot_entries {
        knobs.snapshot_entries = entries;
    }
    if let Some(bytes) = config.storage.disk_low_bytes {
        knobs.disk_low_bytes = bytes;
    }
    if let Some(ms) = config.workers.down_after_ms {
        knobs.worker_down = std::time::Duration::from_millis(ms);
    }
    knobs
}

/// Says in the log what a person waits for; the rest of a node's life is told by its journal.
fn tell(node: &str, condition: &Condition) {
    match condition {
        Condition::Starting { waiting_for } => tracing::info!(node, "waits for {waiting_for}"),
        Condition::Rejoining { reason } => tracing::warn!(node, "votes for nobody: {reason}"),
        Condition::Removed => tracing::warn!(
            node,
            "this node is no member any more: stop it; with an empty data directory it can join again"
        ),
        Condition::Running | Condition::Poisoned { .. } | Condition::Stopping => {}
    }
}

/// The picture before anything is known.
fn first_picture(config: &Config) -> Status {
    Status {
        cluster_id: ClusterId(0),
        id: NodeId(0),
        name: config.name.clone(),
        incarnation: Incarnation(0),
        condition: Condition::Starting {
            waiting_for: "its data to be opened".to_owned(),
        },
        role: Role::Learner,
        term: Term(0),
        leader: NodeId(0),
        commit_index: Index(0),
        applied_index: Index(0),
        last_index: Index(0),
        first_index: Index(0),
        revision: Revision(0),
        compacted_revision: Revision(0),
        key_count: 0,
        members: Vec::new(),
        read_only: false,
        elections: 0,
        state_hash: String::new(),
    }
}
