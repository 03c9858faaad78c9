//! The JSON that goes over the HTTP door, as types both sides share: the server writes what the client reads.
//!
//! Bytes travel as text when they are UTF-8 (`key`, `value`) and in base64 otherwise (`key_base64`, `value_base64`); exactly
//! one of the two is present. Requests refuse unknown fields. Numbers are JSON integers; incarnations and the cluster id are
//! hexadecimal text, because they use all 64 bits.

use crate::error::{Code, Error};
use crate::handle::{MemberStatus, Stamp, Status};
use crate::state::command::{self, KeyValue, Outcome};
use crate::types::{
    ClusterId, Incarnation, Index, LeaseId, NodeId, Revision, Role, SessionId, Term,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes as text if they are UTF-8, else as base64: (`text`, `base64`).
pub(crate) fn to_text(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// The bytes of a pair of fields called `name` and `name_base64`, of which at most one is given.
pub(crate) fn from_text(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, Error> {
    match (text, base64) {
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(base64)) => match STANDARD.decode(&base64) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) => Err(invalid(format!("`{name}_base64` is not base64: {error}"))),
        },
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(invalid(format!(
            "give `{name}` or `{name}_base64`, not both"
        ))),
    }
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

/// A key and all that is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Key, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Key in base64, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Value, when it is UTF-8 and was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Value in base64, when it is not UTF-8 and was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Writes since creation, from 1.
    pub version: u64,
    /// Revision of creation.
    pub create_revision: Revision,
    /// Revision of the last write.
    pub mod_revision: Revision,
    /// Lease it is tied to, zero for none.
    pub lease: LeaseId,
}

impl Record {
    /// A record with its value.
    pub(crate) fn of(kv: &KeyValue) -> Self {
        let (value, value_base64) = to_text(&kv.value);
        Record {
            value,
            value_base64,
            ..Record::without_value(kv)
        }
    }

    /// A record without its value.
    pub(crate) fn without_value(kv: &KeyValue) -> Self {
        let (key, key_base64) = to_text(&kv.key);
        Record {
            key,
            key_base64,
            value: None,
            value_base64: None,
            version: kv.version,
            create_revision: Revision(kv.create_revision),
            mod_revision: Revision(kv.mod_revision),
            lease: LeaseId(kv.lease),
        }
    }

    /// The key's bytes.
    pub fn key_bytes(&self) -> Result<Bytes, Error> {
        let key = from_text("key", self.key.clone(), self.key_base64.clone())?;
        key.ok_or_else(|| invalid("the record has no key".to_owned()))
    }

    /// The value's bytes; none if only keys were asked for.
    pub fn value_bytes(&self) -> Result<Option<Bytes>, Error> {
        from_text("value", self.value.clone(), self.value_base64.clone())
    }
}

/// Where a write stands in history; part of every answer to a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The store's revision after the command.
    pub revision: Revision,
    /// The command's place in the log.
    pub index: Index,
    /// True when the answer comes from the session's memory: the command had been done before.
    pub replayed: bool,
}

impl Place {
    /// The place of `outcome`.
    pub(crate) fn of(outcome: &Outcome) -> Self {
        Place {
            revision: Revision(outcome.revision),
            index: Index(outcome.index),
            replayed: outcome.replayed,
        }
    }
}

/// How fresh an answer to a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// Revision the answer reflects.
    pub revision: Revision,
    /// Last entry applied on the answering node.
    pub applied_index: Index,
    /// Upper bound of the answer's age, milliseconds; absent for linearizable reads and when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

impl From<Stamp> for Fresh {
    fn from(stamp: Stamp) -> Self {
        Fresh {
            revision: stamp.revision,
            applied_index: stamp.applied_index,
            age_ms: stamp.age_ms,
        }
    }
}

/// Answer to a put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAnswer {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What it did.
    #[serde(flatten)]
    pub done: PutResult,
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutResult {
    /// Version of the key after it.
    pub version: u64,
    /// Revision in which the key was created.
    pub create_revision: Revision,
    /// The record before, if asked for and present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Record>,
}

impl From<command::PutDone> for PutResult {
    fn from(done: command::PutDone) -> Self {
        PutResult {
            version: done.version,
            create_revision: Revision(done.create_revision),
            prev: done.prev.as_ref().map(Record::of),
        }
    }
}

/// Answer to a delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteAnswer {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What it did.
    #[serde(flatten)]
    pub done: DeleteResult,
}

/// What a delete did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteResult {
    /// Keys removed.
    pub deleted: u64,
    /// The records before, if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prev: Vec<Record>,
}

impl From<command::DeleteDone> for DeleteResult {
    fn from(done: command::DeleteDone) -> Self {
        DeleteResult {
            deleted: done.deleted,
            prev: done.prev.iter().map(Record::of).collect(),
        }
    }
}

/// Answer to a read of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetAnswer {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// How fresh it is.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Answer to a read of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeAnswer {
    /// The records.
    #[serde(flatten)]
    pub found: RangeResult,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// What a read of a range found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResult {
    /// Records in key order.
    pub kvs: Vec<Record>,
    /// True when the limit cut the list short: ask again with `after=` the last key.
    pub more: bool,
    /// Keys in the whole range; exact when `more` is false or only the count was asked for.
    pub count: u64,
}

impl RangeResult {
    /// The result of a read, with or without values.
    pub(crate) fn of(done: &command::GetDone, keys_only: bool) -> Self {
        let record = if keys_only {
            Record::without_value
        } else {
            Record::of
        };
        RangeResult {
            kvs: done.kvs.iter().map(record).collect(),
            more: done.more,
            count: done.count,
        }
    }
}

/// A lease to be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// Time to live, milliseconds.
    pub ttl_ms: u64,
}

/// Answer to a lease's grant or renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Lease.
    pub id: LeaseId,
    /// Time to live, milliseconds.
    pub ttl_ms: u64,
}

/// Answer to a session's opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAnswer {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Session.
    pub id: SessionId,
}

/// History to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactRequest {
    /// History at and below this revision goes, except what current keys need.
    pub revision: u64,
}

/// One change of one key, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchChange {
    /// The record after the change; after a removal the key and the removal's revision alone.
    #[serde(flatten)]
    pub record: Record,
    /// Modify revision of the record before the change, zero if there was none.
    pub prev_revision: Revision,
    /// Leader's wall clock, milliseconds since the Unix epoch. For people only.
    pub time_ms: u64,
}

/// How far a watch has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchProgress {
    /// Everything up to and including this revision has been told.
    pub revision: Revision,
}

/// A member to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// Name, unique in the cluster.
    pub name: String,
    /// Peer address, `host:port`.
    pub peer: String,
    /// HTTP address, `host:port`.
    pub http: String,
}

/// Leadership to be handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransferRequest {
    /// To whom; absent or zero lets the leader choose.
    pub to: NodeId,
}

/// Answer to a change of membership: the member it was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAnswer {
    /// The member; after a transfer the new leader.
    pub id: NodeId,
}

/// A member, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Id.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// Peer address, `host:port`.
    pub peer: String,
    /// HTTP address, `host:port`.
    pub http: String,
    /// Life of its data directory; zero until it has shown up.
    pub incarnation: Incarnation,
    /// Role.
    pub role: Role,
    /// Last entry it is known to hold; told by the leader alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_index: Option<Index>,
    /// Entries it is behind; told by the leader alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_lag: Option<u64>,
    /// Whether the leader heard of it lately; told by the leader alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
}

impl MemberInfo {
    /// The member of `status`.
    pub(crate) fn of(status: &MemberStatus) -> Self {
        let member = &status.member;
        MemberInfo {
            id: NodeId(member.id),
            name: member.name.clone(),
            peer: member.peer.clone(),
            http: member.http.clone(),
            incarnation: Incarnation(member.incarnation),
            role: status.role,
            match_index: status.match_index,
            replication_lag: status.replication_lag,
            active: status.active,
        }
    }
}

/// The cluster, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterAnswer {
    /// Cluster.
    pub cluster_id: ClusterId,
    /// The answering node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Known leader, zero if none.
    pub leader: NodeId,
    /// Current term.
    pub term: Term,
    /// Commit index.
    pub commit_index: Index,
    /// Last entry applied.
    pub applied_index: Index,
    /// Revision applied.
    pub revision: Revision,
    /// Members as applied. Lag and activity are known to the leader alone: ask it for them.
    pub members: Vec<MemberInfo>,
}

impl ClusterAnswer {
    /// The cluster of `status`.
    pub(crate) fn of(status: &Status) -> Self {
        ClusterAnswer {
            cluster_id: status.cluster_id,
            id: status.id,
            name: status.name.clone(),
            leader: status.leader,
            term: status.term,
            commit_index: status.commit_index,
            applied_index: status.applied_index,
            revision: status.revision,
            members: status.members.iter().map(MemberInfo::of).collect(),
        }
    }
}

/// A finished snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAnswer {
    /// File name inside the data directory; `snapshot` as the runbooks call it.
    pub snapshot: String,
    /// One sentence.
    pub message: String,
    /// Last entry it holds.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Revision it holds.
    pub revision: Revision,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// Checksum of the contents (xxh3-64, hex).
    pub checksum: String,
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing to do.
    Healthy,
    /// Works in part; somebody should look.
    Degraded,
    /// Does not work.
    Unhealthy,
}

/// One part's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// How well.
    pub status: Health,
    /// Why, in one sentence.
    pub message: String,
}

/// The parts of a node that are judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Components {
    /// Consensus.
    pub raft: Component,
    /// Log and store.
    pub storage: Component,
    /// This door.
    pub api: Component,
}

/// A node's health: the worst of its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthAnswer {
    /// The worst.
    pub status: Health,
    /// The node's name.
    pub node: String,
    /// The parts.
    pub components: Components,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_as_text_or_base64() {
        for bytes in [&b"plain"[..], b"", b"\xff\x00\x01", "h\u{e9}".as_bytes()] {
            let (text, base64) = to_text(bytes);
            assert!(text.is_some() != base64.is_some());
            assert_eq!(from_text("key", text, base64).unwrap().unwrap(), bytes);
        }
        let both = from_text("key", Some(String::new()), Some(String::new()));
        assert_eq!(both.unwrap_err().code, Code::InvalidArgument);
        let broken = from_text("key", None, Some("%%".to_owned()));
        assert_eq!(broken.unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn flattened_answers_read_back_what_was_written() {
        let answer = GetAnswer {
            record: Record {
                key: Some("a".to_owned()),
                value_base64: Some("/w==".to_owned()),
                version: 2,
                ..Record::default()
            },
            fresh: Fresh {
                revision: Revision(9),
                applied_index: Index(11),
                age_ms: Some(3),
            },
        };
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<GetAnswer>(&json).unwrap(), answer);
        assert_eq!(answer.record.value_bytes().unwrap().unwrap(), &b"\xff"[..]);
    }
}
