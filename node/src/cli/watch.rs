//! `kv watch`: prints changes as they come, across lost connections, without a gap and without a repeat.

use super::args::{Output, Watch};
use super::exit::{Error, Exit};
use super::remote::{Path, Remote};
use super::table;
use super::world::World;
use crate::client::watch::{Event, Stream};
use crate::error::{self, Code};
use crate::rt::Clock;
use serde_json::Value;
use std::time::Duration;

/// Pause before following again after a lost connection.
const PAUSE: Duration = Duration::from_millis(300);
/// Silence after which a watch is taken for dead; nodes say something far more often.
const SILENCE: Duration = Duration::from_secs(30);
/// A watch under way.
struct Watching<'a> {
    /// What was asked for.
    options: &'a Watch,
    /// How to print.
    output: Output,
    /// Where to print.
    world: &'a World,
    /// First revision not yet seen; unset before anything was.
    next: Option<u64>,
    /// Events of the revision before `next` that were printed. A revision can hold several, and a connection can die between.
    printed_of_last: u64,
    /// Events of that revision that came again and are to be passed over.
    skip: u64,
    /// Events printed.
    printed: u64,
}

/// Follows until the count is reached, the watch is refused, or nobody reads any more.
pub async fn run(
    options: &Watch,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let mut watching = Watching {
        options,
        output,
        world,
        next: options.from,
        printed_of_last: 0,
        skip: 0,
        printed: 0,
    };
    let mut seen = false;
    loop {
        match remote.follow(&watching.path()).await {
            Ok(stream) => {
                seen = true;
                if watching.print(stream, &remote.clock).await? {
                    return Ok(Exit::Ok);
                }
            }
            // Whoever has watched already waits for the cluster to come back; a first try says what is wrong.
            Err(error) if error.retryable && seen => {}
            Err(error) => return Err(error.into()),
        }
        remote.clock.sleep(PAUSE).await;
    }
}

impl Watching<'_> {
    fn path(&mut self) -> String {
        // The last revision is asked for again, because its events may not have come to an end.
        let from = match (self.next, self.printed_of_last) {
            (Some(next), printed) if printed > 0 => Some(next - 1),
            (next, _) => next,
        };
        self.skip = self.printed_of_last;
        let key = self.options.key.as_deref();
        let name = match (key, self.options.prefix) {
            (Some(_), false) => "key",
            _ => "prefix",
        };
        Path::new("/v1/watch")
            .with(name, key.unwrap_or(""))
            .maybe("from", from)
            .into()
    }

    /// Prints what comes; true when enough was printed, false when the watch broke and may go on elsewhere.
    async fn print(&mut self, mut stream: Stream, clock: &Clock) -> Result<bool, Error> {
        while let Ok(told) = clock.timeout(SILENCE, stream.event()).await {
            let event = match told {
                Ok(event) => event,
                Err(error) if error.code == Code::TooLarge => {
                    let message = "the server sent an event of unreasonable size";
                    return Err(Error::local(message, ""));
                }
                Err(_) => return Ok(false),
            };
            if !self.event(&event)? {
                return Ok(false);
            }
            let wanted = self.options.count;
            if wanted.is_some_and(|count| self.printed >= count) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes one event; false when it says that the watch may go on elsewhere.
    fn event(&mut self, event: &Event) -> Result<bool, Error> {
        match event.kind.as_str() {
            "put" | "delete" => self.change(event)?,
            // Comments keep the line alive.
            "progress" | "" => {}
            kind => {
                let error = refused(kind, &event.data);
                return if error.retryable {
                    Ok(false)
                } else {
                    Err(error.into())
                };
            }
        }
        // An id says that its revision has been told to the end.
        if let Some(id) = event.id {
            self.seen_through(id);
        }
        Ok(true)
    }

    fn change(&mut self, event: &Event) -> Result<(), Error> {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let told = data.get("mod_revision").and_then(Value::as_u64);
        if let Some(revision) = told.or(event.id) {
            let again = self.printed_of_last > 0 && self.next == Some(revision + 1);
            if again && self.skip > 0 {
                self.skip -= 1;
                return Ok(());
            }
            if !again {
                self.next = Some(revision + 1);
                self.printed_of_last = 0;
                self.skip = 0;
            }
            self.printed_of_last += 1;
        }
        self.printed += 1;
        self.world.out(&self.line(event, told.or(event.id), data))
    }

    fn seen_through(&mut self, revision: u64) {
        if self.next.is_none_or(|next| next <= revision + 1) {
            self.next = Some(revision + 1);
            self.printed_of_last = 0;
        }
    }

    fn line(&self, event: &Event, revision: Option<u64>, mut data: Value) -> String {
        if self.output == Output::Json {
            if let Value::Object(fields) = &mut data {
                fields.insert("event".to_owned(), event.kind.clone().into());
                fields.entry("revision").or_insert(revision.into());
            }
            return format!("{data}\n");
        }
        let revision = revision.map_or("-".to_owned(), |number| number.to_string());
        let key = table::cell(table::bytes(&data, "key"));
        match event.kind.as_str() {
            "delete" => format!("{revision}  delete  {key}\n"),
            _ => {
                let value = table::cell(table::bytes(&data, "value"));
                format!("{revision}  put     {key}  {value}\n")
            }
        }
    }
}

/// The server's word that it ends the watch.
fn refused(kind: &str, data: &str) -> error::Error {
    let value: Value = serde_json::from_str(data).unwrap_or_default();
    let ours = value.get("error").unwrap_or(&value).clone();
    if let Ok(error) = serde_json::from_value::<error::Error>(ours) {
        return error;
    }
    let (code, message) = match kind {
        "compacted" => (Code::Compacted, "the revision asked for was compacted away"),
        _ => (Code::Internal, "the server ended the watch"),
    };
    error::Error::new(code, message)
        .hint("read the keys again, then watch from the revision of that answer")
}
