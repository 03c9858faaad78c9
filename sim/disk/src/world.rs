//! The world of one simulation: all disks, the descriptor table, the account of calls.
//!
//! A world belongs to the OS thread that installed it, and to the simulated threads that this one
//! started. Only the holder of the baton (see `sched`) touches it, so the busy flag guards against
//! re-entry, not against races. Nothing here may call a file function or take a std lock.

use crate::disk::{Disk, Errno, Path, Res};
use crate::fault::{Fault, OpKind};
use crate::hash::OpHash;
use crate::names::Ino;
use crate::sched::Sched;
use libc::{EBADF, EIO, ENOENT, ENOSPC, c_int};
use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first simulated descriptor; real ones stay far below.
pub(crate) const FD_BASE: c_int = 1 << 20;
/// Paths that start like this are simulated.
pub(crate) const PREFIX: &str = "/simdisk/";
/// Real escapes kept; the count goes on.
const ESCAPES_MAX: usize = 1000;

/// A world, and the flag that says it is in use.
#[derive(Debug)]
pub(crate) struct WorldCell {
    /// Set while `inner` is borrowed.
    busy: AtomicBool,
    /// Everything.
    inner: UnsafeCell<Inner>,
}

/// An open file description.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    /// Index of the disk.
    pub(crate) disk: usize,
    /// Life of the disk in which it was opened.
    pub(crate) epoch: u64,
    /// What is open.
    pub(crate) ino: Ino,
    /// Read and write position, in bytes.
    pub(crate) pos: u64,
    /// Flags of open(2).
    pub(crate) flags: c_int,
    /// Descriptors that share it.
    pub(crate) refs: u32,
    /// Path below the node's directory, when it was opened.
    pub(crate) path: String,
}

/// One call, as the account sees it.
#[derive(Debug)]
pub(crate) struct Op<'a> {
    /// For faults and costs.
    pub(crate) kind: OpKind,
    /// For the log and the hash.
    pub(crate) name: &'static str,
    /// Path below the node's directory.
    pub(crate) path: &'a str,
    /// Offset, or another argument.
    pub(crate) offset: u64,
    /// Length, in bytes.
    pub(crate) len: u64,
    /// Bytes to write.
    pub(crate) content: &'a [u8],
}

/// Everything a world holds.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// All random streams come from it.
    pub(crate) seed: u64,
    /// In order of first use.
    pub(crate) disks: Vec<Disk>,
    /// By descriptor: index into `opens`.
    fds: Vec<Option<usize>>,
    /// Open file descriptions.
    opens: Vec<Option<Open>>,
    /// Over every call.
    pub(crate) hash: OpHash,
    /// Calls so far.
    pub(crate) ops: u64,
    /// One line per call, if switched on.
    pub(crate) log: Option<Vec<String>>,
    /// Time that the simulation thread owes, in nanoseconds.
    pub(crate) debt_ns: u64,
    /// Counts lives of all disks, to date threads.
    pub(crate) lives: u64,
    /// Simulated threads.
    pub(crate) sched: Sched,
    /// Real paths that the simulation should not have touched.
    pub(crate) escapes: Vec<String>,
    /// Real prefixes that may be written to.
    pub(crate) allowed: Vec<String>,
    /// Real prefixes that may not even be read.
    pub(crate) suspects: Vec<String>,
}

thread_local! {
    /// The world of this thread, or null.
    static WORLD: Cell<*const WorldCell> = const { Cell::new(std::ptr::null()) };
}

impl WorldCell {
    /// Wraps a world.
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            busy: AtomicBool::new(false),
            inner: UnsafeCell::new(inner),
        }
    }
}

/// Makes `world` the world of this thread; returns the one before.
pub(crate) fn set_world(world: *const WorldCell) -> *const WorldCell {
    WORLD.replace(world)
}

/// The world of this thread, or null.
pub(crate) fn world_ptr() -> *const WorldCell {
    WORLD.get()
}

/// Runs `f` on the world of this thread; `None` if there is none.
pub(crate) fn with<T>(f: impl FnOnce(&mut Inner) -> T) -> Option<T> {
    match try_with(f) {
        Ok(result) => Some(result),
        Err(NoWorld::None) => None,
        Err(NoWorld::Busy) => die("the world was entered twice"),
    }
}

/// Why `try_with` did nothing.
pub(crate) enum NoWorld {
    /// This thread has no world.
    None,
    /// The world is in use further up the stack.
    Busy,
}

/// Runs `f` on the world of this thread if that is possible: for calls that a panic may make.
pub(crate) fn try_with<T>(f: impl FnOnce(&mut Inner) -> T) -> Result<T, NoWorld> {
    let world = WORLD.get();
    if world.is_null() {
        return Err(NoWorld::None);
    }
    // SAFETY: the guard that installed the world, or the scheduler that handed it to this thread,
    // keeps it alive until it takes the pointer away again.
    let cell = unsafe { &*world };
    if cell.busy.swap(true, Ordering::Acquire) {
        return Err(NoWorld::Busy);
    }
    // SAFETY: the busy flag was clear, so nobody else holds a reference.
    let result = f(unsafe { &mut *cell.inner.get() });
    cell.busy.store(false, Ordering::Release);
    Ok(result)
}

/// Says why on standard error and aborts: for states that no caller can handle.
pub(crate) fn die(why: &str) -> ! {
    let line = format!("simdisk: {why}\n");
    // SAFETY: the buffer is valid for its length; a failed write to stderr leaves nothing to do.
    unsafe {
        libc::write(2, line.as_ptr().cast(), line.len());
        libc::abort()
    }
}

impl Inner {
    /// A world without disks.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            sched: Sched::new(seed),
            ..Self::default()
        }
    }

    /// The index of a node's disk, made if needed.
    pub(crate) fn disk_index(&mut self, node: &str) -> usize {
        if let Some(i) = self.disks.iter().position(|d| d.name == node) {
            return i;
        }
        self.disks.push(Disk::new(node, self.seed));
        self.disks.len() - 1
    }

    /// Splits `/simdisk/<node>/<path>`.
    pub(crate) fn resolve(&mut self, path: &str) -> Res<(usize, Vec<String>)> {
        let mut parts: Vec<String> = Vec::new();
        for part in path.strip_prefix(PREFIX).ok_or(ENOENT)?.split('/') {
            match part {
                "" | "." => {}
                // The node's directory is the top of its world.
                ".." if parts.len() > 1 => drop(parts.pop()),
                ".." => {}
                name if name.len() > 255 => return Err(libc::ENAMETOOLONG),
                name => parts.push(name.into()),
            }
        }
        if parts.is_empty() {
            return Err(ENOENT);
        }
        let node = parts.remove(0);
        Ok((self.disk_index(&node), parts))
    }

    /// Whether the running thread belongs to an earlier life of this disk.
    pub(crate) fn is_dead(&self, disk: usize) -> bool {
        self.sched.born() < self.disks[disk].born
    }

    /// Dates the life that begins now on `disk`.
    pub(crate) fn begin_life(&mut self, disk: usize) {
        self.lives += 1;
        self.disks[disk].born = self.lives;
    }

    // ---- the account of calls ----

    /// Counts, hashes, charges and perhaps refuses a call. A crash fault happens here.
    pub(crate) fn admit(&mut self, disk: usize, op: &Op<'_>) -> Res<()> {
        match self.decide(disk, op)? {
            None | Some(Fault::Short | Fault::Lie) => Ok(()),
            Some(fault) => Err(self.strike(disk, fault)),
        }
    }

    /// Like `admit`, but leaves it to the caller to carry the fault out.
    pub(crate) fn decide(&mut self, disk: usize, op: &Op<'_>) -> Res<Option<Fault>> {
        self.ops += 1;
        let dead = self.is_dead(disk);
        self.record(disk, op, dead);
        if self.disks[disk].frozen || dead {
            return Err(EIO);
        }
        let now = self.caller_time();
        let d = &mut self.disks[disk];
        let cost = d.pace.cost(op.kind, op.len, now);
        d.ops += 1;
        let fault = d.faults.take(d.ops, op.kind, op.path);
        self.charge(cost);
        Ok(fault)
    }

    /// Carries a fault out that ends a call; returns its error number.
    pub(crate) fn strike(&mut self, disk: usize, fault: Fault) -> Errno {
        match fault {
            Fault::Enospc => return ENOSPC,
            Fault::Crash(mode) => self.disks[disk].lose_power(mode),
            Fault::Eio | Fault::Short | Fault::Lie => {}
        }
        EIO
    }

    /// Adds a call to the hash and the log.
    fn record(&mut self, disk: usize, op: &Op<'_>, dead: bool) {
        let d = &self.disks[disk];
        let content = OpHash::of(op.content);
        let state = u64::from(d.frozen) | u64::from(dead) << 1;
        for part in [d.name.as_bytes(), op.name.as_bytes(), op.path.as_bytes()] {
            self.hash.add_bytes(part);
        }
        for number in [op.offset, op.len, content, state] {
            self.hash.add(number);
        }
        if let Some(log) = &mut self.log {
            let refused = if state == 0 { "" } else { " refused" };
            let (node, name, path) = (&d.name, op.name, op.path);
            let (at, len) = (op.offset, op.len);
            log.push(format!(
                "{node} {name} {path} at={at} len={len} content={content:x}{refused}"
            ));
        }
    }

    /// Adds a call's result to the hash and to its line in the log.
    pub(crate) fn note_result(&mut self, result: Res<i64>) {
        let value = result.unwrap_or_else(|errno| -i64::from(errno));
        self.hash.add(value as u64);
        if let Some(line) = self.log.as_mut().and_then(|l| l.last_mut()) {
            line.push_str(&format!(" = {value}"));
        }
    }

    // ---- descriptors ----

    /// Opens `ino`: the descriptor.
    pub(crate) fn open_fd(&mut self, open: Open) -> c_int {
        self.disks[open.disk].adjust(open.ino, |i| i.opens += 1);
        let index = lowest_free(&mut self.opens);
        self.opens[index] = Some(open);
        self.new_fd(index)
    }

    /// One more descriptor for a description.
    fn new_fd(&mut self, index: usize) -> c_int {
        let fd = lowest_free(&mut self.fds);
        self.fds[fd] = Some(index);
        FD_BASE + fd as c_int
    }

    /// dup(2).
    pub(crate) fn dup(&mut self, fd: c_int) -> Res<c_int> {
        let index = self.index_of(fd)?;
        self.open_mut(fd)?.refs += 1;
        Ok(self.new_fd(index))
    }

    /// The description of a descriptor, by index: also the identity of its lock.
    pub(crate) fn index_of(&self, fd: c_int) -> Res<usize> {
        let slot = usize::try_from(fd - FD_BASE).map_err(|_| EBADF)?;
        self.fds.get(slot).copied().flatten().ok_or(EBADF)
    }

    /// The description of a descriptor.
    pub(crate) fn open_mut(&mut self, fd: c_int) -> Res<&mut Open> {
        let index = self.index_of(fd)?;
        self.opens[index].as_mut().ok_or(EBADF)
    }

    /// The description of a descriptor, if its life still goes on.
    pub(crate) fn live_open(&mut self, fd: c_int) -> Res<Open> {
        let open = self.open_mut(fd)?.clone();
        if self.disks[open.disk].epoch == open.epoch {
            Ok(open)
        } else {
            Err(EIO)
        }
    }

    /// close(2); works on dead descriptors too.
    pub(crate) fn close(&mut self, fd: c_int) -> Res<()> {
        let index = self.index_of(fd)?;
        self.fds[(fd - FD_BASE) as usize] = None;
        let Some(open) = &mut self.opens[index] else {
            return Err(EBADF);
        };
        open.refs -= 1;
        if open.refs > 0 {
            return Ok(());
        }
        let (disk, epoch, ino) = (open.disk, open.epoch, open.ino);
        self.opens[index] = None;
        let disk = &mut self.disks[disk];
        if disk.epoch == epoch {
            disk.adjust(ino, |i| {
                i.opens -= 1;
                i.locks.retain(|(holder, _)| *holder != index);
            });
        }
        Ok(())
    }

    /// Descriptors that are open.
    pub(crate) fn open_count(&self) -> usize {
        self.fds.iter().flatten().count()
    }

    // ---- escapes ----

    /// Notes a real path that was touched, if it should not have been.
    pub(crate) fn note_escape(&mut self, what: &str, path: &str, writes: bool) {
        let under = |prefixes: &[String]| prefixes.iter().any(|p| path.starts_with(p.as_str()));
        let harmless = ["/dev/", "/proc/", "/sys/"]
            .iter()
            .any(|p| path.starts_with(p));
        let near_miss = path.starts_with("/simdisk") || under(&self.suspects);
        let wrong = near_miss || (writes && !harmless && !under(&self.allowed));
        if wrong && self.escapes.len() < ESCAPES_MAX {
            self.escapes.push(format!("{what} {path}"));
        }
    }
}

/// The index of the first empty slot, made if needed.
fn lowest_free<T>(slots: &mut Vec<Option<T>>) -> usize {
    slots.iter().position(Option::is_none).unwrap_or_else(|| {
        slots.push(None);
        slots.len() - 1
    })
}

/// A path's components in one line.
pub(crate) fn join(path: Path<'_>) -> String {
    path.join("/")
}
