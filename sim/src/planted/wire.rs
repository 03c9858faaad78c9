//! Bugs planted on the peers' wire: a proxy between a node and its network that reads the frames and adds some of its own.
//!
//! What is added or changed is what a node with the bug would say or believe: an acknowledgement that leaves before the disk has
//! the entries, the acknowledgements of a learner under the name of a voter, a second vote, a frame with a changed byte. Everything
//! else passes as it is, and all of it travels over the simulated network.

use super::platter::flipped;
use bytes::{Bytes, BytesMut};
use node::rt::net::{BoxFuture, Listener, NetDriver};
use node::rt::{Net, Stream};
use node::wire::frame::{self, Kind};
use node::wire::request::{Forward, ForwardReply, WireAnswer, WireAsk};
use node::wire::{Hello, Purpose, RaftMessage};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// Most bytes on their way through a proxy in one direction.
const PIPE_BYTES: usize = 64 << 10;
/// Longest frame read, bytes: any.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Raft's number of an append.
const APPEND: i32 = 3;
/// Raft's number of the answer to an append.
const APPEND_RESPONSE: i32 = 4;
/// Raft's number of a candidate's question.
const REQUEST_VOTE: i32 = 5;
/// Raft's number of the answer to it.
const REQUEST_VOTE_RESPONSE: i32 = 6;
/// One append in this many is changed.
const CHANGED: u64 = 40;

/// What is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forgery {
    /// A follower acknowledges entries when they arrive.
    EarlyAnswer,
    /// A node that came back as a learner acknowledges for the voter it was before.
    OldVoice,
    /// A voter grants its vote to a second candidate of the term.
    TwoVotes,
    /// A byte of an entry changes on its way in, and the frame's checksum with it.
    ChangedEntry,
    /// Managers neither pass on what workers say nor tell the leader when they heard from them.
    NoWitness,
}

/// Frames that may wait to be added to a connection; a forger that is too slow says less.
const ADDED_LEN_MAX: usize = 1_024;

/// Frames to be added to a connection.
type Added = mpsc::Sender<Bytes>;

/// What a node's proxies know together, over all its lives.
#[derive(Default)]
pub(super) struct Known {
    /// Ways to add to the open consensus connection to a peer, by the peer's id.
    outgoing: BTreeMap<u64, Added>,
    /// The greeting of this node's first life, by whom it went to.
    first_words: BTreeMap<u64, Hello>,
    /// Ways to speak as the voter of the first life, by the peer's id.
    old_voices: BTreeMap<u64, Added>,
    /// How complete the log of a candidate is (last term, last index), by term and candidate.
    candidates: BTreeMap<(u64, u64), (u64, u64)>,
    /// How complete the log is that got this node's vote, by term.
    votes: BTreeMap<u64, (u64, u64)>,
    /// Appends with entries that came in.
    appends: u64,
}

/// A node's network with a forger in it.
pub(super) struct Forger {
    /// The real one.
    inner: Net,
    /// What is forged.
    forgery: Forgery,
    /// What all proxies of this node know.
    known: Arc<Mutex<Known>>,
}

impl Forger {
    /// A forger in front of `inner`.
    pub(super) fn new(inner: Net, forgery: Forgery, known: Arc<Mutex<Known>>) -> Self {
        Forger {
            inner,
            forgery,
            known,
        }
    }

    /// What a proxy on one connection needs.
    fn tap(&self, address: &str) -> Tap {
        Tap {
            net: self.inner.clone(),
            forgery: self.forgery,
            known: Arc::clone(&self.known),
            address: address.to_owned(),
            hello: None,
        }
    }
}

impl NetDriver for Forger {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (inner, tap, address) = (self.inner.clone(), self.tap(""), address.to_owned());
        Box::pin(async move {
            let listener = inner.listen(&address).await?;
            if !is_peers(&address) {
                return Ok(listener);
            }
            Ok(Box::new(ForgedListener { listener, tap }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let (inner, tap, address) = (self.inner.clone(), self.tap(address), address.to_owned());
        Box::pin(async move {
            let stream = inner.connect(&address).await?;
            if !is_peers(&address) {
                return Ok(stream);
            }
            Ok(proxied(stream, tap, Side::Caller))
        })
    }
}

/// True for the door of peers, the only one where frames are spoken.
fn is_peers(address: &str) -> bool {
    address.ends_with(":7000")
}

/// A listener whose connections go through a proxy.
struct ForgedListener {
    /// The real one.
    listener: Box<dyn Listener>,
    /// What each proxy gets a copy of.
    tap: Tap,
}

impl Listener for ForgedListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, String)>> {
        let tap = self.tap.clone();
        let accepted = self.listener.accept();
        Box::pin(async move {
            let (stream, from) = accepted.await?;
            Ok((proxied(stream, tap, Side::Called), from))
        })
    }

    fn local_address(&self) -> String {
        self.listener.local_address()
    }
}

/// Who opened the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The node.
    Caller,
    /// Its peer.
    Called,
}

/// Puts a proxy on `stream`. It ends when either end does, and with the node.
fn proxied(stream: Stream, tap: Tap, side: Side) -> Stream {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    drop(madsim::task::spawn(async move {
        // Either end closes or fails: so does the other, as the tasks of a node see it.
        drop(pass(far, stream, tap, side).await);
    }));
    Box::new(near)
}

/// Passes bytes both ways until one side ends.
async fn pass(node: DuplexStream, wire: Stream, mut tap: Tap, side: Side) -> io::Result<()> {
    let (mut from_node, mut to_node) = tokio::io::split(node);
    let (mut from_wire, mut to_wire) = tokio::io::split(wire);
    let (mut sent, mut came) = (BytesMut::new(), BytesMut::new());
    let (add, mut added) = mpsc::channel::<Bytes>(ADDED_LEN_MAX);
    loop {
        tokio::select! {
            // What is added goes first: it is what a node with the bug would have said before anything else.
            biased;
            Some(frame) = added.recv() => to_wire.write_all(&frame).await?,
            count = from_node.read_buf(&mut sent) => {
                if count? == 0 { return Ok(()) }
                while let Some(bytes) = take_frame(&mut sent) {
                    let bytes = if side == Side::Caller { tap.sent(bytes, &add) } else { bytes };
                    to_wire.write_all(&bytes).await?;
                }
            }
            count = from_wire.read_buf(&mut came) => {
                if count? == 0 { return Ok(()) }
                while let Some(bytes) = take_frame(&mut came) {
                    let bytes = match side {
                        Side::Called => tap.came(bytes),
                        Side::Caller => tap.answered(bytes),
                    };
                    to_node.write_all(&bytes).await?;
                }
            }
        }
        to_wire.flush().await?;
    }
}

/// Takes the bytes of one whole frame.
fn take_frame(from: &mut BytesMut) -> Option<Bytes> {
    let length = from.get(..4)?.try_into().ok().map(u32::from_le_bytes)?;
    let length = usize::try_from(length).ok()? + 8;
    (from.len() >= length).then(|| from.split_to(length).freeze())
}

/// The message in a frame's bytes, if it is of `kind`.
fn open<M: prost::Message + Default>(bytes: &Bytes, kind: Kind) -> Option<M> {
    let mut copy = BytesMut::from(&bytes[..]);
    frame::decode(&mut copy, FRAME_BYTES_MAX)
        .ok()??
        .open(kind, "a message")
        .ok()
}

/// The bytes of a frame.
fn close<M: prost::Message>(kind: Kind, message: &M) -> Bytes {
    let mut bytes = BytesMut::new();
    frame::encode(&mut bytes, kind, message, FRAME_BYTES_MAX).expect("a short message");
    bytes.freeze()
}

/// Whether a frame passes on what a worker says.
fn is_of_a_worker(bytes: &Bytes) -> bool {
    let asked = open::<Forward>(bytes, Kind::Forward).and_then(|forward| forward.ask);
    matches!(asked, Some(WireAsk::Dispatch(said)) if !said.contains("\"heard\""))
}

/// What one proxy knows of its connection.
#[derive(Clone)]
struct Tap {
    /// The real network.
    net: Net,
    /// What is forged.
    forgery: Forgery,
    /// What all proxies of this node know.
    known: Arc<Mutex<Known>>,
    /// Where the connection leads; empty for one that came in.
    address: String,
    /// The greeting of a consensus connection.
    hello: Option<Hello>,
}

impl Tap {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The node sends a frame on a connection it opened; gives what goes out instead.
    fn sent(&mut self, bytes: Bytes, add: &Added) -> Bytes {
        if let Some(hello) = open::<Hello>(&bytes, Kind::Hello) {
            self.begins(hello, add);
            return bytes;
        }
        if self.forgery == Forgery::NoWitness && is_of_a_worker(&bytes) {
            return Bytes::new();
        }
        let Some(message) = open::<RaftMessage>(&bytes, Kind::Raft) else {
            return bytes;
        };
        match self.forgery {
            Forgery::OldVoice if message.kind == APPEND_RESPONSE && !message.reject => {
                self.say_as_before(message);
            }
            Forgery::TwoVotes => return self.vote(message).unwrap_or(bytes),
            _ => {}
        }
        bytes
    }

    /// A consensus message of a voter; gives the grant that takes the place of a refusal.
    fn vote(&self, mut message: RaftMessage) -> Option<Bytes> {
        let mut known = self.known();
        if message.kind == REQUEST_VOTE {
            // A candidate votes for itself.
            known
                .votes
                .insert(message.term, (message.log_term, message.index));
        }
        if message.kind != REQUEST_VOTE_RESPONSE {
            return None;
        }
        let theirs = known.candidates.get(&(message.term, message.to)).copied()?;
        if !message.reject {
            known.votes.insert(message.term, theirs);
            return None;
        }
        let granted = known.votes.get(&message.term)?;
        if theirs < *granted {
            return None;
        }
        message.reject = false;
        Some(close(Kind::Raft, &message))
    }

    /// A connection of the node begins.
    fn begins(&mut self, hello: Hello, add: &Added) {
        if hello.purpose != Purpose::Raft as i32 {
            return;
        }
        let mut known = self.known();
        known.outgoing.insert(hello.to, add.clone());
        known
            .first_words
            .entry(hello.to)
            .or_insert_with(|| hello.clone());
        drop(known);
        self.hello = Some(hello);
    }

    /// A frame came on a connection that a peer opened; gives what comes in instead.
    fn came(&self, bytes: Bytes) -> Bytes {
        let Some(message) = open::<RaftMessage>(&bytes, Kind::Raft) else {
            return bytes;
        };
        match self.forgery {
            Forgery::EarlyAnswer => self.answer_early(&message),
            Forgery::ChangedEntry => return self.change(message).unwrap_or(bytes),
            Forgery::TwoVotes if message.kind == REQUEST_VOTE => {
                let complete = (message.log_term, message.index);
                self.known()
                    .candidates
                    .insert((message.term, message.from), complete);
            }
            _ => {}
        }
        bytes
    }

    /// An answer came on a connection that the node opened; gives what comes in instead.
    fn answered(&self, bytes: Bytes) -> Bytes {
        let heard = (self.forgery == Forgery::NoWitness)
            .then(|| open::<ForwardReply>(&bytes, Kind::ForwardReply))
            .flatten();
        let Some(mut reply) = heard else {
            return bytes;
        };
        match &mut reply.answer {
            Some(WireAnswer::Dispatch(said)) if said.contains("\"heard\"") => {
                r#"{"reply":"heard","ago_ms":[]}"#.clone_into(said);
                close(Kind::ForwardReply, &reply)
            }
            _ => bytes,
        }
    }

    /// Changes a byte of the last entry of an append, now and then.
    fn change(&self, mut message: RaftMessage) -> Option<Bytes> {
        let last = message
            .entries
            .last_mut()
            .filter(|_| message.kind == APPEND)?;
        if last.kind != 0 || last.data.is_empty() {
            return None;
        }
        let mut known = self.known();
        known.appends += 1;
        if !known.appends.is_multiple_of(CHANGED) {
            return None;
        }
        (last.data, _) = flipped(&last.data)?;
        Some(close(Kind::Raft, &message))
    }

    /// Answers an append with entries at once.
    fn answer_early(&self, append: &RaftMessage) {
        let Some(last) = append.entries.last().filter(|_| append.kind == APPEND) else {
            return;
        };
        let answer = RaftMessage {
            group: append.group,
            kind: APPEND_RESPONSE,
            from: append.to,
            to: append.from,
            term: append.term,
            index: last.index,
            ..RaftMessage::default()
        };
        let known = self.known();
        if let Some(outgoing) = known.outgoing.get(&append.from) {
            // A connection that has ended carries nothing; the node's own answer follows in any case.
            outgoing.try_send(close(Kind::Raft, &answer)).ok();
        }
    }

    /// Repeats an acknowledgement under the id of this node's first life, if that was another one.
    fn say_as_before(&self, mut message: RaftMessage) {
        let mut known = self.known();
        let Some(first) = known.first_words.get(&message.to).cloned() else {
            return;
        };
        if self.hello.as_ref().is_none_or(|now| now.from == first.from) {
            return;
        }
        message.from = first.from;
        let frame = close(Kind::Raft, &message);
        let old = known.old_voices.get(&message.to);
        if old.is_some_and(|old| old.try_send(frame.clone()).is_ok()) {
            return;
        }
        let (add, added) = mpsc::channel(ADDED_LEN_MAX);
        add.try_send(frame).ok();
        known.old_voices.insert(message.to, add);
        let (net, address) = (self.net.clone(), self.address.clone());
        drop(madsim::task::spawn(async move {
            // A leader that does not believe it any more ends it.
            drop(speak(net, address, first, added).await);
        }));
    }
}

/// A connection of its own, with the greeting of an earlier life.
async fn speak(
    net: Net,
    address: String,
    hello: Hello,
    mut added: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let (mut from_wire, mut to_wire) = tokio::io::split(net.connect(&address).await?);
    to_wire.write_all(&close(Kind::Hello, &hello)).await?;
    to_wire.flush().await?;
    let mut heard = BytesMut::new();
    while heard.is_empty() {
        if from_wire.read_buf(&mut heard).await? == 0 {
            return Ok(());
        }
    }
    loop {
        heard.clear();
        tokio::select! {
            biased; // The end of the connection first: nothing may be sent into it.
            count = from_wire.read_buf(&mut heard) => if count? == 0 { return Ok(()) },
            frame = added.recv() => match frame {
                Some(frame) => {
                    to_wire.write_all(&frame).await?;
                    to_wire.flush().await?;
                }
                None => return Ok(()),
            },
        }
    }
}
