//! What a worker exports: every series, declared once and touched where things happen.
//!
//! Series of a rank carry the labels `rank`, `node` and `device`. A worker of its own does not know its rank before it is
//! told, and may be told another later: until then the label is `none`, and its series move with it.
//! Ranks that share a process share one [`WorkerMetrics`].

mod declare;
mod families;
mod of_card;
mod of_rank;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use crate::metrics::declare::Declare;
use crate::telemetry;

pub use crate::metrics::of_card::CardWatch;
pub use crate::metrics::of_rank::RankMetrics;
pub(crate) use crate::metrics::of_rank::{Moved, Operation, Outcome};

/// The registry of one process's workers. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    registry: Registry,
    /// One for each rank, always 1.
    info: IntGaugeVec,
    families: families::Families,
    cards: of_card::CardFamilies,
    rpcs: IntCounterVec,
    model_bytes: IntCounterVec,
    resident: IntGauge,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl WorkerMetrics {
    /// All series, at 0.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let declare = Declare { registry: &registry };
        let families = families::Families::declare(&declare);
        let cards = of_card::CardFamilies::declare(&declare);
        let rpcs = declare.counters(
            "arcmesh_worker_rpcs_total",
            "gRPC calls, by method and how they ended",
            &["method", "outcome"],
        );
        for method in ["describe", "load", "steps", "exchange", "list", "read"] {
            for outcome in ["ok", "error"] {
                rpcs.with_label_values(&[method, outcome]).inc_by(0);
            }
        }
        let model_bytes = declare.counters(
            "arcmesh_worker_model_bytes_total",
            "Bytes of the model's files that came from another worker, or went to one",
            &["direction"],
        );
        for direction in ["sent", "received"] {
            model_bytes.with_label_values(&[direction]).inc_by(0);
        }
        // The process as a whole has no rank: an empty label is none.
        let resident = families.memory.with_label_values(&["", "", "", "resident"]);
        let info = declare.gauges(
            "arcmesh_worker_info",
            "What each rank is, and what carries its sums (shared memory, grpc, local or none): always 1",
            &["version", "backend", "device", "node", "rank", "world", "lane"],
        );
        Self { info, families, cards, rpcs, model_bytes, resident, registry }
    }

    /// All series in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let resident = telemetry::resident_bytes().unwrap_or(0);
        self.resident.set(i64::try_from(resident).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a String cannot fail, and every family has a name and a value.
        drop(TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text));
        text
    }

    /// So much of the model was `sent` to another worker, or `received` from one.
    pub fn model_bytes(&self, direction: &str, bytes: u64) {
        self.model_bytes.with_label_values(&[direction]).inc_by(bytes);
    }

    /// A gRPC call ended.
    pub(crate) fn rpc(&self, method: &str, ok: bool) {
        self.rpcs.with_label_values(&[method, if ok { "ok" } else { "error" }]).inc();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The value of the one series of this name that has the labels that are given.
    fn value(page: &str, series: &str) -> f64 {
        let (name, labels) = series.split_once('{').unwrap();
        let labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
        let found: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .collect();
        assert_eq!(found.len(), 1, "{series}: {found:?} in\n{page}");
        found[0].rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    #[test]
    fn a_fresh_worker_exports_every_series_at_zero_and_says_that_it_is_up() {
        let metrics = WorkerMetrics::new();
        let _rank = metrics.rank(None);
        let text = metrics.render();
        for (series, expected) in [
            ("arcmesh_worker_up{rank=\"none\"}", 1.0),
            ("arcmesh_worker_ready{rank=\"none\"}", 0.0),
            ("arcmesh_worker_kv_blocks_capacity{rank=\"none\",tier=\"device\"}", 0.0),
            ("arcmesh_worker_kv_blocks_used{rank=\"none\",tier=\"host\"}", 0.0),
            ("arcmesh_worker_kv_cache_usage_ratio{rank=\"none\"}", 0.0),
            ("arcmesh_worker_step_seconds_count{phase=\"mixed\",rank=\"none\"}", 0.0),
            (
                "arcmesh_worker_step_seconds_bucket{phase=\"decode\",rank=\"none\",le=\"0.0005\"}",
                0.0,
            ),
            ("arcmesh_worker_collective_seconds_count{part=\"wait\",rank=\"none\"}", 0.0),
            (
                "arcmesh_worker_collective_bytes_total{direction=\"sent\",op=\"gather\",rank=\"none\"}",
                0.0,
            ),
            ("arcmesh_worker_collectives_total{op=\"all_reduce\",rank=\"none\"}", 0.0),
            ("arcmesh_worker_swap_bytes_total{direction=\"out\",rank=\"none\"}", 0.0),
            ("arcmesh_worker_nan_logits_total{rank=\"none\"}", 0.0),
            ("arcmesh_worker_steps_total{outcome=\"numeric\",rank=\"none\"}", 0.0),
            ("arcmesh_worker_steps_total{outcome=\"refused\",rank=\"none\"}", 0.0),
            ("arcmesh_worker_loads_total{outcome=\"failed\",rank=\"none\"}", 0.0),
            ("arcmesh_worker_rpcs_total{method=\"exchange\",outcome=\"error\"}", 0.0),
            ("arcmesh_worker_model_bytes_total{direction=\"sent\"}", 0.0),
            ("arcmesh_worker_memory_bytes{kind=\"weights\",rank=\"none\"}", 0.0),
            ("arcmesh_worker_weights_load_seconds{rank=\"none\"}", 0.0),
        ] {
            assert_eq!(value(&text, series), expected, "{series}");
        }
        let resident = text.lines().find(|line| line.contains("kind=\"resident\"")).unwrap();
        assert!(!resident.ends_with(" 0"), "{resident}");
    }

    #[test]
    fn series_move_with_the_rank() {
        let metrics = WorkerMetrics::new();
        let rank = metrics.rank(None);
        rank.identify("cpu", "some device", "host");
        rank.took(2, 4, 9);
        let text = metrics.render();
        assert!(!text.contains("rank=\"none\""), "{text}");
        assert!(text.contains("rank=\"2\",version"), "{text}");
        let who = "device=\"some device\",node=\"host\",rank=\"2\"";
        assert!(text.contains(&format!("arcmesh_worker_epoch{{{who}}} 9")), "{text}");
        assert!(text.contains("world=\"4\""), "{text}");
        rank.took(1, 4, 10);
        assert!(!metrics.render().contains("rank=\"2\""));
    }

    #[test]
    fn ranks_of_one_process_are_told_apart() {
        let metrics = WorkerMetrics::new();
        let (first, _second) = (metrics.rank(Some(0)), metrics.rank(Some(1)));
        first.moved(&Moved {
            operation: Operation::AllReduce,
            transfer: Duration::from_millis(2),
            wait: Duration::from_millis(1),
            sent: 16,
            received: 8,
        });
        let text = metrics.render();
        for (series, expected) in [
            (
                "arcmesh_worker_collective_bytes_total{direction=\"sent\",op=\"all_reduce\",rank=\"0\"}",
                16.0,
            ),
            (
                "arcmesh_worker_collective_bytes_total{direction=\"received\",op=\"all_reduce\",rank=\"0\"}",
                8.0,
            ),
            (
                "arcmesh_worker_collective_bytes_total{direction=\"sent\",op=\"all_reduce\",rank=\"1\"}",
                0.0,
            ),
            (
                "arcmesh_worker_collective_seconds_total{op=\"all_reduce\",part=\"wait\",rank=\"0\"}",
                0.001,
            ),
            ("arcmesh_worker_collectives_total{op=\"gather\",rank=\"0\"}", 0.0),
        ] {
            assert_eq!(value(&text, series), expected, "{series}");
        }
    }
}
