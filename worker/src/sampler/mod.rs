//! From a row of logits to a token.
//!
//! In this order, each on what the one before left:
//! 1. *bias* is added to the logits of the tokens that are named;
//! 2. *banned* tokens get a logit of −∞;
//! 3. the *repetition penalty* divides the logits over 0, and multiplies the others, of all tokens
//!    that the sequence has, prompt and answer;
//! 4. the *presence penalty* is taken off the logits of all tokens of the answer, and the *frequency
//!    penalty* once for each time that they are there;
//! 5. *temperature* divides the logits; 0 takes the likeliest token, of equals the one with the
//!    lowest id, and ends here;
//! 6. *top-k* keeps the k likeliest;
//! 7. *top-p* keeps the fewest of the likeliest whose probabilities come to at least `top_p`;
//! 8. *min-p* keeps those at least `min_p` times as likely as the likeliest;
//! 9. one of the rest is drawn in proportion to its probability.
//!
//! How likely a token was ([`Likelihood`]) is told of the model's own logits, before all of these.
//!
//! The draw is a function of (seed, position) and of the logits' bits alone: no state, no clock, no
//! library's `exp` (they differ between machines), sums in f64 in a fixed order. So a token is the
//! same whichever machine draws it and however often it is drawn again.

mod adjust;
mod cut;
mod draw;
mod exponential;
mod likelihood;

use crate::batch::{Adjustment, Sampling};
use crate::sampler::cut::Bucket;
use crate::sampler::draw::{draw, unit};
use crate::sampler::exponential::exp;
pub use crate::sampler::likelihood::Likelihood;
pub(crate) use crate::sampler::likelihood::{highest, likeliest};

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
    /// A row of logits, adjusted.
    adjusted: Vec<f32>,
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
        // How many are kept is another number each time.
        self.members.reserve(self.weights.len());
        let kept = (0..).zip(&self.weights).filter(|&(id, &weight)| last.keeps(id, weight));
        self.members.extend(kept.map(|(id, _)| id));
        Ok(draw(self.members.iter().copied(), &self.weights, at))
    }

    /// Logits of tokens from `first` on, adjusted.
    pub(crate) fn bent<'a>(
        &'a mut self,
        logits: &'a [f32],
        first: usize,
        adjustment: Option<&Adjustment>,
    ) -> &'a [f32] {
        let Some(adjustment) = adjustment else { return logits };
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        adjust::adjust(&mut self.adjusted, first, adjustment);
        &self.adjusted
    }

    /// The same as [`Sampler::sample`], of logits that are adjusted first.
    ///
    /// # Errors
    /// [`NotANumber`], also when every token is banned.
    pub fn sample_adjusted(
        &mut self,
        logits: &[f32],
        adjustment: &Adjustment,
        sampling: &Sampling,
        position: u32,
    ) -> Result<u32, NotANumber> {
        let mut adjusted = std::mem::take(&mut self.adjusted);
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        adjust::adjust(&mut adjusted, 0, adjustment);
        let token = self.sample(&adjusted, sampling, position);
        self.adjusted = adjusted;
        token
    }
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

fn token(id: usize) -> u32 {
    u32::try_from(id).expect("a vocabulary has fewer than 2³² tokens")
}

#[cfg(test)]
mod tests;
