//! What top-k, top-p and min-p leave, without sorting the vocabulary.

use crate::batch::Sampling;
use crate::sampler::{Sampler, token};

/// Weights are sorted into buckets by their leading bits, 8 buckets to a factor of 2; the bits of 1,
/// the largest weight, give the last bucket.
const BUCKET_SHIFT: u32 = 20;
const BUCKETS: usize = (0x3f80_0000 >> BUCKET_SHIFT) + 1;

/// Tokens of nearly the same weight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    count: usize,
    sum: f64,
}

/// The last of the tokens that are kept: the likelier ones, of equals those with lower ids.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    weight: f32,
    id: u32,
}

impl Last {
    pub(super) const ALL: Self = Self { weight: 0.0, id: u32::MAX };

    pub(super) fn cuts_nothing(self) -> bool {
        self.weight == 0.0 && self.id == u32::MAX
    }

    pub(super) fn keeps(self, id: u32, weight: f32) -> bool {
        weight > self.weight || (weight == self.weight && id <= self.id)
    }
}

impl Sampler {
    /// What top-k, top-p and min-p leave.
    pub(super) fn keep(&mut self, sampling: &Sampling) -> Last {
        let mut last = Last::ALL;
        let top_k = sampling.top_k as usize;
        if top_k > 0 && top_k < self.weights.len() {
            last = self.fewest(last, |count, _| count >= top_k);
        }
        if sampling.top_p < 1.0 {
            last = self.fewest(last, |_, part| part >= f64::from(sampling.top_p));
        }
        if sampling.min_p > last.weight {
            last = Last { weight: sampling.min_p, id: u32::MAX };
        }
        last
    }

    /// The fewest of the likeliest tokens that are `enough`, given how many they are and what part of
    /// all kept so far they weigh. Only the bucket in which they end is sorted.
    fn fewest(&mut self, kept: Last, enough: impl Fn(usize, f64) -> bool) -> Last {
        self.fill_buckets(kept);
        let total: f64 = self.buckets.iter().map(|bucket| bucket.sum).sum();
        let enough = |count, sum: f64| enough(count, sum / total);
        let (mut count, mut sum) = (0, 0.0);
        for (index, bucket) in self.buckets.iter().enumerate().rev() {
            if bucket.count > 0 && enough(count + bucket.count, sum + bucket.sum) {
                return self.end_within(index, kept, |within, weight| {
                    enough(count + within, sum + weight)
                });
            }
            count += bucket.count;
            sum += bucket.sum;
        }
        kept
    }

    fn fill_buckets(&mut self, kept: Last) {
        self.buckets.clear();
        self.buckets.resize(BUCKETS, Bucket::default());
        for (id, &weight) in (0..).zip(&self.weights) {
            if kept.keeps(id, weight) {
                let bucket = &mut self.buckets[bucket_of(weight)];
                bucket.count += 1;
                bucket.sum += f64::from(weight);
            }
        }
    }

    fn end_within(
        &mut self,
        bucket: usize,
        kept: Last,
        enough: impl Fn(usize, f64) -> bool,
    ) -> Last {
        let Self { weights, members, .. } = self;
        let weight_of = |id: u32| weights[id as usize];
        let inside =
            |&id: &u32| bucket_of(weight_of(id)) == bucket && kept.keeps(id, weight_of(id));
        members.clear();
        members.reserve(weights.len());
        members.extend((0..token(weights.len())).filter(inside));
        // weights are not negative, so that their bits are in their order
        members.sort_unstable_by_key(|&id| (!weight_of(id).to_bits(), id));
        let mut sum = 0.0;
        let mut last = kept;
        for (index, &id) in members.iter().enumerate() {
            sum += f64::from(weight_of(id));
            last = Last { weight: weight_of(id), id };
            if enough(index + 1, sum) {
                break;
            }
        }
        last
    }
}

fn bucket_of(weight: f32) -> usize {
    (weight.to_bits() >> BUCKET_SHIFT) as usize
}
