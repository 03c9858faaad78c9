//! The pure core: raft-rs with our time-outs, and its `Ready` turned into plain data.

use super::Log;
use crate::knobs::Timing;
use crate::types::{Index, NodeId, Role, Term};
use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType, Snapshot};
use raft::{Config, RawNode, ReadOnlyOption, ReadState, SnapshotStatus, StateRole};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// What a core is made from.
pub struct Settings {
    /// This node.
    pub id: NodeId,
    /// Timings of the profile.
    pub timing: Timing,
    /// Entries applied already, according to the store.
    pub applied: Index,
    /// Largest append message, bytes.
    pub append_bytes_max: u64,
    /// Append messages in flight to one follower.
    pub append_inflight_max: usize,
    /// Proposed bytes not yet committed.
    pub uncommitted_bytes_max: u64,
    /// Stream of election time-outs.
    pub rng: ChaCha8Rng,
}

/// raft-rs refused a command outright; nothing was proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Leadership is being handed over, or too much is uncommitted.
    #[error("the proposal was dropped: leadership is moving or too much is uncommitted")]
    Dropped,
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// raft-rs says no.
    #[error("raft refuses: {0}")]
    Refused(String),
}

/// What has to be done after an input, as data.
#[derive(Default)]
pub struct Work {
    /// Number to give back to [`Core::persisted`] once `entries`, `hard_state` and `snapshot` are durable.
    pub number: u64,
    /// Messages that may leave at once.
    pub messages: Vec<Message>,
    /// Messages that must wait until this work is durable.
    pub persisted_messages: Vec<Message>,
    /// Entries to append to the WAL (already in the core's log).
    pub entries: Vec<Entry>,
    /// Hard state to write, when term or vote changed or it goes along with entries.
    pub hard_state: Option<HardState>,
    /// A snapshot that replaces state and log, before `entries`.
    pub snapshot: Option<Snapshot>,
    /// Entries to apply, in order.
    pub committed: Vec<Entry>,
    /// Read-index answers.
    pub reads: Vec<ReadState>,
    /// Term and candidate of a vote that becomes a promise with this work.
    pub vote: Option<(Term, NodeId)>,
    /// True when role, term or leader differ from before.
    pub role_changed: bool,
    /// First index of the log that was replaced.
    pub truncated: Option<Index>,
}

impl Work {
    /// True when something has to become durable before [`Core::persisted`].
    pub fn must_persist(&self) -> bool {
        !self.entries.is_empty() || self.hard_state.is_some() || self.snapshot.is_some()
    }
}

/// One group on one node.
pub struct Core {
    /// raft-rs.
    raw: RawNode<Log>,
    /// Stream of election time-outs.
    rng: ChaCha8Rng,
    /// Bounds of the draw, ticks.
    election_ticks: (usize, usize),
    /// The time-out we set last; raft-rs has drawn another when it differs.
    timeout_ticks: usize,
    /// Role, term and leader last reported.
    reported: (Role, Term, NodeId),
    /// Term and vote last handed out to be written.
    written: (u64, u64),
    /// Commit index that all others were told by this leader, or are told otherwise.
    told: u64,
}

impl Core {
    /// A core over `log`.
    pub fn new(settings: Settings, log: Log) -> Result<Self, Error> {
        let timing = settings.timing;
        let config = Config {
            id: settings.id.0,
            election_tick: timing.election_ticks_min,
            min_election_tick: timing.election_ticks_min,
            max_election_tick: timing.election_ticks_max,
            heartbeat_tick: timing.heartbeat_ticks,
            applied: settings.applied.0,
            max_size_per_msg: settings.append_bytes_max,
            max_inflight_msgs: settings.append_inflight_max,
            max_uncommitted_size: settings.uncommitted_bytes_max,
            max_committed_size_per_ready: 4 << 20,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            // Lease reads trust clocks; ours never do.
            read_only_option: ReadOnlyOption::Safe,
            // The next append tells it, or [`Core::tell_commit`]: a message and its answer for each follower less.
            skip_bcast_commit: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger).map_err(refused)?;
        let hard_state = raw.raft.hard_state();
        let mut core = Core {
            raw,
            rng: settings.rng,
            election_ticks: (timing.election_ticks_min, timing.election_ticks_max),
            timeout_ticks: 0,
            reported: (Role::Follower, Term(0), NodeId(0)),
            written: (hard_state.term, hard_state.vote),
            told: 0,
        };
        core.redraw();
        Ok(core)
    }

    /// One tick of the profile's clock.
    pub fn tick(&mut self) {
        self.raw.tick();
        self.redraw();
    }

    /// What must hold of a message against this node's own state before [`Core::step`].
    pub fn admit(&self, message: &Message) -> Result<(), crate::wire::Invalid> {
        crate::wire::raft::admit(message, &self.raw)
    }

    /// A validated message from a peer.
    pub fn step(&mut self, message: Message) {
        // Messages from unknown or removed peers are refused by raft-rs; there is nothing to do about them.
        self.raw.step(message).ok();
        self.redraw();
    }

    /// Proposes one entry; gives the index it got.
    pub fn propose(&mut self, context: Vec<u8>, data: Vec<u8>) -> Result<Index, Error> {
        self.leading()?;
        self.raw.propose(context, data).map_err(refused)?;
        Ok(Index(self.raw.raft.raft_log.last_index()))
    }

    /// Proposes a change of configuration; gives the index it got.
    pub fn propose_change(
        &mut self,
        context: Vec<u8>,
        change: raft::eraftpb::ConfChange,
    ) -> Result<Index, Error> {
        self.leading()?;
        if self.raw.raft.has_pending_conf() {
            return Err(Error::Refused(
                "another membership change is under way".to_owned(),
            ));
        }
        self.raw
            .propose_conf_change(context, change)
            .map_err(refused)?;
        Ok(Index(self.raw.raft.raft_log.last_index()))
    }

    /// A committed change of configuration takes effect.
    pub fn apply_change(&mut self, change: &raft::eraftpb::ConfChange) -> Result<ConfState, Error> {
        let state = self.raw.apply_conf_change(change).map_err(refused)?;
        self.redraw();
        Ok(state)
    }

    /// Asks for a read index under `context`, which must never be used again. May be dropped in silence.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.raw.read_index(context);
    }

    /// Hands leadership to `to`.
    pub fn transfer(&mut self, to: NodeId) {
        self.raw.transfer_leader(to.0);
    }

    /// The work up to `number` is durable.
    pub fn persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
    }

    /// Entries up to `index` are applied.
    pub fn applied(&mut self, index: Index) {
        assert!(
            index.0 <= self.raw.raft.raft_log.committed,
            "an entry was applied that is not committed"
        );
        if index.0 > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index.0);
        }
    }

    /// Whether this leader's commit index went ahead of what it has told the others.
    pub fn has_untold_commit(&self) -> bool {
        self.role() == Role::Leader && self.told < self.raw.raft.raft_log.committed
    }

    /// Tells the others the commit index. Whoever takes no appends now is told when it does.
    pub fn tell_commit(&mut self) {
        if self.has_untold_commit() {
            self.told = self.raw.raft.raft_log.committed;
            self.raw.raft.bcast_append();
        }
    }

    /// `peer` could not be reached.
    pub fn unreachable(&mut self, peer: NodeId) {
        self.raw.report_unreachable(peer.0);
    }

    /// A snapshot sent to `peer` did not arrive.
    pub fn snapshot_failed(&mut self, peer: NodeId) {
        self.raw.report_snapshot(peer.0, SnapshotStatus::Failure);
    }

    /// True when [`Core::work`] has something.
    pub fn has_work(&self) -> bool {
        self.raw.has_ready()
    }

    /// Takes what has to be done. Every work must be carried out, in order.
    pub fn work(&mut self) -> Work {
        let mut ready = self.raw.ready();
        let mut work = Work {
            number: ready.number(),
            messages: ready.take_messages(),
            persisted_messages: ready.take_persisted_messages(),
            entries: ready.take_entries(),
            committed: ready.take_committed_entries(),
            reads: ready.take_read_states(),
            ..Work::default()
        };
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            let meta = snapshot.get_metadata();
            let base = (Index(meta.index), Term(meta.term));
            self.raw
                .mut_store()
                .restart_at(base, meta.get_conf_state().clone());
            work.snapshot = Some(snapshot);
        }
        work.truncated = self.raw.mut_store().append(work.entries.iter().cloned());
        if let Some(hard_state) = ready.hs() {
            // A commit index alone is not worth a write: it is learnt again.
            let fresh = (hard_state.term, hard_state.vote) != self.written;
            if fresh || !work.entries.is_empty() || work.snapshot.is_some() {
                self.written = (hard_state.term, hard_state.vote);
                let voted = fresh && hard_state.vote != 0;
                work.vote = voted.then_some((Term(hard_state.term), NodeId(hard_state.vote)));
                work.hard_state = Some(hard_state.clone());
            }
        }
        self.raw.advance_append_async(ready);
        self.note_told(&work.messages);
        let now = (self.role(), self.term(), self.leader());
        work.role_changed = now != self.reported;
        self.reported = now;
        work
    }

    /// The log.
    pub fn log(&self) -> &Log {
        self.raw.store()
    }

    /// The log, to be compacted or given a snapshot to offer.
    pub fn log_mut(&mut self) -> &mut Log {
        self.raw.mut_store()
    }

    /// This node's role.
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.is_learner() => Role::Learner,
            StateRole::Follower => Role::Follower,
        }
    }

    /// Current term.
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Known leader, zero if none.
    pub fn leader(&self) -> NodeId {
        NodeId(self.raw.raft.leader_id)
    }

    /// Commit index.
    pub fn commit(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    /// Voters and learners in effect.
    pub fn configuration(&self) -> ConfState {
        self.raw.raft.prs().conf().to_conf_state()
    }

    /// True when an own entry of this term is committed, so that reads and the lease table can be trusted.
    pub fn has_committed_in_term(&self) -> bool {
        self.raw.raft.commit_to_current_term()
    }

    /// Whether a read index would be heard: a leader is known, and an entry of its term is committed as far as this node knows. Before
    /// that raft-rs drops it in silence; the commit is told to every follower within a moment.
    pub fn can_ask_index(&self) -> bool {
        self.leader() != NodeId(0) && self.has_committed_in_term()
    }

    /// To whom leadership is being handed.
    pub fn transferring_to(&self) -> Option<NodeId> {
        self.raw.raft.lead_transferee.map(NodeId)
    }

    /// Per member, as the leader knows it.
    pub fn progress(&self) -> BTreeMap<NodeId, Progress> {
        if self.role() != Role::Leader {
            return BTreeMap::new();
        }
        let all = self.raw.raft.prs().iter();
        all.map(|(id, one)| {
            let snapshot =
                (one.state == raft::ProgressState::Snapshot).then_some(Index(one.pending_snapshot));
            let progress = Progress {
                matched: Index(one.matched),
                next: Index(one.next_idx),
                active: one.recent_active,
                snapshot,
            };
            (NodeId(*id), progress)
        })
        .collect()
    }

    /// Notes whether `messages` tell every other member the commit index.
    fn note_told(&mut self, messages: &[Message]) {
        let commit = self.raw.raft.raft_log.committed;
        let tells = |message: &&Message| {
            message.get_msg_type() == MessageType::MsgAppend && message.commit == commit
        };
        let told = messages.iter().filter(tells).map(|message| message.to);
        // One that lags may be sent several at once.
        let told: BTreeSet<u64> = told.collect();
        if told.len() + 1 >= self.raw.raft.prs().iter().len() {
            self.told = commit;
        }
    }

    /// True when this node is a learner in the configuration, or in none.
    fn is_learner(&self) -> bool {
        !self.raw.raft.promotable()
    }

    /// Refuses unless this node leads.
    fn leading(&self) -> Result<(), Error> {
        if self.raw.raft.state == StateRole::Leader {
            Ok(())
        } else {
            Err(Error::NotLeader)
        }
    }

    /// Replaces raft-rs's own draw of the election time-out by one from our stream.
    fn redraw(&mut self) {
        if self.raw.raft.randomized_election_timeout() == self.timeout_ticks {
            return;
        }
        let (low, high) = self.election_ticks;
        self.timeout_ticks = self.rng.random_range(low..high);
        self.raw
            .raft
            .set_randomized_election_timeout(self.timeout_ticks);
    }
}

/// One member as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Last entry it is known to hold.
    pub matched: Index,
    /// Next entry to send.
    pub next: Index,
    /// Heard of within an election time-out.
    pub active: bool,
    /// Snapshot it was offered and has not confirmed.
    pub snapshot: Option<Index>,
}

/// raft-rs's errors in our words.
fn refused(error: raft::Error) -> Error {
    match error {
        raft::Error::ProposalDropped => Error::Dropped,
        other => Error::Refused(other.to_string()),
    }
}

/// The bytes of an entry's context: the proposer's boot nonce and its sequence number, so that a proposal is
/// recognised when it is applied, whoever leads by then.
pub fn context(nonce: u64, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&nonce.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes
}

/// Nonce and sequence number of a context, if it is one of ours.
pub fn parse_context(context: &Bytes) -> Option<(u64, u64)> {
    let (nonce, sequence) = context.split_first_chunk::<8>()?;
    let sequence = sequence.try_into().ok()?;
    Some((u64::from_be_bytes(*nonce), u64::from_be_bytes(sequence)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Profile;
    use rand::SeedableRng;

    fn core(id: u64) -> Core {
        let conf_state = ConfState {
            voters: vec![1, 2, 3],
            ..ConfState::default()
        };
        let hard_state = HardState {
            term: 1,
            commit: 1,
            ..HardState::default()
        };
        let settings = Settings {
            id: NodeId(id),
            timing: Profile::Lan.timing(),
            applied: Index(1),
            append_bytes_max: 1 << 20,
            append_inflight_max: 16,
            uncommitted_bytes_max: 1 << 20,
            rng: ChaCha8Rng::seed_from_u64(id),
        };
        Core::new(
            settings,
            Log::new((Index(1), Term(1)), [], hard_state, conf_state),
        )
        .unwrap()
    }

    /// All work is done and all messages arrive until there are none; their number.
    fn settle(cores: &mut [Core; 3]) -> usize {
        let mut count = 0;
        loop {
            let mut messages = Vec::new();
            for core in cores.iter_mut() {
                while core.has_work() {
                    let work = core.work();
                    messages.extend(work.messages);
                    messages.extend(work.persisted_messages);
                    core.persisted(work.number);
                    if let Some(last) = work.committed.last() {
                        core.applied(Index(last.index));
                    }
                }
            }
            if messages.is_empty() {
                return count;
            }
            count += messages.len();
            for message in messages {
                cores[usize::try_from(message.to).unwrap() - 1].step(message);
            }
        }
    }

    #[test]
    fn a_commit_is_told_by_the_next_append_or_when_it_must_be() {
        let mut cores = [core(1), core(2), core(3)];
        while cores[0].role() != Role::Leader {
            cores[0].tick();
            settle(&mut cores);
        }
        let commits = |cores: &[Core; 3]| [0, 1, 2].map(|at| cores[at].commit().0);
        // The second follower's answer let raft-rs go on with it after the commit; the first one's was the commit.
        assert_eq!(commits(&cores), [2, 1, 2], "the entry of the term");
        assert!(cores[0].has_untold_commit() && !cores[1].has_untold_commit());
        let append = |to| {
            let mut message = Message {
                to,
                commit: 2,
                ..Message::default()
            };
            message.set_msg_type(MessageType::MsgAppend);
            message
        };
        cores[0].note_told(&[append(3), append(3)]);
        assert!(
            cores[0].has_untold_commit(),
            "two to one are not one to each"
        );
        cores[0].tell_commit();
        assert_eq!(settle(&mut cores), 4, "a message and an answer each");
        assert_eq!(commits(&cores), [2, 2, 2]);
        assert!(!cores[0].has_untold_commit());
        cores[0].tell_commit();
        assert_eq!(settle(&mut cores), 0);
        for index in 3..6 {
            cores[0].propose(context(7, index), b"x".to_vec()).unwrap();
            assert_eq!(settle(&mut cores), 4);
            assert_eq!(commits(&cores), [index, index - 1, index - 1]);
        }
    }
}
