//! A simulated disk under unmodified `std::fs`, fjall, lsm-tree and tempfile.
//!
//! The binary that links this crate has its libc file functions replaced (x86-64 Linux, glibc,
//! dynamic). Paths below `/simdisk/<node>/` lead to a disk in memory, one per node, that can lose
//! power, tear pages, fail, fill up, rot, stall, and that repeats bit for bit from a seed. All
//! other paths go to the kernel. Link it into the simulation binary only: it changes `read` and
//! `close` for everybody.
//!
//! # Map, in reading order
//!
//! - `rng`, `hash`: chance, and the hash by which two runs are compared
//! - `fault`, `cost`: what goes wrong, what takes time
//! - `file`: the bytes of a file, seen and on the platter
//! - `names`: the log of directory changes
//! - `disk`: both together, with capacity and power
//! - `world`: all disks, descriptors, the account of calls
//! - `sched`: simulated threads; `pump`: the task that runs them
//! - `calls`: what each file call means
//! - `real`, `shim`, `shim_file`, `shim_name`, `thread`: the C side
//! - `handle`: what the simulator holds
//!
//! # Rules for the simulator
//!
//! 1. One process per seed, forked from a single-threaded parent; `World::install` after the fork.
//!    (fjall numbers its trees by a process-wide counter that ends up in cache keys.)
//! 2. `Runtime::set_allow_system_thread(true)`, and `pump()` spawned on the supervisor.
//! 3. Storage work runs inline in one piece: `clear_debt()`, the work, then sleep `take_debt()`.
//!    madsim sleeps at least 1 ms.
//! 4. A dead node: `power_loss` (or `kill`), kill its tasks, 1 ms, `power_on`, restart.
//! 5. The binary needs `rustix` with its feature `use-libc`, or tempfile's renames go to the kernel.
//! 6. Real helper threads (a watchdog) start before `World::install`; later ones are simulated.
//!
//! # Proof that nothing escapes
//!
//! `escapes()` must be empty at the end of a run. It knows of what comes through libc. What does
//! not and would change a real file is stopped by the kernel: the runner puts a seccomp filter
//! around each run (`sim::fence`). What only reads changes nothing and is not stopped, so once per
//! toolchain or dependency change `nm -D <binary>` must import no file function from libc.
//!
//! # What it never does
//!
//! It does not simulate mmap (ENODEV), O_DIRECT (ignored), io_uring, symbolic links, permissions,
//! relative paths through chdir, preemption inside a call, or `tokio::fs`. System calls in inline
//! assembly bypass it; raw ones through `syscall` on a simulated file abort.
#![cfg(madsim)]

mod calls;
mod cost;
mod disk;
mod fault;
mod file;
mod handle;
mod hash;
mod names;
mod page;
mod pump;
mod real;
mod rng;
mod sched;
mod shim;
mod shim_file;
mod shim_name;
mod thread;
mod world;

pub use cost::{Costs, Stall};
pub use fault::{CrashMode, Fault, OpKind, Rule};
pub use handle::{
    Damage, DiskHandle, Flipped, Guard, Stats, World, allow_real, clear_debt, disk, escapes,
    live_threads, op_hash, op_total, open_files, record_ops, suspect_real, take_debt, take_op_log,
    thread_slices,
};
pub use names::NameMode;
pub use pump::pump;
pub use rng::Rng;
