//! What a picture of a run needs: who was what when, what was broken when, and when clients were answered.
//!
//! Kept only for runs whose story is kept. Times are virtual microseconds since the start of the simulation. Nothing here goes
//! into the trace hash: all of it follows from events that are in the hash already.

use serde::{Deserialize, Serialize};

/// One run over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// When clients and faults began.
    pub start_us: u64,
    /// When all faults were ended.
    pub calm_us: u64,
    /// When the run was over.
    pub end_us: u64,
    /// When each acknowledged write was answered.
    pub acknowledged_us: Vec<u64>,
    /// When each refused operation was answered.
    pub refused_us: Vec<u64>,
    /// When each operation whose outcome stayed unknown was sent.
    pub unknown_us: Vec<u64>,
    /// Changes of what a node is, in order of time.
    pub moments: Vec<Moment>,
    /// Faults, in the order in which they ended.
    pub bands: Vec<Band>,
}

/// A node becomes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at_us: u64,
    /// The node's name.
    pub place: String,
    /// What it becomes.
    pub state: State,
}

/// What a node can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// Its process runs, but has not taken its place in the cluster yet.
    Starting,
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It receives the log without a vote.
    Learner,
    /// Its process does not run.
    Down,
    /// Its process is stopped by a signal.
    Paused,
    /// Its process goes on as what it was before it was stopped.
    Resumed,
}

/// Something was broken for a while, or struck at one moment (then both times are the same).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band {
    /// The node's name, or `net`.
    pub place: String,
    /// Which part of the world.
    pub kind: BandKind,
    /// From when.
    pub from_us: u64,
    /// Until when.
    pub to_us: u64,
    /// In a few words.
    pub words: String,
}

/// Which part of the world is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BandKind {
    /// The network.
    Cut,
    /// A disk.
    Disk,
    /// A clock.
    Clock,
}
