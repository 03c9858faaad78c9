//! What stands under `deploy`.

use super::{Report, value};
use crate::scheduler::constraint::Constraint;
use crate::service::Spec;
use crate::service::spec::{Amounts, Mode, OnFailure, Order, RestartCondition, Update};
use crate::service::units::{bytes, cpu, time_ms};
use crate::service::yaml::{Key, Node};

/// Reads `deploy`.
pub(super) fn read(path: &str, node: &Node, spec: &mut Spec, report: &mut Report) {
    let fields = report.map(path, node);
    let is_update = |field: &&(Key, Node)| field.0.name == "update_config";
    for (key, node) in fields.iter().filter(|field| !is_update(field)) {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "mode" => mode(&path, node, spec, report),
            "replicas" => spec.replicas = report.number(&path, node).unwrap_or(spec.replicas),
            "labels" => spec.labels.extend(value::pairs(&path, node, None, report)),
            "resources" => resources(&path, node, spec, report),
            "restart_policy" => restart(&path, node, spec, report),
            "placement" => placement(&path, node, spec, report),
            "rollback_config" => {
                let why = "a rollback goes at the pace of update_config";
                report.unsupported(key.line, &path, why);
            }
            "endpoint_mode" => report.unsupported(key.line, &path, "there is no ingress yet"),
            other if other.starts_with("x-") => {}
            _ => report.unknown(key, &path),
        }
    }
    // It needs the number of copies.
    if let Some((_, node)) = fields.iter().find(is_update) {
        update(&format!("{path}.update_config"), node, spec, report);
    }
}

fn mode(path: &str, node: &Node, spec: &mut Spec, report: &mut Report) {
    match node.text() {
        Some("replicated") => spec.mode = Mode::Replicated,
        Some("global") => spec.mode = Mode::Global,
        Some("replicated-job" | "global-job") => {
            let why = "there are no jobs yet; restart_policy.condition: on-failure comes near";
            report.unsupported(node.line, path, why);
        }
        _ => report.wrong(node.line, path, "takes replicated or global"),
    }
}

fn resources(path: &str, node: &Node, spec: &mut Spec, report: &mut Report) {
    for (key, node) in report.map(path, node) {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "limits" => amounts(&path, node, &mut spec.resources.limits, report),
            "reservations" => amounts(&path, node, &mut spec.resources.reservations, report),
            _ => report.unknown(key, &path),
        }
    }
}

fn amounts(path: &str, node: &Node, to: &mut Amounts, report: &mut Report) {
    for (key, node) in report.map(path, node) {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "cpus" => to.cpu_milli = report.parsed(&path, node, cpu).unwrap_or(0),
            "memory" => to.memory_bytes = report.parsed(&path, node, bytes).unwrap_or(0),
            "pids" | "generic_resources" | "devices" => {
                let why = "only processor and memory are limited and set aside";
                report.unsupported(key.line, &path, why);
            }
            _ => report.unknown(key, &path),
        }
    }
}

fn restart(path: &str, node: &Node, spec: &mut Spec, report: &mut Report) {
    let to = &mut spec.restart;
    for (key, node) in report.map(path, node) {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "condition" => match node.text() {
                Some("none") => to.condition = RestartCondition::Never,
                Some("on-failure") => to.condition = RestartCondition::OnFailure,
                Some("any") => to.condition = RestartCondition::Always,
                _ => report.wrong(node.line, &path, "takes none, on-failure or any"),
            },
            "delay" => {
                let delay_ms = report.parsed(&path, node, time_ms);
                to.delay_ms = delay_ms.unwrap_or(to.delay_ms);
                to.delay_max_ms = to.delay_max_ms.max(to.delay_ms);
            }
            "max_attempts" => {
                to.attempts_max = report.number(&path, node).unwrap_or(to.attempts_max);
            }
            "window" => {
                let window_ms = report.parsed(&path, node, time_ms);
                to.window_ms = window_ms.unwrap_or(to.window_ms);
            }
            _ => report.unknown(key, &path),
        }
    }
}

fn placement(path: &str, node: &Node, spec: &mut Spec, report: &mut Report) {
    let to = &mut spec.placement;
    for (key, node) in report.map(path, node) {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "constraints" => {
                for item in report.list(&path, node) {
                    to.constraints.extend(constraint(&path, item, report));
                }
            }
            "preferences" => {
                for item in report.list(&path, node) {
                    to.spread.extend(spread(&path, item, report));
                }
            }
            "max_replicas_per_node" => {
                to.replicas_per_node_max = report.number(&path, node).unwrap_or(0);
            }
            _ => report.unknown(key, &path),
        }
    }
}

/// A rule in our words.
fn constraint(path: &str, node: &Node, report: &mut Report) -> Option<String> {
    let text = report.text(path, node);
    let rule = text.replace("node.hostname", "node.name");
    let bare: String = rule.split_whitespace().collect();
    if matches!(bare.as_str(), "node.role==worker" | "node.role!=manager") {
        report.note(node.line, path, "tasks run on workers anyway");
        return None;
    }
    let foreign = [
        "node.role",
        "node.id",
        "node.ip",
        "node.platform.",
        "engine.labels",
    ];
    if foreign.iter().any(|word| bare.starts_with(word)) {
        let why = format!("`{text}`: rules are about node.name, node.platform and node.labels");
        report.unsupported(node.line, path, &why);
        return None;
    }
    let rule = Constraint::parse(&rule);
    rule.map(|rule| rule.to_string())
        .map_err(|why| report.wrong(node.line, path, &why))
        .ok()
}

fn spread(path: &str, node: &Node, report: &mut Report) -> Option<String> {
    let [(key, value)] = report.map(path, node) else {
        let why = "takes entries such as `spread: node.labels.zone`";
        report.wrong(node.line, path, why);
        return None;
    };
    let label = value
        .text()
        .and_then(|text| text.strip_prefix("node.labels."));
    match label {
        Some(label) if key.name == "spread" => Some(label.to_owned()),
        _ => {
            report.unsupported(key.line, path, "copies are spread over node.labels alone");
            None
        }
    }
}

fn update(path: &str, node: &Node, spec: &mut Spec, report: &mut Report) {
    // What Compose means where it says nothing.
    let (mut parallelism, mut order) = (1, Order::StopFirst);
    let to = &mut spec.update;
    to.on_failure = OnFailure::Pause;
    to.failures_max_percent = 0;
    for (key, node) in report.map(path, node) {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "parallelism" => parallelism = report.number(&path, node).unwrap_or(1),
            "delay" => to.delay_ms = report.parsed(&path, node, time_ms).unwrap_or(0),
            "monitor" => {
                let monitor_ms = report.parsed(&path, node, time_ms);
                to.monitor_ms = monitor_ms.unwrap_or(to.monitor_ms);
            }
            "failure_action" => on_failure(&path, node, to, report),
            "max_failure_ratio" => {
                to.failures_max_percent = report.parsed(&path, node, percent).unwrap_or(0);
            }
            "order" => match node.text() {
                Some("start-first") => order = Order::StartFirst,
                Some("stop-first") => order = Order::StopFirst,
                _ => report.wrong(node.line, &path, "takes start-first or stop-first"),
            },
            _ => report.unknown(key, &path),
        }
    }
    let all = spec.replicas.max(1);
    let step = if parallelism == 0 { all } else { parallelism };
    to.order = order;
    (to.surge_max, to.unavailable_max) = match order {
        Order::StartFirst => (step, 0),
        Order::StopFirst => (0, step),
    };
}

fn on_failure(path: &str, node: &Node, to: &mut Update, report: &mut Report) {
    match node.text() {
        Some("pause") => to.on_failure = OnFailure::Pause,
        Some("continue") => to.on_failure = OnFailure::Continue,
        Some("rollback") => to.on_failure = OnFailure::Rollback,
        _ => report.wrong(node.line, path, "takes pause, continue or rollback"),
    }
}

/// Percent of a share such as 0.25.
fn percent(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok((share * 100.0).round() as u32),
        _ => Err(format!(
            "\"{text}\" is no share: write a number from 0 to 1"
        )),
    }
}
