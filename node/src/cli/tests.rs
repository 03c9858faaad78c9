//! Commands typed against a fake server: what is asked, what is printed, how they end. Help is a golden text.
//!
//! `SEAWORTHY_GOLDEN=1 cargo test -p node help` writes the golden text anew; a person reads the difference.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run in the real world: #[tokio::test] builds a runtime, golden texts are files"
)]

use super::args::{Cli, duration};
use super::fake::{Asked, Fake};
use crate::error::{Code, Error, Leader};
use crate::types::NodeId;
use clap::CommandFactory;
use serde_json::{Value, json};
use std::time::Duration;

fn ok(value: Value) -> (u16, String) {
    (200, value.to_string())
}

fn refused(error: Error) -> (u16, String) {
    (
        error.code.http_status(),
        serde_json::to_string(&error).unwrap(),
    )
}

fn member(id: u64, role: &str, http: &str) -> Value {
    json!({"id": id, "name": format!("n{id}"), "peer": format!("h{id}:9"), "http": http,
           "incarnation": "00", "role": role, "match_index": 7, "replication_lag": id - 1, "active": true})
}

/// A cluster of two, both at the same address.
fn cluster(asked: &Asked, http: &str) -> (u16, String) {
    match asked.line.as_str() {
        "GET /v1/cluster" => ok(
            json!({"cluster_id": "ab", "id": 1, "name": "n1", "leader": 1, "term": 3, "commit_index": 7,
            "applied_index": 7, "revision": 5, "members": [member(1, "leader", http), member(2, "follower", http)]}),
        ),
        "GET /health" => ok(
            json!({"status": "degraded", "components": {"raft": {"status": "healthy", "message": "leader"},
            "storage": {"status": "degraded", "message": "disk nearly full"}}}),
        ),
        "POST /v1/cluster/members" => ok(json!({"id": 4})),
        "POST /v1/cluster/transfer" => ok(json!({"id": 2})),
        "DELETE /v1/cluster/members/2" | "POST /v1/cluster/members/2/promote" => {
            ok(json!({"id": 2}))
        }
        "POST /v1/admin/snapshot" => ok(
            json!({"snapshot": "a.snap", "index": 7, "revision": 5, "bytes": 2048,
            "checksum": "ff"}),
        ),
        other => panic!("nobody asks {other}"),
    }
}

async fn cluster_fake() -> Fake {
    // The address is only known once the server listens; the members repeat the host they are asked by.
    let slot = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let http = std::sync::Arc::clone(&slot);
    let fake = Fake::new(move |asked| cluster(asked, &http.lock().unwrap().clone())).await;
    slot.lock().unwrap().clone_from(&fake.address);
    fake
}

#[tokio::test]
async fn put_sends_the_value_and_its_conditions() {
    let fake = Fake::new(|_| ok(json!({"revision": 9, "index": 12, "version": 2}))).await;
    let typed = fake
        .types("kv put config/mode fast --if-version 1 --prev")
        .await;
    assert_eq!((typed.code, typed.err.as_str()), (0, ""));
    assert_eq!(typed.out, "revision 9, version 2\n");
    let asked = fake.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.line, "PUT /v1/kv/config/mode?if_version=1&prev=true");
    assert_eq!(asked.body, "fast");
}

#[tokio::test]
async fn values_come_from_standard_input_too() {
    let mut fake = Fake::new(|_| ok(json!({"revision": 1, "version": 1}))).await;
    fake.files.insert("-".into(), "from a pipe".into());
    assert_eq!(fake.types("kv put a -").await.code, 0);
    assert_eq!(fake.asked.lock().unwrap()[0].body, "from a pipe");
}

fn record() -> Value {
    json!({"key": "a", "value": "hello", "version": 2, "create_revision": 3, "mod_revision": 4,
           "lease": 0, "revision": 9, "applied_index": 12})
}

#[tokio::test]
async fn get_prints_the_value_or_all_of_it() {
    let fake = Fake::new(|_| ok(record())).await;
    assert_eq!(fake.types("kv get a").await.out, "hello\n");
    assert_eq!(fake.types("kv get a --raw").await.out, "hello");
    let long = fake
        .types("kv get a --long --consistency bounded --max-age 2s")
        .await;
    assert!(long.out.contains("mod_revision     4\n"), "{}", long.out);
    let json = fake.types("kv get a --output json").await;
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap(), record());
    assert_eq!(
        fake.lines()[2],
        "GET /v1/kv/a?consistency=bounded&max_age_ms=2000"
    );
}

#[tokio::test]
async fn range_prints_a_table() {
    let fake = Fake::new(|_| {
        ok(json!({"kvs": [
            {"key": "a", "value": "1", "version": 1, "mod_revision": 3, "lease": 0},
            {"key": "ab", "value_base64": "/w==", "version": 12, "mod_revision": 5, "lease": 8},
        ], "more": true, "count": 9}))
    })
    .await;
    let typed = fake.types("kv range a --limit 2").await;
    assert_eq!(
        typed.out,
        "KEY  VALUE  VERSION  REVISION  LEASE\n\
         a    1      1        3         -\n\
         ab   \\xff   12       5         8\n\
         there is more: --after ab\n"
    );
    assert_eq!(fake.types("kv range --count-only").await.out, "9\n");
    assert_eq!(fake.types("kv ls --keys-only").await.out, "a\nab\n");
    assert_eq!(fake.lines()[0], "GET /v1/kv?prefix=a&limit=2");
    assert_eq!(fake.lines()[1], "GET /v1/kv?count_only=true");
}

#[tokio::test]
async fn delete_takes_a_key_or_a_prefix() {
    let fake = Fake::new(|_| ok(json!({"revision": 1, "index": 2, "deleted": 3}))).await;
    assert_eq!(
        fake.types("kv delete a/ --prefix").await.out,
        "3 keys removed\n"
    );
    assert_eq!(fake.types("kv rm a").await.code, 0);
    assert_eq!(
        fake.lines(),
        ["DELETE /v1/kv?prefix=a%2F", "DELETE /v1/kv/a"]
    );
}

#[tokio::test]
async fn txn_says_which_branch_was_done() {
    let mut fake = Fake::new(|asked| {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        let held = body["compare"].as_array().unwrap().is_empty();
        ok(json!({"revision": 4, "index": 5, "succeeded": held,
                  "results": [{"put": {"version": 1, "create_revision": 4}}]}))
    })
    .await;
    fake.files.insert("-".into(), "then put a 1\n".into());
    let typed = fake.types("kv txn").await;
    assert_eq!(typed.code, 0);
    assert_eq!(
        typed.out,
        "the comparisons hold: `then` was done; revision 4\n1. put: version 1\n"
    );
    fake.files
        .insert("t".into(), "if a version = 7\nelse get a".into());
    assert_eq!(fake.types("kv txn t").await.code, 4);
    fake.files.insert("t".into(), "{\"compare\": [".into());
    assert_eq!(fake.types("kv txn t").await.code, 2);
    assert_eq!(fake.types("kv txn absent").await.code, 2);
}

#[tokio::test]
async fn leases_are_granted_in_milliseconds() {
    let fake = Fake::new(|_| ok(json!({"id": 17, "ttl_ms": 30_000, "revision": 1}))).await;
    let typed = fake.types("lease grant 30s").await;
    assert_eq!(typed.out, "lease 17, 30000 ms to live\n");
    assert_eq!(fake.asked.lock().unwrap()[0].body, "{\"ttl_ms\":30000}");
    assert_eq!(fake.types("lease keepalive 17").await.code, 0);
    assert_eq!(fake.types("lease revoke 17").await.code, 0);
    assert_eq!(
        fake.lines()[1..],
        ["POST /v1/leases/17/keepalive", "DELETE /v1/leases/17"]
    );
}

#[tokio::test]
async fn every_kind_of_failure_has_its_exit_code() {
    for (code, exit) in [
        (Code::NotFound, 3),
        (Code::PreconditionFailed, 4),
        (Code::Compacted, 1),
        (Code::InvalidArgument, 2),
    ] {
        let fake = Fake::new(move |_| refused(Error::new(code, "so it is").hint("do this"))).await;
        let typed = fake.types("kv get a").await;
        assert_eq!(typed.code, exit, "{code:?}");
        assert_eq!(typed.err, "error: so it is\n  do this\n");
        let json = fake.types("kv get a --output json").await;
        let error: Value = serde_json::from_str(&json.err).unwrap();
        assert_eq!(error["error"]["message"], "so it is");
        assert_eq!(fake.lines().len(), 2, "nothing is asked twice");
    }
}

#[tokio::test]
async fn no_leader_is_waited_for_until_the_time_is_up() {
    let fake = Fake::new(|_| refused(Error::new(Code::NoLeader, "no leader"))).await;
    let typed = fake.types("kv put a 1 --timeout 500ms").await;
    assert_eq!(typed.code, 5);
    assert!(fake.lines().len() > 1);
}

#[tokio::test]
async fn unknown_outcomes_are_not_asked_again() {
    let fake = Fake::new(|_| refused(Error::new(Code::Timeout, "lost").unknown())).await;
    let typed = fake.types("kv put a 1").await;
    assert_eq!(typed.code, 6);
    assert!(typed.err.contains("read before trying again"));
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test]
async fn the_leader_is_asked_when_a_node_names_it() {
    let right = Fake::new(|_| ok(json!({"revision": 1, "version": 1}))).await;
    let leader = Leader {
        id: NodeId(2),
        name: "n2".into(),
        http: right.address.clone(),
    };
    let error = Error::new(Code::NotLeader, "not me").leader(Some(leader));
    let wrong = Fake::new(move |_| refused(error.clone())).await;
    assert_eq!(wrong.types("kv put a 1").await.code, 0);
    assert_eq!(right.lines().len(), 1);
}

#[tokio::test]
async fn dead_endpoints_are_passed_over() {
    let mut fake = Fake::new(|_| ok(record())).await;
    let endpoints = format!("http://127.0.0.1:1,http://{}", fake.address);
    fake.variables
        .insert("SEAWORTHY_ENDPOINTS".into(), endpoints);
    assert_eq!(fake.types("kv get a").await.code, 0);
    let typed = fake.types("kv put a 1 --endpoints 127.0.0.1:1").await;
    assert_eq!(typed.code, 5);
    assert!(typed.err.contains("cannot reach 127.0.0.1:1"));
    assert!(typed.err.contains("seaworthy dev"));
}

#[tokio::test]
async fn watch_prints_changes_and_goes_on_where_it_broke() {
    let fake = Fake::new(|asked| {
        let event = |id: &str, kind: &str, key: &str, revision: u64| {
            let data = json!({"key": key, "value": "v", "mod_revision": revision});
            format!("{id}event: {kind}\ndata: {data}\n\n")
        };
        let first = event("id: 5\n", "put", "a", 5) + &event("", "put", "b", 6);
        let second = event("", "put", "b", 6)
            + &event("id: 6\n", "delete", "c", 6)
            + "id: 7\nevent: progress\ndata: {\"revision\":7}\n\n"
            + "event: error\ndata: {\"code\":\"shutting_down\",\"message\":\"x\",\"retryable\":true,\"outcome_unknown\":false}\n\n";
        let third = event("id: 9\n", "put", "d", 9);
        let text = match asked.line.as_str() {
            "GET /v1/watch?prefix=x%2F&from=5" => first,
            "GET /v1/watch?prefix=x%2F&from=6" => second,
            "GET /v1/watch?prefix=x%2F&from=8" => third,
            other => panic!("nobody asks {other}"),
        };
        (200, text)
    })
    .await;
    let typed = fake.types("kv watch x/ --prefix --from 5 --count 4").await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    assert_eq!(
        typed.out,
        "5  put     a  v\n6  put     b  v\n6  delete  c\n9  put     d  v\n"
    );
    let json = fake
        .types("kv watch x/ --prefix --from 5 --count 1 --output json")
        .await;
    let event: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(event["event"], "put");
    assert_eq!(event["revision"], 5);
}

#[tokio::test]
async fn a_compacted_watch_says_what_to_do() {
    let fake = Fake::new(|_| {
        (
            200,
            "event: compacted\ndata: {\"compacted\":9}\n\n".to_owned(),
        )
    })
    .await;
    let typed = fake.types("kv watch a --from 1").await;
    assert_eq!(typed.code, 1);
    assert!(typed.err.contains("compacted away"), "{}", typed.err);
}

#[tokio::test]
async fn cluster_info_and_members_are_tables() {
    let fake = cluster_fake().await;
    let http = &fake.address;
    let info = fake.types("cluster info").await;
    assert!(
        info.out
            .contains(&format!("leader         n1 (1) at {http}\n")),
        "{}",
        info.out
    );
    let members = fake.types("cluster members").await;
    let lines: Vec<&str> = members.out.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("ID  NAME  ROLE      LAG  ACTIVE  HTTP"));
    assert!(lines[2].starts_with("2   n2    follower  1    yes     "));
}

#[tokio::test]
async fn members_are_changed_by_id_or_name() {
    let fake = cluster_fake().await;
    let added = fake
        .types("cluster members add n4 --peer h:1 --http h:2")
        .await;
    assert!(added.out.contains("promote 4"), "{}", added.out);
    assert_eq!(fake.types("cluster members promote n2").await.code, 0);
    assert_eq!(fake.types("cluster members remove 2").await.code, 0);
    assert_eq!(
        fake.types("cluster transfer n2").await.out,
        "member 2 leads\n"
    );
    let typed = fake.types("cluster members remove n9").await;
    assert_eq!(typed.code, 3);
    assert!(
        typed.err.contains("the members are n1, n2"),
        "{}",
        typed.err
    );
    let snapshot = fake.types("cluster snapshot").await;
    assert!(
        snapshot.out.contains("size      2.0 KiB"),
        "{}",
        snapshot.out
    );
}

#[tokio::test]
async fn health_tells_who_is_unwell_and_exits_7() {
    let fake = cluster_fake().await;
    let typed = fake.types("cluster health").await;
    assert_eq!(typed.code, 7);
    assert!(
        typed.out.contains("storage: disk nearly full"),
        "{}",
        typed.out
    );
    assert!(typed.out.ends_with("not all are well; n1 leads\n"));
    let nobody = fake
        .types("cluster health --endpoints 127.0.0.1:1 --timeout 1s")
        .await;
    assert_eq!(nobody.code, 7);
    assert!(nobody.out.contains("unreachable"), "{}", nobody.out);
}

const CONFIG: &str = "name = \"n1\"\ndata_dir = \"/d\"\n[listen]\nhttp = \"h:1\"\npeer = \"h:2\"\n";

#[tokio::test]
async fn config_check_tells_findings_and_exits_7() {
    let mut fake = Fake::new(|_| ok(Value::Null)).await;
    fake.files.insert("good".into(), CONFIG.into());
    fake.files
        .insert("bad".into(), CONFIG.replace("http", "htpp"));
    let good = fake.types("config check --config good").await;
    assert_eq!(
        (good.code, good.out.as_str()),
        (0, "the configuration is fine\n")
    );
    let bad = fake.types("config check --config bad").await;
    assert_eq!(bad.code, 7);
    assert!(
        bad.out.contains("bad:4:1: unknown key `listen.htpp`"),
        "{}",
        bad.out
    );
    assert!(bad.out.contains("did you mean `listen.http`?"));
    let validate = fake.types("server --config bad --validate").await;
    assert_eq!(validate, bad);
    let server = fake.types("server --config bad").await;
    assert_eq!(server.code, 2);
    let absent = fake.types("config check --config absent").await;
    assert_eq!(absent.code, 2);
}

#[tokio::test]
async fn config_show_says_where_values_come_from() {
    let mut fake = Fake::new(|_| ok(Value::Null)).await;
    fake.files.insert("good".into(), CONFIG.into());
    fake.variables
        .insert("SEAWORTHY_CONFIG".into(), "good".into());
    fake.variables
        .insert("SEAWORTHY_LISTEN__HTTP".into(), "h:3".into());
    let typed = fake.types("config show --set log.format=json").await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    let row = |key: &str| {
        let line = typed.out.lines().find(|line| line.starts_with(key));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        words[1..].join(" ")
    };
    assert_eq!(row("name"), "n1 file, line 1");
    assert_eq!(row("listen.http"), "h:3 SEAWORTHY_LISTEN__HTTP");
    assert_eq!(row("log.format"), "json --set");
    assert_eq!(row("profile"), "edge default");
}

#[tokio::test]
async fn a_manager_s_token_comes_from_a_flag_or_a_file_and_is_not_shown() {
    let mut fake = Fake::new(|_| ok(Value::Null)).await;
    fake.files.insert("good".into(), CONFIG.into());
    fake.files.insert("empty".into(), " \n".into());
    let join = "--config good --join --member n2=i:2/i:1";
    let shown = fake
        .types(&format!("config show {join} --token swt-very"))
        .await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.contains("(hidden)"), "{}", shown.out);
    assert!(!shown.out.contains("very"), "{}", shown.out);
    for (line, code, words) in [
        (
            format!("server {join} --token-file empty"),
            2,
            "holds no token",
        ),
        (
            format!("server {join} --token-file absent"),
            2,
            "cannot read absent",
        ),
        (
            format!("server {join} --token a --token-file b"),
            2,
            "cannot be used with",
        ),
        (
            "server --config good --token a".into(),
            2,
            "is not to join any",
        ),
        (format!("server {join} --token a"), 1, ""), // There is no host in a test.
    ] {
        let typed = fake.types(&line).await;
        assert_eq!(typed.code, code, "{line}: {typed:?}");
        assert!(typed.err.contains(words), "{line}: {}", typed.err);
    }
}

#[tokio::test]
async fn wrong_lines_are_usage_errors() {
    let fake = Fake::new(|_| ok(Value::Null)).await;
    for line in [
        "",
        "frobnicate",
        "kv put a",
        "kv get a --timeout never",
        "kv get a --endpoints https://a",
        "bench --clients 0",
    ] {
        let typed = fake.types(line).await;
        assert_eq!(typed.code, 2, "{line}: {typed:?}");
        assert!(!typed.err.is_empty());
    }
    assert_eq!(fake.types("--help").await.code, 0);
    assert_eq!(fake.types("version").await.out, "seaworthy 0.1.0\n");
    assert_eq!(
        fake.types("dev").await.code,
        1,
        "there is no host in a test"
    );
    for shell in ["bash", "zsh", "fish"] {
        let typed = fake.types(&format!("completion {shell}")).await;
        assert!(typed.out.contains("seaworthy"), "{shell}");
    }
}

#[tokio::test]
async fn a_silent_node_is_turned_away_from_when_reading() {
    let mut fake = Fake::new(|_| ok(record())).await;
    // It takes connections and never says a word.
    let silent = fake.env.net.listen("127.0.0.1:0").await.unwrap();
    let endpoints = format!("{},{}", silent.local_address(), fake.address);
    fake.variables
        .insert("SEAWORTHY_ENDPOINTS".into(), endpoints);
    assert_eq!(fake.types("kv get a --timeout 400ms").await.code, 0);
    let put = fake.types("kv put a 1 --timeout 400ms").await;
    assert_eq!(put.code, 6, "what the silent node did is not known");
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test]
async fn commands_run_as_tasks() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let fake = Fake::new(|_| ok(record())).await;
    let typed = is_send(fake.types("kv get a")).await;
    assert_eq!(typed.code, 0);
}

#[test]
fn durations_are_read() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
    assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
    for wrong in ["", "s", "5 s", "-1s", "5d", "1e400s"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn nobody_waits_for_no_time_at_all() {
    let typed = |time| {
        Cli::command().try_get_matches_from(["seaworthy", "--timeout", time, "kv", "get", "a"])
    };
    assert!(typed("1ms").is_ok());
    let said = typed("0s").unwrap_err().to_string();
    assert!(said.contains("no time to wait"), "{said}");
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_is_as_recorded() {
    let mut text = String::new();
    let mut root = Cli::command();
    root.build();
    help(&mut root, "seaworthy", &mut text);
    if std::env::var("SEAWORTHY_GOLDEN").is_ok() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/help.golden");
        std::fs::write(file, &text).unwrap();
    }
    let recorded = include_str!("help.golden");
    assert_eq!(text, recorded, "run with SEAWORTHY_GOLDEN=1 to record");
}

/// The short help of a command and of everything below it.
fn help(command: &mut clap::Command, name: &str, text: &mut String) {
    text.push_str(&format!("$ {name} -h\n{}\n", command.render_help()));
    for below in command.get_subcommands_mut() {
        if below.get_name() != "help" {
            help(below, &format!("{name} {}", below.get_name()), text);
        }
    }
}
