//! What one append message costs between the loop of one node and that of another: 64 entries of 256 bytes.
//!
//! `cargo bench -p node --bench codec`. Encoding goes from raft's message to a frame in the connection's buffer; decoding
//! from those bytes, checksum and validation included, back to raft's message. `wal` measures the log's own codec.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use node::types::{GroupId, NodeId};
use node::wire::raft::to_wire;
use node::wire::{Kind, RaftMessage, frame};
use raft::eraftpb::{Entry, Message, MessageType};
use std::hint::black_box;

/// Entries of the message.
const ENTRIES: u64 = 64;
/// Bytes of data of each entry.
const ENTRY: usize = 256;
/// Bytes of an entry's context: its proposer's nonce and a number.
const CONTEXT: usize = 16;
/// Greatest frame, bytes.
const FRAME_MAX: usize = 64 << 20;

fn append() -> Message {
    let entry = |index| Entry {
        index,
        term: 7,
        data: vec![index as u8; ENTRY].into(),
        context: vec![index as u8; CONTEXT].into(),
        ..Entry::default()
    };
    let mut message = Message {
        from: 1,
        to: 2,
        term: 7,
        log_term: 7,
        index: 1_000,
        commit: 990,
        entries: (1_001..1_001 + ENTRIES).map(entry).collect(),
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    message
}

fn encoded(message: &Message, into: &mut BytesMut) {
    let wire = to_wire(GroupId(0), message).expect("a sound message");
    frame::encode(into, Kind::Raft, &wire, FRAME_MAX).expect("it fits");
}

fn decoded(mut bytes: BytesMut) -> Message {
    let frame = frame::decode(&mut bytes, FRAME_MAX).expect("a sound frame");
    let frame = frame.expect("a whole frame");
    let wire: RaftMessage = frame
        .open(Kind::Raft, "an append")
        .expect("a sound message");
    wire.open(NodeId(1), NodeId(2))
        .expect("an append that a correct node sends")
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_message");
    group.throughput(Throughput::Elements(ENTRIES));
    let message = append();
    let mut buffer = BytesMut::new();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encoded(black_box(&message), &mut buffer);
        });
    });
    buffer.clear();
    encoded(&message, &mut buffer);
    group.bench_function("decode", |bencher| {
        let copy = || BytesMut::from(&buffer[..]);
        bencher.iter_batched(copy, decoded, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
