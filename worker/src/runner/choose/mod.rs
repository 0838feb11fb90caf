//! From the ranks' logits to tokens and likelihoods. Each rank has the logits of its stretch of the
//! vocabulary; rank 0 chooses.
//!
//! Where few of the likeliest tokens decide, a rank sends those alone, its *shortlist*; whole rows are
//! gathered only where a request needs them: to draw from all tokens, and to say how likely one was.

mod shortlist;

use std::time::Instant;

use proto::worker;

use crate::batch::{Batch, Sample, Score};
use crate::collective::Collective;
use crate::model::Fault;
use crate::runner::Outcome;
use crate::runner::choose::shortlist::{Shortlist, deciding};
use crate::sampler::{Likelihood, NotANumber, Sampler};

/// What is still to be done of a step, and what came of the rest.
pub(super) struct Choosing<'a> {
    sampler: &'a mut Sampler,
    samples: &'a [Sample],
    scores: &'a [Score],
    /// The first token of this rank's stretch of the vocabulary.
    first_token: usize,
    memory: &'a mut Memory,
    outcome: Outcome,
}

/// Working memory, kept from step to step.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The last whole row, if ranks had to come together for it.
    pub(super) whole: Vec<f32>,
    /// What this rank sends; then shortlists of all ranks for a row.
    message: Vec<f32>,
    parts: Vec<Vec<f32>>,
    list: Shortlist,
    likeliest: Vec<(u32, f32)>,
}

/// What is asked of a row.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    row: usize,
    score: Option<Score>,
    sample: Option<&'a Sample>,
    /// So many of the likeliest tokens decide; none: all do.
    deciding: Option<usize>,
}

impl<'a> Choosing<'a> {
    pub(super) fn new(
        sampler: &'a mut Sampler,
        batch: &'a Batch,
        first_token: usize,
        memory: &'a mut Memory,
    ) -> Self {
        let (samples, scores) = (&batch.samples, &batch.scores);
        // Leaves with the reply, so it is made anew; once, to size.
        let tokens = Vec::with_capacity(samples.len());
        let outcome = Outcome { tokens, ..Outcome::default() };
        Self { sampler, samples, scores, first_token, memory, outcome }
    }

    /// Takes in the next rows whose logits were wanted: `local` is `(rows, vocabulary of this rank)`.
    pub(super) fn take(
        &mut self,
        c: &mut dyn Collective,
        rows: &[usize],
        local: &[f32],
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        let before = c.times();
        let width = local.len() / rows.len();
        let row_of = |at: usize| &local[at * width..(at + 1) * width];
        if c.world() == 1 {
            for (at, &row) in rows.iter().enumerate() {
                let ask = self.ask(row);
                let mut short = std::mem::take(&mut self.memory.message);
                short.clear();
                self.shorten(&ask, row_of(at), &mut short);
                self.choose(&ask, row_of(at), &short)?;
                self.memory.message = short;
            }
        } else {
            let asks: Vec<Ask<'_>> = rows.iter().map(|&row| self.ask(row)).collect();
            let mut message = std::mem::take(&mut self.memory.message);
            let mut parts = std::mem::take(&mut self.memory.parts);
            message.clear();
            for (at, ask) in asks.iter().enumerate() {
                match ask.deciding {
                    Some(_) => self.shorten(ask, row_of(at), &mut message),
                    None => message.extend_from_slice(row_of(at)),
                }
            }
            c.gather(&message, &mut parts)?;
            self.memory.message = message;
            self.put_together(&asks, &parts)?;
            self.memory.parts = parts;
        }
        let after = c.times();
        let waited = (after.transfer + after.wait).saturating_sub(before.transfer + before.wait);
        self.outcome.sampling += begun.elapsed().saturating_sub(waited);
        Ok(())
    }

    /// Takes what is asked of the next row.
    fn ask(&mut self, row: usize) -> Ask<'a> {
        let score = self.scores.split_first().filter(|(score, _)| score.row == row);
        let sample = self.samples.split_first().filter(|(sample, _)| sample.row == row);
        self.scores = score.map_or(self.scores, |(_, rest)| rest);
        self.samples = sample.map_or(self.samples, |(_, rest)| rest);
        let (score, sample) = (score.map(|(score, _)| *score), sample.map(|(sample, _)| sample));
        let deciding = sample.filter(|_| score.is_none()).and_then(deciding);
        Ask { row, score, sample, deciding }
    }

    /// Appends this rank's shortlist for a row; nothing where all of its tokens count.
    fn shorten(&mut self, ask: &Ask<'_>, local: &[f32], out: &mut Vec<f32>) {
        if let (Some(count), Some(sample)) = (ask.deciding, ask.sample) {
            let adjustment = sample.adjustment.as_ref();
            let bent = self.sampler.bent(local, self.first_token, adjustment);
            let likeliest = &mut self.memory.likeliest;
            shortlist::push((local, bent), self.first_token, count, likeliest, out);
        }
    }

    /// Every row of all ranks' parts, which rank 0 alone has.
    fn put_together(&mut self, asks: &[Ask<'_>], parts: &[Vec<f32>]) -> Result<(), Fault> {
        if parts.is_empty() {
            return Ok(());
        }
        let short: usize = asks.iter().filter_map(|ask| ask.deciding).map(Shortlist::length).sum();
        let whole = asks.iter().filter(|ask| ask.deciding.is_none()).count();
        let mut parts: Vec<(&[f32], usize)> = parts
            .iter()
            .map(|part| (part.as_slice(), part.len().saturating_sub(short) / whole.max(1)))
            .collect();
        let mut row = std::mem::take(&mut self.memory.whole);
        let mut lists = std::mem::take(&mut self.memory.message);
        for ask in asks {
            lists.clear();
            row.clear();
            for (part, width) in &mut parts {
                let length = ask.deciding.map_or(*width, Shortlist::length);
                let (own, rest) = part.split_at(length);
                *part = rest;
                if ask.deciding.is_some() { &mut lists } else { &mut row }.extend_from_slice(own);
            }
            self.choose(ask, &row, &lists)?;
        }
        self.memory.whole = row;
        self.memory.message = lists;
        Ok(())
    }

    /// What is asked of a row, from the shortlists of all ranks or from all of its logits.
    fn choose(&mut self, ask: &Ask<'_>, logits: &[f32], lists: &[f32]) -> Result<(), Fault> {
        let wrong = |NotANumber| Fault::Numeric { row: ask.row };
        if let (Some(count), Some(sample)) = (ask.deciding, ask.sample) {
            let list = &mut self.memory.list;
            list.merge(lists, count).map_err(wrong)?;
            let at = self.sampler.sample(&list.logits, &sample.sampling, sample.position);
            self.outcome.tokens.push(list.tokens[at.map_err(wrong)? as usize]);
            return Ok(());
        }
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(wrong(NotANumber));
        }
        if let Some(score) = ask.score {
            let likelihood = Likelihood::of(logits, score.target, score.top).map_err(wrong)?;
            self.outcome.likelihoods.push(likelihood);
        }
        if let Some(Sample { sampling, position, adjustment, top, .. }) = ask.sample {
            let token = match adjustment {
                None => self.sampler.sample(logits, sampling, *position),
                Some(bent) => self.sampler.sample_adjusted(logits, bent, sampling, *position),
            };
            let token = token.map_err(wrong)?;
            self.outcome.tokens.push(token);
            if let Some(top) = *top {
                let likelihood = Likelihood::of(logits, token, top).map_err(wrong)?;
                self.outcome.likelihoods.push(likelihood);
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
