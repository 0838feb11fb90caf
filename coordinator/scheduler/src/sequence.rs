//! One sequence: what it generated, how much of it is in the cache, and in which blocks.

use std::sync::Arc;

use crate::blocks::BlockPool;
use crate::plan::BlockPair;
use crate::units::{BlockCount, BlockId, TokenCount, TokenId};

/// Continues its group's prompt.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Kept when the blocks are taken away.
    pub(crate) generated: Vec<TokenId>,
    /// Tokens, prompt and answer together.
    pub(crate) length: TokenCount,
    /// Tokens that committed steps have put into the cache: always fewer than `length`, because a
    /// token enters the cache in the step after it was sampled.
    pub(crate) computed: TokenCount,
    /// It has ended, and owns nothing any more.
    pub(crate) finished: bool,
    blocks: Vec<BlockId>,
    /// `blocks`, as far as the last plan needed it; none once it differs.
    table: Option<Arc<[BlockId]>>,
}

impl Sequence {
    pub(crate) const fn new(prompt: TokenCount) -> Self {
        Self {
            generated: Vec::new(),
            length: prompt,
            computed: TokenCount(0),
            finished: false,
            blocks: Vec::new(),
            table: None,
        }
    }

    /// Tokens that wait to be computed.
    pub(crate) const fn pending(&self) -> TokenCount {
        TokenCount(self.length.0 - self.computed.0)
    }

    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Free blocks that [`reserve`](Self::reserve) takes.
    pub(crate) fn missing(&self, pool: &BlockPool) -> BlockCount {
        let growth = self.length.blocks(pool.block_size).0 - self.block_count().0;
        let copy = self.shared_block_to_write(pool).is_some();
        BlockCount(growth + u32::from(copy))
    }

    /// Blocks for all its tokens, and none that is written to is anybody else's: copy on write. Only
    /// the block of the first token that is not computed can be shared and written to: earlier
    /// ones are only read, and later ones were never computed by anyone.
    pub(crate) fn reserve(&mut self, pool: &mut BlockPool, copies: &mut Vec<BlockPair>) {
        if let Some(index) = self.shared_block_to_write(pool) {
            let copy = BlockPair { from: self.blocks[index], to: pool.take() };
            pool.release(copy.from);
            self.blocks[index] = copy.to;
            self.table = None;
            copies.push(copy);
        }
        while self.block_count() < self.length.blocks(pool.block_size) {
            self.blocks.push(pool.take());
        }
    }

    /// The block table for the first `tokens` tokens.
    pub(crate) fn table(&mut self, tokens: TokenCount, pool: &BlockPool) -> Arc<[BlockId]> {
        let count = tokens.blocks(pool.block_size).0 as usize;
        match &self.table {
            Some(table) if table.len() == count => Arc::clone(table),
            _ => Arc::clone(self.table.insert(Arc::from(&self.blocks[..count]))),
        }
    }

    /// Starts with the first `tokens` tokens of `stem`, in the same blocks.
    pub(crate) fn fork(&mut self, stem: &[BlockId], tokens: TokenCount, pool: &mut BlockPool) {
        assert!(self.blocks.is_empty(), "a sequence forks before it has blocks of its own");
        self.blocks.extend_from_slice(&stem[..tokens.blocks(pool.block_size).0 as usize]);
        for block in &self.blocks {
            pool.share(*block);
        }
        self.computed = tokens;
    }

    /// Gives its blocks back; nothing of it is in the cache then.
    pub(crate) fn release(&mut self, pool: &mut BlockPool) {
        for block in self.blocks.drain(..) {
            pool.release(block);
        }
        self.computed = TokenCount(0);
        self.table = None;
    }

    fn block_count(&self) -> BlockCount {
        BlockCount(u32::try_from(self.blocks.len()).expect("blocks are counted in 32 bits"))
    }

    fn shared_block_to_write(&self, pool: &BlockPool) -> Option<usize> {
        let index = (self.computed.0 / pool.block_size.0) as usize;
        self.blocks.get(index).is_some_and(|block| pool.is_shared(*block)).then_some(index)
    }
}
