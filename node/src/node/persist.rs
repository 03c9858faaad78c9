//! The writer: makes the core's work durable, one batch at a time, and keeps the log's segments in order.
//!
//! While one batch is being synced the next gathers (group commit). Nothing is reported durable before its sync has ended. A
//! full disk is waited for; any other failure poisons the node.

use crate::raft::Work;
use crate::rt::Lane;
use crate::rt::clock::{Clock, Mono};
use crate::rt::net::BoxFuture;
use crate::types::{GroupId, Index, NodeId, Term};
use crate::wal::{self, Record, Wal};
use raft::eraftpb::{Entry, HardState, Message};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A work that waits for the disk.
pub(crate) struct Unwritten {
    /// Number to give back to the core.
    number: u64,
    /// What to write; empty when the work only has to keep its place in the order.
    records: Vec<Record>,
    /// What to send afterwards.
    messages: Vec<Message>,
    /// Last entry of the work.
    last: Option<(Index, Term)>,
    /// Term and vote promised.
    vote: Option<(Term, NodeId)>,
}

/// Works that are durable now.
pub(crate) struct Written {
    /// Number to give back to the core: this and all before it.
    pub(crate) number: u64,
    /// Messages that were waiting.
    pub(crate) messages: Vec<Message>,
    /// Last entry that became durable.
    pub(crate) last: Option<(Index, Term)>,
    /// Promises that became durable.
    pub(crate) votes: Vec<(Term, NodeId)>,
    /// Time from the start of the write to the end of the sync.
    pub(crate) took: Duration,
}

/// How a write ended.
pub(crate) enum Ended {
    /// Durable.
    Done(Written),
    /// No room on the disk; the batch is kept and tried again.
    Full,
    /// The log or the lane is gone.
    Failed(String),
}

/// A running write: gives back what it was to write when the disk is full.
type Running = BoxFuture<'static, (Result<Synced, wal::Error>, Vec<Unwritten>)>;

/// A batch that is durable.
struct Synced {
    /// Time from the start of the write to the end of the sync.
    took: Duration,
    /// True when no segment is ready for when the current one is full.
    bare: bool,
}

/// The writer of one node.
pub(crate) struct Writer {
    /// The log; locked by one job on the lane at a time.
    wal: Arc<Mutex<Wal>>,
    /// Where it is written.
    lane: Lane,
    /// Where spare segments are filled: beside appends, and not behind a snapshot that is being written.
    spare_lane: Lane,
    /// For the duration of syncs.
    clock: Clock,
    /// Waiting for the next batch.
    queue: VecDeque<Unwritten>,
    /// The batch being written.
    running: Option<Running>,
    /// When its writing began.
    since: Mono,
    /// No room: do not try before this.
    paused_until: Option<Mono>,
    /// True when the last batch found no segment ready for when the current one is full.
    bare: bool,
    /// True while a segment is being made ready.
    preparing: Arc<AtomicBool>,
}

/// Pause after the disk was found full.
const FULL_PAUSE: Duration = Duration::from_millis(200);

impl Writer {
    /// A writer into `wal` on `lane`; spare segments are filled on `spare_lane`.
    pub(crate) fn new(wal: Wal, lane: Lane, spare_lane: Lane, clock: Clock) -> Self {
        Writer {
            wal: Arc::new(Mutex::new(wal)),
            lane,
            spare_lane,
            clock,
            queue: VecDeque::new(),
            running: None,
            since: Mono::default(),
            paused_until: None,
            bare: true,
            preparing: Arc::default(),
        }
    }

    /// Takes over the durable part of `work`.
    pub(crate) fn write(&mut self, group: GroupId, work: &mut Work) {
        let mut records = Vec::new();
        if let Some(snapshot) = &work.snapshot {
            let meta = snapshot.get_metadata();
            let mark = wal::SnapshotMark {
                index: Index(meta.index),
                term: Term(meta.term),
            };
            records.push(Record::SnapshotMark { group, mark });
        }
        let last = work
            .entries
            .last()
            .map(|entry| (Index(entry.index), Term(entry.term)));
        if !work.entries.is_empty() {
            let entries = work.entries.drain(..).map(to_wal).collect();
            records.push(Record::Entries { group, entries });
        }
        let vote = work.vote.take();
        if let Some(state) = work.hard_state.take() {
            records.push(Record::HardState {
                group,
                state: hard_state_to_wal(&state),
            });
        }
        let messages = std::mem::take(&mut work.persisted_messages);
        self.queue.push_back(Unwritten {
            number: work.number,
            records,
            messages,
            last,
            vote,
        });
    }

    /// Writes records that no work waits for (a snapshot's mark); the answer comes with the next [`Ended`].
    pub(crate) fn write_records(&mut self, records: Vec<Record>) {
        let silent = Unwritten {
            number: 0,
            records,
            messages: Vec::new(),
            last: None,
            vote: None,
        };
        self.queue.push_back(silent);
    }

    /// True when nothing is waiting or being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_none()
    }

    /// How long the running batch has been written.
    pub(crate) fn running_for(&self, now: Mono) -> Option<Duration> {
        self.running.as_ref().map(|_| now.since(self.since))
    }

    /// Starts the next batch if none is running. Works at the front that have nothing to write are done at once.
    pub(crate) fn start(&mut self) -> Option<Written> {
        if self.running.is_some() || self.queue.is_empty() {
            return None;
        }
        if self.queue.iter().all(|one| one.records.is_empty()) {
            return Some(join(self.queue.drain(..).collect(), Duration::ZERO));
        }
        if self
            .paused_until
            .is_some_and(|until| self.clock.now() < until)
        {
            return None;
        }
        self.paused_until = None;
        let mut batch: Vec<Unwritten> = self.queue.drain(..).collect();
        let records: Vec<Record> = batch
            .iter_mut()
            .flat_map(|one| std::mem::take(&mut one.records))
            .collect();
        let wal = Arc::clone(&self.wal);
        let clock = self.clock.clone();
        let job = self.lane.run(move || {
            let start = clock.now();
            let mut wal = lock(&wal);
            let result = append_and_sync(&mut wal, &records);
            let bare = wal.stats().prepared == 0;
            (
                result.map(|()| Synced {
                    took: clock.now().since(start),
                    bare,
                }),
                records,
            )
        });
        self.since = self.clock.now();
        self.running = Some(Box::pin(async move {
            match job.await {
                Ok((result, records)) => {
                    if let Some(first) = batch.first_mut() {
                        first.records = records;
                    }
                    (result, batch)
                }
                Err(closed) => (Err(wal::Error::poisoned(closed.to_string())), batch),
            }
        }));
        None
    }

    /// Ends when the running batch has ended; never without one.
    pub(crate) async fn ended(&mut self) -> Ended {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let (result, batch) = running.await;
        self.running = None;
        match result {
            Ok(synced) => {
                self.bare = synced.bare;
                Ended::Done(join(batch, synced.took))
            }
            Err(error) if error.is_full() => {
                for one in batch.into_iter().rev() {
                    self.queue.push_front(one);
                }
                self.paused_until = Some(self.clock.now().plus(FULL_PAUSE));
                Ended::Full
            }
            Err(error) => Ended::Failed(error.to_string()),
        }
    }

    /// Gives up what a snapshot covers: entries of `group` through `index`; and gets a spare segment ready.
    pub(crate) fn release(
        &self,
        group: GroupId,
        index: Index,
    ) -> BoxFuture<'static, Result<(), String>> {
        let wal = Arc::clone(&self.wal);
        let job = self.lane.run(move || {
            let mut wal = lock(&wal);
            wal.release(group, index);
            match wal.trim() {
                // No room to rewrite what is still needed: the log keeps its segments until there is.
                Err(error) if error.is_full() => Ok(()),
                other => other.map(|_| ()).map_err(|error| error.to_string()),
            }
        });
        Box::pin(async move {
            match job.await {
                Ok(result) => result,
                Err(closed) => Err(closed.to_string()),
            }
        })
    }

    /// True when no spare segment is ready and none is being made: [`Writer::prepare`] is due.
    pub(crate) fn wants_spare(&self) -> bool {
        self.bare && !self.preparing.load(Ordering::Relaxed)
    }

    /// Gets a spare segment ready; filled and synced on a lane of its own, so that no append waits for it. One that cannot be made is made when it is needed, or the append says what is wrong.
    pub(crate) fn prepare(&mut self) -> BoxFuture<'static, ()> {
        self.preparing.store(true, Ordering::Relaxed);
        // Until the next batch says otherwise.
        self.bare = false;
        let (wal, preparing) = (Arc::clone(&self.wal), Arc::clone(&self.preparing));
        let (lane, spare_lane) = (self.lane.clone(), self.spare_lane.clone());
        Box::pin(async move {
            make_spare(wal, lane, spare_lane).await;
            preparing.store(false, Ordering::Relaxed);
        })
    }

    /// Size and segments of the log, as of its last change.
    pub(crate) fn stats(&self) -> Option<wal::Stats> {
        // A batch is being written: the numbers will do next time.
        self.wal.try_lock().ok().map(|wal| wal.stats())
    }
}

/// The log. A job that panicked would have ended the process, so the lock is never poisoned.
fn lock(wal: &Mutex<Wal>) -> MutexGuard<'_, Wal> {
    wal.lock().expect("no job panics while it holds the log")
}

/// Fills a segment on `spare_lane` and gives it to the log on `lane`, if it has none.
async fn make_spare(wal: Arc<Mutex<Wal>>, lane: Lane, spare_lane: Lane) {
    let log = Arc::clone(&wal);
    let Ok(Ok(Some(job))) = lane.run(move || lock(&log).spare_job()).await else {
        return;
    };
    let Ok(Ok(spare)) = spare_lane.run(move || job.run()).await else {
        return;
    };
    // A failure here has poisoned the log, and the next append tells.
    drop(lane.run(move || lock(&wal).adopt_spare(spare)).await);
}

/// Writes and syncs one batch.
fn append_and_sync(wal: &mut Wal, records: &[Record]) -> Result<(), wal::Error> {
    wal.append(records)?;
    wal.sync().map(|_| ())
}

/// Everything that became durable together.
fn join(batch: Vec<Unwritten>, took: Duration) -> Written {
    let mut written = Written {
        number: 0,
        messages: Vec::new(),
        last: None,
        votes: Vec::new(),
        took,
    };
    for one in batch {
        written.number = written.number.max(one.number);
        written.messages.extend(one.messages);
        written.last = one.last.or(written.last);
        written.votes.extend(one.vote);
    }
    written
}

/// An entry for the WAL.
fn to_wal(entry: Entry) -> wal::Entry {
    wal::Entry {
        index: Index(entry.index),
        term: Term(entry.term),
        kind: u8::try_from(entry.entry_type).expect("entry kinds are validated at the door"),
        context: entry.context,
        data: entry.data,
    }
}

/// An entry from the WAL.
pub(crate) fn from_wal(entry: wal::Entry) -> Entry {
    Entry {
        index: entry.index.0,
        term: entry.term.0,
        entry_type: i32::from(entry.kind),
        context: entry.context,
        data: entry.data,
        ..Entry::default()
    }
}

/// A hard state for the WAL.
fn hard_state_to_wal(state: &HardState) -> wal::HardState {
    wal::HardState {
        term: Term(state.term),
        vote: NodeId(state.vote),
        commit: Index(state.commit),
    }
}

/// A hard state from the WAL.
pub(crate) fn hard_state_from_wal(state: wal::HardState) -> HardState {
    HardState {
        term: state.term.0,
        vote: state.vote.0,
        commit: state.commit.0,
    }
}
