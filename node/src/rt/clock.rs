//! Time. A node's monotonic clock starts at an arbitrary origin and may drift; its wall clock may also jump.
//!
//! Time-outs, leases and ages use [`Clock::now`] alone. [`Clock::wall_ms`] is for people and for the stamp that a leader
//! puts on an entry; nothing safe may depend on it (inventory X-14).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// A reading of the monotonic clock: time since the clock's own origin. Comparable on one node only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub Duration);

impl Mono {
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The reading `span` after this one.
    pub fn plus(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(span))
    }
}

/// A future that ends when its time has come. `Sync`, because hyper's timers must be.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// What a clock must do; the simulated one skews, drifts, jumps and freezes.
pub trait ClockDriver: Send + Sync {
    /// The monotonic clock.
    fn now(&self) -> Mono;
    /// Milliseconds since the Unix epoch on this node's wall clock.
    fn wall_ms(&self) -> u64;
    /// Ends when [`ClockDriver::now`] has reached `deadline`.
    fn sleep_until(&self, deadline: Mono) -> Sleep;
}

/// A node's clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn ClockDriver>);

/// The time allowed for something has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {after:?}")]
pub struct Elapsed {
    /// How long was waited.
    pub after: Duration,
}

/// A moment that somebody waits for beside other things, again and again: one timer for all the looks at it, where a fresh
/// sleep for each look would arm and drop one every time something else happens.
pub struct Deadline {
    /// The clock it is read on.
    clock: Clock,
    /// The moment and its timer, while there is one.
    set: Option<(Mono, Sleep)>,
}

impl Deadline {
    /// No moment yet, on `clock`.
    pub fn new(clock: &Clock) -> Self {
        Deadline {
            clock: clock.clone(),
            set: None,
        }
    }

    /// `span` from now, unless a moment is set already.
    pub fn set_once(&mut self, span: Duration) {
        if self.set.is_none() {
            let at = self.clock.now().plus(span);
            self.set = Some((at, self.clock.sleep_until(at)));
        }
    }

    /// Takes the moment back.
    pub fn clear(&mut self) {
        self.set = None;
    }

    /// True while a moment is set, come or not.
    pub fn is_set(&self) -> bool {
        self.set.is_some()
    }

    /// True when the moment has come, for those too busy to wait for it.
    pub fn is_due(&self) -> bool {
        self.set
            .as_ref()
            .is_some_and(|(at, _)| self.clock.now() >= *at)
    }

    /// Ends when the moment has come, and takes it back then; never while none is set. May be dropped and called again.
    pub async fn passed(&mut self) {
        match &mut self.set {
            Some((_, sleep)) => sleep.await,
            None => std::future::pending().await,
        }
        self.set = None;
    }
}

impl Clock {
    /// A clock over `driver`.
    pub fn new(driver: impl ClockDriver + 'static) -> Self {
        Clock(Arc::new(driver))
    }

    /// The monotonic clock.
    pub fn now(&self) -> Mono {
        self.0.now()
    }

    /// Milliseconds since the Unix epoch, for people and entry stamps.
    pub fn wall_ms(&self) -> u64 {
        self.0.wall_ms()
    }

    /// Ends after `span` on this clock.
    pub fn sleep(&self, span: Duration) -> Sleep {
        self.sleep_until(self.now().plus(span))
    }

    /// Ends when the clock reads `deadline` or later.
    pub fn sleep_until(&self, deadline: Mono) -> Sleep {
        self.0.sleep_until(deadline)
    }

    /// The output of `work`, or [`Elapsed`] when it takes longer than `span`. `work` is dropped then: what it had
    /// begun in the world may still happen.
    pub async fn timeout<F: Future>(&self, span: Duration, work: F) -> Result<F::Output, Elapsed> {
        let deadline = self.now().plus(span);
        let mut work = pin!(work);
        // Much work is done at the first look (a body that came with its head, say): it shall not pay for a timer.
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            return Ok(output);
        }
        tokio::select! {
            biased; // Work that is done in the same instant as the time-out counts as done.
            output = work => Ok(output),
            () = self.sleep_until(deadline) => Err(Elapsed { after: span }),
        }
    }
}
