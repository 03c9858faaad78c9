//! Membership: changes by operators, nodes that ask to be let in, and the return of a member that lost its disk.
//!
//! One change at a time, each an entry. A change that would break the quorum is refused with the reason. Ids are never reused:
//! a node that comes back with another incarnation is let in as a learner under a fresh id; once it has caught up, its
//! old id is removed and the new one made a voter, without a person (inventory U-1).
//!
//! A node that nobody added may show a manager's token. That it is good is decided where the log has the node's admission, an
//! entry of the fleet; only then is it made a learner, and its record names the token, so that whoever leads when it has
//! caught up makes it a voter. A token that is revoked between the two entries ends it there.

use super::proposals::{Waiter, refuse};
use super::run::Run;
use crate::error::{Code, Error};
use crate::fleet;
use crate::handle::{Condition, MemberChange};
use crate::manager::meeting::token_hash;
use crate::raft::core::Progress;
use crate::rt::Mono;
use crate::state::command::{Command, FleetCommand, Member, Op};
use crate::transport::PeerAddress;
use crate::types::{Incarnation, NodeId, Role};
use crate::wire::{Join, Joined, Reason, Reject};
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// Entries that a learner may be behind when it is made a voter (inventory T-15).
const CAUGHT_UP_LAG: u64 = 100;

/// How long a change that this node proposes by itself is waited for.
const OWN_CHANGE: Duration = Duration::from_secs(5);

/// Nodes that wait to be let in.
#[derive(Default)]
pub(super) struct Joins {
    /// Name, what they said, and who answers them.
    waiting: Vec<(Join, oneshot::Sender<Result<Joined, Error>>)>,
}

impl Run {
    /// The members changed.
    pub(super) fn set_members(&mut self, members: Vec<Member>) {
        if members.is_empty() {
            return;
        }
        let lives = members
            .iter()
            .map(|one| (NodeId(one.id), Incarnation(one.incarnation)));
        self.shared
            .door
            .set_members(lives.collect(), NodeId(self.next_id));
        let own_address = self.shared.config.peer_address();
        let book: BTreeMap<NodeId, PeerAddress> = members
            .iter()
            // An older id of this node has the same address: nobody else answers there.
            .filter(|one| one.id != self.me.id.0 && one.peer != own_address)
            .map(|one| {
                let address = PeerAddress {
                    name: one.name.clone(),
                    peer: one.peer.clone(),
                    incarnation: Incarnation(one.incarnation),
                };
                (NodeId(one.id), address)
            })
            .collect();
        self.shared.transport.set_peers(book);
        self.members = members;
        if self.is_removed() {
            self.shared.set_condition(Condition::Removed);
        }
        // The picture shows them with the next report, not when their progress is due again.
        self.detail_told.1 = Mono::default();
    }

    /// Whether the applied state knows members, but not this node.
    pub(super) fn is_removed(&self) -> bool {
        self.applied.0.0 > 0 && !self.members.iter().any(|one| one.id == self.me.id.0)
    }

    /// A peer refuses this node. The transport has told the journal.
    pub(super) fn on_rejected(&mut self, reject: &Reject) {
        match reject.reason() {
            Reason::Removed => self.shared.set_condition(Condition::Removed),
            // Another directory speaks for this id now: this one is a copy or was replaced.
            Reason::WrongIncarnation => self.shared.set_condition(Condition::Removed),
            _ => {}
        }
    }

    /// Proposes an operator's change.
    pub(super) fn lead_change(&mut self, change: MemberChange, waiter: Waiter, deadline: Mono) {
        let planned = match &change {
            MemberChange::Add { name, peer, http } => {
                self.plan_add(name.clone(), peer.clone(), http.clone())
            }
            MemberChange::Promote { id } => self.plan_promote(*id),
            MemberChange::Remove { id } => self.plan_remove(*id),
            MemberChange::Transfer { to } => return self.transfer(*to, waiter),
        };
        match planned {
            Ok(planned) => self.propose_change(planned, waiter, deadline),
            Err(error) => refuse(waiter, error),
        }
    }

    /// Hands leadership over. Answered at once: who leads next shows in the status.
    fn transfer(&mut self, to: NodeId, waiter: Waiter) {
        let heir = if to.0 == 0 {
            self.best_heir()
        } else {
            Some(to)
        };
        let voters = self.core.configuration().voters;
        match heir.filter(|id| voters.contains(&id.0)) {
            // It would hand leadership on at once.
            Some(id) if self.is_read_only(id) && !self.read_only => {
                let message = format!("the disk of member {id} is nearly full: it takes no writes");
                let error = Error::new(Code::Conflict, message)
                    .hint("free space on its data directory, or choose another member");
                refuse(waiter, error);
            }
            Some(id) => {
                self.core.transfer(id);
                waiter.about(id).done();
            }
            None => {
                let message = "there is no voter that leadership could go to";
                let error = Error::new(Code::Conflict, message).hint(
                    "the target must be a voter other than the leader, reachable and caught up",
                );
                refuse(waiter, error);
            }
        }
    }

    /// Adds a learner.
    fn plan_add(&self, name: String, peer: String, http: String) -> Result<ConfChange, Error> {
        if let Some(known) = self
            .members
            .iter()
            .find(|one| one.name == name || one.peer == peer)
        {
            let message = format!(
                "member {} is called '{}' at {} already",
                known.id, known.name, known.peer
            );
            return Err(Error::new(Code::Conflict, message).hint("remove it first"));
        }
        let member = Member {
            id: self.next_id,
            name,
            peer,
            http,
            ..Member::default()
        };
        Ok(conf_change(ConfChangeType::AddLearnerNode, &member))
    }

    /// Makes a learner a voter.
    fn plan_promote(&self, id: NodeId) -> Result<ConfChange, Error> {
        let member = self.member(id)?;
        if !self.core.configuration().learners.contains(&id.0) {
            return Err(Error::new(
                Code::Conflict,
                format!("member {id} is a voter already"),
            ));
        }
        let progress = self.progress().get(&id).copied();
        if !progress.is_some_and(|one| self.has_caught_up(&one)) {
            let message = format!("member {id} has not caught up yet");
            return Err(Error::new(Code::Conflict, message)
                .hint("see replication_lag in /v1/cluster; try again when it is below 100"));
        }
        let voter = Member {
            replaces: 0,
            ..member.clone()
        };
        Ok(conf_change(ConfChangeType::AddNode, &voter))
    }

    /// Removes a member, unless the rest could not go on without it.
    fn plan_remove(&self, id: NodeId) -> Result<ConfChange, Error> {
        let member = self.member(id)?;
        let voters = self.core.configuration().voters;
        if id == self.me.id {
            return Err(
                Error::new(Code::Conflict, format!("member {id} is the leader"))
                    .hint("hand leadership over first: seaworthy cluster transfer"),
            );
        }
        if voters.contains(&id.0) {
            let progress = self.progress();
            let rest = voters.len() - 1;
            let alive = voters
                .iter()
                .filter(|one| **one != id.0)
                .filter(|one| **one == self.me.id.0 || is_active(&progress, NodeId(**one)))
                .count();
            if alive * 2 <= rest {
                let message = format!(
                    "without member {id} only {alive} of {rest} voters would be alive: the cluster would stop"
                );
                return Err(Error::new(Code::Conflict, message)
                    .hint("bring other members back, or add and promote a new one first"));
            }
        }
        Ok(conf_change(ConfChangeType::RemoveNode, member))
    }

    /// A member by id.
    fn member(&self, id: NodeId) -> Result<&Member, Error> {
        let known = self.members.iter().find(|one| one.id == id.0);
        known.ok_or_else(|| {
            Error::new(Code::NotFound, format!("there is no member {id}"))
                .hint("see seaworthy cluster members")
        })
    }

    /// Proposes a change of configuration.
    fn propose_change(&mut self, change: ConfChange, waiter: Waiter, deadline: Mono) {
        let id = NodeId(change.node_id);
        let context = self.proposals.next_context();
        match self.core.propose_change(context, change) {
            Ok(index) => {
                let now = self.now();
                self.proposals
                    .proposed(index, waiter.about(id), now, deadline);
            }
            Err(error) => {
                let error = Error::new(Code::Conflict, error.to_string())
                    .hint("it was not done; try again in a moment");
                refuse(waiter, error);
            }
        }
    }

    /// Whether a member has nearly everything.
    fn has_caught_up(&self, progress: &Progress) -> bool {
        let last = self.core.log().last().0;
        progress.active && progress.matched.0 + CAUGHT_UP_LAG >= last.0 && progress.matched.0 > 0
    }

    /// A node asks to be let in. The leader lets it in; others send it there.
    pub(super) fn on_join(&mut self, join: Join, reply: oneshot::Sender<Result<Joined, Error>>) {
        if self.core.role() == Role::Leader {
            return self.let_in(join, reply);
        }
        let Some(leader) = self
            .members
            .iter()
            .find(|one| one.id == self.core.leader().0)
        else {
            let error = Error::new(Code::NoLeader, "there is no leader to let a member in");
            return drop(reply.send(Err(error)));
        };
        let (transport, address) = (self.shared.transport.clone(), leader.peer.clone());
        let deadline = self.now().plus(self.shared.knobs.request_timeout);
        self.shared.tasks.spawn(async move {
            // The asker may have given up.
            drop(reply.send(transport.join(&address, join, deadline).await));
        });
    }

    /// Lets a node in, or tells it where it stands.
    fn let_in(&mut self, join: Join, reply: oneshot::Sender<Result<Joined, Error>>) {
        let known = self
            .members
            .iter()
            .find(|one| one.incarnation == join.incarnation);
        if let Some(known) = known {
            let joined = Joined {
                cluster_id: self.me.cluster_id.0,
                id: known.id,
                members: self.members.clone(),
            };
            return drop(reply.send(Ok(joined)));
        }
        // Answered when the change is applied; a second question of the same node replaces the first.
        self.joins
            .waiting
            .retain(|(one, _)| one.incarnation != join.incarnation);
        self.joins.waiting.push((join, reply));
        self.tend_joins();
    }

    /// What the membership needs without a person, looked after by the leader.
    pub(super) fn tend_members(&mut self, now: Mono) {
        if self.core.role() != Role::Leader || self.stopping.is_some() {
            self.joins.waiting.clear();
            return;
        }
        self.tend_joins();
        self.tend_replacements(now);
    }

    /// Moves nodes that wait to be let in one step on.
    fn tend_joins(&mut self) {
        let waiting = std::mem::take(&mut self.joins.waiting);
        for (join, reply) in waiting {
            if reply.is_closed() {
                continue;
            }
            if self
                .members
                .iter()
                .any(|one| one.incarnation == join.incarnation)
            {
                self.let_in(join, reply);
                continue;
            }
            match self.step_join(&join) {
                Ok(()) => self.joins.waiting.push((join, reply)),
                Err(error) => drop(reply.send(Err(error))),
            }
        }
    }

    /// Proposes what lets `join` in: its incarnation if an operator added it, else a learner under a fresh id in the place of one that
    /// is dead, or by a token.
    fn step_join(&mut self, join: &Join) -> Result<(), Error> {
        let deadline = self.now().plus(OWN_CHANGE);
        let expected = self
            .members
            .iter()
            .find(|one| one.name == join.name && one.incarnation == 0)
            .cloned();
        if let Some(expected) = expected {
            let member = Member {
                incarnation: join.incarnation,
                peer: join.peer.clone(),
                http: join.http.clone(),
                ..expected
            };
            let command = Command {
                op: Some(Op::MemberUpdate(member)),
                ..Command::default()
            };
            // Dropped proposals are made again with the next chore.
            self.propose(command, Waiter::Nobody, deadline).ok();
            return Ok(());
        }
        let progress = self.progress();
        let named = || self.members.iter().filter(|one| one.name == join.name);
        let lives = |one: &Member| is_active(&progress, NodeId(one.id)) || one.id == self.me.id.0;
        if named().any(lives) {
            let message = format!(
                "a member called '{}' is alive with another data directory",
                join.name
            );
            return Err(Error::new(Code::Conflict, message)
                .hint("two nodes are configured with the same name"));
        }
        let token = if named().next().is_some() {
            // One whose disk was lost before it was a voter is to become one still.
            named().map(|one| one.token).find(|token| *token != 0)
        } else {
            let Some(token) = self.admitted(join, deadline)? else {
                return Ok(());
            };
            Some(token)
        };
        let member = Member {
            id: self.next_id,
            name: join.name.clone(),
            peer: join.peer.clone(),
            http: join.http.clone(),
            incarnation: join.incarnation,
            replaces: self.voter_called(&join.name),
            token: token.unwrap_or(0),
        };
        let change = conf_change(ConfChangeType::AddLearnerNode, &member);
        self.propose_change(change, Waiter::Nobody, deadline);
        Ok(())
    }

    /// The token by which `join`, whom nobody added, is let in; none as long as the log does not say so: then that is proposed.
    fn admitted(&mut self, join: &Join, deadline: Mono) -> Result<Option<u64>, Error> {
        if join.token.is_empty() {
            let message = format!("no member called '{}' is expected", join.name);
            return Err(Error::new(Code::Conflict, message).hint(
                "start it with a token (seaworthy cluster token create --role manager), \
                 or add it first: seaworthy cluster members add NAME --peer ... --http ...",
            ));
        }
        if let Some(known) = self.members.iter().find(|one| one.peer == join.peer) {
            let message = format!(
                "member {} is called '{}' at {} already",
                known.id, known.name, known.peer
            );
            return Err(Error::new(Code::Conflict, message).hint("remove it first"));
        }
        let (hash, life) = (token_hash(&join.token), Incarnation(join.incarnation));
        let fleet = self.shared.fleet.fleet();
        if let Some(token) = fleet.admission(&hash, &join.name, life) {
            return Ok(Some(token));
        }
        // The entry decides; what is refused here would be refused there.
        let now_ms = self.shared.env.clock.wall_ms().max(fleet.newest_ms());
        fleet
            .may_join(&join.name, life, &hash, now_ms)
            .map_err(|refused| Error::new(Code::Forbidden, refused.message))?;
        let admission = fleet::Command::ManagerJoin {
            name: join.name.clone(),
            life,
            token_hash: hash,
        };
        let json = serde_json::to_vec(&admission).expect("commands are plain data");
        let command = Command {
            op: Some(Op::Fleet(FleetCommand { json: json.into() })),
            ..Command::default()
        };
        // Dropped proposals are made again with the next chore; the second of two changes nothing.
        self.propose(command, Waiter::Nobody, deadline).ok();
        Ok(None)
    }

    /// A learner that replaces a voter of the same name takes its place once it has caught up: the dead id goes first, so
    /// that the quorum never counts a node that cannot answer. One that came by a token becomes a voter as well.
    fn tend_replacements(&mut self, now: Mono) {
        let (conf, progress) = (self.core.configuration(), self.progress());
        let learners = self
            .members
            .iter()
            .filter(|one| conf.learners.contains(&one.id));
        let ready: Vec<Member> = learners
            .filter(|one| {
                progress
                    .get(&NodeId(one.id))
                    .is_some_and(|p| self.has_caught_up(p))
            })
            .cloned()
            .collect();
        for learner in ready {
            let older = |one: &&Member| one.name == learner.name && one.id < learner.id;
            let deadline = now.plus(OWN_CHANGE);
            let planned = match self.members.iter().find(older) {
                Some(old) => self.plan_remove(NodeId(old.id)),
                None if learner.replaces != 0 || learner.token != 0 => {
                    let voter = Member {
                        replaces: 0,
                        ..learner
                    };
                    Ok(conf_change(ConfChangeType::AddNode, &voter))
                }
                None => continue,
            };
            if let Ok(change) = planned {
                self.propose_change(change, Waiter::Nobody, deadline);
            }
        }
    }

    /// The voter called `name`, or the one that a learner of that name was to replace; zero for none. It is kept in the
    /// new member's record: the leader that removes the voter may not live to promote its successor.
    fn voter_called(&self, name: &str) -> u64 {
        let voters = self.core.configuration().voters;
        let named = self.members.iter().filter(|one| one.name == name);
        let place = |one: &Member| {
            if voters.contains(&one.id) {
                one.id
            } else {
                one.replaces
            }
        };
        named.map(place).find(|id| *id != 0).unwrap_or(0)
    }
}

/// A change of configuration that carries what is known of the member.
fn conf_change(kind: ConfChangeType, member: &Member) -> ConfChange {
    let mut change = ConfChange::default();
    change.set_change_type(kind);
    change.node_id = member.id;
    change.context = member.encode_to_vec().into();
    change
}

/// Whether the leader heard of a member lately.
fn is_active(progress: &BTreeMap<NodeId, Progress>, id: NodeId) -> bool {
    progress.get(&id).is_some_and(|one| one.active)
}
