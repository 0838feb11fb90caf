//! Who owns what: pure arithmetic over the shares of all ranks and the sizes of a model.
//!
//! Every rank computes this for itself and they agree, because it depends on nothing else. Heads,
//! columns and rows go to the ranks in order of rank, each a contiguous range, as near to the rank's
//! share as whole units allow. While there are enough units for all, every rank has at least one;
//! where there are not, some ranks have none, which is legal.

use std::ops::Range;

use checkpoint::ModelConfig;

use crate::backend::SEGMENT_COLUMNS;

/// Most ranks of a group. More than any machine room has devices; bounds what a plan may ask for.
pub const WORLD_MAX: usize = 1024;

/// Vocabulary rows are dealt in units of this, so that kernels that take 16 rows at once have no rest.
const VOCABULARY_UNIT: usize = 16;

/// Why a plan cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// No ranks, or absurdly many.
    #[error("a group has 1 to {WORLD_MAX} ranks, not {world}")]
    World {
        /// Ranks asked for.
        world: usize,
    },
    /// The rank is not one of the world.
    #[error("rank {rank} is not one of {world}")]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Ranks there are.
        world: usize,
    },
    /// A rank without a share has nothing to do.
    #[error("the share of rank {rank} is 0")]
    Share {
        /// Whose share.
        rank: usize,
    },
}

/// One rank among all, and how much each takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    rank: usize,
    shares: Vec<u32>,
}

/// Heads of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: Range<usize>,
    /// The KV heads that those read.
    pub kv: Range<usize>,
    /// For each query head of this rank, which KV head of this rank it reads.
    pub kv_of_query: Vec<usize>,
}

/// Everything one rank owns of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    /// Of attention.
    pub heads: Heads,
    /// Columns of the feed-forward: rows of gate and up, columns of down.
    pub feed_forward: Range<usize>,
    /// Rows of the head.
    pub vocabulary: Range<usize>,
}

impl Shard {
    /// Rank `rank` of as many as there are shares; only the ratio of shares matters.
    ///
    /// # Errors
    /// [`ShardError`] for a rank outside the world or a share of 0.
    pub fn new(rank: usize, shares: Vec<u32>) -> Result<Self, ShardError> {
        let world = shares.len();
        if world == 0 || world > WORLD_MAX {
            return Err(ShardError::World { world });
        }
        if rank >= world {
            return Err(ShardError::Rank { rank, world });
        }
        if let Some(idle) = shares.iter().position(|&share| share == 0) {
            return Err(ShardError::Share { rank: idle });
        }
        Ok(Self { rank, shares })
    }

    /// The only rank there is.
    #[must_use]
    pub fn solo() -> Self {
        Self { rank: 0, shares: vec![1] }
    }

    /// This rank.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    #[must_use]
    pub fn world(&self) -> usize {
        self.shares.len()
    }

    /// What this rank owns of a model.
    #[must_use]
    pub fn slices(&self, config: &ModelConfig) -> Slices {
        Slices {
            heads: self.heads(config.query_heads, config.kv_heads),
            feed_forward: self.columns(config.intermediate),
            vocabulary: self.vocabulary(config.vocabulary),
        }
    }

    /// Whole KV heads, each with its group of query heads, while there is one for every rank. With
    /// more ranks than KV heads, neighbouring ranks share a KV head, each holding a copy of it, and
    /// split its query heads.
    #[must_use]
    pub fn heads(&self, query_heads: usize, kv_heads: usize) -> Heads {
        let group = query_heads / kv_heads;
        if self.world() <= kv_heads {
            let kv = split(kv_heads, &self.shares, self.rank);
            let query = kv.start * group..kv.end * group;
            return Heads::new(query, kv, group);
        }
        let sharing = ranks_of_kv_heads(kv_heads, group, &self.shares);
        let kv_head = sharing.partition_point(|&first| first <= self.rank) - 1;
        let ranks = sharing[kv_head]..sharing[kv_head + 1];
        let within = split(group, &self.shares[ranks.clone()], self.rank - ranks.start);
        let query = kv_head * group + within.start..kv_head * group + within.end;
        Heads::new(query, kv_head..kv_head + 1, group)
    }

    /// Feed-forward columns, in whole segments of [`SEGMENT_COLUMNS`]; the last may be short.
    #[must_use]
    pub fn columns(&self, intermediate: usize) -> Range<usize> {
        self.in_units(intermediate, SEGMENT_COLUMNS)
    }

    /// Rows of the head, in units of 16 where that leaves no rank without.
    #[must_use]
    pub fn vocabulary(&self, rows: usize) -> Range<usize> {
        let scarce = rows.div_ceil(VOCABULARY_UNIT) < self.world();
        self.in_units(rows, if scarce { 1 } else { VOCABULARY_UNIT })
    }

    fn in_units(&self, total: usize, unit: usize) -> Range<usize> {
        let units = split(total.div_ceil(unit), &self.shares, self.rank);
        (units.start * unit).min(total)..(units.end * unit).min(total)
    }
}

impl Heads {
    fn new(query: Range<usize>, kv: Range<usize>, group: usize) -> Self {
        let kv = if query.is_empty() { kv.start..kv.start } else { kv };
        let kv_of_query = query.clone().map(|head| head / group - kv.start).collect();
        Self { query, kv, kv_of_query }
    }
}

/// The part of `units` that falls to the rank `index` of `shares`.
fn split(units: usize, shares: &[u32], index: usize) -> Range<usize> {
    let total: u128 = shares.iter().map(|&share| u128::from(share)).sum();
    let mut before: u128 = 0;
    let ideal = shares.iter().map(|&share| {
        before += u128::from(share);
        // units × before / total, rounded to nearest
        let twice = 2 * units as u128 * before + total;
        usize::try_from(twice / (2 * total)).expect("at most `units`")
    });
    let bounds = cut(units, ideal, units);
    bounds[index]..bounds[index + 1]
}

/// With more ranks than KV heads: the first rank of each KV head, and the world at the end. A rank
/// goes to the KV head in which the middle of its share falls, as far as each KV head needs a rank
/// and has query heads for no more than `group` of them.
fn ranks_of_kv_heads(kv_heads: usize, group: usize, shares: &[u32]) -> Vec<usize> {
    let total: u128 = shares.iter().map(|&share| u128::from(share)).sum();
    let mut before: u128 = 0;
    let mut twice_middles = Vec::with_capacity(shares.len());
    for &share in shares {
        twice_middles.push(2 * before + u128::from(share));
        before += u128::from(share);
    }
    let ideal = (0..kv_heads).map(|head| {
        let end = 2 * total * (head as u128 + 1);
        twice_middles.partition_point(|twice| twice * (kv_heads as u128) < end)
    });
    let most = group.max(shares.len().div_ceil(kv_heads));
    cut(shares.len(), ideal, most)
}

/// Cuts `0..total` into as many pieces as there are `ideal_ends`, each as near to its ideal end as
/// every piece having at least one (where there is one for each) and at most `most` allows. Gives
/// the start of every piece and `total`.
fn cut(total: usize, ideal_ends: impl ExactSizeIterator<Item = usize>, most: usize) -> Vec<usize> {
    let pieces = ideal_ends.len();
    let least = usize::from(total >= pieces);
    let mut bounds = Vec::with_capacity(pieces + 1);
    let mut end = 0;
    bounds.push(end);
    for (index, ideal) in ideal_ends.enumerate() {
        let left = pieces - index - 1;
        let low = (end + least).max(total.saturating_sub(left * most));
        let high = (end + most).min(total - left * least);
        end = ideal.clamp(low, high);
        bounds.push(end);
    }
    bounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(shares: &[u32]) -> Vec<Shard> {
        (0..shares.len()).map(|rank| Shard::new(rank, shares.to_vec()).unwrap()).collect()
    }

    fn query_heads(shares: &[u32], query: usize, kv: usize) -> Vec<Range<usize>> {
        all(shares).iter().map(|shard| shard.heads(query, kv).query).collect()
    }

    fn assert_in_order(ranges: impl IntoIterator<Item = Range<usize>>, total: usize) {
        let mut end = 0;
        for range in ranges {
            assert_eq!(range.start, end, "a gap or an overlap");
            end = range.end;
        }
        assert_eq!(end, total);
    }

    #[test]
    fn nine_query_and_three_kv_heads_fit_any_small_world() {
        assert_eq!(query_heads(&[1], 9, 3).first(), Some(&(0..9)));
        assert_eq!(query_heads(&[1, 1], 9, 3), [0..6, 6..9]);
        assert_eq!(query_heads(&[1, 1, 1], 9, 3), [0..3, 3..6, 6..9]);
        assert_eq!(query_heads(&[1; 4], 9, 3), [0..3, 3..5, 5..6, 6..9]);
        let third = Shard::new(2, vec![1; 4]).unwrap().heads(9, 3);
        assert_eq!((third.kv, third.kv_of_query), (1..2, vec![0]));
    }

    #[test]
    fn a_rank_without_heads_has_no_kv_heads_either() {
        let heads: Vec<Heads> = all(&[1; 3]).iter().map(|shard| shard.heads(2, 1)).collect();
        assert_eq!(heads.iter().filter(|heads| heads.query.is_empty()).count(), 1);
        for heads in heads {
            assert_eq!(heads.kv.is_empty(), heads.query.is_empty());
        }
    }

    #[test]
    fn a_larger_share_owns_more() {
        let columns: Vec<usize> =
            all(&[3, 1]).iter().map(|shard| shard.columns(1536).len()).collect();
        assert_eq!(columns, [1152, 384]);
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        assert_eq!(Shard::new(0, vec![]), Err(ShardError::World { world: 0 }));
        assert_eq!(Shard::new(2, vec![1, 1]), Err(ShardError::Rank { rank: 2, world: 2 }));
        assert_eq!(Shard::new(0, vec![1, 0]), Err(ShardError::Share { rank: 1 }));
    }

    proptest! {
        #[test]
        fn everything_is_owned_exactly_once_and_in_order(
            kv in 1_usize..12,
            group in 1_usize..9,
            intermediate in 1_usize..3000,
            vocabulary in 1_usize..3000,
            shares in prop::collection::vec(1_u32..=u32::MAX, 1..=9),
        ) {
            let query = kv * group;
            let shards = all(&shares);
            assert_in_order(shards.iter().map(|shard| shard.heads(query, kv).query), query);
            assert_in_order(shards.iter().map(|shard| shard.columns(intermediate)), intermediate);
            assert_in_order(shards.iter().map(|shard| shard.vocabulary(vocabulary)), vocabulary);
            for shard in &shards {
                let heads = shard.heads(query, kv);
                prop_assert!(heads.query.len() >= usize::from(query >= shares.len()));
                prop_assert_eq!(heads.kv_of_query.len(), heads.query.len());
                for (head, of) in heads.query.clone().zip(&heads.kv_of_query) {
                    prop_assert_eq!(head / group, heads.kv.start + of);
                    prop_assert!(*of < heads.kv.len());
                }
                if shares.len() <= kv {
                    prop_assert_eq!(heads.query.len(), heads.kv.len() * group);
                } else {
                    prop_assert!(heads.kv.len() <= 1);
                }
                let columns = shard.columns(intermediate);
                prop_assert!(columns.is_empty() || columns.start % SEGMENT_COLUMNS == 0);
                let segments = intermediate.div_ceil(SEGMENT_COLUMNS);
                prop_assert!(!columns.is_empty() || segments < shares.len());
                prop_assert!(
                    !shard.vocabulary(vocabulary).is_empty() || vocabulary < shares.len()
                );
            }
            if shares.len() <= kv {
                assert_in_order(shards.iter().map(|shard| shard.heads(query, kv).kv), kv);
            }
        }
    }
}
