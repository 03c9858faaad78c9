//! The error every client sees: one shape over HTTP, peer forwarding and the library.
//!
//! It answers three questions: may I try again, may it have happened all the same, and who leads. Unknown is not
//! failure: `outcome_unknown` is true whenever the command may still take effect.

use crate::types::NodeId;
use serde::{Deserialize, Serialize};

/// What went wrong, as a stable word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// This node is not the leader and could not forward.
    NotLeader,
    /// No leader is known.
    NoLeader,
    /// No answer in time.
    Timeout,
    /// A queue is full.
    Overloaded,
    /// Key, value or body is over its limit.
    TooLarge,
    /// The request makes no sense as it is.
    InvalidArgument,
    /// No such key, member, lease or route.
    NotFound,
    /// A condition on version or revision does not hold.
    PreconditionFailed,
    /// The revision asked for was compacted away.
    Compacted,
    /// The revision asked for does not exist yet.
    FutureRevision,
    /// No such lease (it may have expired).
    LeaseNotFound,
    /// No such session (it may have been evicted): open a new one.
    SessionUnknown,
    /// The sequence number is older than the session's last one.
    SessionStale,
    /// The node or cluster takes no writes for now (disk nearly full).
    ReadOnly,
    /// The data is older than the request allows.
    TooStale,
    /// A membership change is refused: another is under way, or it would break the quorum.
    Conflict,
    /// A token is missing, unknown, over or revoked.
    Forbidden,
    /// The node is stopping.
    ShuttingDown,
    /// The node's disk failed or an invariant broke; it serves nothing.
    Poisoned,
    /// The node could not be reached, or the connection to it broke; said by clients alone.
    Unreachable,
    /// A bug.
    Internal,
}

impl Code {
    /// Every code, for documentation and tests.
    pub const ALL: [Code; 21] = [
        Code::NotLeader,
        Code::NoLeader,
        Code::Timeout,
        Code::Overloaded,
        Code::TooLarge,
        Code::InvalidArgument,
        Code::NotFound,
        Code::PreconditionFailed,
        Code::Compacted,
        Code::FutureRevision,
        Code::LeaseNotFound,
        Code::SessionUnknown,
        Code::SessionStale,
        Code::ReadOnly,
        Code::TooStale,
        Code::Conflict,
        Code::Forbidden,
        Code::ShuttingDown,
        Code::Poisoned,
        Code::Unreachable,
        Code::Internal,
    ];

    /// The HTTP status that carries the code.
    pub fn http_status(self) -> u16 {
        match self {
            Code::InvalidArgument => 400,
            Code::Forbidden => 403,
            Code::NotFound | Code::LeaseNotFound => 404,
            Code::PreconditionFailed => 412,
            Code::Conflict | Code::SessionUnknown | Code::SessionStale => 409,
            Code::Compacted => 410,
            Code::TooLarge => 413,
            Code::FutureRevision => 416,
            Code::Overloaded => 429,
            Code::Internal => 500,
            Code::Timeout => 504,
            Code::ReadOnly => 507,
            Code::NotLeader
            | Code::NoLeader
            | Code::TooStale
            | Code::ShuttingDown
            | Code::Unreachable
            | Code::Poisoned => 503,
        }
    }

    /// True when the same request may succeed later or elsewhere.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Code::NotLeader
                | Code::NoLeader
                | Code::Timeout
                | Code::Overloaded
                | Code::ReadOnly
                | Code::TooStale
                | Code::ShuttingDown
                | Code::Unreachable
                | Code::Poisoned
        )
    }
}

/// Who leads, as far as the answering node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its HTTP address (`host:port`).
    pub http: String,
}

/// The error. `Display` is the message and the hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct Error {
    /// Stable word.
    pub code: Code,
    /// One sentence for a person: what, where.
    pub message: String,
    /// True when the same request may succeed later or elsewhere.
    pub retryable: bool,
    /// True when the command may have taken effect, or still may.
    pub outcome_unknown: bool,
    /// The leader, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// An error that certainly changed nothing.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            message: message.into(),
            retryable: code.is_retryable(),
            outcome_unknown: false,
            leader: None,
            hint: None,
        }
    }

    /// The same error, but the command may have taken effect.
    pub fn unknown(mut self) -> Self {
        self.outcome_unknown = true;
        self
    }

    /// The same error with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error naming the leader.
    pub fn leader(mut self, leader: Option<Leader>) -> Self {
        self.leader = leader;
        self
    }
}
