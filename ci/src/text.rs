//! Rules about any committed text: nothing in it may belong to one machine or one company's network.

use crate::{Finding, numbered};

/// Folders of a particular machine.
const MACHINE: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

/// Words that only stand where somebody's mirror of a package registry is named.
const MIRRORS: [&str; 7] = [
    concat!("arti", "factory"),
    concat!("jf", "rog"),
    concat!("sona", "type"),
    concat!("replace", "-with"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("spa", "rse+http"),
];

/// The one place that packages come from, as `Cargo.lock` names it.
const SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Every rule about text.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut found = machine_paths(path, text);
    found.extend(mirrors(path, text));
    if path.ends_with("Cargo.lock") {
        found.extend(other_sources(path, text));
    }
    found
}

/// Folders that only the author has.
pub fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let starts = |line: &str, folder: &str| {
        let part = |character: char| character.is_alphanumeric() || "._-/}".contains(character);
        line.match_indices(folder)
            .any(|(at, _)| !line[..at].ends_with(part))
    };
    let wrong = |line: &str| MACHINE.iter().any(|folder| starts(line, folder));
    let lines = numbered(text).filter(|(_, line)| wrong(line));
    lines
        .map(|(line, _)| Finding::new(path, line, "names a folder of one machine"))
        .collect()
}

/// Hosts that serve packages inside somebody's network.
pub fn mirrors(path: &str, text: &str) -> Vec<Finding> {
    let wrong = |line: &str| {
        MIRRORS
            .iter()
            .any(|word| line.to_lowercase().contains(word))
    };
    let lines = numbered(text).filter(|(_, line)| wrong(line));
    lines
        .map(|(line, _)| Finding::new(path, line, "names a mirror of a package registry"))
        .collect()
}

/// A package in the lock file that does not come from crates.io.
pub fn other_sources(path: &str, text: &str) -> Vec<Finding> {
    let lines = numbered(text).filter(|(_, line)| line.starts_with("source = ") && *line != SOURCE);
    lines
        .map(|(line, _)| Finding::new(path, line, "packages come from crates.io only"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_path_is_found_and_a_url_path_is_not() {
        for folder in MACHINE {
            assert_eq!(check("a", &format!("x\ncd {folder}y")).len(), 1);
            assert_eq!(check("a", &format!("\"{folder}y\"")).len(), 1);
            assert_eq!(check("a", &format!("/v1{folder}y")).len(), 0);
        }
    }

    #[test]
    fn a_mirror_is_found() {
        for word in MIRRORS {
            assert_eq!(
                check("a.toml", &format!("\nurl = \"{}\"", word.to_uppercase())).len(),
                1
            );
        }
    }

    #[test]
    fn a_package_from_elsewhere_is_found() {
        let text = format!("{SOURCE}\nsource = \"git+https://example.org/a\"\n");
        let found = check("Cargo.lock", &text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }
}
