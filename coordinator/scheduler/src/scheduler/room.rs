//! Who gives way, and how: by recompute or by swap.

use std::collections::{BTreeMap, BTreeSet};

use crate::rank::{Policy, Rank};
use crate::scheduler::admit::Room;
use crate::scheduler::{Moves, Scheduler};
use crate::sequence::Sequence;
use crate::sequence_group::SequenceGroup;
use crate::units::BlockId;

/// A group gives way to more urgent ones this often; then it has its turn.
const YIELDS_MAX: u32 = 4;

impl Scheduler {
    /// Whether a group that waits might take the place of one that runs.
    pub(super) fn may_yield(&self) -> bool {
        let Some(first) = self.waiting.first() else { return false };
        matches!(self.limits.policy, Policy::Priority { .. })
            && self.running.last().is_some_and(|group| gives_way(group, first.rank))
    }

    /// Under the priority policy, a group that waits and is more urgent than some that run takes
    /// their places, the last in order first, unless even that would not be enough.
    pub(super) fn yield_to_urgent(&mut self, moves: &mut Moves) {
        if !self.may_yield() {
            return;
        }
        let Some(first) = self.waiting.first() else { return };
        let rank = first.rank;
        let mut room = self.room();
        let missing = self.running.iter().map(|group| group.missing(&self.device).0);
        room.blocks = room.blocks.saturating_sub(missing.sum());
        // Blocks by what was found of the first in line, as long as somebody who stays holds them.
        let mut held: BTreeSet<BlockId> = first.find(&self.device).into_iter().collect();
        held.retain(|block| self.device.references(*block) > 0);
        let total = first.blocks_needed(self.limits.block_size).0 as usize;
        let fits = |room: &Room, held: &BTreeSet<BlockId>| {
            let needed = total - held.len();
            first.live() <= room.sequences && needed <= room.blocks_for(first) as usize
        };
        let mut released: BTreeMap<BlockId, u32> = BTreeMap::new();
        let mut giving_way = 0;
        for group in self.running.iter().rev() {
            if fits(&room, &held) {
                break;
            }
            if !gives_way(group, rank) {
                return;
            }
            room.give_back(group);
            room.blocks += group.missing(&self.device).0;
            for block in group.sequences().iter().flat_map(Sequence::blocks) {
                let owners = released.entry(*block).or_insert(0);
                *owners += 1;
                // What it shares with groups that go on does not come free.
                if *owners == self.device.references(*block) {
                    room.blocks += 1;
                    held.remove(block);
                }
            }
            giving_way += 1;
        }
        if !fits(&room, &held) {
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
}

/// Whether a group lets one of this rank go first.
fn gives_way(group: &SequenceGroup, rank: Rank) -> bool {
    group.rank > rank && group.yields < YIELDS_MAX
}
