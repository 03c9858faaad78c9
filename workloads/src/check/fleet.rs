//! What must be true of every fleet that a manager has, and of every way from one to the next (docs/orchestration.md).
//!
//! | rule | section |
//! |---|---|
//! | a task's state, and what is wanted of it, only moves forward; it never changes its worker, service, slot or version | 2 |
//! | an epoch never goes back | 1 |
//! | a task is given only to a worker that fits: constraints, images, copies per worker, volumes | 4 |
//! | no task is given to a worker that is drained or down, and none is on one that was removed | 4 |
//! | a worker that was removed is one again only by a token that was made afterwards | 3 |
//! | a slot has and remembers few tasks | 1 |
//! | reservations never exceed the capacity of a worker | 7 |
//! | every change of a task's state has an event that tells of it | 7 |
//!
//! These functions know nothing of how the scheduler decides: they read the contract anew.

use super::{Finding, Rule};
use node::fleet::Fleet;
use node::scheduler::model::{Availability, Status, Task, Worker};
use node::service::Spec;
use node::types::{ServiceId, TaskId, WorkerId};
use std::collections::BTreeMap;

/// Tasks that one slot may have or remember: the ended ones that are kept, those of workers that are down, and room for what
/// ended between two passes.
pub const SLOT_TASKS_MAX: usize = 16;

/// The most tasks that one slot has or remembers, with its service and number.
pub fn fullest_slot(now: &Fleet) -> Option<((ServiceId, u64), usize)> {
    let mut slots: BTreeMap<(ServiceId, u64), usize> = BTreeMap::new();
    for task in now.snapshot.tasks.values() {
        *slots.entry((task.service, task.slot)).or_default() += 1;
    }
    slots.into_iter().max_by_key(|(_, tasks)| *tasks)
}

/// What is wrong with one fleet.
pub fn fleet(now: &Fleet) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(((service, slot), tasks)) =
        fullest_slot(now).filter(|(_, most)| *most > SLOT_TASKS_MAX)
    {
        found.push(says(
            Rule::SlotBounded,
            format!("slot {slot} of service {service} has or remembers {tasks} tasks"),
        ));
    }
    let mut reserved: BTreeMap<WorkerId, (u64, u64)> = BTreeMap::new();
    for task in now
        .snapshot
        .tasks
        .values()
        .filter(|task| task.state.is_on_worker())
    {
        let Some(worker) = task.worker else {
            found.push(says(
                Rule::TaskPlace,
                format!("task {} is {} and has no worker", task.id, task.state),
            ));
            continue;
        };
        let sum = reserved.entry(worker).or_default();
        sum.0 += task.reservations.cpu_milli;
        sum.1 += task.reservations.memory_bytes;
    }
    for (id, (cpu, memory)) in reserved {
        let Some(worker) = now.snapshot.workers.get(&id) else {
            found.push(says(
                Rule::TaskPlace,
                format!("tasks are on worker {id}, which is not there"),
            ));
            continue;
        };
        let (has_cpu, has_memory) = (worker.capacity.cpu_milli, worker.capacity.memory_bytes);
        if cpu > has_cpu || memory > has_memory {
            found.push(says(
                Rule::Reservations,
                format!(
                    "{} has {has_cpu} thousandths of a processor and {has_memory} bytes, and {cpu} and {memory} are reserved",
                    worker.name
                ),
            ));
        }
    }
    found.extend(returned(now));
    found
}

/// Workers that were removed and are there again without anybody having let them in.
fn returned(now: &Fleet) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, removed) in &now.snapshot.removed {
        if now.snapshot.workers.contains_key(id) {
            let text = format!("worker {id} was removed and is there under its old id");
            found.push(says(Rule::StaysOut, text));
        }
        let mut workers = now.workers.iter();
        let same = workers.find(|(_, note)| note.life == removed.life);
        if let Some((again, note)) = same.filter(|(_, note)| note.token <= removed.index) {
            let text = format!(
                "{}, removed at entry {}, is there again as worker {again}, by token {}",
                removed.name, removed.index, note.token
            );
            found.push(says(Rule::StaysOut, text));
        }
    }
    found
}

/// What is wrong with the way from one fleet to a later one of the same manager.
pub fn steps(old: &Fleet, new: &Fleet) -> Vec<Finding> {
    let mut found = Vec::new();
    if new.index < old.index {
        return found; // It began anew from an older state, and will come to the same again.
    }
    for (id, after) in &new.snapshot.tasks {
        match old.snapshot.tasks.get(id) {
            Some(before) => found.extend(task_step(before, after)),
            None if *id < old.snapshot.next_task => {
                found.push(says(
                    Rule::Forward,
                    format!("task {id} was forgotten and is there again"),
                ));
            }
            None => {}
        }
        let had = old.snapshot.tasks.get(id).and_then(|before| before.worker);
        if had.is_none() && !after.state.is_end() {
            found.extend(misplaced(old, new, after));
            found.extend(unwilling(old, new, after));
        }
        let moved = old
            .snapshot
            .tasks
            .get(id)
            .is_none_or(|before| before.state != after.state);
        if moved && !is_explained(old, new, *id) {
            found.push(says(
                Rule::Explained,
                format!(
                    "task {id} became {} between entries {} and {}, and no event tells of it",
                    after.state, old.index, new.index
                ),
            ));
        }
    }
    for (id, after) in &new.snapshot.workers {
        let before = old.snapshot.workers.get(id);
        if let Some(before) = before.filter(|before| after.epoch < before.epoch) {
            found.push(says(
                Rule::Forward,
                format!(
                    "{}: epoch {} after {}",
                    after.name, after.epoch, before.epoch
                ),
            ));
        }
    }
    found
}

/// What is wrong with one step of a task.
fn task_step(before: &Task, after: &Task) -> Vec<Finding> {
    let mut found = Vec::new();
    let id = after.id;
    if before.state != after.state && !before.state.may_become(after.state) {
        found.push(says(
            Rule::Forward,
            format!("task {id} was {} and is {}", before.state, after.state),
        ));
    }
    if after.desired < before.desired {
        found.push(says(
            Rule::Forward,
            format!(
                "of task {id} {:?} was wanted and is {:?}",
                before.desired, after.desired
            ),
        ));
    }
    let place = |task: &Task| (task.service, task.slot, task.version);
    if place(before) != place(after) || (before.worker.is_some() && before.worker != after.worker) {
        found.push(says(
            Rule::Forward,
            format!(
                "task {id} has moved: {:?} {:?}, then {:?} {:?}",
                place(before),
                before.worker,
                place(after),
                after.worker
            ),
        ));
    }
    found
}

/// Whether an event between two fleets tells of a task.
fn is_explained(old: &Fleet, new: &Fleet, task: TaskId) -> bool {
    let later = new.events.range((old.index + 1, 0)..);
    let mut told = later.filter_map(|(_, event)| event.task);
    told.any(|told| told == task)
}

/// A task was given to a worker that took none all the time from `old` to `new`: it was drained, or down.
fn unwilling(old: &Fleet, new: &Fleet, task: &Task) -> Option<Finding> {
    let id = task.worker?;
    let worker = new.snapshot.workers.get(&id)?;
    let before = old.snapshot.workers.get(&id)?;
    let later = new.events.range((old.index + 1, 0)..);
    let of_worker = later.filter(|(_, event)| event.worker == Some(id));
    let mut changes = of_worker.map(|(_, event)| event.kind.as_str());
    let took = changes.any(|kind| ["node.activated", "node.ready", "node.joined"].contains(&kind));
    let drained = |worker: &Worker| worker.availability == Availability::Drain;
    let down = |worker: &Worker| worker.status == Status::Down;
    let both = |is: &dyn Fn(&Worker) -> bool| is(before) && is(worker);
    let says_no = both(&drained) || both(&down);
    (says_no && !took).then(|| {
        let why = if drained(worker) { "drained" } else { "down" };
        says(
            Rule::TaskPlace,
            format!(
                "task {} was given to {}, which is {why}",
                task.id, worker.name
            ),
        )
    })
}

/// What is wrong with the worker that a task got between `old` and `fleet`. If the worker's labels changed in between, nobody knows here
/// which came first: a manager that comes back shows its state of many entries at once.
fn misplaced(old: &Fleet, fleet: &Fleet, task: &Task) -> Vec<Finding> {
    let Some(worker) = task.worker.and_then(|id| fleet.snapshot.workers.get(&id)) else {
        return Vec::new();
    };
    let Some(spec) = fleet.specs.get(&(task.service, task.version)) else {
        return vec![says(
            Rule::TaskPlace,
            format!("task {} has no specification", task.id),
        )];
    };
    let mut wrongs = Vec::new();
    let mut later = fleet.events.range((old.index + 1, 0)..);
    let relabelled =
        later.any(|(_, event)| event.worker == task.worker && event.kind == "node.labelled");
    for rule in spec.placement.constraints.iter().filter(|_| !relabelled) {
        if meets(worker, rule) == Some(false) {
            wrongs.push(format!("{rule} does not hold there"));
        }
    }
    if spec.image.is_some() && !worker.containers {
        wrongs.push("it runs no images".to_owned());
    }
    wrongs.extend(crowded(fleet, task, spec));
    for mount in &task.volumes {
        let lies = fleet
            .snapshot
            .volumes
            .get(&mount.volume)
            .and_then(|volume| volume.worker);
        if lies.is_some_and(|lies| Some(lies) != task.worker) {
            wrongs.push(format!("its volume {} lies elsewhere", mount.volume));
        }
    }
    let name = |wrong: String| {
        says(
            Rule::TaskPlace,
            format!("task {} was given to {}: {wrong}", task.id, worker.name),
        )
    };
    wrongs.into_iter().map(name).collect()
}

/// Whether more copies are on its worker than may be.
fn crowded(fleet: &Fleet, task: &Task, spec: &Spec) -> Option<String> {
    let most = spec.placement.replicas_per_node_max;
    let mine = fleet.snapshot.tasks.values().filter(|other| {
        other.service == task.service
            && other.worker == task.worker
            && other.state.is_on_worker()
            && other.is_live()
    });
    let copies = mine.count();
    (most > 0 && copies > most as usize)
        .then(|| format!("{copies} copies there, at most {most} allowed"))
}

/// Whether a worker meets a constraint; nothing if this judge cannot read it.
fn meets(worker: &Worker, rule: &str) -> Option<bool> {
    let (left, wanted, value) = match (rule.split_once("=="), rule.split_once("!=")) {
        (Some((left, value)), _) => (left.trim(), true, value.trim()),
        (_, Some((left, value))) => (left.trim(), false, value.trim()),
        _ => return None,
    };
    let has = match left {
        "node.name" => worker.name.as_str(),
        "node.platform" => worker.platform.as_str(),
        other => worker
            .labels
            .get(other.strip_prefix("node.labels.")?)
            .map_or("", String::as_str),
    };
    Some((has == value) == wanted)
}

/// A finding.
fn says(rule: Rule, text: String) -> Finding {
    Finding::new(rule, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::fleet::{Event, WorkerNote};
    use node::scheduler::model::Removed;
    use node::service::spec::{Amounts, Mount};
    use node::service::{Desired, State};
    use node::types::{Epoch, Incarnation};
    use std::sync::Arc;

    /// A fleet with one worker and one task on it, both as they shall be.
    fn sound() -> Fleet {
        let mut fleet = Fleet::default();
        let worker = Worker {
            id: WorkerId(1),
            name: "w1".to_owned(),
            epoch: Epoch(2),
            capacity: Amounts {
                cpu_milli: 1_000,
                memory_bytes: 1_000,
            },
            labels: BTreeMap::from([("zone".to_owned(), "north".to_owned())]),
            ..Worker::default()
        };
        fleet.index = 10;
        fleet.snapshot.workers.insert(worker.id, worker);
        let task = Task {
            id: TaskId(1),
            service: ServiceId(1),
            slot: 1,
            version: 1,
            worker: Some(WorkerId(1)),
            state: State::Running,
            reservations: Amounts {
                cpu_milli: 1_000,
                memory_bytes: 10,
            },
            ..Task::default()
        };
        fleet.snapshot.tasks.insert(task.id, task);
        fleet.snapshot.next_task = TaskId(2);
        let spec = Arc::new(Spec::new("web", &["sim", "ok"]));
        fleet.specs.insert((ServiceId(1), 1), spec);
        fleet
    }

    /// What the way from the sound fleet to one that `change` makes of it breaks.
    fn broken(change: impl FnOnce(&mut Fleet)) -> Vec<Rule> {
        let (old, mut new) = (sound(), sound());
        new.index = 11;
        change(&mut new);
        let found = fleet(&new).into_iter().chain(steps(&old, &new));
        found.map(|finding| finding.rule).collect()
    }

    /// The task.
    fn task(fleet: &mut Fleet) -> &mut Task {
        fleet.snapshot.tasks.get_mut(&TaskId(1)).unwrap()
    }

    /// An event at entry 11 that tells of a task.
    fn tell(fleet: &mut Fleet, task: u64) {
        let event = Event {
            time_ms: 0,
            kind: "task.changed".to_owned(),
            service: None,
            task: Some(TaskId(task)),
            worker: None,
            message: String::new(),
        };
        fleet.events.insert((11, 0), event);
    }

    #[test]
    fn what_is_as_it_shall_be_is_not_condemned() {
        assert!(broken(|_| {}).is_empty());
        let forward = broken(|fleet| {
            task(fleet).state = State::Stopping;
            tell(fleet, 1);
        });
        assert!(forward.is_empty(), "{forward:?}");
    }

    #[test]
    fn nothing_goes_back() {
        let back = |fleet: &mut Fleet| {
            task(fleet).state = State::Starting;
            tell(fleet, 1);
        };
        assert_eq!(broken(back), [Rule::Forward]);
        assert_eq!(broken(|fleet| task(fleet).slot = 2), [Rule::Forward]);
        let older = |fleet: &mut Fleet| {
            fleet.snapshot.workers.get_mut(&WorkerId(1)).unwrap().epoch = Epoch(1);
        };
        assert_eq!(broken(older), [Rule::Forward]);
        let (mut old, new) = (sound(), sound());
        task(&mut old).desired = Desired::Stop;
        assert_eq!(steps(&old, &new).len(), 1);
    }

    #[test]
    fn a_change_without_an_event_is_seen() {
        let silent = broken(|fleet| task(fleet).state = State::Stopping);
        assert_eq!(silent, [Rule::Explained]);
    }

    #[test]
    fn tasks_that_pile_up_in_a_slot_are_seen() {
        let piled = |many: u64| {
            broken(move |fleet| {
                let ended = Task {
                    state: State::Failed,
                    ..task(fleet).clone()
                };
                for id in 0..many {
                    let id = TaskId(100 + id);
                    fleet.snapshot.tasks.insert(
                        id,
                        Task {
                            id,
                            ..ended.clone()
                        },
                    );
                    let event = Event {
                        time_ms: 0,
                        kind: "task.failed".to_owned(),
                        service: None,
                        task: Some(id),
                        worker: None,
                        message: String::new(),
                    };
                    fleet
                        .events
                        .insert((11, u32::try_from(id.0).unwrap()), event);
                }
            })
        };
        assert!(piled(15).is_empty());
        assert_eq!(piled(16), [Rule::SlotBounded]);
    }

    #[test]
    fn too_much_is_seen() {
        let more = broken(|fleet| task(fleet).reservations.cpu_milli += 1);
        assert_eq!(more, [Rule::Reservations]);
    }

    /// What is broken when a second task is given to the worker, with this specification.
    fn given(change: impl FnOnce(&mut Spec), mounts: Vec<Mount>) -> Vec<Rule> {
        broken(|fleet| {
            let mut spec = Spec::new("db", &["sim", "ok"]);
            change(&mut spec);
            fleet.specs.insert((ServiceId(2), 1), Arc::new(spec));
            let second = Task {
                id: TaskId(2),
                service: ServiceId(2),
                state: State::Assigned,
                reservations: Amounts::default(),
                volumes: mounts,
                ..task(fleet).clone()
            };
            fleet.snapshot.tasks.insert(second.id, second);
            let elsewhere = node::scheduler::model::Volume {
                name: "data".to_owned(),
                worker: Some(WorkerId(9)),
            };
            fleet.snapshot.volumes.insert("data".to_owned(), elsewhere);
            tell(fleet, 2);
        })
    }

    #[test]
    fn a_task_that_may_have_come_before_a_label_is_not_condemned() {
        let labelled = |kind: &str| {
            broken(|fleet| {
                let mut spec = Spec::new("db", &["sim", "ok"]);
                spec.placement.constraints = vec!["node.labels.zone == south".to_owned()];
                fleet.specs.insert((ServiceId(2), 1), Arc::new(spec));
                let second = Task {
                    id: TaskId(2),
                    service: ServiceId(2),
                    state: State::Assigned,
                    reservations: Amounts::default(),
                    ..task(fleet).clone()
                };
                fleet.snapshot.tasks.insert(second.id, second);
                tell(fleet, 2);
                let event = Event {
                    kind: kind.to_owned(),
                    task: None,
                    worker: Some(WorkerId(1)),
                    ..Event::clone(&fleet.events[&(11, 0)])
                };
                fleet.events.insert((11, 1), event);
            })
        };
        assert!(labelled("node.labelled").is_empty());
        assert_eq!(labelled("node.ready"), [Rule::TaskPlace]);
    }

    #[test]
    fn a_task_on_a_worker_that_takes_none_is_seen() {
        let given = |change: fn(&mut Worker), kind: &str| {
            let (mut old, mut new) = (sound(), sound());
            new.index = 11;
            for fleet in [&mut old, &mut new] {
                change(fleet.snapshot.workers.get_mut(&WorkerId(1)).unwrap());
            }
            task(&mut old).worker = None;
            tell(&mut new, 1);
            let event = Event {
                kind: kind.to_owned(),
                task: None,
                worker: Some(WorkerId(1)),
                ..Event::clone(&new.events[&(11, 0)])
            };
            new.events.insert((11, 1), event);
            let found = steps(&old, &new).into_iter();
            found.map(|finding| finding.rule).collect::<Vec<Rule>>()
        };
        let drained = |worker: &mut Worker| worker.availability = Availability::Drain;
        let down = |worker: &mut Worker| worker.status = Status::Down;
        assert_eq!(given(drained, "node.labelled"), [Rule::TaskPlace]);
        assert_eq!(given(down, "node.labelled"), [Rule::TaskPlace]);
        assert!(given(drained, "node.activated").is_empty());
        assert!(given(|_| {}, "node.labelled").is_empty());
        let nobody = broken(|fleet| fleet.snapshot.workers = node::map::Map::default());
        assert_eq!(nobody, [Rule::TaskPlace]);
    }

    #[test]
    fn a_removed_worker_that_is_back_by_itself_is_seen() {
        let back = |token: u64, life: u64| {
            broken(|fleet| {
                let removed = Removed {
                    index: 7,
                    life: Incarnation(3),
                    ..Removed::default()
                };
                fleet.snapshot.removed.insert(WorkerId(9), removed);
                let note = WorkerNote {
                    life: Incarnation(life),
                    token,
                    ..WorkerNote::default()
                };
                fleet.workers.insert(WorkerId(1), note);
            })
        };
        assert_eq!(back(6, 3), [Rule::StaysOut]);
        assert!(back(8, 3).is_empty(), "an operator made a token for it");
        assert!(back(6, 4).is_empty(), "an empty disk is another worker");
        let as_it_was = broken(|fleet| {
            let removed = Removed::default();
            fleet.snapshot.removed.insert(WorkerId(1), removed);
        });
        assert_eq!(as_it_was, [Rule::StaysOut]);
    }

    #[test]
    fn a_task_on_a_worker_that_does_not_fit_is_seen() {
        assert!(given(|_| {}, Vec::new()).is_empty());
        let ruled = |rule: &str| {
            let rule = rule.to_owned();
            given(
                move |spec| spec.placement.constraints.push(rule),
                Vec::new(),
            )
        };
        assert!(ruled("node.labels.zone == north").is_empty());
        assert_eq!(ruled("node.labels.zone == south"), [Rule::TaskPlace]);
        assert_eq!(ruled("node.name != w1"), [Rule::TaskPlace]);
        let image = |spec: &mut Spec| spec.image = Some("web:1".to_owned());
        assert_eq!(given(image, Vec::new()), [Rule::TaskPlace]);
        let mount = Mount {
            volume: "data".to_owned(),
            target: "/data".to_owned(),
            shared: false,
        };
        assert_eq!(given(|_| {}, vec![mount]), [Rule::TaskPlace]);
    }
}
