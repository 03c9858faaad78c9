//! The grammar: one noun, one verb, flags that mean the same everywhere.
//!
//! The environment is not read here (the library has none): [`crate::cli::remote`] and [`output_of`] look at the map in
//! [`crate::cli::World`]. Widths are fixed so that help reads the same on every terminal and in golden tests.

use super::args_fleet;
use super::exit::Error;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where `seaworthy dev` listens unless told otherwise: HTTP on 8001, 8002, 8003, peers on 8101, 8102, 8103.
pub const DEV_PORT_BASE: u16 = 8000;

/// Whom commands ask unless told otherwise: the nodes of `seaworthy dev`.
pub const ENDPOINTS: &str = "http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003";

/// How long a command waits unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The heading of flags that every command has.
const EVERYWHERE: &str = "Everywhere";

const AFTER_HELP: &str = "\
Try it:
  seaworthy dev --workers 2              three nodes and two workers on this machine; Ctrl-C ends them
  seaworthy service create web --replicas 3 -- sh -c 'while true; do date; sleep 1; done'
  seaworthy service ps web
  seaworthy kv put greeting hello
  seaworthy kv get greeting
  seaworthy kv watch --prefix greet
  seaworthy cluster health

Exit codes:
  0 done               4 a condition does not hold, nothing changed
  1 failed             5 unavailable: no answer or no leader, nothing changed
  2 wrong command line 6 outcome unknown: the write may have been done or not
  3 not found          7 looked and found something wrong (health, config check, debug wal)

Environment: SEAWORTHY_ENDPOINTS, SEAWORTHY_OUTPUT, SEAWORTHY_TIMEOUT, SEAWORTHY_CONFIG;
every setting of a node as SEAWORTHY_<SECTION>__<KEY> (see `seaworthy config keys`).";

/// The command line.
#[derive(Clone, Debug, Parser)]
#[command(name = "seaworthy", bin_name = "seaworthy", version, term_width = 100)]
#[command(about = "A cluster control plane that keeps its promises in bad weather.")]
#[command(after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// Nodes to ask, tried in order [env: SEAWORTHY_ENDPOINTS] [default: the nodes of `seaworthy dev`]
    #[arg(long, global = true, value_delimiter = ',', value_name = "URL,...", help_heading = EVERYWHERE)]
    pub endpoints: Vec<String>,
    /// table for people (default) or json for programs [env: SEAWORTHY_OUTPUT]
    #[arg(long, global = true, value_enum, value_name = "FORM", help_heading = EVERYWHERE)]
    #[arg(hide_possible_values = true)]
    pub output: Option<Output>,
    /// Longest wait for an answer, such as 500ms, 5s, 1m [env: SEAWORTHY_TIMEOUT] [default: 10s]
    #[arg(long, global = true, value_parser = patience, value_name = "TIME", help_heading = EVERYWHERE)]
    pub timeout: Option<Duration>,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people.
    Table,
    /// JSON for programs.
    Json,
}

/// The nouns.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a three-node cluster on this machine, to try things out
    #[command(
        after_help = "Examples:\n  seaworthy dev\n  seaworthy dev --workers 2\n  seaworthy dev --data-dir ./data --port-base 18000"
    )]
    Dev(Dev),
    /// Run a node
    #[command(after_help = "\
Examples:
  seaworthy server --config /etc/seaworthy/node.toml
  SEAWORTHY_LISTEN__HTTP=0.0.0.0:8001 seaworthy server --config node.toml
  seaworthy server --config node.toml --validate
  seaworthy server --config node.toml --join --token-file /etc/seaworthy/token

Signals: TERM or INT hands over leadership, flushes and exits 0; USR1 cuts a snapshot.")]
    Server(Settings),
    /// Services: what shall run, how often, where
    #[command(subcommand)]
    Service(args_fleet::Service),
    /// Nodes: managers and workers
    #[command(subcommand)]
    Node(args_fleet::Node),
    /// Volumes: what tasks keep
    #[command(subcommand)]
    Volume(args_fleet::Volume),
    /// Secrets: what tasks read and nobody else shall
    #[command(subcommand)]
    Secret(super::args_secret::Secret),
    /// Print what happened to services, tasks, nodes and volumes
    #[command(after_help = "\
Examples:
  seaworthy events --service web
  seaworthy events --follow --output json")]
    Events(args_fleet::Events),
    /// Keys and values
    #[command(subcommand)]
    Kv(Kv),
    /// Leases: keys that vanish when nobody renews them
    #[command(subcommand)]
    Lease(Lease),
    /// The cluster and its members
    #[command(subcommand)]
    Cluster(Cluster),
    /// The configuration of a node
    #[command(subcommand)]
    Config(Config),
    /// Workers: what runs tasks
    #[command(subcommand)]
    Worker(super::worker::Worker),
    /// Measure a running cluster
    #[command(after_help = "\
Examples:
  seaworthy bench --clients 64 --duration 5s --op put
  seaworthy bench --clients 64 --op mixed --read-percent 90 --rate 5000 --output json

Without --rate each client sends its next request when it has the answer to the last (closed loop). With
--rate requests have due times, whatever the answers do, and latency counts from the due time.")]
    Bench(Bench),
    /// Look inside
    #[command(subcommand)]
    Debug(Debug),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  seaworthy completion bash > /etc/bash_completion.d/seaworthy"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// `dev`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Dev {
    /// Keep the data here instead of in a directory that goes when the cluster ends
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// HTTP on this + 1, + 2, + 3, peers on this + 101, + 102, + 103
    #[arg(long, default_value_t = DEV_PORT_BASE, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub port_base: u16,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// How many workers beside them, with their doors on port base + 201, + 202, ...; their tasks end with the cluster
    #[arg(long, default_value_t = 0, value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(0..=9))]
    pub workers: u16,
    /// A level or filter for the log on standard error
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    pub log: String,
}

/// `server`, and what decides its configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// The configuration file [env: SEAWORTHY_CONFIG]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<String>,
    /// This node's name (name)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Directory of everything the node keeps (data_dir)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where clients come in (listen.http)
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Where other nodes come in (listen.peer)
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Option<String>,
    /// A member: name=peer/http; give it once for each (cluster.members)
    #[arg(long, value_name = "MEMBER")]
    pub member: Vec<String>,
    /// Join the cluster of the members instead of founding one with them (cluster.join)
    #[arg(long)]
    pub join: bool,
    /// The manager's token by which it joins; others on this machine can see it [env: SEAWORTHY_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the token; - for standard input (cluster.token_file)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// Any setting by its key, such as log.format=json
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Check the configuration and stop
    #[arg(long)]
    pub validate: bool,
}

/// The key-value verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Kv {
    /// Write a key
    #[command(after_help = "\
Examples:
  seaworthy kv put config/mode fast
  seaworthy kv put config/mode slow --if-version 1
  seaworthy kv put lock/a me --if-absent --lease 17
  seaworthy kv put image - < picture.png")]
    Put(Put),
    /// Read a key
    #[command(
        after_help = "Examples:\n  seaworthy kv get config/mode\n  seaworthy kv get image --raw > picture.png"
    )]
    Get(Get),
    /// Remove a key, or all keys with a prefix
    #[command(
        after_help = "Examples:\n  seaworthy kv delete config/mode\n  seaworthy kv delete config/ --prefix"
    )]
    Delete(Delete),
    /// List keys
    #[command(after_help = "\
Examples:
  seaworthy kv range config/
  seaworthy kv range --start a --end m --keys-only --limit 100
  seaworthy kv range --count-only")]
    Range(Range),
    /// Print changes as they come
    #[command(after_help = "\
Examples:
  seaworthy kv watch --prefix config/
  seaworthy kv watch config/mode --from 120 --count 1")]
    Watch(Watch),
    /// Compare and then change, all or nothing
    #[command(after_help = super::txn::HELP)]
    Txn {
        /// The transaction, as text or JSON; - for standard input
        #[arg(value_name = "FILE", default_value = "-")]
        file: String,
    },
    /// Give up history at and below a revision
    Compact {
        /// The revision
        revision: u64,
    },
}

/// Conditions on one key.
#[derive(Clone, Debug, Default, Args)]
pub struct Conditions {
    /// Only if the key has this version
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Only if the key was last changed at this revision
    #[arg(long, value_name = "REV")]
    pub if_mod_revision: Option<u64>,
}

/// `kv put`.
#[derive(Clone, Debug, Args)]
pub struct Put {
    /// The key
    pub key: String,
    /// The value; - reads standard input
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// Tie the key to this lease
    #[arg(long, value_name = "ID")]
    pub lease: Option<u64>,
    /// Only if the key does not exist
    #[arg(long)]
    pub if_absent: bool,
    /// Conditions
    #[command(flatten)]
    pub conditions: Conditions,
    /// Show what was there before
    #[arg(long)]
    pub prev: bool,
}

/// How fresh a read must be.
#[derive(Clone, Debug, Default, Args)]
pub struct Freshness {
    /// linearizable (default), bounded or local
    #[arg(long, value_name = "WORD", value_parser = ["linearizable", "bounded", "local"])]
    #[arg(hide_possible_values = true)]
    pub consistency: Option<String>,
    /// With --consistency bounded: greatest age
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub max_age: Option<Duration>,
}

/// `kv get`.
#[derive(Clone, Debug, Args)]
pub struct Get {
    /// The key
    pub key: String,
    /// The value's bytes exactly, without a line end
    #[arg(long)]
    pub raw: bool,
    /// Version, revisions and lease too
    #[arg(long, short)]
    pub long: bool,
    /// Freshness
    #[command(flatten)]
    pub freshness: Freshness,
}

/// `kv delete`.
#[derive(Clone, Debug, Args)]
pub struct Delete {
    /// The key or prefix
    pub key: String,
    /// Remove every key that begins so
    #[arg(long)]
    pub prefix: bool,
    /// Conditions
    #[command(flatten)]
    pub conditions: Conditions,
    /// Show what was there before
    #[arg(long)]
    pub prev: bool,
}

/// `kv range`.
#[derive(Clone, Debug, Args)]
pub struct Range {
    /// Only keys that begin so
    #[arg(conflicts_with_all = ["start", "end"])]
    pub prefix: Option<String>,
    /// From this key on
    #[arg(long, value_name = "KEY")]
    pub start: Option<String>,
    /// Up to but without this key
    #[arg(long, value_name = "KEY")]
    pub end: Option<String>,
    /// Continue after this key
    #[arg(long, value_name = "KEY")]
    pub after: Option<String>,
    /// Most keys to list
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// As it was at this revision
    #[arg(long, value_name = "REV")]
    pub revision: Option<u64>,
    /// Keys without values
    #[arg(long)]
    pub keys_only: bool,
    /// The count alone
    #[arg(long, conflicts_with = "keys_only")]
    pub count_only: bool,
    /// Freshness
    #[command(flatten)]
    pub freshness: Freshness,
}

/// `kv watch`.
#[derive(Clone, Debug, Args)]
pub struct Watch {
    /// The key, or with --prefix its beginning; without it, everything
    pub key: Option<String>,
    /// Every key that begins so
    #[arg(long)]
    pub prefix: bool,
    /// From this revision on, instead of from now
    #[arg(long, value_name = "REV")]
    pub from: Option<u64>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// The lease verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Lease {
    /// Create a lease
    #[command(after_help = "Example:\n  seaworthy lease grant 30s")]
    Grant {
        /// Time to live
        #[arg(value_parser = duration)]
        ttl: Duration,
    },
    /// Renew a lease
    Keepalive {
        /// The lease
        id: u64,
    },
    /// End a lease and remove its keys
    Revoke {
        /// The lease
        id: u64,
    },
}

/// The cluster verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Cluster {
    /// Who leads, and how far everybody is
    Info,
    /// Ask every member how it is; exit 7 unless all are well
    Health,
    /// List or change the members
    #[command(after_help = "\
Examples:
  seaworthy cluster members
  seaworthy cluster members add n4 --peer 10.0.0.4:9001 --http 10.0.0.4:8001
  seaworthy cluster members promote 4
  seaworthy cluster members remove 2

A new member is a learner first: promote it when it has caught up. One that joins by a token
(seaworthy cluster token create --role manager) needs neither add nor promote.")]
    Members {
        /// The verb; without it, list
        #[command(subcommand)]
        verb: Option<Members>,
    },
    /// Hand leadership to another member
    Transfer {
        /// To whom: id or name; without it, the most complete follower
        to: Option<String>,
    },
    /// Cut a snapshot on the node that is asked
    Snapshot,
    /// Tokens by which workers and managers join; without a verb, make one for workers that is good for a day
    Token {
        /// The verb
        #[command(subcommand)]
        verb: Option<args_fleet::Token>,
    },
}

/// The member verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Members {
    /// List the members
    List,
    /// Add a learner
    Add {
        /// Its name
        name: String,
        /// Where other nodes reach it
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// Where clients reach it
        #[arg(long, value_name = "HOST:PORT")]
        http: String,
    },
    /// Remove a member
    Remove {
        /// Id or name
        member: String,
    },
    /// Make a learner a voter
    Promote {
        /// Id or name
        member: String,
    },
}

/// The configuration verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Config {
    /// Tell everything that is wrong or unwise; exit 7 if a node would not start with it
    #[command(after_help = "Example:\n  seaworthy config check --config node.toml")]
    Check(Settings),
    /// Show the settings in force and where each comes from
    Show(Settings),
    /// List every setting
    Keys,
}

/// The debug verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Debug {
    /// Explain the log in a data directory, without changing it; exit 7 if it is damaged
    Wal {
        /// The data directory of a node that is not running
        #[arg(value_name = "DIR")]
        dir: String,
    },
}

/// What a load generator's client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// Writes.
    Put,
    /// Reads.
    Get,
    /// Both.
    Mixed,
}

/// `bench`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    /// What to measure instead of keys and values
    #[command(subcommand)]
    pub verb: Option<BenchVerb>,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 64, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub clients: u32,
    /// How long to measure
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub duration: Duration,
    /// How long to run before measuring
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub warmup: Duration,
    /// What to do
    #[arg(long, value_enum, default_value = "put", value_name = "OP")]
    pub op: Op,
    /// Share of reads with --op mixed, percent
    #[arg(long, default_value_t = 50, value_name = "PERCENT",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: u8,
    /// Size of a value, bytes
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub value_bytes: usize,
    /// Keys to spread over
    #[arg(long, default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub keys: u64,
    /// Requests a second, due whatever the answers do (open loop)
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Freshness of reads: linearizable, bounded or local
    #[arg(long, value_name = "WORD", default_value = "linearizable",
          value_parser = ["linearizable", "bounded", "local"])]
    pub consistency: String,
    /// Connect to the leader alone instead of to all endpoints in turn
    #[arg(long)]
    pub leader_only: bool,
}

/// What `bench` measures beside keys and values.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchVerb {
    /// Measure heartbeats, placement and submissions, with light workers that start no process
    #[command(after_help = "\
Examples:
  seaworthy bench fleet
  seaworthy bench fleet --workers 1000 --tasks 1,60,1000,10000 --clients 64 --output json

The cluster must have no services. Workers and services of the bench are removed at its end.")]
    Fleet(BenchFleet),
}

/// `bench fleet`.
#[derive(Clone, Debug, Args)]
pub struct BenchFleet {
    /// Light workers, each with a heartbeat every second
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=8_192))]
    pub workers: u32,
    /// Copies of the services that are placed, one after the other
    #[arg(long, default_value = "1,60,1000", value_delimiter = ',', value_name = "N,...",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tasks: Vec<u32>,
    /// Services that the clients create, update and remove; 0: none
    #[arg(long, default_value_t = 500, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub services: u32,
    /// Tasks of each of them; 0: the requests alone are measured
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub copies: u32,
    /// Connections for that, each with one request under way
    #[arg(long, default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub clients: u32,
    /// How long heartbeats are measured while nothing else happens
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub duration: Duration,
    /// Longest wait for all tasks to run or to stop
    #[arg(long, default_value = "120s", value_parser = duration, value_name = "TIME")]
    pub patience: Duration,
}

/// The form of answers: flag, then environment, then tables.
pub fn output_of(global: &Global, variables: &BTreeMap<String, String>) -> Result<Output, Error> {
    if let Some(output) = global.output {
        return Ok(output);
    }
    let Some(word) = variables.get("SEAWORTHY_OUTPUT") else {
        return Ok(Output::Table);
    };
    Output::from_str(word, true).map_err(|_| {
        let message = format!("SEAWORTHY_OUTPUT is \"{word}\"");
        Error::usage(message, "it takes table or json")
    })
}

/// A time to wait, which is longer than nothing: no answer comes at once.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    (!span.is_zero())
        .then_some(span)
        .ok_or_else(|| format!("\"{text}\" is no time to wait: write 500ms, 5s or 1m"))
}

/// A time such as `500ms`, `5s`, `1.5m`, `2h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("\"{text}\" is not a time: write 500ms, 5s or 1m"))?;
    let seconds = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit \"{unit}\": use us, ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| format!("\"{text}\" is no time: it must be 0 or more, and have an end"))
}
