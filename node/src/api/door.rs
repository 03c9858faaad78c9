//! Connections: accepting them, how many there may be, how slow they may be, and how they end.
//!
//! A connection is served by one task. It ends when the client closes it, when a request's head or the client's reading takes longer
//! than allowed, when the node is stopping (the request under way is finished first), or with the node's tasks.

use super::Api;
use super::routes::Front;
use crate::error::{Code, Error};
use crate::handle::Condition;
use crate::rt::clock::Sleep;
use crate::rt::http::Timer;
use crate::rt::net::Listener;
use crate::rt::{Clock, Stream, Tasks};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Connections over the limit that are being told so at one time; more are closed without a word.
const REFUSALS_MAX: usize = 64;
/// Longest time a refused client gets to read why.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(500);
/// Pause after a failed accept: such failures (no file descriptors left) do not pass by themselves at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often raw metrics samples are sorted away.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most bytes that hyper holds of a request, and of an answer.
const BUFFER_BYTES_MAX: usize = 128 << 10;

/// Keeps the metrics small while nobody scrapes them.
pub(super) async fn tidy(api: Arc<Api>) {
    loop {
        api.clock.sleep(TIDY_EVERY).await;
        api.metrics.upkeep();
    }
}

/// Takes connections until the node is stopping.
pub(super) async fn accept(api: Arc<Api>, tasks: Tasks, mut listener: Box<dyn Listener>) {
    let front = Front::new(&api);
    let open = Counter::default();
    let refusing = Counter::default();
    let most = api.options.limits.connections_max;
    let mut stopping = pin!(stopping(Arc::clone(&api)));
    loop {
        let next = tokio::select! {
            biased; // A stopping node takes nobody in.
            () = &mut stopping => {
                api.closing.cancel();
                return;
            }
            next = listener.accept() => next,
        };
        let Ok((stream, _)) = next else {
            api.clock.sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Some(place) = open.take(most) {
            api.metrics.set_connections(open.count());
            let (api, front) = (Arc::clone(&api), front.clone());
            tasks.spawn(connection(api, front, stream, place));
        } else {
            api.metrics.count_refused_connection();
            if let Some(place) = refusing.take(REFUSALS_MAX) {
                tasks.spawn(turn_away(api.clock.clone(), most, stream, place));
            }
        }
    }
}

/// Ends when the node is stopping, or has gone.
async fn stopping(api: Arc<Api>) {
    let mut status = api.handle.follow_status();
    let stops = |status: &crate::handle::Status| status.condition == Condition::Stopping;
    // An error means that the loop is gone, which is the same to us.
    status.wait_for(stops).await.ok();
}

/// Serves one connection. [`Api::closing`] says that the node is stopping: each connection following the node's picture itself would
/// wake all of them with every commit.
async fn connection(api: Arc<Api>, front: Front, stream: Stream, place: Taken) {
    let patience = Duration::from_millis(api.options.limits.slow_client_ms);
    let io = TokioIo::new(Guarded::new(stream, api.clock.clone(), patience));
    let mut server = http1::Builder::new();
    server
        .timer(Timer(api.clock.clone()))
        .header_read_timeout(patience)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .half_close(true) // A client may say all it has to say, and still read.
        .auto_date_header(false); // It would read the system's clock.
    let mut serving = pin!(server.serve_connection(io, front));
    let ended = tokio::select! {
        biased; // What is done is done, even if the node stops in the same instant.
        ended = serving.as_mut() => ended,
        () = api.closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "client connection broke");
    }
    let open = place.0.clone();
    drop(place);
    api.metrics.set_connections(open.count());
}

/// Tells a client that there is no room, and waits a moment for it to read that.
async fn turn_away(clock: Clock, most: usize, mut stream: Stream, place: Taken) {
    let error = Error::new(
        Code::Overloaded,
        format!("this node has {most} open connections and takes no more"),
    )
    .hint("close idle connections, or ask another node");
    let body = serde_json::to_string(&error).expect("an error is plain text and numbers");
    let head =
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let telling = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with the request unread would reset the connection and lose the answer.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that is gone or slow is not our concern any more.
    clock.timeout(REFUSAL_PATIENCE, telling).await.ok();
    drop(place);
}

/// Counts what is open.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

/// A place that is taken until dropped.
struct Taken(Counter);

impl Counter {
    /// A place, if fewer than `most` are taken.
    fn take(&self, most: usize) -> Option<Taken> {
        if self.count() >= most {
            return None;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(Taken(self.clone()))
    }

    /// Places taken.
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose writes fail when the client takes nothing for too long.
struct Guarded {
    /// The stream.
    inner: Stream,
    /// The node's clock.
    clock: Clock,
    /// Longest time a write may wait.
    patience: Duration,
    /// Runs while a write waits.
    waiting: Option<Sleep>,
}

impl Guarded {
    fn new(inner: Stream, clock: Clock, patience: Duration) -> Self {
        Guarded {
            inner,
            clock,
            patience,
            waiting: None,
        }
    }

    /// The result of a write, or an error when it has waited too long.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = None;
            return result;
        }
        let (clock, patience) = (&self.clock, self.patience);
        let waiting = self.waiting.get_or_insert_with(|| clock.sleep(patience));
        match waiting.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client takes its answer too slowly",
            ))),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.judge(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(context);
        self.judge(context, result)
    }
}
