//! Services, volumes and tokens.

use super::*;
use crate::fleet::{Token, TokenRole};
use crate::scheduler::model::Phase;
use crate::service::spec::Mode;

fn update(spec: Spec) -> Command {
    Command::ServiceUpdate {
        name: spec.name.clone(),
        spec,
        expect_version: None,
    }
}

fn scale(name: &str, replicas: u32) -> Command {
    let name = name.to_owned();
    Command::ServiceScale { name, replicas }
}

fn roll_back(name: &str) -> Command {
    let name = name.to_owned();
    Command::ServiceRollBack { name }
}

fn pause(name: &str, paused: bool) -> Command {
    let name = name.to_owned();
    Command::ServicePause { name, paused }
}

fn remove(name: &str) -> Command {
    let name = name.to_owned();
    Command::ServiceRemove { name }
}

fn second(name: &str) -> Spec {
    Spec {
        command: vec!["run".to_owned(), "2".to_owned()],
        ..spec(name, 2)
    }
}

#[test]
fn a_service_is_made_once() {
    let mut crew = Crew::new();
    let id = crew.create(spec("web", 2));
    assert_eq!(id, ServiceId(crew.index));
    assert_eq!(crew.told(), ["service.created"]);
    assert_eq!(crew.fleet.services[&id].created_ms, crew.now_ms);
    let again = Command::ServiceCreate {
        spec: spec("web", 2),
    };
    assert_eq!(crew.refused(again, "there already"), Refusal::Conflict);
}

#[test]
fn a_wrong_specification_is_refused_with_all_that_is_wrong() {
    let mut crew = Crew::new();
    let mut wrong = spec("Web", 2);
    wrong.command.clear();
    let create = Command::ServiceCreate { spec: wrong };
    assert_eq!(crew.refused(create, "a-z, 0-9"), Refusal::Invalid);
    let mut long = spec("web", 2);
    long.env.insert("A".to_owned(), "x".repeat(70_000));
    let create = Command::ServiceCreate { spec: long };
    assert_eq!(crew.refused(create, "bytes as JSON"), Refusal::Invalid);
}

#[test]
fn an_update_names_the_version_that_it_replaces() {
    let mut crew = Crew::new();
    crew.create(spec("web", 2));
    let stale = Command::ServiceUpdate {
        name: "web".to_owned(),
        spec: second("web"),
        expect_version: Some(7),
    };
    assert_eq!(crew.refused(stale, "has version 1"), Refusal::Precondition);
    crew.good(update(second("web")));
    let service = crew.service("web");
    assert_eq!((service.current.version, service.current.contents), (2, 2));
    assert_eq!(service.rollout.phase, Phase::Running);
    assert_eq!(crew.told(), ["service.updated"]);
}

#[test]
fn an_update_that_changes_nothing_is_no_version() {
    let mut crew = Crew::new();
    let id = crew.create(spec("web", 2));
    let index = crew.fleet.index;
    let done = crew.good(update(spec("web", 2)));
    assert_eq!(done, Done::Service { id, version: 1 });
    assert_eq!(crew.fleet.index, index);
}

#[test]
fn name_and_mode_stay() {
    let mut crew = Crew::new();
    crew.create(spec("web", 2));
    let other = Command::ServiceUpdate {
        name: "web".to_owned(),
        spec: spec("api", 2),
        expect_version: None,
    };
    assert_eq!(crew.refused(other, "keeps its name"), Refusal::Invalid);
    let mut global = spec("web", 2);
    global.mode = Mode::Global;
    assert_eq!(
        crew.refused(update(global.clone()), "keeps its mode"),
        Refusal::Invalid
    );
    global.name = "each".to_owned();
    crew.create(global);
    assert_eq!(
        crew.refused(scale("each", 3), "is global"),
        Refusal::Invalid
    );
}

#[test]
fn scaling_is_a_version_and_no_rollout() {
    let mut crew = Crew::new();
    let id = crew.create(spec("web", 2));
    let done = crew.good(scale("web", 5));
    assert_eq!(done, Done::Service { id, version: 2 });
    assert_eq!(crew.service("web").rollout.phase, Phase::None);
    assert_eq!(crew.told(), ["service.scaled"]);
    crew.good(scale("web", 5));
    assert_eq!(crew.told(), [] as [&str; 0]);
    assert_eq!(
        crew.refused(scale("web", 10_001), "at most 10000"),
        Refusal::Invalid
    );
    assert_eq!(
        crew.refused(scale("api", 1), "no service `api`"),
        Refusal::NotFound
    );
    // What a task runs is its contents, as they were when they appeared.
    assert_eq!(*crew.fleet.specs[&(id, 1)], spec("web", 2));
}

#[test]
fn there_must_be_something_to_go_back_to() {
    let mut crew = Crew::new();
    crew.create(spec("web", 2));
    assert_eq!(
        crew.refused(roll_back("web"), "no version before"),
        Refusal::Conflict
    );
    crew.good(update(second("web")));
    crew.good(roll_back("web"));
    let service = crew.service("web");
    assert_eq!((service.current.version, service.current.contents), (3, 1));
    assert_eq!(service.rollout.phase, Phase::RollingBack);
    assert_eq!(crew.told(), ["service.rolled_back"]);
}

#[test]
fn only_a_running_rollout_is_paused_and_only_a_paused_one_goes_on() {
    let mut crew = Crew::new();
    crew.create(spec("web", 2));
    assert_eq!(
        crew.refused(pause("web", true), "no rollout"),
        Refusal::Conflict
    );
    crew.good(update(second("web")));
    assert_eq!(
        crew.refused(pause("web", false), "not paused"),
        Refusal::Conflict
    );
    crew.good(pause("web", true));
    assert_eq!(crew.told(), ["service.paused"]);
    assert_eq!(
        crew.refused(pause("web", true), "already"),
        Refusal::Conflict
    );
    crew.good(pause("web", false));
    assert_eq!(crew.service("web").rollout.phase, Phase::Running);
    assert_eq!(crew.told(), ["service.continued"]);
}

#[test]
fn a_rollout_that_goes_on_forgets_the_failures_that_paused_it() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    crew.report(1, State::Running);
    let mut bad = second("web");
    bad.replicas = 1;
    bad.update.on_failure = crate::service::spec::OnFailure::Pause;
    crew.good(update(bad));
    crew.settle();
    crew.report(2, State::Failed);
    crew.settle();
    let rollout = crew.service("web").rollout;
    assert_eq!((rollout.phase, rollout.failures), (Phase::Paused, 1));
    crew.good(pause("web", false));
    crew.settle();
    assert_eq!(crew.service("web").rollout.phase, Phase::Running);
}

#[test]
fn a_removed_service_goes_with_its_last_task() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(spec("web", 1));
    crew.settle();
    crew.report(1, State::Running);
    crew.good(remove("web"));
    crew.good(remove("web"));
    crew.settle();
    assert!(crew.service("web").removing);
    for (name, says) in [
        ("web.1", "web.1 is slot 1 of service web: name the service"),
        ("1", "1 is a task, of service web: name the service"),
        ("db.1", "`service ls`"),
    ] {
        assert_eq!(crew.refused(scale(name, 1), says), Refusal::NotFound);
    }
    let again = Command::ServiceCreate {
        spec: spec("web", 1),
    };
    assert_eq!(crew.refused(again, "being removed"), Refusal::Conflict);
    assert_eq!(
        crew.refused(scale("web", 1), "being removed"),
        Refusal::Conflict
    );
    crew.report(1, State::Stopped);
    crew.settle();
    assert_eq!(crew.fleet.service("web"), None);
    assert_eq!(crew.last_event().kind, "service.deleted");
    assert!(crew.fleet.specs.is_empty() && crew.fleet.notes.is_empty());
}

#[test]
fn a_specification_is_kept_for_as_long_as_a_task_has_it() {
    let mut crew = Crew::with_workers(&["w1"]);
    let id = crew.create(spec("web", 2));
    crew.settle();
    crew.report(1, State::Running);
    crew.report(2, State::Running);
    crew.good(update(second("web")));
    let mut third = second("web");
    third.command.push("3".to_owned());
    crew.good(update(third));
    // The second was never rolled out whole and nobody has it.
    let versions = |crew: &Crew| crew.fleet.specs.keys().map(|key| key.1).collect::<Vec<_>>();
    assert_eq!(versions(&crew), [1, 3]);
    assert_eq!(*crew.fleet.specs[&(id, 1)], spec("web", 2));
}

#[test]
fn a_volume_lies_where_its_first_task_goes() {
    let mut crew = Crew::with_workers(&["w1"]);
    crew.create(with_volume(spec("db", 1), "data"));
    crew.settle();
    assert!(crew.told().contains(&"volume.placed"));
    let place = crew.fleet.snapshot.volumes.get("data").unwrap().worker;
    assert_eq!(place, Some(crew.worker("w1").id));
    let remove = Command::VolumeRemove {
        name: "data".to_owned(),
    };
    assert_eq!(
        crew.refused(remove.clone(), "named by service db"),
        Refusal::Conflict
    );
    crew.good(super::services::remove("db"));
    crew.settle();
    crew.report(1, State::Stopped);
    crew.settle();
    crew.good(remove.clone());
    assert_eq!(crew.told(), ["volume.removed"]);
    assert_eq!(crew.refused(remove, "no volume"), Refusal::NotFound);
}

#[test]
fn a_volume_is_made_once_and_on_a_worker_that_there_is() {
    let mut crew = Crew::with_workers(&["w1"]);
    let make = |worker: Option<&str>| Command::VolumeCreate {
        name: "data".to_owned(),
        worker: worker.map(str::to_owned),
    };
    assert_eq!(
        crew.refused(make(Some("w2")), "no worker `w2`"),
        Refusal::NotFound
    );
    crew.good(make(Some("w1")));
    assert_eq!(crew.refused(make(None), "there already"), Refusal::Conflict);
}

#[test]
fn a_volume_that_went_with_its_worker_may_be_given_up() {
    let mut crew = Crew::with_workers(&["w1", "w2"]);
    crew.create(with_volume(spec("db", 1), "data"));
    crew.settle();
    let place = crew.task(1).worker.unwrap();
    let name = crew.fleet.snapshot.workers[&place].name.clone();
    crew.down(&name);
    crew.good(Command::WorkerRemove { name, force: true });
    crew.settle();
    // Its place is empty, and what waits for it says why.
    assert!(
        crew.states()
            .iter()
            .any(|(_, state)| *state == State::Pending)
    );
    crew.good(Command::VolumeRemove {
        name: "data".to_owned(),
    });
    crew.settle();
    assert!(
        crew.states()
            .iter()
            .any(|(_, state)| *state == State::Assigned)
    );
}

/// A manager that shows the token of this letter.
fn manager(name: &str, life: u64, letter: char) -> Command {
    Command::ManagerJoin {
        name: name.to_owned(),
        life: Incarnation(life),
        token_hash: hash(letter),
    }
}

#[test]
fn a_token_lets_in_only_what_it_is_for() {
    let mut crew = Crew::new();
    let Done::Token { id, .. } = crew.good(Command::TokenCreate {
        hash: hash('b'),
        ttl_ms: 1_000,
        role: TokenRole::Manager,
    }) else {
        panic!("no token");
    };
    let mut word = crew.word_of("w1");
    word.token_hash = Some(hash('b'));
    let why = format!("token {id} is for managers: make one with `cluster token`");
    assert_eq!(crew.hello_refused(word, &why), Refusal::Forbidden);
    for (letter, why) in [
        (
            'a',
            "is for workers: make one with `cluster token create --role manager`",
        ),
        ('c', "unknown, expired or revoked"),
    ] {
        let refused = crew.refused(manager("n4", 7, letter), why);
        assert_eq!(refused, Refusal::Forbidden);
    }
    for (name, life) in [("", 7), ("n4", 0), (&*"n".repeat(64), 7)] {
        let refused = crew.refused(manager(name, life, 'b'), "has a name of 1 to 63");
        assert_eq!(refused, Refusal::Invalid);
    }
    assert_eq!(crew.fleet.tokens[&id].used, 0);
    crew.now_ms += 2_000;
    let refused = crew.refused(manager("n4", 7, 'b'), "has expired");
    assert_eq!(refused, Refusal::Forbidden);
}

#[test]
fn a_manager_is_let_in_once_for_each_of_its_disks() {
    let mut crew = Crew::new();
    let Done::Token { id, expires_ms } = crew.good(Command::TokenCreate {
        hash: hash('b'),
        ttl_ms: 100_000,
        role: TokenRole::Manager,
    }) else {
        panic!("no token");
    };
    assert_eq!(crew.fleet.admission(&hash('b'), "n4", Incarnation(7)), None);
    for _ in 0..3 {
        let done = crew.good(manager("n4", 7, 'b'));
        assert_eq!(done, Done::Token { id, expires_ms });
    }
    assert_eq!(crew.fleet.tokens[&id].used, 1);
    let told = crew
        .fleet
        .events
        .values()
        .filter(|event| event.kind == "manager.joined");
    let told: Vec<&String> = told.map(|event| &event.message).collect();
    assert!(matches!(&told[..], [one] if one.contains(&format!("n4 is let in by token {id}"))));
    crew.good(manager("n4", 8, 'b'));
    crew.good(manager("n5", 9, 'b'));
    assert_eq!(crew.fleet.tokens[&id].used, 3);
    assert_eq!(
        crew.fleet.admission(&hash('b'), "n5", Incarnation(9)),
        Some(id)
    );
    assert_eq!(crew.fleet.admission(&hash('b'), "n6", Incarnation(9)), None);
    for life in 10..100 {
        crew.good(manager("n6", life, 'b'));
    }
    assert_eq!(crew.fleet.tokens[&id].admitted.len(), 64);
    crew.good(Command::TokenRevoke { id });
    assert_eq!(crew.fleet.admission(&hash('b'), "n5", Incarnation(9)), None);
    let refused = crew.refused(manager("n5", 9, 'b'), "unknown, expired or revoked");
    assert_eq!(refused, Refusal::Forbidden);
}

#[test]
fn a_token_of_before_there_were_roles_is_for_workers() {
    let old = r#"{"hash":"aa","expires_ms":5,"created_ms":1,"used":2}"#;
    let token: Token = serde_json::from_str(old).unwrap();
    assert_eq!(token.role, TokenRole::Worker);
    assert_eq!(serde_json::to_string(&token).unwrap(), old);
    let old = r#"{"do":"token_create","hash":"aa","ttl_ms":5}"#;
    let command: Command = serde_json::from_str(old).unwrap();
    assert_eq!(serde_json::to_string(&command).unwrap(), old);
}

#[test]
fn a_token_ends_by_time_or_by_will() {
    let mut crew = Crew::new();
    let make = |letter, ttl_ms| Command::TokenCreate {
        hash: hash(letter),
        ttl_ms,
        role: crate::fleet::TokenRole::Worker,
    };
    let Done::Token { id, expires_ms } = crew.good(make('b', 100)) else {
        panic!("no token");
    };
    assert_eq!(expires_ms, crew.now_ms + 100);
    assert_eq!(crew.refused(make('b', 100), "already"), Refusal::Conflict);
    assert_eq!(crew.refused(make('b', 0), "lives from"), Refusal::Invalid);
    assert_eq!(crew.refused(make('g', 1), "SHA-256"), Refusal::Invalid);
    crew.now_ms += 1_000;
    let mut word = crew.word_of("w1");
    word.token_hash = Some(hash('b'));
    assert_eq!(
        crew.hello_refused(word.clone(), "expired"),
        Refusal::Forbidden
    );
    crew.good(make('c', 100));
    assert!(!crew.fleet.tokens.contains_key(&id));
    let revoke = Command::TokenRevoke { id: crew.index };
    crew.good(revoke.clone());
    assert_eq!(crew.refused(revoke, "no token"), Refusal::NotFound);
    word.token_hash = Some(hash('c'));
    assert_eq!(crew.hello_refused(word, "unknown"), Refusal::Forbidden);
}

#[test]
fn copies_are_spread_anew_when_somebody_asks_or_a_worker_joins() {
    let mut crew = Crew::with_workers(&["w1"]);
    let mut web = spec("web", 4);
    web.placement.rebalance = crate::service::spec::Rebalance::OnJoin;
    crew.create(web);
    crew.create(spec("api", 2));
    crew.settle();
    (1..=6).for_each(|task| crew.report(task, State::Running));
    crew.hello("w2").unwrap();
    assert_eq!(crew.told(), ["node.joined", "service.rebalancing"]);
    assert!(crew.service("web").rebalancing && !crew.service("api").rebalancing);
    let ask = |name: &str| Command::ServiceRebalance {
        name: name.to_owned(),
    };
    crew.good(ask("api"));
    assert_eq!(crew.told(), ["service.rebalancing"]);
    crew.good(ask("api"));
    assert_eq!(crew.told(), [] as [&str; 0]);
    crew.settle();
    let second = crew.worker("w2").id;
    let tasks = crew.fleet.snapshot.tasks.values();
    assert_eq!(tasks.filter(|task| task.worker == Some(second)).count(), 2);
    let mut global = spec("each", 1);
    global.mode = Mode::Global;
    crew.create(global);
    assert_eq!(crew.refused(ask("each"), "is global"), Refusal::Invalid);
}

#[test]
fn there_are_only_so_many_services_and_volumes() {
    use crate::fleet::NAMES_MAX;
    use crate::scheduler::model::{Service, Volume};
    let mut fleet = Fleet::default();
    for at in 0..NAMES_MAX as u64 {
        let (id, name) = (ServiceId(at + 1), format!("s{at}"));
        let service = Service::new(id, spec(&name, 0));
        fleet.snapshot.services.insert(id, service);
        let volume = Volume {
            name: name.clone(),
            worker: None,
        };
        fleet.snapshot.volumes.insert(name, volume);
    }
    let mut refused = |command| {
        let refused = fleet.apply(&command, At::default()).unwrap_err();
        assert_eq!(refused.why, Refusal::Conflict);
        refused.message
    };
    let spec = spec("more", 1);
    assert!(refused(Command::ServiceCreate { spec }).contains("10000 services"));
    let (name, worker) = ("more".to_owned(), None);
    assert!(refused(Command::VolumeCreate { name, worker }).contains("10000 volumes"));
}
