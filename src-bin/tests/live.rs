//! `storm live`: short runs on real processes. A good program passes, one that forgets what it acknowledged does not, and what
//! processes cannot do is refused before anything is started.
#![cfg(not(madsim))]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "these tests run programs as the operating system does"
)]

mod common;

use common::until;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest wait for what takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program that every node is.
const PRODUCT: &str = env!("CARGO_BIN_EXE_seaworthy");

/// Runs `storm live`; gives exit code and everything that it said.
fn live(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storm"));
    command.arg("live").args(args).stdin(Stdio::null());
    let output = command.output().expect("the program was built");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().expect("no signal ended it"),
        String::from_utf8(text).expect("the program writes text"),
    )
}

/// A plan of a few seconds: three nodes, and one step two seconds after the start.
fn short_plan(who: &str, how: &str) -> Value {
    let (code, text) = live(&["leader-crash", "--seed", "3", "--print-plan"]);
    assert_eq!(code, 0, "{text}");
    let mut plan: Value = serde_json::from_str(&text).expect("a plan is JSON");
    let step = &mut plan["steps"][0];
    step["at"] = json!({ "secs": 2, "nanos": 0 });
    step["step"]["do"] =
        json!({ "kind": "crash", "who": who, "how": [how], "down_s": { "low": 1.0, "high": 1.0 } });
    plan["steps"] = json!([step]);
    plan["duration"] = json!({ "secs": 5, "nanos": 0 });
    plan["nodes"] = json!(3);
    plan["profile"] = json!("lan");
    plan["habits"]["busy"] = json!([]);
    plan
}

/// A plan of a few seconds with two workers, in which of the steps of `scenario` only the one called `label` happens, with `changes`
/// to what it does.
fn crew_plan(scenario: &str, label: &str, changes: &Value) -> Value {
    let (code, text) = live(&[scenario, "--seed", "1", "--print-plan"]);
    assert_eq!(code, 0, "{text}");
    let mut plan: Value = serde_json::from_str(&text).expect("a plan is JSON");
    let steps = plan["steps"].as_array().expect("a plan has steps");
    let step = steps.iter().find(|one| one["step"]["label"] == label);
    let mut step = step.expect("there is such a step").clone();
    step["at"] = json!({ "secs": 1, "nanos": 0 });
    for (key, value) in changes.as_object().expect("changes have names") {
        step["step"]["do"][key] = value.clone();
    }
    plan["steps"] = json!([step]);
    plan["duration"] = json!({ "secs": 6, "nanos": 0 });
    plan["profile"] = json!("lan");
    plan["nodes"] = json!(3);
    plan["workers"] = json!(2);
    plan
}

/// Carries out a plan with a program as every node.
fn carry_out(dir: &Path, plan: &Value, program: &str, more: &[&str]) -> (i32, String) {
    let path = dir.join("plan.json");
    fs::write(&path, plan.to_string()).expect("there is room");
    let path = path.to_str().expect("a temporary folder has a plain name");
    live(&[&["--plan", path, "--program", program], more].concat())
}

#[test]
fn a_leader_that_is_killed_is_replaced_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.json");
    let kept = ["--record", record.to_str().unwrap()];
    let mut plan = short_plan("leader", "kill");
    // How fast this machine is today is not what the test is about.
    for expectation in plan["scenario"]["expect"].as_array_mut().unwrap() {
        if expectation["unit"] == "ms" {
            expectation["max"] = json!(20_000.0);
        }
    }
    let (code, text) = carry_out(dir.path(), &plan, PRODUCT, &kept);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("LIVE, real processes, real time: leader-crash, seed 3"),
        "{text}"
    );
    for part in [
        "is KILLED (kill -9)",
        "LEADS term",
        "is started",
        "new_leader_ms@crash: ",
        "acknowledged_writes_lost: 0.0",
        "verdict: all is well",
        "1 passed, 0 failed",
    ] {
        assert!(text.contains(part), "no '{part}' in:\n{text}");
    }
    let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    let run = &record["runs"][0];
    assert!(run["acknowledged"].as_u64().unwrap() > 10, "{run}");
    assert_eq!(run["measures"].as_array().unwrap().len(), 3, "{run}");
}

#[test]
fn nodes_that_forget_what_they_acknowledged_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let forgetful = dir.path().join("forgetful");
    // A node that begins with an empty disk each time. All of them at once, and nobody is left who knows.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = server ] && rm -rf \"${{3%/*}}/data\"\nexec {PRODUCT} \"$@\"\n"
    );
    fs::write(&forgetful, script).unwrap();
    fs::set_permissions(&forgetful, Permissions::from_mode(0o755)).unwrap();
    let plan = short_plan("all", "kill");
    let (code, text) = carry_out(dir.path(), &plan, forgetful.to_str().unwrap(), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("verdict: FAILED: acknowledged_writes_lost"),
        "{text}"
    );
    assert!(text.contains("0 passed, 1 failed"), "{text}");
    let kept = text
        .split("logs and data: ")
        .nth(1)
        .expect("a failed run keeps its logs");
    let kept = Path::new(kept.lines().next().unwrap());
    assert!(kept.join("n1/log").is_file());
    fs::remove_dir_all(kept).unwrap();
}

#[test]
fn whoever_ends_a_run_ends_its_processes() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.json");
    fs::write(&plan, short_plan("leader", "kill").to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_storm"));
    command
        .args(["live", "--program", PRODUCT, "--plan"])
        .arg(&plan);
    command.env("TMPDIR", dir.path()).stdin(Stdio::null());
    let storm = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let home = until(PATIENCE, "a home with logs", || {
        let homes = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        homes.into_iter().find(|home| home.join("n3/log").is_file())
    });
    let address = |name: &str| {
        let text = fs::read_to_string(home.join(name).join("node.toml")).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("http = "))
            .unwrap();
        line.split('"')
            .nth(1)
            .unwrap()
            .parse::<SocketAddr>()
            .unwrap()
    };
    let all = ["n1", "n2", "n3"].map(address);
    for address in all {
        until(PATIENCE, "a node that listens", || {
            TcpStream::connect(address).ok()
        });
    }
    let pid = storm.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    let output = storm.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("told to stop"));
    for address in all {
        assert!(
            TcpStream::connect(address).is_err(),
            "{address} is still served"
        );
    }
}

/// How long a worker is away in these tests: long enough to miss heartbeats, and far from being marked down.
fn away() -> Value {
    json!({ "low": 3.0, "high": 3.0 })
}

#[test]
fn a_worker_that_is_killed_loses_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.json");
    let kept = ["--record", record.to_str().unwrap()];
    let changes = json!({ "who": "worker w1", "down_s": away() });
    let plan = crew_plan("worker-crash", "killed", &changes);
    let (code, text) = carry_out(dir.path(), &plan, PRODUCT, &kept);
    assert_eq!(code, 0, "{text}");
    for part in [
        "3 nodes, 2 workers, profile lan",
        "All workers are ready.",
        "is KILLED (kill -9)",
        "task_starts@killed: 0.0",
        "serving_short@killed: 0.0",
        "writers_at_once: 1.0",
        "1 passed, 0 failed",
    ] {
        assert!(text.contains(part), "no '{part}' in:\n{text}");
    }
    let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    assert_eq!(record["runs"][0]["workers"], 2, "{record}");
}

#[test]
fn a_worker_that_is_cut_off_keeps_its_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let plan = crew_plan("worker-cut-off", "short", &json!({ "for_s": away() }));
    let (code, text) = carry_out(dir.path(), &plan, PRODUCT, &[]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "is CUT OFF from all managers",
        "is reached again",
        "task_starts@short: 0.0",
        "1 passed, 0 failed",
    ] {
        assert!(text.contains(part), "no '{part}' in:\n{text}");
    }
}

#[test]
fn a_worker_that_takes_its_tasks_with_it_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let selfish = dir.path().join("selfish");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = worker ] && exec {PRODUCT} \"$@\" --stop-tasks\nexec {PRODUCT} \"$@\"\n"
    );
    fs::write(&selfish, script).unwrap();
    fs::set_permissions(&selfish, Permissions::from_mode(0o755)).unwrap();
    let changes = json!({ "who": "worker w1", "how": ["stop"], "down_s": away() });
    let plan = crew_plan("worker-crash", "killed", &changes);
    let (code, text) = carry_out(dir.path(), &plan, selfish.to_str().unwrap(), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("verdict: FAILED: W-F37 "), "{text}");
    assert!(text.contains("verdict: FAILED: W-S21 "), "{text}");
    let kept = text.split("logs and data: ").nth(1).unwrap();
    fs::remove_dir_all(kept.lines().next().unwrap()).unwrap();
}

#[test]
fn what_processes_cannot_do_is_refused_by_name() {
    let (code, text) = live(&["partition-heal"]);
    assert_eq!(code, 2);
    assert!(text.contains("loopback cannot be cut"), "{text}");
    let (code, text) = live(&["crew-storm"]);
    assert_eq!(code, 2);
    assert!(text.contains("operators who never rest"), "{text}");
    let (code, text) = live(&["no-such-weather"]);
    assert_eq!(code, 2);
    assert!(text.contains("there are: leader-crash, "), "{text}");
    let (code, text) = live(&["leader-crash", "--program", "/no/such/program"]);
    assert_eq!(code, 2);
    assert!(
        text.contains("there is no program /no/such/program"),
        "{text}"
    );
}
