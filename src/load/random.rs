//! Random numbers that a seed decides, the same on every machine.

/// `SplitMix64`: short, and good enough to spread load.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Of a seed, for one purpose or one request: numbers of different streams have nothing to do with
    /// each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0, included, to 1, excluded.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, which f64 holds exactly")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `0 .. bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// Exponentially spread, 1 on average.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Normally spread around 0, with 1 as standard deviation.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_as_they_say() {
        let mut random = Random::new(7, 0);
        let count = 20_000;
        let mut sums = [0.0; 4];
        for _ in 0..count {
            let normal = random.normal();
            let found = [random.unit(), random.exponential(), normal, normal * normal];
            sums.iter_mut().zip(found).for_each(|(sum, value)| *sum += value);
        }
        let means = sums.map(|sum| sum / f64::from(count));
        for (mean, expected) in means.into_iter().zip([0.5, 1.0, 0.0, 1.0]) {
            assert!((mean - expected).abs() < 0.03, "{means:?}");
        }
    }

    #[test]
    fn a_seed_decides() {
        let draw = |seed, stream| Random::new(seed, stream).next();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }
}
