//! What the cluster spent, as its nodes tell in `/stats`: processor time and bytes written.

use crate::cli::remote::{Ask, Remote};
use futures::future::join_all;
use serde_json::Value;
use std::collections::BTreeMap;

/// What one process had spent at some moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spent {
    /// Processor time, seconds.
    cpu_seconds: Option<f64>,
    /// Bytes written to disk.
    write_bytes: Option<f64>,
}

/// What every process had spent at some moment; keyed by process, since several nodes may share one (`seaworthy dev`).
pub(super) struct Costs(BTreeMap<String, Spent>);

/// What a measurement cost, over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Difference {
    /// Processor time, seconds; unset when a node does not tell.
    pub(super) cpu_seconds: Option<f64>,
    /// Bytes written to disk; unset when a node does not tell.
    pub(super) write_bytes: Option<f64>,
}

impl Costs {
    /// Asks every node. A node that does not answer or does not know is left out.
    pub(super) async fn read(remote: &Remote, nodes: &[String]) -> Self {
        let asked = nodes.iter().map(|node| async move {
            let reply = remote.ask_one(node, &Ask::get("/stats")).await.ok()?;
            spent(node, &reply.json()?)
        });
        Costs(join_all(asked).await.into_iter().flatten().collect())
    }

    /// What was spent since `before`, by processes that answered both times.
    pub(super) fn since(&self, before: &Costs) -> Difference {
        let sum = |part: fn(&Spent) -> Option<f64>| {
            let each = self.0.iter().map(|(process, now)| {
                let then = before.0.get(process)?;
                Some(part(now)? - part(then)?)
            });
            let total: Option<f64> = each.sum();
            total.filter(|_| !self.0.is_empty())
        };
        Difference {
            cpu_seconds: sum(|one| one.cpu_seconds),
            write_bytes: sum(|one| one.write_bytes),
        }
    }
}

/// Process and spending of a node.
fn spent(node: &str, stats: &Value) -> Option<(String, Spent)> {
    let process = stats.get("process")?;
    let host = node.rsplit_once(':').map_or(node, |parts| parts.0);
    let name = match process.get("pid").and_then(Value::as_u64) {
        Some(pid) => format!("{host} {pid}"),
        None => node.to_owned(),
    };
    let number = |key| process.get(key).and_then(Value::as_f64);
    let spent = Spent {
        cpu_seconds: number("cpu_seconds"),
        write_bytes: number("write_bytes"),
    };
    Some((name, spent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn costs(stats: &[(&str, Value)]) -> Costs {
        Costs(
            stats
                .iter()
                .filter_map(|(node, one)| spent(node, one))
                .collect(),
        )
    }

    #[test]
    fn nodes_of_one_process_count_once() {
        let stats =
            |cpu: f64| json!({"process": {"pid": 7, "cpu_seconds": cpu, "write_bytes": 10}});
        let before = costs(&[("h:1", stats(1.0)), ("h:2", stats(1.0))]);
        let after = costs(&[("h:1", stats(3.0)), ("h:2", stats(3.0))]);
        let spent = after.since(&before);
        assert_eq!(spent.cpu_seconds, Some(2.0));
        assert_eq!(spent.write_bytes, Some(0.0));
    }

    #[test]
    fn silence_is_not_zero() {
        let none = costs(&[("h:1", json!({}))]);
        assert_eq!(none.since(&none), Difference::default());
    }
}
