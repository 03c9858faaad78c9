//! Secrets: those that a file names are the cluster's own, made before and outside of it.

use super::Report;
use crate::service::spec::SecretMount;
use crate::service::yaml::{Node, Value};
use std::collections::BTreeMap;

/// Directory that a target may begin with: where containers find secrets anyway.
const PLACE: &str = "/run/secrets/";

/// The secrets that the file names: as it calls them, and as the cluster does.
pub(super) fn named(root: &Node, report: &mut Report) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let top = match &root.value {
        Value::Map(fields) => fields.iter().find(|(key, _)| key.name == "secrets"),
        _ => None,
    };
    let Some((_, node)) = top else {
        return found;
    };
    for (secret, node) in report.map("secrets", node) {
        let path = format!("secrets.{}", secret.name);
        let (mut name, mut is_external, mut is_told) = (secret.name.clone(), false, false);
        for (key, node) in report.map(&path, node) {
            let path = format!("{path}.{}", key.name);
            match key.name.as_str() {
                "name" => name = report.text(&path, node),
                "external" => is_external = node.switch() == Some(true),
                "labels" => report.note(key.line, &path, "secrets have no labels here"),
                "file" => {
                    let file = report.text(&path, node);
                    let why = format!(
                        "a value does not come with the file: `secret create {} --from-file {file}`, and `external: true` here",
                        secret.name
                    );
                    report.wrong(key.line, &path, &why);
                    is_told = true;
                }
                other if other.starts_with("x-") => {}
                _ => {
                    let why = "secrets are the cluster's own: `external: true`";
                    report.wrong(key.line, &path, why);
                    is_told = true;
                }
            }
        }
        if !is_external && !is_told {
            let why = "secrets are made by `secret create`: say `external: true` here";
            report.wrong(secret.line, &path, why);
        }
        found.insert(secret.name.clone(), name);
    }
    found
}

/// One entry of a service's `secrets`.
pub(super) fn mount(
    path: &str,
    node: &Node,
    secrets: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<SecretMount> {
    let (mut source, mut target, mut mode) = (None, None, None);
    if let Value::Map(_) = node.value {
        for (key, node) in report.map(path, node) {
            let path = format!("{path}.{}", key.name);
            match key.name.as_str() {
                "source" => source = Some(report.text(&path, node)),
                "target" => {
                    let text = report.text(&path, node);
                    target = Some(text.strip_prefix(PLACE).unwrap_or(&text).to_owned());
                }
                "mode" => mode = report.parsed(&path, node, octal),
                "uid" | "gid" => {
                    let why = "a file of a secret belongs to whoever the task runs as";
                    report.unsupported(key.line, &path, why);
                }
                _ => report.unknown(key, &path),
            }
        }
    } else {
        source = Some(report.text(path, node));
    }
    let Some(source) = source else {
        report.wrong(node.line, path, "needs `source`");
        return None;
    };
    let Some(secret) = secrets.get(&source) else {
        let why = format!("no secret is called {source}: name it under `secrets` at the top");
        report.wrong(node.line, path, &why);
        return None;
    };
    let mut mount = SecretMount::new(secret);
    mount.target = target.unwrap_or(source);
    mount.mode = mode.unwrap_or(mount.mode);
    Some(mount)
}

/// A mode as people write it: octal digits.
fn octal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).map_err(|_| format!("{text} is no mode: write it as 0440"))
}
