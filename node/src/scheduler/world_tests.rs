//! The reconciler in the tiny world: what a rollout, a drain, a lost worker do, and thousands of steps of random weather.

use super::change::Change;
use super::model::*;
use super::world::{World, spec, with_volume};
use crate::service::State;
use crate::service::spec::{Mode, OnFailure, Order};
use crate::types::{ServiceId, TaskId, WorkerId};

const WEB: ServiceId = ServiceId(1);

fn web(replicas: u32, workers: u64) -> World {
    let mut world = World::new(7, workers);
    world.create(spec("web", replicas));
    world.settle(20_000);
    world
}

fn homes(world: &World) -> Vec<u64> {
    let tasks = world
        .snapshot
        .tasks
        .values()
        .filter(|task| task.is_available());
    let mut homes: Vec<u64> = tasks
        .filter_map(|task| task.worker.map(|worker| worker.0))
        .collect();
    homes.sort_unstable();
    homes
}

#[test]
fn a_good_image_rolls_out_without_a_failure_and_without_a_copy_less() {
    let mut world = web(6, 3);
    world.revise(WEB, |spec| spec.command.push("2".to_owned()));
    while world.trouble().is_some() {
        world.step(250);
        assert_eq!(World::serving(&world.snapshot, WEB), 6);
    }
    assert_eq!(world.service(1).rollout.phase, Phase::Completed);
    assert_eq!(world.failed, 0);
    assert_eq!(homes(&world), [1, 1, 2, 2, 3, 3]);
}

#[test]
fn a_clock_that_is_set_ahead_fails_no_task_and_proves_none() {
    let mut world = web(3, 3);
    world.revise(WEB, |spec| {
        spec.update.canary_percent = vec![30];
        spec.update.canary_window_ms = 60_000;
        spec.command.push("2".to_owned());
    });
    let rolled = |world: &World| {
        let tasks = world.snapshot.tasks.values();
        tasks
            .filter(|task| task.is_available() && task.version == 2)
            .count()
    };
    let began_ms = world.now_ms;
    // From its first entry on, tasks are assigned, starting, proving themselves and watched as canaries.
    for _ in 0..200 {
        world.step(250);
        world.set_clock(3_600_000);
        assert!(
            rolled(&world) <= 1,
            "no time passes that the leader knows of"
        );
        assert_eq!(world.service(1).rollout.phase, Phase::Running);
    }
    assert_eq!((rolled(&world), world.service(1).rollout.failures), (1, 0));
    assert!(world.now_ms > began_ms + 200 * 3_600_000);
    world.settle(200_000);
    assert_eq!(
        (world.failed, world.service(1).rollout.phase),
        (0, Phase::Completed)
    );
}

#[test]
fn a_new_task_proves_nothing_while_its_worker_is_not_heard_or_starts_it_again() {
    let mut world = web(1, 1);
    world.revise(WEB, |spec| spec.command.push("2".to_owned()));
    world.run(1_000);
    let (old, new) = (TaskId(1), TaskId(2));
    let running = |world: &World| world.snapshot.tasks[&new].running_since_ms;
    while running(&world).is_none() {
        world.step(250);
    }
    let since = running(&world).unwrap();
    let told = |snapshot: &Snapshot, now_ms, known_ms| {
        let mut moment = world.moment();
        moment.now_ms = now_ms;
        moment.known_ms = Some([(WorkerId(1), known_ms)].into());
        let changes = crate::scheduler::reconcile(snapshot, &moment).changes;
        changes
            .iter()
            .any(|change| matches!(change, Change::SetDesired { task, .. } if *task == old))
    };
    let proven = since + world.service(1).current.spec.update.monitor_ms;
    let snapshot = &world.snapshot;
    assert!(
        !told(snapshot, proven + 60_000, proven - 1),
        "not heard since"
    );
    assert!(told(snapshot, proven + 60_000, proven));
    let mut again = snapshot.clone();
    again.tasks.get_mut(&new).unwrap().restarted_ms = Some(since + 1_000);
    assert!(
        !told(&again, proven, proven),
        "it was started again meanwhile"
    );
    assert!(told(&again, proven + 1_000, proven + 1_000));
}

#[test]
fn a_bad_image_goes_back_by_itself_and_no_copy_is_missed() {
    let mut world = web(6, 3);
    let contents = world.revise(WEB, |spec| spec.command.push("2".to_owned()));
    world.bad.insert((WEB, contents));
    for _ in 0..400 {
        world.step(250);
        assert_eq!(World::serving(&world.snapshot, WEB), 6);
    }
    assert_eq!(world.trouble(), None);
    let service = world.service(1);
    assert_eq!(service.rollout.phase, Phase::RolledBack);
    assert_eq!((service.current.version, service.current.contents), (3, 1));
}

#[test]
fn a_paused_rollout_replaces_what_fails_by_what_it_was() {
    let mut world = web(4, 2);
    let contents = world.revise(WEB, |spec| {
        spec.update.on_failure = OnFailure::Pause;
        spec.command.push("2".to_owned());
    });
    world.bad.insert((WEB, contents));
    world.run(60_000);
    assert_eq!(world.service(1).rollout.phase, Phase::Paused);
    world.wipe(WorkerId(1));
    world.run(20_000);
    assert_eq!(World::serving(&world.snapshot, WEB), 4);
    let mut running = world
        .snapshot
        .tasks
        .values()
        .filter(|task| task.is_available());
    assert!(running.all(|task| task.version == 1));
}

#[test]
fn a_canary_waits_at_each_step() {
    let mut world = web(10, 5);
    world.revise(WEB, |spec| {
        spec.update.canary_percent = vec![10, 50];
        spec.update.canary_window_ms = 60_000;
        spec.update.surge_max = 5;
        spec.command.push("2".to_owned());
    });
    let new = |world: &World| {
        let tasks = world
            .snapshot
            .tasks
            .values()
            .filter(|task| task.is_available());
        tasks.filter(|task| task.version == 2).count()
    };
    world.run(50_000);
    assert_eq!(new(&world), 1);
    world.run(60_000);
    assert_eq!(new(&world), 5);
    world.run(80_000);
    assert_eq!(new(&world), 10);
    assert_eq!(world.service(1).rollout.phase, Phase::Completed);
}

#[test]
fn a_lost_worker_is_replaced_and_its_return_ends_only_the_old_tasks() {
    let mut world = web(4, 2);
    world.cut(WorkerId(1), false);
    world.run(45_000);
    assert_eq!(homes(&world), [2, 2, 2, 2]);
    let replacements: Vec<_> = world
        .snapshot
        .tasks
        .values()
        .filter(|t| t.is_available())
        .collect();
    let replacements: Vec<_> = replacements.iter().map(|task| task.id).collect();
    world.cut(WorkerId(1), true);
    world.settle(20_000);
    let stayed = |id| world.snapshot.tasks[id].is_available();
    assert!(
        replacements.iter().all(stayed),
        "no healthy replacement is killed"
    );
}

#[test]
fn an_original_that_returns_before_its_replacement_runs_stays() {
    let mut world = web(1, 2);
    let original = *world.snapshot.tasks.keys().next().unwrap();
    let home = world.snapshot.tasks[&original].worker.unwrap();
    let other = WorkerId(3 - home.0);
    world.worker(other).availability = Availability::Drain;
    world.cut(home, false);
    world.run(40_000);
    assert!(world.snapshot.tasks[&original].is_lost());
    assert_eq!(World::serving(&world.snapshot, WEB), 0);
    world.cut(home, true);
    world.settle(10_000);
    assert!(world.snapshot.tasks[&original].is_available());
}

#[test]
fn a_drain_moves_all_within_its_bound_and_loses_no_copy() {
    let mut world = web(6, 3);
    world.worker(WorkerId(2)).availability = Availability::Drain;
    for _ in 0..480 {
        world.step(250);
        assert_eq!(World::serving(&world.snapshot, WEB), 6);
    }
    assert_eq!(world.trouble(), None);
    assert_eq!(homes(&world), [1, 1, 1, 3, 3, 3]);
}

#[test]
fn scaling_down_takes_what_does_not_serve_then_from_the_fullest_worker() {
    let mut world = web(5, 2);
    assert_eq!(homes(&world).len(), 5);
    world.revise(WEB, |spec| spec.replicas = 4);
    world.settle(20_000);
    assert_eq!(homes(&world), [1, 1, 2, 2]);
    assert_eq!(
        world.service(1).current.contents,
        1,
        "scaling is no rollout"
    );
    world.revise(WEB, |spec| spec.replicas = 0);
    world.settle(20_000);
    assert!(world.snapshot.tasks.is_empty());
}

#[test]
fn a_crash_loop_backs_off() {
    let mut world = World::new(3, 2);
    let id = world.create(spec("web", 1));
    world.bad.insert((id, 1));
    world.run(600_000);
    assert!(
        world.snapshot.next_task.0 < 25,
        "{} tasks in ten minutes",
        world.snapshot.next_task
    );
    assert!(world.snapshot.tasks.len() <= 6, "old ones are forgotten");
}

#[test]
fn a_removed_service_goes_with_its_last_task() {
    let mut world = web(3, 2);
    world.cut(WorkerId(1), false);
    world.snapshot.services.get_mut(&WEB).unwrap().removing = true;
    world.run(60_000);
    assert!(world.snapshot.services.is_empty() && world.snapshot.tasks.is_empty());
}

#[test]
fn a_global_service_is_on_each_active_worker_once() {
    let mut world = World::new(5, 3);
    let mut agent = spec("agent", 1);
    agent.mode = Mode::Global;
    world.create(agent);
    world.settle(20_000);
    assert_eq!(homes(&world), [1, 2, 3]);
    world.worker(WorkerId(2)).availability = Availability::Drain;
    world.join(WorkerId(4));
    world.settle(20_000);
    assert_eq!(homes(&world), [1, 3, 4]);
    world.cut(WorkerId(3), false);
    world.run(60_000);
    let standing = world
        .snapshot
        .tasks
        .values()
        .filter(|task| !task.state.is_end());
    assert_eq!(
        standing.count(),
        3,
        "a silent worker's task has no replacement elsewhere"
    );
    world.cut(WorkerId(3), true);
    world.settle(20_000);
}

#[test]
fn a_task_that_is_done_is_not_begun_again() {
    let mut world = World::new(5, 1);
    let mut job = spec("job", 1);
    job.restart.condition = crate::service::spec::RestartCondition::OnFailure;
    world.create(job);
    world.settle(20_000);
    let task = world.snapshot.tasks.values_mut().next().unwrap();
    task.state = State::Complete;
    world.run(200_000);
    assert_eq!(world.snapshot.next_task.0, 2);
}

fn rebalance(world: &mut World, id: ServiceId) {
    world.snapshot.services.get_mut(&id).unwrap().rebalancing = true;
}

#[test]
fn copies_are_spread_anew_when_asked_and_none_is_missed() {
    let mut world = web(6, 2);
    world.join(WorkerId(3));
    world.run(10_000);
    assert_eq!(homes(&world), [1, 1, 1, 2, 2, 2], "nothing moves unasked");
    rebalance(&mut world, WEB);
    while world.trouble().is_some() {
        world.step(250);
        assert_eq!(World::serving(&world.snapshot, WEB), 6);
    }
    assert_eq!(homes(&world), [1, 1, 2, 2, 3, 3]);
    let used = world.snapshot.next_task;
    rebalance(&mut world, WEB);
    world.settle(10_000);
    assert_eq!(world.snapshot.next_task, used, "what is spread stays");
}

#[test]
fn spreading_anew_looks_at_zones_first_and_keeps_to_the_budget() {
    let mut world = World::new(11, 4);
    for (id, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        let labels = &mut world.worker(WorkerId(id)).labels;
        labels.insert("zone".to_owned(), zone.to_owned());
    }
    for id in [3, 4] {
        world.worker(WorkerId(id)).availability = Availability::Drain;
    }
    let mut spec = spec("web", 4);
    spec.update.order = Order::StopFirst;
    spec.placement.spread = vec!["zone".to_owned()];
    let id = world.create(spec);
    world.settle(20_000);
    assert_eq!(homes(&world), [1, 1, 2, 2]);
    for id in [3, 4] {
        world.worker(WorkerId(id)).availability = Availability::Active;
    }
    rebalance(&mut world, id);
    while world.trouble().is_some() {
        world.step(250);
        assert!(World::serving(&world.snapshot, id) >= 3, "one at a time");
    }
    assert_eq!(homes(&world), [1, 2, 3, 4]);
}

fn weather(seed: u64) {
    let mut world = World::new(seed, 4);
    let mut batch = spec("batch", 5);
    batch.update.order = Order::StopFirst;
    batch.update.unavailable_max = 2;
    batch.update.on_failure = OnFailure::Continue;
    let mut agent = spec("agent", 1);
    agent.mode = Mode::Global;
    agent.update.on_failure = OnFailure::Pause;
    let mut web = spec("web", 4);
    web.placement.spread = vec!["zone".to_owned()];
    web.update.surge_max = 2;
    web.update.unavailable_max = 1;
    web.update.canary_percent = vec![25];
    web.update.canary_window_ms = 10_000;
    let db = with_volume(spec("db", 1), "data");
    let services = [web, batch, agent, db].map(|spec| world.create(spec));
    world.faults = true;
    for _ in 0..500 {
        operate(&mut world, &services);
        let ms = 50 + world.rng.below(1_500);
        world.step(ms);
    }
    world.faults = false;
    world.bad.clear();
    for id in world.machines.keys().copied().collect::<Vec<_>>() {
        world.cut(id, true);
        world.worker(id).availability = Availability::Active;
    }
    for id in services {
        world.revise(id, |spec| spec.command.push("last".to_owned()));
    }
    world.settle(900_000);
}

fn operate(world: &mut World, services: &[ServiceId; 4]) {
    let worker = WorkerId(1 + world.rng.below(4));
    let service = services[world.rng.below(4) as usize];
    match world.rng.below(60) {
        0 | 1 => world.cut(worker, false),
        2..=4 => world.cut(worker, true),
        5 => world.worker(worker).availability = Availability::Drain,
        6 | 7 => world.worker(worker).availability = Availability::Active,
        8 if service != services[3] => {
            let replicas = world.rng.below(8) as u32;
            world.revise(service, |spec| spec.replicas = replicas);
        }
        9 => {
            let contents = world.revise(service, |spec| spec.command.push("x".to_owned()));
            if world.rng.one_in(2) {
                world.bad.insert((service, contents));
            }
        }
        13..=15 => rebalance(world, service),
        16 => world.set_clock(1_000_000),
        10 if world.machines[&worker].connected => world.wipe(worker),
        // An operator gives up a volume on a silent worker and makes it anew elsewhere, from a backup.
        11 | 12 => {
            let volume = world
                .snapshot
                .volumes
                .get("data")
                .and_then(|volume| volume.worker);
            if volume.is_some_and(|worker| !world.machines[&worker].connected) {
                world.snapshot.volumes.remove("data");
            }
        }
        _ => (),
    }
}

#[test]
fn random_weather_never_breaks_a_promise_and_ends_well() {
    (0..40).for_each(weather);
}
