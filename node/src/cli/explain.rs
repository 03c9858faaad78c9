//! `service explain`, `plan` and `convert`: why it is so, what would be, and what a file means.

use super::args::Output;
use super::args_fleet::{Explain, Plan};
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::service::{read_specs, typed};
use super::table;
use super::world::{Answer, World};
use crate::api::fleet_wire::ServiceInfo;
use crate::api::story_wire::{EventInfo, ExplainAnswer, PlanAnswer};
use crate::error::Code;
use crate::service::Spec;
use serde_json::{Value, json};

/// `service explain`.
pub(super) async fn explain(options: &Explain, remote: &Remote) -> Result<Answer, Error> {
    let path = Path::under("/v1/services/", &options.name, "/explain");
    let json = remote.ask(&Ask::get(path)).await?;
    let told: ExplainAnswer = typed(&json)?;
    let mut text = format!("{}\n", told.summary.join("\n"));
    for one in &told.tasks {
        let task = &one.task;
        if task.state.is_end() && !options.all && !one.is_latest(&told) {
            continue;
        }
        text += &format!(
            "\n{}.{} (task {}): {}\n",
            task.service, task.slot, task.id, one.why
        );
        for node in &one.nodes {
            text += &format!("  {}: {}\n", node.node, node.reason);
        }
        text += &history(&one.events, options.all);
    }
    if !told.events.is_empty() {
        text += "\nthe service itself\n";
        text += &history(&told.events, options.all);
    }
    Ok(Answer { json, text })
}

/// Events told of one thing unless all are asked for.
const EVENTS_TOLD: usize = 6;

fn history(events: &[EventInfo], all: bool) -> String {
    let skip = match all {
        true => 0,
        false => events.len().saturating_sub(EVENTS_TOLD),
    };
    let lines = events[skip..].iter().map(|event| {
        let time = table::time(event.time_ms);
        format!("  {time}  {}\n", event.message)
    });
    lines.collect()
}

/// `service plan`.
pub(super) async fn plan(options: &Plan, remote: &Remote, world: &World) -> Result<Answer, Error> {
    let mut specs = read_specs(&options.file, options.ignore_unsupported, world)?;
    if let Some(replicas) = options.replicas {
        specs.iter_mut().for_each(|spec| spec.replicas = replicas);
    }
    let mut answers = Vec::new();
    let mut text = String::new();
    for spec in &specs {
        let json = remote
            .ask(&Ask::query("/v1/services/plan", &json!(spec)))
            .await?;
        let plan: PlanAnswer = typed(&json)?;
        if !text.is_empty() {
            text.push('\n');
        }
        text += &differences(spec, remote).await?;
        text += &outlook(&plan);
        answers.push(json);
    }
    let json = super::service::one_or_all(answers);
    Ok(Answer { json, text })
}

/// What changes in the specification, line by line.
async fn differences(spec: &Spec, remote: &Remote) -> Result<String, Error> {
    let path = Path::under("/v1/services/", &spec.name, "");
    let now = match remote.ask(&Ask::get(path)).await {
        Ok(json) => typed::<ServiceInfo>(&json)?.spec,
        Err(error) if error.code == Code::NotFound => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    flatten(String::new(), &json!(now), &mut before);
    flatten(String::new(), &json!(spec), &mut after);
    let gone = before.iter().filter(|line| !after.contains(line));
    let new = after.iter().filter(|line| !before.contains(line));
    let gone = gone.map(|line| format!("- {line}\n"));
    Ok(gone.chain(new.map(|line| format!("+ {line}\n"))).collect())
}

/// The leaves of `value`, each as `path = value`.
fn flatten(path: String, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(format!("{path}{dot}{key}"), field, lines);
            }
        }
        other => lines.push(format!("{path} = {other}")),
    }
}

fn outlook(plan: &PlanAnswer) -> String {
    let name = &plan.service;
    let mut text = match plan.action.as_str() {
        "create" => format!("{name} would be made\n"),
        "none" => format!("{name} is so already, version {}\n", plan.version),
        _ if plan.rollout => format!("{name} would be rolled out as version {}\n", plan.version),
        _ => format!(
            "{name} would have version {}, without a rollout\n",
            plan.version
        ),
    };
    text += &format!(
        "{} tasks would start, {} would stop",
        plan.starts, plan.stops
    );
    if plan.others > 0 {
        text += &format!("; of other services {} would start or stop", plan.others);
    }
    let seconds = plan.takes_ms as f64 / 1000.0;
    text += &match plan.complete {
        true => format!("; it takes {seconds:.0}s at least\n"),
        false => format!("; after {seconds:.0}s it would still go on (not looked at further)\n"),
    };
    let signed = |count: u64, sign: &str| match count {
        0 => "-".to_owned(),
        count => format!("{sign}{count}"),
    };
    let rows = plan.nodes.iter().map(|node| {
        vec![
            node.node.clone(),
            node.before.to_string(),
            node.after.to_string(),
            signed(node.starts, "+"),
            signed(node.stops, "-"),
        ]
    });
    if !plan.nodes.is_empty() {
        text += &table::table(&["node", "before", "after", "starts", "stops"], rows);
    }
    for waits in &plan.waiting {
        text += &format!("{name}.{} would wait: {}\n", waits.slot, waits.why);
    }
    text
}

/// `service convert`.
pub(super) fn convert(
    file: &str,
    ignore_unsupported: bool,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let specs = read_specs(file, ignore_unsupported, world)?;
    for (position, spec) in specs.iter().enumerate() {
        super::service::check(spec, Some(file))?;
        let text = match output {
            Output::Json => format!("{:#}\n", json!(spec)),
            Output::Table => {
                let text = toml::to_string(spec);
                let text = text.map_err(|error| Error::local(error.to_string(), ""))?;
                let rule = if position > 0 { "\n" } else { "" };
                format!("{rule}# {}.toml\n{text}", spec.name)
            }
        };
        world.out(&text)?;
    }
    Ok(Exit::Ok)
}
