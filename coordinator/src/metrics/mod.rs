//! Every series that the coordinator exports, declared once and moved at the edges that see the events.
//!
//! All of them exist at 0 from the start. The core is not touched: it tells [`Stats`], and what
//! happened is told by the engine's loop, by the cluster's replies and by the HTTP layer.

mod declare;
mod own;
mod vllm;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};
use scheduler::{FinishReason, LengthLimit, Stats};
use tokio::time::Instant;

use crate::metrics::own::{Http, Own};
use crate::metrics::vllm::{Present, Requests, Steps};

/// The coordinator's series. Shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    present: Present,
    steps: Steps,
    requests: Requests,
    own: Own,
    http: Http,
    seen: Mutex<Seen>,
}

/// What counters have already been moved by, and what a scrape computes anew.
#[derive(Debug, Default)]
struct Seen {
    stats: Stats,
    oldest_waiting: Option<Instant>,
}

/// A step that every rank ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepSeen {
    /// `prefill`, `decode` or `mixed`.
    pub(crate) phase: &'static str,
    /// Tokens computed.
    pub(crate) tokens: usize,
    /// From sending it to the slowest reply.
    pub(crate) duration: Duration,
    /// Between the fastest reply and the slowest.
    pub(crate) skew: Duration,
    /// Blocks moved to the host.
    pub(crate) swapped_out: usize,
    /// Blocks moved back.
    pub(crate) swapped_in: usize,
    /// Bytes of a block, over all ranks.
    pub(crate) block_bytes: u64,
}

/// A group that ended, in spans of its life; a point that it never reached leaves none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupSeen {
    /// Tokens of its prompt.
    pub(crate) prompt_tokens: u32,
    /// Of those, had by the prefix cache.
    pub(crate) cached_tokens: u32,
    /// Sequences.
    pub(crate) sequences: u32,
    /// Most tokens a sequence could get.
    pub(crate) tokens_max: u32,
    /// Tokens of its longest sequence.
    pub(crate) generated_max: u32,
    /// Times it was preempted.
    pub(crate) preemptions: u32,
    /// Arrival to end.
    pub(crate) e2e: Duration,
    /// Arrival to first step.
    pub(crate) queue: Option<Duration>,
    /// First step to first token.
    pub(crate) prefill: Option<Duration>,
    /// First token to end.
    pub(crate) decode: Option<Duration>,
    /// First step to end.
    pub(crate) inference: Option<Duration>,
}

/// The KV cache as the group of workers has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheSeen {
    /// Tokens a block holds.
    pub(crate) block_size: u32,
    /// Blocks on the devices: the least over ranks.
    pub(crate) blocks: u32,
    /// Blocks in host memory.
    pub(crate) swap_blocks: u32,
    /// What the operator asked for, 0: nothing.
    pub(crate) blocks_wanted: u32,
    /// Bytes of the host's blocks, over all ranks.
    pub(crate) swap_bytes: u64,
}

/// How many ranks are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MembersSeen {
    /// All are loading or connecting.
    Loading(usize),
    /// All are ready, in a group of this epoch.
    Ready(usize, u64),
    /// At least one of them is lost.
    Lost(usize),
}

impl Metrics {
    /// All series at 0. `model_len_max` ends the buckets of token counts.
    ///
    /// # Panics
    /// Never: all names are constants that are valid.
    #[must_use]
    pub fn new(model_name: &str, model_len_max: u32) -> Self {
        let registry = Registry::new();
        registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("the first in its registry");
        let metrics = Self {
            present: Present::declare(&registry, model_name),
            steps: Steps::declare(&registry, model_name),
            requests: Requests::declare(&registry, model_name, model_len_max),
            own: Own::declare(&registry, model_name),
            http: Http::declare(&registry),
            seen: Mutex::default(),
            registry,
        };
        metrics.cache(CacheSeen {
            block_size: 0,
            blocks: 0,
            swap_blocks: 0,
            blocks_wanted: 0,
            swap_bytes: 0,
        });
        metrics
    }

    /// Everything, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let oldest = self.seen.lock().unwrap_or_else(PoisonError::into_inner).oldest_waiting;
        self.own.oldest_waiting.set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot render the metrics");
            String::new()
        })
    }

    /// An HTTP exchange ended. `handler` is a route as it is declared, never a path as it was sent.
    pub fn http_request(&self, handler: &str, method: &str, status: u16, seconds: f64) {
        let class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.http.requests.with_label_values(&[handler, method, class]).inc();
        let exact = status.to_string();
        self.http.requests_exact.with_label_values(&[handler, method, exact.as_str()]).inc();
        self.http.duration.with_label_values(&[handler, method]).observe(seconds);
        self.http.duration_fine.observe(seconds);
    }

    /// A client went away before its answer was complete.
    pub fn client_disconnected(&self) {
        self.own.client_disconnects.inc();
    }

    /// A request was not taken; the code is the one in the error object.
    pub fn rejected(&self, code: &'static str) {
        self.own.rejected.with_label_values(&[code]).inc();
    }

    /// A request had no valid API key.
    pub fn auth_failed(&self) {
        self.own.auth_failures.inc();
    }

    /// A request's template and tokenizer took this long.
    pub fn tokenise_seconds(&self, seconds: f64) {
        self.own.tokenise.observe(seconds);
    }

    /// The scheduler's state after anything happened; counters move by what is new.
    pub(crate) fn stats(&self, stats: Stats, oldest_waiting: Option<Instant>) {
        self.present.running.set(whole(stats.running));
        self.present.waiting.set(whole(stats.waiting));
        self.present.waiting_by_reason.with_label_values(&["capacity"]).set(whole(stats.waiting));
        self.present.swapped.set(whole(stats.swapped));
        let usage = share(stats.blocks_held.0.into(), stats.blocks.0.into());
        self.present.kv_cache_usage.set(usage);
        self.present.gpu_cache_usage.set(usage);
        let swap_usage = share(stats.swap_blocks_held.0.into(), stats.swap_blocks.0.into());
        self.present.cpu_cache_usage.set(swap_usage);
        self.present.gpu_prefix_hit_rate.set(share(stats.prefix_hits, stats.prefix_queries));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.count(&stats, &seen.stats);
        *seen = Seen { stats, oldest_waiting };
    }

    fn count(&self, new: &Stats, old: &Stats) {
        let steps = &self.steps;
        let prompt = new.prompt_tokens.saturating_sub(old.prompt_tokens);
        let generated = new.generation_tokens.saturating_sub(old.generation_tokens);
        let queries = new.prefix_queries.saturating_sub(old.prefix_queries);
        let hits = new.prefix_hits.saturating_sub(old.prefix_hits);
        let recompute = new.preemptions_recompute.saturating_sub(old.preemptions_recompute);
        let swap = new.preemptions_swap.saturating_sub(old.preemptions_swap);
        steps.prompt_tokens.inc_by(prompt);
        steps.prompt_tokens_by_source.with_label_values(&["local_compute"]).inc_by(prompt);
        steps.prompt_tokens_by_source.with_label_values(&["local_cache_hit"]).inc_by(hits);
        steps.prompt_tokens_cached.inc_by(hits);
        steps.generation_tokens.inc_by(generated);
        steps.tokens.inc_by(prompt + generated);
        steps.prefix_queries.inc_by(queries);
        steps.gpu_prefix_queries.inc_by(queries);
        steps.prefix_hits.inc_by(hits);
        steps.gpu_prefix_hits.inc_by(hits);
        steps.preemptions.inc_by(recompute + swap);
        self.own.preemptions.with_label_values(&["recompute"]).inc_by(recompute);
        self.own.preemptions.with_label_values(&["swap"]).inc_by(swap);
    }

    /// A step was committed.
    pub(crate) fn step(&self, step: &StepSeen) {
        self.steps.iteration_tokens.observe(number(step.tokens));
        let seconds = step.duration.as_secs_f64();
        self.own.step_duration.with_label_values(&[step.phase]).observe(seconds);
        self.own.rank_skew.observe(step.skew.as_secs_f64());
        for (direction, blocks) in [("out", step.swapped_out), ("in", step.swapped_in)] {
            let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
            self.own.swap_blocks.with_label_values(&[direction]).inc_by(blocks);
            let bytes = blocks.saturating_mul(step.block_bytes);
            self.own.swap_bytes.with_label_values(&[direction]).inc_by(bytes);
        }
    }

    /// Planning and committing a step took this long, without the step itself.
    pub(crate) fn scheduled(&self, time: Duration) {
        self.own.schedule.observe(time.as_secs_f64());
    }

    /// A group got its first token, so long after its arrival.
    pub(crate) fn first_token(&self, since_arrival: Duration) {
        self.steps.first_token.observe(since_arrival.as_secs_f64());
    }

    /// A step gave a group tokens, so long after the last step that did.
    pub(crate) fn group_gap(&self, gap: Duration) {
        self.steps.per_output_token.observe(gap.as_secs_f64());
    }

    /// A sequence got a token, so long after its last.
    pub(crate) fn token_gap(&self, gap: Duration) {
        self.steps.inter_token.observe(gap.as_secs_f64());
    }

    /// A sequence finished.
    pub(crate) fn sequence_finished(&self, reason: FinishReason, generated: u32) {
        let label = match reason {
            FinishReason::Stop(_) => "stop",
            FinishReason::Length(limit) => {
                let limit = match limit {
                    LengthLimit::Request => "request",
                    LengthLimit::Operator => "operator",
                    LengthLimit::Context => "context",
                };
                self.own.length_finish.with_label_values(&[limit]).inc();
                "length"
            }
            FinishReason::Abort => "abort",
            FinishReason::Error => "error",
        };
        self.requests.success.with_label_values(&[label]).inc();
        self.requests.generation_tokens.observe(generated.into());
    }

    /// A group finished.
    pub(crate) fn group_finished(&self, group: &GroupSeen) {
        let requests = &self.requests;
        requests.e2e.observe(group.e2e.as_secs_f64());
        if let Some(queue) = group.queue {
            requests.queue.observe(queue.as_secs_f64());
            requests.queue_old.observe(queue.as_secs_f64());
        }
        for (span, histogram) in [
            (group.prefill, &requests.prefill),
            (group.decode, &requests.decode),
            (group.inference, &requests.inference),
        ] {
            if let Some(span) = span {
                histogram.observe(span.as_secs_f64());
            }
        }
        if let (Some(decode), 2..) = (group.decode, group.generated_max) {
            let each = decode.as_secs_f64() / f64::from(group.generated_max - 1);
            requests.per_output_token.observe(each);
        }
        requests.prompt_tokens.observe(group.prompt_tokens.into());
        let computed = group.prompt_tokens.saturating_sub(group.cached_tokens);
        requests.prefill_computed.observe(computed.into());
        requests.max_generation_tokens.observe(group.generated_max.into());
        requests.params_n.observe(group.sequences.into());
        requests.params_max_tokens.observe(group.tokens_max.into());
        requests.preemptions.observe(group.preemptions.into());
    }

    /// The limits that the operator set.
    pub(crate) fn limits(&self, queue_max: usize, generation_max: Option<u32>) {
        self.own.queue_limit.set(whole(queue_max));
        self.own.generation_ceiling.set(generation_max.map_or(0, i64::from));
    }

    /// The group of workers has this cache.
    pub(crate) fn cache(&self, cache: CacheSeen) {
        let wanted = match cache.blocks_wanted {
            0 => "None".to_owned(),
            blocks => blocks.to_string(),
        };
        let labels = [
            cache.block_size.to_string(),
            "auto".to_owned(),
            "False".to_owned(),
            "None".to_owned(),
            cache.swap_blocks.to_string(),
            cache.blocks.to_string(),
            wanted,
            "None".to_owned(),
            cache.swap_bytes.to_string(),
        ];
        self.present.cache_config.reset();
        self.present.cache_config.with_label_values(&labels).set(1.0);
    }

    /// How the ranks are.
    pub(crate) fn members(&self, members: MembersSeen) {
        let (state, count) = match members {
            MembersSeen::Loading(count) => ("loading", count),
            MembersSeen::Ready(count, epoch) => {
                self.own.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
                ("ready", count)
            }
            MembersSeen::Lost(count) => ("lost", count),
        };
        for known in ["ready", "loading", "lost"] {
            let value = if known == state { whole(count) } else { 0 };
            self.own.members.with_label_values(&[known]).set(value);
        }
        self.own.ready.set(i64::from(state == "ready"));
    }

    /// The group of workers was lost and forms anew; so many groups will be computed again.
    pub(crate) fn reforming(&self, cause: &'static str, replayed: u64) {
        self.own.reforms.with_label_values(&[cause]).inc();
        self.own.replayed.inc_by(replayed);
    }

    /// A group was given up since the ranks could not compute it; `corrupted`: they computed nonsense.
    pub(crate) fn given_up(&self, corrupted: bool) {
        self.own.replays_given_up.inc();
        self.steps.corrupted.inc_by(u64::from(corrupted));
    }

    /// An answer was cut off since nobody read it.
    pub(crate) fn slow_reader(&self) {
        self.own.slow_readers.inc();
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// `part / all`; 0 where there is nothing.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people to look at")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}
