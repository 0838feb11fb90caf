//! Who is let in: from host memory, or from those that wait.

use crate::limits::Admission;
use crate::rank::Policy;
use crate::scheduler::{Moves, Refused, Scheduler};
use crate::sequence_group::SequenceGroup;
use crate::units::{BlockCount, BlockId, TokenCount};

/// One block in this many, rounded up, stays free when a group is let in beside others, so that it
/// is not pushed out again by the first of them that grows. The usual figure is 1 %.
const WATERMARK_SHARE: u32 = 100;

/// What there is room for.
pub(super) struct Room {
    pub(super) sequences: u32,
    tokens: u32,
    /// Free blocks.
    pub(super) blocks: u32,
    /// Of these, those that stay free beside others.
    watermark: u32,
    /// Of these, those that groups that run will probably take.
    spoken_for: u32,
    /// How long answers become.
    expected: TokenCount,
    /// Groups that run.
    running: usize,
    block_size: TokenCount,
}

impl Scheduler {
    /// Lets groups in, in order, while there are tokens, sequences and blocks for the next of them.
    /// Nobody overtakes.
    pub(super) fn admit(&mut self, moves: &mut Moves) {
        if self.waiting.is_empty() && self.swapped.is_empty() {
            return;
        }
        let mut room = self.room();
        while room.tokens > 0 {
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

    pub(super) fn room(&self) -> Room {
        let expected = match self.limits.admission {
            Admission::Prompt => TokenCount(0),
            Admission::Expected => self.forecast.expected(),
        };
        let mut room = Room {
            sequences: self.limits.running_max(),
            tokens: self.limits.step_tokens_max.0,
            blocks: self.device.free().0,
            watermark: self.limits.blocks.0.div_ceil(WATERMARK_SHARE),
            spoken_for: 0,
            expected,
            running: 0,
            block_size: self.limits.block_size,
        };
        for group in &self.running {
            room.take(group);
        }
        room
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
        if !self.has_room_for(group, room) {
            return false;
        }
        let (_, mut group) = self.swapped.pop_first().expect("it was there a moment ago");
        group.carry(&mut self.host, &mut self.device, &mut moves.swap_in);
        self.start(group, room, moves);
        true
    }

    /// Whether somebody is let in by the next plan, when nothing else happens until then. `growth`: blocks
    /// that those that run take before.
    pub(super) fn could_let_in(&self, growth: BlockCount) -> bool {
        let mut room = self.room();
        room.blocks = room.blocks.saturating_sub(growth.0);
        if !self.swapped_is_next() {
            return self.findable(&room).is_ok();
        }
        let swapped = self.swapped.first_key_value();
        swapped.is_some_and(|(_, group)| self.has_room_for(group, &room))
    }

    fn let_in(&mut self, room: &mut Room, moves: &mut Moves) -> bool {
        let found = match self.findable(room) {
            Ok(found) => found,
            Err(refused) => {
                self.refused = refused.or(self.refused);
                return false;
            }
        };
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

    fn has_room_for(&self, group: &SequenceGroup, room: &Room) -> bool {
        let needed = group.blocks_needed(self.limits.block_size);
        group.live() <= room.sequences && needed.0 <= room.blocks_for(group)
    }

    /// What the prefix cache has of the group that is let in next. An error: nobody waits, or there is no
    /// room for it; where it is blocks that are wanting, who it is and how many it might have taken.
    fn findable(&self, room: &Room) -> Result<Vec<BlockId>, Option<Refused>> {
        let group = self.waiting.first().ok_or(None)?;
        if group.live() > room.sequences {
            return Err(None);
        }
        let most = BlockCount(room.blocks_for(group));
        if self.refused.is_some_and(|(rank, seen)| rank == group.rank && most <= seen) {
            return Err(None);
        }
        let found = group.find(&self.device);
        // What is only kept for its content is free as well: to use it takes it.
        let held = found.iter().filter(|block| self.device.references(**block) > 0).count();
        let held = u32::try_from(held).expect("blocks are counted in 32 bits");
        if group.blocks_needed(self.limits.block_size).0 - held > most.0 {
            return Err(Some((group.rank, most)));
        }
        Ok(found)
    }

    fn start(&mut self, mut group: SequenceGroup, room: &mut Room, moves: &mut Moves) {
        let reserved = group.reserve(&mut self.device, &mut moves.copies);
        assert!(reserved, "there are the blocks that were counted");
        room.take(&group);
        room.blocks = self.device.free().0;
        let place = self.running.partition_point(|other| other.rank < group.rank);
        self.running.insert(place, group);
        self.refused = None;
    }
}

impl Room {
    /// Blocks that a group may take at once. Beside others it leaves room for what all of them will
    /// probably say; one that is alone always fits.
    pub(super) fn blocks_for(&self, group: &SequenceGroup) -> u32 {
        if self.running == 0 {
            return self.blocks;
        }
        let own = group.blocks_expected(self.expected, self.block_size).0;
        let kept = self.watermark.saturating_add(self.spoken_for).saturating_add(own);
        self.blocks.saturating_sub(kept)
    }

    /// A group runs; its blocks are counted elsewhere.
    fn take(&mut self, group: &SequenceGroup) {
        self.sequences = self.sequences.saturating_sub(group.live());
        self.tokens = self.tokens.saturating_sub(group.pending().0);
        let expected = group.blocks_expected(self.expected, self.block_size).0;
        self.spoken_for = self.spoken_for.saturating_add(expected);
        self.running += 1;
    }

    /// A group does not run any more; its blocks are counted elsewhere, and its tokens of the step are
    /// cut anew.
    pub(super) fn give_back(&mut self, group: &SequenceGroup) {
        self.sequences += group.live();
        let expected = group.blocks_expected(self.expected, self.block_size).0;
        self.spoken_for = self.spoken_for.saturating_sub(expected);
        self.running -= 1;
    }
}
