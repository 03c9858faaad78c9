//! Three managers, three workers and their tasks as real processes on loopback: killed, stopped, left alone, and what they promise.
//!
//! One test, because the fleet is the expensive part; it goes through the days of a fleet in order. Each wait is bounded by the promise
//! of docs/orchestration.md, section 7, with room for a slow machine. Tasks write their process ids, so that "nothing was restarted" is
//! told by the operating system and not by the cluster.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "real processes, sockets and time are the point of this test"
)]

mod common;

use common::{Server, ask, free_ports, leader, three, whole};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for something that takes a moment.
const SOON: Duration = Duration::from_secs(20);
/// T-8: a silent worker is down after 30 s, and its tasks run elsewhere 10 s later.
const DOWN: Duration = Duration::from_secs(60);
/// Copies of the service.
const COPIES: usize = 6;

/// One worker and its process.
struct Worker {
    name: String,
    home: PathBuf,
    address: SocketAddr,
    managers: String,
    token: String,
    child: Option<Child>,
}

impl Worker {
    fn start(&mut self) {
        let mut options = File::options();
        let log = options
            .append(true)
            .create(true)
            .open(self.home.join("log"));
        let log = log.unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
        command.args(["worker", "start", "--join", &self.managers]);
        command.args(["--token", &self.token, "--name", &self.name]);
        command.arg("--data-dir").arg(self.home.join("data"));
        command.args(["--listen", &self.address.to_string()]);
        command.args(["--cpu", "8", "--memory", "8GiB"]).env_clear();
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap().id(), name);
    }

    /// SIGKILL, and no process left but its tasks.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill()); // It may have ended by itself; then there is nothing to kill.
            child.wait().unwrap();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- last lines of {}:\n{}", self.name, last.join("\n"));
        }
    }
}

/// The whole fleet.
struct Fleet {
    managers: Vec<Server>,
    workers: Vec<Worker>,
    /// Where tasks write their process ids.
    pids: PathBuf,
}

impl Fleet {
    fn start(dir: &Path) -> Fleet {
        let mut managers = three(dir);
        managers.iter_mut().for_each(Server::start);
        whole(&managers);
        let made: Value = ask(managers[0].http, "POST", "/v1/tokens", "").unwrap();
        let join: Vec<String> = managers
            .iter()
            .map(|one| format!("http://{}", one.http))
            .collect();
        let ports = free_ports(3);
        let worker = |at: usize| {
            let (name, home) = (format!("w{at}"), dir.join(format!("w{at}")));
            fs::create_dir(&home).unwrap();
            Worker {
                name,
                home,
                address: ports[at],
                managers: join.join(","),
                token: made["token"].as_str().unwrap().to_owned(),
                child: None,
            }
        };
        let mut workers: Vec<Worker> = (0..3).map(worker).collect();
        workers.iter_mut().for_each(Worker::start);
        let pids = dir.join("pids");
        fs::create_dir(&pids).unwrap();
        let fleet = Fleet {
            managers,
            workers,
            pids,
        };
        fleet.within(SOON, "three workers are ready", || fleet.ready() == 3);
        fleet
    }

    /// An answer of whichever manager gives one.
    fn ask(&self, method: &str, path: &str, body: &str) -> Option<Value> {
        let mut answers = self.managers.iter().filter(|one| one.child.is_some());
        answers.find_map(|one| ask(one.http, method, path, body).ok())
    }

    fn within(&self, bound: Duration, what: &str, is: impl Fn() -> bool) -> Duration {
        let began = Instant::now();
        while !is() {
            let tasks = || self.tasks();
            assert!(
                began.elapsed() < bound,
                "not within {bound:?}: {what}; {:#?}",
                tasks()
            );
            thread::sleep(LOOK);
        }
        began.elapsed()
    }

    fn nodes(&self) -> BTreeMap<String, String> {
        let answer = self.ask("GET", "/v1/nodes", "").unwrap_or_default();
        let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        nodes
            .iter()
            .map(|one| (text(one, "name"), text(one, "status")))
            .collect()
    }

    fn ready(&self) -> usize {
        self.nodes()
            .values()
            .filter(|status| *status == "ready")
            .count()
    }

    fn service(&self) -> Value {
        self.ask("GET", "/v1/services/web", "").unwrap_or_default()
    }

    fn is_converged(&self) -> bool {
        let service = self.service();
        service["converged"] == true && service["running"] == COPIES
    }

    /// Tasks of the service that have not ended, by id: state and node.
    fn tasks(&self) -> BTreeMap<u64, (String, String)> {
        let answer = self
            .ask("GET", "/v1/services/web/tasks", "")
            .unwrap_or_default();
        let tasks = answer["tasks"].as_array().cloned().unwrap_or_default();
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let ends = ["complete", "failed", "rejected", "stopped"];
        let tasks = tasks.iter().map(|one| {
            (
                one["id"].as_u64().unwrap(),
                (text(one, "state"), text(one, "node")),
            )
        });
        tasks
            .filter(|(_, (state, _))| !ends.contains(&state.as_str()))
            .collect()
    }

    /// Processes of tasks that live, by task and attempt.
    fn processes(&self) -> BTreeSet<(String, u32)> {
        let files = fs::read_dir(&self.pids)
            .unwrap()
            .map(|entry| entry.unwrap());
        let all = files.flat_map(|file| {
            let task = file.file_name().into_string().unwrap();
            let text = fs::read_to_string(file.path()).unwrap();
            let pids: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
            pids.into_iter().map(move |pid| (task.clone(), pid))
        });
        all.filter(|(_, pid)| is_alive(*pid)).collect()
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success(), "{name} {pid}");
}

/// The service: each task writes down the processes that it was, and does nothing.
fn spec(pids: &Path, version: u32) -> String {
    let script = format!(
        "echo $$ >> {}/$SEAWORTHY_TASK; exec sleep 3600",
        pids.display()
    );
    json!({
        "name": "web",
        "replicas": COPIES,
        "command": ["sh", "-c", script],
        "env": { "VERSION": version.to_string() },
        "update": { "monitor_ms": 500 },
        "restart": { "delay_ms": 200 },
    })
    .to_string()
}

#[test]
fn a_fleet_keeps_its_promises_while_its_parts_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::start(dir.path());
    let made = fleet.ask("POST", "/v1/services", &spec(&fleet.pids, 1));
    assert!(made.is_some(), "the service is made");
    let took = fleet.within(SOON, "six copies run", || fleet.is_converged());
    println!("crew: {COPIES} copies run after {} ms", took.as_millis());

    a_killed_worker_finds_its_tasks_again(&mut fleet);
    tasks_outlive_all_managers_and_are_restarted_without_them(&mut fleet);
    a_rollout_goes_on_when_the_leader_is_killed(&mut fleet);
    a_silent_worker_is_replaced_and_comes_back(&mut fleet);

    fleet.ask("DELETE", "/v1/services/web", "").unwrap();
    fleet.within(SOON, "every process has ended", || {
        fleet.processes().is_empty()
    });
}

/// The worker's process dies; its tasks do not notice, and nothing is begun anew.
fn a_killed_worker_finds_its_tasks_again(fleet: &mut Fleet) {
    let (before, tasks) = (fleet.processes(), fleet.tasks());
    assert_eq!(before.len(), COPIES);
    fleet.workers[0].kill();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(fleet.processes(), before, "tasks outlive their worker");
    fleet.workers[0].start();
    let log = fleet.workers[0].home.join("log");
    let starts = || {
        fs::read_to_string(&log)
            .unwrap_or_default()
            .matches("worker runs")
            .count()
    };
    fleet.within(SOON, "the worker is back", || {
        fleet.ready() == 3 && starts() >= 2
    });
    thread::sleep(Duration::from_secs(3));
    assert_eq!(
        (fleet.processes(), fleet.tasks()),
        (before, tasks),
        "nothing was restarted"
    );
}

/// No manager lives; a task's process dies and is started again by its worker; the managers find everything as it is.
fn tasks_outlive_all_managers_and_are_restarted_without_them(fleet: &mut Fleet) {
    let (before, tasks) = (fleet.processes(), fleet.tasks());
    fleet.managers.iter_mut().for_each(Server::kill);
    let victim = before.first().unwrap().clone();
    signal(victim.1, "KILL");
    fleet.within(SOON, "the worker starts it again by itself", || {
        let now = fleet.processes();
        now.len() == COPIES && !now.contains(&victim)
    });
    let alone = fleet.processes();
    fleet.managers.iter_mut().for_each(Server::start);
    whole(&fleet.managers);
    fleet.within(SOON, "the managers see six copies", || {
        fleet.is_converged() && fleet.ready() == 3
    });
    thread::sleep(Duration::from_secs(2));
    assert_eq!(
        (fleet.processes(), fleet.tasks()),
        (alone, tasks),
        "nothing else was restarted"
    );
}

/// T-13: the leader dies in the middle of a rollout; it ends, and six copies run at every moment.
fn a_rollout_goes_on_when_the_leader_is_killed(fleet: &mut Fleet) {
    let old = fleet.processes();
    fleet
        .ask("PUT", "/v1/services/web", &spec(&fleet.pids, 2))
        .unwrap();
    let begun = |fleet: &Fleet| !fleet.processes().is_subset(&old);
    fleet.within(SOON, "the rollout begins", || begun(fleet));
    let victim = leader(&fleet.managers);
    fleet.managers[victim].kill();
    let began = Instant::now();
    let mut done = false;
    while !done {
        assert!(
            began.elapsed() < DOWN,
            "the rollout does not end: {}",
            fleet.service()
        );
        let alive = fleet.processes().len();
        assert!(
            (COPIES..=COPIES + 1).contains(&alive),
            "{alive} processes during the rollout"
        );
        done = fleet.is_converged() && fleet.service()["updated"] == COPIES;
        thread::sleep(LOOK);
    }
    println!(
        "crew: a rollout of {COPIES} with a killed leader took {} ms",
        began.elapsed().as_millis()
    );
    assert_eq!(fleet.service()["rollout"]["failures"], 0);
    assert!(fleet.processes().is_disjoint(&old));
    fleet.managers[victim].start();
    whole(&fleet.managers);
}

/// T-8, W-S25: a worker that is silent for a minute is replaced; when it is back, no copy runs twice.
fn a_silent_worker_is_replaced_and_comes_back(fleet: &mut Fleet) {
    let lost: BTreeSet<(String, u32)> = {
        let tasks = fleet.tasks();
        let of_w1 = tasks.iter().filter(|(_, (_, node))| node == "w1");
        let names: BTreeSet<String> = of_w1.map(|(id, _)| id.to_string()).collect();
        fleet
            .processes()
            .into_iter()
            .filter(|(task, _)| names.contains(task))
            .collect()
    };
    assert!(!lost.is_empty(), "w1 has tasks");
    fleet.workers[1].signal("STOP");
    let began = Instant::now();
    fleet.within(DOWN, "the silent worker is down", || {
        fleet
            .nodes()
            .get("w1")
            .is_some_and(|status| status == "down")
    });
    let down = began.elapsed();
    fleet.within(SOON, "its copies run elsewhere", || {
        fleet.service()["running"] == COPIES
    });
    let elsewhere = began.elapsed();
    println!(
        "crew: a silent worker was down after {} ms, its tasks ran elsewhere after {} ms",
        down.as_millis(),
        elsewhere.as_millis()
    );
    assert!(down >= Duration::from_secs(28), "not before its bound");
    assert!(
        lost.is_subset(&fleet.processes()),
        "its tasks run on while nobody hears it"
    );
    fleet.workers[1].signal("CONT");
    fleet.within(SOON, "the superseded tasks have ended", || {
        fleet.ready() == 3
            && fleet.processes().is_disjoint(&lost)
            && fleet.processes().len() == COPIES
    });
    fleet.within(SOON, "all is as it shall be", || fleet.is_converged());
}
