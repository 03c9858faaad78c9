//! The names every module shares: identities and positions as newtypes, so that a swapped argument does not compile.
//!
//! Nothing here does I/O or holds state. Conversions to the bare integers of raft-rs happen in `raft` alone.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident, $letter:literal) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!($letter, "{}"), self.0)
            }
        }
    };
}

number!(
    /// A member of the cluster. Never reused: a node that lost its disk comes back under a fresh id
    /// (raft-rs issue 571, inventory U-1). Zero means "nobody".
    NodeId,
    ""
);
number!(
    /// A Raft group. Group 0 is the control plane; later groups are stream partitions.
    GroupId,
    "g"
);
number!(
    /// A Raft term.
    Term,
    ""
);
number!(
    /// A position in a Raft log; the first entry has index 1.
    Index,
    ""
);
number!(
    /// The store's revision: one step per command that changed a key.
    Revision,
    ""
);
number!(
    /// A lease on keys, named by the index of the entry that granted it.
    LeaseId,
    ""
);
number!(
    /// A client session, named by the index of the entry that opened it.
    SessionId,
    ""
);

number!(
    /// A service, named by the index of the entry that made it.
    ServiceId,
    ""
);
number!(
    /// A task, named by the cluster's counter of tasks; never reused.
    TaskId,
    ""
);
number!(
    /// A worker, named by the index of the entry by which it joined. Zero means "none".
    WorkerId,
    ""
);
number!(
    /// One uninterrupted acquaintance of a worker with the cluster; a higher one supersedes it.
    Epoch,
    ""
);

/// One life of a data directory, drawn when the directory is created. Two directories never share one, so
/// a member that comes back with another incarnation has lost its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// The cluster, as a hash over its founding members and their incarnations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

macro_rules! hex {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{:016x}", self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                u64::from_str_radix(&text, 16)
                    .map(Self)
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

hex!(Incarnation);
hex!(ClusterId);

/// The group of the control plane: membership, keys, leases, sessions.
pub const CONTROL_GROUP: GroupId = GroupId(0);

/// What a member does in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders entries for its term.
    Leader,
    /// Follows a leader and votes.
    Follower,
    /// Asks for votes (or, before that, whether it would get them).
    Candidate,
    /// Receives the log without a vote.
    Learner,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        })
    }
}
