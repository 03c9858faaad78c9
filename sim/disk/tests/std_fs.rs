//! Unmodified `std::fs`, tempfile and rustix on a simulated disk, and that nothing escapes it.
//!
//! Each test has a world of its own on its own thread; no executor, so time stands still.
#![cfg(madsim)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use simdisk::{Costs, World, disk};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

/// A world for one test.
fn world() -> simdisk::Guard {
    World::install(1)
}

#[test]
fn files_read_what_was_written() {
    let _world = world();
    fs::create_dir_all("/simdisk/n1/a/b").unwrap();
    let mut f = File::create_new("/simdisk/n1/a/x").unwrap();
    assert_eq!(
        File::create_new("/simdisk/n1/a/x").unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    f.set_len(1 << 20).unwrap();
    f.write_all(b"hello").unwrap();
    f.write_at(b"zz", 10).unwrap();
    let mut blind = File::options().write(true).open("/simdisk/n1/a/x").unwrap();
    assert!(blind.read(&mut [0; 4]).is_err(), "opened for writing only");
    let mut g = OpenOptions::new()
        .read(true)
        .append(true)
        .open("/simdisk/n1/a/x")
        .unwrap();
    let mut buf = [9; 12];
    g.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"hello\0\0\0\0\0zz");
    g.write_all(b"end").unwrap();
    assert_eq!(g.metadata().unwrap().len(), (1 << 20) + 3);
    assert_eq!(g.seek(SeekFrom::End(-3)).unwrap(), 1 << 20);
    let mut end = String::new();
    g.read_to_string(&mut end).unwrap();
    assert_eq!(end, "end");
    assert_eq!(
        fs::metadata("/simdisk/n1/a/x").unwrap().blocks(),
        16,
        "sparse"
    );
}

#[test]
fn vectored_positioned_and_cloned_io_work() {
    let _world = world();
    let mut f = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open("/simdisk/n/v")
        .unwrap();
    let n = f.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")]);
    assert_eq!(n.unwrap(), 5);
    f.rewind().unwrap();
    let (mut a, mut b) = ([0; 3], [0; 9]);
    let n = f
        .read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)])
        .unwrap();
    assert_eq!((n, &a, &b[..2]), (5, b"abc", &b"de"[..]));
    let clone = f.try_clone().unwrap();
    drop(f);
    clone.read_exact_at(&mut a, 2).unwrap();
    assert_eq!(&a, b"cde");
    assert_eq!(simdisk::open_files(), 1);
    drop(clone);
    assert_eq!(simdisk::open_files(), 0);
}

#[test]
fn names_follow_posix() {
    let _world = world();
    fs::create_dir("/simdisk/n1/d").unwrap();
    fs::write("/simdisk/n1/d/one", b"1").unwrap();
    fs::write("/simdisk/n1/d/two", b"2").unwrap();
    fs::hard_link("/simdisk/n1/d/one", "/simdisk/n1/d/uno").unwrap();
    assert_eq!(fs::metadata("/simdisk/n1/d/uno").unwrap().nlink(), 2);
    fs::rename("/simdisk/n1/d/one", "/simdisk/n1/d/two").unwrap();
    assert_eq!(fs::read("/simdisk/n1/d/two").unwrap(), b"1");
    let err = |r: std::io::Result<()>| r.unwrap_err().kind();
    assert_eq!(
        err(fs::remove_dir("/simdisk/n1/d")),
        ErrorKind::DirectoryNotEmpty
    );
    assert_eq!(
        err(fs::remove_file("/simdisk/n1/d")),
        ErrorKind::IsADirectory
    );
    assert_eq!(err(fs::create_dir("/simdisk/n1/x/y")), ErrorKind::NotFound);
    assert_eq!(
        err(fs::create_dir("/simdisk/n1/d/two/y")),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        err(fs::rename("/simdisk/n1/d", "/simdisk/n1/d/e")),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        err(fs::rename("/simdisk/n1/d", "/simdisk/n2/d")),
        ErrorKind::CrossesDevices
    );
    let names = fs::read_dir("/simdisk/n1/d").unwrap().map(|e| e.unwrap());
    let mut names: Vec<_> = names
        .map(|e| (e.file_name(), e.file_type().unwrap().is_dir()))
        .collect();
    names.sort();
    assert_eq!(names, [("two".into(), false), ("uno".into(), false)]);
    assert_eq!(
        fs::canonicalize("/simdisk/n1/./d/../d/two")
            .unwrap()
            .to_str(),
        Some("/simdisk/n1/d/two")
    );
    fs::remove_dir_all("/simdisk/n1/d").unwrap();
    assert!(!fs::exists("/simdisk/n1/d").unwrap());
    assert_eq!(disk("n1").list_files(), []);
}

#[test]
fn an_unlinked_open_file_lives_until_closed() {
    let _world = world();
    let d = disk("n1");
    let empty = d.free_bytes();
    let mut f = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open("/simdisk/n1/f")
        .unwrap();
    f.write_all(&[7; 8192]).unwrap();
    fs::remove_file("/simdisk/n1/f").unwrap();
    assert_eq!(d.free_bytes(), empty - 8192);
    f.rewind().unwrap();
    assert_eq!(f.read(&mut [0; 9000]).unwrap(), 8192);
    drop(f);
    assert_eq!(d.free_bytes(), empty);
}

#[test]
fn locks_exclude_other_descriptions() {
    let _world = world();
    let f = File::create("/simdisk/n1/lock").unwrap();
    f.try_lock().unwrap();
    let g = File::open("/simdisk/n1/lock").unwrap();
    assert!(matches!(g.try_lock(), Err(TryLockError::WouldBlock)));
    assert!(g.try_lock_shared().is_err());
    f.unlock().unwrap();
    g.try_lock_shared().unwrap();
    f.try_lock_shared().unwrap();
    drop(f);
    g.try_lock().unwrap();
}

#[test]
fn copy_persist_and_times_work() {
    let _world = world();
    fs::write("/simdisk/n1/a", vec![3; 100_000]).unwrap();
    assert_eq!(fs::copy("/simdisk/n1/a", "/simdisk/n1/b").unwrap(), 100_000);
    assert_eq!(fs::read("/simdisk/n1/b").unwrap(), vec![3; 100_000]);
    let mut temp = tempfile::NamedTempFile::new_in("/simdisk/n1").unwrap();
    temp.write_all(b"new").unwrap();
    temp.persist("/simdisk/n1/b").unwrap();
    assert_eq!(fs::read("/simdisk/n1/b").unwrap(), b"new");
    let when = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1500);
    let f = File::open("/simdisk/n1/b").unwrap();
    f.set_modified(when).unwrap();
    assert_eq!(f.metadata().unwrap().modified().unwrap(), when);
    let (cwd, keep) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
    let renamed = rustix::fs::renameat_with(cwd, "/simdisk/n1/b", cwd, "/simdisk/n1/a", keep);
    assert_eq!(renamed, Err(rustix::io::Errno::EXIST));
    assert_eq!(simdisk::escapes(), [""; 0]);
}

#[test]
fn space_runs_out_and_comes_back() {
    let _world = world();
    let d = disk("n1");
    d.set_capacity(10 * 4096);
    let f = File::create("/simdisk/n1/big").unwrap();
    f.set_len(1 << 30).unwrap();
    assert_eq!(f.write_at(&[1; 16 * 4096], 0).unwrap(), 10 * 4096);
    assert_eq!(
        f.write_at(&[1], 1 << 29).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(f.write_at(&[2], 0).unwrap(), 1, "no new page needed");
    assert_eq!(d.free_bytes(), 0);
    let space = rustix::fs::statvfs("/simdisk/n1").unwrap();
    assert_eq!((space.f_blocks, space.f_bavail), (10, 0));
    f.set_len(4096 * 4).unwrap();
    assert_eq!(d.free_bytes(), 6 * 4096);
    let at = rustix::fs::FallocateFlags::empty();
    assert!(rustix::fs::fallocate(&f, at, 0, 11 * 4096).is_err());
    rustix::fs::fallocate(&f, at, 0, 9 * 4096).unwrap();
    assert_eq!(
        (d.free_bytes(), f.metadata().unwrap().len()),
        (4096, 9 * 4096)
    );
    assert_eq!(rustix::fs::fstatvfs(&f).unwrap().f_bfree, 1);
    drop(f);
    fs::remove_file("/simdisk/n1/big").unwrap();
    assert_eq!(d.free_bytes(), 10 * 4096);
}

#[test]
fn calls_cost_time_and_sleep_is_debt() {
    let _world = world();
    let d = disk("n1");
    d.set_costs(Costs {
        op_min_ns: 10,
        op_max_ns: 10,
        byte_ps: 1000,
        ..Costs::free()
    });
    let f = File::create("/simdisk/n1/f").unwrap();
    simdisk::clear_debt();
    f.write_at(&[0; 90], 0).unwrap();
    assert_eq!(simdisk::take_debt(), 100);
    d.slow_down(5, 1_000_000);
    f.write_at(&[0; 90], 0).unwrap();
    assert_eq!(simdisk::take_debt(), 500);
    d.stall_until(simdisk::Stall::Syncs, 7_000);
    f.sync_all().unwrap();
    assert_eq!(simdisk::take_debt(), 7_000 + 50);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(simdisk::take_debt(), 3_000_000_000);
}

#[test]
fn escapes_are_seen() {
    let _world = world();
    fs::read("/etc/hostname").unwrap_or_default();
    assert_eq!(simdisk::escapes(), [""; 0]);
    let real = tempfile::tempdir().unwrap();
    let path = real.path().join("x");
    fs::write(&path, b"real").unwrap();
    fs::metadata("/simdisk").unwrap_err();
    assert!(
        simdisk::escapes().iter().any(|e| e.ends_with("/x")),
        "{:?}",
        simdisk::escapes()
    );
    assert!(simdisk::escapes().len() >= 2);
    assert_eq!(fs::read(&path).unwrap(), b"real", "real files still work");
}

#[test]
fn a_world_repeats_and_goes() {
    let run = |seed| {
        let _world = World::install(seed);
        simdisk::record_ops(true);
        tempfile::NamedTempFile::new_in("/simdisk/n1")
            .unwrap()
            .keep()
            .unwrap();
        File::open("/simdisk/n1").unwrap().sync_all().unwrap();
        (simdisk::op_hash(), simdisk::take_op_log())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2), "temporary names come from the seed");
    assert!(
        fs::write("/simdisk/n1/x", b"").is_err(),
        "without a world the path is not there"
    );
}
