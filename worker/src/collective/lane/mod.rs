//! Ranks that are processes of one host: they add up in memory that they share.
//!
//! Each rank writes its parts in turn to four slots of its own, and shows each by writing its turn last. It shows
//! at most one part before it has read the part before of everyone. So who has shown part *n* has read all parts
//! up to *n* − 2, and who has read part *n* − 2 of everyone may write part *n* over part *n* − 4: nobody need say
//! what it has read. What is gathered has slots of its own, of which rank 0 says how many it has read.
//!
//! Everyone adds everything: sums are exact, so this gives the same bits in whatever order. That each rank adds a
//! slice for all and shares it, as over gRPC, saves bytes and costs one more meeting a part; with three ranks on two
//! processors that took twice as long.
//!
//! Memory does not tell that a peer has died. The streams of [`crate::collective::grpc`] do, over which a group
//! has come together: they are watched for as long as it lives ([`Table::lose`]).

mod bell;
mod layout;
mod segment;
mod slot;
mod table;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use crate::collective::lane::layout::{Ring, SLOT_NUMBERS, SLOTS};
use crate::collective::lane::slot::{Operation, SLOT_GATHERED, Slot, Tag, parts};
use crate::collective::luck::Luck;
use crate::collective::{Collective, CollectiveError, CollectiveTimes, Lane, keep_one_per_rank};

pub(crate) use crate::collective::lane::segment::Segment;
pub(crate) use crate::collective::lane::table::Table;

/// Numbers that a rank may gather.
const GATHERED_MAX: usize = proto::MESSAGE_BYTES_MAX / size_of::<f32>();

/// One rank's end of a group in shared memory.
pub(crate) struct LaneCollective {
    table: Arc<Table>,
    epoch: u64,
    /// Parts of sums that we have shown, over the life of the group: as many on every rank.
    shown: u64,
    /// Parts that were gathered of each rank, as far as we know: rank 0 of all, others of themselves.
    gathered: Vec<u64>,
    step: u64,
    index: u32,
    patience: Duration,
    times: CollectiveTimes,
    luck: Luck,
    failed: Option<CollectiveError>,
    /// They end with the group, and the streams that they watch with them.
    watches: Vec<AbortOnDropHandle<()>>,
}

impl Collective for LaneCollective {
    fn rank(&self) -> usize {
        self.table.rank()
    }

    fn world(&self) -> usize {
        self.table.world()
    }

    fn lane(&self) -> Lane {
        Lane::Shared
    }

    fn begin(&mut self, step: u64, patience: Duration) {
        (self.step, self.index, self.patience) = (step, 0, patience);
        self.times = CollectiveTimes::default();
    }

    fn all_reduce(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.timed(|end| end.sum(values))
    }

    fn gather(&mut self, values: &[f32], out: &mut Vec<Vec<f32>>) -> Result<(), CollectiveError> {
        keep_one_per_rank(out, if self.rank() == 0 { self.world() } else { 0 });
        self.timed(|end| {
            let Some((own, parts)) = out.split_first_mut() else {
                return end.give(values);
            };
            own.extend_from_slice(values);
            (1..).zip(parts).try_for_each(|(peer, part)| end.take(peer, part))
        })
    }

    fn times(&self) -> CollectiveTimes {
        self.times
    }
}

impl LaneCollective {
    /// With what watches over the peers, and tells `table`.
    pub(crate) fn new(table: Arc<Table>, epoch: u64, watches: Vec<AbortOnDropHandle<()>>) -> Self {
        Self {
            epoch,
            shown: 0,
            gathered: vec![0; table.world()],
            step: 0,
            index: 0,
            patience: Duration::ZERO,
            times: CollectiveTimes::default(),
            luck: Luck::default(),
            failed: None,
            watches,
            table,
        }
    }

    /// Runs one collective: times it, numbers the next, and gives up the group when it fails.
    fn timed(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<(), CollectiveError>,
    ) -> Result<(), CollectiveError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let started = Instant::now();
        let waited = self.times.wait;
        let result = run(self);
        self.times.transfer += started.elapsed().saturating_sub(self.times.wait - waited);
        self.index += 1;
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.leave();
        }
        result
    }

    /// Everyone adds everything.
    fn sum(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        let numbers = values.len();
        let parts = parts(numbers, SLOT_NUMBERS);
        let (mut ahead, mut turn) = (parts.clone(), self.shown);
        self.show_next(&mut ahead, values);
        for (part, range) in parts {
            self.show_next(&mut ahead, values);
            turn += 1;
            for peer in self.peers() {
                let tag = self.tag(Operation::Sum, part, numbers);
                let slot = self.due(peer, turn, &tag)?;
                slot.add_to(&mut values[range.clone()]);
            }
        }
        self.count(numbers * (self.world() - 1));
        Ok(())
    }

    /// Shows the next part of `values`, if there is one more.
    fn show_next(&mut self, ahead: &mut impl Iterator<Item = (u32, Range<usize>)>, values: &[f64]) {
        if let Some((part, range)) = ahead.next() {
            self.show(&self.tag(Operation::Sum, part, values.len()), &values[range]);
        }
    }

    /// Gives what is gathered to rank 0.
    fn give(&mut self, values: &[f32]) -> Result<(), CollectiveError> {
        let rank = self.rank();
        for (part, range) in parts(values.len(), SLOT_GATHERED) {
            self.gathered[rank] += 1;
            let turn = self.gathered[rank];
            let least = turn.saturating_sub(SLOTS as u64);
            self.wait_for(0, part == 0, |table| table.taken(rank).load(Ordering::SeqCst) >= least)?;
            let slot = self.table.slot(rank, Ring::Gathered, turn);
            slot.write_gathered(&values[range]);
            slot.show(turn, &self.tag(Operation::Gather, part, values.len()));
            self.table.ring(0);
        }
        self.times.bytes_sent += size_of_val(values) as u64;
        Ok(())
    }

    /// Takes what `peer` gives: how much that is stands in its first part.
    fn take(&mut self, peer: usize, out: &mut Vec<f32>) -> Result<(), CollectiveError> {
        let mut numbers = None;
        let mut part = 0;
        loop {
            self.gathered[peer] += 1;
            let turn = self.gathered[peer];
            self.wait_for(peer, part == 0, |table| {
                table.slot(peer, Ring::Gathered, turn).turn() >= turn
            })?;
            let slot = self.table.slot(peer, Ring::Gathered, turn);
            let told = slot.tag().and_then(|tag| usize::try_from(tag.numbers).ok());
            let all = numbers.or(told.filter(|told| *told <= GATHERED_MAX)).unwrap_or_default();
            numbers = Some(all);
            self.check(peer, slot, turn, &self.tag(Operation::Gather, part, all))?;
            slot.read_gathered((all - out.len()).min(SLOT_GATHERED), out);
            self.table.taken(peer).store(turn, Ordering::SeqCst);
            self.table.ring(peer);
            part += 1;
            if out.len() == all {
                break;
            }
        }
        self.times.bytes_received += size_of_val::<[f32]>(out) as u64;
        Ok(())
    }

    /// Shows our next part to everyone. Nobody reads any more what its slot held.
    fn show(&mut self, tag: &Tag, values: &[f64]) {
        self.shown += 1;
        let slot = self.table.slot(self.rank(), Ring::Sums, self.shown);
        slot.write(values);
        slot.show(self.shown, tag);
        self.table.ring_all();
    }

    /// Waits for a peer's part, which must be what `tag` says.
    fn due(&mut self, peer: usize, turn: u64, tag: &Tag) -> Result<Slot<'_>, CollectiveError> {
        let shown = |table: &Table| table.slot(peer, Ring::Sums, turn).turn() >= turn;
        self.wait_for(peer, tag.part == 0, shown)?;
        let slot = self.table.slot(peer, Ring::Sums, turn);
        self.check(peer, slot, turn, tag)?;
        Ok(slot)
    }

    fn check(
        &self,
        peer: usize,
        slot: Slot<'_>,
        turn: u64,
        expected: &Tag,
    ) -> Result<(), CollectiveError> {
        let tag = slot.tag();
        if tag == Some(*expected) && slot.turn() == turn {
            return Ok(());
        }
        let got = tag.map_or_else(|| "what makes no sense".to_owned(), |tag| tag.to_string());
        Err(CollectiveError::Mismatch { peer, expected: expected.to_string(), got })
    }

    /// Waits until `reached`, which `peer` brings about; `first`: the time that takes is a wait for the peer.
    fn wait_for(
        &mut self,
        peer: usize,
        first: bool,
        reached: impl Fn(&Table) -> bool,
    ) -> Result<(), CollectiveError> {
        let table = self.table.as_ref();
        if reached(table) {
            return Ok(());
        }
        let started = Instant::now();
        let settled = || reached(table) || table.is_lost(peer);
        let in_time = bell::wait(table.bell(), &mut self.luck, settled, started, self.patience);
        if first {
            self.times.wait += started.elapsed();
        }
        let (step, index) = (self.step, self.index);
        // What a peer did before it left counts.
        if reached(table) {
            Ok(())
        } else if in_time {
            let (peer, reason) = table.lost(peer).expect("it settled, and was not reached");
            Err(CollectiveError::PeerLost { peer, step, index, reason })
        } else {
            let waited_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
            Err(CollectiveError::Deadline { peer, step, index, waited_ms })
        }
    }

    fn tag(&self, operation: Operation, part: u32, numbers: usize) -> Tag {
        let (epoch, step, index) = (self.epoch, self.step, self.index);
        Tag { epoch, step, index, part, operation, numbers: numbers as u64 }
    }

    fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank();
        (0..self.world()).filter(move |peer| *peer != rank)
    }

    /// Counts numbers of sums: as many came from the peers as went to them.
    fn count(&mut self, numbers: usize) {
        let bytes = (numbers * size_of::<f64>()) as u64;
        self.times.bytes_sent += bytes;
        self.times.bytes_received += bytes;
    }

    fn leave(&mut self) {
        self.table.leave();
        // Peers see their streams end, too.
        self.watches.clear();
    }
}

impl Drop for LaneCollective {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for LaneCollective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneCollective")
            .field("rank", &self.rank())
            .field("world", &self.world())
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}
