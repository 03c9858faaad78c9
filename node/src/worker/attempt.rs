//! What happens to a task's attempts: begun, up, healthy or not, told to end, ended, begun again.
//!
//! The other half of [`Task`]: `task` decides which of these comes when. Nothing here looks at anything but the task, the input and
//! the time.

use super::health::{Probe, Verdict};
use super::restart;
use super::task::{Cause, Phase, Task};
use super::words::{Effect, Exit, Handle, Refusal, Signal, Timing};
use crate::service::State;

impl Task {
    /// What it needs is there, or not.
    pub(super) fn prepared(&mut self, result: Result<(), Refusal>, now_ms: u64) {
        let policy = self.assignment.spec.restart;
        match result {
            Ok(()) => {
                self.recent = 0;
                self.phase = Phase::Waiting { at_ms: now_ms };
            }
            Err(refusal) => match restart::delay_ms(&policy, self.recent) {
                Some(delay_ms) if !refusal.is_permanent && restart::is_wanted(&policy, true) => {
                    self.recent = self.recent.saturating_add(1);
                    self.say(&refusal.message);
                    self.phase = Phase::Unprepared {
                        at_ms: now_ms.saturating_add(delay_ms),
                    };
                }
                _ => self.end(State::Rejected, &refusal.message),
            },
        }
    }

    /// Begins the next attempt, if it has leave.
    pub(super) fn launch(&mut self, now_ms: u64, timing: &Timing, effects: &mut Vec<Effect>) {
        assert!(!self.shall_end(), "nothing starts once the task shall stop");
        if self.ending_ms(timing) <= now_ms {
            return self.say("waits for the right to its volumes");
        }
        self.attempts = self.attempts.saturating_add(1);
        self.message.clear();
        self.phase = Phase::Launching;
        effects.push(Effect::Start {
            attempt: self.attempts,
            until_ms: self.dead_ms(timing),
        });
    }

    /// The newest attempt runs, or could not be started.
    pub(super) fn started(
        &mut self,
        result: Result<Handle, Refusal>,
        now_ms: u64,
        timing: &Timing,
        effects: &mut Vec<Effect>,
    ) {
        match (&mut self.phase, result) {
            (Phase::Launching, Ok(handle)) => self.up(handle, now_ms),
            (Phase::Launching, Err(refusal)) => {
                if refusal.is_permanent && !State::Preparing.may_become(self.state) {
                    return self.end(State::Rejected, &refusal.message);
                }
                self.exit = None;
                self.attempt_ended(true, None, &refusal.message, now_ms);
            }
            (Phase::Ending { handle, killed, .. }, Ok(found)) if handle.is_none() => {
                *handle = Some(found);
                *killed = false;
                self.signal(Signal::Term, effects);
                self.hasten(now_ms, timing, effects);
            }
            (Phase::Ending { handle, .. }, Err(_)) if handle.is_none() => {
                self.ended(None, now_ms);
            }
            _ => {}
        }
    }

    /// A process of the newest attempt is there.
    fn up(&mut self, handle: Handle, now_ms: u64) {
        self.phase = Phase::Up {
            handle,
            since_ms: now_ms,
            probe: Probe::new(now_ms),
        };
        self.reach(match self.assignment.spec.health {
            Some(_) => State::Starting,
            None => State::Running,
        });
    }

    /// Looks after the health of a process that runs.
    pub(super) fn look(&mut self, now_ms: u64, timing: &Timing, effects: &mut Vec<Effect>) {
        let (Phase::Up { probe, .. }, Some(health)) =
            (&mut self.phase, &self.assignment.spec.health)
        else {
            return;
        };
        match probe.step(now_ms, health, timing.probe_ms) {
            Verdict::Nothing => {}
            Verdict::Check(number) => effects.push(Effect::Check {
                attempt: self.attempts,
                number,
            }),
            Verdict::Healthy => self.reach(State::Running),
            Verdict::GiveUp => self.stop(Cause::Unhealthy, now_ms, timing, effects),
        }
    }

    /// Begins to end the newest attempt.
    pub(super) fn stop(
        &mut self,
        cause: Cause,
        now_ms: u64,
        timing: &Timing,
        effects: &mut Vec<Effect>,
    ) {
        let (handle, since_ms) = match &self.phase {
            Phase::Up {
                handle, since_ms, ..
            } => (Some(handle.clone()), *since_ms),
            _ => (None, now_ms),
        };
        self.phase = Phase::Ending {
            handle,
            since_ms,
            cause,
            kill_at_ms: now_ms.saturating_add(self.assignment.spec.stop_grace_ms),
            killed: false,
        };
        match cause {
            Cause::Told => self.say("told to stop"),
            Cause::Lease => self.say("its lease ran out"),
            Cause::Unhealthy => self.say("its health check gave up"),
        }
        if cause != Cause::Unhealthy {
            self.reach(State::Stopping);
        }
        self.signal(Signal::Term, effects);
        self.hasten(now_ms, timing, effects);
    }

    /// Looks after a process that is being ended: what was an end for its health becomes one for good, and who does not go is killed.
    pub(super) fn hasten(&mut self, now_ms: u64, timing: &Timing, effects: &mut Vec<Effect>) {
        let (shall_end, late) = (self.shall_end(), self.ending_ms(timing) <= now_ms);
        if let Phase::Ending { cause, .. } = &mut self.phase {
            match *cause {
                Cause::Unhealthy if shall_end => *cause = Cause::Told,
                Cause::Unhealthy if late => *cause = Cause::Lease,
                _ => {}
            }
            if *cause != Cause::Unhealthy {
                self.reach(State::Stopping);
            }
        }
        let due = self.kill_ms(timing) <= now_ms;
        if let Phase::Ending {
            handle: Some(_),
            kill_at_ms,
            killed,
            ..
        } = &mut self.phase
            && due
        {
            *kill_at_ms = now_ms.saturating_add(timing.kill_retry_ms);
            let again = std::mem::replace(killed, true);
            if again {
                self.say("was killed and does not die");
            }
            self.signal(Signal::Kill, effects);
        }
    }

    /// Signals the process, if it is known.
    fn signal(&self, signal: Signal, effects: &mut Vec<Effect>) {
        if let Phase::Ending {
            handle: Some(handle),
            ..
        } = &self.phase
        {
            effects.push(Effect::Signal {
                attempt: self.attempts,
                handle: handle.clone(),
                signal,
            });
        }
    }

    /// The newest attempt's process has ended.
    pub(super) fn exited(&mut self, exit: Exit, now_ms: u64) {
        match self.phase {
            Phase::Launching => {
                self.exit = Some(exit);
                self.attempt_ended(!exit.is_success(), None, &exit.describe(), now_ms);
            }
            Phase::Up { since_ms, .. } => {
                self.exit = Some(exit);
                self.attempt_ended(!exit.is_success(), Some(since_ms), &exit.describe(), now_ms);
            }
            Phase::Ending { .. } => self.ended(Some(exit), now_ms),
            _ => {}
        }
    }

    /// A process that was being ended is gone.
    fn ended(&mut self, exit: Option<Exit>, now_ms: u64) {
        let Phase::Ending {
            cause, since_ms, ..
        } = self.phase
        else {
            return;
        };
        self.exit = exit;
        match cause {
            Cause::Told => self.end(State::Stopped, "stopped as told"),
            Cause::Lease => self.end(State::Stopped, "its lease ran out"),
            Cause::Unhealthy => {
                self.attempt_ended(true, Some(since_ms), "its health check gave up", now_ms);
            }
        }
    }

    /// An attempt ended by itself or for its health: another one follows, or the task has ended.
    fn attempt_ended(&mut self, failed: bool, since_ms: Option<u64>, why: &str, now_ms: u64) {
        let policy = self.assignment.spec.restart;
        let ran_ms = since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        if since_ms.is_some() && ran_ms >= policy.window_ms {
            self.recent = 0;
        }
        if !restart::is_wanted(&policy, failed) {
            let end = if failed {
                State::Failed
            } else {
                State::Complete
            };
            return self.end(end, why);
        }
        let Some(delay_ms) = restart::delay_ms(&policy, self.recent) else {
            let restarts = self.recent;
            return self.end(State::Failed, &format!("{why}; restarted {restarts} times"));
        };
        self.recent = self.recent.saturating_add(1);
        self.say(why);
        self.phase = Phase::Waiting {
            at_ms: now_ms.saturating_add(delay_ms),
        };
    }

    /// The worker was away. What it asked for then has no answer any more.
    pub(super) fn resumed(
        &mut self,
        found: Option<Handle>,
        now_ms: u64,
        timing: &Timing,
        effects: &mut Vec<Effect>,
    ) {
        match (&mut self.phase, found) {
            (Phase::Preparing, _) => self.phase = Phase::Unprepared { at_ms: now_ms },
            (Phase::Launching, Some(handle)) => self.up(handle, now_ms),
            (Phase::Up { probe, .. }, Some(_)) => *probe = Probe::new(now_ms),
            (Phase::Ending { handle, killed, .. }, Some(found)) => {
                *handle = Some(found);
                let signal = if *killed { Signal::Kill } else { Signal::Term };
                self.signal(signal, effects);
                self.hasten(now_ms, timing, effects);
            }
            (Phase::Launching | Phase::Up { .. } | Phase::Ending { .. }, None) => {
                self.exited(Exit::UNSEEN, now_ms);
            }
            (Phase::Unprepared { .. } | Phase::Waiting { .. } | Phase::Done, _) => {}
        }
    }
}
