//! The loop: takes one input, then does everything that follows from it.

use super::apply::{Applied, Applier, Change, Item};
use super::boot::Booted;
use super::handover::{Handover, Heard};
use super::leases::Leases;
use super::members::Joins;
use super::persist::{Ended as WriteEnded, Writer, Written};
use super::proposals::{Proposals, Waiter};
use super::reads::Reads;
use super::serve::{Parked, Served};
use super::snapshots::{Fetched, Snapshots};
use super::{Ended, Shared};
use crate::error::{Code, Error, Leader};
use crate::handle::{Condition, Reply, Request};
use crate::raft::core::Settings;
use crate::raft::{Core, Work};
use crate::rt::clock::{Deadline, Sleep};
use crate::rt::{Event, Lane, Mono};
use crate::state::command::{Command, Member, Op};
use crate::transport::{Identity, Inbound};
use crate::types::{CONTROL_GROUP, GroupId, Index, NodeId, Revision, Role, Term};
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType, Message};
use rand_core::RngCore;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// The group this loop serves.
pub(super) const GROUP: GroupId = CONTROL_GROUP;

/// How often leases, lost reads, late proposals and the membership are looked after.
const CHORES: Duration = Duration::from_millis(50);

/// Something for the loop to do.
enum Input {
    /// The profile's clock.
    Tick,
    /// No append has told the followers the commit index for a while.
    CommitDue,
    /// Requests of this node's clients.
    Requests(Vec<Request>),
    /// News from peers.
    Inbound(Vec<Inbound>),
    /// A write ended.
    Written(WriteEnded),
    /// A batch was applied.
    Applied(Result<Applied, String>),
    /// Reads were served.
    Served(Served),
    /// A task of this loop has news.
    Internal(Internal),
    /// Every handle to the node is gone.
    Abandoned,
}

/// News from a task that the loop started.
pub(super) enum Internal {
    /// A snapshot file was written.
    Cut(Result<crate::handle::SnapshotInfo, String>),
    /// A snapshot arrived, or not.
    Fetched(Fetched),
    /// The log gave up segments, or could not.
    Trimmed(Result<(), String>),
    /// Free bytes of the disk.
    DiskFree(u64),
    /// A forwarded request was certainly not done: it is tried again.
    Retry(Parked),
}

/// An orderly stop under way.
pub(super) struct Stopping {
    /// Why.
    reason: String,
    /// Not after this.
    deadline: Mono,
}

/// The loop and all it owns.
pub(super) struct Run {
    pub(super) shared: Shared,
    pub(super) me: Identity,
    pub(super) core: Core,
    pub(super) writer: Writer,
    pub(super) applier: Applier,
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    pub(super) leases: Leases,
    pub(super) joins: Joins,
    pub(super) snapshots: Snapshots,
    /// Requests that wait for a leader.
    pub(super) parked: Vec<Parked>,
    /// Founders, for those who probe.
    pub(super) founders: Vec<Member>,
    /// Members as applied.
    pub(super) members: Vec<Member>,
    /// The id that the next new member gets.
    pub(super) next_id: u64,
    /// Position of the state.
    pub(super) applied: (Index, Term),
    /// Revision of the state.
    pub(super) revision: Revision,
    /// History below this is gone.
    pub(super) compacted: Revision,
    /// Keys that are there.
    pub(super) keys: u64,
    /// Digest of the state.
    pub(super) state_hash: u64,
    /// Elections seen.
    pub(super) elections: u64,
    /// True while writes are refused for want of space.
    pub(super) read_only: bool,
    /// When each peer was last heard of, and what it told of itself.
    pub(super) heard: BTreeMap<NodeId, Heard>,
    /// Whom this leader has asked to take over.
    pub(super) handover: Handover,
    /// Free bytes at the last look.
    pub(super) disk_free: Option<u64>,
    /// The lane of reads, and what runs on it.
    pub(super) read_lane: Lane,
    pub(super) serving: Option<crate::rt::net::BoxFuture<'static, Served>>,
    pub(super) stopping: Option<Stopping>,
    pub(super) news: mpsc::Sender<Internal>,
    internal: mpsc::Receiver<Internal>,
    requests: mpsc::Receiver<Request>,
    inbox: mpsc::Receiver<Inbound>,
    /// Next tick of the profile's clock.
    tick: Sleep,
    /// When the followers are told the commit index, unless an append does so first.
    pub(super) commit_due: Deadline,
    /// Next time for the chores.
    pub(super) chores_at: Mono,
    /// Next look at the disk.
    pub(super) disk_at: Mono,
    /// Last commit index told to the journal.
    commit_told: Index,
    /// Role, term and leader before the last work.
    pub(super) role: (Role, Term, NodeId),
    /// Who leads, for those who wait for an answer from a leader.
    pub(super) leads: tokio::sync::watch::Sender<NodeId>,
    /// Role, term and leader when the members' progress and the numbers were last told, and when that was.
    pub(super) detail_told: ((Role, Term, NodeId), Mono),
    /// The last stamp of orchestration, and when it was given.
    pub(super) stamped: (Mono, u64),
    /// True when the leases are to be fetched as soon as this leader's state is complete.
    pub(super) wants_leases: bool,
    /// Set when the node must end.
    end: Option<Ended>,
}

impl Run {
    /// The loop of a booted node.
    pub(super) fn new(
        shared: Shared,
        booted: Booted,
        requests: mpsc::Receiver<Request>,
        inbox: mpsc::Receiver<Inbound>,
    ) -> Result<Self, String> {
        let settings = Settings {
            id: booted.identity.id,
            timing: shared.config.profile.timing(),
            applied: booted.applied,
            append_bytes_max: shared.knobs.append_bytes_max,
            append_inflight_max: shared.knobs.append_inflight_max,
            uncommitted_bytes_max: shared.knobs.uncommitted_bytes_max,
            rng: shared
                .env
                .rngs
                .stream(&format!("election {}", booted.identity.incarnation)),
        };
        let last = booted.log.last().0;
        let core = Core::new(settings, booted.log).map_err(|error| error.to_string())?;
        let clock = shared.env.clock.clone();
        let now = clock.now();
        // Drawn anew at each start, so that no context of an earlier life is taken for one of this life.
        let nonce = shared
            .env
            .rngs
            .stream(&format!("nonce {:?} {}", now, clock.wall_ms()))
            .next_u64();
        let (news, internal) = mpsc::channel(64);
        let timing = shared.config.profile.timing();
        let started = Event::Started {
            id: booted.identity.id,
            cluster: booted.identity.cluster_id,
            incarnation: booted.identity.incarnation,
            applied: booted.applied,
            last,
            term: booted.term,
        };
        shared.env.journal.record(started);
        let mut run = Run {
            me: booted.identity,
            core,
            writer: Writer::new(
                booted.wal,
                booted.wal_lane,
                shared.env.lanes.open("spare"),
                clock.clone(),
            ),
            applier: Applier::new(
                booted.store,
                super::datadir::Dirs::new(&shared.config.data_dir).store,
                booted.store_lane,
                clock.clone(),
                &shared.knobs,
            ),
            proposals: Proposals::new(nonce),
            reads: Reads::new(nonce),
            leases: Leases::default(),
            joins: Joins::default(),
            snapshots: Snapshots::new(&shared),
            parked: Vec::new(),
            founders: booted.founders,
            members: Vec::new(),
            next_id: booted.next_id,
            applied: (booted.applied, Term(0)),
            revision: Revision(0),
            compacted: Revision(0),
            keys: 0,
            state_hash: 0,
            elections: 0,
            read_only: false,
            disk_free: None,
            heard: BTreeMap::new(),
            handover: Handover::default(),
            read_lane: shared.env.lanes.open("read"),
            serving: None,
            stopping: None,
            news,
            internal,
            requests,
            inbox,
            tick: clock.sleep(timing.tick),
            commit_due: Deadline::new(&clock),
            chores_at: now,
            disk_at: now,
            commit_told: Index(0),
            role: (Role::Learner, Term(0), NodeId(0)),
            leads: tokio::sync::watch::channel(NodeId(0)).0,
            detail_told: ((Role::Learner, Term(0), NodeId(0)), Mono::default()),
            wants_leases: false,
            stamped: (now, 0),
            end: None,
            shared,
        };
        // Members come last: a node that was removed while it slept learns so from them.
        run.shared.set_condition(Condition::Running);
        run.set_members(booted.members);
        run.offer_newest_snapshot();
        Ok(run)
    }

    /// Runs until the node ends.
    pub(super) async fn run(mut self) -> Ended {
        // What the store knows (revision, digest) is told before the first request is served.
        self.applier.push(Item::Refresh);
        self.turn();
        loop {
            let input = self.next().await;
            self.take(input);
            self.turn();
            self.report();
            if let Some(end) = self.end.take() {
                return self.finish(end).await;
            }
        }
    }

    /// The next input.
    async fn next(&mut self) -> Input {
        let turn_len_max = self.shared.knobs.turn_len_max;
        let open = self.applier.backlog() < self.shared.knobs.apply_backlog_max;
        let (mut requests, mut inbound) = (Vec::new(), Vec::new());
        tokio::select! {
            // Ticks first, or a busy node would miss its heartbeats; then what finishes work under way; then peers,
            // whose messages carry it on; new work last.
            biased;
            () = &mut self.tick => Input::Tick,
            () = self.commit_due.passed() => Input::CommitDue,
            written = self.writer.ended() => Input::Written(written),
            applied = self.applier.ended() => Input::Applied(applied),
            Some(news) = self.internal.recv() => Input::Internal(news),
            served = next_served(&mut self.serving) => Input::Served(served),
            _ = self.inbox.recv_many(&mut inbound, turn_len_max), if open => Input::Inbound(inbound),
            count = self.requests.recv_many(&mut requests, turn_len_max), if open => {
                if count == 0 { Input::Abandoned } else { Input::Requests(requests) }
            }
        }
    }

    /// Takes one input in.
    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => self.on_tick(),
            Input::CommitDue => self.core.tell_commit(),
            Input::Requests(requests) => requests.into_iter().for_each(|one| self.on_request(one)),
            Input::Inbound(inbound) => inbound.into_iter().for_each(|one| self.on_inbound(one)),
            Input::Written(WriteEnded::Done(written)) => self.on_written(written),
            Input::Written(WriteEnded::Full) => self.set_read_only(true),
            Input::Written(WriteEnded::Failed(reason)) => self.poison(&format!("log: {reason}")),
            Input::Applied(Ok(applied)) => self.on_applied(applied),
            Input::Applied(Err(reason)) => self.poison(&format!("store: {reason}")),
            Input::Served(served) => self.on_served(served),
            Input::Internal(news) => self.on_news(news),
            Input::Abandoned => self.stop("nobody holds the node any more".to_owned()),
        }
    }

    /// Does everything that follows, until nothing does.
    fn turn(&mut self) {
        loop {
            let now = self.now();
            if self.core.can_ask_index()
                && let Some(context) = self.reads.start_round(now)
            {
                self.core.read_index(context);
            }
            let mut idle = true;
            if self.core.has_work() {
                idle = false;
                let work = self.core.work();
                self.do_work(work);
            }
            if let Some(written) = self.writer.start() {
                idle = false;
                self.on_written(written);
            }
            if idle || self.end.is_some() {
                break;
            }
        }
        self.mind_commit();
        self.start_applier();
        self.serve_due();
        self.check_stop();
    }

    /// Carries out what the core wants, in the order that safety asks for.
    fn do_work(&mut self, mut work: Work) {
        self.send(std::mem::take(&mut work.messages));
        if let Some(from) = work.truncated {
            self.record(Event::Truncated { group: GROUP, from });
        }
        if work.role_changed {
            self.on_role_changed();
        }
        if let Some(snapshot) = &work.snapshot {
            let index = Index(snapshot.get_metadata().index);
            self.proposals.lose_through(index);
            match self.snapshots.path_of(index) {
                Some(path) => self.applier.push(Item::Install(path)),
                None => self.poison(&format!("the snapshot of entry {index} was not fetched")),
            }
        }
        for read in std::mem::take(&mut work.reads) {
            self.reads.confirmed(&read.request_ctx, Index(read.index));
        }
        self.reads.applied(self.applied.0);
        let committed = std::mem::take(&mut work.committed);
        self.writer.write(GROUP, &mut work);
        for entry in committed {
            self.hand_to_applier(entry);
        }
        let commit = self.core.commit();
        if commit > self.commit_told {
            self.commit_told = commit;
            self.record(Event::Committed {
                group: GROUP,
                index: commit,
            });
        }
    }

    /// Queues a committed entry; a change of configuration takes effect in Raft at this moment.
    fn hand_to_applier(&mut self, entry: Entry) {
        if entry.get_entry_type() == EntryType::EntryNormal {
            self.applier.push(Item::Entry(entry));
            return;
        }
        let Ok(change) = <ConfChange as prost::Message>::decode(entry.data.clone()) else {
            self.poison(&format!(
                "entry {} is no change of configuration",
                entry.index
            ));
            return;
        };
        match self.core.apply_change(&change) {
            Ok(conf) => {
                let member = Member::decode(change.context.clone())
                    .ok()
                    .filter(|one| one.id != 0);
                let removed = change.get_change_type() == ConfChangeType::RemoveNode;
                let removed = removed.then_some(NodeId(change.node_id));
                let member = member.filter(|_| removed.is_none());
                self.applier.push(Item::Change(Box::new(Change {
                    entry,
                    conf,
                    member,
                    removed,
                })));
            }
            Err(error) => self.poison(&format!("entry {}: {error}", entry.index)),
        }
    }

    /// A tick of the profile's clock. A node that was paused does not make up for ticks it missed.
    fn on_tick(&mut self) {
        let now = self.now();
        self.tick = self
            .shared
            .env
            .clock
            .sleep(self.shared.config.profile.timing().tick);
        self.core.tick();
        if now >= self.chores_at {
            self.chores_at = now.plus(CHORES);
            self.chores(now);
        }
        if self.writer.wants_spare() {
            self.shared.tasks.spawn(self.writer.prepare());
        }
        if now >= self.disk_at {
            self.disk_at = now.plus(self.shared.knobs.disk_check);
            self.look_at_disk();
        }
    }

    /// Proposes `command` on this leader; gives the waiter back when it was certainly not done.
    pub(super) fn propose(
        &mut self,
        mut command: Command,
        waiter: Waiter,
        deadline: Mono,
    ) -> Result<(), Box<(Waiter, Error)>> {
        command.time_ms = self.stamp(&command);
        let context = self.proposals.next_context();
        match self.core.propose(context, command.encode_to_vec()) {
            Ok(index) => {
                self.record(Event::Proposed {
                    group: GROUP,
                    index,
                });
                self.proposals.proposed(index, waiter, self.now(), deadline);
                Ok(())
            }
            Err(error) => {
                let error = Error::new(Code::Overloaded, error.to_string())
                    .leader(self.leader_info())
                    .hint("it was not done; send it again in a moment");
                Err(Box::new((waiter, error)))
            }
        }
    }

    /// The stamp of a command: the wall clock. Those of orchestration never go back, nor stand still while a wall clock that was set
    /// back catches up, whoever leads: how long a task has run is told by them (crew-storm, seed 1030).
    fn stamp(&mut self, command: &Command) -> u64 {
        let wall_ms = self.shared.env.clock.wall_ms();
        let Some(Op::Fleet(_)) = command.op else {
            return wall_ms;
        };
        let now = self.now();
        let (since, from_ms) = self.stamped;
        let passed = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        let newest_ms = self.shared.fleet.fleet().newest_ms();
        let stamp_ms = wall_ms.max(from_ms.saturating_add(passed)).max(newest_ms);
        self.stamped = (now, stamp_ms);
        stamp_ms
    }

    /// Works are durable.
    fn on_written(&mut self, written: Written) {
        if !written.took.is_zero() {
            self.shared.metrics.observe_sync(written.took);
        }
        for (term, candidate) in written.votes {
            self.record(Event::Voted {
                group: GROUP,
                term,
                candidate,
            });
        }
        if let Some((index, term)) = written.last {
            self.record(Event::Persisted {
                group: GROUP,
                index,
                term,
            });
        }
        if written.number != 0 {
            self.core.persisted(written.number);
        }
        self.send(written.messages);
        self.applier.start();
    }

    /// A batch was applied.
    fn on_applied(&mut self, applied: Applied) {
        // Told first: whoever is answered below finds what he asked for. And answered before others are woken by it.
        let told = applied.fleet.map(|fleet| self.shared.fleet.tell(fleet));
        if !applied.entries.is_empty() {
            self.shared
                .metrics
                .observe_storage("apply", "ok", applied.took);
        }
        if let Some((index, term, state_hash)) = applied.installed {
            self.record(Event::SnapshotInstalled {
                group: GROUP,
                index,
                state_hash,
            });
            self.applied = (index, term);
            self.snapshot_installed(index);
        }
        let now = self.now();
        for entry in applied.entries {
            self.record(Event::Applied {
                group: GROUP,
                index: entry.index,
                term: entry.term,
                entry_hash: entry.entry_hash,
                state_hash: entry.state_hash,
                revision: entry.revision,
            });
            if let Some(conf) = entry.conf {
                self.record(Event::MembershipChanged {
                    group: GROUP,
                    index: entry.index,
                    voters: conf.voters.into_iter().map(NodeId).collect(),
                    learners: conf.learners.into_iter().map(NodeId).collect(),
                });
            }
            if let Some(done) = self
                .proposals
                .applied(entry.index, &entry.context, entry.outcome)
            {
                self.shared.metrics.observe_commit(now.since(done.since));
            }
        }
        (self.applied, self.revision) = (applied.applied, applied.revision);
        (self.compacted, self.keys) = (applied.compacted, applied.keys);
        self.state_hash = applied.state_hash;
        self.next_id = applied.next_id;
        if let Some(members) = applied.members {
            self.set_members(members);
        }
        self.note_leases(&applied.leases, applied.all_leases, now);
        self.core.applied(self.applied.0);
        self.reads.applied(self.applied.0);
        if let Some(picture) = applied.picture {
            self.write_snapshot(picture);
        }
        self.maybe_cut();
        if let Some(told) = told {
            self.shared.fleet.wake(told);
        }
    }

    /// Times the leases that changed, on a leader.
    fn note_leases(&mut self, changes: &[super::apply::LeaseChange], all: bool, now: Mono) {
        if self.core.role() != Role::Leader {
            return;
        }
        if all {
            self.leases.clear();
        }
        for change in changes {
            match change.alive {
                Some((ttl, renewals)) => self.leases.set(change.id, ttl, renewals, now),
                None => self.leases.remove(change.id),
            }
        }
    }

    /// Role, term or leader changed.
    fn on_role_changed(&mut self) {
        let (role, term, leader) = (self.core.role(), self.core.term(), self.core.leader());
        let before = std::mem::replace(&mut self.role, (role, term, leader));
        if before == self.role {
            return;
        }
        self.leads.send_if_modified(|told| {
            let is_news = *told != leader;
            *told = leader;
            is_news
        });
        if role == Role::Candidate && before.0 != Role::Candidate {
            self.elections += 1;
        }
        self.record(Event::RoleChanged {
            group: GROUP,
            role,
            term,
            leader,
        });
        if before.1 != term {
            self.reads.ask_again();
        }
        if before.0 != role {
            self.leases.clear();
            self.wants_leases = role == Role::Leader;
        }
    }

    /// A task has news.
    fn on_news(&mut self, news: Internal) {
        match news {
            Internal::Cut(result) => self.on_cut(result),
            Internal::Fetched(fetched) => self.on_fetched(fetched),
            Internal::Trimmed(Ok(())) => {}
            Internal::Trimmed(Err(reason)) => self.poison(&format!("log: {reason}")),
            Internal::DiskFree(free) => self.on_disk_free(free),
            Internal::Retry(parked) => self.parked.push(parked),
        }
    }

    /// Begins an orderly stop: hands leadership over first.
    pub(super) fn stop(&mut self, reason: String) {
        if self.stopping.is_some() {
            return;
        }
        self.record(Event::Stopping {
            reason: reason.clone(),
        });
        self.shared.set_condition(Condition::Stopping);
        let deadline = self.now().plus(self.shared.knobs.stop_timeout);
        if let Some(heir) = self.best_heir() {
            self.core.transfer(heir);
        }
        self.stopping = Some(Stopping { reason, deadline });
    }

    /// Ends the loop when an orderly stop has done what it can.
    fn check_stop(&mut self) {
        let Some(stopping) = &self.stopping else {
            return;
        };
        let waits = self.core.role() == Role::Leader && self.best_heir().is_some();
        let busy = !self.writer.is_idle() || !self.applier.is_idle() || self.proposals.len() > 0;
        let late = self.now() >= stopping.deadline;
        if late || !(waits || busy) {
            self.end = Some(Ended {
                reason: stopping.reason.clone(),
                poisoned: false,
            });
        }
    }

    /// The node gives up.
    pub(super) fn poison(&mut self, reason: &str) {
        if self.end.is_none() {
            self.end = Some(self.shared.poisoned(reason));
        }
    }

    /// Answers everybody and closes the store.
    async fn finish(mut self, end: Ended) -> Ended {
        let error = if end.poisoned {
            Error::new(
                Code::Poisoned,
                format!("this node has given up: {}", end.reason),
            )
            .unknown()
        } else {
            Error::new(Code::ShuttingDown, "this node is stopping").unknown()
        };
        self.proposals.fail_all(&error);
        self.reads.fail_all(&error);
        if end.poisoned {
            return end;
        }
        // An idle store that is closed in order need not be rebuilt at the next start.
        if self.applier.is_idle() {
            let store = self.applier.store();
            let closing = self.read_lane.run(move || {
                super::apply::lock(&store)
                    .store()
                    .map_or(Ok(()), |store| store.close())
            });
            if let Ok(Err(error)) = closing.await {
                tracing::warn!(%error, "the store was not closed in order; it will be rebuilt");
            }
        }
        end
    }

    /// Sends `messages`, grouped by receiver, in order.
    fn send(&mut self, messages: Vec<Message>) {
        let mut by_peer: BTreeMap<u64, Vec<Message>> = BTreeMap::new();
        for message in messages {
            by_peer.entry(message.to).or_default().push(message);
        }
        for (to, messages) in by_peer {
            self.shared.transport.send(NodeId(to), GROUP, messages);
        }
    }

    /// The leader with its addresses, if known.
    pub(super) fn leader_info(&self) -> Option<Leader> {
        let id = self.core.leader();
        let member = self.members.iter().find(|one| one.id == id.0)?;
        Some(Leader {
            id,
            name: member.name.clone(),
            http: member.http.clone(),
        })
    }

    /// Per member, as this leader knows it. A member is active when something came from it lately: raft-rs forgets that at
    /// every check of the quorum.
    pub(super) fn progress(&self) -> BTreeMap<NodeId, crate::raft::core::Progress> {
        let (now, patience) = (self.now(), self.shared.config.profile.election_max() * 2);
        let mut all = self.core.progress();
        for (id, one) in &mut all {
            let heard = self
                .heard
                .get(id)
                .is_some_and(|heard| now.since(heard.at) <= patience);
            one.active = heard || *id == self.me.id;
        }
        all
    }

    /// Now, on this node's clock.
    pub(super) fn now(&self) -> Mono {
        self.shared.env.clock.now()
    }

    /// Tells the journal.
    pub(super) fn record(&self, event: Event) {
        self.shared.env.journal.record(event);
    }
}

/// Ends when the running reads are served; never without any.
async fn next_served(serving: &mut Option<crate::rt::net::BoxFuture<'static, Served>>) -> Served {
    let Some(running) = serving else {
        return std::future::pending().await;
    };
    let served = running.await;
    *serving = None;
    served
}

/// Answers with an error; nobody may be listening any more.
pub(super) fn deny<T>(reply: Reply<T>, error: Error) {
    drop(reply.send(Err(error)));
}
