//! Asking a cluster: one HTTP/1.1 request per connection over the seam, endpoints in turn, answers as JSON.
//!
//! Everything the command line knows of HTTP is in this file. A write whose answer was lost is never sent again; anything
//! that certainly changed nothing is tried on the next endpoint, and while the cluster merely has no leader, again until
//! the time is up.

use super::args::{self, Global};
use super::exit;
use super::world::World;
use crate::error::{Code, Error};
use crate::rt::net::Stream;
use crate::rt::{Clock, Mono, Net, Tasks};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// Largest answer taken into memory, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The kind of a body that is just bytes.
const BYTES: &str = "application/octet-stream";
/// Longest wait for a connection to one endpoint: whoever is there answers sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before asking a cluster without a leader again.
const PAUSE: Duration = Duration::from_millis(200);

/// A question.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Body; empty for none.
    pub body: Bytes,
    /// What the body is.
    kind: &'static str,
    /// True when it may change something.
    pub writes: bool,
}

impl Ask {
    /// Reads `path`.
    pub fn get(path: impl Into<String>) -> Self {
        Ask {
            method: Method::GET,
            path: path.into(),
            body: Bytes::new(),
            kind: BYTES,
            writes: false,
        }
    }

    /// Changes something; the body is bytes.
    pub fn write(method: Method, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Ask {
            method,
            path: path.into(),
            body: body.into(),
            kind: BYTES,
            writes: true,
        }
    }

    /// Changes something by `POST`; the body is JSON.
    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Ask {
            kind: "application/json",
            ..Ask::write(Method::POST, path, body.to_string())
        }
    }
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON, whatever the status.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as JSON when the status is a good one, else the error it carries.
    fn value(&self) -> Result<Value, Error> {
        if (200..300).contains(&self.status) {
            if self.body.is_empty() {
                return Ok(Value::Null);
            }
            return self
                .json()
                .ok_or_else(|| Error::new(Code::Internal, "the answer is no JSON"));
        }
        Err(error_of(self.status, &self.body))
    }
}

/// A cluster, as known by some of its addresses.
#[derive(Clone)]
pub struct Remote {
    /// Time.
    pub clock: Clock,
    /// Network.
    pub net: Net,
    /// Where connections are driven.
    pub tasks: Tasks,
    /// Addresses to try, `host:port`.
    pub endpoints: Vec<String>,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

impl Remote {
    /// The cluster that flags and environment name.
    pub fn new(global: &Global, world: &World) -> Result<Self, exit::Error> {
        let variable = |name: &str| world.variables.get(name).map(String::as_str);
        let urls: Vec<&str> = if global.endpoints.is_empty() {
            let named = variable("SEAWORTHY_ENDPOINTS");
            named.unwrap_or(args::ENDPOINTS).split(',').collect()
        } else {
            global.endpoints.iter().map(String::as_str).collect()
        };
        let timeout = match (global.timeout, variable("SEAWORTHY_TIMEOUT")) {
            (Some(timeout), _) => timeout,
            (None, Some(text)) => args::duration(text)
                .map_err(|error| exit::Error::usage(format!("SEAWORTHY_TIMEOUT: {error}"), ""))?,
            (None, None) => args::TIMEOUT,
        };
        Ok(Remote {
            clock: world.env.clock.clone(),
            net: world.env.net.clone(),
            tasks: world.tasks.clone(),
            endpoints: urls.into_iter().map(address).collect::<Result<_, _>>()?,
            timeout,
        })
    }

    /// Asks the endpoints in turn until one answers for good or the time is up.
    pub async fn ask(&self, ask: &Ask) -> Result<Value, Error> {
        let deadline = self.clock.now().plus(self.timeout);
        loop {
            let error = match self.ask_round(ask, deadline).await {
                Ok(value) => return Ok(value),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Retry(error)) => error,
            };
            if self.clock.now().plus(PAUSE) >= deadline {
                return Err(error);
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    /// Asks each endpoint once, and leaders they point at. The trouble is worth another round when somebody answered.
    async fn ask_round(&self, ask: &Ask, deadline: Mono) -> Result<Value, Trouble> {
        let mut queue: VecDeque<String> = self.endpoints.iter().cloned().collect();
        let mut tried: Vec<String> = Vec::new();
        let mut answered = None;
        let mut silent = Vec::new();
        while let Some(endpoint) = queue.pop_front() {
            if tried.contains(&endpoint) {
                continue;
            }
            tried.push(endpoint.clone());
            // A read may turn away from a node that is silent; a write must hear what became of it.
            let left = deadline.since(self.clock.now());
            let turns_away = !ask.writes && !queue.is_empty();
            let patience = if turns_away { left / 2 } else { left };
            match self.send(&endpoint, ask, patience).await {
                Ok(reply) => match reply.value() {
                    Ok(value) => return Ok(value),
                    Err(error) if error.outcome_unknown || !error.retryable => {
                        return Err(Trouble::Final(error));
                    }
                    Err(error) => {
                        if let Some(leader) = &error.leader {
                            queue.push_front(leader.http.clone());
                        }
                        answered = Some(error);
                    }
                },
                Err(error) if error.outcome_unknown => return Err(Trouble::Final(error)),
                Err(error) => silent.push(error.message),
            }
        }
        Err(match answered {
            Some(error) => Trouble::Retry(error),
            None => Trouble::Final(unreachable(&silent)),
        })
    }

    /// Asks one address, within the usual time; the status is the caller's to judge.
    pub async fn ask_one(&self, endpoint: &str, ask: &Ask) -> Result<Reply, Error> {
        self.send(endpoint, ask, self.timeout).await
    }

    /// Asks one address. An error says honestly whether the request may have been carried out.
    async fn send(&self, endpoint: &str, ask: &Ask, patience: Duration) -> Result<Reply, Error> {
        let deadline = self.clock.now().plus(patience);
        let left = patience.min(CONNECT_TIMEOUT);
        let connected = self.clock.timeout(left, self.open(endpoint)).await;
        let mut sender = connected.unwrap_or_else(|_| Err(silence(endpoint, left)))?;
        let left = deadline.since(self.clock.now());
        let exchange = async {
            let answer = sender.send_request(request(endpoint, ask, "*/*")?).await;
            let answer = answer.map_err(|error| broken(endpoint, &error))?;
            let status = answer.status().as_u16();
            let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| broken(endpoint, &*error))?
                .to_bytes();
            Ok(Reply { status, body })
        };
        let done = self.clock.timeout(left, exchange).await;
        let done = done.unwrap_or_else(|_| Err(silence(endpoint, left)));
        done.map_err(|mut error: Error| {
            error.outcome_unknown = ask.writes;
            error
        })
    }

    /// Opens a stream of events at the first endpoint that offers one.
    pub async fn follow(&self, path: &str) -> Result<Incoming, Error> {
        let mut silent = Vec::new();
        let mut refused = None;
        for endpoint in &self.endpoints {
            match self
                .clock
                .timeout(self.timeout, self.follow_one(endpoint, path))
                .await
            {
                Err(_) => silent.push(silence(endpoint, self.timeout).message),
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(error)) if error.retryable => silent.push(error.message),
                Ok(Err(error)) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| unreachable(&silent)))
    }

    async fn follow_one(&self, endpoint: &str, path: &str) -> Result<Incoming, Error> {
        let mut sender = self.open(endpoint).await?;
        let request = request(endpoint, &Ask::get(path), "text/event-stream")?;
        let sent = sender.send_request(request).await;
        let answer = sent.map_err(|error| broken(endpoint, &error))?;
        if answer.status().is_success() {
            // The driver of the connection lives on in its task; the sender is not needed for the body.
            return Ok(answer.into_body());
        }
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| broken(endpoint, &error))?.to_bytes();
        Err(error_of(status, &body))
    }

    async fn open(&self, endpoint: &str) -> Result<http1::SendRequest<Full<Bytes>>, Error> {
        let stream: Stream = self.net.connect(endpoint).await.map_err(|error| {
            Error::new(Code::NoLeader, format!("cannot reach {endpoint}: {error}"))
        })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(endpoint, &error))?;
        self.tasks.spawn(async move {
            // How the connection ends shows in the answer, or in its absence.
            drop(connection.await);
        });
        Ok(sender)
    }

    /// The cluster and its members, as the leader sees them (only it knows how far the others are), or else as the first
    /// node that answers does.
    pub async fn members(&self) -> Result<(Value, Vec<Value>), Error> {
        let ask = Ask::get("/v1/cluster");
        let mut cluster = self.ask(&ask).await?;
        if let Some(leader) = leader_elsewhere(&cluster)
            && let Ok(reply) = self.ask_one(&leader, &ask).await
            && let Ok(better) = reply.value()
        {
            cluster = better;
        }
        let members = members_of(&cluster).to_vec();
        Ok((cluster, members))
    }
}

/// Why a round gave no answer.
enum Trouble {
    /// Asking again would be useless or unsafe.
    Final(Error),
    /// Nothing changed, and it may pass.
    Retry(Error),
}

fn members_of(cluster: &Value) -> &[Value] {
    let members = cluster.get("members").and_then(Value::as_array);
    members.map_or(&[], Vec::as_slice)
}

/// The leader's address, when another node than the answering one leads.
fn leader_elsewhere(cluster: &Value) -> Option<String> {
    let leader = cluster
        .get("leader")
        .filter(|id| cluster.get("id") != Some(id))?;
    let member = members_of(cluster)
        .iter()
        .find(|one| one.get("id") == Some(leader))?;
    Some(member.get("http")?.as_str()?.to_owned())
}

/// `host:port` of a URL.
pub fn address(url: &str) -> Result<String, exit::Error> {
    let url = url.trim();
    let rest = url
        .strip_prefix("http://")
        .unwrap_or(url)
        .trim_end_matches('/');
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if has_port && !rest.contains('/') {
        return Ok(rest.to_owned());
    }
    let message = format!("\"{url}\" is not an endpoint");
    Err(exit::Error::usage(message, "write http://host:port"))
}

fn request(endpoint: &str, ask: &Ask, accept: &str) -> Result<Request<Full<Bytes>>, Error> {
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(&ask.path)
        .header("host", endpoint)
        .header("accept", accept);
    if !ask.body.is_empty() {
        request = request.header("content-type", ask.kind);
    }
    request
        .body(Full::new(ask.body.clone()))
        .map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))
}

/// The error a reply carries, or one made from its status when it is not one of ours.
fn error_of(status: u16, body: &[u8]) -> Error {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let ours = value.get("error").unwrap_or(&value).clone();
    serde_json::from_value(ours).unwrap_or_else(|_| {
        let code = match status {
            404 => Code::NotFound,
            400 | 405 => Code::InvalidArgument,
            429 => Code::Overloaded,
            502..=504 => Code::NoLeader,
            _ => Code::Internal,
        };
        Error::new(code, format!("HTTP status {status}"))
            .hint("is this the address of a Seaworthy node?")
    })
}

fn unreachable(silent: &[String]) -> Error {
    Error::new(Code::NoLeader, silent.join("; "))
        .hint("is the cluster running? `seaworthy dev` starts one; --endpoints names another")
}

fn silence(endpoint: &str, waited: Duration) -> Error {
    Error::new(
        Code::Timeout,
        format!("no answer from {endpoint} within {waited:.1?}"),
    )
}

fn broken(endpoint: &str, error: &dyn std::error::Error) -> Error {
    let cause = error.source().map(|cause| format!(": {cause}"));
    let message = format!(
        "the connection to {endpoint} broke: {error}{}",
        cause.unwrap_or_default()
    );
    Error::new(Code::NoLeader, message)
}

/// A path or query with parameters, percent-encoded.
#[derive(Clone, Debug)]
pub struct Path(String);

impl Path {
    /// A fixed path.
    pub fn new(path: &str) -> Self {
        Path(path.to_owned())
    }

    /// The path of a key. Slashes in the key stay slashes.
    pub fn key(key: &str) -> Self {
        let mut path = "/v1/kv/".to_owned();
        encode(key, true, &mut path);
        Path(path)
    }

    /// The path with one more parameter.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        encode(&value.to_string(), false, &mut self.0);
        self
    }

    /// The path with one more parameter, if there is one.
    pub fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The path with a parameter that is true, if it is.
    pub fn flag(self, name: &str, on: bool) -> Self {
        self.maybe(name, on.then_some("true"))
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        path.0
    }
}

/// Percent-encodes everything but letters, digits, `-._~` and, on request, slashes.
fn encode(text: &str, slashes: bool, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slashes && byte == b'/') {
            to.push(char::from(byte));
        } else {
            to.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_or_addresses() {
        assert_eq!(address("http://a:1/"), Ok("a:1".to_owned()));
        assert_eq!(address("[::1]:80"), Ok("[::1]:80".to_owned()));
        for wrong in ["https://a:1", "a", "http://a:1/v1", "http://:80", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_are_encoded() {
        let path: String = Path::key("a/b c?é")
            .with("prefix", "x/y&z")
            .flag("prev", true)
            .into();
        assert_eq!(path, "/v1/kv/a/b%20c%3F%C3%A9?prefix=x%2Fy%26z&prev=true");
    }

    #[test]
    fn foreign_errors_become_ours() {
        assert_eq!(error_of(404, b"<html>").code, Code::NotFound);
        let ours = Error::new(Code::Compacted, "gone");
        let body = serde_json::to_vec(&ours).expect("plain data");
        assert_eq!(error_of(410, &body), ours);
        let wrapped =
            serde_json::to_vec(&serde_json::json!({ "error": ours })).expect("plain data");
        assert_eq!(error_of(410, &wrapped), ours);
    }
}
