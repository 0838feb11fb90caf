//! The next step, planned and sent while the one before it runs, so that no rank waits in between.
//!
//! It is a gamble on what the step in flight samples: that no token ends a sequence. A sequence that ends all the
//! same leaves its slice of the next step *void*: it is computed, and what comes of it is thrown away when
//! that step is committed. Nobody sees a trace of it. Until the step is done its slice writes to a block
//! that is free by then; who gets that block writes to it in a later step, and ranks run steps one after the
//! other. And the block cannot be found: only full ones whose tokens are committed are, and a void slice writes
//! behind those.

use crate::plan::{Slice, StepPlan};
use crate::scheduler::{Moves, Part, Scheduler};
use crate::units::BlockCount;

/// A sequence that goes on, whatever is sampled: its group's place among those that run, its number there, and the
/// place of its token among those that the step in flight samples.
struct Next {
    group: usize,
    index: u32,
    place: u32,
}

impl Scheduler {
    /// The step after the one in flight, if that is all that the next [`plan`](Self::plan) would do: each
    /// sequence goes on with the token that is being sampled. None: the step has to be planned when the one
    /// before it is committed, because a prompt is not computed yet or forks, somebody may be let in or take
    /// another's place, or too few blocks are free; then nothing has changed. None also without a step in
    /// flight, or with two.
    ///
    /// Sequences that the step in flight brings to their greatest length are left out. Both steps are
    /// committed, one after the other. Whoever comes meanwhile waits for one step more.
    ///
    /// # Panics
    /// Never: what runs is in the step in flight.
    pub fn ahead(&mut self) -> Option<StepPlan> {
        if self.in_flight.len() != 1 {
            return None;
        }
        let next = self.continuations()?;
        let lacks = next.iter().filter(|next| {
            let sequence = self.running[next.group].living(next.index);
            sequence.is_some_and(|sequence| sequence.lacks_next(self.limits.block_size))
        });
        let growth = u32::try_from(lacks.count()).expect("blocks are counted in 32 bits");
        let growth = BlockCount(growth);
        if next.is_empty() || growth > self.device.free() || self.would_change(&next, growth) {
            return None;
        }
        for Next { group, index, .. } in &next {
            self.running[*group].reserve_next(*index, &mut self.device);
        }
        let follow = |next: &Next| {
            let group = &mut self.running[next.group];
            let slice = group.follow(next.index, next.place, &self.device);
            (Part::of(group.rank, &slice), slice)
        };
        let (parts, slices): (Vec<Part>, Vec<Slice>) = next.iter().map(follow).unzip();
        self.in_flight.push_back(parts);
        self.counts.steps_ahead += 1;
        Some(self.step(slices, Moves::default()))
    }

    /// Who goes on after the step in flight. None: a sequence that lives has no part in it, or one that does
    /// not come to its last token.
    fn continuations(&self) -> Option<Vec<Next>> {
        let parts = self.in_flight.front()?;
        let mut next = Vec::with_capacity(parts.len());
        let (mut place, mut alive) = (0, 0);
        for part in parts {
            if let Some(group) = self.living(part) {
                if !part.samples {
                    return None;
                }
                alive += 1;
                if !self.running[group].ends_next(part.index) {
                    next.push(Next { group, index: part.index, place });
                }
            }
            place += u32::from(part.samples);
        }
        (alive == self.live()).then_some(next)
    }

    /// Whether the next plan would do more than let everybody go on. `growth`: blocks that those take.
    fn would_change(&self, next: &[Next], growth: BlockCount) -> bool {
        if self.waiting.is_empty() && self.swapped.is_empty() {
            return false;
        }
        // Where a sequence ends there is room afterwards.
        let ends = next.len() < self.live() as usize;
        ends || self.may_yield() || self.could_let_in(growth)
    }
}
