//! What the event log says: each key's life as a list of spans, and when each revision can have
//! taken effect.
//!
//! Invariant: the spans of a key cover all revisions from 0 on without overlap, the first one
//! absent.

use std::collections::BTreeMap;

use crate::history::{Entry, Event, EventKind, History, Key};

/// From one write of a key to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first revision at which it holds.
    pub(super) from: u64,
    /// The revision of the next write; `None` if there is none.
    pub(super) until: Option<u64>,
    /// What the key holds; `None` if absent.
    pub(super) entry: Option<Entry>,
}

/// The life of every key.
#[derive(Debug, Default)]
pub(super) struct Spans<'a> {
    keys: BTreeMap<&'a Key, Vec<Span>>,
}

/// The life of a key that was never written.
const NEVER: &[Span] = &[Span {
    from: 0,
    until: None,
    entry: None,
}];

impl<'a> Spans<'a> {
    /// Replays the log.
    pub(super) fn of(log: &'a [Event]) -> Self {
        let mut spans = Self::default();
        for event in log {
            let life = spans
                .keys
                .entry(&event.key)
                .or_insert_with(|| NEVER.to_vec());
            let last = life.last_mut().expect("a life has at least one span");
            last.until = Some(event.revision);
            let entry = after(event, last.entry);
            life.push(Span {
                from: event.revision,
                until: None,
                entry,
            });
        }
        spans
    }

    /// The life of one key.
    pub(super) fn key(&self, key: &Key) -> &[Span] {
        self.keys.get(key).map_or(NEVER, Vec::as_slice)
    }

    /// What a key held right after `revision`.
    pub(super) fn at(&self, key: &Key, revision: u64) -> Option<Entry> {
        let life = self.key(key);
        let after = life.partition_point(|span| span.from <= revision);
        life[after.saturating_sub(1)].entry
    }

    /// All keys that existed right after `revision`, in order.
    pub(super) fn state(&self, revision: u64) -> impl Iterator<Item = (&'a Key, Entry)> + '_ {
        let keys = self.keys.keys();
        keys.filter_map(move |key| self.at(key, revision).map(|entry| (*key, entry)))
    }
}

fn after(event: &Event, before: Option<Entry>) -> Option<Entry> {
    let EventKind::Put(value) = event.kind else {
        return None;
    };
    let mod_revision = event.revision;
    Some(match before {
        Some(old) => Entry {
            value,
            version: old.version + 1,
            mod_revision,
            ..old
        },
        None => Entry {
            value,
            version: 1,
            create_revision: mod_revision,
            mod_revision,
        },
    })
}

/// When revisions can have taken effect, as far as acknowledged writes tell.
#[derive(Debug)]
pub(super) struct Times {
    /// `(revision, earliest, latest)` by revision: this revision was not there before `earliest`
    /// and was there by `latest`, in nanoseconds.
    writes: Vec<(u64, u64, u64)>,
}

impl Times {
    /// Gathers what the acknowledged writes tell. A later revision cannot have come earlier, so
    /// calls bound all later revisions from below, and returns all earlier ones from above.
    pub(super) fn of(history: &History) -> Self {
        let mut writes: Vec<(u64, u64, u64)> = Vec::new();
        for operation in &history.operations {
            if let (Some(revision), Some(known_at)) =
                (operation.write_revision(), operation.known_at_ns())
            {
                writes.push((revision, operation.call_ns, known_at));
            }
        }
        writes.sort_unstable();
        let mut earliest = 0;
        for write in &mut writes {
            earliest = earliest.max(write.1);
            write.1 = earliest;
        }
        let mut latest = u64::MAX;
        for write in writes.iter_mut().rev() {
            latest = latest.min(write.2);
            write.2 = latest;
        }
        Self { writes }
    }

    /// The time before which `revision` was certainly not there, in nanoseconds.
    pub(super) fn earliest(&self, revision: u64) -> u64 {
        let after = self.writes.partition_point(|write| write.0 <= revision);
        after.checked_sub(1).map_or(0, |at| self.writes[at].1)
    }

    /// The time by which `revision` was certainly there, in nanoseconds; `u64::MAX` if nobody was
    /// told.
    pub(super) fn latest(&self, revision: u64) -> u64 {
        let at = self.writes.partition_point(|write| write.0 < revision);
        self.writes.get(at).map_or(u64::MAX, |write| write.2)
    }

    /// The largest revision that was certainly there before `time_ns`.
    pub(super) fn there_before(&self, time_ns: u64) -> u64 {
        let after = self.writes.partition_point(|write| write.2 < time_ns);
        after.checked_sub(1).map_or(0, |at| self.writes[at].0)
    }
}
