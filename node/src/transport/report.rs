//! News about peers on their way to the node's loop.
//!
//! The loop itself causes some of them (a full queue in `send`), so it must never have to wait for room in its own queue:
//! news are merged by peer, which bounds them, and one task hands them over. [`Complaints`] keeps a peer that is refused again
//! and again from flooding the journal.

use super::{Inbound, Shared};
use crate::rt::Mono;
use crate::types::NodeId;
use crate::wire::Reject;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// What is to be told of one peer.
#[derive(Default)]
struct News {
    /// Messages to it were lost.
    unreachable: bool,
    /// It refuses us.
    reject: Option<Reject>,
}

/// News not handed over yet.
#[derive(Default)]
pub(super) struct Reports {
    /// By peer.
    waiting: Mutex<BTreeMap<NodeId, News>>,
    /// Rung when there is something.
    bell: Notify,
}

impl Reports {
    /// Messages to `peer` were lost.
    pub(super) fn unreachable(&self, peer: NodeId) {
        self.note(peer, |news| news.unreachable = true);
    }

    /// `peer` refuses this node.
    pub(super) fn rejected(&self, peer: NodeId, reject: Reject) {
        self.note(peer, |news| news.reject = Some(reject));
    }

    fn note(&self, peer: NodeId, set: impl FnOnce(&mut News)) {
        let mut waiting = self.waiting.lock().expect("nobody panics holding the news");
        set(waiting.entry(peer).or_default());
        drop(waiting);
        self.bell.notify_one();
    }

    fn take(&self) -> Option<(NodeId, News)> {
        let mut waiting = self.waiting.lock().expect("nobody panics holding the news");
        waiting.pop_first()
    }
}

/// Hands news over until the loop is gone.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        while let Some((peer, news)) = shared.reports.take() {
            if tell(&shared, peer, news).await.is_none() {
                return;
            }
        }
        shared.reports.bell.notified().await;
    }
}

/// Hands over the news of one peer; `None` when the loop is gone.
async fn tell(shared: &Shared, peer: NodeId, news: News) -> Option<()> {
    if news.unreachable {
        let report = Inbound::Unreachable { peer };
        shared.inbound.send(report).await.ok()?;
    }
    if let Some(reject) = news.reject {
        let report = Inbound::Rejected { by: peer, reject };
        shared.inbound.send(report).await.ok()?;
    }
    Some(())
}

/// Different refusals told within one span: whoever sends garbage is refused for another reason each time.
const COMPLAINTS_MAX: usize = 8;

/// Refusals told of late.
#[derive(Default)]
pub(super) struct Complaints(Mutex<BTreeMap<String, Mono>>);

impl Complaints {
    /// True when `text` was not told within `span` before `now`, nor many others; it then counts as told.
    pub(super) fn is_news(&self, text: &str, now: Mono, span: Duration) -> bool {
        let mut told = self.0.lock().expect("nobody panics holding the complaints");
        told.retain(|_, at| now.since(*at) < span);
        if told.contains_key(text) || told.len() >= COMPLAINTS_MAX {
            return false;
        }
        told.insert(text.to_owned(), now);
        true
    }
}
