//! The invariants of the crate's documentation: what is cheap always, the rest in debug builds.

use std::collections::BTreeMap;

use crate::blocks::BlockPool;
use crate::rank::Policy;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::sequence_group::SequenceGroup;
use crate::units::TokenCount;

impl Scheduler {
    pub(super) fn check(&self) {
        let groups = self.running.len() + self.swapped.len() + self.waiting.len();
        assert_eq!(groups, self.places.len(), "a group is in one queue");
        assert!(self.device.held() <= self.limits.blocks, "no block is given out twice");
        assert!(self.host.held() <= self.limits.swap_blocks, "nor one of the host");
        if cfg!(debug_assertions) {
            self.check_order();
            self.check_groups();
            self.check_in_flight();
            self.check_blocks(&self.device, self.running.iter());
            self.check_blocks(&self.host, self.swapped.values());
        }
    }

    fn check_order(&self) {
        assert!(self.running.is_sorted_by_key(|group| group.rank), "who runs is in order");
        if self.limits.policy == Policy::Fcfs {
            let last = self.running.last().map(|group| group.rank);
            let first = self.waiting.first().map(|group| group.rank);
            assert!(first.is_none() || last < first, "who runs is older than who waits");
        }
        self.waiting.check();
    }

    fn check_groups(&self) {
        assert!(self.live() <= self.limits.running_max(), "a step has a token for all that runs");
        let groups = self.running.iter().chain(self.swapped.values()).chain(self.waiting.iter());
        for group in groups {
            let live = group.sequences().iter().filter(|sequence| !sequence.finished);
            assert_eq!(live.count(), group.live() as usize, "live sequences are counted");
            assert!(group.live() > 0, "a group leaves with its last sequence");
            for sequence in group.sequences().iter().filter(|sequence| !sequence.finished) {
                assert!(sequence.computed < sequence.length, "there is always a token to compute");
            }
        }
        let mut waiting = self.waiting.iter().flat_map(SequenceGroup::sequences);
        assert!(waiting.all(|sequence| sequence.blocks().is_empty()), "who waits owns no block");
        for (id, place) in &self.places {
            let runs = self.place_of(place.rank).is_some();
            let swapped = self.swapped.contains_key(&place.rank);
            let waits = self.waiting.get(place.tenant, place.rank).is_some();
            let found = u32::from(runs) + u32::from(swapped) + u32::from(waits);
            assert_eq!(found, 1, "{id:?} is in one queue");
        }
    }

    /// Steps begin where those before them end, and find the blocks that they need.
    fn check_in_flight(&self) {
        assert!(self.in_flight.len() <= 2, "one step is planned ahead at most");
        for (at, parts) in self.in_flight.iter().enumerate() {
            for part in parts {
                let Some(group) = self.place_of(part.rank) else { continue };
                let Some(sequence) = self.running[group].living(part.index) else { continue };
                let start = if at == 0 { sequence.computed } else { sequence.length };
                assert_eq!(part.start, start, "a step goes on where the one before it ends");
                let end = TokenCount(part.start.0 + part.count.0);
                let block_size = self.limits.block_size;
                assert!(sequence.covers(end, block_size), "a step in flight has its blocks");
            }
        }
    }

    fn check_blocks<'a>(
        &self,
        pool: &BlockPool,
        groups: impl Iterator<Item = &'a SequenceGroup> + Clone,
    ) {
        let mut references = BTreeMap::new();
        for block in groups.flat_map(SequenceGroup::sequences).flat_map(Sequence::blocks) {
            *references.entry(*block).or_insert(0) += 1;
        }
        assert_eq!(references.len(), pool.held().0 as usize, "every block is owned or free");
        for (block, count) in references {
            assert_eq!(pool.references(block), count, "owners are counted");
        }
        pool.check();
    }
}
