//! Managers that are not there at the beginning, and those that go for good: an operator makes a token, a fresh machine starts with it;
//! a machine is gone, an operator removes the member. All of it by the production command line and the production node.
//!
//! A machine whose token is not good must never become a member: it is watched for a while, and its name looked for at the end.

use crate::cluster::Cluster;
use crate::operator;
use crate::trace::Level;
use node::handle::Condition;
use node::types::Role;
use scenarios::{Crash, Shown};
use serde_json::Value;
use simdisk::CrashMode;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Longest time until a manager with a good token votes, or an operator's command is taken.
const DONE_MAX: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Pause between two tries of a command.
const AGAIN: Duration = Duration::from_millis(500);

/// Who came later, and who never may. A clone is the same.
#[derive(Clone, Default)]
pub struct Newcomers(Arc<Mutex<Known>>);

/// What is known of them.
#[derive(Default)]
struct Known {
    /// Machines that came so far.
    came: u32,
    /// The one that came last with a good token.
    newest: Option<String>,
    /// Names that must never be a member's.
    strangers: BTreeSet<String>,
}

impl Newcomers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The manager that came last with a good token.
    pub fn newest(&self) -> Option<String> {
        self.lock().newest.clone()
    }
}

/// A machine is started with a token that an operator makes for it; one that is not good is tried for `patience`.
pub async fn add(cluster: &Cluster, shown: Shown, patience: Duration) {
    let name = {
        let mut known = cluster.newcomers.lock();
        known.came += 1;
        let name = format!("n{}", cluster.plan.nodes + known.came);
        if shown == Shown::Good {
            known.newest = Some(name.clone());
        } else {
            known.strangers.insert(name.clone());
        }
        name
    };
    let Some(token) = make(cluster, shown).await else {
        return;
    };
    cluster.add_manager(&name, token);
    match shown {
        Shown::Good => becomes_voter(cluster, &name).await,
        Shown::Revoked | Shown::OfWorkers | Shown::Nobodys => {
            is_refused(cluster, &name, patience).await;
        }
    }
}

/// The text of such a token, made by an operator.
async fn make(cluster: &Cluster, shown: Shown) -> Option<String> {
    let line = match shown {
        Shown::Nobodys => return Some(format!("swt-{}", "0".repeat(64))),
        Shown::OfWorkers => "cluster token create --output json",
        Shown::Good | Shown::Revoked => "cluster token create --role manager --output json",
    };
    let made = until_taken(cluster, line, "").await?;
    let made: Value = serde_json::from_str(&made).unwrap_or_default();
    let (Some(token), Some(id)) = (made["token"].as_str(), made["id"].as_u64()) else {
        cluster
            .recorder
            .fail(format!("`seaworthy {line}` printed no token: {made}"));
        return None;
    };
    if shown == Shown::Revoked {
        let revoke = format!("cluster token rm {id}");
        until_taken(cluster, &revoke, "there is no token").await?;
    }
    Some(token.to_owned())
}

/// Runs a command until it ends well, or says `done_already`: what an earlier try did unheard. Gives what it printed.
async fn until_taken(cluster: &Cluster, line: &str, done_already: &str) -> Option<String> {
    let end = cluster.recorder.now() + DONE_MAX;
    loop {
        let (code, output) = operator::run(cluster, line).await;
        if code == 0 || !done_already.is_empty() && output.contains(done_already) {
            return Some(output);
        }
        if cluster.recorder.now() >= end {
            cluster.recorder.fail(format!(
                "`seaworthy {line}` did not end well within {DONE_MAX:?}: {output}"
            ));
            return None;
        }
        madsim::time::sleep(AGAIN).await;
    }
}

/// Waits until `name` votes. Whether it does in the end is judged when the storm is over.
async fn becomes_voter(cluster: &Cluster, name: &str) {
    let end = cluster.recorder.now() + DONE_MAX;
    while cluster.recorder.now() < end {
        // The leader's word: a newcomer's own picture knows no roles before it has the state.
        let leader = cluster.leader().and_then(|name| cluster.handle(&name));
        let votes = leader.is_some_and(|leader| {
            let members = leader.status().members;
            let mut voters = members.iter().filter(|one| one.role != Role::Learner);
            voters.any(|one| one.member.name == name)
        });
        if votes {
            cluster.recorder.sometimes("a manager joined by a token");
            let text = "is a voter, and came by a token";
            return cluster.recorder.line(name, Level::Story, text);
        }
        madsim::time::sleep(LOOK).await;
    }
}

/// Watches `name`, whose token is not good, and takes its machine away.
async fn is_refused(cluster: &Cluster, name: &str, patience: Duration) {
    let end = cluster.recorder.now() + patience;
    let mut told = false;
    while cluster.recorder.now() < end {
        let condition = cluster.handle(name).map(|handle| handle.status().condition);
        match condition {
            Some(Condition::Starting { waiting_for }) if waiting_for.contains("token") && !told => {
                told = true;
                cluster.recorder.sometimes("a token was refused");
                cluster.recorder.line(name, Level::Story, waiting_for);
            }
            Some(Condition::Running) => cluster
                .recorder
                .fail(format!("token_not_good: {name} takes part in the cluster")),
            _ => {}
        }
        judge(cluster);
        madsim::time::sleep(LOOK).await;
    }
    cluster.retire(name).await;
}

/// Nobody whose token was not good is a member.
pub fn judge(cluster: &Cluster) {
    let strangers = cluster.newcomers.lock().strangers.clone();
    for (place, status) in cluster.statuses() {
        let mut members = status.members.iter();
        let is_in = members.find(|one| strangers.contains(&one.member.name));
        if let Some(one) = is_in {
            cluster.recorder.fail(format!(
                "token_not_good: {} is a member for {place}",
                one.member.name
            ));
        }
    }
}

/// The machine of `name` is gone for good, and an operator removes the member.
pub async fn remove(cluster: &Cluster, name: &str) {
    if cluster.is_off(name) {
        return;
    }
    cluster
        .down(name, Crash::PowerLoss, CrashMode::LoseAll)
        .await;
    cluster.recorder.sometimes("a manager was gone for good");
    let line = format!("cluster members remove {name}");
    if until_taken(cluster, &line, "no member is called")
        .await
        .is_some()
    {
        cluster.retire(name).await;
    }
}
