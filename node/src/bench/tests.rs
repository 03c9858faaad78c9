//! The load generator against fake servers: counts, latencies, coordinated omission, errors.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run in the real world: #[tokio::test] builds a runtime, golden texts are files"
)]

use crate::cli::fake::Fake;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A cluster of one that answers every key request by `answer`.
async fn node(answer: impl Fn(u64) -> u16 + Send + Sync + 'static) -> Fake {
    let count = AtomicU64::new(0);
    let spent = AtomicU64::new(0);
    Fake::new(move |asked| {
        let body = match asked.line.as_str() {
            "GET /v1/cluster" => json!({"leader": 1, "id": 1, "members": []}),
            "GET /stats" => {
                let times = spent.fetch_add(1, Ordering::Relaxed);
                json!({"process": {"pid": 1, "cpu_seconds": times, "write_bytes": times * 1000}})
            }
            _ => {
                let status = answer(count.fetch_add(1, Ordering::Relaxed));
                return (status, "x".repeat(20_000));
            }
        };
        (200, body.to_string())
    })
    .await
}

async fn report(fake: &Fake, line: &str) -> Value {
    let typed = fake.types(&format!("bench --output json {line}")).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    serde_json::from_str(&typed.out).unwrap()
}

#[tokio::test]
async fn closed_loop_counts_what_was_answered() {
    let fake = node(|_| 200).await;
    let report = report(
        &fake,
        "--clients 4 --duration 300ms --warmup 50ms --op mixed --keys 10",
    )
    .await;
    let operations = report["operations"].as_u64().unwrap();
    assert!(operations > 20, "{report}");
    assert_eq!(report["errors"], 0);
    assert_eq!(report["clients"], 4);
    assert_eq!(report["op"], "mixed");
    assert_eq!(report["duration_s"], 0.3);
    assert!(report["throughput_per_s"].as_f64().unwrap() > 60.0);
    for key in ["p50_ms", "p99_ms", "p999_ms"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let cpu = report["cpu_us_per_op"].as_f64().unwrap();
    assert!((cpu - 1e6 / operations as f64).abs() < 1.0, "{report}");
    assert!(report["write_bytes_per_op"].as_f64().unwrap() > 0.0);
    let asked = fake.asked.lock().unwrap();
    let puts: Vec<_> = asked
        .iter()
        .filter(|one| one.line.starts_with("PUT"))
        .collect();
    assert!(puts[0].line.starts_with("PUT /v1/kv/bench/00000000"));
    assert_eq!(puts[0].body.len(), 256);
    assert_ne!(puts[0].body, puts[20].body, "values differ");
    let filled: std::collections::BTreeSet<_> =
        puts[..10].iter().map(|one| one.line.clone()).collect();
    assert_eq!(filled.len(), 10, "every key is there before it is read");
    assert!(
        asked
            .iter()
            .any(|one| one.line.starts_with("GET /v1/kv/bench/")
                && one.line.ends_with("?consistency=linearizable"))
    );
}

#[tokio::test]
async fn open_loop_keeps_its_rate() {
    let fake = node(|_| 200).await;
    let report = report(
        &fake,
        "--clients 4 --duration 500ms --warmup 100ms --rate 200",
    )
    .await;
    let operations = report["operations"].as_u64().unwrap();
    assert!((80..=101).contains(&operations), "{report}");
    assert_eq!(report["rate_per_s"], 200);
}

#[tokio::test]
async fn a_stall_is_felt_by_everything_that_was_due() {
    // One answer in the middle takes 300 ms, on the only connection: a third of all requests were due meanwhile.
    let stalled = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&stalled);
    let mut fake = node(|_| 200).await;
    let slow = slow_node(seen).await;
    fake.variables
        .insert("SEAWORTHY_ENDPOINTS".into(), format!("http://{slow}"));
    let report = report(&fake, "--clients 1 --duration 900ms --warmup 0s --rate 100").await;
    assert_eq!(stalled.load(Ordering::Relaxed), 1);
    let mean = report["mean_ms"].as_f64().unwrap();
    // 30 requests wait 150 ms on average: over 90 requests that is 50 ms; one slow request alone would give 3 ms.
    // A busy machine only makes it more.
    assert!(mean > 25.0, "{report}");
}

/// A server that stalls once for 300 ms, at its 20th request.
async fn slow_node(stalled: Arc<AtomicU64>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let env = crate::rt::real::env("slow").unwrap();
    let mut listener = env.net.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address();
    let tasks = crate::rt::Tasks::default();
    let group = tasks.clone();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (stalled, clock) = (Arc::clone(&stalled), env.clock.clone());
            group.spawn(async move {
                let mut buffer = vec![0; 4096];
                let mut requests = 0;
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    let text = String::from_utf8_lossy(&buffer);
                    let body = if text.starts_with("PUT") {
                        "{}"
                    } else {
                        "{\"members\":[]}"
                    };
                    requests += 1;
                    if requests == 20 {
                        stalled.fetch_add(1, Ordering::Relaxed);
                        clock.sleep(std::time::Duration::from_millis(300)).await;
                    }
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    if stream.write_all((head + body).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn errors_are_counted_by_kind() {
    let fake = node(|number| if number % 2 == 0 { 200 } else { 503 }).await;
    let report = report(&fake, "--clients 2 --duration 200ms --warmup 0s").await;
    let errors = report["errors"].as_u64().unwrap();
    assert!(errors > 0);
    assert_eq!(report["errors_by_kind"]["status 503"], errors);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_an_error() {
    let fake = node(|_| 200).await;
    let typed = fake.types("bench --endpoints 127.0.0.1:1").await;
    assert_eq!(typed.code, 5);
    let typed = fake.types("bench --leader-only --duration 100ms").await;
    assert_eq!(typed.code, 5, "no member leads");
}

#[tokio::test]
async fn reports_are_readable_too() {
    let fake = node(|_| 200).await;
    let typed = fake
        .types("bench --clients 1 --duration 50ms --warmup 0s")
        .await;
    assert!(typed.out.contains("throughput_per_s  "), "{}", typed.out);
}
