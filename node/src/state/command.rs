//! What goes through the log, and what comes out: the commands, their outcomes, and the key-value record.
//!
//! All are prost messages: they are written to the WAL, sent to peers, and kept in sessions, so field numbers never
//! change meaning. A command carries the leader's wall-clock stamp; `apply` never looks at a clock.

use bytes::Bytes;

/// One entry's payload.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// The leader's wall clock when it proposed, milliseconds since the Unix epoch. For people only.
    #[prost(uint64, tag = "1")]
    pub time_ms: u64,
    /// Session of the client, zero for none.
    #[prost(uint64, tag = "2")]
    pub session: u64,
    /// Sequence number within the session, from 1.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// What to do.
    #[prost(
        oneof = "Op",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22"
    )]
    pub op: Option<Op>,
}

/// What a command does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Writes one key.
    #[prost(message, tag = "10")]
    Put(Put),
    /// Removes one key or a range.
    #[prost(message, tag = "11")]
    Delete(Delete),
    /// Compares, then does one of two lists.
    #[prost(message, tag = "12")]
    Txn(Txn),
    /// Creates a lease; its id is the entry's index.
    #[prost(message, tag = "13")]
    LeaseGrant(LeaseGrant),
    /// Ends a lease and removes its keys.
    #[prost(message, tag = "14")]
    LeaseRevoke(LeaseRevoke),
    /// Renews a lease.
    #[prost(message, tag = "15")]
    LeaseKeepAlive(LeaseKeepAlive),
    /// The leader found a lease expired; takes effect only if it was not renewed since.
    #[prost(message, tag = "16")]
    LeaseExpire(LeaseExpire),
    /// Opens a session; its id is the entry's index.
    #[prost(message, tag = "17")]
    SessionOpen(SessionOpen),
    /// Ends a session.
    #[prost(message, tag = "18")]
    SessionClose(SessionClose),
    /// Gives up history below a revision.
    #[prost(message, tag = "19")]
    Compact(Compact),
    /// Names and addresses of a member.
    #[prost(message, tag = "20")]
    MemberUpdate(Member),
    /// Sets the bounds that every replica shares.
    #[prost(message, tag = "21")]
    SetLimits(Limits),
    /// Orchestration.
    #[prost(message, tag = "22")]
    Fleet(FleetCommand),
}

/// A command of orchestration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FleetCommand {
    /// JSON of a [`crate::fleet::Command`].
    #[prost(bytes = "bytes", tag = "1")]
    pub json: Bytes,
}

/// Bounds that must be the same on every replica, and hence are part of the state.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Limits {
    /// Sessions remembered; the least recently used is forgotten beyond. At least 1.
    #[prost(uint64, tag = "1")]
    pub sessions_max: u64,
    /// Revisions of history kept when nobody compacts by hand. At least 1.
    #[prost(uint64, tag = "2")]
    pub history_revisions: u64,
}

/// A condition on one key. All given parts must hold.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Expect {
    /// The key must not exist.
    #[prost(bool, tag = "1")]
    pub absent: bool,
    /// The key's version must be this.
    #[prost(uint64, optional, tag = "2")]
    pub version: Option<u64>,
    /// The key's modify revision must be this.
    #[prost(uint64, optional, tag = "3")]
    pub mod_revision: Option<u64>,
}

/// Writes one key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// Key, not empty.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Lease to tie the key to, zero for none.
    #[prost(uint64, tag = "3")]
    pub lease: u64,
    /// Condition.
    #[prost(message, optional, tag = "4")]
    pub expect: Option<Expect>,
    /// Whether the outcome carries the record that was there before.
    #[prost(bool, tag = "5")]
    pub prev: bool,
}

/// Removes one key or a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Delete {
    /// Key, or start of the range.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End of the range (exclusive); empty for one key; a single zero byte for "to the end".
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Condition on the one key.
    #[prost(message, optional, tag = "3")]
    pub expect: Option<Expect>,
    /// Whether the outcome carries the records that were there before.
    #[prost(bool, tag = "4")]
    pub prev: bool,
}

/// Reads one key or a range, inside a transaction or as a query.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Get {
    /// Key, or start of the range.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End of the range (exclusive); empty for one key; a single zero byte for "to the end".
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Most records to return; zero for the server's limit.
    #[prost(uint64, tag = "3")]
    pub limit: u64,
    /// Return keys without values.
    #[prost(bool, tag = "4")]
    pub keys_only: bool,
    /// Return the count alone.
    #[prost(bool, tag = "5")]
    pub count_only: bool,
    /// Read as of this revision; zero for now.
    #[prost(uint64, tag = "6")]
    pub revision: u64,
}

/// One comparison of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// Key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// What is compared; an absent key has 0 for every number and no value.
    #[prost(enumeration = "Target", tag = "2")]
    pub target: i32,
    /// How.
    #[prost(enumeration = "Relation", tag = "3")]
    pub relation: i32,
    /// With which number (all targets but `Value`).
    #[prost(uint64, tag = "4")]
    pub number: u64,
    /// With which value (target `Value`).
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
}

/// What a comparison looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
pub enum Target {
    /// Count of writes since creation.
    Version = 0,
    /// Revision of creation.
    CreateRevision = 1,
    /// Revision of the last write.
    ModRevision = 2,
    /// The value.
    Value = 3,
    /// The lease.
    Lease = 4,
}

/// How a comparison compares: stored `relation` given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
pub enum Relation {
    /// Same.
    Equal = 0,
    /// Stored is greater.
    Greater = 1,
    /// Stored is less.
    Less = 2,
    /// Different.
    NotEqual = 3,
}

/// Compares, then does one of two lists, all at one revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Txn {
    /// All must hold.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// Done when all hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<TxnOp>,
    /// Done otherwise.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<TxnOp>,
}

/// One step of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnOp {
    /// The step.
    #[prost(oneof = "TxnStep", tags = "1, 2, 3")]
    pub step: Option<TxnStep>,
}

/// What a step does. Conditions inside steps are not allowed: the comparison comes first.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TxnStep {
    /// Writes.
    #[prost(message, tag = "1")]
    Put(Put),
    /// Removes.
    #[prost(message, tag = "2")]
    Delete(Delete),
    /// Reads, seeing the earlier steps.
    #[prost(message, tag = "3")]
    Get(Get),
}

/// Creates a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseGrant {
    /// Time to live, milliseconds.
    #[prost(uint64, tag = "1")]
    pub ttl_ms: u64,
}

/// Ends a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseRevoke {
    /// Lease.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Renews a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseKeepAlive {
    /// Lease.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Leases that the leader found expired.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseExpire {
    /// Each with the renewal it knew of.
    #[prost(message, repeated, tag = "1")]
    pub leases: Vec<ExpiredLease>,
}

/// One expired lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ExpiredLease {
    /// Lease.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Renewals the leader knew of; the expiry is void if there were more.
    #[prost(uint64, tag = "2")]
    pub renewals: u64,
}

/// Opens a session.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SessionOpen {}

/// Ends a session.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SessionClose {
    /// Session.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Gives up history.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Compact {
    /// History at and below this revision is given up, except what current keys need.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
}

/// A member as the cluster knows it.
#[derive(Clone, PartialEq, Eq, prost::Message, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name, unique among current members.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Peer address, `host:port`.
    #[prost(string, tag = "3")]
    pub peer: String,
    /// HTTP address, `host:port`.
    #[prost(string, tag = "4")]
    pub http: String,
    /// Life of its data directory; zero until it has shown up.
    #[prost(uint64, tag = "5")]
    pub incarnation: u64,
    /// Id of the voter whose place it takes by itself once it has caught up; zero for none.
    #[prost(uint64, tag = "6")]
    #[serde(skip)]
    pub replaces: u64,
    /// Id of the token by which it came; zero for none. A learner that has one is made a voter by itself once it has caught up.
    #[prost(uint64, tag = "7")]
    #[serde(skip)]
    pub token: u64,
}

/// A key and all that is known of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// Key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Writes since creation, from 1.
    #[prost(uint64, tag = "3")]
    pub version: u64,
    /// Revision of creation.
    #[prost(uint64, tag = "4")]
    pub create_revision: u64,
    /// Revision of the last write.
    #[prost(uint64, tag = "5")]
    pub mod_revision: u64,
    /// Lease it is tied to, zero for none.
    #[prost(uint64, tag = "6")]
    pub lease: u64,
}

/// One change of one key, as history keeps it and watchers get it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyEvent {
    /// True for a removal; `kv` then has the key and the removal's revision alone.
    #[prost(bool, tag = "1")]
    pub deleted: bool,
    /// The record after the change.
    #[prost(message, required, tag = "2")]
    pub kv: KeyValue,
    /// Modify revision of the record before the change, zero if there was none.
    #[prost(uint64, tag = "3")]
    pub prev_revision: u64,
    /// Leader's wall clock, milliseconds since the Unix epoch.
    #[prost(uint64, tag = "4")]
    pub time_ms: u64,
}

/// What a command did.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// The store's revision after the command.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// The entry's index.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// True when the answer comes from the session's memory: the command had been done before.
    #[prost(bool, tag = "3")]
    pub replayed: bool,
    /// The result.
    #[prost(oneof = "Done", tags = "10, 11, 12, 13, 14, 15, 16, 17")]
    pub done: Option<Done>,
}

/// The result of a command.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Done {
    /// Nothing more to say.
    #[prost(message, tag = "10")]
    Nothing(Nothing),
    /// Of a put.
    #[prost(message, tag = "11")]
    Put(PutDone),
    /// Of a delete.
    #[prost(message, tag = "12")]
    Delete(DeleteDone),
    /// Of a transaction.
    #[prost(message, tag = "13")]
    Txn(TxnDone),
    /// Of a lease grant or renewal.
    #[prost(message, tag = "14")]
    Lease(LeaseDone),
    /// Of a session opening.
    #[prost(message, tag = "15")]
    Session(SessionDone),
    /// Refused; nothing changed.
    #[prost(message, tag = "16")]
    Refused(Refused),
    /// Of a command of orchestration.
    #[prost(message, tag = "17")]
    Fleet(FleetDone),
}

/// Result of a command of orchestration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FleetDone {
    /// JSON of a [`crate::fleet::Done`].
    #[prost(bytes = "bytes", tag = "1")]
    pub json: Bytes,
}

/// Nothing more to say.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Nothing {}

/// Result of a put.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutDone {
    /// Version of the key after it.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Revision in which the key was created.
    #[prost(uint64, tag = "2")]
    pub create_revision: u64,
    /// The record before, if asked for and present.
    #[prost(message, optional, tag = "3")]
    pub prev: Option<KeyValue>,
}

/// Result of a delete.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteDone {
    /// Keys removed.
    #[prost(uint64, tag = "1")]
    pub deleted: u64,
    /// The records before, if asked for.
    #[prost(message, repeated, tag = "2")]
    pub prev: Vec<KeyValue>,
}

/// Result of a read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetDone {
    /// Records in key order.
    #[prost(message, repeated, tag = "1")]
    pub kvs: Vec<KeyValue>,
    /// True when the limit cut the list short.
    #[prost(bool, tag = "2")]
    pub more: bool,
    /// Keys in the whole range (as far as counted: exact when `more` is false or only a count was asked for).
    #[prost(uint64, tag = "3")]
    pub count: u64,
}

/// Result of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnDone {
    /// True when all comparisons held.
    #[prost(bool, tag = "1")]
    pub succeeded: bool,
    /// One result per step done.
    #[prost(message, repeated, tag = "2")]
    pub results: Vec<StepDone>,
}

/// Result of one step.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StepDone {
    /// The result.
    #[prost(oneof = "Step", tags = "1, 2, 3")]
    pub step: Option<Step>,
}

/// Result of one step, by kind.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Step {
    /// Of a put.
    #[prost(message, tag = "1")]
    Put(PutDone),
    /// Of a delete.
    #[prost(message, tag = "2")]
    Delete(DeleteDone),
    /// Of a get.
    #[prost(message, tag = "3")]
    Get(GetDone),
}

/// Result of a lease grant or renewal.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseDone {
    /// Lease.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Time to live, milliseconds.
    #[prost(uint64, tag = "2")]
    pub ttl_ms: u64,
}

/// Result of a session opening.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SessionDone {
    /// Session.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// A deterministic refusal: the same on every replica, nothing changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Why.
    #[prost(enumeration = "Refusal", tag = "1")]
    pub why: i32,
    /// One sentence.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The record as it is, when a condition failed on it.
    #[prost(message, optional, tag = "3")]
    pub current: Option<KeyValue>,
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
pub enum Refusal {
    /// The command makes no sense (empty key, unknown operation).
    Invalid = 0,
    /// A condition does not hold.
    Precondition = 1,
    /// No such lease.
    LeaseNotFound = 2,
    /// No such session.
    SessionUnknown = 3,
    /// The sequence number is older than the session's last one.
    SessionStale = 4,
    /// The revision was compacted.
    Compacted = 5,
    /// The revision does not exist yet.
    FutureRevision = 6,
    /// No such service, worker, volume or token.
    NotFound = 7,
    /// The name is taken, or the thing is in a state in which this cannot be done.
    Conflict = 8,
    /// The token is unknown, over or revoked.
    Forbidden = 9,
}
