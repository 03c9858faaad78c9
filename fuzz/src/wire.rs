//! Targets that a peer or a log entry reaches: frames, messages, commands, outcomes.

use crate::Target;
use crate::mutate::Source;
use bytes::{Bytes, BytesMut};
use node::handle::MemberChange;
use node::state::command::{Command, Done, Op, Outcome, Put, PutDone, SessionOpen};
use node::types::{GroupId, NodeId};
use node::wire::{self, Ask, Forward, ForwardReply, Kind, RaftMessage, greeting};
use prost::Message;

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        cost: 1,
        run: frames,
    },
    Target {
        name: "raft-message",
        cost: 1,
        run: raft_message,
    },
    Target {
        name: "greeting",
        cost: 1,
        run: greetings,
    },
    Target {
        name: "forward",
        cost: 1,
        run: forwards,
    },
    Target {
        name: "command",
        cost: 1,
        run: commands,
    },
    Target {
        name: "outcome",
        cost: 1,
        run: outcomes,
    },
];

/// Longest frame that the targets accept, bytes.
const FRAME_BYTES_MAX: usize = 4 << 10;

/// Nodes that messages go between.
const PEER: NodeId = NodeId(2);
const ME: NodeId = NodeId(1);

/// Frames come off the front of a stream one by one; every one takes bytes, and none takes more than there are.
fn frames(source: &mut Source) -> bool {
    let mut sample = BytesMut::new();
    for kind in Kind::ALL {
        let message = greeting::Probe {
            name: "n2".to_owned(),
            ..Default::default()
        };
        wire::frame::encode(&mut sample, kind, &message, FRAME_BYTES_MAX).expect("a short frame");
    }
    let mut stream = BytesMut::from(source.mutated(&[sample]).as_slice());
    let whole = stream.len();
    let mut left = whole;
    while let Ok(Some(frame)) = wire::frame::decode(&mut stream, FRAME_BYTES_MAX) {
        assert!(stream.len() < left, "a frame takes bytes");
        assert!(
            frame.payload.len() <= FRAME_BYTES_MAX,
            "a payload is within its limit"
        );
        left = stream.len();
    }
    left < whole
}

/// A message that is let in speaks for its sender, and goes out on the wire again.
fn raft_message(source: &mut Source) -> bool {
    let kinds = source.below(24) as i32;
    let sample = RaftMessage {
        kind: kinds,
        from: PEER.0,
        to: ME.0,
        term: 1 + source.below(3) as u64,
        index: source.below(4) as u64,
        ..RaftMessage::default()
    };
    let bytes = source.mutated(&[sample.encode_to_vec()]);
    let Ok(wire) = RaftMessage::decode(bytes.as_slice()) else {
        return false;
    };
    round_trip(&wire);
    let group = GroupId(wire.group);
    let Ok(message) = wire.open(PEER, ME) else {
        return false;
    };
    assert_eq!(
        (message.from, message.to),
        (PEER.0, ME.0),
        "a peer speaks for itself, and to us"
    );
    let again = wire::raft::to_wire(group, &message).expect("what came in may go out");
    again.open(PEER, ME).expect("what went out may come in");
    true
}

/// First words decode or not; what decodes survives a round trip.
fn greetings(source: &mut Source) -> bool {
    let hello = greeting::Hello::default().encode_to_vec();
    let join = greeting::Join {
        name: "n2".to_owned(),
        ..Default::default()
    }
    .encode_to_vec();
    let bytes = source.mutated(&[hello, join]);
    let accepted = [
        decoded::<greeting::Hello>(&bytes),
        decoded::<greeting::Welcome>(&bytes),
        decoded::<greeting::Reject>(&bytes),
        decoded::<greeting::Probe>(&bytes),
        decoded::<greeting::ProbeAnswer>(&bytes),
        decoded::<greeting::Join>(&bytes),
        decoded::<greeting::Joined>(&bytes),
        decoded::<greeting::JoinAnswer>(&bytes),
    ];
    accepted.contains(&true)
}

/// A request from a peer becomes a request or an error.
fn forwards(source: &mut Source) -> bool {
    let promote = MemberChange::Promote { id: NodeId(3) };
    let ask = Forward::new(7, 1_000, Ask::Change(promote)).encode_to_vec();
    let bytes = source.mutated(&[ask]);
    let accepted = Forward::decode(bytes.as_slice()).is_ok_and(|forward| forward.open().is_ok());
    if let Ok(reply) = ForwardReply::decode(bytes.as_slice()) {
        drop(reply.open());
    }
    decoded::<wire::SnapshotRequest>(&bytes);
    decoded::<wire::SnapshotChunk>(&bytes);
    drop(wire::SnapshotFile::from_data(&bytes));
    wire::request::error_from_json(&String::from_utf8_lossy(&bytes));
    accepted
}

/// A command in the log.
fn commands(source: &mut Source) -> bool {
    let put = Put {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        ..Put::default()
    };
    let samples = [Op::Put(put), Op::SessionOpen(SessionOpen {})].map(|op| {
        let command = Command {
            time_ms: 1_000,
            op: Some(op),
            ..Command::default()
        };
        command.encode_to_vec()
    });
    decoded::<Command>(&source.mutated(&samples))
}

/// An outcome kept in a session.
fn outcomes(source: &mut Source) -> bool {
    let outcome = Outcome {
        done: Some(Done::Put(PutDone::default())),
        ..Outcome::default()
    };
    decoded::<Outcome>(&source.mutated(&[outcome.encode_to_vec()]))
}

/// Decodes, and holds what decoded against a round trip; true when it decoded.
fn decoded<M: Message + Default + PartialEq>(bytes: &[u8]) -> bool {
    let message = M::decode(bytes).ok();
    message.iter().for_each(round_trip);
    message.is_some()
}

/// What encodes decodes to the same message; floating point numbers that equal nothing are compared as bytes.
fn round_trip<M: Message + Default + PartialEq>(message: &M) {
    let bytes = message.encode_to_vec();
    let again = M::decode(bytes.as_slice()).expect("what was encoded decodes");
    assert!(
        again == *message || again.encode_to_vec() == bytes,
        "a message survives a round trip"
    );
}
