//! Single facts, each in a few lines.

use super::*;
use std::os::unix::fs::symlink;

#[test]
fn a_new_log_is_empty_and_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/wal");
    let (wal, recovered) = open(&path);
    assert_eq!(recovered.verdict, Verdict::Clean);
    assert!(recovered.groups.is_empty() && recovered.genesis.is_none());
    assert_eq!(wal.stats().batch, Batch(0));
    drop(wal);
    assert_eq!(open(&path).1.verdict, Verdict::Clean);
}

#[test]
fn a_full_segment_rolls_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for index in 1..=30 {
        wal.append_and_sync(&[entries(0, index, 1, 1, 700)])
            .unwrap();
    }
    // Two sectors each, eight to a segment: four batches per segment.
    assert_eq!(wal.stats().segments, 8);
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 0), Vec::from_iter(1..=30));
}

#[test]
fn a_batch_larger_than_a_segment_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[promise(0, 1, 0)]).unwrap();
    let before = image(dir.path());
    wal.append_and_sync(&[entries(0, 1, 20, 1, 900)]).unwrap();
    assert!(wal.stats().segments > 4);
    drop(wal);
    let after = image(dir.path());
    assert_eq!(indexes(&open(dir.path()).1, 0), Vec::from_iter(1..=20));
    // The last part did not arrive, and the sync never ended.
    let mut cut = after.clone();
    cut.insert("anchor".to_owned(), before["anchor"].clone());
    cut.insert(segment::name(6), vec![0; SEGMENT as usize]);
    restore(dir.path(), &cut);
    let (mut wal, recovered) = open(dir.path());
    assert!(matches!(
        recovered.verdict,
        Verdict::TornTail { batch: 2, .. }
    ));
    assert_eq!(indexes(&recovered, 0), Vec::<u64>::new());
    wal.append_and_sync(&[entries(0, 1, 1, 2, 9)]).unwrap();
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 0), vec![1]);
}

#[test]
fn recycled_segments_never_resurrect() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    let mut recycled = 0;
    for index in 1..=200 {
        wal.append_and_sync(&[entries(0, index, 1, 1, 700), promise(0, 1, index)])
            .unwrap();
        if index % 10 == 0 {
            wal.append_and_sync(&[mark(0, index, 1)]).unwrap();
            wal.release(GroupId(0), Index(index - 2));
            recycled += wal.trim().unwrap().recycled;
            assert!(wal.stats().segments <= 5);
            let copy = dir.path().join("copy");
            let mut files = image_of_files(dir.path());
            files.retain(|name, _| name != "copy");
            restore(&copy, &files);
            let (_, recovered) = open(&copy);
            let found = indexes(&recovered, 0);
            assert!(found.contains(&index) && found[0] + 15 > index, "{found:?}");
            fs::remove_dir_all(&copy).unwrap();
        }
    }
    assert!(recycled > 10, "{recycled}");
}

fn image_of_files(path: &Path) -> Image {
    let names = fs::read_dir(path).unwrap().map(|one| one.unwrap().path());
    let files = names.filter(|one| one.is_file());
    files
        .map(|one| {
            let name = one.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(one).unwrap())
        })
        .collect()
}

#[test]
fn trimming_keeps_promises_marks_and_genesis() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[genesis(4), promise(9, 3, 0), mark(8, 77, 6)])
        .unwrap();
    for index in 1..=40 {
        wal.append_and_sync(&[entries(0, index, 1, 1, 700)])
            .unwrap();
    }
    wal.append_and_sync(&[mark(0, 40, 1)]).unwrap();
    wal.release(GroupId(0), Index(40));
    let trimmed = wal.trim().unwrap();
    assert!(
        trimmed.segments > 5 && trimmed.rewritten == 3,
        "{trimmed:?}"
    );
    assert_eq!(wal.stats().prepared, 1);
    drop(wal);
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.genesis.as_ref().unwrap().node_id, NodeId(4));
    let state = recovered.groups[&GroupId(9)].hard_state.unwrap();
    assert_eq!(state.term, Term(3));
    let mark = recovered.groups[&GroupId(8)].snapshot.unwrap();
    assert_eq!(mark.index, Index(77));
}

#[test]
fn a_slow_group_does_not_hold_back_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[entries(5, 1, 3, 1, 100)]).unwrap();
    for index in 1..=40 {
        wal.append_and_sync(&[entries(0, index, 1, 1, 700)])
            .unwrap();
    }
    wal.append_and_sync(&[mark(0, 40, 1)]).unwrap();
    wal.release(GroupId(0), Index(40));
    let trimmed = wal.trim().unwrap();
    assert!(trimmed.segments > 5, "{trimmed:?}");
    wal.append_and_sync(&[entries(5, 4, 1, 2, 10)]).unwrap();
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 5), vec![1, 2, 3, 4]);
}

#[test]
fn a_mark_that_contradicts_the_log_is_replayed_after_trimming() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for index in 1..=20 {
        wal.append_and_sync(&[entries(0, index, 1, 1, 700)])
            .unwrap();
    }
    // The leader's snapshot has another term at 12: entries 1 to 20 are void, and most of them are trimmed with it.
    wal.append_and_sync(&[mark(0, 12, 9)]).unwrap();
    assert!(wal.trim().unwrap().segments > 2);
    drop(wal);
    let (mut wal, recovered) = open(dir.path());
    assert_eq!(indexes(&recovered, 0), Vec::<u64>::new());
    wal.append_and_sync(&[entries(0, 13, 1, 9, 1)]).unwrap();
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 0), vec![13]);
}

#[test]
fn only_what_a_snapshot_covers_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for index in 1..=40 {
        wal.append_and_sync(&[entries(0, index, 1, 1, 700)])
            .unwrap();
    }
    wal.release(GroupId(0), Index(40));
    assert_eq!(wal.trim().unwrap().segments, 0);
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 0).len(), 40);
}

#[test]
fn contradictions_are_refused_without_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[entries(0, 1, 5, 1, 10), mark(0, 3, 1)])
        .unwrap();
    let good = wal.stats();
    let empty = Record::Entries {
        group: GroupId(0),
        entries: Vec::new(),
    };
    let hole = Record::Entries {
        group: GroupId(0),
        entries: vec![entry(6, 1, 1), entry(8, 1, 1)],
    };
    for wrong in [
        entries(0, 7, 1, 1, 1),
        entries(0, 3, 1, 1, 1),
        mark(0, 2, 1),
        empty,
        hole,
    ] {
        let refused = wal.append(&[promise(0, 9, 9), wrong]);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(wal.stats(), good);
    wal.append_and_sync(&[entries(0, 6, 1, 1, 1)]).unwrap();
    drop(wal);
    let (_, recovered) = open(dir.path());
    assert_eq!(indexes(&recovered, 0), Vec::from_iter(1..=6));
    assert_eq!(recovered.groups[&GroupId(0)].hard_state, None);
}

#[test]
fn a_full_disk_writes_nothing_and_can_be_retried() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[promise(0, 1, 0)]).unwrap();
    let before = image(dir.path());
    // Whatever is written to this name answers "no space left on device".
    symlink("/dev/full", dir.path().join("next.tmp")).unwrap();
    let refused = wal.append(&[entries(0, 1, 4, 1, 900)]);
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    assert_eq!(image(dir.path()), before);
    wal.append_and_sync(&[promise(0, 2, 0)]).unwrap();
    wal.append_and_sync(&[entries(0, 1, 4, 1, 900)]).unwrap();
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 0), vec![1, 2, 3, 4]);
}

#[test]
fn a_failed_write_poisons_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[promise(0, 1, 0)]).unwrap();
    let read_only = wal.dir.file(&segment::name(1), false).unwrap().unwrap();
    wal.segments.back_mut().unwrap().file = read_only;
    let why = |error: Error| match error {
        Error::Poisoned { why } => why,
        other => panic!("{other}"),
    };
    let first = why(wal.append(&[promise(0, 2, 0)]).unwrap_err());
    assert!(first.contains("writing a batch"), "{first}");
    assert_eq!(why(wal.sync().unwrap_err()), first);
    assert_eq!(why(wal.append(&[promise(0, 3, 0)]).unwrap_err()), first);
    assert_eq!(why(wal.trim().unwrap_err()), first);
    assert_eq!(why(wal.prepare_spare().unwrap_err()), first);
    assert_eq!(wal.poisoned(), Some(first.as_str()));
    drop(wal);
    let state = open(dir.path()).1.groups[&GroupId(0)].hard_state.unwrap();
    assert_eq!(state.term, Term(1));
}

#[test]
fn a_spare_made_elsewhere_is_used_next() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    let job = wal.spare_job().unwrap().unwrap();
    wal.append_and_sync(&[promise(0, 1, 0)]).unwrap();
    let spare = job.run().unwrap();
    wal.adopt_spare(spare).unwrap();
    assert!(wal.spare_job().unwrap().is_none());
    assert_eq!((wal.stats().segments, wal.stats().prepared), (1, 1));
    wal.append_and_sync(&[entries(0, 1, 4, 1, 900)]).unwrap();
    assert_eq!((wal.stats().segments, wal.stats().prepared), (2, 0));
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 0), vec![1, 2, 3, 4]);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[promise(0, 1, 0)]).unwrap();
    drop(wal);
    let name = dir.path().join(segment::name(1));
    let mut bytes = fs::read(&name).unwrap();
    bytes[4] = 9;
    let crc = crc32c::crc32c(&bytes[4..SECTOR]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&name, &bytes).unwrap();
    let before = image(dir.path());
    let error = Wal::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, Error::NewerVersion { version: 9, .. }));
    assert!(error.to_string().contains("newer"), "{error}");
    assert_eq!(image(dir.path()), before);
}

#[test]
fn another_segment_size_is_taken_up_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[entries(0, 1, 3, 1, 900)]).unwrap();
    wal.prepare_spare().unwrap();
    drop(wal);
    let larger = Options::new(4 * SEGMENT);
    let (mut wal, _) = Wal::open(dir.path(), larger).unwrap();
    wal.append_and_sync(&[entries(0, 4, 9, 1, 900)]).unwrap();
    assert_eq!(wal.stats().bytes, 5 * SEGMENT);
    drop(wal);
    assert_eq!(indexes(&open(dir.path()).1, 0), Vec::from_iter(1..=12));
    assert!(Wal::open(dir.path(), Options::new(1000)).is_err());
}

#[test]
fn a_wreck_can_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    for round in 1..=2 {
        let (mut wal, _) = open(&path);
        wal.append_and_sync(&[genesis(1)]).unwrap();
        drop(wal);
        fs::remove_file(path.join("anchor")).unwrap();
        assert!(matches!(
            Wal::open(&path, options()),
            Err(Error::Damaged(_))
        ));
        let aside = set_aside(&path).unwrap();
        assert_eq!(aside, dir.path().join(format!("wal.damaged-{round}")));
        assert_eq!(inspect(&aside).unwrap().items.len(), 1);
    }
    assert_eq!(open(&path).1.genesis, None);
}

#[test]
fn inspection_explains_every_record_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append_and_sync(&[genesis(1), promise(0, 2, 1)])
        .unwrap();
    wal.append_and_sync(&[entries(0, 1, 2, 2, 10), mark(0, 1, 2)])
        .unwrap();
    drop(wal);
    let seen = inspect(dir.path()).unwrap();
    let lines: Vec<String> = seen.items.iter().map(Item::to_string).collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[1].ends_with("batch        1  g0: hard state term 2, vote 2, commit 1"));
    assert!(lines[2].contains("512 batch        2  g0: entries 1..=2"));
    assert_eq!(seen.verdict.to_string(), "clean");
    assert_eq!(seen.files, vec![1]);
    assert!(seen.anchor.contains("segments 1..=1"), "{}", seen.anchor);
}
