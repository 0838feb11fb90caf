//! The families of a rank's series: names, help and labels; and one rank's series among them.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec,
};

use crate::metrics::declare::Declare;

/// What tells ranks apart: the first labels of every family here.
const WHO: [&str; 3] = ["rank", "node", "device"];

/// Whose series they are, in the order of [`WHO`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) rank: String,
    pub(super) node: String,
    pub(super) device: String,
}

impl Who {
    fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [self.rank.as_str(), &self.node, &self.device].iter().chain(more).copied().collect()
    }
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
    collectives: IntCounterVec,
    collective_time: CounterVec,
    collective_bytes: IntCounterVec,
    swap_blocks: IntCounterVec,
    swap_bytes: IntCounterVec,
    copied_blocks: IntCounterVec,
    steps: IntCounterVec,
    tokens: IntCounterVec,
    launches: IntCounterVec,
    nan: IntCounterVec,
    loads: IntCounterVec,
    pub(super) memory: IntGaugeVec,
    load_seconds: GaugeVec,
}

/// One rank's series. Arrays are in the order of the label's values below.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) up: IntGauge,
    pub(super) ready: IntGauge,
    pub(super) epoch: IntGauge,
    pub(super) kv_capacity: [IntGauge; 2],
    pub(super) kv_used: [IntGauge; 2],
    pub(super) kv_ratio: Gauge,
    pub(super) step: [Histogram; 4],
    pub(super) compute: Counter,
    pub(super) sample: Counter,
    pub(super) collective: [Histogram; 2],
    pub(super) collectives: [IntCounter; 2],
    /// By operation, then by part.
    pub(super) collective_time: [[Counter; 2]; 2],
    /// By operation, then by direction.
    pub(super) collective_bytes: [[IntCounter; 2]; 2],
    pub(super) swap_blocks: [IntCounter; 2],
    pub(super) swap_bytes: [IntCounter; 2],
    pub(super) copied_blocks: IntCounter,
    pub(super) steps: [IntCounter; 5],
    pub(super) tokens: IntCounter,
    pub(super) launches: IntCounter,
    pub(super) nan: IntCounter,
    pub(super) loads: [IntCounter; 2],
    pub(super) memory: [IntGauge; 2],
    pub(super) load_seconds: Gauge,
}

const TIERS: [&str; 2] = ["device", "host"];
const PHASES: [&str; 4] = ["prefill", "decode", "mixed", "heartbeat"];
const OUTCOMES: [&str; 5] = ["done", "refused", "peer_lost", "numeric", "device"];
const LOADS: [&str; 2] = ["done", "failed"];
const OPERATIONS: [&str; 2] = ["all_reduce", "gather"];
const PARTS: [&str; 2] = ["transfer", "wait"];
const DIRECTIONS: [&str; 2] = ["sent", "received"];
const SWAPS: [&str; 2] = ["out", "in"];
const HELD: [&str; 2] = ["weights", "kv"];

/// Families with the labels of [`WHO`] and some more.
struct OfRank<'a>(&'a Declare<'a>);

impl OfRank<'_> {
    fn gauges(&self, name: &str, help: &str, by: &[&str]) -> IntGaugeVec {
        self.0.gauges(name, help, &[&WHO, by].concat())
    }

    fn real_gauges(&self, name: &str, help: &str, by: &[&str]) -> GaugeVec {
        self.0.real_gauges(name, help, &[&WHO, by].concat())
    }

    fn counters(&self, name: &str, help: &str, by: &[&str]) -> IntCounterVec {
        self.0.counters(name, help, &[&WHO, by].concat())
    }

    fn real_counters(&self, name: &str, help: &str, by: &[&str]) -> CounterVec {
        self.0.real_counters(name, help, &[&WHO, by].concat())
    }

    fn histograms(&self, name: &str, help: &str, by: &[&str]) -> HistogramVec {
        self.0.histograms(name, help, &[&WHO, by].concat())
    }
}

impl Families {
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    pub(super) fn declare(declare: &Declare<'_>) -> Self {
        let d = OfRank(declare);
        Self {
            up: d.gauges("arcmesh_worker_up", "The process of this rank runs: 1", &[]),
            ready: d.gauges(
                "arcmesh_worker_ready",
                "1 while this rank is loaded and takes steps",
                &[],
            ),
            epoch: d.gauges("arcmesh_worker_epoch", "Epoch of this rank's group", &[]),
            kv_capacity: d.gauges(
                "arcmesh_worker_kv_blocks_capacity",
                "KV blocks reserved, on the device and in host memory",
                &["tier"],
            ),
            kv_used: d.gauges(
                "arcmesh_worker_kv_blocks_used",
                "KV blocks that sequences hold, as of the last step",
                &["tier"],
            ),
            kv_ratio: d.real_gauges(
                "arcmesh_worker_kv_cache_usage_ratio",
                "Part of the device's KV blocks that sequences hold, 0 to 1",
                &[],
            ),
            step: d.histograms(
                "arcmesh_worker_step_seconds",
                "Time of a step on this rank: its slices prefill, decode, or both; or it has none",
                &["phase"],
            ),
            compute: d.real_counters(
                "arcmesh_worker_compute_seconds_total",
                "Time in which the device was at work",
                &[],
            ),
            sample: d.real_counters(
                "arcmesh_worker_sample_seconds_total",
                "Time in which tokens were chosen; on rank 0",
                &[],
            ),
            collective: d.histograms(
                "arcmesh_worker_collective_seconds",
                "Time of all collectives of a step: moving and adding bytes, and waiting for a peer's first byte",
                &["part"],
            ),
            collectives: d.counters(
                "arcmesh_worker_collectives_total",
                "Collectives that this rank took part in, by operation",
                &["op"],
            ),
            collective_time: d.real_counters(
                "arcmesh_worker_collective_seconds_total",
                "Time of collectives: moving and adding bytes, and waiting for a peer's first byte, by operation",
                &["op", "part"],
            ),
            collective_bytes: d.counters(
                "arcmesh_worker_collective_bytes_total",
                "Payload bytes of collectives, by operation",
                &["op", "direction"],
            ),
            swap_blocks: d.counters(
                "arcmesh_worker_swap_blocks_total",
                "KV blocks carried from the device to host memory, and back",
                &["direction"],
            ),
            swap_bytes: d.counters(
                "arcmesh_worker_swap_bytes_total",
                "Bytes of those blocks on this rank",
                &["direction"],
            ),
            copied_blocks: d.counters(
                "arcmesh_worker_copied_blocks_total",
                "KV blocks copied within the device, for sequences that part",
                &[],
            ),
            steps: d.counters("arcmesh_worker_steps_total", "Steps, by how they ended", &["outcome"]),
            tokens: d.counters(
                "arcmesh_worker_step_tokens_total",
                "Tokens that done steps took in",
                &[],
            ),
            launches: d.counters(
                "arcmesh_worker_launches_total",
                "Kernels that the device's queue took in steps; a processor has no queue",
                &[],
            ),
            nan: d.counters(
                "arcmesh_worker_nan_logits_total",
                "Steps that came to a NaN or an infinity where none may be",
                &[],
            ),
            loads: d.counters("arcmesh_worker_loads_total", "Loads, by how they ended", &["outcome"]),
            memory: d.gauges(
                "arcmesh_worker_memory_bytes",
                "Memory: this rank's weights and KV cache; resident is the whole process and has no rank",
                &["kind"],
            ),
            load_seconds: d.real_gauges(
                "arcmesh_worker_weights_load_seconds",
                "How long the last load took, from the order to being ready",
                &[],
            ),
        }
    }

    /// The series of one rank; they exist from now on.
    pub(super) fn of(&self, who: &Who) -> Series {
        let one = who.with(&[]);
        let series = Series {
            up: self.up.with_label_values(&one),
            ready: self.ready.with_label_values(&one),
            epoch: self.epoch.with_label_values(&one),
            kv_capacity: TIERS.map(|tier| self.kv_capacity.with_label_values(&who.with(&[tier]))),
            kv_used: TIERS.map(|tier| self.kv_used.with_label_values(&who.with(&[tier]))),
            kv_ratio: self.kv_ratio.with_label_values(&one),
            step: PHASES.map(|phase| self.step.with_label_values(&who.with(&[phase]))),
            compute: self.compute.with_label_values(&one),
            sample: self.sample.with_label_values(&one),
            collective: PARTS.map(|part| self.collective.with_label_values(&who.with(&[part]))),
            collectives: OPERATIONS.map(|op| self.collectives.with_label_values(&who.with(&[op]))),
            collective_time: OPERATIONS.map(|op| {
                PARTS.map(|part| self.collective_time.with_label_values(&who.with(&[op, part])))
            }),
            collective_bytes: OPERATIONS.map(|op| {
                DIRECTIONS.map(|way| self.collective_bytes.with_label_values(&who.with(&[op, way])))
            }),
            swap_blocks: SWAPS.map(|way| self.swap_blocks.with_label_values(&who.with(&[way]))),
            swap_bytes: SWAPS.map(|way| self.swap_bytes.with_label_values(&who.with(&[way]))),
            copied_blocks: self.copied_blocks.with_label_values(&one),
            steps: OUTCOMES.map(|outcome| self.steps.with_label_values(&who.with(&[outcome]))),
            tokens: self.tokens.with_label_values(&one),
            launches: self.launches.with_label_values(&one),
            nan: self.nan.with_label_values(&one),
            loads: LOADS.map(|outcome| self.loads.with_label_values(&who.with(&[outcome]))),
            memory: HELD.map(|kind| self.memory.with_label_values(&who.with(&[kind]))),
            load_seconds: self.load_seconds.with_label_values(&one),
        };
        series.up.set(1);
        series
    }

    /// This rank is here no longer under that name.
    pub(super) fn forget(&self, who: &Who) {
        let gauges = [&self.up, &self.ready, &self.epoch, &self.kv_capacity, &self.kv_used];
        gauges.into_iter().for_each(|family| remove(family, who));
        remove(&self.memory, who);
        remove(&self.kv_ratio, who);
        remove(&self.load_seconds, who);
        remove(&self.step, who);
        remove(&self.collective, who);
        remove(&self.compute, who);
        remove(&self.sample, who);
        remove(&self.collective_time, who);
        let counters = [&self.collectives, &self.collective_bytes, &self.steps, &self.loads];
        counters.into_iter().for_each(|family| remove(family, who));
        let counters = [&self.swap_blocks, &self.swap_bytes, &self.copied_blocks, &self.tokens];
        counters.into_iter().for_each(|family| remove(family, who));
        [&self.launches, &self.nan].into_iter().for_each(|family| remove(family, who));
    }
}

/// Removes a rank's series from a family, whatever else they are labelled with.
fn remove<B: MetricVecBuilder>(family: &MetricVec<B>, who: &Who) {
    let whose = HashMap::from([
        ("rank", who.rank.as_str()),
        ("node", who.node.as_str()),
        ("device", who.device.as_str()),
    ]);
    for found in family.collect() {
        for series in found.get_metric() {
            let labels: HashMap<&str, &str> =
                series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if whose.iter().all(|(name, value)| labels.get(name) == Some(value)) {
                // It was there a moment ago; whoever took it since wanted the same.
                drop(family.remove(&labels));
            }
        }
    }
}
