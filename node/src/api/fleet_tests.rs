//! The door's routes of orchestration, against a loop with a fleet of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "each test builds the runtime it runs on"
)]

use super::fake::World;
use super::tests::fits;
use crate::fleet::Fleet;
use crate::fleet::{Token, WorkerNote};
use crate::scheduler::model::{Status, Task, Volume, Worker};
use crate::service::spec::{Amounts, Mount};
use crate::service::{Spec, State};
use crate::types::{Epoch, ServiceId, TaskId, WorkerId};
use crate::worker::words::Exit;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request that each route of orchestration takes, in the order of the table, by its name in the document.
pub(super) fn sample(id: &str) -> (&'static str, &'static str) {
    match id {
        "createService" => ("/v1/services", r#"{"name":"new","command":["sleep","1"]}"#),
        "listServices" => ("/v1/services?consistency=local", ""),
        "showService" => ("/v1/services/web", ""),
        "updateService" => (
            "/v1/services/web?expect_version=1",
            r#"{"name":"web","command":["sleep","2"]}"#,
        ),
        "removeService" => ("/v1/services/new", ""),
        "scaleService" => ("/v1/services/web/scale", r#"{"replicas":3}"#),
        "rollBackService" => ("/v1/services/web/rollback", ""),
        "rebalanceService" => ("/v1/services/web/rebalance", ""),
        "pauseService" => ("/v1/services/web/pause", ""),
        "continueService" => ("/v1/services/web/continue", ""),
        "planService" => (
            "/v1/services/plan",
            r#"{"name":"web","command":["sleep","3"],"replicas":2}"#,
        ),
        "explainService" => ("/v1/services/web/explain", ""),
        "showTaskLogs" => ("/v1/tasks/7/logs?stream=stderr&tail=5", ""),
        "listEvents" => ("/v1/events?service=web&limit=5", ""),
        "followEvents" => ("/v1/events/follow", ""),
        "listServiceTasks" => ("/v1/services/web/tasks", ""),
        "listTasks" => ("/v1/tasks", ""),
        "showTask" => ("/v1/tasks/7", ""),
        "listNodes" => ("/v1/nodes", ""),
        "showNode" => ("/v1/nodes/w1", ""),
        "removeNode" => ("/v1/nodes/w2", ""),
        "drainNode" => ("/v1/nodes/w1/drain", ""),
        "activateNode" => ("/v1/nodes/w1/activate", ""),
        "labelNode" => (
            "/v1/nodes/w1/labels",
            r#"{"labels":{"zone":"north","old":null}}"#,
        ),
        "createVolume" => ("/v1/volumes", r#"{"name":"more","node":"w1"}"#),
        "listVolumes" => ("/v1/volumes", ""),
        "showVolume" => ("/v1/volumes/data", ""),
        "removeVolume" => ("/v1/volumes/more", ""),
        "createSecret" => ("/v1/secrets", r#"{"name":"more","value":"aGVsbG8="}"#),
        "listSecrets" => ("/v1/secrets", ""),
        "showSecret" => ("/v1/secrets/key", ""),
        "updateSecret" => ("/v1/secrets/key", r#"{"value":"aGVsbG8="}"#),
        "removeSecret" => ("/v1/secrets/more", ""),
        "createToken" => ("/v1/tokens", r#"{"ttl_ms":1000}"#),
        "listTokens" => ("/v1/tokens", ""),
        "revokeToken" => ("/v1/tokens/5", ""),
        other => panic!("no sample request for {other}"),
    }
}

/// A fleet with something of everything, and a worker that tells what it was asked as the output of its tasks.
pub(super) async fn settle(world: &World) {
    let mut listener = world.env.net.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address();
    world.fleet(|fleet| {
        *fleet = harbour();
        let w1 = fleet.workers.get_mut(&WorkerId(1)).unwrap();
        w1.address.clone_from(&address);
    });
    world.tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&part[..count]).into_owned();
            let line = asked.lines().next().unwrap_or_default().to_owned();
            let length = line.len();
            let head = "HTTP/1.1 200 OK\r\nseaworthy-log-from: 3\r\nseaworthy-log-next: 9\r\n";
            let answer = format!("{head}content-length: {length}\r\n\r\n{line}");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
}

/// A secret called `key`.
pub(super) async fn seal(world: &World) {
    let secret = r#"{"name":"key","value":"aGVsbG8="}"#;
    let (status, text) = world.ask("POST", "/v1/secrets", secret.as_bytes()).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn a_value_goes_in_and_never_comes_out() {
    let world = World::new().await;
    settle(&world).await;
    seal(&world).await;
    world.fleet(|fleet| {
        let task = fleet.snapshot.tasks.get_mut(&TaskId(7)).unwrap();
        task.secrets.insert("key".to_owned(), 1);
    });
    let value = r#"{"value":"aGVsbG8gYWdhaW4="}"#;
    let (status, written) = world.json("PUT", "/v1/secrets/key", value).await;
    assert_eq!((status, &written["version"]), (200, &json!(2)), "{written}");
    let (_, shown) = world.json("GET", "/v1/secrets/key", "").await;
    assert_eq!(
        (&shown["version"], &shown["bytes"]),
        (&json!(2), &json!(11))
    );
    assert_eq!(shown["tasks"], json!([{"task": 7, "version": 1}]));
    assert_eq!(shown["readable"], true);
    for (method, path, body, status, says) in [
        (
            "POST",
            "/v1/secrets",
            r#"{"name":"key","value":"aGk="}"#,
            409,
            "update",
        ),
        (
            "PUT",
            "/v1/secrets/none",
            r#"{"value":"aGk="}"#,
            404,
            "create",
        ),
        (
            "PUT",
            "/v1/secrets/key",
            r#"{"value":"hunter2!"}"#,
            400,
            "base64",
        ),
        ("PUT", "/v1/secrets/key", r#"{"value":""}"#, 400, "0 bytes"),
        (
            "PUT",
            "/v1/secrets/key",
            r#"{"valve":"hunter2!"}"#,
            400,
            "line 1",
        ),
        (
            "PUT",
            "/v1/secrets/key",
            r#"{"value":["hunter2!"]}"#,
            400,
            "line 1",
        ),
        (
            "POST",
            "/v1/secrets",
            r#"{"name":"a/b","value":"aGk="}"#,
            400,
            "letters",
        ),
    ] {
        let (code, text) = world.ask(method, path, body.as_bytes()).await;
        assert_eq!(code, status, "{text}");
        assert!(text.contains(says) && !text.contains("hunter2"), "{text}");
    }
    let long = vec![b'a'; 4 * (crate::secrets::VALUE_BYTES_MAX / 3 + 1)];
    let long = String::from_utf8(long).unwrap();
    let body = json!({ "value": long }).to_string();
    let (code, text) = world.ask("PUT", "/v1/secrets/key", body.as_bytes()).await;
    assert!(code == 400 && text.contains("65536"), "{code} {text}");
    let fleet = world.fake.lock().unwrap().fleet.clone();
    let kept = serde_json::to_string(&fleet.secrets["key"].versions).unwrap();
    assert!(!kept.contains("hello") && !kept.contains("aGVsbG8"));
    world.end().await;
}

/// Two workers, the second one down; `web` with a running task and one that failed; a volume and a token.
fn harbour() -> Fleet {
    let mut fleet = Fleet::default();
    for (id, status) in [(1, Status::Ready), (2, Status::Down)] {
        let id = WorkerId(id);
        let worker = Worker {
            id,
            name: format!("w{}", id.0),
            platform: "linux/amd64".to_owned(),
            labels: [("zone".to_owned(), "south".to_owned())].into(),
            capacity: Amounts {
                cpu_milli: 4_000,
                memory_bytes: 8 << 30,
            },
            status,
            epoch: Epoch(1),
            ..Worker::default()
        };
        fleet.snapshot.workers.insert(id, worker);
        let note = WorkerNote {
            address: "127.0.0.1:1".to_owned(),
            ..WorkerNote::default()
        };
        fleet.workers.insert(id, note);
    }
    let mut spec = Spec::new("web", &["sleep", "1"]);
    spec.volumes.push(Mount {
        volume: "data".to_owned(),
        target: "/data".to_owned(),
        shared: true,
    });
    let web = crate::scheduler::model::Service::new(ServiceId(3), spec.clone());
    fleet.snapshot.services.insert(web.id, web);
    fleet.services.insert(ServiceId(3), Default::default());
    fleet.specs.insert((ServiceId(3), 1), spec.clone().into());
    for (id, state) in [(6, State::Failed), (7, State::Running)] {
        let task = Task {
            id: TaskId(id),
            service: ServiceId(3),
            slot: 1,
            version: 1,
            worker: Some(WorkerId(1)),
            epoch: Epoch(1),
            state,
            volumes: spec.volumes.clone(),
            reservations: Amounts {
                cpu_milli: 500,
                memory_bytes: 1 << 20,
            },
            ..Task::default()
        };
        fleet.snapshot.tasks.insert(task.id, task);
        let note = fleet.notes.or_default(TaskId(id));
        note.attempts = 1;
        note.message = format!("story of {id}");
        note.exit = (state == State::Failed).then_some(Exit {
            signal: Some(9),
            ..Exit::UNSEEN
        });
    }
    fleet.snapshot.next_task = TaskId(8);
    let volume = Volume {
        name: "data".to_owned(),
        worker: Some(WorkerId(1)),
    };
    fleet.snapshot.volumes.insert("data".to_owned(), volume);
    let token = Token {
        hash: "00".repeat(32),
        expires_ms: 5_000,
        ..Token::default()
    };
    fleet.tokens.insert(5, token);
    fleet
}

#[tokio::test]
async fn a_service_is_made_changed_scaled_and_removed() {
    let world = World::new().await;
    let web = r#"{"name":"web","command":["sleep","1"],"replicas":2}"#;
    let (status, made) = world.json("POST", "/v1/services", web).await;
    assert_eq!((status, &made["version"]), (200, &json!(1)), "{made}");
    let (status, again) = world.json("POST", "/v1/services", web).await;
    assert_eq!((status, &again["code"]), (409, &json!("conflict")));
    let (status, scaled) = world
        .json("POST", "/v1/services/web/scale", r#"{"replicas":5}"#)
        .await;
    assert_eq!((status, &scaled["version"]), (200, &json!(2)));
    let (_, shown) = world.json("GET", "/v1/services/web", "").await;
    assert_eq!(shown["wanted"], 5);
    assert_eq!(shown["converged"], false);
    let changed = r#"{"name":"web","command":["sleep","2"]}"#;
    let (status, stale) = world
        .json("PUT", "/v1/services/web?expect_version=1", changed)
        .await;
    assert_eq!(
        (status, &stale["code"]),
        (412, &json!("precondition_failed"))
    );
    let (status, _) = world
        .json("PUT", "/v1/services/web?expect_version=2", changed)
        .await;
    assert_eq!(status, 200);
    let (status, other) = world.json("PUT", "/v1/services/api", changed).await;
    assert_eq!(status, 400, "{other}");
    assert!(
        other["message"]
            .as_str()
            .unwrap()
            .contains("keeps its name")
    );
    let (status, _) = world.json("DELETE", "/v1/services/web", "").await;
    assert_eq!(status, 200);
    world.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_is() {
    let world = World::new().await;
    settle(&world).await;
    for (path, hint) in [
        ("/v1/services/wob", "the services are web"),
        ("/v1/nodes/w9", "the nodes are n1, n2, w1, w2"),
        ("/v1/volumes/dota", "the volumes are data"),
        (
            "/v1/tasks/99",
            "ended tasks are forgotten after a while; GET /v1/events tells what became of it",
        ),
    ] {
        let (status, error) = world.json("GET", path, "").await;
        assert_eq!((status, &error["hint"]), (404, &json!(hint)), "{path}");
    }
    let (status, error) = world.json("POST", "/v1/nodes/n1/drain", "").await;
    assert_eq!(status, 409);
    assert_eq!(error["message"], "n1 is a manager, and no worker");
    let (status, error) = world
        .json(
            "POST",
            "/v1/services",
            r#"{"name":"a","command":["b"],"replica":3}"#,
        )
        .await;
    assert_eq!(status, 400);
    assert!(
        error["message"].as_str().unwrap().contains("replica"),
        "{error}"
    );
    world.end().await;
}

#[tokio::test]
async fn answers_name_what_ids_stand_for() {
    let world = World::new().await;
    settle(&world).await;
    let (_, tasks) = world.json("GET", "/v1/services/web/tasks", "").await;
    let newest = &tasks["tasks"][0];
    assert_eq!(newest["id"], 7);
    assert_eq!(
        (&newest["service"], &newest["node"]),
        (&json!("web"), &json!("w1"))
    );
    assert_eq!(
        tasks["tasks"][1]["exit"],
        json!({"signal": 9, "oom": false})
    );
    let (_, web) = world.json("GET", "/v1/services/web", "").await;
    assert_eq!(
        (&web["running"], &web["converged"]),
        (&json!(1), &json!(true))
    );
    let (_, volume) = world.json("GET", "/v1/volumes/data", "").await;
    assert_eq!(volume["node"], "w1");
    assert_eq!(
        (&volume["services"], &volume["tasks"]),
        (&json!(["web"]), &json!([7]))
    );
    let (_, node) = world.json("GET", "/v1/nodes/w1", "").await;
    assert_eq!(node["worker"]["reserved"]["cpu_milli"], 500);
    assert_eq!(node["tasks"][0]["id"], 7);
    fits("NodeAnswer", &node);
    // The leader has not heard of it for a while, and says so of it and of its tasks that have not ended.
    assert_eq!(node["worker"]["heard_ms_ago"], 4_200);
    assert_eq!(node["worker"]["suspected"], true);
    assert_eq!(node["tasks"][0]["node_silent_ms"], 4_200);
    let (_, tasks) = world.json("GET", "/v1/services/web/tasks", "").await;
    let silent = |at: usize| tasks["tasks"][at]["node_silent_ms"].as_u64();
    assert_eq!((silent(0), silent(1)), (Some(4_200), None));
    world.end().await;
}

#[tokio::test]
async fn a_token_is_told_once_and_kept_as_its_hash() {
    use sha2::{Digest, Sha256};
    let world = World::new().await;
    let (status, made) = world.json("POST", "/v1/tokens", "").await;
    assert_eq!(status, 200, "{made}");
    let text = made["token"].as_str().unwrap();
    assert!(text.starts_with("swt-") && text.len() == 68, "{text}");
    assert_eq!(made["expires_ms"], 1_000 + 24 * 3_600_000);
    let hash: String = Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    {
        let fake = world.fake.lock().unwrap();
        assert_eq!(fake.fleet.tokens.values().next().unwrap().hash, hash);
    }
    let (_, listed) = world.json("GET", "/v1/tokens", "").await;
    assert_eq!(listed["tokens"].as_array().map(Vec::len), Some(1));
    assert!(!listed.to_string().contains(&hash) && !listed.to_string().contains(text));
    let (_, other) = world.json("POST", "/v1/tokens", "").await;
    assert_ne!(other["token"], made["token"]);
    let (status, _) = world.json("POST", "/v1/tokens", r#"{"ttl_ms":0}"#).await;
    assert_eq!(status, 400);
    assert_eq!(made["role"], "worker");
    let managers = r#"{"role":"manager"}"#;
    let (_, managers) = world.json("POST", "/v1/tokens", managers).await;
    assert_eq!(managers["role"], "manager");
    let (_, listed) = world.json("GET", "/v1/tokens", "").await;
    let roles = listed["tokens"].as_array().unwrap().iter();
    let roles: Vec<&Value> = roles.map(|one| &one["role"]).collect();
    assert_eq!(roles, ["worker", "worker", "manager"]);
    let path = format!("/v1/tokens/{}", managers["id"]);
    assert_eq!(world.json("DELETE", &path, "").await.0, 200);
    let (status, _) = world.json("POST", "/v1/tokens", r#"{"role":"king"}"#).await;
    assert_eq!(status, 400);
    let (status, _) = world
        .json("DELETE", &format!("/v1/tokens/{}", made["id"]), "")
        .await;
    assert_eq!(status, 200);
    let (_, left): (u16, Value) = world.json("GET", "/v1/tokens", "").await;
    assert_eq!(left["tokens"].as_array().map(Vec::len), Some(1));
    world.end().await;
}

#[tokio::test]
async fn output_is_asked_of_the_worker_and_an_absent_one_is_named() {
    let world = World::new().await;
    settle(&world).await;
    let path = "/v1/tasks/7/logs?stream=stderr&since_offset=3";
    let (status, page) = world.json("GET", path, "").await;
    assert_eq!(status, 200, "{page}");
    let asked = "GET /v1/tasks/7/logs?stream=stderr&since_offset=3 HTTP/1.1";
    assert_eq!(
        (&page["text"], &page["node"]),
        (&json!(asked), &json!("w1"))
    );
    assert_eq!(
        (&page["from_offset"], &page["next_offset"]),
        (&json!(3), &json!(9))
    );
    world.fleet(|fleet| {
        let w1 = fleet.workers.get_mut(&WorkerId(1)).unwrap();
        w1.address = "127.0.0.1:1".to_owned();
    });
    let (status, error) = world.json("GET", "/v1/tasks/7/logs", "").await;
    assert_eq!((status, &error["code"]), (503, &json!("unreachable")));
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("w1 cannot be asked"), "{message}");
    let (status, _) = world.json("GET", "/v1/tasks/7/logs?stream=both", "").await;
    assert_eq!(status, 400);
    world.end().await;
}

#[tokio::test]
async fn explain_says_why_tasks_wait_and_how_they_ended() {
    let world = World::new().await;
    settle(&world).await;
    world.fleet(|fleet| {
        let service = fleet.snapshot.services.get_mut(&ServiceId(3)).unwrap();
        let rule = "node.labels.zone == north";
        let spec = Arc::make_mut(&mut service.current.spec);
        spec.placement.constraints = vec![rule.to_owned()];
        spec.replicas = 2;
        let task = Task {
            id: TaskId(8),
            service: ServiceId(3),
            slot: 2,
            version: 1,
            ..Task::default()
        };
        fleet.snapshot.tasks.insert(task.id, task);
    });
    let (_, told) = world.json("GET", "/v1/services/web/explain", "").await;
    fits("ExplainAnswer", &told);
    assert_eq!(told["summary"][0], "1 of 2 tasks run");
    let why = |id: u64| {
        let tasks = told["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["id"] == id).unwrap();
        task["why"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        why(8),
        "it waits for a node: 1 of 2 workers: down; 1 of 2: not node.labels.zone == north"
    );
    assert_eq!(why(6), "it failed on w1: ended by signal 9: story of 6");
    assert_eq!(told["tasks"][2]["nodes"][1]["node"], "w2");
    let tells = async |attempts, message: &str| {
        world.fleet(|fleet| {
            fleet.snapshot.tasks.get_mut(&TaskId(7)).unwrap().state = State::Running;
            let note = fleet.notes.get_mut(&TaskId(7)).unwrap();
            note.attempts = attempts;
            note.message = message.to_owned();
            note.exit = (attempts > 1).then_some(Exit {
                code: Some(3),
                ..Exit::UNSEEN
            });
        });
        let (_, told) = world.json("GET", "/v1/services/web/explain", "").await;
        let tasks = told["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["id"] == 7).unwrap();
        task["why"].as_str().unwrap().to_owned()
    };
    assert_eq!(tells(1, "").await, "it runs on w1");
    assert_eq!(
        tells(2, "").await,
        "it runs on w1, attempt 2; the one before ended with code 3"
    );
    assert_eq!(
        tells(2, "ended with code 3").await,
        "it is between two attempts on w1 (2 so far): ended with code 3"
    );
    world.end().await;
}

#[tokio::test]
async fn a_plan_says_what_would_happen_and_does_nothing() {
    let world = World::new().await;
    settle(&world).await;
    world.fleet(|fleet| {
        let w2 = fleet.snapshot.workers.get_mut(&WorkerId(2)).unwrap();
        w2.status = Status::Ready;
    });
    let before = world.fake.lock().unwrap().fleet.clone();
    let new = r#"{"name":"new","command":["a"],"replicas":4}"#;
    let (status, plan) = world.json("POST", "/v1/services/plan", new).await;
    assert_eq!(status, 200, "{plan}");
    fits("PlanAnswer", &plan);
    assert_eq!(
        (&plan["action"], &plan["complete"]),
        (&json!("create"), &json!(true))
    );
    assert_eq!((&plan["starts"], &plan["stops"]), (&json!(4), &json!(0)));
    for node in plan["nodes"].as_array().unwrap() {
        assert_eq!((&node["before"], &node["after"]), (&json!(0), &json!(2)));
    }
    let other = r#"{"name":"web","command":["sleep","9"]}"#;
    let (_, plan) = world.json("POST", "/v1/services/plan", other).await;
    assert_eq!(
        (&plan["action"], &plan["rollout"]),
        (&json!("update"), &json!(true))
    );
    assert_eq!(
        (&plan["starts"], &plan["stops"]),
        (&json!(1), &json!(1)),
        "{plan}"
    );
    let greedy =
        r#"{"name":"big","command":["a"],"resources":{"reservations":{"cpu_milli":64000}}}"#;
    let (_, plan) = world.json("POST", "/v1/services/plan", greedy).await;
    let why = plan["waiting"][0]["why"].as_str().unwrap();
    assert!(why.contains("not enough processor"), "{why}");
    let (status, _) = world
        .json("POST", "/v1/services/plan", r#"{"name":"Not A Name"}"#)
        .await;
    assert_eq!(status, 400);
    assert_eq!(world.fake.lock().unwrap().fleet, before);
    world.end().await;
}

#[tokio::test]
async fn events_are_listed_page_by_page_and_followed() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        let spec = format!(r#"{{"name":"{name}","command":["x"]}}"#);
        let (status, _) = world.json("POST", "/v1/services", &spec).await;
        assert_eq!(status, 200);
    }
    let (_, newest) = world.json("GET", "/v1/events?limit=1", "").await;
    assert_eq!(newest["events"][0]["service"], "c");
    assert_eq!(
        (&newest["events"][0]["kind"], &newest["more"]),
        (&json!("service.created"), &json!(false))
    );
    let (_, first) = world.json("GET", "/v1/events?after=0&limit=2", "").await;
    assert_eq!(first["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(first["more"], true);
    let last = &first["events"][1]["index"];
    let (_, rest) = world
        .json("GET", &format!("/v1/events?after={last}"), "")
        .await;
    assert_eq!(rest["events"][0]["service"], "c");
    let (_, of_b) = world.json("GET", "/v1/events?service=b", "").await;
    assert_eq!(of_b["events"].as_array().map(Vec::len), Some(1));
    let mut stream = world.env.net.connect(&world.address).await.unwrap();
    let ask = format!("GET /v1/events/follow?after={last} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut told = String::new();
    let mut part = [0; 4096];
    while !told.contains("progress") {
        let count = stream.read(&mut part).await.unwrap();
        told += &String::from_utf8_lossy(&part[..count]);
    }
    assert!(
        told.contains("id: 3\nevent: service.created\ndata: {\"index\":3"),
        "{told}"
    );
    world.json("DELETE", "/v1/services/a", "").await;
    while !told.contains("service.removing") {
        let count = stream.read(&mut part).await.unwrap();
        assert!(count > 0, "{told}");
        told += &String::from_utf8_lossy(&part[..count]);
    }
    world.end().await;
}

/// A worker that asks back to back is given many changes at once; whoever asks for the first time, or waits for news, has them at once.
#[tokio::test]
async fn answers_to_a_worker_that_asks_back_to_back_are_gathered() {
    let world = World::new().await;
    let revise = |revision: u64| {
        world.fleet(|fleet| fleet.workers.get_mut(&WorkerId(1)).unwrap().revision = revision);
    };
    world.fleet(|fleet| {
        *fleet = harbour();
        // So many tasks that the pause is the longest one: 100 ms.
        for id in 100..400 {
            let task = Task::clone(&fleet.snapshot.tasks[&TaskId(7)]);
            let id = TaskId(id);
            fleet.snapshot.tasks.insert(id, Task { id, ..task });
        }
    });
    let clock = &world.env.clock;
    let ask = async |revision: u64, wait_ms: u64| {
        let path =
            format!("/v1/workers/1/assignments?epoch=1&revision={revision}&wait_ms={wait_ms}");
        let asked = clock.now();
        let (status, told) = world.json("GET", &path, "").await;
        assert_eq!(status, 200, "{told}");
        let given = told["assignments"]["revision"].as_u64();
        (given, clock.now().since(asked))
    };
    let longest = Duration::from_millis(100);
    // News at once: what comes within the pause is in the same answer. A machine that stands still longer than that is asked again.
    let mut gathered = false;
    for known in (10..60).step_by(10) {
        revise(known + 1);
        let changes = async {
            clock.sleep(longest / 10).await;
            revise(known + 2);
        };
        let ((given, took), ()) = tokio::join!(ask(known, 1_000), changes);
        assert!(took >= longest, "{took:?}: it would ask again at once");
        gathered |= given == Some(known + 2);
    }
    assert!(gathered, "each change had an answer of its own");
    // The first question is answered while one that is gathered for still waits.
    let newest = 70;
    revise(newest);
    let (late, first) = tokio::join!(ask(newest - 1, 1_000), ask(0, 1_000));
    assert_eq!((late.0, first.0), (Some(newest), Some(newest)));
    assert!(first.1 < late.1, "{:?}, {:?}", first.1, late.1);
    // News for a worker that waits: as soon as they come. The pause would be added to when they came.
    let mut least = Duration::MAX;
    for known in (70..120).step_by(10) {
        revise(known);
        let came = async {
            clock.sleep(longest / 10).await;
            revise(known + 1);
            clock.now()
        };
        let begun = clock.now();
        let ((given, took), came) = tokio::join!(ask(known, 5_000), came);
        assert_eq!(given, Some(known + 1));
        least = least.min(took.saturating_sub(came.since(begun)));
    }
    assert!(least < longest, "{least:?} after the news");
    world.end().await;
}

#[test]
fn a_removed_worker_is_told_so_as_the_document_says() {
    let removed = crate::fleet::meeting::Reply::Removed {
        worker: WorkerId(4),
        reason: "worker w1 was removed".to_owned(),
    };
    fits("WorkerReply", &serde_json::to_value(removed).unwrap());
}
