//! The seam between a worker and what runs its tasks: processes, containers, or the simulator.
//!
//! An executor has no opinions: it is told which attempt to start and which handle to signal. It keeps nothing that the worker would
//! have to know after its own restart; what runs is found again by the mark that each process carries.

use super::exchange::Found;
use super::logs::{LogPage, LogQuery};
use super::secrets::SecretFile;
use super::words::{Assignment, Exit, Handle, Refusal, Signal};
use crate::rt::Mono;
use crate::rt::net::BoxFuture;
use crate::types::TaskId;
use std::sync::Arc;

/// Runs tasks.
pub trait Executor: Send + Sync {
    /// Fetches what a task needs, so that it can start at once. Done twice it does no harm.
    fn prepare(&self, assignment: Arc<Assignment>) -> BoxFuture<'static, Result<(), Refusal>>;

    /// Starts an attempt. It answers as soon as the process is there; an error means that none is. What belongs to a
    /// single-writer volume ends with the worker's process, and when its lease has ended ([`Executor::lease`]): nothing of it begins then.
    /// Its secrets are in the clear here for the first time: they go where no disk is, and are gone when `wait` or `end_orphan` has
    /// ended.
    fn start(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        secrets: Vec<SecretFile>,
    ) -> BoxFuture<'static, Result<Handle, Refusal>>;

    /// Whatever belongs to a single-writer volume may be there until this moment of the worker's clock, unless another is named. It
    /// is ended then even if the worker stands still. Before the first word there is no lease.
    fn lease(&self, until: Mono);

    /// Waits until an attempt's process has ended and nothing that it began is left.
    fn wait(&self, task: TaskId, attempt: u32, handle: Handle) -> BoxFuture<'static, Exit>;

    /// Signals an attempt and what it began. One that has ended is no error.
    fn signal(&self, handle: &Handle, signal: Signal);

    /// One health check: true when healthy, within the time-out that the specification names. It is waited for to its end even
    /// when nobody wants the result any more: what it began is cleared away there.
    fn check(&self, assignment: Arc<Assignment>, attempt: u32) -> BoxFuture<'static, bool>;

    /// Every attempt of this worker that runs, whoever started it. An error means that nothing may be started: it might run already.
    fn found(&self) -> BoxFuture<'static, Result<Vec<Found>, String>>;

    /// Kills what is left of an attempt that the worker does not know, and waits until nothing is.
    fn end_orphan(&self, task: TaskId, attempt: u32) -> BoxFuture<'static, ()>;

    /// Removes what was kept for a task that has ended.
    fn forget(&self, task: TaskId) -> BoxFuture<'static, ()>;

    /// Keeps what tasks have written within its bounds; called now and then.
    fn tidy(&self) -> BoxFuture<'static, ()>;

    /// The disk is full, and the worker's own file comes first: gives up some of what tasks have written. True when something was freed.
    fn make_room(&self) -> BoxFuture<'static, bool> {
        Box::pin(async { false })
    }

    /// A part of what a task has written. A permanent refusal means that there is nothing of it here.
    fn logs(&self, task: TaskId, query: LogQuery) -> BoxFuture<'static, Result<LogPage, Refusal>> {
        let stream = query.stream.file_name();
        let message = format!("what runs tasks here keeps no {stream} of task {task}");
        Box::pin(async move {
            Err(Refusal {
                is_permanent: true,
                message,
            })
        })
    }
}
