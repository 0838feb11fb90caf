//! The decisions: who runs, who waits, who gives way.

mod admit;
mod ahead;
mod check;
mod room;

use std::collections::{BTreeMap, VecDeque};

use crate::blocks::BlockPool;
use crate::event::{CancelReason, Event, FinishReason};
use crate::forecast::Forecast;
use crate::group::NewGroup;
use crate::limits::{Limits, LimitsError, Refusal};
use crate::plan::{BlockPair, Outcome, Slice, StepPlan};
use crate::rank::Rank;
use crate::rates::Rates;
use crate::sequence_group::{Budget, SequenceGroup};
use crate::stats::Stats;
use crate::units::{BlockCount, GroupId, SequenceId, StepId, TenantId, Time, TokenCount, TokenId};
use crate::waiting::Waiting;

/// Owns every group from `submit` to its last event, and every KV block.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    rates: Rates,
    forecast: Forecast,
    /// Blocks of the device.
    device: BlockPool,
    /// Blocks of host memory.
    host: BlockPool,
    waiting: Waiting,
    /// By rank, the first in order first.
    running: Vec<SequenceGroup>,
    /// Their blocks are in host memory.
    swapped: BTreeMap<Rank, SequenceGroup>,
    /// Every group that has not ended.
    places: BTreeMap<GroupId, Place>,
    /// What the steps that were planned and not committed compute: the one that is being run, and the one
    /// after it if that was planned ahead.
    in_flight: VecDeque<Vec<Part>>,
    refused: Option<Refused>,
    groups: u64,
    steps: u64,
    /// What only counts up.
    counts: Counts,
}

/// The group that was last not let in for want of blocks, and how many it might have taken.
type Refused = (Rank, BlockCount);

/// Where to look for a group.
#[derive(Debug, Clone, Copy)]
struct Place {
    rank: Rank,
    tenant: TenantId,
}

/// A slice, as far as its commit needs it.
#[derive(Debug, Clone, Copy)]
struct Part {
    rank: Rank,
    index: u32,
    /// Tokens in the cache before it.
    start: TokenCount,
    count: TokenCount,
    samples: bool,
}

/// What happens to blocks before the slices of a step run, in this order.
#[derive(Debug, Default)]
struct Moves {
    swap_out: Vec<BlockPair>,
    swap_in: Vec<BlockPair>,
    copies: Vec<BlockPair>,
}

#[derive(Debug, Default)]
struct Counts {
    preemptions_recompute: u64,
    preemptions_swap: u64,
    prompt_tokens: u64,
    generation_tokens: u64,
    steps_ahead: u64,
    slices_void: u64,
    prefix_queries: u64,
    prefix_hits: u64,
}

impl Part {
    fn of(rank: Rank, slice: &Slice) -> Self {
        let (index, start, count) = (slice.sequence.index, slice.start, slice.count());
        Self { rank, index, start, count, samples: slice.sampling.is_some() }
    }
}

impl Scheduler {
    /// Nothing waits, nothing runs, all blocks are free.
    ///
    /// # Errors
    /// When the limits make no sense.
    pub fn new(limits: Limits) -> Result<Self, LimitsError> {
        let limits = limits.validate()?;
        Ok(Self {
            rates: Rates::default(),
            forecast: Forecast::new(),
            device: BlockPool::new(limits.blocks, limits.block_size, limits.prefix_cache),
            host: BlockPool::new(limits.swap_blocks, limits.block_size, false),
            waiting: Waiting::new(limits.policy),
            limits,
            running: Vec::new(),
            swapped: BTreeMap::new(),
            places: BTreeMap::new(),
            in_flight: VecDeque::new(),
            refused: None,
            groups: 0,
            steps: 0,
            counts: Counts::default(),
        })
    }

    /// What it works within.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What giving way costs was measured anew: whether a group is swapped or computed again depends
    /// on it, and no answer does.
    pub const fn measured(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// Queues a group.
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
        let rank = self.limits.policy.rank(id, new.priority, now);
        self.places.insert(id, Place { rank, tenant: new.tenant });
        self.waiting.insert(SequenceGroup::new(rank, new, generated_max, now));
        self.check();
        Ok(id)
    }

    /// Ends a group early, wherever it is. Nothing happens if it has ended or never was.
    ///
    /// When the group has a part in a step in flight, its blocks are free at once although the
    /// workers still write to them. That is safe: who gets them next writes to them in a later step, and
    /// ranks run steps one after the other. What its part gives is thrown away.
    ///
    /// # Panics
    /// Never: a group that has not ended is in one queue.
    pub fn cancel(&mut self, id: GroupId, reason: CancelReason, now: Time) -> Vec<Event> {
        let Some(&Place { rank, tenant }) = self.places.get(&id) else { return Vec::new() };
        let (mut group, pool) = if let Some(place) = self.place_of(rank) {
            (self.running.remove(place), &mut self.device)
        } else if let Some(group) = self.swapped.remove(&rank) {
            (group, &mut self.host)
        } else {
            let group = self.waiting.remove(tenant, rank);
            (group.expect("a group is in one queue"), &mut self.device)
        };
        let events = group.cancel(reason, pool, now);
        self.see_off(&events);
        self.check();
        events
    }

    /// The next step; none when there is nothing to run.
    ///
    /// Every sequence that runs has at least one token in it. Unfinished prompts share the rest, the
    /// first in order first, and then groups come back from host memory or are let in. When blocks
    /// run out, the last in order gives way.
    ///
    /// # Panics
    /// When a step before has not been committed.
    pub fn plan(&mut self, now: Time) -> Option<StepPlan> {
        assert!(self.in_flight.is_empty(), "a step is planned when those before are committed");
        let mut moves = Moves::default();
        self.yield_to_urgent(&mut moves);
        if self.make_room(&mut moves) {
            self.admit(&mut moves);
        }
        let slices = self.slices(now);
        if slices.is_empty() {
            assert!(self.places.is_empty(), "the first in order can always run");
            return None;
        }
        Some(self.step(slices, moves))
    }

    /// Takes in what became of the first step in flight, and says who got which token and who has ended.
    ///
    /// # Panics
    /// When a step is said to be done and none is in flight, or it brings another number of tokens
    /// than its plan asked for: whoever runs steps has checked that.
    pub fn commit(&mut self, outcome: Outcome, now: Time) -> Vec<Event> {
        let events = match outcome {
            Outcome::Done(tokens) => {
                let parts = self.in_flight.pop_front();
                let parts = parts.expect("only a step that was planned can be done");
                self.apply(&parts, &tokens, now)
            }
            Outcome::Lost => {
                self.in_flight.clear();
                self.lose();
                Vec::new()
            }
        };
        self.check();
        events
    }

    /// The present state, and counts since the beginning.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let oldest = self.waiting.oldest().and_then(|id| self.places.get(&id));
        let oldest = oldest.and_then(|place| self.waiting.get(place.tenant, place.rank));
        Stats {
            waiting: self.waiting.len(),
            running: self.running.len(),
            swapped: self.swapped.len(),
            oldest_waiting: oldest.map(|group| group.arrival),
            blocks: self.limits.blocks,
            blocks_held: self.device.held(),
            swap_blocks: self.limits.swap_blocks,
            swap_blocks_held: self.host.held(),
            preemptions_recompute: self.counts.preemptions_recompute,
            preemptions_swap: self.counts.preemptions_swap,
            prompt_tokens: self.counts.prompt_tokens,
            generation_tokens: self.counts.generation_tokens,
            steps_ahead: self.counts.steps_ahead,
            slices_void: self.counts.slices_void,
            prefix_queries: self.counts.prefix_queries,
            prefix_hits: self.counts.prefix_hits,
        }
    }

    /// The step that does this, which is in flight.
    fn step(&mut self, slices: Vec<Slice>, moves: Moves) -> StepPlan {
        self.steps += 1;
        self.check();
        let Moves { swap_out, swap_in, copies } = moves;
        assert!(swap_out.is_empty() || swap_in.is_empty(), "a step swaps one way");
        StepPlan {
            id: StepId(self.steps),
            slices,
            swap_out,
            swap_in,
            copies,
            blocks_held: self.device.held(),
            swap_blocks_held: self.host.held(),
        }
    }

    /// Where a group is among those that run.
    fn place_of(&self, rank: Rank) -> Option<usize> {
        self.running.binary_search_by_key(&rank, |group| group.rank).ok()
    }

    /// Where the group of a part is among those that run, if the sequence has not ended.
    fn living(&self, part: &Part) -> Option<usize> {
        self.place_of(part.rank).filter(|place| self.running[*place].living(part.index).is_some())
    }

    /// Sequences that run.
    fn live(&self) -> u32 {
        self.running.iter().map(SequenceGroup::live).sum()
    }

    fn slices(&mut self, now: Time) -> Vec<Slice> {
        let sequences = self.running.iter().map(SequenceGroup::runnable).sum();
        let mut budget = Budget { tokens: self.limits.step_tokens_max.0, sequences };
        let mut slices = Vec::with_capacity(sequences as usize);
        let mut parts = Vec::with_capacity(sequences as usize);
        for group in &mut self.running {
            let first = slices.len();
            group.plan(&mut budget, &self.device, now, &mut slices);
            parts.extend(slices[first..].iter().map(|slice| Part::of(group.rank, slice)));
        }
        if !parts.is_empty() {
            self.in_flight.push_back(parts);
        }
        slices
    }

    fn apply(&mut self, parts: &[Part], tokens: &[TokenId], now: Time) -> Vec<Event> {
        let sampled = parts.iter().filter(|part| part.samples).count();
        assert_eq!(tokens.len(), sampled, "a token for each slice that asked, and no other");
        let mut tokens = tokens.iter().copied();
        let mut events = Vec::with_capacity(sampled);
        for part in parts {
            let token = if part.samples { tokens.next() } else { None };
            // Not found: it was cancelled while the step ran, or has ended with a token that was not known
            // when the step was planned.
            let Some(place) = self.living(part) else {
                self.counts.slices_void += 1;
                continue;
            };
            let group = &mut self.running[place];
            let prompt_tokens = group.advance(part.index, part.count, &mut self.device);
            self.counts.prompt_tokens += u64::from(prompt_tokens.0);
            let Some(token) = token else { continue };
            self.counts.generation_tokens += 1;
            self.waiting.charge(group.tenant, TokenCount(0), TokenCount(1));
            let sequence = SequenceId { group: part.rank.id, index: part.index };
            events.push(Event::Token { sequence, token });
            if let Some(reason) = group.append(part.index, token, &self.limits.end_tokens, now) {
                group.end(part.index, reason, &mut self.device, now, &mut events);
            }
        }
        self.see_off(&events);
        events
    }

    /// Takes leave of the groups that have ended, and learns from the sequences that have.
    fn see_off(&mut self, events: &[Event]) {
        let mut ended = false;
        for event in events {
            match event {
                Event::SequenceFinished { reason, generated, .. } => {
                    if matches!(reason, FinishReason::Stop(_) | FinishReason::Length(_)) {
                        self.forecast.ended(*generated);
                    }
                }
                Event::GroupFinished { group, .. } => {
                    self.places.remove(group);
                    ended = true;
                }
                Event::Token { .. } => {}
            }
        }
        if ended {
            self.running.retain(|group| group.live() > 0);
        }
    }

    /// Everything in the caches is gone: all that run or are swapped wait again.
    fn lose(&mut self) {
        for mut group in std::mem::take(&mut self.running) {
            group.suspend(&mut self.device);
            self.waiting.insert(group);
        }
        for (_, mut group) in std::mem::take(&mut self.swapped) {
            group.suspend(&mut self.host);
            self.waiting.insert(group);
        }
        self.device.forget_all();
        self.refused = None;
    }
}
