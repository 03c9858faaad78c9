//! What ends the process, and what the raw system call does: each in a forked child.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use simdisk::World;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Runs `f` in a child; the signal that ended it, or 0.
fn signal_of(f: impl FnOnce()) -> i32 {
    let mut status = 0;
    // SAFETY: this process has one thread, so the child is a full copy; it leaves by _exit.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let code =
                i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err());
            libc::_exit(code);
        }
        libc::waitpid(child, &mut status, 0);
    }
    assert!(
        libc::WIFSIGNALED(status) || libc::WEXITSTATUS(status) == 0,
        "the child panicked"
    );
    if libc::WIFSIGNALED(status) {
        libc::WTERMSIG(status)
    } else {
        0
    }
}

/// A raw sync of a simulated file would bypass the simulation.
fn raw_calls_on_simulated_files_abort() {
    let signal = signal_of(|| {
        let _world = World::install(0);
        let f = File::create("/simdisk/n1/f").unwrap();
        // SAFETY: a descriptor and nothing else.
        unsafe { libc::syscall(libc::SYS_fsync, f.as_raw_fd()) };
    });
    assert_eq!(signal, libc::SIGABRT);
}

/// `getrandom` as crates call it is seeded inside an executor.
fn raw_entropy_repeats() {
    let draw = |seed| {
        let runtime =
            madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
        runtime.block_on(async {
            let mut bytes = [0_u8; 16];
            // SAFETY: the buffer has the length given.
            let n = unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), 16_usize, 0) };
            assert_eq!(n, 16);
            bytes
        })
    };
    let _world = World::install(0);
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

/// An executor in which nothing can happen any more must not spin for ever.
fn a_stuck_executor_aborts() {
    let signal = signal_of(|| {
        let _world = World::install(0);
        let mut runtime =
            madsim::runtime::Runtime::with_seed_and_config(0, madsim::Config::default());
        runtime.set_allow_system_thread(true);
        runtime.block_on(std::future::pending::<()>());
    });
    assert_eq!(signal, libc::SIGABRT);
}

/// A lock that nobody will release must not hang the run.
fn a_deadlock_between_threads_aborts() {
    let signal = signal_of(|| {
        let _world = World::install(0);
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let stuck = std::thread::spawn(move || never.recv().is_ok());
        stuck.join().unwrap();
    });
    assert_eq!(signal, libc::SIGABRT);
}

/// Stalls and worker time under an executor's clock.
fn a_worker_takes_virtual_time_on_a_stalled_disk() {
    let _world = World::install(0);
    let mut runtime = madsim::runtime::Runtime::with_seed_and_config(0, madsim::Config::default());
    runtime.set_allow_system_thread(true);
    let done_at = runtime.block_on(async {
        let clock = madsim::time::TimeHandle::current();
        madsim::task::spawn(simdisk::pump());
        let d = simdisk::disk("n1");
        d.stall_until(simdisk::Stall::Everything, 3_000_000_000);
        let worker = std::thread::spawn(|| {
            std::fs::write("/simdisk/n1/f", b"late").unwrap();
            std::fs::read("/simdisk/n1/f").unwrap();
            std::time::SystemTime::now()
        });
        let base = std::time::SystemTime::now() - clock.elapsed();
        while simdisk::live_threads() > 0 {
            madsim::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let seen = worker.join().unwrap().duration_since(base).unwrap();
        assert!(
            seen.as_millis().abs_diff(3_000) < 5,
            "its clock said {seen:?}"
        );
        clock.elapsed()
    });
    assert!(done_at.as_millis().abs_diff(3_000) < 5, "{done_at:?}");
}

/// A worker that waits costs nothing, and wakes at the time of whoever wakes it.
fn an_idle_day_is_free() {
    let _world = World::install(0);
    let mut runtime = madsim::runtime::Runtime::with_seed_and_config(0, madsim::Config::default());
    runtime.set_allow_system_thread(true);
    let day = std::time::Duration::from_secs(86_400);
    runtime.block_on(async {
        madsim::task::spawn(simdisk::pump());
        let (to, from) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            from.recv().unwrap();
            std::fs::write("/simdisk/n1/f", b"awake").unwrap();
        });
        madsim::time::sleep(day).await;
        to.send(()).unwrap();
        assert_eq!(simdisk::op_total(), 0, "it runs only when the pump lets it");
        madsim::time::sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(
            simdisk::disk("n1").read_file("f").as_deref(),
            Some(&b"awake"[..])
        );
        worker.join().unwrap();
        assert!(
            madsim::time::TimeHandle::current()
                .elapsed()
                .abs_diff(day)
                .as_millis()
                < 10
        );
    });
    assert!(simdisk::thread_slices() < 20);
}

/// A simulated thread can wake a task, and the task sees its own time.
fn a_worker_can_answer_a_task() {
    let _world = World::install(0);
    let mut runtime = madsim::runtime::Runtime::with_seed_and_config(0, madsim::Config::default());
    runtime.set_allow_system_thread(true);
    runtime.block_on(async {
        madsim::task::spawn(simdisk::pump());
        let (to, from) = tokio::sync::oneshot::channel();
        let worker = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(700));
            to.send(7).unwrap();
        });
        assert_eq!(from.await, Ok(7));
        let now = madsim::time::TimeHandle::current().elapsed();
        assert!(now.as_millis().abs_diff(700) < 5, "{now:?}");
        worker.join().unwrap();
    });
}

pub(crate) fn main() {
    raw_calls_on_simulated_files_abort();
    a_stuck_executor_aborts();
    a_deadlock_between_threads_aborts();
    raw_entropy_repeats();
    a_worker_takes_virtual_time_on_a_stalled_disk();
    an_idle_day_is_free();
    a_worker_can_answer_a_task();
    println!("process: 7 passed");
}
