//! One page of the handbook, as markdown: what to do comes before why.

use super::live;
use super::model::{Model, Row};
use super::story::told;
use crate::report::Report;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What was watched in every run, whatever the scenario.
const HELD: [&str; 10] = [
    "At most one node led in each term, and no node voted for two candidates in one term, across all its lives.",
    "At each log index every node applied the same entry and reached the same state.",
    "An entry was applied anywhere only when a majority of the voters had it on their disks.",
    "No node went back on what it had committed, and none skipped an entry.",
    "Every acknowledged write was there at the end.",
    "A write that a client sent again within its session happened once.",
    "The history of every key was linearizable. A write with an unknown outcome may have happened or not.",
    "No read was older than it said it might be.",
    "Watchers were told every change, in order, without a gap.",
    "After the faults had ended, all nodes came together under one leader with equal states.",
];

/// Writes the page of a scenario.
pub fn write(model: &Model) -> String {
    let scenario = &model.scenario;
    let run = model.shown_run();
    let mut page = Page(String::new());
    page.line(&format!("# {}\n\n**{}**", scenario.title, scenario.summary));
    page.part("What you see", &scenario.symptoms);
    page.part("What to do", &scenario.what_to_do);
    page.part("How long it takes", &durations(&model.rows));
    page.part("What happens", &scenario.what_happens);
    page.part("One run, drawn", &picture(model, run));
    page.part("The same run, told", &story(run));
    page.part("What was measured", &measured(model));
    page.part("Also run live", &live::part(model.live.as_ref()));
    page.part("Commands, as they really answered", &commands(run));
    page.part(
        "What held in every run",
        &HELD.map(|fact| format!("- {fact}")).join("\n"),
    );
    page.part("Prevention", &scenario.prevention);
    page.part("Evidence", &evidence(model, run));
    page.part("Covers", &covers(&scenario.covers));
    page.0
}

/// A page under way.
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text.trim_end());
        self.0.push('\n');
    }

    /// A part with its heading; nothing when there is nothing to say.
    fn part(&mut self, heading: &str, text: &str) {
        if !text.trim().is_empty() {
            self.line(&format!("\n## {heading}\n\n{}", text.trim()));
        }
    }
}

/// What an operator waits for, in one line each.
fn durations(rows: &[Row]) -> String {
    let lines = rows
        .iter()
        .filter(|row| row.expectation.unit == "ms")
        .map(|row| {
            let text = row.expectation.text.trim_end_matches('.');
            let (median, worst) = (amount(row.median, "ms"), amount(row.worst, "ms"));
            match row.runs {
                1 => format!("- {text}: **{worst}** in the one run in which it was measured."),
                runs => {
                    format!("- {text}: usually **{median}**, at worst **{worst}** in {runs} runs.")
                }
            }
        });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return "There is nothing to wait for: nothing stops.".to_owned();
    }
    lines.join("\n")
}

/// The picture with its explanation.
fn picture(model: &Model, run: &Report) -> String {
    let name = &model.scenario.name;
    format!(
        "![Timeline of seed {}: writes, roles and faults over time]({name}.svg)\n\n\
         Green bars count the writes that clients were told had happened, per tenth of a second. Ticks below them are operations \
         without success: refused, or with an outcome that the client never learned. Each lane is a node; the higher its bar, the \
         more it has to say: a leader is high, a follower low. The picture shows seed {}, the first one in which {}.",
        run.seed,
        run.seed,
        if run.labels.len() == labels_of(model) {
            "everything that the scenario can bring happened".to_owned()
        } else {
            format!(
                "{} of the scenario's {} events happened",
                run.labels.len(),
                labels_of(model)
            )
        }
    )
}

/// Labelled steps that the scenario knows.
fn labels_of(model: &Model) -> usize {
    model
        .scenario
        .step
        .iter()
        .filter(|step| step.label.is_some())
        .count()
}

/// The story as a table.
fn story(run: &Report) -> String {
    let (lines, more) = told(run);
    let mut out = "| Time | Where | What |\n| ---: | --- | --- |\n".to_owned();
    for line in lines {
        let what = line
            .text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("— ");
        // Writing to a string cannot fail.
        let place = if line.place == "storm" {
            ""
        } else {
            line.place.as_str()
        };
        let what = if place.is_empty() {
            format!("**{}**", cell(what))
        } else {
            cell(what)
        };
        writeln!(
            out,
            "| {:.3} s | {place} | {what} |",
            line.at_us as f64 / 1e6
        )
        .ok();
    }
    if more > 0 {
        writeln!(out, "\n{more} more lines: see the replay command below.").ok();
    }
    out
}

/// The expectations as a table.
fn measured(model: &Model) -> String {
    let mut out = "| Id | What | Runs | Median | 99 % | Worst | Bound |\n\
                   | --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for row in &model.rows {
        let (one, unit) = (&row.expectation, row.expectation.unit.as_str());
        let cells = [row.median, row.p99, row.worst]
            .map(|value| amount(value, unit))
            .join(" | ");
        // Writing to a string cannot fail.
        writeln!(
            out,
            "| {} | {} | {} | {cells} | {} |",
            one.id,
            cell(&one.text),
            row.runs,
            bound(row)
        )
        .ok();
    }
    let promises = model.rows.iter().filter_map(|row| {
        row.expectation
            .runbook
            .as_ref()
            .map(|said| format!("- {}: {said}", row.expectation.id))
    });
    let promises: Vec<String> = promises.collect();
    if !promises.is_empty() {
        out.push_str("\nWhat older runbooks promised:\n\n");
        out.push_str(&promises.join("\n"));
    }
    out
}

/// The bound of an expectation: no run may be beyond it.
fn bound(row: &Row) -> String {
    let (one, unit) = (&row.expectation, row.expectation.unit.as_str());
    let each = [
        (one.max, "at most"),
        (one.min, "at least"),
        (one.median_max, "median at most"),
    ];
    let words = each
        .iter()
        .filter_map(|(bound, words)| bound.map(|bound| format!("{words} {}", amount(bound, unit))));
    words.collect::<Vec<String>>().join(", ")
}

/// A value with its unit: milliseconds from one second on as seconds, counts without decimals.
pub fn amount(value: f64, unit: &str) -> String {
    if unit != "ms" {
        return format!("{value:.0}");
    }
    if value == 0.0 {
        return "at once".to_owned();
    }
    if value < 999.5 {
        return format!("{value:.0} ms");
    }
    let text = format!("{:.2}", value / 1_000.0);
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Commands with what they printed.
fn commands(run: &Report) -> String {
    if run.commands.is_empty() {
        return String::new();
    }
    let start_us = run
        .timeline
        .as_ref()
        .map_or(0, |timeline| timeline.start_us);
    let mut out = "The production command line, run inside the simulation by an operator whose `--endpoints` name all nodes.\n".to_owned();
    for command in &run.commands {
        let at_s = start_us as f64 / 1e6 + command.at_ms as f64 / 1e3;
        let output: Vec<&str> = command.output.lines().map(str::trim_end).collect();
        // Writing to a string cannot fail.
        write!(
            out,
            "\nAt {at_s:.1} s, exit code {}:\n\n```console\n$ seaworthy {}\n{}\n```\n",
            command.exit,
            command.line,
            output.join("\n")
        )
        .ok();
    }
    out
}

/// What the page rests on, and how to see it again.
fn evidence(model: &Model, run: &Report) -> String {
    let (first, last) = model.seeds();
    let count = model.runs.len();
    let topologies = model
        .topologies()
        .into_iter()
        .map(|((nodes, profile), runs)| format!("{runs} with {nodes} nodes, profile {profile}"))
        .collect::<Vec<String>>()
        .join("; ");
    let set = match model.scenario.cluster.down_after_ms {
        None => String::new(),
        Some(ms) => format!(" All with `workers.down_after_ms = {ms}`."),
    };
    let minutes = model.sum(|run| run.virtual_ms) as f64 / 60_000.0;
    let seeds = match count {
        1 => format!("Seed {first}: one run, which did not fail"),
        _ => format!("Seeds {first} to {last}: {count} runs, none failed"),
    };
    let weight = match model.scenario.one_in {
        1 => String::new(),
        many => format!(" A run is long here: there is one for {many} that others get."),
    };
    let mut out = format!(
        "- {seeds}. {topologies}.{set}{weight}\n\
         - Simulated time: {minutes:.1} minutes. Operations judged: {}; writes acknowledged: {}.\n\
         - Errors that clients saw: {}.\n\
         - Version {}; combined trace hash `{}`. Same code and seeds give the same hash, and this very page: \
         `storm handbook --check` compares them byte by byte.\n\
         {}`(none)`.\n\
         - The run above, event by event: `{}`\n\n\
         In how many of {} something happened:\n\n| Runs | What |\n| ---: | --- |\n",
        model.sum(|run| run.operations),
        model.sum(|run| run.acknowledged),
        errors(model),
        env!("CARGO_PKG_VERSION"),
        model.hash,
        super::book::BUILT_ON,
        run.replay_command(),
        if count == 1 {
            "one run".to_owned()
        } else {
            format!("the {count} runs")
        },
    );
    for (probe, runs) in model.probes() {
        // Writing to a string cannot fail.
        writeln!(out, "| {runs} | {} |", cell(probe)).ok();
    }
    out
}

/// Errors by code, over all runs.
fn errors(model: &Model) -> String {
    let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
    for (code, count) in model.runs.iter().flat_map(|run| &run.errors) {
        *errors.entry(code).or_default() += count;
    }
    if errors.is_empty() {
        return "none".to_owned();
    }
    let words = errors.iter().map(|(code, count)| format!("{count} {code}"));
    words.collect::<Vec<String>>().join(", ")
}

/// Inventory ids.
fn covers(ids: &[String]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
    format!(
        "Ids of the [index](README.md#what-is-covered): {}.",
        ids.join(", ")
    )
}

/// Text that stands in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
