//! `node`: managers and workers; draining, labelling and removing workers.

use super::args::Output;
use super::args_fleet::{Node, Wait};
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::service::{task_table, typed};
use super::table;
use super::world::{Answer, World};
use crate::api::fleet_wire::{NodeAnswer, NodeInfo, WorkerInfo};
use crate::scheduler::model::Availability;
use crate::service::spec::Amounts;
use http::Method;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Pause between two looks of `--wait`.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs a verb of `node`.
pub async fn run(
    verb: Node,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let answer = match verb {
        Node::Ls => list(remote).await?,
        Node::Inspect { name } => inspect(&name, remote, world).await?,
        Node::Drain { name, wait } => drain(&name, wait, remote, world).await?,
        Node::Activate { name } => activate(&name, remote).await?,
        Node::Update { name, availability } if availability == "drain" => {
            drain(&name, Wait::default(), remote, world).await?
        }
        Node::Update { name, .. } => activate(&name, remote).await?,
        Node::Rm { name, force } => {
            let path = path(&name, "").flag("force", force);
            let json = remote.ask(&Ask::write(Method::DELETE, path, "")).await?;
            let text = format!(
                "{name} is removed and stays out; to use its machine again, start it with a new token: seaworthy cluster token\n"
            );
            Answer { json, text }
        }
        Node::Label { name, labels } => {
            let body = json!({ "labels": changes(&labels)? });
            let json = remote.ask(&Ask::put(path(&name, "/labels"), &body)).await?;
            let text = format!("{name} is labelled\n");
            Answer { json, text }
        }
    };
    world.answer(output, &answer)?;
    Ok(Exit::Ok)
}

fn path(name: &str, rest: &str) -> Path {
    Path::under("/v1/nodes/", name, rest)
}

async fn list(remote: &Remote) -> Result<Answer, Error> {
    let json = remote.ask(&Ask::get("/v1/nodes")).await?;
    let nodes: Vec<NodeInfo> = typed(json.get("nodes").unwrap_or(&Value::Null))?;
    let rows = nodes.iter().map(|node| {
        let worker = node.worker.as_ref();
        let of = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            node.name.clone(),
            role(node).to_owned(),
            node.status.clone(),
            of(worker.and_then(heard)),
            of(worker.map(|one| availability(one.availability).to_owned())),
            of(worker.map(|one| one.tasks.to_string())),
            of(worker.map(|one| cpus(one.reserved, one.capacity))),
            of(worker.map(|one| memory(one.reserved, one.capacity))),
            node.address.clone(),
        ]
    });
    let heading = [
        "name",
        "role",
        "status",
        "heard",
        "availability",
        "tasks",
        "cpu reserved",
        "memory reserved",
        "address",
    ];
    let text = table::table(&heading, rows);
    Ok(Answer { json, text })
}

/// How long ago the leader heard of a worker, and whether that makes it suspect.
fn heard(worker: &WorkerInfo) -> Option<String> {
    let ms = worker.heard_ms_ago?;
    let mark = if worker.suspected { ", suspect" } else { "" };
    Some(format!("{}.{}s ago{mark}", ms / 1_000, ms % 1_000 / 100))
}

fn role(node: &NodeInfo) -> &'static str {
    match node.worker {
        Some(_) => "worker",
        None => "manager",
    }
}

fn availability(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Drain => "drain",
    }
}

fn cpus(reserved: Amounts, capacity: Amounts) -> String {
    let whole = |milli: u64| milli as f64 / 1000.0;
    format!(
        "{} of {}",
        whole(reserved.cpu_milli),
        whole(capacity.cpu_milli)
    )
}

fn memory(reserved: Amounts, capacity: Amounts) -> String {
    let (reserved, capacity) = (reserved.memory_bytes, capacity.memory_bytes);
    format!("{} of {}", table::size(reserved), table::size(capacity))
}

async fn inspect(name: &str, remote: &Remote, world: &World) -> Result<Answer, Error> {
    let json = remote.ask(&Ask::get(path(name, ""))).await?;
    let answer: NodeAnswer = typed(&json)?;
    let node = &answer.node;
    let mut rows = vec![
        ("name", node.name.clone()),
        ("role", role(node).to_owned()),
        ("id", node.id.to_string()),
        ("status", node.status.clone()),
        ("address", node.address.clone()),
    ];
    if let Some(worker) = &node.worker {
        let labels = worker.labels.iter();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        rows.extend([
            ("availability", availability(worker.availability).to_owned()),
            ("platform", worker.platform.clone()),
            (
                "images",
                if worker.containers { "yes" } else { "no" }.to_owned(),
            ),
            ("cpu reserved", cpus(worker.reserved, worker.capacity)),
            ("memory reserved", memory(worker.reserved, worker.capacity)),
            ("labels", labels.join(" ")),
            ("heard", heard(worker).unwrap_or_else(|| "-".to_owned())),
            ("session", worker.epoch.to_string()),
            ("joined", table::time(worker.joined_ms)),
            ("status since", table::time(worker.changed_ms)),
        ]);
    }
    let mut text = table::pairs(&rows);
    if node.worker.is_some() {
        text += &format!("\n{}", task_table(&answer.tasks, world));
    }
    Ok(Answer { json, text })
}

async fn drain(name: &str, wait: Wait, remote: &Remote, world: &World) -> Result<Answer, Error> {
    let ask = Ask::write(Method::POST, path(name, "/drain"), "");
    let json = remote.ask(&ask).await?;
    let text = format!("{name} is drained: its tasks go elsewhere\n");
    if wait.wait {
        empty(name, wait.wait_timeout, remote, world).await?;
    }
    Ok(Answer { json, text })
}

/// Waits until a worker has no tasks, telling how many are left.
async fn empty(name: &str, most: Duration, remote: &Remote, world: &World) -> Result<(), Error> {
    let deadline = remote.clock.now().plus(most);
    let mut told = None;
    loop {
        let json = remote.ask(&Ask::get(path(name, ""))).await?;
        let left = typed::<NodeAnswer>(&json)?.tasks.len();
        if told != Some(left) {
            world.err(&format!("{name}: {left} tasks left\n"));
            told = Some(left);
        }
        if left == 0 {
            return Ok(());
        }
        if remote.clock.now() >= deadline {
            let message = format!("{left} tasks are left on {name}");
            let hint = format!("which: seaworthy node inspect {name}; it goes on meanwhile");
            return Err(Error::local(message, hint));
        }
        remote.clock.sleep(LOOK_EVERY).await;
    }
}

async fn activate(name: &str, remote: &Remote) -> Result<Answer, Error> {
    let ask = Ask::write(Method::POST, path(name, "/activate"), "");
    let json = remote.ask(&ask).await?;
    let text = format!("{name} takes tasks\n");
    Ok(Answer { json, text })
}

/// Labels to set and, with null, to remove.
fn changes(words: &[String]) -> Result<Map<String, Value>, Error> {
    let each = words.iter().map(|word| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.into())),
        None if word.len() > 1 && word.ends_with('-') => {
            Ok((word[..word.len() - 1].to_owned(), Value::Null))
        }
        _ => Err(Error::usage(
            format!("\"{word}\" is no label"),
            "write KEY=VALUE to set one, KEY- to remove one",
        )),
    });
    each.collect()
}
