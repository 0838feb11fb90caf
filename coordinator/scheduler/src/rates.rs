//! What it costs to give way: to compute again, or to carry blocks to host memory and back.

use std::time::Duration;

use crate::units::{BlockCount, TokenCount};

/// What was measured, on the slowest rank. Before anything was, all is zero: then blocks are
/// carried where there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// To compute one token of a prompt, as part of a full step.
    pub token: Duration,
    /// To carry one block one way.
    pub block: Duration,
}

impl Rates {
    /// Whether it takes no longer to carry so many blocks out and in than to compute so many tokens.
    pub(crate) fn prefer_swap(&self, blocks: BlockCount, tokens: TokenCount) -> bool {
        let carry = self.block.saturating_mul(blocks.0.saturating_mul(2));
        carry <= self.token.saturating_mul(tokens.0)
    }
}
