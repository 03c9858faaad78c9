//! The files of the repository, as text.
#![expect(
    clippy::disallowed_methods,
    reason = "a gate reads the repository's files; it never runs inside the simulator"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no committed files.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// Text files by path relative to the repository, with `/` between the parts.
pub type Tree = BTreeMap<String, String>;

/// The folder of the repository.
pub fn root() -> PathBuf {
    let ci = Path::new(env!("CARGO_MANIFEST_DIR"));
    ci.parent().expect("`ci` lies in the repository").to_owned()
}

/// Every text file. Files that are not UTF-8 (fixtures) are left out.
pub fn read() -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for (path, is_folder) in entries(&folder) {
            match is_folder {
                true => folders.push(path),
                false => tree.extend(text_of(&path).map(|text| (path, text))),
            }
        }
    }
    tree
}

/// What lies in a folder: path, and whether it is a folder itself.
fn entries(folder: &str) -> Vec<(String, bool)> {
    let list = fs::read_dir(root().join(folder)).expect("the repository can be read");
    let mut found = Vec::new();
    for entry in list {
        let entry = entry.expect("the repository can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().expect("a file has a type").is_dir();
        if !SKIPPED.contains(&name.as_str()) {
            found.push((
                if folder.is_empty() {
                    name
                } else {
                    format!("{folder}/{name}")
                },
                is_folder,
            ));
        }
    }
    found
}

fn text_of(path: &str) -> Option<String> {
    String::from_utf8(fs::read(root().join(path)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_file_is_in_the_tree_and_the_build_is_not() {
        let tree = super::read();
        assert!(tree["ci/src/tree.rs"].contains("fn this_file_is_in_the_tree"));
        assert!(!tree.keys().any(|path| path.starts_with("target/")));
    }
}
