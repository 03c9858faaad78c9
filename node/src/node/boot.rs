//! How a node finds out who it is: by its log, by founding a cluster with the others, or by being let in.
//!
//! A data directory has an *incarnation*, drawn when it is created. Founding binds every founder's name to an id and an
//! incarnation, and the founding map is durable on a node before it tells anybody. So a founder that comes back with an empty or
//! damaged disk shows another incarnation and can never again speak under its old id: it is let in as a learner under a
//! fresh one (inventory U-1, U-2, U-10). That is why all founders must be up once at the same time.

use super::Shared;
use super::datadir::{Dirs, Note, read_note, set_aside, sync_dir, write_note};
use super::persist::{from_wal, hard_state_from_wal};
use super::seat::{Seat, find_seat};
use crate::handle::Request;
use crate::raft::Log;
use crate::rt::{Event, Lane};
use crate::snapshot;
use crate::state::command::{Limits, Member};
use crate::state::{self, Genesis};
use crate::store::Store;
use crate::transport::{Identity, Inbound};
use crate::types::{CONTROL_GROUP, Incarnation, Index, NodeId, Term};
use crate::wal::{self, GroupLog, Record, Wal};
use prost::Message;
use raft::eraftpb::{ConfState, HardState};
use rand_core::RngCore;
use tokio::sync::mpsc;

/// Position that the founding takes in every log: so that a node that joins with an empty log is given a snapshot.
pub(crate) const FOUNDING: (Index, Term) = (Index(1), Term(1));

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
pub(super) struct Founding {
    /// Members at that moment.
    #[prost(message, repeated, tag = "1")]
    pub(super) members: Vec<Member>,
    /// True when this node was let in instead of founding.
    #[prost(bool, tag = "2")]
    pub(super) joined: bool,
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
        .map_or_else(ConfState::default, |meta| meta.conf.clone());
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
