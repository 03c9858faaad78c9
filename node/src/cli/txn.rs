//! `kv txn`: a transaction from a small text or JSON file.
//!
//! The text is for people, one line per comparison or step; the JSON is the body of `POST /v1/txn` as it is.

use super::args::Output;
use super::exit::{Error, Exit};
use super::kv;
use super::remote::{Ask, Remote};
use super::table;
use super::world::{Answer, World};
use serde_json::{Map, Value, json};

/// The text form, for `--help`.
pub const HELP: &str = "\
The file holds lines, or JSON as the HTTP interface takes it:

  if lock/a version = 0          version, create_revision, mod_revision, lease: a number
  if config/mode value = \"fast\"  = != < >; all lines must hold
  then put lock/a me
  then get config/mode
  else get lock/a                put KEY VALUE [LEASE], delete KEY, get KEY

Words with spaces stand in double quotes; # begins a comment. Exit 4 when a comparison does not hold.

Examples:
  seaworthy kv txn take-lock.txn
  echo 'then put a 1' | seaworthy kv txn";

/// Sends the transaction in `file`.
pub async fn run(
    file: &str,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let bytes = world.read(file)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::usage(
            format!("{file} is no UTF-8 text"),
            "values in JSON may be value_base64",
        )
    })?;
    let body = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| {
            Error::usage(format!("{file}: {error}"), "see `seaworthy kv txn --help`")
        })?
    } else {
        parsed(file, &text)?
    };
    let json = remote.ask(&Ask::post("/v1/txn", &body)).await?;
    let held = json.get("succeeded").and_then(Value::as_bool);
    let text = told(&json, held == Some(true));
    world.answer(output, &Answer { json, text })?;
    match held {
        Some(false) => Ok(Exit::Condition),
        _ => Ok(Exit::Ok),
    }
}

/// The outcome for people.
fn told(json: &Value, held: bool) -> String {
    let branch = match held {
        true => "the comparisons hold: `then` was done",
        false => "a comparison does not hold: `else` was done",
    };
    let mut text = format!("{branch}; revision {}\n", table::field(json, "revision"));
    let results = json.get("results").and_then(Value::as_array);
    for (at, result) in results.into_iter().flatten().enumerate() {
        text += &format!("{}. {}", at + 1, step_told(result));
    }
    text
}

fn step_told(result: &Value) -> String {
    let fields = result.as_object().cloned().unwrap_or_else(Map::new);
    let Some((kind, done)) = fields.into_iter().next() else {
        return "nothing\n".to_owned();
    };
    match kind.as_str() {
        "put" => format!("put: version {}\n", table::field(&done, "version")),
        "delete" => format!("delete: {} removed\n", table::field(&done, "deleted")),
        "get" => {
            let kvs = done.get("kvs").and_then(Value::as_array).cloned();
            format!("get:\n{}", kv::records(&kvs.unwrap_or_default()))
        }
        _ => format!("{kind}: {done}\n"),
    }
}

/// The body for a text.
fn parsed(file: &str, text: &str) -> Result<Value, Error> {
    let mut compare = Vec::new();
    let mut success = Vec::new();
    let mut failure = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |message: &str| {
            Error::usage(
                format!("{file}:{}: {message}", at + 1),
                "see `seaworthy kv txn --help`",
            )
        };
        let words = words(line).ok_or_else(|| wrong("a quote is not closed"))?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => {}
            ["if", rest @ ..] => compare.push(comparison(rest).map_err(wrong)?),
            ["then", rest @ ..] => success.push(step(rest).map_err(wrong)?),
            ["else", rest @ ..] => failure.push(step(rest).map_err(wrong)?),
            _ => return Err(wrong("a line begins with if, then or else")),
        }
    }
    Ok(json!({ "compare": compare, "success": success, "failure": failure }))
}

fn comparison(words: &[&str]) -> Result<Value, &'static str> {
    let [key, target, relation, with] = words else {
        return Err("write: if KEY TARGET RELATION NUMBER-OR-VALUE");
    };
    let relation = match *relation {
        "=" | "==" => "equal",
        "!=" => "not_equal",
        ">" => "greater",
        "<" => "less",
        _ => return Err("the relation is one of = != < >"),
    };
    let (name, with) = match *target {
        "value" => ("value", json!(with)),
        "version" | "create_revision" | "mod_revision" | "lease" => {
            let number: u64 = with
                .parse()
                .map_err(|_| "this target compares with a number")?;
            ("number", json!(number))
        }
        _ => {
            return Err(
                "the target is one of version, create_revision, mod_revision, lease, value",
            );
        }
    };
    Ok(json!({ "key": key, "target": target, "relation": relation, name: with }))
}

fn step(words: &[&str]) -> Result<Value, &'static str> {
    match words {
        ["put", key, value] => Ok(json!({ "put": { "key": key, "value": value } })),
        ["put", key, value, lease] => {
            let lease: u64 = lease.parse().map_err(|_| "a lease is a number")?;
            Ok(json!({ "put": { "key": key, "value": value, "lease": lease } }))
        }
        ["delete", key] => Ok(json!({ "delete": { "key": key } })),
        ["get", key] => Ok(json!({ "get": { "key": key } })),
        _ => Err("a step is put KEY VALUE [LEASE], delete KEY or get KEY"),
    }
}

/// The words of a line; nothing when a quote is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '#' => break,
            '"' => words.push(quoted(&mut letters)?),
            letter if letter.is_whitespace() => {}
            letter => {
                let mut word = letter.to_string();
                while let Some(next) = letters.next_if(|next| !next.is_whitespace()) {
                    word.push(next);
                }
                words.push(word);
            }
        }
    }
    Some(words)
}

/// The rest of a word in quotes, with `\"`, `\\`, `\n` and `\t`.
fn quoted(letters: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut word = String::new();
    loop {
        match letters.next()? {
            '"' => return Some(word),
            '\\' => word.push(match letters.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            letter => word.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_body() {
        let text = "# take the lock\nif lock version = 0\nif mode value != \"very \\\"fast\\\"\"\n\nthen put lock me 7\nthen delete old # gone\nelse get lock\n";
        let body = parsed("t", text).unwrap();
        assert_eq!(
            body,
            json!({
                "compare": [
                    {"key": "lock", "target": "version", "relation": "equal", "number": 0},
                    {"key": "mode", "target": "value", "relation": "not_equal", "value": "very \"fast\""},
                ],
                "success": [
                    {"put": {"key": "lock", "value": "me", "lease": 7}},
                    {"delete": {"key": "old"}},
                ],
                "failure": [{"get": {"key": "lock"}}],
            })
        );
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, message) in [
            ("\nwhen x", "t:2: a line begins with if, then or else"),
            (
                "if a version = x",
                "t:1: this target compares with a number",
            ),
            ("if a size = 1", "t:1: the target is one of"),
            ("then put a", "t:1: a step is put KEY VALUE"),
            ("then put a \"b", "t:1: a quote is not closed"),
        ] {
            let error = parsed("t", text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
