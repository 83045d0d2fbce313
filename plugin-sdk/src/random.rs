// SPDX-License-Identifier: Apache-2.0
//! Chance for routing plugins, drawn from the seed that the host gives with each call, and hashes that are the same in every
//! process.

/// Numbers drawn from a seed: Vigna's `SplitMix64`. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `bound`, 0 for a bound of 0. The bias of the multiplication is at most `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

/// A hash of several texts in order: FNV-1a with a finish, so that texts that are alike are far apart. Not for secrets.
#[must_use]
pub fn hash(texts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        // A byte that is in no text keeps ["ab", "c"] and ["a", "bc"] apart.
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    mixed(hash)
}

fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_the_same_for_a_seed() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<_, 4, _>(|_| random.below(10))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(Random::new(1).below(0), 0);
        let mut seen = [0_u32; 8];
        (0..8_000).for_each(|seed| seen[usize::try_from(Random::new(seed).below(8)).unwrap()] += 1);
        assert!(seen.iter().all(|count| count.abs_diff(1_000) < 150), "{seen:?}");
    }

    #[test]
    fn hashes_tell_texts_and_their_borders_apart() {
        assert_eq!(hash(&["a", "bc"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a", "bc"]), hash(&["ab", "c"]));
        let low = (0..1_000).filter(|number| hash(&[&number.to_string()]) < u64::MAX / 2).count();
        assert!(low.abs_diff(500) < 60, "{low}");
    }
}
