//! Tasks that belong to one node and end with it.

use std::future::Future;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Starts the task that outlives a node's group: the one that stops it and tells how it ended.
#[allow(
    clippy::disallowed_methods,
    reason = "beside `Tasks::spawn` the one place where a task is spawned; under the simulator the path is another"
)]
pub(crate) fn detach(work: impl Future<Output = ()> + Send + 'static) {
    // Nobody joins it: its last act is to tell the others.
    drop(tokio::spawn(work));
}

/// Finished tasks are looked for only when the list has grown to this, or to twice what it was after the last look: a look
/// at all of them for each task started would cost a busy node more than the tasks.
const LOOK_LEN_MIN: usize = 64;

/// Handles of tasks.
#[derive(Default)]
struct Running {
    /// The tasks started and not yet seen finished.
    tasks: Vec<JoinHandle<()>>,
    /// Length at which finished ones are looked for.
    look_at: usize,
}

impl Running {
    /// Takes `task` in; from time to time lets go of the finished ones.
    fn add(&mut self, task: JoinHandle<()>) {
        if self.tasks.len() >= self.look_at {
            self.tasks.retain(|task| !task.is_finished());
            self.look_at = (self.tasks.len() * 2).max(LOOK_LEN_MIN);
        }
        self.tasks.push(task);
    }
}

/// The tasks of one node. A clone is the same group.
#[derive(Clone, Default)]
pub struct Tasks {
    /// Handles of the tasks.
    running: Arc<Mutex<Running>>,
    /// Set when the group ends.
    stop: CancellationToken,
}

impl Tasks {
    /// Starts `work`; it is cut off at its next wait when the group stops.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place where tasks are spawned; under the simulator the path is another"
    )]
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let handle = tokio::spawn(async move {
            tokio::select! {
                biased; // A stopped node does no more work, even if some is ready.
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
        let mut running = self
            .running
            .lock()
            .expect("no task panics while holding the list");
        running.add(handle);
    }

    /// Ends every task of the group at its next wait, and waits until all are gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        loop {
            let next = self
                .running
                .lock()
                .expect("no task panics while holding the list")
                .tasks
                .pop();
            let Some(task) = next else { return };
            // A task that was cancelled or that panicked is gone either way.
            drop(task.await);
        }
    }

    /// True once [`Tasks::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when the group is told to stop.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}
