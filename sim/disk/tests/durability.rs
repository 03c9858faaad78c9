//! What survives a power loss, a kill, a failed sync, rot and damage; and who may still write.
#![cfg(madsim)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use simdisk::{CrashMode, Damage, Fault, NameMode, OpKind, Rng, Rule, World, disk};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

/// Runs `f` in a fresh world for each seed and mode.
fn for_all(seeds: u64, f: impl Fn(CrashMode)) {
    for seed in 0..seeds {
        for mode in CrashMode::ALL {
            let _world = World::install(seed);
            f(mode);
        }
    }
}

/// Makes everything under a directory durable.
fn sync_dir(path: &str) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Power off and on again.
fn cycle(mode: CrashMode) {
    disk("n1").power_loss(mode);
    disk("n1").power_on();
}

#[test]
fn synced_data_survives_every_mode() {
    for_all(50, |mode| {
        let mut f = File::create("/simdisk/n1/f").unwrap();
        f.write_all(&[1; 5000]).unwrap();
        f.sync_data().unwrap();
        f.write_all(&[2; 5000]).unwrap();
        cycle(mode);
        let left = fs::read("/simdisk/n1/f").unwrap();
        assert!(left.starts_with(&[1; 5000]));
        let whole = left.len() == 10_000 && left.ends_with(&[2; 5000]);
        assert!(mode != CrashMode::KeepAll || whole);
        assert!(mode != CrashMode::LoseAll || left.len() == 5000);
    });
}

#[test]
fn prefix_mode_leaves_a_prefix() {
    for seed in 0..100 {
        let _world = World::install(seed);
        let mut f = File::create("/simdisk/n1/f").unwrap();
        f.sync_all().unwrap();
        f.write_all(&[5; 20_000]).unwrap();
        cycle(CrashMode::Prefix);
        let left = fs::read("/simdisk/n1/f").unwrap();
        let good = left.iter().take_while(|b| **b == 5).count();
        assert!(
            left[good..].iter().all(|b| *b == 0),
            "zeros after the prefix"
        );
    }
}

#[test]
fn random_mode_loses_tears_and_keeps() {
    let (mut lost, mut kept, mut hole) = (0, 0, 0);
    for seed in 0..200 {
        let _world = World::install(seed);
        let mut f = File::create("/simdisk/n1/f").unwrap();
        f.sync_all().unwrap();
        f.write_all(&[5; 8192]).unwrap();
        cycle(CrashMode::Random);
        let left = fs::read("/simdisk/n1/f").unwrap();
        lost += u32::from(left.is_empty());
        kept += u32::from(left == vec![5; 8192]);
        hole += u32::from(left.first() == Some(&0) && left.contains(&5));
    }
    assert!(
        lost > 5 && kept > 5 && hole > 5,
        "lost {lost} kept {kept} hole {hole}"
    );
}

#[test]
fn a_rename_is_old_or_new_and_durable_after_a_sync() {
    for strict in [false, true] {
        for_all(30, |mode| {
            if strict {
                disk("n1").set_name_mode(NameMode::Strict);
            }
            fs::write("/simdisk/n1/current", b"old").unwrap();
            File::open("/simdisk/n1/current")
                .unwrap()
                .sync_all()
                .unwrap();
            sync_dir("/simdisk/n1");
            fs::write("/simdisk/n1/tmp", b"new").unwrap();
            File::open("/simdisk/n1/tmp").unwrap().sync_all().unwrap();
            fs::rename("/simdisk/n1/tmp", "/simdisk/n1/current").unwrap();
            cycle(mode);
            let now = fs::read("/simdisk/n1/current").unwrap();
            assert!(now == b"old" || now == b"new");
            fs::write("/simdisk/n1/tmp", b"newer").unwrap();
            File::open("/simdisk/n1/tmp").unwrap().sync_all().unwrap();
            fs::rename("/simdisk/n1/tmp", "/simdisk/n1/current").unwrap();
            sync_dir("/simdisk/n1");
            cycle(mode);
            assert_eq!(fs::read("/simdisk/n1/current").unwrap(), b"newer");
        });
    }
}

#[test]
fn strict_needs_a_sync_of_the_directory_ordered_does_not() {
    for (mode, there) in [(NameMode::Ordered, true), (NameMode::Strict, false)] {
        let _world = World::install(0);
        disk("n1").set_name_mode(mode);
        fs::create_dir_all("/simdisk/n1/a/b").unwrap();
        let f = File::create("/simdisk/n1/a/b/f").unwrap();
        f.sync_all().unwrap();
        cycle(CrashMode::LoseAll);
        assert_eq!(fs::exists("/simdisk/n1/a/b/f").unwrap(), there);
    }
}

#[test]
fn an_unsynced_removal_can_be_undone_and_its_space_is_counted() {
    let _world = World::install(0);
    let d = disk("n1");
    let empty = d.free_bytes();
    fs::write("/simdisk/n1/f", [1; 4096]).unwrap();
    File::open("/simdisk/n1/f").unwrap().sync_all().unwrap();
    fs::remove_file("/simdisk/n1/f").unwrap();
    assert_eq!(d.free_bytes(), empty);
    cycle(CrashMode::LoseAll);
    assert_eq!(fs::read("/simdisk/n1/f").unwrap(), [1; 4096]);
    assert_eq!(d.free_bytes(), empty - 4096);
}

#[test]
fn a_kill_loses_nothing_but_descriptors() {
    let _world = World::install(0);
    let d = disk("n1");
    let mut f = File::create("/simdisk/n1/f").unwrap();
    f.try_lock().unwrap();
    f.write_all(b"cached").unwrap();
    d.kill();
    assert!(fs::read("/simdisk/n1/f").is_err(), "frozen");
    d.power_on();
    assert_eq!(fs::read("/simdisk/n1/f").unwrap(), b"cached");
    assert!(f.write_all(b"x").is_err(), "a dead descriptor stays dead");
    File::open("/simdisk/n1/f").unwrap().try_lock().unwrap();
    drop(f);
    cycle(CrashMode::LoseAll);
    assert!(
        !fs::exists("/simdisk/n1/f").unwrap(),
        "a kill makes nothing durable"
    );
}

#[test]
fn a_failed_sync_loses_pages_whatever_succeeds_later() {
    for_all(20, |mode| {
        let d = disk("n1");
        let mut f = File::create("/simdisk/n1/f.log").unwrap();
        f.write_all(b"old").unwrap();
        f.sync_all().unwrap();
        f.write_at(b"new", 0).unwrap();
        d.inject(Rule::once(OpKind::Sync, ".log", Fault::Eio));
        assert_eq!(f.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
        f.sync_all().unwrap();
        assert_eq!(
            fs::read("/simdisk/n1/f.log").unwrap(),
            b"new",
            "the cache looks fine"
        );
        cycle(mode);
        assert_eq!(fs::read("/simdisk/n1/f.log").unwrap(), b"old");
    });
}

#[test]
fn faults_hit_the_calls_they_name() {
    let _world = World::install(0);
    let d = disk("n1");
    let mut f = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open("/simdisk/n1/f")
        .unwrap();
    d.inject(Rule::once(OpKind::Write, "f", Fault::Enospc));
    assert_eq!(
        f.write_all(b"x").unwrap_err().raw_os_error(),
        Some(libc::ENOSPC)
    );
    f.write_all(&[1; 1000]).unwrap();
    d.inject(Rule::always(OpKind::Read, "f", Fault::Short));
    assert!(f.read_at(&mut [0; 1000], 0).unwrap() < 1000);
    d.clear_faults();
    d.inject_at(2, Fault::Eio);
    assert_eq!(f.read_at(&mut [0; 1000], 0).unwrap(), 1000);
    assert!(f.read_at(&mut [0; 1000], 0).is_err());
    assert_eq!(f.read_at(&mut [0; 1000], 0).unwrap(), 1000);
}

#[test]
fn a_crash_inside_a_write_may_keep_a_prefix_of_it() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let _world = World::install(seed);
        let d = disk("n1");
        let mut f = File::create("/simdisk/n1/f").unwrap();
        f.sync_all().unwrap();
        d.inject_at(1, Fault::Crash(CrashMode::KeepAll));
        assert!(f.write_all(&[1; 100]).is_err());
        assert!(d.is_down());
        assert!(File::open("/simdisk/n1/f").is_err());
        d.power_on();
        lengths.insert(fs::read("/simdisk/n1/f").unwrap().len());
    }
    assert!(
        lengths.len() > 10 && lengths.iter().all(|l| *l <= 100),
        "{lengths:?}"
    );
}

#[test]
fn a_flip_changes_one_bit_of_used_durable_bytes() {
    let _world = World::install(0);
    let d = disk("n1");
    let mut rng = Rng::new(3);
    assert_eq!(d.flip_bit("f", &mut rng), None);
    fs::write("/simdisk/n1/f", [0xff; 5000]).unwrap();
    assert_eq!(d.flip_bit("f", &mut rng), None, "not on the platter yet");
    File::open("/simdisk/n1/f").unwrap().sync_all().unwrap();
    for _ in 0..50 {
        let before = d.read_file("f").unwrap();
        let flipped = d.flip_bit("f", &mut rng).unwrap();
        let after = fs::read("/simdisk/n1/f").unwrap();
        let differ: Vec<_> = (0..5000).filter(|i| before[*i] != after[*i]).collect();
        assert_eq!(differ, [flipped.offset as usize]);
    }
}

#[test]
fn damage_is_on_the_platter() {
    for_all(5, |mode| {
        let d = disk("n1");
        fs::create_dir_all("/simdisk/n1/a/b").unwrap();
        for path in ["/simdisk/n1/a/b/f", "/simdisk/n1/g"] {
            fs::write(path, [1; 9000]).unwrap();
            File::open(path).unwrap().sync_all().unwrap();
        }
        assert!(d.damage("a", Damage::Remove));
        assert!(d.damage("g", Damage::Truncate(100)));
        assert!(!d.damage("nothing", Damage::Remove));
        cycle(mode);
        assert_eq!(d.list_files(), [("g".to_owned(), 100)]);
        d.wipe();
        d.power_on();
        assert_eq!(d.list_files(), []);
        assert_eq!(d.free_bytes(), d.capacity());
    });
}

#[test]
fn a_thread_of_a_dead_life_writes_nothing() {
    let _world = World::install(0);
    let d = disk("n1");
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let old = std::thread::spawn(move || {
        let mut f = File::create("/simdisk/n1/f").unwrap();
        gate.recv().unwrap();
        let by_fd = f.write_all(b"old life").is_err();
        let by_path = fs::write("/simdisk/n1/f", b"old life").is_err();
        let gone = fs::remove_file("/simdisk/n1/f").is_err();
        by_fd && by_path && gone
    });
    std::thread::sleep(std::time::Duration::from_millis(1));
    d.kill();
    d.power_on();
    fs::write("/simdisk/n1/f", b"new life").unwrap();
    go.send(()).unwrap();
    assert!(old.join().unwrap());
    assert_eq!(fs::read("/simdisk/n1/f").unwrap(), b"new life");
    let new = std::thread::spawn(|| fs::write("/simdisk/n1/g", b"").is_ok());
    assert!(new.join().unwrap());
    assert_eq!(simdisk::live_threads(), 0);
}

#[test]
fn simulated_threads_wait_for_each_other_in_virtual_time() {
    let _world = World::install(0);
    let (to, from) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        for i in 0..10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            to.send(i).unwrap();
        }
        let mut byte = [0; 1];
        File::open("/dev/zero")
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        7
    });
    simdisk::clear_debt();
    assert_eq!(from.iter().sum::<i32>(), 45);
    assert_eq!(worker.join().unwrap(), 7);
    let debt = simdisk::take_debt();
    assert!((50_000_000..52_000_000).contains(&debt), "{debt}");
    let wait = std::time::Duration::from_secs(2);
    let (_to, never) = std::sync::mpsc::channel::<()>();
    let sleeper = std::thread::spawn(move || never.recv_timeout(wait).is_err());
    assert!(sleeper.join().unwrap());
}
