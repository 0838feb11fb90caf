//! The `arcmesh_` series, and those of the HTTP layer.

use std::collections::HashMap;

use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry,
};

use crate::metrics::declare::{Declare, HTTP, HTTP_FINE, REQUEST, SMALL, STEP, TTFT};

/// What only arcmesh tells.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) step_duration: HistogramVec,
    pub(super) schedule: Histogram,
    pub(super) rank_skew: Histogram,
    pub(super) broadcast: Histogram,
    pub(super) rank_share: GaugeVec,
    pub(super) idle: Histogram,
    pub(super) steps_ahead: IntCounter,
    pub(super) slices_void: IntCounter,
    pub(super) rank_seconds: CounterVec,
    pub(super) preemptions: IntCounterVec,
    pub(super) swap_blocks: IntCounterVec,
    pub(super) swap_bytes: IntCounterVec,
    pub(super) rejected: IntCounterVec,
    pub(super) oldest_waiting: Gauge,
    pub(super) queue_limit: IntGauge,
    pub(super) generation_ceiling: IntGauge,
    pub(super) length_finish: IntCounterVec,
    pub(super) client_disconnects: IntCounter,
    pub(super) slow_readers: IntCounter,
    pub(super) timeouts: IntCounterVec,
    pub(super) tokenise: Histogram,
    pub(super) auth_failures: IntCounter,
    pub(super) epoch: IntGauge,
    pub(super) members: IntGaugeVec,
    pub(super) reforms: IntCounterVec,
    pub(super) failed_checks: IntCounterVec,
    pub(super) replayed: IntCounter,
    pub(super) replays_given_up: IntCounter,
    pub(super) ready: IntGauge,
    pub(super) cold_first_token: Histogram,
    pub(super) answer_tokens: IntCounter,
    pub(super) answer_bytes: IntCounter,
    pub(super) receipt: Histogram,
    pub(super) write_lag: Histogram,
}

/// What the HTTP layer counts.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) requests: IntCounterVec,
    pub(super) requests_exact: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) duration_fine: Histogram,
}

impl Own {
    pub(super) fn declare(registry: &Registry, model_name: &str) -> Self {
        let d = Declare::of_model(registry, model_name);
        let made = Self::rest(&d);
        for phase in ["prefill", "decode", "mixed"] {
            drop(made.step_duration.with_label_values(&[phase]));
        }
        made
    }

    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn rest(d: &Declare<'_>) -> Self {
        Self {
            step_duration: d.histograms(
                "arcmesh_step_duration_seconds",
                "From sending a step, or from the end of the one before if it was sent ahead, to the slowest rank's reply.",
                &["phase"],
                STEP,
            ),
            schedule: d.histogram(
                "arcmesh_schedule_seconds",
                "Deciding what a step does, and applying what it did.",
                SMALL,
            ),
            rank_skew: d.histogram(
                "arcmesh_step_rank_skew_seconds",
                "Between the fastest rank's reply and the slowest's.",
                SMALL,
            ),
            broadcast: d.histogram(
                "arcmesh_step_broadcast_seconds",
                "Of a step, when no rank was at work: it was being sent, or the replies came.",
                SMALL,
            ),
            idle: d.histogram(
                "arcmesh_step_idle_seconds",
                "How long a rank had nothing to do between two steps, with groups running: the longest of the ranks, by their own clocks.",
                SMALL,
            ),
            steps_ahead: d.counter(
                "arcmesh_steps_ahead_total",
                "Steps planned and sent while the one before them ran.",
            ),
            slices_void: d.counter(
                "arcmesh_slices_void_total",
                "Slices of steps whose sequence had ended meanwhile: they were computed for nobody.",
            ),
            rank_seconds: d.real_counters(
                "arcmesh_rank_step_seconds_total",
                "Time of each rank in steps by its own clock: computing, moving sums, waiting for a peer, sampling.",
                &["rank", "part"],
            ),
            rank_share: d.gauges(
                "arcmesh_rank_share_ratio",
                "Share of the model that a rank has taken on; 1 = all.",
                &["rank"],
            ),
            preemptions: d.counters(
                "arcmesh_preemptions_total",
                "Groups whose KV blocks were taken away, by where their state went.",
                "mode",
                &["recompute", "swap"],
            ),
            swap_blocks: d.counters(
                "arcmesh_swap_blocks_total",
                "KV blocks moved between device and host.",
                "direction",
                &["in", "out"],
            ),
            swap_bytes: d.counters(
                "arcmesh_swap_bytes_total",
                "Bytes of those blocks, over all ranks.",
                "direction",
                &["in", "out"],
            ),
            rejected: d.counters(
                "arcmesh_rejected_total",
                "Requests not taken, by the error code that the client saw.",
                "code",
                &[
                    "queue_full",
                    "queue_timeout",
                    "timeout",
                    "context_length_exceeded",
                    "invalid_request",
                    "not_ready",
                ],
            ),
            oldest_waiting: d.gauge(
                "arcmesh_oldest_waiting_seconds",
                "How long the group that has waited longest has; 0: none waits.",
            ),
            queue_limit: d
                .int_gauge("arcmesh_queue_limit", "Groups that may wait; one more is refused."),
            generation_ceiling: d.int_gauge(
                "arcmesh_generation_ceiling_tokens",
                "The operator's limit on generated tokens for each sequence; 0: none.",
            ),
            length_finish: d.counters(
                "arcmesh_length_finish_total",
                "Sequences that a limit ended, by whose it was.",
                "limit",
                &["request", "operator", "context"],
            ),
            client_disconnects: d.counter(
                "arcmesh_client_disconnects_total",
                "Requests whose client went away before the answer was complete.",
            ),
            timeouts: d.counters(
                "arcmesh_timeouts_total",
                "Groups given up since their time was over, by whose bound it was.",
                "bound",
                &["queue", "request"],
            ),
            slow_readers: d.counter(
                "arcmesh_slow_readers_total",
                "Answers cut off since they were not read fast enough.",
            ),
            tokenise: d.histogram(
                "arcmesh_tokenise_seconds",
                "Template and tokenizer, each request.",
                SMALL,
            ),
            auth_failures: d
                .counter("arcmesh_auth_failures_total", "Requests without a valid API key."),
            epoch: d.int_gauge("arcmesh_membership_epoch", "The group of workers' epoch; 0: none."),
            members: d.int_gauges(
                "arcmesh_members",
                "Ranks, by state.",
                "state",
                &["ready", "loading", "lost"],
            ),
            reforms: d.counters(
                "arcmesh_group_reforms_total",
                "Times the group of workers formed anew, by cause.",
                "cause",
                &["lost", "deadline", "peer", "device", "wrong"],
            ),
            failed_checks: d.counters(
                "arcmesh_failed_checks_total",
                "Checks of what ranks computed that failed: they hold different bits, a NaN, an answer out of order, a step refused.",
                "check",
                &["hash", "nan", "order", "refused"],
            ),
            replayed: d.counter(
                "arcmesh_requests_replayed_total",
                "Groups that ran when a rank was lost, and were computed again.",
            ),
            replays_given_up: d.counter(
                "arcmesh_requests_given_up_total",
                "Groups that ended with an error since the ranks could not compute them.",
            ),
            cold_first_token: d.histogram(
                "arcmesh_cold_first_token_seconds",
                "First tokens, among all, of groups that came before the workers had run a step.",
                TTFT,
            ),
            answer_tokens: d.counter(
                "arcmesh_answer_tokens_total",
                "Generated tokens that became part of an answer; the others came after a stop string, or when the client was gone.",
            ),
            answer_bytes: d.counter(
                "arcmesh_answer_bytes_total",
                "Bytes of answers that clients' sockets took.",
            ),
            receipt: d.histogram(
                "arcmesh_request_receipt_seconds",
                "From the request's arrival until the socket had taken the last byte of its answer.",
                REQUEST,
            ),
            write_lag: d.histogram(
                "arcmesh_http_write_lag_seconds",
                "From an answer's last token until the socket had taken its last byte.",
                SMALL,
            ),
            ready: d.int_gauge("arcmesh_ready", "1: a step went through all ranks, and may again."),
        }
    }
}

impl Http {
    pub(super) fn declare(registry: &Registry) -> Self {
        let d = Declare { registry, labels: HashMap::new() };
        let version = Declare {
            registry,
            labels: HashMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        };
        version.int_gauge("arcmesh_build_info", "1; the version is its label.").set(1);
        Self {
            requests: d.counters_by(
                "http_requests_total",
                "Exchanges, by handler, method and class of status.",
                &["handler", "method", "status"],
            ),
            requests_exact: d.counters_by(
                "arcmesh_http_requests_total",
                "Exchanges, by handler, method and status.",
                &["handler", "method", "status"],
            ),
            duration: d.histograms(
                "http_request_duration_seconds",
                "An exchange, to the end of its body.",
                &["handler", "method"],
                HTTP,
            ),
            duration_fine: d.histogram(
                "http_request_duration_highr_seconds",
                "The same, finer, over all handlers.",
                HTTP_FINE,
            ),
        }
    }
}
