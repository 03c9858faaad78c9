//! When a worker comes back: each row of section 6 of `docs/orchestration.md`.

use super::*;
use crate::service::Desired;

/// One copy of `web` that runs on `w1`, and `w2` without anything.
fn one_running() -> Crew {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    crew.report(1, State::Running);
    crew.hello("w2").unwrap();
    crew
}

/// The same, after `w1` was marked down and its task replaced on `w2`.
fn replaced() -> Crew {
    let mut crew = one_running();
    crew.down("w1");
    crew.settle();
    assert!(crew.task(1).is_lost());
    assert_eq!(crew.task(2).worker, Some(crew.worker("w2").id));
    crew
}

#[test]
fn not_marked_down_nothing_happens() {
    let mut crew = one_running();
    let mut word = crew.word_of("w1");
    word.hello.is_anew = true;
    word.hello.newest_report += 1;
    word.hello.tasks.get_mut(&TaskId(1)).unwrap().attempts = 4;
    crew.say(word).unwrap();
    crew.settle();
    assert_eq!(crew.states(), [(1, State::Running)]);
    assert_eq!(crew.fleet.notes[&TaskId(1)].attempts, 4);
    assert_eq!(crew.task(1).desired, Desired::Run);
}

#[test]
fn the_original_stays_if_its_replacement_does_not_run_yet() {
    let mut crew = replaced();
    crew.hello("w1").unwrap();
    crew.settle();
    assert_eq!(
        (crew.task(1).lost_ms, crew.task(1).desired),
        (None, Desired::Run)
    );
    assert_eq!(crew.task(2).desired, Desired::Stop);
}

#[test]
fn the_original_stops_if_its_replacement_runs() {
    let mut crew = replaced();
    crew.report(2, State::Running);
    crew.hello("w1").unwrap();
    crew.settle();
    assert_eq!(crew.task(1).desired, Desired::Stop);
    assert_eq!(crew.task(2).desired, Desired::Run);
}

#[test]
fn what_was_removed_meanwhile_is_stopped() {
    let mut crew = replaced();
    let word = crew.word_of("w1");
    let name = "web".to_owned();
    crew.good(Command::ServiceRemove { name });
    crew.settle();
    // It was forgotten, so it is not among the assignments that follow the welcome.
    assert!(!crew.fleet.snapshot.tasks.contains_key(&TaskId(1)));
    crew.say(word).unwrap();
    assert!(!crew.fleet.snapshot.tasks.contains_key(&TaskId(1)));
}

#[test]
fn the_original_of_an_older_version_stops_if_the_new_one_has_its_slot() {
    let mut crew = replaced();
    let mut new = spec("web", 1);
    new.command.push("2".to_owned());
    crew.good(Command::ServiceUpdate {
        name: "web".to_owned(),
        spec: new,
        expect_version: None,
    });
    crew.settle();
    crew.report(2, State::Stopped);
    crew.settle();
    assert_eq!(crew.task(3).version, 2);
    crew.hello("w1").unwrap();
    crew.settle();
    assert_eq!(crew.task(1).desired, Desired::Stop);
}

#[test]
fn what_the_worker_had_and_has_no_more_has_failed() {
    let mut crew = one_running();
    let mut word = crew.word_of("w1");
    word.hello.tasks.clear();
    word.hello.is_anew = true;
    crew.say(word).unwrap();
    assert_eq!(crew.task(1).state, State::Failed);
    let event = crew.last_event();
    assert!(event.message.contains("came back without it"), "{event:?}");
    crew.now_ms += 10_000;
    crew.settle();
    assert_eq!(crew.task(2).state, State::Assigned);
}

#[test]
fn what_it_was_told_to_end_and_has_no_more_has_stopped() {
    let mut crew = one_running();
    let name = "web".to_owned();
    crew.good(Command::ServiceRemove { name });
    crew.settle();
    let mut word = crew.word_of("w1");
    word.hello.tasks.clear();
    crew.say(word).unwrap();
    assert_eq!(crew.task(1).state, State::Stopped);
}

#[test]
fn what_was_only_assigned_is_sent_again() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    let mut word = crew.word_of("w1");
    word.hello.is_anew = true;
    assert!(word.hello.tasks.is_empty());
    crew.say(word).unwrap();
    assert_eq!(crew.states(), [(1, State::Assigned)]);
    // A new session has new assignments.
    assert_eq!(crew.revision("w1"), crew.index);
}

#[test]
fn what_it_was_never_given_is_not_known() {
    let mut crew = one_running();
    let mut word = crew.word_of("w2");
    word.hello.tasks.insert(TaskId(1), seen(State::Failed));
    word.hello.tasks.insert(TaskId(77), seen(State::Running));
    crew.say(word).unwrap();
    assert_eq!(crew.states(), [(1, State::Running)]);
}

#[test]
fn a_new_disk_under_the_name_has_lost_what_ran_and_gets_what_had_not_arrived() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 2));
    crew.settle();
    crew.report(1, State::Running);
    crew.down("w1");
    let mut word = crew.word_of("w1");
    word.hello.identity = Identity {
        life: Incarnation(1),
        ..Identity::default()
    };
    word.hello.epoch = Epoch(0);
    word.hello.tasks.clear();
    word.hello.newest_report = 0;
    crew.say(word).unwrap();
    assert_eq!(crew.states(), [(1, State::Failed), (2, State::Assigned)]);
    assert_eq!(crew.fleet.workers[&crew.worker("w1").id].acknowledged, 0);
    crew.report(2, State::Running);
    assert_eq!(crew.task(2).state, State::Running);
}

#[test]
fn the_original_of_an_older_version_stays_until_the_new_one_comes_to_its_slot() {
    let mut crew = one_running();
    crew.down("w1");
    let mut new = spec("web", 1);
    new.command.push("2".to_owned());
    crew.good(Command::ServiceUpdate {
        name: "web".to_owned(),
        spec: new,
        expect_version: None,
    });
    crew.hello("w1").unwrap();
    assert_eq!(crew.task(1).desired, Desired::Run);
    crew.settle();
    let live = crew.fleet.snapshot.tasks.values();
    assert!(live.clone().any(|task| task.version == 2), "start-first");
    assert_eq!(crew.task(1).desired, Desired::Run);
}
