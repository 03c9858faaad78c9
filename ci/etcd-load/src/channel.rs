//! One HTTP/2 connection to one member, and unary gRPC calls over it.
//!
//! A [`Channel`] is cheap to clone; clones share the connection, and each call is one stream of it. Receive windows are
//! wide, so that nearly no frame is spent on flow control in either direction.
//!
//! Left out: reconnecting. A broken connection fails every later call with [`Error::Transport`].

use crate::CALL_SECONDS_MAX;
use crate::wire;
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use prost::Message;
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes a member may send before it must wait for leave.
const WINDOW_BYTES: u32 = 16 << 20;

/// Why a call failed. The text is the kind under which errors are counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The connection or the stream broke.
    #[error("transport")]
    Transport,
    /// No answer in time.
    #[error("timeout")]
    Timeout,
    /// The member refused, with this gRPC status.
    #[error("grpc status {0}")]
    Status(String),
    /// The answer is not what the call promises.
    #[error("malformed answer")]
    Malformed,
}

impl From<h2::Error> for Error {
    fn from(_: h2::Error) -> Self {
        Error::Transport
    }
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Channel {
    /// Opens streams.
    streams: SendRequest<Bytes>,
    /// `http://host:port`.
    base: String,
}

/// A method of etcd, addressed on one member.
#[derive(Clone)]
pub(crate) struct Method {
    /// Address and path.
    uri: Uri,
}

impl Channel {
    /// Connects to `endpoint`, `host:port`.
    pub(crate) async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let base = format!("http://{}", endpoint.trim_start_matches("http://"));
        let socket = TcpStream::connect(&base["http://".len()..]).await?;
        socket.set_nodelay(true)?;
        let (streams, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(socket)
            .await?;
        // Ends by itself when the last clone of `streams` is gone; a failure shows in the calls.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Channel { streams, base })
    }

    /// The method at `path`, `/package.Service/Name`.
    pub(crate) fn method(&self, path: &str) -> anyhow::Result<Method> {
        let uri = format!("{}{path}", self.base).parse()?;
        Ok(Method { uri })
    }

    /// Calls `method` with `request` and waits for the answer.
    pub(crate) async fn call<M: Message + Default>(
        &mut self,
        method: &Method,
        request: &impl Message,
    ) -> Result<M, Error> {
        let body = wire::frame(request);
        let limit = Duration::from_secs(CALL_SECONDS_MAX);
        tokio::time::timeout(limit, self.exchange(method, body))
            .await
            .map_err(|_| Error::Timeout)?
            .and_then(|answer| wire::unframe(&answer).ok_or(Error::Malformed))
    }

    async fn exchange(&mut self, method: &Method, body: Bytes) -> Result<Bytes, Error> {
        // `ready` waits for leave to open one more stream; it takes and returns the sender.
        let mut streams = self.streams.clone().ready().await?;
        let (answer, mut sender) = streams.send_request(head(method), false)?;
        sender.send_data(body, true)?;
        receive(answer).await
    }
}

/// The head of a call.
fn head(method: &Method) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = method.uri.clone();
    let headers = request.headers_mut();
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

/// The body of the answer, once its status says that the call went well.
async fn receive(answer: ResponseFuture) -> Result<Bytes, Error> {
    let (head, mut stream) = answer.await?.into_parts();
    // A refusal comes without body, its status in the head.
    if head.headers.contains_key("grpc-status") {
        check(Some(&head.headers))?;
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    check(stream.trailers().await?.as_ref())?;
    Ok(body.freeze())
}

/// An error unless the status is there and 0.
fn check(headers: Option<&HeaderMap>) -> Result<(), Error> {
    match headers.and_then(|headers| headers.get("grpc-status")) {
        Some(status) if status == "0" => Ok(()),
        Some(status) => Err(Error::Status(
            String::from_utf8_lossy(status.as_bytes()).into_owned(),
        )),
        None => Err(Error::Malformed),
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A member that answers any call with the same bytes.

    use super::*;

    /// Serves on a free loopback port; returns its address.
    pub(crate) async fn serve(body: Bytes, status: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(socket, body.clone(), status));
            }
        });
        address
    }

    async fn connection(socket: TcpStream, body: Bytes, status: &'static str) {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let mut stream = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            stream.send_data(body.clone(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            stream.send_trailers(trailers).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Header, PutRequest, PutResponse};

    async fn put(body: Bytes, status: &'static str) -> Result<PutResponse, Error> {
        let mut channel = Channel::connect(&fake::serve(body, status).await)
            .await
            .unwrap();
        let method = channel.method("/etcdserverpb.KV/Put").unwrap();
        channel.call(&method, &PutRequest::default()).await
    }

    fn answer() -> PutResponse {
        let header = Header {
            member_id: 1,
            revision: 9,
        };
        PutResponse {
            header: Some(header),
        }
    }

    #[tokio::test]
    async fn answer_comes_back() {
        assert_eq!(put(wire::frame(&answer()), "0").await, Ok(answer()));
    }

    #[tokio::test]
    async fn refusal_is_an_error_with_its_status() {
        let refused = put(wire::frame(&answer()), "14").await;
        assert_eq!(refused, Err(Error::Status("14".to_owned())));
    }

    #[tokio::test]
    async fn garbage_is_malformed() {
        let answer = put(Bytes::from_static(b"hello"), "0").await;
        assert_eq!(answer, Err(Error::Malformed));
    }

    #[tokio::test]
    async fn refused_connection_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(Channel::connect(&address).await.is_err());
    }
}
