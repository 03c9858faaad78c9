//! The applier: hands committed entries to the state machine in order, on its own lane, in batches.
//!
//! One batch is applied while the next gathers. Entries, snapshots to install and snapshots to cut share one queue, so that each
//! sees exactly the entries before it.

use crate::fleet::Fleet;
use crate::knobs::Knobs;
use crate::rt::net::BoxFuture;
use crate::rt::{Clock, Lane};
use crate::snapshot;
use crate::state::command::{Command, Done, Member, Op, Outcome};
use crate::state::{self, Batch, ConfEntry};
use crate::store::{Store, StoreView};
use crate::types::{Index, LeaseId, NodeId, Revision, Term};
use bytes::Bytes;
use prost::Message;
use raft::eraftpb::{ConfState, Entry};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A change of configuration, with what the configuration is after it and what is known of the members it brings or drops.
pub(crate) struct Change {
    /// The entry.
    pub(crate) entry: Entry,
    /// Configuration after it.
    pub(crate) conf: ConfState,
    /// The member it adds or updates.
    pub(crate) member: Option<Member>,
    /// The member it removes.
    pub(crate) removed: Option<NodeId>,
}

/// Something to apply.
pub(crate) enum Item {
    /// An ordinary entry.
    Entry(Entry),
    /// A change of configuration.
    Change(Box<Change>),
    /// A snapshot file that replaces everything.
    Install(PathBuf),
    /// A picture of the state is wanted for a snapshot.
    Cut,
    /// The leases are wanted: this node begins to lead.
    Leases,
    /// Position, revision and members are wanted: the node begins.
    Refresh,
}

/// One entry that was applied.
pub(crate) struct AppliedEntry {
    /// Position.
    pub(crate) index: Index,
    /// Its term.
    pub(crate) term: Term,
    /// Its context, by which its proposer knows it.
    pub(crate) context: Bytes,
    /// What it did; none for empty entries and changes of configuration.
    pub(crate) outcome: Option<Outcome>,
    /// Digest of its payload.
    pub(crate) entry_hash: u64,
    /// Digest of the state after it.
    pub(crate) state_hash: u64,
    /// Revision after it.
    pub(crate) revision: Revision,
    /// Configuration after it, if it changed that.
    pub(crate) conf: Option<ConfState>,
}

/// What became of a lease.
pub(crate) struct LeaseChange {
    /// The lease.
    pub(crate) id: LeaseId,
    /// Time to live and renewals; none when it ended.
    pub(crate) alive: Option<(Duration, u64)>,
}

/// A picture of the state for a snapshot.
pub(crate) struct Picture {
    /// The frozen state.
    pub(crate) view: StoreView,
}

/// A batch that was applied.
#[derive(Default)]
pub(crate) struct Applied {
    /// Entries, in order.
    pub(crate) entries: Vec<AppliedEntry>,
    /// Leases that changed.
    pub(crate) leases: Vec<LeaseChange>,
    /// All leases, when they were asked for.
    pub(crate) all_leases: bool,
    /// The fleet, when it changed.
    pub(crate) fleet: Option<Arc<Fleet>>,
    /// The members, when they changed.
    pub(crate) members: Option<Vec<Member>>,
    /// A snapshot that was installed: position and state hash.
    pub(crate) installed: Option<(Index, Term, u64)>,
    /// A picture that was asked for.
    pub(crate) picture: Option<Picture>,
    /// Position of the state now.
    pub(crate) applied: (Index, Term),
    /// Revision now.
    pub(crate) revision: Revision,
    /// History below this is gone.
    pub(crate) compacted: Revision,
    /// Keys now.
    pub(crate) keys: u64,
    /// Digest of the state now.
    pub(crate) state_hash: u64,
    /// The id that the next new member gets.
    pub(crate) next_id: u64,
    /// Time it took.
    pub(crate) took: Duration,
}

/// The place of the store, which an installed snapshot replaces.
pub(crate) struct Slot {
    /// The store; missing only when its replacement failed, which ends the node.
    store: Option<Store>,
    /// Where it lies.
    dir: PathBuf,
    /// Its sizes.
    knobs: Knobs,
    /// The fleet as the store has it; none until it was read.
    fleet: Option<Arc<Fleet>>,
}

impl Slot {
    /// The store; none between a replacement that failed and the end of the node, which follows at once.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The store, for the applier, which never runs without one.
    fn own(&self) -> Result<&Store, String> {
        self.store
            .as_ref()
            .ok_or_else(|| "the store could not be replaced".to_owned())
    }

    /// The fleet, read from the store if it is not known yet.
    fn fleet(&mut self) -> Result<Arc<Fleet>, String> {
        if let Some(fleet) = &self.fleet {
            return Ok(Arc::clone(fleet));
        }
        let fleet = Fleet::load(self.own()?).map_err(|error| error.to_string())?;
        Ok(Arc::clone(self.fleet.insert(Arc::new(fleet))))
    }
}

/// The applier of one node.
pub(crate) struct Applier {
    /// The store; locked by one job on the lane at a time.
    store: Arc<Mutex<Slot>>,
    /// Where it is written.
    lane: Lane,
    /// For durations.
    clock: Clock,
    /// Waiting.
    queue: VecDeque<Item>,
    /// Most items of one batch.
    batch_max: usize,
    /// The batch being applied.
    running: Option<BoxFuture<'static, Result<Applied, String>>>,
}

impl Applier {
    /// An applier into `store` on `lane`.
    pub(crate) fn new(store: Store, dir: PathBuf, lane: Lane, clock: Clock, knobs: &Knobs) -> Self {
        let slot = Slot {
            store: Some(store),
            dir,
            knobs: knobs.clone(),
            fleet: None,
        };
        Applier {
            store: Arc::new(Mutex::new(slot)),
            lane,
            clock,
            queue: VecDeque::new(),
            batch_max: knobs.turn_len_max.max(1) * 4,
            running: None,
        }
    }

    /// Queues an item.
    pub(crate) fn push(&mut self, item: Item) {
        self.queue.push_back(item);
    }

    /// Items waiting.
    pub(crate) fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// True when nothing is waiting or being applied.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_none()
    }

    /// Starts the next batch if none is running.
    pub(crate) fn start(&mut self) {
        if self.running.is_some() || self.queue.is_empty() {
            return;
        }
        let items: Vec<Item> = self.take_batch();
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        let job = self.lane.run(move || {
            let start = clock.now();
            let applied = apply_batch(&mut lock(&store), items);
            applied.map(|applied| Applied {
                took: clock.now().since(start),
                ..applied
            })
        });
        self.running = Some(Box::pin(async move {
            match job.await {
                Ok(result) => result,
                Err(closed) => Err(closed.to_string()),
            }
        }));
    }

    /// Ends when the running batch is applied; never without one.
    pub(crate) async fn ended(&mut self) -> Result<Applied, String> {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let result = running.await;
        self.running = None;
        result
    }

    /// The store, to be read or closed on a lane.
    pub(crate) fn store(&self) -> Arc<Mutex<Slot>> {
        Arc::clone(&self.store)
    }

    /// The next items: entries together; anything else by itself.
    fn take_batch(&mut self) -> Vec<Item> {
        let entries = self
            .queue
            .iter()
            .take(self.batch_max)
            .take_while(|item| matches!(item, Item::Entry(_) | Item::Change(_)))
            .count();
        self.queue.drain(..entries.max(1)).collect()
    }
}

/// The store. A job that panicked would have ended the process, so the lock is never poisoned.
pub(crate) fn lock(store: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    store
        .lock()
        .expect("no job panics while it holds the store")
}

/// Applies `items`: entries as one atomic batch, or one other thing.
fn apply_batch(slot: &mut Slot, items: Vec<Item>) -> Result<Applied, String> {
    let mut applied = Applied::default();
    let mut changed = false;
    let mut entries = Vec::new();
    for item in items {
        match item {
            Item::Entry(entry) => entries.push((entry, None)),
            Item::Change(change) => {
                let Change {
                    entry,
                    conf,
                    member,
                    removed,
                } = *change;
                changed = true;
                entries.push((entry, Some((conf, member, removed))));
            }
            Item::Install(path) => {
                install(&path, slot)?;
                changed = true;
                let position = position(slot.own()?)?;
                applied.installed = Some(position);
                applied.fleet = Some(slot.fleet()?);
            }
            Item::Cut => {
                let view = slot.own()?.view();
                applied.picture = Some(Picture { view });
            }
            Item::Refresh => {
                changed = true;
                applied.fleet = Some(slot.fleet()?);
            }
            Item::Leases => {
                applied.all_leases = true;
                applied.leases = all_leases(slot.own()?)?;
            }
        }
    }
    if !entries.is_empty() {
        apply_entries(slot, entries, &mut applied)?;
    }
    finish(
        slot.own()?,
        changed || applied.members.is_some(),
        &mut applied,
    )?;
    Ok(applied)
}

/// Puts the snapshot file in the place of everything.
fn install(path: &std::path::Path, slot: &mut Slot) -> Result<(), String> {
    let words = |error: crate::store::Error| error.to_string();
    // The old store lets go of its files before a new one is made in its place.
    slot.store = None;
    slot.fleet = None;
    let store = Store::create(&slot.dir, &slot.knobs).map_err(words)?;
    snapshot::load(path, &store).map_err(|error| error.to_string())?;
    slot.store = Some(store);
    Ok(())
}

/// An entry with what the core says of it when it changes the configuration.
type Prepared = (Entry, Option<(ConfState, Option<Member>, Option<NodeId>)>);

/// Applies entries as one atomic batch.
fn apply_entries(
    slot: &mut Slot,
    entries: Vec<Prepared>,
    applied: &mut Applied,
) -> Result<(), String> {
    let words = |error: state::Error| error.to_string();
    let fleet = slot.fleet()?;
    let store = slot.own()?;
    let mut batch = Batch::new(store).map_err(words)?.with_fleet(fleet);
    let mut touched = Vec::new();
    let mut members_changed = false;
    for (entry, change) in entries {
        let entry_hash = xxhash_rust::xxh3::xxh3_64(&entry.data);
        let (index, term) = (Index(entry.index), Term(entry.term));
        let mut conf_after = None;
        let outcome = match change {
            Some((conf, member, removed)) => {
                let conf_entry = ConfEntry {
                    index,
                    term,
                    conf: conf.clone(),
                    add: member,
                    remove: removed,
                };
                batch.apply_conf(&conf_entry).map_err(words)?;
                conf_after = Some(conf);
                None
            }
            None => {
                let payload = entry.data.clone();
                let outcome = batch
                    .apply(&state::Entry {
                        index,
                        term,
                        payload,
                    })
                    .map_err(words)?;
                note_effects(&entry.data, &outcome, &mut touched, &mut members_changed);
                Some(outcome)
            }
        };
        applied.entries.push(AppliedEntry {
            index,
            term,
            context: entry.context,
            outcome,
            entry_hash,
            state_hash: batch.state_hash(),
            revision: batch.revision(),
            conf: conf_after,
        });
    }
    let fleet = batch.changed_fleet();
    let writes = batch.finish();
    store.write(&writes).map_err(|error| error.to_string())?;
    for id in touched {
        let lease = state::lease(store, id).map_err(words)?;
        let alive = lease.map(|one| (Duration::from_millis(one.ttl_ms), one.renewals));
        applied.leases.push(LeaseChange { id, alive });
    }
    if members_changed {
        applied.members = Some(Vec::new());
    }
    if fleet.is_some() {
        slot.fleet.clone_from(&fleet);
        applied.fleet = fleet;
    }
    Ok(())
}

/// Notes which leases a command touched, and whether it touched the members.
fn note_effects(data: &Bytes, outcome: &Outcome, leases: &mut Vec<LeaseId>, members: &mut bool) {
    // Only these few kinds matter; the common ones are told apart by their outcome without decoding.
    match &outcome.done {
        Some(Done::Lease(lease)) => leases.push(LeaseId(lease.id)),
        Some(Done::Nothing(_)) => match Command::decode(data.clone()).ok().and_then(|one| one.op) {
            Some(Op::LeaseRevoke(one)) => leases.push(LeaseId(one.id)),
            Some(Op::LeaseExpire(many)) => {
                leases.extend(many.leases.iter().map(|one| LeaseId(one.id)));
            }
            Some(Op::MemberUpdate(_)) => *members = true,
            _ => {}
        },
        _ => {}
    }
}

/// Fills in the state's position, and the members if they may have changed.
fn finish(store: &Store, members: bool, applied: &mut Applied) -> Result<(), String> {
    let words = |error: state::Error| error.to_string();
    let meta = state::meta(store).map_err(words)?;
    if let Some(meta) = meta {
        applied.revision = Revision(meta.revision);
        applied.compacted = Revision(meta.compacted);
        applied.keys = meta.keys;
        applied.next_id = meta.next_node_id;
    }
    if let Some(position) = state::applied(store).map_err(words)? {
        applied.applied = (Index(position.index), Term(position.term));
        applied.state_hash = position.state_hash;
    }
    if members {
        applied.members = Some(state::members(store).map_err(words)?);
    }
    Ok(())
}

/// Where the state stands.
fn position(store: &Store) -> Result<(Index, Term, u64), String> {
    let position = state::applied(store).map_err(|error| error.to_string())?;
    let position = position.ok_or("the snapshot holds no state")?;
    Ok((
        Index(position.index),
        Term(position.term),
        position.state_hash,
    ))
}

/// Every lease.
fn all_leases(store: &Store) -> Result<Vec<LeaseChange>, String> {
    let all = state::leases(store).map_err(|error| error.to_string())?;
    Ok(all
        .into_iter()
        .map(|(id, one)| LeaseChange {
            id,
            alive: Some((Duration::from_millis(one.ttl_ms), one.renewals)),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet;
    use crate::state::command::{FleetCommand, Limits};
    use crate::state::{Genesis, genesis};
    use crate::types::{ClusterId, GroupId};

    fn slot(dir: &std::path::Path) -> Slot {
        let knobs = Knobs::default();
        Slot {
            store: Some(Store::create(dir, &knobs).unwrap()),
            dir: dir.to_owned(),
            knobs,
            fleet: None,
        }
    }

    fn founded(dir: &std::path::Path) -> Slot {
        let slot = slot(dir);
        let genesis = genesis(&Genesis {
            cluster_id: ClusterId(7),
            members: Vec::new(),
            limits: Limits {
                sessions_max: 10,
                history_revisions: 100,
            },
            position: (Index(0), Term(0)),
        });
        slot.own().unwrap().write(&genesis).unwrap();
        slot
    }

    fn volume(index: u64, name: &str) -> Item {
        let command = fleet::Command::VolumeCreate {
            name: name.to_owned(),
            worker: None,
        };
        let json = serde_json::to_vec(&command).unwrap();
        let command = Command {
            op: Some(Op::Fleet(FleetCommand { json: json.into() })),
            ..Command::default()
        };
        Item::Entry(Entry {
            index,
            term: 1,
            data: command.encode_to_vec().into(),
            ..Entry::default()
        })
    }

    fn names(applied: &Applied) -> Option<Vec<&str>> {
        let fleet = applied.fleet.as_ref()?;
        Some(fleet.snapshot.volumes.keys().map(String::as_str).collect())
    }

    #[test]
    fn a_batch_tells_of_the_fleet_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut slot = founded(&dir.path().join("store"));
        let applied = apply_batch(&mut slot, vec![volume(1, "a"), volume(2, "b")]).unwrap();
        assert_eq!(names(&applied), Some(vec!["a", "b"]));
        // A name that is taken changes nothing.
        let applied = apply_batch(&mut slot, vec![volume(3, "a")]).unwrap();
        assert_eq!(names(&applied), None);
        let applied = apply_batch(&mut slot, vec![volume(4, "c")]).unwrap();
        assert_eq!(names(&applied), Some(vec!["a", "b", "c"]));
        let loaded = Fleet::load(slot.own().unwrap()).unwrap();
        assert_eq!(Some(&Arc::new(loaded)), applied.fleet.as_ref());
    }

    #[test]
    fn who_begins_reads_the_fleet_from_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let mut slot = founded(&dir.path().join("store"));
        let applied = apply_batch(&mut slot, vec![Item::Refresh]).unwrap();
        assert_eq!(names(&applied), Some(vec![]));
        apply_batch(&mut slot, vec![volume(1, "a")]).unwrap();
        slot.fleet = None;
        let applied = apply_batch(&mut slot, vec![Item::Refresh]).unwrap();
        assert_eq!(names(&applied), Some(vec!["a"]));
    }

    #[test]
    fn a_snapshot_brings_its_fleet_and_takes_the_old_one_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut from = founded(&dir.path().join("from"));
        apply_batch(&mut from, vec![volume(1, "a"), volume(2, "b")]).unwrap();
        let view = from.own().unwrap().view();
        let info = snapshot::write(dir.path(), GroupId(0), 0, &view).unwrap();
        let name = snapshot::file_name(info.index.0, info.term.0);
        let mut to = founded(&dir.path().join("to"));
        apply_batch(&mut to, vec![volume(1, "other")]).unwrap();
        let item = Item::Install(dir.path().join(name));
        let applied = apply_batch(&mut to, vec![item]).unwrap();
        assert_eq!(names(&applied), Some(vec!["a", "b"]));
        let applied = apply_batch(&mut to, vec![volume(3, "c")]).unwrap();
        assert_eq!(names(&applied), Some(vec!["a", "b", "c"]));
    }
}
