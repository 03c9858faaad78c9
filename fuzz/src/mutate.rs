//! Where the bytes come from: drawn at random, or a valid sample with a few things changed.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Numbers that break arithmetic.
const NUMBERS: [u64; 9] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

/// Most changes to one sample.
const CHANGES_MAX: usize = 6;

/// The stream of one iteration.
pub struct Source {
    rng: ChaCha8Rng,
}

impl Source {
    /// The stream that belongs to these three and to nothing else.
    pub fn new(target: &str, seed: u64, iteration: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&iteration.to_le_bytes());
        for (at, byte) in target.bytes().enumerate() {
            key[16 + at % 16] = key[16 + at % 16].wrapping_mul(31).wrapping_add(byte);
        }
        Source {
            rng: ChaCha8Rng::from_seed(key),
        }
    }

    /// A number below `bound`; zero when `bound` is.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            0
        } else {
            self.rng.random_range(0..bound)
        }
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Up to `len_max` bytes, short ones more often than long ones.
    pub fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let bound = self.below(len_max) + 1;
        let mut bytes = vec![0; self.below(bound)];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// One of `samples` with a few changes, or now and then bytes that are nothing at all.
    pub fn mutated<S: AsRef<[u8]>>(&mut self, samples: &[S]) -> Vec<u8> {
        if samples.is_empty() || self.one_in(10) {
            return self.bytes(300);
        }
        let which = self.below(samples.len());
        let mut bytes = samples[which].as_ref().to_vec();
        let bound = self.below(CHANGES_MAX) + 1; // Few changes more often than many.
        for _ in 0..=self.below(bound) {
            self.change(&mut bytes);
        }
        bytes
    }

    /// One of `samples` changed as a person or a broken editor would: words and lines go astray.
    pub fn mutated_text(&mut self, samples: &[&str], words: &[&str]) -> String {
        let which = self.below(samples.len());
        let mut text = samples[which].to_owned();
        let bound = self.below(CHANGES_MAX) + 1; // Few changes more often than many.
        for _ in 0..=self.below(bound) {
            text = match self.below(4) {
                0 => self.without_line(&text),
                1 => self.line_twice(&text),
                2 => self.with_word(&text, words),
                _ => {
                    let mut bytes = text.into_bytes();
                    self.change(&mut bytes);
                    String::from_utf8_lossy(&bytes).into_owned()
                }
            };
        }
        text
    }

    /// One change.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let len = self.below((bytes.len() - at).min(64) + 1);
        match self.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let copy = bytes[at..at + len].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            5 => self.write_number(bytes, at),
            _ => {
                let more = self.bytes(40);
                bytes.splice(at..at, more);
            }
        }
    }

    /// Writes a number that breaks arithmetic, of a random width.
    fn write_number(&mut self, bytes: &mut [u8], at: usize) {
        let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
        let width = [1, 2, 4, 8][self.below(4)];
        for (to, from) in bytes[at..].iter_mut().zip(&number[..width]) {
            *to = *from;
        }
    }

    fn without_line(&mut self, text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        let at = self.below(lines.len());
        if at < lines.len() {
            lines.remove(at);
        }
        lines.join("\n")
    }

    fn line_twice(&mut self, text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        let from = self.below(lines.len());
        let to = self.below(lines.len() + 1);
        if let Some(line) = lines.get(from).copied() {
            lines.insert(to, line);
        }
        lines.join("\n")
    }

    /// `text` with a word in the place of another one.
    fn with_word(&mut self, text: &str, words: &[&str]) -> String {
        let starts: Vec<(usize, &str)> = text
            .split_whitespace()
            .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
            .collect();
        let (Some((at, old)), Some(new)) = (
            starts.get(self.below(starts.len())),
            words.get(self.below(words.len())),
        ) else {
            return text.to_owned();
        };
        format!("{}{new}{}", &text[..*at], &text[at + old.len()..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_repeats_itself_and_differs_from_its_neighbours() {
        let draw = |target, seed, iteration| Source::new(target, seed, iteration).bytes(1 << 20);
        assert_eq!(draw("a", 1, 2), draw("a", 1, 2));
        for other in [draw("b", 1, 2), draw("a", 2, 2), draw("a", 1, 3)] {
            assert_ne!(draw("a", 1, 2), other);
        }
    }

    #[test]
    fn samples_are_changed_in_many_ways_without_a_panic() {
        let mut shorter = 0;
        let mut longer = 0;
        for iteration in 0..2_000 {
            let mut source = Source::new("test", 0, iteration);
            let bytes = source.mutated(&[b"0123456789".as_slice(), b""]);
            shorter += usize::from(bytes.len() < 10);
            longer += usize::from(bytes.len() > 10);
            source.mutated_text(&["a = 1\nb = \u{e4}\n", ""], &["[["]);
        }
        assert!(
            shorter > 100 && longer > 100,
            "{shorter} shorter, {longer} longer"
        );
    }
}
