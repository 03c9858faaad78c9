//! What befalls a newcomer's nodes, with real processes on loopback: signals, a directory used twice, damage, a lost disk.
//!
//! Every wait is bounded; what a node says is looked for in its log. Lost writes under SIGKILL are `kill_nine.rs`'s business.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "real processes, sockets and time are the point of these tests"
)]

mod common;

use common::until;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// One node: its configuration, its log, and its process if it runs.
struct Node {
    home: PathBuf,
    http: String,
    child: Option<Child>,
}

impl Node {
    /// Writes the configuration of `name` below `dir`; `cluster` is the rest of the file.
    fn new(dir: &Path, name: &str, http: &str, peer: &str, cluster: &str) -> Node {
        let home = dir.join(name);
        fs::create_dir_all(&home).unwrap();
        let data = home.join("data");
        let own = format!("name = \"{name}\"\ndata_dir = {data:?}\n");
        let listen = format!("[listen]\nhttp = \"{http}\"\npeer = \"{peer}\"\n");
        fs::write(home.join("node.toml"), own + &listen + cluster).unwrap();
        let http = http.to_owned();
        Node {
            home,
            http,
            child: None,
        }
    }

    fn start(&mut self) {
        self.child = Some(common::serve(&self.home));
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(sent.success(), "{name}");
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill()); // It may have ended by itself; then there is nothing to kill.
            child.wait().unwrap();
        }
    }

    /// The exit code, when it has ended by itself.
    fn exit(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let code = until(PATIENCE, "the process ends", || child.try_wait().unwrap());
        code.code().expect("no signal ended it")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn says(&self, words: &str) {
        until(PATIENCE, words, || self.log().contains(words).then_some(()));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {}:\n{}", self.home.display(), self.log());
        }
    }
}

/// Addresses that were free a moment ago.
fn free(count: usize) -> Vec<String> {
    let free = common::free_ports(count);
    free.iter().map(ToString::to_string).collect()
}

/// Runs a command; gives its exit code and its answer as JSON.
fn ask(endpoints: &str, line: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command
        .args(line)
        .args(["--output", "json", "--endpoints", endpoints])
        .env_clear();
    let output = command.stdin(Stdio::null()).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), answer)
}

/// A command that works in the end.
fn done(endpoints: &str, line: &[&str]) -> Value {
    until(PATIENCE, &line.join(" "), || {
        let (code, answer) = ask(endpoints, line);
        (code == 0).then_some(answer)
    })
}

/// A cluster of one, started and ready.
fn alone(dir: &Path) -> (Node, String) {
    let doors = free(2);
    let mut node = Node::new(dir, "n1", &doors[0], &doors[1], "");
    node.start();
    let endpoint = format!("http://{}", node.http);
    done(&endpoint, &["kv", "put", "a", "1"]);
    (node, endpoint)
}

#[test]
fn signals_cut_a_snapshot_and_stop_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut node, endpoint) = alone(dir.path());
    node.signal("USR1");
    node.says("SIGUSR1: snapshot is durable index=");
    node.signal("TERM");
    assert_eq!(node.exit(), 0);
    node.start();
    assert_eq!(done(&endpoint, &["kv", "get", "a"])["value"], "1");
    node.signal("INT");
    assert_eq!(node.exit(), 0);
    assert!(!node.log().contains("ERROR"), "{}", node.log());
}

#[test]
fn a_data_directory_is_one_process_s_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (node, endpoint) = alone(dir.path());
    let doors = free(2);
    let mut second = Node::new(dir.path(), "second", &doors[0], &doors[1], "");
    let config = second.home.join("node.toml");
    let data = node.home.join("data");
    let text = format!(
        "name = \"n1\"\ndata_dir = {data:?}\n[listen]\nhttp = \"{}\"\npeer = \"{}\"\n",
        doors[0], doors[1]
    );
    fs::write(config, text).unwrap();
    second.start();
    assert_eq!(second.exit(), 1);
    assert!(
        second.log().contains("is in use by another process"),
        "{}",
        second.log()
    );
    assert_eq!(done(&endpoint, &["kv", "get", "a"])["value"], "1");
}

#[test]
fn a_damaged_log_is_explained_and_a_lone_node_does_not_begin_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut node, endpoint) = alone(dir.path());
    node.signal("TERM");
    assert_eq!(node.exit(), 0);
    let data = node.home.join("data");
    let line = ["debug", "wal", data.to_str().unwrap()];
    let (code, sound) = ask(&endpoint, &line);
    assert_eq!((code, &sound["damaged"]), (0, &Value::Bool(false)));
    let segment = data.join("wal").join("00000000000000000001.wal");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[600] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, broken) = ask(&endpoint, &line);
    assert_eq!((code, &broken["damaged"]), (7, &Value::Bool(true)));
    node.start();
    assert_eq!(node.exit(), 1);
    assert!(
        node.log().contains("nobody can give it its data back"),
        "{}",
        node.log()
    );
    assert!(segment.exists(), "nothing was moved");
}

/// Three founders, in the words of a node's file: `doors` are their HTTP addresses, then their peer addresses.
fn members(doors: &[String]) -> String {
    let member = |at: usize| {
        let (http, peer) = (&doors[at], &doors[at + 3]);
        format!("[[cluster.members]]\nname = \"n{at}\"\nhttp = \"{http}\"\npeer = \"{peer}\"\n")
    };
    (0..3).map(member).collect()
}

/// Those founders, started.
fn trio(dir: &Path, doors: &[String]) -> Vec<Node> {
    let members = members(doors);
    let node = |at: usize| {
        let name = format!("n{at}");
        Node::new(dir, &name, &doors[at], &doors[at + 3], &members)
    };
    let mut nodes: Vec<Node> = (0..3).map(node).collect();
    nodes.iter_mut().for_each(Node::start);
    nodes
}

#[test]
fn a_lost_disk_is_replaced_although_an_older_snapshot_is_on_offer() {
    let dir = tempfile::tempdir().unwrap();
    let doors = free(6);
    let mut nodes = trio(dir.path(), &doors);
    let endpoints = doors[..3].iter().map(|door| format!("http://{door}"));
    let endpoints: Vec<String> = endpoints.collect();
    let all = endpoints.join(",");
    done(&all, &["kv", "put", "a", "1"]);
    for endpoint in &endpoints {
        done(endpoint, &["cluster", "snapshot"]);
    }
    let leader = done(&all, &["cluster", "info"])["leader"].as_u64().unwrap();
    // Founders get their ids in the order of their names: n0 is 1.
    let lost = usize::try_from(leader % 3).unwrap();
    nodes[lost].kill();
    fs::remove_dir_all(nodes[lost].home.join("data")).unwrap();
    nodes[lost].start();
    until(PATIENCE, "three voters, one of them new", || {
        let (_, info) = ask(&all, &["cluster", "info"]);
        let members = info["members"].as_array()?.clone();
        let is_voter = |one: &Value| one["role"] == "leader" || one["role"] == "follower";
        let is_new = |one: &Value| one["id"] == 4 && one["name"] == format!("n{lost}");
        let settled = members.len() == 3 && members.iter().all(is_voter);
        (settled && members.iter().any(is_new)).then_some(())
    });
    let local = ["kv", "get", "a", "--consistency", "local"];
    assert_eq!(done(&endpoints[lost], &local)["value"], "1");
}

/// A manager called n3 that joins those of `doors` by `token`.
fn newcomer(dir: &Path, own: [&str; 2], doors: &[String], token: &str) -> Node {
    let file = dir.join("token");
    fs::write(&file, format!("{token}\n")).unwrap();
    let members = members(doors);
    let cluster = format!("[cluster]\njoin = true\ntoken_file = {file:?}\n{members}");
    Node::new(dir, "n3", own[0], own[1], &cluster)
}

#[test]
fn a_manager_joins_by_a_token_and_a_dead_one_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let doors = free(8);
    let mut nodes = trio(dir.path(), &doors);
    let endpoints = doors[..3].iter().map(|door| format!("http://{door}"));
    let all = endpoints.collect::<Vec<String>>().join(",");
    done(&all, &["kv", "put", "a", "1"]);
    let create = ["cluster", "token", "create", "--role", "manager"];
    let (revoked, workers) = (done(&all, &create), done(&all, &["cluster", "token"]));
    let revoke = ["cluster", "token", "rm", &revoked["id"].to_string()];
    done(&all, &revoke);
    // Its log and its door say why it is not let in; the text of the token is nowhere.
    for (made, why) in [
        (&revoked, "expired or revoked"),
        (&workers, "is for workers"),
    ] {
        let token = made["token"].as_str().unwrap();
        let mut stranger = newcomer(dir.path(), [&doors[6], &doors[7]], &doors, token);
        stranger.start();
        until(PATIENCE, why, || stranger.log().contains(why).then_some(()));
        let (_, health) = ask(&format!("http://{}", doors[6]), &["cluster", "health"]);
        assert!(health.to_string().contains(why), "{health}");
        assert!(!(stranger.log() + &health.to_string()).contains(token));
        stranger.kill();
        fs::remove_dir_all(&stranger.home).unwrap();
    }
    let made = done(&all, &create);
    let token = made["token"].as_str().unwrap();
    let mut fourth = newcomer(dir.path(), [&doors[6], &doors[7]], &doors, token);
    fourth.start();
    let voters = |many: usize| {
        until(PATIENCE, &format!("{many} voters"), || {
            let (_, info) = ask(&all, &["cluster", "info"]);
            let members = info["members"].as_array()?.clone();
            let is_voter = |one: &Value| one["role"] == "leader" || one["role"] == "follower";
            (members.len() == many && members.iter().all(is_voter)).then_some(info)
        })
    };
    let leader = voters(4)["leader"].as_u64().unwrap();
    let tokens = done(&all, &["cluster", "token", "ls"]);
    let mut tokens = tokens["tokens"].as_array().unwrap().iter();
    let own = tokens.find(|one| one["id"] == made["id"]).unwrap();
    assert_eq!((&own["role"], &own["used"]), (&"manager".into(), &1.into()));
    done(&all, &["cluster", "token", "rm", &made["id"].to_string()]);
    // Founders get their ids in the order of their names: n0 is 1.
    let dead = usize::try_from(leader % 3).unwrap();
    nodes[dead].kill();
    done(&all, &["kv", "put", "a", "2"]);
    done(&all, &["cluster", "members", "remove", &format!("n{dead}")]);
    voters(3);
    done(&all, &["kv", "put", "a", "3"]);
    let at_fourth = format!("http://{}", doors[6]);
    assert_eq!(done(&at_fourth, &["kv", "get", "a"])["value"], "3");
    assert!(!fourth.log().contains(token));
}
