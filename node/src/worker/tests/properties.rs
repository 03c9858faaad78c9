//! Properties of the worker and of one task under random inputs.

use super::model::{Manners, Op, World};
use super::{assignment, kind, timing};
use crate::service::{Desired, State};
use crate::types::{ClusterId, Epoch, Incarnation, TaskId, WorkerId};
use crate::worker::core::Worker;
use crate::worker::exchange::{Assignments, Input, Saved};
use crate::worker::task::Task;
use crate::worker::words::{self, Effect, Exit, FREE, Handle, Refusal};
use proptest::prelude::*;

/// Rows of things that a world does.
fn ops(len_max: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(any::<Op>(), 0..len_max)
}

/// Any input of a task, most of them out of place.
fn task_input() -> impl Strategy<Value = words::Input> {
    let attempt = 0_u32..6;
    let refusal = any::<bool>().prop_map(|is_permanent| Refusal {
        is_permanent,
        message: "nö".repeat(300),
    });
    let handle = (0..4_u32).prop_map(|number| Handle(number.to_string()));
    prop_oneof![
        2 => Just(words::Input::Tick),
        1 => prop_oneof![Just(Desired::Run), Just(Desired::Stop), Just(Desired::Remove)]
            .prop_map(words::Input::Desired),
        2 => prop_oneof![Just(FREE), Just(0), 0_u64..200_000].prop_map(|until_ms| words::Input::Leave { until_ms }),
        4 => proptest::option::of(refusal.clone()).prop_map(|no| words::Input::Prepared(no.map_or(Ok(()), Err))),
        6 => (attempt.clone(), proptest::result::maybe_ok(handle.clone(), refusal))
            .prop_map(|(attempt, result)| words::Input::Started { attempt, result }),
        6 => (attempt.clone(), any::<Option<i32>>()).prop_map(|(attempt, code)| {
            words::Input::Exited { attempt, exit: Exit { code, ..Exit::UNSEEN } }
        }),
        6 => (attempt, 0_u32..20, any::<bool>())
            .prop_map(|(attempt, number, healthy)| words::Input::Checked { attempt, number, healthy }),
        1 => proptest::option::of(handle).prop_map(|found| words::Input::Resumed { found }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_worker_keeps_its_promises_through_everything(ops in ops(200)) {
        let mut world = World::new(Manners { is_gentle: false, crashes: true });
        for op in ops {
            world.act(op);
        }
    }

    #[test]
    fn reports_are_the_same_with_and_without_the_workers_own_restarts(ops in ops(120)) {
        let run = |crashes| {
            let mut world = World::new(Manners { is_gentle: true, crashes });
            for op in &ops {
                world.act(*op);
            }
            world
        };
        let (still, shaken) = (run(false), run(true));
        prop_assert_eq!(&still.reports, &shaken.reports);
        prop_assert_eq!(still.met.starts, shaken.met.starts);
    }

    #[test]
    fn a_task_takes_any_input_and_never_goes_back(
        number in any::<u16>(),
        inputs in proptest::collection::vec((task_input(), 0_u64..70_000), 0..150),
    ) {
        let mut task = Task::new(assignment(1, kind(number)));
        let policy = task.assignment().spec.restart;
        let (mut now_ms, mut up_since, mut starts, mut total) = (0, None, 0_u32, 0_u32);
        for (input, pause_ms) in inputs {
            now_ms += pause_ms;
            let (before, attempts, desired) = (task.observation().state, task.attempts(), task.assignment().desired);
            let (was_live, was_up) = (task.is_live(), up_since);
            let effects = task.step(input.clone(), now_ms, &timing());
            let after = task.observation().state;
            prop_assert!(before == after || before.may_become(after), "{} to {}", before, after);
            prop_assert!(task.assignment().desired >= desired);
            prop_assert!(task.observation().message.len() <= 512);
            let changed = before != after || attempts != task.attempts();
            let reported = effects.iter().any(|effect| matches!(effect, Effect::Report(_)));
            prop_assert!(!changed || reported, "a change is reported");
            let persist = effects.iter().position(|effect| *effect == Effect::Persist);
            let begins = effects.iter().position(|effect| matches!(effect, Effect::Start { .. }));
            if was_live && (!task.is_live() || begins.is_some()) {
                if was_up.is_some_and(|since| now_ms - since >= policy.window_ms) {
                    starts = 0;
                }
                up_since = None;
            }
            if let words::Input::Started { attempt, result: Ok(_) } = &input
                && *attempt == attempts && was_live && was_up.is_none() {
                up_since = Some(now_ms);
            }
            if let (words::Input::Resumed { found: Some(_) }, true, None) = (&input, was_live, was_up) {
                up_since = Some(now_ms);
            }
            if let Some(place) = begins {
                prop_assert!(persist.is_some_and(|persist| persist < place), "durable before it starts");
                prop_assert!(task.assignment().desired == Desired::Run, "starts though it shall end");
                prop_assert_eq!(task.attempts(), attempts + 1);
                (starts, total) = (starts + 1, total + 1);
            }
            if policy.attempts_max > 0 {
                prop_assert!(starts <= policy.attempts_max + 1, "{} starts", starts);
            }
            if policy.condition == crate::service::spec::RestartCondition::Never {
                prop_assert!(total <= 1, "restarted against its policy");
            }
        }
    }

    #[test]
    fn a_worker_takes_any_input(
        steps in proptest::collection::vec((0_u8..9, task_input(), 0_u64..4, any::<u16>()), 0..200),
    ) {
        let (mut worker, _) = Worker::resume(Saved::empty(Incarnation(1)), Vec::new(), timing());
        for (what, input, small, number) in steps {
            let (task, attempt) = (TaskId(small), u32::from(number % 4));
            let input = match what {
                0 => Input::Tick,
                1 => Input::Connected,
                2 => Input::Disconnected,
                3 => Input::Welcome {
                    cluster: ClusterId(1 + small / 3),
                    worker: WorkerId(1 + u64::from(number % 20 == 0)),
                    epoch: Epoch(u64::from(number % 8)),
                },
                4 => Input::Assigned(Assignments {
                    epoch: Epoch(u64::from(number % 8)),
                    revision: u64::from(number),
                    tasks: (0..small).map(|id| assignment(id, kind(number ^ id as u16))).collect(),
                }),
                5 => Input::Answered {
                    heartbeat: small,
                    epoch: Epoch(u64::from(number % 8)),
                    revision: u64::from(number),
                    lease_ms: u64::MAX,
                    pace_ms: (number % 3 > 0).then(|| u64::from(number) / 8),
                },
                6 => Input::Acknowledged { life: Incarnation(small), number: u64::from(number) },
                7 => Input::OrphanGone { task, attempt },
                _ => Input::Task(task, input),
            };
            worker.step(input, u64::from(number) << (small * 16));
            prop_assert!(worker.tasks().all(|task| task.observation().state != State::Pending));
        }
    }
}

#[test]
fn the_model_meets_what_it_judges() {
    let mut rng = crate::rt::Rngs::from_seed([7; 32]).stream("model");
    let mut met = super::model::Met::default();
    for _ in 0..20 {
        let mut world = World::new(Manners {
            is_gentle: false,
            crashes: true,
        });
        for _ in 0..200 {
            let number = rand_core::RngCore::next_u64(&mut rng);
            world.act((number as u8, (number >> 8) as u16, (number >> 24) as u16));
        }
        met.add(&world.met);
    }
    assert!(
        met.starts > 100 && met.writers > 8 && met.restarts > 40,
        "{met:?}"
    );
    assert!(
        met.kills > 10 && met.lease_ends > 20 && met.found > 50,
        "{met:?}"
    );
}
