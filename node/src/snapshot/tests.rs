//! Snapshot files: round trips, damage of every kind, the committed fixture, and transfers with breaks.

#![expect(
    clippy::disallowed_methods,
    reason = "looks at and damages snapshot files on purpose"
)]

use super::*;
use crate::knobs::Knobs;
use crate::state::command::{Command, Get, LeaseGrant, Limits, Member, Op, Put, SessionOpen};
use crate::state::{Batch, Entry, Genesis, Memory, View, Writes, full_hash};
use crate::store::Store;
use crate::types::{ClusterId, GroupId, Index, Term};
use proptest::prelude::*;
use prost::Message;
use std::fs;

/// A state after `entries` entries. What it holds is part of the fixture: do not change it.
fn some_state(entries: u64) -> Memory {
    let mut memory = Memory::default();
    let member = Member {
        id: 1,
        name: "one".to_owned(),
        peer: "one:1".to_owned(),
        http: "one:2".to_owned(),
        incarnation: 5,
        replaces: 0,
        token: 0,
    };
    memory.write(&state::genesis(&Genesis {
        cluster_id: ClusterId(0xfeed),
        members: vec![member],
        limits: Limits {
            sessions_max: 10,
            history_revisions: 100,
        },
        position: (Index(0), Term(0)),
    }));
    let writes = {
        let mut batch = Batch::new(&memory).unwrap();
        for index in 1..=entries {
            batch.apply(&entry(index)).unwrap();
        }
        batch.finish()
    };
    memory.write(&writes);
    memory
}

fn entry(index: u64) -> Entry {
    let op = match index {
        1 => Op::SessionOpen(SessionOpen {}),
        2 => Op::LeaseGrant(LeaseGrant { ttl_ms: 5000 }),
        _ => Op::Put(Put {
            key: format!("key{}", index % 30).into(),
            value: vec![index as u8; index as usize % 4000].into(),
            lease: 2 * (index % 2),
            ..Put::default()
        }),
    };
    let command = Command {
        time_ms: 1000 + index,
        op: Some(op),
        ..Command::default()
    };
    Entry {
        index: Index(index),
        term: Term(1 + index / 100),
        payload: command.encode_to_vec().into(),
    }
}

fn everything(view: &dyn View) -> Vec<state::Record> {
    let records = view.scan(&[], &state::END_KEY);
    records.map(Result::unwrap).collect()
}

/// A directory with a snapshot of a state in it.
fn written(entries: u64) -> (tempfile::TempDir, PathBuf, Memory) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path()).unwrap();
    let memory = some_state(entries);
    write(dir.path(), GroupId(0), 42, &memory).unwrap();
    let path = list(dir.path()).unwrap().remove(0).path;
    (dir, path, memory)
}

#[test]
fn a_snapshot_loads_as_the_state_it_was_cut_from() {
    let (dir, path, memory) = written(300);
    let meta = verify(&path).unwrap();
    assert_eq!(meta.cluster_id, ClusterId(0xfeed));
    assert_eq!((meta.index, meta.term), (Index(300), Term(4)));
    assert_eq!(meta.conf.voters, [1]);
    assert_eq!(meta.state_hash, full_hash(&memory).unwrap());
    assert_eq!(read_meta(&path).unwrap(), meta);
    let store = Store::create(&dir.path().join("store"), &Knobs::default()).unwrap();
    assert_eq!(load(&path, &store).unwrap(), meta);
    assert_eq!(everything(&store), everything(&memory));
    let again = write(dir.path(), GroupId(0), 42, &store.view()).unwrap();
    assert_eq!(again.checksum, format!("{:016x}", meta.checksum));
    assert!(again.file.ends_with("00000000000000000300-4.snap"));
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let (_dir, path, _) = written(8);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        assert!(matches!(verify(&path), Err(Error::Bad { .. })), "flip {at}");
        fs::write(&path, &good[..at]).unwrap();
        assert!(matches!(verify(&path), Err(Error::Bad { .. })), "cut {at}");
    }
    fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    assert!(verify(&path).is_err());
    fs::write(&path, &good).unwrap();
    verify(&path).unwrap();
}

#[test]
fn a_damaged_state_is_not_made_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut memory = some_state(20);
    let mut writes = Writes::default();
    writes.set(bytes::Bytes::from_static(b"\x10new"), Some("x".into()));
    memory.write(&writes);
    let error = write(dir.path(), GroupId(0), 42, &memory).unwrap_err();
    assert!(matches!(error, Error::State(state::Error::Corrupt { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_list_is_newest_first_and_bad_files_do_not_count_as_kept() {
    let dir = tempfile::tempdir().unwrap();
    for entries in [10, 40, 20, 30] {
        write(dir.path(), GroupId(0), 42, &some_state(entries)).unwrap();
    }
    fs::write(dir.path().join(file_name(40, 1)), b"SEASNAP").unwrap();
    fs::write(dir.path().join("00000000000000000050-1.snap.tmp"), b"").unwrap();
    fs::write(dir.path().join("notes.txt"), b"").unwrap();
    prepare(dir.path()).unwrap();
    remove_old(dir.path(), 2).unwrap();
    let listed = list(dir.path()).unwrap();
    let good = listed
        .iter()
        .map(|one| one.meta.as_ref().ok().map(|meta| meta.index.0));
    assert_eq!(good.collect::<Vec<_>>(), [None, Some(30), Some(20)]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn a_transfer_goes_on_after_a_break() {
    let (_from, path, _) = written(100);
    let to = tempfile::tempdir().unwrap();
    let offer = offer(&path).unwrap();
    fs::write(to.path().join("other.part"), b"old").unwrap();
    let mut receiver = Receiver::open(to.path(), offer).unwrap();
    assert!(!to.path().join("other.part").exists());
    while !receiver.is_complete() {
        let chunk = read_chunk(&path, receiver.offset(), 1000).unwrap();
        let early = receiver.append(receiver.offset() + 1, &chunk);
        assert!(matches!(early, Err(Error::OutOfPlace { .. })));
        receiver.append(receiver.offset(), &chunk).unwrap();
        // Every chunk comes over a new connection.
        let offset = receiver.offset();
        drop(receiver);
        receiver = Receiver::open(to.path(), offer).unwrap();
        assert_eq!(receiver.offset(), offset);
    }
    assert!(receiver.append(receiver.offset(), b"more").is_err());
    let (meta, received) = receiver.finish().unwrap();
    assert_eq!(meta, verify(&path).unwrap());
    assert_eq!(fs::read(received).unwrap(), fs::read(&path).unwrap());
    assert!(read_chunk(&path, offer.bytes + 5, 10).unwrap().is_empty());
}

#[test]
fn a_damaged_transfer_is_thrown_away() {
    let (_from, path, _) = written(100);
    let to = tempfile::tempdir().unwrap();
    let offer = offer(&path).unwrap();
    let mut receiver = Receiver::open(to.path(), offer).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[500] ^= 1;
    receiver.append(0, &bytes).unwrap();
    assert!(matches!(receiver.finish(), Err(Error::Bad { .. })));
    assert_eq!(Receiver::open(to.path(), offer).unwrap().offset(), 0);
}

/// Written by the first nodes and never again: later ones must read it and go on from it. Its events do not know the hash
/// share of the event before them.
#[test]
fn the_fixture_of_version_1_is_still_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/snapshot-v1");
    let path = dir.join(file_name(120, 2));
    let meta = verify(&path).unwrap();
    assert_eq!(meta.time_ms, 1_700_000_000_000);
    let home = tempfile::tempdir().unwrap();
    let store = Store::create(home.path(), &Knobs::default()).unwrap();
    load(&path, &store).unwrap();
    assert_eq!(keys(&store), keys(&some_state(120)));
    for index in 121..=1_100 {
        let mut batch = Batch::new(&store).unwrap();
        batch.apply(&entry(index)).unwrap();
        let writes = batch.finish();
        store.write(&writes).unwrap();
    }
    assert_eq!(keys(&store), keys(&some_state(1_100)));
    let hash = state::applied(&store).unwrap().unwrap().state_hash;
    assert_eq!(full_hash(&store).unwrap(), hash);
}

/// Every key with its value and numbers.
fn keys(view: &dyn View) -> Vec<state::command::KeyValue> {
    let all = Get {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..Get::default()
    };
    state::read(view, &all, 1_000).unwrap().0.kvs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_a_reader_panic(
        payloads in proptest::collection::vec((1u8..4, proptest::collection::vec(any::<u8>(), 0..80)), 0..5),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.snap");
        let mut bytes = format::MAGIC.to_vec();
        for (kind, payload) in payloads {
            let kind = match kind {
                1 => format::Kind::Header,
                2 => format::Kind::Block,
                _ => format::Kind::Trailer,
            };
            bytes.extend(format::frame(kind, &payload));
        }
        bytes.extend(tail);
        fs::write(&path, bytes).unwrap();
        prop_assert!(verify(&path).is_err());
        // May succeed by chance only for a trailer that decodes; it must not panic.
        drop(read_meta(&path));
    }
}
