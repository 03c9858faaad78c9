//! One task's life on a worker, as a pure machine: [`Task::step`] takes what happened and the time, and gives what is to be done.
//!
//! Two things are kept apart. The **state** is what managers are told; it only moves forward (docs/orchestration.md, section 2).
//! The **phase** is what the worker does about the task's process right now; it goes round with each attempt. So a
//! crash and a local restart change the phase and the number of attempts, and leave the state where it was.
//!
//! Invariants, each asserted here or held by the properties in `tests`: an attempt begins only when the one before has
//! ended; nothing starts once the task shall stop; an attempt's number is on disk before its process begins;
//! a task whose leave runs out has been killed `lease_margin_ms` before. What comes late, twice or for another attempt is
//! ignored. What happens to an attempt is in `attempt`. Left out: which processes there are (`executor`), numbers of reports and
//! the lease itself (`core`).

use super::health::Probe;
use super::words::{
    Assignment, Effect, Exit, FREE, GivenSecret, Handle, Input, Observation, Timing,
};
use crate::service::{Desired, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};

/// Longest message that a worker keeps and reports, bytes.
const MESSAGE_LEN_MAX: usize = 512;

/// Why a process is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// Managers want it to end.
    Told,
    /// Its lease runs out.
    Lease,
    /// Its health check gave up; a restart may follow.
    Unhealthy,
}

/// What the worker does about the task's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// What it needs will be fetched at this time.
    Unprepared { at_ms: u64 },
    /// It is being fetched.
    Preparing,
    /// Between two attempts, or before the first.
    Waiting { at_ms: u64 },
    /// The newest attempt is being started.
    Launching,
    /// The newest attempt's process runs.
    Up {
        handle: Handle,
        since_ms: u64,
        #[serde(skip)]
        probe: Probe,
    },
    /// The newest attempt is being ended; without a handle: its start has not answered yet.
    Ending {
        handle: Option<Handle>,
        since_ms: u64,
        cause: Cause,
        kill_at_ms: u64,
        killed: bool,
    },
    /// It has ended.
    Done,
}

impl Phase {
    /// What of it must be durable at once.
    fn shape(&self) -> (Discriminant<Phase>, Option<&Handle>) {
        let handle = match self {
            Phase::Up { handle, .. } => Some(handle),
            Phase::Ending { handle, .. } => handle.as_ref(),
            _ => None,
        };
        (discriminant(self), handle)
    }
}

/// One task on a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What managers gave.
    pub(super) assignment: Assignment,
    /// What managers are told.
    pub(super) state: State,
    /// What is done about it.
    pub(super) phase: Phase,
    /// Attempts begun.
    pub(super) attempts: u32,
    /// Failures since it was last found sound.
    pub(super) recent: u32,
    /// How the last attempt ended.
    pub(super) exit: Option<Exit>,
    /// Why it is as it is.
    pub(super) message: String,
    /// Until when it may run, milliseconds. Never trusted across the worker's own restart.
    #[serde(skip)]
    leave_until_ms: u64,
}

impl Task {
    /// A task that has just been assigned. It has no leave yet.
    pub fn new(assignment: Assignment) -> Self {
        Task {
            assignment,
            state: State::Assigned,
            phase: Phase::Unprepared { at_ms: 0 },
            attempts: 0,
            recent: 0,
            exit: None,
            message: String::new(),
            leave_until_ms: 0,
        }
    }

    /// What managers gave.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Managers give its secrets again: the same versions, sealed anew, perhaps for another key of this worker. What they cannot seal
    /// any more stays as it was.
    pub(super) fn renew_secrets(&mut self, given: BTreeMap<String, GivenSecret>) {
        let usable = |(_, one): &(String, GivenSecret)| one.sealed.is_some();
        let secrets = &mut self.assignment.secrets;
        secrets.extend(given.into_iter().filter(usable));
    }

    /// What managers are told.
    pub fn observation(&self) -> Observation {
        Observation {
            state: self.state,
            attempts: self.attempts,
            exit: self.exit,
            message: self.message.clone(),
        }
    }

    /// Its process, while one is known.
    pub fn handle(&self) -> Option<&Handle> {
        match &self.phase {
            Phase::Up { handle, .. } => Some(handle),
            Phase::Ending { handle, .. } => handle.as_ref(),
            _ => None,
        }
    }

    /// Attempts begun; the number of the newest.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Until when it may run.
    pub fn leave_until_ms(&self) -> u64 {
        self.leave_until_ms
    }

    /// Its worker starts anew: what leave it had is over.
    pub(super) fn lose_leave(&mut self) {
        self.leave_until_ms = 0;
    }

    /// Whether a process of its newest attempt may be there.
    pub fn is_live(&self) -> bool {
        matches!(
            self.phase,
            Phase::Launching | Phase::Up { .. } | Phase::Ending { .. }
        )
    }

    /// Whether it would start if it had leave.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. }) && !self.shall_end()
    }

    /// Whether it can be dropped: it has ended and managers know or do not care.
    pub fn is_forgotten(&self) -> bool {
        self.phase == Phase::Done && self.assignment.desired == Desired::Remove
    }

    /// Whether what was read from a disk makes sense.
    pub(super) fn is_sound(&self) -> bool {
        self.state != State::Pending && self.state.is_end() == (self.phase == Phase::Done)
    }

    /// Whether `found` may be the process of the newest attempt.
    pub fn owns(&self, attempt: u32, found: &Handle) -> bool {
        let fits = match &self.phase {
            Phase::Up { handle, .. } => handle == found,
            Phase::Ending { handle, .. } => handle.as_ref().is_none_or(|handle| handle == found),
            Phase::Launching => true,
            _ => false,
        };
        fits && attempt == self.attempts
    }

    /// Takes `input` in at `now_ms` and says what is to be done.
    pub fn step(&mut self, input: Input, now_ms: u64, timing: &Timing) -> Vec<Effect> {
        let before = (self.state, self.attempts, self.message.clone());
        let (phase, desired) = (self.phase.clone(), self.assignment.desired);
        let mut effects = Vec::new();
        self.take(input, now_ms, timing, &mut effects);
        self.act(now_ms, timing, &mut effects);
        let after = (self.state, self.attempts, self.message.clone());
        if before != after {
            effects.push(Effect::Report(self.observation()));
        }
        // The probe is forgotten on purpose: health is asked anew after a restart.
        let moved = phase.shape() != self.phase.shape();
        if before != after || moved || desired != self.assignment.desired {
            effects.push(Effect::Persist);
        }
        effects.sort_by_key(Effect::order);
        effects
    }

    /// When it wants to be stepped next, if time alone can change anything.
    pub fn wake_ms(&self, timing: &Timing) -> Option<u64> {
        let own = match &self.phase {
            Phase::Unprepared { at_ms } => Some(*at_ms),
            // Without leave there is nothing to wake for: the leave itself is an input.
            Phase::Waiting { at_ms } => (*at_ms < self.ending_ms(timing)).then_some(*at_ms),
            Phase::Up { probe, .. } => probe.wake_ms(self.assignment.spec.health.as_ref()),
            Phase::Ending {
                handle: Some(_), ..
            } => Some(self.kill_ms(timing)),
            _ => None,
        };
        let lease = match self.phase {
            Phase::Launching | Phase::Up { .. } => Some(self.ending_ms(timing)),
            _ => None,
        };
        let lease = lease.filter(|at_ms| *at_ms != FREE);
        [own, lease].into_iter().flatten().min()
    }

    /// Whether managers want it to end.
    pub(super) fn shall_end(&self) -> bool {
        self.assignment.desired > Desired::Run
    }

    /// Last moment at which a process may still be there.
    pub(super) fn dead_ms(&self, timing: &Timing) -> u64 {
        match self.leave_until_ms {
            FREE => FREE,
            until_ms => until_ms.saturating_sub(timing.lease_margin_ms),
        }
    }

    /// When it must begin to stop because its leave runs out.
    pub(super) fn ending_ms(&self, timing: &Timing) -> u64 {
        let grace_ms = self.assignment.spec.stop_grace_ms;
        match self.dead_ms(timing) {
            FREE => FREE,
            dead_ms => dead_ms.saturating_sub(grace_ms.min(timing.lease_grace_max_ms)),
        }
    }

    /// When a process that is being ended is killed (again).
    pub(super) fn kill_ms(&self, timing: &Timing) -> u64 {
        match self.phase {
            Phase::Ending {
                kill_at_ms,
                killed: true,
                ..
            } => kill_at_ms,
            Phase::Ending { kill_at_ms, .. } => kill_at_ms.min(self.dead_ms(timing)),
            _ => FREE,
        }
    }

    /// Notes what happened. What does not concern the present phase and attempt is ignored.
    fn take(&mut self, input: Input, now_ms: u64, timing: &Timing, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => {}
            Input::Desired(desired) => {
                self.assignment.desired = self.assignment.desired.max(desired);
            }
            Input::Leave { until_ms } => self.leave_until_ms = until_ms,
            Input::Prepared(result) if self.phase == Phase::Preparing => {
                self.prepared(result, now_ms);
            }
            Input::Started { attempt, result } if attempt == self.attempts => {
                self.started(result, now_ms, timing, effects);
            }
            Input::Exited { attempt, exit } if attempt == self.attempts => {
                self.exited(exit, now_ms);
            }
            Input::Checked {
                attempt,
                number,
                healthy,
            } if attempt == self.attempts => {
                if let (Phase::Up { probe, .. }, Some(health)) =
                    (&mut self.phase, &self.assignment.spec.health)
                {
                    probe.checked(number, healthy, now_ms, health, timing.probe_ms);
                }
            }
            Input::Resumed { found } => self.resumed(found, now_ms, timing, effects),
            _ => {}
        }
    }

    /// Does what is due.
    fn act(&mut self, now_ms: u64, timing: &Timing, effects: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Unprepared { .. } | Phase::Preparing | Phase::Waiting { .. }
                if self.assignment.desired > Desired::Run =>
            {
                self.end(State::Stopped, "no longer wanted");
            }
            Phase::Unprepared { at_ms } if *at_ms <= now_ms => {
                self.phase = Phase::Preparing;
                self.reach(State::Preparing);
                effects.push(Effect::Prepare);
            }
            Phase::Waiting { at_ms } if *at_ms <= now_ms => self.launch(now_ms, timing, effects),
            Phase::Launching | Phase::Up { .. } if self.assignment.desired > Desired::Run => {
                self.stop(Cause::Told, now_ms, timing, effects);
            }
            Phase::Launching | Phase::Up { .. } if self.ending_ms(timing) <= now_ms => {
                self.stop(Cause::Lease, now_ms, timing, effects);
            }
            Phase::Up { .. } => self.look(now_ms, timing, effects),
            Phase::Ending { .. } => self.hasten(now_ms, timing, effects),
            _ => {}
        }
        if self.is_forgotten() {
            effects.push(Effect::Forget);
        }
    }

    /// The task has ended.
    pub(super) fn end(&mut self, state: State, why: &str) {
        assert!(state.is_end(), "{state} is an end");
        assert!(
            self.state.may_become(state),
            "a state only moves forward: {} to {state}",
            self.state
        );
        self.state = state;
        self.phase = Phase::Done;
        self.say(why);
    }

    /// Moves the state forward to `state`, if it has not been there: a later attempt goes the same way again.
    pub(super) fn reach(&mut self, state: State) {
        if self.state.may_become(state) {
            self.state = state;
        }
    }

    /// Notes why the task is as it is.
    pub(super) fn say(&mut self, why: &str) {
        let end = (0..=MESSAGE_LEN_MAX.min(why.len())).rev();
        let end = end.into_iter().find(|end| why.is_char_boundary(*end));
        self.message = why[..end.unwrap_or(0)].to_owned();
    }
}
