//! One real node and a scripted worker over HTTP: hello, assignment, report.
#![expect(
    clippy::disallowed_methods,
    reason = "each test builds the runtime it runs on"
)]

use crate::config::Config;
use crate::fleet::Command;
use crate::handle::Consistency;
use crate::knobs::Knobs;
use crate::manager::meeting::token_hash;
use crate::rt::{Env, real};
use crate::service::{Spec, State};
use crate::types::{Role, TaskId};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One request; status and JSON of the answer.
async fn ask(env: &Env, address: &str, method: &str, target: &str, body: &Value) -> (u16, Value) {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let mut stream = env.net.connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    let limit = Duration::from_secs(20);
    env.clock.timeout(limit, reading).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_worker_joins_over_http_and_gets_work_within_a_second() {
    let (home, env) = (tempfile::tempdir().unwrap(), real::env("n1").unwrap());
    let running = crate::node::start(env.clone(), Config::lone(home.path()), Knobs::default());
    let running = running.await.unwrap();
    let (handle, address) = (running.handle.clone(), running.http_address.clone());
    let mut status = handle.follow_status();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    let limit = Duration::from_secs(20);
    env.clock.timeout(limit, leads).await.unwrap().unwrap();

    let hello = json!({
        "token": "secret",
        "machine": {
            "name": "w1", "address": "w1.invalid:8200", "platform": "linux/amd64",
            "capacity": { "cpu_milli": 4_000, "memory_bytes": 1_u64 << 30 },
        },
        "hello": {
            "identity": { "cluster": "0", "worker": 0, "life": "77" },
            "epoch": 0, "revision": 0, "is_anew": true, "tasks": {}, "newest_report": 0,
        },
    });
    let (code, refused) = ask(&env, &address, "POST", "/v1/workers/hello", &hello).await;
    assert_eq!(
        (code, &refused["code"]),
        (403, &json!("forbidden")),
        "{refused}"
    );
    let token = Command::TokenCreate {
        hash: token_hash("secret"),
        ttl_ms: 60_000,
        role: crate::fleet::TokenRole::Worker,
    };
    handle.command(&token, None).await.unwrap();
    let (code, welcome) = ask(&env, &address, "POST", "/v1/workers/hello", &hello).await;
    assert_eq!(
        (code, &welcome["reply"]),
        (200, &json!("welcome")),
        "{welcome}"
    );
    assert_eq!(welcome["managers"].as_array().unwrap().len(), 1);
    let (worker, epoch) = (&welcome["worker"], &welcome["epoch"]);

    let poll = |revision: &Value| {
        format!("/v1/workers/{worker}/assignments?epoch={epoch}&revision={revision}&wait_ms=10000")
    };
    let (_, first) = ask(&env, &address, "GET", &poll(&json!(0)), &Value::Null).await;
    let revision = first["assignments"]["revision"].clone();
    assert_eq!(first["assignments"]["tasks"], json!([]), "{first}");
    let target = poll(&revision);
    let waiting = ask(&env, &address, "GET", &target, &Value::Null);
    let began = env.clock.now();
    let creating = async {
        let spec = Spec::new("web", &["web"]);
        let command = Command::ServiceCreate { spec };
        handle.command(&command, None).await.unwrap();
    };
    let ((code, given), ()) = tokio::join!(waiting, creating);
    assert_eq!(code, 200, "{given}");
    let took = env.clock.now().since(began);
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    let task = &given["assignments"]["tasks"][0];
    assert_eq!(task["spec"]["name"], json!("web"), "{given}");
    assert_eq!(task["desired"], json!("run"));

    let beat = json!({
        "call": "beat", "worker": worker, "number": 1, "epoch": epoch,
        "revision": given["assignments"]["revision"],
    });
    let (_, answer) = ask(&env, &address, "POST", "/v1/workers/beat", &beat).await;
    assert_eq!(answer["reply"], json!("beat"), "{answer}");
    assert_eq!(answer["revision"], given["assignments"]["revision"]);
    let report = json!({
        "worker": worker, "epoch": epoch, "life": "77",
        "reports": [{ "number": 1, "task": task["task"], "state": "running", "attempts": 1, "message": "" }],
    });
    let (_, taken) = ask(&env, &address, "POST", "/v1/workers/report", &report).await;
    assert_eq!(
        (&taken["reply"], &taken["number"]),
        (&json!("acknowledged"), &json!(1))
    );
    let fresh = handle.read_fleet(Consistency::Linearizable, None);
    let (fleet, _) = fresh.await.unwrap();
    let id = TaskId(task["task"].as_u64().unwrap());
    assert_eq!(fleet.snapshot.tasks[&id].state, State::Running);

    // Another session, a stranger, and a body for another route.
    let stale = format!("/v1/workers/{worker}/assignments?epoch=0&revision=0");
    let (code, over) = ask(&env, &address, "GET", &stale, &Value::Null).await;
    assert_eq!((code, &over["code"]), (409, &json!("conflict")), "{over}");
    let stranger = "/v1/workers/1/assignments?epoch=1&revision=0";
    let (code, over) = ask(&env, &address, "GET", stranger, &Value::Null).await;
    assert_eq!((code, &over["code"]), (409, &json!("conflict")), "{over}");
    let (code, wrong) = ask(&env, &address, "POST", "/v1/workers/report", &beat).await;
    assert_eq!(
        (code, &wrong["code"]),
        (400, &json!("invalid_argument")),
        "{wrong}"
    );

    // A node that stops lets those who wait go.
    let target = poll(&given["assignments"]["revision"]);
    let waiting = ask(&env, &address, "GET", &target, &Value::Null);
    let stopping = async {
        env.clock.sleep(Duration::from_millis(100)).await;
        handle.stop("test").await;
    };
    let ((code, gone), ()) = tokio::join!(waiting, stopping);
    assert_eq!(
        (code, &gone["code"]),
        (503, &json!("shutting_down")),
        "{gone}"
    );
    assert!(!running.ended().await.poisoned);
}
