//! Consensus: raft-rs driven by a pure core ([`Core`]) over an in-memory view of the log ([`Log`]).
//!
//! ```text
//!   inputs                      Core                          Work (data)
//!   tick, step(message) ──▶  raft-rs RawNode  ──▶  messages that may leave at once
//!   propose, read_index                            records to make durable, then `persisted(number)`
//!   change, transfer                               messages that wait for that
//!   persisted(number) ──▶                          entries to apply, in order, then `applied(index)`
//!   applied(index)    ──▶                          read states, role changes
//! ```
//!
//! The core never awaits, reads no clock and draws its election time-outs from a stream it is given. The shell
//! (`node::run`) writes, sends and applies, and tells it what is done; the reason for each arrow stands there.
//!
//! # Traps of raft-rs 0.7 and what is done about each
//!
//! - *`read_index` is silently dropped* when the leader has not committed in its term, or a follower knows no leader. The
//!   shell waits until neither is so ([`Core::can_ask_index`](core::Core::can_ask_index)), asks again in each new term, and asks again
//!   after `knobs.read_retry` what got lost on the way (test `a_dropped_read_index_is_asked_again`), always with a fresh context.
//! - *Read contexts must never repeat* (the shape of etcd issue 20418). A context is the boot nonce and a counter.
//! - *Ids must never be reused* (raft-rs issue 571): ids come from a counter in the replicated state.
//! - *Unknown enum numbers make `step` panic*: `wire` converts and validates every message before it reaches the core.
//! - *Proposals vanish on role loss*: the shell keeps them and answers by the entry that is applied at their index.
//! - *The time-out draw uses process entropy*: replaced after each transition by a draw from our stream ([`Core`]).
//! - *Fixes after 0.7.0*: 557 (a follower's next index could fall to its match index or below: the leader then sends an
//!   entry again, which the follower answers as already held; costs a message, loses nothing), 530 (an unbounded scan for
//!   configuration changes at campaign: bounded here by the snapshot triggers), 543 (upper bound of `applied`: asserted by
//!   the shell before it calls).
//!
//! # What may overlap
//!
//! A leader sends entries while it still writes them itself (thesis 10.2.1): its own vote for an entry counts only when
//! `persisted` says so. A follower's answers wait for the sync. A batch being applied overlaps with the next being written.

pub mod core;
pub mod log;

pub use self::core::{Core, Settings, Work};
pub use self::log::Log;
