//! The series of one rank.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::worker::{Loaded, StepRequest, StepTimes};

use crate::collective::Lane;
use crate::metrics::WorkerMetrics;
use crate::metrics::families::{Series, Who};

/// What the slices of a step do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Prefill,
    Decode,
    Mixed,
    Heartbeat,
}

impl Phase {
    /// What the slices of a step do. A slice of one token that is not the first decodes.
    fn of(request: &StepRequest) -> Self {
        let decodes = |slice: &&proto::worker::Slice| slice.count() == 1 && slice.start > 0;
        let decoding = request.slices.iter().filter(decodes).count();
        match (decoding, request.slices.len()) {
            (_, 0) => Self::Heartbeat,
            (0, _) => Self::Prefill,
            (decoding, all) if decoding == all => Self::Decode,
            _ => Self::Mixed,
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused,
    PeerLost,
    Numeric,
    Device,
}

/// What ranks do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    AllReduce,
    Gather,
}

/// What a collective took and moved, in bytes of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) operation: Operation,
    pub(crate) transfer: Duration,
    pub(crate) wait: Duration,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// One rank's series. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct RankMetrics {
    metrics: WorkerMetrics,
    current: Arc<Mutex<Current>>,
}

/// Who the rank is, and its series under that name.
#[derive(Debug)]
struct Current {
    identity: Identity,
    series: Series,
    /// Bytes of a KV block on this rank, while it holds some.
    block_bytes: u64,
}

#[derive(Debug, Clone)]
struct Identity {
    who: Who,
    world: String,
    backend: String,
    lane: Lane,
}

impl WorkerMetrics {
    /// The series of a rank, all at 0. None: of a worker that will be told.
    #[must_use]
    pub fn rank(&self, rank: Option<usize>) -> RankMetrics {
        let rank = rank.map_or_else(|| "none".to_owned(), |rank| rank.to_string());
        let who = Who { rank, node: String::new(), device: String::new() };
        let series = self.families.of(&who);
        let identity =
            Identity { who, world: "0".to_owned(), backend: String::new(), lane: Lane::None };
        self.info.with_label_values(&identity.labels()).set(1);
        let current = Arc::new(Mutex::new(Current { identity, series, block_bytes: 0 }));
        RankMetrics { metrics: self.clone(), current }
    }
}

impl RankMetrics {
    /// The registry that they are in.
    pub(crate) fn all(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// What the rank runs on.
    pub(crate) fn identify(&self, backend: &str, device: &str, node: &str) {
        let mut current = self.lock();
        self.forget_info(&current.identity);
        let Who { rank, .. } = current.identity.who.clone();
        current.identity.backend = backend.to_owned();
        self.rename(&mut current, Who { rank, node: node.to_owned(), device: device.to_owned() });
        self.tell_info(&current.identity);
    }

    /// The rank that this worker takes in a group at an epoch.
    pub(crate) fn took(&self, rank: usize, world: usize, epoch: u64) {
        let mut current = self.lock();
        self.forget_info(&current.identity);
        let who = Who { rank: rank.to_string(), ..current.identity.who.clone() };
        self.rename(&mut current, who);
        current.identity.world = world.to_string();
        current.identity.lane = Lane::None;
        self.tell_info(&current.identity);
        current.series.epoch.set(number(epoch));
    }

    /// The group has come together, and this carries its numbers.
    pub(crate) fn joined(&self, lane: Lane) {
        let mut current = self.lock();
        self.forget_info(&current.identity);
        current.identity.lane = lane;
        self.tell_info(&current.identity);
    }

    /// Its series go on under another name, from 0.
    fn rename(&self, current: &mut Current, who: Who) {
        if current.identity.who != who {
            self.metrics.families.forget(&current.identity.who);
            current.series = self.metrics.families.of(&who);
            current.identity.who = who;
        }
    }

    /// The rank is loaded and takes steps.
    pub(crate) fn loaded(&self, loaded: &Loaded, took: Duration) {
        let mut current = self.lock();
        current.block_bytes = loaded.kv_cache_bytes / u64::from(loaded.kv_blocks).max(1);
        let series = &current.series;
        series.loads[0].inc();
        series.load_seconds.set(took.as_secs_f64());
        series.memory[0].set(number(loaded.weight_bytes));
        series.memory[1].set(number(loaded.kv_cache_bytes));
        series.kv_capacity[0].set(i64::from(loaded.kv_blocks));
        series.kv_capacity[1].set(i64::from(loaded.swap_blocks));
        series.ready.set(1);
    }

    /// The rank could not be loaded, for whatever reason.
    pub(crate) fn load_failed(&self) {
        self.lock().series.loads[1].inc();
    }

    /// The rank holds nothing any more.
    pub(crate) fn ended(&self) {
        let series = &self.lock().series;
        series.ready.set(0);
        let held = [&series.memory, &series.kv_capacity, &series.kv_used];
        held.into_iter().flatten().for_each(|gauge| gauge.set(0));
        series.kv_ratio.set(0.0);
    }

    /// What is held while a step runs.
    #[expect(clippy::cast_precision_loss, reason = "blocks are far fewer than 2^53")]
    pub(crate) fn held(&self, request: &StepRequest) {
        let series = &self.lock().series;
        series.kv_used[0].set(i64::from(request.blocks_held));
        series.kv_used[1].set(i64::from(request.swap_blocks_held));
        let capacity = series.kv_capacity[0].get().max(1);
        series.kv_ratio.set(f64::from(request.blocks_held) / capacity as f64);
    }

    /// A step ended; `times` of one that was done.
    pub(crate) fn step(
        &self,
        request: &StepRequest,
        outcome: Outcome,
        took: Duration,
        times: &StepTimes,
    ) {
        let current = self.lock();
        let series = &current.series;
        series.steps[outcome as usize].inc();
        if outcome == Outcome::Numeric {
            series.nan.inc();
        }
        if outcome != Outcome::Done {
            return;
        }
        series.step[Phase::of(request) as usize].observe(took.as_secs_f64());
        series.tokens.inc_by(request.slices.iter().map(|slice| count(slice.count())).sum());
        series.compute.inc_by(seconds(times.compute_ns));
        series.sample.inc_by(seconds(times.sample_ns));
        series.collective[0].observe(seconds(times.collective_transfer_ns));
        series.collective[1].observe(seconds(times.collective_wait_ns));
        for (at, pairs) in [&request.swap_out, &request.swap_in].into_iter().enumerate() {
            let blocks = count(pairs.len());
            series.swap_blocks[at].inc_by(blocks);
            series.swap_bytes[at].inc_by(blocks.saturating_mul(current.block_bytes));
        }
        series.copied_blocks.inc_by(count(request.copies.len()));
    }

    /// The device's queue took so many kernels in a step, however that ended.
    pub(crate) fn launched(&self, launches: u64) {
        self.lock().series.launches.inc_by(launches);
    }

    /// This rank took part in a collective.
    pub(crate) fn moved(&self, moved: &Moved) {
        let series = &self.lock().series;
        let operation = moved.operation as usize;
        series.collectives[operation].inc();
        series.collective_time[operation][0].inc_by(moved.transfer.as_secs_f64());
        series.collective_time[operation][1].inc_by(moved.wait.as_secs_f64());
        series.collective_bytes[operation][0].inc_by(moved.sent);
        series.collective_bytes[operation][1].inc_by(moved.received);
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_info(&self, identity: &Identity) {
        self.metrics.info.with_label_values(&identity.labels()).set(1);
    }

    fn forget_info(&self, identity: &Identity) {
        // It may never have been told.
        drop(self.metrics.info.remove_label_values(&identity.labels()));
    }
}

impl Identity {
    fn labels(&self) -> [&str; 7] {
        let Self { who: Who { rank, node, device }, world, backend, lane } = self;
        [env!("CARGO_PKG_VERSION"), backend, device, node, rank, world, lane.name()]
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a step takes far less than 2^53 ns, 104 days")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_of_a_step_is_that_of_its_slices() {
        let slice = |tokens: usize, start: u32| proto::worker::Slice {
            tokens: vec![0; tokens],
            start,
            ..Default::default()
        };
        let phase = |slices| Phase::of(&StepRequest { slices, ..Default::default() });
        assert_eq!(phase(vec![]), Phase::Heartbeat);
        assert_eq!(phase(vec![slice(1, 0)]), Phase::Prefill);
        assert_eq!(phase(vec![slice(5, 3)]), Phase::Prefill);
        assert_eq!(phase(vec![slice(1, 3), slice(1, 9)]), Phase::Decode);
        assert_eq!(phase(vec![slice(1, 3), slice(2, 0)]), Phase::Mixed);
    }
}
