//! `debug wal`: explains the log in a data directory, read-only; exit 7 when it is damaged.

use node::cli::args::Output;
use node::cli::{Error, Exit, table};
use node::rt::real;
use node::wal::{self, Inspection, Verdict, inspect};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Explains the log in `dir`.
pub(crate) async fn run(dir: &str, output: Output) -> Result<Exit, Error> {
    let path = log_of(Path::new(dir))?;
    let env = real::env("debug").map_err(|error| Error::local(error.to_string(), ""))?;
    let (lane, place) = (env.lanes.open("wal"), path.clone());
    let read = lane.run(move || inspect(&place)).await;
    let read = read.map_err(|closed| Error::local(closed.to_string(), ""))?;
    let found = read.map_err(|error| unreadable(&path, &error))?;
    let text = match output {
        Output::Table => words(&path, &found),
        Output::Json => json(&path, &found),
    };
    say(&text)?;
    match found.verdict {
        Verdict::Damaged(_) => Ok(Exit::Unwell),
        Verdict::Clean | Verdict::TornTail { .. } => Ok(Exit::Ok),
    }
}

/// The log's directory: `dir` is a node's data directory, or the log's own.
fn log_of(dir: &Path) -> Result<PathBuf, Error> {
    let hint = "name the data directory of a node (data_dir in its configuration)";
    if !dir.is_dir() {
        let message = format!("{} is no directory", dir.display());
        return Err(Error::usage(message, hint));
    }
    let inner = dir.join("wal");
    if inner.is_dir() {
        return Ok(inner);
    }
    if dir.file_name().is_some_and(|name| name == "wal") {
        return Ok(dir.to_owned());
    }
    let message = format!("there is no log in {}", dir.display());
    Err(Error::usage(message, hint))
}

fn unreadable(path: &Path, error: &wal::Error) -> Error {
    let message = format!("cannot read the log in {}: {error}", path.display());
    Error::local(message, "")
}

/// For people: a summary, every record, and the verdict last, where the eye is.
fn words(path: &Path, found: &Inspection) -> String {
    let files: Vec<String> = found.files.iter().map(u64::to_string).collect();
    let anchor = match found.anchor.as_str() {
        "" => "none: no log was ever begun here",
        anchor => anchor,
    };
    let summary = table::pairs(&[
        ("Log", path.display().to_string()),
        ("Anchor", anchor.to_owned()),
        (
            "Segments",
            if files.is_empty() {
                "none".to_owned()
            } else {
                files.join(" ")
            },
        ),
        ("Records", found.items.len().to_string()),
        ("Verdict", found.verdict.to_string()),
    ]);
    if found.items.is_empty() {
        return summary;
    }
    let rows = found.items.iter().map(|item| {
        vec![
            item.segment.to_string(),
            item.offset.to_string(),
            item.batch.to_string(),
            item.what.clone(),
        ]
    });
    let records = table::table(&["segment", "offset", "batch", "record"], rows);
    format!("{records}\n{summary}")
}

/// For programs.
fn json(path: &Path, found: &Inspection) -> String {
    let records: Vec<serde_json::Value> = found
        .items
        .iter()
        .map(|item| {
            serde_json::json!({
                "segment": item.segment, "offset": item.offset, "batch": item.batch, "record": item.what,
            })
        })
        .collect();
    let (damaged, torn) = match &found.verdict {
        Verdict::Clean => (false, false),
        Verdict::TornTail { .. } => (false, true),
        Verdict::Damaged(_) => (true, false),
    };
    let whole = serde_json::json!({
        "path": path.display().to_string(),
        "anchor": found.anchor,
        "segments": found.files,
        "records": records,
        "damaged": damaged,
        "torn_tail": torn,
        "verdict": found.verdict.to_string(),
    });
    format!("{whole:#}\n")
}

/// Writes to standard output; whoever closed it has seen enough.
fn say(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|_| Error::Closed)
}
