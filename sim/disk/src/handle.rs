//! What the simulator holds: the world's guard and a handle per disk.
//!
//! All of it must be called on the thread that installed the world, and panics elsewhere.

use crate::cost::{Costs, Stall};
use crate::disk::Disk;
use crate::fault::{CrashMode, Fault, Rule};
use crate::file::PAGE;
use crate::names::NameMode;
use crate::world::{Inner, WorldCell, set_world, with, world_ptr};
use crate::{Rng, shim_file, shim_name, thread};

/// A world of disks, while its guard lives.
#[derive(Debug)]
pub struct World;

/// Keeps the world of this thread; dropping it brings the real one back.
///
/// Drop the executor first: what its tasks still hold may close files.
#[derive(Debug)]
pub struct Guard {
    /// Made by `Box::into_raw`.
    world: *const WorldCell,
}

/// One node's disk. Cheap to copy; valid as long as the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskHandle {
    /// Index in the world.
    index: usize,
}

/// Where a bit was flipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flipped {
    /// Path below the node's directory.
    pub path: String,
    /// The byte, from the start of the file.
    pub offset: u64,
    /// The bit, 0 to 7.
    pub bit: u8,
}

/// What to break while the node is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Cut a file to this many bytes.
    Truncate(u64),
    /// Remove a file, or a directory with all it holds.
    Remove,
}

/// What a disk has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Calls accounted for while it had power.
    pub ops: u64,
    /// Syncs, good and failed.
    pub syncs: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes allocated.
    pub used_bytes: u64,
    /// Lives that have ended.
    pub epoch: u64,
}

impl World {
    /// Makes an empty world on this thread and seeds fastrand. One world per executor: virtual
    /// time in a world never goes back.
    ///
    /// # Panics
    /// If this thread already has one.
    pub fn install(seed: u64) -> Guard {
        assert!(world_ptr().is_null(), "this thread already has a world");
        thread::make_exit_key();
        shim_file::keep();
        shim_name::keep();
        thread::keep();
        fastrand::seed(Rng::stream(seed, "fastrand").next_u64());
        let world = Box::into_raw(Box::new(WorldCell::new(Inner::new(seed))));
        set_world(world);
        Guard { world }
    }

    /// Runs the calling process on one core, the `nth` of those it may use (counted round and round): hand-overs between
    /// threads are several times cheaper there. The caller says which, because processes that each stayed on the core
    /// they were born on would often share one.
    pub fn pin_to_core(nth: usize) {
        // SAFETY: the sets are plain memory of the size given; failure leaves things as they were.
        unsafe {
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed) != 0 {
                return;
            }
            let cores: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
                .filter(|core| libc::CPU_ISSET(*core, &allowed))
                .collect();
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cores[nth % cores.len()], &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let live = live_threads();
        set_world(std::ptr::null());
        // A worker that has not ended still points to the world: leak it rather than dangle.
        if live == 0 {
            // SAFETY: made by `Box::into_raw` in `install`; no thread points to it any more.
            drop(unsafe { Box::from_raw(self.world.cast_mut()) });
        }
    }
}

/// Runs `f` on the world of this thread.
fn world<T>(f: impl FnOnce(&mut Inner) -> T) -> T {
    with(f).expect("World::install has been called on this thread and its guard lives")
}

/// The disk of `node`, made empty at first use; its files are below `/simdisk/<node>/`.
///
/// # Panics
/// If the name is not a single path component.
pub fn disk(node: &str) -> DiskHandle {
    let plain = !node.is_empty() && !node.contains('/') && node != "." && node != "..";
    assert!(plain, "a node's name is one path component: {node:?}");
    DiskHandle {
        index: world(|w| w.disk_index(node)),
    }
}

/// Takes the time that calls on this thread have cost since the last take, in nanoseconds.
pub fn take_debt() -> u64 {
    world(|w| {
        w.sched.idle_sleeps = 0;
        std::mem::take(&mut w.debt_ns)
    })
}

/// Forgets that time: do it before each piece of storage work, or a dead node's debt is billed to
/// the next.
pub fn clear_debt() {
    take_debt();
}

/// The hash over every call so far: equal in two runs that did the same.
pub fn op_hash() -> u64 {
    world(|w| w.hash.value())
}

/// Calls on all disks so far.
pub fn op_total() -> u64 {
    world(|w| w.ops)
}

/// Starts (or stops) keeping one line per call.
pub fn record_ops(on: bool) {
    world(|w| w.log = on.then(Vec::new));
}

/// Takes the lines kept so far.
pub fn take_op_log() -> Vec<String> {
    world(|w| w.log.as_mut().map(std::mem::take).unwrap_or_default())
}

/// Simulated threads that have not ended; 0 without a world.
pub fn live_threads() -> usize {
    with(|w| w.sched.live()).unwrap_or(0)
}

/// How often a simulated thread was handed the baton.
pub fn thread_slices() -> u64 {
    world(|w| w.sched.slices)
}

/// Descriptors open on all disks.
pub fn open_files() -> usize {
    world(|w| w.open_count())
}

/// Real paths that this world's threads opened for writing, changed, or touched near `/simdisk`.
/// Empty in a sound simulation. System calls in inline assembly do not show here (use strace).
pub fn escapes() -> Vec<String> {
    world(|w| w.escapes.clone())
}

/// Lets this world's threads write to real paths that begin with `prefix`.
pub fn allow_real(prefix: &str) {
    world(|w| w.allowed.push(prefix.into()));
}

/// Makes even reading real paths that begin with `prefix` an escape.
pub fn suspect_real(prefix: &str) {
    world(|w| w.suspects.push(prefix.into()));
}

impl DiskHandle {
    /// Runs `f` on the disk.
    fn with<T>(self, f: impl FnOnce(&mut Disk) -> T) -> T {
        world(|w| f(&mut w.disks[self.index]))
    }

    /// A path in components; a leading `/simdisk/<node>` is not expected here.
    fn parts(path: &str) -> Vec<String> {
        path.split('/')
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect()
    }

    // ---- power ----

    /// Power loss. The disk refuses everything until `power_on`; descriptors are dead for ever.
    ///
    /// Order: `power_loss`, kill the node's tasks, let 1 ms of virtual time pass (only then has the
    /// executor dropped them), `power_on`, restart the node. A task of the old life that lives
    /// past `power_on` could otherwise change the new life's files by path.
    pub fn power_loss(self, mode: CrashMode) {
        self.with(|d| d.lose_power(mode));
    }

    /// kill -9: descriptors die, the page cache survives. The same order as for `power_loss`.
    pub fn kill(self) {
        self.with(Disk::kill);
    }

    /// Begins a new life. Threads from before get EIO by path too.
    pub fn power_on(self) {
        world(|w| {
            w.disks[self.index].frozen = false;
            if std::mem::take(&mut w.disks[self.index].down) {
                w.begin_life(self.index);
            }
        });
    }

    /// Refuses every call (EIO) until `power_on`, without losing anything.
    pub fn freeze(self) {
        self.with(|d| d.frozen = true);
    }

    /// Whether the power failed (by call or by an injected crash) and is not on again.
    pub fn is_down(self) -> bool {
        self.with(|d| d.down)
    }

    /// A new, empty disk in the old one's place. Like a power loss, it needs `power_on`.
    pub fn wipe(self) {
        self.with(Disk::wipe);
    }

    /// What syncs do for names, from now on.
    pub fn set_name_mode(self, mode: NameMode) {
        self.with(|d| d.log.mode = mode);
    }

    // ---- faults ----

    /// Plans a fault for the n-th call from now (1 is the next).
    pub fn inject_at(self, n: u64, fault: Fault) {
        self.with(|d| d.faults.at(d.ops + n, fault));
    }

    /// Adds a rule; the oldest rule that fires wins.
    pub fn inject(self, rule: Rule) {
        self.with(|d| d.faults.add(rule));
    }

    /// Forgets planned faults and rules; damage done stays.
    pub fn clear_faults(self) {
        self.with(|d| d.faults.clear());
    }

    /// Flips a bit at rest, in a page that is on the platter and not all zeros, of a file whose
    /// path contains `part`. `None` if there is no such page.
    pub fn flip_bit(self, part: &str, rng: &mut Rng) -> Option<Flipped> {
        let (path, offset, bit) = self.with(|d| d.flip_bit(part, rng))?;
        Some(Flipped { path, offset, bit })
    }

    /// Damages a file or directory at rest, on the platter and in the cache; false if there is none.
    pub fn damage(self, path: &str, damage: Damage) -> bool {
        let parts = Self::parts(path);
        self.with(|d| match damage {
            Damage::Truncate(len) => d.damage_truncate(&parts, len),
            Damage::Remove => d.damage_remove(&parts),
        })
        .is_ok()
    }

    // ---- space and time ----

    /// Sets the capacity, in bytes; less than what is used makes the disk full.
    pub fn set_capacity(self, bytes: u64) {
        self.with(|d| d.capacity = bytes / PAGE);
    }

    /// Capacity, in bytes.
    pub fn capacity(self) -> u64 {
        self.with(|d| d.capacity * PAGE)
    }

    /// Bytes that can still be allocated.
    pub fn free_bytes(self) -> u64 {
        self.with(|d| d.free_pages() * PAGE)
    }

    /// Sets the price list.
    pub fn set_costs(self, costs: Costs) {
        self.with(|d| d.pace.costs = costs);
    }

    /// Holds calls up until virtual time `until_ns` since the executor's start; 0 ends it.
    pub fn stall_until(self, what: Stall, until_ns: u64) {
        self.with(|d| d.pace.stall(what, until_ns));
    }

    /// Makes calls `factor` times as dear until virtual time `until_ns`.
    pub fn slow_down(self, factor: u64, until_ns: u64) {
        self.with(|d| d.pace.slow_down(factor, until_ns));
    }

    // ---- looking ----

    /// Calls accounted for so far.
    pub fn op_count(self) -> u64 {
        self.with(|d| d.ops)
    }

    /// Lives that have ended: a storage lane can compare it with what it saw when its node started.
    pub fn epoch(self) -> u64 {
        self.with(|d| d.epoch)
    }

    /// What the disk has done.
    pub fn stats(self) -> Stats {
        self.with(|d| Stats {
            ops: d.ops,
            syncs: d.syncs,
            written_bytes: d.written,
            used_bytes: d.used * PAGE,
            epoch: d.epoch,
        })
    }

    /// Every file with its length, by path; past faults and costs.
    pub fn list_files(self) -> Vec<(String, u64)> {
        let len = |d: &Disk, ino| d.file(ino).map_or(0, |f| f.len);
        self.with(|d| {
            d.files("")
                .into_iter()
                .map(|(path, ino)| (path, len(d, ino)))
                .collect()
        })
    }

    /// A whole file as programs see it, past faults and costs; `None` if there is none.
    pub fn read_file(self, path: &str) -> Option<Vec<u8>> {
        world(|w| w.peek(self.index, &Self::parts(path)).ok())
    }
}
