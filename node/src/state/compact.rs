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
use super::writes::record_hash;

/// The store is swept when this many revisions wait for it: a look for where to go on costs more than some events.
const SWEEP_REVISIONS: u64 = 128;
/// What is left below [`SWEEP_REVISIONS`] is swept by entries whose index is a multiple of this.
const SWEEP_ENTRIES: u64 = 1024;
/// Most events one sweep looks at. An entry makes 128 at most, and sweeps follow each other at every entry while
/// [`SWEEP_REVISIONS`] wait, so the sweep never falls behind.
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
        let waiting = (self.meta.compacted + 1).saturating_sub(self.meta.sweep_revision);
        let is_due = waiting >= SWEEP_REVISIONS || index.is_multiple_of(SWEEP_ENTRIES);
        if waiting == 0 || !is_due {
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
            if let Some((at, share)) = event.before {
                self.drop_event(at, share)?;
            }
            if let Some(share) = event.deletion {
                self.drop_event(event.at, share)?;
            }
        }
        Ok(())
    }

    /// Removes an event with its share in the hash; zero when the share is not known, in states that the first nodes wrote.
    fn drop_event(&mut self, (revision, sub): (u64, u32), share: u64) -> Result<(), Error> {
        let key = keys::history(revision, sub);
        if share != 0 {
            self.over.drop_known(key, share);
            return Ok(());
        }
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
    /// Position and share in the hash of the event before it of the same key.
    before: Option<((u64, u32), u64)>,
    /// Its own share in the hash if it removed the key.
    deletion: Option<u64>,
}

impl Swept {
    /// From a record of history.
    fn of(record: Result<Record, Error>) -> Result<Self, Error> {
        let (key, raw) = record?;
        let past: Past = decode("event", raw.clone())?;
        let before = (past.event.prev_revision, past.prev_sub);
        Ok(Swept {
            at: keys::history_position(&key),
            before: (before.0 != 0).then_some((before, past.prev_hash)),
            deletion: past.event.deleted.then(|| record_hash(&key, &raw)),
        })
    }
}
