//! Chance: one named ChaCha stream per purpose, so that one more draw in one place does not move all others.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// A node's randomness: a master seed from which streams are derived by name.
#[derive(Clone)]
pub struct Rngs {
    /// The master seed.
    seed: [u8; 32],
}

impl Rngs {
    /// Streams of `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Rngs { seed }
    }

    /// The stream called `name`. The same name gives the same stream, from its start.
    pub fn stream(&self, name: &str) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(xxhash_rust::xxh3::xxh3_64(name.as_bytes()));
        rng
    }
}
