//! The client against the door, and against servers that break at chosen moments.
#![expect(
    clippy::disallowed_methods,
    reason = "each test builds the runtime it runs on"
)]

use super::watch::Told;
use super::{Client, Conditions, Options, Page, Range, Reading, Retry};
use crate::api::fake::{Mood, World};
use crate::api::txn::{Compare, PutStep, TxnOp, TxnRequest, TxnResult};
use crate::api::wire::{Health, MemberRequest};
use crate::error::{Code, Error, Leader};
use crate::handle::Consistency;
use crate::rt::{Env, Tasks};
use crate::types::{NodeId, Revision};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client of `world`.
fn client(world: &World, options: Options) -> Client {
    let endpoints = vec![world.address.clone()];
    Client::with_options(&world.env, &world.tasks, endpoints, options)
}

/// Options of a client that pauses shortly and uses no sessions.
fn plain() -> Options {
    Options {
        sessions: false,
        retry: Retry {
            pause_min: Duration::from_millis(1),
            pause_max: Duration::from_millis(5),
            ..Retry::default()
        },
        ..Options::default()
    }
}

/// What a scripted server was sent: the first line of each request.
type Seen = Arc<Mutex<Vec<String>>>;

/// A server that answers one request for each connection with the next text, and then closes. An empty text closes at once.
async fn scripted(env: &Env, tasks: &Tasks, answers: Vec<String>) -> (String, Seen) {
    let mut listener = env.net.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address();
    let seen = Seen::default();
    let lines = Arc::clone(&seen);
    tasks.spawn(async move {
        let mut answers = VecDeque::from(answers);
        while let Some(answer) = answers.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut part = [0; 1024];
                let count = stream.read(&mut part).await.unwrap();
                request.extend_from_slice(&part[..count]);
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let line = text.lines().next().unwrap_or_default().to_owned();
            lines.lock().unwrap().push(line);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, seen)
}

/// A whole answer.
fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn keys_ranges_and_transactions() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    let key = b"a/b c\xff";
    let put = client.put(key, "1", Conditions::default()).await.unwrap();
    assert_eq!((put.done.version, put.place.replayed), (1, false));
    let got = client.get(key, Reading::default()).await.unwrap().unwrap();
    assert_eq!(got.record.key_bytes().unwrap(), &key[..]);
    assert_eq!(got.record.value_bytes().unwrap().unwrap(), "1");
    let local = Reading {
        consistency: Consistency::Bounded {
            max_age: Duration::from_millis(5),
        },
        revision: None,
    };
    assert!(client.get(b"none", local).await.unwrap().is_none());
    let absent = Conditions {
        if_absent: true,
        ..Conditions::default()
    };
    let refused = client.put(key, "2", absent).await.unwrap_err();
    assert_eq!(refused.code, Code::PreconditionFailed);
    let step = PutStep {
        key: Some("t".to_owned()),
        value: Some("v".to_owned()),
        ..PutStep::default()
    };
    let compare = Compare {
        key: Some("t".to_owned()),
        number: Some(0),
        ..Compare::default()
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![TxnOp::Put(step)],
        failure: vec![],
    };
    let done = client.txn(&txn).await.unwrap();
    assert!(done.succeeded && matches!(done.results[..], [TxnResult::Put(_)]));
    let page = Page {
        keys_only: true,
        ..Page::default()
    };
    let all = client.range(&Range::All, &page, Reading::default()).await;
    assert_eq!(all.unwrap().found.count, 2);
    let one = Range::Key(Bytes::from_static(b"t"));
    assert_eq!(
        client.delete_range(&one, true).await.unwrap().done.deleted,
        1
    );
    let gone = client.delete(key, Conditions::default()).await.unwrap();
    assert_eq!(gone.done.deleted, 1);
    world.end().await;
}

#[tokio::test]
async fn any_bytes_can_be_a_key() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    for odd in [
        "/",
        "//",
        "..",
        "a/../b",
        "a?b=c&d#e",
        "%2F",
        "+ +",
        "\r\n",
        "k\u{fc}",
        "\"\\",
    ] {
        keys.push(odd.as_bytes().to_vec());
    }
    for key in &keys {
        client
            .put(key, key.clone(), Conditions::default())
            .await
            .unwrap();
    }
    for key in &keys {
        let one = Range::Key(Bytes::from(key.clone()));
        let page = Page::default();
        let found = client.range(&one, &page, Reading::default()).await;
        let found = found.unwrap().found.kvs;
        assert_eq!(found.len(), 1, "{key:?}");
        assert_eq!(found[0].key_bytes().unwrap(), key);
        let got = client.get(key, Reading::default()).await.unwrap().unwrap();
        assert_eq!(got.record.value_bytes().unwrap().unwrap(), key);
    }
    assert_eq!(
        world.fake.lock().unwrap().kvs.len(),
        keys.len() - 1,
        "`/` is there twice"
    );
    world.end().await;
}

#[tokio::test]
async fn leases_members_snapshots_and_health() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    let lease = client.grant_lease(500).await.unwrap();
    assert_eq!(lease.ttl_ms, 500);
    assert_eq!(client.keep_lease(lease.id).await.unwrap().id, lease.id);
    client.revoke_lease(lease.id).await.unwrap();
    let session = client.open_session().await.unwrap();
    client.close_session(session).await.unwrap();
    client.compact(Revision(0)).await.unwrap();
    let member = MemberRequest {
        name: "n3".to_owned(),
        peer: "h:1".to_owned(),
        http: "h:2".to_owned(),
    };
    assert_eq!(client.add_member(&member).await.unwrap(), NodeId(9));
    assert_eq!(client.promote_member(NodeId(9)).await.unwrap(), NodeId(9));
    assert_eq!(client.remove_member(NodeId(9)).await.unwrap(), NodeId(9));
    let conflict = client.transfer(Some(NodeId(4))).await.unwrap_err();
    assert_eq!(conflict.code, Code::Conflict);
    assert_eq!(client.cluster().await.unwrap().members.len(), 2);
    assert_eq!(client.snapshot().await.unwrap().bytes, 100);
    let health = client.health(&world.address).await.unwrap();
    assert_eq!(health.status, Health::Healthy);
    let url = format!("http://{}/", world.address);
    assert_eq!(client.stats(&url).await.unwrap()["node"]["name"], "n1");
    let metrics = client.metrics(&url).await.unwrap();
    assert!(
        metrics.contains("\nseaworthy_http_connections 1\n"),
        "all of it went over one connection"
    );
    world.end().await;
}

#[tokio::test]
async fn lost_answer_in_a_session_is_asked_again_and_done_once() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    client.put(b"a", "1", Conditions::default()).await.unwrap();
    let moods = [Mood::LoseAnswer, Mood::NoLeader, Mood::LoseRequest];
    world.fake.lock().unwrap().moods.extend(moods);
    let put = client.put(b"a", "2", Conditions::default()).await.unwrap();
    assert_eq!((put.done.version, put.place.replayed), (2, true));
    assert_eq!(world.fake.lock().unwrap().kvs[&b"a"[..]].version, 2);
    world.end().await;
}

#[tokio::test]
async fn lost_answer_without_a_session_is_unknown_and_not_asked_again() {
    let world = World::new().await;
    let client = client(&world, plain());
    world.fake.lock().unwrap().moods.push_back(Mood::LoseAnswer);
    let error = client
        .put(b"a", "1", Conditions::default())
        .await
        .unwrap_err();
    assert!(error.outcome_unknown, "{error:?}");
    assert_eq!(world.fake.lock().unwrap().index, 1);
    let undone = [Mood::NoLeader, Mood::NoLeader];
    world.fake.lock().unwrap().moods.extend(undone);
    let put = client.put(b"a", "2", Conditions::default()).await.unwrap();
    assert_eq!(
        put.done.version, 2,
        "what surely was not done is tried again"
    );
    world.end().await;
}

#[tokio::test]
async fn forgotten_session_is_replaced_when_nothing_happened() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    client.put(b"a", "1", Conditions::default()).await.unwrap();
    world.fake.lock().unwrap().sessions.clear();
    let put = client.put(b"a", "2", Conditions::default()).await.unwrap();
    assert_eq!(put.done.version, 2);
    world.end().await;
}

#[tokio::test]
async fn forgotten_session_leaves_an_unknown_write_unknown() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    client.put(b"a", "1", Conditions::default()).await.unwrap();
    world
        .fake
        .lock()
        .unwrap()
        .moods
        .push_back(Mood::LoseSession);
    let result = client.put(b"a", "2", Conditions::default()).await;
    let error = result.unwrap_err();
    assert_eq!(
        (error.code, error.outcome_unknown),
        (Code::SessionUnknown, true)
    );
    assert_eq!(world.fake.lock().unwrap().kvs[&b"a"[..]].version, 2);
    let put = client.put(b"a", "3", Conditions::default()).await.unwrap();
    assert_eq!(
        put.done.version, 3,
        "the next write opens a session of its own"
    );
    world.end().await;
}

#[tokio::test]
async fn silent_watch_is_opened_again() {
    let world = World::new().await;
    let silent = world.env.net.listen("127.0.0.1:0").await.unwrap();
    let endpoints = vec![silent.local_address(), world.address.clone()];
    let options = Options {
        timeout: Duration::from_millis(100),
        watch_silence: Duration::from_millis(200),
        ..plain()
    };
    let client = Client::with_options(&world.env, &world.tasks, endpoints, options);
    let mut watch = client.watch(&Range::All, Some(Revision(1))).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), Told::Progress(Revision(0)));
    world.end().await;
}

#[tokio::test]
async fn concurrent_writes_use_sessions_of_their_own() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    let writes = (0..20).map(|number| {
        let client = client.clone();
        async move {
            let key = format!("k{number}");
            client.put(key.as_bytes(), "v", Conditions::default()).await
        }
    });
    for result in futures::future::join_all(writes).await {
        result.unwrap();
    }
    assert_eq!(world.fake.lock().unwrap().kvs.len(), 20);
    let sessions = world.fake.lock().unwrap().sessions.len();
    assert!(sessions <= 20, "{sessions}");
    world.end().await;
}

#[tokio::test]
async fn connection_that_dies_under_a_write_leaves_it_unknown() {
    let world = World::new().await;
    let answers = vec![String::new(), String::new(), answer("200 OK", "{}")];
    let (address, seen) = scripted(&world.env, &world.tasks, answers).await;
    let client = Client::with_options(&world.env, &world.tasks, vec![address], plain());
    let error = client
        .put(b"a", "1", Conditions::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.outcome_unknown),
        (Code::Unreachable, true)
    );
    assert_eq!(seen.lock().unwrap().len(), 1);
    let error = client.cluster().await.unwrap_err();
    assert_eq!(
        error.code,
        Code::Internal,
        "the second try of a read found an odd answer"
    );
    assert!(!error.outcome_unknown);
    assert_eq!(seen.lock().unwrap().len(), 3);
    world.end().await;
}

#[tokio::test]
async fn refused_connection_turns_the_client_to_the_next_endpoint() {
    let world = World::new().await;
    let dead = {
        let listener = world.env.net.listen("127.0.0.1:0").await.unwrap();
        listener.local_address()
    };
    let endpoints = vec![dead.clone(), world.address.clone()];
    let client = Client::with_options(&world.env, &world.tasks, endpoints, plain());
    client.put(b"a", "1", Conditions::default()).await.unwrap();
    let lonely = Options {
        retry: Retry::never(),
        ..plain()
    };
    let client = Client::with_options(&world.env, &world.tasks, vec![dead], lonely);
    let error = client
        .put(b"a", "1", Conditions::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.outcome_unknown),
        (Code::Unreachable, false)
    );
    world.end().await;
}

#[tokio::test]
async fn leader_hint_is_followed() {
    let world = World::new().await;
    let leader = Leader {
        id: NodeId(1),
        name: "n1".to_owned(),
        http: world.address.clone(),
    };
    let hint = Error::new(Code::NotLeader, "not me").leader(Some(leader));
    let body = serde_json::to_string(&hint).unwrap();
    let answers = vec![answer("503 Service Unavailable", &body)];
    let (address, seen) = scripted(&world.env, &world.tasks, answers).await;
    let client = Client::with_options(&world.env, &world.tasks, vec![address], plain());
    client.put(b"a", "1", Conditions::default()).await.unwrap();
    assert_eq!(client.known_leader(), Some(world.address.clone()));
    assert_eq!(seen.lock().unwrap().len(), 1);
    let answers = vec![answer("503 Service Unavailable", &body)];
    let (address, _) = scripted(&world.env, &world.tasks, answers).await;
    let steady = Options {
        follow_leader: false,
        retry: Retry::never(),
        ..plain()
    };
    let client = Client::with_options(&world.env, &world.tasks, vec![address], steady);
    let refused = client.put(b"a", "2", Conditions::default()).await;
    assert_eq!(refused.unwrap_err().code, Code::NotLeader);
    assert_eq!(client.known_leader(), None);
    world.end().await;
}

#[tokio::test]
async fn silent_node_costs_a_part_of_the_time_only() {
    let world = World::new().await;
    let silent = world.env.net.listen("127.0.0.1:0").await.unwrap();
    let endpoints = vec![silent.local_address(), world.address.clone()];
    let options = Options {
        timeout: Duration::from_millis(600),
        connect_timeout: Duration::from_millis(100),
        ..plain()
    };
    let client = Client::with_options(&world.env, &world.tasks, endpoints, options);
    client.get(b"a", Reading::default()).await.unwrap();
    world.end().await;
}

/// A server for any number of connections, which answers questions about the cluster at once with `cluster`, and all else with `late` after
/// `pause`.
async fn slow(world: &World, cluster: String, late: String, pause: Duration) -> (String, Seen) {
    let mut listener = world.env.net.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address();
    let (seen, clock, tasks) = (
        Seen::default(),
        world.env.clock.clone(),
        world.tasks.clone(),
    );
    let lines = Arc::clone(&seen);
    world.tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (cluster, late, clock) = (cluster.clone(), late.clone(), clock.clone());
            let lines = Arc::clone(&lines);
            tasks.spawn(async move {
                let mut part = [0; 4096];
                let count = stream.read(&mut part).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&part[..count]).into_owned();
                let line = text.lines().next().unwrap_or_default().to_owned();
                let asks = line.starts_with("GET /v1/cluster");
                lines.lock().unwrap().push(line);
                if !asks {
                    clock.sleep(pause).await;
                }
                let text = if asks { cluster } else { late };
                // The client may have left.
                stream.write_all(text.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            });
        }
    });
    (address, seen)
}

/// The answer of a node that takes `http` for the leader.
fn names_leader(http: &str) -> String {
    let body = format!(
        r#"{{"cluster_id":"0000000000000abc","id":2,"name":"n2","leader":1,"term":3,"commit_index":1,"applied_index":1,"revision":1,"members":[{{"id":1,"name":"n1","peer":"n1:1","http":"{http}","incarnation":"01","role":"leader"}}]}}"#
    );
    answer("200 OK", &body)
}

/// A client that has a minute, and half of it for each try: a test that waits for a silent node does not end in time.
fn patient(world: &World, endpoints: Vec<String>, sessions: bool) -> Client {
    let options = Options {
        timeout: Duration::from_secs(60),
        patience: Duration::from_millis(40),
        sessions,
        ..plain()
    };
    Client::with_options(&world.env, &world.tasks, endpoints, options)
}

#[tokio::test]
async fn silent_node_is_left_for_the_leader() {
    let world = World::new().await;
    let silent = world.env.net.listen("127.0.0.1:0").await.unwrap();
    let endpoints = vec![silent.local_address(), world.address.clone()];
    let client = patient(&world, endpoints.clone(), false);
    client.get(b"a", Reading::default()).await.unwrap();
    assert_eq!(client.known_leader(), Some(world.address.clone()));
    assert_eq!(client.departures(), 1);
    let client = patient(&world, endpoints, true);
    let put = client.put(b"a", "1", Conditions::default()).await.unwrap();
    assert_eq!((put.done.version, client.departures()), (1, 1));
    world.end().await;
}

#[tokio::test]
async fn write_without_a_session_to_a_silent_node_is_unknown_at_once() {
    let world = World::new().await;
    let silent = world.env.net.listen("127.0.0.1:0").await.unwrap();
    let endpoints = vec![silent.local_address(), world.address.clone()];
    let client = patient(&world, endpoints, false);
    let lost = client.put(b"a", "1", Conditions::default()).await;
    let error = lost.unwrap_err();
    assert_eq!((error.code, error.outcome_unknown), (Code::Timeout, true));
    assert_eq!(error.leader.unwrap().http, world.address);
    let put = client.put(b"a", "2", Conditions::default()).await.unwrap();
    assert_eq!(put.done.version, 1, "the next write goes to the leader");
    world.end().await;
}

#[tokio::test]
async fn node_that_answers_questions_is_waited_for_by_a_write_without_a_session() {
    let world = World::new().await;
    let put = r#"{"revision":7,"index":9,"version":4,"create_revision":1,"replayed":false}"#;
    let leads = names_leader(&world.address);
    let pause = Duration::from_millis(400);
    let (address, _) = slow(&world, leads, answer("200 OK", put), pause).await;
    let endpoints = vec![address, world.address.clone()];
    let client = patient(&world, endpoints, false);
    let put = client.put(b"a", "1", Conditions::default()).await.unwrap();
    assert_eq!((put.done.version, client.departures()), (4, 0));
    world.end().await;
}

#[tokio::test]
async fn slow_leader_is_waited_for_and_few_questions_are_asked() {
    let world = World::new().await;
    let (nobody, late) = (names_leader(""), answer("404 Not Found", ""));
    let pause = Duration::from_millis(500);
    let (leader, at_leader) = slow(&world, nobody, late.clone(), pause).await;
    let (other, asked) = slow(&world, names_leader(&leader), late, pause).await;
    let client = patient(&world, vec![leader, other], false);
    let begin = world.env.clock.now();
    let reads = (0..30).map(|_| client.get(b"a", Reading::default()));
    for result in futures::future::join_all(reads).await {
        assert_eq!(result.unwrap_err().code, Code::Internal);
    }
    let quarters = world.env.clock.now().since(begin).as_millis() / 10;
    assert_eq!(client.departures(), 0);
    assert_eq!(at_leader.lock().unwrap().len(), 30);
    let questions = asked.lock().unwrap().len();
    assert!(
        questions > 0 && questions as u128 <= quarters + 1,
        "{questions}"
    );
    world.end().await;
}

#[tokio::test]
async fn watch_brings_history_and_news() {
    let world = World::new().await;
    let client = client(&world, Options::default());
    client.put(b"a", "1", Conditions::default()).await.unwrap();
    let range = Range::Prefix(Bytes::from_static(b"a"));
    let mut old = client.watch(&range, Some(Revision(1))).await.unwrap();
    let Told::Put(first) = old.next().await.unwrap() else {
        panic!("not a put")
    };
    assert_eq!(first.record.value.as_deref(), Some("1"));
    let mut fresh = client.watch(&range, None).await.unwrap();
    client.delete(b"a", Conditions::default()).await.unwrap();
    for watch in [&mut old, &mut fresh] {
        loop {
            match watch.next().await.unwrap() {
                Told::Progress(_) => {}
                Told::Delete(gone) => {
                    assert_eq!(gone.record.mod_revision, Revision(2));
                    break;
                }
                Told::Put(other) => panic!("{other:?}"),
            }
        }
    }
    client.compact(Revision(2)).await.unwrap();
    let error = client.watch(&range, Some(Revision(1))).await.err().unwrap();
    assert_eq!(error.code, Code::Compacted);
    world.end().await;
}

#[tokio::test]
async fn watch_that_breaks_inside_a_revision_neither_loses_nor_repeats() {
    let world = World::new().await;
    let put = |key: &str, revision: u64, id: bool| {
        let id = if id {
            format!("id: {revision}\n")
        } else {
            String::new()
        };
        let data = format!(
            r#"{{"key":"{key}","value":"v","version":1,"create_revision":1,"mod_revision":{revision},"lease":0,"prev_revision":0,"time_ms":0}}"#
        );
        format!("{id}event: put\ndata: {data}\n\n")
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let first = [
        put("a", 1, true),
        put("b", 2, false),
        "id: 2\neve".to_owned(),
    ]
    .concat();
    let second = [put("b", 2, false), put("c", 2, true), put("d", 3, true)].concat();
    let answers = vec![format!("{head}{first}"), format!("{head}{second}")];
    let (address, seen) = scripted(&world.env, &world.tasks, answers).await;
    let client = Client::with_options(&world.env, &world.tasks, vec![address], plain());
    let mut watch = client.watch(&Range::All, Some(Revision(1))).await.unwrap();
    let mut keys = Vec::new();
    while keys.len() < 4 {
        if let Told::Put(change) = watch.next().await.unwrap() {
            keys.push(change.record.key.unwrap());
        }
    }
    assert_eq!(keys, ["a", "b", "c", "d"]);
    let lines = seen.lock().unwrap().clone();
    assert_eq!(lines[0], "GET /v1/watch?from=1 HTTP/1.1");
    assert_eq!(lines[1], "GET /v1/watch?from=2 HTTP/1.1");
    world.end().await;
}
