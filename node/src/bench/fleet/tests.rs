//! The fleet's bench against a real node.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run in the real world: #[tokio::test] builds a runtime"
)]

use crate::cli::fake::{Fake, Typed};
use crate::config::Config;
use crate::handle::{Consistency, Handle};
use crate::knobs::Knobs;
use crate::rt::real;
use crate::types::Role;
use serde_json::{Value, json};
use std::time::Duration;

/// What the cluster has: services, workers, tokens.
async fn left(handle: &Handle) -> (usize, usize, usize) {
    let read = handle.read_fleet(Consistency::Linearizable, None).await;
    let (fleet, _) = read.unwrap();
    let (snapshot, tokens) = (&fleet.snapshot, &fleet.tokens);
    (
        snapshot.services.len(),
        snapshot.workers.len(),
        tokens.len(),
    )
}

fn lines(typed: &Typed) -> Vec<Value> {
    assert_eq!(typed.code, 0, "{}", typed.err);
    let report: Value = serde_json::from_str(&typed.out).unwrap();
    assert_eq!(report["worker_troubles"], json!({}), "{report}");
    report["lines"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_phase_is_measured_and_nothing_is_left() {
    let (home, env) = (tempfile::tempdir().unwrap(), real::env("n1").unwrap());
    let running = crate::node::start(env.clone(), Config::lone(home.path()), Knobs::default());
    let running = running.await.unwrap();
    let handle = running.handle.clone();
    let mut status = handle.follow_status();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    let limit = Duration::from_secs(20);
    env.clock.timeout(limit, leads).await.unwrap().unwrap();
    let mut terminal = Fake::new(|_| (500, String::new())).await;
    terminal.address.clone_from(&running.http_address);

    let line =
        "bench fleet --workers 5 --tasks 1,12 --services 6 --clients 3 --duration 1s --output json";
    let all = lines(&terminal.types(line).await);
    let counts: Vec<_> = all
        .iter()
        .map(|one| one["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts[0], 5, "{all:?}");
    assert!(
        (4..=6).contains(&counts[1]),
        "heartbeats of a second: {all:?}"
    );
    assert_eq!(counts[2..6], [20, 20, 12, 12], "{all:?}");
    assert_eq!(counts[6..12], [6; 6], "{all:?}");
    assert!(all.iter().all(|one| one["errors"] == 0), "{all:?}");
    assert!(all[4]["p50_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(left(&handle).await, (0, 0, 0));

    let requests =
        "bench fleet --workers 1 --tasks 1 --services 6 --copies 0 --duration 1s --output json";
    let requests = lines(&terminal.types(requests).await);
    let whats: Vec<_> = requests[4..7].iter().map(|one| &one["what"]).collect();
    assert_eq!(
        whats,
        ["services created", "services updated", "services removed"]
    );
    assert!(
        requests[4..7].iter().all(|one| one["count"] == 6),
        "{requests:?}"
    );
    assert_eq!(left(&handle).await, (0, 0, 0));

    let spec = json!({ "name": "web", "command": ["web"] }).to_string();
    let mut desk = terminal;
    desk.files.insert("web.json".into(), spec);
    let created = desk.types("service create --file web.json").await;
    assert_eq!(created.code, 0, "{created:?}");
    let refused = desk.types("bench fleet").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("web"), "{refused:?}");
    handle.stop("test").await;
    assert!(!running.ended().await.poisoned);
}
