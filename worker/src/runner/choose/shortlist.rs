//! The likeliest tokens of a row, as a rank sends them: pairs of a logit and of a token's id, the id as
//! the bits of a number, none of which is a NaN below 2³⁰.
//!
//! Of equal logits the lower id comes first, on a rank and
//! among ranks, so a list does not depend on how the vocabulary is shared out.

use std::cmp::Ordering;

use crate::batch::Sample;
use crate::sampler::{NotANumber, highest, likeliest};

/// Longest list. More pairs than that are rarely asked for, and a few hundred bytes cost no more to
/// send than none.
const COUNT_MAX: u32 = 64;

/// Tokens and their logits, as they are bent, in order of token.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shortlist {
    pub(super) tokens: Vec<u32>,
    pub(super) logits: Vec<f32>,
    pairs: Vec<(f32, u32)>,
}

/// How many of the likeliest tokens decide which is chosen; none: all do.
pub(super) fn deciding(sample: &Sample) -> Option<usize> {
    if sample.top.is_some() {
        return None;
    }
    match sample.sampling.top_k {
        _ if sample.sampling.temperature == 0.0 => Some(1),
        count @ 1..=COUNT_MAX => Some(count as usize),
        _ => None,
    }
}

/// Appends the list of the `count` likeliest by the `bent` logits of a rank, whose first token is
/// `first`. Where one of its `own` logits is no number, that is all that is said; what is missing of
/// `count` is a token that may not be. `found` is working memory.
pub(super) fn push(
    (own, bent): (&[f32], &[f32]),
    first: usize,
    count: usize,
    found: &mut Vec<(u32, f32)>,
    out: &mut Vec<f32>,
) {
    let end = out.len() + Shortlist::length(count);
    if own.iter().all(|logit| logit.is_finite()) {
        let first = u32::try_from(first).expect("tokens are counted in 32 bits");
        let mut put = |(id, logit): (u32, f32)| out.extend([logit, f32::from_bits(first + id)]);
        match count {
            1 => highest(bent).into_iter().for_each(&mut put),
            _ => {
                likeliest(bent, count, found);
                found.iter().copied().for_each(&mut put);
            }
        }
    } else {
        out.extend([f32::NAN, 0.0]);
    }
    while out.len() < end {
        out.extend([f32::NEG_INFINITY, 0.0]);
    }
}

impl Shortlist {
    /// Numbers that a list of so many tokens takes.
    pub(super) const fn length(count: usize) -> usize {
        2 * count
    }

    /// Becomes the `count` likeliest of all ranks' lists.
    pub(super) fn merge(&mut self, lists: &[f32], count: usize) -> Result<(), NotANumber> {
        let Self { tokens, logits, pairs } = self;
        pairs.clear();
        for pair in lists.chunks_exact(2) {
            if pair[0].is_nan() {
                return Err(NotANumber);
            }
            if pair[0] > f32::NEG_INFINITY {
                pairs.push((pair[0], pair[1].to_bits()));
            }
        }
        let likelier = |a: &(f32, u32), b: &(f32, u32)| {
            b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
        };
        pairs.sort_unstable_by(likelier);
        pairs.truncate(count);
        pairs.sort_unstable_by_key(|pair| pair.1);
        tokens.clear();
        tokens.extend(pairs.iter().map(|pair| pair.1));
        logits.clear();
        logits.extend(pairs.iter().map(|pair| pair.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(
        logits: &[f32],
        cuts: &[usize],
        count: usize,
    ) -> Result<(Vec<u32>, Vec<f32>), NotANumber> {
        let mut lists = Vec::new();
        for cut in cuts.windows(2) {
            let own = &logits[cut[0]..cut[1]];
            push((own, own), cut[0], count, &mut Vec::new(), &mut lists);
        }
        let mut list = Shortlist::default();
        list.merge(&lists, count)?;
        Ok((list.tokens, list.logits))
    }

    #[test]
    fn what_is_no_number_on_any_rank_is_heard() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(merged(&[1.0, 2.0, wrong, 0.0], &[0, 2, 4], 2), Err(NotANumber));
        }
    }

    proptest! {
        #[test]
        fn a_list_does_not_depend_on_how_the_vocabulary_is_shared_out(
            logits in prop::collection::vec(prop_oneof![-9_f32..9.0, Just(1.5), Just(-0.0), Just(0.0)], 1..200),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            count in 1_usize..65,
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(logits.len() + 1)).collect();
            cuts.extend([0, logits.len()]);
            cuts.sort_unstable();
            let alone = merged(&logits, &[0, logits.len()], count).unwrap();
            prop_assert_eq!(alone.0.len(), count.min(logits.len()));
            prop_assert!(alone.0.is_sorted());
            prop_assert_eq!(merged(&logits, &cuts, count).unwrap(), alone);
        }
    }
}
