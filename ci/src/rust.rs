//! Rules about one Rust file: its first words, what it must not contain, its length.

use crate::source::code_only;
use crate::{Finding, has_word, numbered};

/// Longest line of code, characters, comments and literals not counted. rustfmt breaks at 100 where it can.
pub const CODE_CHARS_MAX: usize = 120;

/// Longest line of prose, characters.
pub const PROSE_CHARS_MAX: usize = 140;

/// Longest file, lines.
pub const FILE_LINES_MAX: usize = 750;

/// Files that may be longer, each with the reason.
pub const LONG_FILES: &[(&str, &str)] = &[];

/// Crates that must not know that they are simulated.
const UNAWARE: [&str; 3] = ["node/", "workloads/", "scenarios/"];

/// Every rule about a Rust file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let code = code_only(text);
    let mut found = Vec::new();
    found.extend(begins_with_doc(path, text));
    found.extend(selects_biased(path, &code));
    found.extend(knows_no_simulator(path, &code));
    found.extend(unfinished(path, text, &code));
    found.extend(skipped_tests(path, &code));
    found.extend(hash_collections(path, &code));
    found.extend(unbounded_queues(path, &code));
    found.extend(long_lines(path, text, &code));
    found.extend(long_file(path, text, LONG_FILES));
    found
}

/// The first line says what the file holds.
pub fn begins_with_doc(path: &str, text: &str) -> Option<Finding> {
    let what = "begin with `//!`: what this file holds, its invariants, what it leaves out";
    (!text.starts_with("//!")).then(|| Finding::new(path, 1, what))
}

/// `select!` draws its order from a process-wide counter unless told otherwise: a failing seed would not replay.
pub fn selects_biased(path: &str, code: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, name) in code.match_indices("select!") {
        let body = code[at + name.len()..].trim_start();
        let body = body.trim_start_matches(['{', '(', '[']).trim_start();
        if !body.starts_with("biased;") {
            let line = 1 + code[..at].matches('\n').count();
            found.push(Finding::new(
                path,
                line,
                "`select!` begins with `biased;` and a comment on the order",
            ));
        }
    }
    found
}

/// The product runs unchanged in the simulator, so nothing in it may ask whether it does.
pub fn knows_no_simulator(path: &str, code: &str) -> Vec<Finding> {
    if !UNAWARE.iter().any(|start| path.starts_with(start)) {
        return Vec::new();
    }
    lines_with(
        path,
        code,
        &["madsim"],
        "the simulated half of every seam lives in `sim`",
    )
}

/// Marks of unfinished work, in comments too; macros of unfinished work in code.
pub fn unfinished(path: &str, text: &str, code: &str) -> Vec<Finding> {
    let marks = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
    ];
    let macros = ["dbg!", "todo!", "unimplemented!"];
    let mut found = lines_with(path, text, &marks, "do it now, or write an issue");
    found.extend(lines_with(path, code, &macros, "no unfinished code"));
    found
}

/// A test that does not run proves nothing.
pub fn skipped_tests(path: &str, code: &str) -> Vec<Finding> {
    let ignored = |line: &str| {
        let line: String = line.split_whitespace().collect();
        line.contains("#[ignore") || (line.contains("cfg_attr(") && has_word(&line, "ignore"))
    };
    let lines = numbered(code).filter(|(_, line)| ignored(line));
    lines
        .map(|(line, _)| Finding::new(path, line, "no test is switched off"))
        .collect()
}

/// Order in a hash table depends on process entropy.
pub fn hash_collections(path: &str, code: &str) -> Vec<Finding> {
    lines_with(
        path,
        code,
        &["HashMap", "HashSet"],
        "use BTreeMap or BTreeSet: their order is the same in every run",
    )
}

/// Every queue has a bound.
pub fn unbounded_queues(path: &str, code: &str) -> Vec<Finding> {
    let names = ["unbounded_channel", "unbounded", "UnboundedSender"];
    lines_with(path, code, &names, "every queue has a bound")
}

/// Lines that nobody can read on half a screen. Literals do not count: rustfmt cannot break them either.
pub fn long_lines(path: &str, text: &str, code: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for ((line, whole), code) in numbered(text).zip(code.lines()) {
        let is_prose = whole.trim_start().starts_with("//");
        let (length, bound) = match is_prose {
            true => (whole.chars().count(), PROSE_CHARS_MAX),
            false => (unmasked(whole, code), CODE_CHARS_MAX),
        };
        if length > bound {
            found.push(Finding::new(
                path,
                line,
                format!("{length} characters; at most {bound}"),
            ));
        }
    }
    found
}

/// How many characters of a line are left when comments and literals are blanked.
fn unmasked(whole: &str, code: &str) -> usize {
    whole
        .chars()
        .zip(code.chars())
        .filter(|(before, after)| before == after)
        .count()
}

/// Past this length, look for a second noun.
pub fn long_file(path: &str, text: &str, excused: &[(&str, &str)]) -> Option<Finding> {
    let lines = text.lines().count();
    let excepted = excused.iter().any(|(name, _)| *name == path);
    let what = format!("{lines} lines; past {FILE_LINES_MAX}, look for a second noun");
    (lines > FILE_LINES_MAX && !excepted).then(|| Finding::new(path, 0, what))
}

/// An exception that is no longer needed misleads.
pub fn needless_exceptions(
    excused: &[(&str, &str)],
    lines_of: impl Fn(&str) -> Option<usize>,
) -> Vec<Finding> {
    let needless = excused
        .iter()
        .filter(|(path, _)| lines_of(path).is_none_or(|lines| lines <= FILE_LINES_MAX));
    needless
        .map(|(path, _)| Finding::new(path, 0, "strike it from LONG_FILES"))
        .collect()
}

/// A finding for each line with one of `words`.
fn lines_with(path: &str, text: &str, words: &[&str], what: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, content) in numbered(text) {
        for word in words.iter().filter(|word| has_word(content, word)) {
            found.push(Finding::new(path, line, format!("`{word}`: {what}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of what `check` finds in `text`.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text)
            .iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn an_orderly_file_passes() {
        let text =
            "//! Doc.\nfn f() { tokio::select! {\n    biased; // why\n    _ = a => {}\n} }\n";
        assert_eq!(lines("node/src/a.rs", text), [0; 0]);
    }

    #[test]
    fn a_file_without_a_first_sentence_is_found() {
        assert_eq!(lines("a.rs", "use a;\n//! late\n"), [1]);
    }

    #[test]
    fn an_unbiased_select_is_found_whatever_its_bracket() {
        assert_eq!(lines("a.rs", "//! d\nselect! { a = b => {} }"), [2]);
        assert_eq!(lines("a.rs", "//! d\n\nselect!(a, b)"), [3]);
        assert_eq!(lines("a.rs", "//! select! { a }\n"), [0; 0]);
    }

    #[test]
    fn a_product_that_knows_the_simulator_is_found() {
        let text = "//! cfg(madsim)\n#[cfg(madsim)]\nfn f() {}";
        assert_eq!(lines("node/src/a.rs", text), [2]);
        assert_eq!(lines("scenarios/src/a.rs", text), [2]);
        assert_eq!(lines("sim/src/a.rs", text), [0; 0]);
    }

    #[test]
    fn unfinished_work_is_found_in_comments_and_code() {
        for mark in [
            concat!("FIX", "ME"),
            concat!("TO", "DO"),
            concat!("XX", "X"),
        ] {
            assert_eq!(lines("a.rs", &format!("//! d\n// {mark}: later")), [2]);
        }
        assert_eq!(lines("a.rs", "//! d\nfn f() { todo!() }"), [2]);
        assert_eq!(lines("a.rs", "//! d\nlet a = dbg!(b);"), [2]);
        assert_eq!(lines("a.rs", "//! d\nunimplemented!(\"a\")"), [2]);
    }

    #[test]
    fn a_test_that_is_switched_off_is_found() {
        assert_eq!(
            lines(
                "a.rs",
                "//! d\n#[ignore]\n#[ignore = \"slow\"]\n#[ ignore ]"
            ),
            [2, 3, 4]
        );
        assert_eq!(lines("a.rs", "//! d\n#[cfg_attr(unix, ignore)]"), [2]);
    }

    #[test]
    fn hash_tables_and_unbounded_queues_are_found() {
        assert_eq!(lines("a.rs", "//! d\nuse std::collections::HashMap;"), [2]);
        assert_eq!(lines("a.rs", "//! d\nlet a: HashSet<u8>;"), [2]);
        assert_eq!(lines("a.rs", "//! d\nmpsc::unbounded_channel();"), [2]);
    }

    #[test]
    fn long_lines_and_long_files_are_found() {
        let prose = "x".repeat(PROSE_CHARS_MAX);
        assert_eq!(lines("a.rs", &format!("//! d\n// {prose}\n")), [2]);
        let code = "x".repeat(CODE_CHARS_MAX + 1);
        assert_eq!(
            lines("a.rs", &format!("//! d\n{code}\n// {code}\n\"{code}\"\n")),
            [2]
        );
        let many = format!("//! d\n{}", "\n".repeat(FILE_LINES_MAX));
        assert_eq!(lines("a.rs", &many), [0]);
        assert_eq!(long_file("a.rs", &many, &[("a.rs", "why")]), None);
    }

    #[test]
    fn an_exception_without_need_is_found() {
        let excused = [("a.rs", "why")];
        assert_eq!(needless_exceptions(&excused, |_| Some(10_000)).len(), 0);
        assert_eq!(needless_exceptions(&excused, |_| Some(10)).len(), 1);
        assert_eq!(needless_exceptions(&excused, |_| None).len(), 1);
    }
}
