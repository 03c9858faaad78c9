//! One exact timer on madsim's queue.
//!
//! madsim's `sleep` lasts 1 ms at least, but a `Sleep` that is reset keeps its deadline to the nanosecond; links of 50 us
//! and disks of 100 us need that. madsim adds a timer for each poll and cannot take one back: a time-out that was not
//! needed would wake its task long afterwards, and keep it in memory until then. So an alarm arms one timer, for a slot
//! that holds the waker; a dropped alarm leaves an empty slot. Time here is the simulation's own: the span since
//! the runtime started.

use madsim::time::TimeHandle;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
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

/// Whom a timer wakes; nobody once its alarm is gone.
#[derive(Default)]
struct Slot {
    /// The task that waits.
    waker: Mutex<Option<Waker>>,
}

impl Slot {
    /// Replaces the waker by `waker`.
    fn set(&self, waker: Option<Waker>) {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *place, waker);
        drop(place);
        drop(old);
    }

    /// True when `waker`'s task is the one that waits.
    fn holds(&self, waker: &Waker) -> bool {
        let place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().is_some_and(|held| held.will_wake(waker))
    }
}

impl Wake for Slot {
    /// Called by madsim under its timer lock: waking a task only queues it.
    fn wake(self: Arc<Self>) {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = place.take();
        drop(place);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A future that ends at an instant of the simulation's time.
pub(crate) struct Alarm {
    /// The simulation's time.
    time: TimeHandle,
    /// When it ends, since the runtime started.
    at: Duration,
    /// Whom the timer for `at` wakes, once there is one.
    slot: Option<Arc<Slot>>,
}

impl Alarm {
    /// An alarm for `at`, not armed before it is polled.
    pub(crate) fn new(time: TimeHandle, at: Duration) -> Self {
        Alarm {
            time,
            at,
            slot: None,
        }
    }

    /// Moves the alarm; the timer armed before fires for nobody.
    pub(crate) fn move_to(&mut self, at: Duration) {
        if at != self.at {
            self.at = at;
            self.disarm();
        }
    }

    /// True when its timer is armed and wakes the task of `waker`.
    pub(crate) fn waits_for(&self, waker: &Waker) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.holds(waker))
    }

    /// Leaves the timer to nobody.
    fn disarm(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.set(None);
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.elapsed() >= self.at {
            return Poll::Ready(());
        }
        match &self.slot {
            Some(slot) if slot.holds(context.waker()) => {}
            Some(slot) => slot.set(Some(context.waker().clone())),
            None => {
                let slot = Arc::new(Slot::default());
                slot.set(Some(context.waker().clone()));
                arm(&self.time, self.at, &Waker::from(Arc::clone(&slot)));
                self.slot = Some(slot);
            }
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.disarm();
    }
}
