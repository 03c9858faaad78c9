//! From moments to lanes: what each node was, from when to when.

use crate::timeline::{Moment, State, Timeline};
use std::collections::BTreeMap;

/// One node over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The node's name.
    pub name: String,
    /// What it was; without gaps, in order of time.
    pub spans: Vec<Span>,
}

/// A node is one thing for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From when, virtual microseconds.
    pub from_us: u64,
    /// Until when.
    pub to_us: u64,
    /// What it was. Never [`State::Resumed`]: that is what it was before its pause.
    pub state: State,
}

/// The lanes of all nodes that appear, by name.
pub fn lanes(timeline: &Timeline) -> Vec<Lane> {
    let mut by_name: BTreeMap<&str, Vec<&Moment>> = BTreeMap::new();
    for moment in &timeline.moments {
        by_name.entry(&moment.place).or_default().push(moment);
    }
    by_name
        .into_iter()
        .map(|(name, moments)| Lane {
            name: name.to_owned(),
            spans: spans(&moments, timeline.end_us),
        })
        .collect()
}

/// One node's moments as spans.
fn spans(moments: &[&Moment], end_us: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut before_pause = State::Starting;
    let mut now = Span {
        from_us: 0,
        to_us: 0,
        state: State::Starting,
    };
    for moment in moments {
        let state = match moment.state {
            State::Resumed => before_pause,
            state => state,
        };
        if moment.state == State::Paused {
            before_pause = now.state;
        }
        if state != now.state {
            let to_us = moment.at_us.min(end_us);
            spans.push(Span { to_us, ..now });
            now = Span {
                from_us: to_us,
                to_us,
                state,
            };
        }
    }
    spans.push(Span {
        to_us: end_us,
        ..now
    });
    spans.retain(|span| span.to_us > span.from_us);
    spans
}
