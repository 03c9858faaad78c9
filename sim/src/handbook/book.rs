//! The book: pages, pictures, index, and the files mdBook wants; written, or compared with what is committed.
#![expect(
    clippy::disallowed_methods,
    reason = "the handbook's own files lie on the real disk, outside of any run"
)]

use super::model::Model;
use super::{page, picture};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Contents of all files by name.
pub type Files = BTreeMap<String, String>;

/// mdBook's configuration.
const BOOK_TOML: &str = "# Written by `storm handbook`. Build: mdbook build docs/handbook\n\
[book]\ntitle = \"Seaworthy handbook\"\nlanguage = \"en\"\nsrc = \".\"\n\n\
[build]\nbuild-dir = \"../../target/handbook\"\ncreate-missing = false\n";

/// How the line of a page begins that names the commit it was made on. A page cannot name the commit that it becomes part of,
/// so the line says on top of which one the page last changed; nobody compares it.
pub const BUILT_ON: &str = "- Built on commit ";

/// What the reader must know before trusting a page.
const ABOUT: &str = "\
# About these pages

No page here was written by hand alone, and none by a machine alone. The advice is a scenario file (`scenarios/files/`), written
by people. The numbers, the picture, the story and the output of commands come from runs of that very scenario, and
`storm handbook` puts both together. When one run fails, no page is written.

## What a run is

A cluster of production nodes, compiled from the same sources as the program you operate, on a simulated network, simulated disks and
simulated clocks. Clients work on it through its HTTP interface while the faults of the scenario happen at moments that the
seed draws. Then the faults end, and the cluster must become whole. A run follows from its scenario and its seed: the same
seed gives the same run, to the last event.

## What green means

None of the checks listed on the pages failed in any of the runs listed there. It does not mean that there are no bugs.
Half of the runs do not use the sizes and limits we ship, but drawn ones, so that rare situations become common.

## How to read the numbers

- **Median**, **99 %** and **worst** are over runs: half of them, ninety-nine of a hundred, and all of them were no worse. With fewer
  than a hundred runs, 99 % is the worst run.
- A **bound** is what no run may exceed. A run beyond it counts as failed, and then there is no page.
- All times are virtual. They contain the time-outs, the network's delays and the disks' waits, but not the time that
  the processor takes to compute: on a busy machine things take longer.
- Times in pictures and stories count from the start of the cluster.
- `n1`, `n2`, ... are nodes, `c1`, ... clients; `node 1` is the node whose id is 1, which was `n1` when the cluster was founded.
- Profiles are the time-outs a cluster is set up with: `lan` elects after 150 to 300 ms of silence, `edge` after 500 ms to 1 s, `wan` after
  1 to 2 s.

## What is not simulated

Slow processors, full memory, wrong firmware, wrong people. The list of what the simulation controls, and what it does not,
is [docs/SIMULATION.md](../SIMULATION.md). Words are explained in [docs/GLOSSARY.md](../GLOSSARY.md).

## How to see it again

```console
$ storm handbook --check         # are these pages what the code gives today?
$ storm handbook                 # write them anew
$ storm replay NAME --seed N     # one run, event by event
```
";

/// All files of the book.
pub fn files(models: &[Model]) -> Files {
    let mut files = Files::new();
    files.insert("book.toml".to_owned(), BOOK_TOML.to_owned());
    files.insert("about.md".to_owned(), ABOUT.to_owned());
    files.insert("SUMMARY.md".to_owned(), summary(models));
    files.insert("README.md".to_owned(), index(models));
    for model in models {
        files.insert(format!("{}.md", model.scenario.name), page::write(model));
        if let Some(drawn) = picture::draw(model.shown_run()) {
            files.insert(format!("{}.svg", model.scenario.name), drawn);
        }
    }
    files
}

/// mdBook's table of contents.
fn summary(models: &[Model]) -> String {
    let mut out = "# Summary\n\n[Seaworthy handbook](README.md)\n\n".to_owned();
    for model in models {
        // Writing to a string cannot fail.
        writeln!(
            out,
            "- [{}]({}.md)",
            model.scenario.title, model.scenario.name
        )
        .ok();
    }
    out.push_str("\n[About these pages](about.md)\n");
    out
}

/// The first page.
fn index(models: &[Model]) -> String {
    let runs: usize = models.iter().map(|model| model.runs.len()).sum();
    let operations: u64 = models
        .iter()
        .map(|model| model.sum(|run| run.operations))
        .sum();
    let mut out = format!(
        "# Seaworthy handbook\n\nWhat can happen to a cluster, what you see, and what to do. The times on these pages were measured \
         in {runs} simulated runs with {operations} judged operations, and none of them failed: see [about these pages](about.md).\n\n\
         ## What is the matter?\n\n| Page | In one sentence |\n| --- | --- |\n"
    );
    for model in models {
        let one = &model.scenario;
        // Writing to a string cannot fail.
        writeln!(
            out,
            "| [{}]({}.md) | {} |",
            one.title, one.name, one.summary
        )
        .ok();
    }
    out.push_str(
        "\n## When in doubt\n\n1. Look before you act: `seaworthy cluster health` changes nothing.\n\
         2. Restart one node at a time, and wait until health is good again.\n\
         3. Never wipe, copy or restore a data directory while a majority of them is there.\n\
         4. An error that says `outcome_unknown` means: the write may have happened. Read before you repeat it, or repeat it \
         within its session.\n\n## How long things take\n\n| Page | What | Median | Worst |\n| --- | --- | ---: | ---: |\n",
    );
    for (model, row) in models
        .iter()
        .flat_map(|model| model.rows.iter().map(move |row| (model, row)))
    {
        let unit = row.expectation.unit.as_str();
        if unit == "ms" {
            let (median, worst) = (
                page::amount(row.median, unit),
                page::amount(row.worst, unit),
            );
            let (title, text) = (&model.scenario.title, &row.expectation.text);
            writeln!(out, "| {title} | {text} | {median} | {worst} |").ok();
        }
    }
    out.push_str("\n## What is covered\n\nIds of the inventory of older systems' runbooks, and the pages that cover them.\n\n| Id | Pages |\n| --- | --- |\n");
    for (id, pages) in covered(models) {
        writeln!(out, "| {id} | {} |", pages.join(", ")).ok();
    }
    out
}

/// Pages by the inventory's ids, in the order in which a person looks for them.
fn covered(models: &[Model]) -> Vec<(String, Vec<String>)> {
    let mut covered: BTreeMap<(String, u64), (String, Vec<String>)> = BTreeMap::new();
    for one in models.iter().map(|model| &model.scenario) {
        for id in &one.covers {
            let (_, pages) = covered
                .entry(order_of(id))
                .or_insert_with(|| (id.clone(), Vec::new()));
            pages.push(format!("[{}]({}.md)", one.title, one.name));
        }
    }
    covered.into_values().collect()
}

/// `W-S15` as `W-S` and 15, so that `W-S8` comes before it.
fn order_of(id: &str) -> (String, u64) {
    let letters = id.trim_end_matches(|one: char| one.is_ascii_digit());
    let number = id[letters.len()..].parse().unwrap_or_default();
    (letters.to_owned(), number)
}

/// Writes the book, made on `commit`. A page in which nothing else has changed keeps its commit.
pub fn write(out: &Path, files: &Files, commit: &str) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    for (name, text) in files {
        let path = out.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|there| is_same(&there, text)) {
            continue;
        }
        std::fs::write(&path, stamped(text, commit))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The text with `commit` as the one it was made on.
pub fn stamped(text: &str, commit: &str) -> String {
    let line = |line: &str| {
        if line.starts_with(BUILT_ON) {
            format!("{BUILT_ON}{commit}.\n")
        } else {
            line.to_owned()
        }
    };
    text.split_inclusive('\n').map(line).collect()
}

/// True when two texts are the same but for the commit.
pub fn is_same(one: &str, other: &str) -> bool {
    without_commit(one).eq(without_commit(other))
}

/// A text's pieces but for the line of its commit.
fn without_commit(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
        .filter(|line| !line.starts_with(BUILT_ON))
}

/// What in `out` is not what it should be: one paragraph per file.
pub fn compare(out: &Path, files: &Files) -> Result<Vec<String>> {
    let mut differ = Vec::new();
    for (name, right) in files {
        let path = out.join(name);
        match std::fs::read_to_string(&path) {
            Ok(there) if is_same(&there, right) => {}
            Ok(there) => differ.push(format!(
                "{} {}",
                path.display(),
                first_difference(&there, right)
            )),
            Err(error) => differ.push(format!("{}: {error}", path.display())),
        }
    }
    if out.is_dir() {
        for entry in std::fs::read_dir(out).with_context(|| format!("reading {}", out.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !files.contains_key(&name) {
                differ.push(format!(
                    "{} does not belong to the book",
                    out.join(name).display()
                ));
            }
        }
    }
    differ.sort();
    Ok(differ)
}

/// The first line in which two texts differ.
pub fn first_difference(there: &str, right: &str) -> String {
    let (mut old, mut new) = (there.lines(), right.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (old.next(), new.next()) {
            (Some(old), Some(new)) if old.starts_with(BUILT_ON) && new.starts_with(BUILT_ON) => {}
            (None, None) => return "differs in its line ends".to_owned(),
            (old, new) if old == new => {}
            (old, new) => {
                let show = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
                return format!(
                    "line {number}:\n  there: {}\n  right: {}",
                    show(old),
                    show(new)
                );
            }
        }
    }
}
