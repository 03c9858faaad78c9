//! Rules about the manifests: every package in `[workspace.dependencies]` is used, and members take packages from there.

use crate::Finding;
use crate::tree::Tree;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// Members that keep versions and lints of their own, each with the reason.
pub const STANDALONE: &[(&str, &str)] = &[
    (
        "node/raft-proto/Cargo.toml",
        "stands in for a package of crates.io and must build as that one would",
    ),
    (
        "sim/disk/Cargo.toml",
        "stands in for the operating system: unsafe code, and names that others must not use",
    ),
];

/// Packages of the workspace's list that no member uses.
pub fn unused(tree: &Tree) -> Vec<Finding> {
    let listed = dependencies(tree, "Cargo.toml", true);
    let mut used = BTreeSet::new();
    for path in tree.keys().filter(|path| path.ends_with("/Cargo.toml")) {
        used.extend(
            dependencies(tree, path, false)
                .into_iter()
                .map(|(name, _)| name),
        );
    }
    let unused = listed.into_iter().filter(|(name, _)| !used.contains(name));
    unused
        .map(|(name, _)| Finding::new("Cargo.toml", 0, format!("nobody uses `{name}`; strike it")))
        .collect()
}

/// Dependencies of members that name a version of their own.
pub fn private_versions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for path in members(tree) {
        for (name, value) in dependencies(tree, path, false) {
            if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                found.push(Finding::new(
                    path,
                    0,
                    format!("write `{name}.workspace = true`"),
                ));
            }
        }
    }
    found
}

/// Members that do not follow the workspace's lints.
pub fn without_lints(tree: &Tree) -> Vec<Finding> {
    let follows = |path: &str| {
        let lints = read(tree, path).remove("lints");
        lints.and_then(|lints| lints.get("workspace").and_then(Value::as_bool)) == Some(true)
    };
    let without = members(tree).filter(|path| !follows(path));
    without
        .map(|path| Finding::new(path, 0, "add `[lints] workspace = true`"))
        .collect()
}

/// The manifests of members that follow the workspace.
fn members(tree: &Tree) -> impl Iterator<Item = &str> {
    let alone = |path: &&str| STANDALONE.iter().any(|(known, _)| known == path);
    let members = tree.keys().map(String::as_str);
    members.filter(move |path| path.ends_with("/Cargo.toml") && !alone(path))
}

/// The dependencies that a manifest names, of every kind and for every platform.
fn dependencies(tree: &Tree, path: &str, of_workspace: bool) -> Vec<(String, Value)> {
    let mut table = read(tree, path);
    let mut found = Vec::new();
    if of_workspace {
        let workspace = table
            .remove("workspace")
            .and_then(table_of)
            .unwrap_or_default();
        collect(workspace, &mut found);
        return found;
    }
    let targets = table
        .remove("target")
        .and_then(table_of)
        .unwrap_or_default();
    collect(table, &mut found);
    for (_, target) in targets {
        collect(table_of(target).unwrap_or_default(), &mut found);
    }
    found
}

fn collect(mut table: Table, into: &mut Vec<(String, Value)>) {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        into.extend(table.remove(kind).and_then(table_of).unwrap_or_default());
    }
}

fn table_of(value: Value) -> Option<Table> {
    match value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn read(tree: &Tree, path: &str) -> Table {
    let text = tree.get(path).map_or("", String::as_str);
    text.parse()
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(member: &str) -> Tree {
        let root = "[workspace.dependencies]\na = \"1\"\nb = { version = \"1\" }\n".to_owned();
        Tree::from([
            ("Cargo.toml".into(), root),
            ("m/Cargo.toml".into(), member.to_owned()),
        ])
    }

    #[test]
    fn a_package_that_nobody_uses_is_found() {
        let both = "[dependencies]\na.workspace = true\n\
                    [target.'cfg(x)'.dev-dependencies]\nb.workspace = true\n";
        assert_eq!(unused(&tree(both)).len(), 0);
        let found = unused(&tree("[build-dependencies]\na.workspace = true\n"));
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("`b`"));
    }

    #[test]
    fn a_private_version_is_found() {
        assert_eq!(
            private_versions(&tree("[dependencies]\na.workspace = true\n")).len(),
            0
        );
        assert_eq!(
            private_versions(&tree("[dependencies]\na = \"1\"\n")).len(),
            1
        );
    }

    #[test]
    fn a_member_without_the_lints_is_found() {
        assert_eq!(without_lints(&tree("[lints]\nworkspace = true\n")).len(), 0);
        assert_eq!(without_lints(&tree("[package]\n")).len(), 1);
    }
}
