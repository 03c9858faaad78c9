//! Tests of the worker: facts of one task's life, properties in a model world, damage on the disk, and real processes.

mod disk;
mod facts;
mod harbour;
mod managers;
mod meetings;
mod model;
mod properties;
mod real;
mod shell;

use super::words::{Assignment, Timing};
use crate::knobs::Knobs;
use crate::service::spec::{Health, HealthCheck, Mount, RestartCondition};
use crate::service::{Desired, Spec};
use crate::types::{ServiceId, TaskId};
use std::collections::BTreeMap;

/// The numbers of an ordinary worker.
fn timing() -> Timing {
    Timing::of(&Knobs::default())
}

/// Task `id` with `spec`, to be run.
pub(super) fn assignment(id: u64, spec: Spec) -> Assignment {
    Assignment {
        task: TaskId(id),
        service: ServiceId(1),
        slot: 1,
        version: 1,
        desired: Desired::Run,
        spec: spec.into(),
        secrets: BTreeMap::new(),
    }
}

/// A service with a single-writer volume.
fn writer(volume: &str) -> Spec {
    let mut spec = Spec::new("db", &["db"]);
    spec.volumes.push(Mount {
        volume: volume.to_owned(),
        target: "/data".to_owned(),
        shared: false,
    });
    spec
}

/// A service with a health check.
fn checked() -> Spec {
    let mut spec = Spec::new("web", &["web"]);
    spec.health = Some(Health {
        check: HealthCheck::Tcp { port: 80 },
        interval_ms: 5_000,
        timeout_ms: 1_000,
        retries: 2,
        start_period_ms: 3_000,
    });
    spec
}

/// One of several kinds of services.
fn kind(number: u16) -> Spec {
    let mut spec = match number % 8 {
        0 | 1 => Spec::new("plain", &["a"]),
        2 => checked(),
        3 | 4 => writer("v"),
        5 => writer("w"),
        _ => Spec::new("job", &["b"]),
    };
    spec.restart.condition = match number / 8 % 4 {
        0 => RestartCondition::Never,
        1 => RestartCondition::OnFailure,
        _ => RestartCondition::Always,
    };
    spec.restart.attempts_max = [0, 1, 3, 5][usize::from(number / 32 % 4)];
    spec.stop_grace_ms = [0, 1_000, 10_000, 60_000][usize::from(number / 128 % 4)];
    spec
}
