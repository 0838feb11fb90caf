//! The series of one rank.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec,
};
use proto::worker::{Loaded, StepRequest, StepTimes};

use crate::metrics::WorkerMetrics;
use crate::metrics::declare::Declare;

/// What the slices of a step do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Prefill,
    Decode,
    Mixed,
    Heartbeat,
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

/// Payload bytes of a collective.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// All series of all ranks.
#[derive(Debug, Clone)]
pub(super) struct Families {
    up: IntGaugeVec,
    ready: IntGaugeVec,
    epoch: IntGaugeVec,
    kv_capacity: IntGaugeVec,
    kv_used: IntGaugeVec,
    kv_ratio: GaugeVec,
    step: HistogramVec,
    compute: CounterVec,
    sample: CounterVec,
    collective: HistogramVec,
    collective_bytes: IntCounterVec,
    steps: IntCounterVec,
    loads: IntCounterVec,
    pub(super) memory: IntGaugeVec,
    load_seconds: GaugeVec,
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
}

#[derive(Debug, Clone)]
struct Identity {
    rank: String,
    world: String,
    backend: String,
    device: String,
    node: String,
}

#[derive(Debug)]
struct Series {
    up: IntGauge,
    ready: IntGauge,
    epoch: IntGauge,
    kv_capacity: [IntGauge; 2],
    kv_used: [IntGauge; 2],
    kv_ratio: Gauge,
    step: [Histogram; 4],
    compute: Counter,
    sample: Counter,
    collective: [Histogram; 2],
    collective_bytes: [IntCounter; 2],
    steps: [IntCounter; 5],
    loads: [IntCounter; 2],
    memory: [IntGauge; 2],
    load_seconds: Gauge,
}

impl WorkerMetrics {
    /// The series of a rank, all at 0. None: of a worker that will be told.
    #[must_use]
    pub fn rank(&self, rank: Option<usize>) -> RankMetrics {
        let rank = rank.map_or_else(|| "none".to_owned(), |rank| rank.to_string());
        let series = self.families.of(&rank);
        let identity = Identity {
            rank,
            world: "0".to_owned(),
            backend: String::new(),
            device: String::new(),
            node: String::new(),
        };
        let current = Arc::new(Mutex::new(Current { identity, series }));
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
        current.identity.backend = backend.to_owned();
        current.identity.device = device.to_owned();
        current.identity.node = node.to_owned();
        self.tell_info(&current.identity);
    }

    /// The rank that this worker takes in a group at an epoch.
    pub(crate) fn took(&self, rank: usize, world: usize, epoch: u64) {
        let mut current = self.lock();
        self.forget_info(&current.identity);
        let rank = rank.to_string();
        if current.identity.rank != rank {
            self.metrics.families.forget(&current.identity.rank);
            current.series = self.metrics.families.of(&rank);
            current.identity.rank = rank;
        }
        current.identity.world = world.to_string();
        self.tell_info(&current.identity);
        current.series.epoch.set(number(epoch));
    }

    /// The rank is loaded and takes steps.
    pub(crate) fn loaded(&self, loaded: &Loaded, took: Duration) {
        let series = &self.lock().series;
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
    pub(crate) fn step(&self, phase: Phase, outcome: Outcome, took: Duration, times: &StepTimes) {
        let series = &self.lock().series;
        series.steps[outcome as usize].inc();
        if outcome != Outcome::Done {
            return;
        }
        series.step[phase as usize].observe(took.as_secs_f64());
        series.compute.inc_by(seconds(times.compute_ns));
        series.sample.inc_by(seconds(times.sample_ns));
        series.collective[0].observe(seconds(times.collective_transfer_ns));
        series.collective[1].observe(seconds(times.collective_wait_ns));
    }

    /// A collective moved bytes.
    pub(crate) fn moved(&self, moved: &Moved) {
        let series = &self.lock().series;
        series.collective_bytes[0].inc_by(moved.sent);
        series.collective_bytes[1].inc_by(moved.received);
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
    fn labels(&self) -> [&str; 6] {
        let Self { rank, world, backend, device, node } = self;
        [env!("CARGO_PKG_VERSION"), backend, device, node, rank, world]
    }
}

const TIERS: [&str; 2] = ["device", "host"];
const PHASES: [&str; 4] = ["prefill", "decode", "mixed", "heartbeat"];
const OUTCOMES: [&str; 5] = ["done", "refused", "peer_lost", "numeric", "device"];
const LOADS: [&str; 2] = ["done", "failed"];
const PARTS: [&str; 2] = ["transfer", "wait"];
const DIRECTIONS: [&str; 2] = ["sent", "received"];
const HELD: [&str; 2] = ["weights", "kv"];

impl Families {
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    pub(super) fn declare(d: &Declare<'_>) -> Self {
        Self {
            up: d.gauges("arcmesh_worker_up", "The process of this rank runs: 1", &["rank"]),
            ready: d.gauges(
                "arcmesh_worker_ready",
                "1 while this rank is loaded and takes steps",
                &["rank"],
            ),
            epoch: d.gauges("arcmesh_worker_epoch", "Epoch of this rank's group", &["rank"]),
            kv_capacity: d.gauges(
                "arcmesh_worker_kv_blocks_capacity",
                "KV blocks reserved, on the device and in host memory",
                &["rank", "tier"],
            ),
            kv_used: d.gauges(
                "arcmesh_worker_kv_blocks_used",
                "KV blocks that sequences hold, as of the last step",
                &["rank", "tier"],
            ),
            kv_ratio: d.real_gauges(
                "arcmesh_worker_kv_cache_usage_ratio",
                "Part of the device's KV blocks that sequences hold, 0 to 1",
                &["rank"],
            ),
            step: d.histograms(
                "arcmesh_worker_step_seconds",
                "Time of a step on this rank: its slices prefill, decode, or both; or it has none",
                &["rank", "phase"],
            ),
            compute: d.real_counters(
                "arcmesh_worker_compute_seconds_total",
                "Time in which the device was at work",
                &["rank"],
            ),
            sample: d.real_counters(
                "arcmesh_worker_sample_seconds_total",
                "Time in which tokens were chosen; on rank 0",
                &["rank"],
            ),
            collective: d.histograms(
                "arcmesh_worker_collective_seconds",
                "Time of all collectives of a step: moving and adding bytes, and waiting for a peer's first byte",
                &["rank", "part"],
            ),
            collective_bytes: d.counters(
                "arcmesh_worker_collective_bytes_total",
                "Payload bytes of collectives",
                &["rank", "direction"],
            ),
            steps: d.counters("arcmesh_worker_steps_total", "Steps, by how they ended", &["rank", "outcome"]),
            loads: d.counters("arcmesh_worker_loads_total", "Loads, by how they ended", &["rank", "outcome"]),
            memory: d.gauges(
                "arcmesh_worker_memory_bytes",
                "Memory: this rank's weights and KV cache; resident is the whole process and has no rank",
                &["rank", "kind"],
            ),
            load_seconds: d.real_gauges(
                "arcmesh_worker_weights_load_seconds",
                "How long the last load took, from the order to being ready",
                &["rank"],
            ),
        }
    }

    /// The series of one rank; they exist from now on.
    fn of(&self, rank: &str) -> Series {
        let series = Series {
            up: self.up.with_label_values(&[rank]),
            ready: self.ready.with_label_values(&[rank]),
            epoch: self.epoch.with_label_values(&[rank]),
            kv_capacity: TIERS.map(|tier| self.kv_capacity.with_label_values(&[rank, tier])),
            kv_used: TIERS.map(|tier| self.kv_used.with_label_values(&[rank, tier])),
            kv_ratio: self.kv_ratio.with_label_values(&[rank]),
            step: PHASES.map(|phase| self.step.with_label_values(&[rank, phase])),
            compute: self.compute.with_label_values(&[rank]),
            sample: self.sample.with_label_values(&[rank]),
            collective: PARTS.map(|part| self.collective.with_label_values(&[rank, part])),
            collective_bytes: DIRECTIONS
                .map(|way| self.collective_bytes.with_label_values(&[rank, way])),
            steps: OUTCOMES.map(|outcome| self.steps.with_label_values(&[rank, outcome])),
            loads: LOADS.map(|outcome| self.loads.with_label_values(&[rank, outcome])),
            memory: HELD.map(|kind| self.memory.with_label_values(&[rank, kind])),
            load_seconds: self.load_seconds.with_label_values(&[rank]),
        };
        series.up.set(1);
        series
    }

    /// A rank of this name is here no longer.
    fn forget(&self, rank: &str) {
        remove(&self.up, rank, &[]);
        remove(&self.ready, rank, &[]);
        remove(&self.epoch, rank, &[]);
        remove(&self.kv_capacity, rank, &TIERS);
        remove(&self.kv_used, rank, &TIERS);
        remove(&self.kv_ratio, rank, &[]);
        remove(&self.step, rank, &PHASES);
        remove(&self.compute, rank, &[]);
        remove(&self.sample, rank, &[]);
        remove(&self.collective, rank, &PARTS);
        remove(&self.collective_bytes, rank, &DIRECTIONS);
        remove(&self.steps, rank, &OUTCOMES);
        remove(&self.loads, rank, &LOADS);
        remove(&self.memory, rank, &HELD);
        remove(&self.load_seconds, rank, &[]);
    }
}

/// Removes a rank's series, one for each value of the other label where there is one.
fn remove<B: MetricVecBuilder>(family: &MetricVec<B>, rank: &str, values: &[&str]) {
    // A series that is not there need not be removed.
    if values.is_empty() {
        drop(family.remove_label_values(&[rank]));
    }
    for value in values {
        drop(family.remove_label_values(&[rank, value]));
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a step takes far less than 2^53 ns, 104 days")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
