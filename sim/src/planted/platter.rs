//! Bugs planted between two lives of a node, on its disk: the log is read and written again as a node with the bug would have
//! found it, whole and with good checksums. So the node itself is the one that ships.
//!
//! Everything runs on the supervisor while the node is down and its disk has power.
#![expect(
    clippy::disallowed_methods,
    reason = "the files of a simulated disk, between two lives of their node"
)]

use bytes::Bytes;
use node::knobs::Knobs;
use node::state::command::Command;
use node::state::{self, Applied, Batch, Scan, View};
use node::store::Store;
use node::types::{CONTROL_GROUP, NodeId, Term};
use node::wal::{self, GroupLog, Record, Wal};
use prost::Message;
use std::path::{Path, PathBuf};

/// Most entries that are done twice.
const AGAIN_MAX: usize = 8;

/// The key of the record that says how far a store has come (`docs/format/store.md`).
const POSITION: [u8; 2] = [0x01, 0x01];

/// The data directory of a node that is down.
pub(super) struct Platter {
    /// The directory.
    root: PathBuf,
    /// The node's internal numbers.
    knobs: Knobs,
}

impl Platter {
    /// The data directory of `name`.
    pub(super) fn of(name: &str, knobs: &Knobs) -> Self {
        Platter {
            root: format!("/simdisk/{name}/data").into(),
            knobs: knobs.clone(),
        }
    }

    /// Sizes as the node chooses them.
    fn options(&self) -> wal::Options {
        wal::Options::new((self.knobs.segment_bytes / 512 * 512).max(8 << 10))
    }

    /// Writes the log again as `edit` leaves it. `edit` says what it did; nothing is touched when it says nothing, or when there
    /// is no sound log of a member.
    pub(super) fn edit(
        &self,
        edit: impl FnOnce(&mut GroupLog) -> Option<String>,
    ) -> Option<String> {
        let dir = self.root.join("wal");
        let (log, recovered) = Wal::open(&dir, self.options()).ok()?;
        drop(log);
        let genesis = recovered.genesis?;
        let mut group = recovered.groups.get(&CONTROL_GROUP).cloned()?;
        let what = edit(&mut group)?;
        self.write_again(&dir, genesis, group)
            .expect("a log of a simulated disk can be written");
        Some(what)
    }

    /// A new log with `genesis` and `group`.
    fn write_again(
        &self,
        dir: &Path,
        genesis: wal::Genesis,
        group: GroupLog,
    ) -> Result<(), wal::Error> {
        for file in std::fs::read_dir(dir)
            .expect("the log was just read")
            .flatten()
        {
            std::fs::remove_file(file.path()).expect("a file of a simulated disk can be removed");
        }
        let mut records = vec![Record::Genesis(genesis)];
        let base = group.snapshot.unwrap_or_default();
        if group.snapshot.is_some() {
            records.push(Record::SnapshotMark {
                group: CONTROL_GROUP,
                mark: base,
            });
        }
        let entries: Vec<wal::Entry> = group
            .entries
            .into_iter()
            .filter(|entry| entry.index > base.index)
            .collect();
        if !entries.is_empty() {
            records.push(Record::Entries {
                group: CONTROL_GROUP,
                entries,
            });
        }
        if let Some(state) = group.hard_state {
            records.push(Record::HardState {
                group: CONTROL_GROUP,
                state,
            });
        }
        let (mut log, _) = Wal::open(dir, self.options())?;
        log.append_and_sync(&records).map(|_| ())
    }

    /// Does the last entries of a store that was closed in order once more, as a node that did not note how far it had come.
    pub(super) fn apply_again(&self) -> Option<String> {
        let (log, recovered) = Wal::open(&self.root.join("wal"), self.options()).ok()?;
        drop(log);
        let group = recovered.groups.get(&CONTROL_GROUP)?;
        let store = Store::open(&self.root.join("store"), &self.knobs).ok()?;
        let position = state::applied(&store).ok()??;
        let entries = tail(group, position.index);
        let first = entries.first()?;
        let behind = Behind {
            store: &store,
            position: Applied {
                index: first.index.0 - 1,
                // The least that can be: terms never fall along the log.
                term: 0,
                ..position
            },
        };
        let mut batch = Batch::new(&behind).ok()?;
        for entry in &entries {
            let again = state::Entry {
                index: entry.index,
                term: entry.term,
                payload: entry.data.clone(),
            };
            batch.apply(&again).ok()?;
        }
        let writes = batch.finish();
        store.write(&writes).ok()?;
        store.close().ok()?;
        Some(format!("does its last {} entries again", entries.len()))
    }
}

/// The last ordinary entries through `last`.
fn tail(group: &GroupLog, last: u64) -> Vec<wal::Entry> {
    let applied: Vec<&wal::Entry> = group
        .entries
        .iter()
        .filter(|entry| entry.index.0 <= last)
        .collect();
    let ordinary = applied
        .iter()
        .rev()
        .take(AGAIN_MAX)
        .take_while(|entry| entry.kind == 0);
    let mut entries: Vec<wal::Entry> = ordinary.map(|entry| (*entry).clone()).collect();
    entries.reverse();
    entries
}

/// A store that believes to stand at an older position than it does.
struct Behind<'a> {
    /// The store.
    store: &'a Store,
    /// Where it believes to stand.
    position: Applied,
}

impl View for Behind<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, state::Error> {
        if key == POSITION {
            return Ok(Some(self.position.encode_to_vec().into()));
        }
        self.store.get(key)
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Scan<'_> {
        self.store.scan(start, end)
    }
}

/// The promises that went to the disk without entries behind them are gone: they had not been synced.
pub(super) fn lose_promises(group: &mut GroupLog) -> Option<String> {
    let last = group.entries.last().map(|entry| entry.term);
    let term = last.unwrap_or(group.snapshot.unwrap_or_default().term);
    let state = group
        .hard_state
        .as_mut()
        .filter(|state| state.term > term)?;
    let lost = std::mem::replace(&mut state.term, term);
    state.vote = NodeId(0);
    Some(format!("has lost its promise of term {lost}"))
}

/// The vote of the term is gone.
pub(super) fn forget_vote(group: &mut GroupLog) -> Option<String> {
    let state = group
        .hard_state
        .as_mut()
        .filter(|state| state.vote.0 != 0)?;
    let (vote, term) = (std::mem::take(&mut state.vote), state.term);
    Some(format!(
        "has forgotten its vote for node {vote} in term {term}"
    ))
}

/// The last `count` entries are gone, as far as no snapshot covers them.
pub(super) fn drop_tail(group: &mut GroupLog, count: usize) -> Option<String> {
    let base = group.snapshot.unwrap_or_default().index;
    let mut dropped = 0;
    while dropped < count && group.entries.last().is_some_and(|entry| entry.index > base) {
        group.entries.pop();
        dropped += 1;
    }
    let last = group
        .entries
        .last()
        .map_or(base, |entry| entry.index)
        .max(base);
    let state = group.hard_state.as_mut()?;
    state.commit = state.commit.min(last);
    // A term is never lost with the tail: it may have been promised without an entry.
    state.term = state.term.max(Term(1));
    (dropped > 0).then(|| format!("has dropped its last {dropped} entries"))
}

/// One bit of one entry's value is another, and every checksum has been made to fit.
pub(super) fn flip_value(group: &mut GroupLog, draw: u64) -> Option<String> {
    let base = group.snapshot.unwrap_or_default().index;
    let usable =
        |entry: &&mut wal::Entry| entry.index > base && entry.kind == 0 && !entry.data.is_empty();
    let mut entries: Vec<&mut wal::Entry> = group.entries.iter_mut().filter(usable).collect();
    if entries.is_empty() {
        return None;
    }
    let place = usize::try_from(draw % entries.len() as u64).ok()?;
    let entry = &mut entries[place];
    let (data, at) = flipped(&entry.data)?;
    entry.data = data;
    Some(format!(
        "reads entry {} with byte {at} changed and believes it",
        entry.index
    ))
}

/// `data` with its last changeable byte changed so that it still reads as a command, and where that is.
pub(super) fn flipped(data: &Bytes) -> Option<(Bytes, usize)> {
    let right = Command::decode(data.clone()).ok()?;
    (0..data.len()).rev().find_map(|at| {
        let mut bytes = data.to_vec();
        bytes[at] ^= 1;
        let changed = Bytes::from(bytes);
        let other = Command::decode(changed.clone()).ok()?;
        let reads = other != right && other.op.is_some() && other.session == right.session;
        reads.then_some((changed, at))
    })
}
