//! Users of services: they call running copies, which they know from the cluster alone, and write down what became of each call.
//!
//! A user has the list of copies that `service ps` prints (the production command line, with all managers as endpoints), asks for it anew
//! each second, and keeps the old one while nobody answers. Calls begin at fixed moments, whatever became of those before. A call goes to
//! the next copy of the list. A machine without power or behind a cut says nothing, and its caller waits for a while; where no process
//! serves (gone, not ready, told to stop) the call is refused at once. Then the next copy is tried.
//!
//! Left out: load, what an answer says, and connections that are kept.

use super::ledger::Ledger;
use crate::cluster::Cluster;
use crate::operator;
use node::api::fleet_wire::TaskInfo;
use node::service::{Desired, State};
use node::types::TaskId;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use workloads::calls::Call;

/// Between two calls of a service.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at the list of copies.
const LOOK: Duration = Duration::from_secs(1);
/// How long a user waits for a copy that says nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest way to a copy and back, microseconds.
const WAY_MAX_US: u64 = 5_000;
/// Copies that are tried in one call.
const TRIES: usize = 3;

/// All calls of a run, in the order in which they ended. A clone is the same.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    /// Everything so far.
    pub fn all(&self) -> Vec<Call> {
        let calls = self.0.lock();
        calls
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn add(&self, call: Call) {
        let mut calls = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        calls.push(call);
    }
}

/// A copy: its task, and its worker's host.
type Copy = (TaskId, String);

/// Calls copies of `service` until `done`.
pub async fn call(cluster: Cluster, service: String, done: Arc<AtomicBool>) {
    let copies: Arc<Mutex<Vec<Copy>>> = Arc::default();
    let rng = cluster.world.rngs().stream(&format!("calls.{service}"));
    let rng = Arc::new(Mutex::new(rng));
    let mut looked: Option<Duration> = None;
    let mut turn = 0;
    while !done.load(Ordering::Relaxed) {
        let now = cluster.recorder.now();
        if looked.is_none_or(|at| now - at >= LOOK) {
            looked = Some(now);
            let (cluster, service, into) = (cluster.clone(), service.clone(), Arc::clone(&copies));
            drop(madsim::task::spawn(async move {
                if let Some(found) = look(&cluster, &service).await {
                    *lock(&into) = found;
                }
            }));
        }
        turn += 1;
        let known = lock(&copies).clone();
        let (cluster, service, rng) = (cluster.clone(), service.clone(), Arc::clone(&rng));
        drop(madsim::task::spawn(async move {
            let first = turn % known.len().max(1);
            let those = known
                .iter()
                .cycle()
                .skip(first)
                .take(known.len().min(TRIES));
            one(&cluster, service, those.cloned().collect(), &rng).await;
        }));
        madsim::time::sleep(PAUSE).await;
    }
}

/// One call: `copies` in turn.
async fn one(cluster: &Cluster, service: String, copies: Vec<Copy>, rng: &Mutex<ChaCha8Rng>) {
    let began = cluster.recorder.now();
    let (mut answered, mut tried) = (None, 0);
    for (task, host) in &copies {
        tried += 1;
        let way = Duration::from_micros(lock(rng).random_range(0..=WAY_MAX_US));
        madsim::time::sleep(way).await;
        if is_silent(cluster, host) {
            madsim::time::sleep(PATIENCE).await;
        } else if serves(&cluster.ledger, *task, cluster.recorder.now()) {
            answered = Some(cluster.recorder.now());
            break;
        }
    }
    cluster.calls.add(Call {
        at_once: answered.is_some() && tried == 1,
        service,
        began,
        answered,
    });
}

/// Whether nothing of `host` is heard.
fn is_silent(cluster: &Cluster, host: &str) -> bool {
    let network = &cluster.world.network;
    let cut = network.is_blocked(operator::HOST, host) || network.is_blocked(host, operator::HOST);
    cut || simdisk::disk(host).is_down()
}

/// Whether a process of `task` serves at `now`.
fn serves(ledger: &Ledger, task: TaskId, now: Duration) -> bool {
    let run = ledger.newest_of(task);
    let span = run.and_then(|run| run.serves(now));
    span.is_some_and(|(from, to)| from <= now && now <= to)
}

/// The copies that the cluster says are running; none: nobody answered.
async fn look(cluster: &Cluster, service: &str) -> Option<Vec<Copy>> {
    let line = format!("service ps {service} --output json");
    let (exit, output) = operator::run(cluster, &line).await;
    if exit != 0 {
        return None;
    }
    let answer: serde_json::Value = serde_json::from_str(&output).ok()?;
    let tasks: Vec<TaskInfo> = serde_json::from_value(answer.get("tasks")?.clone()).ok()?;
    let runs = |task: &TaskInfo| {
        task.state == State::Running && task.desired == Desired::Run && task.lost_ms.is_none()
    };
    let copies = tasks.into_iter().filter(runs);
    Some(
        copies
            .filter_map(|task| Some((task.id, task.node?)))
            .collect(),
    )
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
