//! How suspicious a silence is: the phi accrual detector (Hayashibara and others, 2004), for people to look at.
//!
//! phi is -log10 of the probability that a heartbeat comes even later than this, gaps being distributed normally as the last ones
//! were: phi 1 is one in ten, phi 3.52 three in ten thousand, phi 8 one in a hundred million (inventory N-X1). Nothing is
//! decided by it: a worker is marked down by a hard bound.

use std::collections::VecDeque;
use std::f64::consts::{LN_10, SQRT_2};
use std::time::Duration;

/// Gaps that are remembered.
const GAPS_MAX: usize = 200;

/// The standard deviation is never taken to be below this share of the mean: gaps that were all alike would make the first late
/// heartbeat infinitely unlikely.
const DEVIATION_SHARE_MIN: f64 = 0.1;

/// The last gaps between heartbeats of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    /// The gaps, milliseconds, oldest first.
    gaps: VecDeque<u32>,
    /// Their sum.
    sum: u64,
    /// The sum of their squares.
    squares: u64,
}

impl Gaps {
    /// One more.
    pub(super) fn add(&mut self, gap: Duration) {
        // A day is as good as forever, and its square leaves room for the sum.
        let ms = u32::try_from(gap.as_millis())
            .unwrap_or(u32::MAX)
            .min(86_400_000);
        if self.gaps.len() == GAPS_MAX
            && let Some(oldest) = self.gaps.pop_front()
        {
            self.sum -= u64::from(oldest);
            self.squares -= u64::from(oldest).pow(2);
        }
        self.gaps.push_back(ms);
        self.sum += u64::from(ms);
        self.squares += u64::from(ms).pow(2);
    }

    /// phi of a silence of this length; zero while no gap is known.
    pub(super) fn phi(&self, silence: Duration) -> f64 {
        if self.sum == 0 {
            return 0.0;
        }
        let count = self.gaps.len() as f64;
        let mean = self.sum as f64 / count;
        let variance = (self.squares as f64 / count - mean * mean).max(0.0);
        let deviation = variance.sqrt().max(mean * DEVIATION_SHARE_MIN);
        let late = (silence.as_secs_f64() * 1_000.0 - mean) / deviation;
        (-ln_upper_tail(late) / LN_10).max(0.0)
    }
}

/// The natural logarithm of the probability that a normally distributed number is more than `deviations` above its mean. Numerical
/// Recipes' `erfcc` (relative error below 1.2e-7 everywhere), kept as a logarithm so that nothing underflows.
fn ln_upper_tail(deviations: f64) -> f64 {
    const TERMS: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let z = deviations.abs() / SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let polynomial = TERMS.iter().fold(0.0, |sum, term| sum * t + term);
    let ln_tail = t.ln() - z * z + polynomial - 2.0_f64.ln();
    match deviations < 0.0 {
        true => (-ln_tail.exp()).ln_1p(),
        false => ln_tail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, wanted: f64) {
        assert!((got - wanted).abs() < 0.005, "{got} is not {wanted}");
    }

    #[test]
    fn tail_is_that_of_the_tables() {
        for (deviations, probability) in [
            (0.0, 0.5),
            (1.0, 0.158_655),
            (-1.0, 0.841_345),
            (3.431_6, 0.000_3),
            (5.612, 1.0e-8),
        ] {
            close(ln_upper_tail(deviations), f64::ln(probability));
        }
    }

    #[test]
    fn phi_eight_is_one_in_a_hundred_million() {
        let mut gaps = Gaps::default();
        for ms in [900, 1_100].repeat(50) {
            gaps.add(Duration::from_millis(ms));
        }
        close(gaps.phi(Duration::from_micros(1_561_200)), 8.0);
        close(gaps.phi(Duration::from_micros(1_343_160)), 3.52);
    }

    #[test]
    fn gaps_that_are_all_alike_make_no_infinity() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.phi(Duration::from_secs(9)), 0.0);
        gaps.add(Duration::ZERO);
        assert_eq!(gaps.phi(Duration::from_secs(9)), 0.0);
        let mut gaps = Gaps::default();
        for _ in 0..3 * GAPS_MAX {
            gaps.add(Duration::from_secs(1));
        }
        assert_eq!(gaps.gaps.len(), GAPS_MAX);
        let mut before = 0.0;
        for ms in (500..30_000).step_by(500) {
            let phi = gaps.phi(Duration::from_millis(ms));
            assert!(phi.is_finite() && phi >= before, "{phi} after {ms} ms");
            before = phi;
        }
        assert!(gaps.phi(Duration::from_secs(1)) < 0.31);
        assert!(before > 100.0);
        assert!(gaps.phi(Duration::from_secs(1_000_000)).is_finite());
    }

    #[test]
    fn old_gaps_are_forgotten() {
        let mut gaps = Gaps::default();
        gaps.add(Duration::from_secs(1_000_000_000));
        for _ in 0..GAPS_MAX {
            gaps.add(Duration::from_millis(1_000));
        }
        let mut fresh = Gaps::default();
        for _ in 0..GAPS_MAX {
            fresh.add(Duration::from_millis(1_000));
        }
        assert_eq!(gaps, fresh);
    }
}
