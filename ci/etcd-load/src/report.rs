//! The numbers: counted while the clients run, told under the names that `seaworthy bench` uses.

use crate::cost::Cost;
use crate::{Options, load};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest latency told apart, microseconds (a minute; calls are given up long before).
const LATENCY_US_MAX: u64 = 60_000_000;

/// What the clients counted.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Latencies of calls that went well, microseconds.
    latencies: Histogram<u64>,
    /// Calls answered well within the window.
    pub(crate) finished: u64,
    /// Failed calls by kind.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Nothing counted.
    pub(crate) fn new() -> Self {
        Tally {
            latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("the bounds are in order and three digits are allowed"),
            finished: 0,
            errors: BTreeMap::new(),
        }
    }

    /// A call that went well; `in_time` when its answer came within the window.
    pub(crate) fn done(&mut self, latency: Duration, in_time: bool) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros.max(1));
        self.finished += u64::from(in_time);
    }

    /// A call that failed.
    pub(crate) fn failed(&mut self, kind: String) {
        *self.errors.entry(kind).or_default() += 1;
    }
}

/// The result of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Field and value, in the order of the text.
    fields: Vec<(&'static str, Value)>,
}

impl Report {
    /// The report of `tally`, as measured by `options` at the price of `cost`.
    pub(crate) fn new(options: &Options, tally: &Tally, cost: Option<Cost>) -> Self {
        let at = |quantile| tally.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let errors: u64 = tally.errors.values().sum();
        let mut fields = vec![
            ("op", json!(options.op.name())),
            ("clients", json!(options.clients)),
            ("connections", json!(load::connections(options))),
            ("leader_only", json!(options.leader_only)),
            ("duration_s", json!(options.seconds)),
            ("value_bytes", json!(options.value_bytes)),
            (
                "throughput_per_s",
                json!(rounded(tally.finished as f64 / options.seconds)),
            ),
            ("operations", json!(tally.finished)),
            ("p50_ms", json!(at(0.5))),
            ("p99_ms", json!(at(0.99))),
            ("p999_ms", json!(at(0.999))),
            ("errors", json!(errors)),
        ];
        if let Some(cost) = cost.filter(|_| tally.finished > 0) {
            let each = |total: f64| json!(rounded(total / tally.finished as f64));
            fields.push(("cpu_us_per_op", each(cost.cpu_seconds * 1e6)));
            fields.push(("write_bytes_per_op", each(cost.write_bytes)));
        }
        if errors > 0 {
            fields.push(("errors_by_kind", json!(tally.errors)));
        }
        Report { fields }
    }

    /// For programs: one line.
    pub(crate) fn json(&self) -> Value {
        let fields = self.fields.iter();
        Value::Object(
            fields
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        )
    }

    /// For people: one field a line.
    pub(crate) fn text(&self) -> String {
        let lines = self
            .fields
            .iter()
            .map(|(name, value)| format!("{name:<20} {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Three digits after the point are all that is known.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn options() -> Options {
        let line = "etcd-load --endpoints a:1 --clients 3 --seconds 2";
        Options::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn names_are_those_of_seaworthy_bench() {
        let json = Report::new(&options(), &Tally::new(), None).json();
        for name in ["throughput_per_s", "p50_ms", "p99_ms", "p999_ms", "errors"] {
            assert!(json[name].is_number(), "{name}");
        }
        assert_eq!(json["throughput_per_s"], 0.0);
    }

    #[test]
    fn late_answers_count_as_latency_but_not_as_throughput() {
        let mut tally = Tally::new();
        tally.done(Duration::from_millis(1), true);
        tally.done(Duration::from_millis(1), true);
        tally.done(Duration::from_millis(900), false);
        tally.failed("timeout".to_owned());
        let cost = Cost {
            cpu_seconds: 0.001,
            write_bytes: 1024.0,
        };
        let json = Report::new(&options(), &tally, Some(cost)).json();
        assert_eq!(json["throughput_per_s"], 1.0);
        assert!(json["p999_ms"].as_f64().unwrap() > 890.0);
        assert_eq!(json["errors_by_kind"]["timeout"], 1);
        assert_eq!(
            (&json["cpu_us_per_op"], &json["write_bytes_per_op"]),
            (&json!(500.0), &json!(512.0))
        );
    }
}
