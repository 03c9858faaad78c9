//! The output of a task: asked of its worker, whichever manager is asked for it.

use super::call::{Call, json};
use super::services::{find_task, read};
use super::story_wire::LogsAnswer;
use crate::client::connection::{Connection, Outgoing};
use crate::error::{Code, Error};
use crate::types::TaskId;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use std::time::Duration;

/// Longest time that a worker may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is taken from a worker, bytes. Its pages are shorter.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// What a worker answers.
struct Page {
    /// Status.
    status: StatusCode,
    /// Headers.
    headers: HeaderMap,
    /// Output, or an error.
    body: Bytes,
}

/// `GET /v1/tasks/{id}/logs`.
pub(super) async fn logs(call: Call) -> Result<Response, Error> {
    let id = TaskId(call.path_number("id")?);
    let target = target(&call, id)?;
    let (fleet, _) = read(&call).await?;
    let task = find_task(&fleet, id)?;
    let Some(worker) = task.worker else {
        let error = Error::new(
            Code::NotFound,
            format!("task {id} has no output: it has no node"),
        );
        return Err(error.hint("`seaworthy service explain` says why it waits"));
    };
    let node = super::fleet_wire::worker_name(&fleet, worker);
    let note = fleet.workers.get(&worker);
    let Some(address) = note.map(|note| note.address.clone()) else {
        let message = format!("task {id} was on {node}, which was removed, and its output with it");
        return Err(Error::new(Code::NotFound, message));
    };
    let asking = ask(&call, &address, target);
    let asked = call.api.clock.timeout(PATIENCE, asking).await;
    let page = match asked {
        Ok(Ok(page)) => page,
        Ok(Err(reason)) => return Err(away(&node, &address, &reason)),
        Err(_) => return Err(away(&node, &address, "it does not answer")),
    };
    answer(id, node, page)
}

/// Path and query for the worker, made of what is known here alone.
fn target(call: &Call, id: TaskId) -> Result<String, Error> {
    let stream = match call.bytes("stream").as_deref() {
        None | Some(b"stdout") => "stdout",
        Some(b"stderr") => "stderr",
        Some(_) => {
            let message = "`stream` must be `stdout` or `stderr`".to_owned();
            return Err(super::call::invalid(message));
        }
    };
    let mut target = format!("/v1/tasks/{id}/logs?stream={stream}");
    for name in ["tail", "since_offset", "since_ms_ago"] {
        if let Some(number) = call.number(name)? {
            target += &format!("&{name}={number}");
        }
    }
    Ok(target)
}

/// Asks a worker; the error says why it could not be.
async fn ask(call: &Call, address: &str, target: String) -> Result<Page, String> {
    let env = &call.api.outside;
    let mut connection = Connection::open(&env.net, &env.tasks, address).await?;
    let request = Request::get(target)
        .header(http::header::HOST, address)
        .body(Outgoing::default())
        .map_err(|error| error.to_string())?;
    let started = connection.start(request).await;
    let (head, body) = started.map_err(|failure| failure.reason)?.into_parts();
    let body = Limited::new(body, PAGE_BYTES_MAX).collect().await;
    Ok(Page {
        status: head.status,
        headers: head.headers,
        body: body.map_err(|error| error.to_string())?.to_bytes(),
    })
}

fn away(node: &str, address: &str, reason: &str) -> Error {
    let message = format!("{node} cannot be asked for the output at {address}: {reason}");
    let hint = "its tasks may run all the same; try again when it is back: seaworthy node ls";
    Error::new(Code::Unreachable, message).hint(hint)
}

fn answer(id: TaskId, node: String, page: Page) -> Result<Response, Error> {
    if !page.status.is_success() {
        let told = serde_json::from_slice::<Error>(&page.body);
        return Err(told.unwrap_or_else(|_| {
            let message = format!("{node} answers with status {}", page.status);
            Error::new(Code::Internal, message)
        }));
    }
    let offset = |name: &str| -> Result<u64, Error> {
        let value = page.headers.get(name).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.parse().ok()).ok_or_else(|| {
            let message = format!("{node} does not say {name}: is it a worker's address?");
            Error::new(Code::Internal, message)
        })
    };
    let (text, text_base64) = super::wire::to_text(&page.body);
    json(&LogsAnswer {
        task: id,
        from_offset: offset("seaworthy-log-from")?,
        next_offset: offset("seaworthy-log-next")?,
        text,
        text_base64,
        node,
    })
}
