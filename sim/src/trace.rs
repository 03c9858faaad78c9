//! What happened in a run, line by line: kept as a rolling hash always, as text when somebody wants to read it.
//!
//! The hash covers every event of every node's journal, every client operation, every fault and every note of the network,
//! with its virtual time and place. Two runs are the same exactly when their hashes and counts are.

use crate::oracle::raft::Oracle;
use crate::rare::Rare;
use crate::timeline::{Band, BandKind, Moment, State, Timeline};
use node::rt::Event;
use node::rt::journal::JournalSink;
use node::types::{NodeId, Role};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use workloads::measure::Mark;
use xxhash_rust::xxh3::Xxh3;

/// How much of a run is kept as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Faults, elections, membership, recoveries: the story.
    Story,
    /// Also connections, commits and client operations.
    Detail,
    /// Everything.
    All,
}

/// One line of a run.
#[derive(Clone, Debug)]
pub struct Line {
    /// Virtual time since the start of the simulation.
    pub at: Duration,
    /// Where: a node's name, a client's, `net` or `storm`.
    pub place: String,
    /// How important.
    pub level: Level,
    /// What.
    pub text: String,
}

/// The recorder of one run. A clone is the same recorder.
#[derive(Clone)]
pub struct Recorder {
    /// What is shared.
    inner: Arc<Mutex<Inner>>,
    /// Virtual time.
    now: fn() -> Duration,
}

/// What is recorded.
struct Inner {
    /// Rolling hash over all lines.
    hash: Xxh3,
    /// Lines so far.
    count: u64,
    /// Lines kept as text, down to this level; none when nobody reads.
    keep: Option<Level>,
    /// The text.
    lines: Vec<Line>,
    /// Rare events, for measures.
    marks: Vec<Mark>,
    /// What a picture needs; empty when nobody reads.
    timeline: Timeline,
    /// The Raft oracle.
    oracle: Oracle,
    /// Situations that no single event shows.
    rare: Rare,
    /// Things that should happen in some run, with how often they did.
    probes: BTreeMap<&'static str, u64>,
    /// What went wrong.
    failures: Vec<String>,
    /// Ids of nodes by name, once they have told.
    ids: BTreeMap<String, NodeId>,
}

impl Recorder {
    /// An empty recorder that keeps lines down to `keep`.
    pub fn new(keep: Option<Level>, now: fn() -> Duration) -> Self {
        let inner = Inner {
            hash: Xxh3::new(),
            count: 0,
            keep,
            lines: Vec::new(),
            marks: Vec::new(),
            timeline: Timeline::default(),
            oracle: Oracle::default(),
            rare: Rare::default(),
            probes: BTreeMap::new(),
            failures: Vec::new(),
            ids: BTreeMap::new(),
        };
        Recorder {
            inner: Arc::new(Mutex::new(inner)),
            now,
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Duration {
        (self.now)()
    }

    /// Records a line of text.
    pub fn line(&self, place: &str, level: Level, text: impl Into<String>) {
        let (at, text) = (self.now(), text.into());
        let mut inner = self.lock();
        inner.digest(at, place, text.as_bytes());
        inner.keep_line(at, place, level, || text);
    }

    /// A node becomes something, for the picture.
    pub fn becomes(&self, place: &str, state: State) {
        let at = self.now();
        let mut inner = self.lock();
        inner.become_at(at, place, state);
        let probe = (state == State::Down).then(|| inner.rare.falls(place));
        inner.hit(probe.flatten());
    }

    /// Something was broken from `from` until `to`, for the picture.
    pub fn band(
        &self,
        place: &str,
        kind: BandKind,
        (from, to): (Duration, Duration),
        words: impl Into<String>,
    ) {
        let mut inner = self.lock();
        if inner.keep.is_some() {
            let (from_us, to_us) = (micros(from), micros(to));
            let band = Band {
                place: place.to_owned(),
                kind,
                from_us,
                to_us,
                words: words.into(),
            };
            inner.timeline.bands.push(band);
        }
    }

    /// Something that should happen in some run has happened.
    pub fn sometimes(&self, probe: &'static str) {
        *self.lock().probes.entry(probe).or_default() += 1;
    }

    /// Something went wrong.
    pub fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        self.line("judge", Level::Story, format!("FAILED: {what}"));
        self.lock().failures.push(what);
    }

    /// Reads what was recorded.
    pub fn read<T>(&self, read: impl FnOnce(&Marks<'_>) -> T) -> T {
        let inner = self.lock();
        read(&Marks {
            marks: &inner.marks,
            timeline: inner.keep.is_some().then_some(&inner.timeline),
            oracle: &inner.oracle,
            rare: &inner.rare,
            probes: &inner.probes,
            failures: &inner.failures,
            lines: &inner.lines,
            ids: &inner.ids,
            hash: inner.hash.digest(),
            count: inner.count,
        })
    }

    /// Tells the Raft oracle with which voters the cluster was founded.
    pub fn founded(&self, voters: Vec<NodeId>) {
        self.lock()
            .oracle
            .founded(node::types::CONTROL_GROUP, voters);
    }

    /// The journal of `name`, whose id is known once its node has one.
    pub fn journal(&self, name: &str) -> NodeJournal {
        NodeJournal {
            recorder: self.clone(),
            name: name.to_owned(),
        }
    }

    /// Names an id, so that events can be judged.
    pub fn name_id(&self, name: &str, id: NodeId) {
        self.lock().ids.insert(name.to_owned(), id);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What was recorded, to be read.
pub struct Marks<'a> {
    /// Rare events.
    pub marks: &'a [Mark],
    /// What a picture needs, when the story is kept.
    pub timeline: Option<&'a Timeline>,
    /// The Raft oracle.
    pub oracle: &'a Oracle,
    /// Situations that no single event shows.
    pub rare: &'a Rare,
    /// Probes that were hit.
    pub probes: &'a BTreeMap<&'static str, u64>,
    /// What went wrong.
    pub failures: &'a [String],
    /// Lines kept.
    pub lines: &'a [Line],
    /// Ids by name.
    pub ids: &'a BTreeMap<String, NodeId>,
    /// Hash over everything.
    pub hash: u64,
    /// Lines hashed.
    pub count: u64,
}

impl Inner {
    /// Adds to the hash.
    fn digest(&mut self, at: Duration, place: &str, what: &[u8]) {
        self.count += 1;
        self.hash.update(&at.as_nanos().to_le_bytes());
        self.hash.update(place.as_bytes());
        self.hash.update(what);
    }

    /// Counts a probe that was hit.
    fn hit(&mut self, probe: Option<&'static str>) {
        if let Some(probe) = probe {
            *self.probes.entry(probe).or_default() += 1;
        }
    }

    /// A node becomes something.
    fn become_at(&mut self, at: Duration, place: &str, state: State) {
        if self.keep.is_some() {
            let moment = Moment {
                at_us: micros(at),
                place: place.to_owned(),
                state,
            };
            self.timeline.moments.push(moment);
        }
    }

    /// Keeps a line, if its level is wanted.
    fn keep_line(
        &mut self,
        at: Duration,
        place: &str,
        level: Level,
        text: impl FnOnce() -> String,
    ) {
        if self.keep.is_some_and(|keep| level <= keep) {
            self.lines.push(Line {
                at,
                place: place.to_owned(),
                level,
                text: text(),
            });
        }
    }
}

/// One node's journal.
pub struct NodeJournal {
    /// Where it goes.
    recorder: Recorder,
    /// The node's name.
    name: String,
}

impl JournalSink for NodeJournal {
    fn record(&self, event: &Event) {
        let at = self.recorder.now();
        let mut inner = self.recorder.lock();
        let bytes = compact(event);
        inner.digest(at, &self.name, &bytes);
        let level = level_of(event);
        inner.keep_line(at, &self.name, level, || tell(event));
        inner.hit(probe_of(event));
        let situation = inner.rare.see(&self.name, event);
        inner.hit(situation);
        if let Event::Started { id, .. } = event {
            inner.ids.insert(self.name.clone(), *id);
        }
        // A node that is not founded yet has no id; nothing it does then matters to Raft.
        if let Some(id) = inner.ids.get(&self.name).copied() {
            inner.oracle.see(id, event);
        }
        if let Event::RoleChanged { role, .. } = event {
            inner.become_at(at, &self.name, state_of(*role));
        }
        if level == Level::Story {
            inner.marks.push(Mark {
                at,
                place: self.name.clone(),
                event: event.clone(),
            });
        }
    }
}

/// What a picture shows a node as that has `role`.
fn state_of(role: Role) -> State {
    match role {
        Role::Leader => State::Leader,
        Role::Follower => State::Follower,
        Role::Candidate => State::Candidate,
        Role::Learner => State::Learner,
    }
}

/// Virtual time in microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The bytes of an event: cheap for the frequent ones, its text for the rare.
fn compact(event: &Event) -> Vec<u8> {
    let pack = |kind: u8, numbers: &[u64]| {
        let mut bytes = vec![kind];
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    };
    match event {
        Event::Applied {
            index,
            term,
            entry_hash,
            state_hash,
            revision,
            ..
        } => pack(1, &[index.0, term.0, *entry_hash, *state_hash, revision.0]),
        Event::Proposed { index, .. } => pack(2, &[index.0]),
        Event::Persisted { index, term, .. } => pack(3, &[index.0, term.0]),
        Event::Committed { index, .. } => pack(4, &[index.0]),
        other => format!("{other:?}").into_bytes(),
    }
}

/// How important an event is to a reader.
fn level_of(event: &Event) -> Level {
    match event {
        Event::Applied { .. } | Event::Proposed { .. } | Event::Persisted { .. } => Level::All,
        Event::Committed { .. } | Event::Peer { .. } | Event::Refused { .. } => Level::Detail,
        Event::Trimmed { .. } => Level::Detail,
        _ => Level::Story,
    }
}

/// The probe that an event hits.
fn probe_of(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Recovered { detail } if detail.starts_with("torn") => "a torn log end was cut",
        Event::Recovered { detail } if detail.contains("damaged") => "a damaged log was set aside",
        Event::Truncated { .. } => "entries of an old leader were replaced",
        Event::SnapshotCut { .. } => "a snapshot was cut",
        Event::SnapshotInstalled { .. } => "a snapshot was installed from a peer",
        Event::Trimmed { .. } => "the log was trimmed",
        Event::ReadOnly { on: true, .. } => "a node became read-only",
        Event::ReadOnly { on: false, .. } => "a node took writes again",
        Event::Poisoned { .. } => "a node gave up on its disk",
        Event::MembershipChanged { .. } => "the membership changed",
        Event::Refused { .. } => "a connection or request was refused",
        Event::Stopping { .. } => "a node stopped in order",
        Event::Doubted { heard, .. } if *heard > 0 => {
            "other managers had heard workers that the leader missed"
        }
        Event::Doubted { .. } => "a leader missed many workers, and so did the other managers",
        _ => return None,
    })
}

/// An event as a sentence.
pub fn tell(event: &Event) -> String {
    match event {
        Event::Started {
            applied,
            last,
            term,
            ..
        } => {
            format!("starts: term {term}, log to entry {last}, state at entry {applied}")
        }
        Event::Recovered { detail } => format!("reads its log: {detail}"),
        Event::RoleChanged {
            role, term, leader, ..
        } if leader.0 == 0 => {
            format!("is {role} in term {term}, knows no leader")
        }
        Event::RoleChanged {
            role: node::types::Role::Leader,
            term,
            ..
        } => {
            format!("LEADS term {term}")
        }
        Event::RoleChanged {
            role, term, leader, ..
        } => {
            format!("is {role} in term {term} under node {leader}")
        }
        Event::Voted {
            term, candidate, ..
        } => format!("votes for node {candidate} in term {term}"),
        Event::Proposed { index, .. } => format!("proposes entry {index}"),
        Event::Persisted { index, .. } => format!("has entry {index} on disk"),
        Event::Truncated { from, .. } => format!("replaces its log from entry {from} on"),
        Event::Committed { index, .. } => format!("knows entry {index} committed"),
        Event::Applied {
            index,
            revision,
            state_hash,
            ..
        } => {
            format!("applies entry {index} (revision {revision}, state {state_hash:016x})")
        }
        Event::MembershipChanged {
            voters, learners, ..
        } => {
            let list = |ids: &[NodeId]| {
                let ids: Vec<String> = ids.iter().map(NodeId::to_string).collect();
                if ids.is_empty() {
                    "none".to_owned()
                } else {
                    ids.join(", ")
                }
            };
            format!(
                "members are now voters {}; learners {}",
                list(voters),
                list(learners)
            )
        }
        Event::SnapshotCut { index, bytes, .. } => {
            format!("cuts a snapshot at entry {index} ({bytes} bytes)")
        }
        Event::SnapshotInstalled { index, .. } => format!("installs a snapshot of entry {index}"),
        Event::Trimmed { first, .. } => format!("keeps its log from entry {first} on"),
        Event::StoreRebuilt { reason } => format!("rebuilds its store: {reason}"),
        Event::ReadOnly {
            on: true,
            free_bytes,
        } => {
            format!("takes no more writes: {free_bytes} bytes free")
        }
        Event::ReadOnly { free_bytes, .. } => {
            format!("takes writes again: {free_bytes} bytes free")
        }
        Event::HandsOver { to, reason, .. } => {
            format!("asks node {to} to lead: {reason}")
        }
        Event::Doubted { silent, heard } => {
            format!("misses {silent} workers and asks the others, who heard {heard} of them")
        }
        Event::Peer { peer, up: true, .. } => format!("is connected to node {peer}"),
        Event::Peer { peer, detail, .. } => format!("lost node {peer}: {detail}"),
        Event::Refused { detail } => format!("refuses: {detail}"),
        Event::Poisoned { reason } => format!("GIVES UP: {reason}"),
        Event::Stopping { reason } => format!("stops in order: {reason}"),
    }
}
