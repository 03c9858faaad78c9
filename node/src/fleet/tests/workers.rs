//! Joining, reporting, being told and being removed.

use super::*;
use crate::fleet::REMOVED_MAX;
use crate::scheduler::model::{Availability, Removed};
use crate::worker::words::Exit;

#[test]
fn a_worker_joins_with_a_token_and_is_ready() {
    let mut crew = Crew::new();
    let mut word = crew.word_of("w1");
    word.token_hash = None;
    assert_eq!(
        crew.hello_refused(word, "needs a token"),
        Refusal::Forbidden
    );
    let (id, epoch) = crew.hello("w1").unwrap();
    assert_eq!((id, epoch), (WorkerId(crew.index), Epoch(1)));
    assert_eq!(crew.worker("w1").status, Status::Ready);
    assert_eq!(crew.told(), ["node.joined"]);
    assert_eq!(crew.fleet.tokens.values().next().unwrap().used, 1);
}

#[test]
fn a_hello_that_was_not_answered_is_said_again() {
    let mut crew = Crew::new();
    let word = crew.word_of("w1");
    let (id, _) = crew.say(word.clone()).unwrap();
    // It never heard its name; its disk is the same.
    let (again, epoch) = crew.say(word).unwrap();
    assert_eq!((again, epoch), (id, Epoch(2)));
    assert_eq!(crew.fleet.snapshot.workers.len(), 1);
    assert_eq!(crew.fleet.tokens.values().next().unwrap().used, 1);
}

#[test]
fn the_same_session_goes_on_unless_something_happened() {
    let mut crew = Crew::with_workers(&["w1"]);
    let revision = crew.revision("w1");
    assert_eq!(crew.hello("w1").unwrap().1, Epoch(1));
    assert_eq!(crew.revision("w1"), revision);
    let mut anew = crew.word_of("w1");
    anew.hello.is_anew = true;
    assert_eq!(crew.say(anew).unwrap().1, Epoch(2));
    assert_eq!(crew.told(), ["node.restarted"]);
    assert_eq!(crew.revision("w1"), crew.index);
    crew.down("w1");
    assert_eq!(crew.hello("w1").unwrap().1, Epoch(3));
    assert_eq!(crew.told(), ["node.ready"]);
}

#[test]
fn another_disk_takes_a_name_only_when_its_worker_is_down() {
    let mut crew = Crew::with_workers(&["w1"]);
    let id = crew.worker("w1").id;
    let mut word = crew.word_of("w1");
    word.hello.identity.life = Incarnation(1);
    word.hello.identity.worker = WorkerId(0);
    word.hello.epoch = Epoch(0);
    assert_eq!(
        crew.hello_refused(word.clone(), "is there and ready"),
        Refusal::Conflict
    );
    crew.down("w1");
    assert_eq!(crew.say(word).unwrap(), (id, Epoch(2)));
    assert_eq!(crew.fleet.workers[&id].life, Incarnation(1));
}

#[test]
fn a_disk_keeps_the_name_that_it_has_in_the_cluster() {
    let mut crew = Crew::with_workers(&["w1"]);
    let mut word = crew.word_of("w1");
    word.machine.name = "other".to_owned();
    assert_eq!(
        crew.hello_refused(word, "is that of worker w1"),
        Refusal::Conflict
    );
    assert_eq!(crew.worker("w1").status, Status::Ready);
}

#[test]
fn a_known_worker_with_another_disk_shows_a_token() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.down("w1");
    let mut word = crew.word_of("w1");
    word.hello.identity.life = Incarnation(1);
    word.token_hash = None;
    assert_eq!(
        crew.hello_refused(word, "another data directory"),
        Refusal::Conflict
    );
}

#[test]
fn a_removed_worker_joins_again_only_by_a_token_that_was_made_afterwards() {
    let mut crew = Crew::with_workers(&["w1"]);
    let mut word = crew.word_of("w1");
    let old = crew.worker("w1").id;
    let remove = Command::WorkerRemove {
        name: "w1".to_owned(),
        force: false,
    };
    crew.good(remove.clone());
    assert_eq!(crew.told(), ["node.removed"]);
    assert_eq!(crew.refused(remove.clone(), "no worker"), Refusal::NotFound);
    word.token_hash = None;
    assert_eq!(
        crew.hello_refused(word.clone(), "was removed"),
        Refusal::NotFound
    );
    // The token with which it joined stands in its machine's files.
    word.token_hash = Some(hash('a'));
    let why = "stays out";
    assert_eq!(crew.hello_refused(word.clone(), why), Refusal::NotFound);
    // Nor does it take the place of another machine under its name.
    let mut other = crew.word_of("w1");
    other.hello.identity.life = Incarnation(9);
    crew.say(other).unwrap();
    crew.down("w1");
    assert_eq!(crew.hello_refused(word.clone(), why), Refusal::NotFound);
    crew.good(remove);
    crew.good(Command::TokenCreate {
        hash: hash('b'),
        ttl_ms: 86_400_000,
        role: crate::fleet::TokenRole::Worker,
    });
    let token = crew.index;
    word.token_hash = Some(hash('b'));
    let (id, epoch) = crew.say(word.clone()).unwrap();
    assert_eq!(crew.fleet.workers[&id].token, token);
    // It never heard its new name: it says the same again, and that is no other worker, whatever became of the token.
    crew.good(Command::TokenRevoke { id: token });
    word.token_hash = Some(hash('a'));
    assert_eq!(crew.say(word).unwrap(), (id, Epoch(epoch.0 + 1)));
    // Its own epochs go on, or it would not follow.
    assert!(id != old && epoch == Epoch(2));
}

#[test]
fn an_older_hello_ends_no_task() {
    let mut crew = Crew::with_workers(&["w1"]);
    let late = crew.word_of("w1");
    crew.create(spec("web", 1));
    crew.settle();
    crew.report(1, State::Running);
    assert_eq!(crew.hello_refused(late, "is older"), Refusal::Conflict);
    assert_eq!(crew.task(1).state, State::Running);
}

#[test]
fn machines_change_and_labels_are_the_operators() {
    let mut crew = Crew::with_workers(&["w1"]);
    let mut word = crew.word_of("w1");
    word.machine.capacity.cpu_milli = 4_000;
    word.machine.address = "elsewhere:1".to_owned();
    word.machine.labels.insert("a".to_owned(), "b".to_owned());
    crew.say(word).unwrap();
    let worker = crew.worker("w1");
    assert_eq!(worker.capacity.cpu_milli, 4_000);
    assert_eq!(worker.labels.len(), 1);
    assert_eq!(crew.fleet.workers[&worker.id].address, "elsewhere:1");
    let mut wrong = crew.word_of("w1");
    wrong.machine.name = "-".to_owned();
    assert_eq!(crew.hello_refused(wrong, "1 to 63"), Refusal::Invalid);
}

#[test]
fn a_report_is_taken_once_and_moves_forward_only() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    let worker = crew.worker("w1").id;
    crew.report_numbered(worker, 5, 1, seen(State::Running));
    assert_eq!(crew.task(1).running_since_ms, Some(crew.now_ms));
    assert_eq!(crew.told(), ["task.running"]);
    let index = crew.fleet.index;
    crew.report_numbered(worker, 5, 1, seen(State::Failed));
    crew.report_numbered(worker, 4, 1, seen(State::Failed));
    assert_eq!(
        (crew.task(1).state, crew.fleet.index),
        (State::Running, index)
    );
    // A newer one that says less of its state still counts for the rest.
    let mut again = seen(State::Starting);
    again.attempts = 3;
    again.message = "it crashed".to_owned();
    crew.report_numbered(worker, 6, 1, again);
    assert_eq!(crew.task(1).state, State::Running);
    let note = &crew.fleet.notes[&TaskId(1)];
    assert_eq!((note.attempts, note.message.as_str()), (3, "it crashed"));
    assert_eq!(crew.told(), ["task.restarted"]);
}

#[test]
fn among_the_ends_the_first_one_stands_and_says_why() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    let mut failed = seen(State::Failed);
    failed.exit = Some(Exit {
        code: Some(3),
        ..Exit::default()
    });
    failed.message = "used up its attempts".to_owned();
    crew.report_as(1, failed);
    let event = crew.last_event();
    assert_eq!(event.kind, "task.failed");
    assert_eq!(
        event.message,
        "web.1 (task 1) is failed on w1: ended with code 3: used up its attempts"
    );
    crew.report(1, State::Stopped);
    assert_eq!(crew.task(1).state, State::Failed);
}

#[test]
fn reports_of_another_session_or_life_or_of_foreign_tasks_do_nothing() {
    let mut crew = Crew::with_workers(&["w1", "w2"]);
    crew.create(spec("web", 1));
    crew.settle();
    let home = crew.task(1).worker.unwrap();
    let others = crew.fleet.snapshot.workers.keys();
    let other = *others.into_iter().find(|&&id| id != home).unwrap();
    crew.report_numbered(other, 1, 1, seen(State::Failed));
    let life = crew.fleet.workers[&home].life;
    for (epoch, life) in [(Epoch(9), life), (Epoch(1), Incarnation(9))] {
        let batch = vec![WorkerReports {
            worker: home,
            epoch,
            life,
            reports: vec![Report {
                number: 1,
                task: TaskId(1),
                observation: seen(State::Failed),
            }],
        }];
        crew.good(Command::WorkerReports { batch });
    }
    assert_eq!(crew.task(1).state, State::Assigned);
}

#[test]
fn only_the_leader_of_the_term_calls_a_worker_down_and_in_its_session() {
    let mut crew = Crew::with_workers(&["w1"]);
    let id = crew.worker("w1").id;
    for (term, epoch) in [(Term(2), Epoch(1)), (Term(3), Epoch(2))] {
        let changes = vec![(id, epoch, Status::Down)];
        crew.good(Command::WorkerStatus { term, changes });
        assert_eq!(crew.worker("w1").status, Status::Ready);
    }
    crew.down("w1");
    assert_eq!(crew.worker("w1").status, Status::Down);
    assert_eq!(crew.told(), ["node.down"]);
    // Nothing but its hello makes it ready again.
    let changes = vec![(id, Epoch(1), Status::Ready)];
    let term = crew.term;
    crew.good(Command::WorkerStatus { term, changes });
    assert_eq!(crew.worker("w1").status, Status::Down);
}

#[test]
fn operators_drain_activate_and_label() {
    let mut crew = Crew::with_workers(&["w1"]);
    let set = |availability, labels: &[(&str, Option<&str>)]| Command::WorkerSet {
        name: "w1".to_owned(),
        availability,
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect(),
    };
    crew.good(set(Some(Availability::Drain), &[]));
    assert_eq!(crew.told(), ["node.drained"]);
    crew.good(set(Some(Availability::Drain), &[]));
    assert_eq!(crew.told(), [] as [&str; 0]);
    crew.good(set(None, &[("zone", None), ("rack", Some("r1"))]));
    assert_eq!(crew.told(), ["node.labelled"]);
    let worker = crew.worker("w1");
    assert_eq!(worker.availability, Availability::Drain);
    assert_eq!(worker.labels, [("rack".to_owned(), "r1".to_owned())].into());
    crew.good(set(Some(Availability::Active), &[]));
    assert_eq!(crew.told(), ["node.activated"]);
    let wrong = set(None, &[("a b", Some("c"))]);
    assert_eq!(crew.refused(wrong, "without spaces"), Refusal::Invalid);
}

#[test]
fn a_worker_with_tasks_goes_only_by_force_and_its_tasks_with_it() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 2));
    crew.settle();
    crew.report(1, State::Running);
    let remove = |force| Command::WorkerRemove {
        name: "w1".to_owned(),
        force,
    };
    assert_eq!(
        crew.refused(remove(false), "has 2 tasks"),
        Refusal::Conflict
    );
    crew.good(remove(true));
    assert_eq!(crew.states(), [(1, State::Failed), (2, State::Failed)]);
    assert!(crew.task(1).lost_ms.is_some());
    assert_eq!(crew.told(), ["task.failed", "task.failed", "node.removed"]);
}

#[test]
fn one_that_is_down_goes_unless_it_may_still_write() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    let remove = |force| Command::WorkerRemove {
        name: "w1".to_owned(),
        force,
    };
    crew.down("w1");
    let mut other = Crew::with_workers(&["w1"]);
    other.create(with_volume(spec("db", 1), "data"));
    other.settle();
    other.down("w1");
    assert_eq!(
        other.refused(remove(false), "must never run twice"),
        Refusal::Conflict
    );
    crew.good(remove(false));
    other.good(remove(true));
}

#[test]
fn a_removed_worker_keeps_its_name_in_what_is_told_of_it() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(with_volume(spec("db", 1), "data"));
    crew.settle();
    let id = crew.worker("w1").id;
    crew.good(Command::WorkerRemove {
        name: "w1".to_owned(),
        force: true,
    });
    let removed = &crew.fleet.snapshot.removed[&id];
    assert_eq!((removed.name.as_str(), removed.by_force), ("w1", true));
    assert_eq!(removed.index, crew.index);
    crew.hello("w2").unwrap();
    crew.settle();
    let waits = crew.fleet.snapshot.tasks.values().last().unwrap().id;
    let why = crate::scheduler::explain(&crew.fleet.snapshot, &crew.moment, waits).unwrap();
    let says = "volume data lies on w1, which was removed";
    assert!(why.summary.contains(says), "{}", why.summary);
}

#[test]
fn removed_workers_are_forgotten_beyond_a_bound_but_for_those_with_volumes() {
    let mut crew = Crew::with_workers(&["w1"]);
    let on_w1 = Some("w1".to_owned());
    let name = "data".to_owned();
    crew.good(Command::VolumeCreate {
        name,
        worker: on_w1,
    });
    let first = crew.worker("w1").id;
    let remove = |name: &str| Command::WorkerRemove {
        name: name.to_owned(),
        force: false,
    };
    crew.good(remove("w1"));
    for id in 1..=u64::try_from(REMOVED_MAX).unwrap() {
        let removed = Removed::default();
        let removed = Removed {
            index: 1_000 + id,
            ..removed
        };
        let id = WorkerId(1_000_000 + id);
        crew.fleet.snapshot.removed.insert(id, removed);
    }
    let mut fleet = crew.fleet.clone();
    let at = At {
        index: 9_000_000,
        term: crew.term,
        time_ms: crew.now_ms,
    };
    let word = crew.word_of("w2");
    fleet
        .apply(&Command::WorkerHello(Box::new(word)), at)
        .unwrap();
    fleet.apply(&remove("w2"), at).unwrap();
    let removed = &fleet.snapshot.removed;
    assert!(
        removed.contains_key(&first),
        "a volume lies on it: its name is needed"
    );
    assert!(!removed.contains_key(&WorkerId(1_000_001)), "the oldest");
    assert!(removed.contains_key(&WorkerId(9_000_000)));
}
