//! What a slice asks of its logits, checked: how to sample, what to bend, whose likelihood to tell.

use proto::worker::{Adjustment as WireAdjustment, Sampling as WireSampling, Slice};

use crate::batch::{Adjustment, Batch, Refusal, Sample, Sampling, Score};

/// Likeliest tokens that can be asked for at a place.
const TOP_MAX: u32 = 64;

impl Batch {
    /// Takes in what slice number `index`, the last that was pushed, asks of its rows.
    pub(super) fn choose(
        &mut self,
        index: usize,
        slice: &Slice,
        vocabulary: usize,
    ) -> Result<(), Refusal> {
        let first_row = self.tokens.len() - slice.count();
        let mut sampled_top = None;
        if let Some(scores) = &slice.scores {
            let wrong = |list| Err(Refusal::List { slice: index, list });
            if scores.targets.len() > slice.count() {
                return wrong("targets");
            }
            if scores.top > TOP_MAX {
                return wrong("likeliest tokens");
            }
            check_tokens(index, &scores.targets, vocabulary)?;
            let top = scores.top as usize;
            let rows = first_row..;
            let scores_of = rows.zip(&scores.targets);
            self.scores.extend(scores_of.map(|(row, &target)| Score { row, target, top }));
            sampled_top = scores.sampled.then_some(top);
        }
        let Some(sampling) = &slice.sampling else { return Ok(()) };
        let row = self.tokens.len() - 1;
        let adjustment = slice.adjustment.as_ref();
        self.samples.push(Sample {
            row,
            position: self.positions[row] + 1,
            sampling: Sampling::from_wire(index, sampling)?,
            adjustment: adjustment
                .map(|wire| Adjustment::from_wire(index, wire, vocabulary))
                .transpose()?,
            top: sampled_top,
        });
        Ok(())
    }
}

impl Sampling {
    fn from_wire(slice: usize, wire: &WireSampling) -> Result<Self, Refusal> {
        let WireSampling { temperature, top_p, top_k, min_p, seed } = *wire;
        let check = |parameter, value, fine| check(slice, parameter, value, fine);
        check("temperature", temperature, temperature >= 0.0 && temperature.is_finite())?;
        check("top_p", top_p, top_p > 0.0 && top_p <= 1.0)?;
        check("min_p", min_p, (0.0..=1.0).contains(&min_p))?;
        Ok(Self { temperature, top_p, top_k, min_p, seed })
    }
}

impl Adjustment {
    /// The answer has become longer by a token. Where nothing looks back at it, it is not kept.
    pub(crate) fn follow(&mut self, token: u32) {
        if self.repetition == 1.0 && self.presence == 0.0 && self.frequency == 0.0 {
            return;
        }
        match self.answer.binary_search_by_key(&token, |known| known.0) {
            Ok(at) => self.answer[at].1 = self.answer[at].1.saturating_add(1),
            Err(at) => self.answer.insert(at, (token, 1)),
        }
    }

    fn from_wire(slice: usize, wire: &WireAdjustment, vocabulary: usize) -> Result<Self, Refusal> {
        let repetition = wire.repetition;
        let check = |parameter, value, fine| check(slice, parameter, value, fine);
        check("repetition", repetition, repetition > 0.0 && repetition.is_finite())?;
        check("presence", wire.presence, wire.presence.is_finite())?;
        check("frequency", wire.frequency, wire.frequency.is_finite())?;
        for &bias in &wire.bias {
            check("bias", bias, bias.is_finite())?;
        }
        for tokens in [&wire.bias_tokens, &wire.banned, &wire.prompt, &wire.answer] {
            check_tokens(slice, tokens, vocabulary)?;
        }
        let wrong = |list| Err(Refusal::List { slice, list });
        if wire.bias_tokens.len() != wire.bias.len() {
            return wrong("biases");
        }
        if wire.answer.len() != wire.answer_counts.len() {
            return wrong("counts of answer tokens");
        }
        if !wire.prompt.is_sorted_by(|a, b| a < b) {
            return wrong("prompt tokens");
        }
        if !wire.answer.is_sorted_by(|a, b| a < b) {
            return wrong("answer tokens");
        }
        Ok(Self {
            bias: wire.bias_tokens.iter().copied().zip(wire.bias.iter().copied()).collect(),
            banned: wire.banned.clone(),
            repetition,
            presence: wire.presence,
            frequency: wire.frequency,
            prompt: wire.prompt.clone(),
            answer: wire.answer.iter().copied().zip(wire.answer_counts.iter().copied()).collect(),
        })
    }
}

fn check(slice: usize, parameter: &'static str, value: f32, fine: bool) -> Result<(), Refusal> {
    if fine { Ok(()) } else { Err(Refusal::Sampling { slice, parameter, value }) }
}

/// Tokens of a slice are tokens of the vocabulary.
pub(super) fn check_tokens(slice: usize, tokens: &[u32], vocabulary: usize) -> Result<(), Refusal> {
    match tokens.iter().find(|&&token| token as usize >= vocabulary) {
        Some(&token) => Err(Refusal::Token { slice, token, vocabulary }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proto::worker::{Scores, StepRequest};

    use super::*;
    use crate::batch::{Step, StepLimits};

    const LIMITS: StepLimits = StepLimits {
        vocabulary: 100,
        block_size: 4,
        blocks: 8,
        swap_blocks: 0,
        model_len_max: 20,
        step_tokens_max: 12,
        step_sequences_max: 2,
    };

    fn greedy() -> WireSampling {
        WireSampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 }
    }

    fn slice() -> Slice {
        Slice {
            tokens: vec![1, 2, 3],
            blocks: vec![0],
            sampling: Some(greedy()),
            ..Slice::default()
        }
    }

    fn checked(slice: Slice) -> Result<Batch, Refusal> {
        let request = StepRequest { epoch: 1, step: 1, slices: vec![slice], ..Default::default() };
        let mut step = Step::default();
        step.read(&request, &LIMITS, &Batch::default()).map(|()| step.batch)
    }

    #[test]
    fn sampling_parameters_are_finite_and_in_range() {
        for wrong in [
            WireSampling { temperature: -1.0, ..greedy() },
            WireSampling { temperature: f32::NAN, ..greedy() },
            WireSampling { temperature: f32::INFINITY, ..greedy() },
            WireSampling { top_p: 0.0, ..greedy() },
            WireSampling { top_p: 1.5, ..greedy() },
            WireSampling { top_p: f32::NAN, ..greedy() },
            WireSampling { min_p: -0.1, ..greedy() },
            WireSampling { min_p: f32::NAN, ..greedy() },
        ] {
            let refused = checked(Slice { sampling: Some(wrong), ..slice() });
            assert!(matches!(refused, Err(Refusal::Sampling { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn an_adjustment_is_finite_inside_the_vocabulary_and_in_order() {
        let fine = WireAdjustment { repetition: 1.0, ..WireAdjustment::default() };
        for wrong in [
            WireAdjustment::default(),
            WireAdjustment { repetition: f32::NAN, ..fine.clone() },
            WireAdjustment { presence: f32::INFINITY, ..fine.clone() },
            WireAdjustment { frequency: f32::NAN, ..fine.clone() },
            WireAdjustment { bias_tokens: vec![1], bias: vec![f32::NAN], ..fine.clone() },
            WireAdjustment { bias_tokens: vec![1], ..fine.clone() },
            WireAdjustment { banned: vec![100], ..fine.clone() },
            WireAdjustment { prompt: vec![2, 2], ..fine.clone() },
            WireAdjustment { answer: vec![1, 0], answer_counts: vec![1, 1], ..fine.clone() },
            WireAdjustment { answer: vec![1], ..fine.clone() },
        ] {
            let adjustment = Some(wrong.clone());
            assert!(checked(Slice { adjustment, ..slice() }).is_err(), "{wrong:?}");
        }
        let batch = checked(Slice { adjustment: Some(fine), ..slice() }).unwrap();
        assert_eq!(batch.samples[0].adjustment, Some(Adjustment::default()));
    }

    #[test]
    fn an_answer_that_is_looked_back_at_grows_in_order() {
        let mut bent = Adjustment { presence: 0.5, answer: vec![(3, 2)], ..Adjustment::default() };
        for token in [3, 9, 1, 9] {
            bent.follow(token);
        }
        assert_eq!(bent.answer, [(1, 1), (3, 3), (9, 2)]);
        let mut plain = Adjustment::default();
        plain.follow(3);
        assert_eq!(plain, Adjustment::default());
    }

    #[test]
    fn the_rows_that_are_scored_and_sampled_are_wanted_once() {
        let scores = Scores { targets: vec![2, 3, 9], sampled: true, top: 2 };
        let batch = checked(Slice { scores: Some(scores), ..slice() }).unwrap();
        assert_eq!(batch.wanted, [0, 1, 2]);
        assert_eq!(batch.scores[2], Score { row: 2, target: 9, top: 2 });
        assert_eq!(batch.samples[0].top, Some(2));
        for (targets, top) in [(vec![2; 4], 0), (vec![100], 0), (vec![2], TOP_MAX + 1)] {
            let scores = Some(Scores { targets, sampled: false, top });
            assert!(checked(Slice { scores, ..slice() }).is_err());
        }
    }
}
