//! The client library: typed calls over HTTP/1.1, used by the command line and by workloads.
//!
//! Reading order: [`retry`], what may be tried again; [`Client`], here; `lookout`, what it does while a node is silent;
//! `connection`, one keep-alive connection; `calls`, the typed methods; [`watch`], the event stream.
//!
//! Rules:
//! - A call ends with the node's answer or with an [`Error`] that says honestly whether a write may have happened. A connection that
//!   dies after the request went out leaves a write's outcome unknown; once unknown, later failures do not make it known.
//! - What surely did not happen is tried again, within the policy and the time allowed; what may have happened only when doing
//!   it twice is harmless: reads, and writes inside a session.
//! - Sessions are opened when first needed. A session carries one write at a time, so that its numbers arrive in order;
//!   concurrent writes use several sessions.
//! - The client goes where it last found the leader, follows `leader` hints, and turns to the next endpoint when one fails. While a
//!   node is silent it asks the others who leads, and goes there.

mod calls;
pub(crate) mod connection;
mod lookout;
pub mod retry;
pub mod watch;

#[cfg(test)]
mod tests;

pub use calls::{Conditions, Page, Range, Reading};
pub use retry::Retry;

use crate::error::{Code, Error, Leader};
use crate::rt::{Clock, Env, Mono, Net, Tasks};
use crate::types::SessionId;
use bytes::Bytes;
use connection::{Connection, Failure};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use lookout::Lookout;
use rand_chacha::ChaCha8Rng;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Idle connections kept for each endpoint.
const IDLE_LEN_MAX: usize = 8;
/// A connection idle for longer is not used again: the server may be about to close it.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Sessions kept between writes.
const SESSIONS_LEN_MAX: usize = 256;
/// Part of the time allowed that one try at one endpoint may take, so that a silent node does not use up all of it.
const TRY_SHARE: u32 = 2;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest time a call may take, retries included.
    pub timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Silence of a node after which the client asks others who leads, and goes there: 200 ms. More than an ordinary call takes, and
    /// than a question to another node (two round trips); less than an election.
    pub patience: Duration,
    /// What is tried again, how often, after how long.
    pub retry: Retry,
    /// Whether writes use sessions, so that they may be tried again when their outcome is unknown.
    pub sessions: bool,
    /// Whether the client goes to the leader when it hears of it, or asks for it; off for a client that is to ask its endpoints and
    /// no others.
    pub follow_leader: bool,
    /// Silence after which a watch is taken for dead; several times the nodes' own progress interval.
    pub watch_silence: Duration,
    /// Name of the random stream that pauses are drawn from; clients that share an [`Env`] should differ in it.
    pub stream: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            patience: Duration::from_millis(200),
            retry: Retry::default(),
            sessions: true,
            follow_leader: true,
            watch_silence: Duration::from_secs(20),
            stream: "client".to_owned(),
        }
    }
}

/// A client of one cluster. A clone is the same client.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// What the clones share.
struct Inner {
    /// Streams.
    net: Net,
    /// Time.
    clock: Clock,
    /// Where connections run.
    tasks: Tasks,
    /// How it behaves.
    options: Options,
    /// What changes.
    state: Mutex<State>,
}

/// What changes while a client is used. The lock is never held across a wait.
struct State {
    /// Nodes to ask, `host:port`.
    endpoints: Vec<String>,
    /// Which endpoint is asked next when no leader is known.
    turn: usize,
    /// Where the leader was last said to be.
    leader: Option<String>,
    /// Who is said to lead while a node is silent.
    lookout: Lookout,
    /// Tries given up for another leader.
    departures: u64,
    /// Connections at rest, by endpoint, with the time they were put there.
    idle: BTreeMap<String, Vec<(Mono, Connection)>>,
    /// Sessions at rest, with the number of their last write.
    sessions: Vec<Session>,
    /// Chance for the pauses between tries.
    rng: ChaCha8Rng,
}

/// A session at rest.
#[derive(Clone, Copy)]
struct Session {
    /// The session.
    id: SessionId,
    /// Number of its last write.
    seq: u64,
}

/// What may be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Doing it twice is the same as once.
    Harmless,
    /// Twice is not once, but a session can see to it.
    InSession,
    /// Twice is not once.
    Never,
}

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    /// Body.
    pub(crate) body: Bytes,
    /// True for a JSON body.
    pub(crate) json: bool,
    /// Whether it may be done again.
    pub(crate) again: Again,
    /// Session and number, when it has one.
    pub(crate) session: Option<(SessionId, u64)>,
    /// Time allowed, when it is not the client's ordinary one.
    pub(crate) limit: Option<Duration>,
    /// True when the route takes a time-out, so that the node gives up before the client does, and says what it knows.
    pub(crate) timed: bool,
}

impl Ask {
    /// True when it may be sent again after a silence.
    fn is_repeatable(&self) -> bool {
        self.again == Again::Harmless || self.session.is_some()
    }
}

/// An answer as it came.
pub(crate) struct Raw {
    /// Status.
    pub(crate) status: StatusCode,
    /// Body.
    pub(crate) body: Bytes,
}

impl Client {
    /// A client of the cluster at `endpoints` (`host:port`, or `http://host:port`), with ordinary options. Its connections run in
    /// `tasks`.
    pub fn new(env: &Env, tasks: &Tasks, endpoints: Vec<String>) -> Self {
        Client::with_options(env, tasks, endpoints, Options::default())
    }

    /// A client that behaves as `options` say.
    pub fn with_options(
        env: &Env,
        tasks: &Tasks,
        endpoints: Vec<String>,
        options: Options,
    ) -> Self {
        let endpoints = endpoints.iter().map(|one| bare_address(one)).collect();
        let state = State {
            endpoints,
            turn: 0,
            leader: None,
            lookout: Lookout::default(),
            departures: 0,
            idle: BTreeMap::new(),
            sessions: Vec::new(),
            rng: env.rngs.stream(&options.stream),
        };
        Client(Arc::new(Inner {
            net: env.net.clone(),
            clock: env.clock.clone(),
            tasks: tasks.clone(),
            options,
            state: Mutex::new(state),
        }))
    }

    /// Where the leader was last said to be, `host:port`.
    pub fn known_leader(&self) -> Option<String> {
        self.state().leader.clone()
    }

    /// How often a try was given up because its node was silent and another one led.
    pub fn departures(&self) -> u64 {
        self.state().departures
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .expect("nobody panics while holding the client's state")
    }

    /// Asks for JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, Error> {
        let writes = ask.again != Again::Harmless;
        let raw = self.call(ask).await?;
        serde_json::from_slice(&raw.body).map_err(|error| {
            let mut broken = Error::new(
                Code::Internal,
                format!("the node's answer makes no sense: {error}"),
            );
            broken.outcome_unknown = writes;
            broken
        })
    }

    /// Asks, within a session if the request wants one, and tries again as the policy allows.
    pub(crate) async fn call(&self, mut ask: Ask) -> Result<Raw, Error> {
        if ask.again != Again::InSession || !self.0.options.sessions {
            return self.persist(&ask).await;
        }
        let mut session = self.take_session().await?;
        let mut result = self.in_session(&mut ask, &mut session).await;
        if matches!(&result, Err(error) if was_forgotten(error)) {
            // The cluster forgets sessions that rest for long; the others at rest are older still.
            self.state().sessions.clear();
            session = self.take_session().await?;
            result = self.in_session(&mut ask, &mut session).await;
        }
        let lost = matches!(
            &result,
            Err(error) if matches!(error.code, Code::SessionUnknown | Code::SessionStale)
        );
        let mut state = self.state();
        if !lost && state.sessions.len() < SESSIONS_LEN_MAX {
            state.sessions.push(session);
        }
        result
    }

    /// Asks as the next write of `session`.
    async fn in_session(&self, ask: &mut Ask, session: &mut Session) -> Result<Raw, Error> {
        session.seq += 1;
        ask.session = Some((session.id, session.seq));
        self.persist(ask).await
    }

    /// A session at rest, or a new one.
    async fn take_session(&self) -> Result<Session, Error> {
        let rested = self.state().sessions.pop();
        if let Some(session) = rested {
            return Ok(session);
        }
        let id = self.open_session().await?;
        Ok(Session { id, seq: 0 })
    }

    /// Asks until there is an answer, or the policy or the time allowed ends.
    async fn persist(&self, ask: &Ask) -> Result<Raw, Error> {
        let allowed = ask.limit.unwrap_or(self.0.options.timeout);
        let deadline = self.0.clock.now().plus(allowed);
        let mut tries = retry::Tries::new(ask.again, ask.session.is_some());
        loop {
            let endpoint = self.endpoint()?;
            let left = deadline.since(self.0.clock.now());
            let share = self.share(ask, left);
            let error = match self.attempt(&endpoint, ask, share).await {
                Ok(raw) => return Ok(raw),
                Err(error) => error,
            };
            self.learn(&endpoint, &error);
            let retry = &self.0.options.retry;
            let pause = tries.next(retry, &error, &mut self.state().rng);
            let left = deadline.since(self.0.clock.now());
            match pause {
                Some(pause) if pause < left => self.0.clock.sleep(pause).await,
                _ => return Err(tries.verdict(error)),
            }
        }
    }

    /// How much of the time left one try may take: a part, so that a silent node does not use up all of it; but all, when there
    /// would be no other try after a silence.
    fn share(&self, ask: &Ask, left: Duration) -> Duration {
        if !ask.is_repeatable() || ask.limit.is_some() {
            return left;
        }
        let part = left / TRY_SHARE;
        part.max(self.0.options.connect_timeout).min(left)
    }

    /// Where to ask next.
    fn endpoint(&self) -> Result<String, Error> {
        let state = self.state();
        if let Some(leader) = &state.leader {
            return Ok(leader.clone());
        }
        let count = state.endpoints.len().max(1);
        let next = state.endpoints.get(state.turn % count);
        next.cloned().ok_or_else(|| {
            Error::new(Code::InvalidArgument, "the client has no endpoints")
                .hint("name at least one node, host:port")
        })
    }

    /// Draws lessons from a failed try: goes where the leader is said to be, else to the next endpoint.
    fn learn(&self, endpoint: &str, error: &Error) {
        let mut state = self.state();
        let hint = error.leader.as_ref().map(|leader| leader.http.clone());
        let follow = self.0.options.follow_leader;
        let hint = hint.filter(|http| follow && !http.is_empty() && http != endpoint);
        let failed = error.retryable;
        if failed && hint.is_none() {
            state.turn = state.turn.wrapping_add(1);
        }
        if failed || hint.is_some() {
            state.leader = hint;
        }
    }

    /// One try at one endpoint, which is given up when the endpoint is silent and another node leads.
    async fn attempt(&self, endpoint: &str, ask: &Ask, limit: Duration) -> Result<Raw, Error> {
        let writes = ask.again != Again::Harmless;
        let mut news = pin!(self.news_for(endpoint, ask));
        let opened = tokio::select! {
            // A node that can be asked is asked, whoever leads.
            biased;
            opened = self.connection(endpoint, limit) => opened,
            leader = &mut news => Err(self.left(endpoint, leader, false)),
        };
        let mut connection = opened?;
        let sending = connection.exchange(request(endpoint, ask, limit)?);
        let answered = tokio::select! {
            // An answer is better than any news.
            biased;
            answered = self.0.clock.timeout(limit, sending) => answered,
            leader = self.reason_to_leave(endpoint, ask, news) => {
                return Err(self.left(endpoint, leader, writes));
            }
        };
        let raw = match answered {
            Ok(Ok(raw)) => raw,
            Ok(Err(failure)) => return Err(broken(endpoint, failure, writes)),
            Err(late) => return Err(silence(endpoint, late.after, writes)),
        };
        self.rest(endpoint, connection);
        if raw.status.is_success() {
            return Ok(raw);
        }
        Err(refused(endpoint, &raw, writes))
    }

    /// Ends when the client, which waits for `endpoint`, hears that another node leads. Never, when that is none of its business: it
    /// is to stay where it is, or what it asks for takes long by nature.
    async fn news_for(&self, endpoint: &str, ask: &Ask) -> Leader {
        if !self.0.options.follow_leader || ask.limit.is_some() {
            return std::future::pending().await;
        }
        self.another_leads(endpoint).await
    }

    /// Ends when a request that was sent to `endpoint` should be given up.
    async fn reason_to_leave(
        &self,
        endpoint: &str,
        ask: &Ask,
        news: impl Future<Output = Leader>,
    ) -> Leader {
        let leader = news.await;
        if !ask.is_repeatable() {
            self.is_silent(endpoint).await;
        }
        leader
    }

    /// Asks `endpoint` alone, once, within `limit`, and takes any answer.
    pub(crate) async fn ask_at(
        &self,
        endpoint: &str,
        ask: &Ask,
        limit: Duration,
    ) -> Result<Raw, Error> {
        let writes = ask.again != Again::Harmless;
        let deadline = self.0.clock.now().plus(limit);
        let mut connection = self.connection(endpoint, limit).await?;
        let left = deadline.since(self.0.clock.now());
        let sending = connection.exchange(request(endpoint, ask, left)?);
        match self.0.clock.timeout(left, sending).await {
            Ok(Ok(raw)) => {
                self.rest(endpoint, connection);
                Ok(raw)
            }
            Ok(Err(failure)) => Err(broken(endpoint, failure, writes)),
            Err(late) => Err(silence(endpoint, late.after, writes)),
        }
    }

    /// A connection to `endpoint`: one at rest, or a new one.
    async fn connection(&self, endpoint: &str, limit: Duration) -> Result<Connection, Error> {
        if let Some(connection) = self.rested(endpoint) {
            return Ok(connection);
        }
        let limit = limit.min(self.0.options.connect_timeout);
        let opening = Connection::open(&self.0.net, &self.0.tasks, endpoint);
        let opened = self.0.clock.timeout(limit, opening).await;
        let message = match opened {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(reason)) => format!("cannot reach {endpoint}: {reason}"),
            Err(late) => silence(endpoint, late.after, false).message,
        };
        Err(Error::new(Code::Unreachable, message)
            .hint("is the node running, and the address right?"))
    }

    /// A connection at rest that is still good.
    fn rested(&self, endpoint: &str) -> Option<Connection> {
        let now = self.0.clock.now();
        let mut state = self.state();
        let idle = state.idle.get_mut(endpoint)?;
        while let Some((since, connection)) = idle.pop() {
            if now.since(since) < IDLE_MAX && connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Puts a connection to rest, if there is room.
    fn rest(&self, endpoint: &str, connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        let now = self.0.clock.now();
        let mut state = self.state();
        let idle = state.idle.entry(endpoint.to_owned()).or_default();
        idle.retain(|(since, _)| now.since(*since) < IDLE_MAX);
        if idle.len() < IDLE_LEN_MAX {
            idle.push((now, connection));
        }
    }
}

/// The request as HTTP; `limit` is how long its answer is waited for.
fn request(
    endpoint: &str,
    ask: &Ask,
    limit: Duration,
) -> Result<http::Request<connection::Outgoing>, Error> {
    let mut target = ask.target.clone();
    if ask.timed {
        let joint = if target.contains('?') { '&' } else { '?' };
        let node_limit_ms = (limit * 9 / 10).as_millis().max(1);
        target.push_str(&format!("{joint}timeout_ms={node_limit_ms}"));
    }
    let mut request = http::Request::builder()
        .method(ask.method.clone())
        .uri(target)
        .header(http::header::HOST, endpoint)
        .header(ACCEPT, HeaderValue::from_static("*/*"))
        .body(connection::Outgoing::new(ask.body.clone()))
        .map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?;
    let headers = request.headers_mut();
    if ask.json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some((session, seq)) = ask.session {
        headers.insert("seaworthy-session", HeaderValue::from(session.0));
        headers.insert("seaworthy-seq", HeaderValue::from(seq));
    }
    Ok(request)
}

/// True when a write was surely not done because its session is gone.
fn was_forgotten(error: &Error) -> bool {
    error.code == Code::SessionUnknown && !error.outcome_unknown
}

/// `host:port` of an endpoint that may have been given as a URL.
fn bare_address(endpoint: &str) -> String {
    let bare = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    bare.trim_end_matches('/').to_owned()
}

/// A node said nothing for so long.
fn silence(endpoint: &str, waited: Duration, writes: bool) -> Error {
    let message = format!("no answer from {endpoint} within {waited:.1?}");
    let mut error = Error::new(Code::Timeout, message);
    error.outcome_unknown = writes;
    error
}

/// The connection failed under a request.
fn broken(endpoint: &str, failure: Failure, writes: bool) -> Error {
    let message = format!("the connection to {endpoint} broke: {}", failure.reason);
    let mut error = Error::new(Code::Unreachable, message);
    error.outcome_unknown = writes && failure.sent;
    error
}

/// The error in an answer that is not a success. An answer that is not ours (a proxy's, say) proves nothing about a write.
fn refused(endpoint: &str, raw: &Raw, writes: bool) -> Error {
    serde_json::from_slice(&raw.body).unwrap_or_else(|_| {
        let message = format!("{endpoint} answered {} without saying why", raw.status);
        let mut error = Error::new(Code::Internal, message);
        error.outcome_unknown = writes && raw.status.is_server_error();
        error
    })
}
