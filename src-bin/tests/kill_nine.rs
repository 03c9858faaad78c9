//! Three real processes on loopback, writers, and SIGKILL: no acknowledged write may be lost.
//!
//! Writers put keys that nobody else writes, so an unknown outcome can break nothing: whatever was acknowledged must be
//! there at the end, with the very revision that was acknowledged. One more key is written by all of them; its version may
//! not fall behind the greatest one acknowledged. The leader is killed in every other round, a follower in between, and
//! all three at once in the last. `KILL_ROUNDS` sets the number of rounds. `ci/kill-nine` runs this in release.
//!
//! What this cannot show: a killed process leaves the kernel's cache intact, so nothing here proves a sync. That is the
//! simulated disk's work.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "real processes, sockets, threads and time are the point of this test"
)]

mod common;

use common::{Server, ask, leader, three, whole};
use node::api::wire::{GetAnswer, PutAnswer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Rounds of a plain `cargo test`.
const ROUNDS: usize = 3;
/// Writers at once.
const WRITERS: usize = 4;
/// A writer's pause between two writes.
const PAUSE: Duration = Duration::from_millis(3);
/// How long writers work on a whole cluster, and then on one that lacks a node.
const CALM: Duration = Duration::from_millis(1_000);

/// What the writers know to have happened.
#[derive(Default)]
struct Record {
    /// Revision of every acknowledged write, by key.
    acknowledged: BTreeMap<String, u64>,
    /// Greatest acknowledged version of the key that everybody writes.
    shared_version: u64,
    /// Writes whose outcome is not known.
    unknown: usize,
    /// When the last write was acknowledged.
    last: Option<Instant>,
    /// Longest time without an acknowledged write.
    gap: Duration,
}

impl Record {
    fn acknowledge(&mut self, key: &str, answer: &PutAnswer) {
        match key {
            "shared" => self.shared_version = self.shared_version.max(answer.done.version),
            _ => drop(
                self.acknowledged
                    .insert(key.to_owned(), answer.place.revision.0),
            ),
        }
        let now = Instant::now();
        self.gap = self.last.map_or(self.gap, |last| self.gap.max(now - last));
        self.last = Some(now);
    }
}

/// Puts key after key, now on one node and now on another, until `done`.
fn write(writer: usize, nodes: &[SocketAddr], record: &Mutex<Record>, done: &AtomicBool) {
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let key = if number % 10 == 9 {
            "shared".to_owned()
        } else {
            format!("w{writer}/{number}")
        };
        let to = nodes[(writer + number) % nodes.len()];
        let answer = ask::<PutAnswer>(to, "PUT", &format!("/v1/kv/{key}"), &value(&key));
        let mut record = record.lock().unwrap();
        match answer {
            Ok(answer) => record.acknowledge(&key, &answer),
            Err(_) => record.unknown += 1,
        }
        drop(record);
        thread::sleep(PAUSE);
    }
}

fn value(key: &str) -> String {
    format!("value of {key}")
}

/// One round: work, kill, work on, start again, be whole again.
fn round(number: usize, servers: &mut [Server]) {
    thread::sleep(CALM);
    let victim = (leader(servers) + number % 2) % servers.len();
    servers[victim].kill();
    thread::sleep(CALM);
    servers[victim].start();
    whole(servers);
}

/// Every acknowledged write is there, read from one node or another.
fn verify(servers: &[Server], record: &Record) {
    for (at, (key, revision)) in record.acknowledged.iter().enumerate() {
        let path = format!("/v1/kv/{key}?consistency=linearizable");
        let answer: GetAnswer = ask(servers[at % servers.len()].http, "GET", &path, "")
            .unwrap_or_else(|error| {
                panic!("{key} was acknowledged at revision {revision} and is lost: {error}")
            });
        assert_eq!(
            answer.record.value,
            Some(value(key)),
            "{key} has another value"
        );
        assert_eq!(
            answer.record.mod_revision.0, *revision,
            "{key} has another revision"
        );
    }
    let shared: GetAnswer = ask(servers[0].http, "GET", "/v1/kv/shared", "").unwrap();
    let (found, expected) = (shared.record.version, record.shared_version);
    assert!(
        found >= expected,
        "version {expected} was acknowledged, {found} is there"
    );
}

/// Two writes with one revision would mean two histories.
fn revisions_differ(record: &Record) {
    let mut keys = BTreeMap::new();
    for (key, revision) in &record.acknowledged {
        if let Some(other) = keys.insert(revision, key) {
            panic!("{key} and {other} were both acknowledged at revision {revision}");
        }
    }
}

#[test]
fn no_acknowledged_write_is_lost_to_sigkill() {
    let rounds = std::env::var("KILL_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut servers = three(dir.path());
    servers.iter_mut().for_each(Server::start);
    whole(&servers);
    let nodes: Vec<SocketAddr> = servers.iter().map(|one| one.http).collect();
    let (record, done) = (Mutex::new(Record::default()), AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (nodes, record, done) = (&nodes, &record, &done);
            scope.spawn(move || write(writer, nodes, record, done));
        }
        let _done = Set(&done);
        (0..rounds).for_each(|number| round(number, &mut servers));
        servers.iter_mut().for_each(Server::kill);
        servers.iter_mut().for_each(Server::start);
        whole(&servers);
        thread::sleep(CALM);
    });
    let record = record.into_inner().unwrap();
    assert!(
        record.acknowledged.len() > rounds * 20,
        "only {} writes were acknowledged",
        record.acknowledged.len()
    );
    revisions_differ(&record);
    verify(&servers, &record);
    let (acknowledged, unknown, gap) = (record.acknowledged.len(), record.unknown, record.gap);
    println!(
        "kill-nine: {rounds} single kills and one of all three; {acknowledged} writes acknowledged, 0 lost, \
         {unknown} without an answer; longest time without an acknowledged write {} ms",
        gap.as_millis()
    );
}

/// Ends the writers, also when the test panics; otherwise the scope would wait for them for ever.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
