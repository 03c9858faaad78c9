//! Facts of one task's life, step by step.

use super::{assignment, checked, timing, writer};
use crate::service::spec::RestartCondition;
use crate::service::{Desired, Spec, State};
use crate::worker::task::Task;
use crate::worker::words::{Effect, Exit, FREE, Handle, Input, Refusal, Signal};

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
    let [Effect::Persist, Effect::Prepare, Effect::Report(seen)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(seen.state, State::Preparing);
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
