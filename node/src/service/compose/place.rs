//! Ports and volumes of a service.

use super::Report;
use crate::service::Spec;
use crate::service::spec::{Mode, Mount, Port};
use crate::service::yaml::{Node, Value};
use std::collections::BTreeMap;

/// Why directories of the machine are refused.
const BIND: &str = "a directory of the machine: another worker has another; use a volume";

/// One entry of `ports`.
pub(super) fn port(path: &str, node: &Node, report: &mut Report) -> Option<Port> {
    if let Value::Map(_) = node.value {
        return long_port(path, node, report);
    }
    let text = report.text(path, node);
    let (text, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    if protocol != "tcp" {
        report.unsupported(node.line, path, "only tcp ports are");
        return None;
    }
    let parts: Vec<&str> = text.split(':').collect();
    let [host, target] = parts[..] else {
        let why = match parts.len() {
            1 => "a port that the system chooses cannot be told to anybody: write HOST:TARGET",
            _ => "an address to listen on: a task listens where it likes",
        };
        report.unsupported(node.line, path, why);
        return None;
    };
    if host.contains('-') || target.contains('-') {
        report.unsupported(node.line, path, "a range: write each port");
        return None;
    }
    let host = number(path, node.line, host, report)?;
    let target = number(path, node.line, target, report)?;
    Some(ours(host, target))
}

fn ours(host: u16, target: u16) -> Port {
    let target = if host == target { 0 } else { target };
    Port { host, target }
}

fn number(path: &str, line: usize, text: &str, report: &mut Report) -> Option<u16> {
    match text.parse() {
        Ok(0) | Err(_) => {
            let why = format!("\"{text}\" is not a port: 1 to 65535");
            report.wrong(line, path, &why);
            None
        }
        Ok(port) => Some(port),
    }
}

fn long_port(path: &str, node: &Node, report: &mut Report) -> Option<Port> {
    let (mut host, mut target, mut named) = (None, None, 0);
    for (key, node) in report.map(path, node) {
        let path = format!("{path}.{}", key.name);
        let text = report.text(&path, node);
        match (key.name.as_str(), text.as_str()) {
            ("target", text) => {
                named += 1;
                target = number(&path, node.line, text, report);
            }
            ("published", text) => {
                named += 1;
                host = number(&path, node.line, text, report);
            }
            ("protocol", "tcp") | ("mode", "host") => {}
            ("name" | "app_protocol", _) => {
                report.note(key.line, &path, "ports have no names here");
            }
            ("mode", _) => {
                let why = "a port is its worker's alone (mode: host); there is no ingress yet";
                report.unsupported(key.line, &path, why);
            }
            ("protocol", _) => report.unsupported(key.line, &path, "only tcp ports are"),
            ("host_ip", _) => {
                report.unsupported(key.line, &path, "a task listens where it likes");
            }
            _ => report.unknown(key, &path),
        }
    }
    if named < 2 {
        report.wrong(node.line, path, "needs `published` and `target`");
    }
    Some(ours(host?, target?))
}

/// One entry of a service's `volumes`.
pub(super) fn mount(
    path: &str,
    node: &Node,
    volumes: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<Mount> {
    let (source, target) = match node.value {
        Value::Map(_) => long_mount(path, node, report)?,
        _ => short_mount(path, node, report)?,
    };
    let Some(volume) = volumes.get(&source) else {
        let why = format!("no volume is called {source}: name it under `volumes` at the top");
        report.wrong(node.line, path, &why);
        return None;
    };
    Some(Mount {
        volume: volume.clone(),
        target,
        shared: false,
    })
}

fn short_mount(path: &str, node: &Node, report: &mut Report) -> Option<(String, String)> {
    let text = report.text(path, node);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target),
        [source, target, _] => {
            let why = "modes other than rw: a task may write to its volumes";
            report.unsupported(node.line, path, why);
            (source, target)
        }
        _ => {
            let why = "a volume without a name: name it, and say where the task finds it";
            report.unsupported(node.line, path, why);
            return None;
        }
    };
    if source.starts_with(['/', '.', '~']) {
        report.unsupported(node.line, path, BIND);
        return None;
    }
    Some((source.to_owned(), target.to_owned()))
}

fn long_mount(path: &str, node: &Node, report: &mut Report) -> Option<(String, String)> {
    let (mut source, mut target) = (None, None);
    let fields = report.map(path, node);
    let kind = fields.iter().find(|(key, _)| key.name == "type");
    match kind.and_then(|(_, node)| node.text()) {
        None | Some("volume") => {}
        Some("bind") => {
            report.unsupported(node.line, path, BIND);
            return None;
        }
        Some(other) => {
            report.unsupported(node.line, path, &format!("mounts of type {other}"));
            return None;
        }
    }
    for (key, node) in fields {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "type" => {}
            "source" => source = Some(report.text(&path, node)),
            "target" => target = Some(report.text(&path, node)),
            "read_only" if node.switch() == Some(false) => {}
            "read_only" => {
                report.unsupported(key.line, &path, "a task may write to its volumes");
            }
            "volume" | "consistency" | "bind" | "tmpfs" | "image" => {
                report.unsupported(key.line, &path, "a volume is a directory on its worker");
            }
            name if name.starts_with("x-") => {}
            _ => report.unknown(key, &path),
        }
    }
    if source.is_none() || target.is_none() {
        report.wrong(node.line, path, "needs `source` and `target`");
    }
    Some((source?, target?))
}

/// Compose lets containers share a volume. Here that is said where more than one task has it; a volume of one task keeps a single
/// writer, which is never doubled.
pub(super) fn share_volumes(specs: &mut [Spec], report: &mut Report) {
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for spec in specs.iter() {
        let tasks = match spec.mode {
            Mode::Global => 2,
            Mode::Replicated => spec.replicas as usize,
        };
        for mount in &spec.volumes {
            *users.entry(mount.volume.clone()).or_default() += tasks;
        }
    }
    for mount in specs.iter_mut().flat_map(|spec| &mut spec.volumes) {
        mount.shared = users.get(&mount.volume).is_some_and(|count| *count > 1);
    }
    for (volume, count) in users {
        let file = &report.file;
        let what = match count {
            0 | 1 => "has a single writer: its task stays on the worker where it lies",
            _ => "is shared: all its tasks run on the worker where it lies",
        };
        let note = format!("{file}: volume {volume} {what}");
        report.notes.push(note);
    }
}
