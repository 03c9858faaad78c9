//! `events`: what happened, listed or followed across lost connections.

use super::args::Output;
use super::args_fleet::Events;
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::service::typed;
use super::table;
use super::world::World;
use crate::api::story_wire::{EventInfo, EventsAnswer};
use crate::client::watch::Stream;
use crate::error::{self, Code};
use std::time::Duration;

/// Pause before following again after a lost connection.
const PAUSE: Duration = Duration::from_millis(300);
/// Silence after which a stream is taken for dead; nodes say something far more often.
const SILENCE: Duration = Duration::from_secs(30);

/// Lists, or follows until nobody reads any more.
pub async fn run(
    options: &Events,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let path = |base: &str| {
        Path::new(base)
            .maybe("service", options.service.as_deref())
            .maybe("node", options.node.as_deref())
            .maybe("task", options.task)
    };
    let listed = path("/v1/events")
        .maybe("after", options.after)
        .with("limit", options.limit);
    let json = remote.ask(&Ask::get(listed)).await?;
    let answer: EventsAnswer = typed(&json)?;
    if output == Output::Json && !options.follow {
        world.out(&format!("{json:#}\n"))?;
        return Ok(Exit::Ok);
    }
    for event in &answer.events {
        world.out(&line(event, output))?;
    }
    let last = answer.events.last().map(|event| event.index);
    if !options.follow {
        if let Some(last) = last.filter(|_| answer.more) {
            world.out(&format!("there is more: --after {last}\n"))?;
        }
        return Ok(Exit::Ok);
    }
    let mut following = Following {
        output,
        world,
        // What was not listed is older, or of no interest.
        after: last.or(options.after).unwrap_or(0).max(match answer.more {
            true => 0,
            false => answer.fresh.applied_index.0,
        }),
        told: None,
    };
    loop {
        let path = path("/v1/events/follow").with("after", following.after);
        match remote.follow(&String::from(path)).await {
            Ok(stream) => following.print(stream, remote).await?,
            Err(error) if error.retryable => {}
            Err(error) => return Err(error.into()),
        }
        remote.clock.sleep(PAUSE).await;
    }
}

/// One event on one line.
fn line(event: &EventInfo, output: Output) -> String {
    match output {
        Output::Json => {
            serde_json::to_string(event).map_or_else(|_| String::new(), |line| line + "\n")
        }
        Output::Table => {
            let time = table::time(event.time_ms);
            format!("{time}  {:<22}  {}\n", event.kind, event.message)
        }
    }
}

/// A stream under way.
struct Following<'a> {
    /// How to print.
    output: Output,
    /// Where to print.
    world: &'a World,
    /// The last entry that was told whole.
    after: u64,
    /// The last event that was told, of an entry that may not have come to its end.
    told: Option<(u64, u32)>,
}

impl Following<'_> {
    /// Prints what comes until the stream breaks.
    async fn print(&mut self, mut stream: Stream, remote: &Remote) -> Result<(), Error> {
        while let Ok(told) = remote.clock.timeout(SILENCE, stream.event()).await {
            let event = match told {
                Ok(event) => event,
                Err(error) if error.code == Code::TooLarge => {
                    let message = "the server sent an event of unreasonable size";
                    return Err(Error::local(message, ""));
                }
                Err(_) => return Ok(()),
            };
            match event.kind.as_str() {
                "progress" | "" => {}
                "gap" => self.world.err("some events are forgotten already\n"),
                "error" => return ended(&event.data),
                _ => self.tell(&event.data)?,
            }
            if let Some(id) = event.id {
                self.after = self.after.max(id);
            }
        }
        Ok(())
    }

    fn tell(&mut self, data: &str) -> Result<(), Error> {
        let Ok(event) = serde_json::from_str::<EventInfo>(data) else {
            return Ok(()); // An event of a later version.
        };
        let key = (event.index, event.number);
        // An entry that broke off in the middle comes again.
        if self.told.is_some_and(|told| key <= told) {
            return Ok(());
        }
        self.told = Some(key);
        self.world.out(&line(&event, self.output))
    }
}

/// The server's word that it ends the stream.
fn ended(data: &str) -> Result<(), Error> {
    match serde_json::from_str::<error::Error>(data) {
        Ok(error) if !error.retryable => Err(error.into()),
        _ => Ok(()),
    }
}
