//! `worker start`: what is typed becomes a worker's configuration; the program runs it.

use super::exit::{Error, Exit};
use super::remote;
use super::world::{HostCommand, World};
use crate::fleet::command::Machine;
use crate::service::spec::Amounts;
use crate::worker::WorkerConfig;
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The variable that may hold a token.
pub(super) const TOKEN: &str = "SEAWORTHY_TOKEN";

/// The worker verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Worker {
    /// Run a worker on this machine: it runs what the cluster gives it
    #[command(after_help = "\
Examples:
  seaworthy cluster token
  seaworthy worker start --join http://10.0.0.1:8001 --token-file /etc/seaworthy/token \\
      --name w1 --data-dir /var/lib/seaworthy/w1 --listen 10.0.0.9:8200
  seaworthy worker start --join http://10.0.0.1:8001,http://10.0.0.2:8001 --token T --name w2 \\
      --data-dir /var/lib/seaworthy/w2 --listen 0.0.0.0:8200 --advertise 10.0.0.8:8200 \\
      --label zone=north --cpu 2 --memory 4GiB

A worker needs the token until it has joined; its data directory then names it for good.

Signals: TERM or INT stops the worker and exits 0. Its tasks run on and are taken up again at the next start,
but for those with a single-writer volume, which end with it; --stop-tasks ends all of them.")]
    Start(Box<Start>),
}

/// `worker start`.
#[derive(Clone, Debug, Args)]
pub struct Start {
    /// Managers to begin with; it learns of the others
    #[arg(long, value_delimiter = ',', value_name = "URL,...", required = true)]
    pub join: Vec<String>,
    /// The token that lets it join; others on this machine can see it [env: SEAWORTHY_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the token; - for standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// Its name, unique among workers
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Directory of everything it keeps
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where its own door listens
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: String,
    /// Where managers reach that door, if not where it listens
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// A label to begin with; give it once for each
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Processors that it gives to tasks, such as 2 or 0.5 [default: those of this machine]
    #[arg(long, value_name = "COUNT", value_parser = cpu_milli)]
    pub cpu: Option<u64>,
    /// Memory that it gives to tasks, such as 512MiB or 4GiB [default: that of this machine]
    #[arg(long, value_name = "BYTES", value_parser = memory_bytes)]
    pub memory: Option<u64>,
    /// What runs containers, if not the first of crun and runc in PATH
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// Credentials for registries of images, as `docker login` writes them (config.json); read again for each pull
    #[arg(long, value_name = "FILE")]
    pub registry_credentials: Option<PathBuf>,
    /// Where tasks find files of their secrets: a directory in memory (tmpfs), never one on a disk
    #[arg(long, value_name = "DIR", default_value = crate::worker::secrets::BASE)]
    pub secrets_dir: PathBuf,
    /// End the tasks when the worker is told to stop
    #[arg(long)]
    pub stop_tasks: bool,
    /// A level or filter for the log on standard error
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// A worker for the program to run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its configuration. Amounts of zero stand for what the machine has, and a relative directory for one below the present one.
    pub config: WorkerConfig,
    /// Whether its tasks end with it.
    pub stops_tasks: bool,
    /// What runs containers, if that was said.
    pub runtime: Option<PathBuf>,
    /// Credentials for registries.
    pub registry_credentials: Option<PathBuf>,
    /// Where files of secrets go.
    pub secrets_dir: PathBuf,
    /// Filter of its log.
    pub log: String,
}

/// Runs the worker verbs.
pub async fn run(command: Worker, world: &World) -> Result<Exit, Error> {
    let Worker::Start(start) = command;
    let token = token(&start, world)?;
    let run = Box::new(configured(*start, token)?);
    world.host(HostCommand::Worker(run)).await
}

/// The token: flag, file, environment, or none for a worker that has joined.
fn token(start: &Start, world: &World) -> Result<Option<String>, Error> {
    let Some(file) = &start.token_file else {
        let named = start.token.as_ref().or_else(|| world.variables.get(TOKEN));
        return Ok(named.cloned());
    };
    token_in(file, world).map(Some)
}

/// The token that a file holds.
pub(super) fn token_in(file: &str, world: &World) -> Result<String, Error> {
    let text = String::from_utf8(world.read(file)?);
    let text = text.map(|text| text.trim().to_owned()).unwrap_or_default();
    if text.is_empty() {
        let hint = "write what `seaworthy cluster token` prints into it";
        return Err(Error::usage(format!("{file} holds no token"), hint));
    }
    Ok(text)
}

/// The configuration that was typed.
fn configured(start: Start, token: Option<String>) -> Result<Run, Error> {
    let mut join = Vec::new();
    for url in &start.join {
        join.push(remote::address(url)?);
    }
    let listen = remote::address(&start.listen)?;
    let is_open = listen.starts_with("0.0.0.0:") || listen.starts_with("[::]:");
    let advertised = match &start.advertise {
        Some(address) => remote::address(address)?,
        None if is_open => {
            let message = format!("nobody can reach this worker as {listen}");
            let hint = "say with --advertise HOST:PORT where managers reach it";
            return Err(Error::usage(message, hint));
        }
        None => String::new(),
    };
    let machine = Machine {
        name: start.name,
        address: advertised,
        platform: String::new(),
        containers: false,
        public_key: None,
        capacity: Amounts {
            cpu_milli: start.cpu.unwrap_or(0),
            memory_bytes: start.memory.unwrap_or(0),
        },
        labels: start.label.into_iter().collect::<BTreeMap<_, _>>(),
    };
    Ok(Run {
        config: WorkerConfig {
            machine,
            join,
            token,
            data_dir: start.data_dir,
            listen,
        },
        stops_tasks: start.stop_tasks,
        runtime: start.runtime,
        registry_credentials: start.registry_credentials,
        secrets_dir: start.secrets_dir,
        log: start.log,
    })
}

/// A label as `key=value`.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("\"{text}\" is no label: write key=value")),
    }
}

/// Processors, such as `2` or `0.5`, in thousandths.
fn cpu_milli(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no number of processors: write 2 or 0.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || part.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let milli = whole
        .checked_mul(1_000)
        .and_then(|all| all.checked_add(part));
    milli.filter(|milli| *milli > 0).ok_or_else(wrong)
}

/// Memory, such as `512MiB` or `4GiB`, in bytes.
fn memory_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no amount of memory: write 512MiB or 4GiB");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(unit);
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn typed(line: &str) -> Result<Run, Error> {
        let line = format!("seaworthy worker start {line}");
        let cli = Cli::try_parse_from(line.split_whitespace());
        let cli = cli.map_err(|error| Error::usage(error.to_string(), ""))?;
        let Command::Worker(Worker::Start(start)) = cli.command else {
            panic!("not a worker");
        };
        configured(*start, Some("T".to_owned()))
    }

    #[test]
    fn what_is_typed_becomes_a_configuration() {
        let run = typed(
            "--join http://a:1/,b:2 --name w1 --data-dir d --listen 0.0.0.0:8200 --advertise c:3 \
             --label zone=north --label a= --cpu 1.5 --memory 4GiB",
        )
        .unwrap();
        let config = run.config;
        assert_eq!(config.join, ["a:1", "b:2"]);
        assert_eq!(config.machine.address, "c:3");
        let capacity = Amounts {
            cpu_milli: 1_500,
            memory_bytes: 4 << 30,
        };
        assert_eq!(config.machine.capacity, capacity);
        assert_eq!(config.machine.labels["zone"], "north");
        assert_eq!(config.machine.labels["a"], "");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let plain = "--join a:1 --name w1 --data-dir d --listen a:2";
        assert!(typed(plain).is_ok());
        for more in [
            "--cpu 0",
            "--cpu 1.2345",
            "--cpu x",
            "--memory 0",
            "--memory 4XB",
            "--label x",
            "--token a --token-file b",
        ] {
            assert!(typed(&format!("{plain} {more}")).is_err(), "{more}");
        }
        let open = typed("--join a:1 --name w1 --data-dir d --listen 0.0.0.0:1");
        assert!(open.unwrap_err().to_string().contains("--advertise"));
        assert!(typed("--join a --name w1 --data-dir d --listen a:2").is_err());
    }
}
