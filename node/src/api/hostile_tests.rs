//! The door as a hostile, broken or merely odd client sees it.
#![expect(
    clippy::disallowed_methods,
    reason = "each test builds the runtime it runs on"
)]

use super::fake::{World, parse};
use crate::config::Limits;
use crate::handle::Condition;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A door that loses patience quickly.
async fn hasty() -> World {
    World::with(Limits {
        slow_client_ms: 200,
        connections_max: 4,
        ..Limits::default()
    })
    .await
}

/// True when the door still serves.
async fn serves(world: &World) -> bool {
    world.ask("GET", "/health/live", b"").await.0 == 200
}

#[tokio::test]
async fn slow_head_is_cut_off() {
    let world = hasty().await;
    let began = world.env.clock.now();
    let answer = world.raw(b"GET /health HTTP/1.1\r\nhost: ").await;
    let took = world.env.clock.now().since(began);
    assert!(took < Duration::from_secs(2), "{took:?} {answer}");
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(serves(&world).await);
    world.end().await;
}

#[tokio::test]
async fn slow_body_is_answered_with_a_time_out() {
    let world = hasty().await;
    let head = b"PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    let answer = world.raw(head).await;
    assert!(
        answer.contains("504") && answer.contains("did not arrive"),
        "{answer}"
    );
    assert!(world.fake.lock().unwrap().kvs.is_empty());
    world.end().await;
}

#[tokio::test]
async fn body_that_breaks_off_changes_nothing() {
    let world = hasty().await;
    let mut stream = world.env.net.connect(&world.address).await.unwrap();
    let head = b"PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    stream.write_all(head).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    drop(stream);
    assert!(serves(&world).await);
    assert!(world.fake.lock().unwrap().kvs.is_empty());
    world.end().await;
}

#[tokio::test]
async fn chunked_body_without_end_is_bounded() {
    let world = hasty().await;
    let mut bytes =
        b"PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..40 {
        bytes.extend_from_slice(b"10000\r\n");
        bytes.extend_from_slice(&[b'x'; 0x10000]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let (status, body) = parse(&world.raw(&bytes).await);
    assert_eq!(status, 413, "{body}");
    assert!(body.contains("too_large"), "{body}");
    world.end().await;
}

#[tokio::test]
async fn garbage_is_refused_and_the_door_stays_open() {
    let world = hasty().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  /  HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: -4\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\xff\xfe /v1/kv/a HTTP/1.1\r\n\r\n",
        b"GET /v1/kv/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let answer = world.raw(bytes).await;
        assert!(!answer.contains("200 OK"), "{bytes:?}: {answer}");
        assert!(serves(&world).await, "{bytes:?}");
    }
    let many = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert!(!world.raw(many.as_bytes()).await.contains("200 OK"));
    assert!(serves(&world).await);
    world.end().await;
}

#[tokio::test]
async fn half_closed_client_gets_its_answer() {
    let world = hasty().await;
    let mut stream = world.env.net.connect(&world.address).await.unwrap();
    let head = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.contains("200 OK") && answer.contains("healthy"),
        "{answer}"
    );
    world.end().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = hasty().await;
    let put = "PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1";
    let get = "GET /v1/kv/a HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /helth HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = world.raw(format!("{put}{get}{last}").as_bytes()).await;
    let first = answer.find("\"replayed\"").unwrap();
    let second = answer.find("\"value\":\"1\"").unwrap();
    let third = answer.find("did you mean").unwrap();
    assert!(first < second && second < third, "{answer}");
    world.end().await;
}

#[tokio::test]
async fn http_1_0_is_served_and_closed() {
    let world = hasty().await;
    let answer = world.raw(b"GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    assert!(answer.contains("healthy"), "{answer}");
    world.end().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so() {
    let world = World::with(Limits {
        connections_max: 2,
        ..Limits::default()
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = world.env.net.connect(&world.address).await.unwrap();
        let head = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(head).await.unwrap();
        assert!(stream.read(&mut [0; 16]).await.unwrap() > 0);
        held.push(stream);
    }
    let (status, error) = world.json("GET", "/health", "").await;
    assert_eq!(
        (status, &error["code"]),
        (429, &serde_json::json!("overloaded"))
    );
    drop(held);
    let mut free = false;
    for _ in 0..50 {
        free |= serves(&world).await;
        if free {
            break;
        }
        world.env.clock.sleep(Duration::from_millis(20)).await;
    }
    assert!(free, "places of closed connections are free again");
    world.end().await;
}

#[tokio::test]
async fn client_that_never_reads_is_cut_off() {
    let world = hasty().await;
    let value = vec![b'v'; 1 << 20];
    assert_eq!(world.ask("PUT", "/v1/kv/big", &value).await.0, 200);
    let mut stream = world.env.net.connect(&world.address).await.unwrap();
    let get = "GET /v1/kv/big HTTP/1.1\r\nhost: x\r\n\r\n".repeat(64);
    stream.write_all(get.as_bytes()).await.unwrap();
    // The other connection is the one that asks.
    let mut cut = false;
    for _ in 0..100 {
        let (_, page) = world.ask("GET", "/metrics", b"").await;
        cut |= page.contains("\nseaworthy_http_connections 1\n");
        if cut {
            break;
        }
        world.env.clock.sleep(Duration::from_millis(50)).await;
    }
    assert!(cut, "the connection is still open");
    let mut got = 0;
    let mut part = vec![0; 1 << 16];
    while let Ok(count @ 1..) = stream.read(&mut part).await {
        got += count;
    }
    assert!(
        got < 64 << 20,
        "all 64 answers came, though nobody read them in time"
    );
    assert!(serves(&world).await);
    world.end().await;
}

#[tokio::test]
async fn stopping_node_finishes_and_closes() {
    let world = World::new().await;
    let mut stream = world.env.net.connect(&world.address).await.unwrap();
    let head = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(head).await.unwrap();
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    world
        .status
        .send_modify(|status| status.condition = Condition::Stopping);
    let mut rest = Vec::new();
    let closing = stream.read_to_end(&mut rest);
    let closed = world
        .env
        .clock
        .timeout(Duration::from_secs(2), closing)
        .await;
    assert!(
        closed.is_ok(),
        "an idle connection is closed when the node stops"
    );
    assert!(world.env.net.connect(&world.address).await.is_err());
    world.end().await;
}

#[tokio::test]
async fn idle_connection_gives_its_place_back() {
    let world = hasty().await;
    let answer = world.raw(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    let began = world.env.clock.now();
    assert!(answer.await.contains("200 OK"));
    let took = world.env.clock.now().since(began);
    assert!(
        took < Duration::from_secs(2),
        "closed by the node, not by the test: {took:?}"
    );
    world.end().await;
}

/// A request with a few bytes changed, lost or doubled.
fn mangled(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let requests: [&[u8]; 4] = [
        b"PUT /v1/kv/a?if_version=3&prev=true HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nvalue",
        b"GET /v1/kv?prefix=%41&limit=5 HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n",
        b"POST /v1/txn HTTP/1.1\r\nhost: x\r\ncontent-length: 42\r\n\r\n{\"success\":[{\"put\":{\"key\":\"a\",\"value\":\"b\"}}]}",
        b"PUT /v1/kv/b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    let mut bytes = requests[rng.random_range(0..requests.len())].to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..3) {
            0 => bytes[at] = rng.random(),
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, bytes[at]),
        }
    }
    bytes
}

#[tokio::test]
async fn mangled_requests_never_bring_the_door_down() {
    let world = World::with(Limits {
        slow_client_ms: 100,
        ..Limits::default()
    })
    .await;
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for _ in 0..4 {
        let requests: Vec<Vec<u8>> = (0..50).map(|_| mangled(&mut rng)).collect();
        let answers = requests.iter().map(|bytes| world.raw(bytes));
        let answers = futures::future::join_all(answers).await;
        for (request, answer) in requests.iter().zip(answers) {
            let status = parse(&answer).0;
            let fine = answer.is_empty() || (100..=504).contains(&status) && status != 500;
            assert!(fine, "{:?}: {answer}", String::from_utf8_lossy(request));
        }
        assert!(serves(&world).await);
    }
    world.end().await;
}
