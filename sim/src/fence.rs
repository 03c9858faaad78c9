//! A fence around a run: a system call that would change a real file, or reach the real network, ends the run and is named.
//!
//! The simulated disk stands in for libc's file functions and counts what slips past (`simdisk::escapes`); but inline assembly, a
//! function that nobody thought of, or a library that makes its own system calls are not seen there. The kernel sees all of
//! them: [`install`] gives it a seccomp filter, which each thread of the run inherits. A forbidden call does not happen. Instead
//! its thread gets SIGSYS, whose handler writes one line into the pipe in which the parent waits for the report, and
//! ends the process; [`words`] finds that line again.
//!
//! Allowed stays what a run needs: to read real files (symbols for a backtrace), memory, threads, waiting, and to write to
//! the pipe and to standard output and error. A filter costs nothing that could be measured: the kernel remembers which calls are
//! allowed whatever their arguments are.
//!
//! Left out: `ioctl` and `mmap` with descriptors that are open for writing (there is none in a run).
#![expect(
    unsafe_code,
    reason = "seccomp, a signal handler, and system calls in it have no safe door in std"
)]

use libc::{c_int, c_long, c_void, siginfo_t, sock_filter, sock_fprog, ucontext_t};
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// What a line of the fence begins with. No report does: those are JSON.
const MARK: &str = "fence: ";
/// What ends the run's process.
const STATUS: usize = 97;
/// Most bytes of a path that are told.
const PATH_LEN_MAX: usize = 256;
/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const X86_64: u32 = 0xC000_003E;
/// Numbers from here on are calls of the x32 ABI, which name the same calls once more.
const X32: u32 = 0x4000_0000;
/// Where the filter finds the number of the call, in bytes.
const NUMBER: u32 = 0;
/// Where it finds the architecture.
const ARCH: u32 = 4;

/// Calls that are forbidden whatever their arguments are; with the place of the path among these.
const FORBIDDEN: [(c_long, &str, Option<usize>); 50] = [
    (libc::SYS_creat, "creat", Some(0)),
    (libc::SYS_openat2, "openat2", Some(1)),
    (libc::SYS_unlink, "unlink", Some(0)),
    (libc::SYS_unlinkat, "unlinkat", Some(1)),
    (libc::SYS_rename, "rename", Some(0)),
    (libc::SYS_renameat, "renameat", Some(1)),
    (libc::SYS_renameat2, "renameat2", Some(1)),
    (libc::SYS_mkdir, "mkdir", Some(0)),
    (libc::SYS_mkdirat, "mkdirat", Some(1)),
    (libc::SYS_rmdir, "rmdir", Some(0)),
    (libc::SYS_link, "link", Some(0)),
    (libc::SYS_linkat, "linkat", Some(1)),
    (libc::SYS_symlink, "symlink", Some(1)),
    (libc::SYS_symlinkat, "symlinkat", Some(2)),
    (libc::SYS_mknod, "mknod", Some(0)),
    (libc::SYS_mknodat, "mknodat", Some(1)),
    (libc::SYS_truncate, "truncate", Some(0)),
    (libc::SYS_ftruncate, "ftruncate", None),
    (libc::SYS_fallocate, "fallocate", None),
    (libc::SYS_copy_file_range, "copy_file_range", None),
    (libc::SYS_sendfile, "sendfile", None),
    (libc::SYS_splice, "splice", None),
    (libc::SYS_fsync, "fsync", None),
    (libc::SYS_fdatasync, "fdatasync", None),
    (libc::SYS_sync, "sync", None),
    (libc::SYS_syncfs, "syncfs", None),
    (libc::SYS_sync_file_range, "sync_file_range", None),
    (libc::SYS_flock, "flock", None),
    (libc::SYS_chmod, "chmod", Some(0)),
    (libc::SYS_fchmod, "fchmod", None),
    (libc::SYS_fchmodat, "fchmodat", Some(1)),
    (libc::SYS_chown, "chown", Some(0)),
    (libc::SYS_lchown, "lchown", Some(0)),
    (libc::SYS_fchown, "fchown", None),
    (libc::SYS_fchownat, "fchownat", Some(1)),
    (libc::SYS_utime, "utime", Some(0)),
    (libc::SYS_utimes, "utimes", Some(0)),
    (libc::SYS_futimesat, "futimesat", Some(1)),
    (libc::SYS_utimensat, "utimensat", Some(1)),
    (libc::SYS_setxattr, "setxattr", Some(0)),
    (libc::SYS_lsetxattr, "lsetxattr", Some(0)),
    (libc::SYS_fsetxattr, "fsetxattr", None),
    (libc::SYS_removexattr, "removexattr", Some(0)),
    (libc::SYS_io_uring_setup, "io_uring_setup", None),
    (libc::SYS_io_setup, "io_setup", None),
    (libc::SYS_socket, "socket", None),
    (libc::SYS_socketpair, "socketpair", None),
    (libc::SYS_connect, "connect", None),
    (libc::SYS_execve, "execve", Some(0)),
    (libc::SYS_execveat, "execveat", Some(1)),
];

/// Calls that open a file: forbidden with a flag of [`CHANGES`], which is their argument of this number.
const OPENING: [(c_long, &str, usize); 2] =
    [(libc::SYS_open, "open", 1), (libc::SYS_openat, "openat", 2)];

/// Flags with which opening a file may change it.
const CHANGES: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

/// Calls that write to a descriptor, their first argument: allowed for those that a run has of its parent.
const WRITING: [(c_long, &str); 5] = [
    (libc::SYS_write, "write"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_pwritev2, "pwritev2"),
];

/// Where the handler writes. A signal handler gets no argument of ours; the process does one run, so there is one.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Puts the fence around this thread and all that it starts from now on, for good. `pipe` stays open for writing.
pub fn install(pipe: c_int) -> io::Result<()> {
    PIPE.store(pipe, Ordering::Relaxed);
    let mut filter = program(pipe);
    let program = sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the handler has the type that SA_SIGINFO asks for and calls nothing but the kernel; the program is as long as it says
    // and is copied by the kernel.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = told as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                // Mitigations against speculation would slow a run down, and guard against nobody here.
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                &raw const program,
            ) == 0
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What the fence said in a child's output, if it did.
pub fn words(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let (_, call) = text.split_once(MARK)?;
    let call = call.lines().next().unwrap_or_default();
    Some(format!(
        "the system call {call} left the simulation; the kernel did not carry it out"
    ))
}

/// Where a jump leads.
#[derive(Clone, Copy)]
enum Goal {
    /// So many instructions on.
    Skip(u8),
    /// The call is allowed.
    Allow,
    /// The call is forbidden.
    Trap,
}

/// One instruction before its jumps are known as distances.
enum Step {
    /// Loads the word at an offset.
    Load(u32),
    /// Compares what was loaded with a number: the operation, the number, where to go if it holds and if not.
    Jump(u32, u32, Goal, Goal),
}

/// The filter.
fn program(pipe: c_int) -> Vec<sock_filter> {
    use Goal::{Allow, Skip, Trap};
    let equal = |number: c_long, yes, no| Step::Jump(libc::BPF_JEQ, number as u32, yes, no);
    let mut steps = vec![
        Step::Load(ARCH),
        Step::Jump(libc::BPF_JEQ, X86_64, Skip(0), Trap),
        Step::Load(NUMBER),
        Step::Jump(libc::BPF_JGE, X32, Trap, Skip(0)),
    ];
    for (number, _, flags) in OPENING {
        steps.extend([
            equal(number, Skip(0), Skip(2)),
            Step::Load(argument(flags)),
            Step::Jump(libc::BPF_JSET, CHANGES as u32, Trap, Allow),
        ]);
    }
    for (number, _) in WRITING {
        steps.extend([
            equal(number, Skip(0), Skip(4)),
            Step::Load(argument(0)),
            equal(c_long::from(libc::STDOUT_FILENO), Allow, Skip(0)),
            equal(c_long::from(libc::STDERR_FILENO), Allow, Skip(0)),
            equal(c_long::from(pipe), Allow, Trap),
        ]);
    }
    steps.extend(FORBIDDEN.map(|(number, _, _)| equal(number, Trap, Skip(0))));
    assembled(&steps)
}

/// Where the filter finds the lower half of an argument.
fn argument(place: usize) -> u32 {
    16 + 8 * place as u32
}

/// The instructions, with "allow" and "trap" behind them.
fn assembled(steps: &[Step]) -> Vec<sock_filter> {
    let instruction = |code: u32, k, jt, jf| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let end = libc::BPF_RET | libc::BPF_K;
    let mut filter: Vec<sock_filter> = Vec::with_capacity(steps.len() + 2);
    for (place, step) in steps.iter().enumerate() {
        let to_end = steps.len() - place - 1;
        let distance = |goal| match goal {
            Goal::Skip(count) => count,
            Goal::Allow => u8::try_from(to_end).expect("the filter is short"),
            Goal::Trap => u8::try_from(to_end + 1).expect("the filter is short"),
        };
        filter.push(match step {
            Step::Load(offset) => instruction(load, *offset, 0, 0),
            Step::Jump(operation, k, yes, no) => {
                let code = libc::BPF_JMP | libc::BPF_K | *operation;
                instruction(code, *k, distance(*yes), distance(*no))
            }
        });
    }
    filter.push(instruction(end, libc::SECCOMP_RET_ALLOW, 0, 0));
    filter.push(instruction(end, libc::SECCOMP_RET_TRAP, 0, 0));
    filter
}

/// The name of a forbidden call, and the place of its path.
fn name_of(number: c_long) -> (&'static str, Option<usize>) {
    let mut forbidden = FORBIDDEN.iter();
    if let Some((_, name, path)) = forbidden.find(|one| one.0 == number) {
        return (name, *path);
    }
    if let Some((_, name, flags)) = OPENING.iter().find(|one| one.0 == number) {
        return (name, Some(flags - 1));
    }
    let writing = WRITING.iter().find(|one| one.0 == number);
    (writing.map_or("of another architecture", |one| one.1), None)
}

/// SIGSYS: tells which call it was, and ends the process. Calls the kernel alone, since anything may be locked.
extern "C" fn told(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let pipe = PIPE.load(Ordering::Relaxed) as usize;
    // SAFETY: the kernel hands a signal handler a valid context; a path is what the caller meant the kernel to read, and it is read no
    // farther than its end.
    unsafe {
        let registers = &(*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let (name, path) = name_of(registers[libc::REG_RAX as usize]);
        tell(pipe, MARK.as_bytes());
        tell(pipe, name.as_bytes());
        let places = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX];
        let path = path.map(|place| registers[places[place] as usize] as *const u8);
        if let Some(path) = path.filter(|path| !path.is_null()) {
            let length = (0..PATH_LEN_MAX)
                .take_while(|at| *path.add(*at) != 0)
                .count();
            tell(pipe, b" ");
            tell(pipe, std::slice::from_raw_parts(path, length));
        }
        tell(pipe, b"\n");
        kernel(libc::SYS_exit_group, STATUS, 0, 0);
    }
}

/// Writes to the pipe; when that fails there is nobody to tell.
unsafe fn tell(pipe: usize, text: &[u8]) {
    // SAFETY: the bytes are there for the time of the call.
    unsafe { kernel(libc::SYS_write, pipe, text.as_ptr() as usize, text.len()) };
}

/// A system call without libc, whose functions the simulated disk has replaced.
unsafe fn kernel(number: c_long, a: usize, b: usize, c: usize) {
    // SAFETY: whoever calls vouches for the arguments; the kernel changes rax, rcx and r11 and nothing else of ours.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => _,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
}
