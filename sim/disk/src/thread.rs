//! Overrides around threads: creation, join, futex, sleep, yield, and raw system calls.
//!
//! A worker runs its whole life inside a private madsim runtime of the same seed as the outer one:
//! so entropy, wall clock base and hash seeds are deterministic there too; its clock follows the
//! worker's (`sched::after_wait`). The baton is handed over at thread exit in a pthread key
//! destructor, which runs after Rust's own thread-local destructors.

use crate::sched::{self, Baton, State, Waited, YIELD_NS};
use crate::shim::{fail, in_world, is_fd, overrides, without_world};
use crate::world::{PREFIX, WorldCell, die, set_world, with, world_ptr};
use libc::{c_int, c_long, c_void, clockid_t, pthread_attr_t, pthread_t, timespec};
use std::cell::Cell;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// The body of a C thread.
type Body = extern "C" fn(*mut c_void) -> *mut c_void;
/// Sleeps of thread 0 in a row, with nothing else happening, that mean a deadlock.
const IDLE_SLEEPS_MAX: u64 = 100_000;
/// Real waits, of 10 ms each, for a lock that some foreign thread may hold.
const FOREIGN_WAITS_MAX: u32 = 500;

overrides! {
    fn pthread_create(id: *mut pthread_t, attr: *const pthread_attr_t, body: Body, arg: *mut c_void)
        -> c_int;
        if in_world() => create(id, attr, body, arg);
    fn pthread_join(id: pthread_t, out: *mut *mut c_void) -> c_int;
        if in_world() && wait_for_end(id) => real_join(id, out);
    fn nanosleep(time: *const timespec, _rest: *mut timespec) -> c_int;
        if in_world() && !time.is_null() => { sleep(nanos(time)); 0 };
    fn clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, _rest: *mut timespec)
        -> c_int;
        if in_world() && !time.is_null() => { sleep_on(clock, flags, nanos(time)); 0 };
    fn usleep(us: libc::c_uint) -> c_int;
        if in_world() => { sleep(u64::from(us) * 1000); 0 };
    fn sched_yield() -> c_int;
        if in_world() => { sleep(YIELD_NS); 0 };
    fn syscall(n: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long;
        if is_simulated(n, a, b) => raw_syscall(n, [a, b, c, d, e, f]);
}

/// A C time in nanoseconds.
unsafe fn nanos(time: *const timespec) -> u64 {
    // SAFETY: the caller has a valid time.
    let time = unsafe { *time };
    (time.tv_sec.max(0) as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

// ---- sleep ----

/// clock_nanosleep(2), relative or until a time.
fn sleep_on(clock: clockid_t, flags: c_int, ns: u64) {
    if flags & libc::TIMER_ABSTIME == 0 {
        return sleep(ns);
    }
    let now = match clock {
        libc::CLOCK_REALTIME => crate::calls::wall_ns(),
        _ => with(|w| w.caller_time()).unwrap_or(ns),
    };
    sleep(ns.saturating_sub(now));
}

/// Lets virtual time pass: a worker waits, thread 0 owes it and lets workers run meanwhile.
fn sleep(ns: u64) {
    let (worker, until) = with(|w| {
        w.sched.idle_sleeps += 1;
        (w.sched.running != 0, w.caller_time().saturating_add(ns))
    })
    .unwrap_or_default();
    if worker {
        sched::wait_as_worker(State::Ready(until));
        return;
    }
    sched::wait_as_main(|_| false, Some(until));
    if with(|w| w.sched.idle_sleeps).is_some_and(|n| n > IDLE_SLEEPS_MAX) {
        die("the simulation thread sleeps and nothing else happens: every task is stuck");
    }
}

// ---- threads ----

/// What a new worker needs to know.
struct Start {
    /// What it runs.
    body: Body,
    /// With what.
    arg: *mut c_void,
    /// Where it lives.
    world: *const WorldCell,
    /// Its number.
    number: usize,
    /// Given when it may begin.
    baton: Arc<Baton>,
    /// Seed of the executor.
    seed: u64,
}

thread_local! {
    /// Seed for fastrand, until the first call.
    static FASTRAND: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Seeds fastrand in a worker, at its first call: earlier would touch `thread::current`, which std
/// has not set up when the thread starts.
pub(crate) fn seed_fastrand() {
    if let Some(seed) = FASTRAND.take() {
        fastrand::seed(seed);
    }
}

/// pthread_create(3) of a simulated thread.
unsafe fn create(
    id: *mut pthread_t,
    attr: *const pthread_attr_t,
    body: Body,
    arg: *mut c_void,
) -> c_int {
    let world = world_ptr();
    let seed = madsim::runtime::Handle::try_current().map_or(0, |h| h.seed());
    let Some((number, baton, pump)) = with(|w| {
        let (time, lives) = (w.caller_time(), w.lives);
        let number = w.sched.add(time, lives);
        w.hash.add(number as u64);
        (
            number,
            Arc::clone(&w.sched.threads[number].baton),
            w.sched.pump.take(),
        )
    }) else {
        return libc::EAGAIN;
    };
    let start = Box::into_raw(Box::new(Start {
        body,
        arg,
        world,
        number,
        baton,
        seed,
    }));
    let real = crate::real::real!(
        pthread_create: fn(*mut pthread_t, *const pthread_attr_t, Body, *mut c_void) -> c_int
    );
    // SAFETY: the caller's arguments, but for body and argument, which fit each other.
    let failed = unsafe { real(id, attr, run_worker, start.cast()) };
    with(|w| {
        let thread = &mut w.sched.threads[number];
        match failed {
            // SAFETY: pthread_create has filled `id` in if it worked.
            0 => thread.pthread = unsafe { *id },
            _ => thread.state = State::Dead,
        }
    });
    if let Some(pump) = pump {
        pump.wake();
    }
    failed
}

/// The whole life of a worker.
extern "C" fn run_worker(start: *mut c_void) -> *mut c_void {
    // SAFETY: `create` made it with `Box::into_raw` for this thread alone.
    let start = unsafe { Box::from_raw(start.cast::<Start>()) };
    start.baton.take();
    set_world(start.world);
    // The number can be anything but null; the destructor finds its thread by the scheduler.
    // SAFETY: the key exists since the world was installed.
    unsafe { libc::pthread_setspecific(exit_key(), start.world.cast()) };
    FASTRAND.set(Some(
        start.seed ^ (start.number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    ));
    let mut runtime = without_world(|| {
        madsim::runtime::Runtime::with_seed_and_config(start.seed, madsim::Config::default())
    });
    runtime.set_allow_system_thread(true);
    let (body, arg) = (start.body, start.arg as usize);
    let number = start.number;
    let out = runtime.block_on(async move {
        // Another part of the stream for each worker, or all would draw the same bytes.
        for _ in 0..number {
            madsim::rand::random::<u64>();
        }
        sched::after_wait();
        body(arg as *mut c_void) as usize
    });
    drop(runtime);
    out as *mut c_void
}

/// The key whose destructor hands the baton over; 0 until made, then the key plus one.
static EXIT_KEY: AtomicUsize = AtomicUsize::new(0);

/// Makes the exit key, once per process.
pub(crate) fn make_exit_key() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut key = 0;
        // SAFETY: the destructor has the type that pthread wants and never unwinds.
        if unsafe { libc::pthread_key_create(&mut key, Some(end_worker)) } != 0 {
            die("no pthread key left");
        }
        EXIT_KEY.store(key as usize + 1, Ordering::Release);
    });
}

/// The exit key.
fn exit_key() -> libc::pthread_key_t {
    (EXIT_KEY.load(Ordering::Acquire) - 1) as libc::pthread_key_t
}

/// Hands the baton over for the last time.
unsafe extern "C" fn end_worker(_world: *mut c_void) {
    let batons = with(|w| w.sched.stop_running(State::Dead));
    set_world(std::ptr::null());
    if let Some((main, _)) = batons {
        main.give();
    }
}

/// Waits until a simulated thread has ended. Always true, so that the real join follows.
fn wait_for_end(id: pthread_t) -> bool {
    let Some((running, Some(worker))) = with(|w| (w.sched.running, w.worker(id))) else {
        return true;
    };
    if running != 0 {
        sched::wait_as_worker(State::Join(worker));
        return true;
    }
    let ended = |w: &crate::world::Inner| w.sched.threads[worker].state == State::Dead;
    if sched::wait_as_main(ended, None) == Waited::Stuck {
        die("deadlock: the simulation thread joins a thread that nothing can wake");
    }
    with(|w| w.catch_up_with(worker));
    true
}

/// The real pthread_join.
unsafe fn real_join(id: pthread_t, out: *mut *mut c_void) -> c_int {
    let real = crate::real::real!(pthread_join: fn(pthread_t, *mut *mut c_void) -> c_int);
    // SAFETY: the caller's own arguments.
    unsafe { real(id, out) }
}

// ---- raw system calls ----

/// System calls whose first argument is a descriptor: none may carry a simulated one.
const ON_FD: [c_long; 30] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_getdents64,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_copy_file_range,
    libc::SYS_sync_file_range,
    libc::SYS_io_uring_register,
];

/// System calls whose second argument is a path.
const ON_PATH_AT: [c_long; 7] = [
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
];

/// Whether a raw system call is ours; aborts on one that would bypass the simulation.
unsafe fn is_simulated(n: c_long, a: usize, b: usize) -> bool {
    match n {
        libc::SYS_getrandom => true,
        _ if !in_world() => false,
        libc::SYS_futex => true,
        libc::SYS_fcntl => is_fd(a as c_int),
        _ => {
            let bypass = ON_FD.contains(&n)
                && is_fd(a as c_int)
                && with(|w| w.is_open(a as c_int)).unwrap_or(false);
            // SAFETY: these calls carry a C string or null in their second argument.
            let path = ON_PATH_AT.contains(&n)
                && b != 0
                && unsafe {
                    CStr::from_ptr(b as *const libc::c_char)
                        .to_bytes()
                        .starts_with(PREFIX.as_bytes())
                };
            if bypass || path {
                die(&format!("raw system call {n} on the simulated disk"));
            }
            false
        }
    }
}

/// A raw system call that is ours.
unsafe fn raw_syscall(n: c_long, args: [usize; 6]) -> c_long {
    let [a, b, c, d, ..] = args;
    match n {
        // madsim's, which is seeded: so getrandom 0.2 and rand 0.8 are too.
        // SAFETY: the caller's buffer.
        libc::SYS_getrandom => unsafe { libc::getrandom(a as *mut c_void, b, c as u32) as c_long },
        // SAFETY: the caller's arguments.
        libc::SYS_fcntl => unsafe {
            c_long::from(crate::shim_file::fcntl_call(a as c_int, b as c_int, c))
        },
        // SAFETY: the caller's arguments.
        _ => unsafe { futex(b as c_int, a, c as u32, d as *const timespec, args) },
    }
}

/// futex(2): simulated threads wait here, others in the kernel.
unsafe fn futex(
    op: c_int,
    addr: usize,
    value: u32,
    time: *const timespec,
    args: [usize; 6],
) -> c_long {
    let command = op & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    match command {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET if with(|w| w.sched.live()) > Some(0) => {
            // SAFETY: a futex address is a valid 32-bit atomic.
            let word = unsafe { &*(addr as *const AtomicU32) };
            if word.load(Ordering::SeqCst) != value {
                return fail(libc::EAGAIN) as c_long;
            }
            let absolute = command == libc::FUTEX_WAIT_BITSET;
            // SAFETY: null or a valid time.
            let deadline = (!time.is_null()).then(|| unsafe { nanos(time) });
            wait_at(word, value, deadline, absolute)
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            let (woken, pump) = with(|w| w.wake(addr, value as usize)).unwrap_or_default();
            if let Some(pump) = pump {
                pump.wake();
            }
            // Foreign threads may wait at the same address, in the kernel.
            let mut rest = args;
            rest[2] = (value as usize).saturating_sub(woken);
            let foreign = if rest[2] > 0 {
                crate::real::syscall(libc::SYS_futex, rest)
            } else {
                0
            };
            woken as c_long + foreign.max(0)
        }
        _ => crate::real::syscall(libc::SYS_futex, args),
    }
}

/// A simulated wait at a futex.
fn wait_at(word: &AtomicU32, value: u32, deadline: Option<u64>, absolute: bool) -> c_long {
    let addr = std::ptr::from_ref(word) as usize;
    let now = with(|w| w.caller_time()).unwrap_or(0);
    // An absolute deadline is on the clock of this thread's runtime, which is virtual time.
    let until = deadline.map(|d| if absolute { d } else { now.saturating_add(d) });
    if with(|w| w.sched.running) != Some(0) {
        return match sched::wait_as_worker(State::Futex(addr, until)) {
            true => fail(libc::ETIMEDOUT) as c_long,
            false => 0,
        };
    }
    with(|w| w.sched.threads[0].state = State::Futex(addr, until));
    let woken = |w: &crate::world::Inner| matches!(w.sched.threads[0].state, State::Ready(_));
    let end = sched::wait_as_main(woken, until);
    with(|w| w.sched.threads[0].state = State::Ready(0));
    match end {
        Waited::Done => 0,
        Waited::TimedOut => fail(libc::ETIMEDOUT) as c_long,
        Waited::Stuck => wait_for_foreign_thread(word, value),
    }
}

/// No simulated thread can wake us. In a process with foreign threads one of them may hold the
/// lock for a moment; otherwise it is a deadlock, which must not hang the run.
fn wait_for_foreign_thread(word: &AtomicU32, value: u32) -> c_long {
    for _ in 0..FOREIGN_WAITS_MAX {
        crate::real::futex_wait(word, value, Some(Duration::from_millis(10)));
        if word.load(Ordering::SeqCst) != value {
            return 0;
        }
    }
    die("deadlock: the simulation thread waits for a lock that nothing can release")
}
