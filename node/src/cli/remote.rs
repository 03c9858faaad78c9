//! Asking a cluster: endpoints in turn, answers as JSON. Connections and requests are the client library's.
//!
//! A write whose answer was lost is never sent again; anything that certainly changed nothing is tried on the next endpoint,
//! and while the cluster merely has no leader, again until the time is up. A cluster of which no endpoint answers is not
//! waited for: a person would rather know.

use super::args::{self, Global};
use super::exit;
use super::world::World;
use crate::client::watch::Stream;
use crate::client::{self, Again, Client, Options, Retry};
use crate::error::{Code, Error};
use crate::rt::{Clock, Mono};
use bytes::Bytes;
use http::Method;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// Longest wait for a connection to one endpoint: whoever is there answers sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before asking a cluster without a leader again.
const PAUSE: Duration = Duration::from_millis(200);

/// A question.
#[derive(Clone, Debug)]
pub struct Ask(client::Ask);

impl Ask {
    /// Reads `path`.
    pub fn get(path: impl Into<String>) -> Self {
        Ask(client::Ask::get(&path.into()))
    }

    /// Changes something; the body is bytes.
    pub fn write(method: Method, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Ask(client::Ask {
            method,
            body: body.into(),
            again: Again::Never,
            ..client::Ask::get(&path.into())
        })
    }

    /// Changes something by `POST`; the body is JSON.
    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        let ask = Ask::write(Method::POST, path, body.to_string());
        Ask(client::Ask {
            json: true,
            ..ask.0
        })
    }

    /// Asks by `POST` and changes nothing; the body is JSON.
    pub fn query(path: impl Into<String>, body: &Value) -> Self {
        let ask = Ask::post(path, body);
        Ask(client::Ask {
            again: Again::Harmless,
            ..ask.0
        })
    }

    /// Changes something by `PUT`; the body is JSON.
    pub fn put(path: impl Into<String>, body: &Value) -> Self {
        let ask = Ask::write(Method::PUT, path, body.to_string());
        Ask(client::Ask {
            json: true,
            ..ask.0
        })
    }

    /// True when it may change something.
    fn writes(&self) -> bool {
        self.0.again == Again::Never
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
    /// What asks one address.
    client: Client,
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
            (None, Some(text)) => args::patience(text)
                .map_err(|error| exit::Error::usage(format!("SEAWORTHY_TIMEOUT: {error}"), ""))?,
            (None, None) => args::TIMEOUT,
        };
        let endpoints: Vec<String> = urls.into_iter().map(address).collect::<Result<_, _>>()?;
        let options = Options {
            timeout,
            connect_timeout: CONNECT_TIMEOUT,
            retry: Retry::never(),
            sessions: false,
            stream: "command line".to_owned(),
            ..Options::default()
        };
        let (env, tasks) = (&world.env, &world.tasks);
        Ok(Remote {
            clock: env.clock.clone(),
            client: Client::with_options(env, tasks, endpoints.clone(), options),
            endpoints,
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
            let turns_away = !ask.writes() && !queue.is_empty();
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
        let answer = self.client.ask_at(endpoint, &ask.0, patience).await;
        let raw = answer.map_err(as_told)?;
        Ok(Reply {
            status: raw.status.as_u16(),
            body: raw.body,
        })
    }

    /// Opens a stream of events at the first endpoint that offers one.
    pub(crate) async fn follow(&self, path: &str) -> Result<Stream, Error> {
        let ask = client::Ask::get(path);
        let mut silent = Vec::new();
        let mut refused = None;
        for endpoint in &self.endpoints {
            let error = match self.client.open_stream(endpoint, &ask).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(raw)) => error_of(raw.status.as_u16(), &raw.body),
                Err(error) => error,
            };
            if error.retryable {
                silent.push(error.message);
            } else {
                refused = Some(error);
            }
        }
        Err(refused.unwrap_or_else(|| unreachable(&silent)))
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

/// An error as the command line tells it: to a person, and to a script, an address that cannot be reached is a cluster that is not
/// there.
fn as_told(mut error: Error) -> Error {
    if error.code == Code::Unreachable {
        error.code = Code::NoLeader;
    }
    error
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

    /// The path `before`, a name as one segment, then `after`.
    pub fn under(before: &str, name: &str, after: &str) -> Self {
        let mut path = before.to_owned();
        encode(name, false, &mut path);
        path.push_str(after);
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
