//! The task that runs simulated threads while the executor's clock goes on.
//!
//! It sleeps until the next worker is due, or until one becomes runnable; without workers it costs
//! nothing.

use crate::sched;
use crate::world::with;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Runs workers for ever. Spawn it once, on the supervisor node (not on a node that is killed).
pub async fn pump() {
    loop {
        match sched::run_due() {
            Some(due_ns) => sleep_until(due_ns).await,
            None => poll_fn(poll_wanted).await,
        }
    }
}

/// Waits for the time, or for a worker that has become runnable.
async fn sleep_until(due_ns: u64) {
    let now = with(|w| w.clock()).unwrap_or(due_ns);
    let mut sleep = pin!(madsim::time::sleep(Duration::from_nanos(
        due_ns.saturating_sub(now)
    )));
    poll_fn(|cx| match poll_wanted(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => sleep.as_mut().poll(cx),
    })
    .await;
}

/// Ready if a worker has become runnable; otherwise leaves a waker.
fn poll_wanted(cx: &mut Context<'_>) -> Poll<()> {
    let waker = cx.waker().clone();
    let (wanted, old) =
        with(|w| (w.sched.pump_wanted, w.sched.pump.replace(waker))).unwrap_or((false, None));
    drop(old);
    if wanted {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}
