//! `GET /v1/watch`: changes of keys as server-sent events, from any revision that is still kept.
//!
//! The stream is pulled: the next batch of history is read when the connection has taken the last one, so a slow client costs
//! one batch and no more; when it is too slow, history is compacted under it and it is told so. Only the last event of a revision
//! carries an `id`: a client that breaks off in the middle of a revision resumes (`Last-Event-ID`) with the whole of it, and
//! never loses the rest. Silence is broken by `progress` events, which also move the `id` on.

use super::Api;
use super::call::{Call, invalid, plain};
use super::kv::key_range;
use super::wire::{Record, WatchChange, WatchProgress};
use crate::error::{Code, Error};
use crate::handle::{Condition, Status, WatchBatch};
use crate::state::command::KeyEvent;
use crate::types::Revision;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::sync::watch;

/// One open watch.
struct Watch {
    /// The door.
    api: Arc<Api>,
    /// Start of the key range.
    key: Bytes,
    /// End of the key range; empty for one key.
    range_end: Bytes,
    /// First revision not yet looked at.
    next: Revision,
    /// The node's picture: says when there is news.
    status: watch::Receiver<Status>,
    /// What to say first.
    first: Option<String>,
    /// True when the last event has been said.
    ended: bool,
}

/// `GET /v1/watch`.
pub(super) async fn watch(call: Call) -> Result<Response, Error> {
    let (key, range_end) = keys(&call)?;
    let mut status = call.api.handle.follow_status();
    let now = status.borrow_and_update().revision;
    let mut watch = Watch {
        key,
        range_end,
        next: start(&call, now)?,
        status,
        first: None,
        ended: false,
        api: call.api,
    };
    // Asked before the answer's head goes out, so that a start that was compacted is an ordinary error.
    let batch = watch.history().await?;
    watch.first = Some(watch.tell(batch, true));
    let stream = futures::stream::unfold(watch, async |mut watch| {
        let chunk = watch.chunk().await?;
        Some((chunk, watch))
    });
    Ok(event_stream(stream))
}

/// An answer of server-sent events, pulled by the connection.
pub(super) fn event_stream(chunks: impl Stream<Item = String> + Send + 'static) -> Response {
    let chunks = chunks.map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
    let mut response = plain(StatusCode::OK, "text/event-stream", Bytes::new());
    *response.body_mut() = Body::from_stream(chunks);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The keys to be watched; all if none are named.
fn keys(call: &Call) -> Result<(Bytes, Bytes), Error> {
    match (call.bytes("key"), key_range(call)?) {
        (Some(_), Some(_)) => Err(invalid(
            "give `key`, or `prefix`, or `start` and `end`, not several".to_owned(),
        )),
        (Some(key), None) => {
            super::txn::check_key(&key, &call.api.options.limits)?;
            Ok((key, Bytes::new()))
        }
        (None, Some(range)) => Ok(range),
        (None, None) => Ok((Bytes::from_static(&[0]), Bytes::from_static(&[0]))),
    }
}

/// The first revision wanted: after the last event the client saw, or `from`, or the next to come.
fn start(call: &Call, now: Revision) -> Result<Revision, Error> {
    let seen = call.header_number("last-event-id")?;
    let next = match (seen, call.number("from")?) {
        (Some(seen), _) => seen.saturating_add(1),
        (None, Some(from)) => from.max(1),
        (None, None) => now.0.saturating_add(1),
    };
    Ok(Revision(next))
}

impl Watch {
    /// The next piece of the stream; none when it has ended.
    async fn chunk(&mut self) -> Option<String> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if self.ended {
                return None;
            }
            if !self.news().await {
                return Some(self.progress());
            }
            if let Some(error) = self.closing() {
                return Some(self.end(&error));
            }
            match self.history().await {
                Err(error) => return Some(self.end(&error)),
                Ok(batch) => {
                    let text = self.tell(batch, false);
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
            }
        }
    }

    /// Waits until there is something to look at (true) or the client should hear that there is not (false).
    async fn news(&mut self) -> bool {
        let silence = self.api.options.watch_progress;
        let mut tick = self.api.clock.sleep(silence);
        loop {
            {
                let status = self.status.borrow_and_update();
                if status.revision >= self.next || stops(&status) {
                    return true;
                }
            }
            tokio::select! {
                biased; // News before ticks: a busy watch needs no progress events.
                changed = self.status.changed() => {
                    if changed.is_err() {
                        return true; // The loop is gone; the next question to it says so.
                    }
                }
                () = &mut tick => return false,
            }
        }
    }

    /// Why the watch must end, if it must.
    fn closing(&self) -> Option<Error> {
        let status = self.status.borrow();
        stops(&status).then(|| {
            Error::new(Code::ShuttingDown, "this node stops serving")
                .hint("watch another node, from the last `id` on")
        })
    }

    /// The next batch of history, which moves the watch on.
    async fn history(&mut self) -> Result<WatchBatch, Error> {
        let (key, range_end) = (self.key.clone(), self.range_end.clone());
        let batch = self.api.handle.history(self.next, key, range_end).await?;
        let after = Revision(batch.through.0.saturating_add(1));
        self.next = self.next.max(after);
        Ok(batch)
    }

    /// The events of a batch as text; `greet` says that a batch without events is told as progress.
    fn tell(&self, batch: WatchBatch, greet: bool) -> String {
        let mut text = String::new();
        for (position, event) in batch.events.iter().enumerate() {
            let revision = event.kv.mod_revision;
            let next = batch.events.get(position + 1);
            let last = next.is_none_or(|next| next.kv.mod_revision != revision);
            let kind = if event.deleted { "delete" } else { "put" };
            write_event(&mut text, last.then_some(revision), kind, &change(event));
        }
        if text.is_empty() && greet {
            return self.progress();
        }
        text
    }

    /// A progress event.
    fn progress(&self) -> String {
        let mut text = String::new();
        let seen = self.next.0.saturating_sub(1);
        let revision = Revision(seen);
        write_event(
            &mut text,
            Some(seen),
            "progress",
            &WatchProgress { revision },
        );
        text
    }

    /// The last event.
    fn end(&mut self, error: &Error) -> String {
        self.ended = true;
        let kind = match error.code {
            Code::Compacted => "compacted",
            _ => "error",
        };
        let mut text = String::new();
        write_event(&mut text, None, kind, error);
        text
    }
}

/// True when the node will bring no more news.
pub(super) fn stops(status: &Status) -> bool {
    matches!(
        status.condition,
        Condition::Stopping | Condition::Removed | Condition::Poisoned { .. }
    )
}

/// A change as the client sees it.
fn change(event: &KeyEvent) -> WatchChange {
    let record = match event.deleted {
        true => Record::without_value(&event.kv),
        false => Record::of(&event.kv),
    };
    WatchChange {
        record,
        prev_revision: Revision(event.prev_revision),
        time_ms: event.time_ms,
    }
}

/// One server-sent event. JSON has no line breaks, so the data is one line.
pub(super) fn write_event<T: Serialize>(text: &mut String, id: Option<u64>, kind: &str, data: &T) {
    let data = serde_json::to_string(data).expect("events are text and numbers");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    write!(text, "{id}event: {kind}\ndata: {data}\n\n").expect("writing into a string");
}
