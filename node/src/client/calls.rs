//! The typed calls, one for each route.

use super::watch::Watch;
use super::{Again, Ask, Client};
use crate::api::txn::{TxnAnswer, TxnRequest};
use crate::api::wire::{
    ClusterAnswer, CompactRequest, DeleteAnswer, GetAnswer, HealthAnswer, LeaseAnswer,
    LeaseRequest, MemberAnswer, MemberRequest, Place, PutAnswer, RangeAnswer, SessionAnswer,
    SnapshotAnswer, TransferRequest,
};
use crate::error::{Code, Error};
use crate::handle::Consistency;
use crate::types::{LeaseId, NodeId, Revision, SessionId};
use bytes::Bytes;
use http::Method;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// Longest time a snapshot may take: as long as the node itself waits for it.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(600);

/// Conditions and wishes of a put or delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Only if the key's version is this.
    pub if_version: Option<u64>,
    /// Only if the key was last written at this revision.
    pub if_mod_revision: Option<Revision>,
    /// Only if the key does not exist.
    pub if_absent: bool,
    /// Lease to tie the key to (puts alone).
    pub lease: Option<LeaseId>,
    /// Whether the answer carries what was there before.
    pub prev: bool,
}

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// All of them.
    All,
    /// One.
    Key(Bytes),
    /// Those that start with this.
    Prefix(Bytes),
    /// From the first to before the second; an empty second means to the end.
    Span(Bytes, Bytes),
}

/// How a read is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How fresh it must be.
    pub consistency: Consistency,
    /// As of this revision; none for now.
    pub revision: Option<Revision>,
}

impl Default for Reading {
    fn default() -> Self {
        Reading {
            consistency: Consistency::Linearizable,
            revision: None,
        }
    }
}

/// How much of a range is returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Most records; none for the server's limit.
    pub limit: Option<u64>,
    /// Only keys after this one.
    pub after: Option<Bytes>,
    /// Keys without values.
    pub keys_only: bool,
    /// The count alone.
    pub count_only: bool,
}

impl Client {
    /// Writes `key`.
    pub async fn put(
        &self,
        key: &[u8],
        value: impl Into<Bytes>,
        conditions: Conditions,
    ) -> Result<PutAnswer, Error> {
        let target = conditions.add_to(key_path(key)?);
        let mut ask = Ask::new(Method::PUT, target, Again::InSession);
        ask.body = value.into();
        self.json(ask).await
    }

    /// Reads `key`; none when there is no such key.
    pub async fn get(&self, key: &[u8], reading: Reading) -> Result<Option<GetAnswer>, Error> {
        let target = reading.add_to(Target::new(&key_path(key)?.0));
        let ask = Ask::new(Method::GET, target, Again::Harmless);
        absent_is_none(self.json(ask).await)
    }

    /// Removes `key`.
    pub async fn delete(&self, key: &[u8], conditions: Conditions) -> Result<DeleteAnswer, Error> {
        let target = conditions.add_to(key_path(key)?);
        self.json(Ask::new(Method::DELETE, target, Again::InSession))
            .await
    }

    /// Reads one page of a range.
    pub async fn range(
        &self,
        range: &Range,
        page: &Page,
        reading: Reading,
    ) -> Result<RangeAnswer, Error> {
        let target = range.add_to(Target::new("/v1/kv"));
        let target = reading.add_to(page.add_to(target));
        self.json(Ask::new(Method::GET, target, Again::Harmless))
            .await
    }

    /// Removes a range.
    pub async fn delete_range(&self, range: &Range, prev: bool) -> Result<DeleteAnswer, Error> {
        let target = match range {
            Range::All => Target::new("/v1/kv").bytes("prefix", &[]),
            other => other.add_to(Target::new("/v1/kv")),
        };
        let target = target.switch("prev", prev);
        self.json(Ask::new(Method::DELETE, target, Again::InSession))
            .await
    }

    /// Compares, then does one of two lists.
    pub async fn txn(&self, txn: &TxnRequest) -> Result<TxnAnswer, Error> {
        let ask = Ask::new(Method::POST, Target::new("/v1/txn"), Again::InSession);
        self.json(ask.with_json(txn)?).await
    }

    /// Gives up history at and below `revision`.
    pub async fn compact(&self, revision: Revision) -> Result<Place, Error> {
        let ask = Ask::new(Method::POST, Target::new("/v1/compact"), Again::InSession);
        let request = CompactRequest {
            revision: revision.0,
        };
        self.json(ask.with_json(&request)?).await
    }

    /// Grants a lease.
    pub async fn grant_lease(&self, ttl_ms: u64) -> Result<LeaseAnswer, Error> {
        let ask = Ask::new(Method::POST, Target::new("/v1/leases"), Again::InSession);
        self.json(ask.with_json(&LeaseRequest { ttl_ms })?).await
    }

    /// Renews a lease.
    pub async fn keep_lease(&self, id: LeaseId) -> Result<LeaseAnswer, Error> {
        let target = Target::new(&format!("/v1/leases/{id}/keepalive"));
        self.json(Ask::new(Method::POST, target, Again::Harmless))
            .await
    }

    /// Ends a lease and removes its keys.
    pub async fn revoke_lease(&self, id: LeaseId) -> Result<Place, Error> {
        let target = Target::new(&format!("/v1/leases/{id}"));
        self.json(Ask::new(Method::DELETE, target, Again::InSession))
            .await
    }

    /// Opens a session, to be used outside this client; its own sessions open by themselves.
    pub async fn open_session(&self) -> Result<SessionId, Error> {
        // A session opened twice by a lost answer is forgotten by the cluster in time.
        let ask = Ask::new(Method::POST, Target::new("/v1/sessions"), Again::Harmless);
        let answer: SessionAnswer = Box::pin(self.json(ask)).await?;
        Ok(answer.id)
    }

    /// Ends a session.
    pub async fn close_session(&self, id: SessionId) -> Result<Place, Error> {
        let target = Target::new(&format!("/v1/sessions/{id}"));
        self.json(Ask::new(Method::DELETE, target, Again::Never))
            .await
    }

    /// Follows changes of a range from revision `from` on, or from now on.
    pub async fn watch(&self, range: &Range, from: Option<Revision>) -> Result<Watch, Error> {
        let target = match range {
            Range::Key(key) => Target::new("/v1/watch").bytes("key", key),
            other => other.add_to(Target::new("/v1/watch")),
        };
        Watch::open(self.clone(), target.0, from).await
    }

    /// The members, the leader, and how far each is: as the leader sees it, or as another node does when the leader cannot be asked.
    pub async fn cluster(&self) -> Result<ClusterAnswer, Error> {
        let answer: ClusterAnswer = self.json(Ask::get("/v1/cluster")).await?;
        if answer.leader == answer.id {
            return Ok(answer);
        }
        let leader = answer.members.iter().find(|one| one.id == answer.leader);
        match leader {
            Some(leader) => Ok(self.cluster_at(&leader.http).await.unwrap_or(answer)),
            None => Ok(answer),
        }
    }

    /// The cluster as the node at `endpoint` sees it.
    pub async fn cluster_at(&self, endpoint: &str) -> Result<ClusterAnswer, Error> {
        let body = self.ask_one(endpoint, "/v1/cluster").await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::new(Code::Internal, format!("not a cluster answer: {error}")))
    }

    /// Adds a member; answers its id.
    pub async fn add_member(&self, member: &MemberRequest) -> Result<NodeId, Error> {
        let target = Target::new("/v1/cluster/members");
        let ask = Ask::new(Method::POST, target, Again::Never);
        self.member(ask.with_json(member)?).await
    }

    /// Removes a member.
    pub async fn remove_member(&self, id: NodeId) -> Result<NodeId, Error> {
        let target = Target::new(&format!("/v1/cluster/members/{id}"));
        self.member(Ask::new(Method::DELETE, target, Again::Never))
            .await
    }

    /// Gives a member that has caught up its vote.
    pub async fn promote_member(&self, id: NodeId) -> Result<NodeId, Error> {
        let target = Target::new(&format!("/v1/cluster/members/{id}/promote"));
        self.member(Ask::new(Method::POST, target, Again::Never))
            .await
    }

    /// Hands leadership to `to`, or to whom the leader chooses; answers the new leader.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, Error> {
        let target = Target::new("/v1/cluster/transfer");
        let ask = Ask::new(Method::POST, target, Again::Never);
        let request = TransferRequest {
            to: to.unwrap_or_default(),
        };
        self.member(ask.with_json(&request)?).await
    }

    async fn member(&self, ask: Ask) -> Result<NodeId, Error> {
        let answer: MemberAnswer = self.json(ask).await?;
        Ok(answer.id)
    }

    /// Cuts a snapshot on the answering node.
    pub async fn snapshot(&self) -> Result<SnapshotAnswer, Error> {
        let target = Target::new("/v1/admin/snapshot");
        let ask = Ask::new(Method::POST, target, Again::Harmless);
        self.json(Ask {
            limit: Some(SNAPSHOT_LIMIT),
            timed: false,
            ..ask
        })
        .await
    }

    /// How the node at `endpoint` is. An unhealthy node's answer is an answer too.
    pub async fn health(&self, endpoint: &str) -> Result<HealthAnswer, Error> {
        let body = self.ask_one(endpoint, "/health").await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::new(Code::Internal, format!("not a health answer: {error}")))
    }

    /// Statistics of the node at `endpoint`.
    pub async fn stats(&self, endpoint: &str) -> Result<serde_json::Value, Error> {
        let body = self.ask_one(endpoint, "/stats").await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::new(Code::Internal, format!("not statistics: {error}")))
    }

    /// Metrics of the node at `endpoint`, in Prometheus text.
    pub async fn metrics(&self, endpoint: &str) -> Result<String, Error> {
        let body = self.ask_one(endpoint, "/metrics").await?;
        String::from_utf8(body.to_vec())
            .map_err(|_| Error::new(Code::Internal, "the metrics are not UTF-8"))
    }
}

impl Ask {
    /// A request without a body.
    fn new(method: Method, target: Target, again: Again) -> Self {
        Ask {
            method,
            target: target.0,
            body: Bytes::new(),
            json: false,
            again,
            session: None,
            limit: None,
            timed: true,
        }
    }

    /// A read of `path`, which needs no encoding.
    pub(crate) fn get(path: &str) -> Self {
        let ask = Ask::new(Method::GET, Target::new(path), Again::Harmless);
        Ask {
            timed: false,
            ..ask
        }
    }

    /// The same with a JSON body.
    fn with_json<T: Serialize>(mut self, body: &T) -> Result<Self, Error> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?;
        self.body = Bytes::from(body);
        self.json = true;
        Ok(self)
    }
}

/// None for "no such key".
fn absent_is_none<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A path with its query, growing.
struct Target(String);

impl Target {
    fn new(path: &str) -> Self {
        Target(path.to_owned())
    }

    /// Adds a parameter of bytes.
    fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        let joint = if self.0.contains('?') { '&' } else { '?' };
        self.0.push(joint);
        self.0.push_str(name);
        self.0.push('=');
        percent_encode(value, &mut self.0);
        self
    }

    /// Adds a number, if there is one.
    fn number(self, name: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.bytes(name, value.to_string().as_bytes()),
            None => self,
        }
    }

    /// Adds a switch that is on.
    fn switch(self, name: &str, on: bool) -> Self {
        if on { self.bytes(name, b"true") } else { self }
    }
}

impl Conditions {
    fn add_to(self, target: Target) -> Target {
        target
            .number("if_version", self.if_version)
            .number("if_mod_revision", self.if_mod_revision.map(|at| at.0))
            .switch("if_absent", self.if_absent)
            .number("lease", self.lease.map(|lease| lease.0))
            .switch("prev", self.prev)
    }
}

impl Range {
    fn add_to(&self, target: Target) -> Target {
        match self {
            Range::All => target,
            Range::Key(key) => {
                let end = [&key[..], &[0]].concat();
                target.bytes("start", key).bytes("end", &end)
            }
            Range::Prefix(prefix) => target.bytes("prefix", prefix),
            Range::Span(start, end) if end.is_empty() => target.bytes("start", start),
            Range::Span(start, end) => target.bytes("start", start).bytes("end", end),
        }
    }
}

impl Page {
    fn add_to(&self, target: Target) -> Target {
        let target = match &self.after {
            Some(after) => target.bytes("after", after),
            None => target,
        };
        target
            .number("limit", self.limit)
            .switch("keys_only", self.keys_only)
            .switch("count_only", self.count_only)
    }
}

impl Reading {
    fn add_to(self, target: Target) -> Target {
        let target = match self.consistency {
            Consistency::Linearizable => target,
            Consistency::Local => target.bytes("consistency", b"local"),
            Consistency::Bounded { max_age } => {
                let ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
                let target = target.bytes("consistency", b"bounded");
                target.number("max_age_ms", Some(ms))
            }
        };
        target.number("revision", self.revision.map(|at| at.0))
    }
}

/// The path of a key.
fn key_path(key: &[u8]) -> Result<Target, Error> {
    if key.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "the key is empty"));
    }
    let mut path = "/v1/kv/".to_owned();
    percent_encode(key, &mut path);
    Ok(Target(path))
}

/// Writes bytes so that they stand for themselves in a path or query.
fn percent_encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(*byte));
            }
            other => write!(out, "%{other:02X}").expect("writing into a string"),
        }
    }
}
