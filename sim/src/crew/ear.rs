//! An ear at a worker's network: hears which leases it is granted, so that somebody else than the worker knows when they end (U-9).
//!
//! It changes nothing. A worker counts its lease from before the heartbeat that was answered; the ear counts from when the answer
//! came, which is later. So what outlives the ear's count has outlived the lease.

use super::ledger::Ledger;
use node::rt::net::{BoxFuture, Listener, NetDriver};
use node::rt::{Net, Stream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How a grant is written; a digit that is not zero follows.
const GRANT: &[u8] = b"\"lease_ms\":";

/// A worker's network with an ear.
pub(super) struct Ear {
    /// The real one.
    inner: Net,
    /// Who is told.
    ledger: Ledger,
    /// The worker's host.
    host: String,
}

impl Ear {
    /// Listens to what comes to the worker of `host` over `inner`.
    pub(super) fn new(inner: Net, ledger: Ledger, host: &str) -> Self {
        let host = host.to_owned();
        Ear {
            inner,
            ledger,
            host,
        }
    }
}

impl NetDriver for Ear {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (inner, address) = (self.inner.clone(), address.to_owned());
        Box::pin(async move { inner.listen(&address).await })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let (inner, address) = (self.inner.clone(), address.to_owned());
        let (ledger, host) = (self.ledger.clone(), self.host.clone());
        Box::pin(async move {
            let stream = Overheard {
                inner: inner.connect(&address).await?,
                ledger,
                host,
                tail: Vec::new(),
                half_heard: Vec::new(),
            };
            Ok(Box::new(stream) as Stream)
        })
    }
}

/// A connection that is listened to.
struct Overheard {
    /// The connection.
    inner: Stream,
    /// Who is told of grants.
    ledger: Ledger,
    /// The worker's host.
    host: String,
    /// The last bytes heard, too few for a whole grant.
    tail: Vec<u8>,
    /// The last bytes heard, too few for a secret's mark.
    half_heard: Vec<u8>,
}

impl Overheard {
    /// Bytes have come.
    fn hear(&mut self, bytes: &[u8]) {
        self.ledger
            .safe
            .hears(&self.host, &mut self.half_heard, bytes);
        self.tail.extend_from_slice(bytes);
        let said = self.tail.windows(GRANT.len() + 1);
        let grants =
            said.filter(|said| said.starts_with(GRANT) && matches!(said.last(), Some(b'1'..=b'9')));
        if grants.count() > 0 {
            self.ledger.granted(&self.host);
        }
        let kept = self.tail.len().min(GRANT.len());
        self.tail.drain(..self.tail.len() - kept);
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, into))?;
        self.hear(&into.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
