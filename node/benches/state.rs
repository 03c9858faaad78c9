//! What applying, reading, and snapshots cost through the real store.
//!
//! `cargo bench -p node --bench state`. The machine should be otherwise idle.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use node::knobs::Knobs;
use node::snapshot;
use node::state::command::{Command, Get, Limits, Op, Put};
use node::state::{self, Batch, Entry, Genesis};
use node::store::Store;
use node::types::{ClusterId, GroupId, Index, Term};
use prost::Message;
use std::path::Path;
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

/// A store with every key written once.
fn filled(dir: &Path) -> Store {
    let store = Store::create(dir, &Knobs::default()).expect("a fresh directory");
    let genesis = Genesis {
        cluster_id: ClusterId(1),
        members: Vec::new(),
        limits: Limits {
            sessions_max: 10_000,
            history_revisions: HISTORY,
        },
        position: (Index(0), Term(0)),
    };
    store.write(&state::genesis(&genesis)).expect("writable");
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

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = puts_and_gets, snapshots
}
criterion_main!(benches);
