//! Services and their tasks: made, changed, scaled, rolled back, removed; read and explained.

use super::call::{Call, invalid, json};
use super::fleet_wire::{
    ScaleRequest, ServiceAnswer, ServiceInfo, ServiceWritten, ServicesAnswer, TaskAnswer, TaskInfo,
    TasksAnswer,
};
use super::nodes::read_heard;
use super::wire::{Fresh, Place};
use crate::error::{Code, Error};
use crate::fleet::{Command, Done, Fleet};
use crate::scheduler::model::{Service, Task};
use crate::service::Spec;
use crate::types::{ServiceId, TaskId};
use axum::response::Response;
use std::cmp::Reverse;
use std::sync::Arc;

/// `POST /v1/services`.
pub(super) async fn create(call: Call) -> Result<Response, Error> {
    let spec: Spec = call.json()?;
    let name = spec.name.clone();
    written(&call, name, Command::ServiceCreate { spec }).await
}

/// `PUT /v1/services/{name}`.
pub(super) async fn update(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let spec: Spec = call.json()?;
    if spec.name != name {
        let message = format!(
            "the path names {name} and the specification {}: a service keeps its name",
            spec.name
        );
        return Err(invalid(message).hint("create a service of the other name, and remove this"));
    }
    let expect_version = call.number("expect_version")?;
    let command = Command::ServiceUpdate {
        name: name.clone(),
        spec,
        expect_version,
    };
    written(&call, name, command).await
}

/// `POST /v1/services/{name}/scale`.
pub(super) async fn scale(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let ScaleRequest { replicas } = call.json()?;
    let command = Command::ServiceScale {
        name: name.clone(),
        replicas,
    };
    written(&call, name, command).await
}

/// `POST /v1/services/{name}/rollback`.
pub(super) async fn roll_back(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let command = Command::ServiceRollBack { name: name.clone() };
    written(&call, name, command).await
}

/// `POST /v1/services/{name}/rebalance`.
pub(super) async fn rebalance(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let command = Command::ServiceRebalance { name: name.clone() };
    written(&call, name, command).await
}

/// `POST /v1/services/{name}/pause`.
pub(super) async fn pause(call: Call) -> Result<Response, Error> {
    set_paused(call, true).await
}

/// `POST /v1/services/{name}/continue`.
pub(super) async fn go_on(call: Call) -> Result<Response, Error> {
    set_paused(call, false).await
}

async fn set_paused(call: Call, paused: bool) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let command = Command::ServicePause {
        name: name.clone(),
        paused,
    };
    written(&call, name, command).await
}

/// `DELETE /v1/services/{name}`.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let command = Command::ServiceRemove { name: name.clone() };
    written(&call, name, command).await
}

async fn written(call: &Call, name: String, command: Command) -> Result<Response, Error> {
    let (done, place) = commit(call, &command).await?;
    match done {
        Done::Service { id, version } => json(&ServiceWritten {
            place,
            id,
            name,
            version,
        }),
        other => Err(surprise(&other)),
    }
}

/// Commits and applies a command of orchestration.
pub(super) async fn commit(call: &Call, command: &Command) -> Result<(Done, Place), Error> {
    let timeout = call.timeout()?;
    let (done, outcome) = call.api.handle.command(command, timeout).await?;
    Ok((done, Place::of(&outcome)))
}

/// The answer is not one of this command: a bug, and the command was done.
pub(super) fn surprise(done: &Done) -> Error {
    Error::new(Code::Internal, format!("unexpected outcome {done:?}")).unknown()
}

/// The fleet, as fresh as asked.
pub(super) async fn read(call: &Call) -> Result<(Arc<Fleet>, Fresh), Error> {
    let (consistency, timeout) = (call.consistency()?, call.timeout()?);
    let (fleet, stamp) = call.api.handle.read_fleet(consistency, timeout).await?;
    Ok((fleet, Fresh::from(stamp)))
}

/// `GET /v1/services`.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let (fleet, fresh) = read(&call).await?;
    let services = fleet.snapshot.services.values();
    let services = services.map(|one| ServiceInfo::of(&fleet, one)).collect();
    json(&ServicesAnswer { services, fresh })
}

/// `GET /v1/services/{name}`.
pub(super) async fn show(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let (fleet, fresh) = read(&call).await?;
    let service = find(&fleet, &name)?;
    let service = ServiceInfo::of(&fleet, service);
    json(&ServiceAnswer { service, fresh })
}

/// The service called `name`.
pub(super) fn find<'a>(fleet: &'a Fleet, name: &str) -> Result<&'a Service, Error> {
    fleet.service(name).ok_or_else(|| {
        let services = fleet.snapshot.services.values();
        let names = services.map(|service| service.current.spec.name.as_str());
        let error = absent("service", name, names);
        match fleet.other_than_service(name) {
            Some(says) => error.hint(says),
            None => error,
        }
    })
}

/// Names told at most when a name is not found.
const NAMES_TOLD_MAX: usize = 10;

/// There is no such thing; the hint says which there are.
pub(super) fn absent<'a>(
    noun: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Error {
    let count = known.clone().count();
    let mut names: Vec<&str> = known.take(NAMES_TOLD_MAX).collect();
    if count > names.len() {
        names.push("...");
    }
    let hint = match count {
        0 => format!("there are no {noun}s"),
        _ => format!("the {noun}s are {}", names.join(", ")),
    };
    Error::new(Code::NotFound, format!("no {noun} is called {name}")).hint(hint)
}

/// `GET /v1/services/{name}/tasks`.
pub(super) async fn tasks(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let (fleet, fresh, silences) = read_heard(&call).await?;
    let service = find(&fleet, &name)?.id;
    let tasks = tasks_of(&fleet, Some(service));
    let tasks = tasks
        .iter()
        .map(|task| silences.of_task(TaskInfo::of(&fleet, task)))
        .collect();
    json(&TasksAnswer { tasks, fresh })
}

/// `GET /v1/tasks`.
pub(super) async fn all_tasks(call: Call) -> Result<Response, Error> {
    let (fleet, fresh, silences) = read_heard(&call).await?;
    let tasks = tasks_of(&fleet, None);
    let tasks = tasks
        .iter()
        .map(|task| silences.of_task(TaskInfo::of(&fleet, task)))
        .collect();
    json(&TasksAnswer { tasks, fresh })
}

/// Tasks of a service, or all, by service and slot, the newest of a slot first.
pub(super) fn tasks_of(fleet: &Fleet, service: Option<ServiceId>) -> Vec<&Task> {
    let tasks = fleet.snapshot.tasks.values();
    let wanted = |task: &&Task| service.is_none_or(|service| task.service == service);
    let mut tasks: Vec<&Task> = tasks.filter(wanted).collect();
    tasks.sort_by_key(|task| (task.service, task.slot, Reverse(task.id)));
    tasks
}

/// `GET /v1/tasks/{id}`.
pub(super) async fn task(call: Call) -> Result<Response, Error> {
    let id = TaskId(call.path_number("id")?);
    let (fleet, fresh, silences) = read_heard(&call).await?;
    let task = silences.of_task(TaskInfo::of(&fleet, find_task(&fleet, id)?));
    json(&TaskAnswer { task, fresh })
}

/// The task `id`.
pub(super) fn find_task(fleet: &Fleet, id: TaskId) -> Result<&Task, Error> {
    let task = fleet.snapshot.tasks.get(&id);
    task.ok_or_else(|| {
        Error::new(Code::NotFound, format!("there is no task {id}"))
            .hint("ended tasks are forgotten after a while; GET /v1/events tells what became of it")
    })
}
