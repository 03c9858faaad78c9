//! What is left behind when a program that runs others is killed: nothing.
#![cfg(not(madsim))]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "real processes and time are the point of this test"
)]

mod common;

use common::{free_ports, until};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for something that takes a moment.
const SOON: Duration = Duration::from_secs(60);

/// A process, and what tells it from a later one of its number.
type Name = (u32, String);

/// Parent, state and beginning of a process that is there.
fn stat(pid: u32) -> Option<(u32, String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((
        words[1].parse().ok()?,
        words[0].to_owned(),
        words[19].to_owned(),
    ))
}

/// Everything that `root` began, and what that began.
fn descendants(root: u32) -> BTreeMap<u32, String> {
    let dirs = fs::read_dir("/proc").unwrap().flatten();
    let pids = dirs.filter_map(|dir| dir.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, u32, String)> = pids
        .filter_map(|pid| stat(pid).map(|(parent, _, begun)| (pid, parent, begun)))
        .collect();
    let mut found = BTreeMap::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, _, begun) in all.iter().filter(|one| one.1 == parent) {
            if found.insert(*pid, begun.clone()).is_none() {
                parents.push(*pid);
            }
        }
    }
    found
}

fn is_there((pid, begun): &Name) -> bool {
    stat(*pid).is_some_and(|(_, state, since)| since == *begun && state != "Z")
}

/// A program that is killed when the test ends, at the latest.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the processes of `names` are, for a message.
fn told(names: &[Name]) -> Vec<String> {
    let line = |(pid, _): &Name| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let lines = names.iter().map(line);
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

/// Nothing of what a program began is there any more, soon after it was killed.
fn all_end_with(program: Program, least: usize) {
    let began: Vec<Name> = descendants(program.0.id()).into_iter().collect();
    assert!(began.len() >= least, "{:?}", told(&began));
    drop(program);
    let begun = Instant::now();
    loop {
        let left: Vec<Name> = began
            .iter()
            .filter(|name| is_there(name))
            .cloned()
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < SOON, "left behind: {:?}", told(&left));
        thread::sleep(Duration::from_millis(50));
    }
}

fn seaworthy(words: &[&str], endpoint: &str) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command.args(["--endpoints", endpoint]).args(words);
    let ran = command.env_clear().stdin(Stdio::null()).output().unwrap();
    ran.status.success()
}

/// A port base of which all ports that `dev` needs are free.
fn base() -> u16 {
    let near = free_ports(1)[0].port();
    near.clamp(10_000, 60_000)
}

fn dev(dir: &Path, base: u16) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command.args(["dev", "--nodes", "1", "--workers", "1"]);
    command.args(["--port-base", &base.to_string()]);
    command.arg("--data-dir").arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Program(command.stderr(Stdio::null()).spawn().unwrap())
}

#[test]
fn tasks_of_dev_end_with_it_though_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    let program = dev(dir.path(), base);
    let endpoint = format!("http://127.0.0.1:{}", base + 1);
    let create = ["service", "create", "web", "--replicas", "2", "--wait"];
    let create = [&create[..], &["--", "sh", "-c", "sleep 1000 & wait"]].concat();
    until(SOON, "a worker that runs tasks", || {
        seaworthy(&create, &endpoint).then_some(())
    });
    // Two tasks with what each began, and a guard beside each.
    all_end_with(program, 6);
}

#[test]
fn nodes_of_a_live_run_end_with_it_though_it_is_killed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storm"));
    command.args(["live", "worker-crash", "--seed", "1", "--program"]);
    command.arg(env!("CARGO_BIN_EXE_seaworthy"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let program = Program(command.stderr(Stdio::null()).spawn().unwrap());
    // Three managers and a worker at least, each with its guard.
    until(SOON, "its nodes", || {
        (descendants(program.0.id()).len() >= 8).then_some(())
    });
    all_end_with(program, 8);
}
