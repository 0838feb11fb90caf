//! From a row of logits to a token.
//!
//! In this order, each on what the one before left:
//! 1. *temperature* divides the logits; 0 takes the likeliest token, of equals the one with the
//!    lowest id, and ends here;
//! 2. *top-k* keeps the k likeliest;
//! 3. *top-p* keeps the fewest of the likeliest whose probabilities come to at least `top_p`;
//! 4. *min-p* keeps those at least `min_p` times as likely as the likeliest;
//! 5. one of the rest is drawn in proportion to its probability.
//!
//! The draw is a function of (seed, position) and of the logits' bits alone: no state, no clock, no
//! library's `exp` (they differ between machines), sums in f64 in a fixed order. So a token is the
//! same whichever machine draws it and however often it is drawn again.

use crate::batch::Sampling;

/// Weights are sorted into buckets by their leading bits, 8 buckets to a factor of 2; the bits of 1,
/// the largest weight, give the last bucket.
const BUCKET_SHIFT: u32 = 20;
const BUCKETS: usize = (0x3f80_0000 >> BUCKET_SHIFT) + 1;

/// Running sums and maxima side by side, as many as make the loop vectorise.
const LANES: usize = 16;

/// The logits hold a NaN or +∞, or nothing but −∞: no token can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the logits hold a NaN or an infinity")]
pub struct NotANumber;

/// Draws tokens; holds nothing but its working memory.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Weight of each token, `exp((logit − largest) / temperature)`: its likelihood over that of the
    /// likeliest.
    weights: Vec<f32>,
    buckets: Vec<Bucket>,
    /// Tokens of one bucket, then those that are kept.
    members: Vec<u32>,
}

/// Tokens of nearly the same weight.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    count: usize,
    sum: f64,
}

/// The last of the tokens that are kept: the likelier ones, of equals those with lower ids.
#[derive(Debug, Clone, Copy)]
struct Last {
    weight: f32,
    id: u32,
}

impl Last {
    const ALL: Self = Self { weight: 0.0, id: u32::MAX };

    fn cuts_nothing(self) -> bool {
        self.weight == 0.0 && self.id == u32::MAX
    }

    fn keeps(self, id: u32, weight: f32) -> bool {
        weight > self.weight || (weight == self.weight && id <= self.id)
    }
}

impl Sampler {
    /// The token that follows, at `position` of its sequence. A logit of −∞ is a token that may not be.
    ///
    /// # Errors
    /// [`NotANumber`].
    pub fn sample(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<u32, NotANumber> {
        let largest = largest(logits).ok_or(NotANumber)?;
        if sampling.temperature == 0.0 || sampling.top_k == 1 {
            return logits.iter().position(|&l| l == largest).map(token).ok_or(NotANumber);
        }
        self.weights.clear();
        let weight = |&logit: &f32| exp((logit - largest) / sampling.temperature);
        self.weights.extend(logits.iter().map(weight));
        let last = self.keep(sampling);
        let at = unit(sampling.seed, position);
        if last.cuts_nothing() {
            return Ok(draw(0..token(logits.len()), &self.weights, at));
        }
        self.members.clear();
        let kept = (0..).zip(&self.weights).filter(|&(id, &weight)| last.keeps(id, weight));
        self.members.extend(kept.map(|(id, _)| id));
        Ok(draw(self.members.iter().copied(), &self.weights, at))
    }

    /// What top-k, top-p and min-p leave.
    fn keep(&mut self, sampling: &Sampling) -> Last {
        let mut last = Last::ALL;
        let top_k = sampling.top_k as usize;
        if top_k > 0 && top_k < self.weights.len() {
            last = self.fewest(last, |count, _| count >= top_k);
        }
        if sampling.top_p < 1.0 {
            last = self.fewest(last, |_, part| part >= f64::from(sampling.top_p));
        }
        if sampling.min_p > last.weight {
            last = Last { weight: sampling.min_p, id: u32::MAX };
        }
        last
    }

    /// The fewest of the likeliest tokens that are `enough`, given how many they are and what part of
    /// all kept so far they weigh. Only the bucket in which they end is sorted.
    fn fewest(&mut self, kept: Last, enough: impl Fn(usize, f64) -> bool) -> Last {
        self.fill_buckets(kept);
        let total: f64 = self.buckets.iter().map(|bucket| bucket.sum).sum();
        let enough = |count, sum: f64| enough(count, sum / total);
        let (mut count, mut sum) = (0, 0.0);
        for (index, bucket) in self.buckets.iter().enumerate().rev() {
            if bucket.count > 0 && enough(count + bucket.count, sum + bucket.sum) {
                return self.end_within(index, kept, |within, weight| {
                    enough(count + within, sum + weight)
                });
            }
            count += bucket.count;
            sum += bucket.sum;
        }
        kept
    }

    fn fill_buckets(&mut self, kept: Last) {
        self.buckets.clear();
        self.buckets.resize(BUCKETS, Bucket::default());
        for (id, &weight) in (0..).zip(&self.weights) {
            if kept.keeps(id, weight) {
                let bucket = &mut self.buckets[bucket_of(weight)];
                bucket.count += 1;
                bucket.sum += f64::from(weight);
            }
        }
    }

    fn end_within(
        &mut self,
        bucket: usize,
        kept: Last,
        enough: impl Fn(usize, f64) -> bool,
    ) -> Last {
        let Self { weights, members, .. } = self;
        let weight_of = |id: u32| weights[id as usize];
        let inside =
            |&id: &u32| bucket_of(weight_of(id)) == bucket && kept.keeps(id, weight_of(id));
        members.clear();
        members.extend((0..token(weights.len())).filter(inside));
        // weights are not negative, so that their bits are in their order
        members.sort_unstable_by_key(|&id| (!weight_of(id).to_bits(), id));
        let mut sum = 0.0;
        let mut last = kept;
        for (index, &id) in members.iter().enumerate() {
            sum += f64::from(weight_of(id));
            last = Last { weight: weight_of(id), id };
            if enough(index + 1, sum) {
                break;
            }
        }
        last
    }
}

/// The one of `tokens` in whose stretch of their weights, end to end, the point `at` of `0..1` falls.
fn draw(tokens: impl Iterator<Item = u32> + Clone, weights: &[f32], at: f64) -> u32 {
    let weight_of = |id: u32| f64::from(weights[id as usize]);
    let target = at * tokens.clone().map(weight_of).sum::<f64>();
    let mut so_far = 0.0;
    let mut drawn = 0;
    for id in tokens {
        if weight_of(id) > 0.0 {
            so_far += weight_of(id);
            drawn = id;
            if target < so_far {
                break;
            }
        }
    }
    drawn
}

/// The highest logit, unless one of them is no number or all are −∞.
fn largest(logits: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut sound = [true; LANES];
    for chunk in logits.chunks(LANES) {
        for ((lane, sound), &logit) in lanes.iter_mut().zip(&mut sound).zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
            *sound &= logit < f32::INFINITY; // false for a NaN too
        }
    }
    let largest = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (sound.iter().all(|&sound| sound) && largest > f32::NEG_INFINITY).then_some(largest)
}

fn bucket_of(weight: f32) -> usize {
    (weight.to_bits() >> BUCKET_SHIFT) as usize
}

fn token(id: usize) -> u32 {
    u32::try_from(id).expect("a vocabulary has fewer than 2³² tokens")
}

/// A number in `0..1` of 53 random bits: two rounds of the `SplitMix64` finaliser over seed and position.
fn unit(seed: u64, position: u32) -> f64 {
    let bits = mix(mix(seed).wrapping_add(u64::from(position))) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let numerator = bits as f64;
    numerator / 9_007_199_254_740_992.0
}

/// One step of `SplitMix64`: every bit of the result depends on every bit of the seed.
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// `eˣ` for x ≤ 0, of additions and multiplications only: the same bits on every machine, and a loop
/// over it vectorises. Within 3 units in the last place; 0 below −87, where f32 has no room left.
fn exp(x: f32) -> f32 {
    /// Added to a small number, leaves it rounded to an integer in the lowest bits: 1.5 × 2²³.
    const ROUND: f32 = 12_582_912.0;
    let small = if x > -87.0 { x } else { -87.0 };
    let shifted = small * std::f32::consts::LOG2_E + ROUND;
    let twos = shifted - ROUND;
    // ln 2 in two parts, so that the rest keeps its low bits
    let rest = (small - twos * 0.693_359_4) - twos * -2.121_944_4e-4;
    let mut power = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = power * rest + coefficient;
    }
    // 2 to that integer: its low bits, moved to where f32 has its exponent
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { power * scale }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampling() -> Sampling {
        Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 7 }
    }

    fn sample(logits: &[f32], sampling: Sampling, position: u32) -> u32 {
        Sampler::default().sample(logits, &sampling, position).unwrap()
    }

    /// Logits that look like a model's: one hill, a long tail, ties among them.
    fn hill(count: usize) -> Vec<f32> {
        (0..count).map(|id| 12.0 - ((id * 7919) % count) as f32 / 8.0).map(f32::floor).collect()
    }

    /// Whether the counts of many draws are near what they should be: the chi-square statistic, of
    /// at most 4 degrees of freedom here, is above 20 once in two thousand honest trials.
    fn assert_distributed(logits: &[f32], sampling: Sampling, expected: &[f64]) {
        let draws = 40_000;
        let mut counts = vec![0_u32; logits.len()];
        let mut sampler = Sampler::default();
        for position in 0..draws {
            counts[sampler.sample(logits, &sampling, position).unwrap() as usize] += 1;
        }
        let mut distance = 0.0;
        for (&count, &probability) in counts.iter().zip(expected) {
            let wanted = probability * f64::from(draws);
            if probability > 0.0 {
                distance += (f64::from(count) - wanted).powi(2) / wanted;
            } else {
                assert_eq!(count, 0, "drawn although cut off: {sampling:?}");
            }
        }
        assert!(distance < 20.0, "{distance}: {counts:?} for {expected:?}, {sampling:?}");
    }

    fn softmax(logits: &[f32], temperature: f64, kept: &[usize]) -> Vec<f64> {
        let weight = |id: usize| {
            if kept.contains(&id) { (f64::from(logits[id]) / temperature).exp() } else { 0.0 }
        };
        let total: f64 = (0..logits.len()).map(weight).sum();
        (0..logits.len()).map(|id| weight(id) / total).collect()
    }

    #[test]
    fn draws_are_distributed_as_the_softmax_says() {
        let logits = [0.5, -1.0, 2.0, 0.0, 1.5];
        for seed in 0..4 {
            let with = Sampling { seed, ..sampling() };
            assert_distributed(&logits, with, &softmax(&logits, 1.0, &[0, 1, 2, 3, 4]));
            let warm = Sampling { temperature: 1.7, ..with };
            assert_distributed(&logits, warm, &softmax(&logits, 1.7, &[0, 1, 2, 3, 4]));
            let three = Sampling { top_k: 3, ..with };
            assert_distributed(&logits, three, &softmax(&logits, 1.0, &[0, 2, 4]));
            // probabilities 0.12 0.03 0.52 0.07 0.32 (of 1.06): 2 and 4 come to 0.79
            let nucleus = Sampling { top_p: 0.75, ..with };
            assert_distributed(&logits, nucleus, &softmax(&logits, 1.0, &[2, 4]));
            // at least a fifth as likely as token 2: within ln 5 = 1.61 of its logit
            let near = Sampling { min_p: 0.2, ..with };
            assert_distributed(&logits, near, &softmax(&logits, 1.0, &[0, 2, 4]));
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_only() {
        let logits = hill(5000);
        let mut sampler = Sampler::default();
        let with = Sampling { top_p: 0.9, ..sampling() };
        let first: Vec<u32> =
            (0..50).map(|at| sampler.sample(&logits, &with, at).unwrap()).collect();
        let backwards: Vec<u32> =
            (0..50).rev().map(|at| sample(&logits, with, at)).collect::<Vec<_>>();
        assert!(first.iter().eq(backwards.iter().rev()));
        let other: Vec<u32> =
            (0..50).map(|at| sample(&logits, Sampling { seed: 8, ..with }, at)).collect();
        assert_ne!(first, other);
    }

    #[test]
    fn every_extreme_that_means_greedy_is_greedy() {
        let mut logits = hill(3000);
        logits[1234] = 40.0;
        for extreme in [
            Sampling { temperature: 0.0, ..sampling() },
            Sampling { temperature: 1e-6, ..sampling() },
            Sampling { temperature: f32::from_bits(1), ..sampling() },
            Sampling { top_k: 1, temperature: 5.0, ..sampling() },
            Sampling { top_p: 1e-30, temperature: 5.0, ..sampling() },
            Sampling { min_p: 1.0, temperature: 5.0, ..sampling() },
        ] {
            for position in 0..20 {
                assert_eq!(sample(&logits, extreme, position), 1234, "{extreme:?}");
            }
        }
    }

    #[test]
    fn of_equals_the_lowest_id_is_the_likeliest() {
        assert_eq!(sample(&[1.0, 3.0, 3.0], Sampling { temperature: 0.0, ..sampling() }, 0), 1);
        assert_eq!(sample(&[-0.0, 0.0], Sampling { temperature: 0.0, ..sampling() }, 0), 0);
        let even = vec![2.0; 700];
        for position in 0..50 {
            let five = Sampling { top_k: 5, ..sampling() };
            assert!(sample(&even, five, position) < 5);
            // two thousandths of 700 equals are the first two
            let two = Sampling { top_p: 0.0021, ..sampling() };
            assert!(sample(&even, two, position) < 2);
        }
    }

    #[test]
    fn a_nucleus_of_half_the_vocabulary_is_half_the_vocabulary() {
        let even = vec![0.0; 4000];
        let half = Sampling { top_p: 0.5, ..sampling() };
        let drawn: Vec<u32> = (0..500).map(|at| sample(&even, half, at)).collect();
        assert!(drawn.iter().all(|&id| id < 2000));
        assert!(drawn.iter().any(|&id| id > 1500));
    }

    #[test]
    fn a_token_of_minus_infinity_is_never_drawn() {
        let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0];
        for with in [sampling(), Sampling { top_k: 4, ..sampling() }] {
            for position in 0..200 {
                assert!(matches!(sample(&logits, with, position), 1 | 3));
            }
        }
    }

    #[test]
    fn what_is_not_a_number_gives_no_token() {
        for logits in [
            vec![0.0, f32::NAN],
            vec![f32::NAN, 0.0],
            vec![f32::INFINITY, 0.0],
            vec![f32::NEG_INFINITY; 3],
            vec![],
        ] {
            for temperature in [0.0, 1.0] {
                let with = Sampling { temperature, ..sampling() };
                assert_eq!(Sampler::default().sample(&logits, &with, 0), Err(NotANumber));
            }
        }
    }

    #[test]
    fn the_exponential_is_close() {
        for step in 0..8600 {
            let x = -(step as f32) / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 4e-7, "exp({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    /// The same by sorting everything.
    fn kept_by_sorting(weights: &[f32], sampling: &Sampling) -> Vec<u32> {
        let weight_of = |id: &u32| weights[*id as usize];
        let mut order: Vec<u32> = (0..token(weights.len())).collect();
        order.sort_by(|a, b| weight_of(b).total_cmp(&weight_of(a)).then(a.cmp(b)));
        if sampling.top_k > 0 {
            order.truncate(sampling.top_k as usize);
        }
        let total: f64 = order.iter().map(|id| f64::from(weight_of(id))).sum();
        let mut sum = 0.0;
        let mut count = 0;
        while count < order.len() && (count == 0 || sum / total < f64::from(sampling.top_p)) {
            sum += f64::from(weight_of(&order[count]));
            count += 1;
        }
        if sampling.top_p < 1.0 {
            order.truncate(count);
        }
        order.retain(|id| weight_of(id) >= sampling.min_p);
        order.sort_unstable();
        order
    }

    proptest! {
        #[test]
        fn buckets_cut_where_sorting_would(
            logits in prop::collection::vec(prop_oneof![-20_f32..0.0, Just(-1.5)], 1..400),
            temperature in 0.2_f32..3.0,
            top_p in prop_oneof![0.01_f32..1.0, Just(1.0)],
            top_k in 0_u32..50,
            min_p in prop_oneof![0.0_f32..1.0, Just(0.0)],
        ) {
            let with = Sampling { temperature, top_p, top_k, min_p, seed: 1 };
            let mut sampler = Sampler::default();
            let largest = largest(&logits).unwrap();
            sampler.weights = logits.iter().map(|l| exp((l - largest) / temperature)).collect();
            let last = sampler.keep(&with);
            let kept: Vec<u32> = (0..)
                .zip(&sampler.weights)
                .filter(|&(id, &weight)| last.keeps(id, weight))
                .map(|(id, _)| id)
                .collect();
            prop_assert_eq!(kept, kept_by_sorting(&sampler.weights, &with));
        }
    }
}
