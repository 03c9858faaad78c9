//! Requests forwarded to one peer, many at a time over one connection.
//!
//! A request is claimed right before its bytes go out: from then on a lost answer means "may have happened". One that gives
//! up before it is claimed certainly never left. So no request is ever sent twice, and none is called lost that was not.

use super::dial::{self, Link, Pause};
use super::{PeerAddress, Shared};
use crate::error::{Code, Error};
use crate::rt::Mono;
use crate::types::NodeId;
use crate::wire::{Answer, Ask, Forward, ForwardReply, Kind, Purpose, frame};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot};

/// A request waiting to be sent.
pub(super) struct Call {
    /// What.
    ask: Ask,
    /// The asker waits no longer than this.
    deadline: Mono,
    /// Taken by whoever comes first: the task that sends it, or the asker that gives up.
    claim: Claim,
    /// Answer.
    reply: oneshot::Sender<Result<Answer, Error>>,
}

/// A flag that can be taken once.
#[derive(Clone, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    /// True for the first taker.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

/// Queues `ask` for `to` at once; the future waits for the answer until `deadline`.
pub(super) fn forward(
    shared: &Arc<Shared>,
    to: NodeId,
    ask: Ask,
    deadline: Mono,
) -> impl Future<Output = Result<Answer, Error>> + Send + 'static + use<> {
    let (reply, answer) = oneshot::channel();
    let claim = Claim::default();
    let call = Call {
        ask,
        deadline,
        claim: claim.clone(),
        reply,
    };
    let queued = enqueue(shared, to, call);
    let clock = shared.env.clock.clone();
    async move {
        queued?;
        tokio::select! {
            biased; // An answer that comes with the deadline still counts.
            answer = answer => answer.unwrap_or_else(|_| {
                // Its task has ended: the peer left the address book, or the node stops.
                Err(lost(to, "no longer a peer", !claim.take()))
            }),
            () = clock.sleep_until(deadline) => {
                Err(open_end(late(to), !claim.take()))
            }
        }
    }
}

fn enqueue(shared: &Shared, to: NodeId, call: Call) -> Result<(), Error> {
    let peers = shared.peers();
    let Some(peer) = peers.get(&to) else {
        return Err(lost(to, "it is not in the address book", false));
    };
    peer.calls.try_send(call).map_err(|_| {
        Error::new(
            Code::Overloaded,
            format!("too many requests wait for node {to}"),
        )
    })
}

/// `error`, marked when the request may have had an effect.
fn open_end(error: Error, unknown: bool) -> Error {
    if unknown { error.unknown() } else { error }
}

/// No answer came from `to` in time.
fn late(to: NodeId) -> Error {
    let message = format!("node {to} did not answer in time");
    Error::new(Code::Timeout, message)
}

/// No answer will come from `to`.
fn lost(to: NodeId, why: &str, unknown: bool) -> Error {
    let message = format!("could not forward the request to node {to}: {why}");
    open_end(Error::new(Code::NotLeader, message), unknown)
}

/// Serves requests to `id` until the task is ended. Connects when there is one.
pub(super) async fn run(
    shared: Arc<Shared>,
    id: NodeId,
    address: PeerAddress,
    mut calls: mpsc::Receiver<Call>,
) {
    let mut pause = Pause::new(&shared, &format!("transport.rpc.{id}"));
    let mut batch = Vec::new();
    while calls.recv_many(&mut batch, shared.knobs.turn_len_max).await > 0 {
        match dial::dial(&shared, id, &address, Purpose::Rpc).await {
            Ok(link) => {
                pause.reset();
                Talk::new(&shared, id, link).run(batch, &mut calls).await;
            }
            Err(error) => {
                refuse(id, &error.to_string(), batch, &mut calls);
                pause.wait().await;
            }
        }
        batch = Vec::new();
    }
}

/// Answers everything that waits: it was not sent.
fn refuse(id: NodeId, why: &str, batch: Vec<Call>, calls: &mut mpsc::Receiver<Call>) {
    let queued = std::iter::from_fn(|| calls.try_recv().ok());
    for call in batch.into_iter().chain(queued) {
        if call.claim.take() {
            answer(call.reply, Err(lost(id, why, false)));
        }
    }
}

/// Hands over an answer. Nobody listens when the asker gave up, which is its right.
fn answer(to: oneshot::Sender<Result<Answer, Error>>, answer: Result<Answer, Error>) {
    to.send(answer).ok();
}

/// One connection's worth of requests.
struct Talk<'a> {
    /// The transport.
    shared: &'a Shared,
    /// The peer.
    id: NodeId,
    /// The connection.
    link: Link,
    /// Who waits for the answers to requests sent, by number.
    sent: BTreeMap<u64, oneshot::Sender<Result<Answer, Error>>>,
    /// Number of the next request.
    next: u64,
    /// When the peer was last heard, or began to owe an answer.
    heard: Mono,
}

impl<'a> Talk<'a> {
    fn new(shared: &'a Shared, id: NodeId, link: Link) -> Self {
        Talk {
            heard: shared.env.clock.now(),
            shared,
            id,
            link,
            sent: BTreeMap::new(),
            next: 1,
        }
    }

    /// Sends `first` and what comes after it, and hands out answers, until the connection ends.
    async fn run(mut self, first: Vec<Call>, calls: &mut mpsc::Receiver<Call>) {
        let why = match self.converse(first, calls).await {
            Ok(()) => "the connection was closed".to_owned(),
            Err(error) => format!("the connection was lost: {error}"),
        };
        for reply in std::mem::take(&mut self.sent).into_values() {
            answer(reply, Err(lost(self.id, &why, true)));
        }
    }

    async fn converse(
        &mut self,
        first: Vec<Call>,
        calls: &mut mpsc::Receiver<Call>,
    ) -> Result<(), frame::Error> {
        let turn = self.shared.knobs.turn_len_max;
        let mut batch = first;
        loop {
            self.write(batch.drain(..)).await?;
            let silence_ends = self.heard.plus(self.shared.knobs.peer_idle_timeout);
            tokio::select! {
                biased; // Answers free room for requests.
                frame = self.link.reader.next() => match frame? {
                    Some(frame) => self.take(frame)?,
                    None => return Ok(()),
                },
                () = self.shared.env.clock.sleep_until(silence_ends), if !self.sent.is_empty() => {
                    return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
                }
                taken = calls.recv_many(&mut batch, turn), if self.has_room() => {
                    if taken == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// True when another request may be sent. Requests whose asker gave up make room.
    fn has_room(&mut self) -> bool {
        let max = self.shared.knobs.forward_len_max;
        if self.sent.len() >= max {
            self.sent.retain(|_, reply| !reply.is_closed());
        }
        self.sent.len() < max
    }

    async fn write(&mut self, batch: impl Iterator<Item = Call>) -> Result<(), frame::Error> {
        let now = self.shared.env.clock.now();
        for call in batch {
            if !call.claim.take() {
                continue;
            }
            if call.deadline <= now {
                answer(call.reply, Err(late(self.id)));
                continue;
            }
            self.push(call, now);
        }
        self.link.writer.flush(|| self.shared.idle()).await
    }

    /// Gathers one claimed request.
    fn push(&mut self, call: Call, now: Mono) {
        if self.sent.is_empty() {
            self.heard = now;
        }
        let left = call.deadline.since(now).as_millis();
        let left_ms = u64::try_from(left).unwrap_or(u64::MAX);
        let forward = Forward::new(self.next, left_ms, call.ask);
        if let Err(error) = self.link.writer.push(Kind::Forward, &forward) {
            return answer(
                call.reply,
                Err(Error::new(Code::TooLarge, error.to_string())),
            );
        }
        self.sent.insert(self.next, call.reply);
        self.next += 1;
    }

    /// An answer or a sign of life.
    fn take(&mut self, frame: frame::Frame) -> Result<(), frame::Error> {
        self.heard = self.shared.env.clock.now();
        if frame.kind == Kind::Ack {
            return Ok(());
        }
        let reply: ForwardReply = frame.open(Kind::ForwardReply, "an answer")?;
        if let Some(asker) = self.sent.remove(&reply.id) {
            answer(asker, reply.open());
        }
        Ok(())
    }
}
