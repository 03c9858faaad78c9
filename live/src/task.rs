//! What a simulated task is in a live run: a process with the same behaviour, which is this program under another verb.
//!
//! [`Stage::cast`] is the one place where a specification of a scenario becomes one that real workers can run. The process tells the
//! [scribe](crate::scribe) what becomes of it, one line of JSON each; its end is seen by the end of that connection, so a kill
//! is seen too. It ends when the scribe does: no task outlives the run.
//!
//! Whether it is healthy stands in a file of its directory that names its process, and the health check is a line of shell that
//! looks. It holds locks on its own number and on the volumes that it has for itself: two that hold one at the same moment are
//! found out by the kernel and not by comparing times.

use anyhow::{Context, Result, bail};
use node::service::Spec;
use node::service::spec::HealthCheck;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use workloads::behaviour::{Behaviour, End};
use workloads::ledger::{DONE, STOPPED};

/// The verb of `storm live` under which this program is a task.
pub(crate) const VERB: &str = "as-task";
/// Variables in which a task finds the scribe, the folder of locks, and the volumes that it has for itself.
const SCRIBE: &str = "LIVE_SCRIBE";
const LOCKS: &str = "LIVE_LOCKS";
const VOLUMES: &str = "LIVE_VOLUMES";
/// What the worker tells every task.
const SERVICE: &str = "SEAWORTHY_SERVICE";
const SLOT: &str = "SEAWORTHY_SLOT";
const MARK: &str = "SEAWORTHY_MARK";
/// The file that names a healthy process.
const HEALTHY: &str = "healthy";
/// A program that does not exist: what a task that is refused everywhere runs.
const NOWHERE: &str = "/nowhere/no-such-program";
/// How long a task takes to end when it is told and nothing else is said.
const STOP: Duration = Duration::from_millis(50);
/// Ends of a task that crashes, or for which there is no scribe.
const CRASHED: u8 = 1;
const ALONE: u8 = 3;

/// What a task says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "snake_case")]
pub(crate) enum Line {
    /// It is there.
    Begins(Begins),
    /// Its health checks succeed from now on.
    Ready,
    /// It was told to end.
    Told,
    /// It ends now.
    Ends {
        /// Why.
        why: String,
    },
}

/// Who a task is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begins {
    /// Its worker's name.
    pub(crate) host: String,
    /// Its service.
    pub(crate) service: String,
    /// Its slot.
    pub(crate) slot: u64,
    /// Its number.
    pub(crate) task: u64,
    /// Which attempt of it.
    pub(crate) attempt: u32,
    /// Its process.
    pub(crate) pid: u32,
    /// How long after its beginning its checks succeed, milliseconds; zero without checks.
    pub(crate) ready_after_ms: u64,
    /// Volumes that it has for itself.
    pub(crate) volumes: Vec<String>,
    /// Locks that another process held at this moment.
    pub(crate) shared: Vec<String>,
}

/// Where tasks play.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// This program.
    pub(crate) program: PathBuf,
    /// Where the scribe listens.
    pub(crate) scribe: SocketAddr,
    /// Folder of locks.
    pub(crate) locks: PathBuf,
}

impl Stage {
    /// The specification by which real workers run what `spec` means.
    pub(crate) fn cast(&self, spec: &Spec) -> Result<Spec> {
        let behaviour = Behaviour::parse(&spec.command).map_err(anyhow::Error::msg)?;
        if let Some(why) = impossible(&spec.command) {
            bail!("{}: {why}", spec.name);
        }
        let mut cast = spec.clone();
        let program = match behaviour.refused {
            Some(_) => NOWHERE.to_owned(),
            None => self.program.display().to_string(),
        };
        cast.command = [program, "live".to_owned(), VERB.to_owned()].to_vec();
        cast.command.extend(spec.command.iter().cloned());
        let alone = spec.volumes.iter().filter(|mount| !mount.shared);
        let alone: Vec<&str> = alone.map(|mount| mount.volume.as_str()).collect();
        cast.env.extend([
            (SCRIBE.to_owned(), self.scribe.to_string()),
            (LOCKS.to_owned(), self.locks.display().to_string()),
            (VOLUMES.to_owned(), alone.join(",")),
        ]);
        if let Some(health) = &mut cast.health {
            health.check = check(behaviour.flaky);
        }
        Ok(cast)
    }
}

/// A check that succeeds while the process is healthy, but for a chance.
fn check(flaky: f64) -> HealthCheck {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a chance of 65,536"
    )]
    let bound = (flaky * 65_536.0) as u32;
    let dice =
        format!("[ \"$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')\" -lt {bound} ] && exit 1; ");
    let dice = if bound == 0 { String::new() } else { dice };
    let line = format!("{dice}read -r pid <{HEALTHY} && kill -0 \"$pid\"");
    HealthCheck::Exec {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
    }
}

/// Why real workers cannot run a command of a scenario; nothing when they can.
pub(crate) fn impossible(command: &[String]) -> Option<&'static str> {
    let word = |word: &str| command.iter().any(|one| one == word);
    if word("refuse-on") {
        return Some("all workers are on one machine and find the same programs");
    }
    [
        "prepare-fails",
        "start-fails",
        "prepare-takes",
        "start-takes",
    ]
    .into_iter()
    .any(word)
    .then_some(
        "the operating system's preparing and starting of a process has no chance or time to order",
    )
}

/// Runs this process as a task: `words` are those of the scenario.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let played = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(play(words))
    };
    match played() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(ALONE)
        }
    }
}

/// The task, from its beginning to its end; gives its exit code.
async fn play(words: &[String]) -> Result<u8> {
    let start = Instant::now();
    let behaviour = Behaviour::parse(words).map_err(anyhow::Error::msg)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let var = |name: &str| env.get(name).with_context(|| format!("no {name}"));
    let (begins, _locks) = introduce(&behaviour, &env)?;
    fs::remove_file(HEALTHY).ok(); // Another attempt's.
    let mut scribe = TcpStream::connect(var(SCRIBE)?).await?;
    println!(
        "task {} attempt {} of {}: {}",
        begins.task,
        begins.attempt,
        begins.service,
        words.join(" ")
    );
    say(&mut scribe, &Line::Begins(begins)).await?;
    let at = |after: Option<Duration>| after.map(|after| start + after);
    let mut healthy = at(Some(behaviour.healthy_from));
    let mut unhealthy = at(behaviour.unhealthy_from);
    let ends = at(behaviour.end.map(|(after, _)| after));
    let mut stops: Option<Instant> = None;
    let mut nothing = [0];
    loop {
        tokio::select! {
            biased; // A task that is told to end hears that first.
            _ = terminate.recv() => {
                say(&mut scribe, &Line::Told).await?;
                if !behaviour.ignores_term {
                    stops.get_or_insert(Instant::now() + behaviour.stop.unwrap_or(STOP));
                }
            }
            _ = scribe.read(&mut nothing) => return Ok(ALONE),
            () = until(stops) => return farewell(&mut scribe, STOPPED, 0).await,
            () = until(ends) => return end(&mut scribe, behaviour.end).await,
            () = until(unhealthy) => {
                unhealthy = None;
                fs::remove_file(HEALTHY)?;
            }
            () = until(healthy) => {
                healthy = None;
                fs::write(HEALTHY, format!("{}\n", std::process::id()))?;
                say(&mut scribe, &Line::Ready).await?;
            }
        }
    }
}

/// That moment; never, when there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Who this process is, and the locks that it holds from now on.
fn introduce(behaviour: &Behaviour, env: &BTreeMap<String, String>) -> Result<(Begins, Vec<File>)> {
    let var = |name: &str| {
        env.get(name)
            .with_context(|| format!("no {name}: this is a task of `storm live`"))
    };
    let (dir, task, attempt) =
        parse_mark(var(MARK)?).with_context(|| format!("{MARK}={} names no attempt", env[MARK]))?;
    let volumes: Vec<String> = var(VOLUMES)?
        .split(',')
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect();
    let mut begins = Begins {
        host: host(dir),
        service: var(SERVICE)?.clone(),
        slot: var(SLOT)?.parse().context(SLOT)?,
        task,
        attempt,
        pid: std::process::id(),
        ready_after_ms: u64::try_from(behaviour.healthy_from.as_millis()).unwrap_or(u64::MAX),
        volumes,
        shared: Vec::new(),
    };
    let mut locks = Vec::new();
    let own = format!("task {task}");
    let names = begins.volumes.iter().map(|one| format!("volume {one}"));
    for name in names.chain([own]) {
        let file = File::create(Path::new(var(LOCKS)?).join(&name))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            begins.shared.push(name);
        }
        locks.push(file);
    }
    Ok((begins, locks))
}

/// The worker's directory, the task and the attempt in a mark.
fn parse_mark(mark: &str) -> Option<(&str, u64, u32)> {
    let (dir, attempt) = mark.rsplit_once('#')?;
    let (task, attempt) = attempt.split_once('.')?;
    Some((dir, task.parse().ok()?, attempt.parse().ok()?))
}

/// The worker whose directory this is: `…/w1/data`.
fn host(dir: &str) -> String {
    let home = Path::new(dir).parent().and_then(Path::file_name);
    home.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// It ends by itself.
async fn end(scribe: &mut TcpStream, end: Option<(Duration, End)>) -> Result<u8> {
    match end {
        Some((_, End::Crash)) => farewell(scribe, "crashed", CRASHED).await,
        Some((_, End::Oom)) => {
            let why = "out of memory".to_owned();
            say(scribe, &Line::Ends { why }).await?;
            // As the kernel ends a process for want of memory; SIGKILL cannot fail on oneself.
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
            std::future::pending().await
        }
        Some((_, End::Done)) | None => farewell(scribe, DONE, 0).await,
    }
}

/// The last line, and the exit code.
async fn farewell(scribe: &mut TcpStream, why: &str, code: u8) -> Result<u8> {
    fs::remove_file(HEALTHY).ok(); // It may not have been healthy yet.
    let why = why.to_owned();
    say(scribe, &Line::Ends { why }).await?;
    Ok(code)
}

/// One line for the scribe.
async fn say(scribe: &mut TcpStream, line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    Ok(scribe.write_all(text.as_bytes()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Stage {
        Stage {
            program: PathBuf::from("/bin/storm"),
            scribe: "127.0.0.1:9".parse().expect("it is an address"),
            locks: PathBuf::from("/tmp/locks"),
        }
    }

    #[test]
    fn a_simulated_task_becomes_a_command_that_real_workers_can_run() {
        let mut spec = Spec::new("web", &["sim", "slow-start", "1s"]);
        spec.health = serde_json::from_str(r#"{"check":{"tcp":{"port":80}}}"#).expect("it is one");
        let cast = stage().cast(&spec).expect("it is possible");
        let words = ["/bin/storm", "live", VERB, "sim", "slow-start", "1s"];
        assert_eq!(cast.command, words);
        assert_eq!(cast.env[SCRIBE], "127.0.0.1:9");
        let check = cast.health.expect("it has one").check;
        assert!(matches!(check, HealthCheck::Exec { command } if command[2].contains("kill -0")));
    }

    #[test]
    fn what_no_worker_can_do_is_an_error_that_says_why() {
        let spec = Spec::new("web", &["sim", "start-fails", "0.5"]);
        let error = stage().cast(&spec).expect_err("no chance can be ordered");
        assert!(error.to_string().starts_with("web: the operating system"));
        let spec = Spec::new("web", &["sleep", "5"]);
        assert!(stage().cast(&spec).is_err());
        let spec = Spec::new("web", &["sim", "refuse"]);
        let cast = stage().cast(&spec).expect("a missing program is possible");
        assert_eq!(cast.command[0], NOWHERE);
    }

    #[test]
    fn a_mark_names_worker_task_and_attempt() {
        let mark = parse_mark("/tmp/storm#1/w2/data#17.3").expect("it is one");
        assert_eq!(mark, ("/tmp/storm#1/w2/data", 17, 3));
        assert_eq!(host(mark.0), "w2");
        assert_eq!(parse_mark("/tmp/w2"), None);
    }
}
