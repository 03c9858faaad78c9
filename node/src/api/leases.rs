//! Leases and sessions: opened, kept and ended. Their ids are the index of the entry that made them.

use super::call::{Call, invalid, json};
use super::kv::{commit, surprise};
use super::wire::{LeaseAnswer, LeaseRequest, SessionAnswer};
use crate::error::Error;
use crate::state::command::{
    Done, LeaseGrant, LeaseKeepAlive, LeaseRevoke, Op, SessionClose, SessionOpen,
};
use crate::types::{LeaseId, SessionId};
use axum::response::Response;

/// `POST /v1/leases`.
pub(super) async fn grant(call: Call) -> Result<Response, Error> {
    let LeaseRequest { ttl_ms } = call.json()?;
    if ttl_ms == 0 {
        return Err(invalid("`ttl_ms` must be at least 1".to_owned()));
    }
    lease(&call, Op::LeaseGrant(LeaseGrant { ttl_ms })).await
}

/// `POST /v1/leases/{id}/keepalive`.
pub(super) async fn keep_alive(call: Call) -> Result<Response, Error> {
    let id = call.path_number("id")?;
    lease(&call, Op::LeaseKeepAlive(LeaseKeepAlive { id })).await
}

async fn lease(call: &Call, op: Op) -> Result<Response, Error> {
    let (place, done) = commit(call, op).await?;
    match done {
        Done::Lease(done) => json(&LeaseAnswer {
            place,
            id: LeaseId(done.id),
            ttl_ms: done.ttl_ms,
        }),
        other => Err(surprise(&other)),
    }
}

/// `DELETE /v1/leases/{id}`.
pub(super) async fn revoke(call: Call) -> Result<Response, Error> {
    let id = call.path_number("id")?;
    let (place, _) = commit(&call, Op::LeaseRevoke(LeaseRevoke { id })).await?;
    json(&place)
}

/// `POST /v1/sessions`.
pub(super) async fn open(call: Call) -> Result<Response, Error> {
    let (place, done) = commit(&call, Op::SessionOpen(SessionOpen {})).await?;
    match done {
        Done::Session(done) => json(&SessionAnswer {
            place,
            id: SessionId(done.id),
        }),
        other => Err(surprise(&other)),
    }
}

/// `DELETE /v1/sessions/{id}`.
pub(super) async fn close(call: Call) -> Result<Response, Error> {
    let id = call.path_number("id")?;
    let (place, _) = commit(&call, Op::SessionClose(SessionClose { id })).await?;
    json(&place)
}
