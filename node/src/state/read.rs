//! Readers: keys as they are, keys as they were at a revision, and history for watchers.
//!
//! The past is the present with later events undone: for each key that changed since, the first event after the wanted
//! revision names the record before it. That costs a walk over the events since; one key that existed then and now is
//! found faster, along its own chain of events.

use super::KEY_BYTES_MAX;
use super::command::{Get, GetDone, KeyValue};
use super::keys;
use super::record::{self, Applied, Current, Meta, Past, decode, fetch};
use super::view::{Error, View};
use crate::error::Code;
use crate::handle::WatchBatch;
use crate::types::{Index, Revision};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Most records a read inside a transaction gives: the same on every replica.
pub(super) const TXN_RANGE_MAX: u64 = 1_000;
/// A read ends with the record that makes its answer larger than this, bytes.
const READ_BYTES_MAX: usize = 4 << 20;
/// A history answer ends with the revision that makes it larger than this, bytes.
const HISTORY_BYTES_MAX: usize = 4 << 20;
/// Most events one history answer looks at, wanted or not.
const HISTORY_SCAN_MAX: usize = 10_000;

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The question makes no sense.
    #[error("{why}")]
    Invalid {
        /// What is wrong with it.
        why: String,
    },
    /// The revision is gone.
    #[error("revision {wanted} was compacted; history begins after revision {compacted}")]
    Compacted {
        /// The revision asked for.
        wanted: Revision,
        /// The compacted revision; the oldest state that can be read.
        compacted: Revision,
    },
    /// The revision is not there yet.
    #[error("revision {wanted} is not there yet; the latest is {revision}")]
    FutureRevision {
        /// The revision asked for.
        wanted: Revision,
        /// The latest revision here.
        revision: Revision,
    },
    /// The store is broken, or nothing is in it yet.
    #[error(transparent)]
    State(#[from] Error),
}

impl ReadError {
    /// The word for clients.
    pub fn code(&self) -> Code {
        match self {
            ReadError::Invalid { .. } => Code::InvalidArgument,
            ReadError::Compacted { .. } => Code::Compacted,
            ReadError::FutureRevision { .. } => Code::FutureRevision,
            // Older than any request allows, and soon not any more: nothing is broken.
            ReadError::State(Error::Unfounded) => Code::TooStale,
            ReadError::State(_) => Code::Poisoned,
        }
    }
}

impl From<ReadError> for crate::error::Error {
    fn from(error: ReadError) -> Self {
        let answer = crate::error::Error::new(error.code(), error.to_string());
        match error {
            ReadError::State(Error::Unfounded) => {
                answer.hint("ask another node, or this one again in a moment")
            }
            _ => answer,
        }
    }
}

/// A span of user keys.
pub(super) struct Span {
    /// First key.
    start: Bytes,
    /// Where it ends.
    end: End,
}

/// Where a span ends.
enum End {
    /// After the first key.
    Single,
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Open,
}

impl Span {
    /// The span that `key` and `range_end` mean in commands.
    pub(super) fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match &range_end[..] {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(range_end.clone()),
        };
        Span {
            start: key.clone(),
            end,
        }
    }

    /// The key, if it is one alone.
    pub(super) fn single(&self) -> Option<&Bytes> {
        matches!(self.end, End::Single).then_some(&self.start)
    }

    /// Its current records.
    pub(super) fn bounds(&self) -> keys::Bounds {
        match &self.end {
            End::Single => {
                let after = [&self.start[..], &[0]].concat();
                keys::current_range(&self.start, Some(&after))
            }
            End::Before(end) => keys::current_range(&self.start, Some(end)),
            End::Open => keys::current_range(&self.start, None),
        }
    }

    /// Whether `key` lies in it.
    fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == &self.start[..],
            End::Before(end) => key >= &self.start[..] && key < &end[..],
            End::Open => key >= &self.start[..],
        }
    }

    /// Whether one of `keys` lies in it.
    pub(super) fn holds_one_of(&self, keys: &BTreeSet<&Bytes>) -> bool {
        let next = keys.range::<Bytes, _>(&self.start..).next();
        next.is_some_and(|key| self.contains(key))
    }
}

/// An answer being put together.
struct Answer {
    /// So far.
    done: GetDone,
    /// Most records.
    limit: u64,
    /// Bytes so far.
    bytes: usize,
    /// Leave out values.
    keys_only: bool,
    /// Leave out records.
    count_only: bool,
}

impl Answer {
    /// Nothing yet; `range_max` is the limit of a get that names none, and the most any get may have.
    fn new(get: &Get, range_max: u64) -> Self {
        let limit = match get.limit {
            0 => range_max,
            limit => limit.min(range_max),
        };
        Answer {
            done: GetDone::default(),
            limit,
            bytes: 0,
            keys_only: get.keys_only,
            count_only: get.count_only,
        }
    }

    /// Takes the next record; false when there is no need for more.
    fn take(&mut self, mut kv: KeyValue) -> bool {
        self.done.count += 1;
        if self.count_only {
            return true;
        }
        let full = self.done.kvs.len() as u64 >= self.limit || self.bytes >= READ_BYTES_MAX;
        if full {
            self.done.more = true;
            return false;
        }
        if self.keys_only {
            kv.value = Bytes::new();
        }
        self.bytes += kv.key.len() + kv.value.len();
        self.done.kvs.push(kv);
        true
    }
}

/// Reads keys, now or at a revision; `range_max` bounds the records of one answer. Also says how fresh the view is.
pub fn read(
    view: &dyn View,
    get: &Get,
    range_max: u64,
) -> Result<(GetDone, Revision, Index), ReadError> {
    let record::Founded { meta, applied, .. } = record::founded(view)?;
    check_span(&get.key, &get.range_end).map_err(|why| ReadError::Invalid {
        why: why.to_owned(),
    })?;
    check_revision(get.revision, &meta)?;
    let mut get = get.clone();
    if get.revision == meta.revision {
        get.revision = 0;
    }
    let done = lookup(view, &get, range_max)?;
    let Applied { index, .. } = applied;
    Ok((done, Revision(meta.revision), Index(index)))
}

/// Whether a key or range makes sense; says why not.
pub(super) fn check_span(key: &[u8], range_end: &[u8]) -> Result<(), &'static str> {
    if key.is_empty() && range_end.is_empty() {
        return Err("the key is empty");
    }
    // Stores below have a limit of their own, and one of them panics beyond it.
    match key.len().max(range_end.len()) > KEY_BYTES_MAX {
        true => Err("the key is too long"),
        false => Ok(()),
    }
}

/// Whether the state at `revision` can be read.
fn check_revision(revision: u64, meta: &Meta) -> Result<(), ReadError> {
    if revision > meta.revision {
        return Err(ReadError::FutureRevision {
            wanted: Revision(revision),
            revision: Revision(meta.revision),
        });
    }
    if revision != 0 && revision < meta.compacted {
        return Err(ReadError::Compacted {
            wanted: Revision(revision),
            compacted: Revision(meta.compacted),
        });
    }
    Ok(())
}

/// Reads keys at a revision that was found readable.
pub(super) fn lookup(view: &dyn View, get: &Get, range_max: u64) -> Result<GetDone, Error> {
    let span = Span::new(&get.key, &get.range_end);
    let mut answer = Answer::new(get, range_max);
    match (get.revision, span.single()) {
        (0, Some(key)) => {
            if let Some(current) = current(view, key)? {
                answer.take(current.kv);
            }
        }
        (0, None) => present(view, &span, &mut answer)?,
        (revision, Some(key)) => match along_chain(view, key, revision)? {
            Some(kv) => drop(answer.take(kv)),
            None => past(view, &span, revision, &mut answer)?,
        },
        (revision, None) => past(view, &span, revision, &mut answer)?,
    }
    Ok(answer.done)
}

/// A current record.
fn current(view: &dyn View, key: &[u8]) -> Result<Option<Current>, Error> {
    fetch(view, "current key", &keys::current(key))
}

/// Reads a span now.
fn present(view: &dyn View, span: &Span, answer: &mut Answer) -> Result<(), Error> {
    let (start, end) = span.bounds();
    for record in view.scan(&start, &end) {
        let (key, raw) = record?;
        let kv = match answer.count_only {
            true => KeyValue {
                key: keys::user_key(&key),
                ..KeyValue::default()
            },
            false => decode::<Current>("current key", raw)?.kv,
        };
        if !answer.take(kv) {
            break;
        }
    }
    Ok(())
}

/// The record of one key at `revision`, if the key has existed without a break from then to now.
fn along_chain(view: &dyn View, key: &[u8], revision: u64) -> Result<Option<KeyValue>, Error> {
    let Some(current) = current(view, key)? else {
        return Ok(None);
    };
    if current.kv.create_revision > revision {
        return Ok(None);
    }
    if current.kv.mod_revision <= revision {
        return Ok(Some(current.kv));
    }
    let mut past = event(view, current.kv.mod_revision, current.sub)?;
    while past.event.kv.mod_revision > revision {
        past = event(view, past.event.prev_revision, past.prev_sub)?;
    }
    Ok(Some(past.event.kv))
}

/// One event that must be there.
fn event(view: &dyn View, revision: u64, sub: u32) -> Result<Past, Error> {
    fetch(view, "event", &keys::history(revision, sub))?
        .ok_or_else(|| Error::corrupt(format!("event {revision}.{sub} is missing")))
}

/// Reads a span as it was at `revision`.
fn past(view: &dyn View, span: &Span, revision: u64, answer: &mut Answer) -> Result<(), Error> {
    let mut undone = undo(view, span, revision)?.into_iter().peekable();
    let (start, end) = span.bounds();
    let mut present = view.scan(&start, &end).peekable();
    loop {
        let next_present = match present.peek() {
            Some(Ok((key, _))) => Some(keys::user_key(key)),
            Some(Err(error)) => return Err(error.clone()),
            None => None,
        };
        // A key that changed since is in both; what it was then counts.
        let undone_first = match (undone.peek(), &next_present) {
            (Some((changed, _)), Some(key)) => changed <= key,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return Ok(()),
        };
        let kv = if undone_first {
            let (key, before) = undone.next().expect("peeked");
            if next_present.as_ref() == Some(&key) {
                present.next();
            }
            match before {
                Some((revision, sub)) => Some(event(view, revision, sub)?.event.kv),
                None => None,
            }
        } else {
            let (_, raw) = present.next().expect("peeked")?;
            Some(decode::<Current>("current key", raw)?.kv)
        };
        if kv.is_some_and(|kv| !answer.take(kv)) {
            return Ok(());
        }
    }
}

/// The events that wrote, as they were at `revision`, those keys that changed after it: revision and sub number, or
/// `None` for a key that was not there.
fn undo(
    view: &dyn View,
    span: &Span,
    revision: u64,
) -> Result<BTreeMap<Bytes, Option<(u64, u32)>>, Error> {
    let mut before = BTreeMap::new();
    let (start, end) = keys::history_range(revision + 1, 0, u64::MAX);
    for record in view.scan(&start, &end) {
        let past: Past = decode("event", record?.1)?;
        let key = &past.event.kv.key;
        if !span.contains(key) || before.contains_key(key) {
            continue;
        }
        let former = match past.event.prev_revision {
            0 => None,
            prev => Some((prev, past.prev_sub)),
        };
        // A copy, so that the map does not hold on to the event's value.
        before.insert(Bytes::copy_from_slice(key), former);
    }
    Ok(before)
}

/// Events of a key range from revision `from` on, whole revisions only, about `events_max` of them. It may look at less than
/// there is: go on after `through` until that is the latest revision.
pub fn history(
    view: &dyn View,
    from: Revision,
    key: &Bytes,
    range_end: &Bytes,
    events_max: usize,
) -> Result<WatchBatch, ReadError> {
    let meta = record::founded(view)?.meta;
    let from = from.0.max(1);
    if from <= meta.compacted {
        return Err(ReadError::Compacted {
            wanted: Revision(from),
            compacted: Revision(meta.compacted),
        });
    }
    let span = Span::new(key, range_end);
    let mut events = Vec::new();
    let (mut looked_at, mut bytes, mut last) = (0, 0, from - 1);
    let (start, end) = keys::history_range(from, 0, u64::MAX);
    for record in view.scan(&start, &end) {
        let (key, raw) = record.map_err(ReadError::State)?;
        let (revision, _) = keys::history_position(&key);
        let full = events.len() >= events_max.max(1)
            || looked_at >= HISTORY_SCAN_MAX
            || bytes >= HISTORY_BYTES_MAX;
        if full && revision != last {
            let through = Revision(last);
            return Ok(WatchBatch { events, through });
        }
        last = revision;
        looked_at += 1;
        let past: Past = decode("event", raw)?;
        if span.contains(&past.event.kv.key) {
            bytes += past.event.encoded_len();
            events.push(past.event);
        }
    }
    let through = Revision(meta.revision.max(from - 1));
    Ok(WatchBatch { events, through })
}
