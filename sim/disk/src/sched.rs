//! Simulated OS threads: real pthreads of which exactly one runs at a time.
//!
//! The thread that installed the world is number 0 and the scheduler. A worker runs only when it is
//! handed the baton, and gives it back when it waits, ends, or has used up its slice of virtual
//! time. Which of several runnable workers goes first is drawn from the seed.
//!
//! Time: thread 0's is the executor's clock plus its I/O debt. A worker has its own, moved by the
//! calls it makes; it may run ahead of the clock by its slice (up to `SLICE_MAX_NS`, drawn anew each
//! time, so that seeds interleave finely and coarsely), because the executor's timers have no finer
//! grain than 1 ms. When worker and thread 0 wait for each other, the later time wins.
//!
//! Left out: preemption between calls (a worker that neither calls nor waits runs on), so a pool
//! that spins without any system call livelocks: fjall must have exactly one worker.

use crate::Rng;
use crate::world::{Inner, with};
use libc::pthread_t;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;

/// Longest time that a worker runs ahead of the clock, in nanoseconds.
const SLICE_MAX_NS: u64 = 1_000_000;
/// What sched_yield costs, in nanoseconds: spinning must not be free.
pub(crate) const YIELD_NS: u64 = 1_000;

/// What a thread holds to run.
#[derive(Debug, Default)]
pub(crate) struct Baton(AtomicU32);

impl Baton {
    /// Lets the thread that waits for it run.
    pub(crate) fn give(&self) {
        self.0.store(1, Ordering::Release);
        crate::real::futex_wake(&self.0);
    }

    /// Waits until it is given.
    pub(crate) fn take(&self) {
        while self.0.swap(0, Ordering::Acquire) == 0 {
            crate::real::futex_wait(&self.0, 0, None);
        }
    }
}

/// What a thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Runs, or may run from this time on.
    Ready(u64),
    /// Waits for a wake at this address, or until this time.
    Futex(usize, Option<u64>),
    /// Waits for the end of another thread.
    Join(usize),
    /// Has ended.
    Dead,
}

/// A simulated thread.
#[derive(Debug)]
pub(crate) struct Thread {
    /// What it is doing.
    pub(crate) state: State,
    /// Given when it may run.
    pub(crate) baton: Arc<Baton>,
    /// Its real identity; 0 until created.
    pub(crate) pthread: pthread_t,
    /// Its own clock, in nanoseconds.
    time_ns: u64,
    /// It waits when its clock passes this, in nanoseconds.
    slice_end_ns: u64,
    /// Moment of the world's life counter at which it was created.
    born: u64,
    /// Its last wait ended by time.
    timed_out: bool,
}

/// How a wait of thread 0 ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// What it waited for has happened.
    Done,
    /// The time is up.
    TimedOut,
    /// No simulated thread can ever make it happen.
    Stuck,
}

/// The scheduler.
#[derive(Debug)]
pub(crate) struct Sched {
    /// By number; the dead stay, so numbers are never used twice.
    pub(crate) threads: Vec<Thread>,
    /// Who holds the baton.
    pub(crate) running: usize,
    /// Latest time seen on the executor's clock, in nanoseconds.
    clock_ns: u64,
    /// Decides who goes first, and for how long.
    rng: Rng,
    /// Set when a worker became runnable while the pump was asleep.
    pub(crate) pump_wanted: bool,
    /// Wakes the pump.
    pub(crate) pump: Option<Waker>,
    /// Sleeps of thread 0 since anything else happened, to recognise a deadlock.
    pub(crate) idle_sleeps: u64,
    /// Slices handed out.
    pub(crate) slices: u64,
}

impl Default for Sched {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Sched {
    /// Thread 0 alone.
    pub(crate) fn new(seed: u64) -> Self {
        let mut sched = Self {
            threads: Vec::new(),
            running: 0,
            clock_ns: 0,
            rng: Rng::stream(seed, "sched"),
            pump_wanted: false,
            pump: None,
            idle_sleeps: 0,
            slices: 0,
        };
        sched.add(0, 0);
        // Thread 0 belongs to the simulator, not to a node: it lives through every life.
        sched.threads[0].born = u64::MAX;
        sched
    }

    /// A new thread that may run from `time_ns` on: its number.
    pub(crate) fn add(&mut self, time_ns: u64, born: u64) -> usize {
        self.threads.push(Thread {
            state: State::Ready(time_ns),
            baton: Arc::default(),
            pthread: 0,
            time_ns,
            slice_end_ns: 0,
            born,
            timed_out: false,
        });
        self.pump_wanted = true;
        self.threads.len() - 1
    }

    /// Workers that have not ended.
    pub(crate) fn live(&self) -> usize {
        self.threads
            .iter()
            .skip(1)
            .filter(|t| t.state != State::Dead)
            .count()
    }

    /// When the running thread was created, on the world's life counter.
    pub(crate) fn born(&self) -> u64 {
        self.threads[self.running].born
    }

    /// When the earliest waiting worker can run.
    fn next_due(&self) -> Option<u64> {
        self.threads.iter().skip(1).filter_map(Thread::due).min()
    }

    /// A worker that can run at `now_ns`, drawn from those that can.
    fn pick(&mut self, now_ns: u64) -> Option<usize> {
        let due = |i: &usize| self.threads[*i].due().is_some_and(|at| at <= now_ns);
        let ready: Vec<usize> = (1..self.threads.len()).filter(due).collect();
        match ready.len() {
            0 => None,
            n => Some(ready[self.rng.below(n as u64) as usize]),
        }
    }

    /// Starts a slice of thread `i`; returns its baton and thread 0's.
    fn start_slice(&mut self, i: usize, now_ns: u64) -> (Arc<Baton>, Arc<Baton>) {
        let slice = self.rng.below(SLICE_MAX_NS + 1);
        let thread = &mut self.threads[i];
        let due = thread.due().unwrap_or(now_ns);
        thread.timed_out = matches!(thread.state, State::Futex(..));
        thread.time_ns = thread.time_ns.max(due);
        thread.slice_end_ns = now_ns.max(due) + slice;
        thread.state = State::Ready(due);
        self.running = i;
        self.slices += 1;
        self.idle_sleeps = 0;
        (
            Arc::clone(&self.threads[i].baton),
            Arc::clone(&self.threads[0].baton),
        )
    }

    /// Marks the running worker as waiting; returns thread 0's baton and its own.
    pub(crate) fn stop_running(&mut self, state: State) -> (Arc<Baton>, Arc<Baton>) {
        let me = std::mem::take(&mut self.running);
        self.threads[me].state = state;
        if state == State::Dead {
            self.wake_joiners(me);
        }
        (
            Arc::clone(&self.threads[0].baton),
            Arc::clone(&self.threads[me].baton),
        )
    }

    /// Lets those run that wait for the end of `dead`.
    fn wake_joiners(&mut self, dead: usize) {
        let time = self.threads[dead].time_ns;
        for thread in self
            .threads
            .iter_mut()
            .filter(|t| t.state == State::Join(dead))
        {
            thread.wake(time);
        }
    }
}

impl Thread {
    /// When it can run, if that is known.
    fn due(&self) -> Option<u64> {
        match self.state {
            State::Ready(at) | State::Futex(_, Some(at)) => Some(at),
            State::Futex(_, None) | State::Join(_) | State::Dead => None,
        }
    }

    /// Ends its wait at `time_ns`.
    fn wake(&mut self, time_ns: u64) {
        self.time_ns = self.time_ns.max(time_ns);
        self.state = State::Ready(self.time_ns);
    }
}

impl Inner {
    /// The executor's clock, in nanoseconds.
    pub(crate) fn clock(&mut self) -> u64 {
        if self.sched.running == 0
            && let Some(time) = madsim::time::TimeHandle::try_current()
        {
            let now = time.elapsed().as_nanos() as u64;
            self.sched.clock_ns = self.sched.clock_ns.max(now);
        }
        self.sched.clock_ns
    }

    /// What time it is for the running thread, in nanoseconds.
    pub(crate) fn caller_time(&mut self) -> u64 {
        match self.sched.running {
            0 => self.clock().saturating_add(self.debt_ns),
            i => self.sched.threads[i].time_ns,
        }
    }

    /// Makes the running thread pay for something.
    pub(crate) fn charge(&mut self, ns: u64) {
        match self.sched.running {
            0 => self.debt_ns = self.debt_ns.saturating_add(ns),
            i => {
                let time = &mut self.sched.threads[i].time_ns;
                *time = time.saturating_add(ns);
            }
        }
    }

    /// Whether the running thread must let others run before its next call, and until when.
    pub(crate) fn pause_due(&self) -> Option<u64> {
        let me = &self.sched.threads[self.sched.running];
        (self.sched.running != 0 && me.time_ns > me.slice_end_ns).then_some(me.time_ns)
    }

    /// Wakes up to `n` simulated threads that wait at `addr`: how many, and the pump if it sleeps.
    pub(crate) fn wake(&mut self, addr: usize, n: usize) -> (usize, Option<Waker>) {
        let time = self.caller_time();
        let waits = |t: &Thread| matches!(t.state, State::Futex(a, _) if a == addr);
        let mut woken = 0;
        let mut debt = self.debt_ns;
        for (i, thread) in self.sched.threads.iter_mut().enumerate() {
            if woken < n && waits(thread) {
                thread.wake(time);
                woken += 1;
                if i == 0 {
                    // What thread 0 waited for happened at the worker's time.
                    debt = debt.max(time.saturating_sub(self.sched.clock_ns));
                }
                self.sched.pump_wanted = true;
            }
        }
        self.debt_ns = debt;
        let pump = if woken > 0 && self.sched.running == 0 {
            self.sched.pump.take()
        } else {
            None
        };
        (woken, pump)
    }

    /// Thread 0 has waited for worker `i`: its time is now at least the worker's.
    pub(crate) fn catch_up_with(&mut self, i: usize) {
        let late = self.sched.threads[i]
            .time_ns
            .saturating_sub(self.caller_time());
        self.charge(late);
    }

    /// Number of the worker with this real identity, if it is ours and has not ended.
    pub(crate) fn worker(&self, pthread: pthread_t) -> Option<usize> {
        let is_it = |t: &Thread| t.pthread == pthread && t.state != State::Dead;
        self.sched
            .threads
            .iter()
            .skip(1)
            .position(is_it)
            .map(|i| i + 1)
    }
}

/// Thread 0: lets worker `i` run until it waits, ends or has used up its slice.
fn run(i: usize, now_ns: u64) {
    let batons = with(|w| w.sched.start_slice(i, now_ns));
    if let Some((his, mine)) = batons {
        his.give();
        mine.take();
    }
}

/// Worker: waits in `state` until the scheduler lets it go on. True if the time ran out.
pub(crate) fn wait_as_worker(state: State) -> bool {
    let Some((main, mine)) = with(|w| w.sched.stop_running(state)) else {
        return false;
    };
    main.give();
    mine.take();
    after_wait()
}

/// Worker: brings the private clock of this thread up to date. True if the wait ended by time.
pub(crate) fn after_wait() -> bool {
    let (time_ns, timed_out) = with(|w| {
        let me = &w.sched.threads[w.sched.running];
        (me.time_ns, me.timed_out)
    })
    .unwrap_or_default();
    if let Some(clock) = madsim::time::TimeHandle::try_current() {
        let now = std::time::Duration::from_nanos(time_ns);
        clock.advance(now.saturating_sub(clock.elapsed()));
    }
    timed_out
}

/// Worker: lets others run if this slice is used up. Called before every simulated call.
pub(crate) fn pause_point() {
    if let Some(Some(at)) = with(|w| w.pause_due()) {
        wait_as_worker(State::Ready(at));
    }
}

/// Thread 0: runs workers until `done`, or `deadline_ns`, at the cost of its own debt.
pub(crate) fn wait_as_main(done: impl Fn(&Inner) -> bool, deadline_ns: Option<u64>) -> Waited {
    loop {
        let step = with(|w| {
            let now = w.caller_time();
            if done(w) {
                return Err(Waited::Done);
            }
            if deadline_ns.is_some_and(|d| d <= now) {
                return Err(Waited::TimedOut);
            }
            if let Some(i) = w.sched.pick(now) {
                return Ok(Some((i, now)));
            }
            let until = match (w.sched.next_due(), deadline_ns) {
                (Some(due), Some(deadline)) => due.min(deadline),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => return Err(Waited::Stuck),
            };
            w.charge(until.saturating_sub(now));
            Ok(None)
        });
        match step {
            Some(Ok(Some((i, now)))) => run(i, now),
            Some(Ok(None)) => {}
            Some(Err(end)) => return end,
            None => return Waited::Stuck,
        }
    }
}

/// Thread 0: runs every worker that can run by now; when the next one can.
pub(crate) fn run_due() -> Option<u64> {
    loop {
        let step = with(|w| {
            let now = w.clock();
            w.sched.pump_wanted = false;
            w.sched
                .pick(now)
                .map_or_else(|| Err(w.sched.next_due()), |i| Ok((i, now)))
        });
        match step {
            Some(Ok((i, now))) => run(i, now),
            Some(Err(next)) => return next,
            None => return None,
        }
    }
}
