//! A bug planted at the clients' door: a node that believes to lead answers linearizable reads from its own state, without
//! asking a majority whether it still does. Planted as an edit of the request line: `consistency=local` is added.

use bytes::{Bytes, BytesMut};
use node::rt::net::{BoxFuture, Listener, NetDriver};
use node::rt::{Net, Stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Most bytes on their way through in one direction.
const PIPE_BYTES: usize = 64 << 10;
/// How a read of a key begins.
const READ: &[u8] = b"GET /v1/kv/";
/// How its first line ends.
const LINE_END: &[u8] = b" HTTP/1.1\r\n";

/// A node's network whose incoming requests are edited.
pub(super) struct Unasked {
    /// The real one.
    inner: Net,
    /// True while the node believes to lead.
    leads: Arc<AtomicBool>,
}

impl Unasked {
    /// Edits what comes to `inner` while `leads`.
    pub(super) fn new(inner: Net, leads: Arc<AtomicBool>) -> Self {
        Unasked { inner, leads }
    }
}

impl NetDriver for Unasked {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (inner, leads) = (self.inner.clone(), Arc::clone(&self.leads));
        let address = address.to_owned();
        Box::pin(async move {
            let listener = inner.listen(&address).await?;
            if !address.ends_with(":8080") {
                return Ok(listener);
            }
            Ok(Box::new(UnaskedListener { listener, leads }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let (inner, address) = (self.inner.clone(), address.to_owned());
        Box::pin(async move { inner.connect(&address).await })
    }
}

/// The clients' listener.
struct UnaskedListener {
    /// The real one.
    listener: Box<dyn Listener>,
    /// True while the node believes to lead.
    leads: Arc<AtomicBool>,
}

impl Listener for UnaskedListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, String)>> {
        let leads = Arc::clone(&self.leads);
        let accepted = self.listener.accept();
        Box::pin(async move {
            let (stream, from) = accepted.await?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            drop(madsim::task::spawn(async move {
                // Either end closes or fails: so does the other.
                drop(pass(far, stream, leads).await);
            }));
            Ok((Box::new(near) as Stream, from))
        })
    }

    fn local_address(&self) -> String {
        self.listener.local_address()
    }
}

/// Passes bytes both ways, requests edited, until one side ends.
async fn pass(node: DuplexStream, wire: Stream, leads: Arc<AtomicBool>) -> io::Result<()> {
    let (mut from_node, mut to_node) = tokio::io::split(node);
    let (mut from_wire, mut to_wire) = tokio::io::split(wire);
    let (mut answers, mut requests) = (BytesMut::new(), BytesMut::new());
    loop {
        tokio::select! {
            biased; // Answers first: they free the client.
            count = from_node.read_buf(&mut answers) => {
                if count? == 0 { return Ok(()) }
                to_wire.write_all(&answers.split()).await?;
                to_wire.flush().await?;
            }
            count = from_wire.read_buf(&mut requests) => {
                if count? == 0 { return Ok(()) }
                while let Some(bytes) = take_part(&mut requests, leads.load(Ordering::Relaxed)) {
                    to_node.write_all(&bytes).await?;
                }
            }
        }
    }
}

/// Takes what can be passed on: the first line of a read once it is whole, anything else at once.
fn take_part(from: &mut BytesMut, edit: bool) -> Option<Bytes> {
    if from.is_empty() {
        return None;
    }
    let same = from.iter().zip(READ).take_while(|(a, b)| a == b).count();
    if same < READ.len().min(from.len()) {
        return Some(from.split().freeze());
    }
    let end = from.windows(LINE_END.len()).position(|bytes| bytes == LINE_END)?;
    let target = from.split_to(end);
    let line_end = from.split_to(LINE_END.len());
    let freshness = target.windows(11).any(|bytes| bytes == b"consistency");
    let mut line = BytesMut::from(&target[..]);
    if edit && !freshness {
        line.extend_from_slice(if target.contains(&b'?') { b"&" } else { b"?" });
        line.extend_from_slice(b"consistency=local");
    }
    line.extend_from_slice(&line_end);
    Some(line.freeze())
}
