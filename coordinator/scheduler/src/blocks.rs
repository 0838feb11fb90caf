//! The KV blocks of the device: which are free, and how many tables name each of the others.

use crate::units::{BlockCount, BlockId, TokenCount};

/// All blocks, by reference count.
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
}

impl BlockPool {
    pub(crate) const fn new(capacity: BlockCount, block_size: TokenCount) -> Self {
        Self { block_size, capacity, references: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn free(&self) -> BlockCount {
        BlockCount(self.capacity.0 - self.held().0)
    }

    pub(crate) fn held(&self) -> BlockCount {
        let held = self.references.len() - self.free.len();
        BlockCount(u32::try_from(held).expect("there are at most `capacity` blocks"))
    }

    /// Gives out a free block, named once.
    ///
    /// # Panics
    /// When none is free: whoever takes has looked.
    pub(crate) fn take(&mut self) -> BlockId {
        assert!(self.free().0 > 0, "a block is taken only when one is free");
        let block = self.free.pop().unwrap_or_else(|| {
            self.references.push(0);
            BlockId(u32::try_from(self.references.len() - 1).expect("below `capacity`"))
        });
        self.references[block.0 as usize] = 1;
        block
    }

    /// One more table names the block.
    pub(crate) fn share(&mut self, block: BlockId) {
        assert!(self.references(block) > 0, "a free block cannot be shared");
        self.references[block.0 as usize] += 1;
    }

    /// One table fewer names the block; it is free when none does.
    pub(crate) fn release(&mut self, block: BlockId) {
        assert!(self.references(block) > 0, "a block is released once by each who holds it");
        self.references[block.0 as usize] -= 1;
        if self.references(block) == 0 {
            self.free.push(block);
        }
    }

    pub(crate) fn is_shared(&self, block: BlockId) -> bool {
        self.references(block) > 1
    }

    /// Tables that name the block.
    pub(crate) fn references(&self, block: BlockId) -> u32 {
        self.references.get(block.0 as usize).copied().unwrap_or(0)
    }
}
