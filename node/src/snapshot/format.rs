//! The bytes of a snapshot file, version 1: frames, and what is in them. No I/O.
//!
//! ```text
//! file   = magic (8) frame(header) frame(block)* frame(trailer)
//! frame  = kind u8, length u32, crc32c u32 (over kind, length and payload), payload; numbers little-endian
//! block  = (key length u32, value length u32, key, value)*
//! ```

use crate::state;
use crate::types::{ClusterId, GroupId, Index, Revision, Term};
use prost::Message;
use raft::eraftpb::ConfState;

/// The first bytes of every snapshot; the last one is the version.
pub(super) const MAGIC: [u8; 8] = *b"SEASNAP\x01";
/// Bytes of a frame before its payload.
pub(super) const FRAME_BYTES: usize = 9;
/// A block is closed when its records reach this size, bytes.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// Longest key of a record, bytes: the longest that a store takes.
const KEY_BYTES_MAX: usize = 65_535;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The header.
    Header = 1,
    /// Records.
    Block = 2,
    /// The trailer.
    Trailer = 3,
}

/// What a snapshot says of itself, encoded.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(fixed64, tag = "1")]
    pub(super) cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) group: u64,
    #[prost(uint64, tag = "3")]
    pub(super) index: u64,
    #[prost(uint64, tag = "4")]
    pub(super) term: u64,
    #[prost(uint64, tag = "5")]
    pub(super) revision: u64,
    #[prost(message, required, tag = "6")]
    pub(super) conf: ConfState,
    #[prost(uint64, tag = "7")]
    pub(super) time_ms: u64,
    #[prost(uint32, tag = "8")]
    pub(super) state_format: u32,
}

/// What must hold at the end.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Trailer {
    /// Records in all blocks.
    #[prost(fixed64, tag = "1")]
    pub(super) records: u64,
    /// State hash of the records.
    #[prost(fixed64, tag = "2")]
    pub(super) state_hash: u64,
    /// xxh3-64 of every byte before the trailer's frame.
    #[prost(fixed64, tag = "3")]
    pub(super) checksum: u64,
}

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Cluster.
    pub cluster_id: ClusterId,
    /// Raft group.
    pub group: GroupId,
    /// Last entry it holds.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Revision it holds.
    pub revision: Revision,
    /// Configuration at that entry.
    pub conf: ConfState,
    /// Wall clock of the node that cut it, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Hash of the state.
    pub state_hash: u64,
    /// Number of records.
    pub records: u64,
    /// xxh3-64 of the contents.
    pub checksum: u64,
    /// Size of the file, bytes.
    pub bytes: u64,
}

impl Meta {
    /// Header and trailer as one.
    pub(super) fn new(header: Header, trailer: Trailer, bytes: u64) -> Self {
        Meta {
            cluster_id: ClusterId(header.cluster_id),
            group: GroupId(header.group),
            index: Index(header.index),
            term: Term(header.term),
            revision: Revision(header.revision),
            conf: header.conf,
            time_ms: header.time_ms,
            state_hash: trailer.state_hash,
            records: trailer.records,
            checksum: trailer.checksum,
            bytes,
        }
    }

    /// What the trailer said.
    pub(super) fn trailer(&self) -> Trailer {
        Trailer {
            records: self.records,
            state_hash: self.state_hash,
            checksum: self.checksum,
        }
    }
}

/// The bytes of a frame.
pub(super) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a block holds one large record at most");
    let mut out = Vec::with_capacity(FRAME_BYTES + payload.len());
    out.push(kind as u8);
    out.extend(length.to_le_bytes());
    out.extend(checksum(&out[..5], payload).to_le_bytes());
    out.extend(payload);
    out
}

/// The checksum of a frame.
pub(super) fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), payload)
}

/// Payload of a trailer: three fields of a tag byte and eight bytes each.
const TRAILER_PAYLOAD_BYTES: usize = 27;

/// Length of a trailer's frame, bytes: always the same, so that it can be found from the end of a file.
pub(super) fn trailer_bytes() -> usize {
    FRAME_BYTES + TRAILER_PAYLOAD_BYTES
}

/// A trailer's frame. All three fields are always written.
pub(super) fn trailer_frame(trailer: &Trailer) -> Vec<u8> {
    let mut payload = Vec::with_capacity(TRAILER_PAYLOAD_BYTES);
    let fields = [trailer.records, trailer.state_hash, trailer.checksum];
    for (tag, field) in (1u32..).zip(fields) {
        prost::encoding::fixed64::encode(tag, &field, &mut payload);
    }
    frame(Kind::Trailer, &payload)
}

/// Adds a record to a block.
pub(super) fn push_record(block: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("the state bounds its records");
    block.extend(length(key).to_le_bytes());
    block.extend(length(value).to_le_bytes());
    block.extend(key);
    block.extend(value);
}

/// The records of a block, in order; `None` where the block is broken.
pub(super) fn records(mut block: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if block.is_empty() {
            return None;
        }
        let record = split_record(&mut block);
        if record.is_none() {
            block = &[];
        }
        Some(record)
    })
}

/// Takes the first record off a block.
fn split_record<'b>(block: &mut &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
    let key_length = split_length(block)?;
    let value_length = split_length(block)?;
    let (key, rest) = block.split_at_checked(key_length)?;
    let (value, rest) = rest.split_at_checked(value_length)?;
    *block = rest;
    // The store panics on other keys.
    (1..=KEY_BYTES_MAX)
        .contains(&key.len())
        .then_some((key, value))
}

/// Takes a length off a block.
fn split_length(block: &mut &[u8]) -> Option<usize> {
    let (length, rest) = block.split_first_chunk::<4>()?;
    *block = rest;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

/// The header of a state.
pub(super) fn header(
    group: GroupId,
    time_ms: u64,
    meta: &state::Meta,
    applied: &state::Applied,
) -> Header {
    Header {
        cluster_id: meta.cluster_id,
        group: group.0,
        index: applied.index,
        term: applied.term,
        revision: meta.revision,
        conf: meta.conf.clone(),
        time_ms,
        state_format: meta.format,
    }
}

/// Decodes a payload.
pub(super) fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, String> {
    M::decode(payload).map_err(|error| error.to_string())
}
