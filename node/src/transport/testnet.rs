//! A network in memory for tests: addresses that can refuse, and connections that can be cut or go silent.

use crate::rt::net::{BoxFuture, Listener, NetDriver, Stream};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bytes under way in one direction before writers wait.
const WINDOW: usize = 64 << 10;

/// Connections on their way to a door, with the address they come from.
type Calls = mpsc::Sender<(Stream, String)>;

/// The network; a clone is the same one.
#[derive(Clone, Default)]
pub(super) struct TestNet(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Doors by address.
    doors: BTreeMap<String, Calls>,
    /// Addresses that refuse.
    refusing: BTreeSet<String>,
    /// Addresses where a connect hangs for ever.
    hanging: BTreeSet<String>,
    /// Connections made so far, by the address called.
    made: Vec<(String, CancellationToken, Arc<AtomicBool>)>,
}

impl TestNet {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on connects to `address` are refused, or no longer.
    pub(super) fn refuse(&self, address: &str, on: bool) {
        let mut state = self.state();
        if on {
            state.refusing.insert(address.to_owned());
        } else {
            state.refusing.remove(address);
        }
    }

    /// From now on connects to `address` hang.
    pub(super) fn hang(&self, address: &str) {
        self.state().hanging.insert(address.to_owned());
    }

    /// Resets every connection that was made to `address`.
    pub(super) fn cut(&self, address: &str) {
        for (to, cut, _) in &self.state().made {
            if to == address {
                cut.cancel();
            }
        }
    }

    /// Every connection made to `address` so far swallows what is written and brings nothing any more.
    pub(super) fn silence(&self, address: &str) {
        for (to, _, silent) in &self.state().made {
            if to == address {
                silent.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Connections made to `address` so far.
    pub(super) fn made(&self, address: &str) -> usize {
        let state = self.state();
        state.made.iter().filter(|(to, ..)| to == address).count()
    }

    fn connect_now(&self, address: &str) -> io::Result<(Stream, Calls, Stream)> {
        let mut state = self.state();
        if state.refusing.contains(address) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let door = state.doors.get(address).cloned();
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = tokio::io::duplex(WINDOW);
        let (cut, silent) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let ends = [near, far].map(|inner| Wire {
            inner,
            cut: Box::pin(cut.clone().cancelled_owned()),
            is_cut: cut.clone(),
            silent: Arc::clone(&silent),
        });
        state.made.push((address.to_owned(), cut, silent));
        let [near, far] = ends;
        Ok((Box::new(near), door, Box::new(far)))
    }
}

impl NetDriver for TestNet {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (door, incoming) = mpsc::channel(64);
        let address = address.to_owned();
        self.state().doors.insert(address.clone(), door);
        Box::pin(async move { Ok(Box::new(Door { address, incoming }) as Box<dyn Listener>) })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let (net, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            if net.state().hanging.contains(&address) {
                std::future::pending::<()>().await;
            }
            let (near, door, far) = net.connect_now(&address)?;
            let come = door.send((far, "test".to_owned())).await;
            come.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(near)
        })
    }
}

struct Door {
    address: String,
    incoming: mpsc::Receiver<(Stream, String)>,
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, String)>> {
        Box::pin(async move {
            let next = self.incoming.recv().await;
            next.ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}

/// One end of a connection.
struct Wire {
    inner: DuplexStream,
    /// Wakes waiting readers and writers when the connection is cut.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: CancellationToken,
    silent: Arc<AtomicBool>,
}

impl Wire {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.is_cut.is_cancelled() || self.cut.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        if self.silent.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(context, to)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        if self.silent.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(data.len()));
        }
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
