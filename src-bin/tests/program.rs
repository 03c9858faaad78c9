//! The program as a process: exit codes, streams, files, and what it says when it cannot start.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests run the program as the operating system does"
)]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn program(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command
        .args(line.split_whitespace())
        .env_clear()
        .stdin(Stdio::null());
    command
}

fn run(line: &str) -> (i32, String, String) {
    told(program(line).output().expect("the program was built"))
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("the program writes text");
    (
        output.status.code().expect("no signal ended it"),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn answers_go_to_stdout_and_complaints_to_stderr() {
    assert_eq!(
        run("version"),
        (0, "seaworthy 0.1.0\n".into(), String::new())
    );
    let (code, out, err) = run("kv put a");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("<VALUE>"), "{err}");
}

#[test]
fn a_cluster_that_is_not_there_is_exit_5() {
    let (code, _, err) = run("kv get a --endpoints http://127.0.0.1:1");
    assert_eq!(code, 5);
    assert!(err.contains("cannot reach 127.0.0.1:1"), "{err}");
}

#[test]
fn configurations_are_read_from_files_pipes_and_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let text = "name = \"n1\"\n[listen]\nhttp = \"h:1\"\npeer = \"h:2\"\n";
    std::fs::write(&file, text).unwrap();
    let line = format!("config check --config {}", file.display());
    let (code, out, _) = run(&line);
    assert_eq!(code, 7);
    assert!(out.contains("data_dir: missing"), "{out}");
    let (code, out, err) = told(
        program(&line)
            .env("SEAWORTHY_DATA_DIR", "/d")
            .output()
            .unwrap(),
    );
    assert_eq!(code, 0, "{out}{err}");
    let mut piped = program("config check --config - --data-dir /d");
    let mut child = piped
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn dev_refuses_a_port_that_is_taken_and_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = taken.local_addr().unwrap().port() - 1;
    let (code, _, err) = run(&format!("dev --nodes 1 --port-base {base}"));
    assert_eq!(code, 1);
    assert!(
        err.contains(&format!("cannot listen on 127.0.0.1:{}", base + 1)),
        "{err}"
    );
    assert!(err.contains("--port-base"), "{err}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = program("completion bash")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, err) = told(child.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn every_command_that_the_handbook_names_is_there() {
    let mut verbs = BTreeSet::new();
    for scenario in scenarios::all() {
        let prose = [
            scenario.symptoms,
            scenario.what_happens,
            scenario.what_to_do,
            scenario.prevention,
        ]
        .concat();
        // Between backticks, and no further than the verb and what it is done to.
        for words in prose
            .split('`')
            .filter_map(|one| one.strip_prefix("seaworthy "))
        {
            let plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
            let words: Vec<&str> = words.split_whitespace().take_while(plain).take(2).collect();
            verbs.insert(words.join(" "));
        }
    }
    assert!(verbs.len() > 15, "{verbs:?}");
    for verb in verbs {
        let (code, _, err) = run(&format!("{verb} --help"));
        assert_eq!(code, 0, "`seaworthy {verb}`: {err}");
    }
}
