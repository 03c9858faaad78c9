//! What a worker is told to do, read off the fleet.

use crate::error::{Code, Error};
use crate::fleet::{Fleet, WorkerNote};
use crate::scheduler::model::{Status, Task};
use crate::service::Desired;
use crate::types::{Epoch, Index, WorkerId};
use crate::worker::exchange::Assignments;
use crate::worker::words::Assignment;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The assignments of `worker` in its session, if they are newer than `revision`: all its tasks.
pub(crate) fn newer(
    fleet: &Fleet,
    applied: Index,
    (worker, epoch): (WorkerId, Epoch),
    revision: u64,
) -> Result<Option<Assignments>, Error> {
    let Some(note) = news(fleet, applied, (worker, epoch), revision)? else {
        return Ok(None);
    };
    let tasks = fleet.snapshot.tasks.of_worker(worker);
    let tasks: Result<_, _> = tasks.map(|task| assignment(fleet, task)).collect();
    Ok(Some(Assignments {
        epoch,
        revision: note.revision,
        tasks: tasks?,
    }))
}

/// Whether there are assignments of `worker` in its session `epoch` that are newer than `revision`; none: nothing is newer as far as
/// this manager has come. An error of code `conflict` means that the session is over: the worker says hello again.
pub(crate) fn news(
    fleet: &Fleet,
    applied: Index,
    (worker, epoch): (WorkerId, Epoch),
    revision: u64,
) -> Result<Option<&WorkerNote>, Error> {
    let found = fleet.snapshot.workers.get(&worker);
    let note = fleet.workers.get(&worker);
    let (Some(known), Some(note)) = (found, note) else {
        // A worker is named by the entry by which it joined; this manager may not have come that far.
        return match worker.0 > applied.0 {
            true => Ok(None),
            false => Err(over(format!("the cluster has no worker {worker}"))),
        };
    };
    if known.epoch > epoch {
        let message = format!("session {epoch} of worker {} is over", known.name);
        return Err(over(message));
    }
    if known.epoch < epoch {
        return Ok(None);
    }
    if known.status == Status::Down {
        return Err(over(format!("worker {} was marked down", known.name)));
    }
    Ok(Some(note).filter(|note| note.revision > revision))
}

/// One task as its worker gets it.
fn assignment(fleet: &Fleet, task: &Task) -> Result<Assignment, Error> {
    let Some(spec) = fleet.specs.get(&(task.service, task.version)) else {
        // Leaving the task out would have it killed.
        let message = format!(
            "the specification of task {} (service {}, version {}) is missing",
            task.id, task.service, task.version
        );
        return Err(Error::new(Code::Internal, message));
    };
    Ok(Assignment {
        task: task.id,
        service: task.service,
        slot: task.slot,
        version: task.version,
        // A worker that lost its disk must not begin what has ended.
        desired: match task.state.is_end() {
            true => task.desired.max(Desired::Stop),
            false => task.desired,
        },
        spec: Arc::clone(spec),
        secrets: BTreeMap::new(), // Whoever sends them puts them in, sealed.
    })
}

fn over(message: String) -> Error {
    Error::new(Code::Conflict, message).hint("say hello again")
}
