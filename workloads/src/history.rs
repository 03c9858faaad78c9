//! What clients did: one [`Operation`] for each logical request, with its times, its input and its
//! answer.
//!
//! Invariants: an operation is *one* logical request, however often the client retried it, so
//! `(client, id)` occurs once; `call_ns` is taken before the first byte of the first attempt
//! leaves, `return_ns` after the last byte of the answer arrived, both on one clock that all
//! clients share (in simulation: virtual time). An answer that the client cannot interpret is
//! [`Output::Unknown`], never [`Output::Refused`].
//!
//! The versioned key-value semantics that the answers are judged by: the store has one revision,
//! which each successful write raises; a transaction raises it once for all its writes. A key's
//! `version` counts its puts since it was last created, `create_revision` stays the same for that
//! life, `mod_revision` is that of the last put. Deleting an absent key succeeds with `existed:
//! false`, writes nothing and takes no revision.
//!
//! Left out: leases, and anything about *how* the request was sent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A key of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(
    /// The key as the client wrote it.
    pub String,
);

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The identity of a value.
///
/// Checkers are sharpest when each write of a history writes a value of its own; they stay sound
/// when it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId(
    /// The number that the workload put into the value, or a fingerprint of its bytes.
    pub u64,
);

impl ValueId {
    /// The identity of a value that is just bytes (64-bit FNV-1a).
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// What a write demands of the key before it takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists at this version; 0 means the same as [`Expect::Absent`].
    Version(u64),
    /// The key was last put at this revision; 0 means the same as [`Expect::Absent`].
    ModRevision(u64),
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read was called.
    Linearizable,
    /// May be stale by the age which the answer states.
    Bounded,
    /// May be stale without limit; says which revision it saw.
    Local,
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Compare {
    /// The key that is looked at.
    pub key: Key,
    /// What must hold for it.
    pub expect: Expect,
}

/// One step of a transaction's branch. A branch writes each key at most once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TxnOp {
    /// Writes a value.
    Put {
        /// The key written.
        key: Key,
        /// The value it gets.
        value: ValueId,
    },
    /// Reads a key, as the steps before it left it.
    Get {
        /// The key read.
        key: Key,
    },
    /// Deletes a key if it exists.
    Delete {
        /// The key deleted.
        key: Key,
    },
}

impl TxnOp {
    /// The key that this step touches.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Get { key } | Self::Delete { key } => key,
        }
    }
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Input {
    /// Write a value.
    Put {
        /// The key written.
        key: Key,
        /// The value it gets.
        value: ValueId,
        /// The condition under which it is written.
        expect: Expect,
    },
    /// Read one key.
    Get {
        /// The key read.
        key: Key,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Delete a key.
    Delete {
        /// The key deleted.
        key: Key,
        /// The condition under which it is deleted.
        expect: Expect,
    },
    /// Do one of two branches, atomically.
    Txn {
        /// The conditions; all must hold for `then`.
        compares: Vec<Compare>,
        /// Done when all conditions hold.
        then: Vec<TxnOp>,
        /// Done when one does not hold.
        otherwise: Vec<TxnOp>,
    },
    /// Read the keys that start with a prefix, in key order. Judged by [`crate::check::ranges`]
    /// alone.
    Range {
        /// What the keys start with.
        prefix: String,
        /// The largest number of keys in the answer; `None` for all.
        limit: Option<u32>,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
}

/// A key's value and its place in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: ValueId,
    /// The number of puts since the key was created, from 1.
    pub version: u64,
    /// The revision of the put that created the key.
    pub create_revision: u64,
    /// The revision of the last put.
    pub mod_revision: u64,
}

/// Where a read that may be stale was answered, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReadMark {
    /// The node that answered.
    pub node: u64,
    /// The client's connection to that node; a new one for each restart of the node.
    pub connection: u64,
    /// The store revision that the node had applied when it read.
    pub applied_revision: u64,
    /// How old the node says that its state may be, in nanoseconds; `None` where it makes no claim.
    pub age_ns: Option<u64>,
}

/// The answer to one [`TxnOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TxnResult {
    /// A put was done.
    Put {
        /// The key's version after it.
        version: u64,
        /// The revision at which the key was created.
        create_revision: u64,
    },
    /// What a get saw.
    Get(
        /// The key's entry, `None` if absent.
        Option<Entry>,
    ),
    /// A delete was done.
    Delete {
        /// Whether there was anything to delete.
        existed: bool,
    },
}

impl Input {
    /// The keys that are named, in the order of the request; a range names none.
    #[must_use]
    pub fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Put { key, .. } | Self::Get { key, .. } | Self::Delete { key, .. } => vec![key],
            Self::Txn {
                compares,
                then,
                otherwise,
            } => {
                let steps = then.iter().chain(otherwise).map(TxnOp::key);
                compares
                    .iter()
                    .map(|compare| &compare.key)
                    .chain(steps)
                    .collect()
            }
            Self::Range { .. } => Vec::new(),
        }
    }

    /// The writes that are asked for: `(key, value)`, where no value means a delete. Both branches
    /// of a transaction count.
    #[must_use]
    pub fn writes(&self) -> Vec<(&Key, Option<ValueId>)> {
        match self {
            Self::Put { key, value, .. } => vec![(key, Some(*value))],
            Self::Delete { key, .. } => vec![(key, None)],
            Self::Txn {
                then, otherwise, ..
            } => then.iter().chain(otherwise).filter_map(may_write).collect(),
            Self::Get { .. } | Self::Range { .. } => Vec::new(),
        }
    }
}

/// What the cluster answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Output {
    /// A put was done.
    PutOk {
        /// The revision that the write took.
        revision: u64,
        /// The key's version after it.
        version: u64,
        /// The revision at which the key was created.
        create_revision: u64,
    },
    /// The condition of a put or delete did not hold; nothing was written.
    CompareFailed {
        /// The key's version at that moment, `None` if absent.
        current: Option<u64>,
    },
    /// A get was answered.
    Value {
        /// The key's entry, `None` if absent.
        entry: Option<Entry>,
        /// Where the answer comes from; required for [`Consistency::Bounded`] and
        /// [`Consistency::Local`].
        mark: Option<ReadMark>,
    },
    /// A delete was done.
    DeleteOk {
        /// Whether there was anything to delete.
        existed: bool,
        /// The revision that the delete took; without meaning when nothing existed.
        revision: u64,
    },
    /// A transaction was done.
    TxnOk {
        /// Whether all conditions held.
        succeeded: bool,
        /// The revision that its writes took; without meaning when it wrote nothing.
        revision: u64,
        /// One answer for each step of the branch that was done.
        results: Vec<TxnResult>,
    },
    /// A range was read.
    Entries {
        /// The keys found, in key order.
        entries: Vec<(Key, Entry)>,
        /// The store revision at which they were read.
        revision: u64,
    },
    /// Nobody knows whether it was done, or will yet be.
    Unknown,
    /// It was not done and never will be.
    Refused,
}

/// One logical request of one client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Operation {
    /// The client session.
    pub client: u64,
    /// The sequence number of the request within its session.
    pub id: u64,
    /// When the client sent it, in nanoseconds.
    pub call_ns: u64,
    /// When the answer was in the client's hands, in nanoseconds; `None` if it never came.
    pub return_ns: Option<u64>,
    /// What was asked.
    pub input: Input,
    /// What was answered.
    pub output: Output,
}

impl Operation {
    /// When the client knew the outcome, in nanoseconds; `None` if it never did.
    #[must_use]
    pub fn known_at_ns(&self) -> Option<u64> {
        if self.output == Output::Unknown {
            None
        } else {
            self.return_ns
        }
    }

    /// Whether the request may take effect without anyone having been told.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        self.output != Output::Refused && self.known_at_ns().is_none()
    }

    /// The writes that were acknowledged: `(key, value)`, where no value means a delete of
    /// something that existed.
    #[must_use]
    pub fn acknowledged_writes(&self) -> Vec<(&Key, Option<ValueId>)> {
        if self.known_at_ns().is_none() {
            return Vec::new();
        }
        match (&self.input, &self.output) {
            (Input::Put { key, value, .. }, Output::PutOk { .. }) => vec![(key, Some(*value))],
            (Input::Delete { key, .. }, Output::DeleteOk { existed: true, .. }) => {
                vec![(key, None)]
            }
            (
                Input::Txn {
                    then, otherwise, ..
                },
                Output::TxnOk {
                    succeeded, results, ..
                },
            ) => {
                let branch = if *succeeded { then } else { otherwise };
                branch
                    .iter()
                    .zip(results)
                    .filter_map(|(op, result)| written(op, result))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The writes that may have been done, if the outcome is unknown; both branches of a
    /// transaction count.
    #[must_use]
    pub fn possible_writes(&self) -> Vec<(&Key, Option<ValueId>)> {
        if self.outcome_unknown() {
            self.input.writes()
        } else {
            Vec::new()
        }
    }

    /// The revision of the acknowledged write; `None` if the operation wrote nothing that was
    /// acknowledged.
    #[must_use]
    pub fn write_revision(&self) -> Option<u64> {
        if self.acknowledged_writes().is_empty() {
            return None;
        }
        match self.output {
            Output::PutOk { revision, .. }
            | Output::DeleteOk { revision, .. }
            | Output::TxnOk { revision, .. } => Some(revision),
            _ => None,
        }
    }

    /// The entries that the answer showed, with their keys where they are known from the request.
    #[must_use]
    pub fn seen_entries(&self) -> Vec<(&Key, Entry)> {
        match (&self.input, &self.output) {
            (
                Input::Get { key, .. },
                Output::Value {
                    entry: Some(entry), ..
                },
            ) => {
                vec![(key, *entry)]
            }
            (
                Input::Txn {
                    then, otherwise, ..
                },
                Output::TxnOk {
                    succeeded, results, ..
                },
            ) => {
                let branch = if *succeeded { then } else { otherwise };
                branch
                    .iter()
                    .zip(results)
                    .filter_map(|(op, result)| shown(op, result))
                    .collect()
            }
            (_, Output::Entries { entries, .. }) => {
                entries.iter().map(|(key, entry)| (key, *entry)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn written<'a>(op: &'a TxnOp, result: &TxnResult) -> Option<(&'a Key, Option<ValueId>)> {
    match (op, result) {
        (TxnOp::Put { key, value }, TxnResult::Put { .. }) => Some((key, Some(*value))),
        (TxnOp::Delete { key }, TxnResult::Delete { existed: true }) => Some((key, None)),
        _ => None,
    }
}

fn may_write(op: &TxnOp) -> Option<(&Key, Option<ValueId>)> {
    match op {
        TxnOp::Put { key, value } => Some((key, Some(*value))),
        TxnOp::Delete { key } => Some((key, None)),
        TxnOp::Get { .. } => None,
    }
}

fn shown<'a>(op: &'a TxnOp, result: &TxnResult) -> Option<(&'a Key, Entry)> {
    match result {
        TxnResult::Get(Some(entry)) => Some((op.key(), *entry)),
        _ => None,
    }
}

/// All that the clients of one run did, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

/// One write as a watch from revision 1 shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// The store revision of the write; the writes of one transaction share it.
    pub revision: u64,
    /// The key written.
    pub key: Key,
    /// What happened to it.
    pub kind: EventKind,
}

/// What a write did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// It got this value.
    Put(
        /// The value.
        ValueId,
    ),
    /// It was deleted.
    Delete,
}

impl EventKind {
    /// The value written, `None` for a delete.
    #[must_use]
    pub fn value(self) -> Option<ValueId> {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete => None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            value,
            version,
            create_revision,
            mod_revision,
        } = self;
        write!(
            f,
            "{value} (version {version}, created at {create_revision}, put at {mod_revision})"
        )
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Absent => write!(f, " if absent"),
            Self::Version(version) => write!(f, " if version {version}"),
            Self::ModRevision(revision) => write!(f, " if put at {revision}"),
        }
    }
}

impl fmt::Display for TxnOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {key} {value}"),
            Self::Get { key } => write!(f, "get {key}"),
            Self::Delete { key } => write!(f, "delete {key}"),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value, expect } => write!(f, "put {key} {value}{expect}"),
            Self::Get { key, .. } => write!(f, "get {key}"),
            Self::Delete { key, expect } => write!(f, "delete {key}{expect}"),
            Self::Txn {
                compares,
                then,
                otherwise,
            } => {
                write!(f, "txn")?;
                compares
                    .iter()
                    .try_for_each(|c| write!(f, " {}{},", c.key, c.expect))?;
                write!(f, " then [{}] else [{}]", joined(then), joined(otherwise))
            }
            Self::Range { prefix, .. } => write!(f, "range {prefix:?}"),
        }
    }
}

impl fmt::Display for TxnResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { version, .. } => write!(f, "version {version}"),
            Self::Get(Some(entry)) => write!(f, "{entry}"),
            Self::Get(None) => write!(f, "absent"),
            Self::Delete { existed: true } => write!(f, "deleted"),
            Self::Delete { existed: false } => write!(f, "was absent"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutOk {
                revision,
                version,
                create_revision,
            } => {
                write!(
                    f,
                    "revision {revision}, version {version}, created at {create_revision}"
                )
            }
            Self::CompareFailed {
                current: Some(version),
            } => {
                write!(f, "compare failed at version {version}")
            }
            Self::CompareFailed { current: None } => write!(f, "compare failed, absent"),
            Self::Value {
                entry: Some(entry), ..
            } => write!(f, "{entry}"),
            Self::Value { entry: None, .. } => write!(f, "absent"),
            Self::DeleteOk {
                existed: true,
                revision,
            } => write!(f, "deleted at {revision}"),
            Self::DeleteOk { existed: false, .. } => write!(f, "was absent"),
            Self::TxnOk {
                succeeded,
                revision,
                results,
            } => {
                let branch = if *succeeded { "then" } else { "else" };
                write!(f, "{branch} at {revision} [{}]", joined(results))
            }
            Self::Entries { entries, revision } => {
                write!(f, "{} keys at revision {revision}", entries.len())
            }
            Self::Unknown => write!(f, "outcome unknown"),
            Self::Refused => write!(f, "refused"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client {} op {} [{}..",
            self.client, self.id, self.call_ns
        )?;
        match self.return_ns {
            Some(return_ns) => write!(f, "{return_ns}] ")?,
            None => write!(f, "] ")?,
        }
        write!(f, "{} -> {}", self.input, self.output)
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
