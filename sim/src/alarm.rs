//! One exact timer on madsim's queue.
//!
//! madsim's `sleep` lasts 1 ms at least, but a `Sleep` that is reset keeps its deadline to the nanosecond; links of 50 us
//! and disks of 100 us need that. madsim cannot cancel a timer and adds one for each poll, so an alarm
//! remembers for whom it is armed. Time here is the simulation's own: the span since the runtime started.

use madsim::time::TimeHandle;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Farther deadlines are cut to this distance, so that no sum overflows; nobody waits so long in a simulation.
const DISTANCE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Wakes `waker` when the simulation's time has reached `at`; at once when it has.
pub(crate) fn arm(time: &TimeHandle, at: Duration, waker: &Waker) {
    let distance = at.saturating_sub(time.elapsed()).min(DISTANCE_MAX);
    let mut sleep = time.sleep(Duration::ZERO);
    Pin::new(&mut sleep).reset(time.now_instant() + distance);
    let mut context = Context::from_waker(waker);
    if Pin::new(&mut sleep).poll(&mut context).is_ready() {
        waker.wake_by_ref();
    }
}

/// A future that ends at an instant of the simulation's time.
pub(crate) struct Alarm {
    /// The simulation's time.
    time: TimeHandle,
    /// When it ends, since the runtime started.
    at: Duration,
    /// Who is woken by the timer that is armed.
    armed: Option<Waker>,
}

impl Alarm {
    /// An alarm for `at`, not armed before it is polled.
    pub(crate) fn new(time: TimeHandle, at: Duration) -> Self {
        Alarm {
            time,
            at,
            armed: None,
        }
    }

    /// Moves the alarm; the timer armed before fires for nothing.
    pub(crate) fn move_to(&mut self, at: Duration) {
        if at != self.at {
            self.at = at;
            self.armed = None;
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.elapsed() >= self.at {
            return Poll::Ready(());
        }
        let armed = self.armed.as_ref();
        if !armed.is_some_and(|waker| waker.will_wake(context.waker())) {
            arm(&self.time, self.at, context.waker());
            self.armed = Some(context.waker().clone());
        }
        Poll::Pending
    }
}
