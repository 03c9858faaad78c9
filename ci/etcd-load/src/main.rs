//! `etcd-load`: a closed-loop load generator for etcd over its native gRPC, the counterpart of `seaworthy bench`.
//!
//! It exists so that a comparison is fair: etcd's JSON gateway costs etcd an extra hop and a translation per request,
//! so etcd is measured through the protocol its own clients speak. The messages are declared by hand ([`wire`]), so no
//! protoc is ever run.
//!
//! Reading order: [`wire`], bytes of a call; [`channel`], one HTTP/2 connection; [`load`], what the clients do and
//! when; [`cost`], what the servers spent; [`report`], the numbers under the same names as those of `seaworthy bench`.
//!
//! Left out: open loop, TLS, authentication, and reconnecting. It measures a healthy cluster at rest on this machine; a
//! call on a connection that broke is an error and stays one.
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures a real program by the real clock; never part of a node or of a simulation"
)]

mod channel;
mod cost;
mod load;
mod report;
mod wire;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use std::time::Duration;

/// Longest wait for one answer, seconds; longer than etcd's own limit of about seven.
pub(crate) const CALL_SECONDS_MAX: u64 = 10;

/// Loads an etcd cluster with puts or linearizable gets and reports throughput and latency
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  etcd-load --endpoints 127.0.0.1:12379,127.0.0.1:12380 --clients 64 --op put --json"
)]
pub(crate) struct Options {
    /// Client addresses of the members, host:port
    #[arg(long, value_delimiter = ',', required = true, value_name = "LIST")]
    pub(crate) endpoints: Vec<String>,
    /// Callers, each with one call under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) clients: u32,
    /// How long to measure
    #[arg(long, default_value_t = 5.0, value_parser = seconds, value_name = "SECONDS")]
    pub(crate) seconds: f64,
    /// How long to run before measuring
    #[arg(long, default_value_t = 1.0, value_parser = seconds, value_name = "SECONDS")]
    pub(crate) warmup: f64,
    /// What to do
    #[arg(long, value_enum, default_value = "put")]
    pub(crate) op: Op,
    /// Size of a value, bytes
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub(crate) value_bytes: usize,
    /// Keys to spread over
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// Connect to the leader alone instead of to all endpoints in turn
    #[arg(long)]
    pub(crate) leader_only: bool,
    /// Callers that share one HTTP/2 connection
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients_per_connection: u32,
    /// Threads of this program
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Processes of the servers, to tell CPU and bytes written per operation
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub(crate) pids: Vec<u32>,
    /// One line of JSON instead of words
    #[arg(long)]
    pub(crate) json: bool,
}

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    /// Write a key.
    Put,
    /// Read a key, linearizably.
    Get,
}

impl Op {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Get => "get",
        }
    }
}

/// A number of seconds that a clock can take.
fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| format!("\"{text}\" is no number"))?;
    let sane = (0.0..=86_400.0).contains(&number);
    sane.then_some(number)
        .ok_or_else(|| "give 0 to 86400 seconds".to_owned())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    anyhow::ensure!(options.seconds > 0.0, "--seconds must be above 0");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(options.threads))
        .enable_all()
        .build()
        .context("start the executor")?;
    let report = runtime.block_on(load::run(&options))?;
    // Calls that no longer matter must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_of_the_comparison_is_understood() {
        let line = "etcd-load --endpoints a:1,b:2 --clients 1000 --seconds 2.5 --op get --value-bytes 256 --json";
        let options = Options::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(options.endpoints, ["a:1", "b:2"]);
        assert_eq!((options.clients, options.seconds), (1000, 2.5));
        assert_eq!((options.op, options.value_bytes), (Op::Get, 256));
        assert!(options.json && !options.leader_only);
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "--clients 0",
            "--seconds -1",
            "--seconds inf",
            "--op scan",
            "--keys 0",
        ] {
            let line = format!("etcd-load --endpoints a:1 {wrong}");
            assert!(Options::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
        assert!(Options::try_parse_from(["etcd-load"]).is_err());
    }
}
