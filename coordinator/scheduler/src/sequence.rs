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
    /// Of the device, or of the host while the group is swapped.
    blocks: Vec<BlockId>,
    /// The first blocks, as far as they can be found in the prefix cache.
    known: usize,
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
            known: 0,
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

    /// The blocks that hold something.
    pub(crate) fn filled(&self, block_size: TokenCount) -> &[BlockId] {
        &self.blocks[..self.computed.blocks(block_size).0 as usize]
    }

    /// Blocks that it lacks for all its tokens; a copy of a block that others use not counted.
    pub(crate) fn growth(&self, block_size: TokenCount) -> BlockCount {
        BlockCount(self.length.blocks(block_size).0 - self.block_count().0)
    }

    /// The block that the next token is written to, if it has one. Only this one can be shared and
    /// written to: earlier ones are only read, and later ones were never computed by anyone.
    pub(crate) fn block_to_write(&self, block_size: TokenCount) -> Option<BlockId> {
        self.blocks.get((self.computed.0 / block_size.0) as usize).copied()
    }

    /// Blocks for all its tokens, and none that is written to is anybody else's: copy on write.
    pub(crate) fn reserve(&mut self, pool: &mut BlockPool, copies: &mut Vec<BlockPair>) {
        if let Some(from) = self.block_to_write(pool.block_size) {
            if pool.is_shared(from) {
                let copy = BlockPair { from, to: pool.take() };
                pool.release(from);
                self.blocks[(self.computed.0 / pool.block_size.0) as usize] = copy.to;
                self.table = None;
                copies.push(copy);
            } else {
                pool.forget(from);
            }
        }
        while self.block_count() < self.length.blocks(pool.block_size) {
            self.blocks.push(pool.take());
        }
    }

    /// A block for one token more than it has, if that needs one. Nobody else has the block that it goes to:
    /// the token before it was written there, or it is new.
    pub(crate) fn reserve_next(&mut self, pool: &mut BlockPool) {
        if self.lacks_next(pool.block_size) {
            self.blocks.push(pool.take());
        }
        let to = self.blocks.last().expect("it has a block for its last token");
        assert!(!pool.is_shared(*to) && !pool.is_known(*to), "what is written to is nobody else's");
    }

    /// Whether one token more needs a block.
    pub(crate) fn lacks_next(&self, block_size: TokenCount) -> bool {
        self.block_count() < TokenCount(self.length.0 + 1).blocks(block_size)
    }

    /// Whether it has the blocks for so many tokens.
    pub(crate) fn covers(&self, tokens: TokenCount, block_size: TokenCount) -> bool {
        self.block_count() >= tokens.blocks(block_size)
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
        // Those that are not known after all stay so: what comes after them has no link.
        self.known = (tokens.0 / pool.block_size.0) as usize;
    }

    /// Full blocks of the prefix cache that hold its first tokens, `tokens_max` of them at most.
    pub(crate) fn find(
        &self,
        prompt: &[TokenId],
        tokens_max: TokenCount,
        pool: &BlockPool,
    ) -> Vec<BlockId> {
        let mut found: Vec<BlockId> = Vec::new();
        let mut tokens = Vec::new();
        for index in 0..(tokens_max.0 / pool.block_size.0) as usize {
            self.tokens_of_block(index, prompt, pool.block_size, &mut tokens);
            let Some(block) = pool.find(found.last().copied(), &tokens) else { break };
            found.push(block);
        }
        found
    }

    /// Starts with blocks that were found.
    pub(crate) fn adopt(&mut self, found: Vec<BlockId>, pool: &mut BlockPool) {
        assert!(self.blocks.is_empty(), "blocks are found before there are others");
        for block in &found {
            pool.share(*block);
        }
        self.known = found.len();
        self.blocks = found;
        self.computed = TokenCount(self.block_count().0 * pool.block_size.0);
    }

    /// Makes the blocks that committed steps have filled known to the prefix cache. Where another
    /// block holds the same already, that one is used from now on.
    pub(crate) fn offer(&mut self, prompt: &[TokenId], pool: &mut BlockPool) {
        let full = (self.computed.0 / pool.block_size.0) as usize;
        if self.known >= full || !pool.is_cached() {
            return;
        }
        let mut tokens = Vec::with_capacity(pool.block_size.0 as usize);
        while self.known < full {
            let index = self.known;
            let block = self.blocks[index];
            let before = index.checked_sub(1).map(|before| self.blocks[before]);
            self.tokens_of_block(index, prompt, pool.block_size, &mut tokens);
            if let Some(twin) = pool.offer(block, before, &tokens) {
                pool.release(block);
                self.blocks[index] = twin;
                self.table = None;
            }
            self.known += 1;
        }
    }

    /// Gives its blocks back; nothing of it is in the cache then.
    pub(crate) fn release(&mut self, pool: &mut BlockPool) {
        self.exchange(Vec::new(), pool);
        self.computed = TokenCount(0);
    }

    /// Gives its blocks back for others, which hold the same. The last goes first, so that of what
    /// is kept, an end is given up before its beginning.
    pub(crate) fn exchange(&mut self, blocks: Vec<BlockId>, pool: &mut BlockPool) {
        for block in std::mem::replace(&mut self.blocks, blocks).into_iter().rev() {
            pool.release(block);
        }
        self.known = 0;
        self.table = None;
    }

    fn tokens_of_block(
        &self,
        index: usize,
        prompt: &[TokenId],
        block_size: TokenCount,
        tokens: &mut Vec<TokenId>,
    ) {
        let (start, size) = (index * block_size.0 as usize, block_size.0 as usize);
        tokens.clear();
        let in_prompt = prompt.get(start..).unwrap_or_default();
        tokens.extend(in_prompt.iter().take(size));
        let generated = start.saturating_sub(prompt.len());
        let rest = self.generated.get(generated..).unwrap_or_default();
        tokens.extend(rest.iter().take(size - tokens.len()));
    }

    fn block_count(&self) -> BlockCount {
        BlockCount(u32::try_from(self.blocks.len()).expect("blocks are counted in 32 bits"))
    }
}
