//! The numbers of orchestration: told by the leader alone, and zero everywhere else.

use super::{FAST_SECONDS, Family, Kind, Metrics, SLOW_SECONDS, family, float};
use crate::fleet::{Event, Fleet};
use crate::map::Map;
use crate::scheduler::model::{Status, Task};
use crate::service::State;
use crate::types::TaskId;
use metrics::Label;
use std::time::Duration;

/// Bounds of the buckets of what people wait for, seconds.
const PATIENT_SECONDS: [f64; 12] = [
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0,
];

/// Their names.
pub(super) const FAMILIES: &[Family] = &[
    family(
        "seaworthy_services_total",
        Kind::Gauge,
        "Services; told by the leader alone.",
    ),
    family(
        "seaworthy_tasks_total",
        Kind::Gauge,
        "Tasks that are remembered, by observed state; told by the leader alone.",
    ),
    family(
        "seaworthy_task_pending_oldest_seconds",
        Kind::Gauge,
        "Age of the oldest task that shall run and has no worker; zero: none waits. Told by the leader alone.",
    ),
    family(
        "seaworthy_tasks_failed_total",
        Kind::Counter,
        "Tasks that failed or were rejected while this node led.",
    ),
    family(
        "seaworthy_scheduling_latency_seconds",
        Kind::Histogram(&SLOW_SECONDS),
        "Time from a task's creation until it had a worker, while this node led.",
    ),
    family(
        "seaworthy_service_update_duration_seconds",
        Kind::Histogram(&PATIENT_SECONDS),
        "Time of a rollout from its begin until every slot had its version, while this node led.",
    ),
    family(
        "seaworthy_reconcile_cycles_total",
        Kind::Counter,
        "Passes of the reconciler while this node led.",
    ),
    family(
        "seaworthy_reconcile_duration_seconds",
        Kind::Histogram(&FAST_SECONDS),
        "Time of one pass of the reconciler.",
    ),
    family(
        "seaworthy_worker_heartbeats_total",
        Kind::Counter,
        "Heartbeats of workers that reached this node as the leader.",
    ),
    family(
        "seaworthy_workers_marked_down_total",
        Kind::Counter,
        "Workers that this node marked down.",
    ),
    family(
        "seaworthy_worker_suspicion_phi",
        Kind::Gauge,
        "The greatest suspicion (phi) among the workers; told by the leader alone.",
    ),
];

/// Tasks by state, counted on from one fleet to the next.
#[derive(Default)]
pub(crate) struct Tally {
    /// What was counted.
    tasks: Map<TaskId, Task>,
    /// How many are in each state, in the order of all.
    states: [usize; State::ALL.len()],
}

impl Tally {
    fn follow(&mut self, tasks: &Map<TaskId, Task>) {
        let place = |state: State| {
            let place = State::ALL.iter().position(|one| *one == state);
            place.expect("the list has every state")
        };
        for id in tasks.differences(&self.tasks) {
            if let Some(old) = self.tasks.get(id) {
                self.states[place(old.state)] -= 1;
            }
            if let Some(new) = tasks.get(id) {
                self.states[place(new.state)] += 1;
            }
        }
        self.tasks = tasks.clone();
    }
}

impl Metrics {
    /// A pass of the reconciler over `fleet` took this long; `tally` is that of the pass before.
    pub(crate) fn observe_pass(&self, took: Duration, fleet: &Fleet, tally: &mut Tally) {
        self.counter("seaworthy_reconcile_cycles_total", Vec::new())
            .increment(1);
        self.histogram("seaworthy_reconcile_duration_seconds", Vec::new())
            .record(took.as_secs_f64());
        tally.follow(&fleet.snapshot.tasks);
        self.set_fleet(fleet, tally);
    }

    /// This node does not lead any more: others tell of the fleet.
    pub(crate) fn forget_fleet(&self) {
        self.set_fleet(&Fleet::default(), &Tally::default());
        self.set_suspicion(0.0);
        self.set_oldest_pending(Duration::ZERO);
    }

    fn set_fleet(&self, fleet: &Fleet, tally: &Tally) {
        let set = |name, labels, count: usize| self.gauge(name, labels).set(float(count as u64));
        let snapshot = &fleet.snapshot;
        set(
            "seaworthy_services_total",
            Vec::new(),
            snapshot.services.len(),
        );
        for (state, count) in State::ALL.iter().zip(tally.states) {
            let labels = vec![Label::new("state", state.to_string())];
            set("seaworthy_tasks_total", labels, count);
        }
        for (status, word) in [
            (Status::Joining, "joining"),
            (Status::Ready, "ready"),
            (Status::Down, "down"),
        ] {
            let workers = snapshot.workers.values();
            let count = workers.filter(|worker| worker.status == status).count();
            self.set_nodes("worker", word, count as u64);
        }
    }

    /// Something happened to the fleet.
    pub(crate) fn observe_event(&self, event: &Event, fleet: &Fleet) {
        match event.kind.as_str() {
            "task.failed" | "task.rejected" => self
                .counter("seaworthy_tasks_failed_total", Vec::new())
                .increment(1),
            "task.assigned" => {
                let task = event.task.and_then(|id| fleet.snapshot.tasks.get(&id));
                if let Some(task) = task {
                    self.observe_span(
                        "seaworthy_scheduling_latency_seconds",
                        task.created_ms,
                        event.time_ms,
                    );
                }
            }
            "service.rollout.completed" => {
                let service = event.service;
                let service = service.and_then(|id| fleet.snapshot.services.get(&id));
                if let Some(service) = service {
                    self.observe_span(
                        "seaworthy_service_update_duration_seconds",
                        service.rollout.started_ms,
                        event.time_ms,
                    );
                }
            }
            _ => {}
        }
    }

    fn observe_span(&self, name: &'static str, from_ms: u64, to_ms: u64) {
        let span = Duration::from_millis(to_ms.saturating_sub(from_ms));
        self.histogram(name, Vec::new()).record(span.as_secs_f64());
    }

    /// A worker's heartbeat came.
    pub(crate) fn count_heartbeat(&self) {
        self.counter("seaworthy_worker_heartbeats_total", Vec::new())
            .increment(1);
    }

    /// So many workers were marked down.
    pub(crate) fn count_downs(&self, count: u64) {
        self.counter("seaworthy_workers_marked_down_total", Vec::new())
            .increment(count);
    }

    /// How long the oldest task without a worker has waited.
    pub(crate) fn set_oldest_pending(&self, age: Duration) {
        self.gauge("seaworthy_task_pending_oldest_seconds", Vec::new())
            .set(age.as_secs_f64());
    }

    /// The greatest suspicion among the workers.
    pub(crate) fn set_suspicion(&self, phi: f64) {
        self.gauge("seaworthy_worker_suspicion_phi", Vec::new())
            .set(phi);
    }

    /// Has every series without labels on the page from the start.
    pub(super) fn begin_fleet(&self) {
        for family in FAMILIES {
            match family.kind {
                Kind::Counter => self.counter(family.name, Vec::new()).increment(0),
                Kind::Histogram(_) => drop(self.histogram(family.name, Vec::new())),
                Kind::Gauge => {}
            }
        }
        self.forget_fleet();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::model::Worker;
    use crate::types::WorkerId;

    #[test]
    fn the_fleet_is_told_and_forgotten_with_the_lead() {
        let metrics = Metrics::new();
        let mut fleet = Fleet::default();
        let task = Task {
            state: State::Running,
            created_ms: 1_000,
            ..Task::default()
        };
        fleet.snapshot.tasks.insert(TaskId(1), task);
        (fleet.snapshot.workers).insert(WorkerId(1), Worker::default());
        metrics.observe_pass(Duration::from_millis(1), &fleet, &mut Tally::default());
        let event = |kind: &str| Event {
            time_ms: 1_250,
            kind: kind.to_owned(),
            service: None,
            task: Some(TaskId(1)),
            worker: None,
            message: String::new(),
        };
        metrics.observe_event(&event("task.assigned"), &fleet);
        metrics.observe_event(&event("task.failed"), &fleet);
        metrics.set_oldest_pending(Duration::from_millis(301_500));
        let page = metrics.render();
        for line in [
            "seaworthy_task_pending_oldest_seconds 301.5",
            "seaworthy_tasks_total{state=\"running\"} 1",
            "seaworthy_nodes_total{role=\"worker\",status=\"joining\"} 1",
            "seaworthy_scheduling_latency_seconds_sum 0.25",
            "seaworthy_tasks_failed_total 1",
            "seaworthy_reconcile_cycles_total 1",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line}: {page}");
        }
        metrics.forget_fleet();
        let page = metrics.render();
        assert!(page.contains("seaworthy_tasks_total{state=\"running\"} 0\n"));
        assert!(page.contains("seaworthy_task_pending_oldest_seconds 0\n"));
    }
}
