//! The store against the memory it must equal, and its rule for reopening.

#![expect(
    clippy::disallowed_methods,
    reason = "damages the store's files on purpose"
)]

use super::*;
use crate::state::command::{Command, Get, Limits, Op, Put};
use crate::state::{Batch, Entry, Genesis};
use crate::types::{Index, Term};
use prost::Message;
use std::fs;

/// Small enough that a few hundred entries flush and merge.
fn small() -> Knobs {
    Knobs {
        store_cache_bytes: 64 << 10,
        store_memtable_bytes: 16 << 10,
        ..Knobs::default()
    }
}

fn genesis() -> Writes {
    state::genesis(&Genesis {
        cluster_id: ClusterId(7),
        members: Vec::new(),
        limits: Limits {
            sessions_max: 10,
            history_revisions: 50,
        },
        position: (Index(0), Term(0)),
    })
}

/// Entries `from..=to`, one put each, over a few keys.
fn entries(from: u64, to: u64) -> Vec<Entry> {
    let entry = |index: u64| {
        let put = Put {
            key: format!("key{}", index % 40).into(),
            value: vec![index as u8; 100].into(),
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
    };
    (from..=to).map(entry).collect()
}

fn apply(view: &dyn View, entries: &[Entry]) -> Writes {
    let mut batch = Batch::new(view).unwrap();
    for entry in entries {
        batch.apply(entry).unwrap();
    }
    batch.finish()
}

fn everything(view: &dyn View) -> Vec<(Bytes, Bytes)> {
    let records = view.scan(&[], &state::END_KEY);
    records.map(Result::unwrap).collect()
}

/// A store with entries up to `to`, and the same in memory.
fn filled(dir: &Path, to: u64) -> (Store, state::Memory) {
    let (store, mut memory) = (
        Store::create(dir, &small()).unwrap(),
        state::Memory::default(),
    );
    store.write(&genesis()).unwrap();
    memory.write(&genesis());
    for chunk in entries(1, to).chunks(7) {
        store.write(&apply(&store, chunk)).unwrap();
        memory.write(&apply(&memory, chunk));
    }
    (store, memory)
}

#[test]
fn the_store_holds_what_memory_would() {
    let dir = tempfile::tempdir().unwrap();
    let (store, memory) = filled(dir.path(), 700);
    assert_eq!(everything(&store), everything(&memory));
    assert_eq!(everything(&store.view()), everything(&memory));
    assert!(store.belongs_to(ClusterId(7)).unwrap());
    assert!(!store.belongs_to(ClusterId(8)).unwrap());
}

#[test]
fn a_view_does_not_change_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, memory) = filled(dir.path(), 100);
    let view = store.view();
    store.write(&apply(&store, &entries(101, 600))).unwrap();
    assert_eq!(everything(&view), everything(&memory));
    let get = Get {
        key: "key0".into(),
        ..Get::default()
    };
    assert_eq!(state::read(&view, &get, 1).unwrap().2, Index(100));
    assert_eq!(state::read(&store, &get, 1).unwrap().2, Index(600));
}

#[test]
fn a_store_closed_in_order_is_reopened_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, memory) = filled(dir.path(), 300);
    store.close().unwrap();
    drop(store);
    let store = Store::open(dir.path(), &small()).unwrap();
    assert_eq!(everything(&store), everything(&memory));
    drop(store);
    let again = Store::open(dir.path(), &small());
    assert!(matches!(again, Err(Error::Unusable { .. })));
    let fresh = Store::create(dir.path(), &small()).unwrap();
    assert!(everything(&fresh).is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_store_that_was_not_closed_is_not_reopened() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Store::open(dir.path(), &small()),
        Err(Error::Unusable { .. })
    ));
    let (store, _) = filled(dir.path(), 50);
    drop(store);
    assert!(matches!(
        Store::open(dir.path(), &small()),
        Err(Error::Unusable { .. })
    ));
}

#[test]
fn a_changed_marker_or_record_makes_the_store_unusable() {
    for damage in ["marker", "record", "state"] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = filled(dir.path(), 50);
        if damage == "record" {
            // Behind the state machine's back: the hash no longer fits.
            let record = [(&b"\x10zzz"[..], Some(&b"x"[..]))];
            store.commit(record.into_iter()).unwrap();
        }
        store.close().unwrap();
        drop(store);
        let marker = dir.path().join("clean");
        let mut text = fs::read_to_string(&marker).unwrap();
        if damage == "marker" {
            text = text.replace("db-1", "db-9");
        }
        if damage == "state" {
            let line = text.replace(" 50 1 ", " 51 1 ");
            let line = line.rsplit_once(' ').unwrap().0.to_owned();
            text = format!("{line} {:08x}\n", crc32c::crc32c(line.as_bytes()));
        }
        fs::write(&marker, text).unwrap();
        let opened = Store::open(dir.path(), &small());
        assert!(matches!(opened, Err(Error::Unusable { .. })), "{damage}");
    }
}

#[test]
fn damaged_files_make_the_store_unusable_and_do_not_panic() {
    for name in ["0.jnl", "keyspaces"] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = filled(dir.path(), 50);
        store.close().unwrap();
        drop(store);
        let path = dir.path().join("db-1").join(name);
        assert!(path.exists(), "{name}");
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::write(&path, b"garbage").unwrap();
        }
        let opened = Store::open(dir.path(), &small());
        // The worker may have flushed everything before the close: then the journal is not missed.
        let is_whole = name == "0.jnl" && opened.is_ok();
        assert!(
            is_whole || matches!(opened, Err(Error::Unusable { .. })),
            "{name}"
        );
    }
}

#[test]
fn stores_and_views_may_go_from_lane_to_lane() {
    fn movable<T: Send + Sync + 'static>() {}
    movable::<Store>();
    movable::<StoreView>();
}

#[test]
fn a_full_disk_is_recognised_below_the_store() {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = Error::fjall("write", &fjall::Error::Io(full));
    assert!(matches!(error, Error::NoSpace { what: "write" }));
    let error = Error::fjall("write", &fjall::Error::Poisoned);
    assert!(matches!(error, Error::Failed { .. }));
}
