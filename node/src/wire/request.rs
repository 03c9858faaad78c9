//! Requests forwarded to the leader, their answers, and the transfer of snapshots.
//!
//! The wire forms are [`Forward`] and [`ForwardReply`]; the node's loop sees [`Ask`] and [`Answer`]. Errors travel as the
//! JSON of [`crate::error::Error`], the same that HTTP clients get.

use crate::error::{Code, Error};
use crate::fleet::meeting;
use crate::handle::MemberChange;
use crate::state::command::{Command, Outcome};
use crate::types::NodeId;
use prost::Message;

/// Longest time a forwarded request may claim to have left, milliseconds: an hour; a longer claim is cut to it.
pub const LEFT_MS_MAX: u64 = 3_600_000;

/// What one node asks of another on behalf of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Commit and apply this.
    Propose(Command),
    /// Change the membership.
    Change(MemberChange),
    /// Ask the manager's task, on behalf of a worker.
    Dispatch(Box<meeting::Call>),
}

/// What comes back for an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of a proposal.
    Outcome(Outcome),
    /// Of a membership change: the member changed.
    Member(NodeId),
    /// Of a call of a worker.
    Dispatch(meeting::Reply),
}

/// A forwarded request on the wire.
#[derive(Clone, PartialEq, Message)]
pub struct Forward {
    /// Number of the request, unique on its connection.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Time the asker still waits, milliseconds.
    #[prost(uint64, tag = "2")]
    pub left_ms: u64,
    /// What.
    #[prost(oneof = "WireAsk", tags = "10, 12, 13")]
    pub ask: Option<WireAsk>,
}

/// An [`Ask`] on the wire. Number 11 has been used and is not to be used again.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum WireAsk {
    /// [`Ask::Propose`].
    #[prost(message, tag = "10")]
    Propose(Command),
    /// [`Ask::Change`].
    #[prost(message, tag = "12")]
    Change(WireChange),
    /// [`Ask::Dispatch`] as JSON.
    #[prost(string, tag = "13")]
    Dispatch(String),
}

/// A [`MemberChange`] on the wire.
#[derive(Clone, PartialEq, Message)]
pub struct WireChange {
    /// 1 add, 2 promote, 3 remove, 4 transfer.
    #[prost(uint32, tag = "1")]
    pub verb: u32,
    /// The member, for all but add.
    #[prost(uint64, tag = "2")]
    pub id: u64,
    /// Name of the member to add.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Its peer address.
    #[prost(string, tag = "4")]
    pub peer: String,
    /// Its HTTP address.
    #[prost(string, tag = "5")]
    pub http: String,
}

impl From<MemberChange> for WireChange {
    fn from(change: MemberChange) -> Self {
        let of = |verb, id: NodeId| WireChange {
            verb,
            id: id.0,
            ..WireChange::default()
        };
        match change {
            MemberChange::Add { name, peer, http } => WireChange {
                name,
                peer,
                http,
                ..of(1, NodeId(0))
            },
            MemberChange::Promote { id } => of(2, id),
            MemberChange::Remove { id } => of(3, id),
            MemberChange::Transfer { to } => of(4, to),
        }
    }
}

impl WireChange {
    /// The change; `None` for an unknown verb.
    fn open(self) -> Option<MemberChange> {
        let id = NodeId(self.id);
        Some(match self.verb {
            1 => MemberChange::Add {
                name: self.name,
                peer: self.peer,
                http: self.http,
            },
            2 => MemberChange::Promote { id },
            3 => MemberChange::Remove { id },
            4 => MemberChange::Transfer { to: id },
            _ => return None,
        })
    }
}

impl Forward {
    /// The request `ask` as number `id`, of use for `left_ms` more.
    pub fn new(id: u64, left_ms: u64, ask: Ask) -> Self {
        let ask = match ask {
            Ask::Propose(command) => WireAsk::Propose(command),
            Ask::Change(change) => WireAsk::Change(change.into()),
            Ask::Dispatch(call) => WireAsk::Dispatch(to_json(&*call)),
        };
        Forward {
            id,
            left_ms,
            ask: Some(ask),
        }
    }

    /// What is asked, or the error to answer with.
    pub fn open(self) -> Result<Ask, Error> {
        let ask = match self.ask {
            Some(WireAsk::Propose(command)) => Some(Ask::Propose(command)),
            Some(WireAsk::Change(change)) => change.open().map(Ask::Change),
            Some(WireAsk::Dispatch(json)) => serde_json::from_str(&json).ok().map(Ask::Dispatch),
            None => None,
        };
        ask.ok_or_else(|| {
            Error::new(Code::InvalidArgument, "this node does not know the request")
                .hint("upgrade it: the asking node is newer")
        })
    }
}

/// The answer to a [`Forward`].
#[derive(Clone, PartialEq, Message)]
pub struct ForwardReply {
    /// Number of the request.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The answer.
    #[prost(oneof = "WireAnswer", tags = "10, 12, 13, 14")]
    pub answer: Option<WireAnswer>,
}

/// An [`Answer`] or an error on the wire. Number 11 has been used and is not to be used again.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum WireAnswer {
    /// [`Answer::Outcome`].
    #[prost(message, tag = "10")]
    Outcome(Outcome),
    /// [`Answer::Member`].
    #[prost(uint64, tag = "12")]
    Member(u64),
    /// A [`crate::error::Error`] as JSON.
    #[prost(string, tag = "13")]
    Error(String),
    /// [`Answer::Dispatch`] as JSON.
    #[prost(string, tag = "14")]
    Dispatch(String),
}

impl ForwardReply {
    /// The answer to request `id`.
    pub fn new(id: u64, answer: Result<Answer, Error>) -> Self {
        let answer = match answer {
            Ok(Answer::Outcome(outcome)) => WireAnswer::Outcome(outcome),
            Ok(Answer::Member(id)) => WireAnswer::Member(id.0),
            Ok(Answer::Dispatch(reply)) => WireAnswer::Dispatch(to_json(&reply)),
            Err(error) => WireAnswer::Error(error_to_json(&error)),
        };
        ForwardReply {
            id,
            answer: Some(answer),
        }
    }

    /// The answer. One that cannot be read leaves the outcome unknown.
    pub fn open(self) -> Result<Answer, Error> {
        match self.answer {
            Some(WireAnswer::Outcome(outcome)) => Ok(Answer::Outcome(outcome)),
            Some(WireAnswer::Member(id)) => Ok(Answer::Member(NodeId(id))),
            Some(WireAnswer::Error(json)) => Err(error_from_json(&json)),
            Some(WireAnswer::Dispatch(json)) => match serde_json::from_str(&json) {
                Ok(reply) => Ok(Answer::Dispatch(reply)),
                Err(error) => {
                    let message = format!("the leader's answer cannot be read: {error}");
                    Err(Error::new(Code::Internal, message).unknown())
                }
            },
            None => Err(Error::new(Code::Internal, "the leader's answer is empty").unknown()),
        }
    }
}

/// A call or reply as it travels.
fn to_json(what: &impl serde::Serialize) -> String {
    serde_json::to_string(what).expect("calls are plain data with text keys")
}

/// An error as it travels.
pub fn error_to_json(error: &Error) -> String {
    serde_json::to_string(error).expect("an error has only texts, numbers and flags")
}

/// An error that travelled. One that cannot be read is a bug on the other side and leaves the outcome unknown.
pub fn error_from_json(json: &str) -> Error {
    serde_json::from_str(json).unwrap_or_else(|error| {
        let message = format!("the other node's error cannot be read: {error}");
        Error::new(Code::Internal, message).unknown()
    })
}

/// "Send me this snapshot from here on."
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SnapshotRequest {
    /// Raft group.
    #[prost(uint64, tag = "1")]
    pub group: u64,
    /// Last entry of the snapshot wanted.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// Term of that entry.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// First byte wanted.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
}

/// A piece of a snapshot file.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SnapshotChunk {
    /// Position of the first byte.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// The bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: bytes::Bytes,
    /// True for the last piece.
    #[prost(bool, tag = "3")]
    pub last: bool,
    /// Size of the whole file, bytes.
    #[prost(uint64, tag = "4")]
    pub total: u64,
    /// Not empty: the snapshot cannot be had; a [`crate::error::Error`] as JSON.
    #[prost(string, tag = "5")]
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Leader;

    fn travelled(ask: Ask) -> Ask {
        let wire = Forward::new(7, 100, ask).encode_to_vec();
        let forward = Forward::decode(&wire[..]).unwrap();
        assert_eq!((forward.id, forward.left_ms), (7, 100));
        forward.open().unwrap()
    }

    #[test]
    fn every_request_arrives_as_it_left() {
        let change = |change| Ask::Change(change);
        let text = str::to_owned;
        let (name, peer, http) = (text("n"), text("p:1"), text("h:1"));
        let id = NodeId(9);
        for ask in [
            Ask::Propose(Command {
                seq: 3,
                ..Command::default()
            }),
            change(MemberChange::Add { name, peer, http }),
            change(MemberChange::Promote { id }),
            change(MemberChange::Remove { id }),
            change(MemberChange::Transfer { to: id }),
        ] {
            assert_eq!(travelled(ask.clone()), ask);
        }
    }

    #[test]
    fn an_unknown_request_is_an_error_that_changed_nothing() {
        let change = WireChange {
            verb: 99,
            ..WireChange::default()
        };
        for ask in [None, Some(WireAsk::Change(change))] {
            let forward = Forward {
                ask,
                ..Forward::default()
            };
            let error = forward.open().unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(!error.outcome_unknown);
        }
    }

    #[test]
    fn every_answer_and_error_arrives_as_it_left() {
        let leader = Leader {
            id: NodeId(2),
            name: "b".to_owned(),
            http: "h:2".to_owned(),
        };
        let error = Error::new(Code::NotLeader, "elsewhere")
            .unknown()
            .hint("ask there")
            .leader(Some(leader));
        for answer in [
            Ok(Answer::Outcome(Outcome {
                revision: 5,
                ..Outcome::default()
            })),
            Ok(Answer::Member(NodeId(4))),
            Err(error),
        ] {
            let wire = ForwardReply::new(1, answer.clone()).encode_to_vec();
            let reply = ForwardReply::decode(&wire[..]).unwrap();
            assert_eq!(reply.open(), answer);
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_leaves_the_outcome_unknown() {
        assert!(error_from_json("{").outcome_unknown);
        let empty = ForwardReply::default().open().unwrap_err();
        assert!(empty.outcome_unknown);
    }
}
