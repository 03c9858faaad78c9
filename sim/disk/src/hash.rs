//! The rolling hash over every call: two runs of one seed must agree on it.
//!
//! Order matters, lengths are part of the hash. It finds accidents, not attackers.

/// A 64-bit rolling hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpHash(u64);

impl OpHash {
    /// Mixes one number in.
    pub(crate) fn add(&mut self, x: u64) {
        let folded = u128::from(self.0 ^ x ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
        self.0 = (folded as u64) ^ ((folded >> 64) as u64) ^ self.0.rotate_left(23);
    }

    /// Mixes bytes in, and how many there were.
    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    /// The hash so far.
    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// The hash of `bytes` alone: a fast one, because everything that is written passes through it.
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_length_count() {
        let of = |parts: &[&[u8]]| {
            let mut h = OpHash::default();
            parts.iter().for_each(|p| h.add_bytes(p));
            h.value()
        };
        assert_ne!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"ab", b""]), of(&[b"a", b"b"]));
        assert_ne!(of(&[b"\0"]), of(&[b"\0\0"]));
        assert_eq!(of(&[b"same"]), of(&[b"same"]));
    }
}
