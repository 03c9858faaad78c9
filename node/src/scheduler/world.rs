//! A tiny cluster for tests: machines that begin, fail, end, vanish and come back, and operators who change their minds.
//!
//! Time goes in steps. After each step the reconciler is asked, its plan is applied (in bad weather not always, or in part), and what
//! it may never do is checked; and that it plans what one that saw nothing before would plan. Machines keep what they were told while
//! they are cut off, and stop single-writer tasks when their lease ends.

use super::change::Change;
use super::model::*;
use super::reconcile::reconcile;
use super::reconciler::Reconciler;
use super::slots::Pace;
use crate::service::spec::{Amounts, Mode, Mount, Spec};
use crate::service::{Desired, State};
use crate::types::{Epoch, ServiceId, TaskId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

const DOWN_MS: u64 = 30_000;
/// Longer than it takes to be marked down, so that a lost worker may still hold one.
const LEASE_MS: u64 = 60_000;

pub(super) struct World {
    pub(super) snapshot: Snapshot,
    pub(super) now_ms: u64,
    steady_since_ms: u64,
    pub(super) machines: BTreeMap<WorkerId, Machine>,
    /// Versions whose tasks fail soon after they begin.
    pub(super) bad: BTreeSet<(ServiceId, u64)>,
    /// Whether tasks fail by themselves.
    pub(super) faults: bool,
    /// Tasks that failed.
    pub(super) failed: u32,
    ever_lost: BTreeSet<TaskId>,
    reconciler: Reconciler,
    pub(super) rng: Rng,
}

#[derive(Default)]
pub(super) struct Machine {
    pub(super) connected: bool,
    heard_ms: u64,
    procs: BTreeMap<TaskId, Proc>,
}

struct Proc {
    service: ServiceId,
    version: u64,
    state: State,
    next_ms: u64,
    told: Desired,
    alone: Vec<String>,
}

/// A linear congruential generator: enough for weather.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

pub(super) fn spec(name: &str, replicas: u32) -> Spec {
    let mut spec = Spec::new(name, &["run", "1"]);
    spec.replicas = replicas;
    spec.resources.reservations.cpu_milli = 100;
    spec.update.monitor_ms = 2_000;
    spec
}

pub(super) fn with_volume(mut spec: Spec, volume: &str) -> Spec {
    spec.volumes = vec![Mount {
        volume: volume.to_owned(),
        target: "/v".to_owned(),
        shared: false,
    }];
    spec
}

impl World {
    pub(super) fn new(seed: u64, workers: u64) -> Self {
        let mut world = World {
            snapshot: Snapshot {
                next_task: TaskId(1),
                ..Snapshot::default()
            },
            now_ms: 1_000_000,
            steady_since_ms: 0,
            machines: BTreeMap::new(),
            bad: BTreeSet::new(),
            faults: false,
            failed: 0,
            ever_lost: BTreeSet::new(),
            reconciler: Reconciler::default(),
            rng: Rng(seed),
        };
        (1..=workers).for_each(|id| world.join(WorkerId(id)));
        world
    }

    pub(super) fn join(&mut self, id: WorkerId) {
        let worker = Worker {
            id,
            name: format!("w{id}"),
            labels: [("zone".to_owned(), format!("z{}", id.0 % 2))].into(),
            capacity: Amounts {
                cpu_milli: 100_000,
                memory_bytes: 1 << 40,
            },
            status: Status::Ready,
            epoch: Epoch(1),
            ..Worker::default()
        };
        self.snapshot.workers.insert(id, worker);
        let machine = Machine {
            connected: true,
            heard_ms: self.now_ms,
            ..Machine::default()
        };
        self.machines.insert(id, machine);
    }

    pub(super) fn create(&mut self, spec: Spec) -> ServiceId {
        let id = ServiceId(self.snapshot.services.len() as u64 + 1);
        self.snapshot.services.insert(id, Service::new(id, spec));
        id
    }

    pub(super) fn service(&self, id: u64) -> &Service {
        &self.snapshot.services[&ServiceId(id)]
    }

    pub(super) fn revise(&mut self, id: ServiceId, change: impl FnOnce(&mut Spec)) -> u64 {
        let service = self.snapshot.services.get_mut(&id).unwrap();
        let mut spec = Spec::clone(&service.current.spec);
        change(&mut spec);
        service.revise(spec, self.now_ms);
        service.current.contents
    }

    pub(super) fn worker(&mut self, id: WorkerId) -> &mut Worker {
        self.snapshot.workers.get_mut(&id).unwrap()
    }

    pub(super) fn cut(&mut self, id: WorkerId, connected: bool) {
        self.machines.get_mut(&id).unwrap().connected = connected;
    }

    /// A machine loses all it had, processes too.
    pub(super) fn wipe(&mut self, id: WorkerId) {
        self.machines.get_mut(&id).unwrap().procs.clear();
        self.worker(id).status = Status::Joining;
    }

    pub(super) fn run(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.step(250);
        }
    }

    /// Lets `ms` pass, then lets the reconciler decide.
    pub(super) fn step(&mut self, ms: u64) {
        self.now_ms += ms;
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.machine(id);
        }
        self.check_volumes();
        self.decide();
    }

    fn machine(&mut self, id: WorkerId) {
        let mut machine = self.machines.remove(&id).unwrap();
        let worker = self.snapshot.workers.get_mut(&id).unwrap();
        if machine.connected {
            if worker.status == Status::Down {
                worker.epoch.0 += 1;
                worker.status = Status::Joining;
            }
            machine.heard_ms = self.now_ms;
        } else if self.now_ms - machine.heard_ms >= DOWN_MS {
            worker.status = Status::Down;
        }
        if machine.connected && self.snapshot.workers[&id].status == Status::Ready {
            self.deliver(id, &mut machine);
        }
        self.progress(&mut machine);
        if machine.connected {
            self.report(id, &mut machine);
        }
        self.machines.insert(id, machine);
    }

    fn deliver(&self, id: WorkerId, machine: &mut Machine) {
        for (task, proc) in &mut machine.procs {
            let known = self.snapshot.tasks.get(task);
            proc.told = known.map_or(Desired::Remove, |task| task.desired);
        }
        let here = |task: &&Task| task.worker == Some(id) && !task.state.is_end();
        for task in self.snapshot.tasks.values().filter(here) {
            let alone = task.volumes.iter().filter(|mount| !mount.shared);
            machine.procs.entry(task.id).or_insert(Proc {
                service: task.service,
                version: task.version,
                state: State::Assigned,
                next_ms: self.now_ms,
                told: task.desired,
                alone: alone.map(|mount| mount.volume.clone()).collect(),
            });
        }
    }

    fn progress(&mut self, machine: &mut Machine) {
        let lease_over = self.now_ms - machine.heard_ms >= LEASE_MS;
        for proc in machine
            .procs
            .values_mut()
            .filter(|proc| !proc.state.is_end())
        {
            if !proc.alone.is_empty() && lease_over {
                proc.state = State::Failed;
                continue;
            }
            if proc.told != Desired::Run && proc.state != State::Stopping {
                proc.state = match proc.state {
                    State::Assigned => State::Stopped,
                    _ => State::Stopping,
                };
                proc.next_ms = self.now_ms + self.rng.below(3_000);
                continue;
            }
            let crash = self.faults && self.rng.one_in(400);
            if crash || self.now_ms >= proc.next_ms {
                let bad = self.bad.contains(&(proc.service, proc.version));
                proc.state = match proc.state {
                    State::Stopping => State::Stopped,
                    State::Assigned if crash => State::Rejected,
                    _ if crash => State::Failed,
                    State::Assigned => State::Preparing,
                    State::Preparing => State::Starting,
                    State::Starting if bad && self.rng.one_in(2) => State::Failed,
                    State::Running if bad => State::Failed,
                    _ => State::Running,
                };
                proc.next_ms = self.now_ms + self.rng.below(1_500);
                self.failed += u32::from(proc.state == State::Failed);
            }
        }
    }

    fn report(&mut self, id: WorkerId, machine: &mut Machine) {
        let joining = self.snapshot.workers[&id].status == Status::Joining;
        for task in self
            .snapshot
            .tasks
            .values_mut()
            .filter(|task| task.worker == Some(id))
        {
            let seen = match machine.procs.get(&task.id) {
                Some(proc) => proc.state,
                None if joining => State::Failed,
                None => continue,
            };
            if task.state.may_become(seen) {
                task.state = seen;
                task.changed_ms = self.now_ms;
                if seen == State::Running {
                    task.running_since_ms = Some(self.now_ms);
                }
            }
        }
        self.worker(id).status = Status::Ready;
        machine.procs.retain(|_, proc| !proc.state.is_end());
    }

    /// The leader's wall clock is set ahead. Nothing else notices.
    pub(super) fn set_clock(&mut self, ms: u64) {
        self.now_ms += ms;
        self.steady_since_ms = self.now_ms;
        for machine in self.machines.values_mut() {
            machine.heard_ms += ms;
            machine
                .procs
                .values_mut()
                .for_each(|proc| proc.next_ms += ms);
        }
    }

    pub(super) fn moment(&self) -> Moment {
        let until = |machine: &Machine| machine.heard_ms + LEASE_MS + LEASE_MS / 100;
        let leases = Leases {
            now_ms: self.now_ms,
            others_until_ms: 0,
            until_ms: self
                .machines
                .iter()
                .map(|(&id, machine)| (id, until(machine)))
                .collect(),
        };
        Moment {
            now_ms: self.now_ms,
            steady_since_ms: self.steady_since_ms,
            leases,
            limits: Limits::default(),
            known_ms: self.faults.then(|| {
                let machines = self.machines.iter();
                machines.map(|(&id, one)| (id, one.heard_ms)).collect()
            }),
        }
    }

    fn decide(&mut self) {
        let moment = self.moment();
        let before = self.snapshot.clone();
        let plan = self.reconciler.pass(&before, &moment);
        let anew = reconcile(&before, &moment);
        assert_eq!(
            plan.changes, anew.changes,
            "what was not looked at had changes"
        );
        if let Some(due_ms) = anew.wake_ms {
            let wake_ms = plan.wake_ms.expect("whoever saw more before wakes as well");
            assert!(wake_ms <= due_ms, "it wakes at {wake_ms}, {due_ms} is due");
        }
        let mut applied = plan.changes.len();
        if self.faults && self.rng.one_in(6) {
            applied = self.rng.below(applied as u64 + 1) as usize;
        }
        for change in &plan.changes[..applied] {
            self.snapshot.apply(change, self.now_ms);
            if let Change::MarkLost { task } = change {
                self.ever_lost.insert(*task);
            }
        }
        self.check_capacity();
        if applied < plan.changes.len() {
            return;
        }
        self.check_service_counts(&before);
        let again = reconcile(&self.snapshot, &moment);
        assert_eq!(
            again.changes,
            vec![],
            "a plan applied leaves nothing, after {:?}",
            plan.changes
        );
        assert!(again.wake_ms.is_none_or(|wake_ms| wake_ms > self.now_ms));
        let quiet_ms = again
            .wake_ms
            .map_or(600_000, |wake_ms| wake_ms - self.now_ms - 1);
        let mut later = moment;
        later.now_ms += quiet_ms;
        later.leases.now_ms += quiet_ms;
        assert_eq!(
            reconcile(&self.snapshot, &later).changes,
            vec![],
            "due before its time"
        );
    }

    /// Slots that `service` shall have.
    pub(super) fn wanted(snapshot: &Snapshot, service: &Service) -> usize {
        match service.current.spec.mode {
            Mode::Replicated => service.current.spec.replicas as usize,
            Mode::Global => {
                let active = |w: &&Worker| w.availability == Availability::Active;
                snapshot.workers.values().filter(active).count()
            }
        }
    }

    /// Slots that serve and shall, of the service `id`.
    pub(super) fn serving(snapshot: &Snapshot, id: ServiceId) -> usize {
        let global = snapshot.services[&id].current.spec.mode == Mode::Global;
        let there = |task: &&Task| {
            let worker = task.worker.and_then(|worker| snapshot.workers.get(&worker));
            worker.is_some_and(|worker| {
                let drained = worker.availability == Availability::Drain;
                worker.status != Status::Down && !(global && drained)
            })
        };
        let tasks = snapshot.tasks.values().filter(|task| task.service == id);
        let serving = tasks.filter(|task| task.is_available()).filter(there);
        serving.map(|task| task.slot).collect::<BTreeSet<_>>().len()
    }

    fn check_service_counts(&self, before: &Snapshot) {
        for service in self
            .snapshot
            .services
            .values()
            .filter(|service| !service.removing)
        {
            let wanted = World::wanted(&self.snapshot, service);
            let pace = Pace::new(&service.current.spec);
            let had = World::serving(before, service.id);
            let has = World::serving(&self.snapshot, service.id);
            let drained = before
                .workers
                .values()
                .any(|w| w.availability == Availability::Drain);
            let pinned = drained && service.current.spec.is_single_writer();
            let least = wanted.saturating_sub(pace.unavailable as usize).min(had);
            assert!(
                pinned || has >= least,
                "{}: {has} of {least} left",
                service.current.spec.name
            );
            let tasks = self
                .snapshot
                .tasks
                .values()
                .filter(|task| task.service == service.id);
            let standing = tasks.filter(|task| !task.state.is_end() && task.lost_ms.is_none());
            let counted = standing.filter(|task| {
                task.desired != Desired::Remove && !self.ever_lost.contains(&task.id)
            });
            let most = wanted + pace.surge as usize;
            let count = counted.count();
            assert!(
                count <= most,
                "{}: {count} of {most}",
                service.current.spec.name
            );
        }
    }

    fn check_capacity(&self) {
        for worker in self.snapshot.workers.values() {
            let here = self
                .snapshot
                .tasks
                .values()
                .filter(|task| task.worker == Some(worker.id));
            let here = here.filter(|task| task.state.is_on_worker());
            let cpu: u64 = here.map(|task| task.reservations.cpu_milli).sum();
            assert!(cpu <= worker.capacity.cpu_milli);
        }
    }

    /// No two processes anywhere have one single-writer volume.
    fn check_volumes(&self) {
        let mut held = BTreeMap::new();
        for machine in self.machines.values() {
            for (task, proc) in &machine.procs {
                if proc.state == State::Assigned || proc.state.is_end() {
                    continue;
                }
                for volume in &proc.alone {
                    assert_eq!(held.insert(volume, task), None, "{volume} is held twice");
                }
            }
        }
    }

    /// What is not yet as it shall be; nothing: all is well.
    pub(super) fn trouble(&self) -> Option<String> {
        for service in self.snapshot.services.values() {
            let name = &service.current.spec.name;
            if service.removing {
                return Some(format!("{name} is still there"));
            }
            let wanted = World::wanted(&self.snapshot, service);
            let serving = World::serving(&self.snapshot, service.id);
            let tasks = self
                .snapshot
                .tasks
                .values()
                .filter(|task| task.service == service.id);
            let standing: Vec<&Task> = tasks.filter(|task| !task.state.is_end()).collect();
            let right = |task: &&&Task| task.version == service.current.contents;
            let right = standing.iter().filter(right).count();
            if (serving, standing.len(), right) != (wanted, wanted, wanted) {
                return Some(format!(
                    "{name}: {serving} serve, {} stand, {right} are right, {wanted} are wanted; {:?}",
                    standing.len(),
                    service.rollout
                ));
            }
            if service.rebalancing {
                return Some(format!("{name} is still being spread"));
            }
            if service.rollout.is_moving() {
                return Some(format!("{name}: {:?}", service.rollout));
            }
        }
        None
    }

    pub(super) fn settle(&mut self, bound_ms: u64) {
        let until = self.now_ms + bound_ms;
        self.step(250);
        while let Some(trouble) = self.trouble() {
            assert!(
                self.now_ms < until,
                "not settled: {trouble}\n{:#?}",
                self.snapshot.tasks
            );
            self.step(250);
        }
    }
}
