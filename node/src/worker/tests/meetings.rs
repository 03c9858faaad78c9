//! Facts of a worker's meetings with managers and of its own restarts, step by step.

use super::{assignment, timing, writer};
use crate::service::{Spec, State};
use crate::types::{ClusterId, Epoch, Incarnation, TaskId, WorkerId};
use crate::worker::core::Worker;
use crate::worker::exchange::{self, Assignments, Found, Identity, Saved};
use crate::worker::words::{Assignment, Effect, Exit, Handle, Input, Signal};

const LIFE: Incarnation = Incarnation(5);

/// A welcomed worker with these tasks.
fn worker(tasks: Vec<Assignment>) -> Worker {
    let (mut worker, _) = Worker::resume(Saved::empty(LIFE), Vec::new(), timing());
    meet(&mut worker, 1);
    worker.step(
        exchange::Input::Assigned(Assignments {
            epoch: Epoch(1),
            revision: 1,
            tasks,
        }),
        0,
    );
    worker
}

fn meet(worker: &mut Worker, epoch: u64) -> Vec<exchange::Effect> {
    let now_ms = worker.time_ms();
    worker.step(exchange::Input::Connected, now_ms);
    let welcome = exchange::Input::Welcome {
        cluster: ClusterId(1),
        worker: WorkerId(1),
        epoch: Epoch(epoch),
    };
    worker.step(welcome, now_ms)
}

fn tell(worker: &mut Worker, task: u64, input: Input) -> Vec<exchange::Effect> {
    let now_ms = worker.time_ms();
    worker.step(exchange::Input::Task(TaskId(task), input), now_ms)
}

fn start(worker: &mut Worker, task: u64) {
    tell(worker, task, Input::Prepared(Ok(())));
    let attempt = worker.task(TaskId(task)).unwrap().attempts();
    assert!(attempt > 0, "it has begun");
    tell(
        worker,
        task,
        Input::Started {
            attempt,
            result: Ok(Handle(format!("{task}.{attempt}"))),
        },
    );
}

fn grant(worker: &mut Worker, heartbeat: u64, revision: u64) {
    let (now_ms, epoch) = (worker.time_ms(), Epoch(1));
    worker.step(
        exchange::Input::Answered {
            heartbeat,
            epoch,
            revision,
            lease_ms: 30_000,
            pace_ms: None,
        },
        now_ms,
    );
}

fn plain(id: u64) -> Assignment {
    assignment(id, Spec::new("web", &["web"]))
}

#[test]
fn a_leader_that_must_hear_more_often_does_from_its_first_answer_on() {
    let mut worker = worker(vec![]);
    let (usual_ms, mut number) = (timing().heartbeat_ms, 1);
    let mut next = |worker: &mut Worker, epoch: u64, pace_ms| {
        let now_ms = worker.time_ms();
        let answered = exchange::Input::Answered {
            heartbeat: number,
            epoch: Epoch(epoch),
            revision: 1,
            lease_ms: 0,
            pace_ms,
        };
        worker.step(answered, now_ms);
        number += 1;
        let at_ms = worker.wake_ms().unwrap();
        let effects = worker.step(exchange::Input::Tick, at_ms);
        assert!(matches!(effects[..], [exchange::Effect::Heartbeat { .. }]));
        at_ms - now_ms
    };
    assert_eq!(next(&mut worker, 1, Some(200)), 200);
    assert_eq!(next(&mut worker, 9, None), 200, "another session's answer");
    assert_eq!(next(&mut worker, 1, Some(0)), 20, "nobody needs that");
    assert_eq!(next(&mut worker, 1, Some(1 << 40)), 20, "it was due");
    assert_eq!(next(&mut worker, 1, Some(1 << 40)), usual_ms);
    assert_eq!(next(&mut worker, 1, Some(250)), 250);
    assert_eq!(next(&mut worker, 1, None), 250, "it was due");
    assert_eq!(next(&mut worker, 1, None), usual_ms);
}

#[test]
fn a_worker_that_comes_back_takes_up_what_runs_and_restarts_nothing() {
    let mut before = worker(vec![plain(1), plain(2)]);
    start(&mut before, 1);
    start(&mut before, 2);
    let found = |task, handle: &str| Found {
        task: TaskId(task),
        attempt: 1,
        handle: Handle(handle.to_owned()),
    };
    let all = vec![found(1, "1.1"), found(2, "2.1")];
    let (after, effects) = Worker::resume(before.saved().clone(), all, timing());
    assert_eq!(effects, [], "what is right is left alone");
    assert_eq!(after.saved(), before.saved());
    // One is gone, one process belongs to nobody, and one carries an attempt's mark without being it.
    let odd = vec![found(1, "77"), found(3, "3.1")];
    let (mut after, effects) = Worker::resume(before.saved().clone(), odd, timing());
    for task in [1, 3] {
        let end = exchange::Effect::EndOrphan {
            task: TaskId(task),
            attempt: 1,
        };
        assert!(effects.contains(&end), "{task}");
    }
    let gone = |task| exchange::Input::OrphanGone {
        task: TaskId(task),
        attempt: 1,
    };
    let now_ms = after.time_ms() + 1_500;
    after.step(gone(3), now_ms);
    assert_eq!(
        after.task(TaskId(1)).unwrap().attempts(),
        1,
        "not while its old process is there"
    );
    assert_eq!(after.task(TaskId(2)).unwrap().attempts(), 2);
    after.step(gone(1), now_ms);
    assert_eq!(after.task(TaskId(1)).unwrap().attempts(), 2);
    let ended = after
        .reports()
        .find(|report| report.task == TaskId(3))
        .unwrap();
    assert_eq!(ended.observation.state, State::Failed);
}

#[test]
fn without_managers_everything_goes_on() {
    let mut worker = worker(vec![plain(1)]);
    start(&mut worker, 1);
    worker.step(exchange::Input::Disconnected, 10);
    for attempt in 1..4_u64 {
        let now_ms = attempt * 3_600_000;
        let exit = Exit {
            code: Some(1),
            ..Exit::UNSEEN
        };
        worker.step(
            exchange::Input::Task(
                TaskId(1),
                Input::Exited {
                    attempt: attempt as u32,
                    exit,
                },
            ),
            now_ms,
        );
        let effects = worker.step(exchange::Input::Tick, worker.wake_ms().unwrap());
        let sent = effects
            .iter()
            .any(|effect| matches!(effect, exchange::Effect::Report(_)));
        assert!(!sent, "nobody hears");
        let attempt = attempt as u32 + 1;
        tell(
            &mut worker,
            1,
            Input::Started {
                attempt,
                result: Ok(Handle(attempt.to_string())),
            },
        );
    }
    let effects = meet(&mut worker, 2);
    let reports: Vec<_> = effects
        .iter()
        .filter(|effect| matches!(effect, exchange::Effect::Report(_)))
        .collect();
    assert!(
        matches!(reports[..], [exchange::Effect::Report(report)] if report.observation.attempts == 4)
    );
}

#[test]
fn a_lease_needs_the_newest_assignments() {
    let mut worker = worker(vec![assignment(1, writer("v"))]);
    tell(&mut worker, 1, Input::Prepared(Ok(())));
    grant(&mut worker, 1, 2);
    assert_eq!(
        worker.lease_until_ms(),
        0,
        "managers have newer assignments than the worker"
    );
    worker.step(exchange::Input::Tick, 1_000);
    grant(&mut worker, 3, 1);
    assert_eq!(
        worker.lease_until_ms(),
        31_000,
        "the second one went out with the assignments"
    );
    assert_eq!(worker.task(TaskId(1)).unwrap().attempts(), 1);
}

#[test]
fn a_worker_that_starts_anew_has_no_lease_and_its_writers_wait_for_one() {
    let mut before = worker(vec![assignment(1, writer("v"))]);
    grant(&mut before, 1, 1);
    start(&mut before, 1);
    let (mut after, _) = Worker::resume(before.saved().clone(), Vec::new(), timing());
    assert_eq!(after.lease_until_ms(), 0);
    after.step(exchange::Input::Tick, 20_000);
    let seen = after.task(TaskId(1)).unwrap().observation();
    assert_eq!((seen.state, seen.attempts), (State::Running, 1));
    let effects = meet(&mut after, 1);
    assert!(
        matches!(effects[..], [exchange::Effect::Refused(_)]),
        "its old session is over"
    );
    let found = vec![Found {
        task: TaskId(1),
        attempt: 1,
        handle: Handle("1.1".to_owned()),
    }];
    let (_, effects) = Worker::resume(before.saved().clone(), found, timing());
    let kills = effects.iter().filter(|effect| {
        matches!(
            effect,
            exchange::Effect::Task(
                _,
                Effect::Signal {
                    signal: Signal::Kill,
                    ..
                }
            )
        )
    });
    assert_eq!(
        kills.count(),
        1,
        "one that outlived its worker is killed at once"
    );
}

#[test]
fn another_cluster_is_refused_and_a_new_name_ends_the_old_tasks() {
    let mut worker = worker(vec![plain(1)]);
    start(&mut worker, 1);
    let welcome = |cluster, name| exchange::Input::Welcome {
        cluster: ClusterId(cluster),
        worker: WorkerId(name),
        epoch: Epoch(9),
    };
    let effects = worker.step(welcome(2, 1), 1);
    assert!(matches!(&effects[..], [exchange::Effect::Refused(why)] if why.contains("belongs to")));
    worker.step(welcome(1, 2), 2);
    assert_eq!(
        worker.task(TaskId(1)).unwrap().observation().state,
        State::Stopping
    );
    let identity = Identity {
        cluster: ClusterId(1),
        worker: WorkerId(2),
        life: LIFE,
    };
    assert_eq!(worker.saved().identity(), identity);
}

#[test]
fn a_worker_that_was_removed_ends_everything_and_another_ones_removal_is_not_its_own() {
    let mut worker = worker(vec![plain(1)]);
    start(&mut worker, 1);
    let own = worker.saved().identity();
    let removed = |worker| exchange::Input::Removed { worker };
    worker.step(exchange::Input::Disconnected, 1);
    worker.step(exchange::Input::Connected, 1);
    worker.step(removed(WorkerId(own.worker.0 + 1)), 2);
    let state = |worker: &Worker| worker.task(TaskId(1)).map(|task| task.observation().state);
    assert_eq!(state(&worker), Some(State::Running));
    worker.step(removed(own.worker), 3);
    assert_eq!(state(&worker), Some(State::Stopping));
    assert_eq!(worker.lease_until_ms(), 0);
    assert_eq!(worker.saved().identity(), own, "managers must know it");
}

#[test]
fn what_is_missing_from_the_assignments_is_stopped_and_forgotten() {
    let mut worker = worker(vec![plain(1), plain(2)]);
    start(&mut worker, 1);
    let only_two = Assignments {
        epoch: Epoch(1),
        revision: 2,
        tasks: vec![plain(2)],
    };
    worker.step(exchange::Input::Assigned(only_two), 5);
    let exit = Exit {
        code: Some(0),
        ..Exit::UNSEEN
    };
    let effects = tell(&mut worker, 1, Input::Exited { attempt: 1, exit });
    assert!(effects.contains(&exchange::Effect::Forget(TaskId(1))));
    assert!(worker.task(TaskId(1)).is_none() && worker.task(TaskId(2)).is_some());
    let last = worker.reports().last().unwrap();
    assert_eq!(
        (last.task, last.observation.state),
        (TaskId(1), State::Stopped),
        "still to be told"
    );
}
