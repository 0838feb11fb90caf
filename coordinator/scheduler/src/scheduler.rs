//! The decisions: who runs, who waits, who gives way.

use std::collections::BTreeMap;

use crate::blocks::BlockPool;
use crate::event::{CancelReason, Event};
use crate::group::NewGroup;
use crate::limits::{Limits, LimitsError, Refusal};
use crate::plan::{BlockPair, Outcome, Slice, StepPlan};
use crate::sequence::Sequence;
use crate::sequence_group::{Budget, SequenceGroup};
use crate::stats::Stats;
use crate::units::{BlockCount, GroupId, SequenceId, StepId, Time, TokenCount, TokenId};

/// One block in this many, rounded up, stays free when a group is admitted beside others, so that
/// it is not pushed out again by the first of them that grows. The usual figure is 1 %.
const WATERMARK_SHARE: u32 = 100;

/// Owns every group from `submit` to its last event, and every KV block.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    /// By age. All are younger than all that run: a group that gives way is the youngest that ran.
    waiting: BTreeMap<GroupId, SequenceGroup>,
    /// By age, the oldest first.
    running: Vec<SequenceGroup>,
    /// What the step that is being run computes; none between steps.
    in_flight: Option<Vec<Part>>,
    groups: u64,
    steps: u64,
    preemptions_recompute: u64,
    prompt_tokens: u64,
    generation_tokens: u64,
}

/// A slice, as far as its commit needs it.
#[derive(Debug, Clone, Copy)]
struct Part {
    sequence: SequenceId,
    count: TokenCount,
    samples: bool,
}

impl Scheduler {
    /// Nothing waits, nothing runs, all blocks are free.
    ///
    /// # Errors
    /// When the limits make no sense.
    pub fn new(limits: Limits) -> Result<Self, LimitsError> {
        let limits = limits.validate()?;
        Ok(Self {
            pool: BlockPool::new(limits.blocks, limits.block_size),
            limits,
            waiting: BTreeMap::new(),
            running: Vec::new(),
            in_flight: None,
            groups: 0,
            steps: 0,
            preemptions_recompute: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
        })
    }

    /// What it works within.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Queues a group behind all others.
    ///
    /// # Errors
    /// When it can never run, or too many wait. Nothing has changed then.
    pub fn submit(&mut self, mut new: NewGroup, now: Time) -> Result<GroupId, Refusal> {
        new.sequences = new.sequences.max(1);
        let generated_max = self.limits.generated_max(&new)?;
        if self.waiting.len() >= self.limits.waiting_max {
            return Err(Refusal::QueueFull { waiting: self.waiting.len() });
        }
        self.groups += 1;
        let id = GroupId(self.groups);
        self.waiting.insert(id, SequenceGroup::new(id, new, generated_max, now));
        self.check();
        Ok(id)
    }

    /// Ends a group early, wherever it is. Nothing happens if it has ended or never was.
    ///
    /// When the group has a part in the step in flight, its blocks are free at once although the
    /// workers still write to them. That is safe: blocks are given out by `plan` alone, which may
    /// not be called before that step is committed. The tokens of its part are dropped then.
    pub fn cancel(&mut self, id: GroupId, reason: CancelReason, now: Time) -> Vec<Event> {
        let running = self.running.binary_search_by_key(&id, |group| group.id);
        let group = match running {
            Ok(index) => Some(self.running.remove(index)),
            Err(_) => self.waiting.remove(&id),
        };
        let Some(mut group) = group else { return Vec::new() };
        let events = group.cancel(reason, &mut self.pool, now);
        self.check();
        events
    }

    /// The next step; none when nothing waits and nothing runs.
    ///
    /// Every sequence that runs has at least one token in it. Unfinished prompts share the rest, the
    /// oldest first, and then groups that wait are admitted. When blocks run out, the youngest group
    /// gives way.
    ///
    /// # Panics
    /// When the step before has not been committed.
    pub fn plan(&mut self, now: Time) -> Option<StepPlan> {
        assert!(self.in_flight.is_none(), "plan and commit alternate");
        let mut copies = Vec::new();
        self.make_room(&mut copies);
        self.admit(&mut copies);
        let slices = self.slices(now);
        if slices.is_empty() {
            assert!(self.waiting.is_empty(), "the oldest group can always run");
            return None;
        }
        let parts = slices.iter().map(|slice| Part {
            sequence: slice.sequence,
            count: TokenCount::of(&slice.tokens),
            samples: slice.sampling.is_some(),
        });
        self.in_flight = Some(parts.collect());
        self.steps += 1;
        self.check();
        Some(StepPlan {
            id: StepId(self.steps),
            slices,
            swap_out: Vec::new(),
            swap_in: Vec::new(),
            copies,
            blocks_held: self.pool.held(),
            swap_blocks_held: BlockCount(0),
        })
    }

    /// Takes in what became of the step in flight, and says who got which token and who has ended.
    ///
    /// # Panics
    /// When a step is said to be done and none is in flight, or it brings another number of tokens
    /// than its plan asked for: whoever runs steps has checked that.
    pub fn commit(&mut self, outcome: Outcome, now: Time) -> Vec<Event> {
        let parts = self.in_flight.take();
        let events = match outcome {
            Outcome::Done(tokens) => {
                let parts = parts.expect("only a step that was planned can be done");
                self.apply(&parts, &tokens, now)
            }
            Outcome::Lost => {
                while self.suspend_youngest() {}
                Vec::new()
            }
        };
        self.check();
        events
    }

    /// The present state, and counts since the beginning.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            waiting: self.waiting.len(),
            running: self.running.len(),
            swapped: 0,
            oldest_waiting: self.waiting.values().next().map(|group| group.arrival),
            blocks: self.limits.blocks,
            blocks_held: self.pool.held(),
            swap_blocks: self.limits.swap_blocks,
            swap_blocks_held: BlockCount(0),
            preemptions_recompute: self.preemptions_recompute,
            preemptions_swap: 0,
            prompt_tokens: self.prompt_tokens,
            generation_tokens: self.generation_tokens,
            prefix_queries: 0,
            prefix_hits: 0,
        }
    }

    /// Gives every group that runs the blocks for all its tokens, the oldest first. While there are
    /// too few, the youngest gives way. It is not admitted again in the same step: what it
    /// gave back and nobody took is always less than what it held.
    fn make_room(&mut self, copies: &mut Vec<BlockPair>) {
        let mut settled = 0;
        while settled < self.running.len() {
            let copied = copies.len();
            while !self.running[settled].reserve(&mut self.pool, copies) {
                assert!(self.running.len() > 1, "a group that runs alone has the blocks it needs");
                self.suspend_youngest();
                self.preemptions_recompute += 1;
                if settled == self.running.len() {
                    // It was itself the youngest: what it has copied so far goes with it.
                    copies.truncate(copied);
                    return;
                }
            }
            settled += 1;
        }
    }

    /// Lets groups in, in order of arrival, while there are tokens, sequences and blocks for the
    /// first of them. Nobody overtakes.
    fn admit(&mut self, copies: &mut Vec<BlockPair>) {
        let mut sequences: u32 = self.running.iter().map(SequenceGroup::live).sum();
        if self.waiting.is_empty() || sequences >= self.limits.running_max() {
            return;
        }
        let pending = self.running.iter().map(|group| group.pending().0);
        let pending = pending.fold(0, u32::saturating_add);
        let mut tokens = self.limits.step_tokens_max.0.saturating_sub(pending);
        while tokens > 0 {
            let Some(first) = self.waiting.first_entry() else { return };
            let group = first.get();
            let watermark = self.limits.blocks.0.div_ceil(WATERMARK_SHARE);
            let spare = if self.running.is_empty() { 0 } else { watermark };
            let needed = group.blocks_needed(self.limits.block_size).0.saturating_add(spare);
            let fits = sequences + group.live() <= self.limits.running_max();
            if !fits || needed > self.pool.free().0 {
                return;
            }
            let mut group = first.remove();
            let reserved = group.reserve(&mut self.pool, copies);
            assert!(reserved, "there are the blocks that were counted");
            sequences += group.live();
            tokens = tokens.saturating_sub(group.pending().0);
            self.running.push(group);
        }
    }

    fn slices(&mut self, now: Time) -> Vec<Slice> {
        let sequences = self.running.iter().map(SequenceGroup::runnable).sum();
        let mut budget = Budget { tokens: self.limits.step_tokens_max.0, sequences };
        let mut slices = Vec::with_capacity(sequences as usize);
        for group in &mut self.running {
            group.plan(&mut budget, &self.pool, now, &mut slices);
        }
        slices
    }

    /// The youngest group that runs waits again, in front of all others. False: none runs.
    fn suspend_youngest(&mut self) -> bool {
        let Some(mut group) = self.running.pop() else { return false };
        group.suspend(&mut self.pool);
        self.waiting.insert(group.id, group);
        true
    }

    fn apply(&mut self, parts: &[Part], tokens: &[TokenId], now: Time) -> Vec<Event> {
        let sampled = parts.iter().filter(|part| part.samples).count();
        assert_eq!(tokens.len(), sampled, "a token for each slice that asked, and no other");
        let mut tokens = tokens.iter().copied();
        let mut events = Vec::with_capacity(sampled);
        for part in parts {
            let token = if part.samples { tokens.next() } else { None };
            let SequenceId { group, index } = part.sequence;
            // Not found: it was cancelled while the step ran.
            let found = self.running.binary_search_by_key(&group, |group| group.id);
            let Ok(group) = found.map(|place| &mut self.running[place]) else { continue };
            let prompt_tokens = group.advance(index, part.count, &mut self.pool);
            self.prompt_tokens += u64::from(prompt_tokens.0);
            let Some(token) = token else { continue };
            self.generation_tokens += 1;
            events.push(Event::Token { sequence: part.sequence, token });
            if let Some(reason) = group.append(index, token, &self.limits.end_tokens, now) {
                group.end(index, reason, &mut self.pool, now, &mut events);
            }
        }
        self.running.retain(|group| group.live() > 0);
        events
    }

    /// The invariants of the crate's documentation: what is cheap always, the rest in debug builds.
    fn check(&self) {
        let youngest = self.running.last().map(|group| group.id);
        let first = self.waiting.keys().next().copied();
        assert!(first.is_none() || youngest < first, "who runs is older than who waits");
        assert!(self.pool.held() <= self.limits.blocks, "no block is given out twice");
        if cfg!(debug_assertions) {
            self.check_groups();
            self.check_blocks();
        }
    }

    fn check_groups(&self) {
        assert!(self.running.is_sorted_by_key(|group| group.id), "the oldest runs first");
        let live: u32 = self.running.iter().map(SequenceGroup::live).sum();
        assert!(live <= self.limits.running_max(), "a step has a token for all that runs");
        for group in self.running.iter().chain(self.waiting.values()) {
            let live = group.sequences().iter().filter(|sequence| !sequence.finished);
            assert_eq!(live.count(), group.live() as usize, "live sequences are counted");
            assert!(group.live() > 0, "a group leaves with its last sequence");
        }
        let mut waiting = self.waiting.values().flat_map(SequenceGroup::sequences);
        assert!(waiting.all(|sequence| sequence.blocks().is_empty()), "who waits owns no block");
    }

    fn check_blocks(&self) {
        let mut references = BTreeMap::new();
        let running = self.running.iter().flat_map(SequenceGroup::sequences);
        for block in running.clone().flat_map(Sequence::blocks) {
            *references.entry(*block).or_insert(0) += 1;
        }
        assert_eq!(references.len(), self.pool.held().0 as usize, "every block is owned or free");
        for (block, count) in references {
            assert_eq!(self.pool.references(block), count, "owners are counted");
        }
        for sequence in running.filter(|sequence| !sequence.finished) {
            assert!(sequence.computed < sequence.length, "there is always a token to compute");
        }
    }
}
