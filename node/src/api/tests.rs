//! The door as a well-behaved client sees it, against a loop of our own; and the OpenAPI document against the routes.
#![expect(
    clippy::disallowed_methods,
    reason = "each test builds the runtime it runs on"
)]

use super::fake::{World, status};
use super::health::{judge, not_ready};
use super::routes::matches;
use super::table::{self, Answer};
use super::wire::Health;
use crate::error::Code;
use crate::handle::Condition;
use crate::types::{Index, NodeId};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is wrong with `value` according to `schema`, if anything.
fn mismatch(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.trim_start_matches('#'));
        let found = found.unwrap_or_else(|| panic!("{reference} leads nowhere"));
        return mismatch(document, found, value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices
            .iter()
            .filter(|choice| mismatch(document, choice, value).is_none());
        return (fits.count() != 1).then(|| format!("{value} is not one of the choices"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Some(format!("{value} is not one of {words:?}"));
    }
    let right = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("unknown type {other}"),
    };
    if !right {
        return Some(format!("{value} is not of type {}", schema["type"]));
    }
    if let Some(items) = value.as_array() {
        return items
            .iter()
            .find_map(|item| mismatch(document, &schema["items"], item));
    }
    let fields = value.as_object()?;
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Some(format!("{name} is missing in {value}"));
        }
    }
    for (name, field) in fields {
        match schema["properties"].get(name) {
            Some(schema) => {
                if let Some(wrong) = mismatch(document, schema, field) {
                    return Some(format!("{name}: {wrong}"));
                }
            }
            None if schema["additionalProperties"] == json!(false) => {
                return Some(format!("{name} is not in the schema"));
            }
            None => {}
        }
    }
    None
}

/// Asserts that `value` is what the document says of `schema`.
pub(super) fn fits(schema: &str, value: &Value) {
    let document = super::openapi();
    let reference = json!({ "$ref": format!("#/components/schemas/{schema}") });
    if let Some(wrong) = mismatch(&document, &reference, value) {
        panic!("{schema}: {wrong}");
    }
}

/// A request that each route takes, by its name in the document.
fn sample(id: &str) -> (&'static str, &'static str) {
    match id {
        "putKey" => ("/v1/kv/a/b?prev=true", "one"),
        "getKey" => ("/v1/kv/a/b", ""),
        "deleteKey" => ("/v1/kv/a/b?prev", ""),
        "getRange" => ("/v1/kv?prefix=a", ""),
        "deleteRange" => ("/v1/kv?prefix=zz", ""),
        "transact" => (
            "/v1/txn",
            r#"{"compare":[{"key":"t","number":0}],"success":[{"put":{"key":"t","value":"1"}},{"get":{"key":"t"}},{"delete":{"key":"t","prev":true}}]}"#,
        ),
        "compact" => ("/v1/compact", r#"{"revision":0}"#),
        "grantLease" => ("/v1/leases", r#"{"ttl_ms":1000}"#),
        "keepLease" => ("/v1/leases/3/keepalive", ""),
        "revokeLease" => ("/v1/leases/3", ""),
        "openSession" => ("/v1/sessions", ""),
        "closeSession" => ("/v1/sessions/3", ""),
        "watch" => ("/v1/watch", ""),
        "showCluster" => ("/v1/cluster", ""),
        "addMember" => (
            "/v1/cluster/members",
            r#"{"name":"n3","peer":"h:1","http":"h:2"}"#,
        ),
        "removeMember" => ("/v1/cluster/members/2", ""),
        "promoteMember" => ("/v1/cluster/members/2/promote", ""),
        "transferLeadership" => ("/v1/cluster/transfer", ""),
        "cutSnapshot" => ("/v1/admin/snapshot", ""),
        "health" => ("/health", ""),
        "ready" => ("/health/ready", ""),
        "live" => ("/health/live", ""),
        "metrics" => ("/metrics", ""),
        "stats" => ("/stats", ""),
        "openapi" => ("/openapi.json", ""),
        "runbookNodes" => ("/cluster/nodes", ""),
        "runbookLeader" => ("/cluster/leader", ""),
        "runbookSnapshot" => ("/admin/snapshot", ""),
        "raftState" => ("/raft/state", ""),
        "workerHello" => (
            "/v1/workers/hello",
            r#"{"token":"t","machine":{"name":"w1","address":"h:1","platform":"linux/amd64","capacity":{}},"hello":{"identity":
            {"cluster":"0","worker":0,"life":"7"},"epoch":0,"revision":0,"is_anew":true,"tasks":{},"newest_report":0}}"#,
        ),
        "workerBeat" => (
            "/v1/workers/beat",
            r#"{"call":"beat","worker":1,"number":2,"epoch":3,"revision":4}"#,
        ),
        "workerReport" => (
            "/v1/workers/report",
            r#"{"worker":1,"epoch":3,"life":"7","reports":[{"number":5,"task":6,"state":"running","attempts":1,"message":""}]}"#,
        ),
        "workerAssignments" => (
            "/v1/workers/900/assignments?epoch=1&revision=0&wait_ms=10",
            "",
        ),
        other => super::fleet_tests::sample(other),
    }
}

#[tokio::test]
async fn every_route_answers_as_the_document_says() {
    let world = World::new().await;
    super::fleet_tests::settle(&world).await;
    super::fleet_tests::seal(&world).await;
    for route in table::all() {
        let (target, body) = sample(route.id);
        let path = target.split('?').next().unwrap();
        assert!(matches(route.path, path), "{target} is not {}", route.path);
        let (schema, status, text) = match route.answer {
            Answer::Events => continue,
            Answer::Metrics => {
                let (status, text) = world.ask(route.method.as_str(), target, b"").await;
                assert!(text.contains("# TYPE seaworthy_raft_term gauge"), "{text}");
                assert_eq!(status, 200);
                continue;
            }
            Answer::Json(schema) | Answer::JsonOrBytes(schema) => {
                let (status, value) = world.json(route.method.as_str(), target, body).await;
                (schema, status, value)
            }
        };
        assert_eq!(status, 200, "{}: {text}", route.id);
        fits(schema, &text);
    }
    world.end().await;
}

#[tokio::test]
async fn document_and_routes_are_the_same_set() {
    let document = super::openapi();
    let mut documented = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            documented.push((method.to_uppercase(), path.clone()));
            for response in operation["responses"].as_object().unwrap().values() {
                for content in response["content"].as_object().unwrap().values() {
                    if let Some(reference) = content["schema"]["$ref"].as_str() {
                        let found = document.pointer(reference.trim_start_matches('#'));
                        assert!(found.is_some(), "{reference} leads nowhere");
                    }
                }
            }
        }
    }
    let mut served: Vec<_> = table::all()
        .map(|route| (route.method.to_string(), route.path.replace("{*", "{")))
        .collect();
    documented.sort();
    served.sort();
    assert_eq!(documented, served);
    // Every documented operation reaches a handler: none is a 404 or 405.
    let world = World::new().await;
    for (method, path) in documented {
        if path == "/v1/watch" || path == "/v1/events/follow" {
            continue;
        }
        let target = path
            .replace("{key}", "k")
            .replace("{id}", "3")
            .replace("{name}", "n");
        let (status, text) = world.ask(&method, &target, b"").await;
        let lost = status == 405 || text.contains("no route");
        assert!(!lost, "{method} {target}: {status} {text}");
    }
    world.end().await;
}

#[tokio::test]
async fn keys_are_bytes_and_values_come_back_as_they_went_in() {
    let world = World::new().await;
    let (status, put) = world.json("PUT", "/v1/kv/a%2Fb/%FF?prev=1", "\u{1}x").await;
    assert_eq!((status, &put["version"]), (200, &json!(1)));
    let (_, got) = world.json("GET", "/v1/kv/a/b%2f%ff", "").await;
    assert_eq!(got["key_base64"], json!("YS9iL/8="));
    assert_eq!(got["value"], json!("\u{1}x"));
    let accept = "accept: application/octet-stream\r\n";
    let head =
        format!("GET /v1/kv/a/b/%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{accept}\r\n");
    let raw = world.raw(head.as_bytes()).await;
    assert!(raw.ends_with("\r\n\r\n\u{1}x"), "{raw}");
    assert!(raw.contains("seaworthy-mod-revision: 1"), "{raw}");
    assert!(raw.contains("seaworthy-node: n1"), "{raw}");
    let (status, error) = world.json("GET", "/v1/kv/none", "").await;
    assert_eq!((status, &error["code"]), (404, &json!("not_found")));
    world.end().await;
}

#[tokio::test]
async fn conditions_hold_or_refuse_with_the_current_state() {
    let world = World::new().await;
    let (status, _) = world.json("PUT", "/v1/kv/k?if_absent=true", "1").await;
    assert_eq!(status, 200);
    let (status, error) = world.json("PUT", "/v1/kv/k?if_absent=true", "2").await;
    assert_eq!(
        (status, &error["code"]),
        (412, &json!("precondition_failed"))
    );
    assert_eq!(error["retryable"], json!(false));
    assert_eq!(
        error["hint"],
        json!("the key has version 1 and modify revision 1")
    );
    let (status, _) = world.json("PUT", "/v1/kv/k?if_version=1", "2").await;
    assert_eq!(status, 200);
    let (status, _) = world.json("DELETE", "/v1/kv/k?if_version=1", "").await;
    assert_eq!(status, 412);
    world.end().await;
}

#[tokio::test]
async fn ranges_are_paged_without_gaps() {
    let world = World::new().await;
    for key in ["a", "a/1", "a/2", "a/3", "b"] {
        world.json("PUT", &format!("/v1/kv/{key}"), key).await;
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let target = format!("/v1/kv?prefix=a/&limit=2{after}");
        let (_, page) = world.json("GET", &target, "").await;
        let keys: Vec<String> = page["kvs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kv| kv["key"].as_str().unwrap().to_owned())
            .collect();
        after = format!("&after={}", keys.last().unwrap());
        seen.extend(keys);
        if page["more"] == json!(false) {
            break;
        }
    }
    assert_eq!(seen, ["a/1", "a/2", "a/3"]);
    let (_, count) = world.json("GET", "/v1/kv?count_only", "").await;
    assert_eq!((&count["count"], &count["kvs"]), (&json!(5), &json!([])));
    let (_, keys) = world
        .json("GET", "/v1/kv?start=a/2&keys_only=true", "")
        .await;
    assert_eq!(keys["kvs"].as_array().unwrap().len(), 3);
    assert!(keys["kvs"][0].get("value").is_none());
    let (_, gone) = world.json("DELETE", "/v1/kv?prefix=a", "").await;
    assert_eq!(gone["deleted"], json!(4));
    let (status, _) = world.json("DELETE", "/v1/kv", "").await;
    assert_eq!(
        status, 400,
        "a range delete without a range must not remove everything"
    );
    world.end().await;
}

#[tokio::test]
async fn nonsense_gets_the_one_error_shape() {
    let world = World::new().await;
    let cases: [(&str, &str, &str, u16, &str); 16] = [
        ("GET", "/helth", "", 404, "GET /health"),
        ("PATCH", "/v1/kv/a", "", 405, "PUT, GET, DELETE"),
        ("POST", "/health", "", 405, "it takes GET"),
        ("PUT", "/v1/kv/a?if_versoin=1", "", 400, "if_versoin"),
        ("PUT", "/v1/kv/a?if_version=x", "", 400, "whole number"),
        (
            "PUT",
            "/v1/kv/a?if_absent&if_version=1",
            "",
            400,
            "contradicts",
        ),
        ("GET", "/v1/kv/a%zz", "", 400, "%zz"),
        ("GET", "/v1/kv?prefix=%f", "", 400, "hex"),
        ("GET", "/v1/kv/a?consistency=maybe", "", 400, "bounded"),
        ("GET", "/v1/kv/a?max_age_ms=3", "", 400, "bounded"),
        ("GET", "/v1/kv?prefix=a&start=b", "", 400, "not both"),
        ("GET", "/v1/kv?limit=1&limit=2", "", 400, "twice"),
        ("POST", "/v1/txn", "{", 400, "JSON"),
        ("POST", "/v1/leases", r#"{"ttl":3}"#, 400, "ttl"),
        ("POST", "/v1/leases/x/keepalive", "", 400, "whole number"),
        ("POST", "/v1/leases/404/keepalive", "", 404, "LeaseNotFound"),
    ];
    for (method, target, body, status, word) in cases {
        let (given, error) = world.json(method, target, body).await;
        assert_eq!(given, status, "{method} {target}: {error}");
        fits("Error", &error);
        assert!(error.to_string().contains(word), "{target}: {error}");
        assert_eq!(error["outcome_unknown"], json!(false));
    }
    let half = "seaworthy-session: 3\r\n";
    let (status, error) = world.ask_with("PUT", "/v1/kv/a", half, b"").await;
    assert_eq!(status, 400, "{error}");
    world.end().await;
}

#[tokio::test]
async fn limits_on_key_value_and_body() {
    let world = World::new().await;
    let long = "k".repeat(5 << 10);
    let (status, error) = world.json("PUT", &format!("/v1/kv/{long}"), "").await;
    assert_eq!((status, &error["code"]), (413, &json!("too_large")));
    let value = vec![b'v'; (1 << 20) + 1];
    let (status, error) = world.ask("PUT", "/v1/kv/a", &value).await;
    assert!(status == 413 && error.contains("value"), "{status} {error}");
    let body = vec![b'v'; 2 << 20];
    let (status, error) = world.ask("PUT", "/v1/kv/a", &body).await;
    assert!(status == 413 && error.contains("body"), "{status} {error}");
    let fits = vec![b'v'; 1 << 20];
    assert_eq!(world.ask("PUT", "/v1/kv/a", &fits).await.0, 200);
    world.end().await;
}

#[tokio::test]
async fn sessions_do_a_repeated_write_once() {
    let world = World::new().await;
    let (_, opened) = world.json("POST", "/v1/sessions", "").await;
    let headers = format!(
        "seaworthy-session: {}\r\nseaworthy-seq: 1\r\n",
        opened["id"]
    );
    let (_, first) = world.ask_with("PUT", "/v1/kv/a", &headers, b"1").await;
    let (_, second) = world.ask_with("PUT", "/v1/kv/a", &headers, b"1").await;
    let first: Value = serde_json::from_str(&first).unwrap();
    let second: Value = serde_json::from_str(&second).unwrap();
    assert_eq!(first["version"], second["version"]);
    assert_eq!(
        (&first["replayed"], &second["replayed"]),
        (&json!(false), &json!(true))
    );
    let stranger = "seaworthy-session: 999\r\nseaworthy-seq: 1\r\n";
    let (status, error) = world.ask_with("PUT", "/v1/kv/a", stranger, b"1").await;
    assert!(
        status == 409 && error.contains("session_unknown"),
        "{error}"
    );
    world.end().await;
}

/// Opens a watch and gives what comes within a moment that satisfies `enough`.
async fn watched(world: &World, head: &str, enough: impl Fn(&str) -> bool) -> String {
    let mut stream = world.env.net.connect(&world.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = async {
        let mut part = [0; 4096];
        while !enough(&text) {
            let count = stream.read(&mut part).await.unwrap();
            assert!(count > 0, "the watch ended: {text}");
            text.push_str(&String::from_utf8_lossy(&part[..count]));
        }
    };
    let waited = world
        .env
        .clock
        .timeout(Duration::from_secs(3), reading)
        .await;
    assert!(waited.is_ok(), "not enough: {text}");
    text
}

#[tokio::test]
async fn watch_tells_history_then_news_then_progress() {
    let world = World::new().await;
    world.json("PUT", "/v1/kv/a", "1").await;
    let two = r#"{"success":[{"put":{"key":"b","value":"2"}},{"delete":{"key":"a"}}]}"#;
    world.json("POST", "/v1/txn", two).await;
    let head = "GET /v1/watch?from=1 HTTP/1.1\r\nhost: x\r\n\r\n";
    let text = watched(&world, head, |text| text.contains("event: progress")).await;
    let events = text.split_once("\r\n\r\n").unwrap().1;
    let first = events.find("id: 1\nevent: put").unwrap();
    let second = events.find("\nevent: put\ndata: {\"key\":\"b\"").unwrap();
    let third = events.find("id: 2\nevent: delete").unwrap();
    assert!(first < second && second < third, "{events}");
    assert!(
        events.contains("id: 2\nevent: progress\ndata: {\"revision\":2}"),
        "{events}"
    );
    assert_eq!(
        events.matches("id: 2\n").count(),
        events.matches("progress").count() + 1
    );
    let head = "GET /v1/watch?from=1&key=b HTTP/1.1\r\nhost: x\r\nlast-event-id: 1\r\n\r\n";
    let text = watched(&world, head, |text| text.contains("event: progress")).await;
    assert!(!text.contains("\"a\"") && text.contains("\"b\""), "{text}");
    world.json("POST", "/v1/compact", r#"{"revision":1}"#).await;
    let (status, error) = world.json("GET", "/v1/watch?from=1", "").await;
    assert_eq!((status, &error["code"]), (410, &json!("compacted")));
    world.end().await;
}

#[tokio::test]
async fn watch_ends_when_the_node_stops() {
    let world = World::new().await;
    let sender = std::sync::Arc::clone(&world.status);
    let head = "GET /v1/watch HTTP/1.1\r\nhost: x\r\n\r\n";
    let told = watched(&world, head, |text| {
        if text.contains("progress") {
            sender.send_modify(|status| status.condition = Condition::Stopping);
        }
        text.contains("event: error") && text.contains("shutting_down")
    });
    told.await;
    world.end().await;
}

#[tokio::test]
async fn runbook_names_answer_in_runbook_shapes() {
    let world = World::new().await;
    let (_, nodes) = world.json("GET", "/cluster/nodes", "").await;
    assert_eq!(
        nodes["nodes"][1],
        json!({ "id": 2, "address": "n2.invalid:7000", "suffrage": "Nonvoter" })
    );
    let (_, leader) = world.json("GET", "/cluster/leader", "").await;
    assert_eq!(
        leader,
        json!({ "leader": world.address, "state": "leader" })
    );
    let (_, snapshot) = world.json("POST", "/admin/snapshot", "").await;
    assert_eq!(
        (&snapshot["snapshot"], &snapshot["bytes"]),
        (&json!("4.snap"), &json!(100))
    );
    let (status, error) = world
        .json("POST", "/v1/cluster/transfer", r#"{"to":4}"#)
        .await;
    assert_eq!((status, &error["code"]), (409, &json!("conflict")));
    world.end().await;
}

#[tokio::test]
async fn health_follows_the_node() {
    let world = World::new().await;
    let (code, health) = world.json("GET", "/health", "").await;
    assert_eq!((code, &health["status"]), (200, &json!("healthy")));
    world.status.send_modify(|status| status.leader = NodeId(0));
    let (code, health) = world.json("GET", "/health", "").await;
    assert_eq!((code, &health["status"]), (200, &json!("degraded")));
    let (code, error) = world.json("GET", "/health/ready", "").await;
    assert_eq!((code, &error["code"]), (503, &json!("no_leader")));
    let reason = "disk gone".to_owned();
    world
        .status
        .send_modify(|status| status.condition = Condition::Poisoned { reason });
    assert_eq!(world.json("GET", "/health", "").await.0, 503);
    assert_eq!(world.json("GET", "/health/live", "").await.0, 503);
    world.end().await;
}

#[test]
fn judgement_names_the_part_that_is_ill() {
    let mut picture = status();
    assert!(not_ready(&picture).is_none());
    picture.read_only = true;
    assert_eq!(judge(&picture).components.storage.status, Health::Degraded);
    picture.commit_index = Index(5_000);
    assert_eq!(not_ready(&picture).unwrap().code, Code::TooStale);
    picture.condition = Condition::Removed;
    assert_eq!(judge(&picture).status, Health::Unhealthy);
}

#[tokio::test]
async fn requests_are_counted_by_route() {
    let world = World::new().await;
    world.json("PUT", "/v1/kv/a", "1").await;
    world.json("GET", "/nowhere/at/all", "").await;
    let (_, page) = world.ask("GET", "/metrics", b"").await;
    let line =
        r#"seaworthy_http_requests_total{method="PUT",route="/v1/kv/{*key}",status="200"} 1"#;
    assert!(page.contains(line), "{page}");
    assert!(
        page.contains(r#"route="unmatched",status="404"} 1"#),
        "{page}"
    );
    world.end().await;
}
