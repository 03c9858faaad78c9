//! Rare situations that no single event shows: followed through the journals of all nodes, and told as probes.
//!
//! Each is a question about a sweep: was this really met? Nothing here judges.

use node::rt::Event;
use node::types::{Index, NodeId, Role};
use std::collections::{BTreeMap, BTreeSet};

/// What has been seen of a run so far.
#[derive(Debug, Default)]
pub struct Rare {
    /// Nodes that have started on the disk that they have.
    started: BTreeSet<String>,
    /// Who asked whom to lead, because its disk is nearly full.
    asked: BTreeMap<String, NodeId>,
    /// Who led last.
    leader: Option<String>,
    /// Ids by name.
    ids: BTreeMap<String, NodeId>,
    /// Last change of the configuration: its entry, and the voters after it.
    voters: (Index, Vec<NodeId>),
    /// A voter was removed whose successor is still a learner.
    replacing: bool,
    /// A learner catches up, and no voter's removal waits for it.
    learning: bool,
}

impl Rare {
    /// True between the removal of a voter and the promotion of the learner that takes its place.
    pub fn voter_is_being_replaced(&self) -> bool {
        self.replacing
    }

    /// True while there is a learner that takes nobody's place.
    pub fn learner_catches_up(&self) -> bool {
        self.learning
    }

    /// `name` records `event`; gives the probe that it hits.
    pub fn see(&mut self, name: &str, event: &Event) -> Option<&'static str> {
        match event {
            Event::Started { id, last, .. } => {
                self.ids.insert(name.to_owned(), *id);
                self.asked.remove(name);
                // An empty log is a disk that was never used.
                if last.0 == 0 {
                    self.started.remove(name);
                } else {
                    self.started.insert(name.to_owned());
                }
                None
            }
            Event::StoreRebuilt { .. } => self
                .started
                .contains(name)
                .then_some("a used store was rebuilt"),
            Event::HandsOver { to, reason, .. } => {
                let full = reason.contains("full");
                if full {
                    self.asked.insert(name.to_owned(), *to);
                }
                let deaf = reason.contains("workers");
                let probe = match deaf {
                    true => "a leader asked a manager to lead that hears more workers",
                    false => "a stalled leader asked another to lead",
                };
                (!full).then_some(probe)
            }
            Event::ReadOnly { on: false, .. } => {
                self.asked.remove(name);
                None
            }
            Event::RoleChanged {
                role: Role::Leader, ..
            } => self.leads(name),
            Event::MembershipChanged {
                index,
                voters,
                learners,
                ..
            } => {
                self.changes(*index, voters, !learners.is_empty());
                (learners.len() > 1).then_some("two learners caught up at once")
            }
            _ => None,
        }
    }

    /// `name` begins to lead.
    fn leads(&mut self, name: &str) -> Option<&'static str> {
        self.leader = Some(name.to_owned());
        let id = self.ids.get(name)?;
        let before = self.asked.len();
        self.asked.retain(|_, heir| heir != id);
        (self.asked.len() < before).then_some("a full leader handed over")
    }

    /// The configuration changes; every node tells, and those that come back tell again.
    fn changes(&mut self, index: Index, voters: &[NodeId], learners: bool) {
        let (known, before) = &self.voters;
        if index <= *known {
            return;
        }
        let removed = before.iter().any(|id| !voters.contains(id));
        let promoted = !before.is_empty() && voters.iter().any(|id| !before.contains(id));
        self.replacing = learners && (removed || self.replacing) && !promoted;
        self.learning = learners && !self.replacing;
        self.voters = (index, voters.to_vec());
    }

    /// The process of `name` is down.
    pub fn falls(&mut self, name: &str) -> Option<&'static str> {
        let led = self.leader.as_deref() == Some(name);
        match led {
            true if self.replacing => Some("the leader died between removal and promotion"),
            true if self.learning => Some("the leader died while a learner caught up"),
            _ => None,
        }
    }
}
