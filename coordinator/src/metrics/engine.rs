//! What the engine's loop saw, counted.

use std::sync::PoisonError;
use std::time::Duration;

use proto::worker::KvDtype;
use scheduler::{FinishReason, Stats};
use tokio::time::Instant;

use crate::metrics::seen::{CacheSeen, FirstTokenSeen, GroupSeen, MembersSeen, StepSeen};
use crate::metrics::{Metrics, Seen};

/// What a rank may do with its time.
const PARTS: [&str; 4] = ["compute", "transfer", "wait", "sample"];

impl Metrics {
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
        self.retired.averages(&stats, Instant::now());
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
        self.own.steps_ahead.inc_by(new.steps_ahead.saturating_sub(old.steps_ahead));
        self.own.slices_void.inc_by(new.slices_void.saturating_sub(old.slices_void));
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
        self.own.broadcast.observe(step.under_way.as_secs_f64());
        for (direction, blocks) in [("out", step.swapped_out), ("in", step.swapped_in)] {
            let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
            self.own.swap_blocks.with_label_values(&[direction]).inc_by(blocks);
            let bytes = blocks.saturating_mul(step.block_bytes);
            self.own.swap_bytes.with_label_values(&[direction]).inc_by(bytes);
        }
    }

    /// A rank waited this long for a step, and none longer, with groups running.
    pub(crate) fn idled(&self, time: Duration) {
        self.own.idle.observe(time.as_secs_f64());
    }

    /// A group has formed, in which ranks take on the model in these proportions.
    pub(crate) fn shares(&self, shares: &[u32]) {
        let whole: f64 = shares.iter().copied().map(f64::from).sum();
        self.own.rank_share.reset();
        for (rank, share) in shares.iter().enumerate() {
            let series = self.own.rank_share.with_label_values(&[rank.to_string().as_str()]);
            series.set(f64::from(*share) / whole);
        }
    }

    /// What a rank did with its time in a step: `PARTS`, in order.
    pub(crate) fn rank(&self, rank: usize, parts: [Duration; 4]) {
        let rank = rank.to_string();
        for (part, time) in PARTS.iter().zip(parts) {
            let series = self.own.rank_seconds.with_label_values(&[rank.as_str(), part]);
            series.inc_by(time.as_secs_f64());
        }
    }

    /// Planning and committing a step took this long, without the step itself.
    pub(crate) fn scheduled(&self, time: Duration) {
        self.own.schedule.observe(time.as_secs_f64());
    }

    /// A group got its first token.
    pub(crate) fn first_token(&self, first: FirstTokenSeen) {
        let seconds = first.since_arrival.as_secs_f64();
        self.steps.first_token.observe(seconds);
        self.by_length.first_token(first.prompt_tokens, seconds);
        if first.cold {
            self.own.cold_first_token.observe(seconds);
        }
    }

    /// A prompt of so many tokens was not taken.
    pub(crate) fn refused(&self, prompt_tokens: u32) {
        self.by_length.refused(prompt_tokens);
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
                self.own.length_finish.with_label_values(&[limit.name()]).inc();
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
        requests.params_n.observe(group.choices.into());
        requests.params_max_tokens.observe(group.tokens_max.into());
        requests.preemptions.observe(group.preemptions.into());
        self.retired.finished(group);
        self.by_length.finished(group);
    }

    /// The limits that the operator set.
    pub(crate) fn limits(&self, queue_max: usize, generation_max: Option<u32>) {
        self.own.queue_limit.set(whole(queue_max));
        self.own.generation_ceiling.set(generation_max.map_or(0, i64::from));
    }

    /// The ranks' own figures are at these addresses.
    pub(crate) fn targets(&self, targets: Vec<String>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// The group of workers has this cache.
    pub(crate) fn cache(&self, cache: CacheSeen) {
        let wanted = match cache.blocks_wanted {
            0 => "None".to_owned(),
            blocks => blocks.to_string(),
        };
        let labels = [
            cache.block_size.to_string(),
            dtype(cache.dtype).to_owned(),
            if cache.prefix_cache { "True" } else { "False" }.to_owned(),
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
            MembersSeen::Loading(count) => {
                // They are there before their first step.
                (0..count).for_each(|rank| self.rank(rank, [Duration::ZERO; 4]));
                ("loading", count)
            }
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

    /// A check of what the ranks computed failed.
    pub(crate) fn check_failed(&self, check: &'static str) {
        self.own.failed_checks.with_label_values(&[check]).inc();
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

    /// A group was given up since its time was over: in the queue, or by its own bound.
    pub(crate) fn timed_out(&self, in_queue: bool) {
        let bound = if in_queue { "queue" } else { "request" };
        self.own.timeouts.with_label_values(&[bound]).inc();
    }

    /// An answer was cut off since nobody read it.
    pub(crate) fn slow_reader(&self) {
        self.own.slow_readers.inc();
    }
}

/// As the flag of the command calls it.
const fn dtype(dtype: KvDtype) -> &'static str {
    match dtype {
        KvDtype::F16 => "f16",
        KvDtype::Q8 => "q8_0",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_labelled_with_what_it_keeps() {
        let metrics = Metrics::new("toy", 128);
        metrics.cache(CacheSeen {
            block_size: 16,
            dtype: KvDtype::Q8,
            blocks: 40,
            prefix_cache: true,
            swap_blocks: 6,
            blocks_wanted: 0,
            swap_bytes: 6 * 4352,
        });
        let text = metrics.render();
        let series: Vec<&str> =
            text.lines().filter(|line| line.starts_with("vllm:cache_config_info")).collect();
        assert_eq!(series.len(), 1, "the one before is gone");
        assert!(series[0].contains("cache_dtype=\"q8_0\""), "{}", series[0]);
        assert!(series[0].contains("swap_space_bytes=\"26112\""), "{}", series[0]);
    }
}
