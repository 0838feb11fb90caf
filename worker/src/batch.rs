//! A step as a worker sees it: flat arrays.

use std::ops::Range;

/// A step, checked and flattened. Row `i` of every tensor of the step is `tokens[i]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Token ids, slice after slice.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
    /// For each token, where its k and v go: block × block size + offset within the block.
    pub slots: Vec<u32>,
    /// Slices, in order.
    pub slices: Vec<BatchSlice>,
    /// Block tables, slice after slice.
    pub blocks: Vec<u32>,
    /// Which rows are sampled, and how, in order of row.
    pub samples: Vec<Sample>,
    /// Tokens a block holds.
    pub block_size: usize,
}

/// One sequence's rows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSlice {
    /// Rows of this slice.
    pub rows: Range<usize>,
    /// Position of the first.
    pub start: usize,
    /// Its block table, within [`Batch::blocks`].
    pub blocks: Range<usize>,
}

/// A row whose next token is wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The row that is followed.
    pub row: usize,
    /// Position of the new token.
    pub position: u32,
    /// How it is chosen.
    pub sampling: Sampling,
}

/// How the next token is chosen. Validated: temperature ≥ 0, 0 < `top_p` ≤ 1, 0 ≤ `min_p` ≤ 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: the likeliest.
    pub temperature: f32,
    /// 1: off.
    pub top_p: f32,
    /// 0: off.
    pub top_k: u32,
    /// 0: off.
    pub min_p: f32,
    /// Random numbers are a function of (seed, position).
    pub seed: u64,
}
