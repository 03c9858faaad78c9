//! What workers say to managers: hellos, heartbeats and reports, which go to the leader, and assignments, which any manager has.
//!
//! A body is a [`crate::fleet::meeting::Call`]; its `call` may be left out, since the path says it.

use super::call::{Call, invalid, json};
use crate::error::{Code, Error};
use crate::fleet::meeting::{self, AssignmentsAnswer};
use crate::manager::{assignments, managers};
use crate::types::{Epoch, WorkerId};
use axum::response::Response;
use serde_json::Value;
use std::time::Duration;

/// Longest wait for assignments, milliseconds.
const WAIT_MS_MAX: u64 = 60_000;

/// Pause before an answer to a worker that asks back to back, for each of its tasks: a hundred times what a task in an answer costs.
const GATHER_EACH: Duration = Duration::from_micros(400);
/// The longest such pause.
const GATHER_MAX: Duration = Duration::from_millis(100);

/// `POST /v1/workers/hello`.
pub(super) async fn hello(call: Call) -> Result<Response, Error> {
    pass_on(call, "hello").await
}

/// `POST /v1/workers/beat`.
pub(super) async fn beat(call: Call) -> Result<Response, Error> {
    pass_on(call, "beat").await
}

/// `POST /v1/workers/report`.
pub(super) async fn report(call: Call) -> Result<Response, Error> {
    pass_on(call, "report").await
}

/// Asks the leader.
async fn pass_on(call: Call, word: &str) -> Result<Response, Error> {
    let said = said(call.json()?, word)?;
    let timeout = call.timeout()?;
    json(&call.api.handle.dispatch(None, said, timeout).await?)
}

/// The call that a body is, which must be a `word`.
fn said(mut body: Value, word: &str) -> Result<meeting::Call, Error> {
    if let Some(fields) = body.as_object_mut() {
        let told = fields.entry("call").or_insert_with(|| word.into());
        if told != word {
            return Err(invalid(format!("this route takes a `{word}`, not {told}")));
        }
    }
    serde_json::from_value(body).map_err(|error| {
        invalid(format!(
            "the body is not the JSON this route takes: {error}"
        ))
        .hint("GET /openapi.json describes every route")
    })
}

/// `GET /v1/workers/{id}/assignments`: answers as soon as there are newer ones than the worker has, or when the wait is over. A
/// session that is over is a conflict: the worker says hello again.
pub(super) async fn assignments(call: Call) -> Result<Response, Error> {
    let need = |name: &str, value: Option<u64>| {
        value.ok_or_else(|| invalid(format!("`{name}` is missing")))
    };
    let worker = WorkerId(call.path_number("id")?);
    let epoch = Epoch(need("epoch", call.number("epoch")?)?);
    let revision = need("revision", call.number("revision")?)?;
    let wait = call.number("wait_ms")?.unwrap_or(0).min(WAIT_MS_MAX);
    let handle = &call.api.handle;
    let mut workers = handle.follow_workers();
    let status = handle.follow_status();
    let mut waited = call.api.clock.sleep(Duration::from_millis(wait));
    let at_once = {
        let (fleet, applied) = (handle.fleet(), status.borrow().applied_index);
        let news = assignments::news(&fleet, applied, (worker, epoch), revision)?;
        let news = news.filter(|_| revision > 0);
        news.map(|_| fleet.snapshot.tasks.of_worker(worker).count())
    };
    if let Some(tasks) = at_once {
        gather(&call, tasks).await?;
    }
    let found = loop {
        workers.mark_unchanged();
        let fleet = handle.fleet();
        let applied = status.borrow().applied_index;
        let newer = assignments::newer(&fleet, applied, (worker, epoch), revision)?;
        if let Some(newer) = newer {
            break Some((fleet, newer));
        }
        tokio::select! {
            biased; // A stopping node lets everybody go; what is there goes before a wait that ends.
            () = call.api.closing.cancelled() => return Err(stopping()),
            changed = workers.changed() => changed.map_err(|_| stopping())?,
            () = &mut waited => break None,
        }
    };
    let found = match found {
        None => None,
        Some((fleet, mut given)) => {
            let node = status.borrow().id;
            if given.tasks.iter().any(|task| !task.spec.secrets.is_empty()) {
                let vault = handle.vault()?;
                vault.deliver(&fleet, (node, worker), &mut given).await?;
            }
            Some(given)
        }
    };
    let managers = managers(&status.borrow());
    json(&AssignmentsAnswer {
        assignments: found,
        managers,
    })
}

/// Waits a little for more: a worker for which there is news at once asks back to back, and each answer has all its `tasks`. Who asks
/// for the first time, or waits for news, waits no longer.
async fn gather(call: &Call, tasks: usize) -> Result<(), Error> {
    let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
    let pause = GATHER_EACH.saturating_mul(tasks);
    let mut pause = call.api.clock.sleep(pause.min(GATHER_MAX));
    tokio::select! {
        biased; // A stopping node lets everybody go.
        () = call.api.closing.cancelled() => Err(stopping()),
        () = &mut pause => Ok(()),
    }
}

fn stopping() -> Error {
    Error::new(Code::ShuttingDown, "this node is stopping").hint("ask another manager")
}
