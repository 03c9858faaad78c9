//! Tasks that belong to one node and end with it.

use std::future::Future;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Starts the task that outlives a node's group: the one that stops it and tells how it ended.
#[expect(clippy::disallowed_methods, reason = "beside `Tasks::spawn` the one place where a task is spawned")]
pub(crate) fn detach(work: impl Future<Output = ()> + Send + 'static) {
    // Nobody joins it: its last act is to tell the others.
    drop(tokio::spawn(work));
}

/// The tasks of one node. A clone is the same group.
#[derive(Clone, Default)]
pub struct Tasks {
    /// Handles of the tasks started and not yet seen finished.
    running: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Set when the group ends.
    stop: CancellationToken,
}

impl Tasks {
    /// Starts `work`; it is cut off at its next wait when the group stops.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where tasks are spawned"
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
        running.retain(|task| !task.is_finished());
        running.push(handle);
    }

    /// Ends every task of the group at its next wait, and waits until all are gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        loop {
            let next = self
                .running
                .lock()
                .expect("no task panics while holding the list")
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
