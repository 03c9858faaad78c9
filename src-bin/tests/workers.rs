//! Workers as processes: they join a real cluster, run real tasks, and lose none of them when they are killed.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "these tests run the program as the operating system does"
)]

mod common;

use common::{Server, ask, free_ports, three, until, whole};
use serde_json::{Value, json};
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a worker may run single writers without a word from managers.
const LEASE: Duration = Duration::from_secs(30);

/// The program on `line`, with its log in `home`.
fn program(home: &Path, line: &str) -> Command {
    let log = File::options()
        .append(true)
        .create(true)
        .open(home.join("log"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command
        .args(line.split_whitespace())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.unwrap());
    command
}

/// A worker's process; it is killed when this is dropped, and its tasks with it.
struct Worker {
    http: SocketAddr,
    line: String,
    home: std::path::PathBuf,
    child: Child,
}

impl Worker {
    fn start(home: &Path, servers: &[Server], token: &str) -> Self {
        let http = free_ports(1)[0];
        let join: Vec<String> = servers
            .iter()
            .map(|one| format!("http://{}", one.http))
            .collect();
        let (join, data) = (join.join(","), home.join("worker").display().to_string());
        let line = format!(
            "worker start --join {join} --token {token} --name w1 --data-dir {data} --listen {http} --cpu 2 --memory 1GiB"
        );
        let child = program(home, &line).spawn().unwrap();
        Worker {
            http,
            line,
            home: home.to_owned(),
            child,
        }
    }

    /// SIGKILL, and another process in its place.
    fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = program(&self.home, &self.line).spawn().unwrap();
    }

    /// Task by slot: number, state, attempts, process.
    fn tasks(&self) -> Option<Vec<Value>> {
        let answer: Value = ask(self.http, "GET", "/v1/tasks", "").ok()?;
        answer["tasks"].as_array().cloned()
    }

    /// The processes of its tasks, when there are `count` and all run.
    fn running(&self, count: usize) -> Option<Vec<String>> {
        let tasks = self.tasks()?;
        let runs = |task: &Value| {
            let process = task["process"].as_str()?;
            (task["state"] == "running").then(|| process.to_owned())
        };
        let running: Vec<String> = tasks.iter().filter_map(runs).collect();
        (running.len() == count).then_some(running)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for process in self.running(2).unwrap_or_default() {
            signal(&process, "KILL");
        }
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
            eprintln!("--- the worker says:\n{log}");
        }
    }
}

/// Signals the process of a task.
fn signal(process: &str, name: &str) {
    let pid = process.split('.').next().unwrap();
    let mut kill = Command::new("kill");
    drop(kill.args([&format!("-{name}"), pid]).status()); // It may have ended.
}

fn lives(process: &str) -> bool {
    let pid = process.split('.').next().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Signals a program.
fn signal_program(child: &Child, name: &str) {
    signal(&child.id().to_string(), name);
}

/// Three servers, and a worker that has joined them.
fn joined(dir: &Path) -> (Vec<Server>, Worker) {
    let mut servers = three(dir);
    servers.iter_mut().for_each(Server::start);
    whole(&servers);
    let token: Value = ask(servers[0].http, "POST", "/v1/tokens", "{}").unwrap();
    let worker = Worker::start(dir, &servers, token["token"].as_str().unwrap());
    (servers, worker)
}

#[test]
fn a_single_writer_dies_though_its_worker_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, worker) = joined(dir.path());
    let http = servers[0].http;
    let spec = json!({
        "name": "db",
        "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
        "volumes": [{ "volume": "data", "target": "/data" }],
        "restart": { "delay_ms": 100 },
    });
    let _: Value = ask(http, "POST", "/v1/services", &spec.to_string()).unwrap();
    let first = until(PATIENCE, "the task", || worker.running(1));

    signal_program(&worker.child, "STOP");
    let stopped = Instant::now();
    // Its lease is 30 s long and was granted before that.
    while lives(&first[0]) {
        let stands = stopped.elapsed();
        assert!(stands < LEASE, "it outlives its lease: {stands:?}");
        thread::sleep(Duration::from_millis(20));
    }
    let least = Duration::from_secs(25);
    assert!(stopped.elapsed() > least, "it was killed without need");

    signal_program(&worker.child, "CONT");
    let next = until(PATIENCE, "the task again", || worker.running(1));
    assert!(next != first && lives(&next[0]));
    signal(&next[0], "KILL");
}

#[test]
fn tasks_outlive_their_worker_and_come_back_when_they_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, mut worker) = joined(dir.path());
    let http = servers[0].http;
    let spec = json!({
        "name": "web",
        "replicas": 2,
        "command": ["sleep", "1000"],
        "restart": { "delay_ms": 100 },
    });
    let _: Value = ask(http, "POST", "/v1/services", &spec.to_string()).unwrap();
    let first = until(PATIENCE, "two tasks", || worker.running(2));

    worker.kill_and_start();
    let again = until(PATIENCE, "the same two tasks", || worker.running(2));
    assert_eq!(first, again, "what is right is never restarted");
    assert!(again.iter().all(|process| lives(process)));

    signal(&first[0], "KILL");
    let next = until(PATIENCE, "another process", || {
        worker.running(2).filter(|now| now[0] != first[0])
    });
    assert_eq!(next[1], first[1]);

    let _: Value = ask(http, "DELETE", "/v1/services/web", "").unwrap();
    until(PATIENCE, "no task", || {
        worker.tasks()?.is_empty().then_some(())
    });
    assert!(!next.iter().any(|process| lives(process)));
}

/// Whether `words` stand in a file below `dir`.
fn holds(dir: &Path, words: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|one| {
        let path = one.path();
        match path.is_dir() {
            true => holds(&path, words),
            false => {
                let bytes = std::fs::read(&path).unwrap_or_default();
                bytes.windows(words.len()).any(|part| part == words)
            }
        }
    })
}

#[test]
fn a_task_reads_its_secret_and_no_disk_ever_has_it() {
    const VALUE: &[u8] = b"no disk shall ever have this 7351";
    const NEXT: &[u8] = b"nor shall it ever have this 90125";
    let dir = tempfile::tempdir().unwrap();
    let (mut servers, mut worker) = joined(dir.path());
    let http = servers[0].http;
    // It tells the length of what it has read, and how its first word is spelt, but not the value.
    let script = "wc -c < $SEAWORTHY_SECRETS/pass; cut -c 1-3 $SEAWORTHY_SECRETS/pass; \
                  stat -c %a $SEAWORTHY_SECRETS/pass; exec sleep 1000";
    let mut spec = json!({
        "name": "web",
        "replicas": 2,
        "command": ["sh", "-c", script],
        "secrets": [{ "secret": "db", "target": "pass" }],
        "restart": { "delay_ms": 100 },
        "update": { "monitor_ms": 100, "order": "stop-first", "unavailable_max": 2 },
    });
    let _: Value = ask(http, "POST", "/v1/services", &spec.to_string()).unwrap();
    let waits = || -> Option<String> {
        let told: Value = ask(http, "GET", "/v1/services/web/explain", "").ok()?;
        Some(told.to_string()).filter(|text| text.contains("there is no secret db"))
    };
    until(PATIENCE, "a reason why it waits", waits);
    let body = |value: &[u8]| json!({ "name": "db", "value": base64(value) }).to_string();
    let made: Value = ask(http, "POST", "/v1/secrets", &body(VALUE)).unwrap();
    assert_eq!(made["version"], 1, "{made}");
    let first = until(PATIENCE, "two tasks", || worker.running(2));
    let said = |task: u64| {
        let log = dir.path().join(format!("worker/tasks/{task}/stdout.log"));
        std::fs::read_to_string(log).ok()
    };
    let expected = |value: &[u8], times: usize| {
        let word = std::str::from_utf8(&value[..3]).unwrap();
        format!("{}\n{word}\n400\n", value.len()).repeat(times)
    };
    until(PATIENCE, "its words", || {
        said(1).filter(|text| *text == expected(VALUE, 1))
    });

    // All managers but one are gone, and so is the worker for a moment: what it has is enough.
    servers.iter_mut().for_each(Server::kill);
    worker.kill_and_start();
    let again = until(PATIENCE, "the same two tasks", || worker.running(2));
    assert_eq!(first, again);
    signal(&first[0], "KILL");
    until(PATIENCE, "another attempt", || {
        said(1).filter(|text| *text == expected(VALUE, 2))
    });
    assert!(!holds(dir.path(), VALUE));
    assert!(!holds(dir.path(), base64(VALUE).as_bytes()));

    // Another manager than the one that sealed the first value gets the second.
    servers.iter_mut().for_each(Server::start);
    whole(&servers);
    let http = servers[1].http;
    let put = json!({ "value": base64(NEXT) }).to_string();
    let put: Value = ask(http, "PUT", "/v1/secrets/db", &put).unwrap();
    assert_eq!(put["version"], 2, "{put}");
    spec["env"] = json!({ "ROTATED": "2" });
    let _: Value = ask(http, "PUT", "/v1/services/web", &spec.to_string()).unwrap();
    until(PATIENCE, "the new value", || {
        said(3).filter(|text| *text == expected(NEXT, 1))
    });
    let _: Value = ask(http, "DELETE", "/v1/services/web", "").unwrap();
    until(PATIENCE, "no task", || {
        worker.tasks()?.is_empty().then_some(())
    });
    let shm = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let mut ours = shm.filter(|one| one.file_name().to_string_lossy().starts_with("seaworthy-"));
    let holds_value =
        |one: std::fs::DirEntry| holds(&one.path(), VALUE) || holds(&one.path(), NEXT);
    assert!(!ours.any(holds_value), "files go with their tasks");
    assert!(!holds(dir.path(), NEXT) && !holds(dir.path(), VALUE));
}

/// Base64 of `bytes`, as the door takes it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let all = part
            .iter()
            .fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
        let all = all << (8 * (3 - part.len()));
        for place in 0..4 {
            let letter = LETTERS[all >> (18 - 6 * place) & 63];
            text.push(if place <= part.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}
