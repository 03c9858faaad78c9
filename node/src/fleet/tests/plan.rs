//! Plans are checked again when they take effect.

use super::*;
use crate::scheduler::model::Availability;
use crate::service::Desired;

/// A pending task of `spec`.
fn pending(crew: &mut Crew, spec: Spec) -> TaskId {
    let service = crew.create(spec);
    let task = crew.fleet.snapshot.next_task;
    crew.plan(vec![create(task, service)]);
    task
}

fn create(task: TaskId, service: ServiceId) -> Change {
    Change::Create {
        task,
        service,
        slot: 1,
        version: 1,
        failures: 0,
    }
}

fn assign(crew: &Crew, task: TaskId, name: &str) -> Change {
    let worker = crew.worker(name);
    Change::Assign {
        task,
        worker: worker.id,
        epoch: worker.epoch,
    }
}

#[test]
fn a_plan_of_another_term_is_void_whole() {
    let mut crew = Crew::with_workers(&["w1"]);
    let service = crew.create(spec("web", 1));
    let index = crew.fleet.index;
    crew.good(Command::Plan {
        term: Term(2),
        changes: vec![create(TaskId(1), service)],
    });
    assert!(crew.fleet.snapshot.tasks.is_empty());
    assert_eq!(crew.fleet.index, index);
}

#[test]
fn a_plan_that_comes_twice_does_its_work_once() {
    let mut crew = Crew::with_workers(&["w1"]);
    let service = crew.create(spec("web", 1));
    let changes = vec![create(TaskId(1), service), assign(&crew, TaskId(1), "w1")];
    crew.plan(changes.clone());
    assert_eq!(crew.told(), ["task.created", "task.assigned"]);
    crew.plan(changes);
    assert_eq!(crew.told(), [] as [&str; 0]);
    assert_eq!(crew.states(), [(1, State::Assigned)]);
}

#[test]
fn nothing_goes_to_a_worker_that_is_down_drained_or_in_another_session() {
    let mut crew = Crew::with_workers(&["w1"]);
    let task = pending(&mut crew, spec("web", 1));
    let change = assign(&crew, task, "w1");
    crew.down("w1");
    crew.plan(vec![change.clone()]);
    assert_eq!(crew.task(1).state, State::Pending);
    crew.hello("w1").unwrap();
    crew.plan(vec![change]);
    assert_eq!(crew.task(1).state, State::Pending);
    let change = assign(&crew, task, "w1");
    crew.good(Command::WorkerSet {
        name: "w1".to_owned(),
        availability: Some(Availability::Drain),
        labels: Default::default(),
    });
    crew.plan(vec![change.clone()]);
    assert_eq!(crew.task(1).state, State::Pending);
    crew.good(Command::WorkerSet {
        name: "w1".to_owned(),
        availability: Some(Availability::Active),
        labels: Default::default(),
    });
    crew.plan(vec![change]);
    assert_eq!(crew.task(1).state, State::Assigned);
    assert_eq!(crew.revision("w1"), crew.index);
}

#[test]
fn reservations_never_exceed_what_a_worker_has() {
    let mut crew = Crew::with_workers(&["w1"]);
    let service = crew.create(spec("web", 20));
    // A plan of a leader that cannot count.
    let mut changes: Vec<Change> = (1..=20).map(|id| create(TaskId(id), service)).collect();
    changes.extend((1..=20).map(|id| assign(&crew, TaskId(id), "w1")));
    crew.plan(changes);
    let assigned = crew
        .states()
        .iter()
        .filter(|(_, state)| *state == State::Assigned)
        .count();
    assert_eq!(assigned, 10, "ten tenths of a processor");
}

#[test]
fn a_volume_with_a_single_writer_is_given_once() {
    let mut crew = Crew::with_workers(&["w1"]);
    let first = pending(&mut crew, with_volume(spec("db", 1), "data"));
    let second = pending(&mut crew, with_volume(spec("copy", 1), "data"));
    let changes = vec![assign(&crew, first, "w1"), assign(&crew, second, "w1")];
    crew.plan(changes);
    assert_eq!(crew.task(first.0).state, State::Assigned);
    assert_eq!(crew.task(second.0).state, State::Pending);
    // A task whose worker is back holds its volume, whatever a leader made of its lease before.
    crew.report(first.0, State::Running);
    crew.down("w1");
    crew.plan(vec![Change::MarkLost { task: first }]);
    crew.hello("w1").unwrap();
    let change = assign(&crew, second, "w1");
    crew.plan(vec![change]);
    assert_eq!(crew.task(second.0).state, State::Pending);
}

#[test]
fn a_task_whose_worker_is_back_is_neither_lost_nor_forgotten_by_an_old_plan() {
    let mut crew = Crew::with_workers(&["w1"]);
    let task = pending(&mut crew, spec("web", 1));
    let change = assign(&crew, task, "w1");
    crew.plan(vec![change]);
    crew.report(1, State::Running);
    crew.plan(vec![
        Change::MarkLost { task },
        Change::End {
            task,
            state: State::Failed,
        },
        Change::Forget { task },
    ]);
    assert_eq!(crew.states(), [(1, State::Running)]);
    assert_eq!(crew.task(1).lost_ms, None);
    crew.down("w1");
    let desired = Desired::Remove;
    crew.plan(vec![
        Change::MarkLost { task },
        Change::SetDesired { task, desired },
    ]);
    assert_eq!(crew.told(), ["task.lost", "task.told"]);
    crew.hello("w1").unwrap();
    crew.plan(vec![Change::Forget { task }]);
    assert_eq!(crew.states(), [(1, State::Running)]);
    crew.plan(vec![Change::ClearLost { task }]);
    assert_eq!(crew.told(), ["task.found"]);
}

#[test]
fn what_a_worker_shall_do_has_a_new_revision_when_it_changes() {
    let mut crew = Crew::with_workers(&["w1"]);
    let task = pending(&mut crew, spec("web", 1));
    let before = crew.revision("w1");
    crew.report_numbered(crew.worker("w1").id, 1, 1, seen(State::Running));
    assert_eq!(crew.revision("w1"), before);
    let change = assign(&crew, task, "w1");
    crew.plan(vec![change]);
    assert_eq!(crew.revision("w1"), crew.index);
    crew.report(1, State::Running);
    assert!(crew.revision("w1") < crew.index);
    let desired = Desired::Stop;
    crew.plan(vec![Change::SetDesired { task, desired }]);
    assert_eq!(crew.revision("w1"), crew.index);
    crew.plan(vec![Change::SetDesired { task, desired }]);
    assert!(crew.revision("w1") < crew.index);
    crew.report(1, State::Stopped);
    crew.plan(vec![Change::Forget { task }]);
    assert_eq!(crew.revision("w1"), crew.index);
    assert_eq!(crew.told(), ["task.forgotten"]);
}

#[test]
fn a_service_that_is_removed_gets_no_task_and_stays_for_its_last() {
    let mut crew = Crew::with_workers(&["w1"]);
    let task = pending(&mut crew, spec("web", 1));
    let service = crew.service("web").id;
    crew.plan(vec![Change::ForgetService { service }]);
    let name = "web".to_owned();
    crew.good(Command::ServiceRemove { name });
    crew.plan(vec![
        create(TaskId(2), service),
        Change::ForgetService { service },
    ]);
    assert!(crew.service("web").removing);
    assert_eq!(crew.states(), [(task.0, State::Pending)]);
}

#[test]
fn ids_that_nobody_counted_to_are_void() {
    let mut crew = Crew::new();
    let service = crew.create(spec("web", 1));
    crew.plan(vec![create(TaskId(u64::MAX), service)]);
    crew.plan(vec![create(TaskId(1 << 40), service)]);
    assert!(crew.fleet.snapshot.tasks.is_empty());
}

#[test]
fn only_so_many_events_are_remembered() {
    let mut crew = Crew::new();
    let service = crew.create(spec("web", 1));
    let max = super::super::EVENTS_MAX as u64;
    let changes = (1..=max + 10)
        .map(|id| create(TaskId(id), service))
        .collect();
    crew.plan(changes);
    assert_eq!(crew.fleet.events.len(), super::super::EVENTS_MAX);
    assert!(crew.fleet.events.keys().all(|key| key.0 == crew.index));
}

#[test]
fn a_rollout_tells_its_steps() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    crew.report(1, State::Running);
    let mut new = spec("web", 1);
    new.command.push("2".to_owned());
    crew.good(Command::ServiceUpdate {
        name: "web".to_owned(),
        spec: new,
        expect_version: None,
    });
    crew.settle();
    crew.report(2, State::Running);
    crew.settle();
    crew.report(1, State::Stopped);
    crew.settle();
    let kinds: Vec<&str> = crew
        .fleet
        .events
        .values()
        .map(|event| event.kind.as_str())
        .collect();
    assert!(kinds.contains(&"service.rollout.completed"), "{kinds:?}");
}

#[test]
fn a_failure_counts_once_against_its_rollout() {
    let mut crew = Crew::with_workers(&["w1"]);
    let task = pending(&mut crew, spec("web", 1));
    let change = assign(&crew, task, "w1");
    crew.plan(vec![change]);
    crew.report(1, State::Failed);
    for told in [&["task.counted"] as &[&str], &[]] {
        crew.plan(vec![Change::CountFailure { task }]);
        assert_eq!(crew.told(), told);
        assert_eq!(crew.service("web").rollout.failures, 1);
    }
}
