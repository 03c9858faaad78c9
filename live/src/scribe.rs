//! The scribe: hears from every process of every task what becomes of it, and writes the ledger that the judges read.
//!
//! Each process holds a connection for as long as it lives; when that ends, the process has ended, whoever killed it. What it said
//! before is why. A lock that a new process has got says that no earlier one holds it any more: those are closed in the ledger
//! first, so that two ends that are heard in the wrong order make no false overlap. One that it has not got is a wrong at once.

use crate::clock::RunClock;
use crate::report::Story;
use crate::task::{Begins, Line};
use anyhow::Result;
use node::types::TaskId;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use workloads::ledger::{KILLED, Run};

/// What the scribe knows.
#[derive(Default)]
struct Known {
    /// Every process, in the order in which they began.
    runs: Vec<Run>,
    /// Processes that are there, by their place in the ledger.
    there: BTreeMap<usize, u32>,
    /// Hosts without power: nothing may begin there.
    dark: BTreeSet<String>,
    /// Set when the run is over.
    is_over: bool,
}

/// The scribe. A clone is the same.
#[derive(Clone)]
pub(crate) struct Scribe {
    /// The run's clock.
    clock: RunClock,
    /// Where wrongs are told.
    story: Story,
    /// What is known.
    known: Arc<Mutex<Known>>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whoever listens.
    door: Arc<JoinHandle<()>>,
}

impl Scribe {
    /// Begins to listen.
    pub(crate) async fn start(clock: RunClock, story: Story) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let known = Arc::new(Mutex::new(Known::default()));
        let door = {
            let (known, story) = (Arc::clone(&known), story.clone());
            tokio::spawn(async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        story.fail("the scribe cannot hear tasks any more".to_owned());
                        return;
                    };
                    let (known, story) = (Arc::clone(&known), story.clone());
                    tokio::spawn(async move { hear(stream, clock, &known, &story).await });
                }
            })
        };
        Ok(Scribe {
            clock,
            story,
            known,
            address,
            door: Arc::new(door),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// The ledger so far.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.lock().runs.clone()
    }

    /// The machine of a worker loses power: every process there is killed, and none begins until [`Scribe::power_is_back`].
    pub(crate) fn power_is_lost(&self, host: &str) {
        let mut known = self.lock();
        known.dark.insert(host.to_owned());
        let now = self.clock.now();
        for place in known.on(host) {
            kill(known.there[&place]);
            known.close(place, now, "the machine lost power");
            let run = &known.runs[place];
            let text = format!("task {}.{} ends with its machine", run.task, run.attempt);
            self.story.line(now, host, &text);
        }
    }

    /// A machine has power again.
    pub(crate) fn power_is_back(&self, host: &str) {
        self.lock().dark.remove(host);
    }

    /// Kills every process that is there, and those that still begin; the ledger stays as it is.
    pub(crate) fn end(&self) {
        let mut known = self.lock();
        known.is_over = true;
        known.there.values().for_each(|pid| kill(*pid));
        known.there.clear();
    }

    /// The version that each process runs is what managers say of its task.
    pub(crate) fn tell_versions(&self, versions: &BTreeMap<TaskId, u64>) {
        for run in &mut self.lock().runs {
            run.version = versions.get(&run.task).copied().unwrap_or(run.version);
        }
    }

    /// Something is wrong with what runs.
    #[cfg(test)]
    fn failures(&self) -> Vec<String> {
        self.story.told().failures
    }
}

impl Drop for Scribe {
    /// The last one lets nobody in any more.
    fn drop(&mut self) {
        if Arc::strong_count(&self.door) == 1 {
            self.end();
            self.door.abort();
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SIGKILL. The process is there: its connection is open.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may be ending at this moment.
        kill_process(pid, Signal::KILL).ok();
    }
}

/// Hears one process to its end.
async fn hear(stream: TcpStream, clock: RunClock, known: &Mutex<Known>, story: &Story) {
    let mut lines = BufReader::new(stream).lines();
    let Some(Line::Begins(begins)) = next(&mut lines).await else {
        return; // It was killed before it could say who it is.
    };
    let (host, name) = (begins.host.clone(), name(&begins));
    let Some(place) = lock(known).begin(begins, clock.now(), story) else {
        return; // Dropping the connection ends it.
    };
    story.line(clock.now(), &host, &format!("{name} begins"));
    let mut why = KILLED.to_owned();
    while let Some(line) = next(&mut lines).await {
        match line {
            Line::Begins(_) => {}
            Line::Ready => lock(known).ready(place, clock.now()),
            Line::Told => lock(known).told(place, clock.now()),
            Line::Ends { why: said } => why = said,
        }
    }
    let mut known = lock(known);
    if !known.is_over {
        known.close(place, clock.now(), &why);
        story.line(clock.now(), &host, &format!("{name} ends: {why}"));
    }
}

/// The next line of a process; none when it has ended.
async fn next(lines: &mut Lines<BufReader<TcpStream>>) -> Option<Line> {
    let line = lines.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// A process in words.
fn name(begins: &Begins) -> String {
    let Begins {
        task,
        attempt,
        service,
        slot,
        ..
    } = begins;
    format!("task {task}.{attempt} of {service} slot {slot}")
}

impl Known {
    /// Places of the processes that are there on a host.
    fn on(&self, host: &str) -> Vec<usize> {
        let there = self.there.keys().copied();
        there
            .filter(|place| self.runs[*place].host == host)
            .collect()
    }

    /// A process is there; gives its place in the ledger, or nothing if it must end at once.
    fn begin(&mut self, begins: Begins, now: Duration, story: &Story) -> Option<usize> {
        if self.is_over || self.dark.contains(&begins.host) {
            kill(begins.pid);
            return None;
        }
        for lock in &begins.shared {
            let one = name(&begins);
            let host = &begins.host;
            story.fail(format!(
                "held_twice: {one} on {host} began while another process still held {lock}"
            ));
        }
        self.close_predecessors(&begins, now);
        let place = self.runs.len();
        self.there.insert(place, begins.pid);
        self.runs.push(Run {
            host: begins.host,
            task: TaskId(begins.task),
            attempt: begins.attempt,
            service: begins.service,
            slot: begins.slot,
            version: 0,
            volumes: begins.volumes,
            reserved: node::service::spec::Amounts::default(),
            from: now,
            ready_after: Duration::from_millis(begins.ready_after_ms),
            told: None,
            // Nobody removes a worker by force here.
            given_up: None,
            to: None,
            why: String::new(),
        });
        Some(place)
    }

    /// What held a lock that `begins` has got has ended, although that is not heard yet.
    fn close_predecessors(&mut self, begins: &Begins, now: Duration) {
        let got = |lock: String| !begins.shared.contains(&lock);
        let runs = self.runs.iter_mut().filter(|run| run.to.is_none());
        for run in runs {
            let same_task = run.task == TaskId(begins.task) && got(format!("task {}", begins.task));
            let mut volumes = run.volumes.iter();
            let same_volume =
                volumes.any(|one| begins.volumes.contains(one) && got(format!("volume {one}")));
            if same_task || same_volume {
                run.to = Some(now);
            }
        }
    }

    /// A process's checks succeed from now on.
    fn ready(&mut self, place: usize, now: Duration) {
        let run = &mut self.runs[place];
        run.ready_after = now.saturating_sub(run.from);
    }

    /// A process was told to end.
    fn told(&mut self, place: usize, now: Duration) {
        self.runs[place].told.get_or_insert(now);
    }

    /// A process has ended; nothing when that was known.
    fn close(&mut self, place: usize, now: Duration, why: &str) {
        if self.there.remove(&place).is_none() {
            return;
        }
        let run = &mut self.runs[place];
        run.to.get_or_insert(now);
        why.clone_into(&mut run.why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// A process that is nobody's: the kernel never gives this number.
    const NO_PID: u32 = 0x3fff_ffff;

    fn begins(task: u64, host: &str) -> Begins {
        Begins {
            host: host.to_owned(),
            service: "db".to_owned(),
            task,
            attempt: 1,
            pid: NO_PID,
            volumes: vec!["data".to_owned()],
            ..Begins::default()
        }
    }

    async fn scribe() -> Scribe {
        let started = Scribe::start(RunClock::start(), Story::default()).await;
        started.expect("loopback can be listened on")
    }

    /// Connects, and says lines.
    async fn says(scribe: &Scribe, lines: &[Line]) -> TcpStream {
        let mut stream = TcpStream::connect(scribe.address)
            .await
            .expect("it listens");
        for line in lines {
            let text = serde_json::to_string(line).expect("it is data") + "\n";
            stream.write_all(text.as_bytes()).await.expect("it listens");
        }
        stream
    }

    /// Waits until the ledger is so.
    async fn until(scribe: &Scribe, holds: impl Fn(&[Run]) -> bool) {
        for _ in 0..1_000 {
            if holds(&scribe.runs()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came: {:?}", scribe.runs());
    }

    #[tokio::test]
    async fn a_process_is_there_until_its_connection_ends_and_what_it_said_is_why() {
        let scribe = scribe().await;
        let one = says(&scribe, &[Line::Begins(begins(1, "w1")), Line::Told]).await;
        until(&scribe, |runs| runs.iter().any(|run| run.told.is_some())).await;
        assert_eq!(scribe.runs()[0].to, None);
        drop(one);
        until(&scribe, |runs| runs[0].why == KILLED).await;
        let why = "done".to_owned();
        says(
            &scribe,
            &[Line::Begins(begins(2, "w1")), Line::Ends { why }],
        )
        .await;
        until(&scribe, |runs| runs.len() == 2 && runs[1].why == "done").await;
        assert!(scribe.failures().is_empty());
    }

    #[tokio::test]
    async fn a_lock_that_was_got_closes_its_last_holder_and_one_that_was_not_is_a_wrong() {
        let scribe = scribe().await;
        let _one = says(&scribe, &[Line::Begins(begins(1, "w1"))]).await;
        until(&scribe, |runs| runs.len() == 1).await;
        let _two = says(&scribe, &[Line::Begins(begins(2, "w2"))]).await;
        until(&scribe, |runs| runs.len() == 2).await;
        let runs = scribe.runs();
        assert_eq!(runs[0].to, Some(runs[1].from));
        assert!(scribe.failures().is_empty());
        let mut three = begins(3, "w3");
        three.shared = vec!["volume data".to_owned()];
        let _three = says(&scribe, &[Line::Begins(three)]).await;
        until(&scribe, |runs| runs.len() == 3).await;
        assert_eq!(scribe.runs()[1].to, None, "both are there");
        assert!(scribe.failures()[0].starts_with("held_twice: task 3.1"));
    }

    #[tokio::test]
    async fn nothing_begins_on_a_machine_without_power() {
        let scribe = scribe().await;
        let _one = says(&scribe, &[Line::Begins(begins(1, "w1"))]).await;
        until(&scribe, |runs| runs.len() == 1).await;
        scribe.power_is_lost("w1");
        assert_eq!(scribe.runs()[0].why, "the machine lost power");
        let mut two = says(&scribe, &[Line::Begins(begins(2, "w1"))]).await;
        // It is shown the door.
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut two, &mut rest)
            .await
            .ok();
        assert_eq!(scribe.runs().len(), 1);
        scribe.power_is_back("w1");
        let _three = says(&scribe, &[Line::Begins(begins(3, "w1"))]).await;
        until(&scribe, |runs| runs.len() == 2).await;
    }
}
