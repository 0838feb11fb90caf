//! How a group's tokens are chosen: what penalties look back on, and what is told of likelihoods.
//!
//! A worker remembers no requests, so all of it goes with every step. It is kept here by the tokens
//! that were committed; a sequence that is computed again is asked for again with the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use scheduler::{NewGroup, SequenceId, Slice, TokenId};

use crate::cluster::{Adjustment, Likelihood, Scores, SliceWish};
use crate::engine::wishes::Wishes;

/// What is known of a group for choosing its tokens.
#[derive(Debug)]
pub(super) struct Choice {
    wishes: Wishes,
    bias: Arc<[(u32, f32)]>,
    /// Tokens that would end a sequence, while it is shorter than it must be.
    banned: Arc<[u32]>,
    tokens_min: u32,
    /// Each once, in order; only if a penalty looks at them.
    prompt_tokens: Arc<[u32]>,
    /// As it is, if it is to be scored.
    prompt: Vec<TokenId>,
    /// Of the prompt's tokens from the second on.
    prompt_likelihoods: Vec<Option<Likelihood>>,
    /// Those were handed out, or never wanted.
    prompt_told: bool,
    sequences: Vec<Grown>,
}

/// One sequence's answer so far.
#[derive(Debug, Clone, Default)]
struct Grown {
    tokens: u32,
    /// How often each token is in it; only if a penalty looks at them.
    counts: BTreeMap<u32, u32>,
    /// Of the token that comes next.
    likelihood: Option<Likelihood>,
}

/// Whose likelihood a step brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) sequence: SequenceId,
    /// Of the prompt's token at this position; none: of the token that was sampled.
    position: Option<usize>,
}

impl Choice {
    /// `end_tokens` are the model's.
    pub(super) fn new(group: &NewGroup, wishes: Wishes, end_tokens: &[u32]) -> Self {
        let ends = end_tokens.iter().copied().filter(|_| !group.ignore_end);
        let banned: BTreeSet<u32> =
            ends.chain(group.stop_tokens.iter().map(|token| token.0)).collect();
        let looked_at = wishes.repetition != 1.0;
        let distinct: BTreeSet<u32> =
            group.prompt.iter().filter(|_| looked_at).map(|token| token.0).collect();
        let scored = wishes.likelihoods.is_some_and(|wanted| wanted.prompt);
        let prompt = if scored { group.prompt.clone() } else { Vec::new() };
        Self {
            bias: wishes.bias.iter().map(|&(token, bias)| (token.0, bias)).collect(),
            wishes,
            banned: banned.into_iter().collect(),
            tokens_min: group.tokens_min.0,
            prompt_tokens: distinct.into_iter().collect(),
            prompt_likelihoods: vec![None; prompt.len().saturating_sub(1)],
            prompt,
            prompt_told: !scored,
            sequences: vec![Grown::default(); usize::try_from(group.sequences).unwrap_or(0)],
        }
    }

    /// What a slice asks; `told` hears whose likelihoods will come.
    pub(super) fn wish(&self, slice: &Slice, told: &mut Vec<Told>) -> SliceWish {
        let sampled = slice.sampling.is_some();
        SliceWish {
            adjustment: if sampled { self.adjustment(slice) } else { None },
            scores: self.scores(slice, sampled, told),
        }
    }

    fn adjustment(&self, slice: &Slice) -> Option<Adjustment> {
        let grown = self.sequences.get(slice.sequence.index as usize)?;
        // Rank 0 adds the token that it follows to the answer; here it only counts.
        let tokens = grown.tokens + u32::from(slice.follows.is_some());
        // A sequence may end with the token that brings it to its least length.
        let too_short = tokens + 1 < self.tokens_min && !self.banned.is_empty();
        let bends = !self.bias.is_empty() || too_short || self.penalises();
        bends.then(|| Adjustment {
            bias: Arc::clone(&self.bias),
            banned: if too_short { Arc::clone(&self.banned) } else { Arc::default() },
            repetition: self.wishes.repetition,
            presence: self.wishes.presence,
            frequency: self.wishes.frequency,
            prompt: Arc::clone(&self.prompt_tokens),
            answer: grown.counts.iter().map(|(&token, &count)| (token, count)).collect(),
        })
    }

    fn penalises(&self) -> bool {
        let Wishes { repetition, presence, frequency, .. } = self.wishes;
        repetition != 1.0 || presence != 0.0 || frequency != 0.0
    }

    fn scores(&self, slice: &Slice, sampled: bool, told: &mut Vec<Told>) -> Option<Scores> {
        let top = self.wishes.likelihoods?.top;
        let sequence = slice.sequence;
        let first = slice.start.0 as usize + 1;
        let end = (first + slice.count().0 as usize).min(self.prompt.len());
        let positions = if self.prompt_told { 0..0 } else { first..end.max(first) };
        told.extend(positions.clone().map(|at| Told { sequence, position: Some(at) }));
        told.extend(sampled.then_some(Told { sequence, position: None }));
        let targets = self.prompt.get(positions).unwrap_or_default().to_vec();
        (sampled || !targets.is_empty()).then_some(Scores { targets, sampled, top })
    }

    /// A step brought a likelihood.
    pub(super) fn learn(&mut self, told: &Told, likelihood: Likelihood) {
        match told.position {
            Some(position) => {
                if let Some(place) = self.prompt_likelihoods.get_mut(position - 1) {
                    *place = Some(likelihood);
                }
            }
            None => {
                if let Some(grown) = self.sequences.get_mut(told.sequence.index as usize) {
                    grown.likelihood = Some(likelihood);
                }
            }
        }
    }

    /// A sequence grew by a token. How likely it was, if that was wanted.
    pub(super) fn grow(&mut self, index: u32, token: TokenId) -> Option<Likelihood> {
        let penalises = self.penalises();
        let grown = self.sequences.get_mut(index as usize)?;
        grown.tokens = grown.tokens.saturating_add(1);
        if penalises {
            *grown.counts.entry(token.0).or_default() += 1;
        }
        grown.likelihood.take()
    }

    /// How likely the prompt was: once, when all of it is known.
    pub(super) fn prompt(&mut self) -> Option<Vec<Likelihood>> {
        if self.prompt_told || self.prompt_likelihoods.iter().any(Option::is_none) {
            return None;
        }
        self.prompt_told = true;
        Some(self.prompt_likelihoods.drain(..).flatten().collect())
    }
}
