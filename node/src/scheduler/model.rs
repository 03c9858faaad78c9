//! What the scheduler is given: workers, tasks, services and volumes at one moment, as plain values.
//!
//! These are built from replicated records and from nothing else, so that every manager would build the same. What only a
//! leader knows (until when leases run) comes beside it, as [`Moment`].

use super::lookup::{Services, Tasks};
use crate::map::Map;
use crate::service::spec::{Amounts, Mount, Spec};
use crate::service::{Desired, State};
use crate::types::{Epoch, Incarnation, ServiceId, TaskId, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that the log says about services, tasks and workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Workers that belong to the cluster, by id.
    pub workers: Map<WorkerId, Worker>,
    /// Workers that belonged to it and were removed, by id.
    pub removed: Map<WorkerId, Removed>,
    /// Tasks that are not forgotten, by id.
    pub tasks: Tasks,
    /// Services, by id.
    pub services: Services,
    /// Volumes, by name.
    pub volumes: Map<String, Volume>,
    /// The newest version of each secret, by name.
    pub secrets: Map<String, u64>,
    /// The id that the next task gets.
    pub next_task: TaskId,
}

/// A node that runs tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Its name, for people and constraints.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// System and processor, such as `linux/amd64`.
    pub platform: String,
    /// Whether it runs images; every worker runs commands.
    pub containers: bool,
    /// What it has to give; zero is nothing.
    pub capacity: Amounts,
    /// What an operator wants of it.
    pub availability: Availability,
    /// What the managers believe of it.
    pub status: Status,
    /// Its present session.
    pub epoch: Epoch,
}

/// A worker that was removed, as people knew it: volumes and events still speak of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// The entry that removed it.
    pub index: u64,
    /// When, milliseconds since the Unix epoch.
    pub removed_ms: u64,
    /// Life of its disk: what comes with that is the same worker.
    pub life: Incarnation,
    /// Whether it was removed by force.
    #[serde(default)]
    pub by_force: bool,
}

impl Snapshot {
    /// The name of a worker, also of one that was removed; words where nobody remembers it.
    pub fn worker_name(&self, id: WorkerId) -> String {
        let name = self.workers.get(&id).map(|worker| &worker.name);
        let name = name.or_else(|| self.removed.get(&id).map(|removed| &removed.name));
        name.map_or_else(|| format!("a node that was removed ({id})"), String::clone)
    }
}

/// What an operator wants of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It takes tasks.
    #[default]
    Active,
    /// Its tasks go elsewhere.
    Drain,
}

/// What the managers believe of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has a session, but its report has not been taken whole.
    #[default]
    Joining,
    /// It is heard from, and what is recorded of its tasks is what it reported.
    Ready,
    /// It was silent for longer than the bound.
    Down,
}

/// One attempt to run one version of a service in one slot on one worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id; a later task has a higher one.
    pub id: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Its slot: a number from 1 or, for a global service, the id of its worker.
    pub slot: u64,
    /// The version in which the contents that it runs appeared first ([`Revision::contents`]).
    pub version: u64,
    /// Its worker; none while it is pending.
    pub worker: Option<WorkerId>,
    /// The worker's session in which it was assigned.
    pub epoch: Epoch,
    /// What managers want of it.
    pub desired: Desired,
    /// What is known of it.
    pub state: State,
    /// When its worker was marked down with it, milliseconds; none: it is not lost.
    pub lost_ms: Option<u64>,
    /// When it was made, milliseconds.
    pub created_ms: u64,
    /// When it got its worker, milliseconds.
    pub assigned_ms: Option<u64>,
    /// When its state changed last, milliseconds.
    pub changed_ms: u64,
    /// When it was first seen running, milliseconds.
    pub running_since_ms: Option<u64>,
    /// When its worker last told that it had been started again, milliseconds.
    #[serde(default)]
    pub restarted_ms: Option<u64>,
    /// What is set aside for it.
    pub reservations: Amounts,
    /// Its volumes.
    pub volumes: Vec<Mount>,
    /// The worker's ports that it needs for itself.
    pub ports: Vec<u16>,
    /// Versions of its secrets, from its assignment on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, u64>,
    /// Failures in a row of its version in its slot when it was made; the back-off grows with them.
    pub failures: u32,
    /// Whether a rollout has counted its failure.
    pub counted: bool,
}

/// A service with what is known of its versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// What is wanted now.
    pub current: Revision,
    /// The last one with other contents that was rolled out whole: where a rollback goes.
    pub previous: Option<Revision>,
    /// How far its rollout is.
    pub rollout: Rollout,
    /// Whether it was removed, and goes as soon as its tasks have ended.
    pub removing: bool,
    /// Whether its copies are being moved for a better spread.
    #[serde(default)]
    pub rebalancing: bool,
}

/// One version of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1, one for each change.
    pub version: u64,
    /// The version in which its contents (all that needs new tasks when it changes) appeared first. Scaling and
    /// labels keep it; a rollback brings back the old one, so that tasks that are left over are right again.
    pub contents: u64,
    /// What people wrote. Shared, for the whole fleet is copied with each entry that changes any of it.
    #[serde(with = "crate::service::shared")]
    pub spec: Arc<Spec>,
}

/// How far a rollout is. Everything a new leader needs to go on with it, beside the tasks themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Where it is.
    pub phase: Phase,
    /// When it began, milliseconds.
    pub started_ms: u64,
    /// Tasks of the new version that failed before they had run for the monitor time.
    pub failures: u32,
    /// Canary steps that it has passed.
    pub canary: u32,
    /// Since when it has waited at the present canary step, milliseconds.
    pub canary_since_ms: Option<u64>,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There was none yet.
    #[default]
    None,
    /// It goes on step by step.
    Running,
    /// It waits for a person.
    Paused,
    /// Every slot has the version.
    Completed,
    /// It goes back to the version before.
    RollingBack,
    /// Every slot has the version before.
    RolledBack,
}

/// A volume. It never leaves its worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where it lies; none until its first task is assigned.
    pub worker: Option<WorkerId>,
}

/// What a leader knows beside the log: the time, until when leases run, and bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// The time to stamp changes with, milliseconds.
    pub now_ms: u64,
    /// Since when stamps have gone on as the leader's monotonic clock does, milliseconds: its first moment, or when its wall clock
    /// was last set ahead. What passed before is not known, so a time that a task has, or has to prove itself in, begins no
    /// earlier.
    pub steady_since_ms: u64,
    /// How long workers may go on with single-writer volumes.
    pub leases: Leases,
    /// Bounds.
    pub limits: Limits,
    /// When each worker was last heard with nothing left to report, as stamps are; none: all just now. What a task has proven by
    /// running is only known up to then.
    pub known_ms: Option<BTreeMap<WorkerId, u64>>,
}

/// When the leases of silent workers have certainly ended, by the leader's own monotonic clock: after the last grant was
/// answered, plus the lease time, plus the drift bound. The times of [`Moment::now_ms`] are stamps of several leaders and
/// would not be safe for this.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leases {
    /// The leader's monotonic clock, milliseconds.
    pub now_ms: u64,
    /// For workers not in the map: a new leader's first moment plus a whole lease with its drift, milliseconds.
    pub others_until_ms: u64,
    /// Until when a worker may hold a lease, milliseconds.
    pub until_ms: BTreeMap<WorkerId, u64>,
}

/// Bounds of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ended tasks that are remembered per slot, beside the newest.
    pub history_max: usize,
    /// How long a failure on a worker counts when others are looked for, milliseconds.
    pub failed_lately_ms: u64,
    /// How long a start-first replacement may look for a worker before it takes the old one's place, where the service
    /// may be unavailable at all, milliseconds.
    pub pending_patience_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            history_max: 4,
            failed_lately_ms: 300_000,
            pending_patience_ms: 1_000,
        }
    }
}

impl Leases {
    /// Milliseconds until the lease of `worker` has certainly ended; zero: it has.
    pub fn remaining_ms(&self, worker: WorkerId) -> u64 {
        let until = self.until_ms.get(&worker).unwrap_or(&self.others_until_ms);
        until.saturating_sub(self.now_ms)
    }
}

impl Moment {
    /// When a time that began at the stamp `since_ms` began as far as this leader can tell.
    pub fn steady(&self, since_ms: u64) -> u64 {
        since_ms.max(self.steady_since_ms)
    }

    /// Whether all that the worker of `task` knew at `at_ms` is known here.
    pub fn is_known(&self, task: &Task, at_ms: u64) -> bool {
        let Some(known_ms) = &self.known_ms else {
            return true;
        };
        let worker = task.worker.and_then(|worker| known_ms.get(&worker));
        worker.is_some_and(|&known_ms| known_ms >= at_ms)
    }
}

impl Task {
    /// Whether it shall run, may still, and is not lost.
    pub fn is_live(&self) -> bool {
        self.desired == Desired::Run && !self.state.is_end() && self.lost_ms.is_none()
    }

    /// Whether it serves.
    pub fn is_available(&self) -> bool {
        self.is_live() && self.state == State::Running
    }

    /// Whether its worker has not said that it ended, and may never say so.
    pub fn is_lost(&self) -> bool {
        self.lost_ms.is_some() && !self.state.is_end()
    }

    /// Whether it was told to end and its worker will say when it has.
    pub fn is_leaving(&self) -> bool {
        self.desired != Desired::Run && !self.state.is_end() && self.lost_ms.is_none()
    }

    /// Whether it must never run twice.
    pub fn is_single_writer(&self) -> bool {
        self.volumes.iter().any(|mount| !mount.shared)
    }

    /// Milliseconds until it has certainly ended although nobody said so; none: only its worker can say.
    pub fn presumed_end_ms(&self, leases: &Leases) -> Option<u64> {
        match self.worker {
            _ if self.lost_ms.is_none() => None,
            Some(worker) if self.is_single_writer() => Some(leases.remaining_ms(worker)),
            _ => Some(0),
        }
    }
}

impl Service {
    /// A service at its first version.
    pub fn new(id: ServiceId, spec: Spec) -> Self {
        Service {
            id,
            current: Revision {
                version: 1,
                contents: 1,
                spec: Arc::new(spec),
            },
            previous: None,
            rollout: Rollout::default(),
            removing: false,
            rebalancing: false,
        }
    }

    /// The specification of a task of version `contents`, if it is still kept.
    pub fn spec_of(&self, contents: u64) -> Option<&Spec> {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .find(|revision| revision.contents == contents)
            .map(|revision| &*revision.spec)
    }

    /// Takes a new specification: a rollout begins if its contents are others. A version that was never rolled out whole is
    /// nothing to go back to.
    pub fn revise(&mut self, spec: Spec, now_ms: u64) {
        let version = self.current.version + 1;
        if !self.current.spec.needs_rollout(&spec) {
            self.current.version = version;
            self.current.spec = Arc::new(spec);
            return;
        }
        let back = self.previous.as_ref();
        let back = back.filter(|previous| !previous.spec.needs_rollout(&spec));
        let contents = back.map_or(version, |previous| previous.contents);
        let unproven = matches!(self.rollout.phase, Phase::Running | Phase::Paused);
        let revision = Revision {
            version,
            contents,
            spec: Arc::new(spec),
        };
        let before = std::mem::replace(&mut self.current, revision);
        if !unproven || self.previous.is_none() || contents != version {
            self.previous = Some(before);
        }
        self.rollout = Rollout::begun(Phase::Running, now_ms);
    }

    /// Goes back to the contents before, with as many copies as now. Without any it stays as it is.
    pub fn roll_back(&mut self, now_ms: u64) {
        let Some(previous) = self.previous.take() else {
            return;
        };
        let revision = Revision {
            version: self.current.version + 1,
            contents: previous.contents,
            spec: Arc::new(Spec {
                mode: self.current.spec.mode,
                replicas: self.current.spec.replicas,
                ..Spec::clone(&previous.spec)
            }),
        };
        self.previous = Some(std::mem::replace(&mut self.current, revision));
        self.rollout = Rollout::begun(Phase::RollingBack, now_ms);
    }
}

impl Rollout {
    /// A rollout at its beginning.
    pub fn begun(phase: Phase, now_ms: u64) -> Self {
        Rollout {
            phase,
            started_ms: now_ms,
            ..Rollout::default()
        }
    }

    /// Whether slots with other contents are to be replaced step by step.
    pub fn is_moving(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::RollingBack)
    }
}
