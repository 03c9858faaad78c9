//! The HTTP door: JSON over HTTP/1.1 for people and programs, on the streams of the seam.
//!
//! Reading order: [`wire`] and [`txn`], the JSON; `table`, the routes; `routes`, the router over it;
//! `call`, one request taken apart; `kv`, `leases`, `watch`, `cluster`, `health`, `workers`, what the routes do; `openapi` and
//! `schemas`, the document; `door`, connections and their limits. Orchestration has the same rooms: [`fleet_wire`], [`story_wire`],
//! `fleet_table`, `fleet_schemas`, and `services`, `nodes`, `volumes`, `secrets` (`secret_wire`), `tokens`, `events`, `explain`,
//! `plan`, `logs`.
//!
//! Rules of the door:
//! - It talks to the node through [`Handle`] alone; forwarding to the leader is the node's business.
//! - Every error is one JSON shape ([`crate::error::Error`]), whoever made it: a route, a parser, a limit. Two exceptions lie
//!   below us, in hyper: bytes that are not HTTP get an empty 400, and a request head that takes too long gets no answer.
//! - Keys stand in the path as percent-encoded bytes. Everything after `/v1/kv/` is the key, slashes included, so `a/b` and
//!   `a%2Fb` are the same key; query parameters are form-encoded (`+` is a space).
//! - A parameter or field that no route knows is an error, not ignored: a misspelt condition must not become an
//!   unconditional write.
//! - Nothing grows with a client's slowness: bodies are bounded, watches are pulled, a write that waits too long ends the
//!   connection.

mod call;
mod cluster;
mod door;
mod events;
mod explain;
mod fleet_schemas;
mod fleet_table;
pub mod fleet_wire;
mod health;
mod kv;
mod leases;
mod logs;
mod nodes;
mod openapi;
mod plan;
mod routes;
mod schemas;
pub mod secret_wire;
mod secrets;
mod services;
pub mod story_wire;
mod table;
mod tokens;
pub mod txn;
mod volumes;
mod watch;
pub mod wire;
mod worker_schemas;
mod worker_table;
mod workers;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use crate::config::Limits;
use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::rt::net::Listener;
use crate::rt::{Clock, Env, Mono, Net, Process, Tasks};
use http::HeaderValue;
use rand_chacha::ChaCha8Rng;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the door behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name, told in every answer (`Seaworthy-Node`).
    pub name: String,
    /// Limits on requests and connections.
    pub limits: Limits,
    /// Silence on a watch after which the client is told how far it has been looked ([`crate::knobs::Knobs::watch_progress`]).
    pub watch_progress: Duration,
}

/// What every request may use.
struct Api {
    /// The node.
    handle: Handle,
    /// Its clock.
    clock: Clock,
    /// Its numbers.
    metrics: Metrics,
    /// How the door behaves.
    options: Options,
    /// When the door was opened.
    since: Mono,
    /// What its process has spent.
    process: Process,
    /// The node's name as a header, unless it holds what a header must not.
    signature: Option<HeaderValue>,
    /// Chance for tokens.
    chance: Mutex<ChaCha8Rng>,
    /// Says that the node is stopping.
    closing: CancellationToken,
    /// Where workers are asked for the output of tasks.
    outside: Outside,
}

/// What it takes to ask others.
struct Outside {
    /// Streams.
    net: Net,
    /// Where connections run.
    tasks: Tasks,
}

/// Opens the door on `listener`: starts its tasks in `tasks` and returns at once. It closes when the node is stopping
/// (requests under way are finished) or when `tasks` are stopped.
pub fn serve(
    env: &Env,
    tasks: &Tasks,
    listener: Box<dyn Listener>,
    handle: Handle,
    metrics: Metrics,
    options: Options,
) {
    let signature = HeaderValue::from_str(&options.name).ok();
    // Named by the time too: a node that starts again from the same seed must not draw the same tokens.
    let chance = env.rngs.stream(&format!("tokens {}", env.clock.wall_ms()));
    let api = Arc::new(Api {
        handle,
        clock: env.clock.clone(),
        metrics,
        options,
        since: env.clock.now(),
        process: env.process.clone(),
        signature,
        chance: Mutex::new(chance),
        closing: CancellationToken::new(),
        outside: Outside {
            net: env.net.clone(),
            tasks: tasks.clone(),
        },
    });
    tasks.spawn(door::tidy(Arc::clone(&api)));
    tasks.spawn(door::accept(api, tasks.clone(), listener));
}

/// The OpenAPI document of the door, for documents and tests.
pub fn openapi() -> serde_json::Value {
    openapi::document()
}
