//! Texts, lists and maps in the spellings that Compose allows.

use super::Report;
use crate::service::yaml::{Node, Value};
use std::collections::BTreeMap;

/// Words of a command: a list, or a line that is split as a shell would, without running one.
pub(super) fn command(path: &str, node: &Node, report: &mut Report) -> Vec<String> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| report.text(path, item)).collect(),
        _ if node.is_null() => Vec::new(),
        _ => report.parsed(path, node, words).unwrap_or_default(),
    }
}

/// Splits a line at spaces that are not quoted.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => quoted(&mut letters, '\'', word.get_or_insert_default())?,
            '"' => quoted(&mut letters, '"', word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().extend(letters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Takes what stands until the closing `quote`.
fn quoted(letters: &mut std::str::Chars<'_>, quote: char, word: &mut String) -> Result<(), String> {
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter == quote => return Ok(()),
            '\\' if quote == '"' => match letters.next() {
                Some(letter @ ('"' | '\\' | '$' | '`')) => word.push(letter),
                Some(letter) => word.extend(['\\', letter]),
                None => break,
            },
            letter => word.push(letter),
        }
    }
    Err(format!("a {quote} is not closed"))
}

/// A map of texts, or a list of `KEY=VALUE`. `bare` says why a key must have a value; without it, the value is empty.
pub(super) fn pairs(
    path: &str,
    node: &Node,
    bare: Option<&str>,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut given: Vec<(String, Option<String>, usize)> = Vec::new();
    if let Value::List(items) = &node.value {
        for item in items {
            let text = report.text(path, item);
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            given.push((key, value, item.line));
        }
    } else {
        for (key, node) in report.map(path, node) {
            let value = match node.is_null() {
                true => None,
                false => Some(report.text(&format!("{path}.{}", key.name), node)),
            };
            given.push((key.name.clone(), value, node.line));
        }
    }
    let mut found = BTreeMap::new();
    for (key, value, line) in given {
        match (value, bare) {
            (Some(value), _) => drop(found.insert(key, value)),
            (None, None) => drop(found.insert(key, String::new())),
            (None, Some(why)) => report.wrong(line, &format!("{path}.{key}"), why),
        }
    }
    found
}
