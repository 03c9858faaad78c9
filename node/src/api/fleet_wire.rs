//! The JSON of services, tasks, nodes, volumes and tokens, as types both sides share. What happened, why, and what would be is in
//! [`super::story_wire`].
//!
//! Every field with a unit names it (`_ms`, `_bytes`), states are words, and a name stands beside each id. Times are stamps of
//! leaders, milliseconds since the Unix epoch. Built from a [`Fleet`] and nothing else.

use super::wire::{Fresh, Place};
use crate::fleet::{Fleet, TokenRole};
use crate::scheduler::filter::Need;
use crate::scheduler::model::{Availability, Phase, Service, Snapshot, Status, Task, Worker};
use crate::service::spec::{Amounts, Mode, RestartCondition, Spec};
use crate::service::{Desired, State};
use crate::types::{Epoch, ServiceId, TaskId, WorkerId};
use crate::worker::words::Exit;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Answer to a write about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceWritten {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Service.
    pub id: ServiceId,
    /// Its name.
    pub name: String,
    /// Its version now.
    pub version: u64,
}

/// A service and how it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Id.
    pub id: ServiceId,
    /// Name.
    pub name: String,
    /// Version of its specification, one for each change.
    pub version: u64,
    /// Version in which its contents (all that needs new tasks) appeared first.
    pub contents: u64,
    /// Replicated or global.
    pub mode: Mode,
    /// Tasks that there shall be.
    pub wanted: u64,
    /// Tasks that serve.
    pub running: u64,
    /// Tasks that serve with the present contents.
    pub updated: u64,
    /// Tasks that did all they had to.
    pub complete: u64,
    /// Tasks that have not ended, by state; lost ones as `lost`.
    pub tasks: BTreeMap<String, u64>,
    /// Whether everything is as it shall be.
    pub converged: bool,
    /// Whether it was removed and waits for the ends of its tasks.
    pub removing: bool,
    /// Whether its copies are being moved for a better spread.
    #[serde(default)]
    pub rebalancing: bool,
    /// How far its rollout is.
    pub rollout: RolloutInfo,
    /// Version that a rollback goes to, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<u64>,
    /// When it was made.
    pub created_ms: u64,
    /// When its specification changed last.
    pub updated_ms: u64,
    /// What people wrote, with every default.
    pub spec: Spec,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutInfo {
    /// Where it is.
    pub phase: Phase,
    /// When it began.
    pub started_ms: u64,
    /// Tasks that failed in it.
    pub failures: u32,
    /// Canary steps that it has passed.
    pub canary: u32,
}

impl ServiceInfo {
    /// `service` as `fleet` has it.
    pub(crate) fn of(fleet: &Fleet, service: &Service) -> Self {
        let note = fleet.services.get(&service.id).copied().unwrap_or_default();
        let current = &service.current;
        let tasks = fleet.snapshot.tasks.values();
        let tasks: Vec<&Task> = tasks.filter(|task| task.service == service.id).collect();
        let count = |holds: &dyn Fn(&Task) -> bool| {
            let found = tasks.iter().filter(|task| holds(task)).count();
            u64::try_from(found).unwrap_or(u64::MAX)
        };
        let right = |task: &Task| task.version == current.contents;
        let wanted = wanted(&fleet.snapshot, service);
        let updated = count(&|task| task.is_available() && right(task));
        let complete = done(service, &tasks);
        let unfinished = count(&|task| !task.state.is_end());
        let rollout = service.rollout;
        ServiceInfo {
            id: service.id,
            name: current.spec.name.clone(),
            version: current.version,
            contents: current.contents,
            mode: current.spec.mode,
            wanted,
            running: count(&Task::is_available),
            updated,
            complete,
            tasks: by_state(&tasks),
            converged: !service.removing
                && !service.rebalancing
                && !rollout.is_moving()
                && rollout.phase != Phase::Paused
                && updated == unfinished
                && updated + complete == wanted,
            removing: service.removing,
            rebalancing: service.rebalancing,
            rollout: RolloutInfo {
                phase: rollout.phase,
                started_ms: rollout.started_ms,
                failures: rollout.failures,
                canary: rollout.canary,
            },
            previous_version: service.previous.as_ref().map(|revision| revision.version),
            created_ms: note.created_ms,
            updated_ms: note.updated_ms,
            spec: Spec::clone(&current.spec),
        }
    }
}

/// Tasks that there shall be of `service`: a global one has a task on each active worker that suits, also while it is down, if it
/// has one already.
fn wanted(snapshot: &Snapshot, service: &Service) -> u64 {
    let spec = &service.current.spec;
    match spec.mode {
        Mode::Replicated => u64::from(spec.replicas),
        Mode::Global => {
            let need = Need::new(service.id, spec);
            let has = |worker: &Worker| {
                let mut tasks = snapshot.tasks.values();
                tasks.any(|task| task.service == service.id && task.slot == worker.id.0)
            };
            let suits = |worker: &&Worker| {
                worker.availability == Availability::Active
                    && need.belongs(worker).is_ok()
                    && (worker.status == Status::Ready || has(worker))
            };
            let count = snapshot.workers.values().filter(suits).count();
            u64::try_from(count).unwrap_or(u64::MAX)
        }
    }
}

/// Slots whose task did all it had to, and gets no successor.
fn done(service: &Service, tasks: &[&Task]) -> u64 {
    let over = |state: State| match service.current.spec.restart.condition {
        RestartCondition::Always => false,
        RestartCondition::OnFailure => state == State::Complete,
        RestartCondition::Never => matches!(state, State::Complete | State::Failed),
    };
    let mut newest: BTreeMap<u64, &Task> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.desired != Desired::Remove) {
        newest.insert(task.slot, task); // The greatest id of a slot comes last.
    }
    let done = newest.values().filter(|task| {
        task.desired == Desired::Run && over(task.state) && task.version == service.current.contents
    });
    u64::try_from(done.count()).unwrap_or(u64::MAX)
}

fn by_state(tasks: &[&Task]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for task in tasks.iter().filter(|task| !task.state.is_end()) {
        let word = match task.is_lost() {
            true => "lost".to_owned(),
            false => task.state.to_string(),
        };
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Answer to a read of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceAnswer {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceInfo,
    /// How fresh it is.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Answer to a read of all services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicesAnswer {
    /// Services, by id.
    pub services: Vec<ServiceInfo>,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Copies to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// Copies.
    pub replicas: u32,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// Id.
    pub id: TaskId,
    /// Name of its service; its id as text when the service is gone.
    pub service: String,
    /// Id of its service.
    pub service_id: ServiceId,
    /// Its slot: a number from 1 or, for a global service, the id of its worker.
    pub slot: u64,
    /// Version whose contents it runs.
    pub version: u64,
    /// Name of its node; absent while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Id of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<WorkerId>,
    /// What is known of it.
    pub state: State,
    /// What managers want of it.
    pub desired: Desired,
    /// For how long nothing was heard of its node, if the leader suspects that; absent: it does not, or was not to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_silent_ms: Option<u64>,
    /// When its node was marked down with it; absent: it is not lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms: Option<u64>,
    /// When it was made.
    pub created_ms: u64,
    /// When it got its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_ms: Option<u64>,
    /// When its state changed last.
    pub changed_ms: u64,
    /// When it was first seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_ms: Option<u64>,
    /// Attempts begun.
    pub attempts: u32,
    /// How the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl TaskInfo {
    /// `task` as `fleet` has it.
    pub(crate) fn of(fleet: &Fleet, task: &Task) -> Self {
        let note = fleet.notes.get(&task.id).cloned().unwrap_or_default();
        TaskInfo {
            id: task.id,
            service: service_name(fleet, task.service),
            service_id: task.service,
            slot: task.slot,
            version: task.version,
            node: task.worker.map(|worker| worker_name(fleet, worker)),
            node_id: task.worker,
            state: task.state,
            desired: task.desired,
            node_silent_ms: None,
            lost_ms: task.lost_ms.filter(|_| task.is_lost()),
            created_ms: task.created_ms,
            assigned_ms: task.assigned_ms,
            changed_ms: task.changed_ms,
            running_since_ms: task.running_since_ms,
            attempts: note.attempts,
            exit: note.exit,
            message: note.message,
        }
    }
}

/// The name of a service, or its id when it is gone.
pub(crate) fn service_name(fleet: &Fleet, id: ServiceId) -> String {
    let service = fleet.snapshot.services.get(&id);
    service.map_or_else(|| id.to_string(), |one| one.current.spec.name.clone())
}

/// The name of a worker, also when it is gone.
pub(crate) fn worker_name(fleet: &Fleet, id: WorkerId) -> String {
    fleet.snapshot.worker_name(id)
}

/// Answer to a read of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAnswer {
    /// The task.
    #[serde(flatten)]
    pub task: TaskInfo,
    /// How fresh it is.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Answer to a read of the tasks of a service or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksAnswer {
    /// Tasks by service and slot, the newest of a slot first.
    pub tasks: Vec<TaskInfo>,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// It is a member of the cluster's group.
    Manager,
    /// It runs tasks.
    Worker,
}

/// A node: a worker or a manager. One process that is both is listed twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Worker or manager.
    pub role: NodeRole,
    /// Its id among those of its role.
    pub id: u64,
    /// A worker: `ready`, `joining` or `down`. A manager: `leader`, `follower`, `candidate` or `learner`.
    pub status: String,
    /// Its HTTP address, `host:port`.
    pub address: String,
    /// What belongs to workers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerInfo>,
}

/// What is known of a worker beside what all nodes have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// What an operator wants of it.
    pub availability: Availability,
    /// System and processor, such as `linux/amd64`.
    pub platform: String,
    /// Whether it runs images.
    pub containers: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What it has to give.
    pub capacity: Amounts,
    /// What is set aside of that.
    pub reserved: Amounts,
    /// Tasks that have not ended on it.
    pub tasks: u64,
    /// Its present session.
    pub epoch: Epoch,
    /// When it joined.
    pub joined_ms: u64,
    /// When its status changed last.
    pub changed_ms: u64,
    /// How long ago the leader heard of it, as of this answer; absent: it is not ready, or no leader was to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<u64>,
    /// Whether the leader suspects it: silent for more than two heartbeats, or for longer than is likely.
    #[serde(default)]
    pub suspected: bool,
}

impl NodeInfo {
    /// `worker` as `fleet` has it.
    pub(crate) fn of_worker(fleet: &Fleet, worker: &Worker) -> Self {
        let note = fleet.workers.get(&worker.id).cloned().unwrap_or_default();
        let here = |task: &&Task| task.worker == Some(worker.id) && task.state.is_on_worker();
        let mut info = WorkerInfo {
            availability: worker.availability,
            platform: worker.platform.clone(),
            containers: worker.containers,
            labels: worker.labels.clone(),
            capacity: worker.capacity,
            reserved: Amounts::default(),
            tasks: 0,
            epoch: worker.epoch,
            joined_ms: note.joined_ms,
            changed_ms: note.changed_ms,
            heard_ms_ago: None,
            suspected: false,
        };
        for task in fleet.snapshot.tasks.values().filter(here) {
            info.tasks += 1;
            info.reserved.cpu_milli += task.reservations.cpu_milli;
            info.reserved.memory_bytes += task.reservations.memory_bytes;
        }
        let status = match worker.status {
            Status::Joining => "joining",
            Status::Ready => "ready",
            Status::Down => "down",
        };
        NodeInfo {
            name: worker.name.clone(),
            role: NodeRole::Worker,
            id: worker.id.0,
            status: status.to_owned(),
            address: note.address,
            worker: Some(info),
        }
    }

    /// A member of the cluster's group.
    pub(crate) fn of_member(status: &crate::handle::MemberStatus) -> Self {
        NodeInfo {
            name: status.member.name.clone(),
            role: NodeRole::Manager,
            id: status.member.id,
            status: status.role.to_string(),
            address: status.member.http.clone(),
            worker: None,
        }
    }
}

/// Answer to a read of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node.
    #[serde(flatten)]
    pub node: NodeInfo,
    /// Tasks on it that have not ended.
    pub tasks: Vec<TaskInfo>,
    /// How fresh it is.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Answer to a read of all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesAnswer {
    /// Managers, then workers, each by id.
    pub nodes: Vec<NodeInfo>,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Labels to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelsRequest {
    /// Labels to set; one that is null is removed, those that are not named stay.
    pub labels: BTreeMap<String, Option<String>>,
}

/// A volume to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRequest {
    /// Name.
    pub name: String,
    /// Name of the worker where it lies; absent: where its first task goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Name.
    pub name: String,
    /// Name of the node where it lies; absent until its first task is assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Id of that node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<WorkerId>,
    /// Whether that node was removed.
    #[serde(default)]
    pub node_removed: bool,
    /// Names of the services that mount it.
    pub services: Vec<String>,
    /// Tasks that hold it.
    pub tasks: Vec<TaskId>,
}

impl VolumeInfo {
    /// The volume called `name` as `fleet` has it.
    pub(crate) fn of(fleet: &Fleet, name: &str, node: Option<WorkerId>) -> Self {
        let services = fleet.snapshot.services.values();
        let names = |service: &&Service| {
            let mut mounts = service.current.spec.volumes.iter();
            mounts.any(|mount| mount.volume == name)
        };
        let services: BTreeSet<String> = services
            .filter(names)
            .map(|service| service.current.spec.name.clone())
            .collect();
        let holds = |task: &&Task| {
            let mut mounts = task.volumes.iter();
            task.state.is_on_worker() && mounts.any(|mount| mount.volume == name)
        };
        let tasks = fleet.snapshot.tasks.values().filter(holds);
        VolumeInfo {
            name: name.to_owned(),
            node: node.map(|id| worker_name(fleet, id)),
            node_id: node,
            node_removed: node.is_some_and(|id| !fleet.snapshot.workers.contains_key(&id)),
            services: services.into_iter().collect(),
            tasks: tasks.map(|task| task.id).collect(),
        }
    }
}

/// Answer to a read of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAnswer {
    /// The volume.
    #[serde(flatten)]
    pub volume: VolumeInfo,
    /// How fresh it is.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Answer to a read of all volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesAnswer {
    /// Volumes, by name.
    pub volumes: Vec<VolumeInfo>,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// A token to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRequest {
    /// What joins by it; absent: a worker.
    pub role: TokenRole,
    /// Its time to live, milliseconds; absent: a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// A token that was made. Its text is told here and never again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Id.
    pub id: u64,
    /// What joins by it.
    #[serde(default)]
    pub role: TokenRole,
    /// The text by which it joins.
    pub token: String,
    /// When it ends.
    pub expires_ms: u64,
}

/// A token, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Id.
    pub id: u64,
    /// When it was made.
    pub created_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
    /// What joins by it.
    #[serde(default)]
    pub role: TokenRole,
    /// Workers that joined with it, or managers that it let in.
    pub used: u64,
}

/// Answer to a read of all tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensAnswer {
    /// Tokens, by id.
    pub tokens: Vec<TokenInfo>,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}
