//! The overseer of a live run: asks managers again and again what they have, and keeps what measures need.
//!
//! In simulation every fleet that a manager holds is seen; here it is what the public API tells, every [`LOOK`], and only when all
//! parts of an answer are of the same entry. So a moment is known to about that, and what came and went in between is not seen.

use crate::cluster::Cluster;
use anyhow::{Context, Result, bail, ensure};
use node::api::fleet_wire::{
    NodeInfo, NodesAnswer, ServiceInfo, ServicesAnswer, TaskInfo, TasksAnswer,
};
use node::api::story_wire::{EventInfo, EventsAnswer};
use node::fleet::Fleet;
use node::scheduler::model::{Service, Status, Task, Worker};
use node::types::{TaskId, WorkerId};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use workloads::looks::Looks;

/// How often managers are asked.
pub(crate) const LOOK: Duration = Duration::from_millis(150);
/// Longest wait for one answer.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Events of one question.
const EVENTS: usize = 1_000;

/// What has been seen.
#[derive(Default)]
struct Seen {
    /// Looks at services, and notes.
    looks: Looks,
    /// The entry of the newest fleet.
    index: u64,
    /// The version of each task.
    versions: BTreeMap<TaskId, u64>,
}

/// The overseer. A clone is the same.
#[derive(Clone)]
pub(crate) struct Overseer {
    /// Whom it asks.
    cluster: Cluster,
    /// What it has seen.
    seen: Arc<Mutex<Seen>>,
}

impl Overseer {
    /// One who has seen nothing.
    pub(crate) fn new(cluster: Cluster) -> Self {
        Overseer {
            cluster,
            seen: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest fleet.
    pub(crate) fn newest(&self) -> Arc<Fleet> {
        Arc::clone(&self.lock().looks.newest)
    }

    /// Looks and notes so far.
    pub(crate) fn seen(&self) -> Looks {
        self.lock().looks.clone()
    }

    /// The version of each task that was ever seen.
    pub(crate) fn versions(&self) -> BTreeMap<TaskId, u64> {
        self.lock().versions.clone()
    }

    /// Asks for ever.
    pub(crate) async fn watch(self) {
        loop {
            self.look().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks once, the first manager that answers.
    pub(crate) async fn look(&self) {
        for name in self.cluster.running() {
            let Some(endpoint) = self.cluster.endpoint(&name) else {
                continue;
            };
            if let Ok(fleet) = fleet_at(&endpoint).await {
                return self.take(fleet);
            }
        }
    }

    /// Takes what a manager has.
    fn take(&self, fleet: Fleet) {
        let now = self.cluster.clock.now();
        let mut seen = self.lock();
        if fleet.index < seen.index {
            return;
        }
        seen.index = fleet.index;
        for (id, task) in &fleet.snapshot.tasks {
            seen.versions.insert(*id, task.version);
        }
        let told = seen.looks.notes.len();
        seen.looks.take(now, &Arc::new(fleet));
        for note in seen.looks.notes.iter().skip(told) {
            if let Some(probe) = note.probe() {
                self.cluster.story.probe(probe);
            }
        }
    }

    /// Puts what managers say has happened into the story.
    pub(crate) async fn tell_events(&self) -> Result<()> {
        let name = self.cluster.leader().await.context("nobody leads")?;
        let endpoint = self.cluster.endpoint(&name).unwrap_or_default();
        let mut after = 0;
        loop {
            let path = format!("/v1/events?limit={EVENTS}&after={after}");
            let answer: EventsAnswer = ask(&endpoint, "GET", &path, "").await?;
            for event in &answer.events {
                self.tell(event);
            }
            match answer.events.last() {
                Some(last) if answer.more && last.index > after => after = last.index,
                _ => return Ok(()),
            }
        }
    }

    fn tell(&self, event: &EventInfo) {
        let at = self.cluster.clock.of_millis(event.time_ms);
        let text = format!("{}: {}", event.kind, event.message);
        self.cluster.story.line(at, "fleet", &text);
    }
}

/// What a manager has, all of one entry.
async fn fleet_at(endpoint: &str) -> Result<Fleet> {
    let services: ServicesAnswer = ask(endpoint, "GET", "/v1/services", "").await?;
    let tasks: TasksAnswer = ask(endpoint, "GET", "/v1/tasks", "").await?;
    let nodes: NodesAnswer = ask(endpoint, "GET", "/v1/nodes", "").await?;
    let (first, last) = (services.fresh.applied_index, nodes.fresh.applied_index);
    ensure!(
        first == last && tasks.fresh.applied_index == first,
        "something changed between the answers"
    );
    let mut fleet = Fleet::default();
    fleet.index = first.0;
    let snapshot = &mut fleet.snapshot;
    for info in nodes.nodes {
        if let Some(worker) = worker(info) {
            snapshot.workers.insert(worker.id, worker);
        }
    }
    for info in services.services {
        snapshot.services.insert(info.id, service(info));
    }
    for info in tasks.tasks {
        snapshot.tasks.insert(info.id, task(info));
    }
    Ok(fleet)
}

/// A worker, as far as the API tells; none for a manager.
fn worker(info: NodeInfo) -> Option<Worker> {
    let about = info.worker?;
    Some(Worker {
        id: WorkerId(info.id),
        name: info.name,
        labels: about.labels,
        platform: about.platform,
        containers: about.containers,
        capacity: about.capacity,
        availability: about.availability,
        status: match info.status.as_str() {
            "ready" => Status::Ready,
            "down" => Status::Down,
            _ => Status::Joining,
        },
        epoch: about.epoch,
    })
}

/// A service, as far as the API tells.
fn service(info: ServiceInfo) -> Service {
    let mut service = Service::new(info.id, info.spec);
    service.current.version = info.version;
    service.current.contents = info.contents;
    service.rollout.phase = info.rollout.phase;
    service.rollout.failures = info.rollout.failures;
    service.removing = info.removing;
    service.rebalancing = info.rebalancing;
    service
}

/// A task, as far as the API tells.
fn task(info: TaskInfo) -> Task {
    Task {
        id: info.id,
        service: info.service_id,
        slot: info.slot,
        version: info.version,
        worker: info.node_id,
        desired: info.desired,
        state: info.state,
        lost_ms: info.lost_ms,
        created_ms: info.created_ms,
        assigned_ms: info.assigned_ms,
        changed_ms: info.changed_ms,
        running_since_ms: info.running_since_ms,
        ..Task::default()
    }
}

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The manager said so.
    Refused(node::error::Error),
    /// It is not known what became of it.
    Unknown(anyhow::Error),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoAnswer::Refused(error) => error.fmt(out),
            NoAnswer::Unknown(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// One question on a connection of its own.
pub(crate) async fn ask<T: DeserializeOwned>(
    endpoint: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Result<T, NoAnswer> {
    let asked = tokio::time::timeout(ASK_MAX, talk(endpoint, method, path, body)).await;
    let late = |_| NoAnswer::Unknown(anyhow::anyhow!("no answer within {ASK_MAX:?}"));
    let (status, body) = asked.map_err(late)?.map_err(NoAnswer::Unknown)?;
    if status == 200 {
        return serde_json::from_str(&body).map_err(|error| NoAnswer::Unknown(error.into()));
    }
    match serde_json::from_str(&body) {
        Ok(error) => Err(NoAnswer::Refused(error)),
        Err(_) => Err(NoAnswer::Unknown(anyhow::anyhow!(
            "status {status}: {body}"
        ))),
    }
}

/// Status and body of an answer.
async fn talk(endpoint: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {endpoint}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{endpoint} broke off");
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("{endpoint} does not speak HTTP"))?;
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding");
    ensure!(!is_chunked, "{endpoint} answers in chunks");
    Ok((status, body.to_owned()))
}
