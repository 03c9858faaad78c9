//! The bytes of a call: the few etcd v3 messages that are needed, and gRPC's frame around each.
//!
//! Field numbers are those of etcd's public API. Only fields that are sent or looked at are declared; the decoder skips
//! the others, as protobuf promises.
//!
//! Left out: compression (never asked for) and streams of several messages.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Bytes before each gRPC message: one flag (compressed), four of length, big-endian.
const PREFIX_LEN: usize = 5;

/// Writes one key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// Answer to a put.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutResponse {
    /// Who answered, as of when.
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
}

/// Reads one key; linearizable, because `serializable` (field 7) is left at its default.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
}

/// Answer to a read.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeResponse {
    /// The records found.
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
}

/// One record.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) value: Bytes,
}

/// Asks a member about itself.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusRequest {}

/// What a member says of itself.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    /// Who answered, as of when.
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    /// Member that leads, 0 for none.
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

impl StatusResponse {
    /// True when the member that answered is the leader.
    pub(crate) fn is_leader(&self) -> bool {
        let member = self.header.as_ref().map_or(0, |header| header.member_id);
        member != 0 && member == self.leader
    }
}

/// Head of every answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    /// Member that answered.
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
    /// Revision of the store at the answer.
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// `message` as the body of a gRPC request.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX_LEN + len);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(len).expect("a message is far below 4 GiB"));
    message
        .encode(&mut buffer)
        .expect("the buffer grows, so encoding cannot run out of room");
    buffer.freeze()
}

/// The message in the body of a gRPC answer; nothing when the body is not exactly one plain message.
pub(crate) fn unframe<M: Message + Default>(body: &Bytes) -> Option<M> {
    let (flag, len) = (*body.first()?, body.get(1..PREFIX_LEN)?);
    let len = u32::from_be_bytes(len.try_into().ok()?);
    let message = body.slice(PREFIX_LEN..);
    if flag != 0 || usize::try_from(len).ok()? != message.len() {
        return None;
    }
    M::decode(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_has_the_bytes_etcd_expects() {
        let put = PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"vv"),
        };
        let expected = b"\x00\x00\x00\x00\x07\x0a\x01k\x12\x02vv";
        assert_eq!(frame(&put).as_ref(), expected);
    }

    #[test]
    fn answer_with_unknown_fields_is_understood() {
        // header {cluster_id: 1, member_id: 2, revision: 3}, then field 9, which is not declared here.
        let body =
            Bytes::from_static(b"\x00\x00\x00\x00\x0a\x0a\x06\x08\x01\x10\x02\x18\x03\x48\x05");
        let answer: PutResponse = unframe(&body).unwrap();
        let header = answer.header.unwrap();
        assert_eq!((header.member_id, header.revision), (2, 3));
    }

    #[test]
    fn damaged_body_is_refused() {
        let good = frame(&RangeRequest {
            key: Bytes::from_static(b"key"),
        });
        assert!(unframe::<RangeRequest>(&good).is_some());
        for cut in 0..good.len() {
            assert_eq!(
                unframe::<RangeRequest>(&good.slice(..cut)),
                None,
                "cut at {cut}"
            );
        }
        let mut compressed = good.to_vec();
        compressed[0] = 1;
        assert_eq!(unframe::<RangeRequest>(&Bytes::from(compressed)), None);
    }

    #[test]
    fn member_leads_only_when_it_names_itself() {
        let status = |member_id, leader| StatusResponse {
            header: Some(Header {
                member_id,
                revision: 1,
            }),
            leader,
        };
        assert!(status(7, 7).is_leader());
        assert!(!status(7, 8).is_leader());
        assert!(!status(0, 0).is_leader());
        assert!(!StatusResponse::default().is_leader());
    }
}
