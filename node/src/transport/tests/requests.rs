//! Forwarded requests: multiplexing, limits, and what a lost answer means.
#![expect(
    clippy::disallowed_methods,
    reason = "tokio::test builds the runtime of a test"
)]

use super::*;
use crate::handle::MemberChange;

/// Answers every request with its sequence number, the later ones first.
async fn answer_backwards(two: &mut Node, count: usize) {
    let mut asked = Vec::new();
    while asked.len() < count {
        if let Inbound::Forward {
            ask: Ask::Propose(command),
            reply,
            ..
        } = two.next().await
        {
            asked.push((command.seq, reply));
        }
    }
    for (seq, reply) in asked.into_iter().rev() {
        reply.send(outcome(seq)).unwrap();
    }
}

#[tokio::test]
async fn requests_share_a_connection_and_answers_find_their_askers() {
    let (net, one, mut two) = pair().await;
    let asked: Vec<_> = (1..51).map(|seq| one.ask(seq)).collect();
    answer_backwards(&mut two, 50).await;
    for (asked, seq) in asked.into_iter().zip(1..) {
        assert_eq!(asked.await, outcome(seq));
    }
    assert_eq!(
        net.made(&address(2)),
        2,
        "one for consensus, one for requests"
    );
}

#[tokio::test]
async fn changes_and_errors_come_back() {
    let (_net, one, mut two) = pair().await;
    let promote = Ask::Change(MemberChange::Promote { id: NodeId(5) });
    let change = one
        .transport
        .forward(NodeId(2), promote.clone(), one.deadline(1_000));
    let Inbound::Forward {
        ask, reply, from, ..
    } = two.next().await
    else {
        panic!()
    };
    assert_eq!((ask, from), (promote, NodeId(1)));
    reply.send(Ok(Answer::Member(NodeId(5)))).unwrap();
    assert_eq!(change.await, Ok(Answer::Member(NodeId(5))));
    let asked = one.ask(1);
    let Inbound::Forward { reply, .. } = two.next().await else {
        panic!()
    };
    let error = Error::new(Code::NoLeader, "no leader here");
    reply.send(Err(error.clone())).unwrap();
    assert_eq!(asked.await, Err(error));
}

#[tokio::test]
async fn a_request_that_never_left_certainly_did_nothing() {
    let net = TestNet::default();
    let one = start(&net, 1, knobs(), 64).await;
    let error = one.ask(1).await.unwrap_err();
    assert_eq!(
        (error.code, error.outcome_unknown),
        (Code::NotLeader, false)
    );
    one.call(2);
    let error = one.ask(2).await.unwrap_err();
    assert_eq!(
        (error.code, error.outcome_unknown),
        (Code::NotLeader, false)
    );
    net.hang(&address(2));
    let late = one
        .transport
        .forward(NodeId(2), propose(3), one.deadline(50))
        .await;
    let error = late.unwrap_err();
    assert_eq!((error.code, error.outcome_unknown), (Code::Timeout, false));
}

#[tokio::test]
async fn a_request_lost_on_the_way_may_have_happened() {
    let (net, one, mut two) = pair().await;
    let asked = one.ask(1);
    let held = two.next().await;
    net.cut(&address(2));
    let error = asked.await.unwrap_err();
    assert_eq!((error.code, error.outcome_unknown), (Code::NotLeader, true));
    drop(held);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_and_a_late_one_is_unknown() {
    let (_net, one, mut two) = pair().await;
    let asked = one.ask(1);
    let Inbound::Forward { reply, .. } = two.next().await else {
        panic!()
    };
    one.env.clock.sleep(knobs().peer_idle_timeout * 3).await;
    reply.send(outcome(1)).unwrap();
    assert_eq!(asked.await, outcome(1));
    let late = one
        .transport
        .forward(NodeId(2), propose(2), one.deadline(60));
    let held = two.next().await;
    let error = late.await.unwrap_err();
    assert_eq!((error.code, error.outcome_unknown), (Code::Timeout, true));
    drop(held);
}

#[tokio::test]
async fn a_silent_peer_does_not_hold_requests_for_ever() {
    let (net, one, mut two) = pair().await;
    let asked = one
        .transport
        .forward(NodeId(2), propose(1), one.deadline(60_000));
    let held = two.next().await;
    net.silence(&address(2));
    let error = one
        .env
        .clock
        .timeout(SOON, asked)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.outcome_unknown);
    drop(held);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_not_sent() {
    let (_net, one, mut two) = pair().await;
    let over = one.env.clock.now();
    let error = one.transport.forward(NodeId(2), propose(1), over).await;
    let error = error.unwrap_err();
    assert_eq!((error.code, error.outcome_unknown), (Code::Timeout, false));
    one.env.clock.sleep(Duration::from_millis(20)).await;
    assert!(two.inbound.try_recv().is_err());
}

#[tokio::test]
async fn a_dropped_request_is_of_unknown_outcome() {
    let (_net, one, mut two) = pair().await;
    let asked = one.ask(1);
    drop(two.next().await);
    assert!(asked.await.unwrap_err().outcome_unknown);
}

#[tokio::test]
async fn requests_beyond_the_queue_are_overload() {
    let net = TestNet::default();
    let small = Knobs {
        peer_queue_len_max: 4,
        ..knobs()
    };
    let one = start(&net, 1, small, 64).await;
    net.hang(&address(2));
    one.call(2);
    let asked: Vec<_> = (1..40).map(|seq| one.ask(seq)).collect();
    let mut codes = Vec::new();
    for one in asked {
        codes.push(one.await.unwrap_err().code);
    }
    assert_eq!(
        codes
            .iter()
            .filter(|code| **code == Code::Overloaded)
            .count(),
        35
    );
}

#[tokio::test]
async fn no_more_requests_than_allowed_are_under_way() {
    let net = TestNet::default();
    let few = Knobs {
        forward_len_max: 3,
        ..knobs()
    };
    let one = start(&net, 1, few.clone(), 64).await;
    let mut two = start(&net, 2, few, 64).await;
    one.call(2);
    let asked: Vec<_> = (1..11).map(|seq| one.ask(seq)).collect();
    let mut held = vec![two.next().await, two.next().await, two.next().await];
    one.env.clock.sleep(Duration::from_millis(50)).await;
    assert!(two.inbound.try_recv().is_err());
    for _ in asked.iter() {
        let next = held.pop();
        let next = if let Some(next) = next {
            next
        } else {
            two.next().await
        };
        let Inbound::Forward {
            ask: Ask::Propose(command),
            reply,
            ..
        } = next
        else {
            panic!()
        };
        reply.send(outcome(command.seq)).unwrap();
    }
    for (asked, seq) in asked.into_iter().zip(1..) {
        assert_eq!(asked.await, outcome(seq));
    }
}
