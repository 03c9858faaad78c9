//! The numbers: counted by the clients, told to people and programs.

use super::cost::Difference;
use crate::cli::args::{Bench, Op};
use crate::cli::table;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest latency told apart, microseconds (ten minutes).
const LATENCY_US_MAX: u64 = 600_000_000;

/// What the clients counted.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latencies, microseconds.
    latencies: Histogram<u64>,
    /// Requests answered well within the window.
    pub finished: u64,
    /// Requests that failed.
    pub errors: u64,
    /// The same by kind.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Requests that were due but never got their turn.
    pub unserved: u64,
}

impl Tally {
    /// Nothing counted.
    pub fn new() -> Self {
        Tally {
            latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("the bounds are in order and three digits are allowed"),
            finished: 0,
            errors: 0,
            errors_by_kind: BTreeMap::new(),
            unserved: 0,
        }
    }

    /// A request answered well; `in_time` within the window.
    pub fn done(&mut self, latency: Duration, in_time: bool) {
        self.finished += u64::from(in_time);
        self.record(latency);
    }

    /// A request that failed.
    pub fn failed(&mut self, kind: &str) {
        self.errors += 1;
        *self.errors_by_kind.entry(kind.to_owned()).or_default() += 1;
    }

    /// A request that was due `waited` ago and never began.
    pub fn unserved(&mut self, waited: Duration) {
        self.unserved += 1;
        self.record(waited);
    }

    /// Takes over what `other` counted.
    pub fn add(&mut self, other: &Tally) {
        let same = "all histograms have the same bounds";
        self.latencies.add(&other.latencies).expect(same);
        self.finished += other.finished;
        self.errors += other.errors;
        self.unserved += other.unserved;
        for (kind, count) in &other.errors_by_kind {
            *self.errors_by_kind.entry(kind.clone()).or_default() += count;
        }
    }

    /// The latency below which a share of `quantile` lies, milliseconds.
    pub fn millis(&self, quantile: f64) -> f64 {
        millis(self.latencies.value_at_quantile(quantile))
    }

    fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros.max(1));
    }
}

impl Default for Tally {
    fn default() -> Self {
        Tally::new()
    }
}

/// The result of a measurement.
#[derive(Clone, Debug)]
pub struct Report {
    /// Field and value, in the order of the table.
    fields: Vec<(&'static str, Value)>,
}

impl Report {
    /// The report of `tally`, as measured by `options`, at the cost of `costs`.
    pub(super) fn new(options: &Bench, tally: &Tally, costs: &Difference) -> Self {
        let seconds = options.duration.as_secs_f64();
        let at = |quantile| tally.millis(quantile);
        let each = |total: f64| rounded(total / tally.finished as f64);
        let op = match options.op {
            Op::Put => "put",
            Op::Get => "get",
            Op::Mixed => "mixed",
        };
        let mut fields = vec![
            ("op", json!(op)),
            ("clients", json!(options.clients)),
            ("duration_s", json!(seconds)),
            ("value_bytes", json!(options.value_bytes)),
            (
                "throughput_per_s",
                json!(rounded(tally.finished as f64 / seconds)),
            ),
            ("operations", json!(tally.finished)),
            ("p50_ms", json!(at(0.5))),
            ("p99_ms", json!(at(0.99))),
            ("p999_ms", json!(at(0.999))),
            ("max_ms", json!(millis(tally.latencies.max()))),
            ("mean_ms", json!(rounded(tally.latencies.mean() / 1000.0))),
            ("errors", json!(tally.errors)),
        ];
        if options.op != Op::Put {
            fields.push(("consistency", json!(options.consistency)));
        }
        if let Some(rate) = options.rate {
            fields.push(("rate_per_s", json!(rate)));
            fields.push(("unserved", json!(tally.unserved)));
        }
        if tally.finished > 0 {
            let cpu = costs.cpu_seconds.map(|seconds| each(seconds * 1e6));
            let written = costs.write_bytes.map(each);
            fields.extend(cpu.map(|micros| ("cpu_us_per_op", json!(micros))));
            fields.extend(written.map(|bytes| ("write_bytes_per_op", json!(bytes))));
        }
        if tally.errors > 0 {
            fields.push(("errors_by_kind", json!(tally.errors_by_kind)));
        }
        Report { fields }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let fields = self.fields.iter();
        Value::Object(
            fields
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        )
    }

    /// For people.
    pub fn text(&self) -> String {
        let json = self.json();
        let rows: Vec<(&str, String)> = self
            .fields
            .iter()
            .map(|(name, _)| (*name, table::field(&json, name)))
            .collect();
        table::pairs(&rows)
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Three digits after the point are all that is known.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
