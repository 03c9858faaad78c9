//! The dependency gate over this repository's lock file, for the ordinary build and for the simulation.
#![expect(
    clippy::disallowed_methods,
    reason = "a gate asks cargo; it never runs inside the simulator"
)]

use ci::deps::{self, Package};
use ci::{none, tree};
use std::process::Command;

fn locked() -> Vec<Package> {
    deps::packages(&tree::read()["Cargo.lock"])
}

/// What cargo says of the packages that a build of `rustflags` links. It fetches what that build would fetch, nothing else.
fn metadata(rustflags: &str) -> serde_json::Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags)
        .current_dir(tree::root());
    let output = cargo.output().expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {complaint}");
    serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON")
}

#[test]
fn licences_are_on_the_list() {
    none(&deps::unlicensed(&metadata("")));
    none(&deps::unlicensed(&metadata("--cfg\u{1f}madsim")));
}

#[test]
fn nothing_banned_or_foreign_comes_in() {
    none(&deps::banned(&locked()));
    none(&deps::foreign(&locked()));
}

#[test]
fn versions_are_there_once_or_for_a_reason() {
    none(&deps::duplicates(&locked(), &deps::DUPLICATES));
}

#[test]
fn known_advisories_still_apply() {
    none(&deps::cured(&locked()));
}

#[test]
fn the_simulator_links_no_tls() {
    let metadata = metadata("--cfg\u{1f}madsim");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("a graph");
    let users = nodes.iter().filter(|node| {
        let deps = node["deps"].as_array().into_iter().flatten();
        deps.into_iter().any(|dep| dep["name"] == "registry")
    });
    let users: Vec<_> = users.map(|node| node["id"].to_string()).collect();
    assert!(
        users.is_empty(),
        "{users:?} link the crate registry, and with it ring"
    );
}
