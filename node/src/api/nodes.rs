//! Nodes: managers and workers listed, workers drained, labelled and removed.

use super::call::{Call, json};
use super::fleet_wire::{LabelsRequest, NodeAnswer, NodeInfo, NodesAnswer, TaskInfo};
use super::services::{absent, commit, read};
use super::wire::Fresh;
use crate::error::{Code, Error};
use crate::fleet::meeting::{self, Silence};
use crate::fleet::{Command, Fleet};
use crate::handle::{Consistency, Status};
use crate::scheduler::model::{Availability, Worker};
use crate::types::WorkerId;
use axum::response::Response;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// `GET /v1/nodes`.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let (fleet, fresh, silences) = read_heard(&call).await?;
    let status = call.api.handle.status();
    let managers = status.members.iter().map(NodeInfo::of_member);
    let workers = fleet.snapshot.workers.values();
    let workers = workers.map(|worker| silences.of_node(NodeInfo::of_worker(&fleet, worker)));
    let nodes = managers.chain(workers).collect();
    json(&NodesAnswer { nodes, fresh })
}

/// `GET /v1/nodes/{name}`: the worker of that name, or else the manager.
pub(super) async fn show(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let (fleet, fresh, silences) = read_heard(&call).await?;
    let status = call.api.handle.status();
    let (node, tasks) = match fleet.worker(&name) {
        Some(worker) => {
            let here = fleet.snapshot.tasks.values();
            let here = here.filter(|task| task.worker == Some(worker.id) && !task.state.is_end());
            let tasks = here.map(|task| silences.of_task(TaskInfo::of(&fleet, task)));
            let node = silences.of_node(NodeInfo::of_worker(&fleet, worker));
            (node, tasks.collect())
        }
        None => (manager(&fleet, &status, &name)?, Vec::new()),
    };
    json(&NodeAnswer { node, tasks, fresh })
}

/// Longest wait for what the leader has heard: the answer does without.
const HEARD_WAIT: Duration = Duration::from_secs(1);

/// How long workers have been silent. Only the leader knows, and it keeps that in memory: this is what it said when the question came,
/// and nothing when there is no leader to say it.
#[derive(Default)]
pub(super) struct Silences(BTreeMap<WorkerId, Silence>);

/// The fleet, as fresh as asked, with what its leader has heard of workers meanwhile.
pub(super) async fn read_heard(call: &Call) -> Result<(Arc<Fleet>, Fresh, Silences), Error> {
    if let Consistency::Local = call.consistency()? {
        // Nobody else is asked for what this node has.
        let (fleet, fresh) = read(call).await?;
        return Ok((fleet, fresh, Silences::default()));
    }
    let (read, silences) = futures::future::join(read(call), Silences::ask(call)).await;
    let (fleet, fresh) = read?;
    Ok((fleet, fresh, silences))
}

impl Silences {
    /// As the leader knows now.
    async fn ask(call: &Call) -> Self {
        let handle = &call.api.handle;
        if handle.status().leader_info().is_none() {
            return Silences::default();
        }
        let asked = handle.dispatch(None, meeting::Call::Silences, Some(HEARD_WAIT));
        match asked.await {
            Ok(meeting::Reply::Silences { workers }) => {
                Silences(workers.into_iter().map(|one| (one.worker, one)).collect())
            }
            _ => Silences::default(),
        }
    }

    /// A worker with what is known of its silence.
    fn of_node(&self, mut node: NodeInfo) -> NodeInfo {
        if let (Some(worker), Some(silence)) = (&mut node.worker, self.0.get(&WorkerId(node.id))) {
            worker.heard_ms_ago = Some(silence.ago_ms);
            worker.suspected = silence.is_suspect;
        }
        node
    }

    /// A task with what is known of its node's silence.
    pub(super) fn of_task(&self, mut task: TaskInfo) -> TaskInfo {
        let silence = task.node_id.and_then(|node| self.0.get(&node));
        let silence = silence.filter(|one| one.is_suspect && !task.state.is_end());
        task.node_silent_ms = silence.map(|one| one.ago_ms);
        task
    }
}

/// The manager called `name`.
fn manager(fleet: &Fleet, status: &Status, name: &str) -> Result<NodeInfo, Error> {
    let mut members = status.members.iter();
    let found = members.find(|one| one.member.name == name);
    found.map(NodeInfo::of_member).ok_or_else(|| {
        let members = status.members.iter().map(|one| one.member.name.as_str());
        let workers = fleet.snapshot.workers.values();
        absent("node", name, members.chain(workers.map(|one| &*one.name)))
    })
}

/// The worker called `name`; a manager of that name is told apart.
pub(super) fn worker<'a>(
    fleet: &'a Fleet,
    status: &Status,
    name: &str,
) -> Result<&'a Worker, Error> {
    fleet.worker(name).ok_or_else(|| {
        let mut members = status.members.iter();
        if members.any(|one| one.member.name == name) {
            return Error::new(
                Code::Conflict,
                format!("{name} is a manager, and no worker"),
            )
            .hint("`seaworthy cluster members` is about managers");
        }
        let workers = fleet.snapshot.workers.values();
        absent("worker", name, workers.map(|one| one.name.as_str()))
    })
}

/// `DELETE /v1/nodes/{name}`.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    let name = known(&call).await?;
    let force = call.flag("force")?;
    done(&call, Command::WorkerRemove { name, force }).await
}

/// `POST /v1/nodes/{name}/drain`.
pub(super) async fn drain(call: Call) -> Result<Response, Error> {
    set(call, Some(Availability::Drain), BTreeMap::new()).await
}

/// `POST /v1/nodes/{name}/activate`.
pub(super) async fn activate(call: Call) -> Result<Response, Error> {
    set(call, Some(Availability::Active), BTreeMap::new()).await
}

/// `PUT /v1/nodes/{name}/labels`.
pub(super) async fn label(call: Call) -> Result<Response, Error> {
    let LabelsRequest { labels } = call.json()?;
    set(call, None, labels).await
}

async fn set(
    call: Call,
    availability: Option<Availability>,
    labels: BTreeMap<String, Option<String>>,
) -> Result<Response, Error> {
    let name = known(&call).await?;
    let command = Command::WorkerSet {
        name,
        availability,
        labels,
    };
    done(&call, command).await
}

/// The worker's name in the path. This node may not know it yet, so it is only told apart from managers here.
async fn known(call: &Call) -> Result<String, Error> {
    let name = call.path_text("name")?;
    let (fleet, status) = (call.api.handle.fleet(), call.api.handle.status());
    match worker(&fleet, &status, &name) {
        Err(error) if error.code == Code::Conflict => Err(error),
        _ => Ok(name),
    }
}

/// Commits a command that has nothing more to say.
pub(super) async fn done(call: &Call, command: Command) -> Result<Response, Error> {
    let (_, place) = commit(call, &command).await?;
    json(&place)
}
