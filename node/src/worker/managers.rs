//! Where managers are, in which order they are tried, and how long to wait between two tries.

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use std::time::Duration;

/// Managers that are known. Those of the configuration always are; the others are as the cluster said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managers {
    /// Those of the configuration.
    named: Vec<String>,
    /// Those that the cluster told.
    told: Vec<String>,
}

impl Managers {
    /// Those of the configuration, and those remembered from another life.
    pub(super) fn new(named: Vec<String>, told: Vec<String>) -> Self {
        Managers { named, told }
    }

    /// The cluster says who its managers are. True when that is news; no managers at all is not believed.
    pub(super) fn tell(&mut self, managers: &[String]) -> bool {
        let is_news = !managers.is_empty() && managers != self.told;
        if is_news {
            self.told = managers.to_vec();
        }
        is_news
    }

    /// What the cluster told last.
    pub(super) fn told(&self) -> &[String] {
        &self.told
    }

    /// All, each once: what the cluster told, then the configuration's.
    fn all(&self) -> Vec<&String> {
        let mut all: Vec<&String> = Vec::new();
        for one in self.told.iter().chain(&self.named) {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }

    /// The manager at `turn`, round and round.
    pub(super) fn at(&self, turn: u64) -> String {
        let all = self.all();
        let place = turn % (all.len().max(1) as u64);
        let place = usize::try_from(place).unwrap_or_default();
        all.get(place).copied().cloned().unwrap_or_default()
    }
}

/// Pauses that double up to a bound, each drawn from its upper half: many workers that lost the same manager come back one by one.
#[derive(Debug)]
pub(super) struct Pauses {
    /// The first.
    min: Duration,
    /// The longest.
    max: Duration,
    /// The next.
    next: Duration,
    /// Chance.
    rng: ChaCha8Rng,
}

impl Pauses {
    /// Pauses from `min` to `max`.
    pub(super) fn new(min: Duration, max: Duration, rng: ChaCha8Rng) -> Self {
        Pauses {
            min,
            max,
            next: min,
            rng,
        }
    }

    /// All is well: the next pause is the first again.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next pause, `longest` at most.
    pub(super) fn draw(&mut self, longest: Duration) -> Duration {
        let whole = self.next.min(longest).as_micros();
        let whole = u64::try_from(whole).unwrap_or(u64::MAX);
        self.next = (self.next * 2).min(self.max);
        let half = whole / 2;
        Duration::from_micros(half + self.rng.next_u64() % (half + 1))
    }

    /// A number by chance, for where to begin.
    pub(super) fn any(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn all_are_tried_in_turn_and_what_the_cluster_told_is_kept() {
        let word = |text: &str| text.to_owned();
        let mut managers = Managers::new(vec![word("a:1"), word("b:1")], Vec::new());
        assert!(managers.tell(&[word("c:1"), word("a:1")]));
        assert!(!managers.tell(&[word("c:1"), word("a:1")]), "no news");
        assert!(!managers.tell(&[]), "nobody is not believed");
        let tried: Vec<String> = (0..4).map(|turn| managers.at(turn)).collect();
        assert_eq!(tried, ["c:1", "a:1", "b:1", "c:1"]);
    }

    #[test]
    fn pauses_double_within_bounds_and_start_again() {
        let ms = Duration::from_millis;
        let mut pauses = Pauses::new(ms(100), ms(1_000), ChaCha8Rng::from_seed([7; 32]));
        for bound in [100, 200, 400, 800, 1_000, 1_000] {
            let pause = pauses.draw(Duration::MAX);
            assert!(
                ms(bound) / 2 <= pause && pause <= ms(bound),
                "{pause:?} of {bound} ms"
            );
        }
        pauses.reset();
        assert!(pauses.draw(Duration::MAX) <= ms(100));
        pauses.draw(Duration::MAX);
        assert!(pauses.draw(ms(30)) <= ms(30), "somebody cannot wait longer");
    }
}
