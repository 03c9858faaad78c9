//! The records the state machine keeps beside [`super::command`]'s: meta, the applied position, leases, sessions and the
//! stored forms of keys and events. Prost messages: they are on disk, so field numbers never change meaning. The configuration is kept
//! as raft-rs's own message, whose field numbers are fixed by its public schema.

use super::command::{KeyEvent, KeyValue, Limits, Outcome};
use super::keys;
use super::view::{Error, View};
use bytes::Bytes;
use prost::Message;
use raft::eraftpb::ConfState;

/// The version of the record layout; a store or snapshot of another one is not read.
pub const FORMAT: u32 = 1;

/// How far the log was applied, and the hash of the state there.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Applied {
    /// Last entry applied; zero right after the founding.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Its term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Wrapping sum of a digest of every record but this one.
    #[prost(fixed64, tag = "3")]
    pub state_hash: u64,
}

/// Everything about the state as a whole.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Meta {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// The cluster.
    #[prost(fixed64, tag = "2")]
    pub cluster_id: u64,
    /// Revision of the last command that changed a key.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// History at and below this revision is gone for readers.
    #[prost(uint64, tag = "4")]
    pub compacted: u64,
    /// Where the removal of compacted history goes on: revision.
    #[prost(uint64, tag = "5")]
    pub sweep_revision: u64,
    /// Where the removal of compacted history goes on: sub number.
    #[prost(uint32, tag = "6")]
    pub sweep_sub: u32,
    /// The id the next new member gets.
    #[prost(uint64, tag = "7")]
    pub next_node_id: u64,
    /// The configuration as applied.
    #[prost(message, required, tag = "8")]
    pub conf: ConfState,
    /// Shared bounds.
    #[prost(message, required, tag = "9")]
    pub limits: Limits,
    /// Sessions open.
    #[prost(uint64, tag = "10")]
    pub sessions: u64,
    /// No session was last used before this index: where the search for the least recently used begins.
    #[prost(uint64, tag = "11")]
    pub session_floor: u64,
    /// Index of the last configuration change.
    #[prost(uint64, tag = "12")]
    pub conf_index: u64,
    /// Keys that are there (inventory K-M2).
    #[prost(uint64, tag = "13")]
    pub keys: u64,
}

/// A lease.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Lease {
    /// Time to live, milliseconds.
    #[prost(uint64, tag = "1")]
    pub ttl_ms: u64,
    /// Revision at the grant.
    #[prost(uint64, tag = "2")]
    pub granted_revision: u64,
    /// Renewals so far.
    #[prost(uint64, tag = "3")]
    pub renewals: u64,
}

/// A session.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Session {
    /// Last sequence number done; zero before the first.
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    /// Index of the entry that last used it.
    #[prost(uint64, tag = "2")]
    pub(super) used_index: u64,
    /// What the last command did.
    #[prost(message, optional, tag = "3")]
    pub(super) outcome: Option<Outcome>,
}

/// A current key as stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Current {
    /// The record.
    #[prost(message, required, tag = "1")]
    pub(super) kv: KeyValue,
    /// Sub number of its event in `kv.mod_revision`.
    #[prost(uint32, tag = "2")]
    pub(super) sub: u32,
    /// Share of that event's record in the state hash, so that the event can be dropped unread.
    #[prost(fixed64, tag = "3")]
    pub(super) event_hash: u64,
}

/// An event as stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Past {
    /// The event.
    #[prost(message, required, tag = "1")]
    pub(super) event: KeyEvent,
    /// Sub number of the former record's event in `event.prev_revision`.
    #[prost(uint32, tag = "2")]
    pub(super) prev_sub: u32,
    /// Share of that event's record in the state hash; zero when there is none.
    #[prost(fixed64, tag = "3")]
    pub(super) prev_hash: u64,
}

/// Decodes a record of this module's own making.
pub(super) fn decode<M: Message + Default>(what: &str, bytes: Bytes) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| Error::corrupt(format!("{what}: {error}")))
}

/// Reads one record.
pub(super) fn fetch<M: Message + Default>(
    view: &dyn View,
    what: &str,
    key: &[u8],
) -> Result<Option<M>, Error> {
    view.get(key)?.map(|bytes| decode(what, bytes)).transpose()
}

/// Encodes a record.
pub(super) fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// The meta record; `None` in an empty store.
pub fn meta(view: &dyn View) -> Result<Option<Meta>, Error> {
    let meta: Option<Meta> = fetch(view, "meta", &keys::META)?;
    meta.map(of_this_format).transpose()
}

/// A meta record, if this version reads what it speaks of.
fn of_this_format(meta: Meta) -> Result<Meta, Error> {
    if meta.format == FORMAT {
        return Ok(meta);
    }
    Err(Error::corrupt(format!(
        "the state has format {}, this version reads format {FORMAT}",
        meta.format
    )))
}

/// How far the log was applied; `None` in an empty store.
pub fn applied(view: &dyn View) -> Result<Option<Applied>, Error> {
    fetch(view, "applied position", &keys::APPLIED)
}

/// Meta and position of a state that must exist, as messages and as the bytes they were read from.
pub(super) struct Founded {
    /// Meta.
    pub(super) meta: Meta,
    /// Position.
    pub(super) applied: Applied,
    /// Meta as stored.
    pub(super) meta_bytes: Bytes,
    /// Position as stored.
    pub(super) applied_bytes: Bytes,
}

/// Meta and position of a state that must exist.
pub(super) fn founded(view: &dyn View) -> Result<Founded, Error> {
    let read = |key: &[u8]| view.get(key)?.ok_or(Error::Unfounded);
    let (meta_bytes, applied_bytes) = (read(&keys::META)?, read(&keys::APPLIED)?);
    Ok(Founded {
        meta: of_this_format(decode("meta", meta_bytes.clone())?)?,
        applied: decode("applied position", applied_bytes.clone())?,
        meta_bytes,
        applied_bytes,
    })
}
