//! The calling side: connect, shake hands, pause between attempts; and the two questions that need no handshake.

use super::{PeerAddress, Shared};
use crate::error::{Code, Error as ClientError};
use crate::rt::clock::Elapsed;
use crate::rt::net::Stream;
use crate::rt::{Clock, Mono};
use crate::types::NodeId;
use crate::wire::frame::{self, FrameReader, FrameWriter, Kind};
use crate::wire::request::error_from_json;
use crate::wire::{
    Hello, Join, JoinAnswer, Joined, Probe, ProbeAnswer, Purpose, Reason, Reject, Welcome,
};
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};

/// Greatest frame believed before the handshake is done, bytes.
pub(super) const GREETING_LEN_MAX: usize = 256 << 10;

/// Why a peer cannot be called.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The stream or the conversation failed.
    #[error(transparent)]
    Frame(#[from] frame::Error),
    /// It took too long.
    #[error("no connection: {0}")]
    Late(#[from] Elapsed),
    /// The peer said no.
    #[error("refused by the peer: {}", .0.text)]
    Rejected(Reject),
    /// Somebody else answers at the address.
    #[error("{0}")]
    Stranger(String),
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// This node belongs to no cluster yet.
    #[error("this node belongs to no cluster yet")]
    NotReady,
}

impl Error {
    /// True when a person has to look at it: the peer is there but does not want us, or is not the one we mean.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            // A node that is about to be ready concerns nobody: the next attempt finds it.
            Error::Rejected(reject) => reject.reason() != Reason::NotReady,
            Error::Stranger(_) => true,
            Error::Frame(error) => {
                !matches!(error, frame::Error::Io(_) | frame::Error::Torn { .. })
            }
            Error::Late(_) | Error::Closed | Error::NotReady => false,
        }
    }
}

/// An open connection, seen through frames.
pub(super) struct Link {
    /// What comes.
    pub(super) reader: FrameReader<ReadHalf<Stream>>,
    /// What goes.
    pub(super) writer: FrameWriter<WriteHalf<Stream>>,
}

impl Link {
    /// Frames over `stream`; only short ones are read until [`FrameReader::set_max`].
    pub(super) fn over(stream: Stream, shared: &Shared) -> Link {
        let (read, write) = tokio::io::split(stream);
        Link {
            reader: FrameReader::new(read, GREETING_LEN_MAX),
            writer: FrameWriter::new(write, shared.knobs.frame_bytes_max),
        }
    }

    /// Sends one message.
    pub(super) async fn say<M: prost::Message>(
        &mut self,
        shared: &Shared,
        kind: Kind,
        message: &M,
    ) -> Result<(), frame::Error> {
        self.writer.push(kind, message)?;
        self.writer.flush(|| shared.idle()).await
    }

    /// The next frame, which must be there.
    async fn hear(&mut self) -> Result<frame::Frame, Error> {
        self.reader.next().await?.ok_or(Error::Closed)
    }
}

/// Connects to the peer `id` for `purpose` and shakes hands.
pub(super) async fn dial(
    shared: &Shared,
    id: NodeId,
    address: &PeerAddress,
    purpose: Purpose,
) -> Result<Link, Error> {
    let limit = shared.knobs.connect_timeout;
    let work = shake_hands(shared, id, address, purpose);
    shared.env.clock.timeout(limit, work).await?
}

async fn shake_hands(
    shared: &Shared,
    id: NodeId,
    address: &PeerAddress,
    purpose: Purpose,
) -> Result<Link, Error> {
    let me = shared.gate.me().ok_or(Error::NotReady)?;
    let mut link = connect(shared, &address.peer).await?;
    let hello = Hello {
        cluster_id: me.cluster_id.0,
        from: me.id.0,
        incarnation: me.incarnation.0,
        to: id.0,
        purpose: purpose.into(),
        name: me.name,
        peer: shared.advertise.clone(),
    };
    link.say(shared, Kind::Hello, &hello).await?;
    let frame = link.hear().await?;
    if frame.kind == Kind::Reject {
        return Err(Error::Rejected(frame.open(Kind::Reject, "a refusal")?));
    }
    let welcome: Welcome = frame.open(Kind::Welcome, "a welcome")?;
    check_welcome(id, address, &welcome)?;
    link.reader.set_max(shared.knobs.frame_bytes_max);
    Ok(link)
}

/// The one who answers is the one we mean, in the life we know.
fn check_welcome(id: NodeId, address: &PeerAddress, welcome: &Welcome) -> Result<(), Error> {
    let (at, name) = (&address.peer, &address.name);
    if welcome.id != id.0 {
        let found = welcome.id;
        return Err(Error::Stranger(format!(
            "node {found} answers at {at}, where node {id} ({name}) should be: correct the address"
        )));
    }
    let expected = address.incarnation;
    if expected.0 != 0 && expected != welcome.life() {
        let shown = welcome.life();
        return Err(Error::Stranger(format!(
            "node {id} ({name}) at {at} shows incarnation {shown}, recorded is {expected}: its data directory was lost, copied or restored"
        )));
    }
    Ok(())
}

/// Connects to `address`.
async fn connect(shared: &Shared, address: &str) -> Result<Link, Error> {
    let stream = shared.env.net.connect(address).await;
    let stream = stream.map_err(|error| Error::Frame(error.into()))?;
    Ok(Link::over(stream, shared))
}

/// Asks the node at `address` who it is.
pub(super) async fn probe(
    shared: &Shared,
    address: &str,
    probe: Probe,
) -> Result<ProbeAnswer, ClientError> {
    let work = async {
        let mut link = connect(shared, address).await?;
        link.say(shared, Kind::Probe, &probe).await?;
        let frame = link.hear().await?;
        Ok::<ProbeAnswer, Error>(frame.open(Kind::ProbeAnswer, "an answer to a probe")?)
    };
    let limit = shared.knobs.connect_timeout;
    let answer = shared.env.clock.timeout(limit, work).await;
    answer.map_err(Error::from).flatten().map_err(|error| {
        ClientError::new(Code::NoLeader, format!("no word from {address}: {error}"))
    })
}

/// Asks the node at `address` to let this one in.
pub(super) async fn join(
    shared: &Shared,
    address: &str,
    join: Join,
    deadline: Mono,
) -> Result<Joined, ClientError> {
    let clock = &shared.env.clock;
    let connected = clock.timeout(shared.knobs.connect_timeout, connect(shared, address));
    let connected = connected.await.map_err(Error::from).flatten();
    let mut link = connected.map_err(|error| {
        ClientError::new(Code::NoLeader, format!("cannot reach {address}: {error}"))
    })?;
    let work = async {
        link.say(shared, Kind::Join, &join).await?;
        let frame = link.hear().await?;
        Ok::<JoinAnswer, Error>(frame.open(Kind::JoinAnswer, "an answer to a join")?)
    };
    let answer = clock.timeout(deadline.since(clock.now()), work).await;
    let answer = answer.map_err(Error::from).flatten().map_err(|error| {
        let message = format!("no answer from {address} to the join: {error}");
        ClientError::new(Code::Timeout, message).unknown()
    })?;
    answer.joined.ok_or_else(|| error_from_json(&answer.error))
}

/// The pauses between attempts: doubling, with jitter, so that peers of a node that comes back do not call all at once.
pub(super) struct Pause {
    /// The clock.
    clock: Clock,
    /// Jitter.
    rng: ChaCha8Rng,
    /// First pause.
    min: Duration,
    /// Longest pause.
    max: Duration,
    /// Next pause, before jitter.
    next: Duration,
}

impl Pause {
    /// Pauses with the jitter stream called `name`.
    pub(super) fn new(shared: &Shared, name: &str) -> Self {
        let (min, max) = (shared.knobs.reconnect_min, shared.knobs.reconnect_max);
        Pause {
            clock: shared.env.clock.clone(),
            rng: shared.env.rngs.stream(name),
            min,
            max,
            next: min,
        }
    }

    /// The last attempt went well.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    /// Waits between half of the pause and all of it, and doubles it.
    pub(super) async fn wait(&mut self) {
        let span = self.next;
        self.next = (span * 2).min(self.max);
        let jitter = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        self.clock.sleep(span.mul_f64(0.5 + jitter / 2.0)).await;
    }
}
