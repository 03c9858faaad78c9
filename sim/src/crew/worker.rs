//! The production worker as a process of its own host: started as the program starts it, over a machine that outlives it.

use super::ear::Ear;
use super::machine::Machine;
use crate::cluster::{Cluster, peek, put};
use crate::lane::SimLanes;
use crate::plan::Plan;
use crate::planted::Hand;
use crate::timeline::State;
use crate::trace::Level;
use node::fleet::Command;
use node::fleet::command::Machine as Said;
use node::knobs::Knobs;
use node::node::Ended;
use node::rt::Net;
use node::service::spec::Amounts;
use node::worker::{RunningWorker, WorkerConfig};
use scenarios::Crash;
use simdisk::CrashMode;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// The token by which all workers of a run join.
const TOKEN: &str = "sim-token";
/// Its SHA-256.
const TOKEN_HASH: &str = "104e8e6201c042a8a7a48ba07c5f25ce50b301f427ecd3703785435457f00372";
/// Its life: as long as the operator's default.
const TOKEN_TTL_MS: u64 = 24 * 3_600_000;
/// What each worker has to give: four processors and 8 GiB.
pub(crate) const CAPACITY: Amounts = Amounts {
    cpu_milli: 4_000,
    memory_bytes: 8 << 30,
};
/// Zones over which workers are dealt.
const ZONES: u32 = 3;

/// Starts all workers of `plan`.
pub async fn start_all(cluster: &Cluster, plan: &Plan) {
    let token = Command::TokenCreate {
        hash: TOKEN_HASH.to_owned(),
        ttl_ms: TOKEN_TTL_MS,
        role: node::fleet::TokenRole::Worker,
    };
    super::command(cluster, token).await;
    for number in 1..=plan.workers {
        let name = format!("w{number}");
        cluster.world.network.add_host(&name);
        let disk = simdisk::disk(&name);
        disk.set_capacity(64 << 20);
        if plan.strict_names {
            disk.set_name_mode(simdisk::NameMode::Strict);
        }
        cluster.add_worker(&name, config(cluster, number), plan.knobs.clone());
    }
}

/// Lets the machine of a removed worker in again: its process ends, its disk is emptied or a token is made for it, and it starts.
pub(crate) async fn let_in(cluster: &Cluster, name: &str, empty: bool) {
    if !cluster.is_off(name) {
        let newest = cluster.overseer.as_ref().map(|one| one.newest());
        if newest.is_some_and(|fleet| fleet.worker(name).is_none()) {
            let probe = "a removed worker stayed out although its process ran";
            cluster.recorder.sometimes(probe);
        }
        cluster.down(name, Crash::Stop, CrashMode::KeepAll).await;
    }
    if empty && cluster.is_off(name) {
        simdisk::disk(name).wipe();
        let text = "gets an EMPTY disk";
        cluster.recorder.line(name, Level::Story, text);
    } else {
        let token = format!("sim-token-{name}-{}", cluster.recorder.now().as_micros());
        let order = Command::TokenCreate {
            hash: node::manager::token_hash(&token),
            ttl_ms: TOKEN_TTL_MS,
            role: node::fleet::TokenRole::Worker,
        };
        super::command(cluster, order).await;
        cluster.give_token(name, token);
        let text = "gets a new token";
        cluster.recorder.line(name, Level::Story, text);
    }
    cluster.recorder.sometimes("a removed worker came back");
    cluster.up(name);
}

/// The configuration of a worker, as an operator would write it.
fn config(cluster: &Cluster, number: u32) -> WorkerConfig {
    let name = format!("w{number}");
    let zone = format!("z{}", (number - 1) % ZONES + 1);
    let managers = cluster.names();
    WorkerConfig {
        machine: Said {
            name: name.clone(),
            address: String::new(),
            platform: "linux/amd64".to_owned(),
            containers: false,
            public_key: None,
            capacity: CAPACITY,
            labels: BTreeMap::from([("zone".to_owned(), zone)]),
        },
        join: managers.iter().map(|name| format!("{name}:8080")).collect(),
        token: Some(TOKEN.to_owned()),
        data_dir: format!("/simdisk/{name}/worker").into(),
        listen: format!("{name}:8081"),
    }
}

/// Those of `names`, managers or workers, that stand in a rack: a zone, over which both are dealt by their numbers.
pub(crate) fn rack(names: Vec<String>, number: u32) -> Vec<String> {
    let stands = |name: &String| {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        let own = digits.parse::<u32>().ok();
        own.is_some_and(|own| (own + ZONES - 1) % ZONES + 1 == number)
    };
    names.into_iter().filter(stands).collect()
}

/// What each life of a worker's process begins with.
#[derive(Clone)]
pub(crate) struct Boot {
    /// Network, clocks, lanes, and where everything is written down.
    pub(crate) cluster: Cluster,
    /// Its host.
    pub(crate) name: String,
    /// What its operator wrote.
    pub(crate) config: WorkerConfig,
    /// Internal numbers.
    pub(crate) knobs: Knobs,
    /// The machine under it.
    pub(crate) machine: Machine,
    /// Set when its process has ended by itself.
    pub(crate) exited: Arc<Mutex<Option<Ended>>>,
    /// SIGTERM.
    pub(crate) term: Arc<Notify>,
    /// A token that an operator gave the machine since, in place of the first.
    pub(crate) token: Arc<Mutex<Option<String>>>,
}

impl Boot {
    /// One life of the process.
    pub(crate) async fn run(self) {
        let (world, recorder) = (&self.cluster.world, &self.cluster.recorder);
        let mut env = world.env(&self.name, recorder.journal(&self.name));
        let host = self.name.clone();
        let lanes = SimLanes::new(env.rngs.clone(), simdisk::take_debt);
        let lanes = lanes.on_power(move || !simdisk::disk(&host).is_down());
        env.lanes = node::rt::Lanes::new(lanes);
        let ledger = self.cluster.ledger.clone();
        env.net = Net::new(Ear::new(env.net.clone(), ledger, &self.name));
        let executor: Hand = Arc::new(self.machine.boots(env.clock.clone()));
        let (env, executor) = self.cluster.outfit(&self.name, env, executor);
        let mut config = self.config.clone();
        config.token = peek(&self.token).or(config.token);
        let started = node::worker::start(env, config, self.knobs.clone(), executor);
        let reason = match started.await {
            Ok(running) => self.live(running).await,
            Err(error) => format!("cannot start: {error}"),
        };
        recorder.line(&self.name, Level::Story, format!("has ended: {reason}"));
        recorder.becomes(&self.name, State::Down);
        self.cluster.guard(&self.machine);
        let ended = Ended {
            reason,
            poisoned: false,
        };
        put(&self.exited, Some(ended));
    }

    /// Until it ends by itself, or is told to.
    async fn live(&self, running: RunningWorker) -> String {
        self.cluster.recorder.becomes(&self.name, State::Follower);
        tokio::select! {
            biased; // An end that has come needs no signal.
            () = running.ended() => return "by itself".to_owned(),
            () = self.term.notified() => {}
        }
        running.stop().await;
        "as told".to_owned()
    }
}
