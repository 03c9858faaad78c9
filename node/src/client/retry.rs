//! What may be tried again, how often and after how long; and what is true of a write after several tries.

use super::Again;
use crate::error::{Code, Error};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// How often and after how long something is tried again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Most tries, the first included; 1 for no second try.
    pub tries_max: u32,
    /// Pause before the second try; each later pause is up to twice as long.
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            tries_max: 10,
            pause_min: Duration::from_millis(20),
            pause_max: Duration::from_millis(1_000),
        }
    }
}

impl Retry {
    /// Everything is tried once.
    pub fn never() -> Self {
        Retry {
            tries_max: 1,
            ..Retry::default()
        }
    }

    /// The pause after `tries` tries: doubles each time, and is drawn from the upper half, so that clients which failed together do
    /// not come back together.
    fn pause(&self, tries: u32, rng: &mut ChaCha8Rng) -> Duration {
        let doubled = 1_u32
            .checked_shl(tries.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let whole = self.pause_min.saturating_mul(doubled).min(self.pause_max);
        let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.random_range(micros / 2..=micros))
    }
}

/// The tries of one call.
pub(crate) struct Tries {
    /// Whether it may be done again.
    again: Again,
    /// True when a session guards it.
    in_session: bool,
    /// Tries so far.
    count: u32,
    /// True when an earlier try may have had an effect.
    unknown: bool,
}

impl Tries {
    /// No try yet.
    pub(crate) fn new(again: Again, in_session: bool) -> Self {
        Tries {
            again,
            in_session,
            count: 0,
            unknown: false,
        }
    }

    /// The pause before the next try after `error`; none when there must not be one.
    pub(crate) fn next(
        &mut self,
        retry: &Retry,
        error: &Error,
        rng: &mut ChaCha8Rng,
    ) -> Option<Duration> {
        self.count += 1;
        self.unknown |= error.outcome_unknown;
        let harmless = match self.again {
            Again::Harmless => true,
            Again::InSession => self.in_session || !self.unknown,
            Again::Never => !self.unknown,
        };
        let again = error.retryable && harmless && self.count < retry.tries_max;
        again.then(|| retry.pause(self.count, rng))
    }

    /// What is to be said of the call when its last try ended with `error`.
    pub(crate) fn verdict(&self, mut error: Error) -> Error {
        // The state's refusals are the same for every try of one write in a session, so they settle the matter. All other
        // failures say something of the last try alone.
        let settled = matches!(
            error.code,
            Code::InvalidArgument
                | Code::TooLarge
                | Code::NotFound
                | Code::PreconditionFailed
                | Code::Compacted
                | Code::FutureRevision
                | Code::LeaseNotFound
        );
        let writes = self.again != Again::Harmless;
        error.outcome_unknown |= writes && self.unknown && !settled;
        error.outcome_unknown &= writes;
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn decide(again: Again, in_session: bool, error: &Error) -> bool {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut tries = Tries::new(again, in_session);
        tries.next(&Retry::default(), error, &mut rng).is_some()
    }

    #[test]
    fn only_what_is_safe_is_tried_again() {
        let undone = Error::new(Code::NoLeader, "x");
        let unknown = Error::new(Code::Timeout, "x").unknown();
        let refused = Error::new(Code::PreconditionFailed, "x");
        for again in [Again::Harmless, Again::InSession, Again::Never] {
            assert!(decide(again, false, &undone));
            assert!(!decide(again, true, &refused));
        }
        assert!(decide(Again::Harmless, false, &unknown));
        assert!(decide(Again::InSession, true, &unknown));
        assert!(!decide(Again::InSession, false, &unknown));
        assert!(!decide(Again::Never, true, &unknown));
    }

    #[test]
    fn unknown_stays_unknown_until_the_state_has_spoken() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut tries = Tries::new(Again::InSession, true);
        let unknown = Error::new(Code::Timeout, "x").unknown();
        tries.next(&Retry::default(), &unknown, &mut rng).unwrap();
        for (code, still_unknown) in [
            (Code::NoLeader, true),
            (Code::SessionUnknown, true),
            (Code::SessionStale, true),
            (Code::Unreachable, true),
            (Code::PreconditionFailed, false),
            (Code::LeaseNotFound, false),
        ] {
            let verdict = tries.verdict(Error::new(code, "y"));
            assert_eq!(verdict.outcome_unknown, still_unknown, "{code:?}");
        }
    }

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let retry = Retry::default();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let pauses: Vec<Duration> = (1..40).map(|tries| retry.pause(tries, &mut rng)).collect();
        assert!(pauses.iter().all(|pause| *pause <= retry.pause_max));
        assert!(pauses[0] >= retry.pause_min / 2 && pauses[0] <= retry.pause_min);
        assert!(pauses[30] >= retry.pause_max / 2);
        assert_ne!(pauses[30], pauses[31]);
    }

    #[test]
    fn tries_are_bounded() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut tries = Tries::new(Again::Harmless, false);
        let error = Error::new(Code::NoLeader, "x");
        let retry = Retry {
            tries_max: 3,
            ..Retry::default()
        };
        let again: Vec<bool> = (0..4)
            .map(|_| tries.next(&retry, &error, &mut rng).is_some())
            .collect();
        assert_eq!(again, [true, true, false, false]);
    }
}
