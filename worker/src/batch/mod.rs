//! A step as a worker sees it: flat arrays, every number checked.

mod check;
mod choice;
mod refusal;

use std::ops::Range;
use std::time::Duration;

pub use check::PATIENCE_DEFAULT;
pub use refusal::{Place, Refusal};

/// A request for a step, checked: no number in it can lead outside the cache or the vocabulary.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Its number within the epoch, from 1.
    pub id: u64,
    /// The tokens; none in a heartbeat.
    pub batch: Batch,
    /// Blocks to save first: `(device, host)`.
    pub swap_out: Vec<(u32, u32)>,
    /// Blocks to bring back next: `(host, device)`.
    pub swap_in: Vec<(u32, u32)>,
    /// Blocks to copy next, in order: `(from, to)`.
    pub copies: Vec<(u32, u32)>,
    /// Longest wait for a peer.
    pub patience: Duration,
    /// Working memory: the slots of the batch, in order.
    slots: Vec<u32>,
}

/// A step, checked and flattened. Row `i` of every tensor of the step is `tokens[i]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Token ids, slice after slice.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
    /// For each token, where its k and v go: block × block size + offset within the block. No two
    /// are the same.
    pub slots: Vec<u32>,
    /// Slices, in order.
    pub slices: Vec<BatchSlice>,
    /// Block tables, slice after slice; each just long enough for its slice's last token.
    pub blocks: Vec<u32>,
    /// Which rows are sampled, and how, in order of row.
    pub samples: Vec<Sample>,
    /// Which rows are followed by a known token, and how likely that was is wanted, in order of row.
    pub scores: Vec<Score>,
    /// Rows whose token is not known before the step before is done, in order of row.
    pub fed: Vec<Fed>,
    /// Rows whose logits are wanted for either, in order, each once.
    pub wanted: Vec<usize>,
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

/// A row whose token the step before sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// The row. In [`Batch::tokens`] it holds 0 until the token is known.
    pub row: usize,
    /// The token's place among those that the step before sampled.
    pub place: usize,
}

/// A row whose next token is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The row that is followed.
    pub row: usize,
    /// Position of the new token.
    pub position: u32,
    /// How it is chosen.
    pub sampling: Sampling,
    /// What is done to the logits first.
    pub adjustment: Option<Adjustment>,
    /// How likely it was is wanted too, beside so many of the likeliest.
    pub top: Option<usize>,
}

/// A row that is followed by a known token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// The row that is followed.
    pub row: usize,
    /// The token.
    pub target: u32,
    /// So many of the likeliest are wanted beside it.
    pub top: usize,
}

/// How logits are bent before a token is chosen. Validated: finite numbers, tokens of the vocabulary,
/// `prompt` and `answer` in order of token and each token once.
#[derive(Debug, Clone, PartialEq)]
pub struct Adjustment {
    /// Added to the logits of these tokens.
    pub bias: Vec<(u32, f32)>,
    /// Tokens that may not be.
    pub banned: Vec<u32>,
    /// Over 0; 1: off.
    pub repetition: f32,
    /// 0: off.
    pub presence: f32,
    /// 0: off.
    pub frequency: f32,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens of the answer so far, and how often each is there.
    pub answer: Vec<(u32, u32)>,
}

impl Default for Adjustment {
    /// Bends nothing.
    fn default() -> Self {
        Self {
            bias: Vec::new(),
            banned: Vec::new(),
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
            prompt: Vec::new(),
            answer: Vec::new(),
        }
    }
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

/// What a step may refer to; fixed when the model was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens there are.
    pub vocabulary: usize,
    /// Tokens a block holds.
    pub block_size: usize,
    /// Blocks on the device.
    pub blocks: usize,
    /// Blocks in host memory.
    pub swap_blocks: usize,
    /// Tokens of the longest sequence.
    pub model_len_max: usize,
    /// Tokens of a step.
    pub step_tokens_max: usize,
    /// Slices of a step.
    pub step_sequences_max: usize,
}
