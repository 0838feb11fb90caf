//! The bounds of everything, and what is said at them.

use crate::units::{BlockCount, TokenCount, TokenId};

/// What the scheduler works within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tokens a KV block holds.
    pub block_size: TokenCount,
    /// KV blocks on the device: the least over all ranks.
    pub blocks: BlockCount,
    /// KV blocks in host memory, to swap to.
    pub swap_blocks: BlockCount,
    /// Sequences of one step.
    pub sequences_max: u32,
    /// Tokens of one step.
    pub step_tokens_max: TokenCount,
    /// Longest sequence, prompt and answer together.
    pub model_len_max: TokenCount,
    /// Most tokens generated for a sequence, whatever the request says.
    pub generation_max: Option<TokenCount>,
    /// Groups that may wait; one more is refused.
    pub waiting_max: usize,
    /// The model's end tokens.
    pub end_tokens: Vec<TokenId>,
}

/// Limits that make no sense together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// A limit is zero that may not be.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

/// Why a group was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    Empty,
    /// The prompt leaves no room for an answer: it can never run.
    #[error("the prompt has {wanted} tokens, and at most {capacity} can be served with one token of answer", wanted = wanted.0, capacity = capacity.0)]
    TooLong {
        /// Tokens of the prompt.
        wanted: TokenCount,
        /// Longest prompt that can run.
        capacity: TokenCount,
    },
    /// More sequences than a step can hold.
    #[error("{wanted} sequences were asked for, and at most {capacity} can run")]
    TooManySequences {
        /// Asked for.
        wanted: u32,
        /// Possible.
        capacity: u32,
    },
    /// The queue is full: try later.
    #[error("{waiting} requests are waiting already")]
    QueueFull {
        /// Groups that wait.
        waiting: usize,
    },
}
