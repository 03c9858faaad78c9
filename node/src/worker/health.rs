//! The health of one attempt: when to check, and what the results mean.
//!
//! Until the first success a check follows every `probe_ms` (or the service's interval, if that is shorter), so that a task is
//! found healthy soon; and failures are counted as time: the attempt is given up when the start period and as many intervals as there are
//! retries have passed. After the first success `retries` failures in a row give it up.

use crate::service::spec::Health;

/// Shortest pause between two checks, milliseconds, whatever a specification says.
const INTERVAL_MS_MIN: u64 = 100;

/// What to do about an attempt's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing now.
    Nothing,
    /// Check it, and come back with this number.
    Check(u32),
    /// It has been found healthy for the first time.
    Healthy,
    /// It is not healthy and will not be waited for any longer.
    GiveUp,
}

/// The health of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    /// When the attempt began, milliseconds.
    since_ms: u64,
    /// When the next check is due, milliseconds.
    next_ms: u64,
    /// When the check under way counts as failed, milliseconds.
    overdue_ms: Option<u64>,
    /// Number of the newest check.
    number: u32,
    /// Failures in a row.
    failures: u32,
    /// Whether it was ever healthy.
    is_healthy: bool,
    /// Whether that has been said.
    is_told: bool,
}

impl Probe {
    /// The health of an attempt that begins now: nothing is known.
    pub(super) fn new(now_ms: u64) -> Self {
        Probe {
            since_ms: now_ms,
            next_ms: now_ms,
            ..Probe::default()
        }
    }

    /// What is due.
    pub(super) fn step(&mut self, now_ms: u64, health: &Health, probe_ms: u64) -> Verdict {
        if self.overdue_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.checked(self.number, false, now_ms, health, probe_ms);
        }
        if self.is_given_up(now_ms, health) {
            return Verdict::GiveUp;
        }
        if self.is_healthy && !std::mem::replace(&mut self.is_told, self.is_healthy) {
            return Verdict::Healthy;
        }
        if self.overdue_ms.is_some() || now_ms < self.next_ms {
            return Verdict::Nothing;
        }
        self.number = self.number.wrapping_add(1);
        // The executor has its own clock for the time-out; this one is for an executor that does not answer.
        let patience_ms = health.timeout_ms.saturating_add(probe_ms);
        self.overdue_ms = Some(now_ms.saturating_add(patience_ms));
        Verdict::Check(self.number)
    }

    /// A check has its result; one that is not under way is ignored.
    pub(super) fn checked(
        &mut self,
        number: u32,
        healthy: bool,
        now_ms: u64,
        health: &Health,
        probe_ms: u64,
    ) {
        if self.overdue_ms.is_none() || number != self.number {
            return;
        }
        self.overdue_ms = None;
        self.is_healthy |= healthy;
        self.failures = match healthy {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        let pause_ms = match self.is_healthy {
            true => health.interval_ms,
            false => health.interval_ms.min(probe_ms),
        };
        self.next_ms = now_ms.saturating_add(pause_ms.max(INTERVAL_MS_MIN));
    }

    /// Whether enough failed.
    fn is_given_up(&self, now_ms: u64, health: &Health) -> bool {
        let retries = health.retries.max(1);
        let patience_ms = health.interval_ms.saturating_mul(u64::from(retries));
        let patience_ms = patience_ms.saturating_add(health.start_period_ms);
        match self.is_healthy {
            true => self.failures >= retries,
            false => self.failures > 0 && now_ms.saturating_sub(self.since_ms) >= patience_ms,
        }
    }

    /// When it wants to be looked at next.
    pub(super) fn wake_ms(&self, health: Option<&Health>) -> Option<u64> {
        health.map(|_| self.overdue_ms.unwrap_or(self.next_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::spec::HealthCheck;

    fn health() -> Health {
        Health {
            check: HealthCheck::Tcp { port: 1 },
            interval_ms: 10_000,
            timeout_ms: 2_000,
            retries: 3,
            start_period_ms: 5_000,
        }
    }

    /// Steps through the time in tenths of a second, answering each check by `answer(now)`; gives the first end.
    fn run(answer: impl Fn(u64) -> Option<bool>) -> (u64, Verdict) {
        let (mut probe, health) = (Probe::new(0), health());
        for now_ms in (0..200_000).step_by(100) {
            match probe.step(now_ms, &health, 1_000) {
                Verdict::Nothing => {}
                Verdict::Check(number) => {
                    if let Some(healthy) = answer(now_ms) {
                        probe.checked(number, healthy, now_ms, &health, 1_000);
                    }
                }
                verdict => return (now_ms, verdict),
            }
        }
        (0, Verdict::Nothing)
    }

    #[test]
    fn a_task_is_found_healthy_soon_after_it_is() {
        assert_eq!(run(|now| Some(now >= 3_500)), (4_100, Verdict::Healthy));
    }

    #[test]
    fn one_that_never_is_gets_its_start_period_and_its_retries() {
        assert_eq!(run(|_| Some(false)), (35_000, Verdict::GiveUp));
    }

    #[test]
    fn a_check_without_an_answer_is_a_failure() {
        let (at, verdict) = run(|_| None);
        assert_eq!(verdict, Verdict::GiveUp);
        assert!((35_000..40_000).contains(&at), "{at}");
    }

    #[test]
    fn failures_in_a_row_give_up_a_healthy_one_and_a_success_between_them_counts() {
        let (mut probe, health) = (Probe::new(0), health());
        let mut now_ms = 0;
        let mut next = |probe: &mut Probe, healthy| {
            loop {
                now_ms += 100;
                match probe.step(now_ms, &health, 1_000) {
                    Verdict::Check(number) => {
                        probe.checked(number, healthy, now_ms, &health, 1_000);
                        return probe.is_given_up(now_ms, &health);
                    }
                    Verdict::GiveUp => panic!("given up too early"),
                    Verdict::Nothing | Verdict::Healthy => {}
                }
            }
        };
        let answers = [true, false, false, true, false, false];
        assert!(!answers.iter().any(|answer| next(&mut probe, *answer)));
        assert!(next(&mut probe, false));
    }
}
