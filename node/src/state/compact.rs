//! Compaction: history is given up by a command or by age, at once for readers and piece by piece in the store.
//!
//! What is kept below the compacted revision is, for each key that was there at that revision, the event of its
//! last write: reads at the compacted revision and above need it once the key changes. So an event is removed when the
//! sweep passes the event that *follows* it, and a removal when the sweep passes it itself.

use super::apply::{Batch, Stop, refuse};
use super::command::{Compact, Done, Nothing, Refusal};
use super::keys;
use super::record::{Past, decode};
use super::view::{Error, Record, View};

/// The store is swept by every entry whose index is a multiple of this.
const SWEEP_ENTRIES: u64 = 16;
/// Most events one sweep looks at: twice what [`SWEEP_ENTRIES`] transactions of 128 writes make, so that it never falls behind.
const SWEEP_EVENTS_MAX: usize = 4096;

impl Batch<'_> {
    /// [`Compact`].
    pub(super) fn compact(&mut self, compact: &Compact) -> Result<Done, Stop> {
        if compact.revision > self.meta.revision {
            return Err(refuse(Refusal::FutureRevision, "no such revision yet"));
        }
        if compact.revision <= self.meta.compacted {
            return Err(refuse(Refusal::Compacted, "compacted already"));
        }
        self.meta.compacted = compact.revision;
        Ok(Done::Nothing(Nothing {}))
    }

    /// Housekeeping at the end of an entry: compacts by age, and now and then removes what was compacted.
    pub(super) fn sweep(&mut self, index: u64) -> Result<(), Error> {
        let keep = self.meta.limits.history_revisions.max(1);
        let oldest = self.meta.revision.saturating_sub(keep);
        self.meta.compacted = self.meta.compacted.max(oldest);
        if !index.is_multiple_of(SWEEP_ENTRIES) || self.meta.sweep_revision > self.meta.compacted {
            return Ok(());
        }
        let from = (self.meta.sweep_revision, self.meta.sweep_sub);
        let (start, end) = keys::history_range(from.0, from.1, self.meta.compacted);
        let events = self.over.scan(&start, &end).take(SWEEP_EVENTS_MAX);
        let events: Vec<Swept> = events.map(Swept::of).collect::<Result<_, Error>>()?;
        (self.meta.sweep_revision, self.meta.sweep_sub) = match events.last() {
            Some(last) if events.len() == SWEEP_EVENTS_MAX => (last.at.0, last.at.1 + 1),
            _ => (self.meta.compacted + 1, 0),
        };
        for event in events {
            if event.before.0 != 0 {
                self.drop_event(event.before)?;
            }
            if event.deleted {
                self.drop_event(event.at)?;
            }
        }
        Ok(())
    }

    /// Removes an event.
    fn drop_event(&mut self, (revision, sub): (u64, u32)) -> Result<(), Error> {
        let key = keys::history(revision, sub);
        let raw = self.over.get(&key)?;
        let raw =
            raw.ok_or_else(|| Error::corrupt(format!("event {revision}.{sub} is missing")))?;
        self.over.replace(key, Some(&raw), None);
        Ok(())
    }
}

/// What the sweep needs of an event: not its value, for there may be thousands.
struct Swept {
    /// Its revision and sub number.
    at: (u64, u32),
    /// Those of the event before it of the same key; revision zero for none.
    before: (u64, u32),
    /// Whether it removed the key.
    deleted: bool,
}

impl Swept {
    /// From a record of history.
    fn of(record: Result<Record, Error>) -> Result<Self, Error> {
        let (key, raw) = record?;
        let past: Past = decode("event", raw)?;
        Ok(Swept {
            at: keys::history_position(&key),
            before: (past.event.prev_revision, past.prev_sub),
            deleted: past.event.deleted,
        })
    }
}
