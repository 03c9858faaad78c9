//! Every internal number in one table: what it is, its default, and the range that simulation draws it from.
//!
//! Operators set [`crate::config::Config`]; knobs are ours. A knob exists only when a bound or a trade-off needs a number.

use std::time::Duration;

/// How fast a group's clocks tick: the operator's choice of profile (inventory X-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One rack or room: heartbeat 50 ms, election 150-300 ms.
    Lan,
    /// Between rooms or small sites (default): heartbeat 100 ms, election 500-1000 ms.
    Edge,
    /// Between cities: heartbeat 200 ms, election 1000-2000 ms.
    Wan,
}

/// Timings of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One raft-rs tick.
    pub tick: Duration,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Least ticks of silence before an election.
    pub election_ticks_min: usize,
    /// Ticks of silence that are always too many (exclusive bound of the draw).
    pub election_ticks_max: usize,
}

impl Profile {
    /// The timings.
    pub fn timing(self) -> Timing {
        let (tick_ms, heartbeat_ticks, election_ticks_min, election_ticks_max) = match self {
            Profile::Lan => (10, 5, 15, 30),
            Profile::Edge => (50, 2, 10, 20),
            Profile::Wan => (100, 2, 10, 20),
        };
        Timing {
            tick: Duration::from_millis(tick_ms),
            heartbeat_ticks,
            election_ticks_min,
            election_ticks_max,
        }
    }

    /// The longest silence after which an election has surely begun.
    pub fn election_max(self) -> Duration {
        let timing = self.timing();
        timing.tick * u32::try_from(timing.election_ticks_max).unwrap_or(u32::MAX)
    }
}

macro_rules! knobs {
    ($($(#[$meta:meta])* $name:ident: $kind:ty = $default:expr, $range:expr;)*) => {
        /// The internal numbers of one node.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct Knobs {
            $($(#[$meta])* pub $name: $kind,)*
        }

        impl Default for Knobs {
            fn default() -> Self {
                Knobs { $($name: $default,)* }
            }
        }

        impl Knobs {
            /// Every knob drawn from its simulation range: `draw(low, high)` gives a number in `low..=high`.
            pub fn drawn(mut draw: impl FnMut(u64, u64) -> u64) -> Self {
                $(let $name = { let range: (u64, u64) = $range; draw(range.0, range.1) };)*
                Knobs { $($name: FromDraw::from_draw($name),)* }
            }

            /// Name, value and simulation range of every knob, for `/stats` and documents.
            pub fn table(&self) -> Vec<(&'static str, String, (u64, u64))> {
                vec![$((stringify!($name), format!("{:?}", self.$name), $range),)*]
            }
        }
    };
}

/// A knob's value from a drawn number (milliseconds for durations).
trait FromDraw {
    /// The value.
    fn from_draw(number: u64) -> Self;
}

impl FromDraw for usize {
    fn from_draw(number: u64) -> Self {
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

impl FromDraw for u64 {
    fn from_draw(number: u64) -> Self {
        number
    }
}

impl FromDraw for Duration {
    fn from_draw(number: u64) -> Self {
        Duration::from_millis(number)
    }
}

knobs! {
    /// Size of a WAL segment file, bytes.
    segment_bytes: u64 = 16 << 20, (64 << 10, 512 << 10);
    /// Entries between snapshots (inventory K-K1, T-23).
    snapshot_entries: u64 = 10_000, (50, 2_000);
    /// Entries kept in the log below a snapshot, for followers that are a little behind (inventory K-K7).
    snapshot_margin: u64 = 100, (5, 100);
    /// Log bytes since the last snapshot that force one whatever the entry count, bytes.
    snapshot_log_bytes: u64 = 64 << 20, (64 << 10, 4 << 20);
    /// A snapshot by entries waits until the log since the last one has at least this share of its size, percent: bounds
    /// write amplification.
    snapshot_ratio_percent: u64 = 100, (10, 200);
    /// Snapshot files kept.
    snapshots_kept: usize = 2, (1, 3);
    /// Bytes of one snapshot chunk on the wire.
    snapshot_chunk_bytes: usize = 256 << 10, (1 << 10, 64 << 10);
    /// Proposals, reads and admin requests waiting for the node's loop.
    request_queue_len_max: usize = 4096, (64, 1024);
    /// Raft messages waiting for the node's loop.
    inbox_len_max: usize = 4096, (64, 1024);
    /// Requests handled per turn of the loop.
    turn_len_max: usize = 256, (1, 64);
    /// Frames waiting for one peer connection; more are dropped and the peer is reported unreachable.
    peer_queue_len_max: usize = 1024, (32, 512);
    /// Forwarded requests under way from one peer.
    forward_len_max: usize = 2048, (32, 512);
    /// Connections from peers open at a time; more are closed at once.
    peer_connections_max: usize = 256, (64, 256);
    /// Largest frame between peers, bytes.
    frame_bytes_max: usize = 64 << 20, (8 << 20, 8 << 20);
    /// Largest append message, bytes.
    append_bytes_max: u64 = 1 << 20, (4 << 10, 256 << 10);
    /// Append messages in flight to one follower.
    append_inflight_max: usize = 256, (2, 64);
    /// Proposed bytes not yet committed.
    uncommitted_bytes_max: u64 = 64 << 20, (1 << 20, 16 << 20);
    /// Time to connect to a peer and shake hands.
    connect_timeout: Duration = Duration::from_millis(1_000), (300, 1_500);
    /// First pause before connecting again.
    reconnect_min: Duration = Duration::from_millis(20), (10, 50);
    /// Longest pause before connecting again.
    reconnect_max: Duration = Duration::from_millis(500), (200, 1_000);
    /// Silence on a peer connection that has something to say, after which it is dropped.
    peer_idle_timeout: Duration = Duration::from_millis(5_000), (1_500, 5_000);
    /// Longest time a client's request may take when it names no limit.
    request_timeout: Duration = Duration::from_millis(5_000), (2_000, 5_000);
    /// Silence on a watch after which the client is told how far it has been looked.
    watch_progress: Duration = Duration::from_millis(5_000), (500, 3_000);
    /// A lost read-index request is asked again after this.
    read_retry: Duration = Duration::from_millis(300), (100, 500);
    /// Silence of a snapshot transfer after which the leader gives it up.
    snapshot_timeout: Duration = Duration::from_millis(10_000), (2_000, 6_000);
    /// How often the free space of the disk is looked at.
    disk_check: Duration = Duration::from_millis(1_000), (200, 1_000);
    /// Free bytes below which the node takes no more writes (at least 4 segments; inventory T-34).
    disk_low_bytes: u64 = 256 << 20, (2 << 20, 4 << 20);
    /// Longest orderly stop: leadership transfer included.
    stop_timeout: Duration = Duration::from_millis(5_000), (2_000, 5_000);
    /// Sessions remembered; the least recently used is forgotten beyond.
    sessions_max: u64 = 10_000, (8, 64);
    /// Revisions of history kept when nobody compacts by hand.
    history_revisions: u64 = 100_000, (200, 5_000);
    /// Entries that may wait to be applied before the loop stops taking requests.
    apply_backlog_max: usize = 8_192, (64, 2_048);
    /// Block cache of the store, bytes.
    store_cache_bytes: u64 = 32 << 20, (64 << 10, 512 << 10);
    /// Records that the applier keeps in memory because it read or wrote them lately, bytes, about.
    store_recent_bytes: usize = 16 << 20, (1 << 10, 64 << 10);
    /// Memtable of the store, bytes.
    store_memtable_bytes: u64 = 32 << 20, (16 << 10, 256 << 10);
    /// Between two heartbeats of a worker.
    worker_heartbeat: Duration = Duration::from_millis(1_000), (500, 1_000);
    /// How long before the end of a worker's lease the last process that needs it has been killed: room for a late step.
    worker_lease_margin: Duration = Duration::from_millis(1_000), (500, 2_000);
    /// Longest grace of a task that stops because its worker's lease runs out.
    worker_lease_grace_max: Duration = Duration::from_millis(5_000), (1_000, 5_000);
    /// Longest pause between two health checks of a task until the first that succeeds.
    worker_probe: Duration = Duration::from_millis(1_000), (200, 2_000);
    /// Pause before a process that did not die is killed again.
    worker_kill_retry: Duration = Duration::from_millis(5_000), (1_000, 5_000);
    /// Length at which what a task has written is put aside, bytes.
    task_log_bytes: u64 = 10 << 20, (1 << 10, 64 << 10);
    /// Older parts of it that are kept.
    task_logs_kept: usize = 2, (1, 3);
    /// Longest time a manager gets to take a worker's connection, and to answer one of its calls.
    worker_call_timeout: Duration = Duration::from_millis(2_500), (1_000, 3_000);
    /// Longest time a manager holds a worker's question for assignments while there is nothing new.
    worker_poll_wait: Duration = Duration::from_millis(20_000), (1_000, 20_000);
    /// First pause of a worker before it tries the next manager; doubles with each failure, and is drawn from its upper half.
    worker_retry_min: Duration = Duration::from_millis(100), (20, 300);
    /// Longest such pause.
    worker_retry_max: Duration = Duration::from_millis(5_000), (500, 5_000);
    /// Time without an answer from any manager after which a worker gives its session up and says hello again.
    worker_patience: Duration = Duration::from_millis(5_000), (2_000, 8_000);
    /// Reports in one call at most.
    worker_report_len_max: usize = 256, (1, 64);
    /// Pause before a worker's state that could not be written is written again, and before an executor that does not answer is
    /// asked again.
    worker_save_retry: Duration = Duration::from_millis(1_000), (100, 2_000);
    /// Between two looks at what tasks have written.
    worker_tidy: Duration = Duration::from_millis(5_000), (1_000, 10_000);
    /// Results of an executor, and news of managers, that wait for a worker's loop.
    worker_queue_len_max: usize = 1_024, (4, 256);
    /// Silence after which a worker is marked down (inventory T-8).
    worker_down: Duration = Duration::from_millis(30_000), (5_000, 30_000);
    /// Time for which a worker may run tasks with single-writer volumes after a heartbeat that was answered.
    worker_lease: Duration = Duration::from_millis(30_000), (10_000, 30_000);
    /// Calls of workers that wait for one step of the leader's manager; more are refused as overload.
    worker_calls_max: usize = 4_096, (64, 1_024);
    /// Hellos of workers that are proposed at a time; more wait for those, as many as other calls may.
    worker_hellos_max: usize = 256, (8, 64);
    /// How long workers' reports gather for one entry.
    report_gather: Duration = Duration::from_millis(3), (1, 10);
    /// Bytes of workers' reports in one entry, about.
    report_bytes_max: usize = 512 << 10, (4 << 10, 64 << 10);
    /// Changes of a plan in one entry.
    plan_changes_max: usize = 1_000, (5, 200);
    /// Bytes of a plan in one entry, about.
    plan_bytes_max: usize = 512 << 10, (4 << 10, 64 << 10);
    /// Least pause between two passes of the reconciler.
    reconcile_pause: Duration = Duration::from_millis(5), (1, 20);
    /// Pause of the manager after something that failed.
    manager_retry: Duration = Duration::from_millis(500), (100, 1_000);
    /// How long a leader waits for an append that tells its followers what is committed before it does so with a message of its own.
    commit_told_within: Duration = Duration::from_millis(1), (1, 20);
}
