//! Overrides of the calls on names: rename, unlink, mkdir, link, directory streams.
//!
//! A simulated `DIR` is a box of ours; a magic word in front tells it from glibc's.

use crate::disk::Res;
use crate::shim::{
    answer, call, done, fail, is_fd, number, on_path, ours, ours_at, ours_or_noted_at, overrides,
    path_at, sim_path,
};
use crate::world::Inner;
use libc::{DIR, c_char, c_int, c_uint, dirent64, mode_t, size_t, ssize_t};

overrides! {
    fn rename(from: *const c_char, to: *const c_char) -> c_int;
        if ours("rename", from, true) || ours("rename", to, true) =>
            rename_at(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0);
    fn renameat(d1: c_int, from: *const c_char, d2: c_int, to: *const c_char) -> c_int;
        if ours_or_noted_at("renameat", d1, from, true) || ours_at(d2, to) =>
            rename_at(d1, from, d2, to, 0);
    fn renameat2(d1: c_int, from: *const c_char, d2: c_int, to: *const c_char, flags: c_uint)
        -> c_int;
        if ours_or_noted_at("renameat2", d1, from, true) || ours_at(d2, to) =>
            rename_at(d1, from, d2, to, flags);
    fn link(from: *const c_char, to: *const c_char) -> c_int;
        if ours("link", from, true) || ours("link", to, true) =>
            link_at(libc::AT_FDCWD, from, libc::AT_FDCWD, to);
    fn linkat(d1: c_int, from: *const c_char, d2: c_int, to: *const c_char, _flags: c_int) -> c_int;
        if ours_or_noted_at("linkat", d1, from, true) || ours_at(d2, to) =>
            link_at(d1, from, d2, to);
    fn symlink(_to: *const c_char, at: *const c_char) -> c_int;
        if ours("symlink", at, true) => fail(libc::EPERM) as c_int;
    fn symlinkat(_to: *const c_char, dir: c_int, at: *const c_char) -> c_int;
        if ours_or_noted_at("symlinkat", dir, at, true) => fail(libc::EPERM) as c_int;
    fn unlink(path: *const c_char) -> c_int;
        if ours("unlink", path, true) => on_path(path, |w, p| w.remove(p, false));
    fn rmdir(path: *const c_char) -> c_int;
        if ours("rmdir", path, true) => on_path(path, |w, p| w.remove(p, true));
    fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        if ours_or_noted_at("unlinkat", dir, path, true) =>
            at(dir, path, |w, p| w.remove(p, flags & libc::AT_REMOVEDIR != 0));
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int;
        if ours("mkdir", path, true) => on_path(path, |w, p| w.mkdir(p, mode));
    fn mkdirat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int;
        if ours_or_noted_at("mkdirat", dir, path, true) => at(dir, path, |w, p| w.mkdir(p, mode));
    fn access(path: *const c_char, _mode: c_int) -> c_int;
        if ours("access", path, false) => on_path(path, |w, p| w.stat(p, "access").map(drop));
    fn faccessat(dir: c_int, path: *const c_char, _mode: c_int, _flags: c_int) -> c_int;
        if ours_at(dir, path) => at(dir, path, |w, p| w.stat(p, "access").map(drop));
    fn chmod(path: *const c_char, mode: mode_t) -> c_int;
        if ours("chmod", path, true) => on_path(path, |w, p| w.chmod(p, mode));
    fn readlink(path: *const c_char, _buf: *mut c_char, _n: size_t) -> ssize_t;
        if ours("readlink", path, false) => match on_path(path, |w, p| w.stat(p, "readlink").map(drop)) {
            0 => fail(libc::EINVAL),
            failed => failed as ssize_t,
        };
    fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char;
        if ours("realpath", path, false) => real_path(path, out);

    fn opendir(path: *const c_char) -> *mut DIR;
        if ours("opendir", path, false) => open_dir(path);
    fn fdopendir(fd: c_int) -> *mut DIR;
        if is_fd(fd) => stream(fd);
    fn readdir(dir: *mut DIR) -> *mut dirent64;
        if is_ours(dir) => next_entry(dir);
    fn readdir64(dir: *mut DIR) -> *mut dirent64;
        if is_ours(dir) => next_entry(dir);
    fn rewinddir(dir: *mut DIR) -> ();
        if is_ours(dir) => (*dir.cast::<SimDir>()).next = 0;
    fn dirfd(dir: *mut DIR) -> c_int;
        if is_ours(dir) => (*dir.cast::<SimDir>()).fd;
    fn closedir(dir: *mut DIR) -> c_int;
        if is_ours(dir) => close_dir(dir);
}

/// Marks a directory stream as ours: glibc's begins with a descriptor and a lock.
const MAGIC: u64 = 0x51ad_15c0_51ad_15c0;

/// A simulated directory stream.
#[repr(C)]
struct SimDir {
    /// `MAGIC`.
    magic: u64,
    /// The open directory.
    fd: c_int,
    /// Name, inode number, whether a directory; as of opening.
    entries: Vec<(String, u64, bool)>,
    /// Next entry to hand out.
    next: usize,
    /// The entry handed out last.
    entry: dirent64,
}

/// Whether a stream is simulated.
unsafe fn is_ours(dir: *mut DIR) -> bool {
    // SAFETY: glibc's streams are longer than a word too, and the caller's is open.
    !dir.is_null() && unsafe { *dir.cast::<u64>() } == MAGIC
}

/// A call on one path relative to a directory.
unsafe fn at(
    dir: c_int,
    path: *const c_char,
    f: impl FnOnce(&mut Inner, &str) -> Res<()>,
) -> c_int {
    // SAFETY: the caller has a C string.
    let path = unsafe { path_at(dir, path) };
    done(|w| f(w, &path?))
}

/// rename(2) and its kin; half simulated fails with EXDEV or ENOENT.
unsafe fn rename_at(
    d1: c_int,
    from: *const c_char,
    d2: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    if flags & !libc::RENAME_NOREPLACE != 0 {
        return fail(libc::EINVAL) as c_int;
    }
    // SAFETY: the caller has two C strings.
    let (from, to) = unsafe { (path_at(d1, from), path_at(d2, to)) };
    done(|w| w.rename(&from?, &to?, flags != 0))
}

/// link(2) and its kin.
unsafe fn link_at(d1: c_int, from: *const c_char, d2: c_int, to: *const c_char) -> c_int {
    // SAFETY: the caller has two C strings.
    let (from, to) = unsafe { (path_at(d1, from), path_at(d2, to)) };
    done(|w| w.link(&from?, &to?))
}

/// realpath(3): into the caller's buffer or a new one.
unsafe fn real_path(path: *const c_char, out: *mut c_char) -> *mut c_char {
    // SAFETY: the caller has a C string.
    let path = unsafe { sim_path(path) }.ok_or(libc::ENOENT);
    let found = match path.and_then(|p| call(|w| w.realpath(p), |s| s.len() as i64)) {
        Ok(found) if found.len() < libc::PATH_MAX as usize => found,
        Ok(_) => return null_with(libc::ENAMETOOLONG),
        Err(errno) => return null_with(errno),
    };
    // SAFETY: the caller's buffer has PATH_MAX bytes, ours the length and one more for the NUL.
    unsafe {
        let out = if out.is_null() {
            libc::malloc(found.len() + 1).cast()
        } else {
            out
        };
        std::ptr::copy_nonoverlapping(found.as_ptr().cast(), out, found.len());
        *out.add(found.len()) = 0;
        out
    }
}

/// Sets errno; null.
fn null_with<T>(errno: c_int) -> *mut T {
    fail(errno);
    std::ptr::null_mut()
}

/// opendir(3).
unsafe fn open_dir(path: *const c_char) -> *mut DIR {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    // SAFETY: the caller has a C string.
    let Some(path) = (unsafe { sim_path(path) }) else {
        return null_with(libc::ENOENT);
    };
    let fd = number(|w| w.open(path, flags, 0)) as c_int;
    if fd < 0 {
        return std::ptr::null_mut();
    }
    let dir = stream(fd);
    if dir.is_null() {
        // The error of the listing is the one to report; closing cannot fail here.
        call(|w| w.close(fd), |()| 0).unwrap_or(());
    }
    dir
}

/// A stream over an open directory, which it owns from now on.
fn stream(fd: c_int) -> *mut DIR {
    match call(|w| w.list(fd), |entries| entries.len() as i64) {
        Ok(entries) => {
            // SAFETY: plain numbers and bytes; zero is a value of each.
            let entry = unsafe { std::mem::zeroed() };
            let dir = SimDir {
                magic: MAGIC,
                fd,
                entries,
                next: 0,
                entry,
            };
            Box::into_raw(Box::new(dir)).cast()
        }
        Err(errno) => null_with(errno),
    }
}

/// readdir(3).
unsafe fn next_entry(dir: *mut DIR) -> *mut dirent64 {
    // SAFETY: `is_ours` has checked it, and C callers do not share a stream between threads.
    let dir = unsafe { &mut *dir.cast::<SimDir>() };
    let Some((name, ino, is_dir)) = dir.entries.get(dir.next) else {
        return std::ptr::null_mut();
    };
    dir.next += 1;
    dir.entry.d_ino = *ino;
    dir.entry.d_type = if *is_dir { libc::DT_DIR } else { libc::DT_REG };
    dir.entry.d_off = dir.next as i64;
    dir.entry.d_reclen = size_of::<dirent64>() as u16;
    let text = name.bytes().chain(std::iter::once(0));
    dir.entry
        .d_name
        .iter_mut()
        .zip(text)
        .for_each(|(to, from)| *to = from as c_char);
    &raw mut dir.entry
}

/// closedir(3).
unsafe fn close_dir(dir: *mut DIR) -> c_int {
    // SAFETY: `stream` made it with `Box::into_raw`, and the caller gives it up.
    let dir = unsafe { Box::from_raw(dir.cast::<SimDir>()) };
    answer(call(|w| w.close(dir.fd), |()| 0).map(|()| 0)) as c_int
}
