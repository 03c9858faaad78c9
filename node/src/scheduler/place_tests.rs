//! Placement against a slow reference that compares every worker for every task, and the promises that hold for any snapshot.

use super::change::Change;
use super::filter::{Need, Reason, explain};
use super::model::*;
use super::place::place;
use super::room::Rooms;
use crate::service::spec::{Amounts, Mode, Mount, Port, Spec};
use crate::service::{Desired, State};
use crate::types::{Epoch, ServiceId, TaskId, WorkerId};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn worker(id: u64, zone: u64, cpu_milli: u64) -> Worker {
    Worker {
        id: WorkerId(id),
        name: format!("w{id}"),
        labels: [("zone".to_owned(), format!("z{zone}"))].into(),
        capacity: Amounts {
            cpu_milli,
            memory_bytes: 1 << 30,
        },
        status: Status::Ready,
        epoch: Epoch(1),
        ..Worker::default()
    }
}

fn cluster(workers: u64) -> Snapshot {
    Snapshot {
        workers: (1..=workers)
            .map(|id| (WorkerId(id), worker(id, id % 3, 64_000)))
            .collect(),
        next_task: TaskId(1),
        ..Snapshot::default()
    }
}

fn add(snapshot: &mut Snapshot, id: u64, spec: Spec, tasks: u64) {
    snapshot
        .services
        .insert(ServiceId(id), Service::new(ServiceId(id), spec));
    for slot in 1..=tasks {
        let change = Change::Create {
            task: snapshot.next_task,
            service: ServiceId(id),
            slot,
            version: 1,
            failures: 0,
        };
        snapshot.apply(&change, 1_000);
    }
}

fn spec(name: &str) -> Spec {
    let mut spec = Spec::new(name, &["run"]);
    spec.resources.reservations.cpu_milli = 100;
    spec
}

/// What one task would be given by comparing everything from scratch.
fn slow_choice(snapshot: &Snapshot, moment: &Moment, task: &Task) -> Option<WorkerId> {
    let spec = snapshot.services[&task.service].spec_of(task.version)?;
    let need = Need::new(task.service, spec);
    let rooms = Rooms::new(snapshot, moment);
    let counted: Vec<&Task> = snapshot
        .tasks
        .values()
        .filter(|t| t.service == task.service && t.slot != task.slot)
        .filter(|t| t.state.is_on_worker() && t.desired == Desired::Run && t.lost_ms.is_none())
        .collect();
    let label = |worker: WorkerId, label: &String| {
        let worker = snapshot.workers.get(&worker);
        worker
            .and_then(|w| w.labels.get(label))
            .cloned()
            .unwrap_or_default()
    };
    let fitting = snapshot.workers.values();
    let fitting = fitting.filter(|w| need.fits(snapshot, &rooms, w, task.slot).is_ok());
    let score = |w: &Worker| {
        let failed = snapshot.tasks.values().any(|t| {
            t.service == task.service
                && t.worker == Some(w.id)
                && matches!(t.state, State::Failed | State::Rejected)
                && t.lost_ms.is_none()
                && moment.now_ms - t.changed_ms < moment.limits.failed_lately_ms
        });
        let labels = &spec.placement.spread;
        let spread: Vec<usize> = (1..=labels.len())
            .map(|depth| {
                let same = |t: &&&Task| {
                    let home = t.worker.unwrap();
                    labels[..depth]
                        .iter()
                        .all(|l| label(home, l) == label(w.id, l))
                };
                counted.iter().filter(same).count()
            })
            .collect();
        let copies = counted.iter().filter(|t| t.worker == Some(w.id)).count();
        (
            failed,
            spread,
            copies,
            rooms.share(w),
            rooms.tasks(w.id),
            w.id,
        )
    };
    fitting.map(score).min().map(|score| score.5)
}

/// The same order of tasks as [`place`]: by service and version, new places first, then replacements.
fn slow_place(snapshot: &Snapshot, moment: &Moment) -> Vec<Change> {
    let mut copy = snapshot.clone();
    let others = |task: &Task| {
        snapshot.tasks.values().any(|t| {
            (t.service, t.slot) == (task.service, task.slot)
                && t.state.is_on_worker()
                && t.desired == Desired::Run
                && t.lost_ms.is_none()
        })
    };
    let pending = snapshot.tasks.values();
    let pending = pending.filter(|t| t.state == State::Pending && t.desired == Desired::Run);
    let mut pending: Vec<&Task> = pending.collect();
    pending.sort_by_key(|task| {
        let special = others(task) || !task.volumes.is_empty();
        (task.service, task.version, special, task.id)
    });
    let mut changes = Vec::new();
    for task in pending {
        if let Some(worker) = slow_choice(&copy, moment, task) {
            let epoch = copy.workers[&worker].epoch;
            let task = task.id;
            let change = Change::Assign {
                task,
                worker,
                epoch,
            };
            copy.apply(&change, moment.now_ms);
            changes.push(change);
        }
    }
    changes
}

fn moment() -> Moment {
    Moment {
        now_ms: 10_000,
        ..Moment::default()
    }
}

#[derive(Clone, Debug)]
struct Shape {
    workers: Vec<(u64, u64, u8)>,
    services: Vec<(u64, u64, u8, u32)>,
    old: Vec<(u64, u64, u64, u8)>,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let workers = prop::collection::vec((0..3u64, 0..1500u64, 0..8u8), 1..9);
    let services = prop::collection::vec((0..12u64, 0..400u64, 0..32u8, 0..3u32), 1..5);
    let old = prop::collection::vec((0..5u64, 1..10u64, 1..9u64, 0..6u8), 0..20);
    (workers, services, old).prop_map(|(workers, services, old)| Shape {
        workers,
        services,
        old,
    })
}

fn build(shape: &Shape) -> Snapshot {
    let mut snapshot = cluster(0);
    for (index, &(zone, cpu, kind)) in shape.workers.iter().enumerate() {
        let mut worker = worker(index as u64 + 1, zone, cpu);
        match kind {
            0 => worker.status = Status::Down,
            1 => worker.availability = Availability::Drain,
            2 => worker.labels.clear(),
            _ => (),
        }
        snapshot.workers.insert(worker.id, worker);
    }
    for (index, &(tasks, cpu, flags, copies)) in shape.services.iter().enumerate() {
        let mut spec = spec(&format!("s{index}"));
        spec.resources.reservations.cpu_milli = cpu;
        spec.placement.replicas_per_node_max = copies;
        if flags & 1 > 0 {
            spec.placement.spread = vec!["zone".to_owned()];
        }
        if flags & 6 == 6 {
            spec.ports = vec![Port {
                host: 80,
                target: 0,
            }];
        }
        if flags & 24 > 0 {
            spec.volumes = vec![Mount {
                volume: format!("v{}", index % 2),
                target: "/v".to_owned(),
                shared: flags & 8 > 0,
            }];
        }
        if flags & 18 == 18 {
            spec.mode = Mode::Global;
        }
        add(&mut snapshot, index as u64 + 1, spec, tasks);
    }
    for &(service, slot, worker, kind) in &shape.old {
        let id = snapshot.next_task;
        let create = Change::Create {
            task: id,
            service: ServiceId(service),
            slot,
            version: 1,
            failures: 0,
        };
        snapshot.apply(&create, 2_000);
        let (worker, epoch) = (WorkerId(worker), Epoch(1));
        let fits = snapshot.tasks.get(&id).is_some_and(|task| {
            let spec = &snapshot.services[&task.service].current.spec;
            let rooms = Rooms::new(&snapshot, &moment());
            let target = snapshot.workers.get(&worker);
            let need = Need::new(task.service, spec);
            target.is_some_and(|w| need.has_room(&snapshot, &rooms, w).is_ok())
        });
        if fits {
            let task = id;
            let assign = Change::Assign {
                task,
                worker,
                epoch,
            };
            snapshot.apply(&assign, 3_000);
            let task = snapshot.tasks.get_mut(&id).unwrap();
            task.state = [State::Running, State::Starting, State::Failed][usize::from(kind % 3)];
            if kind > 4 {
                task.desired = Desired::Stop;
            }
        } else {
            snapshot.tasks.remove(&id);
        }
    }
    snapshot
}

fn check_promises(before: &Snapshot, after: &Snapshot) {
    let mut ports: BTreeMap<(WorkerId, u16), TaskId> = BTreeMap::new();
    let mut volumes: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut reserved: BTreeMap<WorkerId, u64> = BTreeMap::new();
    let mut copies: BTreeMap<(WorkerId, ServiceId), u32> = BTreeMap::new();
    for task in after
        .tasks
        .values()
        .filter(|task| task.state.is_on_worker())
    {
        let worker = task.worker.unwrap();
        *reserved.entry(worker).or_default() += task.reservations.cpu_milli;
        *copies.entry((worker, task.service)).or_default() += 1;
        for &port in &task.ports {
            assert_eq!(
                ports.insert((worker, port), task.id),
                None,
                "a port is double"
            );
        }
        for mount in &task.volumes {
            let (all, alone) = volumes.entry(&mount.volume).or_default();
            *all += 1;
            *alone += u32::from(!mount.shared);
            assert_eq!(after.volumes[&mount.volume].worker, Some(worker));
        }
        if before.tasks[&task.id].state == State::Pending {
            let target = &after.workers[&worker];
            assert_eq!(target.status, Status::Ready);
            assert_eq!(target.availability, Availability::Active);
        }
    }
    for (worker, cpu) in reserved {
        assert!(
            cpu <= after.workers[&worker].capacity.cpu_milli,
            "{worker} has promised {cpu}"
        );
    }
    for ((_, service), count) in copies {
        let max = after.services[&service]
            .current
            .spec
            .placement
            .replicas_per_node_max;
        assert!(max == 0 || count <= max, "{count} copies of {service}");
    }
    for (volume, (all, alone)) in volumes {
        assert!(alone == 0 || all == 1, "{volume} has {all} tasks");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn placement_is_that_of_the_slow_reference_and_keeps_its_promises(shape in shapes()) {
        let snapshot = build(&shape);
        let changes = place(&snapshot, &moment());
        prop_assert_eq!(&changes, &slow_place(&snapshot, &moment()));
        let mut after = snapshot.clone();
        changes.iter().for_each(|change| after.apply(change, 10_000));
        check_promises(&snapshot, &after);
        prop_assert_eq!(place(&after, &moment()), vec![], "what fits is placed at once");
        for task in after.tasks.values().filter(|t| t.state == State::Pending) {
            let why = explain(&after, &moment(), task.id).unwrap();
            prop_assert_eq!(why.workers.len(), after.workers.len(), "{}", why.summary);
        }
    }

    #[test]
    fn copies_are_spread_within_one(workers in 1..20u64, tasks in 1..100u64) {
        let mut snapshot = cluster(workers);
        let mut web = spec("web");
        web.placement.spread = vec!["zone".to_owned()];
        add(&mut snapshot, 1, web, tasks);
        let (mut by_worker, mut by_zone) = (BTreeMap::new(), BTreeMap::new());
        for worker in snapshot.workers.values() {
            by_worker.insert(worker.id, 0u64);
            by_zone.insert(worker.labels["zone"].clone(), 0u64);
        }
        for change in place(&snapshot, &moment()) {
            let Change::Assign { worker, .. } = change else { unreachable!() };
            *by_worker.get_mut(&worker).unwrap() += 1;
            *by_zone.get_mut(&snapshot.workers[&worker].labels["zone"]).unwrap() += 1;
        }
        prop_assert_eq!(by_worker.values().sum::<u64>(), tasks);
        prop_assert!(by_zone.values().max().unwrap() - by_zone.values().min().unwrap() <= 1);
        for zone in by_zone.keys() {
            let there = by_worker.iter().filter(|(id, _)| &snapshot.workers[id].labels["zone"] == zone);
            let there: Vec<u64> = there.map(|(_, &copies)| copies).collect();
            prop_assert!(there.iter().max().unwrap() - there.iter().min().unwrap() <= 1);
        }
    }
}

#[test]
fn a_thousand_tasks_go_to_a_hundred_workers_in_one_pass() {
    let mut snapshot = cluster(100);
    add(&mut snapshot, 1, spec("web"), 1_000);
    let changes = place(&snapshot, &moment());
    changes
        .iter()
        .for_each(|change| snapshot.apply(change, 10_000));
    let rooms = Rooms::new(&snapshot, &moment());
    assert!(
        snapshot
            .workers
            .keys()
            .all(|&worker| rooms.tasks(worker) == 10)
    );
}

#[test]
fn a_summary_counts_workers_by_reason() {
    let mut snapshot = cluster(5);
    for id in 1..=3 {
        snapshot
            .workers
            .get_mut(&WorkerId(id))
            .unwrap()
            .availability = Availability::Drain;
    }
    for id in 4..=5 {
        snapshot
            .workers
            .get_mut(&WorkerId(id))
            .unwrap()
            .capacity
            .memory_bytes = (90 + 2 * id) << 20;
    }
    let mut big = spec("big");
    big.resources.reservations.memory_bytes = 512 << 20;
    add(&mut snapshot, 1, big, 1);
    let why = explain(&snapshot, &moment(), TaskId(1)).unwrap();
    assert_eq!(
        why.summary,
        "3 of 5 workers: drained; 2 of 5: not enough memory (needs 512 MiB, free 100 MiB)"
    );
    assert_eq!(why.workers[0], (WorkerId(1), Reason::Drained));
}

#[test]
fn a_volume_on_a_worker_that_is_down_keeps_its_task_waiting_with_a_reason() {
    let mut snapshot = cluster(2);
    snapshot.workers.get_mut(&WorkerId(2)).unwrap().status = Status::Down;
    let volume = Volume {
        name: "data".to_owned(),
        worker: Some(WorkerId(2)),
    };
    snapshot.volumes.insert("data".to_owned(), volume);
    let mut db = spec("db");
    db.volumes = vec![Mount {
        volume: "data".to_owned(),
        target: "/data".to_owned(),
        shared: false,
    }];
    add(&mut snapshot, 1, db, 1);
    assert_eq!(place(&snapshot, &moment()), vec![]);
    let why = explain(&snapshot, &moment(), TaskId(1)).unwrap();
    assert_eq!(
        why.summary,
        "1 of 2 workers: down; 1 of 2: volume data lies on w2, which is down"
    );
    snapshot.workers.remove(&WorkerId(2));
    let why = explain(&snapshot, &moment(), TaskId(1)).unwrap().summary;
    let says = "volume data lies on a node that was removed (2), `volume rm` gives";
    assert!(why.contains(says), "nobody remembers it: {why}");
    let name = "w2".to_owned();
    let removed = Removed {
        name,
        ..Removed::default()
    };
    snapshot.removed.insert(WorkerId(2), removed);
    let why = explain(&snapshot, &moment(), TaskId(1)).unwrap().summary;
    assert!(
        why.contains("volume data lies on w2, which was removed (`volume rm`"),
        "{why}"
    );
}

#[test]
fn images_and_constraints_are_filters() {
    let mut snapshot = cluster(3);
    snapshot.workers.get_mut(&WorkerId(1)).unwrap().containers = true;
    let mut web = spec("web");
    web.image = Some("web:1".to_owned());
    web.placement.constraints = vec!["node.labels.zone == z9".to_owned()];
    add(&mut snapshot, 1, web.clone(), 1);
    let why = explain(&snapshot, &moment(), TaskId(1)).unwrap();
    assert_eq!(
        why.summary,
        "2 of 3 workers: runs no images; 1 of 3: not node.labels.zone == z9"
    );
    web.placement.constraints = vec!["node.labels.zone == z1".to_owned()];
    snapshot
        .services
        .get_mut(&ServiceId(1))
        .unwrap()
        .current
        .spec = web.into();
    assert_eq!(place(&snapshot, &moment()).len(), 1);
}
