//! The real half of the seam: the operating system's clock, TCP, a thread per lane, entropy, logs, and what the process has spent.
//!
//! Only `src-bin` (and tests against the real world) builds this; the simulator never does.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this file is the real half of the seam: here, and only here, the operating system is named"
)]

use super::clock::{ClockDriver, Mono, Sleep};
use super::journal::{Event, JournalSink};
use super::lane::{Job, LaneDriver, LanesDriver};
use super::net::{BoxFuture, Listener, NetDriver, Stream};
use super::process::{ContainerRuntime, Host, Process, Spent};
use super::processes::Processes;
use super::real_guard::boot_time;
use super::real_processes::OsProcesses;
use super::{Clock, Env, Journal, Lanes, Net, Rngs};
use crate::types::NodeId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Lanes whose work nobody waits for: on a busy machine they leave the processor to those that answer clients.
const BACKGROUND_LANES: [&str; 1] = ["snapshot"];
/// How much less urgent those are: a third of the weight of an ordinary thread.
const BACKGROUND_NICE: i32 = 5;
/// Jobs that may wait on one lane; more make the submitter's thread wait, which the bounds above it prevent.
const LANE_QUEUE_LEN_MAX: usize = 1024;

/// The world as it is, journal into the log under `name`.
pub fn env(name: &str) -> io::Result<Env> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(format!("no entropy: {error}")))?;
    let origin = boot_time();
    Ok(Env {
        clock: Clock::new(OsClock { origin }),
        net: Net::new(Tcp),
        lanes: Lanes::new(Threads),
        rngs: Rngs::from_seed(seed),
        journal: Journal::new(Log {
            node: name.to_owned(),
        }),
        process: Process::new(spent),
        processes: Processes::new(OsProcesses::new(origin)),
    })
}

/// This machine.
pub fn host() -> Host {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Host {
        cpu_milli: 1_000 * cores as u64,
        memory_bytes: labelled(&memory, "MemTotal:").map_or(0, |kib| kib * 1024),
        platform: format!("{}/{processor}", std::env::consts::OS),
    }
}

/// What runs containers here: the program at `explicit`, or the first of `crun` and `runc` in `path` (directories with `:` between them).
/// None when no program was named and neither is there.
pub fn container_runtime(
    explicit: Option<&Path>,
    path: &str,
) -> io::Result<Option<ContainerRuntime>> {
    let may_run = |file: &PathBuf| {
        file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let dirs = path.split(':').filter(|dir| dir.starts_with('/'));
    let dirs: Vec<&Path> = dirs.map(Path::new).collect();
    let found = match explicit {
        Some(named) => {
            let program = std::path::absolute(named)?;
            if !may_run(&program) {
                let why = format!(
                    "{} is no program that can be run: name an installed crun or runc",
                    program.display()
                );
                return Err(io::Error::new(io::ErrorKind::NotFound, why));
            }
            Some(program)
        }
        None => ["crun", "runc"]
            .iter()
            .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
            .find(may_run),
    };
    Ok(found.map(|program| ContainerRuntime {
        program,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }))
}

/// A text that nobody can guess: 256 bits of entropy, in hex.
pub fn secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("no entropy: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The operating system's clocks. The monotonic one counts the time that the machine sleeps, which others count too: a lease is over
/// when its time has passed for them. Timers do not: what should have ended in that time ends as much later, or when somebody looks.
struct OsClock {
    /// Zero of the monotonic clock, as [`boot_time`] gives it.
    origin: Duration,
}

impl ClockDriver for OsClock {
    fn now(&self) -> Mono {
        Mono(boot_time().saturating_sub(self.origin))
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, deadline: Mono) -> Sleep {
        let origin = self.origin;
        let left = move || (origin + deadline.0).saturating_sub(boot_time());
        let first = tokio::time::sleep(left());
        Box::pin(async move {
            first.await;
            // The timer's clock is not quite this one, and may have been slower.
            while left() > Duration::ZERO {
                tokio::time::sleep(left()).await;
            }
        })
    }
}

/// TCP without Nagle's delay.
struct Tcp;

impl NetDriver for Tcp {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let inner = TcpListener::bind(&address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            let local = inner.local_addr()?.to_string();
            Ok(Box::new(TcpDoor { inner, local }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Stream)
        })
    }
}

/// A listening TCP socket.
struct TcpDoor {
    /// The socket.
    inner: TcpListener,
    /// Its address.
    local: String,
}

impl Listener for TcpDoor {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, String)>> {
        Box::pin(async move {
            let (stream, from) = self.inner.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Stream, from.to_string()))
        })
    }

    fn local_address(&self) -> String {
        self.local.clone()
    }
}

/// Opens a thread per lane.
struct Threads;

impl LanesDriver for Threads {
    fn open(&self, name: &'static str) -> Arc<dyn LaneDriver> {
        let (jobs, queue) = mpsc::sync_channel::<(Job, oneshot::Sender<()>)>(LANE_QUEUE_LEN_MAX);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if BACKGROUND_LANES.contains(&name) {
                    // On Linux this is about the calling thread alone. Refused, the lane is as urgent as the others: no harm.
                    rustix::process::nice(BACKGROUND_NICE).ok();
                }
                while let Ok((job, done)) = queue.recv() {
                    job();
                    // Nobody waits any more when the caller was dropped; the work counts all the same.
                    done.send(()).ok();
                }
            });
        // Without its threads a node cannot do anything; there is nobody to report to yet.
        thread.expect("the operating system refuses a thread: raise the process limit (ulimit -u)");
        Arc::new(LaneThread { jobs })
    }
}

/// The sending end of a lane's queue; the thread ends when it is dropped.
struct LaneThread {
    /// Jobs with the word that they have run.
    jobs: mpsc::SyncSender<(Job, oneshot::Sender<()>)>,
}

impl LaneDriver for LaneThread {
    fn submit(&self, job: Job) -> BoxFuture<'static, bool> {
        let (done, ran) = oneshot::channel();
        let sent = self.jobs.send((job, done)).is_ok();
        Box::pin(async move { sent && ran.await.is_ok() })
    }
}

/// The journal as log lines.
struct Log {
    /// The node's name, on every line.
    node: String,
}

/// Ids in one word.
fn ids(nodes: &[NodeId]) -> String {
    let words: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    words.join(",")
}

impl JournalSink for Log {
    fn record(&self, event: &Event) {
        let node = self.node.as_str();
        match event {
            Event::Applied { .. }
            | Event::Proposed { .. }
            | Event::Persisted { .. }
            | Event::Committed { .. } => tracing::trace!(target: "node", node, ?event),
            Event::Voted { .. } | Event::Truncated { .. } => {
                tracing::debug!(target: "node", node, ?event)
            }
            Event::Poisoned { reason } => {
                tracing::error!(target: "node", node, %reason, "poisoned: this node acknowledges nothing any more")
            }
            Event::Refused { detail } => tracing::warn!(target: "node", node, %detail, "refused"),
            Event::Peer { peer, up, detail } => {
                tracing::info!(target: "node", node, %peer, up, %detail, "peer connection")
            }
            Event::RoleChanged {
                role, term, leader, ..
            } => tracing::info!(target: "node", node, %role, %term, %leader, "role changed"),
            Event::Started {
                cluster,
                applied,
                last,
                term,
                ..
            } => {
                tracing::info!(target: "node", node, %cluster, %applied, %last, %term, "started");
            }
            Event::Recovered { detail } => {
                tracing::info!(target: "node", node, %detail, "log recovered")
            }
            Event::StoreRebuilt { reason } => {
                tracing::warn!(target: "node", node, %reason, "the store is built anew from the newest snapshot and the log")
            }
            Event::ReadOnly { on, free_bytes } => {
                tracing::warn!(target: "node", node, on, free_bytes, "read-only mode")
            }
            Event::HandsOver { to, reason, .. } => {
                tracing::warn!(target: "node", node, %to, %reason, "hands leadership over")
            }
            Event::Doubted { silent, heard } => {
                tracing::warn!(
                    target: "node", node, silent, heard,
                    "asked the other managers before marking many workers down"
                )
            }
            Event::Stopping { reason } => tracing::info!(target: "node", node, %reason, "stopping"),
            Event::MembershipChanged {
                voters,
                learners,
                index,
                ..
            } => {
                tracing::info!(target: "node", node, voters = ids(voters), learners = ids(learners), %index, "membership changed");
            }
            Event::SnapshotCut { index, bytes, .. } => {
                tracing::info!(target: "node", node, %index, bytes, "snapshot cut")
            }
            Event::SnapshotInstalled { index, .. } => {
                tracing::info!(target: "node", node, %index, "snapshot installed")
            }
            Event::Trimmed { first, .. } => {
                tracing::info!(target: "node", node, %first, "log trimmed")
            }
        }
    }
}

/// Clock ticks a second in `/proc/self/stat`: Linux shows 100 to every program, whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// What this process has spent, as `/proc` tells it; nothing on a system without that.
fn spent() -> Option<Spent> {
    let text = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
    let (io, status) = (
        text("io").unwrap_or_default(),
        text("status").unwrap_or_default(),
    );
    Some(Spent {
        pid: std::process::id(),
        cpu_seconds: cpu_seconds(&text("stat")?)?,
        write_bytes: labelled(&io, "write_bytes:"),
        rss_bytes: labelled(&status, "VmRSS:").map(|kib| kib * 1024),
    })
}

/// User and system time in a line of `/proc/PID/stat`, seconds.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name, second in the line, may hold anything; it ends at the last bracket, and the times are 12th and 13th after it.
    let (_, after) = stat.rsplit_once(") ")?;
    let mut times = after.split(' ').skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// The number behind `label` at the beginning of a line.
fn labelled(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_an_odd_name() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 93 0 0 0 250 50 0 0 20 0 1 0 3 8 1";
        assert_eq!(cpu_seconds(line), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(
            labelled("rchar: 3\nwrite_bytes: 8192\n", "write_bytes:"),
            Some(8192)
        );
    }

    #[test]
    fn this_machine_has_something_to_give() {
        let host = host();
        assert!(host.cpu_milli >= 1_000 && host.memory_bytes > 1 << 20);
        assert!(host.platform.starts_with("linux/"), "{}", host.platform);
        assert_ne!(secret().unwrap(), secret().unwrap());
    }

    #[test]
    fn a_runtime_is_found_by_name_or_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("relative::{}", dir.path().display());
        let find = |named: Option<&Path>| container_runtime(named, &path);
        assert_eq!(find(None).unwrap(), None);
        for name in ["runc", "crun"] {
            let file = dir.path().join(name);
            std::fs::write(&file, "").unwrap();
            assert!(find(Some(&file)).is_err(), "it may not be run");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&file, mode).unwrap();
            assert_eq!(find(None).unwrap().unwrap().program, file);
        }
        let named = dir.path().join("runc");
        assert_eq!(find(Some(&named)).unwrap().unwrap().program, named);
        let refusal = find(Some(Path::new("/no/such"))).unwrap_err();
        assert!(refusal.to_string().contains("/no/such"), "{refusal}");
    }

    #[test]
    fn a_running_process_has_spent_something() {
        let spent = spent().expect("there is /proc");
        assert!(spent.rss_bytes.expect("it is told") > 100_000);
    }
}
