//! What the clients do, and when.

use crate::cli::args::{Bench, Op};
use crate::cli::remote::Remote;
use crate::rt::Mono;
use rand_core::RngCore;
use std::time::Duration;

/// Tries to write a key that is to be read later.
const FILL_TRIES: u32 = 5;

/// The span that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// First request.
    pub start: Mono,
    /// Requests from here on count.
    pub measure_from: Mono,
    /// No request begins after this.
    pub end: Mono,
}

/// What decides when a client sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When it has its last answer.
    Closed,
    /// When the next request is due.
    Open {
        /// Requests a second, over all clients.
        rate: u64,
    },
    /// Each key once, then end.
    Fill,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write this key.
    Put(u64),
    /// Read this key.
    Get(u64),
}

/// The plan all clients share.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When.
    pub window: Window,
    /// What decides when a client sends.
    pub pace: Pace,
    /// What to do.
    op: Op,
    /// Share of reads when mixed, percent.
    read_percent: u8,
    /// Keys to spread over.
    pub keys: u64,
    /// Size of a value, bytes.
    pub value_bytes: usize,
    /// Freshness of reads.
    pub consistency: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

impl Plan {
    /// The plan that is measured, beginning now.
    pub fn measure(options: &Bench, remote: &Remote) -> Self {
        let start = remote.clock.now();
        let measure_from = start.plus(options.warmup);
        Plan {
            window: Window {
                start,
                measure_from,
                end: measure_from.plus(options.duration),
            },
            pace: match options.rate {
                Some(rate) => Pace::Open { rate },
                None => Pace::Closed,
            },
            op: options.op,
            read_percent: options.read_percent,
            keys: options.keys,
            value_bytes: options.value_bytes,
            consistency: options.consistency.clone(),
            timeout: remote.timeout,
        }
    }

    /// The plan that writes each key once, however long it takes.
    pub fn fill(options: &Bench, remote: &Remote) -> Self {
        let mut plan = Plan::measure(options, remote);
        plan.pace = Pace::Fill;
        plan.window.measure_from = plan.window.start;
        plan.window.end = Mono(Duration::MAX);
        plan
    }

    /// How often a request is sent before it counts as failed: a measured one once.
    pub fn tries(&self) -> u32 {
        match self.pace {
            Pace::Fill => FILL_TRIES,
            Pace::Closed | Pace::Open { .. } => 1,
        }
    }

    /// The `number`th request of all.
    pub fn request(&self, number: u64, rng: &mut impl RngCore) -> Request {
        if self.pace == Pace::Fill {
            return Request::Put(number);
        }
        let key = rng.next_u64() % self.keys;
        let reads = match self.op {
            Op::Put => false,
            Op::Get => true,
            Op::Mixed => rng.next_u64() % 100 < u64::from(self.read_percent),
        };
        if reads {
            Request::Get(key)
        } else {
            Request::Put(key)
        }
    }

    /// When the `number`th request is due; nothing when it is due as soon as a client is free, or never.
    pub fn due(&self, number: u64) -> Due {
        match self.pace {
            Pace::Closed => Due::WhenFree,
            Pace::Fill if number < self.keys => Due::WhenFree,
            Pace::Fill => Due::Never,
            Pace::Open { rate } => {
                let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate);
                let after = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                Due::At(self.window.start.plus(after))
            }
        }
    }
}

/// When a request is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// As soon as a client is free.
    WhenFree,
    /// At this time, whatever the answers do.
    At(Mono),
    /// There are no more.
    Never,
}
