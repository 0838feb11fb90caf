//! Many samples as a few figures.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::load::ask::{Ended, Sample};

/// How values are spread. Field names are what scripts read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// How many there are.
    pub(crate) count: usize,
    /// On average.
    pub(crate) mean: f64,
    /// The median.
    pub(crate) p50: f64,
    /// Nine in ten are no more.
    pub(crate) p90: f64,
    /// Nineteen in twenty are no more.
    pub(crate) p95: f64,
    /// Ninety-nine in a hundred are no more.
    pub(crate) p99: f64,
    /// None is more.
    pub(crate) max: f64,
}

/// What a load came to. Field names are what scripts read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Requests that were sent.
    pub(crate) requests: usize,
    /// Of those, with a whole answer.
    pub(crate) answered: usize,
    /// The others, by how they ended.
    pub(crate) errors: BTreeMap<String, usize>,
    /// Whole answers, by why they ended.
    pub(crate) finish_reasons: BTreeMap<String, usize>,
    /// From the first request's start to the last answer's end.
    pub(crate) duration_seconds: f64,
    /// Whole answers a second.
    pub(crate) answers_per_second: f64,
    /// Prompt tokens of whole answers.
    pub(crate) prompt_tokens_total: u64,
    /// Tokens of whole answers.
    pub(crate) output_tokens_total: u64,
    /// Prompt tokens of whole answers a second.
    pub(crate) prompt_tokens_per_second: f64,
    /// Tokens of whole answers a second.
    pub(crate) output_tokens_per_second: f64,
    /// Sent until the first text.
    pub(crate) ttft_seconds: Option<Spread>,
    /// Time for each token after the first, of each request.
    pub(crate) tpot_seconds: Option<Spread>,
    /// Between one piece of text and the next.
    pub(crate) itl_seconds: Option<Spread>,
    /// Sent until the end.
    pub(crate) e2e_seconds: Option<Spread>,
    /// Tokens of prompts.
    pub(crate) prompt_tokens: Option<Spread>,
    /// Tokens of answers.
    pub(crate) output_tokens: Option<Spread>,
}

impl Spread {
    /// Of values in any order; none where there is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        let at = |share| quantile(&sorted, share);
        Some(Self {
            count: sorted.len(),
            mean: sorted.iter().sum::<f64>() / number(sorted.len()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            max,
        })
    }

    fn of_times(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        Self::of(times.into_iter().map(|time| time.as_secs_f64()))
    }
}

/// A quantile of sorted values, between two of them where it falls there; 0 where there are none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is an index")]
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share.clamp(0.0, 1.0) * number(last);
    let below = sorted[place.floor() as usize];
    let above = sorted[(place.ceil() as usize).min(last)];
    below + (above - below) * place.fract()
}

/// The median of values in any order; none of no values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| quantile(&sorted, 0.5))
}

impl Summary {
    /// Of samples in any order.
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let whole = || samples.iter().filter(|sample| sample.answered());
        let begun = samples.iter().map(|sample| sample.start).min().unwrap_or_default();
        let ended = samples.iter().map(|sample| sample.start + sample.e2e).max();
        let duration = ended.unwrap_or_default().saturating_sub(begun).as_secs_f64();
        let per_second = |count: f64| if duration > 0.0 { count / duration } else { 0.0 };
        let prompt_tokens_total = whole().map(|sample| u64::from(sample.prompt_tokens)).sum();
        let output_tokens_total = whole().map(|sample| u64::from(sample.output_tokens)).sum();
        let mut errors = BTreeMap::new();
        let mut finish_reasons = BTreeMap::new();
        for sample in samples {
            let (counted, name) = match &sample.ended {
                Ended::Answered(reason) => (&mut finish_reasons, reason.clone()),
                Ended::Status(status) => (&mut errors, format!("status {status}")),
                Ended::Failed(why) => (&mut errors, why.clone()),
            };
            *counted.entry(name).or_default() += 1;
        }
        Self {
            requests: samples.len(),
            answered: whole().count(),
            errors,
            finish_reasons,
            duration_seconds: duration,
            answers_per_second: per_second(number(whole().count())),
            prompt_tokens_total,
            output_tokens_total,
            prompt_tokens_per_second: per_second(real(prompt_tokens_total)),
            output_tokens_per_second: per_second(real(output_tokens_total)),
            ttft_seconds: Spread::of_times(whole().filter_map(|sample| sample.ttft)),
            tpot_seconds: Spread::of_times(whole().filter_map(Sample::tpot)),
            itl_seconds: Spread::of_times(whole().flat_map(|sample| sample.gaps.clone())),
            e2e_seconds: Spread::of_times(whole().map(|sample| sample.e2e)),
            prompt_tokens: Spread::of(whole().map(|sample| f64::from(sample.prompt_tokens))),
            output_tokens: Spread::of(whole().map(|sample| f64::from(sample.output_tokens))),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "samples are far fewer than 2^53")]
fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "tokens are far fewer than 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: u64, e2e: u64, ended: Ended) -> Sample {
        let seconds = Duration::from_secs;
        Sample {
            start: seconds(start),
            e2e: seconds(e2e),
            ttft: Some(seconds(1)),
            gaps: vec![seconds(2), seconds(4)],
            prompt_tokens: 10,
            output_tokens: 4,
            ended,
        }
    }

    #[test]
    fn only_whole_answers_count_as_throughput() {
        let stop = || Ended::Answered("stop".to_owned());
        let samples =
            [sample(1, 7, stop()), sample(2, 9, stop()), sample(3, 1, Ended::Status(429))];
        let summary = Summary::of(&samples);
        assert_eq!((summary.requests, summary.answered), (3, 2));
        assert_eq!(summary.errors["status 429"], 1);
        assert_eq!(summary.finish_reasons["stop"], 2);
        assert_eq!(summary.duration_seconds, 10.0);
        assert_eq!(summary.output_tokens_per_second, 0.8);
        assert_eq!(summary.tpot_seconds.unwrap().p50, 2.0);
        assert_eq!(summary.itl_seconds.unwrap().count, 4);
        assert_eq!(summary.e2e_seconds.unwrap().mean, 8.0);
        assert_eq!(Summary::of(&[]).ttft_seconds, None);
    }

    #[test]
    fn quantiles_lie_between_values() {
        let sorted = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(quantile(&sorted, 0.5), 3.0);
        assert_eq!(quantile(&sorted, 0.9), 4.6);
        assert_eq!(quantile(&sorted, 1.0), 5.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
