//! What is seen of services and workers over a run, from what managers show: looks at services whenever one changes, and notes of
//! what happens once.
//!
//! Pure: times come in as an argument. What managers show may be late or wrong; what really ran is in [`crate::ledger`].

use crate::check;
use node::fleet::Fleet;
use node::scheduler::model::{Availability, Phase, Service, Status};
use node::service::State;
use node::service::spec::Mode;
use node::types::TaskId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Label of a service that is never whole: what its tasks do does not let it.
pub const RESTLESS: &str = "sim.restless";

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
    /// A rollout was begun or came to another phase.
    Rollout {
        /// When.
        at: Duration,
        /// Its service's name.
        service: String,
        /// The phase.
        phase: Phase,
    },
    /// A canary was good enough for the next step.
    CanaryOver {
        /// When.
        at: Duration,
        /// Its service's name.
        service: String,
        /// How long it was watched.
        watched: Duration,
    },
}

/// Everything that was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// The newest fleet of all.
    pub newest: Arc<Fleet>,
    /// Looks at services, when something changed.
    pub looks: Vec<Look>,
    /// What happened once.
    pub notes: Vec<Note>,
    /// The most tasks that one slot had or remembered at any moment.
    pub slot_tasks: usize,
    /// Drained workers without tasks.
    drained: BTreeSet<String>,
    /// Since when canaries are watched, by service.
    canaries: BTreeMap<String, Duration>,
}

impl Note {
    /// The probe that it hits.
    pub fn probe(&self) -> Option<&'static str> {
        Some(match self {
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
            Note::Rollout { phase, .. } => match phase {
                Phase::Paused => "a rollout paused",
                Phase::RollingBack => "a rollout went back",
                Phase::Completed => "a rollout was completed",
                Phase::None | Phase::Running | Phase::RolledBack => return None,
            },
            Note::CanaryOver { .. } => "a canary was good",
        })
    }
}

impl Looks {
    /// Takes `fleet`, newer than all before, at `at`; gives the one that was the newest until now.
    pub fn take(&mut self, at: Duration, fleet: &Arc<Fleet>) -> Arc<Fleet> {
        self.note(at, fleet);
        std::mem::replace(&mut self.newest, Arc::clone(fleet))
    }

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
            self.note_rollout(at, service);
        }
        self.note_gone(at, fleet);
    }

    /// Notes how far a service's rollout is.
    fn note_rollout(&mut self, at: Duration, service: &Service) {
        let (name, now) = (&service.current.spec.name, &service.rollout);
        let before = self.newest.snapshot.services.get(&service.id);
        let before = before.map(|before| &before.rollout);
        if before.is_some_and(|before| before.phase != now.phase) {
            self.notes.push(Note::Rollout {
                at,
                service: name.clone(),
                phase: now.phase,
            });
        }
        if now.canary_since_ms.is_some() {
            self.canaries.entry(name.clone()).or_insert(at);
        } else if let Some(since) = self.canaries.remove(name)
            && before.is_some_and(|before| before.canary < now.canary)
        {
            self.notes.push(Note::CanaryOver {
                at,
                service: name.clone(),
                watched: at.saturating_sub(since),
            });
        }
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

/// How many tasks a service shall have: what it asks for, or one on each worker that takes tasks.
pub(crate) fn wanted(fleet: &Fleet, service: &Service) -> usize {
    match service.current.spec.mode {
        Mode::Replicated => service.current.spec.replicas as usize,
        Mode::Global => {
            let workers = fleet.snapshot.workers.values();
            let takes = workers.filter(|one| {
                one.status == Status::Ready && one.availability == Availability::Active
            });
            takes.count()
        }
    }
}

/// A service as `fleet` has it.
fn look(at: Duration, fleet: &Fleet, service: &Service) -> Look {
    let spec = &service.current.spec;
    let mine = || fleet.snapshot.tasks.of_service(service.id);
    let serving = || mine().filter(|task| task.is_available());
    let slots: BTreeSet<u64> = serving().map(|task| task.slot).collect();
    let wanted = match service.removing {
        true => 0,
        false => wanted(fleet, service),
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
