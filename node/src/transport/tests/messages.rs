//! Consensus messages: order, drops, reports, silence, back-pressure, ends.
#![expect(
    clippy::disallowed_methods,
    reason = "tokio::test builds the runtime of a test"
)]

use super::*;

#[tokio::test]
async fn messages_arrive_once_and_in_order() {
    let (_net, one, mut two) = pair().await;
    for from in [1, 11, 21] {
        one.transport
            .send(NodeId(2), GROUP, (from..from + 10).map(heartbeat).collect());
    }
    assert_eq!(terms(&mut two, 30).await, (1..31).collect::<Vec<_>>());
}

#[tokio::test]
async fn groups_stay_apart() {
    let (_net, one, mut two) = pair().await;
    for group in [GroupId(0), GroupId(7), GroupId(0)] {
        one.transport
            .send(NodeId(2), group, vec![heartbeat(group.0 + 1)]);
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let Inbound::Raft {
            group, messages, ..
        } = two.next().await
        else {
            continue;
        };
        for message in messages {
            assert_eq!(message.term, group.0 + 1);
            seen.push(group.0);
        }
    }
    assert_eq!(seen, [0, 7, 0]);
}

#[tokio::test]
async fn a_node_without_room_says_so_with_every_message() {
    let (_net, one, mut two) = pair().await;
    for full in [false, true, false] {
        one.transport.set_read_only(full);
        one.transport.send(NodeId(2), GROUP, vec![heartbeat(1)]);
        let heard = loop {
            if let Inbound::Raft { read_only, .. } = two.next().await {
                break read_only;
            }
        };
        assert_eq!(heard, full);
    }
}

#[tokio::test]
async fn a_full_queue_drops_and_reports_without_waiting() {
    let net = TestNet::default();
    let small = Knobs {
        peer_queue_len_max: 4,
        ..knobs()
    };
    let mut one = start(&net, 1, small, 64).await;
    net.hang(&address(2));
    one.call(2);
    one.transport
        .send(NodeId(2), GROUP, (1..100).map(heartbeat).collect());
    assert!(matches!(
        one.next().await,
        Inbound::Unreachable { peer: NodeId(2) }
    ));
}

#[tokio::test]
async fn an_unknown_peer_is_unreachable() {
    let net = TestNet::default();
    let mut one = start(&net, 1, knobs(), 64).await;
    one.transport.send(NodeId(9), GROUP, vec![heartbeat(1)]);
    assert!(matches!(
        one.next().await,
        Inbound::Unreachable { peer: NodeId(9) }
    ));
}

#[tokio::test]
async fn messages_to_a_peer_that_refuses_are_reported() {
    let net = TestNet::default();
    let mut one = start(&net, 1, knobs(), 64).await;
    one.call(2);
    one.transport.send(NodeId(2), GROUP, vec![heartbeat(1)]);
    assert!(matches!(
        one.next().await,
        Inbound::Unreachable { peer: NodeId(2) }
    ));
}

#[tokio::test]
async fn a_peer_that_restarts_is_connected_again() {
    let (net, mut one, two) = pair().await;
    two.tasks.stop().await;
    net.cut(&address(2));
    assert!(matches!(one.next().await, Inbound::Unreachable { .. }));
    let mut again = start(&net, 2, knobs(), 64).await;
    one.event(|event| matches!(event, Event::Peer { up: false, .. }))
        .await;
    while net.made(&address(2)) < 2 {
        one.env.clock.sleep(Duration::from_millis(2)).await;
    }
    for term in 1..200 {
        one.transport.send(NodeId(2), GROUP, vec![heartbeat(term)]);
        one.env.clock.sleep(Duration::from_millis(1)).await;
    }
    assert!(terms(&mut again, 1).await[0] < 199);
}

#[tokio::test]
async fn a_silent_peer_is_noticed_only_when_something_was_sent() {
    let (net, mut one, mut two) = pair().await;
    one.transport.send(NodeId(2), GROUP, vec![heartbeat(1)]);
    assert_eq!(terms(&mut two, 1).await, [1]);
    one.env.clock.sleep(knobs().peer_idle_timeout * 3).await;
    assert_eq!(net.made(&address(2)), 1, "acknowledged and idle: kept");
    net.silence(&address(2));
    one.env.clock.sleep(knobs().peer_idle_timeout * 2).await;
    assert_eq!(net.made(&address(2)), 1, "nothing to say: kept");
    one.transport.send(NodeId(2), GROUP, vec![heartbeat(2)]);
    assert!(matches!(one.next().await, Inbound::Unreachable { .. }));
    one.event(
        |event| matches!(event, Event::Peer { up: false, detail, .. } if detail.contains("silent")),
    )
    .await;
}

#[tokio::test]
async fn a_full_loop_makes_the_peer_wait_and_loses_nothing() {
    let net = TestNet::default();
    let one = start(&net, 1, knobs(), 64).await;
    let mut two = start(&net, 2, knobs(), 1).await;
    one.call(2);
    one.up().await;
    one.transport
        .send(NodeId(2), GROUP, (1..501).map(heartbeat).collect());
    one.env.clock.sleep(Duration::from_millis(50)).await;
    assert_eq!(
        two.inbound.len(),
        1,
        "one batch in the queue, the rest waits"
    );
    assert_eq!(terms(&mut two, 500).await, (1..501).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_removed_peer_is_called_no_more_and_its_connections_end() {
    let (net, one, mut two) = pair().await;
    two.call(1);
    two.up().await;
    two.transport.set_peers(BTreeMap::new());
    // Two ended both directions; one calls again, because two's door still admits it.
    one.event(|event| matches!(event, Event::Peer { up: false, .. }))
        .await;
    let made = net.made(&address(1));
    two.transport.send(NodeId(1), GROUP, vec![heartbeat(1)]);
    assert!(matches!(two.next().await, Inbound::Unreachable { .. }));
    assert_eq!(net.made(&address(1)), made);
}

#[tokio::test]
async fn everything_ends_with_the_tasks() {
    let (_net, one, mut two) = pair().await;
    let asked = one.ask(1);
    two.next().await;
    one.tasks.stop().await;
    two.tasks.stop().await;
    let error = asked.await.unwrap_err();
    assert!(error.outcome_unknown, "it was sent");
    drop(one.transport);
    drop(two.transport);
    assert!(two.inbound.recv().await.is_none(), "nobody holds the queue");
}

#[tokio::test]
async fn two_nodes_talk_over_tcp() {
    let net = || crate::rt::real::env("tcp").unwrap().net;
    let one = start_on(net(), "127.0.0.1:0", 1, knobs(), 64).await;
    let mut two = start_on(net(), "127.0.0.1:0", 2, knobs(), 64).await;
    let mut there = peer(2, 12);
    there.peer = two.listens.clone();
    one.transport.set_peers([(NodeId(2), there)].into());
    one.up().await;
    let batch = (1..301).map(heartbeat).collect();
    one.transport.send(NodeId(2), GROUP, batch);
    assert_eq!(terms(&mut two, 300).await, (1..301).collect::<Vec<_>>());
    let asked = one.ask(7);
    let Inbound::Forward { reply, .. } = two.next().await else {
        panic!("a request should come")
    };
    reply.send(outcome(7)).unwrap();
    assert_eq!(asked.await, outcome(7));
    one.tasks.stop().await;
    two.tasks.stop().await;
}
