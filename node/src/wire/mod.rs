//! What peers say to each other, byte for byte: frames, and the prost messages inside them.
//!
//! Reading order: [`frame`], the envelope of everything; [`greeting`], the first words of a connection and the questions a
//! node may ask before it belongs to a cluster; [`raft`], consensus messages and their validation; [`request`], requests
//! forwarded to the leader and snapshot transfer.
//!
//! Invariant: nothing here does more than turn bytes into values and back. A value that came out of a conversion is safe to
//! hand to raft-rs; a value straight from a decoder is not. Field numbers and frame kinds never change meaning.

pub mod frame;
pub mod greeting;
pub mod raft;
#[cfg(test)]
mod raft_tests;
pub mod request;

pub use frame::{Frame, FrameReader, FrameWriter, Kind};
pub use greeting::{
    Hello, Join, JoinAnswer, Joined, Probe, ProbeAnswer, Purpose, Reason, Reject, Welcome,
};
pub use raft::{Invalid, RaftMessage, SnapshotFile};
pub use request::{Answer, Ask, Forward, ForwardReply, SnapshotChunk, SnapshotRequest};
