//! `vllm:` series that only the older generation (V0) had, and that few still read. They are told all the
//! same: a dashboard of that time shows figures, not gaps.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Gauge, Histogram, Registry};
use scheduler::Stats;
use tokio::time::Instant;

use crate::metrics::declare::{Declare, MILLISECONDS, PARAMS_N};
use crate::metrics::seen::GroupSeen;

/// Averages are taken over this long, as they always were.
const WINDOW: Duration = Duration::from_secs(5);

/// The series that something moves.
#[derive(Debug)]
pub(super) struct Retired {
    prompt_rate: Gauge,
    generation_rate: Gauge,
    forward: Histogram,
    execute: Histogram,
    best_of: Histogram,
    window: Mutex<Option<Window>>,
}

/// Since when the averages are taken, and what had been computed by then.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    prompt_tokens: u64,
    generation_tokens: u64,
}

impl Retired {
    pub(super) fn declare(registry: &Registry, model_name: &str) -> Self {
        let d = Declare::of_model(registry, model_name);
        declare_drafts(&d);
        Self {
            prompt_rate: d.gauge(
                "vllm:avg_prompt_throughput_toks_per_s",
                "Prompt tokens computed in a second, over the last 5 s.",
            ),
            generation_rate: d.gauge(
                "vllm:avg_generation_throughput_toks_per_s",
                "Tokens generated in a second, over the last 5 s.",
            ),
            forward: d.histogram(
                "vllm:model_forward_time_milliseconds",
                "In all steps that a request was part of: the busiest rank's device at work.",
                MILLISECONDS,
            ),
            execute: d.histogram(
                "vllm:model_execute_time_milliseconds",
                "All steps that a request was part of, collectives and sampling included.",
                MILLISECONDS,
            ),
            best_of: d.histogram(
                "vllm:request_params_best_of",
                "Sequences made, to choose those from that were asked for.",
                PARAMS_N,
            ),
            window: Mutex::default(),
        }
    }

    pub(super) fn finished(&self, group: &GroupSeen) {
        self.forward.observe(group.computed.as_secs_f64() * 1e3);
        self.execute.observe(group.stepped.as_secs_f64() * 1e3);
        self.best_of.observe(group.sequences.into());
    }

    /// The averages, when a window has passed.
    #[expect(clippy::cast_precision_loss, reason = "tokens of a few seconds are far below 2^53")]
    pub(super) fn averages(&self, stats: &Stats, now: Instant) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let begun =
            window.get_or_insert(Window { since: now, prompt_tokens: 0, generation_tokens: 0 });
        let passed = now.saturating_duration_since(begun.since);
        if passed < WINDOW {
            return;
        }
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / passed.as_secs_f64();
        self.prompt_rate.set(rate(stats.prompt_tokens, begun.prompt_tokens));
        self.generation_rate.set(rate(stats.generation_tokens, begun.generation_tokens));
        let Stats { prompt_tokens, generation_tokens, .. } = *stats;
        *begun = Window { since: now, prompt_tokens, generation_tokens };
    }
}

/// Nothing is drafted; the series stay at 0.
fn declare_drafts(d: &Declare<'_>) {
    for (name, help) in [
        ("vllm:spec_decode_draft_acceptance_rate", "Share of drafted tokens that were accepted."),
        ("vllm:spec_decode_efficiency", "Tokens given over tokens that all drafts could give."),
    ] {
        drop(d.gauge(name, help));
    }
    for (name, help) in [
        ("vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that were accepted."),
        ("vllm:spec_decode_num_draft_tokens_total", "Drafted tokens."),
        ("vllm:spec_decode_num_emitted_tokens_total", "Tokens given by steps with drafts."),
    ] {
        drop(d.counter(name, help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_those_of_the_last_window() {
        let retired = Retired::declare(&Registry::new(), "a-model");
        let begun = Instant::now();
        let told = |seconds, prompt_tokens, generation_tokens| {
            let stats = Stats { prompt_tokens, generation_tokens, ..Stats::default() };
            retired.averages(&stats, begun + Duration::from_secs(seconds));
            (retired.prompt_rate.get(), retired.generation_rate.get())
        };
        assert_eq!(told(0, 0, 0), (0.0, 0.0));
        assert_eq!(told(4, 400, 40), (0.0, 0.0));
        assert_eq!(told(5, 500, 50), (100.0, 10.0));
        assert_eq!(told(15, 500, 150), (0.0, 10.0));
    }
}
