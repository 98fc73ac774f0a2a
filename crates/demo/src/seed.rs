//! Chance that repeats: the same seed and the same path of labels give the same numbers on every
//! machine and in every release, which a general-purpose generator does not promise.

/// A point in a tree of seeds. Children are named or numbered, so that adding one draw somewhere
/// changes nothing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The root of the tree.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The child of this name.
    #[must_use]
    pub fn named(self, label: &str) -> Self {
        Self(mix(self.0 ^ hash(label.as_bytes())))
    }

    /// The child of this number.
    #[must_use]
    pub fn nth(self, number: u64) -> Self {
        Self(mix(self.0 ^ mix(number.wrapping_add(STEP))))
    }

    /// Draws from here on.
    pub fn dice(self) -> Dice {
        Dice(self.0)
    }
}

/// A sequence of draws (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number from 0 to 1, 1 excluded.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    /// A whole number below `limit`; 0 when the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.bits() % limit }
    }

    /// Puts the items in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.below(at as u64 + 1) as usize;
            items.swap(at, other);
        }
    }
}

/// FNV-1a, for names and message texts.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_path_gives_the_same_numbers_for_ever() {
        let mut dice = Seed::new(42).named("fraud").nth(7).dice();
        let drawn: Vec<u64> = (0..4).map(|_| dice.below(1_000)).collect();
        assert_eq!(drawn, [992, 638, 55, 800]);
    }

    #[test]
    fn siblings_differ() {
        let root = Seed::new(1);
        assert_ne!(root.nth(0).dice().bits(), root.nth(1).dice().bits());
        assert_ne!(root.named("a").dice().bits(), root.named("b").dice().bits());
    }

    proptest::proptest! {
        #[test]
        fn draws_stay_in_their_range(seed: u64, low in -1e6..1e6_f64, width in 0.0..1e6_f64, limit in 1..1_000_u64) {
            let mut dice = Seed::new(seed).dice();
            let drawn = dice.between(low, low + width);
            proptest::prop_assert!(drawn >= low && drawn <= low + width);
            proptest::prop_assert!(dice.below(limit) < limit);
        }
    }
}
