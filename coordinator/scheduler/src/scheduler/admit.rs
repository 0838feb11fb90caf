//! Who is let in: from host memory, or from those that wait.

use crate::limits::Admission;
use crate::rank::Policy;
use crate::scheduler::{Moves, Scheduler};
use crate::sequence_group::SequenceGroup;
use crate::units::{BlockCount, TokenCount};

/// One block in this many, rounded up, stays free when a group is let in beside others, so that it
/// is not pushed out again by the first of them that grows. The usual figure is 1 %.
const WATERMARK_SHARE: u32 = 100;

/// What there is room for.
struct Room {
    sequences: u32,
    tokens: u32,
    /// Free blocks that those who run will probably take.
    spoken_for: u32,
    /// How long answers become.
    expected: TokenCount,
}

impl Scheduler {
    /// Lets groups in, in order, while there are tokens, sequences and blocks for the next of them.
    /// Nobody overtakes.
    pub(super) fn admit(&mut self, moves: &mut Moves) {
        if self.waiting.is_empty() && self.swapped.is_empty() {
            return;
        }
        let mut room = self.room();
        while room.tokens > 0 && room.sequences > 0 {
            let let_in = if self.swapped_is_next() {
                moves.swap_out.is_empty() && self.swap_in(&mut room, moves)
            } else {
                self.let_in(&mut room, moves)
            };
            if !let_in {
                return;
            }
        }
    }

    fn room(&self) -> Room {
        let pending = self.running.iter().map(|group| group.pending().0);
        let pending = pending.fold(0, u32::saturating_add);
        let expected = match self.limits.admission {
            Admission::Prompt => TokenCount(0),
            Admission::Expected => self.forecast.expected(),
        };
        let size = self.limits.block_size;
        let spoken_for = self.running.iter().map(|group| group.blocks_expected(expected, size).0);
        Room {
            sequences: self.limits.running_max().saturating_sub(self.live()),
            tokens: self.limits.step_tokens_max.0.saturating_sub(pending),
            spoken_for: spoken_for.fold(0, u32::saturating_add),
            expected,
        }
    }

    /// Whoever was let in before comes first, unless a group that waits is before it in order.
    fn swapped_is_next(&self) -> bool {
        let Some(swapped) = self.swapped.keys().next() else { return false };
        let waits = self.waiting.first().map(|group| group.rank);
        let turns = matches!(self.limits.policy, Policy::Fair { .. });
        turns || waits.is_none_or(|waits| *swapped < waits)
    }

    fn swap_in(&mut self, room: &mut Room, moves: &mut Moves) -> bool {
        let Some((_, group)) = self.swapped.first_key_value() else { return false };
        let needed = group.blocks_needed(self.limits.block_size);
        if group.live() > room.sequences || !self.fits(group, needed, room) {
            return false;
        }
        let (_, mut group) = self.swapped.pop_first().expect("it was there a moment ago");
        group.carry(&mut self.host, &mut self.device, &mut moves.swap_in);
        self.start(group, room, moves);
        true
    }

    fn let_in(&mut self, room: &mut Room, moves: &mut Moves) -> bool {
        let Some(group) = self.waiting.first() else { return false };
        if group.live() > room.sequences {
            return false;
        }
        let available = BlockCount(self.device.free().0.saturating_sub(room.spoken_for));
        if self.refused.is_some_and(|(rank, seen)| rank == group.rank && available <= seen) {
            return false;
        }
        let found = group.find(&self.device);
        // What is only kept for its content is free as well: to use it takes it.
        let held = found.iter().filter(|block| self.device.references(**block) > 0).count();
        let held = u32::try_from(held).expect("blocks are counted in 32 bits");
        let needed = BlockCount(group.blocks_needed(self.limits.block_size).0 - held);
        if !self.fits(group, needed, room) {
            self.refused = Some((group.rank, available));
            return false;
        }
        let mut group = self.waiting.take_first().expect("it was there a moment ago");
        if !group.has_run() {
            self.waiting.charge(group.tenant, group.prompt_length(), TokenCount(0));
        }
        if self.device.is_cached() {
            self.counts.prefix_queries += u64::from(group.looked_up().0);
        }
        self.counts.prefix_hits += u64::from(group.adopt(found, &mut self.device).0);
        self.start(group, room, moves);
        true
    }

    /// Blocks that stay free when a group is let in beside others.
    pub(super) fn spare(&self) -> BlockCount {
        let watermark = self.limits.blocks.0.div_ceil(WATERMARK_SHARE);
        BlockCount(if self.running.is_empty() { 0 } else { watermark })
    }

    /// A group beside others leaves room for what all of them will probably say. One that is alone
    /// always fits.
    fn fits(&self, group: &SequenceGroup, needed: BlockCount, room: &Room) -> bool {
        let spare = if self.running.is_empty() {
            0
        } else {
            let own = group.blocks_expected(room.expected, self.limits.block_size).0;
            self.spare().0.saturating_add(own).saturating_add(room.spoken_for)
        };
        needed.0.saturating_add(spare) <= self.device.free().0
    }

    fn start(&mut self, mut group: SequenceGroup, room: &mut Room, moves: &mut Moves) {
        let reserved = group.reserve(&mut self.device, &mut moves.copies);
        assert!(reserved, "there are the blocks that were counted");
        let expected = group.blocks_expected(room.expected, self.limits.block_size).0;
        room.spoken_for = room.spoken_for.saturating_add(expected);
        room.sequences -= group.live();
        room.tokens = room.tokens.saturating_sub(group.pending().0);
        let place = self.running.partition_point(|other| other.rank < group.rank);
        self.running.insert(place, group);
        self.refused = None;
    }
}
