//! How a node without a place in a cluster finds one: it founds one together with the other founders, or is let in.

use super::Shared;
use super::boot::{Founding, Halt};
use crate::config::Founder;
use crate::error::{Code, Error};
use crate::handle::{Condition, Request};
use crate::rt::Event;
use crate::state::command::Member;
use crate::transport::Inbound;
use crate::types::{ClusterId, Incarnation, NodeId};
use crate::wire::{Join, Probe, ProbeAnswer};
use prost::Message;
use std::time::Duration;
use tokio::sync::mpsc;

/// Pause between two rounds of asking the other founders.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// A place in a cluster.
pub(super) struct Seat {
    /// The cluster.
    pub(super) cluster: ClusterId,
    /// The id in it.
    pub(super) id: NodeId,
    /// Members at that moment: the founders, or those who let this node in.
    pub(super) members: Vec<Member>,
    /// True when it was let in.
    pub(super) joined: bool,
}

/// Finds a place: founds with the other founders, or is let in.
pub(super) async fn find_seat(
    shared: &Shared,
    incarnation: Incarnation,
    lost: Option<String>,
    requests: &mut mpsc::Receiver<Request>,
    inbox: &mut mpsc::Receiver<Inbound>,
) -> Result<Seat, Halt> {
    if let Some(reason) = &lost {
        shared.env.journal.record(Event::Recovered {
            detail: reason.clone(),
        });
        shared.set_condition(Condition::Rejoining {
            reason: reason.clone(),
        });
    }
    let seek = seek(shared, incarnation, lost);
    tokio::pin!(seek);
    loop {
        tokio::select! {
            biased; // A finished search goes first; then stop; then those who ask.
            seat = &mut seek => return seat.map_err(Halt::Failed),
            request = requests.recv() => refuse_early(request)?,
            inbound = inbox.recv() => answer_early(shared, incarnation, inbound),
        }
    }
}

/// Asks around until there is a place.
pub(super) async fn seek(
    shared: &Shared,
    incarnation: Incarnation,
    lost: Option<String>,
) -> Result<Seat, String> {
    let config = &shared.config;
    let me = founder_of(shared);
    let mut founders = config.cluster.members.clone();
    if !config.cluster.join && !founders.iter().any(|one| one.name == me.name) {
        founders.push(me.clone());
    }
    let others: Vec<&Founder> = founders.iter().filter(|one| one.name != me.name).collect();
    loop {
        let mut answers = Vec::new();
        let mut silent = Vec::new();
        let mut refusals = Vec::new();
        for other in &others {
            match ask(shared, incarnation, other).await {
                Ok(answer) => answers.push((*other, answer)),
                Err(_) => silent.push(other.name.clone()),
            }
        }
        for (other, answer) in answers.iter().filter(|(_, answer)| answer.cluster_id != 0) {
            if let Some(seat) = own_seat(&me.name, incarnation, answer) {
                return Ok(seat);
            }
            match join(shared, incarnation, &other.peer).await {
                Ok(seat) => return Ok(seat),
                Err(error) => refusals.push(format!("{} says: {error}", other.name)),
            }
        }
        let all_fresh = answers.len() == others.len()
            && answers
                .iter()
                .all(|(other, answer)| answer.cluster_id == 0 && answer.name == other.name);
        // A directory that had data must not found anew: its old cluster may be somewhere.
        if all_fresh && !config.cluster.join && lost.is_none() {
            return Ok(found(&founders, &me.name, incarnation, &answers));
        }
        let waiting_for = waiting_for(&silent, &refusals);
        shared.set_condition(match &lost {
            None => Condition::Starting { waiting_for },
            Some(reason) => Condition::Rejoining {
                reason: format!("{reason}; waits for {waiting_for}"),
            },
        });
        shared.env.clock.sleep(PROBE_PAUSE).await;
    }
}

/// What a search that goes on waits for, in words.
pub(super) fn waiting_for(silent: &[String], refusals: &[String]) -> String {
    match (silent, refusals) {
        // All members say the same, because the leader decides.
        (_, [.., last]) => format!("a member that lets it in; {last}"),
        ([_, ..], []) => format!("founders that do not answer: {}", silent.join(", ")),
        ([], []) => {
            "a cluster to join: every founder answers, but none is a member of one".to_owned()
        }
    }
}

/// This node as a founder.
pub(super) fn founder_of(shared: &Shared) -> Founder {
    Founder {
        name: shared.config.name.clone(),
        peer: shared.config.peer_address(),
        http: shared.config.http_address(),
    }
}

/// Asks another founder who it is.
pub(super) async fn ask(
    shared: &Shared,
    incarnation: Incarnation,
    other: &Founder,
) -> Result<ProbeAnswer, Error> {
    let probe = Probe {
        name: shared.config.name.clone(),
        peer: shared.config.peer_address(),
        incarnation: incarnation.0,
    };
    shared.transport.probe(&other.peer, probe).await
}

/// The place that a founding map has for this very directory.
pub(super) fn own_seat(name: &str, incarnation: Incarnation, answer: &ProbeAnswer) -> Option<Seat> {
    let own = answer
        .founders
        .iter()
        .find(|member| member.name == name && member.incarnation == incarnation.0)?;
    Some(Seat {
        cluster: ClusterId(answer.cluster_id),
        id: NodeId(own.id),
        members: answer.founders.clone(),
        joined: false,
    })
}

/// Asks to be let in through `address`.
pub(super) async fn join(
    shared: &Shared,
    incarnation: Incarnation,
    address: &str,
) -> Result<Seat, Error> {
    let me = founder_of(shared);
    let join = Join {
        name: me.name,
        peer: me.peer,
        http: me.http,
        incarnation: incarnation.0,
        token: config_token(shared),
    };
    let deadline = shared.env.clock.now().plus(shared.knobs.request_timeout);
    let joined = shared.transport.join(address, join, deadline).await?;
    Ok(Seat {
        cluster: ClusterId(joined.cluster_id),
        id: NodeId(joined.id),
        members: joined.members,
        joined: true,
    })
}

/// The token that the operator gave; empty for none.
fn config_token(shared: &Shared) -> String {
    let token = shared.config.cluster.token.as_ref();
    token.map(|text| text.0.clone()).unwrap_or_default()
}

/// The founding that every founder computes alike: ids in the order of names, and a cluster id over all of it.
pub(super) fn found(
    founders: &[Founder],
    me: &str,
    incarnation: Incarnation,
    answers: &[(&Founder, ProbeAnswer)],
) -> Seat {
    let life = |name: &str| {
        let answer = answers.iter().find(|(founder, _)| founder.name == name);
        answer.map_or(incarnation.0, |(_, answer)| answer.incarnation)
    };
    let mut members: Vec<Member> = founders
        .iter()
        .map(|one| Member {
            name: one.name.clone(),
            peer: one.peer.clone(),
            http: one.http.clone(),
            incarnation: life(&one.name),
            ..Member::default()
        })
        .collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    for (place, member) in members.iter_mut().enumerate() {
        member.id = place as u64 + 1;
    }
    let map = Founding {
        members: members.clone(),
        joined: false,
    }
    .encode_to_vec();
    let cluster = ClusterId(xxhash_rust::xxh3::xxh3_64(&map) | 1);
    let own = members
        .iter()
        .find(|one| one.name == me)
        .expect("this node is a founder");
    Seat {
        cluster,
        id: NodeId(own.id),
        members,
        joined: false,
    }
}

/// A request that comes before the node takes part.
pub(super) fn refuse_early(request: Option<Request>) -> Result<(), Halt> {
    let error = || {
        Error::new(Code::NoLeader, "this node is still starting")
            .hint("see /health for what it waits for")
    };
    match request {
        None => return Err(Halt::Stopped("nobody holds the node any more".to_owned())),
        Some(Request::Stop { reason }) => return Err(Halt::Stopped(reason)),
        Some(Request::Propose { reply, .. }) => drop(reply.send(Err(error()))),
        Some(Request::Read { reply, .. }) => drop(reply.send(Err(error()))),
        Some(Request::History { reply, .. }) => drop(reply.send(Err(error()))),
        Some(Request::Change { reply, .. }) => drop(reply.send(Err(error()))),
        Some(Request::Dispatch { reply, .. }) => drop(reply.send(Err(error()))),
        Some(Request::Snapshot { reply }) => drop(reply.send(Err(error()))),
    }
    Ok(())
}

/// A question that comes before the node takes part.
pub(super) fn answer_early(shared: &Shared, incarnation: Incarnation, inbound: Option<Inbound>) {
    match inbound {
        Some(Inbound::Probe { reply, .. }) => {
            let answer = ProbeAnswer {
                name: shared.config.name.clone(),
                incarnation: incarnation.0,
                ..ProbeAnswer::default()
            };
            drop(reply.send(answer));
        }
        Some(Inbound::Join { reply, .. }) => {
            let error = Error::new(Code::NoLeader, "this node is still starting itself");
            drop(reply.send(Err(error)));
        }
        _ => {}
    }
}
