//! The load generator: closed loop (each client waits for its answer) and open loop (requests have due times).
//!
//! Reading order: [`plan`], what to do and when; `wire`, bytes of a request and an answer; `client`, one connection's loop;
//! [`report`], the numbers; `cost`, what the cluster spent. [`fleet`] is another bench: workers and services.
//!
//! In the open loop latency counts from the time a request was due, so that a stall of the cluster is felt by every request
//! that was due meanwhile (no coordinated omission); requests that were due but never got their turn are counted with
//! the time they had waited. The generator shares its machine with the cluster it measures, so a request is one buffer
//! patched in place and one write, an answer is a status and a length.

mod client;
mod cost;
pub mod fleet;
pub mod plan;
pub mod report;
#[cfg(test)]
mod tests;
mod wire;

use crate::cli::args::{Bench, Op};
use crate::cli::cluster::leader_of;
use crate::cli::remote::{Remote, address};
use crate::cli::{Error, World};
use crate::error;
use client::{Client, Shared};
use cost::Costs;
use plan::Plan;
use report::{Report, Tally};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Measures the cluster behind `remote`.
pub async fn run(options: &Bench, remote: &Remote, world: &World) -> Result<Report, Error> {
    let (targets, nodes) = targets(options, remote).await?;
    if options.op != Op::Put {
        // Reads of keys that are not there would measure something else.
        let fill = drive(options, &targets, world, Plan::fill(options, remote)).await;
        refuse_failed_fill(&fill)?;
    }
    let plan = Plan::measure(options, remote);
    let window = plan.window;
    let costs = async {
        world.env.clock.sleep_until(window.measure_from).await;
        let before = Costs::read(remote, &nodes).await;
        world.env.clock.sleep_until(window.end).await;
        Costs::read(remote, &nodes).await.since(&before)
    };
    let (tally, costs) = futures::join!(drive(options, &targets, world, plan), costs);
    Ok(Report::new(options, &tally, &costs))
}

/// Addresses to load, and addresses of all nodes.
async fn targets(options: &Bench, remote: &Remote) -> Result<(Vec<String>, Vec<String>), Error> {
    let (cluster, members) = remote.members().await?;
    let http = |one: &serde_json::Value| address(one.get("http")?.as_str()?).ok();
    let nodes: Vec<String> = members.iter().filter_map(http).collect();
    if !options.leader_only {
        let nodes = if nodes.is_empty() {
            remote.endpoints.clone()
        } else {
            nodes
        };
        return Ok((remote.endpoints.clone(), nodes));
    }
    let leader = leader_of(&cluster, &members).as_ref().and_then(http);
    let leader = leader.ok_or_else(|| {
        error::Error::new(error::Code::NoLeader, "the cluster has no leader to load")
    })?;
    Ok((vec![leader], nodes))
}

/// Runs every client of `plan` to its end.
async fn drive(options: &Bench, targets: &[String], world: &World, plan: Plan) -> Tally {
    let clients = u64::from(options.clients);
    let shared = Arc::new(Shared {
        plan,
        tally: Mutex::new(Tally::new()),
        arrivals: AtomicU64::new(0),
    });
    // Nothing is sent: the channel closes when the last client has ended.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    for number in 0..clients {
        let client = Client::new(number, targets, &world.env, Arc::clone(&shared));
        let alive = alive.clone();
        world.tasks.spawn(async move {
            client.run().await;
            drop(alive);
        });
    }
    drop(alive);
    while all_ended.recv().await.is_some() {}
    shared.finish(world.env.clock.now())
}

fn refuse_failed_fill(fill: &Tally) -> Result<(), Error> {
    if fill.errors == 0 {
        return Ok(());
    }
    let kinds: Vec<&str> = fill.errors_by_kind.keys().map(String::as_str).collect();
    let message = format!(
        "the keys to read could not be written: {}",
        kinds.join(", ")
    );
    Err(Error::local(message, "see `seaworthy cluster health`"))
}
