//! Lanes: where blocking storage work runs, one job at a time and in the order it was handed in.
//!
//! In production a lane is a thread of its own. In simulation a job runs inline and the caller then sleeps the time that
//! the simulated disk charged for it. A job must touch files only below the node's data directory.

use super::net::BoxFuture;
use std::sync::{Arc, Mutex};

/// A piece of blocking work.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a lane must do.
pub trait LaneDriver: Send + Sync {
    /// Queues `job` behind the earlier ones, at once; the future ends when it has run. `false` when the lane has closed
    /// and the job was dropped.
    fn submit(&self, job: Job) -> BoxFuture<'static, bool>;
}

/// Opens lanes.
pub trait LanesDriver: Send + Sync {
    /// A new lane called `name`, closed when the last handle to it is dropped.
    fn open(&self, name: &'static str) -> Arc<dyn LaneDriver>;
}

/// A node's supply of lanes.
#[derive(Clone)]
pub struct Lanes(Arc<dyn LanesDriver>);

impl Lanes {
    /// Lanes over `driver`.
    pub fn new(driver: impl LanesDriver + 'static) -> Self {
        Lanes(Arc::new(driver))
    }

    /// A new lane called `name`.
    pub fn open(&self, name: &'static str) -> Lane {
        Lane(self.0.open(name))
    }
}

/// The lane has closed: the node is going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage lane has closed: the node is stopping")]
pub struct Closed;

/// One lane.
#[derive(Clone)]
pub struct Lane(Arc<dyn LaneDriver>);

impl Lane {
    /// Queues `work` now and gives its result when it has run. Dropping the future does not recall the work.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Closed>> {
        let slot = Arc::new(Mutex::new(None));
        let put = Arc::clone(&slot);
        let ran = self.0.submit(Box::new(move || {
            let result = work();
            *put.lock()
                .expect("only this job and its reader hold the slot") = Some(result);
        }));
        Box::pin(async move {
            if !ran.await {
                return Err(Closed);
            }
            slot.lock().expect("the job has ended").take().ok_or(Closed)
        })
    }
}
