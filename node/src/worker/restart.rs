//! The restart policy as arithmetic: whether an attempt follows, and after which pause.

use crate::service::spec::{Restart, RestartCondition};

/// Whether the policy wants another attempt after one that ended so.
pub(super) fn is_wanted(policy: &Restart, failed: bool) -> bool {
    match policy.condition {
        RestartCondition::Never => false,
        RestartCondition::OnFailure => failed,
        RestartCondition::Always => true,
    }
}

/// The pause before the next attempt when there were `recent` restarts since the task was last found sound, milliseconds;
/// none when the policy allows no more.
pub(super) fn delay_ms(policy: &Restart, recent: u32) -> Option<u64> {
    if policy.attempts_max != 0 && recent >= policy.attempts_max {
        return None;
    }
    let doubled = 1_u64.checked_shl(recent).unwrap_or(u64::MAX);
    Some(
        policy
            .delay_ms
            .saturating_mul(doubled)
            .min(policy.delay_max_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_longest_and_the_attempts_are_counted() {
        let policy = Restart {
            attempts_max: 8,
            ..Restart::default()
        };
        let delays: Vec<_> = (0..9).map(|recent| delay_ms(&policy, recent)).collect();
        let seconds = [1, 2, 4, 8, 16, 32, 60, 60].map(|seconds| Some(seconds * 1_000));
        assert_eq!(delays[..8], seconds);
        assert_eq!(delays[8], None);
    }

    #[test]
    fn without_a_bound_it_goes_on_for_ever() {
        let policy = Restart {
            attempts_max: 0,
            ..Restart::default()
        };
        assert_eq!(delay_ms(&policy, 1_000_000), Some(60_000));
    }
}
