//! `cluster`: who leads, who is a member, who is well; and changing that.

use super::args::{Cluster, Members, Output};
use super::exit::{Error, Exit};
use super::remote::{Ask, Remote};
use super::table;
use super::world::{Answer, World};
use crate::error;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

/// Runs a verb of `cluster`.
pub async fn run(
    verb: Cluster,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let answer = match verb {
        Cluster::Info => info(remote).await?,
        Cluster::Health => return health(remote, output, world).await,
        Cluster::Members { verb } => members(verb.unwrap_or(Members::List), remote).await?,
        Cluster::Transfer { to } => transfer(to.as_deref(), remote).await?,
        Cluster::Snapshot => snapshot(remote).await?,
        Cluster::Token { verb } => super::token::run(verb, remote, world).await?,
    };
    world.answer(output, &answer)?;
    Ok(Exit::Ok)
}

async fn info(remote: &Remote) -> Result<Answer, Error> {
    let (json, members) = remote.members().await?;
    let leader = match leader_of(&json, &members) {
        Some(leader) => format!(
            "{} ({}) at {}",
            table::field(&leader, "name"),
            table::field(&leader, "id"),
            table::field(&leader, "http")
        ),
        None => "none".to_owned(),
    };
    let mut rows = vec![
        ("cluster", table::field(&json, "cluster_id")),
        ("leader", leader),
    ];
    for name in [
        "term",
        "commit_index",
        "applied_index",
        "revision",
        "read_only",
    ] {
        if json.get(name).is_some() {
            rows.push((name, table::field(&json, name)));
        }
    }
    let text = format!("{}\n{}", table::pairs(&rows), listing(&members));
    Ok(Answer { json, text })
}

/// The leader's record: `leader` names it by id, or is the record.
pub(crate) fn leader_of(cluster: &Value, members: &[Value]) -> Option<Value> {
    match cluster.get("leader") {
        Some(leader @ Value::Object(_)) => Some(leader.clone()),
        Some(Value::Number(id)) if id.as_u64() != Some(0) => members
            .iter()
            .find(|one| one.get("id") == Some(&Value::Number(id.clone())))
            .cloned(),
        _ => None,
    }
}

/// A table of members.
fn listing(members: &[Value]) -> String {
    let row = |one: &Value| {
        let active = match one.get("active").and_then(Value::as_bool) {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        vec![
            table::field(one, "id"),
            table::field(one, "name"),
            table::field(one, "role"),
            table::field(one, "replication_lag"),
            active.to_owned(),
            table::field(one, "http"),
            table::field(one, "peer"),
        ]
    };
    table::table(
        &["id", "name", "role", "lag", "active", "http", "peer"],
        members.iter().map(row),
    )
}

async fn members(verb: Members, remote: &Remote) -> Result<Answer, Error> {
    match verb {
        Members::List => {
            let (json, members) = remote.members().await?;
            let text = listing(&members);
            Ok(Answer { json, text })
        }
        Members::Add { name, peer, http } => {
            let body = json!({ "name": name, "peer": peer, "http": http });
            let ask = Ask::post("/v1/cluster/members", &body);
            let json = remote.ask(&ask).await?;
            let id = table::field(&json, "id");
            let text = format!(
                "{name} is a learner with id {id}; start it, then: seaworthy cluster members promote {id}\n"
            );
            Ok(Answer { json, text })
        }
        Members::Remove { member } => {
            let id = id_of(&member, remote).await?;
            let path = format!("/v1/cluster/members/{id}");
            let json = remote.ask(&Ask::write(Method::DELETE, path, "")).await?;
            let text = format!("member {id} is removed; its process may be stopped\n");
            Ok(Answer { json, text })
        }
        Members::Promote { member } => {
            let id = id_of(&member, remote).await?;
            let path = format!("/v1/cluster/members/{id}/promote");
            let json = remote.ask(&Ask::write(Method::POST, path, "")).await?;
            let text = format!("member {id} is a voter\n");
            Ok(Answer { json, text })
        }
    }
}

/// The id of a member named by id or name.
async fn id_of(member: &str, remote: &Remote) -> Result<u64, Error> {
    if let Ok(id) = member.parse() {
        return Ok(id);
    }
    let (_, members) = remote.members().await?;
    let names: Vec<String> = members
        .iter()
        .map(|one| table::field(one, "name"))
        .collect();
    let found = names.iter().position(|name| name == member);
    let id = found.and_then(|at| members[at].get("id")?.as_u64());
    id.ok_or_else(|| {
        error::Error::new(
            error::Code::NotFound,
            format!("no member is called {member}"),
        )
        .hint(format!("the members are {}", names.join(", ")))
        .into()
    })
}

async fn transfer(to: Option<&str>, remote: &Remote) -> Result<Answer, Error> {
    let body = match to {
        Some(member) => json!({ "to": id_of(member, remote).await? }),
        None => json!({}),
    };
    let ask = Ask::post("/v1/cluster/transfer", &body);
    let json = remote.ask(&ask).await?;
    let text = format!("member {} leads\n", table::field(&json, "id"));
    Ok(Answer { json, text })
}

async fn snapshot(remote: &Remote) -> Result<Answer, Error> {
    let ask = Ask::write(Method::POST, "/v1/admin/snapshot", "");
    let json = remote.ask(&ask).await?;
    let bytes = json.get("bytes").and_then(Value::as_u64);
    let rows = [
        ("index", table::field(&json, "index")),
        ("revision", table::field(&json, "revision")),
        ("size", bytes.map_or("-".to_owned(), table::size)),
        ("checksum", table::field(&json, "checksum")),
        ("file", table::field(&json, "snapshot")),
    ];
    let text = table::pairs(&rows);
    Ok(Answer { json, text })
}

/// How one member is.
struct Pulse {
    /// Its address.
    http: String,
    /// What the cluster knows of it; null when only the address is known.
    member: Value,
    /// `healthy`, `degraded`, `unhealthy` or `unreachable`.
    status: String,
    /// Why, when not healthy.
    detail: String,
    /// Its own words.
    answer: Value,
}

/// Asks every member, or every endpoint when the members cannot be listed.
async fn health(remote: &Remote, output: Output, world: &World) -> Result<Exit, Error> {
    let mut patient = remote.clone();
    // Half for finding the members, half for asking them: the whole keeps to the time that was allowed.
    patient.timeout = remote.timeout / 2;
    let (cluster, members) = patient.members().await.unwrap_or_default();
    let asked: Vec<(String, Value)> = if members.is_empty() {
        let unknown = |one: &String| (one.clone(), Value::Null);
        remote.endpoints.iter().map(unknown).collect()
    } else {
        let known = |one: &Value| (table::field(one, "http"), one.clone());
        members.iter().map(known).collect()
    };
    let pulses = join_all(
        asked
            .into_iter()
            .map(|(http, member)| pulse(&patient, http, member)),
    )
    .await;
    let leader = leader_of(&cluster, &members).map(|leader| table::field(&leader, "name"));
    let well = leader.is_some() && pulses.iter().all(|one| one.status == "healthy");
    world.answer(output, &diagnosis(&pulses, leader, well))?;
    Ok(if well { Exit::Ok } else { Exit::Unwell })
}

async fn pulse(remote: &Remote, http: String, member: Value) -> Pulse {
    let (status, detail, answer) = match remote.ask_one(&http, &Ask::get("/health")).await {
        Err(error) => ("unreachable".to_owned(), error.message, Value::Null),
        Ok(reply) => {
            let answer = reply.json().unwrap_or_default();
            let status = match answer.get("status").and_then(Value::as_str) {
                Some(status) => status.to_owned(),
                None => "unhealthy".to_owned(),
            };
            (status, complaints(&answer), answer)
        }
    };
    Pulse {
        http,
        member,
        status,
        detail,
        answer,
    }
}

/// What the components of a health answer say, where they are not healthy.
fn complaints(answer: &Value) -> String {
    let parts = answer.get("components").and_then(Value::as_object);
    let told = parts.into_iter().flatten().filter_map(|(name, part)| {
        let status = part.as_str().or_else(|| part.get("status")?.as_str())?;
        let words = ["message", "detail", "words"].iter();
        let words = words.filter_map(|key| part.get(key)?.as_str()).next();
        (status != "healthy").then(|| format!("{name}: {}", words.unwrap_or(status)))
    });
    told.collect::<Vec<_>>().join("; ")
}

fn diagnosis(pulses: &[Pulse], leader: Option<String>, well: bool) -> Answer {
    let rows = pulses.iter().map(|one| {
        vec![
            table::field(&one.member, "name"),
            table::field(&one.member, "role"),
            one.status.clone(),
            one.http.clone(),
            if one.detail.is_empty() {
                "-".to_owned()
            } else {
                one.detail.clone()
            },
        ]
    });
    let mut text = table::table(&["name", "role", "status", "http", "detail"], rows);
    text += &match &leader {
        Some(name) if well => format!("\nall are well; {name} leads\n"),
        Some(name) => format!("\nnot all are well; {name} leads\n"),
        None => "\nthere is no leader: no writes are possible\n".to_owned(),
    };
    let members: Vec<Value> = pulses
        .iter()
        .map(|one| {
            json!({
                "name": one.member.get("name"),
                "id": one.member.get("id"),
                "role": one.member.get("role"),
                "http": one.http,
                "status": one.status,
                "detail": one.detail,
                "health": one.answer,
            })
        })
        .collect();
    let status = if well { "healthy" } else { "unhealthy" };
    Answer {
        json: json!({ "status": status, "leader": leader, "members": members }),
        text,
    }
}
