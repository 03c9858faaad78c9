//! `service logs`: what the tasks of a service or of one of its slots, or one task, write.

use super::args::Output;
use super::args_fleet::Logs;
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::service::typed;
use super::table;
use super::world::World;
use crate::api::fleet_wire::{TaskInfo, TasksAnswer};
use crate::api::story_wire::LogsAnswer;
use crate::error::{self, Code};
use crate::service::name_and_slot;
use crate::types::TaskId;
use crate::worker::logs::PAGE_BYTES_MAX;
use std::collections::BTreeMap;
use std::time::Duration;

/// Pause between two looks of `--follow`.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Lines to begin with, when nothing is said.
const TAIL_LINES: u64 = 100;

/// Prints output, and goes on with `--follow`.
pub(super) async fn run(
    options: &Logs,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let mut reading = Reading {
        options,
        remote,
        output,
        world,
        next: BTreeMap::new(),
        silent: BTreeMap::new(),
    };
    loop {
        let tasks = reading.tasks().await?;
        let many = tasks.len() > 1;
        let mut news = false;
        let mut troubles = Vec::new();
        for task in &tasks {
            for stream in streams(options) {
                match reading.pages(task, stream, many).await {
                    Ok(more) => news |= more,
                    Err(error) if options.follow => return Err(error),
                    Err(error) => troubles.push(error),
                }
            }
        }
        if !options.follow {
            let all = tasks.len() * streams(options).len();
            return match troubles.pop() {
                Some(error) if troubles.len() + 1 == all => Err(error),
                _ => Ok(Exit::Ok),
            };
        }
        if !news {
            remote.clock.sleep(LOOK_EVERY).await;
        }
    }
}

/// The streams that are wanted.
fn streams(options: &Logs) -> &'static [&'static str] {
    match options.stream.as_deref() {
        Some("stdout") => &["stdout"],
        Some("stderr") => &["stderr"],
        _ => &["stdout", "stderr"],
    }
}

/// A service has no such slot.
fn no_slot(service: &str, slot: u64, tasks: &[TaskInfo]) -> Error {
    let mut slots: Vec<u64> = tasks.iter().map(|task| task.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    let told: Vec<String> = slots.iter().take(10).map(u64::to_string).collect();
    let hint = match slots.len() {
        0 => "it has no tasks: seaworthy service explain says why".to_owned(),
        1..=10 => format!("its slots are {}", told.join(", ")),
        more => format!("its {more} slots begin with {}", told.join(", ")),
    };
    let message = format!("service {service} has no slot {slot}");
    Error::Remote(error::Error::new(Code::NotFound, message).hint(hint))
}

/// What has been read.
struct Reading<'a> {
    /// What was asked for.
    options: &'a Logs,
    /// Whom to ask.
    remote: &'a Remote,
    /// How to print.
    output: Output,
    /// Where to print.
    world: &'a World,
    /// Where each stream goes on, and a line of it that has no end yet.
    next: BTreeMap<(TaskId, &'static str), (u64, Vec<u8>)>,
    /// Tasks that could not be asked, and why; told once.
    silent: BTreeMap<TaskId, String>,
}

impl Reading<'_> {
    /// The tasks that are meant: one, or those of a service or a slot that have a node.
    async fn tasks(&self) -> Result<Vec<TaskInfo>, Error> {
        let name = &self.options.name;
        if let Ok(id) = name.parse::<u64>() {
            let json = self
                .remote
                .ask(&Ask::get(format!("/v1/tasks/{id}")))
                .await?;
            return Ok(vec![typed(&json)?]);
        }
        let parts = name_and_slot(name);
        let (service, slot) = parts.map_or((name.as_str(), None), |(service, slot)| {
            (service, Some(slot))
        });
        let path = Path::under("/v1/services/", service, "/tasks");
        let json = self.remote.ask(&Ask::get(path)).await?;
        let answer: TasksAnswer = typed(&json)?;
        let mut tasks = answer.tasks;
        if let Some(slot) = slot {
            // What was followed may be scaled away meanwhile; what never was there is a mistake.
            if self.next.is_empty() && !tasks.iter().any(|task| task.slot == slot) {
                return Err(no_slot(service, slot, &tasks));
            }
            tasks.retain(|task| task.slot == slot);
        }
        tasks.retain(|task| task.node.is_some() && (self.options.all || !task.state.is_end()));
        tasks.sort_by_key(|task| task.id);
        if tasks.is_empty() && !self.options.follow {
            let message = format!("no task of {name} runs");
            return Err(Error::local(message, "--all asks for ended ones too"));
        }
        Ok(tasks)
    }

    /// Reads and prints what there is of a stream: all of it when a time was given, otherwise a page; true when there was something.
    async fn pages(
        &mut self,
        task: &TaskInfo,
        stream: &'static str,
        many: bool,
    ) -> Result<bool, Error> {
        let mut length = self.page(task, stream, many).await?;
        let news = length > 0;
        if self.options.follow {
            return Ok(news);
        }
        // A task that never stops writing does not keep its reader for ever: a page that is not full was the last.
        while self.options.since.is_some() && length >= PAGE_BYTES_MAX {
            length = self.page(task, stream, many).await?;
        }
        // Nothing more comes: a last line without an end is one too.
        if let Some((_, rest)) = self.next.remove(&(task.id, stream)) {
            self.print(task, stream, many, &rest)?;
        }
        Ok(news)
    }

    /// Reads and prints the next page of a stream, as far as its last whole line. How many bytes it had.
    async fn page(
        &mut self,
        task: &TaskInfo,
        stream: &'static str,
        many: bool,
    ) -> Result<u64, Error> {
        let key = (task.id, stream);
        let mut path = Path::new(&format!("/v1/tasks/{}/logs", task.id)).with("stream", stream);
        path = match self.next.get(&key) {
            Some((offset, _)) => path.with("since_offset", offset),
            None => match self.options.since {
                Some(since) => path.with("since_ms_ago", since.as_millis()),
                None => path.with("tail", self.options.tail.unwrap_or(TAIL_LINES)),
            },
        };
        let answered = self.remote.ask(&Ask::get(path)).await;
        let json = match answered {
            Ok(json) => json,
            Err(error) => {
                let told = self.silent.insert(task.id, error.message.clone());
                if self.options.follow && told.as_ref() != Some(&error.message) {
                    self.world.err(&format!("{error}\n"));
                }
                // A task that has no output yet, or whose node is away, does not end the others'.
                let passes = error.retryable || error.code == Code::NotFound;
                return match self.options.follow && passes {
                    true => Ok(0),
                    false => Err(error.into()),
                };
            }
        };
        self.silent.remove(&task.id);
        let page: LogsAnswer = typed(&json)?;
        let bytes = table::bytes(&json, "text").unwrap_or_default();
        let (_, mut rest) = self.next.remove(&key).unwrap_or_default();
        let length = bytes.len() as u64;
        rest.extend_from_slice(&bytes);
        let whole = match rest.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => rest.drain(..=end).collect(),
            None => Vec::new(),
        };
        self.next.insert(key, (page.next_offset, rest));
        self.print(task, stream, many, &whole)?;
        Ok(length)
    }

    fn print(&self, task: &TaskInfo, stream: &str, many: bool, bytes: &[u8]) -> Result<(), Error> {
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        if lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        for line in lines {
            if self.output == Output::Json {
                let text = String::from_utf8_lossy(line);
                let json = serde_json::json!({
                    "service": task.service, "slot": task.slot, "task": task.id,
                    "node": task.node, "stream": stream, "line": text,
                });
                self.world.out(&format!("{json}\n"))?;
                continue;
            }
            let node = task.node.as_deref().unwrap_or("-");
            let head = match many {
                true => format!("{}.{} {node} | ", task.service, task.slot),
                false => String::new(),
            };
            self.world
                .out_bytes(&[head.as_bytes(), line, b"\n"].concat())?;
        }
        Ok(())
    }
}
