//! Stands for all ranks: what follows depends on the tokens before and the seed alone, and the tokens
//! before are read back from the blocks, so that a wrong table or a block that two write to shows.

use std::collections::BTreeSet;

use scheduler::{
    BlockCount, BlockId, BlockPair, FinishReason, LengthLimit, Limits, NewGroup, SequenceId, Slice,
    StepPlan, TokenCount, TokenId,
};

/// The model's end token.
pub(crate) const END: TokenId = TokenId(0);
/// Small, so that end tokens and stop tokens come up.
pub(crate) const VOCABULARY: u32 = 12;

/// What a token leaves in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    token: TokenId,
    /// Of all tokens up to this one: keys and values depend on them too.
    state: u64,
}

/// A cache, and a model that reads it.
#[derive(Debug)]
pub(crate) struct Oracle {
    block_size: usize,
    /// One for each token that the cache can hold; none: nobody knows what is there.
    slots: Vec<Option<Slot>>,
    /// The same of host memory.
    host: Vec<Option<Slot>>,
    /// What the last step sampled, and for whom.
    sampled: Vec<(SequenceId, TokenId)>,
}

impl Oracle {
    pub(crate) fn new(limits: &Limits) -> Self {
        let block_size = limits.block_size.0 as usize;
        let slots = |blocks: BlockCount| vec![None; blocks.0 as usize * block_size];
        Self {
            block_size,
            slots: slots(limits.blocks),
            host: slots(limits.swap_blocks),
            sampled: Vec::new(),
        }
    }

    /// Everything in the cache is gone.
    pub(crate) fn lose(&mut self) {
        self.slots.fill(None);
        self.host.fill(None);
        self.sampled.clear();
    }

    /// Runs a step. All copies are made, then all slots written, then all tokens read, as ranks do
    /// that run a batch layer by layer.
    pub(crate) fn run(&mut self, plan: &StepPlan) -> Vec<TokenId> {
        carry(&plan.swap_out, self.block_size, &self.slots, &mut self.host);
        carry(&plan.swap_in, self.block_size, &self.host, &mut self.slots);
        self.copy(plan);
        let mut written = BTreeSet::new();
        for slice in &plan.slices {
            for (position, token) in (slice.start.0 as usize..).zip(self.tokens(slice)) {
                let slot = self.slot(slice, position);
                assert!(written.insert(slot), "two slices write to slot {slot}");
                self.slots[slot] = Some(Slot { token, state: 0 });
            }
        }
        let states: Vec<u64> = plan.slices.iter().map(|slice| self.read(slice)).collect();
        let sampled = plan.slices.iter().zip(states);
        let sampled = sampled
            .filter_map(|(slice, state)| Some((slice.sequence, next(state, slice.sampling?.seed))));
        self.sampled = sampled.collect();
        self.sampled.iter().map(|(_, token)| *token).collect()
    }

    /// A slice's tokens, once the step before is done.
    fn tokens(&self, slice: &Slice) -> Vec<TokenId> {
        let Some(place) = slice.follows else { return slice.tokens.clone() };
        assert!(slice.tokens.is_empty(), "what follows a token brings no other");
        let (sequence, token) = self.sampled[place as usize];
        assert_eq!(sequence, slice.sequence, "a sequence follows itself");
        vec![token]
    }

    fn copy(&mut self, plan: &StepPlan) {
        let before = self.slots.clone();
        let sources: BTreeSet<BlockId> = plan.copies.iter().map(|copy| copy.from).collect();
        let mut targets = BTreeSet::new();
        for copy in &plan.copies {
            assert!(targets.insert(copy.to), "two copies go to {:?}", copy.to);
            assert!(!sources.contains(&copy.to), "copies depend on their order at {:?}", copy.to);
            for offset in 0..self.block_size {
                let from = copy.from.0 as usize * self.block_size + offset;
                self.slots[copy.to.0 as usize * self.block_size + offset] = before[from];
            }
        }
    }

    /// Reads a sequence back through its block table. What this step wrote gets its state, what was
    /// there must have the right one.
    fn read(&mut self, slice: &Slice) -> u64 {
        let start = slice.start.0 as usize;
        let end = start + slice.count().0 as usize;
        assert_eq!(
            slice.blocks.len(),
            end.div_ceil(self.block_size),
            "the table just covers {slice:?}"
        );
        let mut state = 0;
        for position in 0..end {
            let slot = self.slot(slice, position);
            let found = self.slots[slot].as_mut().unwrap_or_else(|| {
                panic!("nothing is known about position {position} of {slice:?}")
            });
            state = mix(state, u64::from(found.token.0));
            if position >= start {
                found.state = state;
            }
            assert_eq!(found.state, state, "position {position} of {slice:?} is somebody else's");
        }
        state
    }

    fn slot(&self, slice: &Slice, position: usize) -> usize {
        let block = slice.blocks[position / self.block_size];
        block.0 as usize * self.block_size + position % self.block_size
    }
}

/// From one memory to the other.
fn carry(pairs: &[BlockPair], size: usize, from: &[Option<Slot>], to: &mut [Option<Slot>]) {
    let mut targets = BTreeSet::new();
    for pair in pairs {
        assert!(targets.insert(pair.to), "two blocks go to {:?}", pair.to);
        let (source, target) = (pair.from.0 as usize * size, pair.to.0 as usize * size);
        to[target..target + size].copy_from_slice(&from[source..source + size]);
    }
}

/// The answer of the group's sequence `index` when nothing else is served, and why it ends.
pub(crate) fn undisturbed(
    group: &NewGroup,
    index: u32,
    limits: &Limits,
) -> (Vec<TokenId>, FinishReason) {
    let seed = group.sampling.seed.wrapping_add(u64::from(index));
    let prompt = group.prompt.iter();
    let mut state = prompt.fold(0, |state, token| mix(state, u64::from(token.0)));
    let mut answer = Vec::new();
    loop {
        let token = next(state, seed);
        state = mix(state, u64::from(token.0));
        answer.push(token);
        let ends = (token == END && !group.ignore_end) || group.stop_tokens.contains(&token);
        if ends && answer.len() >= group.tokens_min.0 as usize {
            return (answer, FinishReason::Stop(Some(token)));
        }
        if let Some(limit) = limit_reached(group, answer.len(), limits) {
            return (answer, FinishReason::Length(limit));
        }
    }
}

fn limit_reached(group: &NewGroup, generated: usize, limits: &Limits) -> Option<LengthLimit> {
    let reached = |most: Option<TokenCount>| most.is_some_and(|most| generated >= most.0 as usize);
    if reached(group.tokens_max) {
        return Some(LengthLimit::Request);
    }
    if reached(limits.generation_max) {
        return Some(LengthLimit::Operator);
    }
    let length = group.prompt.len() + generated;
    let longer_fits = length < limits.model_len_max.0 as usize && fits(group, length + 1, limits);
    (!longer_fits).then_some(LengthLimit::Context)
}

/// Whether all sequences of a group fit the cache when each is that long.
pub(crate) fn fits(group: &NewGroup, length: usize, limits: &Limits) -> bool {
    let block_size = limits.block_size.0 as usize;
    let shared = (group.prompt.len() - 1) / block_size;
    let own = length.div_ceil(block_size) - shared;
    shared + own * group.sequences as usize <= limits.blocks.0 as usize
}

fn next(state: u64, seed: u64) -> TokenId {
    let token = mix(state, seed) % u64::from(VOCABULARY);
    TokenId(u32::try_from(token).unwrap())
}

/// One round of `SplitMix64`: any two inputs give unrelated outputs.
fn mix(state: u64, input: u64) -> u64 {
    let mut mixed = state.rotate_left(7) ^ input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
