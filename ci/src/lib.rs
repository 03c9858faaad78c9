//! The gates: rules about this repository that neither the compiler nor clippy can check.
//!
//! A rule is a small pure function from text to [`Finding`]s, with a test of its own that shows it catching a planted
//! example: a check that cannot fail is worth nothing. Reading order: [`source`], Rust text without its comments and
//! strings; [`rust`], rules about one Rust file; [`text`], rules about any file; [`docs`], links and the glossary;
//! [`manifest`], the workspace's dependencies; [`deps`], the dependency gate; [`tree`], the files there are.
//!
//! `tests/tidy.rs` and `tests/deps.rs` apply the rules to this repository. Nothing here talks to a network.

pub mod deps;
pub mod docs;
pub mod manifest;
pub mod rust;
pub mod source;
pub mod text;
pub mod tree;

use std::fmt;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File, relative to the repository.
    pub path: String,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong and what to do, in one sentence.
    pub what: String,
}

impl Finding {
    /// A finding at a line.
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Finding {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Panics with every finding, one a line; a test ends with this.
pub fn none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// The lines of `text` with their numbers from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// True when `word` stands in `line` with no letter, digit or underscore on either side.
fn has_word(line: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_words() {
        assert!(has_word("a word.", "word"));
        assert!(!has_word("swords", "word"));
        assert!(!has_word("word_s", "word"));
    }

    #[test]
    #[should_panic(expected = "a.rs:3: wrong")]
    fn a_finding_fails_the_test_and_says_where() {
        none(&[Finding::new("a.rs", 3, "wrong")]);
    }
}
