//! What the process has spent, for `/stats` and the load generator. Only for people: nothing a node does may depend on it.
//!
//! The real half asks the operating system; a simulated process has spent nothing that could be told.

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What one process has spent since it began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spent {
    /// Its number in the operating system: several nodes may share one process.
    pub pid: u32,
    /// Processor time of all its threads, user and system, seconds.
    pub cpu_seconds: f64,
    /// Bytes it caused to be written to disks; unset where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<u64>,
    /// Memory it holds in RAM now, bytes; unset where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
}

/// What a machine has to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Memory, bytes; zero where the system does not tell.
    pub memory_bytes: u64,
    /// System and processor, such as `linux/amd64`.
    pub platform: String,
}

/// What runs containers on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRuntime {
    /// Absolute path of `crun`, `runc`, or another with the same command line.
    pub program: PathBuf,
    /// The user that this program runs as.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl ContainerRuntime {
    /// Whether it may do everything.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether it is `crun`, which has options of its own.
    pub fn is_crun(&self) -> bool {
        self.program.file_name().is_some_and(|name| name == "crun")
    }
}

/// Where a node asks what its process has spent.
#[derive(Clone)]
pub struct Process(Arc<dyn Fn() -> Option<Spent> + Send + Sync>);

impl Process {
    /// A process that `ask` knows about.
    pub fn new(ask: impl Fn() -> Option<Spent> + Send + Sync + 'static) -> Self {
        Process(Arc::new(ask))
    }

    /// A process about which nothing is known.
    pub fn unknown() -> Self {
        Process::new(|| None)
    }

    /// What it has spent, if that is known.
    pub fn spent(&self) -> Option<Spent> {
        (self.0)()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Process")
    }
}
