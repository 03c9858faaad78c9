//! Facts of one task's life and of a worker's meetings with managers, step by step.

use super::{assignment, checked, timing, writer};
use crate::service::spec::RestartCondition;
use crate::service::{Desired, Spec, State};
use crate::types::{ClusterId, Epoch, Incarnation, TaskId, WorkerId};
use crate::worker::core::Worker;
use crate::worker::exchange::{self, Assignments, Found, Identity, Saved};
use crate::worker::task::Task;
use crate::worker::words::{Assignment, Effect, Exit, FREE, Handle, Input, Refusal, Signal};

/// A task in a test, with its time.
struct Life {
    task: Task,
    now_ms: u64,
}

impl Life {
    fn new(spec: Spec) -> Self {
        Life {
            task: Task::new(assignment(1, spec)),
            now_ms: 0,
        }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.task.step(input, self.now_ms, &timing())
    }

    /// What the task does when it wakes by itself, and how long that takes.
    fn wake(&mut self) -> (u64, Vec<Effect>) {
        let before = self.now_ms;
        self.now_ms = self
            .task
            .wake_ms(&timing())
            .expect("it waits for a time")
            .max(self.now_ms);
        (self.now_ms - before, self.step(Input::Tick))
    }

    /// Up to its first process.
    fn run(spec: Spec, until_ms: u64) -> Self {
        let mut life = Life::new(spec);
        assert!(
            life.step(Input::Leave { until_ms })
                .contains(&Effect::Prepare)
        );
        life.step(Input::Prepared(Ok(())));
        life.started();
        life
    }

    fn started(&mut self) -> Vec<Effect> {
        let attempt = self.task.attempts();
        let result = Ok(Handle(format!("p{attempt}")));
        self.step(Input::Started { attempt, result })
    }

    fn exited(&mut self, code: i32) -> Vec<Effect> {
        let exit = Exit {
            code: Some(code),
            ..Exit::UNSEEN
        };
        self.step(Input::Exited {
            attempt: self.task.attempts(),
            exit,
        })
    }

    fn state(&self) -> State {
        self.task.observation().state
    }
}

/// The signals among effects.
fn signals(effects: &[Effect]) -> Vec<Signal> {
    let signal = |effect: &Effect| match effect {
        Effect::Signal { signal, .. } => Some(*signal),
        _ => None,
    };
    effects.iter().filter_map(signal).collect()
}

#[test]
fn a_task_without_a_health_check_runs_as_soon_as_its_process_does() {
    let mut life = Life::new(Spec::new("web", &["web"]));
    let effects = life.step(Input::Leave { until_ms: FREE });
    assert!(
        matches!(&effects[..], [Effect::Persist, Effect::Prepare, Effect::Report(seen)] if seen.state == State::Preparing)
    );
    let effects = life.step(Input::Prepared(Ok(())));
    assert!(effects.contains(&Effect::Start {
        attempt: 1,
        until_ms: FREE
    }));
    life.started();
    assert_eq!(life.state(), State::Running);
    assert_eq!(
        life.task.wake_ms(&timing()),
        None,
        "a quiet task costs nothing"
    );
}

#[test]
fn crashes_are_restarted_with_doubling_pauses_until_the_policy_is_used_up() {
    let mut life = Life::run(Spec::new("web", &["web"]), FREE);
    for expected_ms in [1_000, 2_000, 4_000, 8_000, 16_000] {
        life.exited(1);
        assert_eq!(life.state(), State::Running, "a restart is no new task");
        let (pause_ms, effects) = life.wake();
        assert_eq!(pause_ms, expected_ms);
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Start { .. }))
        );
        life.started();
    }
    life.exited(1);
    let seen = life.task.observation();
    assert_eq!((seen.state, seen.attempts), (State::Failed, 6));
    assert_eq!(seen.message, "ended with code 1; restarted 5 times");
}

#[test]
fn a_long_run_makes_a_task_sound_again() {
    let mut life = Life::run(Spec::new("web", &["web"]), FREE);
    for _ in 0..20 {
        life.now_ms += 120_000;
        life.exited(1);
        assert_eq!(life.wake().0, 1_000);
        life.started();
    }
    assert_eq!(life.state(), State::Running);
}

#[test]
fn a_job_that_ends_well_is_complete() {
    let mut spec = Spec::new("job", &["job"]);
    spec.restart.condition = RestartCondition::OnFailure;
    let mut life = Life::run(spec, FREE);
    life.exited(3);
    life.wake();
    life.started();
    life.exited(0);
    assert_eq!(life.state(), State::Complete);
}

#[test]
fn a_task_that_does_not_stop_is_killed_after_its_grace() {
    let mut life = Life::run(Spec::new("web", &["web"]), FREE);
    assert_eq!(
        signals(&life.step(Input::Desired(Desired::Stop))),
        [Signal::Term]
    );
    assert_eq!(life.state(), State::Stopping);
    let (pause_ms, effects) = life.wake();
    assert_eq!((pause_ms, signals(&effects)), (10_000, vec![Signal::Kill]));
    let (pause_ms, effects) = life.wake();
    assert_eq!(
        (pause_ms, signals(&effects)),
        (5_000, vec![Signal::Kill]),
        "and again"
    );
    assert!(life.task.observation().message.contains("does not die"));
    life.exited(137);
    assert_eq!(
        life.state(),
        State::Stopped,
        "its code does not matter any more"
    );
    assert!(
        life.step(Input::Desired(Desired::Remove))
            .contains(&Effect::Forget)
    );
}

#[test]
fn a_stop_that_overtakes_the_start_reaches_the_process() {
    let mut life = Life::new(Spec::new("web", &["web"]));
    life.step(Input::Leave { until_ms: FREE });
    life.step(Input::Prepared(Ok(())));
    assert_eq!(signals(&life.step(Input::Desired(Desired::Stop))), []);
    assert_eq!(signals(&life.started()), [Signal::Term]);
    life.exited(0);
    assert_eq!(life.state(), State::Stopped);
}

#[test]
fn a_stop_between_two_attempts_ends_the_task_at_once() {
    let mut life = Life::run(Spec::new("web", &["web"]), FREE);
    life.exited(1);
    life.step(Input::Desired(Desired::Stop));
    assert_eq!(life.state(), State::Stopped);
    assert_eq!(life.task.wake_ms(&timing()), None);
}

#[test]
fn what_cannot_run_here_is_rejected_and_what_may_be_tried_again() {
    let refusal = |is_permanent| Refusal {
        is_permanent,
        message: "no image".to_owned(),
    };
    let mut life = Life::new(Spec::new("web", &["web"]));
    life.step(Input::Leave { until_ms: FREE });
    for _ in 0..5 {
        life.step(Input::Prepared(Err(refusal(false))));
        assert!(life.wake().1.contains(&Effect::Prepare));
    }
    life.step(Input::Prepared(Err(refusal(false))));
    assert_eq!(life.state(), State::Rejected);
    let mut life = Life::new(Spec::new("web", &["web"]));
    life.step(Input::Leave { until_ms: FREE });
    life.step(Input::Prepared(Ok(())));
    life.step(Input::Started {
        attempt: 1,
        result: Err(refusal(true)),
    });
    assert_eq!(life.state(), State::Rejected);
}

#[test]
fn a_check_that_gives_up_restarts_the_task() {
    let mut life = Life::run(checked(), FREE);
    assert_eq!(life.state(), State::Starting);
    life.step(Input::Checked {
        attempt: 1,
        number: 1,
        healthy: true,
    });
    assert_eq!(life.state(), State::Running);
    for number in [2, 3] {
        let (_, effects) = life.wake();
        assert!(effects.contains(&Effect::Check { attempt: 1, number }));
        let effects = life.step(Input::Checked {
            attempt: 1,
            number,
            healthy: false,
        });
        assert_eq!(signals(&effects).len(), number as usize - 2);
    }
    life.exited(0);
    assert_eq!(life.state(), State::Running);
    let (_, effects) = life.wake();
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Start { attempt: 2, .. }))
    );
}

#[test]
fn a_lease_that_runs_out_has_killed_its_task_before() {
    let mut life = Life::run(writer("v"), 30_000);
    let (at_ms, effects) = life.wake();
    assert_eq!((at_ms, signals(&effects)), (24_000, vec![Signal::Term]));
    let (later_ms, effects) = life.wake();
    assert_eq!(
        (later_ms, signals(&effects)),
        (5_000, vec![Signal::Kill]),
        "a second before the end"
    );
    life.exited(137);
    let seen = life.task.observation();
    assert_eq!(
        (seen.state, seen.message.as_str()),
        (State::Stopped, "its lease ran out")
    );
}

#[test]
fn a_lease_that_is_renewed_goes_on_and_one_that_is_short_shortens_a_stop() {
    let mut life = Life::run(writer("v"), 30_000);
    life.now_ms = 20_000;
    life.step(Input::Leave { until_ms: 50_000 });
    life.now_ms = 40_000;
    assert_eq!(
        signals(&life.step(Input::Desired(Desired::Stop))),
        [Signal::Term]
    );
    assert_eq!(
        life.wake().0,
        9_000,
        "a grace of ten seconds, but a lease of nine"
    );
}

#[test]
fn nothing_starts_without_its_lease_and_waits_for_it() {
    let mut life = Life::new(writer("v"));
    life.step(Input::Tick);
    life.step(Input::Prepared(Ok(())));
    assert_eq!(life.task.attempts(), 0);
    assert!(
        life.task
            .observation()
            .message
            .contains("right to its volumes")
    );
    let effects = life.step(Input::Leave { until_ms: 30_000 });
    assert!(effects.contains(&Effect::Start {
        attempt: 1,
        until_ms: 29_000
    }));
}

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
        },
        now_ms,
    );
}

fn plain(id: u64) -> Assignment {
    assignment(id, Spec::new("web", &["web"]))
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
    grant(&mut worker, 2, 1);
    assert_eq!(worker.lease_until_ms(), 31_000);
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
