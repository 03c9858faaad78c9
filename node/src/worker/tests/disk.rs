//! The worker's file under damage.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run on a runtime of their own, against real files and processes"
)]

use super::{assignment, timing, writer};
use crate::rt::{Lane, real};
use crate::service::Spec;
use crate::types::{ClusterId, Epoch, Incarnation, WorkerId};
use crate::worker::core::Worker;
use crate::worker::disk::{Decoded, Disk, Error, decode, encode};
use crate::worker::exchange::{Assignments, Input, Saved};
use proptest::prelude::*;
use std::path::Path;

/// A worker's state with something of everything.
fn full() -> Saved {
    let (mut worker, _) = Worker::resume(Saved::empty(Incarnation(7)), Vec::new(), timing());
    worker.step(Input::Connected, 1);
    let (cluster, epoch) = (ClusterId(3), Epoch(1));
    worker.step(
        Input::Welcome {
            cluster,
            worker: WorkerId(9),
            epoch,
        },
        2,
    );
    let tasks = vec![
        assignment(1, Spec::new("web", &["sleep", "1"])),
        assignment(2, writer("v")),
    ];
    worker.step(
        Input::Assigned(Assignments {
            epoch,
            revision: 4,
            tasks,
        }),
        3,
    );
    assert_eq!(worker.reports().count(), 2);
    let payload = serde_json::to_vec(worker.saved()).unwrap();
    serde_json::from_slice(&payload).unwrap() // Without what is never kept.
}

fn lane() -> Lane {
    real::env("test").unwrap().lanes.open("test")
}

#[test]
fn what_was_written_is_read() {
    assert_eq!(decode(&encode(&full())), Decoded::Good(Box::new(full())));
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = encode(&full());
    bytes[8] = 2;
    assert!(
        matches!(decode(&bytes), Decoded::Damaged(_)),
        "a flipped bit is no newer version"
    );
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode(&bytes), Decoded::Newer(2));
}

#[test]
fn a_state_that_contradicts_itself_is_damage() {
    let text = String::from_utf8(encode(&full())[24..].to_vec()).unwrap();
    let payload = text.replacen("\"state\":\"preparing\"", "\"state\":\"failed\"", 1);
    assert_ne!(payload, text);
    let mut bytes = b"swworker\x01\0\0\0".to_vec();
    bytes.extend((payload.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload.as_bytes());
    bytes.extend(crc.to_le_bytes());
    bytes.extend(payload.as_bytes());
    assert!(matches!(decode(&bytes), Decoded::Damaged(why) if why.contains("contradicts")));
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_a_new_life_begins() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::new(lane(), root.path().join("worker"));
    let path = |name: &str| root.path().join("worker").join(name);
    let opened = disk.open(Incarnation(1)).await.unwrap();
    assert_eq!(opened.saved, Saved::empty(Incarnation(1)));
    assert!(opened.damage.is_none());
    disk.save(&full()).await.unwrap();
    assert_eq!(disk.open(Incarnation(2)).await.unwrap().saved, full());
    flip(&path("worker.state"), 100);
    let opened = disk.open(Incarnation(3)).await.unwrap();
    assert!(opened.damage.unwrap().contains("checksum"));
    assert_eq!(opened.saved, Saved::empty(Incarnation(3)));
    assert!(path("worker.state.damaged").exists());
    let again = disk.open(Incarnation(4)).await.unwrap();
    assert_eq!(
        again.saved.identity().life,
        Incarnation(3),
        "the new life is durable"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::new(lane(), root.path().to_owned());
    disk.open(Incarnation(1)).await.unwrap();
    make_dir(&root.path().join("worker.state.tmp"));
    assert!(matches!(disk.save(&full()).await, Err(Error::Io { .. })));
    assert_eq!(
        disk.open(Incarnation(2)).await.unwrap().saved,
        Saved::empty(Incarnation(1))
    );
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn make_dir(path: &Path) {
    std::fs::create_dir(path).unwrap();
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        (cut, at) in (0_usize..2_000, 0_usize..2_000),
        bit in 0_u8..8,
    ) {
        prop_assert!(matches!(decode(&bytes), Decoded::Damaged(_)));
        let good = encode(&full());
        if cut < good.len() {
            prop_assert!(matches!(decode(&good[..cut]), Decoded::Damaged(_)));
        }
        let mut bad = good.clone();
        let at = at % bad.len();
        bad[at] ^= 1 << bit;
        prop_assert!(matches!(decode(&bad), Decoded::Damaged(_)), "a flipped bit is found");
    }
}
