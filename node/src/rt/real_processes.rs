//! The real half of [`super::processes`]: Linux processes, found again through `/proc`.
//!
//! Nothing is kept of an ordinary process but its name: whether this program or an earlier one started it, it is waited for by its
//! pidfd. Only the parent learns the exit code; for others it stays unknown. A tied process has a guard beside it in its group, a shell
//! that reads from a pipe of this program: when the pipe closes, because this program ended in whatever way, it kills the group. Before
//! that it runs the last words of the process, until they succeed or have failed twenty times in two seconds: what has left the group
//! (a container) may be about to begin just then.
//!
//! Limits are those of `real_cgroup`.
//!
//! Left out: a guard cannot tell that this program has only been stopped (`SIGSTOP`).
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a part of the real half of the seam: here the operating system is named"
)]

use super::net::BoxFuture;
use super::processes::{Command, Ended, Limits, Marked, ProcessId, ProcessesDriver, Signal};
use super::real_cgroup::Cage;
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
/// The guard of a tied process: deaf to what its group is told, it says a line when it is ready, and kills the group when its pipe closes.
const GUARD: &str = r#"trap '' TERM HUP INT; echo; read -r _; n=0
while [ $# -gt 0 ] && [ $n -lt 20 ] && ! "$@" </dev/null >/dev/null 2>&1; do n=$((n+1)); sleep 0.1; done
kill -KILL 0"#;
/// Where a guard finds its programs.
const GUARD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Pause between two looks at a process that cannot be watched (too many open files, an old kernel).
const LOOK: Duration = Duration::from_millis(200);

/// The operating system's processes.
#[derive(Default)]
pub(super) struct OsProcesses {
    /// Guards by the group that each made, with the pipe that keeps them waiting.
    guards: Arc<Mutex<BTreeMap<u32, Child>>>,
    /// Control groups of processes that this program started.
    cages: Arc<Mutex<BTreeMap<ProcessId, Cage>>>,
}

impl ProcessesDriver for OsProcesses {
    fn start(&self, command: Command) -> BoxFuture<'static, io::Result<ProcessId>> {
        let (guards, cages) = (Arc::clone(&self.guards), Arc::clone(&self.cages));
        // Between fork and exec lie a millisecond or two: not worth a thread.
        Box::pin(async move {
            if !command.is_tied {
                return start(&command, 0, &cages);
            }
            let guard = start_guard(&command.last_words)?;
            let group = guard.id();
            let started = start(
                &command,
                i32::try_from(group).map_err(io::Error::other)?,
                &cages,
            );
            match &started {
                Ok(_) => drop(hold(&guards).insert(group, guard)),
                Err(_) => dismiss(guard),
            }
            started
        })
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
                dismiss(guard);
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

/// Starts a process in `group`, or in a new one when that is zero.
fn start(
    command: &Command,
    group: i32,
    cages: &Mutex<BTreeMap<ProcessId, Cage>>,
) -> io::Result<ProcessId> {
    let cage = caged(command)?;
    let wrapped = cage.as_ref().map(|cage| cage.wrap(&command.words));
    let words = wrapped.as_ref().unwrap_or(&command.words);
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
    child.stdin(Stdio::null());
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

/// Starts a guard with the last words of what it guards, and waits until it guards.
fn start_guard(last_words: &[String]) -> io::Result<Child> {
    let mut guard = std::process::Command::new("/bin/sh");
    guard.args(["-c", GUARD, "guard"]).args(last_words);
    guard.env_clear().env("PATH", GUARD_PATH).process_group(0);
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut guard = guard.spawn()?;
    let ready = match &mut guard.stdout {
        Some(stdout) => stdout.read_exact(&mut [0]),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    match ready {
        Ok(()) => Ok(guard),
        Err(error) => {
            dismiss(guard);
            Err(error)
        }
    }
}

/// Ends a guard and what is left of its group.
fn dismiss(mut guard: Child) {
    // It is not yet waited for, so its number is still its own.
    drop(signal_group(guard.id(), rustix::process::Signal::KILL));
    drop(guard.kill());
    drop(guard.wait());
}

/// Signals a whole group; never the one that this program is in.
fn signal_group(group: u32, signal: rustix::process::Signal) -> io::Result<()> {
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
    Stat::of(process.pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
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
        })
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
        let Some(mark) = mark_of(pid).filter(|mark| mark.starts_with(prefix)) else {
            continue;
        };
        if let Some(stat) = Stat::of(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X')) {
            let process = stat.process(pid);
            found.push(Marked { process, mark });
        }
    }
    found.sort_by_key(|found| (found.process.started, found.process.pid));
    Ok(found)
}

/// The mark that a process carries.
fn mark_of(pid: u32) -> Option<String> {
    let mut environ = Vec::new();
    File::open(format!("/proc/{pid}/environ"))
        .ok()?
        .read_to_end(&mut environ)
        .ok()?;
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
