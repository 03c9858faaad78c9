//! What hyper asks of a runtime, answered by the seam: an executor over [`Tasks`] and a timer over [`Clock`].

#![expect(
    clippy::disallowed_types,
    reason = "hyper's trait speaks std's Instant; only differences are used"
)]

use super::{Clock, Tasks};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// hyper's executor over a node's task group.
#[derive(Clone)]
pub struct Executor(pub Tasks);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(async move {
            drop(work.await);
        });
    }
}

/// hyper's timer over a node's clock.
#[derive(Clone)]
pub struct Timer(pub Clock);

/// A sleep that hyper may re-arm by replacing it.
struct Sleeping(super::clock::Sleep);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl hyper::rt::Sleep for Sleeping {}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, span: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleeping(self.0.sleep(span)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        let span = deadline.saturating_duration_since(hyper::rt::Timer::now(self));
        Box::pin(Sleeping(self.0.sleep(span)))
    }
}
