//! What the log remembers, and its bytes: length, checksum, kind, group, body.
//!
//! Decoding is bounded: no length is believed before it is compared with the bytes at hand, and no bytes make it panic.
//! A kind or field that this code does not know is an error, because a new kind comes with a new format version.

use super::sector::u32_at;
use crate::types::{ClusterId, GroupId, Incarnation, Index, NodeId, Term};
use bytes::Bytes;
use std::fmt;

/// One entry of a Raft log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Position.
    pub index: Index,
    /// Term of the leader that made it.
    pub term: Term,
    /// Meaning of the data, as the caller numbers it (raft-rs: normal, configuration change).
    pub kind: u8,
    /// The proposer's note to itself.
    pub context: Bytes,
    /// The payload.
    pub data: Bytes,
}

/// What a member promised in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Who got the vote in that term; zero for nobody.
    pub vote: NodeId,
    /// Known commit index.
    pub commit: Index,
}

/// Where a group's newest snapshot ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMark {
    /// Last entry the snapshot covers.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
}

/// Who the data directory belongs to. The newest one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Genesis {
    /// The cluster; zero while it is not founded.
    pub cluster_id: ClusterId,
    /// The member.
    pub node_id: NodeId,
    /// The life of the directory.
    pub incarnation: Incarnation,
    /// Whatever else the caller must not forget (its own encoding).
    pub extra: Bytes,
}

/// One thing to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Who the directory belongs to.
    Genesis(Genesis),
    /// Entries with consecutive indexes; the first replaces everything of the group from its index on.
    Entries {
        /// The group.
        group: GroupId,
        /// The entries, at least one.
        entries: Vec<Entry>,
    },
    /// A promise.
    HardState {
        /// The group.
        group: GroupId,
        /// The promise.
        state: HardState,
    },
    /// A durable snapshot file covers the group's log up to here; a log that is shorter, or differs there, restarts after it.
    SnapshotMark {
        /// The group.
        group: GroupId,
        /// Where.
        mark: SnapshotMark,
    },
    /// The group's log is empty from here on. The log itself writes this in front of a mark that restarts a group, because
    /// replaying a trimmed log could not tell that it did.
    Restart {
        /// The group.
        group: GroupId,
    },
    /// A sentence for people; means nothing.
    Note(String),
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Genesis(one) => write!(
                out,
                "genesis: cluster {}, node {}, incarnation {}, {} bytes more",
                one.cluster_id,
                one.node_id,
                one.incarnation,
                one.extra.len()
            ),
            Record::Entries { group, entries } => {
                let bytes: usize = entries.iter().map(|one| one.data.len()).sum();
                let first = entries.first().cloned().unwrap_or_default();
                let last = entries.last().cloned().unwrap_or_default();
                write!(out, "{group}: entries {}..={} ", first.index, last.index)?;
                write!(out, "(terms {}..={}, {bytes} bytes)", first.term, last.term)
            }
            Record::HardState { group, state } => write!(
                out,
                "{group}: hard state term {}, vote {}, commit {}",
                state.term, state.vote, state.commit
            ),
            Record::SnapshotMark { group, mark } => write!(
                out,
                "{group}: snapshot through {} (term {})",
                mark.index, mark.term
            ),
            Record::Restart { group } => write!(out, "{group}: the log restarts"),
            Record::Note(text) => write!(out, "note: {text}"),
        }
    }
}

const GENESIS: u8 = 1;
const ENTRIES: u8 = 2;
const HARD_STATE: u8 = 3;
const SNAPSHOT_MARK: u8 = 4;
const NOTE: u8 = 5;
const RESTART: u8 = 6;
/// Bytes in front of a record: length and checksum.
const HEAD: usize = 8;
/// Fewest bytes of an encoded entry: term, kind and two lengths.
const ENTRY_MIN: usize = 4;

/// Why bytes are not records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a record.
    #[error("the bytes end inside a record")]
    Short,
    /// The record's own checksum does not match.
    #[error("a record's checksum does not match")]
    Checksum,
    /// The record has a kind this version does not know.
    #[error("unknown record kind {0}")]
    Kind(u8),
    /// A field makes no sense.
    #[error("a record is malformed: {0}")]
    Malformed(&'static str),
}

/// Appends `record` to `out`. Fails, with `out` unchanged, when it is too long for its length field.
pub fn encode(record: &Record, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    encode_body(record, out);
    let Ok(length) = u32::try_from(out.len() - start - HEAD) else {
        out.truncate(start);
        return Err(DecodeError::Malformed("longer than 4 GiB"));
    };
    let crc = crc32c::crc32c(&out[start + HEAD..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn encode_body(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Genesis(one) => {
            out.push(GENESIS);
            put(out, 0);
            put(out, one.cluster_id.0);
            put(out, one.node_id.0);
            put(out, one.incarnation.0);
            put_bytes(out, &one.extra);
        }
        Record::Entries { group, entries } => {
            out.push(ENTRIES);
            put(out, group.0);
            put(out, entries.first().map_or(0, |one| one.index.0));
            put(out, entries.len() as u64);
            for one in entries {
                put(out, one.term.0);
                out.push(one.kind);
                put_bytes(out, &one.context);
                put_bytes(out, &one.data);
            }
        }
        Record::HardState { group, state } => {
            out.push(HARD_STATE);
            put(out, group.0);
            put(out, state.term.0);
            put(out, state.vote.0);
            put(out, state.commit.0);
        }
        Record::SnapshotMark { group, mark } => {
            out.push(SNAPSHOT_MARK);
            put(out, group.0);
            put(out, mark.index.0);
            put(out, mark.term.0);
        }
        Record::Restart { group } => {
            out.push(RESTART);
            put(out, group.0);
        }
        Record::Note(text) => {
            out.push(NOTE);
            put(out, 0);
            put_bytes(out, text.as_bytes());
        }
    }
}

/// Every record in `bytes`, which hold nothing else. Entries share the memory of `bytes`.
pub fn decode(bytes: Bytes) -> Result<Vec<Record>, DecodeError> {
    let mut rest = bytes;
    let mut records = Vec::new();
    while !rest.is_empty() {
        if rest.len() < HEAD {
            return Err(DecodeError::Short);
        }
        let length = usize::try_from(u32_at(&rest, 0)).map_err(|_| DecodeError::Short)?;
        let crc = u32_at(&rest, 4);
        if rest.len() - HEAD < length {
            return Err(DecodeError::Short);
        }
        let mut body = rest.split_to(HEAD + length);
        body = body.split_off(HEAD);
        if crc32c::crc32c(&body) != crc {
            return Err(DecodeError::Checksum);
        }
        records.push(decode_body(body)?);
    }
    Ok(records)
}

fn decode_body(body: Bytes) -> Result<Record, DecodeError> {
    let mut from = Reader(body);
    let kind = from.byte()?;
    let group = GroupId(from.number()?);
    let record = match kind {
        GENESIS => Record::Genesis(Genesis {
            cluster_id: ClusterId(from.number()?),
            node_id: NodeId(from.number()?),
            incarnation: Incarnation(from.number()?),
            extra: from.bytes()?,
        }),
        ENTRIES => Record::Entries {
            group,
            entries: decode_entries(&mut from)?,
        },
        HARD_STATE => Record::HardState {
            group,
            state: HardState {
                term: Term(from.number()?),
                vote: NodeId(from.number()?),
                commit: Index(from.number()?),
            },
        },
        SNAPSHOT_MARK => Record::SnapshotMark {
            group,
            mark: SnapshotMark {
                index: Index(from.number()?),
                term: Term(from.number()?),
            },
        },
        RESTART => Record::Restart { group },
        NOTE => Record::Note(
            String::from_utf8(from.bytes()?.to_vec())
                .map_err(|_| DecodeError::Malformed("a note that is not text"))?,
        ),
        other => return Err(DecodeError::Kind(other)),
    };
    if !from.0.is_empty() {
        return Err(DecodeError::Malformed("bytes behind the last field"));
    }
    Ok(record)
}

fn decode_entries(from: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let first = from.number()?;
    let count = usize::try_from(from.number()?).map_err(|_| DecodeError::Short)?;
    // Checked before anything is reserved: a count is only believed when the bytes for it are there.
    if count > from.0.len() / ENTRY_MIN {
        return Err(DecodeError::Short);
    }
    if count == 0 || first == 0 || first.checked_add(count as u64).is_none() {
        return Err(DecodeError::Malformed("an impossible range of entries"));
    }
    let mut entries = Vec::with_capacity(count);
    for offset in 0..count as u64 {
        entries.push(Entry {
            index: Index(first + offset),
            term: Term(from.number()?),
            kind: from.byte()?,
            context: from.bytes()?,
            data: from.bytes()?,
        });
    }
    Ok(entries)
}

/// Appends a number in 7-bit groups, lowest first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes fields off the front of a record.
struct Reader(Bytes);

impl Reader {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.0.first().ok_or(DecodeError::Short)?;
        self.0 = self.0.slice(1..);
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for (place, byte) in self.0.iter().copied().enumerate().take(10) {
            if place == 9 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                self.0 = self.0.slice(place + 1..);
                return Ok(number);
            }
        }
        Err(DecodeError::Malformed("a number without end"))
    }

    fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::try_from(self.number()?).map_err(|_| DecodeError::Short)?;
        if length > self.0.len() {
            return Err(DecodeError::Short);
        }
        Ok(self.0.split_to(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn entries() -> impl Strategy<Value = Record> {
        let one = (any::<u64>(), any::<u8>(), bytes(20), bytes(600));
        let many = proptest::collection::vec(one, 1..8);
        (any::<u64>(), 1..u64::MAX - 100, many).prop_map(|(group, first, many)| Record::Entries {
            group: GroupId(group),
            entries: (first..)
                .zip(many)
                .map(|(index, (term, kind, context, data))| Entry {
                    index: Index(index),
                    term: Term(term),
                    kind,
                    context,
                    data,
                })
                .collect(),
        })
    }

    fn record() -> impl Strategy<Value = Record> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
        prop_oneof![
            entries(),
            (any::<u64>(), any::<u64>(), any::<u64>(), bytes(50)).prop_map(
                |(cluster, node, life, extra)| Record::Genesis(Genesis {
                    cluster_id: ClusterId(cluster),
                    node_id: NodeId(node),
                    incarnation: Incarnation(life),
                    extra,
                })
            ),
            numbers.prop_map(|(group, term, vote, commit)| Record::HardState {
                group: GroupId(group),
                state: HardState {
                    term: Term(term),
                    vote: NodeId(vote),
                    commit: Index(commit)
                },
            }),
            (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(group, index, term)| {
                Record::SnapshotMark {
                    group: GroupId(group),
                    mark: SnapshotMark {
                        index: Index(index),
                        term: Term(term),
                    },
                }
            }),
            any::<u64>().prop_map(|group| Record::Restart {
                group: GroupId(group)
            }),
            ".{0,40}".prop_map(Record::Note),
        ]
    }

    proptest! {
        #[test]
        fn records_read_back(records in proptest::collection::vec(record(), 0..10)) {
            let mut out = Vec::new();
            for one in &records {
                encode(one, &mut out).unwrap();
            }
            prop_assert_eq!(decode(out.into()).unwrap(), records);
        }

        #[test]
        fn random_bytes_never_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(decode(noise.clone().into()));
            drop(decode_body(noise.into()));
        }

        #[test]
        fn cut_or_changed_records_are_refused(one in record(), at in any::<usize>(), flip in 1..=255_u8) {
            let mut out = Vec::new();
            encode(&one, &mut out).unwrap();
            let at = at % out.len();
            prop_assert!(decode(out[..at].to_vec().into()).is_err() || at == 0);
            out[at] ^= flip;
            prop_assert!(decode(out.clone().into()).is_err());
            // Behind the checksum, a changed body is any record or an error, never a panic.
            drop(decode_body(out.split_off(HEAD.min(out.len())).into()));
        }
    }
}
