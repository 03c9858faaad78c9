//! How a node finds out who it is: by its log, by founding a cluster with the others, or by being let in.
//!
//! A data directory has an *incarnation*, drawn when it is created. Founding binds every founder's name to an id and an
//! incarnation, and the founding map is durable on a node before it tells anybody. So a founder that comes back with an empty or
//! damaged disk shows another incarnation and can never again speak under its old id: it is let in as a learner under a
//! fresh one (inventory U-1, U-2, U-10). That is why all founders must be up once at the same time.

use super::Shared;
use super::apply::from_state_conf;
use super::persist::{from_wal, hard_state_from_wal};
use crate::config::Founder;
use crate::error::{Code, Error};
use crate::handle::{Condition, Request};
use crate::raft::Log;
use crate::rt::{Event, Lane};
use crate::snapshot;
use crate::state::command::{Limits, Member};
use crate::state::{self, Genesis};
use crate::store::Store;
use crate::transport::{Identity, Inbound};
use crate::types::{CONTROL_GROUP, ClusterId, Incarnation, Index, NodeId, Term};
use crate::wal::{self, GroupLog, Record, Wal};
use crate::wire::{Join, Probe, ProbeAnswer};
use prost::Message;
use raft::eraftpb::{ConfState, HardState};
use rand_core::RngCore;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Position that the founding takes in every log: so that a node that joins with an empty log is given a snapshot.
pub(crate) const FOUNDING: (Index, Term) = (Index(1), Term(1));

/// Pause between two rounds of asking the other founders.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// Why a boot ended without a node.
pub(crate) enum Halt {
    /// It was told to stop.
    Stopped(String),
    /// It cannot go on.
    Failed(String),
}

/// Everything a node needs to take part.
pub(crate) struct Booted {
    /// Who it is.
    pub(crate) identity: Identity,
    /// Its log on disk.
    pub(crate) wal: Wal,
    /// Its log as Raft reads it.
    pub(crate) log: Log,
    /// Its state.
    pub(crate) store: Store,
    /// Entries applied to it.
    pub(crate) applied: Index,
    /// The founders, for those who ask.
    pub(crate) founders: Vec<Member>,
    /// Members as known.
    pub(crate) members: Vec<Member>,
    /// The id that the next new member gets; zero while the state is not there.
    pub(crate) next_id: u64,
    /// Term at the start.
    pub(crate) term: Term,
    /// Lane of the log.
    pub(crate) wal_lane: Lane,
    /// Lane of the store.
    pub(crate) store_lane: Lane,
}

/// What the founding or joining is remembered by, inside the log's genesis record.
#[derive(Clone, PartialEq, Message)]
struct Founding {
    /// Members at that moment.
    #[prost(message, repeated, tag = "1")]
    members: Vec<Member>,
    /// True when this node was let in instead of founding.
    #[prost(bool, tag = "2")]
    joined: bool,
}

/// The data directory's parts.
#[derive(Clone)]
pub(crate) struct Dirs {
    /// The log.
    pub(crate) wal: PathBuf,
    /// Snapshot files.
    pub(crate) snapshots: PathBuf,
    /// The store.
    pub(crate) store: PathBuf,
    /// Name and incarnation.
    identity: PathBuf,
    /// The whole.
    root: PathBuf,
}

impl Dirs {
    /// Parts of `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Dirs {
            wal: root.join("wal"),
            snapshots: root.join("snapshots"),
            store: root.join("store"),
            identity: root.join("identity.json"),
            root: root.to_owned(),
        }
    }
}

/// A data directory, opened.
enum Opened {
    /// It belongs to a member.
    Known(Box<Known>),
    /// It belongs to nobody yet.
    Fresh {
        /// Its life.
        incarnation: Incarnation,
        /// Why a directory that had data is fresh now.
        lost: Option<String>,
    },
}

/// A member's data.
struct Known {
    /// The log.
    wal: Wal,
    /// What the log says.
    recovered: wal::Recovered,
    /// Who it belongs to.
    genesis: wal::Genesis,
}

/// A data directory that is this process's alone for as long as this lives.
pub(crate) struct Claim {
    /// The locked file; the operating system unlocks it when the process ends, however it ends.
    #[expect(
        clippy::disallowed_types,
        reason = "a lock that vanishes with the process"
    )]
    _locked: std::fs::File,
}

/// Makes the data directory and claims it. Two processes on one log would write over each other's acknowledged entries.
pub(crate) async fn claim(shared: &Shared) -> Result<Claim, String> {
    let root = shared.config.data_dir.clone();
    let claimed = shared
        .env
        .lanes
        .open("claim")
        .run(move || claim_dir(&root))
        .await;
    claimed.map_err(|closed| closed.to_string())?
}

#[expect(
    clippy::disallowed_types,
    reason = "runs on a lane, inside the data directory"
)]
fn claim_dir(root: &Path) -> Result<Claim, String> {
    let shown = root.display();
    let io = |error: std::io::Error| format!("the data directory {shown} cannot be used: {error}");
    create_dir_durably(root).map_err(io)?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Claim { _locked: file }),
        Err(std::fs::TryLockError::WouldBlock) => Err(format!(
            "the data directory {shown} is in use by another process: stop that one first"
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Boots: gives a node ready to take part.
pub(crate) async fn boot(
    shared: &Shared,
    requests: &mut mpsc::Receiver<Request>,
    inbox: &mut mpsc::Receiver<Inbound>,
) -> Result<Booted, Halt> {
    let wal_lane = shared.env.lanes.open("wal");
    let store_lane = shared.env.lanes.open("store");
    let dirs = Dirs::new(&shared.config.data_dir);
    let fresh_life = Incarnation(shared.env.rngs.stream("incarnation").next_u64() | 1);
    // Segments are rows of sectors; a drawn size need not be.
    let options = wal::Options::new((shared.knobs.segment_bytes / 512 * 512).max(8 << 10));
    let closed = |closed: crate::rt::lane::Closed| Halt::Failed(closed.to_string());
    let mut opened = {
        let (dirs, name) = (dirs.clone(), shared.config.name.clone());
        let alone = is_alone(&shared.config);
        wal_lane
            .run(move || open(&dirs, &name, options, fresh_life, alone))
            .await
    }
    .map_err(closed)?
    .map_err(Halt::Failed)?;
    loop {
        let known = match opened {
            Opened::Known(known) => known,
            Opened::Fresh { incarnation, lost } => {
                let seat = find_seat(shared, incarnation, lost, requests, inbox).await?;
                let (dirs, name) = (dirs.clone(), shared.config.name.clone());
                let settled = wal_lane
                    .run(move || settle(&dirs, &name, options, incarnation, &seat))
                    .await;
                Box::new(settled.map_err(closed)?.map_err(Halt::Failed)?)
            }
        };
        let build = {
            let (dirs, knobs) = (dirs.clone(), shared.knobs.clone());
            let journal = shared.env.journal.clone();
            store_lane
                .run(move || rebuild(&dirs, &knobs, *known, &journal))
                .await
        };
        match build.map_err(closed)? {
            Ok(rebuilt) => {
                let mut booted = rebuilt.into_booted(shared, wal_lane, store_lane);
                booted.identity.name.clone_from(&shared.config.name);
                return Ok(booted);
            }
            Err(Unbuilt::Failed(reason)) => return Err(Halt::Failed(reason)),
            Err(Unbuilt::Lost(reason)) if is_alone(&shared.config) => {
                return Err(Halt::Failed(format!("{reason}; {ALONE}")));
            }
            // The log alone is not the state: the node comes back like one whose log is damaged. A directory of a new life
            // has no state to lose, so this happens once.
            Err(Unbuilt::Lost(reason)) => {
                let (dirs, name) = (dirs.clone(), shared.config.name.clone());
                let given_up = wal_lane
                    .run(move || give_up(&dirs, &name, fresh_life))
                    .await;
                given_up.map_err(closed)?.map_err(Halt::Failed)?;
                opened = Opened::Fresh {
                    incarnation: fresh_life,
                    lost: Some(reason),
                };
            }
        }
    }
}

/// What a node is told that has lost its data and knows nobody who could give it back.
const ALONE: &str = "this node is configured alone, nobody can give it its data back: restore the data directory from a \
    backup, or, if members were added later, list them in cluster.members; to begin anew, empty the directory";

/// Whether the configuration names no other node.
fn is_alone(config: &crate::config::Config) -> bool {
    config
        .cluster
        .members
        .iter()
        .all(|one| one.name == config.name)
}

/// Why a member's state could not be put together.
enum Unbuilt {
    /// It is not there any more; others have it.
    Lost(String),
    /// Something else failed: trying again may help.
    Failed(String),
}

impl From<String> for Unbuilt {
    fn from(reason: String) -> Self {
        Unbuilt::Failed(reason)
    }
}

/// Opens the directory and finds out whether it is whole. A damaged one is set aside, never used.
fn open(
    dirs: &Dirs,
    name: &str,
    options: wal::Options,
    fresh_life: Incarnation,
    alone: bool,
) -> Result<Opened, String> {
    snapshot::prepare(&dirs.snapshots).map_err(|error| error.to_string())?;
    let note = read_note(&dirs.identity)?;
    if let Some(note) = note.as_ref().filter(|note| note.name != name) {
        return Err(format!(
            "the data directory {} belongs to a node called '{}', not '{name}': check name and data_dir",
            dirs.root.display(),
            note.name
        ));
    }
    let opened = Wal::open(&dirs.wal, options);
    sync_dir(&dirs.root).map_err(|error| format!("syncing {}: {error}", dirs.root.display()))?;
    let lost = match opened {
        Ok((wal, recovered)) => match recovered.genesis.clone() {
            Some(genesis) => {
                return Ok(Opened::Known(Box::new(Known {
                    wal,
                    recovered,
                    genesis,
                })));
            }
            None => note.as_ref().filter(|note| note.member).map(|_| {
                "the log of this member is gone: its data directory was emptied".to_owned()
            }),
        },
        Err(wal::Error::Damaged(wreck)) => Some(format!("the log is damaged: {}", wreck.damage)),
        Err(other) => return Err(other.to_string()),
    };
    if let Some(reason) = &lost {
        if alone {
            return Err(format!("{reason}; {ALONE}"));
        }
        give_up(dirs, name, fresh_life)?;
        return Ok(Opened::Fresh {
            incarnation: fresh_life,
            lost,
        });
    }
    // A directory keeps its life until it has belonged to a member.
    let kept = note
        .filter(|note| !note.member)
        .map(|note| note.incarnation);
    let incarnation = kept.unwrap_or(fresh_life);
    write_note(
        dirs,
        &Note {
            name: name.to_owned(),
            incarnation,
            member: false,
        },
    )?;
    Ok(Opened::Fresh { incarnation, lost })
}

/// Gives up a member's data: the directory begins a new life.
fn give_up(dirs: &Dirs, name: &str, life: Incarnation) -> Result<(), String> {
    set_aside(dirs, life)?;
    write_note(
        dirs,
        &Note {
            name: name.to_owned(),
            incarnation: life,
            member: false,
        },
    )
}

/// Moves what is left of a member's data out of the way, for a person to look at.
#[expect(
    clippy::disallowed_methods,
    reason = "runs on the log's lane, inside the data directory"
)]
fn set_aside(dirs: &Dirs, life: Incarnation) -> Result<(), String> {
    let words = |error: std::io::Error| format!("setting damaged data aside: {error}");
    let aside = dirs.root.join(format!("damaged-{life}"));
    std::fs::create_dir_all(&aside).map_err(words)?;
    for part in [&dirs.wal, &dirs.snapshots] {
        if part.exists() {
            let name = part.file_name().expect("the parts have names");
            std::fs::rename(part, aside.join(name)).map_err(words)?;
        }
    }
    Store::destroy(&dirs.store).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(&dirs.snapshots).map_err(words)?;
    sync_dir(&aside).map_err(words)?;
    sync_dir(&dirs.root).map_err(words)
}

/// What a data directory says of itself.
#[derive(serde::Serialize, serde::Deserialize)]
struct Note {
    /// Name of the node.
    name: String,
    /// Life of the directory.
    incarnation: Incarnation,
    /// True once it belonged to a member.
    member: bool,
}

/// Reads the note.
#[expect(
    clippy::disallowed_methods,
    reason = "runs on the log's lane, inside the data directory"
)]
fn read_note(path: &Path) -> Result<Option<Note>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("reading {}: {error}", path.display())),
    }
}

/// Writes the note, whole or not at all.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "runs on the log's lane, inside the data directory"
)]
fn write_note(dirs: &Dirs, note: &Note) -> Result<(), String> {
    let words = |error: std::io::Error| format!("writing {}: {error}", dirs.identity.display());
    let bytes = serde_json::to_vec_pretty(note).expect("a note is plain data");
    let fresh = dirs.identity.with_extension("json.new");
    std::fs::write(&fresh, bytes).map_err(words)?;
    std::fs::File::open(&fresh)
        .and_then(|file| file.sync_all())
        .map_err(words)?;
    std::fs::rename(&fresh, &dirs.identity).map_err(words)?;
    sync_dir(&dirs.root).map_err(words)
}

/// Makes a directory and its missing parents, each with its name durable: a data directory whose own name is lost with the
/// power takes everything in it along, however well that was synced.
fn create_dir_durably(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_durably(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
#[expect(
    clippy::disallowed_types,
    reason = "runs on the log's lane, inside the data directory"
)]
fn sync_dir(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

/// A place in a cluster.
struct Seat {
    /// The cluster.
    cluster: ClusterId,
    /// The id in it.
    id: NodeId,
    /// Members at that moment: the founders, or those who let this node in.
    members: Vec<Member>,
    /// True when it was let in.
    joined: bool,
}

/// Finds a place: founds with the other founders, or is let in.
async fn find_seat(
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
async fn seek(
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
fn waiting_for(silent: &[String], refusals: &[String]) -> String {
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
fn founder_of(shared: &Shared) -> Founder {
    Founder {
        name: shared.config.name.clone(),
        peer: shared.config.peer_address(),
        http: shared.config.http_address(),
    }
}

/// Asks another founder who it is.
async fn ask(
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
fn own_seat(name: &str, incarnation: Incarnation, answer: &ProbeAnswer) -> Option<Seat> {
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
async fn join(shared: &Shared, incarnation: Incarnation, address: &str) -> Result<Seat, Error> {
    let me = founder_of(shared);
    let join = Join {
        name: me.name,
        peer: me.peer,
        http: me.http,
        incarnation: incarnation.0,
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

/// The founding that every founder computes alike: ids in the order of names, and a cluster id over all of it.
fn found(
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

/// Makes the place durable: from now on the directory belongs to a member.
fn settle(
    dirs: &Dirs,
    name: &str,
    options: wal::Options,
    incarnation: Incarnation,
    seat: &Seat,
) -> Result<Known, String> {
    let words = |error: wal::Error| error.to_string();
    let (mut wal, _) = Wal::open(&dirs.wal, options).map_err(words)?;
    sync_dir(&dirs.root).map_err(|error| format!("syncing {}: {error}", dirs.root.display()))?;
    let founding = Founding {
        members: seat.members.clone(),
        joined: seat.joined,
    };
    let genesis = wal::Genesis {
        cluster_id: seat.cluster,
        node_id: seat.id,
        incarnation,
        extra: founding.encode_to_vec().into(),
    };
    let mut records = vec![Record::Genesis(genesis.clone())];
    if !seat.joined {
        let mark = wal::SnapshotMark {
            index: FOUNDING.0,
            term: FOUNDING.1,
        };
        records.push(Record::SnapshotMark {
            group: CONTROL_GROUP,
            mark,
        });
        let state = wal::HardState {
            term: FOUNDING.1,
            vote: NodeId(0),
            commit: FOUNDING.0,
        };
        records.push(Record::HardState {
            group: CONTROL_GROUP,
            state,
        });
    }
    wal.append_and_sync(&records).map_err(words)?;
    drop(wal);
    write_note(
        dirs,
        &Note {
            name: name.to_owned(),
            incarnation,
            member: true,
        },
    )?;
    let (wal, recovered) = Wal::open(&dirs.wal, options).map_err(words)?;
    Ok(Known {
        wal,
        recovered,
        genesis,
    })
}

/// A member's data, ready.
struct Rebuilt {
    /// The log on disk.
    wal: Wal,
    /// The log as Raft reads it.
    log: Log,
    /// The state.
    store: Store,
    /// Entries applied.
    applied: Index,
    /// Who.
    genesis: wal::Genesis,
    /// What it was founded or let in with.
    founding: Founding,
    /// Members as the state has them, else as of the founding.
    members: Vec<Member>,
    /// The id the next new member gets.
    next_id: u64,
    /// Term.
    term: Term,
}

/// Opens the state, or builds it anew from the newest snapshot; then lays the log over it.
fn rebuild(
    dirs: &Dirs,
    knobs: &crate::knobs::Knobs,
    known: Known,
    journal: &crate::rt::Journal,
) -> Result<Rebuilt, Unbuilt> {
    let Known {
        wal,
        mut recovered,
        genesis,
    } = known;
    journal.record(Event::Recovered {
        detail: recovered.verdict.to_string(),
    });
    let founding = Founding::decode(genesis.extra.clone()).map_err(|error| error.to_string())?;
    let group = recovered.groups.remove(&CONTROL_GROUP).unwrap_or_default();
    let mark = group.snapshot.unwrap_or_default();
    let last = group
        .entries
        .last()
        .map_or(mark.index, |entry| entry.index)
        .max(mark.index);
    let store = open_state(dirs, knobs, &genesis, &founding, &group, last, journal)?;
    let words = |error: state::Error| error.to_string();
    let position = state::applied(&store).map_err(words)?.unwrap_or_default();
    let meta = state::meta(&store).map_err(words)?;
    let members = match &meta {
        Some(_) => state::members(&store).map_err(words)?,
        None => founding.members.clone(),
    };
    let conf = meta
        .as_ref()
        .map_or_else(ConfState::default, |meta| from_state_conf(&meta.conf));
    let mut hard_state = group
        .hard_state
        .map_or_else(HardState::default, hard_state_from_wal);
    hard_state.commit = hard_state
        .commit
        .max(position.index)
        .max(mark.index.0)
        .min(last.0);
    let term = Term(hard_state.term);
    let entries = group
        .entries
        .into_iter()
        .filter(|entry| entry.index > mark.index)
        .map(from_wal);
    let log = Log::new((mark.index, mark.term), entries, hard_state, conf);
    let next_id = meta.map_or(0, |meta| meta.next_node_id);
    let applied = Index(position.index);
    Ok(Rebuilt {
        wal,
        log,
        store,
        applied,
        genesis,
        founding,
        members,
        next_id,
        term,
    })
}

/// The store as it was left by an orderly stop, or a new one with the newest snapshot that fits the log.
fn open_state(
    dirs: &Dirs,
    knobs: &crate::knobs::Knobs,
    genesis: &wal::Genesis,
    founding: &Founding,
    group: &GroupLog,
    last: Index,
    journal: &crate::rt::Journal,
) -> Result<Store, Unbuilt> {
    let mark = group.snapshot.unwrap_or_default();
    let reason = match Store::open(&dirs.store, knobs) {
        Ok(store) => match check_state(&store, genesis, mark.index, last) {
            Ok(()) => return Ok(store),
            Err(reason) => reason,
        },
        Err(error) => error.to_string(),
    };
    // A node that begins has no state to lose.
    if last > FOUNDING.0 {
        journal.record(Event::StoreRebuilt { reason });
    }
    let mut store = Store::create(&dirs.store, knobs).map_err(|error| error.to_string())?;
    if mark.index == Index(0) {
        return Ok(store);
    }
    let usable = snapshot::list(&dirs.snapshots).map_err(|error| error.to_string())?;
    let fits = |index: Index| index >= mark.index && index <= last;
    for file in usable
        .iter()
        .filter(|file| file.meta.as_ref().is_ok_and(|meta| fits(meta.index)))
    {
        match snapshot::load(&file.path, &store) {
            Ok(_) => return Ok(store),
            Err(error) => {
                let reason = format!("snapshot {}: {error}", file.path.display());
                journal.record(Event::StoreRebuilt { reason });
                drop(store);
                store = Store::create(&dirs.store, knobs).map_err(|error| error.to_string())?;
            }
        }
    }
    if (mark.index, mark.term) == FOUNDING && !founding.joined {
        let first = Genesis {
            cluster_id: genesis.cluster_id,
            members: founding.members.clone(),
            limits: shared_limits(),
            position: FOUNDING,
        };
        store
            .write(&state::genesis(&first))
            .map_err(|error| error.to_string())?;
        return Ok(store);
    }
    Err(Unbuilt::Lost(format!(
        "no readable snapshot reaches entry {}, where the log begins",
        mark.index
    )))
}

/// Bounds that every founder writes alike. Operators change them through the log.
fn shared_limits() -> Limits {
    let knobs = crate::knobs::Knobs::default();
    Limits {
        sessions_max: knobs.sessions_max,
        history_revisions: knobs.history_revisions,
    }
}

/// Whether an opened store belongs to this log.
fn check_state(
    store: &Store,
    genesis: &wal::Genesis,
    mark: Index,
    last: Index,
) -> Result<(), String> {
    let words = |error: state::Error| error.to_string();
    let Some(meta) = state::meta(store).map_err(words)? else {
        return if mark == Index(0) {
            Ok(())
        } else {
            Err("the store is empty".to_owned())
        };
    };
    if meta.cluster_id != genesis.cluster_id.0 {
        return Err("the store belongs to another cluster".to_owned());
    }
    let applied = state::applied(store).map_err(words)?.unwrap_or_default();
    if applied.index < mark.0 || applied.index > last.0 {
        return Err(format!(
            "the store stands at entry {}, the log holds {mark} to {last}",
            applied.index
        ));
    }
    Ok(())
}

impl Rebuilt {
    /// Tells the doors who this node is.
    fn into_booted(self, shared: &Shared, wal_lane: Lane, store_lane: Lane) -> Booted {
        let identity = Identity {
            cluster_id: self.genesis.cluster_id,
            id: self.genesis.node_id,
            incarnation: self.genesis.incarnation,
            name: shared.config.name.clone(),
        };
        shared.door.set_me(identity.clone());
        Booted {
            identity,
            wal: self.wal,
            log: self.log,
            store: self.store,
            applied: self.applied,
            founders: if self.founding.joined {
                Vec::new()
            } else {
                self.founding.members
            },
            members: self.members,
            next_id: self.next_id,
            term: self.term,
            wal_lane,
            store_lane,
        }
    }
}

/// A request that comes before the node takes part.
fn refuse_early(request: Option<Request>) -> Result<(), Halt> {
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
        Some(Request::Snapshot { reply }) => drop(reply.send(Err(error()))),
    }
    Ok(())
}

/// A question that comes before the node takes part.
fn answer_early(shared: &Shared, incarnation: Incarnation, inbound: Option<Inbound>) {
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
