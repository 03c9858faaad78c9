//! What a worker's word is worth, judged by the fleet as applied: pure.

use super::leases::Leases;
use crate::error::{Code, Error};
use crate::fleet::Fleet;
use crate::fleet::WorkerNote;
use crate::fleet::command::{Machine, WorkerHello, WorkerReports};
use crate::fleet::meeting::{HelloCall, Reply};
use crate::rt::Mono;
use crate::scheduler::model::{Status, Worker};
use crate::types::{ClusterId, Epoch, WorkerId};
use sha2::{Digest, Sha256};

/// The SHA-256 of a token's text in hex, as the log keeps it.
pub fn token_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a hello leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Greeting {
    /// The cluster knows all of it already.
    Known {
        /// The worker.
        worker: WorkerId,
        /// Its session.
        epoch: Epoch,
    },
    /// It was removed, and stays out.
    Removed {
        /// The worker that it was.
        worker: WorkerId,
        /// Why, and what lets it in again.
        reason: String,
    },
    /// It goes through the log.
    Propose(Box<WorkerHello>),
}

/// Judges a hello. A name is not handed to another life of a disk while the old one may hold a lease.
pub(super) fn greet(
    call: HelloCall,
    cluster: ClusterId,
    fleet: &Fleet,
    leases: &Leases,
    now: Mono,
) -> Result<Greeting, Error> {
    let identity = call.hello.identity;
    if identity.cluster.0 != 0 && identity.cluster != cluster {
        let message = format!(
            "worker {} belongs to cluster {}, this is {cluster}",
            call.machine.name, identity.cluster
        );
        let hint = "join the right cluster's managers, or give the worker an empty data directory";
        return Err(Error::new(Code::Conflict, message).hint(hint));
    }
    let token_hash = call.token.as_deref().map(token_hash);
    // What was committed stays so: this holds whoever leads by now, and whatever tasks it has were ended with it.
    if let Some(reason) = fleet.stays_out(identity, &call.machine.name, token_hash.as_deref()) {
        let worker = identity.worker;
        return Ok(Greeting::Removed { worker, reason });
    }
    let workers = &fleet.snapshot.workers;
    let found = workers.get(&identity.worker);
    let found = found.or_else(|| fleet.worker(&call.machine.name));
    let note = found.and_then(|worker| fleet.workers.get(&worker.id));
    if let (Some(worker), Some(note)) = (found, note) {
        if note.life != identity.life {
            // Without a token the log refuses it, and waiting helps nothing.
            if call.token.is_some() {
                may_take_over(worker, fleet, leases, now)?;
            }
        } else if worker.id == identity.worker
            && worker.status == Status::Ready
            && worker.epoch == call.hello.epoch
            && !call.hello.is_anew
            && call.hello.newest_report >= note.acknowledged
            && is_same(worker, note, &call.machine)
        {
            return Ok(Greeting::Known {
                worker: worker.id,
                epoch: worker.epoch,
            });
        }
    }
    Ok(Greeting::Propose(Box::new(WorkerHello {
        token_hash,
        machine: call.machine,
        hello: call.hello,
    })))
}

/// Whether a machine is as it was. Its name stays that with which it joined, and its labels are set by operators.
fn is_same(worker: &Worker, note: &WorkerNote, machine: &Machine) -> bool {
    worker.platform == machine.platform
        && worker.containers == machine.containers
        && worker.capacity == machine.capacity
        && note.address == machine.address
        && note.public_key == machine.public_key
}

/// Whether another life may take the place of `worker` now.
fn may_take_over(worker: &Worker, fleet: &Fleet, leases: &Leases, now: Mono) -> Result<(), Error> {
    let later = |message: String, hint: &str| {
        let mut error = Error::new(Code::Conflict, message).hint(hint);
        error.retryable = true;
        error
    };
    let name = &worker.name;
    if worker.status == Status::Ready {
        return Err(later(
            format!("a worker called {name} is ready, and it has another disk than this one"),
            "choose another name; or, if this is its machine with a new disk, wait until it is marked down",
        ));
    }
    let left = leases.remaining(worker.id, now);
    if !left.is_zero() && is_writer(fleet, worker.id) {
        let message = format!(
            "the worker that was called {name} may run single-writer tasks for another {} s",
            left.as_secs() + 1
        );
        let hint = "try again then; `node rm --force` if its machine is known to be dead";
        return Err(later(message, hint));
    }
    Ok(())
}

/// Whether a worker has a task that needs a lease: one with a single-writer volume that has not ended.
pub(super) fn is_writer(fleet: &Fleet, worker: WorkerId) -> bool {
    let mut tasks = fleet.snapshot.tasks.of_worker(worker);
    tasks.any(|task| !task.state.is_end() && task.is_single_writer())
}

/// What is known of a worker whose session `epoch` goes on; otherwise the answer that it is over.
pub(super) fn session(
    fleet: &Fleet,
    worker: WorkerId,
    epoch: Epoch,
) -> Result<&WorkerNote, Box<Reply>> {
    let over = |reason: String| Box::new(Reply::Over { reason });
    let found = fleet.snapshot.workers.get(&worker);
    let Some((known, note)) = found.zip(fleet.workers.get(&worker)) else {
        return Err(over(format!(
            "the cluster has no worker {worker}: say hello"
        )));
    };
    if known.epoch != epoch {
        return Err(over(format!(
            "worker {} is in session {}, not {epoch}: say hello again",
            known.name, known.epoch
        )));
    }
    if known.status == Status::Down {
        return Err(over(format!(
            "worker {} was silent for too long and marked down: say hello again",
            known.name
        )));
    }
    Ok(note)
}

/// The answer to reports that were applied, or need not be.
pub(super) fn acknowledged(fleet: &Fleet, reports: &WorkerReports) -> Reply {
    match session(fleet, reports.worker, reports.epoch) {
        Ok(note) if note.life == reports.life => Reply::Acknowledged {
            life: note.life,
            number: note.acknowledged,
        },
        Ok(_) => Reply::Over {
            reason: "these reports are of another life of the worker's disk: say hello again"
                .to_owned(),
        },
        Err(over) => *over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::model::Task;
    use crate::service::State;
    use crate::service::spec::Mount;
    use crate::types::{Incarnation, TaskId};
    use crate::worker::exchange::{Hello, Identity};
    use std::collections::BTreeMap;
    use std::time::Duration;

    const CLUSTER: ClusterId = ClusterId(7);

    fn at(secs: u64) -> Mono {
        Mono(Duration::from_secs(secs))
    }

    fn machine() -> Machine {
        Machine {
            name: "w1".to_owned(),
            address: "w1:8200".to_owned(),
            ..Machine::default()
        }
    }

    /// A cluster with one worker that has a single-writer task.
    fn fleet(status: Status) -> Fleet {
        let mut fleet = Fleet::default();
        let worker = Worker {
            id: WorkerId(5),
            name: "w1".to_owned(),
            status,
            epoch: Epoch(2),
            ..Worker::default()
        };
        let note = WorkerNote {
            address: "w1:8200".to_owned(),
            life: Incarnation(9),
            acknowledged: 4,
            ..WorkerNote::default()
        };
        let mount = Mount {
            volume: "data".to_owned(),
            target: "/data".to_owned(),
            shared: false,
        };
        let task = Task {
            id: TaskId(1),
            worker: Some(WorkerId(5)),
            state: State::Running,
            volumes: vec![mount],
            ..Task::default()
        };
        fleet.snapshot.workers.insert(worker.id, worker);
        fleet.workers.insert(WorkerId(5), note);
        fleet.snapshot.tasks.insert(task.id, task);
        fleet
    }

    fn hello(worker: u64, life: u64) -> HelloCall {
        HelloCall {
            token: Some("let me in".to_owned()),
            machine: machine(),
            hello: Hello {
                identity: Identity {
                    cluster: ClusterId(0),
                    worker: WorkerId(worker),
                    life: Incarnation(life),
                },
                epoch: Epoch(2),
                revision: 3,
                is_anew: false,
                tasks: BTreeMap::new(),
                newest_report: 4,
            },
        }
    }

    fn judge(call: HelloCall, fleet: &Fleet, secs: u64) -> Result<Greeting, Error> {
        let leases = Leases::new(Duration::from_secs(10), at(0));
        greet(call, CLUSTER, fleet, &leases, at(secs))
    }

    #[test]
    fn token_goes_as_its_hash_alone() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(token_hash("abc"), hash);
        let Ok(Greeting::Propose(hello)) = judge(hello(0, 1), &Fleet::default(), 0) else {
            panic!("a stranger is proposed");
        };
        assert_eq!(hello.token_hash, Some(token_hash("let me in")));
    }

    #[test]
    fn a_worker_that_is_known_as_it_is_costs_no_entry() {
        let fleet = fleet(Status::Ready);
        let known = Greeting::Known {
            worker: WorkerId(5),
            epoch: Epoch(2),
        };
        assert_eq!(judge(hello(5, 9), &fleet, 0).unwrap(), known);
        let mut anew = hello(5, 9);
        anew.hello.is_anew = true;
        let mut older = hello(5, 9);
        older.hello.epoch = Epoch(1);
        let mut moved = hello(5, 9);
        moved.machine.address = "elsewhere:1".to_owned();
        let mut restored = hello(5, 9);
        restored.hello.newest_report = 3;
        for call in [anew, older, moved, restored] {
            let greeting = judge(call, &fleet, 0).unwrap();
            assert!(matches!(greeting, Greeting::Propose(_)));
        }
        let down = judge(hello(5, 9), &self::fleet(Status::Down), 0).unwrap();
        assert!(
            matches!(down, Greeting::Propose(_)),
            "the same life need not wait"
        );
    }

    #[test]
    fn a_name_is_not_handed_over_while_its_lease_may_run() {
        for worker in [0, 5] {
            let error = judge(hello(worker, 1), &fleet(Status::Ready), 99).unwrap_err();
            assert!(error.retryable, "{error}");
            let error = judge(hello(worker, 1), &fleet(Status::Down), 4).unwrap_err();
            assert!(error.retryable && error.message.contains(" 7 s"), "{error}");
            let late = judge(hello(worker, 1), &fleet(Status::Down), 11).unwrap();
            assert!(matches!(late, Greeting::Propose(_)));
            let mut ended = fleet(Status::Down);
            let task = ended.snapshot.tasks.get_mut(&TaskId(1)).unwrap();
            task.state = State::Failed;
            assert!(judge(hello(worker, 1), &ended, 4).is_ok());
        }
    }

    #[test]
    fn another_life_without_a_token_does_not_wait() {
        let mut call = hello(5, 1);
        call.token = None;
        let greeting = judge(call, &fleet(Status::Ready), 0).unwrap();
        assert!(matches!(greeting, Greeting::Propose(_)));
    }

    #[test]
    fn a_worker_of_another_cluster_is_refused() {
        let mut call = hello(5, 9);
        call.hello.identity.cluster = ClusterId(8);
        let error = judge(call, &fleet(Status::Ready), 0).unwrap_err();
        assert_eq!((error.code, error.retryable), (Code::Conflict, false));
    }

    #[test]
    fn sessions_end_with_their_epoch_and_with_down() {
        let ready = fleet(Status::Ready);
        assert_eq!(
            session(&ready, WorkerId(5), Epoch(2)).unwrap().acknowledged,
            4
        );
        assert!(session(&ready, WorkerId(5), Epoch(1)).is_err());
        assert!(session(&ready, WorkerId(6), Epoch(2)).is_err());
        assert!(session(&fleet(Status::Down), WorkerId(5), Epoch(2)).is_err());
        let reports = |life| WorkerReports {
            worker: WorkerId(5),
            epoch: Epoch(2),
            life: Incarnation(life),
            reports: Vec::new(),
        };
        let taken = Reply::Acknowledged {
            life: Incarnation(9),
            number: 4,
        };
        assert_eq!(acknowledged(&ready, &reports(9)), taken);
        assert!(matches!(
            acknowledged(&ready, &reports(8)),
            Reply::Over { .. }
        ));
    }

    #[test]
    fn only_workers_with_a_single_writer_that_lives_need_a_lease() {
        let mut fleet = fleet(Status::Ready);
        assert!(is_writer(&fleet, WorkerId(5)));
        let task = fleet.snapshot.tasks.get_mut(&TaskId(1)).unwrap();
        task.volumes[0].shared = true;
        assert!(!is_writer(&fleet, WorkerId(5)));
    }
}
