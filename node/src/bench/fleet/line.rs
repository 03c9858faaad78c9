//! One connection to a manager: JSON in, JSON out, one request at a time.

use crate::client::connection::{Connection, Outgoing};
use crate::error::{Code, Error};
use crate::rt::{Clock, Net, Tasks};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// What connections are made of. A clone makes the same.
#[derive(Clone)]
pub(super) struct Dialer {
    /// For connections.
    pub(super) net: Net,
    /// For time-outs.
    pub(super) clock: Clock,
    /// Where connections run.
    pub(super) tasks: Tasks,
    /// Longest wait for a connection, and for an answer.
    pub(super) timeout: Duration,
}

/// A request that came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The manager's word.
    Refused(Error),
    /// No answer; a word for it.
    Silent(String),
}

impl Failure {
    /// The kind to count.
    pub(super) fn kind(&self) -> String {
        match self {
            Failure::Refused(error) => format!("{:?}", error.code),
            Failure::Silent(why) => why.clone(),
        }
    }

    /// Whether the same request may do better in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Failure::Refused(error) => error.retryable || error.outcome_unknown,
            Failure::Silent(_) => true,
        }
    }

    /// Whether the manager said so.
    pub(super) fn is(&self, code: Code) -> bool {
        matches!(self, Failure::Refused(error) if error.code == code)
    }
}

/// A connection that is opened when it is needed.
pub(super) struct Line {
    /// What it is made of.
    dialer: Dialer,
    /// `host:port`.
    pub(super) manager: String,
    /// The connection, while it is good.
    open: Option<Connection>,
}

impl Line {
    /// A connection to `manager`.
    pub(super) fn new(dialer: Dialer, manager: String) -> Self {
        Line {
            dialer,
            manager,
            open: None,
        }
    }

    /// Asks, with `more` time than usual for the answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        more: Duration,
    ) -> Result<T, Failure> {
        let clock = self.dialer.clock.clone();
        let limit = self.dialer.timeout + more;
        let answered = clock.timeout(limit, self.exchange(method, target, body));
        let (status, body) = match answered.await {
            Ok(answer) => answer?,
            Err(_) => return Err(Failure::Silent("timeout".to_owned())),
        };
        if !status.is_success() {
            let error = serde_json::from_slice(&body);
            return Err(error.map_or_else(
                |_| Failure::Silent(format!("status {status}")),
                Failure::Refused,
            ));
        }
        serde_json::from_slice(&body).map_err(|error| Failure::Silent(format!("answer: {error}")))
    }

    /// Sends a request and reads its answer. A connection that fails, or is left in the middle, is not used again.
    async fn exchange(
        &mut self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, bytes::Bytes), Failure> {
        let mut connection = match self.open.take().filter(Connection::is_usable) {
            Some(open) => open,
            None => {
                let Dialer { net, tasks, .. } = &self.dialer;
                let opened = Connection::open(net, tasks, &self.manager).await;
                opened.map_err(|_| Failure::Silent("connect".to_owned()))?
            }
        };
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, &self.manager)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Outgoing::new(body.into()))
            .map_err(|error| Failure::Silent(format!("request: {error}")))?;
        let answer = connection.exchange(request).await;
        let raw = answer.map_err(|_| Failure::Silent("connection".to_owned()))?;
        self.open = Some(connection);
        Ok((raw.status, raw.body))
    }
}
