//! Tests of the whole transport: two nodes over a network in memory, real time with short time-outs.

mod handshake;
mod messages;
mod requests;
mod snapshots;

use super::testnet::TestNet;
use super::*;
use crate::error::Code;
use crate::rt::journal::JournalSink;
use crate::rt::{Journal, Net};
use crate::state::command::{Command, Outcome};
use crate::types::ClusterId;
use raft::eraftpb::MessageType;
use std::time::Duration;

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
    listens: String,
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
    start_on(Net::new(net.clone()), &address(id), id, knobs, inbox_len).await
}

/// The same on any network.
async fn start_on(net: Net, listen: &str, id: u64, knobs: Knobs, inbox_len: usize) -> Node {
    let record = Record::default();
    let mut env = crate::rt::real::env("test").unwrap();
    env.net = net;
    env.journal = Journal::new(record.clone());
    let listener = env.net.listen(listen).await.unwrap();
    let listens = listener.local_address();
    let (sender, inbound) = mpsc::channel(inbox_len);
    let door = Arc::new(Door::default());
    door.set_me(identity(id, 10 + id));
    door.set_members(
        [1, 2].map(|id| (NodeId(id), Incarnation(10 + id))).into(),
        NodeId(0),
    );
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
        listens,
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
            ..
        } = node.next().await
        {
            assert_eq!((from, group), (NodeId(1), GROUP));
            found.extend(messages.iter().map(|message| message.term));
        }
    }
    found
}
