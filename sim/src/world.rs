//! The world of every host: its clock, network, lanes and randomness as one [`Env`].
//!
//! Clocks and the network belong to the host and outlive its processes; lanes, random streams and the incarnation of its
//! sockets belong to one boot. So call [`SimWorld::env`] anew for each start of a node, inside the node's madsim context or
//! outside (lanes start their tasks when they are opened, in the context of whoever opens them).
//!
//! To end a process: [`Network::host_killed`] or [`Network::host_power_loss`], then the disk's crash, then madsim's `kill`, with
//! no wait between them. To start it again: [`Network::host_up`] after a power loss, then madsim's `restart`, whose
//! `init` takes a new environment. To end a run: kill all nodes, [`Network::shutdown`], sleep 1 ms; then nothing leaks.

use crate::clock::Clocks;
use crate::lane::{SimLanes, TakeDebt};
use crate::net::{NetConfig, NetTrace, Network};
use node::rt::journal::JournalSink;
use node::rt::{Clock, Env, Journal, Lanes, Net, Process, Processes, Rngs};
use rand_core::RngCore;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Everything that the hosts of one simulation share. A clone is the same world.
#[derive(Clone)]
pub struct SimWorld {
    /// The network.
    pub network: Network,
    /// The clocks.
    pub clocks: Clocks,
    /// The seed's streams.
    rngs: Rngs,
    /// The simulated disk's bill.
    take_debt: TakeDebt,
    /// Boots so far of each host.
    boots: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl SimWorld {
    /// A world of `seed`. Call inside the runtime, on the supervisor's node: the network's pump lives there.
    pub fn new(seed: [u8; 32], config: NetConfig, trace: NetTrace, take_debt: TakeDebt) -> Self {
        let rngs = Rngs::from_seed(seed);
        SimWorld {
            network: Network::new(config, &rngs, trace),
            clocks: Clocks::new(),
            rngs,
            take_debt,
            boots: Arc::default(),
        }
    }

    /// A stream of the seed, for the runner's own use (choose names that no host has).
    pub fn rngs(&self) -> &Rngs {
        &self.rngs
    }

    /// What a process that starts on `host` now receives. The host is added to the network when it is new.
    pub fn env(&self, host: &str, journal: impl JournalSink + 'static) -> Env {
        let rngs = self.boot_rngs(host);
        Env {
            clock: Clock::new(self.clocks.start(host)),
            net: Net::new(self.network.driver(host)),
            lanes: Lanes::new(SimLanes::new(rngs.clone(), self.take_debt)),
            rngs,
            journal: Journal::new(journal),
            process: Process::unknown(),
            processes: Processes::none(),
        }
    }

    /// Streams of the next boot of `host`: as different from the last boot's as the entropy of a new process.
    fn boot_rngs(&self, host: &str) -> Rngs {
        let mut boots = self.boots.lock().expect("no panic under this lock");
        let boot = boots.entry(host.to_owned()).or_default();
        *boot += 1;
        let mut seed = [0; 32];
        self.rngs
            .stream(&format!("world.{host}.boot{boot}"))
            .fill_bytes(&mut seed);
        Rngs::from_seed(seed)
    }
}
