//! The command line against the real HTTP door, with a map behind it instead of a cluster: both speak the same language.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run in the real world: #[tokio::test] builds a runtime"
)]

use super::fake::Fake;
use crate::api::fake::World;
use serde_json::Value;

/// A door, and a terminal in front of it.
async fn door() -> (World, Fake) {
    let world = World::new().await;
    let mut terminal = Fake::new(|_| (500, String::new())).await;
    terminal.address.clone_from(&world.address);
    (world, terminal)
}

#[tokio::test]
async fn keys_are_written_read_listed_and_removed() {
    let (_world, terminal) = door().await;
    let put = terminal.types("kv put a/b?c hello --if-absent").await;
    assert_eq!(
        (put.code, put.out.as_str()),
        (0, "revision 1, version 1\n"),
        "{put:?}"
    );
    let again = terminal.types("kv put a/b?c hello --if-absent").await;
    assert_eq!(again.code, 4, "{again:?}");
    assert_eq!(terminal.types("kv get a/b?c").await.out, "hello\n");
    assert_eq!(terminal.types("kv get nobody").await.code, 3);
    let long = terminal.types("kv get a/b?c --long").await;
    assert!(long.out.contains("mod_revision     1"), "{}", long.out);
    let bounded = terminal
        .types("kv get a/b?c --consistency bounded --max-age 5s --output json")
        .await;
    assert_eq!(bounded.code, 0, "{bounded:?}");
    let list = terminal.types("kv range a/ --limit 5").await;
    assert!(
        list.out.contains("a/b?c  hello  1        1         -"),
        "{}",
        list.out
    );
    assert_eq!(terminal.types("kv range --count-only").await.out, "1\n");
    assert_eq!(
        terminal.types("kv range --start a --keys-only").await.out,
        "a/b?c\n"
    );
    let gone = terminal.types("kv delete a/ --prefix --prev").await;
    assert!(
        gone.out.starts_with("1 key removed\nbefore:\nKEY"),
        "{}",
        gone.out
    );
}

#[tokio::test]
async fn transactions_and_leases_are_understood() {
    let (_world, mut terminal) = door().await;
    let text = "if lock version = 0\nthen put lock me\nthen get lock\nelse get lock\n";
    terminal.files.insert("t".into(), text.into());
    let first = terminal.types("kv txn t").await;
    assert_eq!(first.code, 0, "{first:?}");
    assert!(
        first.out.contains("1. put: version 1\n2. get:\nKEY"),
        "{}",
        first.out
    );
    assert_eq!(terminal.types("kv txn t").await.code, 4);
    let lease = terminal.types("lease grant 10s").await;
    assert!(lease.out.contains("10000 ms to live"), "{lease:?}");
    assert_eq!(terminal.types("kv compact 1").await.code, 0);
}

#[tokio::test]
async fn a_watch_sees_what_happened() {
    let (_world, terminal) = door().await;
    for line in ["kv put w/a 1", "kv put x 2", "kv delete w/a"] {
        assert_eq!(terminal.types(line).await.code, 0);
    }
    let seen = terminal
        .types("kv watch w/ --prefix --from 1 --count 2")
        .await;
    assert_eq!(
        seen.out, "1  put     w/a  1\n3  delete  w/a\n",
        "{}",
        seen.err
    );
}

#[tokio::test]
async fn the_cluster_is_told_and_changed() {
    let (_world, terminal) = door().await;
    let info = terminal.types("cluster info").await;
    assert!(info.out.contains("leader         n1 (1)"), "{}", info.out);
    let add = terminal
        .types("cluster members add n3 --peer h:1 --http h:2")
        .await;
    assert!(add.out.contains("promote 9"), "{}", add.out);
    assert_eq!(terminal.types("cluster members promote n2").await.code, 0);
    assert_eq!(
        terminal.types("cluster transfer n2").await.out,
        "member 2 leads\n"
    );
    assert_eq!(terminal.types("cluster transfer 4").await.code, 4);
    let snapshot = terminal.types("cluster snapshot").await;
    assert!(
        snapshot.out.contains("file      4.snap"),
        "{}",
        snapshot.out
    );
    let health = terminal
        .types("cluster health --output json --timeout 2s")
        .await;
    assert_eq!(health.code, 7, "the members' addresses lead nowhere");
    let told: Value = serde_json::from_str(&health.out).unwrap();
    assert_eq!(told["members"][1]["status"], "unreachable");
}

#[tokio::test]
async fn the_load_generator_speaks_to_the_door() {
    let (_world, terminal) = door().await;
    let typed = terminal
        .types(
            "bench --clients 8 --duration 300ms --warmup 50ms --op mixed --keys 20 --output json",
        )
        .await;
    assert_eq!(typed.code, 0, "{typed:?}");
    let report: Value = serde_json::from_str(&typed.out).unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    assert!(report["operations"].as_u64().unwrap() > 20, "{report}");
}
