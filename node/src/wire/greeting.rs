//! The first words of a connection: who calls whom and for what, and the two questions a node may ask before it
//! belongs to a cluster (probe and join).
//!
//! Magic number and version are the frame's business. What may connect is decided by `transport::gate`.

use crate::state::command::Member;
use crate::types::{ClusterId, Incarnation, NodeId};
use prost::{Enumeration, Message};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
pub enum Purpose {
    /// Consensus messages, from the caller to the called.
    Raft = 0,
    /// Requests forwarded to the called, and their answers.
    Rpc = 1,
    /// One snapshot, from the called to the caller.
    Snapshot = 2,
}

/// Who calls whom and for what.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hello {
    /// The caller's cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The caller.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// Life of the caller's data directory.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Whom the caller means to reach.
    #[prost(uint64, tag = "4")]
    pub to: u64,
    /// Number of a [`Purpose`].
    #[prost(int32, tag = "5")]
    pub purpose: i32,
    /// The caller's name, for people.
    #[prost(string, tag = "6")]
    pub name: String,
    /// The caller's peer address, by which a node that does not know the caller yet can answer it.
    #[prost(string, tag = "7")]
    pub peer: String,
}

impl Hello {
    /// The caller's cluster.
    pub fn cluster(&self) -> ClusterId {
        ClusterId(self.cluster_id)
    }

    /// The caller.
    pub fn sender(&self) -> NodeId {
        NodeId(self.from)
    }
}

/// The connection may be used.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Welcome {
    /// The called.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Life of the called one's data directory.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}

impl Welcome {
    /// Life of the called one's data directory.
    pub fn life(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
pub enum Reason {
    /// Not said, or a reason of a newer version.
    Unknown = 0,
    /// The first frame cannot be read or has another version.
    BadGreeting = 1,
    /// The caller belongs to another cluster.
    WrongCluster = 2,
    /// The called is not the one the caller means.
    WrongNode = 3,
    /// The called knows no such member (yet).
    UnknownMember = 4,
    /// The caller was removed from the cluster.
    Removed = 5,
    /// The caller's data directory is not the recorded one: it was lost, cloned or restored.
    WrongIncarnation = 6,
    /// The called belongs to no cluster yet, or has too many connections.
    NotReady = 7,
}

/// The connection may not be used; it is closed after this.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Reject {
    /// Number of a [`Reason`].
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What is wrong and what to do, for people.
    #[prost(string, tag = "2")]
    pub text: String,
}

impl Reject {
    /// A refusal for `reason`, explained by `text`.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Reject {
            code: reason.into(),
            text: text.into(),
        }
    }

    /// The reason; a number of a newer version is [`Reason::Unknown`].
    pub fn reason(&self) -> Reason {
        Reason::try_from(self.code).unwrap_or(Reason::Unknown)
    }
}

/// "Who are you, and is there a cluster already?" Asked by a node that starts.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Probe {
    /// The asker's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The asker's own peer address, `host:port`.
    #[prost(string, tag = "2")]
    pub peer: String,
    /// Life of the asker's data directory.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
}

/// Answer to a [`Probe`].
#[derive(Clone, PartialEq, Message)]
pub struct ProbeAnswer {
    /// The answering node's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Life of its data directory.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The cluster it belongs to, zero when it is fresh.
    #[prost(uint64, tag = "3")]
    pub cluster_id: u64,
    /// Its id in that cluster, zero when it is fresh.
    #[prost(uint64, tag = "4")]
    pub id: u64,
    /// The founding members with ids and incarnations that it decided on; empty when it has decided nothing.
    #[prost(message, repeated, tag = "5")]
    pub founders: Vec<Member>,
    /// Members as it knows them now; empty when it is fresh.
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<Member>,
}

/// "Let me in": asked of any member by a node that has an empty data directory.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct Join {
    /// The asker's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its peer address, `host:port`.
    #[prost(string, tag = "2")]
    pub peer: String,
    /// Its HTTP address, `host:port`.
    #[prost(string, tag = "3")]
    pub http: String,
    /// Life of its data directory.
    #[prost(uint64, tag = "4")]
    pub incarnation: u64,
    /// The text of the token by which it wants in; empty: it has none.
    #[prost(string, tag = "5")]
    pub token: String,
}

impl std::fmt::Debug for Join {
    /// Without the token, which is in no log.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Join")
            .field("name", &self.name)
            .field("peer", &self.peer)
            .field("http", &self.http)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

/// The asker is in, as a learner.
#[derive(Clone, PartialEq, Message)]
pub struct Joined {
    /// The cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The asker's id in it.
    #[prost(uint64, tag = "2")]
    pub id: u64,
    /// Members, the asker included.
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<Member>,
}

/// Answer to a [`Join`]: one of the two.
#[derive(Clone, PartialEq, Message)]
pub struct JoinAnswer {
    /// Yes.
    #[prost(message, optional, tag = "1")]
    pub joined: Option<Joined>,
    /// No: a [`crate::error::Error`] as JSON.
    #[prost(string, tag = "2")]
    pub error: String,
}
