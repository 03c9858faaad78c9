//! Byte streams: listen, connect, read, write.
//!
//! Addresses are `host:port` texts. A connection may hang, be refused or reset, half-open, and read or write less
//! than asked; whoever uses one puts a time-out around every wait.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A boxed future of the seam.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Both directions of a connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// An open connection.
pub type Stream = Box<dyn ByteStream>;

/// What a network must do.
pub trait NetDriver: Send + Sync {
    /// Listens on `address`; port 0 picks a free one.
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
    /// Connects to `address`. May hang for as long as the network likes.
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>>;
}

/// A listening socket.
pub trait Listener: Send {
    /// The next connection and the address it came from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, String)>>;
    /// The address in use, with the port that was picked.
    fn local_address(&self) -> String;
}

/// A node's network.
#[derive(Clone)]
pub struct Net(Arc<dyn NetDriver>);

impl Net {
    /// A network over `driver`.
    pub fn new(driver: impl NetDriver + 'static) -> Self {
        Net(Arc::new(driver))
    }

    /// Listens on `address` (`host:port`; port 0 picks a free one).
    pub async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.0.listen(address).await
    }

    /// Connects to `address` (`host:port`).
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        self.0.connect(address).await
    }
}
