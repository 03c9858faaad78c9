//! The message types of the `raft` crate, written by hand so that it builds without protoc.
//!
//! `raft` 0.7.0 takes its messages from a crate named `raft-proto`, whose published form runs a
//! protobuf compiler in a build script. This crate stands in its place through `[patch.crates-io]`:
//! the same schema, the same names, no build script and no generated file.
//!
//! Reading order:
//! - [`types`](eraftpb): the structs and enums, with their field numbers;
//! - `accessors`: the `get_`/`set_`/`mut_`/`take_` methods that `raft` calls, and the
//!   `protobuf::Message` trait over prost's codec;
//! - `confchange`: membership changes in both forms, and their one-line notation.
//!
//! # Invariants
//! - Field names, types and numbers are those of the public schema `eraftpb.proto`, so an entry
//!   written by one raft node is read by any other. `tests` in `types` pins the bytes.
//! - Payloads are [`bytes::Bytes`]: cloning an entry never copies its data.
//! - Decoding does not validate. An enum field holds whatever number arrived; its `get_` accessor
//!   panics on a number the schema does not know, and never returns some other variant instead.
//!   Whoever takes messages from outside (Seaworthy's peer port) converts them with
//!   `MessageType::try_from(number)` and the like, and refuses unknown numbers before `step`:
//!   the message's type, its entries' types, and the membership change encoded in the data of a
//!   proposed entry, which `step` decodes too.
//!
//! # Left out
//! - Accessors that `raft` 0.7.0 does not call: every field is public.
//! - Unknown fields: prost drops them, so re-encoding a message of a newer schema loses them.
//! - The `protobuf` crate's own parser and reflection. Only its trait and its error type are used,
//!   because `raft` names them; `descriptor` and `mut_unknown_fields` panic, and `raft` calls
//!   neither.

mod accessors;
mod confchange;
mod types;

pub use crate::confchange::{
    ConfChangeI, conf_state_eq, new_conf_change_single, parse_conf_change, stringify_conf_change,
};

/// The schema's messages and enums, under the module name that `raft` expects.
pub mod eraftpb {
    pub use crate::types::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}

/// Everything `raft::prelude` re-exports from here: all messages and enums.
pub mod prelude {
    pub use crate::eraftpb::*;
}
