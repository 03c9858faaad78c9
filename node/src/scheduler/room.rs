//! What is taken on each worker: reservations, ports, copies, and who holds which volume.
//!
//! Counted once from a snapshot, then kept up to date placement by placement, so that each counts for the next.

use super::model::{Moment, Snapshot, Task, Worker};
use crate::service::spec::Amounts;
use crate::service::{Desired, State};
use crate::types::{ServiceId, TaskId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// What is taken, on all workers.
#[derive(Clone, Debug, Default)]
pub struct Rooms {
    rooms: BTreeMap<WorkerId, Room>,
    /// Volumes in use: by which tasks, and whether as their only one.
    holders: BTreeMap<String, Vec<(TaskId, bool)>>,
    /// Where volumes lie.
    volumes: BTreeMap<String, WorkerId>,
    /// Where services failed lately.
    failed: BTreeSet<(ServiceId, WorkerId)>,
    /// Workers of the tasks of each slot that shall run.
    slots: BTreeMap<(ServiceId, u64), Vec<WorkerId>>,
}

/// What is taken on one worker.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// Sum of the reservations.
    pub reserved: Amounts,
    /// Tasks that it has, including those that are ending.
    pub tasks: u32,
    /// Ports in use, and by whom.
    pub ports: BTreeMap<u16, TaskId>,
    /// Tasks by service, including those that are ending.
    present: BTreeMap<ServiceId, u32>,
    /// Tasks by service that shall run and are not lost: what is spread.
    copies: BTreeMap<ServiceId, u32>,
}

impl Rooms {
    /// Counts what is taken in `snapshot`.
    pub fn new(snapshot: &Snapshot, moment: &Moment) -> Self {
        let mut rooms = Rooms::default();
        for volume in snapshot.volumes.values() {
            if let Some(worker) = volume.worker {
                rooms.volumes.insert(volume.name.clone(), worker);
            }
        }
        rooms.count(snapshot.tasks.values(), moment);
        rooms
    }

    /// Counts what is taken on `workers`, and nothing of volumes.
    pub fn of_workers(
        snapshot: &Snapshot,
        moment: &Moment,
        workers: impl IntoIterator<Item = WorkerId>,
    ) -> Self {
        let mut rooms = Rooms::default();
        for worker in workers {
            rooms.count(snapshot.tasks.of_worker(worker), moment);
        }
        rooms
    }

    fn count<'a>(&mut self, tasks: impl Iterator<Item = &'a Task>, moment: &Moment) {
        for task in tasks {
            let Some(worker) = task.worker else { continue };
            let failed = matches!(task.state, State::Failed | State::Rejected);
            let age_ms = moment.now_ms.saturating_sub(task.changed_ms);
            if failed && task.lost_ms.is_none() && age_ms < moment.limits.failed_lately_ms {
                self.failed.insert((task.service, worker));
            }
            if task.state.is_on_worker() {
                self.take(task, worker);
                if task.presumed_end_ms(&moment.leases) != Some(0) {
                    self.hold_volumes(task);
                }
            }
        }
    }

    /// Puts a task on a worker.
    pub fn place(&mut self, task: &Task, worker: WorkerId) {
        self.take(task, worker);
        self.hold_volumes(task);
        for mount in &task.volumes {
            self.volumes.entry(mount.volume.clone()).or_insert(worker);
        }
    }

    /// What is taken on `worker`, if anything.
    pub fn of(&self, worker: WorkerId) -> Option<&Room> {
        self.rooms.get(&worker)
    }

    /// Where `volume` lies, if anywhere yet.
    pub fn volume_worker(&self, volume: &str) -> Option<WorkerId> {
        self.volumes.get(volume).copied()
    }

    /// The task that keeps another one from using `volume`.
    pub fn volume_holder(&self, volume: &str, shared: bool) -> Option<TaskId> {
        let mut holders = self.holders.get(volume)?.iter();
        let in_the_way = holders.find(|&&(_, alone)| alone || !shared);
        in_the_way.map(|&(task, _)| task)
    }

    /// Whether `service` failed on `worker` lately.
    pub fn failed_lately(&self, service: ServiceId, worker: WorkerId) -> bool {
        self.failed.contains(&(service, worker))
    }

    /// Copies of `service` on `worker` that shall run.
    pub fn copies(&self, service: ServiceId, worker: WorkerId) -> u32 {
        self.of(worker)
            .and_then(|room| room.copies.get(&service))
            .map_or(0, |&copies| copies)
    }

    /// All tasks of `service` on `worker`, also those that are ending.
    pub fn present(&self, service: ServiceId, worker: WorkerId) -> u32 {
        self.of(worker)
            .and_then(|room| room.present.get(&service))
            .map_or(0, |&present| present)
    }

    /// Workers of the other tasks of a slot that shall run; the new one takes their place.
    pub fn slot_workers(&self, service: ServiceId, slot: u64) -> &[WorkerId] {
        self.slots.get(&(service, slot)).map_or(&[], Vec::as_slice)
    }

    /// What `worker` still has to give.
    pub fn free(&self, worker: &Worker) -> Amounts {
        let reserved = self
            .of(worker.id)
            .map_or(Amounts::default(), |room| room.reserved);
        Amounts {
            cpu_milli: worker.capacity.cpu_milli.saturating_sub(reserved.cpu_milli),
            memory_bytes: worker
                .capacity
                .memory_bytes
                .saturating_sub(reserved.memory_bytes),
        }
    }

    /// Share of the capacity of `worker` that is reserved, of the resource that is scarcer, in millionths.
    pub fn share(&self, worker: &Worker) -> u64 {
        let reserved = self
            .of(worker.id)
            .map_or(Amounts::default(), |room| room.reserved);
        let share = |part: u64, whole: u64| match whole {
            0 => 0,
            _ => (u128::from(part) * 1_000_000 / u128::from(whole)) as u64,
        };
        share(reserved.cpu_milli, worker.capacity.cpu_milli)
            .max(share(reserved.memory_bytes, worker.capacity.memory_bytes))
    }

    /// Tasks that `worker` has.
    pub fn tasks(&self, worker: WorkerId) -> u32 {
        self.of(worker).map_or(0, |room| room.tasks)
    }

    fn take(&mut self, task: &Task, worker: WorkerId) {
        let room = self.rooms.entry(worker).or_default();
        room.tasks += 1;
        let reserved = &mut room.reserved;
        reserved.cpu_milli = reserved
            .cpu_milli
            .saturating_add(task.reservations.cpu_milli);
        reserved.memory_bytes = reserved
            .memory_bytes
            .saturating_add(task.reservations.memory_bytes);
        room.ports
            .extend(task.ports.iter().map(|&port| (port, task.id)));
        *room.present.entry(task.service).or_default() += 1;
        if task.desired == Desired::Run && task.lost_ms.is_none() {
            *room.copies.entry(task.service).or_default() += 1;
            let slot = self.slots.entry((task.service, task.slot)).or_default();
            slot.push(worker);
        }
    }

    fn hold_volumes(&mut self, task: &Task) {
        for mount in &task.volumes {
            let holders = self.holders.entry(mount.volume.clone()).or_default();
            holders.push((task.id, !mount.shared));
        }
    }
}
