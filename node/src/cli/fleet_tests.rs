//! Commands of orchestration typed against a fake server: what is asked, what is printed, how they end.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run in the real world: #[tokio::test] builds a runtime"
)]

use super::fake::{Asked, Fake};
use crate::error::{Code, Error};
use crate::service::Spec;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

fn ok(value: Value) -> (u16, String) {
    (200, value.to_string())
}

fn refused(error: &Error) -> (u16, String) {
    let text = serde_json::to_string(error).unwrap();
    (error.code.http_status(), text)
}

fn written(version: u64) -> (u16, String) {
    ok(
        json!({"id": 3, "name": "web", "version": version, "revision": 1, "index": 4, "replayed": false}),
    )
}

fn web(version: u64, running: u64, phase: &str) -> Value {
    let mut spec = Spec::new("web", &["sleep", "1"]);
    spec.replicas = 2;
    json!({"id": 3, "name": "web", "version": version, "contents": 1, "mode": "replicated", "wanted": 2,
        "running": running, "updated": running, "complete": 0, "tasks": {"running": running},
        "converged": running == 2 && phase != "paused", "removing": false,
        "rollout": {"phase": phase, "started_ms": 0, "failures": 0, "canary": 0},
        "created_ms": 0, "updated_ms": 0, "spec": spec, "revision": 1, "applied_index": 4})
}

fn task(id: u64, slot: u64, state: &str) -> Value {
    json!({"id": id, "service": "web", "service_id": 3, "slot": slot, "version": 1, "node": "w1",
        "node_id": 1, "state": state, "desired": "run", "created_ms": 0, "changed_ms": 0, "attempts": 1,
        "exit": if state == "failed" { json!({"code": 3, "oom": false}) } else { Value::Null },
        "message": if state == "failed" { "gave up" } else { "" }})
}

/// The same task on a node of which nothing is heard.
fn silent(mut task: Value) -> Value {
    task["node_silent_ms"] = json!(4_900);
    task
}

fn body(asked: &Asked) -> Value {
    serde_json::from_str(&asked.body).unwrap()
}

#[tokio::test]
async fn a_service_is_made_from_flags_or_a_file_and_flags_win() {
    let mut fake = Fake::new(|_| written(1)).await;
    let line = "service create web -n 3 --env A=b=c -p 8080:80 --volume data:/d --limit-memory 64MiB \
                --constraint node.labels.zone==north --health-http 8080/ok --health-interval 2s \
                --restart never --update-order stop-first -- ./web --fast";
    let typed = fake.types(line).await;
    assert_eq!((typed.code, typed.err.as_str()), (0, ""));
    assert_eq!(typed.out, "web is made, version 1\n");
    let spec: Spec = serde_json::from_value(body(&fake.asked.lock().unwrap()[0])).unwrap();
    assert_eq!((spec.replicas, &*spec.env["A"]), (3, "b=c"));
    assert_eq!(spec.command, ["./web", "--fast"]);
    assert_eq!(spec.placement.constraints, ["node.labels.zone == north"]);
    assert_eq!(spec.resources.limits.memory_bytes, 64 << 20);
    assert_eq!(spec.health.map(|health| health.interval_ms), Some(2_000));
    fake.files.insert(
        "web.yaml".into(),
        "name: web\nreplicas: 2\ncommand: [a]\n".into(),
    );
    assert_eq!(fake.types("service create web.yaml -n 5").await.code, 0);
    assert_eq!(body(&fake.asked.lock().unwrap()[1])["replicas"], 5);
    let compose = "services:\n  a: {image: a}\n  b: {image: b, tty: true}\n";
    fake.files.insert("c.yml".into(), compose.into());
    let typed = fake.types("service create -f c.yml").await;
    assert_eq!(typed.code, 2);
    assert!(
        typed
            .err
            .contains("c.yml:3: services.b.tty: is not supported"),
        "{}",
        typed.err
    );
    let typed = fake
        .types("service create c.yml --ignore-unsupported")
        .await;
    assert_eq!(typed.out, "a is made, version 1\nb is made, version 1\n");
    assert!(
        typed.err.contains("note: c.yml:3: services.b.tty: dropped"),
        "{}",
        typed.err
    );
    assert_eq!(fake.lines().len(), 4);
}

#[tokio::test]
async fn what_is_wrong_with_a_service_is_said_before_anybody_is_asked() {
    let fake = Fake::new(|asked| panic!("nobody asks {}", asked.line)).await;
    for (line, words) in [
        (
            "service create Web -- a",
            "service Web: the service's name is `Web`: it must be 1 to 63 of a-z",
        ),
        (
            "service create web",
            "service web: it has neither `image` nor `command`",
        ),
        (
            "service create web -n 20000 --update-max-failures 101 -- a",
            "service web: `replicas` is 20000: at most 10000\n       service web: `update.failures_max_percent` is 101",
        ),
        (
            "service create web --health-tcp 0 -- a",
            "`health.check.tcp.port` is 0: it must be 1 to 65535",
        ),
        (
            "service create web --health-interval 0 --health-tcp 1 -- a",
            "`health.interval_ms` is 0: it must be 1 to 31622400000",
        ),
        (
            "service create web --health-interval 2s -- a",
            "no health check",
        ),
        (
            "service create web --constraint north -- a",
            "has no == or !=",
        ),
        ("service create web -p 0 -- a", "is not a port"),
        ("service create", "required"),
        ("service scale web many", "does not say how many"),
        ("service create absent.toml", "cannot read"),
        (
            "cluster token create --role king",
            "invalid value 'king' for '--role <ROLE>'",
        ),
        ("node label w1 zone", "is no label"),
    ] {
        let typed = fake.types(line).await;
        assert_eq!(typed.code, 2, "{line}");
        assert!(typed.err.contains(words), "{line}: {}", typed.err);
    }
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_nothing_of_others() {
    let fake = Fake::new(|asked| match asked.line.as_str() {
        "GET /v1/services/web" => ok(web(4, 2, "completed")),
        "PUT /v1/services/web?expect_version=4" => written(5),
        "PUT /v1/services/web?expect_version=2" => {
            refused(&Error::new(Code::PreconditionFailed, "it has version 4"))
        }
        other => panic!("nobody asks {other}"),
    })
    .await;
    let typed = fake.types("service update web --env A=1").await;
    assert_eq!(
        (typed.code, typed.out.as_str()),
        (0, "web is changed, version 5\n")
    );
    let put = body(&fake.asked.lock().unwrap()[1]);
    assert_eq!(
        (&put["env"]["A"], &put["replicas"]),
        (&json!("1"), &json!(2))
    );
    let same = fake.types("service update web --replicas 2").await;
    assert_eq!(same.out, "web is so already, version 4\n");
    let stale = fake
        .types("service update web -n 3 --expect-version 2")
        .await;
    assert_eq!(stale.code, 4);
}

#[tokio::test]
async fn waiting_tells_progress_and_how_it_ended() {
    let looks = AtomicUsize::new(0);
    let fake = Fake::new(move |asked| match asked.line.as_str() {
        "POST /v1/services/web/scale" => written(2),
        "GET /v1/services/web" => {
            let look = looks.fetch_add(1, Ordering::Relaxed) as u64;
            ok(web(2, look.min(2), "none"))
        }
        "POST /v1/services/bad/rollback" => written(2),
        "GET /v1/services/bad" => ok(web(2, 1, "paused")),
        "POST /v1/services/slow/scale" => written(2),
        "GET /v1/services/slow" => ok(web(2, 1, "none")),
        other => panic!("nobody asks {other}"),
    })
    .await;
    let typed = fake.types("service scale web=2 --wait").await;
    assert_eq!((typed.code, typed.out.as_str()), (0, "web shall have 2\n"));
    assert_eq!(
        typed.err,
        "web: 0 of 2 run\nweb: 1 of 2 run\nweb: 2 of 2 run\n"
    );
    let paused = fake.types("service rollback bad --wait").await;
    assert_eq!(paused.code, 1);
    assert!(paused.err.contains("service explain bad"), "{}", paused.err);
    let slow = fake
        .types("service scale slow 2 -w --wait-timeout 300ms")
        .await;
    assert_eq!(slow.code, 1);
    assert!(
        slow.err.contains("is not as it shall be in time"),
        "{}",
        slow.err
    );
}

#[tokio::test]
async fn services_and_tasks_are_tables() {
    let fake = Fake::new(|asked| match asked.line.as_str() {
        "GET /v1/services" => {
            ok(json!({"services": [web(4, 2, "completed")], "revision": 1, "applied_index": 4}))
        }
        "GET /v1/services/web" => ok(web(4, 2, "completed")),
        "GET /v1/services/web/tasks" => ok(
            json!({"tasks": [silent(task(7, 1, "running")), task(5, 1, "failed"),
            task(6, 2, "failed")], "revision": 1, "applied_index": 4}),
        ),
        "DELETE /v1/services/web" => written(4),
        other => panic!("nobody asks {other}"),
    })
    .await;
    let listed = fake.types("service ls").await;
    assert_eq!(
        listed.out,
        "NAME  MODE        RUNNING  VERSION  STATE   RUNS\n\
         web   replicated  2/2      4        steady  sleep 1\n"
    );
    let shown = fake.types("service inspect web").await;
    assert!(shown.out.contains("state     steady\n"), "{}", shown.out);
    assert!(
        shown.out.contains("command = [\"sleep\", \"1\"]"),
        "{}",
        shown.out
    );
    let tasks = fake.types("service ps web").await;
    let lines: Vec<&str> = tasks.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", tasks.out);
    assert!(
        lines[1].contains("running (node silent 4s)"),
        "{}",
        tasks.out
    );
    assert!(lines[2].ends_with("exit 3: gave up"), "{}", tasks.out);
    let all = fake.types("service ps web --all").await;
    assert_eq!(all.out.lines().count(), 4);
    let json = fake.types("service inspect web --output json").await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["spec"]["replicas"], 2);
    let removed = fake.types("service delete web").await;
    assert_eq!(removed.out, "web is removed; its tasks are stopped\n");
}

fn nodes(asked: &Asked) -> (u16, String) {
    let worker = json!({"availability": "active", "platform": "linux/amd64", "containers": false,
        "labels": {"zone": "north"}, "capacity": {"cpu_milli": 4000, "memory_bytes": 1 << 30},
        "reserved": {"cpu_milli": 500, "memory_bytes": 0}, "tasks": 1, "epoch": 2, "joined_ms": 0,
        "changed_ms": 0, "heard_ms_ago": 4_250, "suspected": true});
    let w1 = json!({"name": "w1", "role": "worker", "id": 8, "status": "ready", "address": "h:2",
        "worker": worker});
    let n1 =
        json!({"name": "n1", "role": "manager", "id": 1, "status": "leader", "address": "h:1"});
    let place = json!({"revision": 1, "index": 4, "replayed": false});
    match asked.line.as_str() {
        "GET /v1/nodes" => ok(json!({"nodes": [n1, w1], "revision": 1, "applied_index": 4})),
        "GET /v1/nodes/w1" => {
            let mut answer = w1;
            answer["tasks"] = json!([]);
            answer["revision"] = json!(1);
            answer["applied_index"] = json!(4);
            ok(answer)
        }
        "POST /v1/nodes/w1/drain"
        | "POST /v1/nodes/w1/activate"
        | "PUT /v1/nodes/w1/labels"
        | "DELETE /v1/nodes/w1?force=true" => ok(place),
        other => panic!("nobody asks {other}"),
    }
}

#[tokio::test]
async fn nodes_are_listed_drained_labelled_and_removed() {
    let fake = Fake::new(nodes).await;
    let listed = fake.types("node ls").await;
    let lines: Vec<&str> = listed.out.lines().collect();
    assert!(
        lines[0].starts_with("NAME  ROLE     STATUS  HEARD              AVAILABILITY  TASKS"),
        "{}",
        listed.out
    );
    assert!(
        lines[1].starts_with("n1    manager  leader  -                  -             -"),
        "{}",
        listed.out
    );
    let silent = "w1    worker   ready   4.2s ago, suspect  active        1      0.5 of 4";
    assert!(lines[2].starts_with(silent), "{}", listed.out);
    let shown = fake.types("node inspect w1").await;
    assert!(shown.out.contains("zone=north"), "{}", shown.out);
    let drained = fake.types("node drain w1 --wait").await;
    assert_eq!(
        (drained.code, drained.err.as_str()),
        (0, "w1: 0 tasks left\n")
    );
    assert_eq!(
        fake.types("node update w1 --availability drain").await.code,
        0
    );
    assert_eq!(fake.types("node activate w1").await.code, 0);
    assert_eq!(fake.types("node label w1 zone=south old-").await.code, 0);
    let asked = fake.asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        body(&asked),
        json!({"labels": {"zone": "south", "old": null}})
    );
    assert_eq!(fake.types("node rm w1 --force").await.code, 0);
}

#[tokio::test]
async fn a_manager_s_token_comes_with_the_line_that_starts_it() {
    let fake = Fake::new(|asked| match asked.line.as_str() {
        "POST /v1/tokens" => ok(
            json!({"id": 9, "role": "manager", "token": "swt-abc", "expires_ms": 951_782_399_000_u64,
            "revision": 1, "index": 9, "replayed": false}),
        ),
        "GET /v1/cluster" => ok(
            json!({"id": 1, "leader": 1, "members": [{"id": 1, "name": "n1", "peer": "h:7", "http": "h:8"},
            {"id": 2, "name": "n2", "peer": "i:7", "http": "i:8"}]}),
        ),
        other => panic!("nobody asks {other}"),
    })
    .await;
    for line in [
        "cluster token create --role manager",
        "cluster join-token manager",
    ] {
        let made = fake.types(line).await;
        assert_eq!(made.code, 0, "{}", made.err);
        for words in [
            "--join --member n1=h:7/h:8 --member n2=i:7/i:8",
            "--token swt-abc",
            "A manager joins with it:\n  seaworthy server --name NAME",
        ] {
            assert!(made.out.contains(words), "{words}: {}", made.out);
        }
    }
    assert_eq!(
        body(&fake.asked.lock().unwrap()[0]),
        json!({"ttl_ms": 86_400_000, "role": "manager"})
    );
}

#[tokio::test]
async fn tokens_and_volumes_are_made_and_ended() {
    let fake = Fake::new(|asked| match asked.line.as_str() {
        "POST /v1/tokens" => ok(
            json!({"id": 9, "token": "swt-abc", "expires_ms": 951_782_399_000_u64,
            "revision": 1, "index": 9, "replayed": false}),
        ),
        "GET /v1/tokens" => ok(
            json!({"tokens": [{"id": 9, "created_ms": 1, "expires_ms": 951_782_399_000_u64,
            "used": 2}], "revision": 1, "applied_index": 9}),
        ),
        "GET /v1/volumes" => ok(
            json!({"volumes": [{"name": "data", "node": "w1", "node_id": 8,
            "services": ["db"], "tasks": [7]}], "revision": 1, "applied_index": 9}),
        ),
        "DELETE /v1/tokens/9" | "POST /v1/volumes" | "DELETE /v1/volumes/data" => {
            ok(json!({"revision": 1, "index": 9, "replayed": false}))
        }
        other => panic!("nobody asks {other}"),
    })
    .await;
    for line in ["cluster token", "cluster join-token worker"] {
        let made = fake.types(line).await;
        assert_eq!(made.code, 0, "{}", made.err);
        assert!(made.out.starts_with("swt-abc\n"), "{}", made.out);
        assert!(made.out.contains("2000-02-28T23:59:59Z"), "{}", made.out);
    }
    assert_eq!(
        body(&fake.asked.lock().unwrap()[0]),
        json!({"ttl_ms": 86_400_000})
    );
    let listed = fake.types("cluster token ls").await;
    assert!(
        listed.out.contains("9   worker  over   2000-02-28"),
        "{}",
        listed.out
    );
    assert_eq!(fake.types("cluster token rm 9").await.code, 0);
    let volumes = fake.types("volume ls").await;
    assert_eq!(
        volumes.out,
        "NAME  NODE  SERVICES  TASKS\ndata  w1    db        7\n"
    );
    assert_eq!(fake.types("volume create data --node w1").await.code, 0);
    assert_eq!(fake.types("volume rm data").await.code, 0);
}

#[tokio::test]
async fn output_of_several_tasks_is_told_apart() {
    let fake = Fake::new(|asked| match asked.line.as_str() {
        "GET /v1/services/web/tasks" => ok(
            json!({"tasks": [task(7, 1, "running"), task(8, 2, "running")],
            "revision": 1, "applied_index": 4}),
        ),
        "GET /v1/tasks/7/logs?stream=stdout&tail=5" => ok(
            json!({"task": 7, "node": "w1", "from_offset": 0, "next_offset": 4, "text": "a\nb\n"}),
        ),
        "GET /v1/tasks/8/logs?stream=stdout&tail=5" => {
            refused(&Error::new(Code::NotFound, "task 8 has written nothing"))
        }
        other => panic!("nobody asks {other}"),
    })
    .await;
    let typed = fake
        .types("service logs web --stream stdout --tail 5")
        .await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    assert_eq!(typed.out, "web.1 w1 | a\nweb.1 w1 | b\n");
    let typed = fake
        .types("service logs web.1 --stream stdout --tail 5")
        .await;
    assert_eq!((typed.code, typed.out.as_str()), (0, "a\nb\n"));
    for line in [
        "service logs web.7 --stream stdout",
        "service logs web.7 --follow",
    ] {
        let typed = fake.types(line).await;
        assert_ne!(typed.code, 0);
        assert!(
            typed.err.contains("service web has no slot 7")
                && typed.err.contains("its slots are 1, 2"),
            "{line}: {}",
            typed.err
        );
    }
    let typed = fake.types("events --task web.1").await;
    assert!(
        typed.err.contains("\"web.1\" is no task's number"),
        "{}",
        typed.err
    );
}

#[tokio::test]
async fn output_since_a_time_is_read_page_by_page_and_following_ends_with_what_does_not_pass() {
    let page = |from: u64, text: &str| {
        let next = from + text.len() as u64;
        ok(json!({"task": 7, "node": "w1", "from_offset": from, "next_offset": next, "text": text}))
    };
    let full = format!("{}\nx", "y".repeat((256 << 10) - 2));
    let fake = Fake::new(move |asked| match asked.line.as_str() {
        "GET /v1/tasks/7" => ok(task(7, 1, "running")),
        "GET /v1/tasks/7/logs?stream=stdout&since_ms_ago=600000" => page(10, &full),
        "GET /v1/tasks/7/logs?stream=stdout&since_offset=262154" => page(262_154, "z\nend"),
        "GET /v1/tasks/7/logs?stream=stderr&tail=100" => {
            refused(&Error::new(Code::InvalidArgument, "no such stream"))
        }
        other => panic!("nobody asks {other}"),
    })
    .await;
    let typed = fake
        .types("service logs 7 --stream stdout --since 10m")
        .await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    let lines: Vec<&str> = typed.out.lines().skip(1).collect();
    assert_eq!(lines, ["xz", "end"], "a line across two pages is one");
    let typed = fake.types("service logs 7 --stream stderr --follow").await;
    assert_ne!(typed.code, 0);
    assert!(typed.err.contains("no such stream"), "{}", typed.err);
}

#[tokio::test]
async fn plans_and_files_are_told_without_a_change() {
    let mut fake = Fake::new(|asked| match asked.line.as_str() {
        "POST /v1/services/plan" => ok(json!({"service": "web", "action": "update", "version": 5,
            "rollout": true, "starts": 2, "stops": 2, "others": 0, "takes_ms": 10_000, "complete": true,
            "nodes": [{"node": "w1", "before": 2, "after": 2, "starts": 2, "stops": 2}],
            "waiting": [{"slot": 3, "why": "there are no workers"}], "revision": 1, "applied_index": 4})),
        "GET /v1/services/web" => ok(web(4, 2, "none")),
        other => panic!("nobody asks {other}"),
    })
    .await;
    fake.files.insert(
        "web.toml".into(),
        "name = 'web'\nreplicas = 2\ncommand = ['sleep', '2']\n".into(),
    );
    let plan = fake.types("service plan web.toml").await;
    assert_eq!(plan.code, 0, "{}", plan.err);
    assert_eq!(
        plan.out,
        "- command = [\"sleep\",\"1\"]\n+ command = [\"sleep\",\"2\"]\n\
         web would be rolled out as version 5\n\
         2 tasks would start, 2 would stop; it takes 10s at least\n\
         NODE  BEFORE  AFTER  STARTS  STOPS\nw1    2       2      +2      -2\n\
         web.3 would wait: there are no workers\n"
    );
    let compose = "services:\n  web: {image: 'web:1', deploy: {replicas: 3}}\n";
    fake.files.insert("compose.yaml".into(), compose.into());
    let converted = fake.types("service convert compose.yaml").await;
    assert_eq!(converted.code, 0, "{}", converted.err);
    fake.files
        .insert("again.toml".into(), converted.out.clone());
    let again = fake.types("service convert again.toml").await;
    assert_eq!(
        again.out.lines().skip(1).collect::<Vec<_>>(),
        converted.out.lines().skip(1).collect::<Vec<_>>()
    );
    assert!(converted.out.contains("replicas = 3"), "{}", converted.out);
}

#[tokio::test]
async fn events_are_printed_and_followed_across_a_break() {
    let fake = Fake::new(|asked| {
        let event = |index: u64, number: u64| {
            json!({"index": index, "number": number, "time_ms": 951_782_399_000_u64, "kind": "task.failed",
                "message": format!("event {index}.{number}")})
        };
        let told = |id: &str, event: &Value| format!("{id}event: task.failed\ndata: {event}\n\n");
        match asked.line.as_str() {
            "GET /v1/events?service=web&limit=100" => ok(json!({"events": [event(4, 0)], "more": false,
                "revision": 1, "applied_index": 5})),
            "GET /v1/events/follow?service=web&after=5" => {
                let first = told("id: 6\n", &event(6, 0));
                (200, first + &told("", &event(7, 0)))
            }
            "GET /v1/events/follow?service=web&after=6" => {
                let end = json!({"code": "internal", "message": "enough", "retryable": false, "outcome_unknown": false});
                let rest = told("", &event(7, 0)) + &told("id: 7\n", &event(7, 1));
                (200, rest + &format!("event: error\ndata: {end}\n\n"))
            }
            other => panic!("nobody asks {other}"),
        }
    })
    .await;
    let listed = fake.types("events --service web").await;
    let line = "2000-02-28T23:59:59Z  task.failed             event 4.0\n";
    assert_eq!((listed.code, listed.out.as_str()), (0, line));
    let followed = fake.types("events --service web --follow").await;
    let told: Vec<&str> = followed
        .out
        .lines()
        .filter_map(|line| line.split("event ").nth(1))
        .collect();
    assert_eq!(told, ["4.0", "6.0", "7.0", "7.1"]);
    assert_eq!(
        (followed.code, followed.err.as_str()),
        (1, "error: enough\n")
    );
}

#[tokio::test]
async fn a_secret_is_read_from_where_it_is_and_never_shown() {
    let mut fake = Fake::new(|asked| match asked.line.as_str() {
        "POST /v1/secrets" | "PUT /v1/secrets/db" => {
            ok(json!({"name": "db", "version": 2, "revision": 1, "index": 9, "replayed": false}))
        }
        "GET /v1/secrets/db" => ok(
            json!({"name": "db", "version": 2, "bytes": 7, "created_ms": 0, "updated_ms": 0,
            "readable": false, "services": ["web"], "tasks": [{"task": 7, "version": 1}],
            "revision": 1, "applied_index": 9}),
        ),
        "GET /v1/secrets" => ok(
            json!({"secrets": [{"name": "db", "version": 2, "bytes": 7, "created_ms": 0,
            "updated_ms": 951_782_399_000_u64, "readable": true, "services": [], "tasks": []}],
            "revision": 1, "applied_index": 9}),
        ),
        "DELETE /v1/secrets/db" => ok(json!({"revision": 1, "index": 9, "replayed": false})),
        "POST /v1/services" => written(1),
        other => panic!("nobody asks {other}"),
    })
    .await;
    fake.files.insert("pass".into(), "hunter2".into());
    fake.files.insert("-".into(), "hunter2".into());
    for line in [
        "secret create db --from-file pass",
        "secret create db --from-stdin",
        "secret create db --from-literal hunter2",
        "secret update db --from-file -",
    ] {
        let typed = fake.types(line).await;
        assert_eq!(typed.code, 0, "{line}: {}", typed.err);
        assert!(!typed.out.contains("hunter2") && !typed.err.contains("hunter2"));
        assert_eq!(line.contains("literal"), typed.err.contains("history"));
        let asked = fake.asked.lock().unwrap();
        assert_eq!(body(asked.last().unwrap())["value"], "aHVudGVyMg==");
    }
    for line in [
        "secret create db",
        "secret create db --from-stdin --from-file pass",
        "service create web --secret a/b -- ./web",
    ] {
        assert_eq!(fake.types(line).await.code, 2, "{line}");
    }
    fake.files.insert("empty".into(), String::new());
    let typed = fake.types("secret create db --from-file empty").await;
    assert!(
        typed.code == 2 && typed.err.contains("1 to 65536"),
        "{}",
        typed.err
    );
    let shown = fake.types("secret inspect db").await.out;
    assert!(
        shown.contains("7 (version 1)") && shown.contains("give it again"),
        "{shown}"
    );
    let listed = fake.types("secret ls").await.out;
    assert!(
        listed.contains("db    2        7      2000-02-28"),
        "{listed}"
    );
    assert_eq!(fake.types("secret rm db").await.code, 0);
    let line = "service create web --secret db --secret key:tls.key -- ./web";
    assert_eq!(fake.types(line).await.code, 0);
    let spec: Spec =
        serde_json::from_value(body(fake.asked.lock().unwrap().last().unwrap())).unwrap();
    let secrets = spec.secrets.iter();
    let secrets: Vec<_> = secrets.map(|one| (&*one.secret, &*one.target)).collect();
    assert_eq!(secrets, [("db", "db"), ("key", "tls.key")]);
}
