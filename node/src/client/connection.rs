//! One HTTP/1.1 connection: one request at a time, kept alive between them.

use super::Raw;
use crate::rt::{Net, Tasks};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

/// Largest answer that is read whole, bytes: a full page of the largest values in base64.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// A request's body.
pub(crate) type Outgoing = Full<Bytes>;

/// An open connection. Dropping it closes it.
pub(crate) struct Connection {
    /// Takes requests; the connection's task does the rest.
    requests: SendRequest<Outgoing>,
}

/// A request had no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// True when the node may have seen the request.
    pub(crate) sent: bool,
    /// What happened.
    pub(crate) reason: String,
}

impl Connection {
    /// Connects to `endpoint`.
    pub(crate) async fn open(net: &Net, tasks: &Tasks, endpoint: &str) -> Result<Self, String> {
        let connected = net.connect(endpoint).await;
        let stream = connected.map_err(|error| error.to_string())?;
        let (requests, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tasks.spawn(async move {
            // How the connection ended is seen by whoever waits for an answer on it.
            driver.await.ok();
        });
        Ok(Connection { requests })
    }

    /// True when it can take a request.
    pub(crate) fn is_usable(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(
        &mut self,
        request: http::Request<Outgoing>,
    ) -> Result<Raw, Failure> {
        let answer = self.start(request).await?;
        let (head, body) = answer.into_parts();
        let whole = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = whole.map_err(|error| Failure {
            sent: true,
            reason: with_cause(&*error),
        })?;
        Ok(Raw {
            status: head.status,
            body: body.to_bytes(),
        })
    }

    /// Sends a request and gives the answer as soon as its head is there.
    pub(crate) async fn start(
        &mut self,
        request: http::Request<Outgoing>,
    ) -> Result<http::Response<Incoming>, Failure> {
        if let Err(error) = self.requests.ready().await {
            let reason = error.to_string();
            return Err(Failure {
                sent: false,
                reason,
            });
        }
        let sending = self.requests.try_send_request(request);
        sending.await.map_err(|mut error| Failure {
            // hyper hands the request back when not one byte of it was written.
            sent: error.take_message().is_none(),
            reason: with_cause(&error.into_error()),
        })
    }
}

/// An error and what caused it: hyper's errors tell the interesting half there.
fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
