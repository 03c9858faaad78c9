//! Who may connect. [`Gate`] is the question; [`Door`] the usual answer, from what the node knows of its cluster.
//!
//! These checks guard against accidents: two clusters wired together, a disk lost or cloned or restored from a backup, an
//! address given to another machine, a removed member that was never told.

use crate::types::{ClusterId, Incarnation, NodeId};
use crate::wire::{Hello, Reason, Reject};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// Who this node is, once it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its id.
    pub id: NodeId,
    /// Life of its data directory.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: String,
}

/// Decides who may connect.
pub trait Gate: Send + Sync {
    /// This node; `None` while it belongs to no cluster, when only probes and joins are possible.
    fn me(&self) -> Option<Identity>;
    /// Whether the caller may use the connection.
    fn admit(&self, hello: &Hello) -> Result<(), Reject>;
}

/// The gate of an ordinary node, kept up to date by its loop.
#[derive(Default)]
pub struct Door {
    /// What is known.
    known: Mutex<Known>,
}

/// What a [`Door`] knows.
#[derive(Default)]
struct Known {
    /// This node.
    me: Option<Identity>,
    /// Members and the incarnations recorded for them (zero until a member has shown up).
    members: BTreeMap<NodeId, Incarnation>,
    /// Ids that were members once.
    removed: BTreeSet<NodeId>,
    /// Ids from here on were not given out yet, as far as this node knows.
    next_id: NodeId,
}

impl Door {
    /// From now on this node is `me`.
    pub fn set_me(&self, me: Identity) {
        self.known().me = Some(me);
    }

    /// From now on these are the members, each with its recorded incarnation (zero accepts any). Ids that disappear count
    /// as removed.
    ///
    /// A caller with an id of `next_id` or above is let in too: this node may lag behind and learn of that member only from it.
    /// Zero lets no stranger in.
    pub fn set_members(&self, members: BTreeMap<NodeId, Incarnation>, next_id: NodeId) {
        let mut known = self.known();
        known.next_id = next_id;
        let before = std::mem::replace(&mut known.members, members);
        let gone: Vec<NodeId> = before
            .into_keys()
            .filter(|id| !known.members.contains_key(id))
            .collect();
        known.removed.extend(gone);
    }

    /// Back to the state of a fresh node.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known
            .lock()
            .expect("nobody panics while holding what the door knows")
    }
}

impl Gate for Door {
    fn me(&self) -> Option<Identity> {
        self.known().me.clone()
    }

    fn admit(&self, hello: &Hello) -> Result<(), Reject> {
        let known = self.known();
        let Some(me) = &known.me else {
            return Err(Reject::new(Reason::NotReady, "this node is still starting"));
        };
        check_address(me, hello)?;
        let sender = hello.sender();
        match known.members.get(&sender) {
            Some(recorded) => check_life(sender, *recorded, Incarnation(hello.incarnation)),
            None if known.removed.contains(&sender) => Err(Reject::new(
                Reason::Removed,
                format!(
                    "node {sender} was removed from the cluster: to come back it needs an empty data directory and a new join"
                ),
            )),
            None if known.next_id.0 != 0 && sender >= known.next_id => Ok(()),
            None => Err(Reject::new(
                Reason::UnknownMember,
                format!("node {} knows no member {sender}", me.id),
            )),
        }
    }
}

/// The caller means this cluster and this node.
fn check_address(me: &Identity, hello: &Hello) -> Result<(), Reject> {
    if hello.cluster() != me.cluster_id {
        let (theirs, ours) = (hello.cluster(), me.cluster_id);
        let text = format!(
            "the caller belongs to cluster {theirs}, this node to {ours}: check the addresses of the peers, one of them is of another cluster"
        );
        return Err(Reject::new(Reason::WrongCluster, text));
    }
    if hello.to != me.id.0 || hello.from == me.id.0 {
        let (from, to, id) = (hello.from, hello.to, me.id);
        let text = format!(
            "node {from} calls node {to}, but this is node {id}: an address points to the wrong node, a data directory was copied, or a node has just come back under a new id"
        );
        return Err(Reject::new(Reason::WrongNode, text));
    }
    Ok(())
}

/// The caller's data directory is the recorded one.
fn check_life(id: NodeId, recorded: Incarnation, shown: Incarnation) -> Result<(), Reject> {
    if recorded.0 == 0 || recorded == shown {
        return Ok(());
    }
    let text = format!(
        "node {id} shows incarnation {shown}, recorded is {recorded}: its data directory was lost, copied or restored; remove the member and let it join anew with an empty directory"
    );
    Err(Reject::new(Reason::WrongIncarnation, text))
}
