//! The tidy check: every rule of `ci` over every file of this repository.

use ci::tree::{self, Tree};
use ci::{docs, manifest, none, rust, text};

/// The findings of `rule` over all files that end in `ending`.
fn over(tree: &Tree, ending: &str, rule: impl Fn(&str, &str) -> Vec<ci::Finding>) {
    let files = tree.iter().filter(|(path, _)| path.ends_with(ending));
    let found: Vec<ci::Finding> = files.flat_map(|(path, text)| rule(path, text)).collect();
    none(&found);
}

#[test]
fn rust_files_follow_the_rules() {
    over(&tree::read(), ".rs", rust::check);
}

#[test]
fn exceptions_are_needed() {
    let tree = tree::read();
    let lines_of = |path: &str| tree.get(path).map(|text| text.lines().count());
    none(&rust::needless_exceptions(rust::LONG_FILES, lines_of));
}

#[test]
fn nothing_belongs_to_one_machine() {
    over(&tree::read(), "", text::check);
}

#[test]
fn links_lead_somewhere() {
    let tree = tree::read();
    let exists = |path: &str| tree::root().join(path).exists();
    over(&tree, ".md", |path, text| {
        docs::broken_links(path, text, exists)
    });
}

#[test]
fn named_documents_exist() {
    let tree = tree::read();
    let exists = |path: &str| tree.contains_key(path);
    let planted = |path: &str| path.starts_with("ci/src/"); // Examples of documents that are not there.
    over(&tree, ".rs", |path, text| match planted(path) {
        true => Vec::new(),
        false => docs::missing_documents(path, text, exists),
    });
}

#[test]
fn the_glossary_has_each_word_once_in_order() {
    over(&tree::read(), "docs/GLOSSARY.md", docs::glossary);
}

#[test]
fn evidence_in_the_table_of_defects_is_there() {
    let tree = tree::read();
    over(&tree, "docs/defects.md", |path, text| {
        docs::missing_evidence(path, text, &tree)
    });
}

#[test]
fn every_scenario_is_registered() {
    none(&docs::unregistered_scenarios(&tree::read()));
}

#[test]
fn every_workspace_dependency_is_used() {
    none(&manifest::unused(&tree::read()));
}

#[test]
fn members_take_versions_and_lints_from_the_workspace() {
    let tree = tree::read();
    none(&manifest::private_versions(&tree));
    none(&manifest::without_lints(&tree));
}
