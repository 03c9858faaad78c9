//! What the tests with real processes share: servers started from their home directories, and questions over HTTP.
#![allow(dead_code, reason = "each test uses its part")]

use node::api::wire::ClusterAnswer;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for an answer before its outcome counts as unknown.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for a cluster to be whole.
const WHOLE: Duration = Duration::from_secs(60);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What `look` finds, as soon as it finds something, within `longest`.
pub(crate) fn until<T>(longest: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < longest, "not within {longest:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Starts a server by `node.toml` in `home`; what it says goes to the end of `log` there.
pub(crate) fn serve(home: &Path) -> Child {
    let options = File::options()
        .append(true)
        .create(true)
        .open(home.join("log"));
    let log = options.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command
        .arg("server")
        .arg("--config")
        .arg(home.join("node.toml"))
        .env_clear(); // `SEAWORTHY_` variables are settings of the node, and whoever runs this may have some.
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command.spawn().unwrap()
}

/// One node and its process.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) http: SocketAddr,
    pub(crate) home: PathBuf,
    pub(crate) child: Option<Child>,
}

impl Server {
    pub(crate) fn start(&mut self) {
        self.child = Some(serve(&self.home));
    }

    /// SIGKILL, and no process left.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill()); // It may have ended by itself; then there is nothing to kill.
            child.wait().unwrap();
        }
    }

    /// What it says of the cluster, if it answers.
    pub(crate) fn cluster(&self) -> Option<ClusterAnswer> {
        ask(self.http, "GET", "/v1/cluster", "").ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- last lines of {}:\n{}",
                self.name,
                lines[lines.len().saturating_sub(30)..].join("\n")
            );
        }
    }
}

/// Three nodes that know each other, not started yet.
pub(crate) fn three(dir: &Path) -> Vec<Server> {
    let ports = free_ports(6);
    let mut members = String::new();
    for at in 0..3 {
        let (http, peer) = (ports[at], ports[at + 3]);
        writeln!(
            members,
            "[[cluster.members]]\nname = \"n{at}\"\nhttp = \"{http}\"\npeer = \"{peer}\""
        )
        .unwrap();
    }
    let server = |at: usize| {
        let (name, home) = (format!("n{at}"), dir.join(format!("n{at}")));
        fs::create_dir(&home).unwrap();
        let (http, peer, data) = (ports[at], ports[at + 3], home.join("data"));
        let own = format!("name = \"{name}\"\ndata_dir = {data:?}\nprofile = \"lan\"\n");
        let listen = format!("[listen]\nhttp = \"{http}\"\npeer = \"{peer}\"\n");
        fs::write(home.join("node.toml"), own + &listen + &members).unwrap();
        Server {
            name,
            http,
            home,
            child: None,
        }
    };
    (0..3).map(server).collect()
}

/// Addresses that were free a moment ago.
pub(crate) fn free_ports(count: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    held.iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect()
}

/// One request on a connection of its own; an error means that the outcome is not known.
pub(crate) fn ask<T: DeserializeOwned>(
    to: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<T> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(body.to_owned()));
    }
    Ok(serde_json::from_str(body)?)
}

/// Waits until every node answers and all name the same leader.
pub(crate) fn whole(servers: &[Server]) {
    let began = Instant::now();
    loop {
        let leaders: Vec<u64> = servers
            .iter()
            .filter_map(|one| one.cluster())
            .map(|one| one.leader.0)
            .collect();
        if leaders.len() == servers.len()
            && leaders[0] != 0
            && leaders.iter().all(|one| *one == leaders[0])
        {
            return;
        }
        assert!(
            began.elapsed() < WHOLE,
            "the cluster is not whole after {WHOLE:?}: leaders {leaders:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// The node that leads, by its own word.
pub(crate) fn leader(servers: &[Server]) -> usize {
    let leads = |one: &Server| {
        one.cluster()
            .is_some_and(|answer| answer.leader == answer.id)
    };
    servers.iter().position(leads).unwrap_or(0)
}
