//! Who gives way, and how: by recompute or by swap.

use crate::rank::Policy;
use crate::scheduler::{Moves, Scheduler};
use crate::sequence_group::SequenceGroup;

/// A group gives way to more urgent ones this often; then it has its turn.
const YIELDS_MAX: u32 = 4;

impl Scheduler {
    /// Under the priority policy, a group that waits and is more urgent than some that run takes
    /// their places, the last in order first, unless even that would not be enough.
    pub(super) fn yield_to_urgent(&mut self, moves: &mut Moves) {
        if !matches!(self.limits.policy, Policy::Priority { .. }) {
            return;
        }
        let Some(first) = self.waiting.first() else { return };
        let (rank, live) = (first.rank, first.live());
        let needed = first.blocks_needed(self.limits.block_size).0.saturating_add(self.spare().0);
        let missing: u32 = self.running.iter().map(|group| group.missing(&self.device).0).sum();
        let mut blocks = self.device.free().0.saturating_sub(missing);
        let mut sequences = self.limits.running_max().saturating_sub(self.live());
        let mut giving_way = 0;
        for group in self.running.iter().rev() {
            if blocks >= needed && sequences >= live {
                break;
            }
            if group.rank < rank || group.yields >= YIELDS_MAX {
                return;
            }
            // What it shares with groups that go on does not come free.
            let own = group.sequences().iter().flat_map(crate::sequence::Sequence::blocks);
            let own = own.filter(|block| !self.device.is_shared(**block)).count();
            blocks += u32::try_from(own).expect("blocks are counted in 32 bits");
            blocks += group.missing(&self.device).0;
            sequences += group.live();
            giving_way += 1;
        }
        if blocks < needed || sequences < live {
            return;
        }
        for _ in 0..giving_way {
            if let Some(group) = self.running.last_mut() {
                group.yields += 1;
            }
            self.preempt_last(moves);
        }
    }

    /// Gives every group that runs the blocks for all its tokens, the first in order first. While
    /// there are too few, the last in order gives way. False: one did, and it is not the time to let
    /// others in.
    pub(super) fn make_room(&mut self, moves: &mut Moves) -> bool {
        let mut settled = 0;
        let mut all_stay = true;
        while settled < self.running.len() {
            while !self.running[settled].reserve(&mut self.device, &mut moves.copies) {
                assert!(self.running.len() > 1, "a group that runs alone has the blocks it needs");
                self.preempt_last(moves);
                all_stay = false;
                if settled == self.running.len() {
                    return all_stay;
                }
            }
            settled += 1;
        }
        all_stay
    }

    /// The last in order gives way. Its blocks are carried to host memory if there is room and that
    /// costs less than to compute them again.
    fn preempt_last(&mut self, moves: &mut Moves) {
        let mut group = self.running.pop().expect("somebody runs who can give way");
        if self.should_swap(&group) {
            group.carry(&mut self.device, &mut self.host, &mut moves.swap_out);
            group.count_preemption();
            self.counts.preemptions_swap += 1;
            self.swapped.insert(group.rank, group);
        } else {
            group.suspend(&mut self.device);
            self.counts.preemptions_recompute += 1;
            self.waiting.insert(group);
        }
    }

    fn should_swap(&self, group: &SequenceGroup) -> bool {
        let (blocks, tokens) = group.filled(self.limits.block_size);
        blocks.0 > 0 && blocks <= self.host.free() && self.rates.prefer_swap(blocks, tokens)
    }

    pub(super) fn live(&self) -> u32 {
        self.running.iter().map(SequenceGroup::live).sum()
    }
}
