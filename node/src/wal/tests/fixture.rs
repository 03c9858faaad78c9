//! A data directory that an earlier build wrote: this build still reads it.
//!
//! `SEAWORTHY_RECORD=1 cargo test -p node wal::tests::fixture` writes it anew; do that only for a new format version, in a
//! directory of its own.

use super::*;

const VERSION_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/wal-v1");
const OPTIONS: Options = Options {
    segment_bytes: 16 << 10,
    segments_held_max: 8,
    moved_bytes_max: 4096,
};

fn record(path: &Path) {
    restore(path, &Image::new());
    let (mut wal, _) = Wal::open(path, OPTIONS).unwrap();
    wal.append_and_sync(&[genesis(3), promise(0, 1, 0)])
        .unwrap();
    wal.append_and_sync(&[entries(0, 1, 20, 1, 300), entries(7, 1, 3, 2, 10)])
        .unwrap();
    wal.append_and_sync(&[mark(0, 10, 1), Record::Note("a note".to_owned())])
        .unwrap();
    wal.append_and_sync(&[entries(0, 18, 30, 3, 300), promise(0, 3, 17)])
        .unwrap();
    wal.append_and_sync(&[promise(7, 2, 3)]).unwrap();
}

#[test]
fn version_1_still_reads() {
    let source = Path::new(VERSION_1);
    #[expect(
        clippy::disallowed_methods,
        reason = "a person asks for a new recording"
    )]
    if std::env::var("SEAWORTHY_RECORD").is_ok() {
        record(source);
    }
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &image(source));
    let (wal, recovered) = Wal::open(dir.path(), OPTIONS).unwrap();
    assert_eq!(recovered.verdict, Verdict::Clean);
    assert_eq!(wal.stats().segments, 2);
    assert_eq!(recovered.genesis.unwrap().node_id, NodeId(3));
    let control = &recovered.groups[&GroupId(0)];
    assert_eq!(control.hard_state.unwrap().commit, Index(17));
    assert_eq!(control.snapshot.unwrap().index, Index(10));
    let mut expected: Vec<Entry> = (1..18).map(|index| entry(index, 1, 300)).collect();
    expected.extend((18..48).map(|index| entry(index, 3, 300)));
    assert_eq!(control.entries, expected);
    assert_eq!(recovered.groups[&GroupId(7)].entries.len(), 3);
}
