//! How likely tokens are, by the model's own logits.
//!
//! The weights of all tokens are added as whole multiples of 2⁻⁴⁰: exact sums, so that a
//! log-probability does not depend on the order in which, or by whom, they are added.

use crate::sampler::exponential::{exp, ln};
use crate::sampler::{NotANumber, largest, token};

/// Weights are counted in these: 2⁴⁰ to the weight of the likeliest token. 2²⁴ such sums fit in 64 bits.
const GRID: f64 = (1_u64 << 40) as f64;

/// How likely a token was, and which were likeliest there.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// The natural logarithm of its probability; finite.
    pub logprob: f32,
    /// The likeliest tokens with theirs, the likeliest first, of equals the one with the lowest id.
    pub likeliest: Vec<(u32, f32)>,
}

impl Likelihood {
    /// How likely `chosen` is by `logits`, beside the `top` likeliest.
    ///
    /// # Errors
    /// [`NotANumber`].
    pub fn of(logits: &[f32], chosen: u32, top: usize) -> Result<Self, NotANumber> {
        let largest = largest(logits).ok_or(NotANumber)?;
        #[expect(clippy::cast_precision_loss, reason = "rounded the same way everywhere")]
        let total = logits.iter().map(|&logit| weight(logit, largest)).sum::<u64>() as f64;
        let logarithm = ln(total / GRID);
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm fits")]
        let logprob = |logit: f32| (f64::from(logit) - f64::from(largest) - logarithm) as f32;
        let mut found = Vec::new();
        likeliest(logits, top, &mut found);
        Ok(Self {
            logprob: logprob(logits[chosen as usize]),
            likeliest: found.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
        })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2⁴⁰")]
fn weight(logit: f32, largest: f32) -> u64 {
    (f64::from(exp(logit - largest)) * GRID) as u64
}

/// The highest logit, of equals the one with the lowest id; none: there are no tokens here.
pub(crate) fn highest(logits: &[f32]) -> Option<(u32, f32)> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == largest).map(|at| (token(at), largest))
}

/// `found` becomes the `count` highest logits, of equals the one with the lowest id first.
pub(crate) fn likeliest(logits: &[f32], count: usize, found: &mut Vec<(u32, f32)>) {
    found.clear();
    if count == 0 {
        return;
    }
    found.reserve(count + 1);
    for (id, &logit) in logits.iter().enumerate() {
        let full = found.len() == count;
        if full && found.last().is_some_and(|&(_, least)| logit <= least) {
            continue;
        }
        let place = found.partition_point(|&(_, other)| other >= logit);
        found.insert(place, (token(id), logit));
        found.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_likeliest_come_in_order_and_equals_by_id() {
        let logits = [1.0, 3.0, 2.0, 3.0, -1.0];
        let mut found = Vec::new();
        let mut of = |count| {
            likeliest(&logits, count, &mut found);
            found.clone()
        };
        assert_eq!(of(3), [(1, 3.0), (3, 3.0), (2, 2.0)]);
        assert_eq!(of(0), []);
        assert_eq!(of(9).len(), 5);
    }

    #[test]
    fn what_is_no_number_has_no_likelihood() {
        assert_eq!(Likelihood::of(&[0.0, f32::NAN], 0, 1), Err(NotANumber));
        assert_eq!(Likelihood::of(&[0.0, f32::INFINITY], 0, 1), Err(NotANumber));
    }

    proptest! {
        #[test]
        fn a_logprob_is_that_of_the_softmax(
            logits in prop::collection::vec(-30_f32..30.0, 1..3000),
            chosen in any::<prop::sample::Index>(),
        ) {
            let chosen = chosen.index(logits.len());
            let exact: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let exact = f64::from(logits[chosen]) - exact.ln();
            let told = Likelihood::of(&logits, token(chosen), 5).unwrap();
            let distance = (f64::from(told.logprob) - exact).abs();
            prop_assert!(distance < 4e-6 * exact.abs().max(1.0), "{} for {exact}", told.logprob);
            prop_assert!(told.likeliest.iter().all(|&(_, logprob)| logprob <= told.likeliest[0].1));
        }

        #[test]
        fn a_logprob_does_not_depend_on_the_order_of_adding(
            mut logits in prop::collection::vec(-30_f32..30.0, 2..300),
        ) {
            let first = Likelihood::of(&logits, 0, 0).unwrap();
            logits[1..].reverse();
            prop_assert_eq!(Likelihood::of(&logits, 0, 0).unwrap(), first);
        }
    }
}
