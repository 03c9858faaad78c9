//! The overseer: looks at every fleet that every manager shows, judges it at once, and keeps what measures need.
//!
//! It follows each manager's fleet as the manager's own door does, so it may miss some between two looks, and sees none that was not
//! applied. Managers at the same entry must have the same fleet.

use crate::crew::RESTLESS;
use crate::trace::{Level, Recorder};
use node::fleet::Fleet;
use node::scheduler::model::{Availability, Phase, Service, Status};
use node::service::State;
use node::service::spec::Mode;
use node::types::TaskId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use workloads::check;

/// A service at one moment, as the newest fleet has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: Duration,
    /// Its name.
    pub service: String,
    /// How many tasks it shall have.
    pub wanted: usize,
    /// How many may be missing while it is changed on purpose.
    pub unavailable_max: usize,
    /// How many serve.
    pub available: usize,
    /// Whether a rollout moves.
    pub is_moving: bool,
    /// Whether every task that serves has the present contents.
    pub is_current: bool,
    /// Whether it has more tasks that shall run than it needs.
    pub has_more: bool,
}

impl Look {
    /// Whether it is as people want it.
    pub fn is_whole(&self) -> bool {
        self.available == self.wanted && !self.is_moving && self.is_current && !self.has_more
    }
}

/// Something that happened once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A worker's status changed.
    Worker {
        /// When.
        at: Duration,
        /// Its name.
        name: String,
        /// What it is now.
        status: Status,
    },
    /// A task ended.
    Ended {
        /// When.
        at: Duration,
        /// The task.
        task: TaskId,
        /// Its service's name.
        service: String,
        /// How.
        state: State,
    },
    /// A worker that is drained has no task that lives.
    Drained {
        /// When.
        at: Duration,
        /// Its name.
        name: String,
    },
}

/// What is known.
#[derive(Default)]
struct Seen {
    /// The last fleet of each manager.
    last: BTreeMap<String, Arc<Fleet>>,
    /// The newest of all.
    newest: Arc<Fleet>,
    /// Looks at services, when something changed.
    looks: Vec<Look>,
    /// What happened once.
    notes: Vec<Note>,
    /// How many of those have been told as probes.
    told: usize,
    /// Drained workers without tasks.
    drained: BTreeSet<String>,
    /// The most tasks that one slot had or remembered at any moment.
    slot_tasks: usize,
}

/// Looks at fleets. A clone is the same.
#[derive(Clone)]
pub struct Overseer {
    /// Where wrongs are told.
    recorder: Recorder,
    /// What is known.
    seen: Arc<Mutex<Seen>>,
}

impl Overseer {
    /// One who has seen nothing.
    pub fn new(recorder: Recorder) -> Self {
        Overseer {
            recorder,
            seen: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The newest fleet that any manager showed.
    pub fn newest(&self) -> Arc<Fleet> {
        Arc::clone(&self.lock().newest)
    }

    /// All looks at services so far.
    pub fn looks(&self) -> Vec<Look> {
        self.lock().looks.clone()
    }

    /// The most tasks that one slot had or remembered so far.
    pub fn slot_tasks(&self) -> usize {
        self.lock().slot_tasks
    }

    /// What happened so far.
    pub fn notes(&self) -> Vec<Note> {
        self.lock().notes.clone()
    }

    /// Follows the fleet of one life of `manager`.
    pub async fn follow(self, manager: String, mut fleets: watch::Receiver<Arc<Fleet>>) {
        loop {
            let fleet = Arc::clone(&fleets.borrow_and_update());
            self.see(&manager, fleet);
            if fleets.changed().await.is_err() {
                return;
            }
        }
    }

    /// A manager shows a fleet.
    fn see(&self, manager: &str, fleet: Arc<Fleet>) {
        let mut wrongs = Vec::new();
        let mut lines = Vec::new();
        let mut seen = self.lock();
        for (other, theirs) in &seen.last {
            if other != manager && theirs.index == fleet.index && !is_equal(theirs, &fleet) {
                wrongs.push(format!(
                    "fleets_differ: {manager} and {other} differ at entry {}: {}",
                    fleet.index,
                    difference(theirs, &fleet)
                ));
            }
        }
        // What was right when another manager showed it is not looked at again.
        if fleet.index > seen.newest.index {
            wrongs.extend(check::fleet::fleet(&fleet).iter().map(ToString::to_string));
        }
        if let Some(before) = seen.last.insert(manager.to_owned(), Arc::clone(&fleet)) {
            wrongs.extend(
                check::fleet::steps(&before, &fleet)
                    .iter()
                    .map(ToString::to_string),
            );
        }
        if fleet.index > seen.newest.index {
            seen.note(self.recorder.now(), &fleet);
            let old = std::mem::replace(&mut seen.newest, Arc::clone(&fleet));
            let news = fleet.events.range((old.index + 1, 0)..);
            lines.extend(news.map(|(_, event)| format!("{}: {}", event.kind, event.message)));
        }
        let news = seen.notes.iter().skip(seen.told);
        let probes: BTreeSet<&'static str> = news.filter_map(probe_of).collect();
        seen.told = seen.notes.len();
        drop(seen);
        for probe in probes {
            self.recorder.sometimes(probe);
        }
        for line in lines {
            self.recorder.line("fleet", Level::Story, line);
        }
        for wrong in wrongs {
            self.recorder.fail(wrong);
        }
    }
}

impl Seen {
    /// Notes what `fleet`, newer than all before, says.
    fn note(&mut self, at: Duration, fleet: &Fleet) {
        let fullest = check::fleet::fullest_slot(fleet).map_or(0, |(_, tasks)| tasks);
        self.slot_tasks = self.slot_tasks.max(fullest);
        for (id, worker) in &fleet.snapshot.workers {
            let before = self.newest.snapshot.workers.get(id);
            if before.is_none_or(|before| before.status != worker.status) {
                self.notes.push(Note::Worker {
                    at,
                    name: worker.name.clone(),
                    status: worker.status,
                });
            }
            let mut tasks = fleet.snapshot.tasks.values();
            let busy = tasks.any(|task| task.worker == Some(*id) && !task.state.is_end());
            if busy || worker.availability != Availability::Drain {
                self.drained.remove(&worker.name);
            } else if self.drained.insert(worker.name.clone()) {
                let name = worker.name.clone();
                self.notes.push(Note::Drained { at, name });
            }
        }
        for (id, task) in &fleet.snapshot.tasks {
            let before = self.newest.snapshot.tasks.get(id);
            if task.state.is_end() && before.is_some_and(|before| !before.state.is_end()) {
                let service = fleet.snapshot.services.get(&task.service);
                self.notes.push(Note::Ended {
                    at,
                    task: *id,
                    service: service.map_or_else(String::new, |one| one.current.spec.name.clone()),
                    state: task.state,
                });
            }
        }
        let calm = |service: &&Service| !service.current.spec.labels.contains_key(RESTLESS);
        for service in fleet.snapshot.services.values().filter(calm) {
            let look = look(at, fleet, service);
            let mut before = self.looks.iter().rev();
            let before = before.find(|before| before.service == look.service);
            if before.is_none_or(|before| {
                Look {
                    at,
                    ..before.clone()
                } != look
            }) {
                self.looks.push(look);
            }
        }
        self.note_gone(at, fleet);
    }

    /// Notes that services are not there any more: nothing is wanted of them.
    fn note_gone(&mut self, at: Duration, fleet: &Fleet) {
        let services = self.newest.snapshot.services.values();
        for name in services.map(|service| service.current.spec.name.as_str()) {
            if fleet.service(name).is_none() {
                self.looks.push(Look {
                    at,
                    service: name.to_owned(),
                    wanted: 0,
                    unavailable_max: 0,
                    available: 0,
                    is_moving: false,
                    is_current: true,
                    has_more: false,
                });
            }
        }
    }
}

/// The probe that a note hits.
fn probe_of(note: &Note) -> Option<&'static str> {
    Some(match note {
        Note::Worker {
            status: Status::Down,
            ..
        } => "a worker was marked down",
        Note::Worker {
            status: Status::Ready,
            ..
        } => "a worker was ready",
        Note::Worker { .. } => return None,
        Note::Ended {
            state: State::Failed,
            ..
        } => "a task failed",
        Note::Ended {
            state: State::Rejected,
            ..
        } => "a task was rejected",
        Note::Ended { .. } => "a task ended",
        Note::Drained { .. } => "a worker was drained",
    })
}

/// A service as `fleet` has it.
fn look(at: Duration, fleet: &Fleet, service: &Service) -> Look {
    let spec = &service.current.spec;
    let mine = || {
        fleet
            .snapshot
            .tasks
            .values()
            .filter(|task| task.service == service.id)
    };
    let serving = || mine().filter(|task| task.is_available());
    let slots: BTreeSet<u64> = serving().map(|task| task.slot).collect();
    let wanted = match spec.mode {
        _ if service.removing => 0,
        Mode::Replicated => spec.replicas as usize,
        Mode::Global => {
            let workers = fleet.snapshot.workers.values();
            let takes = |one: &&node::scheduler::model::Worker| {
                one.status == Status::Ready && one.availability == Availability::Active
            };
            workers.filter(takes).count()
        }
    };
    let live = mine().filter(|task| task.is_live());
    Look {
        at,
        service: spec.name.clone(),
        wanted,
        unavailable_max: spec.update.unavailable_max as usize,
        available: slots.len(),
        is_moving: matches!(service.rollout.phase, Phase::Running | Phase::RollingBack),
        is_current: serving().all(|task| task.version == service.current.contents),
        has_more: live.count() > wanted,
    }
}

/// Whether two fleets of the same entry are the same, but for what was not written yet.
fn is_equal(one: &Fleet, other: &Fleet) -> bool {
    one.snapshot == other.snapshot
        && one.notes == other.notes
        && one.workers == other.workers
        && one.services == other.services
        && one.specs == other.specs
        && one.tokens == other.tokens
        && one.events == other.events
}

/// The first difference, for a person.
fn difference(one: &Fleet, other: &Fleet) -> String {
    let tasks: BTreeSet<TaskId> = one
        .snapshot
        .tasks
        .keys()
        .chain(other.snapshot.tasks.keys())
        .copied()
        .collect();
    for id in tasks {
        let (left, right) = (one.snapshot.tasks.get(&id), other.snapshot.tasks.get(&id));
        if left != right {
            return format!("task {id} is {left:?} here and {right:?} there");
        }
    }
    if one.snapshot.workers != other.snapshot.workers {
        return format!(
            "workers {:?} here and {:?} there",
            one.snapshot.workers, other.snapshot.workers
        );
    }
    if one.snapshot.services != other.snapshot.services {
        return "services".to_owned();
    }
    if one.events != other.events {
        return format!(
            "{} events here and {} there",
            one.events.len(),
            other.events.len()
        );
    }
    "notes, specifications or tokens".to_owned()
}
