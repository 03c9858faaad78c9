//! Where each record lies: one byte for the family, then big-endian numbers or the user's key, so that order in the store is
//! the order in which families are walked.
//!
//! These bytes are on disk and in snapshots: a family's number is never reused (`docs/format/store.md`).

use crate::fleet::records::Key;
use crate::types::{ServiceId, TaskId, WorkerId};
use bytes::{BufMut, Bytes, BytesMut};

/// How far the log was applied: the only record outside the state hash.
pub(crate) const APPLIED: [u8; 2] = [0x01, 0x01];
/// Everything about the state as a whole.
pub(crate) const META: [u8; 2] = [0x01, 0x02];
/// First byte above all families.
pub(crate) const END: [u8; 1] = [0xff];

const CURRENT: u8 = 0x10;
const HISTORY: u8 = 0x20;
const LEASE: u8 = 0x30;
const LEASE_KEY: u8 = 0x31;
const SESSION: u8 = 0x40;
const SESSION_USE: u8 = 0x41;
const MEMBER: u8 = 0x50;
const FLEET_META: u8 = 0x60;
const FLEET_SERVICE: u8 = 0x61;
const FLEET_SPEC: u8 = 0x62;
const FLEET_TASK: u8 = 0x63;
const FLEET_WORKER: u8 = 0x64;
const FLEET_VOLUME: u8 = 0x65;
const FLEET_TOKEN: u8 = 0x66;
const FLEET_EVENT: u8 = 0x67;
const FLEET_SECRET: u8 = 0x68;
const FLEET_KEYRING: u8 = 0x69;
const FLEET_REMOVED: u8 = 0x6a;
/// Families up to here, exclusive, are kept for the fleet.
const FLEET_END: u8 = 0x70;

/// A range of records: from the first key to before the second.
pub(crate) type Bounds = (Bytes, Bytes);

/// A family byte, numbers, and a tail.
fn key(family: u8, numbers: &[u64], tail: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + numbers.len() * 8 + tail.len());
    out.put_u8(family);
    for number in numbers {
        out.put_u64(*number);
    }
    out.put_slice(tail);
    out.freeze()
}

/// The number in eight bytes from `at`; zero when they are missing (a damaged key, caught by the hash).
fn number(key: &[u8], at: usize) -> u64 {
    let bytes = key.get(at..at + 8).and_then(|slice| slice.try_into().ok());
    bytes.map_or(0, u64::from_be_bytes)
}

/// The current record of a user's key.
pub(super) fn current(user_key: &[u8]) -> Bytes {
    key(CURRENT, &[], user_key)
}

/// The user's key in a record of the current family.
pub(super) fn user_key(record_key: &Bytes) -> Bytes {
    record_key.slice(1.min(record_key.len())..)
}

/// The current records of a span of user keys; the end is exclusive, `None` for no end.
pub(super) fn current_range(start: &[u8], end: Option<&[u8]>) -> Bounds {
    let end = end.map_or_else(|| key(CURRENT + 1, &[], &[]), current);
    (current(start), end)
}

/// The event of a revision with a sub number.
pub(super) fn history(revision: u64, sub: u32) -> Bytes {
    key(HISTORY, &[revision], &sub.to_be_bytes())
}

/// Whether a record is an event of history.
pub(crate) fn is_history(record_key: &[u8]) -> bool {
    record_key.first() == Some(&HISTORY)
}

/// Revision and sub number of an event's key.
pub(super) fn history_position(record_key: &[u8]) -> (u64, u32) {
    let sub = record_key
        .get(9..13)
        .and_then(|slice| slice.try_into().ok());
    (number(record_key, 1), sub.map_or(0, u32::from_be_bytes))
}

/// Events from a position to the end of a revision.
pub(super) fn history_range(revision: u64, sub: u32, last_revision: u64) -> Bounds {
    let end = match last_revision.checked_add(1) {
        Some(next) => history(next, 0),
        None => key(HISTORY + 1, &[], &[]),
    };
    (history(revision, sub), end)
}

/// A lease.
pub(super) fn lease(id: u64) -> Bytes {
    key(LEASE, &[id], &[])
}

/// All leases.
pub(super) fn lease_range() -> Bounds {
    (key(LEASE, &[], &[]), key(LEASE + 1, &[], &[]))
}

/// The link from a lease to one of its keys.
pub(super) fn lease_key(id: u64, user_key: &[u8]) -> Bytes {
    key(LEASE_KEY, &[id], user_key)
}

/// All links of a lease.
pub(super) fn lease_key_range(id: u64) -> Bounds {
    let end = match id.checked_add(1) {
        Some(next) => key(LEASE_KEY, &[next], &[]),
        None => key(LEASE_KEY + 1, &[], &[]),
    };
    (key(LEASE_KEY, &[id], &[]), end)
}

/// The user's key in a link.
pub(super) fn lease_key_user_key(record_key: &Bytes) -> Bytes {
    record_key.slice(9.min(record_key.len())..)
}

/// The id in the key of a lease, session or member.
pub(super) fn id(record_key: &[u8]) -> u64 {
    number(record_key, 1)
}

/// A session.
pub(super) fn session(id: u64) -> Bytes {
    key(SESSION, &[id], &[])
}

/// A session in order of last use.
pub(super) fn session_use(used_index: u64, id: u64) -> Bytes {
    key(SESSION_USE, &[used_index, id], &[])
}

/// Sessions last used at or after an index.
pub(super) fn session_use_range(from_index: u64) -> Bounds {
    (
        key(SESSION_USE, &[from_index], &[]),
        key(SESSION_USE + 1, &[], &[]),
    )
}

/// Index and session of a key in order of use.
pub(super) fn session_use_parts(record_key: &[u8]) -> (u64, u64) {
    (number(record_key, 1), number(record_key, 9))
}

/// A member.
pub(super) fn member(id: u64) -> Bytes {
    key(MEMBER, &[id], &[])
}

/// All members.
pub(super) fn member_range() -> Bounds {
    (key(MEMBER, &[], &[]), key(MEMBER + 1, &[], &[]))
}

/// A record of the fleet.
pub(crate) fn fleet(of: &Key) -> Bytes {
    match of {
        Key::Meta => key(FLEET_META, &[], &[]),
        Key::Service(id) => key(FLEET_SERVICE, &[id.0], &[]),
        Key::Spec(id, version) => key(FLEET_SPEC, &[id.0, *version], &[]),
        Key::Task(id) => key(FLEET_TASK, &[id.0], &[]),
        Key::Worker(id) => key(FLEET_WORKER, &[id.0], &[]),
        Key::Volume(name) => key(FLEET_VOLUME, &[], name.as_bytes()),
        Key::Token(id) => key(FLEET_TOKEN, &[*id], &[]),
        Key::Event(index, number) => key(FLEET_EVENT, &[*index], &number.to_be_bytes()),
        Key::Secret(name) => key(FLEET_SECRET, &[], name.as_bytes()),
        Key::Keyring => key(FLEET_KEYRING, &[], &[]),
        Key::Removed(id) => key(FLEET_REMOVED, &[id.0], &[]),
    }
}

/// All records of the fleet.
pub(crate) fn fleet_range() -> Bounds {
    (key(FLEET_META, &[], &[]), key(FLEET_END, &[], &[]))
}

/// What a record of the fleet is about; none if it was never written by [`fleet`].
pub(crate) fn fleet_parts(record_key: &[u8]) -> Option<Key> {
    let (&family, rest) = record_key.split_first()?;
    let first = || number(record_key, 1);
    match (family, rest.len()) {
        (FLEET_META, 0) => Some(Key::Meta),
        (FLEET_SERVICE, 8) => Some(Key::Service(ServiceId(first()))),
        (FLEET_SPEC, 16) => Some(Key::Spec(ServiceId(first()), number(record_key, 9))),
        (FLEET_TASK, 8) => Some(Key::Task(TaskId(first()))),
        (FLEET_WORKER, 8) => Some(Key::Worker(WorkerId(first()))),
        (FLEET_VOLUME, _) => {
            let name = String::from_utf8(rest.to_vec()).ok()?;
            Some(Key::Volume(name))
        }
        (FLEET_TOKEN, 8) => Some(Key::Token(first())),
        (FLEET_EVENT, 12) => {
            let (_, number) = history_position(record_key);
            Some(Key::Event(first(), number))
        }
        (FLEET_SECRET, _) => {
            let name = String::from_utf8(rest.to_vec()).ok()?;
            Some(Key::Secret(name))
        }
        (FLEET_KEYRING, 0) => Some(Key::Keyring),
        (FLEET_REMOVED, 8) => Some(Key::Removed(WorkerId(first()))),
        _ => None,
    }
}
