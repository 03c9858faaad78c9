//! The network as a node sees it: the driver behind [`node::rt::Net`], its listeners and its streams.

use super::conn::{ConnId, Life, Side};
use super::core::Shared;
use node::rt::Stream;
use node::rt::net::{BoxFuture, Listener, NetDriver};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Hosts that mean "this host" in an address.
const OWN_NAMES: [&str; 5] = ["", "0.0.0.0", "127.0.0.1", "localhost", "[::]"];

/// The network as one process of one host sees it.
pub struct HostNet {
    /// The network.
    shared: Arc<Shared>,
    /// The process.
    life: Life,
}

impl HostNet {
    /// The network as `life` sees it.
    pub(super) fn new(shared: Arc<Shared>, life: Life) -> Self {
        HostNet { shared, life }
    }

    /// The name of this host.
    fn name(&self) -> String {
        self.shared
            .with(|core| core.name(self.life.host).to_string())
    }

    /// Host and port of an address; an own name becomes this host's.
    fn parse(&self, address: &str) -> io::Result<(String, u16)> {
        let parts = address.rsplit_once(':');
        let parsed = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let Some((host, port)) = parsed else {
            let reason = format!("{address} is not host:port");
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        };
        let host = if OWN_NAMES.contains(&host) {
            self.name()
        } else {
            host.to_owned()
        };
        Ok((host, port))
    }

    /// Listens at once.
    fn open(&self, address: &str) -> io::Result<SimListener> {
        let (host, port) = self.parse(address)?;
        let name = self.name();
        if host != name {
            let reason = format!("cannot listen on {address}: this is host {name}");
            return Err(io::Error::new(ErrorKind::AddrNotAvailable, reason));
        }
        let opened = self.shared.with(|core| core.listen(self.life, port));
        let port = opened.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        Ok(SimListener {
            shared: Arc::clone(&self.shared),
            life: self.life,
            host,
            port,
        })
    }

    /// Sends the first packet at once.
    fn call(&self, address: &str) -> io::Result<SimStream> {
        let (host, port) = self.parse(address)?;
        let id = self.shared.with(|core| core.dial(self.life, &host, port))?;
        Ok(SimStream {
            shared: Arc::clone(&self.shared),
            id,
            side: Side::Caller,
        })
    }
}

impl NetDriver for HostNet {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let opened = self.open(address);
        Box::pin(async move { opened.map(|listener| Box::new(listener) as Box<dyn Listener>) })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let called = self.call(address);
        Box::pin(async move {
            // Dropped here, the stream takes the attempt with it.
            let stream = called?;
            poll_fn(|context| stream.poll_connected(context)).await?;
            Ok(Box::new(stream) as Stream)
        })
    }
}

/// A listening socket; closed when dropped.
pub struct SimListener {
    /// The network.
    shared: Arc<Shared>,
    /// The process that owns it.
    life: Life,
    /// This host's name.
    host: String,
    /// Its port.
    port: u16,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, String)>> {
        Box::pin(poll_fn(|context| {
            let accepted = self
                .shared
                .with(|core| core.poll_accept(self.life, self.port, context));
            accepted.map_ok(|(id, from)| {
                let stream = SimStream {
                    shared: Arc::clone(&self.shared),
                    id,
                    side: Side::Callee,
                };
                (Box::new(stream) as Stream, from)
            })
        }))
    }

    fn local_address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.shared
            .with(|core| core.close_door(self.life, self.port));
    }
}

/// One end of a connection; closed when dropped.
pub struct SimStream {
    /// The network.
    shared: Arc<Shared>,
    /// The connection.
    id: ConnId,
    /// Which end.
    side: Side,
}

impl SimStream {
    /// Ready when the connection is established or the attempt has failed.
    fn poll_connected(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|core| core.poll_dial(self.id, context))
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (id, side) = (self.id, self.side);
        self.shared
            .with(|core| core.poll_read(id, side, buffer, context))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (id, side) = (self.id, self.side);
        self.shared
            .with(|core| core.poll_write(id, side, buffer, context))
    }

    /// Nothing is held back, so there is nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.with(|core| core.shutdown(self.id, self.side)))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.shared.with(|core| core.close(self.id, self.side));
    }
}
