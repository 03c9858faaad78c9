//! Many runs: one process per run, forked from this warmed, single-threaded one, a few at a time.
//!
//! A process of its own keeps what one seed leaves behind (statics, leaks, threads) from the next, contains aborts, and lets a
//! watchdog end a run that hangs. A fence around it sees to it that nothing it does reaches the real disk.
//! Nothing here is simulated: this is the one place of the crate that knows real time.
#![expect(
    unsafe_code,
    reason = "fork, pipes and signals have no safe door in std"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the runner lives outside of the simulation"
)]

use crate::fence;
use crate::plan::Plan;
use crate::planted::Seedling;
use crate::report::Report;
use crate::run::run;
use crate::trace::Level;
use scenarios::Scenario;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

/// A run that takes longer than this, in real time, is killed.
const WATCHDOG: Duration = Duration::from_secs(120);
/// Virtual seconds for which a long run gets one second more: a tenth of what a busy machine does.
const VIRTUAL_PER_S: f64 = 100.0;

/// Stack of the thread that a run has, as large as a main thread's.
const STACK_BYTES: usize = 8 << 20;

/// One run to do.
#[derive(Clone)]
pub struct Job {
    /// Scenario.
    pub scenario: Scenario,
    /// Seed.
    pub seed: u64,
    /// What to keep of its story.
    pub keep: Option<Level>,
    /// The bug planted in its nodes; none but in tests of the test.
    pub seedling: Option<Seedling>,
    /// What to carry out instead of what scenario and seed give.
    pub plan: Option<Box<Plan>>,
}

impl Job {
    /// A run of what scenario and seed give.
    pub fn new(scenario: &Scenario, seed: u64, keep: Option<Level>) -> Job {
        Job {
            scenario: scenario.clone(),
            seed,
            keep,
            seedling: None,
            plan: None,
        }
    }

    /// A run of `plan`.
    pub fn of_plan(plan: Plan, keep: Option<Level>) -> Job {
        Job {
            scenario: plan.scenario.clone(),
            seed: plan.seed,
            keep,
            seedling: plan.seedling,
            plan: Some(Box::new(plan)),
        }
    }

    /// How long it may take, in real time.
    fn patience(&self) -> Duration {
        WATCHDOG + Duration::from_secs_f64(self.scenario.cluster.duration_s.high / VIRTUAL_PER_S)
    }

    /// What it will do.
    fn plan(&self) -> Plan {
        match &self.plan {
            Some(plan) => Plan::clone(plan),
            None => Plan::of(&self.scenario, self.seed, self.seedling),
        }
    }
}

/// A run under way.
struct Child {
    /// Which.
    job: Job,
    /// Its place among those that run at the same time, from 0: it says on which core.
    place: usize,
    /// Its process.
    pid: libc::pid_t,
    /// Where its report comes out.
    pipe: File,
    /// What came out so far.
    bytes: Vec<u8>,
    /// When it began.
    since: Instant,
}

/// What must be done once before the first fork.
pub fn warm_up() {
    // quanta calibrates itself against the clock by spinning, which would never end on a virtual clock.
    let _ = quanta::Instant::now();
}

/// Does all `jobs`, `at_once` at a time, and hands each report to `each` as it comes. A job is asked for when there is room
/// for it, so `each` may decide that there are no more.
pub fn run_all(jobs: impl IntoIterator<Item = Job>, at_once: usize, each: impl FnMut(Report)) {
    let work = |job: &Job| run(job.plan(), job.keep);
    run_all_by(jobs, at_once, work, each);
}

/// The same with another kind of run, for tests of the runner.
pub fn run_all_by(
    jobs: impl IntoIterator<Item = Job>,
    at_once: usize,
    work: fn(&Job) -> Report,
    mut each: impl FnMut(Report),
) {
    let mut waiting = jobs.into_iter();
    let mut children: Vec<Child> = Vec::new();
    loop {
        while children.len() < at_once.max(1) {
            let Some(job) = waiting.next() else { break };
            let free = |place: &usize| children.iter().all(|child| child.place != *place);
            let place = (0..)
                .find(free)
                .expect("there are more numbers than children");
            children.push(start(job, place, work));
        }
        if children.is_empty() {
            return;
        }
        wait_for_output(&children);
        let mut still = Vec::new();
        for mut child in children {
            match read_some(&mut child) {
                Progress::More => still.push(child),
                Progress::End => each(finish(child)),
            }
        }
        children = still;
    }
}

/// Forks one run.
fn start(job: Job, place: usize, work: fn(&Job) -> Report) -> Child {
    let mut ends = [0; 2];
    // SAFETY: pipe fills the two ends; this process has one thread, so the child is a full copy of it.
    let pid = unsafe {
        assert_eq!(
            libc::pipe(ends.as_mut_ptr()),
            0,
            "no pipe: too many open files?"
        );
        libc::fork()
    };
    assert!(pid >= 0, "no process: too many processes?");
    if pid == 0 {
        // SAFETY: the reading end belongs to the parent.
        unsafe { libc::close(ends[0]) };
        child_main(&job, place, work, ends[1]);
    }
    // SAFETY: the writing end belongs to the child; the reading end is ours alone.
    let pipe = unsafe {
        libc::close(ends[1]);
        libc::fcntl(ends[0], libc::F_SETFL, libc::O_NONBLOCK);
        File::from_raw_fd(ends[0])
    };
    Child {
        job,
        place,
        pid,
        pipe,
        bytes: Vec::new(),
        since: Instant::now(),
    }
}

/// The child: runs inside the fence, tells, and leaves without cleaning up.
fn child_main(job: &Job, place: usize, work: fn(&Job) -> Report, pipe: i32) -> ! {
    simdisk::World::pin_to_core(place);
    let lost = |why: String| Report::lost(&job.scenario.name, job.seed, why);
    let report = match fence::install(pipe) {
        Ok(()) => on_a_thread(job, work).unwrap_or_else(|| lost("lost".to_owned())),
        Err(error) => lost(format!("no fence around the run (seccomp): {error}")),
    };
    let bytes = serde_json::to_vec(&report).unwrap_or_default();
    // SAFETY: the writing end is ours alone.
    let mut pipe = unsafe { File::from_raw_fd(pipe) };
    let told = pipe.write_all(&bytes).is_ok();
    drop(pipe);
    // SAFETY: leaves at once: threads of the simulated disk and leaked tasks must not run destructors.
    unsafe { libc::_exit(i32::from(!told)) }
}

/// The run, on a thread that has done nothing before: the keys of std's hash maps are drawn once per thread, and what the
/// parent's progress bar drew from the real world would decide the order of such maps in every run.
fn on_a_thread(job: &Job, work: fn(&Job) -> Report) -> Option<Report> {
    let job = job.clone();
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || caught(&job, work))
        .expect("a thread for the run")
        .join()
        .ok()
}

/// The run, whose panic is a failure like any other.
fn caught(job: &Job, work: fn(&Job) -> Report) -> Report {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut place) = PANIC.lock() {
            *place = Some(format!("{panic}"));
        }
    }));
    let result = std::panic::catch_unwind(|| work(job));
    result.unwrap_or_else(|_| {
        let words = PANIC.lock().ok().and_then(|mut place| place.take());
        let words = words.unwrap_or_else(|| "a panic without words".to_owned());
        Report::lost(&job.scenario.name, job.seed, format!("panic: {words}"))
    })
}

/// The words of the last panic in this process, which does one run.
static PANIC: std::sync::Mutex<Option<String>> = std::sync::Mutex::new(None);

/// Whether a child has more to say.
enum Progress {
    /// It has.
    More,
    /// It has ended.
    End,
}

/// Waits until some child says something, or a little.
fn wait_for_output(children: &[Child]) {
    use std::os::fd::AsRawFd;
    let mut polls: Vec<libc::pollfd> = children
        .iter()
        .map(|child| libc::pollfd {
            fd: child.pipe.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the array is as long as said.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, 1_000) };
}

/// Takes what a child has said.
fn read_some(child: &mut Child) -> Progress {
    let mut buffer = [0; 64 << 10];
    loop {
        match child.pipe.read(&mut buffer) {
            Ok(0) => return Progress::End,
            Ok(count) => child.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(_) => return Progress::End,
        }
    }
    if child.since.elapsed() > child.job.patience() {
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(child.pid, libc::SIGKILL) };
        return Progress::End;
    }
    Progress::More
}

/// The report of a child that has ended.
fn finish(child: Child) -> Report {
    let mut status = 0;
    // SAFETY: the process is our child; the struct is plain memory that the call fills in.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::wait4(child.pid, &mut status, 0, &mut used);
        used
    };
    // All that the process used, from its fork to its end, and not only what it knows of.
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let cpu_us = micros(used.ru_utime) + micros(used.ru_stime);
    if let Ok(report) = serde_json::from_slice(&child.bytes) {
        return Report { cpu_us, ..report };
    }
    let why = if let Some(words) = fence::words(&child.bytes) {
        words
    } else if child.since.elapsed() > child.job.patience() {
        format!("hung: no end after {:?} of real time", child.job.patience())
    } else if libc::WIFSIGNALED(status) {
        format!("the process was ended by signal {}", libc::WTERMSIG(status))
    } else {
        format!("the process ended with status {status} and no report")
    };
    Report::lost(&child.job.scenario.name, child.job.seed, why)
}
