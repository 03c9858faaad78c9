//! What happened: read, and followed as server-sent events.
//!
//! Events are named by the entry that did them and a number within it. The list and the stream go on after a whole entry: only
//! the last event of an entry carries an `id`, so that a client that breaks off in the middle gets the whole of it again.

use super::Api;
use super::call::{Call, invalid};
use super::fleet_wire::{service_name, worker_name};
use super::services::read;
use super::story_wire::{EventInfo, EventsAnswer};
use super::watch::{event_stream, stops, write_event};
use crate::error::{Code, Error};
use crate::fleet::{EVENTS_MAX, Event, Fleet};
use crate::handle::Status;
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;

/// Events of one answer at most.
const LIMIT_MAX: u64 = 1_000;

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
struct Filter {
    /// Name or id of the service.
    service: Option<String>,
    /// Name or id of the node.
    node: Option<String>,
    /// The task.
    task: Option<u64>,
}

impl Filter {
    fn of(call: &Call) -> Result<Self, Error> {
        Ok(Filter {
            service: call.text("service")?,
            node: call.text("node")?,
            task: call.number("task")?,
        })
    }

    fn takes(&self, fleet: &Fleet, event: &Event) -> bool {
        let is = |wanted: &str, id: u64, name: String| wanted == name || wanted == id.to_string();
        let service = self.service.as_ref().is_none_or(|wanted| {
            let id = event.service;
            id.is_some_and(|id| is(wanted, id.0, service_name(fleet, id)))
        });
        let node = self.node.as_ref().is_none_or(|wanted| {
            let id = event.worker;
            id.is_some_and(|id| is(wanted, id.0, worker_name(fleet, id)))
        });
        let task = self
            .task
            .is_none_or(|wanted| event.task.is_some_and(|id| id.0 == wanted));
        service && node && task
    }

    /// Events after the entry `after` that are wanted, the oldest first.
    fn after<'a>(
        &'a self,
        fleet: &'a Fleet,
        after: u64,
    ) -> impl DoubleEndedIterator<Item = ((u64, u32), &'a Event)> {
        let newer = fleet.events.range((after.saturating_add(1), 0)..);
        newer
            .filter(|(_, event)| self.takes(fleet, event))
            .map(|(&key, event)| (key, event))
    }
}

/// `GET /v1/events`: the newest, or with `after` the next ones.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let filter = Filter::of(&call)?;
    let after = call.number("after")?;
    let limit = call.number("limit")?.unwrap_or(LIMIT_MAX);
    if limit == 0 {
        return Err(invalid("`limit` must be at least 1".to_owned()));
    }
    let limit = usize::try_from(limit.min(LIMIT_MAX)).unwrap_or(usize::MAX);
    let (fleet, fresh) = read(&call).await?;
    let found = filter.after(&fleet, after.unwrap_or(0));
    let mut found: Vec<_> = found.collect();
    let more = after.is_some() && found.len() > limit;
    match after {
        Some(_) => cut_after_entry(&mut found, limit),
        None => drop(found.drain(..found.len().saturating_sub(limit))),
    }
    let events = found
        .into_iter()
        .map(|(key, event)| EventInfo::of(&fleet, key, event))
        .collect();
    super::call::json(&EventsAnswer {
        events,
        more,
        fresh,
    })
}

/// Leaves about `limit` events: whole entries, one at least, so that `after=` their last goes on without a gap.
fn cut_after_entry(found: &mut Vec<((u64, u32), &Event)>, limit: usize) {
    let Some(&((cut, _), _)) = found.get(limit) else {
        return;
    };
    let before = found.iter().position(|((index, _), _)| *index == cut);
    match before {
        Some(before) if before > 0 => found.truncate(before),
        _ => found.retain(|((index, _), _)| *index == cut),
    }
}

/// One client that follows.
struct Following {
    /// The door.
    api: Arc<Api>,
    /// What it wants.
    filter: Filter,
    /// The last entry that was told, or needs not be.
    after: u64,
    /// The fleet: says when there is news.
    fleet: watch::Receiver<Arc<Fleet>>,
    /// The node's picture: says when it stops.
    status: watch::Receiver<Status>,
    /// What to say first.
    first: Option<String>,
    /// True when the last event has been said.
    ended: bool,
}

/// `GET /v1/events/follow`.
pub(super) async fn follow(call: Call) -> Result<Response, Error> {
    let filter = Filter::of(&call)?;
    let seen = call.header_number("last-event-id")?;
    let asked = call.number("after")?;
    let fleet = call.api.handle.follow_fleet();
    let status = call.api.handle.follow_status();
    let now = fleet.borrow().index;
    let mut following = Following {
        filter,
        after: seen.or(asked).unwrap_or(now),
        fleet,
        status,
        first: None,
        ended: false,
        api: call.api,
    };
    following.first = Some(following.greet());
    let stream = futures::stream::unfold(following, async |mut following| {
        let chunk = following.chunk().await?;
        Some((chunk, following))
    });
    Ok(event_stream(stream))
}

impl Following {
    /// What is said at once: that events are missing, those that are there, and where it stands.
    fn greet(&mut self) -> String {
        let gap = {
            let fleet = self.fleet.borrow();
            let oldest = fleet.events.first_key_value().map(|(key, _)| key.0);
            let full = fleet.events.len() >= EVENTS_MAX;
            oldest.filter(|oldest| full && self.after.saturating_add(1) < *oldest)
        };
        let mut text = String::new();
        if let Some(oldest) = gap {
            let data = json!({ "after": self.after, "oldest": oldest });
            write_event(&mut text, None, "gap", &data);
        }
        text += &self.news();
        text += &self.progress();
        text
    }

    /// The next piece of the stream; none when it has ended.
    async fn chunk(&mut self) -> Option<String> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.ended {
            return None;
        }
        let mut tick = self.api.clock.sleep(self.api.options.watch_progress);
        loop {
            let news = self.news();
            if !news.is_empty() {
                return Some(news);
            }
            if stops(&self.status.borrow_and_update()) {
                return Some(self.end());
            }
            let gone = tokio::select! {
                biased; // News before ticks: whoever gets news needs no sign of life.
                changed = self.fleet.changed() => changed.is_err(),
                changed = self.status.changed() => changed.is_err(),
                () = &mut tick => return Some(self.progress()),
            };
            if gone {
                return Some(self.end());
            }
        }
    }

    /// Events that were not told yet, as text.
    fn news(&mut self) -> String {
        let fleet = Arc::clone(&self.fleet.borrow_and_update());
        let mut text = String::new();
        let mut found = self.filter.after(&fleet, self.after).peekable();
        while let Some((key, event)) = found.next() {
            let last = found.peek().is_none_or(|((next, _), _)| *next != key.0);
            let data = EventInfo::of(&fleet, key, event);
            write_event(&mut text, last.then_some(key.0), &event.kind, &data);
        }
        let newest = fleet.events.last_key_value().map_or(0, |(key, _)| key.0);
        self.after = self.after.max(newest);
        text
    }

    /// A sign of life.
    fn progress(&self) -> String {
        let mut text = String::new();
        let data = json!({ "index": self.after });
        write_event(&mut text, Some(self.after), "progress", &data);
        text
    }

    /// The last event.
    fn end(&mut self) -> String {
        self.ended = true;
        let error = Error::new(Code::ShuttingDown, "this node stops serving")
            .hint("follow another node, from the last `id` on");
        let mut text = String::new();
        write_event(&mut text, None, "error", &error);
        text
    }
}
