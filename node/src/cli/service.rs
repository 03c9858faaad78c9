//! `service`: what shall run, and how it is.

use super::args::Output;
use super::args_fleet::{Create, Files, Scale, Service, Update, Wait};
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::table::{self, ago, field};
use super::world::{Answer, World};
use super::{explain, logs, spec_flags};
use crate::api::fleet_wire::{ServiceInfo, TaskInfo};
use crate::error;
use crate::rt::Mono;
use crate::scheduler::model::Phase;
use crate::service::spec::Mode;
use crate::service::{Spec, file};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Pause between two looks of `--wait`.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs a verb of `service`.
pub async fn run(
    verb: Service,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let answer = match verb {
        Service::Create(options) => return create(*options, remote, output, world).await,
        Service::Update(options) => return update(*options, remote, output, world).await,
        Service::Scale(options) => return scale(&options, remote, output, world).await,
        Service::Rm { names, wait } => return remove(&names, wait, remote, output, world).await,
        Service::Rollback { name, wait } => {
            let ask = post(&name, "/rollback");
            let json = remote.ask(&ask).await?;
            let text = format!("{name} goes back: version {}\n", field(&json, "version"));
            let written = vec![(name, json)];
            return finish(written, text, wait, remote, output, world).await;
        }
        Service::Rebalance { name, wait } => {
            let ask = post(&name, "/rebalance");
            let json = remote.ask(&ask).await?;
            let text = format!("{name} is spread anew\n");
            let written = vec![(name, json)];
            return finish(written, text, wait, remote, output, world).await;
        }
        Service::Logs(options) => return logs::run(&options, remote, output, world).await,
        Service::Explain(options) => explain::explain(&options, remote).await?,
        Service::Plan(options) => explain::plan(&options, remote, world).await?,
        Service::Convert {
            file,
            ignore_unsupported,
        } => return explain::convert(&file, ignore_unsupported, output, world),
        Service::Ls => list(remote).await?,
        Service::Inspect { name } => inspect(&name, remote).await?,
        Service::Ps { name, all } => tasks(name.as_deref(), all, remote, world).await?,
        Service::Pause { name } => {
            let json = remote.ask(&post(&name, "/pause")).await?;
            let text = format!(
                "the rollout of {name} is paused; go on: seaworthy service continue {name}\n"
            );
            Answer { json, text }
        }
        Service::Continue { name } => {
            let json = remote.ask(&post(&name, "/continue")).await?;
            let text = format!("the rollout of {name} goes on\n");
            Answer { json, text }
        }
    };
    world.answer(output, &answer)?;
    Ok(Exit::Ok)
}

fn path(name: &str, rest: &str) -> Path {
    Path::under("/v1/services/", name, rest)
}

fn post(name: &str, rest: &str) -> Ask {
    Ask::write(Method::POST, path(name, rest), "")
}

/// An answer of the cluster as what it is.
pub(super) fn typed<T: DeserializeOwned>(json: &Value) -> Result<T, Error> {
    T::deserialize(json).map_err(|error| {
        let message = format!("the cluster's answer makes no sense: {error}");
        Error::Remote(error::Error::new(error::Code::Internal, message))
    })
}

/// The specifications in a file; what it says that is read otherwise is told on standard error.
pub(super) fn read_specs(
    name: &str,
    ignore_unsupported: bool,
    world: &World,
) -> Result<Vec<Spec>, Error> {
    let bytes = world.read(name)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("{name} is no text"), "name a file in UTF-8"))?;
    let read = file::read(name, &text, ignore_unsupported).map_err(|faults| {
        Error::usage(
            faults.join("\n       "),
            "the file is read whole or not at all: nothing was changed",
        )
    })?;
    for note in &read.notes {
        world.err(&format!("note: {note}\n"));
    }
    Ok(read.specs)
}

/// The file that is meant, if any.
fn file_of<'a>(what: Option<&'a str>, files: &'a Files) -> Option<&'a str> {
    let named = what.filter(|what| file::is_file_name(what));
    files.file.as_deref().or(named)
}

async fn create(
    options: Create,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let what = options.what.as_deref();
    let named = what.filter(|what| !file::is_file_name(what));
    let mut specs = match file_of(what, &options.files) {
        Some(file) => read_specs(file, options.files.ignore_unsupported, world)?,
        None => vec![Spec::new(named.unwrap_or_default(), &[])],
    };
    if let Some(name) = named.filter(|_| options.files.file.is_some()) {
        pick(&mut specs, name)?;
    }
    for spec in &mut specs {
        spec_flags::apply(&options.spec, spec)?;
        check(spec, file_of(what, &options.files))?;
    }
    let mut written = Vec::new();
    let mut text = String::new();
    for spec in specs {
        let ask = Ask::post("/v1/services", &json!(spec));
        let json = remote.ask(&ask).await?;
        text += &format!(
            "{} is made, version {}\n",
            spec.name,
            field(&json, "version")
        );
        written.push((spec.name, json));
    }
    finish(written, text, options.wait, remote, output, world).await
}

/// Says everything that is wrong with a specification, of a file or of flags alone, before anybody is asked.
pub(super) fn check(spec: &Spec, file: Option<&str>) -> Result<(), Error> {
    spec.check().map_err(|faults| {
        let place = match (file, spec.name.as_str()) {
            (Some(file), "") => file.to_owned(),
            (Some(file), name) => format!("{file}, service {name}"),
            (None, "") => "the service".to_owned(),
            (None, name) => format!("service {name}"),
        };
        let lines = faults.iter().map(|fault| format!("{place}: {fault}"));
        let message = lines.collect::<Vec<_>>().join("\n       ");
        Error::usage(message, "nothing was changed")
    })
}

/// Leaves the service called `name` of those in a file; the only one takes the name.
fn pick(specs: &mut Vec<Spec>, name: &str) -> Result<(), Error> {
    if let [only] = &mut specs[..] {
        only.name = name.to_owned();
        return Ok(());
    }
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    specs.retain(|spec| spec.name == name);
    match specs.is_empty() {
        true => Err(Error::usage(
            format!("the file has no service called {name}"),
            format!("it has {}", names.join(", ")),
        )),
        false => Ok(()),
    }
}

async fn update(
    options: Update,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let name = &options.name;
    let now = remote.ask(&Ask::get(path(name, ""))).await?;
    let now: ServiceInfo = typed(&now)?;
    let file = options.files.file.as_deref().or(options.what.as_deref());
    let mut spec = match file {
        Some(file) => {
            let mut specs = read_specs(file, options.files.ignore_unsupported, world)?;
            pick(&mut specs, name)?;
            specs.swap_remove(0)
        }
        None => now.spec.clone(),
    };
    spec_flags::apply(&options.spec, &mut spec)?;
    check(&spec, file)?;
    let (json, text) = if spec == now.spec
        && options
            .expect_version
            .is_none_or(|version| version == now.version)
    {
        let text = format!("{name} is so already, version {}\n", now.version);
        let json = json!({ "id": now.id, "name": name, "version": now.version });
        (json, text)
    } else {
        let expected = options.expect_version.unwrap_or(now.version);
        let path = path(name, "").with("expect_version", expected);
        let json = remote.ask(&Ask::put(path, &json!(spec))).await?;
        let text = format!("{name} is changed, version {}\n", field(&json, "version"));
        (json, text)
    };
    let written = vec![(name.clone(), json)];
    finish(written, text, options.wait, remote, output, world).await
}

async fn scale(
    options: &Scale,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let mut written = Vec::new();
    let mut text = String::new();
    for (name, replicas) in scales(&options.what)? {
        let ask = Ask::post(path(&name, "/scale"), &json!({ "replicas": replicas }));
        let json = remote.ask(&ask).await?;
        text += &format!("{name} shall have {replicas}\n");
        written.push((name, json));
    }
    finish(written, text, options.wait, remote, output, world).await
}

/// Names and copies of `NAME N` or `NAME=N ...`.
fn scales(words: &[String]) -> Result<Vec<(String, u32)>, Error> {
    let wrong = |word: &str| {
        Error::usage(
            format!("\"{word}\" does not say how many"),
            "write: seaworthy service scale web 3, or web=3 api=2",
        )
    };
    let copies = |word: &str| word.parse().map_err(|_| wrong(word));
    if let [name, count] = words
        && !name.contains('=')
    {
        return Ok(vec![(name.clone(), copies(count)?)]);
    }
    let each = words.iter().map(|word| {
        let (name, count) = word.split_once('=').ok_or_else(|| wrong(word))?;
        Ok((name.to_owned(), copies(count)?))
    });
    each.collect()
}

async fn remove(
    names: &[String],
    wait: Wait,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let mut answers = Vec::new();
    let mut text = String::new();
    for name in names {
        let ask = Ask::write(Method::DELETE, path(name, ""), "");
        answers.push(remote.ask(&ask).await?);
        text += &format!("{name} is removed; its tasks are stopped\n");
    }
    let deadline = remote.clock.now().plus(wait.wait_timeout);
    for name in names.iter().filter(|_| wait.wait) {
        gone(name, deadline, remote).await?;
    }
    let json = one_or_all(answers);
    world.answer(output, &Answer { json, text })?;
    Ok(Exit::Ok)
}

/// Waits until the last task of a removed service has ended.
async fn gone(name: &str, deadline: Mono, remote: &Remote) -> Result<(), Error> {
    loop {
        match remote.ask(&Ask::get(path(name, ""))).await {
            Err(error) if error.code == error::Code::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) if remote.clock.now() >= deadline => {
                let message = format!("tasks of {name} have not ended in time");
                let hint = format!("look: seaworthy service ps {name}");
                return Err(Error::local(message, hint));
            }
            Ok(_) => remote.clock.sleep(LOOK_EVERY).await,
        }
    }
}

/// An answer alone, or all of them.
pub(super) fn one_or_all(mut answers: Vec<Value>) -> Value {
    match answers.len() {
        1 => answers.swap_remove(0),
        _ => Value::Array(answers),
    }
}

/// Tells what was written, and waits for it if asked to.
async fn finish(
    written: Vec<(String, Value)>,
    text: String,
    wait: Wait,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let (names, answers): (Vec<String>, Vec<Value>) = written.into_iter().unzip();
    let versions: Vec<u64> = answers
        .iter()
        .map(|json| json.get("version").and_then(Value::as_u64).unwrap_or(0))
        .collect();
    let json = one_or_all(answers);
    world.answer(output, &Answer { json, text })?;
    let deadline = remote.clock.now().plus(wait.wait_timeout);
    for (name, version) in names.iter().zip(versions).filter(|_| wait.wait) {
        settle(name, version, deadline, remote, world).await?;
    }
    Ok(Exit::Ok)
}

/// Waits until `name` is as `version` wants it, telling each change on standard error.
async fn settle(
    name: &str,
    version: u64,
    deadline: Mono,
    remote: &Remote,
    world: &World,
) -> Result<(), Error> {
    let mut told = String::new();
    loop {
        let json = remote.ask(&Ask::get(path(name, ""))).await?;
        let now: ServiceInfo = typed(&json)?;
        let line = progress(&now);
        if line != told {
            world.err(&format!("{line}\n"));
            told = line;
        }
        if now.converged {
            return went_back(&now, version);
        }
        if now.rollout.phase == Phase::Paused {
            let message = format!("the rollout of {name} is paused");
            let hint = format!("why: seaworthy service explain {name}");
            return Err(Error::local(message, hint));
        }
        if remote.clock.now() >= deadline {
            let message = format!("{name} is not as it shall be in time: {told}");
            let hint = format!("why: seaworthy service explain {name}; it goes on meanwhile");
            return Err(Error::local(message, hint));
        }
        remote.clock.sleep(LOOK_EVERY).await;
    }
}

/// A rollout that ended where it began is a failure of whoever asked for it.
fn went_back(now: &ServiceInfo, version: u64) -> Result<(), Error> {
    if now.version > version && now.rollout.phase == Phase::RolledBack {
        let message = format!("the rollout of {} failed, and it went back", now.name);
        let hint = format!("why: seaworthy service explain {}", now.name);
        return Err(Error::local(message, hint));
    }
    Ok(())
}

fn progress(now: &ServiceInfo) -> String {
    let mut line = format!("{}: {} of {} run", now.name, now.running, now.wanted);
    if now.updated != now.running {
        line += &format!(", {} with version {}", now.updated, now.version);
    }
    let states = now.tasks.iter().filter(|(state, _)| *state != "running");
    for (state, count) in states {
        line += &format!(", {count} {state}");
    }
    if let Some(phase) = phase(now.rollout.phase).filter(|_| now.rollout.phase != Phase::Completed)
    {
        line += &format!(" ({phase})");
    }
    line
}

/// A rollout's phase in words; nothing if there was none.
fn phase(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::None => None,
        Phase::Running => Some("rolling out"),
        Phase::Paused => Some("paused"),
        Phase::Completed => Some("rolled out"),
        Phase::RollingBack => Some("rolling back"),
        Phase::RolledBack => Some("rolled back"),
    }
}

async fn list(remote: &Remote) -> Result<Answer, Error> {
    let json = remote.ask(&Ask::get("/v1/services")).await?;
    let services: Vec<ServiceInfo> = typed(json.get("services").unwrap_or(&Value::Null))?;
    let rows = services.iter().map(|one| {
        vec![
            one.name.clone(),
            mode(one.spec.mode).to_owned(),
            format!("{}/{}", one.running, one.wanted),
            one.version.to_string(),
            condition(one).to_owned(),
            runs(&one.spec),
        ]
    });
    let heading = ["name", "mode", "running", "version", "state", "runs"];
    let text = table::table(&heading, rows);
    Ok(Answer { json, text })
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Replicated => "replicated",
        Mode::Global => "global",
    }
}

fn condition(one: &ServiceInfo) -> &'static str {
    match one.rollout.phase {
        _ if one.removing => "removing",
        _ if one.rebalancing => "spreading",
        _ if one.converged => "steady",
        Phase::Running | Phase::Paused | Phase::RollingBack => {
            phase(one.rollout.phase).unwrap_or("settling")
        }
        _ => "settling",
    }
}

/// What a task runs, in one cell.
fn runs(spec: &Spec) -> String {
    let image = spec.image.clone().into_iter();
    let words: Vec<String> = image.chain(spec.command.iter().cloned()).collect();
    table::cell(Some(words.join(" ").into_bytes()))
}

async fn inspect(name: &str, remote: &Remote) -> Result<Answer, Error> {
    let json = remote.ask(&Ask::get(path(name, ""))).await?;
    let one: ServiceInfo = typed(&json)?;
    let states: Vec<String> = one
        .tasks
        .iter()
        .map(|(state, n)| format!("{n} {state}"))
        .collect();
    let mut rows = vec![
        ("name", one.name.clone()),
        ("id", one.id.to_string()),
        ("version", one.version.to_string()),
        ("state", condition(&one).to_owned()),
        ("running", format!("{} of {}", one.running, one.wanted)),
        ("tasks", states.join(", ")),
        (
            "rollout",
            phase(one.rollout.phase).unwrap_or("-").to_owned(),
        ),
        ("failures", one.rollout.failures.to_string()),
        ("made", table::time(one.created_ms)),
        ("changed", table::time(one.updated_ms)),
    ];
    if let Some(version) = one.previous_version {
        rows.push(("goes back to", format!("version {version}")));
    }
    let spec = toml::to_string(&one.spec).map_err(|error| Error::local(error.to_string(), ""))?;
    let text = format!("{}\n{spec}", table::pairs(&rows));
    Ok(Answer { json, text })
}

async fn tasks(
    name: Option<&str>,
    all: bool,
    remote: &Remote,
    world: &World,
) -> Result<Answer, Error> {
    let path = match name {
        Some(name) => path(name, "/tasks"),
        None => Path::new("/v1/tasks"),
    };
    let json = remote.ask(&Ask::get(path)).await?;
    let tasks: Vec<TaskInfo> = typed(json.get("tasks").unwrap_or(&Value::Null))?;
    let text = task_table(&shown(tasks, all), world);
    Ok(Answer { json, text })
}

/// Tasks that have not ended, and the newest of each slot where all have.
fn shown(tasks: Vec<TaskInfo>, all: bool) -> Vec<TaskInfo> {
    let slot = |task: &TaskInfo| (task.service_id, task.slot);
    let alive = tasks.iter().filter(|task| !task.state.is_end());
    let mut seen: BTreeSet<_> = alive.map(slot).collect();
    let keep = |task: &TaskInfo| all || !task.state.is_end() || seen.insert(slot(task));
    let mut keep = keep;
    tasks.into_iter().filter(|task| keep(task)).collect()
}

/// A table of tasks.
pub(super) fn task_table(tasks: &[TaskInfo], world: &World) -> String {
    let now_ms = world.env.clock.wall_ms();
    let rows = tasks.iter().map(|task| {
        let state = match (task.lost_ms, task.node_silent_ms) {
            (Some(_), _) => format!("{} (lost)", task.state),
            (None, Some(ms)) => format!("{} (node silent {}s)", task.state, ms / 1_000),
            (None, None) => task.state.to_string(),
        };
        vec![
            task.id.to_string(),
            task.service.clone(),
            task.slot.to_string(),
            task.version.to_string(),
            task.node.clone().unwrap_or_else(|| "-".to_owned()),
            state,
            ago(now_ms, task.changed_ms),
            task.attempts.to_string(),
            ended(task),
        ]
    });
    let heading = [
        "task", "service", "slot", "version", "node", "state", "since", "attempts", "why",
    ];
    table::table(&heading, rows)
}

/// Why a task is as it is: its last exit and message.
fn ended(task: &TaskInfo) -> String {
    let exit = task.exit.map(|exit| match (exit.code, exit.signal) {
        _ if exit.oom => "out of memory".to_owned(),
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended unseen".to_owned(),
    });
    let message = Some(task.message.clone()).filter(|text| !text.is_empty());
    let parts: Vec<String> = exit.into_iter().chain(message).collect();
    match parts.is_empty() {
        true => "-".to_owned(),
        false => table::cell(Some(parts.join(": ").into_bytes())),
    }
}
