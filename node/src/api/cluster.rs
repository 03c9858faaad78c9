//! The cluster: who is in it, changes of membership, snapshots, and the names the runbooks know these by.

use super::call::{Call, invalid, json};
use super::wire::{ClusterAnswer, MemberAnswer, MemberRequest, SnapshotAnswer, TransferRequest};
use crate::error::Error;
use crate::handle::MemberChange;
use crate::types::{NodeId, Role};
use axum::response::Response;
use serde_json::json as value;

/// `GET /v1/cluster`.
pub(super) async fn show(call: Call) -> Result<Response, Error> {
    json(&ClusterAnswer::of(&call.api.handle.status()))
}

/// `POST /v1/cluster/members`.
pub(super) async fn add(call: Call) -> Result<Response, Error> {
    let MemberRequest { name, peer, http } = call.json()?;
    for (field, text) in [("name", &name), ("peer", &peer), ("http", &http)] {
        if text.is_empty() {
            return Err(invalid(format!("`{field}` is empty")));
        }
    }
    change(&call, MemberChange::Add { name, peer, http }).await
}

/// `DELETE /v1/cluster/members/{id}`.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    let id = member_id(&call)?;
    change(&call, MemberChange::Remove { id }).await
}

/// `POST /v1/cluster/members/{id}/promote`.
pub(super) async fn promote(call: Call) -> Result<Response, Error> {
    let id = member_id(&call)?;
    change(&call, MemberChange::Promote { id }).await
}

/// `POST /v1/cluster/transfer`.
pub(super) async fn transfer(call: Call) -> Result<Response, Error> {
    let request = match call.body.is_empty() {
        true => TransferRequest::default(),
        false => call.json()?,
    };
    change(&call, MemberChange::Transfer { to: request.to }).await
}

fn member_id(call: &Call) -> Result<NodeId, Error> {
    match call.path_number("id")? {
        0 => Err(invalid("member ids start at 1".to_owned())),
        id => Ok(NodeId(id)),
    }
}

async fn change(call: &Call, change: MemberChange) -> Result<Response, Error> {
    let timeout = call.timeout()?;
    let id = call.api.handle.change_members(change, timeout).await?;
    json(&MemberAnswer { id })
}

/// `POST /v1/admin/snapshot`: answers when the snapshot is durable.
pub(super) async fn snapshot(call: Call) -> Result<Response, Error> {
    let done = call.api.handle.snapshot().await?;
    json(&SnapshotAnswer {
        message: format!(
            "snapshot of {} bytes at index {} is durable",
            done.bytes, done.index
        ),
        snapshot: done.file,
        index: done.index,
        term: done.term,
        revision: done.revision,
        bytes: done.bytes,
        checksum: done.checksum,
    })
}

/// `GET /cluster/nodes`, as the runbooks want it.
pub(super) async fn nodes(call: Call) -> Result<Response, Error> {
    let status = call.api.handle.status();
    let nodes: Vec<_> = status
        .members
        .iter()
        .map(|one| {
            let suffrage = match one.role {
                Role::Learner => "Nonvoter",
                Role::Leader | Role::Follower | Role::Candidate => "Voter",
            };
            value!({ "id": one.member.id, "address": one.member.peer, "suffrage": suffrage })
        })
        .collect();
    json(&value!({ "nodes": nodes }))
}

/// `GET /cluster/leader`, as the runbooks want it.
pub(super) async fn leader(call: Call) -> Result<Response, Error> {
    let status = call.api.handle.status();
    let http = status.leader_info().map(|leader| leader.http);
    json(&value!({ "leader": http.unwrap_or_default(), "state": status.role }))
}

/// `GET /raft/state`, as the runbooks want it.
pub(super) async fn raft_state(call: Call) -> Result<Response, Error> {
    let status = call.api.handle.status();
    json(&value!({
        "state": status.role,
        "term": status.term,
        "leader": status.leader,
        "first_index": status.first_index,
        "last_index": status.last_index,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "elections": status.elections,
        "state_hash": status.state_hash,
    }))
}
