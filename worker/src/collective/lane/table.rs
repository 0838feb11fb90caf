//! What a rank sees of a group in shared memory, and what it is told of it from elsewhere.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::collective::lane::bell;
use crate::collective::lane::layout::{self, Ring};
use crate::collective::lane::segment::Segment;
use crate::collective::lane::slot::Slot;

/// A group's memory, as one rank sees it. Whoever watches over the peers has it, too.
#[derive(Debug)]
pub(crate) struct Table {
    segment: Segment,
    rank: usize,
    /// Why nobody waits for a rank any more, in order of rank. At our own place: why we wait for nobody.
    gone: Vec<OnceLock<String>>,
}

impl Table {
    pub(crate) fn new(segment: Segment, rank: usize) -> Self {
        let gone = (0..segment.world()).map(|_| OnceLock::new()).collect();
        Self { segment, rank, gone }
    }

    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    pub(super) fn world(&self) -> usize {
        self.segment.world()
    }

    /// `rank` will not come any more; or, if that is us: we wait for nobody any more. The first reason counts.
    pub(crate) fn lose(&self, rank: usize, reason: String) {
        drop(self.gone[rank].set(reason));
        self.ring(self.rank);
    }

    /// Why there is no use in waiting for a peer, and which rank is to blame.
    pub(super) fn lost(&self, peer: usize) -> Option<(usize, String)> {
        let told = |rank: usize| self.gone[rank].get().map(|reason| (rank, reason.clone()));
        let left = || (peer, "its end of the group is gone".to_owned());
        told(self.rank).or_else(|| self.has_left(peer).then(left)).or_else(|| told(peer))
    }

    /// As [`Self::lost`], without the reason.
    pub(super) fn is_lost(&self, peer: usize) -> bool {
        self.gone[self.rank].get().is_some()
            || self.gone[peer].get().is_some()
            || self.has_left(peer)
    }

    fn has_left(&self, peer: usize) -> bool {
        self.segment.words()[layout::left(peer)].load(Ordering::SeqCst) != 0
    }

    /// Tells the others that we are not coming any more.
    pub(super) fn leave(&self) {
        self.segment.words()[layout::left(self.rank)].store(1, Ordering::SeqCst);
        self.ring_all();
    }

    /// The slot that a rank's `turn`-th part is in.
    pub(super) fn slot(&self, rank: usize, ring: Ring, turn: u64) -> Slot<'_> {
        Slot::of(&self.segment.words()[layout::slot(rank, ring, turn)])
    }

    /// How many gathered parts of `rank` rank 0 has read.
    pub(super) fn taken(&self, rank: usize) -> &AtomicU64 {
        &self.segment.words()[layout::taken(rank)]
    }

    /// Where we sleep.
    pub(super) fn bell(&self) -> &AtomicU32 {
        self.segment.bell(self.rank)
    }

    /// After a change that `rank` may be waiting for.
    pub(super) fn ring(&self, rank: usize) {
        bell::ring(self.segment.bell(rank));
    }

    /// After a change that any other may be waiting for.
    pub(super) fn ring_all(&self) {
        (0..self.world()).filter(|peer| *peer != self.rank).for_each(|peer| self.ring(peer));
    }
}
