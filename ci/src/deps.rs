//! The dependency gate: licences, bans, duplicates, sources and known advisories, without a database on the network.
//!
//! It reads `Cargo.lock` and what `cargo metadata` says, so it works offline wherever the build does. Advisories that
//! concern us are listed by hand, and whoever updates a dependency looks them up; `deny.toml` holds the same lists for
//! cargo-deny, which downloads the database. Every exception has its reason; one that is no longer needed is a finding.

use crate::Finding;
use std::collections::{BTreeMap, BTreeSet};

/// Licences that may be linked into a program under Apache-2.0.
pub const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Packages that must not come in, and why.
pub const BANNED: [(&str, &str); 11] = [
    ("openssl-sys", "links a C library of the machine"),
    ("native-tls", "links a C library of the machine"),
    ("aws-lc-sys", "C and assembly, and cmake to build it"),
    ("protoc", "no build runs protoc"),
    ("protobuf-build", "ships and runs a prebuilt protoc"),
    (
        "prost-build",
        "runs protoc; the generated types of raft-proto are written by hand",
    ),
    ("protobuf-src", "builds protoc"),
    ("protoc-bin-vendored", "ships protoc"),
    ("cmake", "no build needs cmake"),
    ("bindgen", "no build needs libclang"),
    ("git2", "nothing here talks to git"),
];

/// Packages that may be there in more than one version, and why: each is an older line that a dependency still wants.
pub const DUPLICATES: [(&str, &str); 20] = [
    (
        "base64",
        "0.23 in hyper-util for reqwest of the registry client",
    ),
    (
        "darling",
        "0.14 in madsim, 0.20 in oci-spec; build time only",
    ),
    ("darling_core", "follows darling"),
    ("darling_macro", "follows darling"),
    (
        "getrandom",
        "0.2 through rand 0.8 of raft and madsim (the simulator overrides its system call), 0.4 through tests",
    ),
    (
        "hashbrown",
        "lsm-tree and the metrics registry pin older ones",
    ),
    ("itertools", "criterion lags behind"),
    ("r-efi", "getrandom 0.3 and 0.4 on UEFI; never built"),
    (
        "rand",
        "0.8 in raft and madsim (seeded by the simulator), 0.9 ours, 0.10 in metrics-util",
    ),
    ("rand_chacha", "follows rand"),
    ("rand_core", "follows rand"),
    ("rand_xoshiro", "0.6 in madsim, 0.7 in metrics-util"),
    ("strsim", "madsim's darling pins 0.10"),
    (
        "syn",
        "1 in old derive macros of madsim, 2 almost everywhere, 3 in the newest; build time only",
    ),
    ("thiserror", "1 in raft"),
    ("thiserror-impl", "follows thiserror"),
    ("toml", "0.9 in madsim, 1 ours"),
    ("toml_datetime", "follows toml"),
    ("windows-sys", "ring on Windows pins 0.52; never built"),
    ("winnow", "follows toml"),
];

/// Known advisories that we live with: package, first version without it, advisory, why.
pub const ADVISORIES: [(&str, &str, &str, &str); 3] = [
    (
        "protobuf",
        "3.7.2",
        "RUSTSEC-2024-0437 (deep recursion in the parser)",
        "raft 0.7 links it whatever the codec; with prost its parser is not reachable from the wire",
    ),
    (
        "fxhash",
        "",
        "RUSTSEC-2025-0057 (unmaintained)",
        "raft's maps of voters; complete code of 100 lines, fixed hash, order the same in every run",
    ),
    (
        "bincode",
        "2.0.0",
        "RUSTSEC-2025-0141 (unmaintained)",
        "in the lock file through madsim's RPC, which is not used; simulation only",
    ),
];

/// One package of the lock file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Where it comes from; none for a folder of this repository.
    pub source: Option<String>,
}

/// The packages in the text of a lock file.
pub fn packages(lock: &str) -> Vec<Package> {
    let table: toml::Table = lock
        .parse()
        .unwrap_or_else(|error| panic!("Cargo.lock: {error}"));
    let list = table.get("package").and_then(toml::Value::as_array);
    list.into_iter().flatten().map(package).collect()
}

fn package(value: &toml::Value) -> Package {
    let text = |key: &str| {
        value
            .get(key)
            .and_then(toml::Value::as_str)
            .map(str::to_owned)
    };
    Package {
        name: text("name").unwrap_or_default(),
        version: text("version").unwrap_or_default(),
        source: text("source"),
    }
}

/// Packages that must not come in.
pub fn banned(packages: &[Package]) -> Vec<Finding> {
    let reason = |package: &Package| BANNED.iter().find(|(name, _)| *name == package.name);
    let found = packages
        .iter()
        .filter_map(|package| reason(package).map(|ban| (package, ban)));
    found
        .map(|(package, (_, why))| finding(package, format!("is banned: {why}")))
        .collect()
}

/// Packages from anywhere but crates.io and this repository.
pub fn foreign(packages: &[Package]) -> Vec<Finding> {
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    let elsewhere = packages.iter().filter(|package| {
        package
            .source
            .as_deref()
            .is_some_and(|source| source != crates_io)
    });
    elsewhere
        .map(|package| finding(package, "does not come from crates.io".to_owned()))
        .collect()
}

/// Packages in several versions without a reason, and reasons without such a package.
pub fn duplicates(packages: &[Package], excused: &[(&str, &str)]) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions
            .entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let excuse = |name: &str| excused.iter().any(|(known, _)| *known == name);
    let mut found = Vec::new();
    for (name, versions) in versions.iter().filter(|(name, _)| !excuse(name)) {
        let what = format!(
            "{name} is there as {versions:?}; agree on one, or give a reason in DUPLICATES"
        );
        found.push(Finding::new("Cargo.lock", 0, what));
    }
    let needless = excused
        .iter()
        .filter(|(name, _)| !versions.contains_key(name));
    found.extend(needless.map(|(name, _)| {
        Finding::new(
            "ci/src/deps.rs",
            0,
            format!("{name} is there once; strike it from DUPLICATES"),
        )
    }));
    found
}

/// Advisories in the list whose package has gone, or is there only in a version that is cured.
pub fn cured(packages: &[Package]) -> Vec<Finding> {
    let suffers = |name: &str, fixed: &str| {
        let older =
            |package: &&Package| fixed.is_empty() || number(&package.version) < number(fixed);
        packages
            .iter()
            .filter(|package| package.name == name)
            .any(|package| older(&package))
    };
    let cured = ADVISORIES
        .iter()
        .filter(|(name, fixed, ..)| !suffers(name, fixed));
    cured
        .map(|(name, ..)| {
            Finding::new(
                "ci/src/deps.rs",
                0,
                format!("{name} is cured or gone; strike it from ADVISORIES"),
            )
        })
        .collect()
}

/// Packages whose licence is not on the list, from the answer of `cargo metadata`.
pub fn unlicensed(metadata: &serde_json::Value) -> Vec<Finding> {
    let list = metadata
        .get("packages")
        .and_then(serde_json::Value::as_array);
    let mut found = Vec::new();
    for package in list.into_iter().flatten() {
        let text = |key: &str| {
            package
                .get(key)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
        };
        if !is_licensed(text("license")) {
            let what = format!(
                "{} {}: licence `{}` is not on the list",
                text("name"),
                text("version"),
                text("license")
            );
            found.push(Finding::new("Cargo.lock", 0, what));
        }
    }
    found
}

/// True when an SPDX expression can be met with [`LICENCES`]. The old `A/B` means `A OR B`.
pub fn is_licensed(expression: &str) -> bool {
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any_of(&mut rest);
    met && rest.is_empty()
}

/// `A OR B`.
fn any_of(words: &mut &[&str]) -> bool {
    let mut met = all_of(words);
    while let Some((&"OR", rest)) = words.split_first() {
        *words = rest;
        met |= all_of(words);
    }
    met
}

/// `A AND B`.
fn all_of(words: &mut &[&str]) -> bool {
    let mut met = one(words);
    while let Some((&"AND", rest)) = words.split_first() {
        *words = rest;
        met &= one(words);
    }
    met
}

/// A name, a name with an exception, or an expression in brackets.
fn one(words: &mut &[&str]) -> bool {
    let Some((first, rest)) = words.split_first() else {
        return false;
    };
    *words = rest;
    if *first == "(" {
        let met = any_of(words);
        let closed = words.split_first().filter(|(word, _)| **word == ")");
        *words = closed.map_or(*words, |(_, rest)| rest);
        return met && closed.is_some();
    }
    match **words {
        ["WITH", exception, ..] => {
            *words = &words[2..];
            LICENCES.contains(&format!("{first} WITH {exception}").as_str())
        }
        _ => LICENCES.contains(first),
    }
}

/// A version as numbers that compare.
fn number(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    core.split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

fn finding(package: &Package, what: String) -> Finding {
    Finding::new(
        "Cargo.lock",
        0,
        format!("{} {} {what}", package.name, package.version),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(entries: &[(&str, &str)]) -> Vec<Package> {
        let entry = |(name, version): &(&str, &str)| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n")
        };
        packages(&entries.iter().map(entry).collect::<String>())
    }

    #[test]
    fn licence_expressions_are_judged() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-2.0-only OR MIT",
            "(MIT OR X) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_licensed(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT",
            "MIT)",
            "MIT WITH X",
            "OR MIT",
        ] {
            assert!(!is_licensed(bad), "{bad}");
        }
    }

    #[test]
    fn a_licence_that_is_not_on_the_list_is_found() {
        let metadata = serde_json::json!({"packages": [
            {"name": "a", "version": "1", "license": "MIT"},
            {"name": "b", "version": "1", "license": "GPL-3.0"},
            {"name": "c", "version": "1", "license": null},
        ]});
        assert_eq!(unlicensed(&metadata).len(), 2);
    }

    #[test]
    fn banned_packages_are_found() {
        for (name, _) in BANNED {
            assert_eq!(
                banned(&lock(&[("fine", "1.0.0"), (name, "1.0.0")])).len(),
                1
            );
        }
    }

    #[test]
    fn a_package_from_git_is_found() {
        let text = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"git+https://example.org/a\"\n";
        assert_eq!(foreign(&packages(text)).len(), 1);
        assert_eq!(foreign(&lock(&[("ours", "0.1.0")])).len(), 0);
    }

    #[test]
    fn duplicates_need_a_reason_and_reasons_a_duplicate() {
        let twice = lock(&[("a", "1.0.0"), ("a", "2.0.0"), ("b", "1.0.0")]);
        assert_eq!(duplicates(&twice, &[]).len(), 1);
        assert_eq!(duplicates(&twice, &[("a", "why")]).len(), 0);
        assert_eq!(duplicates(&twice, &[("a", "why"), ("b", "why")]).len(), 1);
    }

    #[test]
    fn an_advisory_that_is_cured_is_found() {
        let ill: Vec<(&str, &str)> = ADVISORIES
            .iter()
            .map(|(name, ..)| (*name, "1.0.0"))
            .collect();
        assert_eq!(cured(&lock(&ill)).len(), 0);
        assert_eq!(cured(&lock(&[])).len(), ADVISORIES.len());
        assert_eq!(
            cured(&lock(&[("protobuf", "3.7.10")])).len(),
            ADVISORIES.len()
        );
    }
}
