//! The numbers a node tells of itself, in the Prometheus text format (0.0.4).
//!
//! One [`Metrics`] per node instance, over a recorder of its own: there is no global recorder, so the nodes of one
//! process (`dev`, the simulator) never mix their numbers. Names, kinds, words and buckets stand in three tables below;
//! series without labels are registered when the recorder is built, so that they are on the page from the first scrape.
//! Histograms have fixed buckets: no summaries and no idle time-outs, which would need a clock.
//!
//! Traps: histogram samples are kept raw until somebody renders the page, so [`Metrics::upkeep`] must be called now
//! and then (the HTTP door does); and `quanta`, which the recorder brings along, calibrates itself on first use by
//! spinning on the clock, so the simulator must have called `quanta::Instant::now()` once before its first run.
//! Seven gauges have documented names that end in `_total`, like a counter's, and keep them: docs/decisions/gauges-named-total.md.

mod fleet;

pub(crate) use fleet::Tally;

use crate::handle::{MemberStatus, Status};
use crate::types::Role;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where our series come from, as the facade wants to know.
const SOURCE: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Bounds of the buckets of things that wait for disk or network, seconds.
const SLOW_SECONDS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// Bounds of the buckets of things done in memory or cache, seconds.
const FAST_SECONDS: [f64; 12] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25, 1.0,
];

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, with these bounds.
    Histogram(&'static [f64]),
}

/// One name on the page.
struct Family {
    /// Name.
    name: &'static str,
    /// Kind.
    kind: Kind,
    /// What the number says.
    help: &'static str,
}

/// A row of the table below.
const fn family(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name, kind, help }
}

/// Every name a node tells, with its meaning.
const FAMILIES: &[Family] = &[
    family(
        "seaworthy_raft_is_leader",
        Kind::Gauge,
        "1 when this node leads, else 0. The sum over a cluster is 1.",
    ),
    family(
        "seaworthy_raft_peers_total",
        Kind::Gauge,
        "Members of the cluster as applied here, this node included.",
    ),
    family(
        "seaworthy_raft_log_index",
        Kind::Gauge,
        "Last entry in this node's log.",
    ),
    family(
        "seaworthy_raft_applied_index",
        Kind::Gauge,
        "Last entry applied to the state.",
    ),
    family(
        "seaworthy_raft_commit_index",
        Kind::Gauge,
        "Last entry known to be committed.",
    ),
    family("seaworthy_raft_term", Kind::Gauge, "Current term."),
    family(
        "seaworthy_raft_commit_duration_seconds",
        Kind::Histogram(&SLOW_SECONDS),
        "Time from proposing an entry to its commit, on the leader.",
    ),
    family(
        "seaworthy_raft_elections_total",
        Kind::Counter,
        "Elections seen since this node started.",
    ),
    family(
        "seaworthy_raft_replication_lag_entries",
        Kind::Gauge,
        "Entries a peer is behind the leader's last; told by the leader alone.",
    ),
    family(
        "seaworthy_raft_apply_lag_entries",
        Kind::Gauge,
        "Committed entries that are not applied yet.",
    ),
    family(
        "seaworthy_raft_log_entries_total",
        Kind::Gauge,
        "Entries kept in this node's log.",
    ),
    family(
        "seaworthy_http_requests_total",
        Kind::Counter,
        "HTTP requests answered, by method, route and status.",
    ),
    family(
        "seaworthy_http_request_duration_seconds",
        Kind::Histogram(&SLOW_SECONDS),
        "Time from a request's head to its answer's head, by route.",
    ),
    family(
        "seaworthy_http_connections",
        Kind::Gauge,
        "Open client connections.",
    ),
    family(
        "seaworthy_http_connections_refused_total",
        Kind::Counter,
        "Client connections refused because too many were open.",
    ),
    family(
        "seaworthy_storage_keys_total",
        Kind::Gauge,
        "Keys in the store.",
    ),
    family(
        "seaworthy_storage_operations_total",
        Kind::Counter,
        "Operations on the store, by operation and status.",
    ),
    family(
        "seaworthy_storage_operation_duration_seconds",
        Kind::Histogram(&FAST_SECONDS),
        "Time of one operation on the store, by operation.",
    ),
    family(
        "seaworthy_wal_size_bytes",
        Kind::Gauge,
        "Bytes of the log's segment files.",
    ),
    family(
        "seaworthy_wal_segments_total",
        Kind::Gauge,
        "Segment files of the log.",
    ),
    family(
        "seaworthy_wal_sync_duration_seconds",
        Kind::Histogram(&SLOW_SECONDS),
        "Time until an append to the log is durable.",
    ),
    family(
        "seaworthy_snapshots_total",
        Kind::Counter,
        "Snapshots cut or installed since this node started.",
    ),
    family(
        "seaworthy_disk_free_bytes",
        Kind::Gauge,
        "Bytes free where the data directory lies.",
    ),
    family(
        "seaworthy_read_only",
        Kind::Gauge,
        "1 when writes are refused for want of disk space, else 0.",
    ),
    family(
        "seaworthy_nodes_total",
        Kind::Gauge,
        "Managers that are active, silent or learner, workers that are joining, ready or down; told by the leader alone.",
    ),
];

/// Every name, those of orchestration included.
fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().chain(fleet::FAMILIES)
}

/// The numbers of one node. A clone is the same numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

/// What the clones share.
struct Inner {
    /// Where labelled series are found or made.
    recorder: PrometheusRecorder,
    /// Renders the page.
    page: PrometheusHandle,
    /// The series without labels.
    plain: Plain,
    /// The series of each answer given so far; as many as the route table allows. Found here they cost a look, in the recorder
    /// a key with its labels to be made and hashed.
    answers: Mutex<BTreeMap<Answer, (Counter, Histogram)>>,
    /// Peers whose lag has been told: it is set to zero when nobody tells it any more, lest an old number stay.
    told: Mutex<BTreeSet<String>>,
}

/// What tells the series of answers apart: route, method, status.
type Answer = (&'static str, &'static str, u16);

/// The series without labels.
struct Plain {
    /// `seaworthy_raft_is_leader`.
    is_leader: Gauge,
    /// `seaworthy_raft_peers_total`.
    peers: Gauge,
    /// `seaworthy_raft_log_index`.
    log_index: Gauge,
    /// `seaworthy_raft_applied_index`.
    applied_index: Gauge,
    /// `seaworthy_raft_commit_index`.
    commit_index: Gauge,
    /// `seaworthy_raft_term`.
    term: Gauge,
    /// `seaworthy_raft_commit_duration_seconds`.
    commit_seconds: Histogram,
    /// `seaworthy_raft_elections_total`.
    elections: Counter,
    /// `seaworthy_raft_apply_lag_entries`.
    apply_lag: Gauge,
    /// `seaworthy_raft_log_entries_total`.
    log_entries: Gauge,
    /// `seaworthy_http_connections`.
    connections: Gauge,
    /// `seaworthy_http_connections_refused_total`.
    connections_refused: Counter,
    /// `seaworthy_storage_keys_total`.
    keys: Gauge,
    /// `seaworthy_wal_size_bytes`.
    wal_bytes: Gauge,
    /// `seaworthy_wal_segments_total`.
    wal_segments: Gauge,
    /// `seaworthy_wal_sync_duration_seconds`.
    sync_seconds: Histogram,
    /// `seaworthy_snapshots_total`.
    snapshots: Counter,
    /// `seaworthy_disk_free_bytes`.
    disk_free: Gauge,
    /// `seaworthy_read_only`.
    read_only: Gauge,
}

impl Plain {
    /// Registers all of them, so that each is on the page from the start.
    fn register(recorder: &PrometheusRecorder) -> Plain {
        let gauge = |name| recorder.register_gauge(&Key::from_static_name(name), &SOURCE);
        let counter = |name| recorder.register_counter(&Key::from_static_name(name), &SOURCE);
        let histogram = |name| recorder.register_histogram(&Key::from_static_name(name), &SOURCE);
        Plain {
            is_leader: gauge("seaworthy_raft_is_leader"),
            peers: gauge("seaworthy_raft_peers_total"),
            log_index: gauge("seaworthy_raft_log_index"),
            applied_index: gauge("seaworthy_raft_applied_index"),
            commit_index: gauge("seaworthy_raft_commit_index"),
            term: gauge("seaworthy_raft_term"),
            commit_seconds: histogram("seaworthy_raft_commit_duration_seconds"),
            elections: counter("seaworthy_raft_elections_total"),
            apply_lag: gauge("seaworthy_raft_apply_lag_entries"),
            log_entries: gauge("seaworthy_raft_log_entries_total"),
            connections: gauge("seaworthy_http_connections"),
            connections_refused: counter("seaworthy_http_connections_refused_total"),
            keys: gauge("seaworthy_storage_keys_total"),
            wal_bytes: gauge("seaworthy_wal_size_bytes"),
            wal_segments: gauge("seaworthy_wal_segments_total"),
            sync_seconds: histogram("seaworthy_wal_sync_duration_seconds"),
            snapshots: counter("seaworthy_snapshots_total"),
            disk_free: gauge("seaworthy_disk_free_bytes"),
            read_only: gauge("seaworthy_read_only"),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Metrics")
    }
}

impl Metrics {
    /// All numbers at zero.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for family in families() {
            if let Kind::Histogram(bounds) = family.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(family.name.to_owned()), bounds)
                    .expect("no bucket list of the table is empty");
            }
        }
        let recorder = builder.build_recorder();
        describe(&recorder);
        let metrics = Metrics(Arc::new(Inner {
            page: recorder.handle(),
            plain: Plain::register(&recorder),
            recorder,
            answers: Mutex::default(),
            told: Mutex::default(),
        }));
        metrics.begin_fleet();
        metrics
    }

    /// The page, families and series in order of their names.
    pub fn render(&self) -> String {
        in_order(&self.0.page.render())
    }

    /// Sorts raw histogram samples into their buckets, which frees them. Call it every few seconds.
    pub fn upkeep(&self) {
        self.0.page.run_upkeep();
    }

    /// Everything a node's picture tells; to be called whenever it changes.
    pub fn observe_status(&self, status: &Status) {
        let (first, last) = (status.first_index.0, status.last_index.0);
        self.set_leader(status.role == Role::Leader);
        self.set_peers(status.members.len() as u64);
        self.set_log(last, (last + 1).saturating_sub(first));
        self.set_progress(status.commit_index.0, status.applied_index.0);
        self.set_term(status.term.0);
        self.set_keys(status.key_count);
        self.set_elections(status.elections);
        self.set_read_only(status.read_only);
        self.observe_members(&status.members);
    }

    /// Lag and activity of the members, which the leader alone knows; elsewhere they are zero.
    fn observe_members(&self, members: &[MemberStatus]) {
        let lags: BTreeMap<String, u64> = members
            .iter()
            .filter_map(|one| Some((one.member.name.clone(), one.replication_lag?)))
            .collect();
        let mut told = self
            .0
            .told
            .lock()
            .expect("nobody panics while holding the list");
        told.extend(lags.keys().cloned());
        for peer in told.iter() {
            let lag = lags.get(peer).copied().unwrap_or_default();
            self.set_replication_lag(peer, lag);
        }
        told.retain(|peer| lags.contains_key(peer));
        for status in ["active", "silent", "learner"] {
            let count = members.iter().filter(|one| standing(one) == Some(status));
            self.set_nodes("manager", status, count.count() as u64);
        }
    }

    /// Whether this node leads.
    fn set_leader(&self, leads: bool) {
        self.0.plain.is_leader.set(flag(leads));
    }

    /// Members of the cluster.
    fn set_peers(&self, count: u64) {
        self.0.plain.peers.set(float(count));
    }

    /// Last entry in the log and number of entries kept.
    fn set_log(&self, last_index: u64, entries: u64) {
        self.0.plain.log_index.set(float(last_index));
        self.0.plain.log_entries.set(float(entries));
    }

    /// Last committed and last applied entry; the difference is the apply lag.
    fn set_progress(&self, commit_index: u64, applied_index: u64) {
        self.0.plain.commit_index.set(float(commit_index));
        self.0.plain.applied_index.set(float(applied_index));
        let lag = commit_index.saturating_sub(applied_index);
        self.0.plain.apply_lag.set(float(lag));
    }

    /// Current term.
    fn set_term(&self, term: u64) {
        self.0.plain.term.set(float(term));
    }

    /// Elections seen since the start.
    fn set_elections(&self, seen: u64) {
        self.0.plain.elections.absolute(seen);
    }

    /// An entry was committed this long after it was proposed here.
    pub fn observe_commit(&self, took: Duration) {
        self.0.plain.commit_seconds.record(took.as_secs_f64());
    }

    /// Entries `peer` is behind.
    fn set_replication_lag(&self, peer: &str, entries: u64) {
        let labels = vec![Label::new("peer", peer.to_owned())];
        self.gauge("seaworthy_raft_replication_lag_entries", labels)
            .set(float(entries));
    }

    /// Nodes of a role in `status`.
    fn set_nodes(&self, role: &'static str, status: &'static str, count: u64) {
        let labels = vec![
            Label::from_static_parts("role", role),
            Label::from_static_parts("status", status),
        ];
        self.gauge("seaworthy_nodes_total", labels)
            .set(float(count));
    }

    /// A request was answered.
    pub fn observe_http(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        let mut answers = self
            .0
            .answers
            .lock()
            .expect("nobody panics while holding the list");
        let series = answers.entry((route, method, status));
        let (count, seconds) =
            series.or_insert_with(|| self.register_answer(method, route, status));
        count.increment(1);
        seconds.record(took.as_secs_f64());
    }

    /// The series of an answer that was not given before.
    fn register_answer(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
    ) -> (Counter, Histogram) {
        let route = Label::from_static_parts("route", route);
        let labels = vec![
            Label::from_static_parts("method", method),
            route.clone(),
            Label::new("status", status.to_string()),
        ];
        let count = self.counter("seaworthy_http_requests_total", labels);
        (
            count,
            self.histogram("seaworthy_http_request_duration_seconds", vec![route]),
        )
    }

    /// Open client connections.
    pub fn set_connections(&self, open: usize) {
        self.0.plain.connections.set(open as f64);
    }

    /// A client connection was refused.
    pub fn count_refused_connection(&self) {
        self.0.plain.connections_refused.increment(1);
    }

    /// Keys in the store.
    fn set_keys(&self, count: u64) {
        self.0.plain.keys.set(float(count));
    }

    /// An operation on the store ended.
    pub fn observe_storage(&self, operation: &'static str, status: &'static str, took: Duration) {
        let operation = Label::from_static_parts("operation", operation);
        let labels = vec![
            operation.clone(),
            Label::from_static_parts("status", status),
        ];
        self.counter("seaworthy_storage_operations_total", labels)
            .increment(1);
        self.histogram(
            "seaworthy_storage_operation_duration_seconds",
            vec![operation],
        )
        .record(took.as_secs_f64());
    }

    /// Size of the log's files, bytes, and their number.
    pub fn set_wal(&self, bytes: u64, segments: u64) {
        self.0.plain.wal_bytes.set(float(bytes));
        self.0.plain.wal_segments.set(float(segments));
    }

    /// An append became durable after this long.
    pub fn observe_sync(&self, took: Duration) {
        self.0.plain.sync_seconds.record(took.as_secs_f64());
    }

    /// A snapshot was cut or installed.
    pub fn count_snapshot(&self) {
        self.0.plain.snapshots.increment(1);
    }

    /// Bytes free on the data disk.
    pub fn set_disk_free(&self, bytes: u64) {
        self.0.plain.disk_free.set(float(bytes));
    }

    /// Whether writes are refused for want of disk space.
    fn set_read_only(&self, on: bool) {
        self.0.plain.read_only.set(flag(on));
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        let key = Key::from_parts(name, labels);
        self.0.recorder.register_gauge(&key, &SOURCE)
    }

    fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        let key = Key::from_parts(name, labels);
        self.0.recorder.register_counter(&key, &SOURCE)
    }

    fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        let key = Key::from_parts(name, labels);
        self.0.recorder.register_histogram(&key, &SOURCE)
    }
}

/// Gives every family its HELP line.
fn describe(recorder: &PrometheusRecorder) {
    for family in families() {
        let (name, help) = (family.name.into(), family.help.into());
        match family.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
}

/// How a member stands, as far as the leader knows.
fn standing(member: &MemberStatus) -> Option<&'static str> {
    match (member.active?, member.role) {
        (false, _) => Some("silent"),
        (true, Role::Learner) => Some("learner"),
        (true, Role::Leader | Role::Follower | Role::Candidate) => Some("active"),
    }
}

/// A count as the float Prometheus wants; exact up to 2^53.
fn float(number: u64) -> f64 {
    number as f64
}

/// 1 or 0.
fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

/// The same page with families and series in order: the recorder keeps them in hash maps, whose order differs between runs.
/// Lines of one series (the buckets of a histogram) keep their order.
fn in_order(page: &str) -> String {
    let mut families: BTreeMap<&str, String> = BTreeMap::new();
    for block in page.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let name = block
            .lines()
            .find_map(|line| line.strip_prefix("# TYPE "))
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_default();
        families.insert(name, series_in_order(block));
    }
    families.into_values().collect()
}

/// One family with its series in order, heading first.
fn series_in_order(block: &str) -> String {
    let mut lines: Vec<&str> = block.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_by_cached_key(|line| (!line.starts_with('#'), series_of(line)));
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

/// The labels of a sample line without its bucket: what makes it one series.
fn series_of(line: &str) -> String {
    if line.starts_with('#') {
        return String::new();
    }
    let labels = line
        .split_once('{')
        .and_then(|(_, rest)| rest.rsplit_once('}'));
    let labels = labels.map_or("", |(inside, _)| inside);
    // Its own label, not the end of another's name.
    let bucket = match labels.starts_with("le=\"") {
        true => Some(0),
        false => labels.find(",le=\""),
    };
    labels[..bucket.unwrap_or(labels.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Metrics {
        let metrics = Metrics::new();
        metrics.set_leader(true);
        metrics.set_progress(12, 9);
        metrics.observe_commit(Duration::from_millis(3));
        metrics.observe_http("GET", "/health", 200, Duration::from_millis(1));
        metrics.observe_http("PUT", "/v1/kv/{key}", 200, Duration::from_millis(1));
        metrics.observe_storage("put", "success", Duration::from_micros(20));
        metrics.set_replication_lag("2", 4);
        metrics.set_nodes("manager", "active", 3);
        metrics
    }

    #[test]
    fn every_family_is_described_and_typed() {
        let page = busy().render();
        for family in families() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let (help, kind) = (
                format!("# HELP {} ", family.name),
                format!("# TYPE {} {kind}\n", family.name),
            );
            // A labelled histogram or gauge may have no series yet; all others are there from the start.
            assert!(page.contains(&help), "no HELP for {}:\n{page}", family.name);
            assert!(page.contains(&kind), "no TYPE for {}:\n{page}", family.name);
        }
    }

    #[test]
    fn page_is_the_same_however_often_it_is_built() {
        let first = busy().render();
        for _ in 0..5 {
            assert_eq!(busy().render(), first);
        }
        assert!(first.contains("seaworthy_raft_apply_lag_entries 3\n"));
        assert!(first.contains("seaworthy_raft_replication_lag_entries{peer=\"2\"} 4\n"));
    }

    /// Gauges that are called like counters in the runbooks (docs/decisions/gauges-named-total.md).
    const CALLED_TOTAL: [&str; 7] = [
        "seaworthy_nodes_total",
        "seaworthy_raft_log_entries_total",
        "seaworthy_raft_peers_total",
        "seaworthy_services_total",
        "seaworthy_storage_keys_total",
        "seaworthy_tasks_total",
        "seaworthy_wal_segments_total",
    ];

    #[test]
    fn names_and_lines_follow_prometheus_rules() {
        for family in families() {
            if family.kind == Kind::Gauge && family.name.ends_with("_total") {
                assert!(CALLED_TOTAL.contains(&family.name), "{}", family.name);
            }
            if family.kind == Kind::Counter {
                assert!(family.name.ends_with("_total"), "{}", family.name);
            }
            if matches!(family.kind, Kind::Histogram(_)) {
                assert!(family.name.ends_with("_seconds"), "{}", family.name);
            }
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
        let mut typed = "";
        let page = busy().render();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                typed = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(typed), "{line} stands under {typed}");
                let number = line.rsplit(' ').next().unwrap();
                assert!(number.parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn picture_is_told_and_a_lost_leadership_takes_its_lags_back() {
        let metrics = Metrics::new();
        let mut picture = crate::api::fake::status();
        picture.members[1].replication_lag = Some(7);
        metrics.observe_status(&picture);
        let page = metrics.render();
        for line in [
            "seaworthy_raft_is_leader 1",
            "seaworthy_raft_peers_total 2",
            "seaworthy_raft_log_entries_total 4",
            "seaworthy_raft_elections_total 1",
            "seaworthy_raft_replication_lag_entries{peer=\"n2\"} 7",
            "seaworthy_nodes_total{role=\"manager\",status=\"active\"} 1",
            "seaworthy_nodes_total{role=\"manager\",status=\"learner\"} 1",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line}: {page}");
        }
        picture.role = Role::Follower;
        for member in &mut picture.members {
            (member.replication_lag, member.active) = (None, None);
        }
        metrics.observe_status(&picture);
        let page = metrics.render();
        assert!(page.contains("seaworthy_raft_replication_lag_entries{peer=\"n2\"} 0\n"));
        assert!(page.contains("seaworthy_nodes_total{role=\"manager\",status=\"active\"} 0\n"));
    }

    #[test]
    fn buckets_grow_and_end_at_the_count() {
        let page = busy().render();
        let counts: Vec<u64> = page
            .lines()
            .filter(|line| line.starts_with("seaworthy_raft_commit_duration_seconds_bucket"))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(counts.len(), SLOW_SECONDS.len() + 1);
        assert!(counts.is_sorted());
        assert_eq!(counts.last(), Some(&1));
    }
}
