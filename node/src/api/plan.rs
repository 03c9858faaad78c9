//! What a change of a service would do, without doing it: the change is made to a copy of the fleet, and the scheduler is asked
//! again and again, as if each task ran as soon as it has a node, and ended as soon as it is told to.

use super::call::{Call, json};
use super::explain::moment;
use super::fleet_wire::worker_name;
use super::services::read;
use super::story_wire::{NodePlan, PlanAnswer, Waiting};
use super::wire::Fresh;
use crate::error::Error;
use crate::fleet::apply::At;
use crate::fleet::{Command, Fleet};
use crate::handle::refusal;
use crate::scheduler::model::{Moment, Snapshot, Status, Task};
use crate::scheduler::{self, Change};
use crate::service::{Desired, Spec, State};
use crate::state::command::Refused;
use crate::types::{ServiceId, Term, WorkerId};
use axum::response::Response;
use std::collections::BTreeMap;

/// Passes of the scheduler at most.
const PASSES_MAX: u64 = 2_000;
/// Tasks looked at, over all passes, at most: a second or two of work.
const LOOKS_MAX: u64 = 4_000_000;
/// How far ahead is looked, milliseconds: a week. Nothing that ends by itself takes longer.
const AHEAD_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// `POST /v1/services/plan`.
pub(super) async fn plan(call: Call) -> Result<Response, Error> {
    let spec: Spec = call.json()?;
    let (fleet, fresh) = read(&call).await?;
    let now_ms = call.api.clock.wall_ms().max(fleet.newest_ms());
    let mut forecast = Forecast::new(&fleet, spec, now_ms)?;
    drop(fleet);
    while forecast.step() {
        // A long rollout is many passes: others get their turn between them.
        tokio::task::yield_now().await;
    }
    json(&forecast.answer(fresh))
}

/// A copy of the fleet, and how far it has been followed.
struct Forecast {
    /// The copy.
    fleet: Fleet,
    /// The service.
    service: ServiceId,
    /// What will be answered; counted as it goes.
    answer: PlanAnswer,
    /// By node.
    nodes: BTreeMap<WorkerId, NodePlan>,
    /// When it would be now.
    moment: Moment,
    /// When it began, milliseconds.
    began_ms: u64,
    /// Passes made.
    passes: u64,
    /// Tasks looked at.
    looks: u64,
}

impl Forecast {
    fn new(fleet: &Fleet, spec: Spec, now_ms: u64) -> Result<Self, Error> {
        let mut copy = fleet.clone();
        let name = spec.name.clone();
        let before = fleet.service(&name).map(|service| &service.current.spec);
        let action = match before {
            None => "create",
            Some(before) if **before == spec => "none",
            Some(_) => "update",
        };
        let rollout = before.is_some_and(|before| before.needs_rollout(&spec));
        let command = match before {
            None => Command::ServiceCreate { spec },
            Some(_) => Command::ServiceUpdate {
                name: name.clone(),
                spec,
                expect_version: None,
            },
        };
        if action != "none" {
            let at = At {
                index: fleet.index.saturating_add(1),
                term: Term(0),
                time_ms: now_ms,
            };
            copy.apply(&command, at).map_err(|refused| {
                refusal(Refused {
                    why: refused.why as i32,
                    message: refused.message,
                    current: None,
                })
            })?;
        }
        let service = copy.service(&name);
        let (service, version) =
            service.map_or_else(Default::default, |one| (one.id, one.current.version));
        let mut nodes: BTreeMap<WorkerId, NodePlan> = BTreeMap::new();
        for worker in serving(&fleet.snapshot, service) {
            nodes.entry(worker).or_default().before += 1;
        }
        Ok(Forecast {
            fleet: copy,
            service,
            answer: PlanAnswer {
                service: name,
                action: action.to_owned(),
                version,
                rollout,
                starts: 0,
                stops: 0,
                others: 0,
                nodes: Vec::new(),
                waiting: Vec::new(),
                takes_ms: 0,
                complete: false,
                fresh: Fresh::default(),
            },
            nodes,
            moment: moment(now_ms),
            began_ms: now_ms,
            passes: 0,
            looks: 0,
        })
    }

    /// One pass of the scheduler and what follows from it; false when there is nothing more to see.
    fn step(&mut self) -> bool {
        let tasks = u64::try_from(self.fleet.snapshot.tasks.len()).unwrap_or(u64::MAX);
        self.passes += 1;
        self.looks = self.looks.saturating_add(tasks);
        if self.passes > PASSES_MAX || self.looks > LOOKS_MAX {
            return false;
        }
        let plan = scheduler::reconcile(&self.fleet.snapshot, &self.moment);
        for change in &plan.changes {
            self.count(change);
            self.fleet.snapshot.apply(change, self.moment.now_ms);
        }
        let moved = go_on(&mut self.fleet.snapshot, self.moment.now_ms);
        if moved || !plan.changes.is_empty() {
            return true;
        }
        let horizon_ms = self.began_ms.saturating_add(AHEAD_MS_MAX);
        match plan.wake_ms {
            Some(wake_ms) if wake_ms > self.moment.now_ms && wake_ms <= horizon_ms => {
                self.moment.now_ms = wake_ms;
                true
            }
            _ => {
                self.answer.complete = true;
                false
            }
        }
    }

    /// Counts a change that starts or stops a task on a node.
    fn count(&mut self, change: &Change) {
        let tasks = &self.fleet.snapshot.tasks;
        match *change {
            Change::Assign { task, worker, .. } => {
                let ours = tasks
                    .get(&task)
                    .is_some_and(|task| task.service == self.service);
                if ours {
                    self.answer.starts += 1;
                    self.nodes.entry(worker).or_default().starts += 1;
                } else {
                    self.answer.others += 1;
                }
            }
            Change::SetDesired { task, .. } => {
                let Some(task) = tasks.get(&task).filter(|task| stops_with_it(task)) else {
                    return;
                };
                match task.worker {
                    Some(worker) if task.service == self.service => {
                        self.answer.stops += 1;
                        self.nodes.entry(worker).or_default().stops += 1;
                    }
                    _ => self.answer.others += 1,
                }
            }
            _ => {}
        }
    }

    fn answer(mut self, fresh: Fresh) -> PlanAnswer {
        for worker in serving(&self.fleet.snapshot, self.service) {
            self.nodes.entry(worker).or_default().after += 1;
        }
        let snapshot = &self.fleet.snapshot;
        let pending = snapshot.tasks.values().filter(|task| {
            let waits = task.state == State::Pending && task.desired == Desired::Run;
            waits && task.service == self.service
        });
        let waiting = pending.map(|task| {
            let why = scheduler::explain(snapshot, &self.moment, task.id);
            Waiting {
                slot: task.slot,
                why: why.map_or_else(String::new, |why| why.summary),
            }
        });
        self.answer.waiting = waiting.collect();
        let nodes = self.nodes.into_iter().map(|(worker, node)| NodePlan {
            node: worker_name(&self.fleet, worker),
            ..node
        });
        self.answer.nodes = nodes.collect();
        self.answer.takes_ms = self.moment.now_ms.saturating_sub(self.began_ms);
        self.answer.fresh = fresh;
        self.answer
    }
}

/// Whether a task on a node begins to end when it is told to.
fn stops_with_it(task: &Task) -> bool {
    task.desired == Desired::Run && task.state.is_on_worker()
}

/// The nodes of the tasks of a service that shall run.
fn serving(snapshot: &Snapshot, service: ServiceId) -> impl Iterator<Item = WorkerId> {
    let tasks = snapshot.tasks.values();
    let here = move |task: &&Task| task.service == service && task.is_live();
    tasks.filter(here).filter_map(|task| task.worker)
}

/// What workers would do: start what they were given, end what was taken away. True if anything changed.
fn go_on(snapshot: &mut Snapshot, now_ms: u64) -> bool {
    let workers = &snapshot.workers;
    let mut moved = false;
    for task in snapshot.tasks.values_mut() {
        let worker = task.worker.and_then(|worker| workers.get(&worker));
        let there = worker.is_some_and(|worker| worker.status == Status::Ready);
        if !there || !task.state.is_on_worker() || task.lost_ms.is_some() {
            continue;
        }
        let next = match (task.desired, task.state) {
            (Desired::Run, State::Running) => continue,
            (Desired::Run, State::Assigned | State::Preparing | State::Starting) => State::Running,
            _ => State::Stopped,
        };
        task.state = next;
        task.changed_ms = now_ms;
        if next == State::Running {
            task.running_since_ms.get_or_insert(now_ms);
        }
        moved = true;
    }
    moved
}
