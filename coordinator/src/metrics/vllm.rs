//! The `vllm:` series: names, types, labels and buckets that dashboards, autoscalers and routers know.
//!
//! Both generations at once. A name that the newer generation (V1) has carries `engine="0"` as well;
//! a name that only the older one (V0) had carries `model_name` alone.

use prometheus::{
    Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use crate::metrics::declare::{
    Declare, ITERATION, PARAMS_N, PREEMPTIONS, REQUEST, TPOT, TTFT, token_buckets,
};

/// Queues, cache and configuration, as they are now.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) running: IntGauge,
    pub(super) waiting: IntGauge,
    pub(super) waiting_by_reason: IntGaugeVec,
    pub(super) swapped: IntGauge,
    pub(super) kv_cache_usage: Gauge,
    pub(super) gpu_cache_usage: Gauge,
    pub(super) cpu_cache_usage: Gauge,
    pub(super) gpu_prefix_hit_rate: Gauge,
    pub(super) cache_config: GaugeVec,
}

/// What committed steps did.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) prompt_tokens: IntCounter,
    pub(super) prompt_tokens_by_source: IntCounterVec,
    pub(super) prompt_tokens_cached: IntCounter,
    pub(super) generation_tokens: IntCounter,
    pub(super) tokens: IntCounter,
    pub(super) iteration_tokens: Histogram,
    pub(super) preemptions: IntCounter,
    pub(super) prefix_queries: IntCounter,
    pub(super) prefix_hits: IntCounter,
    pub(super) gpu_prefix_queries: IntCounter,
    pub(super) gpu_prefix_hits: IntCounter,
    pub(super) first_token: Histogram,
    pub(super) per_output_token: Histogram,
    pub(super) inter_token: Histogram,
    pub(super) corrupted: IntCounter,
}

/// What is observed once, when a group finishes.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) success: IntCounterVec,
    pub(super) e2e: Histogram,
    pub(super) queue: Histogram,
    pub(super) queue_old: Histogram,
    pub(super) inference: Histogram,
    pub(super) prefill: Histogram,
    pub(super) decode: Histogram,
    pub(super) per_output_token: Histogram,
    pub(super) prompt_tokens: Histogram,
    pub(super) generation_tokens: Histogram,
    pub(super) max_generation_tokens: Histogram,
    pub(super) params_n: Histogram,
    pub(super) params_max_tokens: Histogram,
    pub(super) prefill_computed: Histogram,
    pub(super) preemptions: Histogram,
}

/// Labels of `vllm:cache_config_info`, in order.
pub(super) const CACHE_CONFIG: &[&str] = &[
    "block_size",
    "cache_dtype",
    "enable_prefix_caching",
    "gpu_memory_utilization",
    "num_cpu_blocks",
    "num_gpu_blocks",
    "num_gpu_blocks_override",
    "sliding_window",
    "swap_space_bytes",
];

fn labelled<'a>(registry: &'a Registry, model_name: &str, engine: bool) -> Declare<'a> {
    let mut declare = Declare::of_model(registry, model_name);
    if engine {
        declare.labels.insert("engine".to_owned(), "0".to_owned());
    }
    declare
}

impl Present {
    pub(super) fn declare(registry: &Registry, model_name: &str) -> Self {
        let both = labelled(registry, model_name, true);
        let old = labelled(registry, model_name, false);
        declare_facts(registry, &both);
        old.gauge("vllm:cpu_prefix_cache_hit_rate", "Prefix hit rate of host blocks; -1: off.")
            .set(-1.0);
        let sleep = both.int_gauges(
            "vllm:engine_sleep_state",
            "1 for the state the engine is in.",
            "sleep_state",
            &["awake", "weights_offloaded", "discard_all"],
        );
        sleep.with_label_values(&["awake"]).set(1);
        Self {
            running: both
                .int_gauge("vllm:num_requests_running", "Groups with KV blocks on the devices."),
            waiting: both.int_gauge(
                "vllm:num_requests_waiting",
                "Groups that wait to run, preempted ones included.",
            ),
            waiting_by_reason: both.int_gauges(
                "vllm:num_requests_waiting_by_reason",
                "Groups that wait, by what they wait for.",
                "reason",
                &["capacity", "deferred"],
            ),
            swapped: old.int_gauge(
                "vllm:num_requests_swapped",
                "Groups whose KV blocks are in host memory.",
            ),
            kv_cache_usage: both.gauge(
                "vllm:kv_cache_usage_perc",
                "Share of the KV blocks that somebody owns; 1 = all.",
            ),
            gpu_cache_usage: old
                .gauge("vllm:gpu_cache_usage_perc", "The same as vllm:kv_cache_usage_perc."),
            cpu_cache_usage: old.gauge(
                "vllm:cpu_cache_usage_perc",
                "Share of the host's swap blocks that somebody owns; 1 = all.",
            ),
            gpu_prefix_hit_rate: old.gauge(
                "vllm:gpu_prefix_cache_hit_rate",
                "Share of looked-up prompt tokens that the prefix cache had.",
            ),
            cache_config: both.gauges(
                "vllm:cache_config_info",
                "1; the KV cache's settings are its labels.",
                CACHE_CONFIG,
            ),
        }
    }
}

/// No adapters are served; routers that look for this series find it.
fn declare_facts(registry: &Registry, both: &Declare<'_>) {
    let bare = Declare { registry, labels: std::collections::HashMap::new() };
    let names = ["max_lora", "running_lora_adapters", "waiting_lora_adapters"];
    bare.gauges("vllm:lora_requests_info", "No adapters are served.", &names)
        .with_label_values(&["0", "", ""])
        .set(0.0);
    for name in
        ["vllm:external_prefix_cache_queries_total", "vllm:external_prefix_cache_hits_total"]
    {
        // There is no such cache; the series stay at 0.
        drop(both.counter(name, "Tokens looked up in, found in a KV cache of another process."));
    }
}

impl Steps {
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    pub(super) fn declare(registry: &Registry, model_name: &str) -> Self {
        let both = labelled(registry, model_name, true);
        let old = labelled(registry, model_name, false);
        Self {
            prompt_tokens: both.counter(
                "vllm:prompt_tokens_total",
                "Prompt tokens computed by committed steps; recomputed ones count again.",
            ),
            prompt_tokens_by_source: both.counters(
                "vllm:prompt_tokens_by_source_total",
                "Prompt tokens by where their keys and values came from.",
                "source",
                &["local_compute", "local_cache_hit"],
            ),
            prompt_tokens_cached: both.counter(
                "vllm:prompt_tokens_cached_total",
                "Prompt tokens that the prefix cache had.",
            ),
            generation_tokens: both
                .counter("vllm:generation_tokens_total", "Tokens generated by committed steps."),
            tokens: old.counter("vllm:tokens_total", "Prompt and generated tokens together."),
            iteration_tokens: both.histogram(
                "vllm:iteration_tokens_total",
                "Tokens of a committed step.",
                ITERATION,
            ),
            preemptions: both
                .counter("vllm:num_preemptions_total", "Preemptions, by recompute and by swap."),
            prefix_queries: both.counter(
                "vllm:prefix_cache_queries_total",
                "Prompt tokens looked up in the prefix cache.",
            ),
            prefix_hits: both.counter(
                "vllm:prefix_cache_hits_total",
                "Prompt tokens found in the prefix cache.",
            ),
            gpu_prefix_queries: both.counter(
                "vllm:gpu_prefix_cache_queries_total",
                "The same as vllm:prefix_cache_queries_total.",
            ),
            gpu_prefix_hits: both.counter(
                "vllm:gpu_prefix_cache_hits_total",
                "The same as vllm:prefix_cache_hits_total.",
            ),
            first_token: both.histogram(
                "vllm:time_to_first_token_seconds",
                "From the request's arrival to its first token.",
                TTFT,
            ),
            per_output_token: old.histogram(
                "vllm:time_per_output_token_seconds",
                "Between one step that gave a group tokens and the next.",
                TPOT,
            ),
            inter_token: both.histogram(
                "vllm:inter_token_latency_seconds",
                "Between one token of a sequence and the next.",
                TPOT,
            ),
            corrupted: both.counter(
                "vllm:corrupted_requests_total",
                "Requests given up since a step had a NaN or ranks disagreed.",
            ),
        }
    }
}

impl Requests {
    pub(super) fn declare(registry: &Registry, model_name: &str, model_len_max: u32) -> Self {
        let both = labelled(registry, model_name, true);
        let old = labelled(registry, model_name, false);
        let tokens = token_buckets(model_len_max);
        let span = |name, help| both.histogram(name, help, REQUEST);
        let count = |name, help| both.histogram(name, help, &tokens);
        Self {
            success: both.counters(
                "vllm:request_success_total",
                "Finished sequences, by why they finished.",
                "finished_reason",
                &["stop", "length", "abort", "error"],
            ),
            e2e: span("vllm:e2e_request_latency_seconds", "From arrival to the end of the group."),
            queue: span("vllm:request_queue_time_seconds", "From arrival to the first step."),
            queue_old: old.histogram(
                "vllm:time_in_queue_requests",
                "The same as vllm:request_queue_time_seconds.",
                REQUEST,
            ),
            inference: span("vllm:request_inference_time_seconds", "From first step to the end."),
            prefill: span("vllm:request_prefill_time_seconds", "From first step to first token."),
            decode: span("vllm:request_decode_time_seconds", "From first token to the end."),
            per_output_token: both.histogram(
                "vllm:request_time_per_output_token_seconds",
                "A request's decode time over its tokens after the first.",
                TPOT,
            ),
            prompt_tokens: count("vllm:request_prompt_tokens", "Tokens of the prompt."),
            generation_tokens: count(
                "vllm:request_generation_tokens",
                "Tokens generated, for each sequence.",
            ),
            max_generation_tokens: count(
                "vllm:request_max_num_generation_tokens",
                "Tokens generated for the longest sequence of the group.",
            ),
            params_n: both.histogram("vllm:request_params_n", "Sequences asked for.", PARAMS_N),
            params_max_tokens: count(
                "vllm:request_params_max_tokens",
                "Most tokens that could be generated for a sequence, all limits considered.",
            ),
            prefill_computed: count(
                "vllm:request_prefill_kv_computed_tokens",
                "Prompt tokens computed, without those that the prefix cache had.",
            ),
            preemptions: both.histogram(
                "vllm:request_num_preemptions",
                "Times the group's KV blocks were taken away.",
                PREEMPTIONS,
            ),
        }
    }
}
