//! Softmax of a split, and folding splits together.

use std::ops::Range;

use crate::backend::cpu::attend::{VECTORS, reserve};
use crate::backend::cpu::function::{exp, weight};
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::path::Kernel;

/// The greatest score where there is none. Finite, so that differences are numbers.
const NONE: f32 = -1e30;
/// [`VECTORS`], as whole vectors of lanes.
const PADDED: usize = VECTORS.next_multiple_of(LANES);
const LANE: [f32; LANES] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// Turns the scores of positions `first..` into weights: `exp(score − greatest)`, rounded to what
/// attention multiplies; 0 for those not in `seen`. Gives the greatest score and the sum of the weights.
pub(crate) struct Softmax<'a> {
    pub(crate) scores: &'a mut [[f32; LANES]],
    pub(crate) first: usize,
    pub(crate) seen: Range<usize>,
}

impl Kernel for Softmax<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> (f32, f32) {
        let Self { scores, first, seen } = self;
        let mut greatest = l.splat(NONE);
        for (at, scores) in scores.iter_mut().enumerate() {
            let base = first + at * LANES;
            if base < seen.start || base + LANES > seen.end {
                mask(l, scores, base, &seen);
            }
            greatest = l.max(greatest, l.load(scores));
        }
        let greatest = l.greatest(greatest);
        let mut sum = l.splat(0.0);
        for scores in scores {
            let weights = weight(l, l.sub(l.load(scores), l.splat(greatest)));
            sum = l.add(sum, weights);
            l.store(weights, scores);
        }
        (greatest, l.sum(sum))
    }
}

/// What is not in `seen` gets the score -∞, whose weight is 0.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "differences of at most a page")]
fn mask<L: Lanes>(l: L, scores: &mut [f32; LANES], base: usize, seen: &Range<usize>) {
    let from = l.splat(seen.start.saturating_sub(base).min(LANES) as f32);
    let to = l.splat(seen.end.saturating_sub(base).min(LANES) as f32);
    let (lane, never) = (l.load(&LANE), l.splat(f32::NEG_INFINITY));
    let kept = l.if_less(lane, to, l.load(scores), never);
    l.store(l.if_less(lane, from, never, kept), scores);
}

/// Softmax and weighted values of one or several splits, for up to [`VECTORS`] queries.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    /// The greatest score of each.
    greatest: Vec<f32>,
    /// The sum of the weights, relative to it.
    weight: Vec<f32>,
    /// The weighted sum of values. `(VECTORS, value size)`
    pub(crate) sums: Vec<f32>,
    value_size: usize,
}

impl Folded {
    /// Numbers that [`Folded::save`] takes.
    pub(crate) fn size(value_size: usize) -> usize {
        VECTORS * (2 + value_size)
    }

    /// Memory for as many queries as there may be.
    pub(crate) fn reserve(&mut self, value_size: usize) {
        reserve(&mut self.greatest, PADDED);
        reserve(&mut self.weight, PADDED);
        reserve(&mut self.sums, PADDED * value_size);
    }

    /// Room for so many queries, that holds anything.
    pub(crate) fn room(&mut self, vectors: usize, value_size: usize) {
        self.value_size = value_size;
        self.greatest.resize(PADDED, NONE);
        self.weight.resize(PADDED, 0.0);
        // Tile registers write whole blocks of rows.
        self.sums.resize(vectors.next_multiple_of(LANES) * value_size, 0.0);
    }

    pub(crate) fn set(&mut self, vector: usize, (greatest, weight): (f32, f32)) {
        self.greatest[vector] = greatest;
        self.weight[vector] = weight;
    }

    pub(crate) fn save(&self, vectors: usize, to: &mut [f32]) {
        let (greatest, rest) = to.split_at_mut(VECTORS);
        let (weight, sums) = rest.split_at_mut(VECTORS);
        let used = vectors * self.value_size;
        greatest[..vectors].copy_from_slice(&self.greatest[..vectors]);
        weight[..vectors].copy_from_slice(&self.weight[..vectors]);
        sums[..used].copy_from_slice(&self.sums[..used]);
    }

    pub(crate) fn restore(&mut self, vectors: usize, from: &[f32]) {
        let (greatest, rest) = from.split_at(VECTORS);
        let (weight, sums) = rest.split_at(VECTORS);
        let used = vectors * self.value_size;
        self.greatest[..vectors].copy_from_slice(&greatest[..vectors]);
        self.weight[..vectors].copy_from_slice(&weight[..vectors]);
        self.sums[..used].copy_from_slice(&sums[..used]);
    }

    /// Takes in the next split.
    #[inline(always)]
    pub(crate) fn fold<L: Lanes>(&mut self, l: L, vectors: usize, split: &Self) {
        let (mut own, mut new) = ([[0.0; LANES]; PADDED / LANES], [[0.0; LANES]; PADDED / LANES]);
        let greatest = self.greatest.as_chunks_mut::<LANES>().0.iter_mut();
        let weight = self.weight.as_chunks_mut::<LANES>().0.iter_mut();
        let theirs = split.greatest.as_chunks::<LANES>().0.iter();
        let their_weight = split.weight.as_chunks::<LANES>().0.iter();
        for (at, (((m, w), m_new), w_new)) in greatest
            .zip(weight)
            .zip(theirs)
            .zip(their_weight)
            .enumerate()
            .take(vectors.div_ceil(LANES))
        {
            let (m_old, m_new) = (l.load(m), l.load(m_new));
            let m_both = l.max(m_old, m_new);
            let (a, b) = (exp(l, l.sub(m_old, m_both)), exp(l, l.sub(m_new, m_both)));
            l.store(m_both, m);
            l.store(l.fma(l.load(w), a, l.mul(l.load(w_new), b)), w);
            l.store(a, &mut own[at]);
            l.store(b, &mut new[at]);
        }
        let (own, new) = (own.as_flattened(), new.as_flattened());
        let sums = self.sums.chunks_exact_mut(self.value_size).zip(own);
        let theirs = split.sums.chunks_exact(self.value_size).zip(new);
        for ((sums, a), (theirs, b)) in sums.zip(theirs).take(vectors) {
            for (sum, their) in sums.iter_mut().zip(theirs) {
                *sum = sum.mul_add(*a, their * b);
            }
        }
    }

    /// The weighted mean of values of a query.
    pub(crate) fn mean(&self, vector: usize, head_size: usize, to: &mut [f32]) {
        let inverse = 1.0 / self.weight[vector];
        let sums = &self.sums[vector * self.value_size..][..head_size];
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = sum * inverse;
        }
    }
}
