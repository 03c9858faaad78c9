//! How a network behaves when nobody interferes: latencies, bandwidth, loss, windows and time-outs.
//!
//! A run takes [`NetConfig::default`] (a calm data centre) or draws one per seed. Ranges are inclusive.

use rand::Rng;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An inclusive range of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Span {
    /// From `min` to `max` microseconds.
    pub const fn micros(min: u64, max: u64) -> Self {
        Span {
            min: Duration::from_micros(min),
            max: Duration::from_micros(max),
        }
    }

    /// A span of the range.
    pub fn draw(&self, rng: &mut impl Rng) -> Duration {
        let (min, max) = (nanos(self.min), nanos(self.max));
        Duration::from_nanos(rng.random_range(min..=max.max(min)))
    }
}

/// `span` in nanoseconds; spans of the network are far below the bound.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The calm behaviour of all links and connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// One-way latency that an ordered pair of hosts has for the whole run; drawn per pair.
    pub base: Span,
    /// Added per segment, from zero to this.
    pub jitter: Duration,
    /// Share of segments that come later still.
    pub tail_chance: f64,
    /// By how much those are late.
    pub tail: Span,
    /// Latency within one host.
    pub loopback: Span,
    /// Bandwidth of each link, in bytes per second; segments of all connections of the link queue for it.
    pub bytes_per_s: u64,
    /// Share of transmissions that are lost and sent again after [`NetConfig::rto_min`], doubled each time.
    pub loss: f64,
    /// Share of data segments in which a bit is flipped on its way; TCP's checksum does not always notice.
    pub flip_chance: f64,
    /// Bytes that may be under way or unread in one direction of a connection.
    pub window_bytes: usize,
    /// Share of reads and writes that do only a part of what they could.
    pub partial_chance: f64,
    /// First wait before a lost segment is sent again.
    pub rto_min: Duration,
    /// Longest wait before a lost segment is sent again: delivery resumes so soon after a heal.
    pub rto_max: Duration,
    /// How long unacknowledged data is sent again before the sender's connection fails (`TCP_USER_TIMEOUT`).
    pub give_up: Duration,
    /// First wait before an unanswered connection attempt is repeated, doubled each time.
    pub syn_retry: Duration,
    /// How long a connection is attempted.
    pub connect_timeout: Duration,
    /// Connections that may wait to be accepted at one listener.
    pub backlog_len_max: usize,
}

impl Default for NetConfig {
    fn default() -> Self {
        NetConfig {
            base: Span::micros(100, 900),
            jitter: Duration::from_micros(200),
            tail_chance: 0.002,
            tail: Span::micros(1_000, 20_000),
            loopback: Span::micros(20, 50),
            bytes_per_s: 125_000_000,
            loss: 0.0,
            flip_chance: 0.0,
            window_bytes: 256 << 10,
            partial_chance: 0.01,
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(3),
            give_up: Duration::from_secs(15),
            syn_retry: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(127),
            backlog_len_max: 1024,
        }
    }
}

impl NetConfig {
    /// A network of this seed: from one rack to three continents, from clean to lossy, windows from 16 KiB to 1 MiB.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let near = rng.random_range(50..=300);
        let far = near + [200, 1_000, 10_000, 60_000][rng.random_range(0..4)];
        NetConfig {
            base: Span::micros(near, far),
            jitter: Duration::from_micros(rng.random_range(0..=far / 4)),
            // In millionths: such a number survives being written down and read.
            tail_chance: f64::from(rng.random_range(1_000..10_000_u32)) / 1e6,
            tail: Span::micros(1_000, rng.random_range(5_000..=100_000)),
            bytes_per_s: [12_500_000, 125_000_000, 1_250_000_000][rng.random_range(0..3)],
            loss: [0.0, 0.0, 0.0005, 0.01][rng.random_range(0..4)],
            window_bytes: 1 << rng.random_range(14..=20),
            partial_chance: [0.0, 0.01, 0.2][rng.random_range(0..3)],
            ..NetConfig::default()
        }
    }
}
