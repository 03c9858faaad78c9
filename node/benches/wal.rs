//! What the write-ahead log costs: group commits of 1, 16 and 256 entries, encoding, and recovery.
//!
//! `cargo bench -p node --bench wal`. The directory is under `target`, so that the disk is a real one. A figure for
//! `append_and_sync` is mostly the device's sync.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use node::types::{GroupId, Index, Term};
use node::wal::{Entry, Options, Record, SnapshotMark, Wal, decode, encode};
use std::hint::black_box;
use std::path::Path;

/// Bytes of data of each entry.
const ENTRY: usize = 256;
/// Length of a segment, bytes.
const SEGMENT: u64 = 16 << 20;

fn entries(from: u64, count: u64) -> Record {
    let one = |index| Entry {
        index: Index(index),
        term: Term(1),
        data: vec![index as u8; ENTRY].into(),
        ..Entry::default()
    };
    Record::Entries {
        group: GroupId(0),
        entries: (from..from + count).map(one).collect(),
    }
}

fn place() -> tempfile::TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).expect("a directory")
}

/// Keeps the log short: everything but the last entry goes.
fn trim(wal: &mut Wal, index: u64) {
    let mark = SnapshotMark {
        index: Index(index),
        term: Term(1),
    };
    let group = GroupId(0);
    let record = Record::SnapshotMark { group, mark };
    wal.append_and_sync(&[record]).expect("a mark");
    wal.release(group, Index(index));
    wal.trim().expect("a trim");
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_and_sync");
    for count in [1, 16, 256] {
        group.throughput(Throughput::Elements(count));
        let dir = place();
        let (mut wal, _) = Wal::open(dir.path(), Options::new(SEGMENT)).expect("a log");
        wal.prepare_spare().expect("a spare");
        let mut next = 1;
        group.bench_function(count.to_string(), |bencher| {
            bencher.iter_batched(
                || {
                    let record = entries(next, count);
                    next += count;
                    record
                },
                |record| {
                    let index = match &record {
                        Record::Entries { entries, .. } => entries[0].index.0,
                        _ => unreachable!("only entries are written"),
                    };
                    wal.append_and_sync(&[record]).expect("a batch");
                    if wal.stats().segments > 2 {
                        trim(&mut wal, index);
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn unsynced(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Bytes(16 * ENTRY as u64));
    let dir = place();
    let (mut wal, _) = Wal::open(dir.path(), Options::new(SEGMENT)).expect("a log");
    let record = [entries(1, 16)];
    group.bench_function("16", |bencher| {
        bencher.iter(|| {
            wal.append(&record).expect("a batch");
            if wal.stats().segments > 2 {
                wal.trim().expect("a trim");
            }
        });
    });
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    let record = entries(1, 256);
    let mut bytes = Vec::new();
    encode(&record, &mut bytes).expect("it is short");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut out = Vec::new();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&record), &mut out).expect("it is short");
        });
    });
    let bytes = bytes::Bytes::from(bytes);
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode(black_box(bytes.clone())).expect("it is whole"));
    });
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    let dir = place();
    let (mut wal, _) = Wal::open(dir.path(), Options::new(SEGMENT)).expect("a log");
    let mut next = 1;
    while wal.stats().segments < 4 {
        wal.append(&[entries(next, 16)]).expect("a batch");
        next += 16;
    }
    wal.sync().expect("a sync");
    group.throughput(Throughput::Bytes(wal.stats().bytes));
    drop(wal);
    group.sample_size(10);
    group.bench_function("open_64_mib", |bencher| {
        bencher.iter(|| Wal::open(dir.path(), Options::new(SEGMENT)).expect("a log"));
    });
    group.finish();
}

criterion_group!(benches, append, unsynced, codec, recovery);
criterion_main!(benches);
