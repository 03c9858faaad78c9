//! The worker's own door: how it stands, numbers for Prometheus, and what its tasks have written.
//!
//! Small on purpose: managers are whom people and programs ask; they come here for the output of tasks. Each connection carries one
//! request, has a bounded time for it, and gets a bounded answer; whoever follows a task's output asks again from where the
//! last answer ended (`Seaworthy-Log-Next`).

use super::executor::Executor;
use super::logs::{LogPage, LogQuery, Since, Tell};
use super::running::View;
use super::status::Status;
use crate::error::{Code, Error};
use crate::rt::http::Timer;
use crate::rt::net::Listener;
use crate::rt::{Clock, Env, Stream, Tasks};
use crate::service::State;
use crate::types::TaskId;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the operating system's queue.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for a request and its answer.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// Pause after a failed accept: such failures (no file descriptors left) do not pass by themselves at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Lines of output that are told unless a request says otherwise.
const TAIL_LINES: usize = 100;
/// What the door knows, for hints.
const ROUTES: &str = "/health, /metrics, /v1/tasks and /v1/tasks/{id}/logs";

/// An answer.
type Answer = Response<Full<Bytes>>;

/// What a request may use.
struct Door {
    /// The worker.
    view: View,
    /// What keeps the output of tasks.
    executor: Arc<dyn Executor>,
    /// The worker's clock.
    clock: Clock,
}

/// Takes connections on `listener` for as long as the worker runs.
pub(super) fn serve(
    env: &Env,
    tasks: &Tasks,
    mut listener: Box<dyn Listener>,
    view: View,
    executor: Arc<dyn Executor>,
) -> impl Future<Output = ()> + Send + use<> {
    let (clock, tasks) = (env.clock.clone(), tasks.clone());
    let door = Arc::new(Door {
        view,
        executor,
        clock: clock.clone(),
    });
    async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return; // Nobody closes it.
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = connection(Arc::clone(&door), stream);
                    tasks.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves one connection.
async fn connection(door: Arc<Door>, stream: Stream) {
    let clock = door.clock.clone();
    let service = service_fn(move |request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(answer(&door, &request).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(Timer(clock.clone()))
        .header_read_timeout(REQUEST_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .auto_date_header(false); // It would read the system's clock.
    let serving = server.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = clock.timeout(REQUEST_MAX, serving).await {
        tracing::debug!(%error, "a client's connection broke");
    }
}

/// Answers one request.
async fn answer(door: &Door, request: &Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if request.method() != Method::GET {
        let error = Error::new(
            Code::InvalidArgument,
            format!("{path} does not take {}", request.method()),
        );
        let mut answer = refused(&error.hint("it takes GET"));
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let allowed = HeaderValue::from_static("GET");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let query = request.uri().query().unwrap_or_default();
    let served = match words[..] {
        ["health"] => health(door).await,
        ["metrics"] => metrics(door).await,
        ["v1", "tasks"] => tasks(door).await,
        ["v1", "tasks", id, "logs"] => logs(door, id, query).await,
        _ => {
            let error = Error::new(Code::NotFound, format!("no route is called {path}"));
            Err(error.hint(format!("this worker knows {ROUTES}")))
        }
    };
    served.unwrap_or_else(|error| refused(&error))
}

/// `GET /health`: 200 while tasks are looked after; the body says what is not as it should be.
async fn health(door: &Door) -> Result<Answer, Error> {
    let status = stands(door).await?;
    let complaints = status.complaints();
    let word = match complaints.is_empty() {
        true => "healthy",
        false => "degraded",
    };
    Ok(json_answer(&json!({
        "status": word,
        "worker": status.name,
        "id": status.identity.worker,
        "cluster": status.identity.cluster,
        "epoch": status.epoch,
        "revision": status.revision,
        "contact": status.contact,
        "lease_left_ms": status.lease_left_ms,
        "reports_waiting": status.reports_waiting,
        "tasks": status.tasks.len(),
        "complaints": complaints,
    })))
}

/// `GET /v1/tasks`.
async fn tasks(door: &Door) -> Result<Answer, Error> {
    let status = stands(door).await?;
    Ok(json_answer(&json!({ "tasks": status.tasks })))
}

/// `GET /metrics`, in the Prometheus text format.
async fn metrics(door: &Door) -> Result<Answer, Error> {
    let page = page(&stands(door).await?);
    Ok(plain(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        page,
    ))
}

/// `GET /v1/tasks/{id}/logs`.
async fn logs(door: &Door, id: &str, query: &str) -> Result<Answer, Error> {
    let Ok(task) = id.parse().map(TaskId) else {
        let error = Error::new(
            Code::InvalidArgument,
            format!("\"{id}\" is not the number of a task"),
        );
        return Err(error.hint("GET /v1/tasks lists them"));
    };
    let query = log_query(query)?;
    let read = door.executor.logs(task, query).await;
    let LogPage {
        bytes,
        from_offset,
        next_offset,
    } = read.map_err(|refusal| match refusal.is_permanent {
        true => Error::new(Code::NotFound, refusal.message),
        false => Error::new(Code::Overloaded, refusal.message),
    })?;
    let mut answer = plain(StatusCode::OK, "text/plain; charset=utf-8", bytes);
    let headers = answer.headers_mut();
    headers.insert("seaworthy-log-from", HeaderValue::from(from_offset));
    headers.insert("seaworthy-log-next", HeaderValue::from(next_offset));
    Ok(answer)
}

/// What the query of a request for output says.
fn log_query(text: &str) -> Result<LogQuery, Error> {
    let mut query = LogQuery {
        stream: Tell::Stdout,
        tail: Some(TAIL_LINES),
        since: None,
    };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let wrong = |takes: &str| {
            let message = format!("\"{value}\" is no value for {name}");
            Error::new(Code::InvalidArgument, message).hint(format!("it takes {takes}"))
        };
        match (name, value) {
            ("stream", "stdout") => query.stream = Tell::Stdout,
            ("stream", "stderr") => query.stream = Tell::Stderr,
            ("stream", _) => return Err(wrong("stdout or stderr")),
            ("tail", lines) => {
                let lines = lines.parse().map_err(|_| wrong("a number of lines"))?;
                query.tail = Some(lines);
            }
            ("since_offset" | "since_ms_ago", _) if query.since.is_some() => {
                let message = "since_offset and since_ms_ago contradict each other";
                return Err(Error::new(Code::InvalidArgument, message).hint("give one of them"));
            }
            ("since_offset", offset) => {
                let offset = offset.parse().map_err(|_| wrong("a number of bytes"))?;
                query.since = Some(Since::Offset(offset));
            }
            ("since_ms_ago", ago) => {
                let ago = ago.parse().map_err(|_| wrong("milliseconds"))?;
                query.since = Some(Since::AgoMs(ago));
            }
            _ => {
                let message = format!("nothing here is called {name}");
                let error = Error::new(Code::InvalidArgument, message);
                return Err(error.hint("it takes stream, tail, since_offset and since_ms_ago"));
            }
        }
    }
    Ok(query)
}

/// How the worker stands, or why that is not known.
async fn stands(door: &Door) -> Result<Status, Error> {
    door.view.status().await.ok_or_else(|| {
        Error::new(
            Code::Overloaded,
            "the worker does not say how it is: it begins, ends, or has too many questions waiting",
        )
        .hint("ask again in a moment")
    })
}

/// The page of numbers.
fn page(status: &Status) -> Bytes {
    let mut page = String::new();
    let mut gauge = |name: &str, help: &str, samples: &[(String, u64)]| {
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in samples {
            text += &format!("{name}{labels} {value}\n");
        }
        page += &text;
    };
    let one = |value: u64| [(String::new(), value)];
    let by_state: Vec<(String, u64)> = (State::ALL.iter())
        .map(|state| {
            let in_it = (status.tasks.iter()).filter(|task| task.observation.state == *state);
            (format!("{{state=\"{state}\"}}"), in_it.count() as u64)
        })
        .collect();
    gauge(
        "seaworthy_worker_tasks",
        "Tasks of this worker by their state.",
        &by_state,
    );
    let attempts = status.tasks.iter();
    let attempts = attempts.map(|task| u64::from(task.observation.attempts));
    gauge(
        "seaworthy_worker_attempts",
        "Attempts begun by the tasks that this worker has now.",
        &one(attempts.sum()),
    );
    gauge(
        "seaworthy_worker_has_session",
        "1 while managers answer this worker, else 0.",
        &one(u64::from(status.contact.is_welcome)),
    );
    gauge(
        "seaworthy_worker_epoch",
        "The session of this worker.",
        &one(status.epoch.0),
    );
    gauge(
        "seaworthy_worker_lease_milliseconds",
        "What is left of this worker's lease on single-writer volumes.",
        &one(status.lease_left_ms),
    );
    gauge(
        "seaworthy_worker_reports_waiting",
        "Reports that no manager has acknowledged.",
        &one(status.reports_waiting as u64),
    );
    gauge(
        "seaworthy_worker_effects_held",
        "Starts and reports that wait for this worker's disk.",
        &one(status.effects_held as u64),
    );
    gauge(
        "seaworthy_worker_is_unsaved",
        "1 while this worker's state cannot be written, else 0.",
        &one(u64::from(status.unsaved.is_some())),
    );
    page.into()
}

/// An error as an answer.
fn refused(error: &Error) -> Answer {
    let status = StatusCode::from_u16(error.code.http_status());
    let status = status.expect("every code's status is a valid one");
    let body = serde_json::to_vec(error).expect("an error is plain text and numbers");
    plain(status, "application/json", body.into())
}

/// JSON as an answer.
fn json_answer(value: &serde_json::Value) -> Answer {
    plain(StatusCode::OK, "application/json", value.to_string().into())
}

/// An answer.
fn plain(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_output_is_read_and_what_is_unknown_refused() {
        let query = log_query("stream=stderr&tail=5&since_offset=7").unwrap();
        let wanted = LogQuery {
            stream: Tell::Stderr,
            tail: Some(5),
            since: Some(Since::Offset(7)),
        };
        assert_eq!(query, wanted);
        assert_eq!(log_query("").unwrap().tail, Some(TAIL_LINES));
        let ago = log_query("since_ms_ago=9").unwrap().since;
        assert_eq!(ago, Some(Since::AgoMs(9)));
        let both = "since_offset=7&since_ms_ago=9";
        for wrong in [
            "stream=x",
            "tail=",
            "tail=-1",
            "since_offset=a",
            "follow=1",
            both,
        ] {
            let error = log_query(wrong).unwrap_err();
            assert!(error.hint.is_some(), "{wrong}: {error}");
        }
    }
}
