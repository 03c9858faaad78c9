//! What the clients do, and when: a closed loop, each client waits for its answer before it calls again.
//!
//! Clients share HTTP/2 connections, fifty to one by default. etcd's own clients put all their calls on one
//! connection; its bytes leave and arrive in batches, which costs etcd less CPU than a socket per client. Measured on
//! two cores with 1,000 puts under way: 12,600 a second over 1,000 connections, 18,900 over 100, 20,100 over 20,
//! 18,700 over 3.
//!
//! Connections go to the endpoints in turn, or all to the leader (`--leader-only`), which saves etcd the forwarding but
//! also the help of the followers in decoding. Measured: the leader alone is a tenth to a fifth faster with 64 clients,
//! all members are as fast or faster (reads: up to twice) with 1,000. The comparison tries both and takes the better.
//!
//! Before reads every key is written once, so that a read finds a value; a read that does not is an error.

use crate::channel::{Channel, Error, Method};
use crate::cost::Cost;
use crate::report::{Report, Tally};
use crate::wire::StatusResponse;
use crate::wire::{PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest};
use crate::{Op, Options};
use anyhow::Context;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Writers that fill the key space before reads; more than a few gain nothing.
const FILL_CLIENTS_MAX: u64 = 64;

/// Pause of a client after a failed call, so that a broken connection does not spin.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// The span that is measured.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Calls that begin from here on count.
    measure_from: Instant,
    /// No call begins after this.
    end: Instant,
}

/// What all clients share.
struct Shared {
    /// What to measure.
    options: Options,
    /// When.
    window: Window,
    /// What was counted.
    tally: Mutex<Tally>,
}

/// One caller.
#[derive(Clone)]
struct Client {
    /// Its connection, shared with others.
    channel: Channel,
    /// `Put`.
    put: Method,
    /// `Range`.
    range: Method,
    /// What it writes.
    value: Bytes,
}

/// Measures the cluster of `options`.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let clients = connect(options).await?;
    if options.op == Op::Get {
        fill(&clients, options.keys).await?;
    }
    let start = Instant::now();
    let measure_from = start + Duration::from_secs_f64(options.warmup);
    let window = Window {
        measure_from,
        end: measure_from + Duration::from_secs_f64(options.seconds),
    };
    let shared = Arc::new(Shared {
        options: options.clone(),
        window,
        tally: Mutex::new(Tally::new()),
    });
    let running: Vec<_> = (0..options.clients)
        .map(|number| {
            let client = clients[number as usize % clients.len()].clone();
            tokio::spawn(drive(client, u64::from(number), shared.clone()))
        })
        .collect();
    let cost = spent(&options.pids, window).await;
    for client in running {
        client.await.context("a client ended by a bug")?;
    }
    let tally = shared
        .tally
        .lock()
        .expect("no client panics while it counts");
    Ok(Report::new(options, &tally, cost))
}

/// Connections that `options` ask for: enough for the clients, and one to each member at least.
pub(crate) fn connections(options: &Options) -> u32 {
    let members = if options.leader_only {
        1
    } else {
        options.endpoints.len()
    };
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    let needed = options.clients.div_ceil(options.clients_per_connection);
    needed.max(members).min(options.clients)
}

/// One client for each connection; callers clone them.
async fn connect(options: &Options) -> anyhow::Result<Vec<Client>> {
    let targets = match options.leader_only {
        true => vec![leader(&options.endpoints).await?],
        false => options.endpoints.clone(),
    };
    let value = Bytes::from(vec![b'x'; options.value_bytes]);
    let mut clients = Vec::new();
    for target in targets.iter().cycle().take(connections(options) as usize) {
        clients.push(Client::connect(target, value.clone()).await?);
    }
    Ok(clients)
}

/// The endpoint that says it leads.
async fn leader(endpoints: &[String]) -> anyhow::Result<String> {
    for endpoint in endpoints {
        let Ok(mut channel) = Channel::connect(endpoint).await else {
            continue; // A member that is down does not lead.
        };
        let method = channel.method("/etcdserverpb.Maintenance/Status")?;
        let status: Result<StatusResponse, Error> = channel.call(&method, &StatusRequest {}).await;
        if status.is_ok_and(|status| status.is_leader()) {
            return Ok(endpoint.clone());
        }
    }
    anyhow::bail!("none of {endpoints:?} says that it leads")
}

/// Writes every key once.
async fn fill(clients: &[Client], keys: u64) -> anyhow::Result<()> {
    let writers = FILL_CLIENTS_MAX.min(keys);
    let running: Vec<_> = (0..writers)
        .map(|first| {
            let mut client = clients[first as usize % clients.len()].clone();
            tokio::spawn(async move {
                for number in (first..keys).step_by(writers as usize) {
                    client.put(number).await?;
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for writer in running {
        writer
            .await?
            .context("write the keys that are to be read")?;
    }
    Ok(())
}

/// What `pids` spent within `window`.
async fn spent(pids: &[u32], window: Window) -> Option<Cost> {
    tokio::time::sleep_until(window.measure_from.into()).await;
    let before = Cost::read(pids)?;
    tokio::time::sleep_until(window.end.into()).await;
    Some(Cost::read(pids)?.since(before))
}

/// One client's loop.
async fn drive(mut client: Client, number: u64, shared: Arc<Shared>) {
    let (op, keys, window) = (shared.options.op, shared.options.keys, shared.window);
    let mut random = Random::of(number);
    loop {
        let start = Instant::now();
        if start >= window.end {
            return;
        }
        let result = client.call(op, random.next() % keys).await;
        let end = Instant::now();
        let failed = result.is_err();
        if start >= window.measure_from {
            let mut tally = shared
                .tally
                .lock()
                .expect("no client panics while it counts");
            match result {
                Ok(()) => tally.done(end - start, end <= window.end),
                Err(error) => tally.failed(error.to_string()),
            }
        }
        if failed {
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }
}

impl Client {
    async fn connect(endpoint: &str, value: Bytes) -> anyhow::Result<Self> {
        let channel = Channel::connect(endpoint)
            .await
            .with_context(|| format!("connect to etcd at {endpoint}"))?;
        Ok(Client {
            put: channel.method("/etcdserverpb.KV/Put")?,
            range: channel.method("/etcdserverpb.KV/Range")?,
            channel,
            value,
        })
    }

    async fn call(&mut self, op: Op, key: u64) -> Result<(), Error> {
        match op {
            Op::Put => self.put(key).await,
            Op::Get => self.get(key).await,
        }
    }

    async fn put(&mut self, key: u64) -> Result<(), Error> {
        let request = PutRequest {
            key: name(key),
            value: self.value.clone(),
        };
        let answer: PutResponse = self.channel.call(&self.put, &request).await?;
        // A write that happened has a revision.
        let revision = answer.header.map_or(0, |header| header.revision);
        (revision > 0).then_some(()).ok_or(Error::Malformed)
    }

    async fn get(&mut self, key: u64) -> Result<(), Error> {
        let request = RangeRequest { key: name(key) };
        let answer: RangeResponse = self.channel.call(&self.range, &request).await?;
        let found = answer.kvs.first().map(|record| record.value.len());
        (found == Some(self.value.len()))
            .then_some(())
            .ok_or(Error::Malformed)
    }
}

/// The `number`th key.
fn name(number: u64) -> Bytes {
    Bytes::from(format!("bench/{number:012}"))
}

/// Which keys a client picks: splitmix64, the same for the same client in every run.
struct Random(u64);

impl Random {
    fn of(client: u64) -> Self {
        Random(client.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::fake;
    use crate::wire::{Header, KeyValue, frame};
    use clap::Parser;

    fn options(line: &str) -> Options {
        let words = "etcd-load --warmup 0.05 --seconds 0.2 --value-bytes 4 ".to_owned() + line;
        Options::try_parse_from(words.split_whitespace()).unwrap()
    }

    fn header(member_id: u64) -> Option<Header> {
        Some(Header {
            member_id,
            revision: 5,
        })
    }

    #[test]
    fn connections_follow_clients_and_members() {
        let of = |clients: u32, flag: &str| {
            connections(&options(&format!(
                "--endpoints a:1,b:2,c:3 --clients {clients} {flag}"
            )))
        };
        assert_eq!([of(1, ""), of(64, ""), of(1000, "")], [1, 3, 20]);
        assert_eq!([of(1, "--leader-only"), of(64, "--leader-only")], [1, 2]);
        assert_eq!(of(10, "--clients-per-connection 1"), 10);
    }

    #[tokio::test]
    async fn puts_are_counted() {
        let body = frame(&PutResponse { header: header(1) });
        let endpoint = fake::serve(body, "0").await;
        let json = run(&options(&format!("--endpoints {endpoint} --clients 60")))
            .await
            .unwrap()
            .json();
        assert!(json["operations"].as_u64().unwrap() > 60, "{json}");
        assert_eq!(json["errors"], 0);
        assert!(json["p50_ms"].as_f64().unwrap() > 0.0);
    }

    #[tokio::test]
    async fn refusals_are_errors_not_throughput() {
        let body = frame(&PutResponse { header: header(1) });
        let endpoint = fake::serve(body, "14").await;
        let json = run(&options(&format!("--endpoints {endpoint} --clients 2")))
            .await
            .unwrap()
            .json();
        assert_eq!(json["operations"], 0);
        assert_eq!(json["errors"], json["errors_by_kind"]["grpc status 14"]);
        assert!(json["errors"].as_u64().unwrap() > 0);
    }

    #[tokio::test]
    async fn read_that_finds_nothing_is_an_error() {
        let endpoint = fake::serve(frame(&RangeResponse::default()), "0").await;
        let mut client = Client::connect(&endpoint, Bytes::from_static(b"1234"))
            .await
            .unwrap();
        assert_eq!(client.get(1).await, Err(Error::Malformed));
        let record = KeyValue {
            value: Bytes::from_static(b"4321"),
        };
        let endpoint = fake::serve(frame(&RangeResponse { kvs: vec![record] }), "0").await;
        let mut client = Client::connect(&endpoint, Bytes::from_static(b"1234"))
            .await
            .unwrap();
        assert_eq!(client.get(1).await, Ok(()));
    }

    #[tokio::test]
    async fn leader_is_the_member_that_says_so() {
        let status = |member_id, leader| {
            frame(&StatusResponse {
                header: header(member_id),
                leader,
            })
        };
        let follower = fake::serve(status(1, 2), "0").await;
        let leading = fake::serve(status(2, 2), "0").await;
        let endpoints = [follower.clone(), leading.clone()];
        assert_eq!(leader(&endpoints).await.unwrap(), leading);
        assert!(leader(&[follower]).await.is_err());
    }
}
