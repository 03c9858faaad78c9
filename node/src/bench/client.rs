//! One client: a connection, a request under way on it, and the next one when the plan says so.

use super::plan::{Due, Pace, Plan, Request};
use super::report::Tally;
use super::wire::{Connection, Requests};
use crate::rt::{Clock, Env, Mono, Net};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Pause after an error, so that a cluster in trouble is not flooded by the generator's own haste.
const PAUSE: Duration = Duration::from_millis(20);
/// The grain of timers. A sleeper that wakes this much late was not kept waiting by the cluster.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What all clients share.
pub(super) struct Shared {
    /// What to do.
    pub(super) plan: Plan,
    /// The numbers so far.
    pub(super) tally: Mutex<Tally>,
    /// Requests handed out.
    pub(super) arrivals: AtomicU64,
}

impl Shared {
    /// The numbers, when all clients have ended: what was due but never begun has waited too.
    pub(super) fn finish(&self, now: Mono) -> Tally {
        let mut tally = std::mem::take(&mut *self.lock());
        let window = self.plan.window;
        let mut number = self.arrivals.load(Ordering::Relaxed);
        while let Due::At(due) = self.plan.due(number) {
            if due >= window.end {
                break;
            }
            if due >= window.measure_from {
                tally.unserved(now.since(due));
            }
            number += 1;
        }
        tally
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().expect("no client panics while counting")
    }
}

/// One client.
pub(super) struct Client {
    /// Addresses, the one to use first in front.
    targets: Vec<String>,
    /// Which of them is in use.
    target: usize,
    /// Time.
    clock: Clock,
    /// Network.
    net: Net,
    /// Keys and values.
    rng: ChaCha8Rng,
    /// The open connection, with requests made for its host.
    open: Option<(Connection, Requests)>,
    /// What all clients share.
    shared: Arc<Shared>,
}

impl Client {
    /// The `number`th client; clients spread over the targets.
    pub(super) fn new(number: u64, targets: &[String], env: &Env, shared: Arc<Shared>) -> Self {
        let count = targets.len().max(1) as u64;
        Client {
            targets: targets.to_vec(),
            target: usize::try_from(number % count).unwrap_or(0),
            clock: env.clock.clone(),
            net: env.net.clone(),
            rng: env.rngs.stream(&format!("bench-{number}")),
            open: None,
            shared,
        }
    }

    /// Sends until the plan ends.
    pub(super) async fn run(mut self) {
        loop {
            let number = self.shared.arrivals.load(Ordering::Relaxed);
            if self.is_over(number) {
                return;
            }
            let number = self.shared.arrivals.fetch_add(1, Ordering::Relaxed);
            let Some(begin) = self.turn(number).await else {
                return;
            };
            let request = self.shared.plan.request(number, &mut self.rng);
            let mut result = self.send(request).await;
            for _ in 1..self.shared.plan.tries() {
                if result.is_err() {
                    self.clock.sleep(PAUSE).await;
                    result = self.send(request).await;
                }
            }
            self.count(begin, &result);
            if result.is_err() {
                self.clock.sleep(PAUSE).await;
            }
        }
    }

    /// True when there is nothing left to begin, or no use in it: what could not be filled cannot be read.
    fn is_over(&self, number: u64) -> bool {
        let plan = &self.shared.plan;
        self.clock.now() >= plan.window.end
            || plan.due(number) == Due::Never
            || (plan.pace == Pace::Fill && self.shared.lock().errors > 0)
    }

    /// Waits for the `number`th request's turn; gives the time its latency counts from.
    async fn turn(&mut self, number: u64) -> Option<Mono> {
        let now = self.clock.now();
        match self.shared.plan.due(number) {
            Due::Never => None,
            Due::WhenFree => Some(now),
            Due::At(due) if due >= self.shared.plan.window.end => None,
            Due::At(due) if due <= now => Some(due),
            Due::At(due) => {
                self.clock.sleep_until(due).await;
                let woke = self.clock.now();
                // Only a client that was free in time can wake late by the timer's grain alone.
                let by_timer = woke.since(due) <= TIMER_GRAIN;
                Some(if by_timer { woke } else { due })
            }
        }
    }

    /// Sends one request, connecting first when need be. The error is the kind to count.
    async fn send(&mut self, request: Request) -> Result<(), String> {
        let timeout = self.shared.plan.timeout;
        let clock = self.clock.clone();
        let result = clock.timeout(timeout, self.exchange(request)).await;
        let result = match result {
            Ok(result) => result.map_err(|error| format!("connection: {}", error.kind())),
            Err(_) => Err("timeout".to_owned()),
        };
        let reads = matches!(request, Request::Get(_));
        match result {
            Ok(200..300) => Ok(()),
            // A stale read may miss a fresh key; it was answered all the same.
            Ok(404) if reads => Ok(()),
            Ok(status) => Err(format!("status {status}")),
            Err(kind) => {
                self.open = None;
                self.target = (self.target + 1) % self.targets.len().max(1);
                Err(kind)
            }
        }
    }

    async fn exchange(&mut self, request: Request) -> std::io::Result<u16> {
        if self.open.as_ref().is_none_or(|(open, _)| open.closed) {
            let target = &self.targets[self.target];
            let stream = self.net.connect(target).await?;
            let requests = Requests::new(target, &self.shared.plan, &mut self.rng);
            self.open = Some((Connection::new(stream), requests));
        }
        let (connection, requests) = self.open.as_mut().expect("opened just above");
        let bytes = requests.bytes(request, &mut self.rng);
        connection.exchange(bytes).await
    }

    fn count(&self, begin: Mono, result: &Result<(), String>) {
        let window = self.shared.plan.window;
        if begin < window.measure_from {
            return;
        }
        let now = self.clock.now();
        let mut tally = self.shared.lock();
        match result {
            Ok(()) => tally.done(now.since(begin), now <= window.end),
            Err(kind) => tally.failed(kind),
        }
    }
}
