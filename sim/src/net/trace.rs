//! What the network tells: notes for the story of a run, and counters for its probes.
//!
//! Notes are rare (connections and faults, never data); they come after the network's lock is released, in the order of what
//! they tell of.

use std::sync::Arc;
use std::time::Duration;

/// Receives notes with the simulation's time. It may call the network.
pub type NetTrace = Arc<dyn Fn(Duration, &Note) + Send + Sync>;

/// A host's name.
pub type HostName = Arc<str>;

/// An ordered pair of hosts: who and to whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Where it comes from.
    pub from: HostName,
    /// Where it goes.
    pub to: HostName,
}

/// Something that happened in the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A connection is established, seen by the caller.
    Connected(Pair),
    /// Nobody listens there.
    Refused(Pair),
    /// The first attempt of a connection got no answer; it goes on trying.
    Hangs(Pair),
    /// A connection attempt was given up.
    ConnectTimedOut(Pair),
    /// A connection's `to` end was reset by its `from` end.
    Reset(Pair),
    /// `from` got no acknowledgement from `to` for too long and failed its end of a connection.
    GaveUp(Pair),
    /// Packets of this direction are dropped from now on.
    Blocked(Pair),
    /// Packets of this direction pass again.
    Healed(Pair),
    /// This direction has become slower or lossier (or normal again).
    Changed(Pair),
    /// A host lost power.
    PowerLost(HostName),
    /// A host's process was killed; its kernel closed the connections.
    Killed(HostName),
    /// A host is up.
    Up(HostName),
}

/// How often things happened. Wrap-around is impossible in a run's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections established.
    pub connects: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connection attempts whose first packet got no answer.
    pub hangs: u64,
    /// Connection attempts given up.
    pub connect_timeouts: u64,
    /// Data segments delivered.
    pub segments: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Ends of connections that were reset.
    pub resets: u64,
    /// Segments that were dropped and sent again.
    pub retransmits: u64,
    /// Ends that failed for want of acknowledgements.
    pub give_ups: u64,
    /// Writes that found the window full.
    pub window_stalls: u64,
    /// Reads and writes cut short.
    pub partial: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Events handled by the pump.
    pub events: u64,
}
