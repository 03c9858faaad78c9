//! The door to the world: clock, network, storage lanes, processes, randomness, the node's journal, and its tasks.
//!
//! A node receives the world as one value, [`Env`]. The real half of every seam is in `rt::real`; the simulated
//! half lives in the crate `sim`. No other module of `node` names a clock, a socket, a thread or a random source
//! (`wal`, `store`, `snapshot` and `worker` touch files, but only inside [`Lane::run`]). Nothing here has a `cfg` for the simulator.
//!
//! Reading order: [`clock`], [`net`], [`lane`], [`rng`], [`journal`], [`tasks`], [`process`],
//! [`processes`], [`images`], then `real` and `real_processes`.

pub mod clock;
pub mod http;
pub mod images;
pub mod journal;
pub mod lane;
pub mod net;
pub mod process;
pub mod processes;
pub mod real;
mod real_cgroup;
mod real_guard;
mod real_processes;
pub mod rng;
pub mod tasks;

pub use clock::{Clock, Mono};
pub use images::Images;
pub use journal::{Event, Journal};
pub use lane::{Lane, Lanes};
pub use net::{Net, Stream};
pub use process::Process;
pub use processes::Processes;
pub use rng::Rngs;
pub use tasks::Tasks;

/// Everything a node may ask of the world.
#[derive(Clone)]
pub struct Env {
    /// Time: monotonic, wall, sleep.
    pub clock: Clock,
    /// Byte streams to peers and clients.
    pub net: Net,
    /// Where blocking storage work runs.
    pub lanes: Lanes,
    /// Named random streams.
    pub rngs: Rngs,
    /// Where the node writes what happened to it.
    pub journal: Journal,
    /// What the process has spent.
    pub process: Process,
    /// Processes of tasks.
    pub processes: Processes,
}
