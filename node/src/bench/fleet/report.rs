//! The numbers of a fleet's bench: one line for each thing that was measured.

use crate::bench::cost::Difference;
use crate::bench::report::Tally;
use crate::cli::table;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// One thing that was measured.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What.
    pub(super) what: String,
    /// How many, and how long each took.
    pub(super) tally: Tally,
    /// How long all of them took.
    pub(super) took: Duration,
    /// What the cluster's nodes spent meanwhile, if that was measured.
    pub(super) cost: Difference,
}

/// The result of a measurement.
#[derive(Clone, Debug)]
pub struct Report {
    /// Light workers.
    pub(super) workers: u32,
    /// Clients.
    pub(super) clients: u32,
    /// What was measured, in order.
    pub(super) lines: Vec<Line>,
    /// What went wrong with workers' calls, by kind.
    pub(super) troubles: BTreeMap<String, u64>,
}

/// Fields of a line, and the headings of their columns.
const COLUMNS: [(&str, &str); 9] = [
    ("what", "what"),
    ("count", "count"),
    ("seconds", "seconds"),
    ("per_s", "per second"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("max_ms", "max ms"),
    ("errors", "errors"),
    ("cpu_seconds", "nodes' cpu s"),
];

impl Line {
    fn json(&self) -> Value {
        let seconds = self.took.as_secs_f64();
        let count = self.tally.finished;
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("what", json!(self.what));
        put("count", json!(count));
        put("seconds", json!(rounded(seconds)));
        if seconds > 0.0 {
            put("per_s", json!(rounded(count as f64 / seconds)));
        }
        if count > 0 {
            put("p50_ms", json!(self.tally.millis(0.5)));
            put("p99_ms", json!(self.tally.millis(0.99)));
            put("max_ms", json!(self.tally.millis(1.0)));
        }
        put("errors", json!(self.tally.errors));
        if !self.tally.errors_by_kind.is_empty() {
            put("errors_by_kind", json!(self.tally.errors_by_kind));
        }
        if let Some(cpu) = self.cost.cpu_seconds {
            put("cpu_seconds", json!(rounded(cpu)));
        }
        if let Some(bytes) = self.cost.write_bytes {
            put("write_bytes", json!(bytes));
        }
        Value::Object(fields)
    }
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
        json!({
            "workers": self.workers,
            "clients": self.clients,
            "lines": lines,
            "worker_troubles": self.troubles,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let heading = COLUMNS.map(|(_, heading)| heading);
        let rows = self.lines.iter().map(|line| {
            let json = line.json();
            let cells = COLUMNS.iter().map(|(name, _)| table::field(&json, name));
            cells.collect()
        });
        let mut text = table::table(&heading, rows);
        if !self.troubles.is_empty() {
            let kinds = self.troubles.iter();
            let kinds: Vec<String> = kinds
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            text += &format!(
                "\nworkers had to turn to another manager: {}\n",
                kinds.join(", ")
            );
        }
        text
    }
}

/// Three digits after the point are all that is known.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
