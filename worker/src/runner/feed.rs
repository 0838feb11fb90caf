//! What a step sampled, for the step after it: that may have been sent before anybody but rank 0 knew it.

use crate::batch::Batch;
use crate::collective::Collective;
use crate::model::{During as _, Fault, Operation, StepError};

/// The tokens of the last step, and working memory.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// On rank 0: what the last step sampled, in order.
    sampled: Vec<u32>,
    sums: Vec<f64>,
}

impl Feed {
    /// A step is done, and sampled these.
    pub(super) fn keep(&mut self, sampled: &[u32]) {
        self.sampled.clear();
        self.sampled.extend_from_slice(sampled);
    }

    /// Puts the tokens that a batch follows into it. Rank 0 has them; the other ranks hear of them in a sum
    /// to which they bring zeros, and which is exact: a token has far fewer than 53 bits.
    ///
    /// # Errors
    /// A peer that did not come, or a sum that is no token of the vocabulary.
    pub(super) fn tell(
        &mut self,
        c: &mut dyn Collective,
        batch: &mut Batch,
        vocabulary: usize,
    ) -> Result<(), StepError> {
        let Self { sampled, sums } = self;
        if batch.fed.is_empty() {
            return Ok(());
        }
        sums.clear();
        let first = c.rank() == 0;
        let own = |place: usize| if first { f64::from(sampled[place]) } else { 0.0 };
        sums.extend(batch.fed.iter().map(|fed| own(fed.place)));
        if c.world() > 1 {
            c.all_reduce(sums).during(Operation::Feed)?;
        }
        let mut samples = batch.samples.iter_mut();
        for (fed, sum) in batch.fed.iter().zip(sums.iter()) {
            let row = fed.row;
            let token = token(*sum, vocabulary).ok_or(Fault::Numeric { row });
            let token = token.during(Operation::Feed)?;
            batch.tokens[row] = token;
            let sample = samples.find(|sample| sample.row == row);
            if let Some(adjustment) = sample.and_then(|sample| sample.adjustment.as_mut()) {
                adjustment.follow(token);
            }
        }
        Ok(())
    }
}

/// The token that a sum stands for.
fn token(sum: f64, vocabulary: usize) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is compared with the sum afterwards"
    )]
    let token = sum as u32;
    (f64::from(token) == sum && (token as usize) < vocabulary).then_some(token)
}
