//! What a worker is told to do, read off the fleet.

use crate::error::{Code, Error};
use crate::fleet::Fleet;
use crate::scheduler::model::{Status, Task};
use crate::service::Desired;
use crate::types::{Epoch, Index, TaskId, WorkerId};
use crate::worker::exchange::Assignments;
use crate::worker::words::Assignment;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Each worker's tasks.
type ByWorker = BTreeMap<WorkerId, Vec<TaskId>>;

/// Each worker's tasks as of the newest fleet for which somebody asked, so that one walk over all tasks serves all workers: a plan
/// has news for many at once.
#[derive(Default)]
pub(crate) struct Lists(Mutex<Option<(u64, Arc<ByWorker>)>>);

impl Lists {
    /// Each worker's tasks in `fleet`, by id.
    fn of(&self, fleet: &Fleet) -> Arc<ByWorker> {
        let mut newest = self.0.lock().expect("nobody panics while making the lists");
        let index = match &*newest {
            Some((index, lists)) if *index == fleet.index => return Arc::clone(lists),
            Some((index, _)) => *index,
            None => 0,
        };
        let mut lists = ByWorker::new();
        for task in fleet.snapshot.tasks.values() {
            if let Some(worker) = task.worker {
                lists.entry(worker).or_default().push(task.id);
            }
        }
        let lists = Arc::new(lists);
        if index < fleet.index {
            *newest = Some((fleet.index, Arc::clone(&lists)));
        }
        lists
    }
}

/// The assignments of `worker` in its session `epoch`, if they are newer than `revision`; none: nothing is newer as far as this
/// manager has come. An error of code `conflict` means that the session is over: the worker says hello again.
pub(crate) fn newer(
    fleet: &Fleet,
    lists: &Lists,
    applied: Index,
    (worker, epoch): (WorkerId, Epoch),
    revision: u64,
) -> Result<Option<Assignments>, Error> {
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
    if note.revision <= revision {
        return Ok(None);
    }
    let lists = lists.of(fleet);
    let ids = lists.get(&worker).into_iter().flatten();
    let tasks = ids.filter_map(|id| fleet.snapshot.tasks.get(id));
    let tasks: Result<_, _> = tasks.map(|task| assignment(fleet, task)).collect();
    Ok(Some(Assignments {
        epoch,
        revision: note.revision,
        tasks: tasks?,
    }))
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
        spec: spec.as_ref().clone(),
        secrets: BTreeMap::new(), // Whoever sends them puts them in, sealed.
    })
}

fn over(message: String) -> Error {
    Error::new(Code::Conflict, message).hint("say hello again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(index: u64, workers: &[Option<u64>]) -> Fleet {
        let mut fleet = Fleet::default();
        fleet.index = index;
        for (id, worker) in (1..).map(TaskId).zip(workers) {
            let worker = worker.map(WorkerId);
            let task = Task {
                id,
                worker,
                ..Task::default()
            };
            fleet.snapshot.tasks.insert(id, task);
        }
        fleet
    }

    fn of(lists: &Lists, fleet: &Fleet, worker: u64) -> Vec<u64> {
        let lists = lists.of(fleet);
        let ids = lists.get(&WorkerId(worker));
        ids.into_iter().flatten().map(|id| id.0).collect()
    }

    #[test]
    fn each_fleet_has_its_own_lists() {
        let lists = Lists::default();
        let (older, newer) = (
            fleet(3, &[Some(7), None, Some(8), Some(7)]),
            fleet(5, &[Some(7), Some(8), Some(8)]),
        );
        assert_eq!(of(&lists, &older, 7), [1, 4]);
        assert_eq!(of(&lists, &newer, 8), [2, 3]);
        assert_eq!(of(&lists, &older, 8), [3], "who looked before asks late");
        assert_eq!(of(&lists, &newer, 7), [1]);
        assert_eq!(of(&lists, &newer, 9), [] as [u64; 0]);
    }
}
