//! A run that reaches for a real file is ended by the kernel, and its report says by which call.
#![expect(
    unsafe_code,
    clippy::disallowed_types,
    reason = "real files and sockets are what a run must not reach; an escape that nobody foresaw makes its own system call"
)]

use sim::report::Report;
use sim::runner::{Job, run_all_by};
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells a child process to run the escapes, and in which folder.
const CHILD: &str = "SIM_CHECK_FENCE";

/// A file that is open for writing before the first run begins: its descriptor.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// What the run of each seed does, and what its only failure must name; nothing for what is allowed.
const WAYS: [&str; 10] = [
    "",
    "openat",
    "openat",
    "mkdir",
    "unlink",
    "rename",
    "write",
    "ftruncate",
    "unlink",
    "socket",
];

/// The folder of real files.
fn folder() -> String {
    std::env::var(CHILD).unwrap()
}

/// The file that was opened beforehand.
fn opened() -> std::mem::ManuallyDrop<File> {
    use std::os::fd::FromRawFd;
    let fd = OPEN.load(Ordering::Relaxed) as i32;
    // SAFETY: the descriptor is open for as long as the process lives; it is not closed here.
    std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}

/// The run: leaves the simulation in the way that the seed says.
fn escape(job: &Job) -> Report {
    let path = |name: &str| format!("{}/{name}", folder());
    // What must not happen is a failure of its own if it does.
    let done = match job.seed {
        0 => {
            assert_eq!(fs::read(path("there")).unwrap(), b"real");
            eprintln!("to be read and to tell is no escape");
            return Report::default();
        }
        1 => fs::write(path("new"), b"x"),
        2 => File::options().append(true).open(path("there")).map(drop),
        3 => fs::create_dir(path("folder")),
        4 => fs::remove_file(path("there")),
        5 => fs::rename(path("there"), path("elsewhere")),
        6 => opened().write_all(b"x"),
        7 => opened().set_len(0),
        8 => raw_unlink(&path("there")),
        _ => std::net::TcpStream::connect("127.0.0.1:1").map(drop),
    };
    Report::lost("escape", job.seed, format!("was carried out: {done:?}"))
}

/// Removes a file without libc, as a library with system calls of its own would.
fn raw_unlink(path: &str) -> std::io::Result<()> {
    let path = std::ffi::CString::new(path).unwrap();
    // SAFETY: the path ends with a NUL and lives as long as the call; the kernel changes rax, rcx and r11 alone.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_unlink => _,
            in("rdi") path.as_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    Ok(())
}

/// Runs every way out, and prints what the reports say.
fn run_the_escapes() {
    use std::os::fd::IntoRawFd;
    let file = File::options()
        .write(true)
        .open(format!("{}/there", folder()));
    OPEN.store(file.unwrap().into_raw_fd() as u64, Ordering::Relaxed);
    let registry = scenarios::all();
    let jobs = (0..WAYS.len() as u64).map(|seed| Job {
        scenario: registry[0].clone(),
        seed,
        keep: None,
        seedling: None,
        plan: None,
    });
    run_all_by(jobs, 1, escape, |report| {
        println!("seed {}: {:?}", report.seed, report.failures);
    });
}

#[test]
fn run_that_leaves_the_simulation_is_ended_and_the_call_is_named() {
    if std::env::var(CHILD).is_ok() {
        return run_the_escapes();
    }
    let real = std::env::temp_dir().join(format!("sim-check-fence-{}", std::process::id()));
    fs::create_dir_all(&real).unwrap();
    fs::write(real.join("there"), b"real").unwrap();
    // One thread, as the runner wants it: it forks.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("fence::run_that_leaves_the_simulation_is_ended_and_the_call_is_named")
        .env(CHILD, &real)
        .output()
        .unwrap();
    let printed = String::from_utf8(child.stdout).unwrap();
    let names: Vec<_> = fs::read_dir(&real)
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    let content = fs::read(real.join("there"));
    fs::remove_dir_all(&real).unwrap();
    assert_eq!(names, ["there"], "{printed}");
    assert_eq!(content.unwrap(), b"real", "{printed}");
    assert!(printed.contains("seed 0: []\n"), "{printed}");
    for (seed, call) in WAYS.iter().enumerate().skip(1) {
        let words = format!("seed {seed}: [\"the system call {call}");
        let line = printed.lines().find(|line| line.contains(&words));
        assert!(
            line.is_some_and(|line| line.contains("left the simulation")),
            "{words} in {printed}"
        );
    }
}
