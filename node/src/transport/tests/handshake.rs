//! Who may connect, and the questions that need no handshake.
#![expect(
    clippy::disallowed_methods,
    reason = "tokio::test builds the runtime of a test"
)]

use super::*;
use crate::wire::frame::{FrameReader, FrameWriter, VERSION};
use crate::wire::{Hello, Kind, Reason, Welcome};
use tokio::io::AsyncWriteExt;

/// What node 2 says when it calls node 1.
fn hello() -> Hello {
    Hello {
        cluster_id: CLUSTER.0,
        from: 2,
        incarnation: 12,
        to: 1,
        purpose: Purpose::Raft.into(),
        name: "n2".to_owned(),
        peer: String::new(),
    }
}

/// Node 2 calls node 1 as `hello` says, and gives the answer's frame.
async fn greet(net: &TestNet, change: impl FnOnce(&mut Hello)) -> Result<Welcome, Reject> {
    let mut hello = hello();
    change(&mut hello);
    let stream = Net::new(net.clone()).connect(&address(1)).await.unwrap();
    let (read, write) = tokio::io::split(stream);
    let mut writer = FrameWriter::new(write, 1 << 20);
    writer.push(Kind::Hello, &hello).unwrap();
    writer.flush(std::future::pending).await.unwrap();
    let frame = FrameReader::new(read, 1 << 20)
        .next()
        .await
        .unwrap()
        .unwrap();
    match frame.kind {
        Kind::Welcome => Ok(frame.open(Kind::Welcome, "").unwrap()),
        _ => Err(frame.open(Kind::Reject, "").unwrap()),
    }
}

#[tokio::test]
async fn callers_that_do_not_belong_here_are_refused_with_a_reason() {
    let net = TestNet::default();
    let one = start(&net, 1, knobs(), 64).await;
    let welcome = greet(&net, |_| ()).await.unwrap();
    assert_eq!((welcome.id, welcome.incarnation), (1, 11));
    let reason =
        async |change: &dyn Fn(&mut Hello)| greet(&net, change).await.unwrap_err().reason();
    assert_eq!(
        reason(&|hello| hello.cluster_id = 1).await,
        Reason::WrongCluster
    );
    assert_eq!(reason(&|hello| hello.to = 3).await, Reason::WrongNode);
    assert_eq!(reason(&|hello| hello.from = 1).await, Reason::WrongNode);
    assert_eq!(reason(&|hello| hello.from = 3).await, Reason::UnknownMember);
    assert_eq!(
        reason(&|hello| hello.incarnation = 1).await,
        Reason::WrongIncarnation
    );
    assert_eq!(
        reason(&|hello| hello.purpose = 9).await,
        Reason::BadGreeting
    );
    one.refusal("belongs to cluster").await;
    one.door
        .set_members([(NodeId(1), Incarnation(11))].into(), NodeId(0));
    assert_eq!(reason(&|_| ()).await, Reason::Removed);
    one.door
        .set_members([(NodeId(2), Incarnation(0))].into(), NodeId(0));
    assert!(
        greet(&net, |hello| hello.incarnation = 77).await.is_ok(),
        "not recorded yet"
    );
}

#[tokio::test]
async fn garbage_and_other_versions_are_refused() {
    let net = TestNet::default();
    let one = start(&net, 1, knobs(), 64).await;
    for (bytes, part) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "not a Seaworthy peer"),
        (
            &[2, 0, 0, 0, 0, 0, 0, 0, VERSION + 1, 1][..],
            "upgrade the older",
        ),
        (&[2, 0, 0, 0, 0, 0, 0, 0, VERSION, 1][..], "checksum"),
    ] {
        let mut stream = Net::new(net.clone()).connect(&address(1)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut reader = FrameReader::new(stream, 1 << 20);
        let reject: Reject = reader
            .next()
            .await
            .unwrap()
            .unwrap()
            .open(Kind::Reject, "")
            .unwrap();
        assert_eq!(reject.reason(), Reason::BadGreeting);
        assert!(reader.next().await.unwrap().is_none(), "closed after it");
        one.refusal(part).await;
    }
}

#[tokio::test]
async fn a_forged_consensus_message_ends_its_connection() {
    let (_net, one, mut two) = pair().await;
    let forged = Message {
        from: 3,
        ..heartbeat(1)
    };
    one.transport.send(NodeId(2), GROUP, vec![forged]);
    two.refusal("came on the connection from 1").await;
    one.event(|event| matches!(event, Event::Peer { up: false, .. }))
        .await;
    assert!(two.inbound.try_recv().is_err());
}

#[tokio::test]
async fn the_caller_notices_the_wrong_node_and_the_wrong_life() {
    let net = TestNet::default();
    let mut one = start(&net, 1, knobs(), 64).await;
    let _two = start(&net, 2, knobs(), 64).await;
    one.transport.set_peers([(NodeId(2), peer(2, 99))].into());
    one.refusal("shows incarnation").await;
    one.transport.set_peers([(NodeId(3), peer(2, 0))].into());
    loop {
        if let Inbound::Rejected { by, reject } = one.next().await {
            assert_eq!((by, reject.reason()), (NodeId(3), Reason::WrongNode));
            break;
        }
    }
}

#[tokio::test]
async fn probes_and_joins_need_no_cluster() {
    let net = TestNet::default();
    let one = start(&net, 1, knobs(), 64).await;
    let mut two = start(&net, 2, knobs(), 64).await;
    two.door.forget();
    let probe = Probe {
        name: "n1".to_owned(),
        ..Probe::default()
    };
    let answer = ProbeAnswer {
        name: "n2".to_owned(),
        incarnation: 12,
        ..ProbeAnswer::default()
    };
    let (got, ()) = tokio::join!(one.transport.probe("node2:1", probe.clone()), async {
        let Inbound::Probe {
            probe: asked,
            reply,
        } = two.next().await
        else {
            panic!()
        };
        assert_eq!(asked, probe);
        reply.send(answer.clone()).unwrap();
    });
    assert_eq!(got.unwrap(), answer);
    let joined = Joined {
        cluster_id: 1,
        id: 4,
        members: vec![],
    };
    let refusal = Error::new(Code::Conflict, "another change is under way");
    for wanted in [Ok(joined), Err(refusal)] {
        let asking = one
            .transport
            .join("node2:1", Join::default(), one.deadline(1_000));
        let (got, ()) = tokio::join!(asking, async {
            let Inbound::Join { reply, .. } = two.next().await else {
                panic!()
            };
            reply.send(wanted.clone()).unwrap();
        });
        assert_eq!(got, wanted);
    }
    let nobody = one.transport.probe("nowhere:1", probe).await.unwrap_err();
    assert!(nobody.retryable && !nobody.outcome_unknown);
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older_one() {
    let net = TestNet::default();
    let mut one = start(&net, 1, knobs(), 64).await;
    let older = open_as_two(&net).await;
    let mut newer = open_as_two(&net).await;
    let mut gone = FrameReader::new(older, 1 << 20);
    assert!(gone.next().await.unwrap().is_some(), "the welcome");
    assert!(gone.next().await.unwrap().is_none(), "then the end");
    let mut bytes = bytes::BytesMut::new();
    let back = Message {
        from: 2,
        to: 1,
        ..heartbeat(1)
    };
    let wire = crate::wire::raft::to_wire(GROUP, &back).unwrap();
    crate::wire::frame::encode(&mut bytes, Kind::Raft, &wire, 1 << 20).unwrap();
    newer.write_all(&bytes).await.unwrap();
    assert!(matches!(one.next().await, Inbound::Raft { .. }));
}

/// A connection that says hello as node 2 and reads nothing yet.
async fn open_as_two(net: &TestNet) -> crate::rt::Stream {
    let mut stream = Net::new(net.clone()).connect(&address(1)).await.unwrap();
    let mut bytes = bytes::BytesMut::new();
    crate::wire::frame::encode(&mut bytes, Kind::Hello, &hello(), 1 << 20).unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_silent_callers_make_room() {
    let net = TestNet::default();
    let few = Knobs {
        peer_connections_max: 2,
        ..knobs()
    };
    let one = start(&net, 1, few, 64).await;
    let open = async || Net::new(net.clone()).connect(&address(1)).await.unwrap();
    let held = [open().await, open().await];
    let mut third = FrameReader::new(open().await, 1 << 20);
    assert!(third.next().await.unwrap().is_none());
    one.refusal("2 are open already").await;
    one.env.clock.sleep(knobs().connect_timeout * 2).await;
    assert!(greet(&net, |_| ()).await.is_ok());
    drop(held);
}

#[tokio::test]
async fn the_same_refusal_is_told_once_in_a_while() {
    let net = TestNet::default();
    let one = start(&net, 1, knobs(), 64).await;
    for _ in 0..10 {
        assert!(greet(&net, |hello| hello.cluster_id = 1).await.is_err());
    }
    one.refusal("belongs to cluster").await;
    let told = one.record.0.lock().unwrap().len();
    assert!((1..4).contains(&told), "{told}");
}

#[tokio::test]
async fn garbage_after_the_handshake_ends_the_connection_and_nothing_else() {
    let net = TestNet::default();
    let mut one = start(&net, 1, knobs(), 64).await;
    let mut rng = one.env.rngs.stream("garbage");
    for purpose in [Purpose::Raft, Purpose::Rpc, Purpose::Snapshot] {
        for kind in 0..16 {
            let mut bytes = bytes::BytesMut::new();
            let greeting = Hello {
                purpose: purpose.into(),
                ..hello()
            };
            crate::wire::frame::encode(&mut bytes, Kind::Hello, &greeting, 1 << 20).unwrap();
            bytes.extend_from_slice(&garbled(&mut rng, kind));
            let mut stream = Net::new(net.clone()).connect(&address(1)).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut reader = FrameReader::new(stream, 1 << 20);
            // Whatever is answered, the connection comes to an end.
            while let Ok(Some(_)) = reader.next().await {}
            while one.inbound.try_recv().is_ok() {}
        }
    }
    assert!(greet(&net, |_| ()).await.is_ok());
}

/// A frame of `kind` with a right checksum and a random payload.
fn garbled(rng: &mut impl rand_core::RngCore, kind: u8) -> Vec<u8> {
    let mut body = vec![0; 40];
    rng.fill_bytes(&mut body);
    body[..2].copy_from_slice(&[VERSION, kind]);
    let mut frame = 40u32.to_le_bytes().to_vec();
    frame.extend(crc32c::crc32c(&body).to_le_bytes());
    frame.extend(body);
    frame
}
