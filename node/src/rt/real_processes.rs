//! The real half of [`super::processes`]: Linux processes, found again through `/proc`.
//!
//! Nothing is kept of an ordinary process but its name: whether this program or an earlier one started it, it is waited for by its
//! pidfd. Only the parent learns the exit code; for others it stays unknown. Tied processes have guards (`real_guard`); limits are
//! those of `real_cgroup`.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a part of the real half of the seam: here the operating system is named"
)]

use super::clock::Mono;
use super::net::BoxFuture;
use super::processes::{Command, Ended, Limits, Marked, ProcessId, ProcessesDriver, Signal, Tie};
use super::real_cgroup::Cage;
use super::real_guard::{self, Page};
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions, getpgrp, kill_process_group, pidfd_open,
    waitid, waitpid,
};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The variable that holds the mark.
const MARK: &str = "SEAWORTHY_MARK";
/// Pause between two looks at a process that cannot be watched (too many open files, an old kernel).
const LOOK: Duration = Duration::from_millis(200);

/// Looks at a process that is becoming another program, and the pause between two.
const EXEC_LOOKS: u32 = 100;
/// See [`EXEC_LOOKS`].
const EXEC_PAUSE: Duration = Duration::from_micros(200);

/// The operating system's processes.
pub(super) struct OsProcesses {
    /// [`real_guard::boot_time`] at the origin of this program's clock.
    origin: Duration,
    /// Where guards read the end of the lease, once somebody needs it.
    page: Mutex<Option<Arc<Page>>>,
    /// Guards by the group that each made, with the pipe that keeps them waiting.
    guards: Arc<Mutex<BTreeMap<u32, Child>>>,
    /// Control groups of processes that this program started.
    cages: Arc<Mutex<BTreeMap<ProcessId, Cage>>>,
}

impl OsProcesses {
    /// The processes of a program whose clock began at `origin`.
    pub(super) fn new(origin: Duration) -> Self {
        OsProcesses {
            origin,
            page: Mutex::default(),
            guards: Arc::default(),
            cages: Arc::default(),
        }
    }

    /// The page of the lease, made when it is asked for first.
    fn page(&self) -> io::Result<Arc<Page>> {
        let mut page = self.page.lock().expect("nobody panics while holding it");
        match &*page {
            Some(page) => Ok(Arc::clone(page)),
            None => Ok(Arc::clone(page.insert(Arc::new(Page::new()?)))),
        }
    }
}

impl ProcessesDriver for OsProcesses {
    fn start(&self, command: Command) -> BoxFuture<'static, io::Result<ProcessId>> {
        let (guards, cages) = (Arc::clone(&self.guards), Arc::clone(&self.cages));
        let page = match command.tie {
            Tie::Lease => self.page().map(Some),
            Tie::None | Tie::Program => Ok(None),
        };
        // Between fork and exec lie a millisecond or two: not worth a thread.
        Box::pin(async move {
            let page = page?;
            if command.tie == Tie::None {
                return start(&command, 0, None, &cages);
            }
            let guard = real_guard::start(&command.last_words, page.as_deref())?;
            let group = guard.id();
            let started = i32::try_from(group)
                .map_err(io::Error::other)
                .and_then(|group| start(&command, group, page.as_deref(), &cages));
            match &started {
                Ok(_) => drop(hold(&guards).insert(group, guard)),
                Err(_) => real_guard::dismiss(guard),
            }
            started
        })
    }

    fn lease(&self, until: Mono) -> io::Result<()> {
        self.page()?.set(until, self.origin)
    }

    fn signal(&self, process: ProcessId, signal: Signal) -> io::Result<()> {
        if !is_there(process) {
            return Ok(());
        }
        let signal = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        signal_group(process.group, signal)
    }

    fn wait(&self, process: ProcessId) -> BoxFuture<'static, Ended> {
        let (guards, cages) = (Arc::clone(&self.guards), Arc::clone(&self.cages));
        Box::pin(async move {
            // Only a child's own groups are known before it has gone into them.
            let cage = hold(&cages).get(&process).cloned();
            let cage = cage.or_else(|| Cage::of(process.pid));
            watch(process).await;
            // Nothing is taken before that: who waits may give up and wait again.
            let mut ended = reap(process);
            hold(&cages).remove(&process);
            if let Some(cage) = cage {
                ended.oom = cage.was_oom();
                cage.remove();
            }
            if let Some(guard) = hold(&guards).remove(&process.group) {
                real_guard::dismiss(guard);
            }
            ended
        })
    }

    fn marked(&self, prefix: &str) -> BoxFuture<'static, io::Result<Vec<Marked>>> {
        let prefix = prefix.to_owned();
        Box::pin(async move { marked(&prefix) })
    }
}

/// Guards or control groups.
fn hold<K, V>(all: &Mutex<BTreeMap<K, V>>) -> std::sync::MutexGuard<'_, BTreeMap<K, V>> {
    all.lock().expect("nobody panics while holding them")
}

/// Starts a process in `group`, or in a new one when that is zero; behind a gate when there is a page.
fn start(
    command: &Command,
    group: i32,
    page: Option<&Page>,
    cages: &Mutex<BTreeMap<ProcessId, Cage>>,
) -> io::Result<ProcessId> {
    let cage = caged(command)?;
    let mut words = command.words.clone();
    if let (Some(_), Some(program)) = (page, words.first()) {
        // As in a cage, whoever wraps a program must look for it first.
        find_program(program, command.env.get("PATH"))?;
        words = real_guard::gated(&words);
    }
    if let Some(cage) = &cage {
        words = cage.wrap(&words);
    }
    let Some((program, arguments)) = words.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is no program to start",
        ));
    };
    let mut child = std::process::Command::new(program);
    child
        .args(arguments)
        .env_clear()
        .envs(&command.env)
        .process_group(group);
    if !command.mark.is_empty() {
        child.env(MARK, &command.mark);
    }
    if let Some(dir) = &command.working_dir {
        child.current_dir(dir);
    }
    child.stdin(page.map_or_else(|| Ok(Stdio::null()), Page::share)?);
    child.stdout(output(command.stdout.as_deref())?);
    child.stderr(output(command.stderr.as_deref())?);
    // Dropped unwaited on purpose: it is waited for by its name, as if an earlier program had started it.
    let pid = child.spawn()?.id();
    let stat = Stat::of(pid)
        .ok_or_else(|| io::Error::other("a process that was just started is not in /proc"))?;
    let process = stat.process(pid);
    if let Some(cage) = cage {
        hold(cages).insert(process, cage);
    }
    Ok(process)
}

/// The control groups by which the limits of `command` hold, if it has any and this host can enforce them.
fn caged(command: &Command) -> io::Result<Option<Cage>> {
    if command.limits == Limits::default() || command.words.is_empty() {
        return Ok(None);
    }
    // The wrapper could only say by its exit code that there is no such program.
    find_program(&command.words[0], command.env.get("PATH"))?;
    match Cage::make(&command.limits, &command.mark) {
        Ok(cage) => Ok(Some(cage)),
        Err(reason) => {
            tracing::warn!(mark = command.mark, "runs without its limits: {reason}");
            Ok(None)
        }
    }
}

/// Whether a program is there and may be run.
fn find_program(name: &str, path: Option<&String>) -> io::Result<()> {
    let dirs = path.map_or("", String::as_str).split(':');
    let candidates: Vec<_> = match name.contains('/') {
        true => vec![Path::new(name).to_owned()],
        false => dirs.map(|dir| Path::new(dir).join(name)).collect(),
    };
    let may_run = |path: &std::path::PathBuf| {
        let is_file = path.is_file();
        is_file && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    match candidates.iter().any(may_run) {
        true => Ok(()),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Where output goes: appended, so that a file can be cut while the process writes to it.
fn output(path: Option<&Path>) -> io::Result<Stdio> {
    match path {
        Some(path) => Ok(OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?
            .into()),
        None => Ok(Stdio::null()),
    }
}

/// Signals a whole group; never the one that this program is in.
pub(super) fn signal_group(group: u32, signal: rustix::process::Signal) -> io::Result<()> {
    let group = i32::try_from(group).ok().and_then(Pid::from_raw);
    let Some(group) = group.filter(|group| *group != getpgrp() && !group.is_init()) else {
        return Ok(());
    };
    match kill_process_group(group, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => Ok(result?),
    }
}

/// Waits until a process has ended.
#[expect(
    deprecated,
    reason = "its successor is unsafe only for types that close their descriptor under it; an OwnedFd does not"
)]
async fn watch(process: ProcessId) {
    while is_there(process) && !is_dead(process) {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
            return;
        };
        let watched = pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE));
        match watched {
            // Opened for another process that got the number in between: the next look says so.
            Ok(_) if !is_there(process) => return,
            Ok(watched) => {
                if watched.readable().await.is_err() {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Takes the exit code of a child that has ended, and ends what is left of its group before its number is free.
fn reap(process: ProcessId) -> Ended {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return Ended::default();
    };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(pid), look) {
        Ok(Some(_)) if is_there(process) => {}
        _ => return Ended::default(),
    }
    drop(signal_group(process.group, rustix::process::Signal::KILL));
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Ended {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            oom: false,
        },
        _ => Ended::default(),
    }
}

/// Whether a process is in `/proc`, dead or alive.
fn is_there(process: ProcessId) -> bool {
    Stat::of(process.pid)
        .is_some_and(|stat| stat.started == process.started && stat.boot == process.boot)
}

/// Whether a process has ended and only waits for its parent.
fn is_dead(process: ProcessId) -> bool {
    Stat::of(process.pid).is_none_or(|stat| stat.is_dead())
}

/// What `/proc/PID/stat` says.
struct Stat {
    /// One letter.
    state: char,
    /// Process group.
    group: u32,
    /// Beginning, clock ticks since the machine started.
    started: u64,
    /// Which start of the machine.
    boot: u64,
    /// Whether it has memory and no place for its environment yet: it is between two programs.
    is_becoming: bool,
}

impl Stat {
    /// Of a process.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        Stat::parse(&stat, xxhash_rust::xxh3::xxh3_64(&boot))
    }

    /// From the line.
    fn parse(stat: &str, boot: u64) -> Option<Self> {
        // The name, second in the line, may hold anything; it ends at the last bracket.
        let (_, after) = stat.rsplit_once(") ")?;
        let words: Vec<&str> = after.split(' ').collect();
        Some(Stat {
            state: words.first()?.chars().next()?,
            group: words.get(2)?.parse().ok()?,
            started: words.get(19)?.parse().ok()?,
            boot,
            is_becoming: words.get(20) != Some(&"0") && words.get(48) == Some(&"0"),
        })
    }

    /// Whether it has ended and only waits for its parent.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// The name for ever of the process with this number.
    fn process(&self, pid: u32) -> ProcessId {
        ProcessId {
            pid,
            group: self.group,
            started: self.started,
            boot: self.boot,
        }
    }
}

/// Every living process of this user whose mark begins with `prefix`.
fn marked(prefix: &str) -> io::Result<Vec<Marked>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Another user's, or gone since: not ours.
        let Some(mark) = mark_of(pid)?.filter(|mark| mark.starts_with(prefix)) else {
            continue;
        };
        if let Some(stat) = Stat::of(pid).filter(|stat| !stat.is_dead()) {
            let process = stat.process(pid);
            found.push(Marked { process, mark });
        }
    }
    found.sort_by_key(|found| (found.process.started, found.process.pid));
    Ok(found)
}

/// The mark that a process carries. A process that is just becoming another program has no environment for a moment, also after
/// whoever started it was told that it runs; it is looked at again, and an error if that lasts.
fn mark_of(pid: u32) -> io::Result<Option<String>> {
    for _ in 0..EXEC_LOOKS {
        let mut environ = Vec::new();
        let read = File::open(format!("/proc/{pid}/environ"));
        if read
            .and_then(|mut file| file.read_to_end(&mut environ))
            .is_err()
        {
            return Ok(None);
        }
        if !environ.is_empty() || !Stat::of(pid).is_some_and(|stat| stat.is_becoming) {
            return Ok(mark_in(&environ));
        }
        std::thread::sleep(EXEC_PAUSE);
    }
    Err(io::Error::other(format!(
        "process {pid} has been starting for too long to tell whose it is"
    )))
}

/// The mark in an environment.
fn mark_in(environ: &[u8]) -> Option<String> {
    let mut variables = environ.split(|byte| *byte == 0);
    let mark = variables
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(mark.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_behind_an_odd_name() {
        let line = "7 (a) b) S 1 77 7 0 -1 4194560 93 0 0 0 250 50 0 0 20 0 1 0 345 8 1";
        let stat = Stat::parse(line, 9).unwrap();
        assert_eq!((stat.state, stat.group, stat.started), ('S', 77, 345));
        assert!(Stat::parse("nonsense", 9).is_none());
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_mark_as_soon_as_it_was_started() {
        let processes = OsProcesses::new(Duration::ZERO);
        let mark = format!("{}-at-once#", std::process::id());
        for number in 0..100 {
            let process = processes.start(Command {
                words: ["/bin/sleep", "100"].map(str::to_owned).to_vec(),
                mark: format!("{mark}{number}"),
                ..Command::default()
            });
            let process = process.await.unwrap();
            let found = processes.marked(&mark).await.unwrap();
            processes.signal(process, Signal::Kill).unwrap();
            processes.wait(process).await;
            assert_eq!(found.len(), 1, "start {number}");
        }
    }

    #[test]
    fn a_process_name_survives_its_spelling() {
        let process = Stat::of(std::process::id())
            .unwrap()
            .process(std::process::id());
        assert_eq!(process.to_string().parse(), Ok(process));
        assert!(is_there(process) && !is_dead(process));
        let other = ProcessId {
            started: process.started + 1,
            ..process
        };
        assert!(!is_there(other));
        for bad in ["", "1.2.3", "1.2.3.x", "a.2.3.4", "1.2.3.4.5"] {
            assert!(bad.parse::<ProcessId>().is_err(), "{bad}");
        }
    }
}
