//! The real functions behind the overrides, found once with dlsym.
//!
//! Works only in a dynamically linked binary. The cache is a plain number per call site, so it is
//! safe after a fork and needs no lock.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// The next definition of a libc function, typed: `real!(close: fn(c_int) -> c_int)`.
macro_rules! real {
    ($name:ident : fn($($t:ty),* $(,)?) -> $r:ty) => {{
        static FOUND: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let mut found = FOUND.load(std::sync::atomic::Ordering::Relaxed);
        if found == 0 {
            found = $crate::real::find(concat!(stringify!($name), "\0"));
            FOUND.store(found, std::sync::atomic::Ordering::Relaxed);
        }
        // SAFETY: dlsym found the C function of this name, whose C type this is.
        unsafe { std::mem::transmute::<usize, unsafe extern "C" fn($($t),*) -> $r>(found) }
    }};
}
pub(crate) use real;

/// Looks a NUL-terminated symbol up in the libraries behind this binary.
pub(crate) fn find(name: &str) -> usize {
    // SAFETY: `name` ends with NUL; RTLD_NEXT is a valid pseudo handle.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) } as usize;
    if at == 0 {
        crate::world::die(&format!("libc has no {name}"));
    }
    at
}

/// The real `syscall`.
pub(crate) fn syscall(number: libc::c_long, args: [usize; 6]) -> libc::c_long {
    type Number = libc::c_long;
    let f = real!(syscall: fn(Number, usize, usize, usize, usize, usize, usize) -> Number);
    let [a, b, c, d, e, g] = args;
    // SAFETY: whoever made the call vouches for its arguments; they are passed on unchanged.
    unsafe { f(number, a, b, c, d, e, g) }
}

/// Really waits while `*word == value`, at most `limit`. May return early.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32, limit: Option<Duration>) {
    let time = limit.map(|d| libc::timespec {
        tv_sec: d.as_secs() as i64,
        tv_nsec: i64::from(d.subsec_nanos()),
    });
    let time = time.as_ref().map_or(0, |t| std::ptr::from_ref(t) as usize);
    let op = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    syscall(
        libc::SYS_futex,
        [
            std::ptr::from_ref(word) as usize,
            op,
            value as usize,
            time,
            0,
            0,
        ],
    );
}

/// Really wakes one thread that waits at `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    let op = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
    syscall(
        libc::SYS_futex,
        [std::ptr::from_ref(word) as usize, op, 1, 0, 0, 0],
    );
}
