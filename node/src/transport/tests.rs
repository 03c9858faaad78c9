//! Tests of the whole transport: two nodes over a network in memory, real time with short time-outs.

use super::testnet::TestNet;
use super::*;
use crate::error::Code;
use crate::rt::journal::JournalSink;
use crate::rt::{Journal, Net};
use crate::state::command::{Command, Outcome};
use crate::types::{ClusterId, Index};
use crate::wire::frame::{FrameReader, FrameWriter, Kind, VERSION};
use crate::wire::{Hello, RaftMessage, Reason, Welcome};
use raft::eraftpb::MessageType;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const GROUP: GroupId = GroupId(0);
const CLUSTER: ClusterId = ClusterId(0xabc);

/// Longer than any time-out below.
const SOON: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<Event>>>);

impl JournalSink for Record {
    fn record(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

struct Node {
    transport: Transport,
    inbound: mpsc::Receiver<Inbound>,
    door: Arc<Door>,
    tasks: Tasks,
    record: Record,
    env: Env,
}

fn knobs() -> Knobs {
    Knobs {
        connect_timeout: Duration::from_millis(200),
        peer_idle_timeout: Duration::from_millis(200),
        reconnect_min: Duration::from_millis(2),
        reconnect_max: Duration::from_millis(10),
        request_timeout: Duration::from_millis(500),
        snapshot_timeout: Duration::from_millis(500),
        snapshot_chunk_bytes: 1 << 10,
        turn_len_max: 8,
        ..Knobs::default()
    }
}

fn address(id: u64) -> String {
    format!("node{id}:1")
}

fn peer(id: u64, incarnation: u64) -> PeerAddress {
    PeerAddress {
        name: format!("n{id}"),
        peer: address(id),
        incarnation: Incarnation(incarnation),
    }
}

fn identity(id: u64, incarnation: u64) -> Identity {
    Identity {
        cluster_id: CLUSTER,
        id: NodeId(id),
        incarnation: Incarnation(incarnation),
        name: format!("n{id}"),
    }
}

/// Node `id` in life 10 + `id`, knowing members 1 and 2.
async fn start(net: &TestNet, id: u64, knobs: Knobs, inbox_len: usize) -> Node {
    let record = Record::default();
    let mut env = crate::rt::real::env("test").unwrap();
    env.net = Net::new(net.clone());
    env.journal = Journal::new(record.clone());
    let listener = env.net.listen(&address(id)).await.unwrap();
    let (sender, inbound) = mpsc::channel(inbox_len);
    let door = Arc::new(Door::default());
    door.set_me(identity(id, 10 + id));
    door.set_members([1, 2].map(|id| (NodeId(id), Incarnation(10 + id))).into(), NodeId(0));
    let tasks = Tasks::default();
    let transport = Transport::start(Setup {
        env: env.clone(),
        knobs,
        tasks: tasks.clone(),
        listener,
        gate: Arc::clone(&door) as Arc<dyn Gate>,
        inbound: sender,
        advertise: String::new(),
    });
    Node {
        transport,
        inbound,
        door,
        tasks,
        record,
        env,
    }
}

impl Node {
    /// The next thing that reaches the loop.
    async fn next(&mut self) -> Inbound {
        let next = self.env.clock.timeout(SOON, self.inbound.recv()).await;
        next.expect("something should come").expect("open")
    }

    /// Calls node `id`, whose life is 10 + `id`.
    fn call(&self, id: u64) {
        let book = [(NodeId(id), peer(id, 10 + id))].into();
        self.transport.set_peers(book);
    }

    /// Waits for an event.
    async fn event(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let wait = async {
            loop {
                let found = self
                    .record
                    .0
                    .lock()
                    .unwrap()
                    .iter()
                    .find(|e| wanted(e))
                    .cloned();
                if let Some(event) = found {
                    return event;
                }
                self.env.clock.sleep(Duration::from_millis(2)).await;
            }
        };
        self.env
            .clock
            .timeout(SOON, wait)
            .await
            .expect("the event should come")
    }

    async fn up(&self) {
        self.event(|event| matches!(event, Event::Peer { up: true, .. }))
            .await;
    }

    async fn refusal(&self, part: &str) {
        self.event(|event| matches!(event, Event::Refused { detail } if detail.contains(part)))
            .await;
    }

    fn deadline(&self, ms: u64) -> Mono {
        self.env.clock.now().plus(Duration::from_millis(ms))
    }

    fn ask(&self, seq: u64) -> BoxFuture<'static, Result<Answer, Error>> {
        self.transport
            .forward(NodeId(2), propose(seq), self.deadline(2_000))
    }
}

fn propose(seq: u64) -> Ask {
    Ask::Propose(Command {
        seq,
        ..Command::default()
    })
}

fn outcome(revision: u64) -> Result<Answer, Error> {
    Ok(Answer::Outcome(Outcome {
        revision,
        ..Outcome::default()
    }))
}

/// A heartbeat from 1 to 2, recognisable by its term.
fn heartbeat(term: u64) -> Message {
    Message {
        msg_type: MessageType::MsgHeartbeat.into(),
        from: 1,
        to: 2,
        term,
        ..Message::default()
    }
}

async fn pair() -> (TestNet, Node, Node) {
    let net = TestNet::default();
    let one = start(&net, 1, knobs(), 64).await;
    let two = start(&net, 2, knobs(), 64).await;
    one.call(2);
    one.up().await;
    (net, one, two)
}

/// Terms of consensus messages until `count` have come; other news are skipped.
async fn terms(node: &mut Node, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        if let Inbound::Raft {
            from,
            group,
            messages,
        } = node.next().await
        {
            assert_eq!((from, group), (NodeId(1), GROUP));
            found.extend(messages.iter().map(|message| message.term));
        }
    }
    found
}

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

/// Node 2 calls node 1 as `hello` says, and gives the answer's frame.
async fn greet(net: &TestNet, change: impl FnOnce(&mut Hello)) -> Result<Welcome, Reject> {
    let mut hello = Hello {
        cluster_id: CLUSTER.0,
        from: 2,
        incarnation: 12,
        to: 1,
        purpose: Purpose::Raft.into(),
        name: "n2".to_owned(),
        peer: String::new(),
    };
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
    one.door.set_members([(NodeId(1), Incarnation(11))].into(), NodeId(0));
    assert_eq!(reason(&|_| ()).await, Reason::Removed);
    one.door.set_members([(NodeId(2), Incarnation(0))].into(), NodeId(0));
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
    assert_eq!(RaftMessage::default().group, 0);
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
async fn barriers_changes_and_errors_come_back() {
    let (_net, one, mut two) = pair().await;
    let barrier = one
        .transport
        .forward(NodeId(2), Ask::ReadBarrier, one.deadline(1_000));
    let Inbound::Forward {
        ask, reply, from, ..
    } = two.next().await
    else {
        panic!()
    };
    assert_eq!((ask, from), (Ask::ReadBarrier, NodeId(1)));
    reply.send(Ok(Answer::ReadIndex(Index(5)))).unwrap();
    assert_eq!(barrier.await, Ok(Answer::ReadIndex(Index(5))));
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
    let barrier = one
        .transport
        .forward(NodeId(2), Ask::ReadBarrier, one.deadline(1_000));
    let (first, second) = (two.next().await, two.next().await);
    net.cut(&address(2));
    let error = asked.await.unwrap_err();
    assert_eq!((error.code, error.outcome_unknown), (Code::NotLeader, true));
    assert!(
        !barrier.await.unwrap_err().outcome_unknown,
        "a read has no effect"
    );
    drop((first, second));
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

/// What a snapshot's bytes are at each position.
fn byte(position: u64) -> u8 {
    (position.wrapping_mul(31) >> 3) as u8
}

fn source(total: u64) -> SnapshotSource {
    let read = move |offset: u64, max: usize| -> BoxFuture<'static, io::Result<Bytes>> {
        let end = total.min(offset + max as u64);
        Box::pin(async move { Ok((offset..end).map(byte).collect()) })
    };
    SnapshotSource {
        total,
        read: Box::new(read),
    }
}

/// Gives every snapshot asked for; counts the requests.
async fn give_snapshots(mut two: Node, total: u64, asked: Arc<Mutex<Vec<u64>>>) {
    while let Some(next) = two.inbound.recv().await {
        if let Inbound::Snapshot { request, reply, .. } = next {
            asked.lock().unwrap().push(request.offset);
            reply.send(Ok(source(total))).ok();
        }
    }
}

fn request(offset: u64) -> SnapshotRequest {
    SnapshotRequest {
        group: 0,
        index: 9,
        term: 2,
        offset,
    }
}

fn file(size: u64) -> SnapshotFile {
    SnapshotFile { size, checksum: 0 }
}

#[tokio::test]
async fn a_cut_snapshot_goes_on_where_it_ended() {
    const TOTAL: u64 = 400_000;
    let (net, one, two) = pair().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    one.tasks
        .spawn(give_snapshots(two, TOTAL, Arc::clone(&asked)));
    let stored = Arc::new(Mutex::new(Vec::new()));
    let (file_bytes, cutting) = (Arc::clone(&stored), net.clone());
    let sink = move |offset: u64, data: Bytes| -> BoxFuture<'static, io::Result<()>> {
        let mut bytes = file_bytes.lock().unwrap();
        assert_eq!(offset, bytes.len() as u64);
        let crosses = |mark: u64| (offset..offset + data.len() as u64).contains(&mark);
        if crosses(100_000) || crosses(300_000) {
            cutting.cut(&address(2));
        }
        bytes.extend_from_slice(&data);
        Box::pin(async { Ok(()) })
    };
    one.transport
        .fetch_snapshot(NodeId(2), request(0), file(TOTAL), sink)
        .await
        .unwrap();
    assert!(*stored.lock().unwrap() == (0..TOTAL).map(byte).collect::<Vec<_>>());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(
        asked[0] == 0 && asked[1] > 100_000 && asked[2] > 300_000,
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_had_is_an_error_with_its_reason() {
    let (net, one, mut two) = pair().await;
    let sink =
        |_: u64, _: Bytes| -> BoxFuture<'static, io::Result<()>> { Box::pin(async { Ok(()) }) };
    let fetch = one
        .transport
        .fetch_snapshot(NodeId(2), request(0), file(10), sink);
    let (got, ()) = tokio::join!(fetch, async {
        let Inbound::Snapshot { reply, .. } = two.next().await else {
            panic!()
        };
        reply.send(Err(Error::new(Code::NotFound, "trimmed"))).ok();
    });
    assert!(matches!(got, Err(FetchError::Refused { error, .. }) if error.code == Code::NotFound));
    // A file of another size than the one offered is another file.
    let fetch = one
        .transport
        .fetch_snapshot(NodeId(2), request(0), file(10), sink);
    let (got, ()) = tokio::join!(fetch, async {
        let Inbound::Snapshot { reply, .. } = two.next().await else {
            panic!()
        };
        reply.send(Ok(source(11))).ok();
    });
    assert!(matches!(got, Err(FetchError::Refused { .. })));
    net.refuse(&address(2), true);
    let got = one
        .transport
        .fetch_snapshot(NodeId(2), request(3), file(10), sink)
        .await;
    assert!(matches!(got, Err(FetchError::Silent { offset: 3, .. })));
}

#[tokio::test]
async fn a_failing_disk_ends_the_fetch() {
    let (_net, one, two) = pair().await;
    one.tasks.spawn(give_snapshots(two, 10, Arc::default()));
    let sink = |_: u64, _: Bytes| -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async { Err(io::Error::other("disk")) })
    };
    let got = one
        .transport
        .fetch_snapshot(NodeId(2), request(0), file(10), sink)
        .await;
    assert!(matches!(got, Err(FetchError::Sink(_))));
}
