//! What a pass of the scheduler costs: placing a new service, looking at a quiet fleet, and losing a worker.
//!
//! `cargo bench -p node --bench scheduler`. The machine should be otherwise idle.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use node::scheduler::model::{Service, Status, Worker};
use node::scheduler::{Moment, Snapshot, reconcile};
use node::service::spec::{Amounts, Spec};
use node::service::{Desired, State};
use node::types::{Epoch, ServiceId, TaskId, WorkerId};
use std::hint::black_box;

/// Workers, in three zones.
const WORKERS: u64 = 100;
/// Time of the pass, milliseconds.
const NOW_MS: u64 = 1_000_000;

/// Workers with room, and services of a hundred copies each that have no task yet.
fn fleet(tasks: u64) -> Snapshot {
    let mut snapshot = Snapshot {
        next_task: TaskId(1),
        ..Snapshot::default()
    };
    for id in 1..=WORKERS {
        let worker = Worker {
            id: WorkerId(id),
            name: format!("w{id}"),
            labels: [("zone".to_owned(), format!("z{}", id % 3))].into(),
            platform: "linux/amd64".to_owned(),
            containers: false,
            capacity: Amounts {
                cpu_milli: 64_000,
                memory_bytes: 256 << 30,
            },
            status: Status::Ready,
            epoch: Epoch(1),
            ..Worker::default()
        };
        snapshot.workers.insert(worker.id, worker);
    }
    for id in 1..=tasks / 100 {
        let mut spec = Spec::new(format!("s{id}"), &["run"]);
        spec.replicas = 100;
        spec.placement.spread = vec!["zone".to_owned()];
        spec.resources.reservations.cpu_milli = 100;
        let id = ServiceId(id);
        snapshot.services.insert(id, Service::new(id, spec));
    }
    snapshot
}

/// The same with every task running.
fn running(tasks: u64) -> Snapshot {
    let mut snapshot = fleet(tasks);
    let moment = moment();
    let plan = reconcile(&snapshot, &moment);
    for change in &plan.changes {
        snapshot.apply(change, moment.now_ms);
    }
    for task in snapshot.tasks.values_mut() {
        assert_eq!(task.desired, Desired::Run);
        task.state = State::Running;
        task.running_since_ms = Some(NOW_MS);
    }
    assert_eq!(snapshot.tasks.len() as u64, tasks);
    snapshot
}

fn moment() -> Moment {
    Moment {
        now_ms: NOW_MS,
        ..Moment::default()
    }
}

fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    for tasks in [1_000, 10_000] {
        group.throughput(Throughput::Elements(tasks));
        let (fresh, quiet, moment) = (fleet(tasks), running(tasks), moment());
        group.bench_function(BenchmarkId::new("place all", tasks), |b| {
            b.iter(|| reconcile(black_box(&fresh), &moment));
        });
        group.bench_function(BenchmarkId::new("quiet pass", tasks), |b| {
            b.iter(|| reconcile(black_box(&quiet), &moment));
        });
        let mut lost = quiet.clone();
        if let Some(worker) = lost.workers.get_mut(&WorkerId(7)) {
            worker.status = Status::Down;
        }
        group.bench_function(BenchmarkId::new("worker down", tasks), |b| {
            b.iter(|| reconcile(black_box(&lost), &moment));
        });
    }
    group.finish();
}

criterion_group!(benches, passes);
criterion_main!(benches);
