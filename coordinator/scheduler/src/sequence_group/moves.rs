//! Where a group's blocks come from and where they go.

use std::collections::BTreeMap;

use crate::blocks::BlockPool;
use crate::plan::BlockPair;
use crate::sequence::Sequence;
use crate::sequence_group::{SequenceGroup, runnable};
use crate::units::{BlockCount, BlockId, TokenCount};

impl SequenceGroup {
    /// Blocks for all its tokens. Full ones before the fork point are shared.
    pub(crate) fn blocks_needed(&self, block_size: TokenCount) -> BlockCount {
        let shared = self.fork_point().0 / block_size.0;
        let own = self.alive().map(|sequence| sequence.length.blocks(block_size).0 - shared);
        BlockCount(own.fold(shared, u32::saturating_add))
    }

    /// Blocks that it will take beyond those for the tokens it has, if its sequences become as long
    /// as is expected.
    pub(crate) fn blocks_expected(&self, expected: TokenCount, size: TokenCount) -> BlockCount {
        let expected = expected.min(self.generated_max);
        let more = self.alive().map(|sequence| {
            let generated = TokenCount::of(&sequence.generated);
            let length = sequence.length.0 + expected.0.saturating_sub(generated.0);
            TokenCount(length).blocks(size).0 - sequence.length.blocks(size).0
        });
        BlockCount(more.fold(0, u32::saturating_add))
    }

    /// Free blocks that [`reserve`](Self::reserve) takes.
    pub(crate) fn missing(&self, pool: &BlockPool) -> BlockCount {
        let mut missing = 0;
        let mut writers: BTreeMap<BlockId, u32> = BTreeMap::new();
        for sequence in self.alive().take(self.runnable() as usize) {
            missing += sequence.growth(pool.block_size).0;
            if let Some(block) = sequence.block_to_write(pool.block_size)
                && pool.is_shared(block)
            {
                *writers.entry(block).or_insert(0) += 1;
            }
        }
        // The last one that names a block writes to it.
        let copies = writers.iter().map(|(block, writers)| {
            let others = pool.references(*block) - 1;
            others.min(*writers)
        });
        BlockCount(missing + copies.sum::<u32>())
    }

    /// Gives every runnable sequence the blocks for all its tokens. False: there are too few, and
    /// nothing has changed.
    pub(crate) fn reserve(&mut self, pool: &mut BlockPool, copies: &mut Vec<BlockPair>) -> bool {
        if self.missing(pool) > pool.free() {
            return false;
        }
        let forked = self.is_forked();
        for (_, sequence) in runnable(&mut self.sequences, forked) {
            sequence.reserve(pool, copies);
        }
        true
    }

    /// Tokens that it could find in the prefix cache.
    pub(crate) fn findable(&self) -> TokenCount {
        match self.alive().next() {
            _ if self.whole_prompt => TokenCount(0),
            Some(alone) if self.live == 1 => TokenCount(alone.length.0 - 1),
            _ => self.fork_point(),
        }
    }

    /// Tokens of which it is counted whether they were found.
    pub(crate) fn looked_up(&self) -> TokenCount {
        TokenCount(if self.whole_prompt { 0 } else { self.findable().0 + 1 })
    }

    /// What the prefix cache has of it.
    pub(crate) fn find(&self, pool: &BlockPool) -> Vec<BlockId> {
        let stem = self.alive().next().expect("a group that waits lives");
        stem.find(&self.prompt, self.findable(), pool)
    }

    /// Starts with what was found. Gives how many tokens that are.
    pub(crate) fn adopt(&mut self, found: Vec<BlockId>, pool: &mut BlockPool) -> TokenCount {
        let stem = self.sequences.iter().position(|sequence| !sequence.finished);
        let stem = stem.expect("a group that waits lives");
        self.sequences[stem].adopt(found, pool);
        let adopted = self.sequences[stem].computed;
        self.prompt_computed = adopted.min(self.prompt_length());
        if self.first_scheduled.is_none() {
            self.cached = self.prompt_computed;
        }
        if self.is_forked() {
            self.fork(stem, pool);
        }
        adopted
    }

    /// Its blocks are taken away. Its tokens are kept, and computed again when it next runs.
    pub(crate) fn suspend(&mut self, pool: &mut BlockPool) {
        for sequence in &mut self.sequences {
            sequence.release(pool);
        }
        self.prompt_computed = TokenCount(0);
        self.preemptions += 1;
    }

    /// Blocks that hold something of it, each counted once, and the tokens in them.
    pub(crate) fn filled(&self, block_size: TokenCount) -> (BlockCount, TokenCount) {
        let mut blocks: Vec<BlockId> =
            self.alive().flat_map(|s| s.filled(block_size)).copied().collect();
        blocks.sort_unstable();
        blocks.dedup();
        let prompt = self.prompt_computed.0;
        let own = self.alive().map(|sequence| sequence.computed.0.saturating_sub(prompt));
        let tokens = own.fold(prompt, u32::saturating_add);
        let blocks = u32::try_from(blocks.len()).expect("blocks are counted in 32 bits");
        (BlockCount(blocks), TokenCount(tokens))
    }

    /// What it has computed is carried from one memory to the other; blocks that its sequences share
    /// are carried once. Whoever calls has seen that `to` has room.
    pub(crate) fn carry(
        &mut self,
        from: &mut BlockPool,
        to: &mut BlockPool,
        pairs: &mut Vec<BlockPair>,
    ) {
        let mut carried: BTreeMap<BlockId, BlockId> = BTreeMap::new();
        for sequence in &mut self.sequences {
            let blocks = sequence.filled(from.block_size).iter().map(|block| {
                let target = carried.get(block).copied();
                if let Some(target) = target {
                    to.share(target);
                    return target;
                }
                let target = to.take();
                carried.insert(*block, target);
                pairs.push(BlockPair { from: *block, to: target });
                target
            });
            let blocks = blocks.collect();
            sequence.exchange(blocks, from);
        }
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.iter().filter(|sequence| !sequence.finished)
    }
}
