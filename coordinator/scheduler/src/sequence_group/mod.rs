//! A group that was accepted: its prompt, its sequences and its ends.

mod moves;

use crate::blocks::BlockPool;
use crate::event::{CancelReason, Event, FinishReason, GroupTimes, LengthLimit};
use crate::group::{NewGroup, Sampling};
use crate::plan::Slice;
use crate::rank::Rank;
use crate::sequence::Sequence;
use crate::units::{SequenceId, TenantId, Time, TokenCount, TokenId};

/// Sequences that continue one prompt. The first that has not ended computes the prompt alone, up to
/// the *fork point*, one token before the prompt's end. There the others join it, sharing its
/// blocks; each computes the prompt's last token itself and samples what follows with its own seed.
#[derive(Debug)]
pub(crate) struct SequenceGroup {
    pub(crate) rank: Rank,
    pub(crate) tenant: TenantId,
    pub(crate) arrival: Time,
    sequences: Vec<Sequence>,
    /// Sequences that have not ended.
    live: u32,
    prompt: Vec<TokenId>,
    /// Prompt tokens that are in the cache.
    prompt_computed: TokenCount,
    sampling: Sampling,
    generated_max: TokenCount,
    /// Where `generated_max` comes from.
    length_limit: LengthLimit,
    tokens_min: TokenCount,
    ignore_end: bool,
    stop_tokens: Vec<TokenId>,
    whole_prompt: bool,
    first_scheduled: Option<Time>,
    first_token: Option<Time>,
    last_token: Option<Time>,
    preemptions: u32,
    /// Times it gave way to a more urgent group.
    pub(crate) yields: u32,
    /// Prompt tokens that were found in the prefix cache when it first ran.
    cached: TokenCount,
}

/// What is left of a step while its slices are cut.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Tokens.
    pub(crate) tokens: u32,
    /// Sequences that have no slice yet. One token is set aside for each.
    pub(crate) sequences: u32,
}

impl SequenceGroup {
    pub(crate) fn new(
        rank: Rank,
        new: NewGroup,
        (generated_max, length_limit): (TokenCount, LengthLimit),
        arrival: Time,
    ) -> Self {
        let prompt = TokenCount::of(&new.prompt);
        Self {
            rank,
            tenant: new.tenant,
            arrival,
            sequences: (0..new.sequences).map(|_| Sequence::new(prompt)).collect(),
            live: new.sequences,
            prompt: new.prompt,
            prompt_computed: TokenCount(0),
            sampling: new.sampling,
            generated_max,
            length_limit,
            tokens_min: new.tokens_min,
            ignore_end: new.ignore_end,
            stop_tokens: new.stop_tokens,
            whole_prompt: new.whole_prompt,
            first_scheduled: None,
            first_token: None,
            last_token: None,
            preemptions: 0,
            yields: 0,
            cached: TokenCount(0),
        }
    }

    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    pub(crate) fn has_run(&self) -> bool {
        self.first_scheduled.is_some()
    }

    pub(crate) fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// The sequence of that number, unless it has ended.
    pub(crate) fn living(&self, index: u32) -> Option<&Sequence> {
        self.sequences.get(index as usize).filter(|sequence| !sequence.finished)
    }

    /// How many sequences have a slice in every step now: one before the fork, then all that live.
    pub(crate) fn runnable(&self) -> u32 {
        if self.is_forked() { self.live } else { 1 }
    }

    /// Tokens that could be computed in the next step.
    pub(crate) fn pending(&self) -> TokenCount {
        let runnable = self.alive().take(self.runnable() as usize);
        let pending = runnable.map(|sequence| sequence.pending().0);
        TokenCount(pending.fold(0, u32::saturating_add))
    }

    /// Cuts this group's slices of a step.
    pub(crate) fn plan(
        &mut self,
        budget: &mut Budget,
        pool: &BlockPool,
        now: Time,
        slices: &mut Vec<Slice>,
    ) {
        self.first_scheduled.get_or_insert(now);
        let forked = self.is_forked();
        for (index, sequence) in runnable(&mut self.sequences, forked) {
            let count = budget.cut(sequence.pending());
            let start = sequence.computed;
            let end = TokenCount(start.0 + count.0);
            let tokens = self.prompt.iter().chain(&sequence.generated);
            let tokens = tokens.skip(start.0 as usize).take(count.0 as usize).copied().collect();
            let seed = self.sampling.seed.wrapping_add(u64::from(index));
            slices.push(Slice {
                sequence: SequenceId { group: self.rank.id, index },
                tokens,
                follows: None,
                start,
                blocks: sequence.table(end, pool),
                sampling: (end == sequence.length).then_some(Sampling { seed, ..self.sampling }),
            });
        }
    }

    /// A sequence goes on with the token at a place of those that the step in flight samples: its slice of
    /// the step after. It has the block.
    pub(crate) fn follow(&mut self, index: u32, place: u32, pool: &BlockPool) -> Slice {
        let seed = self.sampling.seed.wrapping_add(u64::from(index));
        let sequence = &mut self.sequences[index as usize];
        let start = sequence.length;
        Slice {
            sequence: SequenceId { group: self.rank.id, index },
            tokens: Vec::new(),
            follows: Some(place),
            start,
            blocks: sequence.table(TokenCount(start.0 + 1), pool),
            sampling: Some(Sampling { seed, ..self.sampling }),
        }
    }

    /// Whether the next token is the last of a sequence, whatever it is.
    pub(crate) fn ends_next(&self, index: u32) -> bool {
        let generated = TokenCount::of(&self.sequences[index as usize].generated);
        generated.0 + 1 >= self.generated_max.0
    }

    /// A sequence gets a block for a token that is not known yet.
    pub(crate) fn reserve_next(&mut self, index: u32, pool: &mut BlockPool) {
        self.sequences[index as usize].reserve_next(pool);
    }

    /// A step has put `count` more tokens of a sequence into the cache. Gives how many of them are
    /// the prompt's and were not there. At the fork point the other sequences join.
    pub(crate) fn advance(
        &mut self,
        index: u32,
        count: TokenCount,
        pool: &mut BlockPool,
    ) -> TokenCount {
        let was_forked = self.is_forked();
        let prompt_length = self.prompt_length();
        let sequence = &mut self.sequences[index as usize];
        sequence.computed.0 += count.0;
        let prompt = sequence.computed.min(prompt_length);
        let advanced = prompt.0.saturating_sub(self.prompt_computed.0);
        self.prompt_computed.0 += advanced;
        sequence.offer(&self.prompt, pool);
        if self.is_forked() && !was_forked {
            self.fork(index as usize, pool);
        }
        TokenCount(advanced)
    }

    /// A token was sampled for a sequence. Gives why that ends it, if it does.
    pub(crate) fn append(
        &mut self,
        index: u32,
        token: TokenId,
        end_tokens: &[TokenId],
        now: Time,
    ) -> Option<FinishReason> {
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        let prompt = self.prompt_length();
        let sequence = &mut self.sequences[index as usize];
        sequence.generated.push(token);
        sequence.length.0 += 1;
        let generated = TokenCount(sequence.length.0 - prompt.0);
        let ends = !self.ignore_end && end_tokens.contains(&token);
        if generated >= self.tokens_min && (ends || self.stop_tokens.contains(&token)) {
            return Some(FinishReason::Stop(Some(token)));
        }
        (generated >= self.generated_max).then_some(FinishReason::Length(self.length_limit))
    }

    /// A sequence ends, and perhaps the group with it.
    pub(crate) fn end(
        &mut self,
        index: u32,
        reason: FinishReason,
        pool: &mut BlockPool,
        now: Time,
        events: &mut Vec<Event>,
    ) {
        let group = self.rank.id;
        let sequence = &mut self.sequences[index as usize];
        assert!(!sequence.finished, "a sequence ends once");
        sequence.finished = true;
        sequence.release(pool);
        self.live -= 1;
        let generated = TokenCount::of(&sequence.generated);
        let sequence = SequenceId { group, index };
        events.push(Event::SequenceFinished { sequence, reason, generated });
        if self.live == 0 {
            events.push(Event::GroupFinished { group, times: self.times(now) });
        }
    }

    /// All sequences end that have not.
    pub(crate) fn cancel(
        &mut self,
        reason: CancelReason,
        pool: &mut BlockPool,
        now: Time,
    ) -> Vec<Event> {
        let reason = match reason {
            CancelReason::Stop => FinishReason::Stop(None),
            CancelReason::Abort => FinishReason::Abort,
            CancelReason::Error => FinishReason::Error,
        };
        let mut events = Vec::new();
        for index in (0..).take(self.sequences.len()) {
            if !self.sequences[index as usize].finished {
                self.end(index, reason, pool, now, &mut events);
            }
        }
        events
    }

    /// It gave way, and is kept elsewhere.
    pub(crate) const fn count_preemption(&mut self) {
        self.preemptions += 1;
    }

    pub(crate) fn prompt_length(&self) -> TokenCount {
        TokenCount::of(&self.prompt)
    }

    fn fork_point(&self) -> TokenCount {
        TokenCount(self.prompt_length().0 - 1)
    }

    fn is_forked(&self) -> bool {
        self.prompt_computed >= self.fork_point()
    }

    fn fork(&mut self, stem: usize, pool: &mut BlockPool) {
        let at = self.fork_point();
        let blocks = self.sequences[stem].blocks().to_vec();
        let others = self.sequences.iter_mut().enumerate().filter(|(index, _)| *index != stem);
        for (_, sequence) in others.filter(|(_, sequence)| !sequence.finished) {
            sequence.fork(&blocks, at, pool);
        }
    }

    fn times(&self, finished: Time) -> GroupTimes {
        GroupTimes {
            arrival: self.arrival,
            first_scheduled: self.first_scheduled,
            first_token: self.first_token,
            last_token: self.last_token,
            finished,
            preemptions: self.preemptions,
            cached_tokens: self.cached,
        }
    }
}

impl Budget {
    /// Takes one sequence's part of what is left: at most `pending`, and always at least one token.
    fn cut(&mut self, pending: TokenCount) -> TokenCount {
        self.sequences -= 1;
        let count = pending.0.min(self.tokens - self.sequences);
        self.tokens -= count;
        TokenCount(count)
    }
}

/// The sequences that have a slice in every step, with their places in the group.
fn runnable(
    sequences: &mut [Sequence],
    forked: bool,
) -> impl Iterator<Item = (u32, &mut Sequence)> {
    let live = (0..).zip(sequences).filter(|(_, sequence)| !sequence.finished);
    live.take(if forked { usize::MAX } else { 1 })
}
