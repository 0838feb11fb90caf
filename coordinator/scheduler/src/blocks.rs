//! KV blocks: which are free, how many tables name each of the others, and which are kept although
//! nobody names them, because somebody may ask for what is in them.

use crate::prefix::{Link, PrefixCache};
use crate::units::{BlockCount, BlockId, TokenCount, TokenId};

/// All blocks of one memory, by reference count.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// Tokens a block holds.
    pub(crate) block_size: TokenCount,
    capacity: BlockCount,
    /// Tables that name the block. Only as long as the highest block ever used, so that a large
    /// capacity costs memory when it is used and not before.
    references: Vec<u32>,
    /// Used before and free again; the last freed goes first.
    free: Vec<BlockId>,
    cache: PrefixCache,
}

impl BlockPool {
    pub(crate) fn new(capacity: BlockCount, block_size: TokenCount, cached: bool) -> Self {
        Self {
            block_size,
            capacity,
            references: Vec::new(),
            free: Vec::new(),
            cache: PrefixCache::new(cached),
        }
    }

    /// Blocks that can be taken: free ones, and those that are only kept for their content.
    pub(crate) fn free(&self) -> BlockCount {
        BlockCount(self.capacity.0 - self.held().0)
    }

    /// Blocks that at least one table names.
    pub(crate) fn held(&self) -> BlockCount {
        let held = self.references.len() - self.free.len() - self.cache.resting();
        BlockCount(u32::try_from(held).expect("below `capacity`"))
    }

    /// Gives out a free block, named once. What is kept for its content goes last, and of that
    /// what was not asked for the longest goes first.
    ///
    /// # Panics
    /// When none is free: whoever takes has looked.
    pub(crate) fn take(&mut self) -> BlockId {
        assert!(self.free().0 > 0, "a block is taken only when one is free");
        let unused = self.references.len() < self.capacity.0 as usize;
        let block = match self.free.pop() {
            Some(block) => block,
            None if unused => {
                self.references.push(0);
                BlockId(u32::try_from(self.references.len() - 1).expect("below `capacity`"))
            }
            None => self.cache.evict().expect("a block is held, free or kept"),
        };
        self.references[block.0 as usize] = 1;
        block
    }

    /// One more table names the block, which is held or kept.
    pub(crate) fn share(&mut self, block: BlockId) {
        if self.references(block) == 0 {
            assert!(self.cache.wake(block), "a free block cannot be shared");
        }
        self.references[block.0 as usize] += 1;
    }

    /// One table fewer names the block; when none does, it is kept if it can be found, and free
    /// otherwise.
    pub(crate) fn release(&mut self, block: BlockId) {
        assert!(self.references(block) > 0, "a block is released once by each who holds it");
        self.references[block.0 as usize] -= 1;
        if self.references(block) == 0 && !self.cache.rest(block) {
            self.free.push(block);
        }
    }

    pub(crate) fn is_shared(&self, block: BlockId) -> bool {
        self.references(block) > 1
    }

    /// It can be found in the prefix cache.
    pub(crate) fn is_known(&self, block: BlockId) -> bool {
        self.cache.link(block).is_some()
    }

    /// Tables that name the block.
    pub(crate) fn references(&self, block: BlockId) -> u32 {
        self.references.get(block.0 as usize).copied().unwrap_or(0)
    }

    pub(crate) const fn is_cached(&self) -> bool {
        self.cache.is_on()
    }

    /// The block that holds these tokens after the beginning that ends with `before`.
    pub(crate) fn find(&self, before: Option<BlockId>, tokens: &[TokenId]) -> Option<BlockId> {
        self.cache.find(self.link(before)?, tokens)
    }

    /// A committed step has filled a held block with these tokens, after the beginning that ends with
    /// `before`: it is found from now on, if that can be. Or another block holds the same after the same
    /// beginning: that is given, named once more, and is to be used instead.
    pub(crate) fn offer(
        &mut self,
        block: BlockId,
        before: Option<BlockId>,
        tokens: &[TokenId],
    ) -> Option<BlockId> {
        let link = self.link(before)?;
        let Some(twin) = self.cache.find(link, tokens) else {
            self.cache.insert(block, link, tokens);
            return None;
        };
        (twin != block).then(|| {
            self.share(twin);
            twin
        })
    }

    /// A held block is about to be written to: nobody may find it any more.
    pub(crate) fn forget(&mut self, block: BlockId) {
        self.cache.forget(block);
    }

    /// What was in the blocks is gone: those that were only kept are free.
    pub(crate) fn forget_all(&mut self) {
        self.free.extend(self.cache.forget_all());
    }

    fn link(&self, before: Option<BlockId>) -> Option<Link> {
        before.map_or(Some(Link::START), |block| self.cache.link(block))
    }

    /// Nothing is counted twice or not at all.
    pub(crate) fn check(&self) {
        let held = self.references.iter().filter(|references| **references > 0).count();
        assert_eq!(held, self.held().0 as usize, "a block is held, free or kept");
        assert!(self.references.len() <= self.capacity.0 as usize, "no block is made up");
        self.cache.check();
    }
}
