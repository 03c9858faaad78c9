//! `dev`: a cluster in one process, on loopback, to try things out. Ctrl-C ends it cleanly.

use crate::crew;
use crate::logs;
use crate::start::{Running, start};
use node::cli::args::Dev;
use node::cli::{Error, Exit};
use node::config::{Cluster, Config, Founder, Limits, Listen, Log, LogFormat, Storage, Workers};
use node::handle::Handle;
use node::knobs::{Knobs, Profile};
use node::rt::{Clock, Env, Tasks, real};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Longest wait for a first leader before the greeting is printed all the same.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// What the program allows beyond the nodes' own limit for stopping.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Runs the cluster until Ctrl-C, or until no node is left.
pub(crate) async fn run(options: &Dev) -> Result<Exit, Error> {
    logs::begin(&options.log, LogFormat::Text)?;
    let home = Home::new(options.data_dir.as_deref())?;
    let members: Vec<Founder> = (1..=options.nodes)
        .map(|number| member(number, options.port_base))
        .collect();
    let env = real_env("dev")?;
    for member in &members {
        free(&env, &member.http, options).await?;
        free(&env, &member.peer, options).await?;
    }
    for number in 1..=options.workers {
        free(&env, &crew::address(number, options.port_base), options).await?;
    }
    let mut nodes = Vec::new();
    for member in &members {
        nodes.push(one(member, &members, home.path()).await?);
    }
    serve(nodes, &members, &home, &env.clock, options).await
}

async fn serve(
    nodes: Vec<Running>,
    members: &[Founder],
    home: &Home,
    clock: &Clock,
    options: &Dev,
) -> Result<Exit, Error> {
    let mut stop = Stop::new()?;
    let handles: Vec<Handle> = nodes.iter().map(|one| one.handle.clone()).collect();
    let tasks = Tasks::default();
    let mut ends = follow_ends(nodes, &tasks);
    let mut workers = Vec::new();
    let served = async {
        let leader = leader(&handles[0], clock).await;
        let (count, base) = (options.workers, options.port_base);
        workers = crew::start(count, base, &handles[0], members, home.path()).await?;
        say(&greeting(members, options, home, leader.as_deref()));
        for _ in &handles {
            if let Some(end) = ends.recv().await {
                say(&format!("a node ended: {end}\n"));
            }
        }
        Err(Error::local(
            "every node has ended",
            "start again with --log info",
        ))
    };
    let failed = tokio::select! {
        biased; // Whoever asked for the end gets the clean one.
        () = stop.asked() => None,
        failed = served => Some(failed),
    };
    if failed.is_none() {
        say("\nstopping ...\n");
    }
    crew::stop(workers, clock).await; // First: nobody shall be left that runs tasks.
    if let Some(failed) = failed {
        return failed;
    }
    for handle in &handles {
        handle.stop("the end of dev").await;
    }
    let bound = Knobs::default().stop_timeout + STOP_GRACE;
    let all_ended = async { while ends.recv().await.is_some() {} };
    match clock.timeout(bound, all_ended).await {
        Ok(()) => Ok(Exit::Ok),
        Err(_) => Err(Error::local(
            format!("not all nodes stopped within {bound:?}"),
            "",
        )),
    }
}

/// Where the data lies.
enum Home {
    /// A directory that goes with the cluster.
    Passing(tempfile::TempDir),
    /// A directory that stays.
    Kept(PathBuf),
}

impl Home {
    fn new(named: Option<&str>) -> Result<Self, Error> {
        if let Some(dir) = named {
            return Ok(Home::Kept(dir.into()));
        }
        let made = tempfile::Builder::new().prefix("seaworthy-dev-").tempdir();
        made.map(Home::Passing).map_err(|error| {
            let message = format!("cannot make a directory for the data: {error}");
            Error::local(message, "name one with --data-dir")
        })
    }

    fn path(&self) -> &Path {
        match self {
            Home::Passing(dir) => dir.path(),
            Home::Kept(dir) => dir,
        }
    }
}

fn member(number: u16, base: u16) -> Founder {
    Founder {
        name: format!("n{number}"),
        peer: format!("127.0.0.1:{}", base + 100 + number),
        http: format!("127.0.0.1:{}", base + number),
    }
}

fn config(own: &Founder, members: &[Founder], home: &Path) -> Config {
    Config {
        name: own.name.clone(),
        data_dir: home.join(&own.name),
        profile: Profile::Lan,
        listen: Listen {
            http: own.http.clone(),
            peer: own.peer.clone(),
            advertise_http: None,
            advertise_peer: None,
        },
        cluster: Cluster {
            members: members.to_vec(),
            ..Cluster::default()
        },
        limits: Limits::default(),
        storage: Storage::default(),
        workers: Workers::default(),
        log: Log::default(),
    }
}

async fn one(own: &Founder, members: &[Founder], home: &Path) -> Result<Running, Error> {
    let config = config(own, members, home);
    start(real_env(&own.name)?, config, Knobs::default())
        .await
        .map_err(|error| {
            let message = format!("{} cannot start: {error}", own.name);
            Error::local(message, format!("its data is in {}", home.display()))
        })
}

fn real_env(name: &str) -> Result<Env, Error> {
    real::env(name).map_err(|error| Error::local(error.to_string(), ""))
}

/// Refuses an address that somebody else listens on, before any data is written.
async fn free(env: &Env, address: &str, options: &Dev) -> Result<(), Error> {
    match env.net.listen(address).await {
        Ok(listener) => {
            drop(listener);
            Ok(())
        }
        Err(error) => Err(Error::local(
            error.to_string(),
            format!(
                "is another `seaworthy dev` running? choose other ports: --port-base {}",
                options.port_base.wrapping_add(10_000).clamp(10_000, 60_000)
            ),
        )),
    }
}

/// The signals that ask for the end.
struct Stop {
    /// Ctrl-C.
    interrupt: Signal,
    /// A supervisor.
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Error::local(format!("cannot listen for signals: {error}"), ""))
        };
        Ok(Stop {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Ends when one has come.
    async fn asked(&mut self) {
        tokio::select! {
            biased; // Both mean the same.
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A queue of the nodes' ends in words; it closes when all have ended.
fn follow_ends(nodes: Vec<Running>, tasks: &Tasks) -> mpsc::Receiver<String> {
    let (tell, ends) = mpsc::channel(nodes.len().max(1));
    for node in nodes {
        let tell = tell.clone();
        tasks.spawn(async move {
            let address = node.http_address.clone();
            let ended = node.ended().await;
            let kind = if ended.poisoned {
                "poisoned"
            } else {
                "stopped"
            };
            // Nobody listens any more when the program is about to end.
            drop(
                tell.send(format!("{address}, {kind}: {}", ended.reason))
                    .await,
            );
        });
    }
    ends
}

/// The name of the first leader, if there is one in time.
async fn leader(handle: &Handle, clock: &Clock) -> Option<String> {
    let mut status = handle.follow_status();
    let known = async {
        loop {
            if let Some(leader) = status.borrow_and_update().leader_info() {
                return Some(leader.name);
            }
            status.changed().await.ok()?;
        }
    };
    clock.timeout(LEADER_WAIT, known).await.ok().flatten()
}

fn greeting(members: &[Founder], options: &Dev, home: &Home, leader: Option<&str>) -> String {
    let mut text = match leader {
        Some(name) => format!("A cluster of {} is up; {name} leads.\n\n", members.len()),
        None => format!(
            "A cluster of {} is starting; nobody leads yet.\n\n",
            members.len()
        ),
    };
    for member in members {
        text += &format!("  {}   http://{}\n", member.name, member.http);
    }
    for number in 1..=options.workers {
        let address = crew::address(number, options.port_base);
        text += &format!("  w{number}   http://{address}   (worker)\n");
    }
    let kept = match home {
        Home::Passing(_) => "goes when you stop; --data-dir keeps it",
        Home::Kept(_) => "stays",
    };
    text += &format!("\nData: {} ({kept})\n", home.path().display());
    text += &next_steps(members, options.workers > 0);
    text
}

fn next_steps(members: &[Founder], has_workers: bool) -> String {
    let urls: Vec<String> = members
        .iter()
        .map(|one| format!("http://{}", one.http))
        .collect();
    let urls = urls.join(",");
    let preface = if urls == node::cli::args::ENDPOINTS {
        String::new()
    } else {
        format!("  export SEAWORTHY_ENDPOINTS={urls}\n")
    };
    let services = match has_workers {
        true => {
            "\x20 seaworthy service create web --replicas 3 --wait -- sh -c 'while true; do date; sleep 1; done'\n\
             \x20 seaworthy service ps web\n\
             \x20 seaworthy service logs web --tail 2\n"
        }
        false => "",
    };
    let first = &members[0].http;
    format!(
        "\nIn another terminal:\n{preface}{services}\
        \x20 seaworthy kv put greeting hello\n\
        \x20 seaworthy kv get greeting\n\
        \x20 seaworthy kv watch --prefix greet\n\
        \x20 seaworthy cluster health\n\
        \x20 seaworthy bench --duration 5s\n\
        \x20 curl http://{first}/v1/kv/greeting\n\
        \x20 curl http://{first}/metrics\n\
        \nCtrl-C ends it.\n"
    )
}

/// Writes to standard output; a reader that went away does not end the cluster.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
