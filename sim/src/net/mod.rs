//! The simulated network: byte streams between named hosts, with everything that TCP lets through to a program.
//!
//! A connection has latency, bandwidth, loss (as delay) and a window; it hangs, is refused, is reset, is half-closed,
//! reads and writes partially, and falls silent when the peer loses power. madsim's own network does none of that faithfully
//! (`research/simulated-network.md`, section 4), so this one uses only its executor and timers.
//!
//! Map: [`Network`] is the door for the runner (its faults are in `faults`), `stream` the door for nodes; `core` holds
//! state, queue and pump; `dial`, `pipe`, `window`, `life` are what happens to connections; `conn` and `link` are plain state;
//! `config` and `trace` speak for themselves.
//!
//! Invariants: bytes of one direction arrive in order and once; nothing arrives through a blocked link; a process that has
//! ended neither sends nor receives; same seed and same calls give the same events at the same nanosecond.
//!
//! Left out: UDP, IP addresses and routing (a host has one name), TIME_WAIT, urgent data, keep-alive probes of idle
//! connections (Linux sends the first after two hours), path MTU, congestion control.

pub mod config;
mod conn;
mod core;
mod dial;
mod faults;
mod life;
mod link;
mod pipe;
mod stream;
mod trace;
mod window;

pub use config::{NetConfig, Span};
pub use stream::{HostNet, SimListener, SimStream};
pub use trace::{Counters, HostName, NetTrace, Note, Pair};

use self::conn::{HostId, Life};
use self::core::{Core, Shared};
use node::rt::Rngs;
use std::future::poll_fn;
use std::sync::Arc;

/// The network of one simulation. A clone is the same network.
///
/// Methods that take host names panic on a name that was never added: a misspelt fault would otherwise do nothing.
#[derive(Clone)]
pub struct Network {
    /// State and trace.
    shared: Arc<Shared>,
}

impl Network {
    /// An empty network whose chances are the `net.*` streams of `rngs`. Call inside the runtime: the pump is started
    /// on the madsim node of the caller, which must be the supervisor's.
    pub fn new(config: NetConfig, rngs: &Rngs, trace: NetTrace) -> Self {
        let shared = Shared::new(config, rngs, trace);
        let pumped = Arc::clone(&shared);
        drop(madsim::task::spawn(async move {
            poll_fn(|context| pumped.poll_pump(context)).await;
        }));
        Network { shared }
    }

    /// A trace that ignores everything.
    pub fn untraced() -> NetTrace {
        Arc::new(|_, _| {})
    }

    /// Adds a host, up and linked to all others; nothing happens when it is there.
    pub fn add_host(&self, name: &str) {
        self.shared.with(|core| core.add_host(name));
    }

    /// The network as the next process of `host` sees it; the host is added when it is new. Its sockets fail for ever once
    /// the process was killed or lost power.
    pub fn driver(&self, host: &str) -> HostNet {
        let life = self.shared.with(|core| {
            let host = core.add_host(host);
            let incarnation = core.hosts[usize::from(host.0)].incarnation;
            Life { host, incarnation }
        });
        HostNet::new(Arc::clone(&self.shared), life)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.shared.with(|core| core.counters)
    }

    /// Connections that are not over.
    pub fn open_connections(&self) -> usize {
        self.shared.with(|core| core.conns.len())
    }

    /// Ends the network and its pump. Call at the end of a run, after the nodes were killed, or their tasks leak.
    pub fn shutdown(&self) {
        self.shared.with(Core::end);
    }

    /// Runs `work` on the state with the number of `host`.
    fn on_host<T>(&self, host: &str, work: impl FnOnce(&mut Core, HostId) -> T) -> T {
        self.shared.with(|core| {
            let id = known(core, host);
            work(core, id)
        })
    }

    /// Runs `work` on the state with the numbers of two hosts.
    fn on_pair<T>(
        &self,
        from: &str,
        to: &str,
        work: impl FnOnce(&mut Core, HostId, HostId) -> T,
    ) -> T {
        self.shared.with(|core| {
            let (from, to) = (known(core, from), known(core, to));
            work(core, from, to)
        })
    }
}

/// The number of `host`, which must exist.
fn known(core: &Core, host: &str) -> HostId {
    core.host(host)
        .unwrap_or_else(|| panic!("the network has no host {host}"))
}
