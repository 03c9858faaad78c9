//! Targets that a damaged disk reaches: records of the log, whole logs, snapshot files.
#![expect(
    clippy::disallowed_methods,
    reason = "damages files on a real disk on purpose; never runs inside the simulator"
)]

use crate::Target;
use crate::mutate::Source;
use bytes::Bytes;
use node::snapshot;
use node::types::{ClusterId, GroupId, Incarnation, Index, NodeId, Term};
use node::wal::{self, Entry, Genesis, HardState, Record, SnapshotMark, Wal};
use std::fs;

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target {
        name: "wal-record",
        cost: 1,
        run: wal_record,
    },
    Target {
        name: "wal-files",
        cost: 20,
        run: wal_files,
    },
    Target {
        name: "snapshot",
        cost: 20,
        run: snapshot_file,
    },
];

/// A log of the first format version, as committed: file names and bytes.
const WAL: [(&str, &[u8]); 3] = [
    (
        "anchor",
        include_bytes!("../../node/fixtures/wal-v1/anchor"),
    ),
    (
        "00000000000000000001.wal",
        include_bytes!("../../node/fixtures/wal-v1/00000000000000000001.wal"),
    ),
    (
        "00000000000000000002.wal",
        include_bytes!("../../node/fixtures/wal-v1/00000000000000000002.wal"),
    ),
];

/// A snapshot of the first format version, as committed.
const SNAPSHOT: (&str, &[u8]) = (
    "00000000000000000120-2.snap",
    include_bytes!("../../node/fixtures/snapshot-v1/00000000000000000120-2.snap"),
);

/// Segment length of the committed log, bytes.
const SEGMENT_BYTES: u64 = 16 << 10;

/// What decodes also encodes, and decodes to the same again.
fn wal_record(source: &mut Source) -> bool {
    let mut bytes = source.mutated(&[sample_records()]);
    if !source.one_in(4) {
        repair(&mut bytes);
    }
    let Ok(records) = wal::decode(Bytes::from(bytes)) else {
        return false;
    };
    let mut again = Vec::new();
    for record in &records {
        wal::encode(record, &mut again).expect("what was decoded is short enough to encode");
    }
    assert_eq!(
        wal::decode(Bytes::from(again)).as_ref(),
        Ok(&records),
        "records survive a round trip"
    );
    !records.is_empty()
}

/// One record of each kind, encoded.
fn sample_records() -> Vec<u8> {
    let group = GroupId(0);
    let entry = |index| Entry {
        index: Index(index),
        term: Term(2),
        kind: 0,
        context: Bytes::from_static(b"context"),
        data: Bytes::from_static(b"some data"),
    };
    let genesis = Genesis {
        cluster_id: ClusterId(7),
        node_id: NodeId(1),
        incarnation: Incarnation(9),
        extra: Bytes::from_static(b"extra"),
    };
    let state = HardState {
        term: Term(2),
        vote: NodeId(1),
        commit: Index(4),
    };
    let records = [
        Record::Genesis(genesis),
        Record::HardState { group, state },
        Record::Entries {
            group,
            entries: vec![entry(4), entry(5)],
        },
        Record::SnapshotMark {
            group,
            mark: SnapshotMark {
                index: Index(3),
                term: Term(1),
            },
        },
        Record::Note("a note".to_owned()),
    ];
    let mut bytes = Vec::new();
    for record in &records {
        wal::encode(record, &mut bytes).expect("a short record encodes");
    }
    bytes
}

/// Gives records whose lengths still lead somewhere a checksum that holds, so that the decoder behind it is reached.
fn repair(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(head.try_into().expect("four bytes")) as usize;
        let Some(body) = bytes.get(at + 8..).and_then(|rest| rest.get(..length)) else {
            return;
        };
        let crc = node_crc(body);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at += 8 + length;
    }
}

/// CRC-32C, bit by bit: a second opinion on the one the product uses.
fn node_crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A damaged log is told in words, and opens as a log or as an error; what opens also opens a second time.
fn wal_files(source: &mut Source) -> bool {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let damaged = source.below(WAL.len());
    for (at, (name, bytes)) in WAL.iter().enumerate() {
        if at == damaged && source.one_in(8) {
            continue; // A file that is gone.
        }
        let bytes = if at == damaged {
            source.mutated(&[bytes])
        } else {
            bytes.to_vec()
        };
        fs::write(dir.path().join(name), bytes).expect("a temporary file");
    }
    let told = wal::inspect(dir.path()).map(|inspection| inspection.verdict);
    let options = wal::Options::new(SEGMENT_BYTES);
    let Ok((log, first)) = Wal::open(dir.path(), options) else {
        return false;
    };
    drop(log);
    assert_eq!(
        told.ok().as_ref(),
        Some(&first.verdict),
        "inspection and opening agree"
    );
    let (_, second) = Wal::open(dir.path(), options).expect("what opened opens again");
    assert_eq!(
        second.verdict,
        wal::Verdict::Clean,
        "opening puts the end in order"
    );
    assert_eq!(second.genesis, first.genesis);
    assert_eq!(second.groups, first.groups, "opening twice changes nothing");
    true
}

/// A snapshot that is not the one that was written does not verify.
fn snapshot_file(source: &mut Source) -> bool {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join(SNAPSHOT.0);
    let untouched = source.one_in(8);
    let bytes = if untouched {
        SNAPSHOT.1.to_vec()
    } else {
        source.mutated(&[SNAPSHOT.1])
    };
    fs::write(&path, &bytes).expect("a temporary file");
    let verified = snapshot::verify(&path).is_ok();
    assert_eq!(
        verified,
        bytes == SNAPSHOT.1,
        "a snapshot verifies if and only if it is whole"
    );
    drop(snapshot::read_meta(&path)); // Must not panic; it trusts more than `verify` and so may succeed.
    verified
}
