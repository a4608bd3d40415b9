//! Numbers nobody can guess by accident: to spread retries and load. Not for secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Gives random numbers.
#[derive(Debug, Clone, Default)]
pub enum Random {
    /// From the system's entropy, by way of the hash maps' keys.
    #[default]
    System,
    /// The same numbers for the same seed. Clones share the sequence.
    Seeded(Arc<AtomicU64>),
}

impl Random {
    /// A sequence of its own for `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(AtomicU64::new(seed)))
    }

    /// The next number, any of 64 bits.
    pub fn next_u64(&self) -> u64 {
        match self {
            Self::System => RandomState::new().hash_one(0),
            Self::Seeded(state) => mix(state.fetch_add(STEP, Ordering::Relaxed)),
        }
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&self, end: u64) -> u64 {
        self.next_u64().checked_rem(end).unwrap_or(0)
    }
}

/// SplitMix64: a counter in steps of the golden ratio, and a mix that makes its values look independent.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_which_clones_share() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        let first: Vec<_> = (0..100).map(|_| a.next_u64()).collect();
        let clone = b.clone();
        let again: Vec<_> = (0..50)
            .flat_map(|_| [b.next_u64(), clone.next_u64()])
            .collect();
        assert_eq!(first, again);
        let different: std::collections::HashSet<_> = first.into_iter().collect();
        assert_eq!(different.len(), 100);
        assert_ne!(Random::seeded(8).next_u64(), Random::seeded(7).next_u64());
    }

    #[test]
    fn below_keeps_its_bound() {
        for random in [Random::System, Random::seeded(1)] {
            assert_eq!(random.below(0), 0);
            assert!((0..1000).all(|_| random.below(3) < 3));
        }
    }
}
