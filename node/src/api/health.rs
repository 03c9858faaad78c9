//! How the node is: health in words, readiness, liveness, metrics, statistics, and the description of the door itself.
//!
//! All of it comes from the node's picture, so these routes answer even when the loop is busy or poisoned.

use super::call::{Call, json, json_with, plain};
use super::wire::{Component, Components, Health, HealthAnswer};
use crate::error::{Code, Error};
use crate::handle::{Condition, Status};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::json as value;

/// Committed entries a node may still have to apply and count as caught up: fewer than a reader could notice.
const READY_LAG_MAX: u64 = 1_000;

/// `GET /health`: 200 while the node does anything useful, 503 otherwise; the body says why.
pub(super) async fn health(call: Call) -> Result<Response, Error> {
    let answer = judge(&call.api.handle.status());
    let status = match answer.status {
        Health::Healthy | Health::Degraded => StatusCode::OK,
        Health::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    json_with(status, &answer)
}

/// `GET /health/ready`: whether traffic should come here.
pub(super) async fn ready(call: Call) -> Result<Response, Error> {
    match not_ready(&call.api.handle.status()) {
        None => json(&value!({ "ready": true })),
        Some(error) => Err(error),
    }
}

/// `GET /health/live`: whether the process should be left alone.
pub(super) async fn live(call: Call) -> Result<Response, Error> {
    match call.api.handle.status().condition {
        Condition::Poisoned { reason } => {
            Err(Error::new(Code::Poisoned, reason)
                .hint("look at the disk, then start the node again"))
        }
        _ => json(&value!({ "live": true })),
    }
}

/// `GET /metrics`, in the Prometheus text format.
pub(super) async fn metrics(call: Call) -> Result<Response, Error> {
    let page = Bytes::from(call.api.handle.metrics_text());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(plain(StatusCode::OK, kind, page))
}

/// `GET /stats`: everything at once, for people with `jq`.
pub(super) async fn stats(call: Call) -> Result<Response, Error> {
    let page = call.api.handle.metrics_text();
    let uptime = call.api.clock.now().since(call.api.since);
    let mut answer = value!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        "node": call.api.handle.status(),
        "limits": call.api.options.limits,
        "store": { "key_count": sample(&page, "seaworthy_storage_keys_total") },
        "wal": {
            "size_bytes": sample(&page, "seaworthy_wal_size_bytes"),
            "segments": sample(&page, "seaworthy_wal_segments_total"),
        },
        "http": { "connections": sample(&page, "seaworthy_http_connections") },
    });
    if let Some(spent) = call.api.process.spent() {
        answer["process"] = value!(spent);
    }
    json(&answer)
}

/// `GET /openapi.json`.
pub(super) async fn openapi(_: Call) -> Result<Response, Error> {
    json(&super::openapi::document())
}

/// The whole number of a series without labels.
fn sample(page: &str, name: &str) -> u64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// Health of each part, and of the whole.
pub(super) fn judge(status: &Status) -> HealthAnswer {
    let components = Components {
        raft: raft(status),
        storage: storage(status),
        api: api(status),
    };
    let parts = [&components.raft, &components.storage, &components.api];
    let worst = parts.iter().map(|part| part.status).max();
    HealthAnswer {
        status: worst.unwrap_or(Health::Healthy),
        node: status.name.clone(),
        components,
    }
}

fn component(status: Health, message: impl Into<String>) -> Component {
    Component {
        status,
        message: message.into(),
    }
}

/// Consensus: is there a leader, and does this node take part?
fn raft(status: &Status) -> Component {
    match &status.condition {
        Condition::Starting { waiting_for } => component(
            Health::Degraded,
            format!("starting, waits for {waiting_for}"),
        ),
        Condition::Rejoining { reason } => component(
            Health::Degraded,
            format!("does not vote until it is let in again: {reason}"),
        ),
        Condition::Removed => component(Health::Unhealthy, "removed from the cluster"),
        Condition::Poisoned { reason } => component(Health::Unhealthy, reason.clone()),
        Condition::Stopping => component(Health::Unhealthy, "stopping"),
        Condition::Running if status.leader.0 == 0 => component(
            Health::Degraded,
            "no leader is known: writes and linearizable reads wait",
        ),
        Condition::Running => component(
            Health::Healthy,
            format!(
                "{} in term {}, leader {}",
                status.role, status.term, status.leader
            ),
        ),
    }
}

/// Log and store: do they take writes, and is the state up to date with the log?
fn storage(status: &Status) -> Component {
    if let Condition::Poisoned { reason } = &status.condition {
        return component(Health::Unhealthy, reason.clone());
    }
    if status.read_only {
        return component(
            Health::Degraded,
            "the disk is nearly full: this node takes no writes as a leader until space is free",
        );
    }
    let lag = apply_lag(status);
    if lag > READY_LAG_MAX {
        return component(
            Health::Degraded,
            format!("{lag} committed entries wait to be applied"),
        );
    }
    component(
        Health::Healthy,
        format!(
            "applied index {} of {}",
            status.applied_index, status.commit_index
        ),
    )
}

/// This door: open, since somebody reads this.
fn api(status: &Status) -> Component {
    match status.condition {
        Condition::Stopping => component(Health::Unhealthy, "takes no new connections"),
        _ => component(Health::Healthy, "serves requests"),
    }
}

fn apply_lag(status: &Status) -> u64 {
    status.commit_index.0.saturating_sub(status.applied_index.0)
}

/// Why traffic should not come here, if so.
pub(super) fn not_ready(status: &Status) -> Option<Error> {
    let refuse = |code, message: String| Some(Error::new(code, message));
    match &status.condition {
        Condition::Running => {}
        Condition::Stopping => {
            return refuse(Code::ShuttingDown, "the node is stopping".to_owned());
        }
        Condition::Poisoned { reason } => return refuse(Code::Poisoned, reason.clone()),
        Condition::Starting { .. } | Condition::Rejoining { .. } | Condition::Removed => {
            return refuse(Code::TooStale, raft(status).message);
        }
    }
    if status.leader.0 == 0 {
        return refuse(Code::NoLeader, "no leader is known".to_owned());
    }
    let lag = apply_lag(status);
    (lag > READY_LAG_MAX).then(|| {
        let message = format!("{lag} committed entries wait to be applied");
        Error::new(Code::TooStale, message)
    })
}
