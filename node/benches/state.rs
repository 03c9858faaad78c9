//! What applying, reading, and snapshots cost through the real store.
//!
//! `cargo bench -p node --bench state`. The machine should be otherwise idle.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use node::fleet::command::{Machine, WorkerHello};
use node::fleet::{self, Fleet};
use node::knobs::Knobs;
use node::scheduler::{Moment, reconcile};
use node::service::Spec;
use node::service::spec::Amounts;
use node::snapshot;
use node::state::command::{Command, FleetCommand, Get, Limits, Op, Put};
use node::state::{self, Batch, Entry, Genesis, Memory};
use node::store::Store;
use node::types::{ClusterId, Epoch, GroupId, Incarnation, Index, Term};
use node::worker::exchange::{Hello, Identity};
use prost::Message;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Keys of the filled state.
const KEYS: u64 = 20_000;
/// Revisions kept.
const HISTORY: u64 = 100_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;

/// A put of one of [`KEYS`] keys, in an order that jumps.
fn entry(index: u64) -> Entry {
    let put = Put {
        key: key(index.wrapping_mul(7919) % KEYS),
        value: vec![index as u8; VALUE_BYTES].into(),
        ..Put::default()
    };
    let command = Command {
        op: Some(Op::Put(put)),
        ..Command::default()
    };
    Entry {
        index: Index(index),
        term: Term(1),
        payload: command.encode_to_vec().into(),
    }
}

fn key(number: u64) -> Bytes {
    format!("bench/key/{number:08}").into()
}

/// Applies `count` entries in one batch.
fn apply(store: &Store, count: u64) {
    let mut batch = Batch::new(store).expect("founded");
    for _ in 0..count {
        let next = batch.applied_index().0 + 1;
        batch.apply(&entry(next)).expect("readable");
    }
    let writes = batch.finish();
    store.write(&writes).expect("writable");
}

fn founding() -> Genesis {
    Genesis {
        cluster_id: ClusterId(1),
        members: Vec::new(),
        limits: Limits {
            sessions_max: 10_000,
            history_revisions: HISTORY,
        },
        position: (Index(0), Term(0)),
    }
}

/// A store with every key written once.
fn filled(dir: &Path) -> Store {
    let store = Store::create(dir, &Knobs::default()).expect("a fresh directory");
    store.write(&state::genesis(&founding())).expect("writable");
    for _ in 0..KEYS / 200 {
        apply(&store, 200);
    }
    store
}

fn puts_and_gets(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = filled(dir.path());
    let mut group = criterion.benchmark_group("state");
    for size in [1, 16, 256] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("apply_puts_in_batches_of_{size}"), |bench| {
            bench.iter(|| apply(&store, size));
        });
    }
    // What a node pays that runs for long: every put drops an event from history.
    for _ in 0..(HISTORY / 200) {
        apply(&store, 200);
    }
    for size in [1, 256] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(
            format!("apply_puts_in_batches_of_{size}_with_full_history"),
            |bench| {
                bench.iter(|| apply(&store, size));
            },
        );
    }
    group.throughput(Throughput::Elements(1));
    let mut number = 0u64;
    group.bench_function("get", |bench| {
        bench.iter(|| {
            number += 1;
            let get = Get {
                key: key(number.wrapping_mul(7919) % KEYS),
                ..Get::default()
            };
            state::read(&store.view(), &get, 1).expect("readable")
        });
    });
    group.finish();
}

fn snapshots(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = filled(&dir.path().join("full"));
    let cut = || snapshot::write(dir.path(), GroupId(0), 0, &store.view()).expect("writable");
    let info = cut();
    let name = snapshot::file_name(info.index.0, info.term.0);
    let path = dir.path().join(name);
    let mut group = criterion.benchmark_group("snapshot");
    group.throughput(Throughput::Bytes(info.bytes));
    group.bench_function("write", |bench| bench.iter(cut));
    group.bench_function("verify", |bench| {
        bench.iter(|| snapshot::verify(&path).expect("good"));
    });
    group.bench_function("load", |bench| {
        let fresh = || {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::create(dir.path(), &Knobs::default()).expect("fresh");
            (dir, store)
        };
        bench.iter_batched(
            fresh,
            |(dir, store)| {
                snapshot::load(&path, &store).expect("good");
                (dir, store)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("full_hash_of_a_store", |bench| {
        bench.iter(|| state::full_hash(&store).expect("readable"));
    });
    group.finish();
}

/// The entry of a command of orchestration.
fn fleet_entry(index: u64, command: &fleet::Command) -> Entry {
    let json = serde_json::to_vec(command).expect("plain data");
    let command = Command {
        time_ms: 1_000_000 + index,
        op: Some(Op::Fleet(FleetCommand { json: json.into() })),
        ..Command::default()
    };
    Entry {
        index: Index(index),
        term: Term(1),
        payload: command.encode_to_vec().into(),
    }
}

/// Applies commands of orchestration, one batch for all, and gives the fleet after them.
fn command(state: &mut Memory, commands: &[fleet::Command]) -> Fleet {
    let mut batch = Batch::new(state).expect("founded");
    for command in commands {
        let next = batch.applied_index().0 + 1;
        batch.apply(&fleet_entry(next, command)).expect("readable");
    }
    let fleet = batch.changed_fleet().expect("changed");
    let writes = batch.finish();
    state.write(&writes);
    Arc::unwrap_or_clone(fleet)
}

/// A worker that joins by the token of 64 zeros.
fn joining(number: u64) -> fleet::Command {
    fleet::Command::WorkerHello(Box::new(WorkerHello {
        token_hash: Some("0".repeat(64)),
        machine: Machine {
            name: format!("w{number}"),
            address: format!("w{number}:8201"),
            platform: "linux/amd64".to_owned(),
            capacity: Amounts {
                cpu_milli: 64_000,
                memory_bytes: 256 << 30,
            },
            ..Machine::default()
        },
        hello: Hello {
            identity: Identity {
                life: Incarnation(number),
                ..Identity::default()
            },
            epoch: Epoch(0),
            revision: 0,
            is_anew: false,
            tasks: Default::default(),
            newest_report: 0,
        },
    }))
}

/// 1,000 tasks made and given to 100 workers by one entry, from its bytes to the writes.
fn plans(criterion: &mut Criterion) {
    let mut state = Memory::default();
    state.write(&state::genesis(&founding()));
    let mut commands = vec![fleet::Command::TokenCreate {
        hash: "0".repeat(64),
        ttl_ms: 86_400_000,
        role: node::fleet::TokenRole::Worker,
    }];
    commands.extend((1..=100).map(joining));
    let mut spec = Spec::new("web", &["run"]);
    spec.replicas = 1_000;
    commands.push(fleet::Command::ServiceCreate { spec });
    let fleet = Arc::new(command(&mut state, &commands));
    let moment = Moment {
        now_ms: 2_000_000,
        ..Moment::default()
    };
    let plan = reconcile(&fleet.snapshot, &moment);
    let plan = fleet::Command::Plan {
        term: Term(1),
        changes: plan.changes,
    };
    let next = commands.len() as u64 + 1;
    let entry = fleet_entry(next, &plan);
    let mut group = criterion.benchmark_group("fleet");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("apply_plan_of_1000_new_tasks", |bench| {
        bench.iter(|| {
            let batch = Batch::new(&state).expect("founded");
            let mut batch = batch.with_fleet(Arc::clone(&fleet));
            batch.apply(&entry).expect("readable");
            batch.finish()
        });
    });
    group.bench_function("reconcile_1000_new_tasks_on_100_workers", |bench| {
        bench.iter(|| reconcile(&fleet.snapshot, &moment));
    });
    let after = command(&mut state, &[plan]);
    group.bench_function("load_1000_tasks", |bench| {
        bench.iter(|| Fleet::load(&state).expect("good"));
    });
    group.bench_function("copy_1000_tasks", |bench| bench.iter(|| after.clone()));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = puts_and_gets, snapshots, plans
}
criterion_main!(benches);
