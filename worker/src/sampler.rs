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

use std::cmp::Ordering;

use crate::batch::Sampling;

/// Likeliest tokens looked at first where top-p or min-p has to find its own end; four times as many
/// each time they do not suffice. The nucleus of a real model is mostly smaller than this.
const NUCLEUS_GUESS: usize = 256;

/// The logits hold a NaN or +∞, or nothing but −∞: no token can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the logits hold a NaN or an infinity")]
pub struct NotANumber;

/// Draws tokens; holds nothing but its working memory.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Weight of each token, `exp((logit − largest) / temperature)`.
    weights: Vec<f32>,
    /// Token ids, the likeliest first as far as was needed.
    order: Vec<u32>,
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
        let likeliest = likeliest(logits)?;
        if sampling.temperature == 0.0 || sampling.top_k == 1 {
            return Ok(likeliest);
        }
        let largest = logits[likeliest as usize];
        let at = unit(sampling.seed, position);
        if sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0 {
            self.weigh(logits, largest, sampling.temperature);
            let total = sum(self.weights.iter().copied());
            let tokens = 0..token(logits.len());
            return Ok(draw(tokens, &self.weights, total, at));
        }
        let count = self.keep(logits, largest, sampling);
        let kept = &self.order[..count];
        let total = sum(kept.iter().map(|&id| self.weights[id as usize]));
        Ok(draw(kept.iter().copied(), &self.weights, total, at))
    }

    /// How many tokens top-k, top-p and min-p leave; they stand first in `order`, the likeliest first.
    fn keep(&mut self, logits: &[f32], largest: f32, sampling: &Sampling) -> usize {
        self.weigh(logits, largest, sampling.temperature);
        self.order.clear();
        self.order.extend(0..token(logits.len()));
        let mut count = logits.len();
        let mut sorted = 0;
        let mut among = sum(self.weights.iter().copied());
        if sampling.top_k > 0 {
            count = count.min(sampling.top_k as usize);
            sorted = count;
            self.sort_first(sorted, logits);
            among = sum(self.order[..count].iter().map(|&id| self.weights[id as usize]));
        }
        loop {
            if let Some(end) = self.end(&self.order[..sorted], among, sampling) {
                return end;
            }
            if sorted == count {
                return count;
            }
            sorted = (sorted * 4).max(NUCLEUS_GUESS).min(count);
            self.sort_first(sorted, logits);
        }
    }

    fn weigh(&mut self, logits: &[f32], largest: f32, temperature: f32) {
        self.weights.clear();
        self.weights.extend(logits.iter().map(|&logit| exp((logit - largest) / temperature)));
    }

    /// Puts the `count` likeliest in front, in order.
    fn sort_first(&mut self, count: usize, logits: &[f32]) {
        let likelier = |a: &u32, b: &u32| {
            let (first, second) = (logits[*a as usize], logits[*b as usize]);
            second.partial_cmp(&first).unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        if count < self.order.len() {
            self.order.select_nth_unstable_by(count, likelier);
        }
        self.order[..count].sort_unstable_by(likelier);
    }

    /// How many of `sorted`, the likeliest tokens in order, top-p and min-p keep, if the end is among
    /// them. `among` is the weight of all that top-p counts.
    fn end(&self, sorted: &[u32], among: f64, sampling: &Sampling) -> Option<usize> {
        let wanted =
            if sampling.top_p < 1.0 { f64::from(sampling.top_p) * among } else { f64::INFINITY };
        let mut so_far = 0.0;
        for (index, &id) in sorted.iter().enumerate() {
            // the likeliest weighs 1, so that a weight is its ratio to the likeliest
            let weight = self.weights[id as usize];
            if index > 0 && (so_far >= wanted || weight < sampling.min_p) {
                return Some(index);
            }
            so_far += f64::from(weight);
        }
        None
    }
}

/// The token with the highest logit, of equals the lowest id.
fn likeliest(logits: &[f32]) -> Result<u32, NotANumber> {
    let mut best = None;
    let mut largest = f32::NEG_INFINITY;
    let mut sound = true;
    for (id, &logit) in logits.iter().enumerate() {
        sound &= logit < f32::INFINITY; // false for a NaN too
        if logit > largest {
            largest = logit;
            best = Some(id);
        }
    }
    best.filter(|_| sound).map(token).ok_or(NotANumber)
}

/// The token in whose stretch of `0..total` the point `at × total` falls.
fn draw(tokens: impl Iterator<Item = u32>, weights: &[f32], total: f64, at: f64) -> u32 {
    let target = at * total;
    let mut so_far = 0.0;
    let mut last = 0;
    for id in tokens {
        let weight = weights[id as usize];
        if weight > 0.0 {
            so_far += f64::from(weight);
            last = id;
            if target < so_far {
                break;
            }
        }
    }
    last
}

fn sum(weights: impl Iterator<Item = f32>) -> f64 {
    weights.map(f64::from).sum()
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
    if x < -87.0 {
        return 0.0;
    }
    let twos = (x * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts, so that the rest keeps its low bits
    let rest = (x - twos * 0.693_359_4) - twos * -2.121_944_4e-4;
    let mut power = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = power * rest + coefficient;
    }
    #[expect(clippy::cast_possible_truncation, reason = "an integer from −126 to 0")]
    let exponent = twos as i32;
    #[expect(clippy::cast_sign_loss, reason = "from 1 to 127")]
    let scale = f32::from_bits(((exponent + 127) as u32) << 23);
    power * scale
}

#[cfg(test)]
mod tests {
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
    fn a_nucleus_wider_than_the_first_guess_is_found() {
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
}
