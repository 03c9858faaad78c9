//! Clocks: one per host, with offset, drift, jumps and freezes.
//!
//! A host's monotonic clock runs at `1 + ppm / 10^6` times the simulation's time; it never goes back and only
//! [`Clocks::jump_mono`] makes it leap (a virtual machine that was suspended). The wall clock runs at the same rate from its
//! own offset, and may be jumped both ways and frozen. Sleeps follow the monotonic clock: when its rate changes,
//! every pending sleep of the host is re-armed, so it ends at the right local time to the nanosecond.
//!
//! Each process sees the monotonic clock from zero at its own start: a reading kept on disk or sent to a peer means nothing.
//!
//! A sleep into the future takes 1 ms of the simulation's time at least, which is tokio's own grain. A deadline that has
//! passed is ready at once, as in tokio: a loop over it never lets time move. Left out: leap seconds, per-CPU skew.

use crate::alarm::Alarm;
use madsim::time::TimeHandle;
use node::rt::Mono;
use node::rt::clock::{ClockDriver, Sleep};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What every wall clock reads when the simulation starts, before its offset: 2026-01-01T00:00:00Z.
pub const EPOCH_MS: u64 = 1_767_225_600_000;
/// The shortest sleep, as in tokio.
const GRAIN: Duration = Duration::from_millis(1);
/// Parts in a million.
const MILLION: i128 = 1_000_000;
/// Drift beyond this is no clock any more: 10 %.
const DRIFT_PPM_MAX: i64 = 100_000;
/// Nanoseconds in a millisecond.
const NS_PER_MS: i128 = 1_000_000;

/// The clocks of all hosts.
#[derive(Clone)]
pub struct Clocks {
    /// The simulation's time.
    time: TimeHandle,
    /// State of each host's clock, by host name.
    hosts: Arc<Mutex<BTreeMap<String, SimClock>>>,
}

impl Clocks {
    /// Clocks of the running simulation. Call inside the runtime.
    pub fn new() -> Self {
        Clocks {
            time: TimeHandle::current(),
            hosts: Arc::default(),
        }
    }

    /// The clock of `host`; a perfect one when it is new. It outlives the host's processes.
    pub fn of(&self, host: &str) -> SimClock {
        let mut hosts = self.hosts.lock().expect("no panic under this lock");
        let clock = hosts.entry(host.to_owned());
        clock
            .or_insert_with(|| SimClock::new(self.time.clone()))
            .clone()
    }

    /// The clock of `host` for a process that starts now.
    pub fn start(&self, host: &str) -> SimClock {
        self.of(host).started()
    }

    /// The simulation's own time: the span since the runtime started.
    pub fn global(&self) -> Duration {
        self.time.elapsed()
    }

    /// Sets the rate of `host`'s clocks to `1 + ppm / 10^6`.
    pub fn set_drift(&self, host: &str, ppm: i64) {
        self.of(host).set_drift(ppm);
    }

    /// Moves `host`'s wall clock by `by_ms`; nothing else.
    pub fn jump_wall(&self, host: &str, by_ms: i64) {
        self.of(host).jump_wall(by_ms);
    }

    /// Stops `host`'s wall clock for `span`; it then goes on from where it stood, late by `span`.
    pub fn freeze_wall(&self, host: &str, span: Duration) {
        self.of(host).freeze_wall(span);
    }

    /// Moves both of `host`'s clocks forward, as after a suspended virtual machine.
    pub fn jump_mono(&self, host: &str, by: Duration) {
        self.of(host).jump_mono(by);
    }
}

impl Default for Clocks {
    fn default() -> Self {
        Clocks::new()
    }
}

/// The clock of one host. A clone is the same clock.
#[derive(Clone)]
pub struct SimClock {
    /// The simulation's time.
    time: TimeHandle,
    /// How this host's clock differs from it.
    state: Arc<Mutex<State>>,
    /// How often its rate or reading was changed: a pending sleep that has seen no change need not count again.
    changes: Arc<AtomicU64>,
    /// The host's monotonic reading that this process calls zero, in nanoseconds.
    origin_ns: i128,
}

/// A rate since an anchor, an offset, and who sleeps.
#[derive(Default)]
struct State {
    /// The simulation's time when the rate was last changed, in nanoseconds.
    anchor_global_ns: i128,
    /// The monotonic reading at that moment, in nanoseconds.
    anchor_mono_ns: i128,
    /// Rate: parts in a million faster than the simulation's time.
    ppm: i64,
    /// Wall clock less epoch and monotonic clock, in nanoseconds.
    wall_offset_ns: i128,
    /// The reading at which the wall clock stands, and the simulation's time when it goes on, in nanoseconds.
    frozen: Option<(i128, i128)>,
    /// Pending sleeps, to be told of a changed rate, each at its own place.
    sleepers: Vec<Option<Waker>>,
    /// Places among them that are free.
    free: Vec<usize>,
}

impl State {
    /// The monotonic reading at `global_ns`.
    fn mono_ns(&self, global_ns: i128) -> i128 {
        let passed = global_ns - self.anchor_global_ns;
        // A wide division costs more than all the rest; most clocks are right.
        if self.ppm == 0 {
            return self.anchor_mono_ns + passed;
        }
        self.anchor_mono_ns + scaled(passed, MILLION + i128::from(self.ppm), MILLION)
    }

    /// The first moment of the simulation's time at which the monotonic clock reads `mono_ns` or more.
    fn global_ns(&self, mono_ns: i128) -> i128 {
        if self.ppm == 0 {
            return self.anchor_global_ns + mono_ns - self.anchor_mono_ns;
        }
        let rate = MILLION + i128::from(self.ppm);
        let wanted = (mono_ns - self.anchor_mono_ns) * MILLION;
        // Rounded up: a moment earlier the clock would still read less.
        let rounded = wanted + rate - 1;
        self.anchor_global_ns
            + match (i64::try_from(rounded), i64::try_from(rate)) {
                (Ok(rounded), Ok(rate)) => i128::from(rounded.div_euclid(rate)),
                _ => rounded.div_euclid(rate),
            }
    }

    /// The wall clock's reading since its epoch.
    fn wall_ns(&mut self, global_ns: i128) -> i128 {
        if let Some((reading, until)) = self.frozen {
            if global_ns < until {
                return reading;
            }
            self.frozen = None;
            self.wall_offset_ns = reading - self.mono_ns(until);
        }
        self.mono_ns(global_ns) + self.wall_offset_ns
    }

    /// Puts `waker` at `place`, or at a free place when it has none yet; gives the place.
    fn seat(&mut self, place: Option<usize>, waker: &Waker) -> usize {
        let place = place.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.sleepers.push(None);
            self.sleepers.len() - 1
        });
        let seat = &mut self.sleepers[place];
        if !seat.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *seat = Some(waker.clone());
        }
        place
    }

    /// Gives a place back, with who waited there.
    fn leave(&mut self, place: usize) -> Option<Waker> {
        self.free.push(place);
        self.sleepers[place].take()
    }

    /// Everybody who sleeps, to be woken.
    fn all_sleepers(&self) -> Vec<Waker> {
        self.sleepers.iter().flatten().cloned().collect()
    }

    /// Makes `global_ns` the new anchor.
    fn anchor(&mut self, global_ns: i128) {
        // A freeze that has ended is settled at the old rate.
        self.wall_ns(global_ns);
        self.anchor_mono_ns = self.mono_ns(global_ns);
        self.anchor_global_ns = global_ns;
    }
}

/// `value * times / by`, in 64 bits where they are enough: the wide division is a function of its own.
fn scaled(value: i128, times: i128, by: i128) -> i128 {
    let product = value * times;
    match (i64::try_from(product), i64::try_from(by)) {
        (Ok(product), Ok(by)) => i128::from(product / by),
        _ => product / by,
    }
}

/// `span` in nanoseconds.
fn ns(span: Duration) -> i128 {
    i128::try_from(span.as_nanos()).unwrap_or(i128::MAX / 2)
}

/// A span of `ns` nanoseconds, zero when negative.
fn span(ns: i128) -> Duration {
    Duration::from_nanos(u64::try_from(ns.max(0)).unwrap_or(u64::MAX))
}

impl SimClock {
    /// A perfect clock.
    fn new(time: TimeHandle) -> Self {
        SimClock {
            time,
            state: Arc::default(),
            changes: Arc::default(),
            origin_ns: 0,
        }
    }

    /// The same clock as a process that starts now sees it: its monotonic reading starts at zero, as in production.
    fn started(mut self) -> Self {
        self.origin_ns = self.with(|state, now| state.mono_ns(now));
        self
    }

    /// Runs `work` on the state at the present moment.
    fn with<T>(&self, work: impl FnOnce(&mut State, i128) -> T) -> T {
        let global_ns = ns(self.time.elapsed());
        let mut state = self.state.lock().expect("no panic under this lock");
        work(&mut state, global_ns)
    }

    /// Runs `work` on the state, whatever the time.
    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("no panic under this lock"))
    }

    /// Sets the rate to `1 + ppm / 10^6`; the readings do not jump.
    pub fn set_drift(&self, ppm: i64) {
        assert!(ppm.abs() <= DRIFT_PPM_MAX, "drift of {ppm} ppm");
        let wakers = self.with(|state, now| {
            state.anchor(now);
            state.ppm = ppm;
            state.all_sleepers()
        });
        self.changes.fetch_add(1, Ordering::Relaxed);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Moves the wall clock by `by_ms`; a frozen one stays frozen at the new reading.
    pub fn jump_wall(&self, by_ms: i64) {
        let by_ns = i128::from(by_ms) * NS_PER_MS;
        self.with(|state, now| {
            state.wall_ns(now);
            state.wall_offset_ns += by_ns;
            if let Some((reading, _)) = &mut state.frozen {
                *reading += by_ns;
            }
        });
    }

    /// Stops the wall clock for `span` of the simulation's time.
    pub fn freeze_wall(&self, span: Duration) {
        self.with(|state, now| {
            let reading = state.wall_ns(now);
            state.frozen = Some((reading, now + ns(span)));
        });
    }

    /// Moves both clocks forward.
    pub fn jump_mono(&self, by: Duration) {
        let wakers = self.with(|state, now| {
            state.anchor(now);
            state.anchor_mono_ns += ns(by);
            state.all_sleepers()
        });
        self.changes.fetch_add(1, Ordering::Relaxed);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl ClockDriver for SimClock {
    fn now(&self) -> Mono {
        Mono(self.with(|state, now| span(state.mono_ns(now) - self.origin_ns)))
    }

    fn wall_ms(&self) -> u64 {
        let since = self.with(State::wall_ns).div_euclid(NS_PER_MS);
        u64::try_from(i128::from(EPOCH_MS) + since).unwrap_or(0)
    }

    fn sleep_until(&self, deadline: Mono) -> Sleep {
        Box::pin(Sleeping {
            clock: self.clone(),
            deadline_ns: self.origin_ns + ns(deadline.0),
            earliest: None,
            alarm: Alarm::new(self.time.clone(), Duration::ZERO),
            armed: None,
            place: None,
        })
    }
}

/// A sleep on one host's monotonic clock.
struct Sleeping {
    /// The host's clock.
    clock: SimClock,
    /// When it ends, on that clock from the host's origin, in nanoseconds.
    deadline_ns: i128,
    /// The simulation's time before which it does not end; set at the first poll.
    earliest: Option<Duration>,
    /// The timer.
    alarm: Alarm,
    /// What the timer was armed for (the simulation's time) and after how many changes of the clock, at the last poll.
    armed: Option<(Duration, u64)>,
    /// Its place among the sleepers.
    place: Option<usize>,
}

impl Sleeping {
    /// True when `waker`'s task still waits for a moment to come that nothing has changed: most polls find no more than that,
    /// because whoever selects among a sleep and other things polls the sleep whenever one of those happens.
    fn still_waits(&self, waker: &Waker) -> bool {
        let changes = self.clock.changes.load(Ordering::Relaxed);
        self.armed.is_some_and(|(at, seen)| {
            seen == changes && self.clock.time.elapsed() < at && self.alarm.waits_for(waker)
        })
    }

    /// When the sleep ends in the simulation's time by today's rate, or `None` when it has ended.
    fn ends(&mut self) -> Option<Duration> {
        let deadline_ns = self.deadline_ns;
        let (now, mono_ns, ends) = self.clock.with(|state, now| {
            let mono_ns = state.mono_ns(now);
            let at = if deadline_ns > mono_ns {
                state.global_ns(deadline_ns)
            } else {
                now
            };
            (span(now), mono_ns, span(at))
        });
        if self.earliest.is_none() && mono_ns > deadline_ns {
            return None;
        }
        let earliest = *self.earliest.get_or_insert(now + GRAIN);
        let over = mono_ns >= deadline_ns && now >= earliest;
        (!over).then(|| ends.max(earliest))
    }

    /// Puts `waker` among those who are told of a changed rate.
    fn register(&mut self, waker: &Waker) {
        let place = self.place;
        self.place = Some(self.clock.with_state(|state| state.seat(place, waker)));
    }
}

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.still_waits(context.waker()) {
            return Poll::Pending;
        }
        loop {
            let Some(ends) = self.ends() else {
                return Poll::Ready(());
            };
            self.alarm.move_to(ends);
            if Pin::new(&mut self.alarm).poll(context).is_pending() {
                self.register(context.waker());
                self.armed = Some((ends, self.clock.changes.load(Ordering::Relaxed)));
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let waker = self.clock.with_state(|state| state.leave(place));
            drop(waker);
        }
    }
}
