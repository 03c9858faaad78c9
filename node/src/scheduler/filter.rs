//! Whether a worker fits a task, and if not, why not, in words.
//!
//! Filters only say no; which of the fitting workers is best is the business of [`super::place`]. The reason is that of the first
//! filter that says no, so that a drained worker is not blamed for its memory.

use super::constraint::Constraint;
use super::model::{Availability, Moment, Snapshot, Status, Task, Worker};
use super::room::Rooms;
use crate::service::spec::{Amounts, Mode, Mount, SecretMount, Spec};
use crate::service::{Desired, State};
use crate::types::{ServiceId, TaskId, WorkerId};
use std::collections::BTreeMap;
use std::fmt;

/// Why a worker does not fit a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The task is the one of another worker, as each worker has one of a global service.
    OtherWorker,
    /// It is down.
    Down,
    /// It came back, and its report has not been taken yet.
    Joining,
    /// An operator drains it.
    Drained,
    /// The task is an image, and it runs none.
    NoContainers,
    /// It does not satisfy this constraint.
    Constraint(String),
    /// The constraint cannot be read; nothing satisfies it.
    BadConstraint(String),
    /// A volume lies on another worker.
    VolumeElsewhere {
        /// The volume.
        volume: String,
        /// Name of the worker where it lies.
        worker: String,
        /// What keeps that one from taking tasks, or nothing.
        trouble: &'static str,
    },
    /// A volume has a task that may not share it.
    VolumeInUse {
        /// The volume.
        volume: String,
        /// The task that has it, or may have it until its lease has ended.
        by: TaskId,
    },
    /// A port is taken.
    Port {
        /// The port.
        port: u16,
        /// The task that has it.
        by: TaskId,
    },
    /// There is no such secret.
    NoSecret(String),
    /// Too little of the processor is left.
    Cpu {
        /// What the task reserves, thousandths of a processor.
        needs: u64,
        /// What is left, thousandths of a processor.
        free: u64,
    },
    /// Too little memory is left.
    Memory {
        /// What the task reserves, bytes.
        needs: u64,
        /// What is left, bytes.
        free: u64,
    },
    /// It has as many copies as one worker may have.
    Copies {
        /// The bound.
        max: u32,
    },
}

/// What a task needs of its worker, read once for all tasks of a version.
#[derive(Clone, Debug)]
pub struct Need<'a> {
    service: ServiceId,
    global: bool,
    image: bool,
    constraints: Result<Vec<Constraint>, String>,
    copies_max: u32,
    reservations: Amounts,
    volumes: &'a [Mount],
    secrets: &'a [SecretMount],
    ports: Vec<u16>,
}

/// Why a task waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// For each worker that does not fit, why.
    pub workers: Vec<(WorkerId, Reason)>,
    /// All of it in one line.
    pub summary: String,
}

impl<'a> Need<'a> {
    /// What a task of `service` with this specification needs.
    pub fn new(service: ServiceId, spec: &'a Spec) -> Self {
        let constraints = spec.placement.constraints.iter();
        Need {
            service,
            global: spec.mode == Mode::Global,
            image: spec.image.is_some(),
            constraints: constraints.map(|text| Constraint::parse(text)).collect(),
            copies_max: spec.placement.replicas_per_node_max,
            reservations: spec.resources.reservations,
            volumes: &spec.volumes,
            secrets: &spec.secrets,
            ports: spec.ports.iter().map(|port| port.host).collect(),
        }
    }

    /// Whether it needs volumes.
    pub fn has_volumes(&self) -> bool {
        !self.volumes.is_empty()
    }

    /// Whether what a worker is suits: its platform and the constraints. An error is the constraint that cannot be read.
    pub fn belongs(&self, worker: &Worker) -> Result<(), Reason> {
        if self.image && !worker.containers {
            return Err(Reason::NoContainers);
        }
        let constraints = self.constraints.as_ref();
        let constraints = constraints.map_err(|error| Reason::BadConstraint(error.clone()))?;
        match constraints.iter().find(|rule| !rule.holds(worker)) {
            Some(rule) => Err(Reason::Constraint(rule.to_string())),
            None => Ok(()),
        }
    }

    /// Whether the worker may take tasks at all, and what it is suits.
    pub fn suits(&self, worker: &Worker) -> Result<(), Reason> {
        match (worker.status, worker.availability) {
            (Status::Down, _) => Err(Reason::Down),
            (Status::Joining, _) => Err(Reason::Joining),
            (Status::Ready, Availability::Drain) => Err(Reason::Drained),
            (Status::Ready, Availability::Active) => self.belongs(worker),
        }
    }

    /// Whether all its secrets are there, whatever the worker.
    fn has_secrets(&self, snapshot: &Snapshot) -> Result<(), Reason> {
        let known = |mount: &&SecretMount| !snapshot.secrets.contains_key(&mount.secret);
        match self.secrets.iter().find(known) {
            Some(missing) => Err(Reason::NoSecret(missing.secret.clone())),
            None => Ok(()),
        }
    }

    /// Whether there is room for one more such task on a worker that suits.
    pub fn has_room(
        &self,
        snapshot: &Snapshot,
        rooms: &Rooms,
        worker: &Worker,
    ) -> Result<(), Reason> {
        self.has_secrets(snapshot)?;
        for mount in self.volumes {
            volume_fits(mount, snapshot, rooms, worker)?;
        }
        for port in &self.ports {
            if let Some(&by) = rooms.of(worker.id).and_then(|room| room.ports.get(port)) {
                return Err(Reason::Port { port: *port, by });
            }
        }
        let free = rooms.free(worker);
        let needs = self.reservations;
        if needs.cpu_milli > free.cpu_milli {
            let (needs, free) = (needs.cpu_milli, free.cpu_milli);
            return Err(Reason::Cpu { needs, free });
        }
        if needs.memory_bytes > free.memory_bytes {
            let (needs, free) = (needs.memory_bytes, free.memory_bytes);
            return Err(Reason::Memory { needs, free });
        }
        let max = self.copies_max;
        if max > 0 && rooms.present(self.service, worker.id) >= max {
            return Err(Reason::Copies { max });
        }
        Ok(())
    }

    /// Whether `worker` fits a task in `slot`.
    pub fn fits(
        &self,
        snapshot: &Snapshot,
        rooms: &Rooms,
        worker: &Worker,
        slot: u64,
    ) -> Result<(), Reason> {
        if self.global && worker.id.0 != slot {
            return Err(Reason::OtherWorker);
        }
        self.suits(worker)?;
        self.has_room(snapshot, rooms, worker)
    }
}

fn volume_fits(
    mount: &Mount,
    snapshot: &Snapshot,
    rooms: &Rooms,
    worker: &Worker,
) -> Result<(), Reason> {
    let volume = || mount.volume.clone();
    if let Some(by) = rooms.volume_holder(&mount.volume, mount.shared) {
        return Err(Reason::VolumeInUse {
            volume: volume(),
            by,
        });
    }
    let Some(place) = rooms
        .volume_worker(&mount.volume)
        .filter(|&place| place != worker.id)
    else {
        return Ok(());
    };
    let there = snapshot.workers.get(&place);
    let trouble = match there.map(|there| (there.status, there.availability)) {
        None if snapshot.removed.contains_key(&place) => {
            "which was removed (`volume rm` gives the volume up)"
        }
        None => "`volume rm` gives the volume up",
        Some((Status::Down, _)) => "which is down",
        Some((Status::Joining, _)) => "which is joining",
        Some((Status::Ready, Availability::Drain)) => "which is drained",
        Some((Status::Ready, Availability::Active)) => "",
    };
    Err(Reason::VolumeElsewhere {
        volume: volume(),
        worker: snapshot.worker_name(place),
        trouble,
    })
}

/// Why `task` waits: each worker that does not fit it, and one line. Nothing if there is no such task.
pub fn explain(snapshot: &Snapshot, moment: &Moment, task: TaskId) -> Option<Explanation> {
    let task = snapshot.tasks.get(&task)?;
    if task.state != State::Pending || task.desired != Desired::Run {
        return Some(Explanation {
            workers: Vec::new(),
            summary: placed(snapshot, task),
        });
    }
    let service = snapshot.services.get(&task.service);
    let Some(spec) = service.and_then(|service| service.spec_of(task.version)) else {
        return Some(Explanation {
            workers: Vec::new(),
            summary: "its version is not kept any more; it will be replaced".to_owned(),
        });
    };
    let need = Need::new(task.service, spec);
    let rooms = Rooms::new(snapshot, moment);
    let workers = snapshot.workers.values();
    let workers = workers
        .filter_map(|worker| {
            let reason = need.fits(snapshot, &rooms, worker, task.slot).err()?;
            Some((worker.id, reason))
        })
        .collect::<Vec<_>>();
    let summary = summarize(snapshot.workers.len(), &workers);
    Some(Explanation { workers, summary })
}

fn placed(snapshot: &Snapshot, task: &Task) -> String {
    let worker = task.worker.and_then(|worker| snapshot.workers.get(&worker));
    let lost = if task.is_lost() { ", lost" } else { "" };
    match worker {
        Some(worker) => format!("{} on {}{lost}", task.state, worker.name),
        None => format!("{}{lost}", task.state),
    }
}

/// "2 of 5 workers: not enough memory (needs 512 MiB, free 100 MiB); 3 of 5: drained"; the commonest reason first.
fn summarize(total: usize, workers: &[(WorkerId, Reason)]) -> String {
    if total == 0 {
        return "there are no workers".to_owned();
    }
    let mut kinds: BTreeMap<String, (usize, Reason)> = BTreeMap::new();
    for (_, reason) in workers {
        let entry = kinds.entry(reason.kind());
        let (count, most) = entry.or_insert_with(|| (0, reason.clone()));
        *count += 1;
        if reason.free() > most.free() {
            *most = reason.clone();
        }
    }
    let mut parts: Vec<(usize, String)> = kinds
        .into_values()
        .map(|(count, reason)| (count, reason.to_string()))
        .collect();
    parts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let fitting = total - workers.len();
    if fitting > 0 {
        parts.push((
            fitting,
            "it fits, and is assigned with the next pass".to_owned(),
        ));
    }
    let parts = parts.iter().enumerate().map(|(index, (count, words))| {
        let noun = if index == 0 { " workers" } else { "" };
        format!("{count} of {total}{noun}: {words}")
    });
    parts.collect::<Vec<_>>().join("; ")
}

impl Reason {
    /// The same for two reasons that differ only in how much is left, or who is in the way.
    fn kind(&self) -> String {
        match self {
            Reason::Cpu { .. } => "cpu".to_owned(),
            Reason::Memory { .. } => "memory".to_owned(),
            Reason::Port { port, .. } => format!("port {port}"),
            other => other.to_string(),
        }
    }

    fn free(&self) -> u64 {
        match self {
            Reason::Cpu { free, .. } | Reason::Memory { free, .. } => *free,
            _ => 0,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::OtherWorker => out.write_str("has its own task of this global service"),
            Reason::Down => out.write_str("down"),
            Reason::Joining => out.write_str("joining, its report is awaited"),
            Reason::Drained => out.write_str("drained"),
            Reason::NoContainers => out.write_str("runs no images"),
            Reason::Constraint(rule) => write!(out, "not {rule}"),
            Reason::BadConstraint(error) => out.write_str(error),
            Reason::VolumeElsewhere {
                volume,
                worker,
                trouble,
            } => {
                let comma = if trouble.is_empty() { "" } else { ", " };
                write!(out, "volume {volume} lies on {worker}{comma}{trouble}")
            }
            Reason::VolumeInUse { volume, by } => {
                write!(out, "volume {volume} is held by task {by}")
            }
            Reason::NoSecret(name) => {
                write!(
                    out,
                    "there is no secret {name}; `secret create {name}` makes it"
                )
            }
            Reason::Port { port, by } => write!(out, "port {port} is taken by task {by}"),
            Reason::Cpu { needs, free } => {
                let (needs, free) = (Cpu(*needs), Cpu(*free));
                write!(out, "not enough processor (needs {needs}, free {free})")
            }
            Reason::Memory { needs, free } => {
                let (needs, free) = (Bytes(*needs), Bytes(*free));
                write!(out, "not enough memory (needs {needs}, free {free})")
            }
            Reason::Copies { max } => {
                write!(out, "has {max} copies already, the most for one worker")
            }
        }
    }
}

/// Thousandths of a processor, for people.
struct Cpu(u64);

impl fmt::Display for Cpu {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, milli) = (self.0 / 1000, self.0 % 1000);
        match milli {
            0 => write!(out, "{whole} cpu"),
            _ => write!(out, "{whole}.{milli:03} cpu"),
        }
    }
}

/// Bytes, for people: rounded down, so that too little never looks like enough.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 => write!(out, "{} MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 => write!(out, "{} KiB", bytes >> 10),
            bytes => write!(out, "{bytes} bytes"),
        }
    }
}
