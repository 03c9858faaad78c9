//! Many requests by a few clients, each with one connection and one request under way.

use super::line::{Dialer, Failure, Line};
use crate::bench::report::Tally;
use crate::cli::Error;
use crate::error::Code;
use futures::future::join_all;
use http::Method;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How often a request is sent before the bench gives up.
const TRIES: u32 = 8;
/// Pause before a request is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// A request.
pub(super) struct Wish {
    /// Method.
    pub(super) method: Method,
    /// Path.
    pub(super) target: String,
    /// Body.
    pub(super) body: Vec<u8>,
}

/// Clients of a cluster.
pub(super) struct Clients {
    /// What connections are made of.
    pub(super) dialer: Dialer,
    /// Addresses of managers; clients spread over them.
    pub(super) managers: Vec<String>,
    /// How many.
    pub(super) count: u32,
}

impl Clients {
    /// Sends the requests `wish` makes of 0 to `requests` - 1. Each counts from its first try to the answer that it was done.
    pub(super) async fn send(
        &self,
        requests: u64,
        wish: impl Fn(u64) -> Wish,
    ) -> Result<Tally, Error> {
        let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::new()));
        let clients = (0..self.count).map(|client| {
            let (next, tally, wish) = (&next, &tally, &wish);
            async move {
                let at = usize::try_from(client).unwrap_or(0) % self.managers.len();
                let mut line = Line::new(self.dialer.clone(), self.managers[at].clone());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return Ok(());
                    }
                    self.insist(&mut line, wish(number), tally).await?;
                }
            }
        });
        let ended: Result<Vec<()>, Error> = join_all(clients).await.into_iter().collect();
        ended?;
        Ok(tally.into_inner().expect("no client panics while counting"))
    }

    /// Sends one request until it is done.
    async fn insist(&self, line: &mut Line, wish: Wish, tally: &Mutex<Tally>) -> Result<(), Error> {
        let clock = &self.dialer.clock;
        let began = clock.now();
        for attempt in 1..=TRIES {
            let body = wish.body.clone();
            let (method, target) = (wish.method.clone(), &wish.target);
            let answer: Result<Value, Failure> =
                line.ask(method, target, body, Duration::ZERO).await;
            let failure = match answer {
                Ok(_) => None,
                Err(failure) if attempt > 1 && was_done(&wish.method, &failure) => None,
                Err(failure) => Some(failure),
            };
            let Some(failure) = failure else {
                lock(tally).done(clock.now().since(began), true);
                return Ok(());
            };
            lock(tally).failed(&failure.kind());
            if attempt == TRIES || !failure.may_pass() {
                return Err(given_up(&wish, failure));
            }
            clock.sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Whether a refusal of a request that was sent before means that it had been done then.
fn was_done(method: &Method, failure: &Failure) -> bool {
    match *method {
        Method::POST => failure.is(Code::Conflict),
        Method::DELETE => failure.is(Code::NotFound),
        _ => false,
    }
}

fn given_up(wish: &Wish, failure: Failure) -> Error {
    match failure {
        Failure::Refused(error) => Error::Remote(error),
        Failure::Silent(why) => {
            let Wish { method, target, .. } = wish;
            let hint = "is the cluster well? `seaworthy cluster health`";
            Error::local(format!("{method} {target} was not answered: {why}"), hint)
        }
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().expect("no client panics while counting")
}
