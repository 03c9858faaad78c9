//! Answers to what peers ask: probes, joins, and forwarded requests.
//!
//! Of forwarded requests at most `Knobs::forward_len_max` are under way per connection; beyond that nothing more is read,
//! so that the asker's own queue fills and says so. Answers leave as they are ready, whatever the order of the questions.

use super::accept::Error;
use super::dial::Link;
use super::{Inbound, Shared};
use crate::error::{Code, Error as ClientError};
use crate::rt::{Clock, Mono};
use crate::types::NodeId;
use crate::wire::request::{LEFT_MS_MAX, error_to_json};
use crate::wire::{Answer, Forward, ForwardReply, Join, JoinAnswer, Joined, Kind, Probe};
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::Future;
use std::time::Duration;
use tokio::sync::oneshot;

/// Answers a probe.
pub(super) async fn probe(shared: &Shared, link: &mut Link, probe: Probe) -> Result<(), Error> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        give(shared, Inbound::Probe { probe, reply }).await?;
        Ok::<_, Error>(answer.await.ok())
    };
    let limit = shared.knobs.connect_timeout;
    match shared.env.clock.timeout(limit, asked).await {
        Ok(Ok(Some(answer))) => Ok(link.say(shared, Kind::ProbeAnswer, &answer).await?),
        Ok(Err(error)) => Err(error),
        // No answer yet is an answer: the asker tries again.
        Ok(Ok(None)) | Err(_) => Ok(()),
    }
}

/// Answers a join.
pub(super) async fn join(shared: &Shared, link: &mut Link, join: Join) -> Result<(), Error> {
    let (reply, answer) = oneshot::channel();
    let clock = &shared.env.clock;
    let deadline = clock.now().plus(shared.knobs.request_timeout);
    let given = give(shared, Inbound::Join { join, reply });
    let given = clock.timeout(shared.knobs.request_timeout, given).await;
    let answer = match given {
        Ok(given) => {
            given?;
            wait(clock, answer, deadline).await
        }
        Err(_) => Err(ClientError::new(
            Code::Overloaded,
            "the asked node is too busy",
        )),
    };
    let answer = match answer {
        Ok(joined) => JoinAnswer {
            joined: Some(joined),
            error: String::new(),
        },
        Err(error) => refusal(&error),
    };
    Ok(link.say(shared, Kind::JoinAnswer, &answer).await?)
}

fn refusal(error: &ClientError) -> JoinAnswer {
    JoinAnswer {
        joined: None::<Joined>,
        error: error_to_json(error),
    }
}

async fn give(shared: &Shared, what: Inbound) -> Result<(), Error> {
    let given = shared.inbound.send(what).await;
    given.map_err(|_| Error::Stopping)
}

/// The loop's answer, or an error of unknown outcome when it gives none by `deadline`.
async fn wait<T>(
    clock: &Clock,
    answer: oneshot::Receiver<Result<T, ClientError>>,
    deadline: Mono,
) -> Result<T, ClientError> {
    let left = deadline.since(clock.now());
    match clock.timeout(left, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(ClientError::new(
            Code::ShuttingDown,
            "the asked node dropped the request",
        )
        .unknown()),
        Err(_) => {
            Err(ClientError::new(Code::Timeout, "the asked node found no answer in time").unknown())
        }
    }
}

/// Serves forwarded requests until the connection ends.
pub(super) async fn requests(shared: &Shared, link: &mut Link, from: NodeId) -> Result<(), Error> {
    let mut under_way = FuturesUnordered::new();
    let max = shared.knobs.forward_len_max;
    let every = shared.knobs.peer_idle_timeout / 4;
    let mut said = shared.env.clock.now();
    loop {
        tokio::select! {
            biased; // Answers first: they free room for questions.
            Some(reply) = under_way.next() => {
                link.writer.push(Kind::ForwardReply, &fitting(shared, reply))?;
                while let Some(Some(more)) = futures::FutureExt::now_or_never(under_way.next()) {
                    link.writer.push(Kind::ForwardReply, &fitting(shared, more))?;
                }
                link.writer.flush(|| shared.idle()).await?;
                said = shared.env.clock.now();
            }
            frame = link.reader.next(), if under_way.len() < max => {
                let Some(frame) = frame? else { return Ok(()) };
                if under_way.is_empty() {
                    said = shared.env.clock.now();
                }
                let forward: Forward = frame.open(Kind::Forward, "a request")?;
                under_way.push(request(shared, from, forward).await?);
            }
            () = shared.env.clock.sleep_until(said.plus(every)), if !under_way.is_empty() => {
                // The asker is told that this node lives, however long the answer takes.
                link.say(shared, Kind::Ack, &()).await?;
                said = shared.env.clock.now();
            }
        }
    }
}

/// The reply, or an error in its place when it is larger than a frame may be.
fn fitting(shared: &Shared, reply: ForwardReply) -> ForwardReply {
    let size = prost::Message::encoded_len(&reply);
    if size + 2 <= shared.knobs.frame_bytes_max {
        return reply;
    }
    let message = format!("the answer has {size} bytes, too many to forward");
    ForwardReply::new(
        reply.id,
        Err(ClientError::new(Code::TooLarge, message).unknown()),
    )
}

/// Hands one request to the loop; the future is its answer.
async fn request(
    shared: &Shared,
    from: NodeId,
    forward: Forward,
) -> Result<impl Future<Output = ForwardReply> + use<>, Error> {
    let id = forward.id;
    let left = Duration::from_millis(forward.left_ms.min(LEFT_MS_MAX));
    let clock = shared.env.clock.clone();
    let deadline = clock.now().plus(left);
    let (reply, answer) = oneshot::channel::<Result<Answer, ClientError>>();
    match forward.open() {
        Ok(ask) => {
            let request = Inbound::Forward {
                from,
                ask,
                deadline,
                reply,
            };
            give(shared, request).await?;
        }
        Err(error) => reply
            .send(Err(error))
            .expect("the receiving end is in this function"),
    }
    Ok(async move { ForwardReply::new(id, wait(&clock, answer, deadline).await) })
}
