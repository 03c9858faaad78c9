//! Overrides of the calls on open files: open, read, write, seek, sync, size, locks, stat.

use crate::calls::{Space, Stat};
use crate::disk::Res;
use crate::shim::{
    answer, call, done, fail, is_fd, number, on_path, ours, ours_at, ours_or_noted_at, overrides,
    path_at, sim_path, writes,
};
use libc::{c_char, c_int, c_uint, c_void, iovec, mode_t, off_t, size_t, ssize_t, timespec};
use std::slice::{from_raw_parts, from_raw_parts_mut};

// The structures under other names: libc calls them like the functions.
type StatBuf = libc::stat;
type StatxBuf = libc::statx;
type StatfsBuf = libc::statfs;
type StatvfsBuf = libc::statvfs;

overrides! {
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        if ours("open", path, writes(flags)) => open_path(path, flags, mode);
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        if ours("open", path, writes(flags)) => open_path(path, flags, mode);
    fn creat(path: *const c_char, mode: mode_t) -> c_int;
        if ours("creat", path, true) =>
            open_path(path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode);
    fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        if ours_or_noted_at("openat", dir, path, writes(flags)) => open_at(dir, path, flags, mode);
    fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        if ours_or_noted_at("openat", dir, path, writes(flags)) => open_at(dir, path, flags, mode);
    // Closing costs nothing and works on dead descriptors: destructors must come through.
    fn close(fd: c_int) -> c_int;
        if is_fd(fd) => done(|w| w.close(fd));
    fn dup(fd: c_int) -> c_int;
        if is_fd(fd) => number(|w| w.dup(fd)) as c_int;

    fn read(fd: c_int, buf: *mut c_void, n: size_t) -> ssize_t;
        if is_fd(fd) => number(|w| w.read(fd, None, from_raw_parts_mut(buf.cast(), n)));
    fn pread(fd: c_int, buf: *mut c_void, n: size_t, at: off_t) -> ssize_t;
        if is_fd(fd) => number(|w| w.read(fd, Some(at), from_raw_parts_mut(buf.cast(), n)));
    fn pread64(fd: c_int, buf: *mut c_void, n: size_t, at: off_t) -> ssize_t;
        if is_fd(fd) => number(|w| w.read(fd, Some(at), from_raw_parts_mut(buf.cast(), n)));
    fn readv(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t;
        if is_fd(fd) => read_vectored(fd, iov, n, None);
    fn preadv(fd: c_int, iov: *const iovec, n: c_int, at: off_t) -> ssize_t;
        if is_fd(fd) => read_vectored(fd, iov, n, Some(at));
    fn preadv64(fd: c_int, iov: *const iovec, n: c_int, at: off_t) -> ssize_t;
        if is_fd(fd) => read_vectored(fd, iov, n, Some(at));
    fn write(fd: c_int, buf: *const c_void, n: size_t) -> ssize_t;
        if is_fd(fd) => number(|w| w.write(fd, None, from_raw_parts(buf.cast(), n)));
    fn pwrite(fd: c_int, buf: *const c_void, n: size_t, at: off_t) -> ssize_t;
        if is_fd(fd) => number(|w| w.write(fd, Some(at), from_raw_parts(buf.cast(), n)));
    fn pwrite64(fd: c_int, buf: *const c_void, n: size_t, at: off_t) -> ssize_t;
        if is_fd(fd) => number(|w| w.write(fd, Some(at), from_raw_parts(buf.cast(), n)));
    fn writev(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t;
        if is_fd(fd) => write_vectored(fd, iov, n, None);
    fn pwritev(fd: c_int, iov: *const iovec, n: c_int, at: off_t) -> ssize_t;
        if is_fd(fd) => write_vectored(fd, iov, n, Some(at));
    fn pwritev64(fd: c_int, iov: *const iovec, n: c_int, at: off_t) -> ssize_t;
        if is_fd(fd) => write_vectored(fd, iov, n, Some(at));
    fn lseek(fd: c_int, at: off_t, whence: c_int) -> off_t;
        if is_fd(fd) => number(|w| w.seek(fd, at, whence)) as off_t;
    fn lseek64(fd: c_int, at: off_t, whence: c_int) -> off_t;
        if is_fd(fd) => number(|w| w.seek(fd, at, whence)) as off_t;

    fn ftruncate(fd: c_int, len: off_t) -> c_int;
        if is_fd(fd) => done(|w| w.resize(fd, len));
    fn ftruncate64(fd: c_int, len: off_t) -> c_int;
        if is_fd(fd) => done(|w| w.resize(fd, len));
    fn truncate(path: *const c_char, len: off_t) -> c_int;
        if ours("truncate", path, true) => on_path(path, |w, p| w.truncate_path(p, len));
    fn truncate64(path: *const c_char, len: off_t) -> c_int;
        if ours("truncate", path, true) => on_path(path, |w, p| w.truncate_path(p, len));
    fn fallocate(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int;
        if is_fd(fd) => allocate(fd, mode, at, len);
    fn fallocate64(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int;
        if is_fd(fd) => allocate(fd, mode, at, len);
    // These two answer with the error number itself.
    fn posix_fallocate(fd: c_int, at: off_t, len: off_t) -> c_int;
        if is_fd(fd) => call(|w| w.allocate(fd, at, len, true), |()| 0).err().unwrap_or(0);
    fn posix_fallocate64(fd: c_int, at: off_t, len: off_t) -> c_int;
        if is_fd(fd) => call(|w| w.allocate(fd, at, len, true), |()| 0).err().unwrap_or(0);
    fn posix_fadvise(fd: c_int, _at: off_t, _len: off_t, _advice: c_int) -> c_int;
        if is_fd(fd) => 0;
    fn posix_fadvise64(fd: c_int, _at: off_t, _len: off_t, _advice: c_int) -> c_int;
        if is_fd(fd) => 0;
    fn readahead(fd: c_int, _at: off_t, _n: size_t) -> ssize_t;
        if is_fd(fd) => 0;

    fn fsync(fd: c_int) -> c_int;
        if is_fd(fd) => done(|w| w.sync(fd, "fsync"));
    fn fdatasync(fd: c_int) -> c_int;
        if is_fd(fd) => done(|w| w.sync(fd, "fdatasync"));
    // Starts write-back at most: it promises nothing.
    fn sync_file_range(fd: c_int, _at: off_t, _n: off_t, _flags: c_uint) -> c_int;
        if is_fd(fd) => 0;
    fn syncfs(fd: c_int) -> c_int;
        if is_fd(fd) => fail(libc::EOPNOTSUPP) as c_int;

    fn fstat(fd: c_int, out: *mut StatBuf) -> c_int;
        if is_fd(fd) => put_stat(call(|w| w.stat_fd(fd), stat_value), out);
    fn fstat64(fd: c_int, out: *mut StatBuf) -> c_int;
        if is_fd(fd) => put_stat(call(|w| w.stat_fd(fd), stat_value), out);
    fn stat(path: *const c_char, out: *mut StatBuf) -> c_int;
        if ours("stat", path, false) => put_stat(stat_path(path), out);
    fn stat64(path: *const c_char, out: *mut StatBuf) -> c_int;
        if ours("stat", path, false) => put_stat(stat_path(path), out);
    fn lstat(path: *const c_char, out: *mut StatBuf) -> c_int;
        if ours("lstat", path, false) => put_stat(stat_path(path), out);
    fn lstat64(path: *const c_char, out: *mut StatBuf) -> c_int;
        if ours("lstat", path, false) => put_stat(stat_path(path), out);
    fn fstatat(dir: c_int, path: *const c_char, out: *mut StatBuf, flags: c_int) -> c_int;
        if ours_at(dir, path) => put_stat(stat_at(dir, path, flags), out);
    fn fstatat64(dir: c_int, path: *const c_char, out: *mut StatBuf, flags: c_int) -> c_int;
        if ours_at(dir, path) => put_stat(stat_at(dir, path, flags), out);
    fn statx(dir: c_int, path: *const c_char, flags: c_int, _mask: c_uint, out: *mut StatxBuf)
        -> c_int;
        if ours_at(dir, path) => put_statx(stat_at(dir, path, flags), out);
    fn statvfs(path: *const c_char, out: *mut StatvfsBuf) -> c_int;
        if sim_path(path).is_some() => put_statvfs(space_of(path), out);
    fn statvfs64(path: *const c_char, out: *mut StatvfsBuf) -> c_int;
        if sim_path(path).is_some() => put_statvfs(space_of(path), out);
    fn fstatvfs(fd: c_int, out: *mut StatvfsBuf) -> c_int;
        if is_fd(fd) => put_statvfs(call(|w| w.space_fd(fd), space_value), out);
    fn fstatvfs64(fd: c_int, out: *mut StatvfsBuf) -> c_int;
        if is_fd(fd) => put_statvfs(call(|w| w.space_fd(fd), space_value), out);
    fn statfs(path: *const c_char, out: *mut StatfsBuf) -> c_int;
        if sim_path(path).is_some() => put_statfs(space_of(path), out);
    fn statfs64(path: *const c_char, out: *mut StatfsBuf) -> c_int;
        if sim_path(path).is_some() => put_statfs(space_of(path), out);
    fn fstatfs(fd: c_int, out: *mut StatfsBuf) -> c_int;
        if is_fd(fd) => put_statfs(call(|w| w.space_fd(fd), space_value), out);
    fn fstatfs64(fd: c_int, out: *mut StatfsBuf) -> c_int;
        if is_fd(fd) => put_statfs(call(|w| w.space_fd(fd), space_value), out);

    fn flock(fd: c_int, how: c_int) -> c_int;
        if is_fd(fd) => flock_call(fd, how);
    fn fcntl(fd: c_int, command: c_int, arg: usize) -> c_int;
        if is_fd(fd) => fcntl_call(fd, command, arg);
    fn fcntl64(fd: c_int, command: c_int, arg: usize) -> c_int;
        if is_fd(fd) => fcntl_call(fd, command, arg);
    fn fchmod(fd: c_int, mode: mode_t) -> c_int;
        if is_fd(fd) => done(|w| w.chmod_fd(fd, mode));
    fn futimens(fd: c_int, times: *const timespec) -> c_int;
        if is_fd(fd) => set_times(fd, times);

    // std falls back to read and write when these refuse.
    fn copy_file_range(from: c_int, _a: *mut off_t, to: c_int, _b: *mut off_t, _n: size_t,
        _flags: c_uint) -> ssize_t;
        if is_fd(from) || is_fd(to) => fail(libc::EXDEV);
    fn sendfile(to: c_int, from: c_int, _at: *mut off_t, _n: size_t) -> ssize_t;
        if is_fd(from) || is_fd(to) => fail(libc::EINVAL);
    fn sendfile64(to: c_int, from: c_int, _at: *mut off_t, _n: size_t) -> ssize_t;
        if is_fd(from) || is_fd(to) => fail(libc::EINVAL);
    fn splice(from: c_int, _a: *mut off_t, to: c_int, _b: *mut off_t, _n: size_t, _flags: c_uint)
        -> ssize_t;
        if is_fd(from) || is_fd(to) => fail(libc::EINVAL);
    fn mmap(_at: *mut c_void, _n: size_t, _prot: c_int, _flags: c_int, fd: c_int, _off: off_t)
        -> *mut c_void;
        if is_fd(fd) => { fail(libc::ENODEV); libc::MAP_FAILED };
    fn mmap64(_at: *mut c_void, _n: size_t, _prot: c_int, _flags: c_int, fd: c_int, _off: off_t)
        -> *mut c_void;
        if is_fd(fd) => { fail(libc::ENODEV); libc::MAP_FAILED };
}

/// open(2) of a simulated path.
unsafe fn open_path(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller has a C string.
    match unsafe { sim_path(path) } {
        Some(path) => number(|w| w.open(path, flags, mode)) as c_int,
        None => fail(libc::ENOENT) as c_int,
    }
}

/// openat(2) of a simulated path.
unsafe fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller has a C string.
    let path = unsafe { path_at(dir, path) };
    number(|w| w.open(&path?, flags, mode)) as c_int
}

/// readv(2): into one buffer, then dealt out, so that it is one call for faults and costs.
unsafe fn read_vectored(fd: c_int, iov: *const iovec, n: c_int, at: Option<off_t>) -> ssize_t {
    // SAFETY: the caller has an array of `n` buffers.
    let parts = unsafe { from_raw_parts(iov, n as usize) };
    let mut whole = vec![0; parts.iter().map(|p| p.iov_len).sum()];
    let got = number(|w| w.read(fd, at, &mut whole));
    let mut rest = &whole[..got.max(0) as usize];
    for part in parts {
        let (head, tail) = rest.split_at(part.iov_len.min(rest.len()));
        // SAFETY: `head` is not longer than the caller's buffer.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), part.iov_base.cast(), head.len()) };
        rest = tail;
    }
    got
}

/// writev(2): from one buffer, so that it is one call for faults and costs.
unsafe fn write_vectored(fd: c_int, iov: *const iovec, n: c_int, at: Option<off_t>) -> ssize_t {
    let mut whole: Vec<u8> = Vec::new();
    // SAFETY: the caller has an array of `n` buffers.
    for part in unsafe { from_raw_parts(iov, n as usize) } {
        if part.iov_len > 0 {
            // SAFETY: each buffer has the length it says.
            whole.extend(unsafe { from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) });
        }
    }
    number(|w| w.write(fd, at, &whole))
}

/// fallocate(2): allocation only, with or without growth.
fn allocate(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int {
    if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
        return fail(libc::EOPNOTSUPP) as c_int;
    }
    done(|w| w.allocate(fd, at, len, mode & libc::FALLOC_FL_KEEP_SIZE == 0))
}

/// flock(2); one that would block for ever is refused even when asked to block.
fn flock_call(fd: c_int, how: c_int) -> c_int {
    let wanted = match how & !libc::LOCK_NB {
        libc::LOCK_EX => Some(true),
        libc::LOCK_SH => Some(false),
        libc::LOCK_UN => None,
        _ => return fail(libc::EINVAL) as c_int,
    };
    done(|w| w.lock(fd, wanted))
}

/// fcntl(2): duplicates, flags and OFD locks.
pub(crate) unsafe fn fcntl_call(fd: c_int, command: c_int, arg: usize) -> c_int {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => number(|w| w.dup(fd)) as c_int,
        libc::F_GETFL => number(|w| w.flags(fd)) as c_int,
        libc::F_GETFD => libc::FD_CLOEXEC,
        libc::F_SETFD | libc::F_SETFL => 0,
        libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            // SAFETY: these commands carry a pointer to a lock description.
            let kind = c_int::from(unsafe { (*(arg as *const libc::flock)).l_type });
            let wanted = (kind != libc::F_UNLCK).then_some(kind == libc::F_WRLCK);
            done(|w| w.lock(fd, wanted))
        }
        _ => fail(libc::EINVAL) as c_int,
    }
}

/// futimens(2): the second time is the modification time; null means now.
unsafe fn set_times(fd: c_int, times: *const timespec) -> c_int {
    if times.is_null() {
        return done(|w| w.set_mtime(fd, crate::calls::wall_ns()));
    }
    // SAFETY: the caller has two times.
    let mtime = unsafe { *times.add(1) };
    match mtime.tv_nsec {
        libc::UTIME_OMIT => 0,
        libc::UTIME_NOW => done(|w| w.set_mtime(fd, crate::calls::wall_ns())),
        nsec => {
            let ns = mtime
                .tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(nsec);
            done(|w| w.set_mtime(fd, u64::try_from(ns).unwrap_or(0)))
        }
    }
}

/// stat(2) of a simulated path.
unsafe fn stat_path(path: *const c_char) -> Res<Stat> {
    // SAFETY: the caller has a C string.
    let path = unsafe { sim_path(path) }.ok_or(libc::ENOENT)?;
    call(|w| w.stat(path, "stat"), stat_value)
}

/// fstatat(2) and statx(2).
unsafe fn stat_at(dir: c_int, path: *const c_char, flags: c_int) -> Res<Stat> {
    // SAFETY: a C string or null; an empty one means the descriptor itself.
    if path.is_null() || unsafe { *path } == 0 && flags & libc::AT_EMPTY_PATH != 0 {
        return call(|w| w.stat_fd(dir), stat_value);
    }
    // SAFETY: the caller has a C string.
    let path = unsafe { path_at(dir, path) }?;
    call(|w| w.stat(&path, "stat"), stat_value)
}

/// What of a stat goes into the hash.
fn stat_value(stat: &Stat) -> i64 {
    stat.len as i64
}

/// What of a statvfs goes into the hash.
fn space_value(space: &Space) -> i64 {
    space.free as i64
}

/// statvfs(2) of a simulated path.
unsafe fn space_of(path: *const c_char) -> Res<Space> {
    // SAFETY: the caller has a C string.
    let path = unsafe { sim_path(path) }.ok_or(libc::ENOENT)?;
    call(|w| w.space(path), space_value)
}

/// File type and permissions.
fn type_and_mode(s: &Stat) -> u32 {
    s.mode | if s.dir { libc::S_IFDIR } else { libc::S_IFREG }
}

/// Writes a stat out.
unsafe fn put_stat(result: Res<Stat>, out: *mut StatBuf) -> c_int {
    answer(result.map(|s| {
        // SAFETY: plain numbers; zero is a value of each, and `out` is the caller's structure.
        unsafe {
            let mut st: StatBuf = std::mem::zeroed();
            st.st_dev = 0x5d00 + s.disk;
            st.st_ino = s.ino;
            st.st_nlink = u64::from(s.links);
            st.st_mode = type_and_mode(&s);
            st.st_size = s.len as i64;
            st.st_blksize = 4096;
            st.st_blocks = (s.pages * 8) as i64;
            st.st_mtime = (s.mtime_ns / 1_000_000_000) as i64;
            st.st_mtime_nsec = (s.mtime_ns % 1_000_000_000) as i64;
            (st.st_ctime, st.st_ctime_nsec) = (st.st_mtime, st.st_mtime_nsec);
            (st.st_atime, st.st_atime_nsec) = (st.st_mtime, st.st_mtime_nsec);
            out.write(st);
        }
        0
    })) as c_int
}

/// Writes a statx out.
unsafe fn put_statx(result: Res<Stat>, out: *mut StatxBuf) -> c_int {
    answer(result.map(|s| {
        // SAFETY: plain numbers; zero is a value of each, and `out` is the caller's structure.
        unsafe {
            let mut st: StatxBuf = std::mem::zeroed();
            st.stx_mask = libc::STATX_BASIC_STATS;
            st.stx_blksize = 4096;
            st.stx_nlink = s.links;
            st.stx_mode = type_and_mode(&s) as u16;
            st.stx_ino = s.ino;
            st.stx_size = s.len;
            st.stx_blocks = s.pages * 8;
            st.stx_mtime.tv_sec = (s.mtime_ns / 1_000_000_000) as i64;
            st.stx_mtime.tv_nsec = (s.mtime_ns % 1_000_000_000) as u32;
            (st.stx_ctime, st.stx_atime) = (st.stx_mtime, st.stx_mtime);
            st.stx_dev_major = 0x5d;
            st.stx_dev_minor = s.disk as u32;
            out.write(st);
        }
        0
    })) as c_int
}

/// Writes a statvfs out.
unsafe fn put_statvfs(result: Res<Space>, out: *mut StatvfsBuf) -> c_int {
    answer(result.map(|s| {
        // SAFETY: plain numbers; zero is a value of each, and `out` is the caller's structure.
        unsafe {
            let mut st: StatvfsBuf = std::mem::zeroed();
            (st.f_bsize, st.f_frsize, st.f_namemax) = (4096, 4096, 255);
            (st.f_blocks, st.f_bfree, st.f_bavail) = (s.total, s.free, s.free);
            (st.f_files, st.f_ffree, st.f_favail) = (s.inodes + (1 << 20), 1 << 20, 1 << 20);
            out.write(st);
        }
        0
    })) as c_int
}

/// Writes a statfs out.
unsafe fn put_statfs(result: Res<Space>, out: *mut StatfsBuf) -> c_int {
    answer(result.map(|s| {
        // SAFETY: plain numbers; zero is a value of each, and `out` is the caller's structure.
        unsafe {
            let mut st: StatfsBuf = std::mem::zeroed();
            (st.f_type, st.f_bsize, st.f_frsize, st.f_namelen) = (0xef53, 4096, 4096, 255);
            (st.f_blocks, st.f_bfree, st.f_bavail) = (s.total, s.free, s.free);
            (st.f_files, st.f_ffree) = (s.inodes + (1 << 20), 1 << 20);
            out.write(st);
        }
        0
    })) as c_int
}
