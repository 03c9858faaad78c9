//! Processes of tasks: start, signal, wait, and find again.
//!
//! A process is named by [`ProcessId`], which no other process will ever have: a number of the operating system alone is
//! used again. Each carries a mark, by which a worker that was away finds what it had started. A simulated half may give
//! exit codes, hangs, slow starts and kills for lack of memory.

use super::clock::Mono;
use super::net::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// One process, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// Its process group.
    pub group: u32,
    /// When it began, clock ticks since the machine started.
    pub started: u64,
    /// Which start of the machine, as a checksum.
    pub boot: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessId {
            pid,
            group,
            started,
            boot,
        } = self;
        write!(out, "{pid}.{group}.{started}.{boot:016x}")
    }
}

impl FromStr for ProcessId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const BAD: &str = "not the name of a process";
        let words: Vec<&str> = text.split('.').collect();
        let [pid, group, started, boot] = words[..] else {
            return Err(BAD);
        };
        Ok(ProcessId {
            pid: pid.parse().map_err(|_| BAD)?,
            group: group.parse().map_err(|_| BAD)?,
            started: started.parse().map_err(|_| BAD)?,
            boot: u64::from_str_radix(boot, 16).map_err(|_| BAD)?,
        })
    }
}

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments.
    pub words: Vec<String>,
    /// Its whole environment, but for the mark.
    pub env: BTreeMap<String, String>,
    /// Where it runs; the worker's own directory when none is given.
    pub working_dir: Option<PathBuf>,
    /// File to which its output is appended; nowhere when none is given.
    pub stdout: Option<PathBuf>,
    /// File to which its errors are appended.
    pub stderr: Option<PathBuf>,
    /// By what it is found again; none when empty.
    pub mark: String,
    /// What it dies with.
    pub tie: Tie,
    /// What ends that which a tied process has begun out of its group: run by its guard until it succeeds; none when empty.
    pub last_words: Vec<String>,
    /// The most that it may use, with all that it begins.
    pub limits: Limits,
}

/// What a process dies with, though nobody signals it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tie {
    /// Nothing: it lives on.
    #[default]
    None,
    /// The program that started it, however that ends.
    Program,
    /// That program, and the lease whose end it was told last ([`Processes::lease`]): also while the program stands still.
    Lease,
}

/// The most that a process may use; zero: no limit. Where the host cannot enforce them there are none, and the log says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in order.
    Term,
    /// End now.
    Kill,
}

/// How a process ended; nothing is set when this program did not start it, and so cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was killed for lack of memory.
    pub oom: bool,
}

/// A process that carries a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The process.
    pub process: ProcessId,
    /// Its mark.
    pub mark: String,
}

/// What processes must do.
pub trait ProcessesDriver: Send + Sync {
    /// Starts a process in a group of its own. An error means that there is none.
    fn start(&self, command: Command) -> BoxFuture<'static, io::Result<ProcessId>>;
    /// The lease ends at `until`, whatever was said before: then no process is left that is tied to it. Without a word it has ended.
    fn lease(&self, until: Mono) -> io::Result<()>;
    /// Signals a process and its group. One that has ended is no error.
    fn signal(&self, process: ProcessId, signal: Signal) -> io::Result<()>;
    /// Waits for its end. When this program started it, what is left of its group is killed then.
    fn wait(&self, process: ProcessId) -> BoxFuture<'static, Ended>;
    /// Every process whose mark begins with `prefix`, in order of their beginnings.
    fn marked(&self, prefix: &str) -> BoxFuture<'static, io::Result<Vec<Marked>>>;
}

/// A node's processes.
#[derive(Clone)]
pub struct Processes(Arc<dyn ProcessesDriver>);

impl Processes {
    /// Processes over `driver`.
    pub fn new(driver: impl ProcessesDriver + 'static) -> Self {
        Processes(Arc::new(driver))
    }

    /// A world in which no process can be started.
    pub fn none() -> Self {
        Processes::new(Nowhere)
    }

    /// Starts a process in a group of its own. An error means that there is none.
    pub async fn start(&self, command: Command) -> io::Result<ProcessId> {
        self.0.start(command).await
    }

    /// The lease ends at `until`, whatever was said before: then no process is left that is tied to it. Without a word it has ended.
    pub fn lease(&self, until: Mono) -> io::Result<()> {
        self.0.lease(until)
    }

    /// Signals a process and its group. One that has ended is no error.
    pub fn signal(&self, process: ProcessId, signal: Signal) -> io::Result<()> {
        self.0.signal(process, signal)
    }

    /// Waits for its end. When this program started it, what is left of its group is killed then.
    pub async fn wait(&self, process: ProcessId) -> Ended {
        self.0.wait(process).await
    }

    /// Every process whose mark begins with `prefix`, in order of their beginnings.
    pub async fn marked(&self, prefix: &str) -> io::Result<Vec<Marked>> {
        self.0.marked(prefix).await
    }
}

/// No processes at all.
struct Nowhere;

impl ProcessesDriver for Nowhere {
    fn start(&self, _: Command) -> BoxFuture<'static, io::Result<ProcessId>> {
        Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
    }

    fn lease(&self, _: Mono) -> io::Result<()> {
        Ok(())
    }

    fn signal(&self, _: ProcessId, _: Signal) -> io::Result<()> {
        Ok(())
    }

    fn wait(&self, _: ProcessId) -> BoxFuture<'static, Ended> {
        Box::pin(async { Ended::default() })
    }

    fn marked(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<Marked>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
