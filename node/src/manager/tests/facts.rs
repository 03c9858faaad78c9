//! Facts of a leader's term.
#![expect(
    clippy::disallowed_methods,
    reason = "each test builds the runtime it runs on"
)]

use super::world::{World, beat, hello, knobs};
use crate::error::{Code, Error};
use crate::fleet::Command;
use crate::fleet::command::WorkerReports;
use crate::fleet::meeting::{Call, Reply};
use crate::handle::MemberChange;
use crate::knobs::Knobs;
use crate::manager::assignments::newer;
use crate::scheduler::Change;
use crate::scheduler::model::Status;
use crate::service::spec::Mount;
use crate::service::{Spec, State};
use crate::types::{Epoch, NodeId, Role, Term, WorkerId};
use crate::worker::Report;
use crate::worker::words::Observation;
use std::time::Duration;

/// A service with a volume that one task at a time may write to.
fn writer() -> Command {
    let mut spec = Spec::new("db", &["db"]);
    spec.volumes.push(Mount {
        volume: "data".to_owned(),
        target: "/data".to_owned(),
        shared: false,
    });
    Command::ServiceCreate { spec }
}

fn plans(commands: &[Command]) -> usize {
    let plans = commands.iter();
    plans
        .filter(|command| matches!(command, Command::Plan { .. }))
        .count()
}

fn lose_the_lead(world: &World) {
    world.status.send_modify(|status| {
        status.role = Role::Follower;
        status.term = Term(status.term.0 + 1);
    });
}

#[tokio::test]
async fn a_service_gets_tasks_and_its_worker_their_assignments() {
    let world = World::new(knobs());
    let (worker, epoch) = world.join("w1").await;
    let spec = Spec {
        replicas: 3,
        ..Spec::new("web", &["web"])
    };
    world.command(Command::ServiceCreate { spec }).await;
    world
        .until("three assignments", |behind| {
            let tasks = behind.fleet.snapshot.tasks.values();
            tasks.filter(|task| task.worker == Some(worker)).count() == 3
        })
        .await;
    world.pass(50).await;
    assert_eq!(plans(&world.behind().commands), 1, "one plan is enough");
    let (fleet, applied) = (world.handle.fleet(), world.handle.status().applied_index);
    let newer = |revision| newer(&fleet, applied, (worker, epoch), revision).unwrap();
    let given = newer(0).unwrap();
    assert_eq!((given.epoch, given.tasks.len()), (epoch, 3));
    assert_eq!(newer(given.revision), None);
    world.end().await;
}

#[tokio::test]
async fn a_clock_that_is_set_ahead_counts_against_no_task() {
    let world = World::new(knobs());
    world.join("w1").await;
    let mut spec = Spec::new("web", &["web"]);
    spec.update.progress_ms = 600_000;
    world
        .command(Command::ServiceCreate { spec: spec.clone() })
        .await;
    spec.command.push("2".to_owned());
    let update = Command::ServiceUpdate {
        name: "web".to_owned(),
        spec,
        expect_version: None,
    };
    world.command(update).await;
    world
        .until("a new task that shall come up", |behind| {
            let mut tasks = behind.fleet.snapshot.tasks.values();
            tasks.any(|task| task.version == 2 && task.assigned_ms.is_some())
        })
        .await;
    // Stamps were far behind this machine's clock until now.
    world.behind().ahead_ms = world.env.clock.wall_ms() + 3_600_000;
    let volume = Command::VolumeCreate {
        name: "any".to_owned(),
        worker: None,
    };
    world.command(volume).await;
    world.pass(200).await;
    let counted = |change: &Change| matches!(change, Change::CountFailure { .. });
    let commands = world.behind().commands.clone();
    assert!(!commands.iter().any(|command| {
        matches!(command, Command::Plan { changes, .. } if changes.iter().any(counted))
    }));
    world.end().await;
}

#[tokio::test]
async fn the_age_of_the_oldest_task_that_waits_grows_although_nothing_happens() {
    let world = World::new(knobs());
    let oldest_s = || -> f64 {
        let page = world.metrics.render();
        let mut lines = page.lines();
        let told =
            lines.find_map(|line| line.strip_prefix("seaworthy_task_pending_oldest_seconds "));
        told.unwrap().parse().unwrap()
    };
    let spec = Spec::new("web", &["web"]);
    world.command(Command::ServiceCreate { spec }).await;
    world
        .until("a task that waits", |behind| {
            !behind.fleet.snapshot.tasks.is_empty() && oldest_s() > 0.0
        })
        .await;
    let before = oldest_s();
    world
        .until("it is older", |_| oldest_s() > before + 0.1)
        .await;
    world.join("w1").await;
    world.until("none waits", |_| oldest_s() == 0.0).await;
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_is_known_says_hello_without_an_entry() {
    let world = World::new(knobs());
    let (worker, epoch) = world.join("w1").await;
    let before = world.behind().commands.len();
    let again = world.ask(hello("w1", worker.0, epoch.0)).await.unwrap();
    assert!(
        matches!(again, Reply::Welcome { epoch: same, .. } if same == epoch),
        "{again:?}"
    );
    assert_eq!(world.behind().commands.len(), before);
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_was_removed_hears_so_and_a_token_made_afterwards_lets_it_in() {
    let world = World::new(knobs());
    let (worker, epoch) = world.join("w1").await;
    let name = "w1".to_owned();
    world
        .command(Command::WorkerRemove { name, force: true })
        .await;
    let over = world.ask(beat(worker, epoch)).await.unwrap();
    assert!(matches!(over, Reply::Over { .. }), "{over:?}");
    let before = world.behind().commands.len();
    let removed = world.ask(hello("w1", worker.0, epoch.0)).await.unwrap();
    let Reply::Removed {
        worker: which,
        reason,
    } = &removed
    else {
        panic!("{removed:?}");
    };
    assert!(*which == worker && reason.contains("removed from this cluster by force"));
    assert_eq!(world.behind().commands.len(), before, "it costs no entry");
    let (hash, ttl_ms) = (crate::manager::token_hash("again"), 1_000_000);
    let role = crate::fleet::TokenRole::Worker;
    world
        .command(Command::TokenCreate { hash, ttl_ms, role })
        .await;
    let mut again = hello("w1", worker.0, epoch.0);
    if let Call::Hello(call) = &mut again {
        call.token = Some("again".to_owned());
    }
    let back = world.ask(again).await.unwrap();
    assert!(
        matches!(back, Reply::Welcome { worker: new, .. } if new != worker),
        "{back:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn many_that_join_at_once_wait_for_each_other_and_nobody_is_sent_away() {
    let world = World::new(Knobs {
        worker_hellos_max: 2,
        ..knobs()
    });
    world.join("first").await;
    let names: Vec<String> = (0..40).map(|number| format!("w{number}")).collect();
    let all = names.iter().map(|name| world.ask(hello(name, 0, 0)));
    for reply in futures::future::join_all(all).await {
        assert!(matches!(reply, Ok(Reply::Welcome { .. })), "{reply:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_silent_worker_is_marked_down_once_and_comes_back_by_a_hello() {
    let world = World::new(knobs());
    let one = world.join("w1").await;
    let two = world.join("w2").await;
    for _ in 0..12 {
        world.pass(50).await;
        assert_eq!(world.beat(two).await, 0);
    }
    assert_eq!(world.believed(one.0), Status::Down);
    assert_eq!(world.believed(two.0), Status::Ready);
    let over = world.ask(beat(one.0, one.1)).await.unwrap();
    assert!(matches!(over, Reply::Over { .. }), "{over:?}");
    let back = world.ask(hello("w1", one.0.0, one.1.0)).await.unwrap();
    assert!(
        matches!(back, Reply::Welcome { epoch, .. } if epoch > one.1),
        "{back:?}"
    );
    let marks = world.behind().commands.iter().fold(0, |count, command| {
        count + usize::from(matches!(command, Command::WorkerStatus { .. }))
    });
    assert_eq!(marks, 1);
    let page = world.metrics.render();
    assert!(page.contains("seaworthy_workers_marked_down_total 1\n"));
    world.end().await;
}

#[tokio::test]
async fn heartbeats_come_five_times_within_the_bound_and_a_new_leader_waits_for_calls_to_dead_managers()
 {
    for (down_ms, wanted) in [(250, None), (249, Some(49)), (100, Some(20))] {
        let ms = Duration::from_millis;
        let knobs = crate::knobs::Knobs {
            worker_down: ms(down_ms),
            worker_call_timeout: ms(30_000),
            ..knobs()
        };
        let world = World::new(knobs);
        let (worker, epoch) = world.join("w1").await;
        world.pass(2 * down_ms).await;
        // It was never heard, and may just be asking somebody who is dead.
        assert_eq!(world.believed(worker), Status::Ready);
        let reply = world.ask(beat(worker, epoch)).await.unwrap();
        let Reply::Beat { pace_ms, .. } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(pace_ms, wanted, "{down_ms}");
        world
            .until("down", |behind| {
                behind.fleet.snapshot.workers[&worker].status == Status::Down
            })
            .await;
        world.end().await;
    }
}

#[tokio::test]
async fn a_lease_is_granted_only_after_a_confirmation_and_many_share_one() {
    let world = World::new(knobs());
    let known = world.join("w1").await;
    assert_eq!(world.beat(known).await, 0, "nothing here needs a lease");
    world.command(writer()).await;
    world
        .until("an assignment", |behind| {
            let mut tasks = behind.fleet.snapshot.tasks.values();
            tasks.any(|task| task.worker == Some(known.0))
        })
        .await;
    world.pass(30).await;
    assert_eq!(world.beat(known).await, 400);
    let before = world.behind().reads;
    world.behind().is_cut_off = true;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(world.send(beat(known.0, known.1)).await);
    }
    world.pass(50).await;
    for answer in &mut waiting {
        assert!(answer.try_recv().is_err(), "no lease without a majority");
    }
    world.behind().reach_majority();
    for answer in waiting {
        let reply = answer.await.unwrap().unwrap();
        assert!(matches!(reply, Reply::Beat { lease_ms: 400, .. }));
    }
    assert!(world.behind().reads <= before + 3);
    world.end().await;
}

#[tokio::test]
async fn whoever_lost_the_lead_grants_nothing_even_if_its_read_is_answered() {
    let world = World::new(knobs());
    let known = world.join("w1").await;
    world.command(writer()).await;
    world
        .until("an assignment", |behind| {
            behind
                .fleet
                .snapshot
                .tasks
                .values()
                .any(|task| task.worker.is_some())
        })
        .await;
    world.pass(30).await;
    world.behind().is_cut_off = true;
    let answer = world.send(beat(known.0, known.1)).await;
    world.pass(20).await;
    lose_the_lead(&world);
    world.behind().reach_majority();
    let error = answer.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::NotLeader);
    assert!(error.retryable);
    let error = world.ask(beat(known.0, known.1)).await.unwrap_err();
    assert_eq!(error.code, Code::NotLeader);
    world.end().await;
}

#[tokio::test]
async fn reports_of_many_share_an_entry_and_are_acknowledged_once_applied() {
    let world = World::new(knobs());
    let workers = [world.join("w1").await, world.join("w2").await];
    let spec = Spec {
        replicas: 2,
        ..Spec::new("web", &["web"])
    };
    world.command(Command::ServiceCreate { spec }).await;
    world
        .until("assignments", |behind| {
            let tasks = behind.fleet.snapshot.tasks.values();
            tasks.filter(|task| task.worker.is_some()).count() == 2
        })
        .await;
    let mut answers = Vec::new();
    for (worker, epoch) in workers {
        let reports = {
            let behind = world.behind();
            let mut tasks = behind.fleet.snapshot.tasks.values();
            let task = tasks.find(|task| task.worker == Some(worker)).unwrap();
            let observation = Observation {
                state: State::Running,
                attempts: 1,
                exit: None,
                message: String::new(),
            };
            WorkerReports {
                worker,
                epoch,
                life: behind.fleet.workers[&worker].life,
                reports: vec![Report {
                    number: 7,
                    task: task.id,
                    observation,
                }],
            }
        };
        answers.push(world.send(Call::Report(reports)).await);
    }
    for answer in answers {
        let reply = answer.await.unwrap().unwrap();
        assert!(
            matches!(reply, Reply::Acknowledged { number: 7, .. }),
            "{reply:?}"
        );
    }
    let tasks = world.behind().fleet.snapshot.tasks.clone();
    assert!(tasks.values().all(|task| task.state == State::Running));
    let stale = WorkerReports {
        worker: workers[0].0,
        epoch: Epoch(99),
        life: crate::types::Incarnation(1),
        reports: Vec::new(),
    };
    let over = world.ask(Call::Report(stale)).await.unwrap();
    assert!(matches!(over, Reply::Over { .. }), "{over:?}");
    world.end().await;
}

#[tokio::test]
async fn many_silent_workers_are_marked_only_if_no_other_manager_heard_them() {
    let world = World::new(knobs());
    let mut workers = Vec::new();
    for name in ["w1", "w2", "w3", "w4"] {
        workers.push(world.join(name).await.0);
    }
    // The second manager hears three of them, the third does not answer.
    let heard = workers[..3].iter().map(|worker| (*worker, 10)).collect();
    world.behind().heard.insert(NodeId(2), heard);
    world
        .until("the fourth is down", |behind| {
            behind.fleet.snapshot.workers[&workers[3]].status == Status::Down
        })
        .await;
    for worker in &workers[..3] {
        assert_eq!(world.believed(*worker), Status::Ready);
    }
    world
        .until("leadership is handed over", |behind| {
            behind
                .changes
                .contains(&MemberChange::Transfer { to: NodeId(2) })
        })
        .await;
    // When nobody hears them any more they are marked after all.
    world.behind().heard.clear();
    world
        .until("all are down", |behind| {
            let mut all = behind.fleet.snapshot.workers.values();
            all.all(|worker| worker.status == Status::Down)
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn without_a_majority_nobody_is_marked_in_a_mass() {
    let world = World::new(knobs());
    for name in ["w1", "w2", "w3"] {
        world.join(name).await;
    }
    world.behind().is_cut_off = true;
    world.pass(700).await;
    let ready = |status| status == Status::Ready;
    let all = world.behind().fleet.snapshot.workers.clone();
    assert!(all.values().all(|worker| ready(worker.status)));
    world.end().await;
}

#[tokio::test]
async fn a_new_leader_catches_up_first_and_gives_everybody_a_full_bound() {
    let world = World::new(knobs());
    let known = world.join("w1").await;
    world.pass(200).await;
    lose_the_lead(&world);
    world.pass(50).await;
    world.behind().is_cut_off = true;
    world.status.send_modify(|status| {
        status.role = Role::Leader;
        status.term = Term(status.term.0 + 1);
    });
    let mut early = world.send(beat(known.0, known.1)).await;
    world.pass(50).await;
    assert!(early.try_recv().is_err(), "it does not know enough yet");
    world.behind().reach_majority();
    assert!(matches!(early.await.unwrap(), Ok(Reply::Beat { .. })));
    world.pass(200).await;
    assert_eq!(world.believed(known.0), Status::Ready);
    world.pass(400).await;
    assert_eq!(world.believed(known.0), Status::Down);
    world.end().await;
}

#[tokio::test]
async fn what_fails_is_tried_again() {
    let world = World::new(knobs());
    world.join("w1").await;
    let busy = || Error::new(Code::Overloaded, "busy");
    let spec = Spec::new("web", &["web"]);
    world.command(Command::ServiceCreate { spec }).await;
    world.behind().failures = vec![busy(), busy()];
    world
        .until("an assignment", |behind| {
            behind
                .fleet
                .snapshot
                .tasks
                .values()
                .any(|task| task.worker.is_some())
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn any_manager_says_whom_its_own_door_heard() {
    let world = World::new(knobs());
    let (worker, epoch) = world.join("w1").await;
    // The loop behind this handle has no manager; that the call came through is what counts.
    let passed = world.handle.dispatch(None, beat(worker, epoch), None).await;
    assert!(passed.is_err());
    lose_the_lead(&world);
    world.pass(20).await;
    let workers = vec![worker, WorkerId(9_999)];
    let reply = world.ask(Call::Heard { workers }).await.unwrap();
    let Reply::Heard { ago_ms } = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(ago_ms.len(), 1);
    assert_eq!(ago_ms[0].0, worker);
    assert!(Duration::from_millis(ago_ms[0].1) >= Duration::from_millis(20));
    world.end().await;
}

#[tokio::test]
async fn heartbeats_of_a_thousand_workers_that_need_leases_cost_few_reads() {
    let knobs = crate::knobs::Knobs {
        worker_down: Duration::from_secs(60),
        ..knobs()
    };
    let world = World::new(knobs);
    let mut workers = Vec::new();
    for number in 0..1_000 {
        workers.push(world.join(&format!("w{number}")).await);
    }
    {
        let mut behind = world.behind();
        for (number, (worker, _)) in workers.iter().enumerate() {
            let task = crate::scheduler::model::Task {
                id: crate::types::TaskId(number as u64 + 1),
                worker: Some(*worker),
                state: State::Running,
                volumes: vec![Mount {
                    volume: format!("v{number}"),
                    target: "/v".to_owned(),
                    shared: false,
                }],
                ..crate::scheduler::model::Task::default()
            };
            behind.fleet.snapshot.tasks.insert(task.id, task);
        }
    }
    // Published with the next entry; the reconciler then ends them, for they have no service, but they need a lease until then.
    let worker = workers[0].0;
    let labels = [("a".to_owned(), Some("b".to_owned()))].into();
    let name = world.behind().fleet.snapshot.workers[&worker].name.clone();
    let set = Command::WorkerSet {
        name,
        availability: None,
        labels,
    };
    world.command(set).await;
    world.pass(200).await;
    let before = world.behind().reads;
    let mut answers = Vec::new();
    for (worker, epoch) in &workers {
        answers.push(world.send(beat(*worker, *epoch)).await);
    }
    for answer in answers {
        let reply = answer.await.unwrap().unwrap();
        assert!(
            matches!(reply, Reply::Beat { lease_ms: 400, .. }),
            "{reply:?}"
        );
    }
    let reads = world.behind().reads - before;
    assert!(reads < 100, "{reads} reads for a thousand heartbeats");
    world.end().await;
}
