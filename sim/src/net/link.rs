//! One direction between two hosts: its latency, bandwidth and faults.

use super::config::NetConfig;
use std::time::Duration;

/// The way from one host to another.
pub(super) struct Link {
    /// One-way latency for the whole run.
    pub(super) base: Duration,
    /// Added to the base until the moment beside it.
    pub(super) extra: (Duration, Duration),
    /// Bandwidth, in bytes per second.
    pub(super) bytes_per_s: u64,
    /// A lower bandwidth until the moment beside it.
    pub(super) squeezed: (u64, Duration),
    /// Share of transmissions that are lost.
    pub(super) loss: f64,
    /// Share of data segments with a flipped bit.
    pub(super) flip_chance: f64,
    /// Drops everything until healed.
    pub(super) cut: bool,
    /// Drops everything until this moment.
    pub(super) clogged_until: Duration,
    /// Since when it has been blocked; meaningful while it is.
    pub(super) blocked_since: Duration,
    /// When the last byte handed to it has left.
    pub(super) busy_until: Duration,
}

impl Link {
    /// A healthy link.
    pub(super) fn new(config: &NetConfig, base: Duration) -> Self {
        Link {
            base,
            extra: (Duration::ZERO, Duration::ZERO),
            bytes_per_s: config.bytes_per_s,
            squeezed: (u64::MAX, Duration::ZERO),
            loss: config.loss,
            flip_chance: config.flip_chance,
            cut: false,
            clogged_until: Duration::ZERO,
            blocked_since: Duration::ZERO,
            busy_until: Duration::ZERO,
        }
    }

    /// True while packets are dropped.
    pub(super) fn blocked(&self, now: Duration) -> bool {
        self.cut || now < self.clogged_until
    }

    /// Latency before chance is added.
    pub(super) fn latency(&self, now: Duration) -> Duration {
        let (extra, until) = self.extra;
        self.base + if now < until { extra } else { Duration::ZERO }
    }

    /// Bandwidth, in bytes per second.
    fn rate(&self, now: Duration) -> u64 {
        let (squeezed, until) = self.squeezed;
        let bound = if now < until { squeezed } else { u64::MAX };
        self.bytes_per_s.min(bound).max(1)
    }

    /// Everything that can be changed about the link but blocks: latency, rate, loss, flips.
    pub(super) fn manner(&self, now: Duration) -> (Duration, u64, f64, f64) {
        (
            self.latency(now),
            self.rate(now),
            self.loss,
            self.flip_chance,
        )
    }

    /// Hands `bytes` to the link; gives the moment at which the last one has left.
    pub(super) fn depart(&mut self, now: Duration, bytes: usize) -> Duration {
        let ns = (bytes as u64).saturating_mul(1_000_000_000) / self.rate(now);
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(ns);
        self.busy_until
    }

    /// Drops packets from `now` on, for ever or until a moment.
    pub(super) fn block(&mut self, now: Duration, until: Option<Duration>) {
        if !self.blocked(now) {
            self.blocked_since = now;
        }
        match until {
            Some(until) => self.clogged_until = self.clogged_until.max(until),
            None => self.cut = true,
        }
    }

    /// Lets packets pass.
    pub(super) fn heal(&mut self) {
        self.cut = false;
        self.clogged_until = Duration::ZERO;
    }
}
