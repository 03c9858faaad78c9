//! The C side: how a libc override decides, calls and answers.
//!
//! `overrides!` writes each function: the simulated answer if the condition holds, the real
//! function otherwise. An override never unwinds (a panic in `extern "C"` aborts), takes no std
//! lock, and holds the world only inside `call`.

use crate::disk::{Errno, Res};
use crate::sched;
use crate::world::{FD_BASE, Inner, PREFIX, set_world, try_with, with, world_ptr};
use libc::{c_char, c_int};
use std::ffi::CStr;

/// Declares libc functions: `fn name(args) -> type; if ours => simulated`.
macro_rules! overrides {
    ($(fn $name:ident($($a:ident: $t:ty),*) -> $r:ty; if $ours:expr => $body:expr;)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(unused_unsafe, reason = "not every condition and body needs it")]
            unsafe extern "C" fn $name($($a: $t),*) -> $r {
                // SAFETY: the C caller vouches for its arguments, by the contract of this libc
                // function; the body uses them in no other way than that contract allows.
                if unsafe { $ours } {
                    // SAFETY: as above.
                    return unsafe { $body };
                }
                let real = $crate::real::real!($name: fn($($t),*) -> $r);
                // SAFETY: the same arguments go to the real function of this name and type.
                unsafe { real($($a),*) }
            }
        )*

        /// Names every function, so that the linker takes them all.
        pub(super) fn keep() {
            $(std::hint::black_box($name as *const ());)*
        }
    };
}
pub(crate) use overrides;

/// Whether a descriptor is simulated.
pub(crate) fn is_fd(fd: c_int) -> bool {
    fd >= FD_BASE
}

/// Whether this thread lives in a world.
pub(crate) fn in_world() -> bool {
    !world_ptr().is_null()
}

/// Makes one simulated call: lets other threads run first, then acts and takes the result down.
pub(crate) fn call<T>(f: impl FnOnce(&mut Inner) -> Res<T>, value: impl Fn(&T) -> i64) -> Res<T> {
    crate::thread::seed_fastrand();
    sched::pause_point();
    with(|w| {
        w.sched.idle_sleeps = 0;
        let result = f(w);
        w.note_result(result.as_ref().map(&value).map_err(|e| *e));
        result
    })
    .unwrap_or(Err(libc::EBADF))
}

/// A call that answers with a number.
pub(crate) fn number<N: Copy + Into<i64>>(f: impl FnOnce(&mut Inner) -> Res<N>) -> isize {
    answer(call(f, |n| (*n).into()).map(|n| n.into() as isize))
}

/// A call that answers 0.
pub(crate) fn done(f: impl FnOnce(&mut Inner) -> Res<()>) -> c_int {
    answer(call(f, |()| 0).map(|()| 0)) as c_int
}

/// The C form of a result: -1 and errno.
pub(crate) fn answer(result: Res<isize>) -> isize {
    result.unwrap_or_else(fail)
}

/// Sets errno; -1.
pub(crate) fn fail(errno: Errno) -> isize {
    // SAFETY: libc's errno location is valid for this thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// A path as text, if it is simulated (and there is a world).
///
/// # Safety
/// `path` is null or a C string that outlives the result.
pub(crate) unsafe fn sim_path<'a>(path: *const c_char) -> Option<&'a str> {
    if path.is_null() || !in_world() {
        return None;
    }
    // SAFETY: the caller vouches for a C string.
    let text = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    text.starts_with(PREFIX).then_some(text)
}

/// Whether an `at` call concerns us.
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn ours_at(dirfd: c_int, path: *const c_char) -> bool {
    // SAFETY: the caller vouches for a C string; a first byte is always there.
    if path.is_null() || unsafe { *path } != b'/' as c_char {
        return is_fd(dirfd);
    }
    // SAFETY: the caller vouches for a C string.
    unsafe { sim_path(path) }.is_some()
}

/// The absolute path of an `at` call that concerns us (or whose other half does).
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn path_at(dirfd: c_int, path: *const c_char) -> Res<String> {
    if path.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: the caller vouches for a C string.
    let text = unsafe { CStr::from_ptr(path) }
        .to_str()
        .map_err(|_| libc::EINVAL)?;
    if text.starts_with('/') || !is_fd(dirfd) {
        return Ok(text.to_owned());
    }
    with(|w| w.relative_to(dirfd, text)).unwrap_or(Err(libc::EBADF))
}

/// A call on one path.
///
/// # Safety
/// `path` is a simulated path (see `sim_path`) or null.
pub(crate) unsafe fn on_path(
    path: *const c_char,
    f: impl FnOnce(&mut Inner, &str) -> Res<()>,
) -> c_int {
    // SAFETY: the caller vouches for a C string.
    match unsafe { sim_path(path) } {
        Some(path) => done(|w| f(w, path)),
        None => fail(libc::ENOENT) as c_int,
    }
}

/// False always: notes that a real path is about to be touched.
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn escaped(what: &str, path: *const c_char, writes: bool) -> bool {
    if !path.is_null() && in_world() {
        // SAFETY: the caller vouches for a C string.
        let text = unsafe { CStr::from_ptr(path) }.to_string_lossy();
        // A panic inside the world prints its backtrace through here.
        try_with(|w| w.note_escape(what, &text, writes)).unwrap_or(());
    }
    false
}

/// Whether a path is simulated; a real one is noted if the call `writes` to it.
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn ours(what: &str, path: *const c_char, writes: bool) -> bool {
    // SAFETY: the caller vouches for a C string.
    unsafe { sim_path(path).is_some() || escaped(what, path, writes) }
}

/// Like `ours`, for `at` calls.
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn ours_or_noted_at(
    what: &str,
    dirfd: c_int,
    path: *const c_char,
    writes: bool,
) -> bool {
    // SAFETY: the caller vouches for a C string.
    unsafe { ours_at(dirfd, path) || escaped(what, path, writes) }
}

/// Whether open(2) flags mean to write.
pub(crate) fn writes(flags: c_int) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_CREAT | libc::O_TRUNC) != 0
}

/// Puts the world of this thread away while real code runs that must not see it.
pub(crate) fn without_world<T>(f: impl FnOnce() -> T) -> T {
    let world = set_world(std::ptr::null());
    let result = f();
    set_world(world);
    result
}
