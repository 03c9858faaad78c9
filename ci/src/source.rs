//! Rust text without its comments and literals, so that a rule about code does not stumble over prose.
//!
//! This is a scanner, not a parser: it knows line and nested block comments, strings, raw strings, byte strings and
//! character literals (told apart from lifetimes). Whatever it removes becomes spaces, so lines and columns stay.

/// What the scanner is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Code,
    LineComment,
    /// Depth of nesting.
    BlockComment(usize),
    Text,
    /// Number of `#` that end it.
    RawText(usize),
}

/// `text` with comments and the contents of literals blanked.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next, taken) = step(&chars, at, inside);
        let keep = inside == Inside::Code && next == Inside::Code && taken == 1;
        for &character in &chars[at..at + taken] {
            out.push(if keep || character == '\n' {
                character
            } else {
                ' '
            });
        }
        inside = next;
        at += taken;
    }
    out
}

/// What comes after the characters at `at`, and how many those are.
fn step(chars: &[char], at: usize, inside: Inside) -> (Inside, usize) {
    let here = chars[at];
    let next = chars.get(at + 1).copied().unwrap_or('\0');
    match inside {
        Inside::Code => code(chars, at),
        Inside::LineComment if here == '\n' => (Inside::Code, 1),
        Inside::BlockComment(depth) if here == '*' && next == '/' => match depth {
            1 => (Inside::Code, 2),
            _ => (Inside::BlockComment(depth - 1), 2),
        },
        Inside::BlockComment(depth) if here == '/' && next == '*' => {
            (Inside::BlockComment(depth + 1), 2)
        }
        Inside::Text if here == '\\' && next != '\0' => (Inside::Text, 2),
        Inside::Text if here == '"' => (Inside::Code, 1),
        Inside::RawText(hashes) if here == '"' && hashes_at(chars, at + 1) >= hashes => {
            (Inside::Code, 1 + hashes)
        }
        still => (still, 1),
    }
}

/// One step in code.
fn code(chars: &[char], at: usize) -> (Inside, usize) {
    let next = chars.get(at + 1).copied().unwrap_or('\0');
    match chars[at] {
        '/' if next == '/' => (Inside::LineComment, 2),
        '/' if next == '*' => (Inside::BlockComment(1), 2),
        '"' => (Inside::Text, 1),
        'r' if !after_word(chars, at) => {
            let hashes = hashes_at(chars, at + 1);
            match chars.get(at + 1 + hashes) {
                Some('"') => (Inside::RawText(hashes), 2 + hashes),
                _ => (Inside::Code, 1),
            }
        }
        '\'' if next == '\\' => {
            let end = chars
                .get(at + 3..)
                .unwrap_or_default()
                .iter()
                .position(|&character| character == '\'');
            (Inside::Code, end.map_or(1, |end| end + 4))
        }
        '\'' if chars.get(at + 2) == Some(&'\'') => (Inside::Code, 3),
        _ => (Inside::Code, 1),
    }
}

/// True when the character before `at` belongs to the same word, so that `r` does not begin a raw string (`br` may).
fn after_word(chars: &[char], at: usize) -> bool {
    let part = |character: &char| character.is_alphanumeric() || *character == '_';
    match at.checked_sub(1).and_then(|before| chars.get(before)) {
        Some('b') => at >= 2 && part(&chars[at - 2]),
        Some(before) => part(before),
        None => false,
    }
}

/// How many `#` stand at `at` and behind it.
fn hashes_at(chars: &[char], at: usize) -> usize {
    let rest = chars.get(at..).unwrap_or_default();
    rest.iter()
        .take_while(|&&character| character == '#')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_vanish_and_lines_stay() {
        let text = "a // b\nc /* d /* e */ f */ g \"h // \\\" i\" j\nr#\"k\"l\"# m 'n' '\\'' 'o: p";
        let code = code_only(text);
        assert_eq!(code.chars().count(), text.chars().count());
        assert_eq!(code.lines().count(), 3);
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "c", "g", "j", "m", "'o:", "p"]);
    }

    #[test]
    fn a_word_that_ends_in_r_begins_no_raw_string() {
        assert_eq!(code_only("for\"x\" y").trim_end(), "for    y");
        assert_eq!(code_only("br\"x\" y").trim_start_matches('b').trim(), "y");
    }

    #[test]
    fn unfinished_text_does_not_panic() {
        for text in ["\"", "'", "'\\", "'\\x", "r#", "/*", "b\"\\"] {
            assert_eq!(code_only(text).chars().count(), text.chars().count());
        }
    }
}
