//! The founding, the configuration, the members and the shared limits.

use super::apply::{Batch, Stop, refuse};
use super::command::{Done, Limits, Member, Nothing, Outcome, Refusal};
use super::keys;
use super::record::{Applied, FORMAT, Meta, decode, encode, fetch};
use super::view::{Error, View};
use super::writes::{Writes, record_hash};
use crate::types::{ClusterId, Index, NodeId, Term};
use bytes::Bytes;
use raft::eraftpb::ConfState;

/// What a cluster begins with. Every founder must write the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Genesis {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The founding members, all of them voters.
    pub members: Vec<Member>,
    /// Shared bounds; never from a node's own knobs, which may differ ([`super::command::Op::SetLimits`] changes them).
    pub limits: Limits,
    /// Position of the founding in the log; entries go on after it.
    pub position: (Index, Term),
}

/// A committed change of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfEntry {
    /// Position in the log.
    pub index: Index,
    /// Term.
    pub term: Term,
    /// The configuration after it, as raft-rs gave it.
    pub conf: ConfState,
    /// A member that comes with it, or whose record it replaces.
    pub add: Option<Member>,
    /// A member that goes with it.
    pub remove: Option<NodeId>,
}

/// The first writes of a founded cluster: revision 0.
pub fn genesis(genesis: &Genesis) -> Writes {
    let mut voters: Vec<u64> = genesis.members.iter().map(|member| member.id).collect();
    voters.sort_unstable();
    let meta = Meta {
        format: FORMAT,
        cluster_id: genesis.cluster_id.0,
        next_node_id: voters.last().map_or(1, |last| last + 1),
        conf: ConfState {
            voters,
            ..ConfState::default()
        },
        limits: genesis.limits,
        ..Meta::default()
    };
    let mut writes = Writes::default();
    let mut hash = 0u64;
    let mut set = |key: Bytes, value: Bytes| {
        hash = hash.wrapping_add(record_hash(&key, &value));
        writes.set(key, Some(value));
    };
    set(Bytes::from_static(&keys::META), encode(&meta));
    for member in &genesis.members {
        set(keys::member(member.id), encode(member));
    }
    let (index, term) = genesis.position;
    let applied = Applied {
        index: index.0,
        term: term.0,
        state_hash: hash,
    };
    writes.set(Bytes::from_static(&keys::APPLIED), Some(encode(&applied)));
    writes
}

impl Batch<'_> {
    /// Applies a configuration change. Its index must be the one after the last applied.
    pub fn apply_conf(&mut self, entry: &ConfEntry) -> Result<Outcome, Error> {
        self.advance(entry.index, entry.term);
        if let Some(id) = entry.remove {
            self.set_member(id.0, None)?;
        }
        if let Some(member) = &entry.add {
            self.meta.next_node_id = self.meta.next_node_id.max(member.id.saturating_add(1));
            self.set_member(member.id, Some(member))?;
        }
        self.meta.conf = entry.conf.clone();
        self.meta.conf_index = entry.index.0;
        self.sweep(entry.index.0)?;
        let step = self.step(entry.index, 0);
        Ok(self.outcome(&step, Done::Nothing(Nothing {})))
    }

    /// Writes or removes a member.
    fn set_member(&mut self, id: u64, member: Option<&Member>) -> Result<(), Error> {
        let key = keys::member(id);
        let old = self.over.get(&key)?;
        let new = member.map(encode);
        if old.is_some() || new.is_some() {
            self.over.replace(key, old.as_deref(), new);
        }
        Ok(())
    }

    /// [`super::command::Op::MemberUpdate`]: names, addresses, and once the incarnation.
    pub(super) fn member_update(&mut self, update: &Member) -> Result<Done, Stop> {
        let known = member(&self.over, NodeId(update.id))?
            .ok_or_else(|| refuse(Refusal::Invalid, "no such member"))?;
        let all = members(&self.over)?;
        if all
            .iter()
            .any(|other| other.id != update.id && other.name == update.name)
        {
            return Err(refuse(Refusal::Invalid, "another member has that name"));
        }
        let mut update = update.clone();
        if update.incarnation == 0 {
            update.incarnation = known.incarnation;
        }
        // A member with another incarnation has lost its disk; it must come back under a fresh id (inventory U-1).
        if known.incarnation != 0 && known.incarnation != update.incarnation {
            return Err(refuse(
                Refusal::Precondition,
                "the member is known with another incarnation",
            ));
        }
        self.set_member(update.id, Some(&update))?;
        Ok(Done::Nothing(Nothing {}))
    }

    /// [`super::command::Op::SetLimits`].
    pub(super) fn set_limits(&mut self, limits: &Limits) -> Result<Done, Stop> {
        if limits.sessions_max == 0 || limits.history_revisions == 0 {
            return Err(refuse(Refusal::Invalid, "a limit is zero"));
        }
        self.meta.limits = *limits;
        Ok(Done::Nothing(Nothing {}))
    }
}

/// One member.
pub fn member(view: &dyn View, id: NodeId) -> Result<Option<Member>, Error> {
    fetch(view, "member", &keys::member(id.0))
}

/// All members, by id.
pub fn members(view: &dyn View) -> Result<Vec<Member>, Error> {
    let (start, end) = keys::member_range();
    let records = view.scan(&start, &end);
    records.map(|record| decode("member", record?.1)).collect()
}
