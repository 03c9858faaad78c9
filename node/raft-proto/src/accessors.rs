//! The methods that `raft` 0.7.0 calls on its messages, and the trait it encodes them by.
//!
//! `raft` is written against two code generators at once and so touches many fields through
//! methods. The table at the end of this file lists every field with its empty value, and the
//! accessors that `raft` uses on it; because the empty value is a constant, a reference to a
//! missing sub-message needs no lazily filled static. [`implement!`] makes the code.
//!
//! Invariant: an enum accessor returns the variant whose number the field holds, or panics.

use std::any::Any;
use std::io;

use bytes::Bytes;
use protobuf::reflect::MessageDescriptor;
use protobuf::{Clear, CodedInputStream, CodedOutputStream, ProtobufError, ProtobufResult};
use protobuf::{Message as PbMessage, UnknownFields};

use crate::types::*;

/// Prost drops unknown fields, so every message answers with this one.
static NO_UNKNOWN_FIELDS: UnknownFields = UnknownFields { fields: None };

/// One accessor: its shape, the field, the method's name, and the type it gives or takes.
macro_rules! accessor {
    (get $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("The value of `", stringify!($field), "`.")]
        pub fn $name(&self) -> $ty {
            self.$field
        }
    };
    (borrow $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Borrows `", stringify!($field), "`.")]
        pub fn $name(&self) -> &$ty {
            &self.$field
        }
    };
    (edit $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Borrows `", stringify!($field), "` to change it.")]
        pub fn $name(&mut self) -> &mut $ty {
            &mut self.$field
        }
    };
    (set $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Replaces `", stringify!($field), "`.")]
        pub fn $name(&mut self, value: $ty) {
            self.$field = value;
        }
    };
    (take $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Moves `", stringify!($field), "` out and leaves it empty.")]
        pub fn $name(&mut self) -> $ty {
            std::mem::take(&mut self.$field)
        }
    };
    (get_enum $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("The variant that `", stringify!($field), "` holds the number of.")]
        ///
        /// # Panics
        /// On a number outside the schema: outside input is validated before it comes here.
        pub fn $name(&self) -> $ty {
            <$ty>::try_from(self.$field).unwrap_or_else(|_| {
                panic!("unvalidated {} number {}", stringify!($ty), self.$field)
            })
        }
    };
    (set_enum $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Stores the number of `value` in `", stringify!($field), "`.")]
        pub fn $name(&mut self, value: $ty) {
            self.$field = i32::from(value);
        }
    };
    (borrow_part $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Borrows `", stringify!($field), "`, or an empty one if there is none.")]
        pub fn $name(&self) -> &$ty {
            self.$field
                .as_ref()
                .unwrap_or_else(|| <$ty>::default_instance())
        }
    };
    (edit_part $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Borrows `", stringify!($field), "` to change it, making one if needed.")]
        pub fn $name(&mut self) -> &mut $ty {
            self.$field.get_or_insert_default()
        }
    };
    (set_part $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Replaces `", stringify!($field), "`.")]
        pub fn $name(&mut self, value: $ty) {
            self.$field = Some(value);
        }
    };
    (take_part $field:ident $name:ident $ty:ty) => {
        #[doc = concat!("Moves `", stringify!($field), "` out; an empty one if there is none.")]
        pub fn $name(&mut self) -> $ty {
            self.$field.take().unwrap_or_default()
        }
    };
}

/// Accessors, the shared empty value, and `protobuf::Message` for each message of the table.
macro_rules! implement {
    ($($message:ident {
        $($field:ident = $empty:expr $(=> $($shape:ident $name:ident: $ty:ty),+)?;)+
    })+) => {$(
        impl $message {
            /// A message with every field at its default.
            const EMPTY: Self = Self { $($field: $empty),+ };

            $($($(accessor!($shape $field $name $ty);)+)?)+
        }

        impl Clear for $message {
            fn clear(&mut self) {
                *self = Self::EMPTY;
            }
        }

        impl PbMessage for $message {
            fn new() -> Self {
                Self::EMPTY
            }

            fn default_instance() -> &'static Self {
                static EMPTY: $message = $message::EMPTY;
                &EMPTY
            }

            fn is_initialized(&self) -> bool {
                true
            }

            fn compute_size(&self) -> u32 {
                size_of_encoded(self)
            }

            fn get_cached_size(&self) -> u32 {
                size_of_encoded(self)
            }

            fn write_to_bytes(&self) -> ProtobufResult<Vec<u8>> {
                Ok(prost::Message::encode_to_vec(self))
            }

            fn write_to_with_cached_sizes(&self, os: &mut CodedOutputStream) -> ProtobufResult<()> {
                os.write_raw_bytes(&prost::Message::encode_to_vec(self))
            }

            fn merge_from_bytes(&mut self, bytes: &[u8]) -> ProtobufResult<()> {
                merge(self, bytes)
            }

            fn merge_from(&mut self, is: &mut CodedInputStream) -> ProtobufResult<()> {
                merge(self, &read_to_limit(is)?)
            }

            fn get_unknown_fields(&self) -> &UnknownFields {
                &NO_UNKNOWN_FIELDS
            }

            fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
                panic!("{} keeps no unknown fields", stringify!($message))
            }

            fn descriptor(&self) -> &'static MessageDescriptor {
                panic!("{} has no reflection", stringify!($message))
            }

            fn as_any(&self) -> &dyn Any {
                self
            }
        }
    )+};
}

/// Encoded size in bytes. It saturates: `raft` adds sizes up to compare them with a limit, and a
/// message of 4 GiB is over any limit.
fn size_of_encoded(message: &impl prost::Message) -> u32 {
    u32::try_from(message.encoded_len()).unwrap_or(u32::MAX)
}

/// Decodes `bytes` into `message`, keeping prost's explanation in the error.
fn merge(message: &mut impl prost::Message, bytes: &[u8]) -> ProtobufResult<()> {
    message
        .merge(bytes)
        .map_err(|error| ProtobufError::IoError(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Reads up to the stream's end or its current limit, the extent of one message in either case.
fn read_to_limit(is: &mut CodedInputStream) -> ProtobufResult<Vec<u8>> {
    let mut bytes = Vec::new();
    while !is.eof()? {
        bytes.push(is.read_raw_byte()?);
    }
    Ok(bytes)
}

implement! {
    Entry {
        entry_type = 0 => get_enum get_entry_type: EntryType, set_enum set_entry_type: EntryType;
        term = 0 => get get_term: u64;
        index = 0 => get get_index: u64;
        data = Bytes::new() => borrow get_data: [u8], take take_data: Bytes;
        context = Bytes::new();
        sync_log = false;
    }
    SnapshotMetadata {
        conf_state = None => borrow_part get_conf_state: ConfState,
            edit_part mut_conf_state: ConfState, set_part set_conf_state: ConfState,
            take_part take_conf_state: ConfState;
        index = 0;
        term = 0;
    }
    Snapshot {
        data = Bytes::new();
        metadata = None => borrow_part get_metadata: SnapshotMetadata,
            edit_part mut_metadata: SnapshotMetadata, set_part set_metadata: SnapshotMetadata,
            take_part take_metadata: SnapshotMetadata;
    }
    Message {
        msg_type = 0 => get_enum get_msg_type: MessageType, set_enum set_msg_type: MessageType;
        to = 0;
        from = 0;
        term = 0;
        log_term = 0;
        index = 0 => get get_index: u64, set set_index: u64;
        entries = Vec::new() => edit mut_entries: Vec<Entry>, set set_entries: Vec<Entry>,
            take take_entries: Vec<Entry>;
        commit = 0 => set set_commit: u64;
        commit_term = 0;
        snapshot = None => borrow_part get_snapshot: Snapshot, set_part set_snapshot: Snapshot,
            take_part take_snapshot: Snapshot;
        request_snapshot = 0;
        reject = false;
        reject_hint = 0;
        context = Bytes::new() => take take_context: Bytes;
        deprecated_priority = 0;
        priority = 0;
    }
    HardState {
        term = 0;
        vote = 0;
        commit = 0;
    }
    ConfState {
        voters = Vec::new() => borrow get_voters: [u64], set set_voters: Vec<u64>;
        learners = Vec::new() => borrow get_learners: [u64], set set_learners: Vec<u64>;
        voters_outgoing = Vec::new() => borrow get_voters_outgoing: [u64],
            set set_voters_outgoing: Vec<u64>;
        learners_next = Vec::new() => borrow get_learners_next: [u64],
            set set_learners_next: Vec<u64>;
        auto_leave = false;
    }
    ConfChange {
        change_type = 0 => get_enum get_change_type: ConfChangeType,
            set_enum set_change_type: ConfChangeType;
        node_id = 0;
        context = Bytes::new();
        id = 0;
    }
    ConfChangeSingle {
        change_type = 0 => get_enum get_change_type: ConfChangeType,
            set_enum set_change_type: ConfChangeType;
        node_id = 0;
    }
    ConfChangeV2 {
        transition = 0 => get_enum get_transition: ConfChangeTransition,
            set_enum set_transition: ConfChangeTransition;
        changes = Vec::new() => set set_changes: Vec<ConfChangeSingle>;
        context = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_constant_is_the_default() {
        assert_eq!(Entry::EMPTY, Entry::default());
        assert_eq!(SnapshotMetadata::EMPTY, SnapshotMetadata::default());
        assert_eq!(Snapshot::EMPTY, Snapshot::default());
        assert_eq!(Message::EMPTY, Message::default());
        assert_eq!(HardState::EMPTY, HardState::default());
        assert_eq!(ConfState::EMPTY, ConfState::default());
        assert_eq!(ConfChange::EMPTY, ConfChange::default());
        assert_eq!(ConfChangeSingle::EMPTY, ConfChangeSingle::default());
        assert_eq!(ConfChangeV2::EMPTY, ConfChangeV2::default());
    }

    #[test]
    fn a_missing_part_reads_as_empty_and_appears_when_edited() {
        let mut snapshot = Snapshot::default();
        assert_eq!(
            snapshot.get_metadata().get_conf_state(),
            &ConfState::default()
        );
        assert_eq!(snapshot.metadata, None, "reading makes nothing");
        snapshot.mut_metadata().mut_conf_state().set_voters(vec![1]);
        assert_eq!(snapshot.take_metadata().take_conf_state().voters, [1]);
        assert_eq!(snapshot.metadata, None);
    }

    #[test]
    fn taking_leaves_the_field_empty() {
        let mut message = Message::default();
        message.set_entries(vec![Entry {
            data: Bytes::from_static(b"x"),
            ..Entry::default()
        }]);
        assert_eq!(message.take_entries()[0].take_data(), "x");
        assert_eq!(message, Message::default());
    }

    #[test]
    fn every_message_type_is_stored_and_read_back() {
        let mut message = Message::default();
        for number in 0..19 {
            let msg_type = MessageType::try_from(number).expect("a number of the schema");
            message.set_msg_type(msg_type);
            assert_eq!(
                (message.msg_type, message.get_msg_type()),
                (number, msg_type)
            );
        }
    }

    #[test]
    #[should_panic(expected = "unvalidated EntryType number 3")]
    fn an_unknown_number_is_not_read_as_another_variant() {
        Entry {
            entry_type: 3,
            ..Entry::default()
        }
        .get_entry_type();
    }

    #[test]
    fn the_protobuf_trait_encodes_like_prost() {
        let change = ConfChange {
            node_id: 300,
            id: 1,
            ..ConfChange::default()
        };
        let wire = change.write_to_bytes().expect("encodes");
        assert_eq!(wire, prost::Message::encode_to_vec(&change));
        assert_eq!(change.compute_size() as usize, wire.len());
        assert_eq!(
            change.write_length_delimited_to_bytes().expect("encodes")[1..],
            wire
        );
        assert_eq!(
            ConfChange::parse_from_bytes(&wire).expect("decodes"),
            change
        );
        let mut merged = ConfChange {
            node_id: 1,
            ..ConfChange::default()
        };
        merged.merge_from_bytes(&wire).expect("decodes");
        assert_eq!(merged, change);
    }

    #[test]
    fn a_stream_is_read_to_its_limit_and_no_further() {
        let state = HardState {
            term: 1,
            vote: 2,
            commit: 3,
        };
        let mut wire = state.write_length_delimited_to_bytes().expect("encodes");
        wire.push(0xff);
        let mut is = CodedInputStream::from_bytes(&wire);
        assert_eq!(is.read_message::<HardState>().expect("decodes"), state);
        assert_eq!(is.pos() as usize, wire.len() - 1);
    }

    #[test]
    fn damaged_bytes_are_an_error_that_says_why() {
        let error = ConfChangeV2::default()
            .merge_from_bytes(&[0xff; 3])
            .expect_err("not a message");
        assert!(matches!(&error, ProtobufError::IoError(e) if e.to_string().contains("varint")));
    }
}
