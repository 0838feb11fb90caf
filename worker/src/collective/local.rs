//! Ranks that are threads of one process: they read each other's memory.
//!
//! Each rank has a *seat* with two slots that it fills in turn. It counts the collectives that it has
//! `posted` and those that it has `finished` reading; a slot is filled again only when all others have
//! finished the collective that it held. A rank that waits spins for a moment, then sleeps.
//!
//! Nothing is allocated once the slots have grown to the largest message. An end that is dropped, also
//! by a panic, makes the others fail instead of wait.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::collective::{Collective, CollectiveError, CollectiveTimes, Lane, keep_one_per_rank};

/// How often a waiting rank looks before it sleeps, where every rank has a processor to itself: some
/// 20 µs, which is what falling asleep and being woken cost.
const LOOKS_MAX: u32 = 1000;

/// The ends of a new group, in order of rank.
///
/// # Panics
/// When `world` is 0.
#[must_use]
pub fn group(world: usize) -> Vec<LocalCollective> {
    assert!(world > 0, "a group has at least one rank");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let table = Arc::new(Table {
        seats: (0..world).map(|_| Seat::default()).collect(),
        looks: if world <= processors { LOOKS_MAX } else { 0 },
        sleepers: AtomicUsize::new(0),
        bed: Mutex::new(()),
        bell: Condvar::new(),
    });
    (0..world).map(|rank| LocalCollective::new(Arc::clone(&table), rank)).collect()
}

/// One rank's end of a group of threads.
pub struct LocalCollective {
    table: Arc<Table>,
    rank: usize,
    /// Collectives begun, over the life of the group.
    calls: u64,
    step: u64,
    index: u32,
    patience: Duration,
    times: CollectiveTimes,
    failed: Option<CollectiveError>,
}

/// What the ranks share.
struct Table {
    seats: Vec<Seat>,
    looks: u32,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

/// What one rank shows the others. Aligned, so that no two seats share a cache line.
#[derive(Default)]
#[repr(align(128))]
struct Seat {
    posted: AtomicU64,
    finished: AtomicU64,
    gone: AtomicBool,
    slots: [RwLock<Slot>; 2],
}

/// What one rank brings to one collective.
#[derive(Default)]
struct Slot {
    tag: Tag,
    sums: Vec<f64>,
    gathered: Vec<f32>,
}

/// Which collective a slot is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tag {
    step: u64,
    index: u32,
    operation: Operation,
    /// Numbers of an all-reduce; a gather may bring any.
    numbers: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Operation {
    #[default]
    AllReduce,
    Gather,
}

impl Collective for LocalCollective {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.table.seats.len()
    }

    fn lane(&self) -> Lane {
        Lane::Local
    }

    fn begin(&mut self, step: u64, patience: Duration) {
        (self.step, self.index, self.patience) = (step, 0, patience);
        self.times = CollectiveTimes::default();
    }

    fn all_reduce(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        let tag = self.tag(Operation::AllReduce, values.len());
        self.timed(|end| {
            end.post(tag, |slot| {
                slot.sums.clear();
                slot.sums.extend_from_slice(values);
            })?;
            for peer in end.peers() {
                end.wait_for(peer, posted, end.calls)?;
            }
            for seat in 0..end.world() {
                let slot = end.read(seat, tag)?;
                if seat == 0 {
                    values.copy_from_slice(&slot.sums);
                } else {
                    values.iter_mut().zip(&slot.sums).for_each(|(sum, part)| *sum += part);
                }
            }
            let bytes = size_of_val::<[f64]>(values) as u64;
            let peers = end.world() as u64 - 1;
            end.times.bytes_sent += bytes * peers;
            end.times.bytes_received += bytes * peers;
            Ok(())
        })
    }

    fn gather(&mut self, values: &[f32], out: &mut Vec<Vec<f32>>) -> Result<(), CollectiveError> {
        let tag = self.tag(Operation::Gather, 0);
        keep_one_per_rank(out, if self.rank == 0 { self.world() } else { 0 });
        self.timed(|end| {
            end.post(tag, |slot| {
                slot.gathered.clear();
                slot.gathered.extend_from_slice(values);
            })?;
            if end.rank != 0 {
                end.times.bytes_sent += size_of_val::<[f32]>(values) as u64;
                return Ok(());
            }
            for peer in end.peers() {
                end.wait_for(peer, posted, end.calls)?;
            }
            for (seat, part) in out.iter_mut().enumerate() {
                part.extend_from_slice(&end.read(seat, tag)?.gathered);
            }
            let received: usize = out.iter().skip(1).map(|part| size_of_val::<[f32]>(part)).sum();
            end.times.bytes_received += received as u64;
            Ok(())
        })
    }

    fn times(&self) -> CollectiveTimes {
        self.times
    }
}

impl LocalCollective {
    fn new(table: Arc<Table>, rank: usize) -> Self {
        Self {
            table,
            rank,
            calls: 0,
            step: 0,
            index: 0,
            patience: Duration::ZERO,
            times: CollectiveTimes::default(),
            failed: None,
        }
    }

    fn tag(&self, operation: Operation, numbers: usize) -> Tag {
        Tag { step: self.step, index: self.index, operation, numbers }
    }

    fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.world()).filter(move |peer| *peer != rank)
    }

    /// Runs one collective: counts it, times it, and gives up the group when it fails.
    fn timed(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<(), CollectiveError>,
    ) -> Result<(), CollectiveError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.calls += 1;
        let started = Instant::now();
        let waited = self.times.wait;
        let result = run(self);
        self.times.transfer += started.elapsed().saturating_sub(self.times.wait - waited);
        self.index += 1;
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.leave();
        } else {
            self.seat().finished.store(self.calls, Ordering::SeqCst);
            self.table.wake();
        }
        result
    }

    /// Fills this rank's next slot and shows it.
    fn post(&mut self, tag: Tag, fill: impl FnOnce(&mut Slot)) -> Result<(), CollectiveError> {
        let before = self.calls.saturating_sub(2);
        for peer in self.peers() {
            self.wait_for(peer, finished, before)?;
        }
        {
            let slot = &self.seat().slots[parity(self.calls)];
            let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
            slot.tag = tag;
            fill(&mut slot);
        }
        self.seat().posted.store(self.calls, Ordering::SeqCst);
        self.table.wake();
        Ok(())
    }

    /// Waits until what `peer` counts has reached `least`.
    fn wait_for(
        &mut self,
        peer: usize,
        counter: fn(&Seat) -> &AtomicU64,
        least: u64,
    ) -> Result<(), CollectiveError> {
        let seat = &self.table.seats[peer];
        let reached = || counter(seat).load(Ordering::SeqCst) >= least;
        if reached() {
            return Ok(());
        }
        let started = Instant::now();
        let settled = || reached() || seat.gone.load(Ordering::SeqCst);
        let in_time = self.table.wait(settled, started + self.patience);
        self.times.wait += started.elapsed();
        let (step, index) = (self.step, self.index);
        // What a peer did before it left counts.
        if reached() {
            Ok(())
        } else if in_time {
            let reason = "its end of the group is gone".to_owned();
            Err(CollectiveError::PeerLost { peer, step, index, reason })
        } else {
            let waited_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
            Err(CollectiveError::Deadline { peer, step, index, waited_ms })
        }
    }

    /// What `seat` brought to this collective.
    fn read(
        &self,
        seat: usize,
        expected: Tag,
    ) -> Result<RwLockReadGuard<'_, Slot>, CollectiveError> {
        let slot = &self.table.seats[seat].slots[parity(self.calls)];
        let slot = slot.read().unwrap_or_else(PoisonError::into_inner);
        if slot.tag == expected {
            return Ok(slot);
        }
        Err(CollectiveError::Mismatch {
            peer: seat,
            expected: expected.to_string(),
            got: slot.tag.to_string(),
        })
    }

    fn seat(&self) -> &Seat {
        &self.table.seats[self.rank]
    }

    fn leave(&self) {
        self.seat().gone.store(true, Ordering::SeqCst);
        self.table.wake();
    }
}

impl Drop for LocalCollective {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for LocalCollective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCollective")
            .field("rank", &self.rank)
            .field("world", &self.world())
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Waits until `settled` or the deadline; tells which. Whoever settles it calls [`Table::wake`].
    fn wait(&self, settled: impl Fn() -> bool, deadline: Instant) -> bool {
        for _ in 0..self.looks {
            if settled() {
                return true;
            }
            std::hint::spin_loop();
        }
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted before the last look, while the waker counts after the change: one sees the other.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let in_time = loop {
            if settled() {
                break true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            let woken = self.bell.wait_timeout(bed, left);
            bed = woken.unwrap_or_else(PoisonError::into_inner).0;
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        in_time
    }

    /// After a change that someone may be waiting for.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Whoever counted itself has looked, or will: the lock is free only once it sleeps.
            drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, index, operation, numbers } = self;
        match operation {
            Operation::AllReduce => {
                write!(f, "collective {index} of step {step}, an all-reduce of {numbers} numbers")
            }
            Operation::Gather => write!(f, "collective {index} of step {step}, a gather"),
        }
    }
}

fn posted(seat: &Seat) -> &AtomicU64 {
    &seat.posted
}

fn finished(seat: &Seat) -> &AtomicU64 {
    &seat.finished
}

/// Which of the two slots a rank's `calls`-th collective uses.
fn parity(calls: u64) -> usize {
    usize::from(calls % 2 == 1)
}
