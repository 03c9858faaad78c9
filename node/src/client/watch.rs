//! A watch as a stream of events, which survives the node it began on.
//!
//! When the connection breaks, the watch goes on at another endpoint after the last whole revision it has given out; events of a
//! revision that broke off in the middle are not given twice.

use super::connection::Connection;
use super::{Ask, Client, Raw, retry};
use crate::api::wire::{WatchChange, WatchProgress};
use crate::error::{Code, Error};
use crate::types::Revision;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;

/// Longest event that is read, bytes: the largest value in base64, and its key.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A key was written.
    Put(WatchChange),
    /// A key was removed.
    Delete(WatchChange),
    /// Everything up to and including this revision has been told.
    Progress(Revision),
}

/// An open watch. Dropping it ends it.
pub struct Watch {
    /// The client it belongs to.
    client: Client,
    /// Path and query without a start.
    target: String,
    /// First revision wanted, if it is known.
    from: Option<Revision>,
    /// The open stream, if there is one.
    stream: Option<Stream>,
    /// Events of the revision being read that were given out.
    given: usize,
    /// Events of that revision that this stream has brought; those up to `given` are not given out again.
    position: usize,
}

/// One answer's stream of events.
pub(crate) struct Stream {
    /// Keeps the connection open.
    _connection: Connection,
    /// The rest of the answer.
    body: Incoming,
    /// Text not yet read as events.
    buffer: Vec<u8>,
    /// Events read and not yet given out.
    ready: VecDeque<Event>,
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The revision that is complete with it.
    pub(crate) id: Option<u64>,
    /// Kind.
    pub(crate) kind: String,
    /// JSON.
    pub(crate) data: String,
}

impl Watch {
    /// Opens a watch. Its start is settled here: a watch from "now" must not move on when its first connection breaks.
    pub(super) async fn open(
        client: Client,
        target: String,
        from: Option<Revision>,
    ) -> Result<Watch, Error> {
        let mut watch = Watch {
            client,
            target,
            from,
            stream: None,
            given: 0,
            position: 0,
        };
        watch.connect().await?;
        if watch.from.is_none() {
            watch.settle().await?;
        }
        Ok(watch)
    }

    /// Learns from the first event, which the node sends at once, which revision "now" was.
    async fn settle(&mut self) -> Result<(), Error> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(());
        };
        let inner = &self.client.0;
        let first = inner.clock.timeout(inner.options.timeout, stream.event());
        let event = first
            .await
            .map_err(|late| Error::new(Code::Timeout, late.to_string()))??;
        if matches!(event.kind.as_str(), "put" | "delete") {
            let change: WatchChange = parse(&event.data)?;
            self.from = Some(change.record.mod_revision);
            stream.ready.push_front(event);
        } else {
            self.take(event)?;
        }
        Ok(())
    }

    /// The next thing told. Waits as long as it takes; breaks are mended, up to the retry policy's number of tries in a row.
    /// After an error the watch has ended: [`Code::Compacted`] means that what came next is not kept any more.
    pub async fn next(&mut self) -> Result<Told, Error> {
        let mut tries = retry::Tries::new(super::Again::Harmless, false);
        loop {
            if self.stream.is_none() {
                self.connect().await?;
            }
            let Some(stream) = self.stream.as_mut() else {
                continue;
            };
            let inner = &self.client.0;
            let waiting = inner
                .clock
                .timeout(inner.options.watch_silence, stream.event());
            let event = waiting.await.unwrap_or_else(|late| {
                let message = format!("the watch was silent for {:?}", late.after);
                Err(Error::new(Code::Unreachable, message))
            });
            match event.and_then(|event| self.take(event)) {
                Ok(Some(told)) => return Ok(told),
                Ok(None) => {}
                Err(error) => self.mend(&mut tries, error).await?,
            }
        }
    }

    /// Waits a little before the watch is opened again, or gives up.
    async fn mend(&mut self, tries: &mut retry::Tries, error: Error) -> Result<(), Error> {
        self.stream = None;
        self.position = 0;
        let inner = &self.client.0;
        let pause = tries.next(&inner.options.retry, &error, &mut self.client.state().rng);
        let Some(pause) = pause else {
            return Err(error);
        };
        inner.clock.sleep(pause).await;
        Ok(())
    }

    /// Opens the stream where the watch stands.
    async fn connect(&mut self) -> Result<(), Error> {
        let mut target = self.target.clone();
        if let Some(from) = self.from {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("from={from}"));
        }
        self.stream = Some(self.client.stream(&Ask::get(&target)).await?);
        Ok(())
    }

    /// What an event says, if it is for the caller.
    fn take(&mut self, event: Event) -> Result<Option<Told>, Error> {
        let told = match event.kind.as_str() {
            "put" => Told::Put(parse(&event.data)?),
            "delete" => Told::Delete(parse(&event.data)?),
            "progress" => {
                let progress: WatchProgress = parse(&event.data)?;
                Told::Progress(progress.revision)
            }
            "compacted" | "error" => return Err(parse(&event.data)?),
            _ => return Ok(None), // A kind of a later version.
        };
        self.position += 1;
        let known = self.position <= self.given;
        self.given = self.given.max(self.position);
        if let Some(id) = event.id {
            self.from = Some(Revision(id.saturating_add(1)));
            (self.given, self.position) = (0, 0);
        }
        Ok((!known).then_some(told))
    }
}

impl Client {
    /// Asks for a stream, at the endpoint a read would go to next, and at others when that fails.
    async fn stream(&self, ask: &Ask) -> Result<Stream, Error> {
        let mut tries = retry::Tries::new(super::Again::Harmless, false);
        loop {
            let endpoint = self.endpoint()?;
            let error = match self.stream_at(&endpoint, ask).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            self.learn(&endpoint, &error);
            let retry = &self.0.options.retry;
            let pause = tries.next(retry, &error, &mut self.state().rng);
            match pause {
                Some(pause) => self.0.clock.sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// Asks one endpoint for a stream.
    async fn stream_at(&self, endpoint: &str, ask: &Ask) -> Result<Stream, Error> {
        let answer = self.open_stream(endpoint, ask).await?;
        answer.map_err(|raw| super::refused(endpoint, &raw, false))
    }

    /// Asks one endpoint for a stream, on a connection of its own; gives the answer when it is none.
    pub(crate) async fn open_stream(
        &self,
        endpoint: &str,
        ask: &Ask,
    ) -> Result<Result<Stream, Raw>, Error> {
        let limit = self.0.options.timeout;
        let mut connection = self.connection(endpoint, limit).await?;
        let starting = connection.start(super::request(endpoint, ask, limit)?);
        let started = self.0.clock.timeout(limit, starting).await;
        let answer = match started {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => return Err(super::broken(endpoint, failure, false)),
            Err(late) => return Err(super::silence(endpoint, late.after, false)),
        };
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            let body = self.0.clock.timeout(limit, body.collect()).await;
            let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
            return Ok(Err(Raw {
                status: head.status,
                body: body.unwrap_or_default(),
            }));
        }
        Ok(Ok(Stream {
            _connection: connection,
            body,
            buffer: Vec::new(),
            ready: VecDeque::new(),
        }))
    }

    /// Asks `endpoint` alone, once, and takes any answer.
    pub(super) async fn ask_one(&self, endpoint: &str, path: &str) -> Result<Bytes, Error> {
        let endpoint = super::bare_address(endpoint);
        let limit = self.0.options.timeout;
        let raw = self.ask_at(&endpoint, &Ask::get(path), limit).await?;
        Ok(raw.body)
    }
}

impl Stream {
    /// The next event.
    pub(crate) async fn event(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let frame = self.body.frame().await;
            let reason = match frame {
                Some(Ok(frame)) => {
                    self.read(frame.into_data().unwrap_or_default())?;
                    continue;
                }
                Some(Err(error)) => error.to_string(),
                None => "the node ended it".to_owned(),
            };
            let message = format!("the watch broke: {reason}");
            return Err(Error::new(Code::Unreachable, message));
        }
    }

    /// Reads text into events.
    fn read(&mut self, text: Bytes) -> Result<(), Error> {
        self.buffer.extend_from_slice(&text);
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            self.ready
                .push_back(event(&String::from_utf8_lossy(&block)));
        }
        if self.buffer.len() > EVENT_BYTES_MAX {
            return Err(Error::new(
                Code::TooLarge,
                "an event of the watch has no end",
            ));
        }
        Ok(())
    }
}

/// One event of its lines.
fn event(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => event.id = id.parse().ok(),
            Some(("event", kind)) => event.kind = kind.to_owned(),
            Some(("data", data)) => event.data.push_str(data),
            _ => {} // Comments and fields of later versions.
        }
    }
    event
}

/// The JSON of an event.
fn parse<T: serde::de::DeserializeOwned>(data: &str) -> Result<T, Error> {
    serde_json::from_str(data).map_err(|error| {
        let message = format!("an event of the watch makes no sense: {error}");
        Error::new(Code::Internal, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_by_empty_lines() {
        let found = event("id: 7\nevent: put\ndata: {\"key\":\"a: b\"}\n\n");
        assert_eq!((found.id, &*found.kind), (Some(7), "put"));
        assert_eq!(found.data, "{\"key\":\"a: b\"}");
        assert_eq!(event(": hello\n\n"), Event::default());
    }
}
