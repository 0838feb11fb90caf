//! A step before and after.

use std::sync::Arc;

use crate::group::Sampling;
use crate::units::{BlockCount, BlockId, SequenceId, StepId, TokenCount, TokenId};

/// A step that every rank is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPlan {
    /// Which step.
    pub id: StepId,
    /// One sequence's part each, the first in order first; decodes and prefills mixed.
    pub slices: Vec<Slice>,
    /// Device to host, before anything else.
    pub swap_out: Vec<BlockPair>,
    /// Host to device, next.
    pub swap_in: Vec<BlockPair>,
    /// Device to device, next.
    pub copies: Vec<BlockPair>,
    /// Device blocks that somebody owns while it runs.
    pub blocks_held: BlockCount,
    /// Host blocks that somebody owns while it runs.
    pub swap_blocks_held: BlockCount,
}

/// Extends one sequence by one or more tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Whose.
    pub sequence: SequenceId,
    /// The tokens computed in this step; none where it follows one that is not known yet.
    pub tokens: Vec<TokenId>,
    /// Present: what it computes is the token at this place of those that the step before samples, of
    /// the same sequence.
    pub follows: Option<u32>,
    /// Tokens of this sequence already in the cache.
    pub start: TokenCount,
    /// The sequence's block table, exactly as far as this step needs it.
    pub blocks: Arc<[BlockId]>,
    /// Present: sample the token that follows the last. The seed is the sequence's own.
    pub sampling: Option<Sampling>,
}

impl Slice {
    /// How many tokens it computes, known or not.
    #[must_use]
    pub fn count(&self) -> TokenCount {
        TokenCount(TokenCount::of(&self.tokens).0 + u32::from(self.follows.is_some()))
    }
}

/// A block to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPair {
    /// From where.
    pub from: BlockId,
    /// To where.
    pub to: BlockId,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran: a token for each slice that asked, in the order of the slices.
    Done(Vec<TokenId>),
    /// It did not run, and no block can be trusted any more: everything in the caches is gone, and a step
    /// that was planned ahead does not run either.
    /// Running groups wait again with their tokens kept. May also be said between steps.
    Lost,
}
