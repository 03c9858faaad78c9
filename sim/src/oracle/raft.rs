//! The Raft invariants, checked at every step from the nodes' journals.
//!
//! Election safety: one leader per term, one vote per node and term (across its lives). State machine safety: at one index
//! every node applies the same entry and reaches the same state. Durability: an entry is applied anywhere only when a
//! majority of the voters in effect have it on their disks. Order: each life of a node applies index after index.
//! (Raft paper, figure 3; the log matching property is implied by equal entries at equal index.)

use node::rt::Event;
use node::types::{GroupId, Index, NodeId, Role, Term};
use std::collections::BTreeMap;

/// Entries that a learner may be behind the one that makes it a voter: 100 when that was proposed.
const PROMOTION_LAG_MAX: u64 = 101;

/// What was applied at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Applied {
    /// Term of the entry.
    term: Term,
    /// Digest of its payload.
    entry_hash: u64,
    /// Digest of the state after it.
    state_hash: u64,
}

/// One node as its journal shows it.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Last entry applied in this life; none before the first.
    applied: Option<Index>,
    /// Last entry it said is on its disk.
    persisted: Index,
    /// Commit index in this life.
    commit: Index,
}

/// Voters of the group by the index from which they count.
type Configurations = BTreeMap<Index, Vec<NodeId>>;

/// The oracle of one run.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Leader of each term.
    leaders: BTreeMap<(GroupId, Term), NodeId>,
    /// Vote of each member in each term.
    votes: BTreeMap<(GroupId, NodeId, Term), NodeId>,
    /// What was applied, by index.
    applied: BTreeMap<(GroupId, Index), Applied>,
    /// Nodes by id.
    nodes: BTreeMap<NodeId, Seen>,
    /// Configurations seen so far.
    configurations: BTreeMap<GroupId, Configurations>,
    /// Nodes made voters by an entry while their logs were short of it, which they had up to another.
    promoted: BTreeMap<NodeId, (Index, Index)>,
    /// What was broken, in order.
    violations: Vec<String>,
}

impl Oracle {
    /// The configuration the cluster was founded with.
    pub fn founded(&mut self, group: GroupId, voters: Vec<NodeId>) {
        self.configurations
            .entry(group)
            .or_default()
            .insert(Index(0), voters);
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// `node` records `event`.
    pub fn see(&mut self, node: NodeId, event: &Event) {
        match event {
            Event::Started { applied, last, .. } => {
                let seen = Seen {
                    applied: Some(*applied),
                    persisted: *last,
                    commit: Index(0),
                };
                self.nodes.insert(node, seen);
                self.stands(node, *applied);
            }
            Event::RoleChanged {
                group,
                role: Role::Leader,
                term,
                ..
            } => {
                self.leads(*group, *term, node);
            }
            Event::Voted {
                group,
                term,
                candidate,
            } => self.votes(*group, node, *term, *candidate),
            Event::Persisted { index, .. } => self.node(node).persisted = *index,
            Event::Truncated { from, .. } => {
                let seen = self.node(node);
                seen.persisted = seen.persisted.min(Index(from.0.saturating_sub(1)));
            }
            Event::Committed { index, .. } => self.commits(node, *index),
            Event::Applied {
                group,
                index,
                term,
                entry_hash,
                state_hash,
                ..
            } => {
                let what = Applied {
                    term: *term,
                    entry_hash: *entry_hash,
                    state_hash: *state_hash,
                };
                self.applies(node, *group, *index, what);
            }
            Event::MembershipChanged {
                group,
                index,
                voters,
                ..
            } => {
                let known = self.configurations.entry(*group).or_default();
                if !known.contains_key(index)
                    && let Some((_, before)) = known.range(..index).next_back()
                {
                    let new = voters.iter().filter(|id| !before.contains(id));
                    let new: Vec<NodeId> = new.copied().collect();
                    new.into_iter().for_each(|id| self.votes_now(id, *index));
                }
                let known = self.configurations.entry(*group).or_default();
                known.insert(*index, voters.clone());
            }
            Event::SnapshotInstalled {
                group,
                index,
                state_hash,
            } => {
                self.installs(node, *group, *index, *state_hash);
            }
            _ => {}
        }
    }

    /// The record of `node`.
    fn node(&mut self, node: NodeId) -> &mut Seen {
        self.nodes.entry(node).or_default()
    }

    /// Something is broken.
    fn broken(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Election safety.
    fn leads(&mut self, group: GroupId, term: Term, node: NodeId) {
        let first = *self.leaders.entry((group, term)).or_insert(node);
        if first != node {
            self.broken(format!(
                "two leaders in term {term}: node {first} and node {node}"
            ));
        }
    }

    /// Who becomes a voter has nearly everything on its disk (inventory T-15). A snapshot may lie there that is not installed yet:
    /// then the next thing that the node says of its state shows it.
    fn votes_now(&mut self, node: NodeId, index: Index) {
        let persisted = self.node(node).persisted;
        if persisted.0 + PROMOTION_LAG_MAX < index.0 {
            self.promoted.insert(node, (index, persisted));
        }
    }

    /// The state of `node` is at `index`.
    fn stands(&mut self, node: NodeId, index: Index) {
        let told = self.promoted.get(&node).copied();
        // What it had before the snapshot may still be on its way into the state.
        let Some((voter, _)) = told.filter(|(_, had)| index > *had) else {
            return;
        };
        self.promoted.remove(&node);
        if index.0 + PROMOTION_LAG_MAX < voter.0 {
            self.broken(format!(
                "node {node} was made a voter by entry {voter} and came to entry {index} only then"
            ));
        }
    }

    /// One vote per term, over all lives of a member.
    fn votes(&mut self, group: GroupId, node: NodeId, term: Term, candidate: NodeId) {
        let first = *self.votes.entry((group, node, term)).or_insert(candidate);
        if first != candidate {
            self.broken(format!(
                "node {node} voted twice in term {term}: for {first} and for {candidate}"
            ));
        }
    }

    /// A commit index never goes back within a life.
    fn commits(&mut self, node: NodeId, index: Index) {
        let before = std::mem::replace(&mut self.node(node).commit, index);
        if index < before {
            self.broken(format!(
                "node {node}: commit index went back from {before} to {index}"
            ));
        }
    }

    /// State machine safety, order, and durability.
    fn applies(&mut self, node: NodeId, group: GroupId, index: Index, what: Applied) {
        self.stands(node, index);
        let before = self.node(node).applied.replace(index);
        if let Some(before) = before.filter(|before| index.0 != before.0 + 1) {
            self.broken(format!(
                "node {node} applied entry {index} right after entry {before}"
            ));
        }
        let Some(first) = self.applied.get(&(group, index)).copied() else {
            self.applied.insert((group, index), what);
            self.durable(group, index);
            return;
        };
        if (first.term, first.entry_hash) != (what.term, what.entry_hash) {
            self.broken(format!(
                "two different entries at index {index}: node {node} applied one of term {}, another node one of term {}",
                what.term, first.term
            ));
        } else if first.state_hash != what.state_hash {
            self.broken(format!(
                "state differs at index {index}: node {node} has {:016x}, another node {:016x}",
                what.state_hash, first.state_hash
            ));
        }
    }

    /// An entry that is applied somewhere is on the disks of a majority.
    fn durable(&mut self, group: GroupId, index: Index) {
        let Some(known) = self.configurations.get(&group) else {
            return;
        };
        let Some((_, voters)) = known.range(..index).next_back() else {
            return;
        };
        let holders = voters
            .iter()
            .filter(|id| {
                self.nodes
                    .get(id)
                    .is_some_and(|seen| seen.persisted >= index)
            })
            .count();
        if holders * 2 <= voters.len() {
            let voters = voters.len();
            self.broken(format!(
                "entry {index} was applied while only {holders} of {voters} voters had it on disk"
            ));
        }
    }

    /// A snapshot brings the state of its index.
    fn installs(&mut self, node: NodeId, group: GroupId, index: Index, state_hash: u64) {
        self.stands(node, index);
        let seen = self.node(node);
        seen.applied = Some(index);
        seen.persisted = seen.persisted.max(index);
        let Some(known) = self.applied.get(&(group, index)) else {
            return;
        };
        if known.state_hash != state_hash {
            let known = known.state_hash;
            self.broken(format!(
                "node {node} installed a snapshot of index {index} with state {state_hash:016x}, applied was {known:016x}"
            ));
        }
    }
}
