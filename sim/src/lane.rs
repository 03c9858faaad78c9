//! Lanes: storage work runs inline, then the time that the simulated disk charged for it is slept.
//!
//! A lane is a task of the madsim node that opened it, so it pauses and dies with the node. A job is atomic in virtual time;
//! to vary when its effect lands, a seeded part of what the last job cost is slept before it, and the rest of its own
//! cost after it: the caller hears of the job when both are paid. Killed in between, the effect is on the disk and
//! nobody was told, as in production.
//!
//! Debts below [`DEBT_MIN`] cost no timer: they add up until they are worth one. The disk's time does not drift with
//! the host's clock. A job that panics ends the simulation, where production would abort.

use crate::alarm::Alarm;
use madsim::time::TimeHandle;
use node::rt::Rngs;
use node::rt::lane::{Job, LaneDriver, LanesDriver};
use node::rt::net::BoxFuture;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Gives the nanoseconds that file work has cost since the last call, and forgets them.
pub type TakeDebt = fn() -> u64;

/// Whether a host has power.
type Powered = Arc<dyn Fn() -> bool + Send + Sync>;

/// For runs without a simulated disk: file work costs nothing.
pub fn no_debt() -> u64 {
    0
}

/// Debts below this are carried over to the next job.
pub const DEBT_MIN: Duration = Duration::from_micros(50);
/// What is slept before a job is at most this, whatever the last job cost: a stall is not repeated.
const AHEAD_MAX_NS: u64 = 2_000_000;
/// Jobs that may wait on one lane, as in production.
const LANE_QUEUE_LEN_MAX: usize = 1024;

/// A job and the word that it has run.
type Entry = (Job, oneshot::Sender<()>);

/// The lanes of one process of a host.
pub struct SimLanes {
    /// Where each lane's stream comes from.
    rngs: Rngs,
    /// The simulated disk's bill.
    take_debt: TakeDebt,
    /// Whether the host has power.
    powered: Powered,
}

impl SimLanes {
    /// Lanes whose chances come from `rngs` and whose costs come from `take_debt`.
    pub fn new(rngs: Rngs, take_debt: TakeDebt) -> Self {
        SimLanes {
            rngs,
            take_debt,
            powered: Arc::new(|| true),
        }
    }

    /// The same lanes on a host whose power may fail in the middle of a job: nobody hears of that job.
    pub fn on_power(self, powered: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        SimLanes {
            powered: Arc::new(powered),
            ..self
        }
    }
}

impl LanesDriver for SimLanes {
    fn open(&self, name: &'static str) -> Arc<dyn LaneDriver> {
        let (jobs, queue) = mpsc::channel(LANE_QUEUE_LEN_MAX);
        let payer = Payer {
            time: TimeHandle::current(),
            rng: self.rngs.stream(&format!("lane.{name}")),
            take_debt: self.take_debt,
            last_ns: 0,
            owed_ns: 0,
        };
        drop(madsim::task::spawn(run(queue, payer, self.powered.clone())));
        Arc::new(SimLane { name, jobs })
    }
}

/// The sending end of a lane's queue.
struct SimLane {
    /// The lane's name, for messages.
    name: &'static str,
    /// Jobs with the word that they have run.
    jobs: mpsc::Sender<Entry>,
}

impl LaneDriver for SimLane {
    fn submit(&self, job: Job) -> BoxFuture<'static, bool> {
        let (done, ran) = oneshot::channel();
        let sent = match self.jobs.try_send((job, done)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            // In production the submitter's thread, and so the whole node, would stand still here.
            Err(mpsc::error::TrySendError::Full(_)) => {
                panic!("lane {} has {LANE_QUEUE_LEN_MAX} jobs waiting", self.name)
            }
        };
        Box::pin(async move { sent && ran.await.is_ok() })
    }
}

/// Runs the jobs of one lane until its last handle is gone.
async fn run(mut queue: mpsc::Receiver<Entry>, mut payer: Payer, powered: Powered) {
    while let Some((job, done)) = queue.recv().await {
        let ahead_ns = payer.draw_ahead();
        payer.sleep(ahead_ns).await;
        // What another process left unpaid when it died is not this job's.
        (payer.take_debt)();
        job();
        if !powered() {
            // The whole process ends here, a moment before the supervisor of the simulation gets to it.
            return std::future::pending().await;
        }
        let cost_ns = (payer.take_debt)();
        let rest_ns = payer.charge(cost_ns, ahead_ns);
        payer.sleep(rest_ns).await;
        // Nobody waits any more when the caller was dropped; the work counts all the same.
        done.send(()).ok();
    }
}

/// Turns costs into sleeps.
struct Payer {
    /// The simulation's time.
    time: TimeHandle,
    /// How much is slept before a job.
    rng: ChaCha8Rng,
    /// The simulated disk's bill.
    take_debt: TakeDebt,
    /// What the last job cost.
    last_ns: u64,
    /// Costs too small to be slept so far.
    owed_ns: u64,
}

impl Payer {
    /// What to sleep before the next job: zero, or a part of what the last one cost.
    fn draw_ahead(&mut self) -> u64 {
        let bound_ns = self.last_ns.min(AHEAD_MAX_NS);
        if bound_ns < nanos(DEBT_MIN) {
            return 0;
        }
        let ahead_ns = self.rng.random_range(0..=bound_ns);
        if ahead_ns < nanos(DEBT_MIN) {
            0
        } else {
            ahead_ns
        }
    }

    /// What to sleep after a job that cost `cost_ns` when `ahead_ns` were paid before it.
    fn charge(&mut self, cost_ns: u64, ahead_ns: u64) -> u64 {
        self.last_ns = cost_ns;
        self.owed_ns += cost_ns.saturating_sub(ahead_ns);
        if self.owed_ns < nanos(DEBT_MIN) {
            return 0;
        }
        std::mem::take(&mut self.owed_ns)
    }

    /// Sleeps exactly `span_ns` of the simulation's time.
    async fn sleep(&self, span_ns: u64) {
        if span_ns > 0 {
            let at = self.time.elapsed() + Duration::from_nanos(span_ns);
            Alarm::new(self.time.clone(), at).await;
        }
    }
}

/// `span` in nanoseconds.
const fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}
