//! Rules about documents: links lead somewhere, named documents exist, the glossary has each word once and in order.

use crate::tree::Tree;
use crate::{Finding, numbered};

/// Links in a Markdown file to files of this repository that are not there.
pub fn broken_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, content) in numbered(text) {
        for target in targets(content).filter(|target| is_local(target)) {
            let file = resolve(path, target.split('#').next().unwrap_or_default());
            if !exists(&file) {
                found.push(Finding::new(
                    path,
                    line,
                    format!("the link leads to {file}, which is not there"),
                ));
            }
        }
    }
    found
}

/// Documents named in a Rust file, such as `docs/GLOSSARY.md`, that are not there.
pub fn missing_documents(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, content) in numbered(text) {
        for name in content
            .split(|character: char| !(character.is_alphanumeric() || "/._-".contains(character)))
        {
            let name = name.trim_end_matches('.');
            let document = name.starts_with("docs/") && name.ends_with(".md");
            if document && !exists(name) {
                found.push(Finding::new(
                    path,
                    line,
                    format!("names {name}, which is not there"),
                ));
            }
        }
    }
    found
}

/// The glossary: lines `- **word**: what it means`, each word once, in the order of the alphabet.
pub fn glossary(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut last = String::new();
    for (line, content) in numbered(text).filter(|(_, content)| content.starts_with("- ")) {
        let Some((word, _)) = content
            .strip_prefix("- **")
            .and_then(|rest| rest.split_once("**: "))
        else {
            found.push(Finding::new(
                path,
                line,
                "write `- **word**: what it means`",
            ));
            continue;
        };
        let word = word.to_lowercase();
        if word <= last {
            found.push(Finding::new(
                path,
                line,
                format!("`{word}` is there twice or out of order"),
            ));
        }
        last = word;
    }
    found
}

/// Scenario files that the registry does not name, and so nobody runs.
pub fn unregistered_scenarios(tree: &Tree) -> Vec<Finding> {
    let registry = tree
        .get("scenarios/src/registry.rs")
        .map_or("", String::as_str);
    let mut found = Vec::new();
    for path in tree.keys() {
        let Some(file) = path.strip_prefix("scenarios/files/") else {
            continue;
        };
        if file.ends_with(".toml") && !registry.contains(&format!("/{file}\"")) {
            found.push(Finding::new(
                path,
                0,
                "list it in scenarios/src/registry.rs",
            ));
        }
    }
    found
}

/// Scenarios, planted bugs and tests that a document names as evidence (in code marks) and that are not there. A name with `_` is a
/// function's or a word of the judges, one with `-` a scenario's or a planted bug's.
pub fn missing_evidence(path: &str, text: &str, tree: &Tree) -> Vec<Finding> {
    let sources = || tree.iter().filter(|(path, _)| path.ends_with(".rs"));
    let said = |words: &[String]| {
        sources().any(|(_, source)| words.iter().any(|words| source.contains(words.as_str())))
    };
    let is_there = |name: &str| match name.contains('_') {
        true => said(&[format!("fn {name}("), format!("\"{name}: ")]),
        false => {
            tree.contains_key(&format!("scenarios/files/{name}.toml"))
                || said(&[format!("name: \"{name}\"")])
        }
    };
    let mut found = Vec::new();
    for (line, content) in numbered(text) {
        let names = content.split('`').skip(1).step_by(2);
        let plain = |name: &&str| {
            let letter = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit();
            name.contains(['_', '-']) && name.chars().all(|one| letter(one) || "_-".contains(one))
        };
        for name in names.filter(plain).filter(|name| !is_there(name)) {
            found.push(Finding::new(
                path,
                line,
                format!("names {name} as evidence, which is neither a scenario, a planted bug, a test nor a judge"),
            ));
        }
    }
    found
}

/// What stands in the round brackets of each link.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// True when the target is a file, not a page elsewhere or a heading here.
fn is_local(target: &str) -> bool {
    !(target.contains("://") || target.starts_with('#') || target.starts_with("mailto:"))
}

/// `target` as seen from the file `path`, without dots.
fn resolve(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_link_is_found() {
        let exists = |path: &str| path == "docs/A.md" || path == "README.md";
        let text = "[a](A.md#x) [b](../README.md) [c](https://example.org) [d](#here)\n[e](B.md)";
        let found = broken_links("docs/C.md", text, exists);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].line, found[0].what.contains("docs/B.md")),
            (2, true)
        );
    }

    #[test]
    fn a_document_that_is_not_there_is_found() {
        let text = "//! See docs/A.md. And\n//! `docs/B.md`, docs/C.rs.";
        let found = missing_documents("a.rs", text, |path| path == "docs/A.md");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn a_word_that_is_there_twice_or_out_of_order_is_found() {
        assert_eq!(glossary("g", "# G\n- **a**: x\n- **B**: y\n").len(), 0);
        assert_eq!(glossary("g", "- **a**: x\n- **a**: y\n").len(), 1);
        assert_eq!(glossary("g", "- **b**: x\n- **A**: y\n").len(), 1);
        assert_eq!(glossary("g", "- a: x\n").len(), 1);
    }

    #[test]
    fn evidence_that_is_not_there_is_found() {
        let source = "fn a_test_of_it() {}\nname: \"long-lease\",\nformat!(\"fleets_differ: {a}\")";
        let mut tree = Tree::from([("a.rs".to_owned(), source.to_owned())]);
        tree.insert("scenarios/files/rack-loss.toml".to_owned(), String::new());
        let text = "`a_test_of_it` `long-lease` `rack-loss` `fleets_differ` `lost` `docs/a-b.md`";
        assert_eq!(missing_evidence("d.md", text, &tree).len(), 0);
        let text = "\n`another_test`, `short-lease`";
        let found = missing_evidence("d.md", text, &tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn a_scenario_that_nobody_runs_is_found() {
        let registry = "include_str!(\"../files/a.toml\")".to_owned();
        let mut tree = Tree::from([("scenarios/src/registry.rs".to_owned(), registry)]);
        tree.insert("scenarios/files/a.toml".to_owned(), String::new());
        assert_eq!(unregistered_scenarios(&tree).len(), 0);
        tree.insert("scenarios/files/b.toml".to_owned(), String::new());
        assert_eq!(unregistered_scenarios(&tree).len(), 1);
    }
}
