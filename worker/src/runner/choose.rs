//! Rank 0 with the logits in its hands: tokens for the rows that are sampled, likelihoods where wanted.

use std::time::Instant;

use proto::worker;

use crate::batch::{Batch, Sample, Score};
use crate::model::Fault;
use crate::runner::Outcome;
use crate::sampler::{Likelihood, NotANumber, Sampler};

/// What is still to be done of a step, and what came of the rest.
pub(super) struct Choosing<'a> {
    sampler: &'a mut Sampler,
    samples: &'a [Sample],
    scores: &'a [Score],
    vocabulary: usize,
    outcome: Outcome,
}

impl<'a> Choosing<'a> {
    pub(super) fn new(sampler: &'a mut Sampler, batch: &'a Batch, vocabulary: usize) -> Self {
        let outcome = Outcome::default();
        Self { sampler, samples: &batch.samples, scores: &batch.scores, vocabulary, outcome }
    }

    /// Takes in the next rows whose logits were wanted.
    pub(super) fn take(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), Fault> {
        let begun = Instant::now();
        for (&row, logits) in rows.iter().zip(logits.chunks_exact(self.vocabulary)) {
            self.row(row, logits).map_err(|NotANumber| Fault::Numeric { row })?;
        }
        self.outcome.sampling += begun.elapsed();
        Ok(())
    }

    fn row(&mut self, row: usize, logits: &[f32]) -> Result<(), NotANumber> {
        if let Some((score, rest)) = self.scores.split_first()
            && score.row == row
        {
            self.scores = rest;
            let likelihood = Likelihood::of(logits, score.target, score.top)?;
            self.outcome.likelihoods.push(likelihood);
        }
        if let Some((sample, rest)) = self.samples.split_first()
            && sample.row == row
        {
            self.samples = rest;
            let Sample { sampling, position, adjustment, top, .. } = sample;
            let token = match adjustment {
                None => self.sampler.sample(logits, sampling, *position)?,
                Some(bent) => self.sampler.sample_adjusted(logits, bent, sampling, *position)?,
            };
            self.outcome.tokens.push(token);
            if let Some(top) = *top {
                self.outcome.likelihoods.push(Likelihood::of(logits, token, top)?);
            }
        }
        Ok(())
    }

    /// What came of it.
    pub(super) fn end(self) -> Outcome {
        self.outcome
    }
}

pub(super) fn to_wire(likelihood: Likelihood) -> worker::Likelihood {
    let (top_tokens, top_logprobs) = likelihood.likeliest.into_iter().unzip();
    worker::Likelihood { logprob: likelihood.logprob, top_tokens, top_logprobs }
}
