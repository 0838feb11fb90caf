//! Whether the server's figures say what its clients saw: counts to the unit, times to within a bucket.
//!
//! The server stops its clock before the last byte has reached the client, and starts it after the
//! first has left: its times may be a little shorter, so a quantile may lie in the bucket next to the
//! client's. Counts have no such excuse.

use std::fmt::Write as _;

use serde::Serialize;

use crate::chart::Unit;
use crate::exposition::{Exposition, Histogram};
use crate::load::{Ended, Sample, quantile};

/// Buckets that a quantile may be off.
const BUCKETS_OFF_MAX: usize = 1;

/// Both sides of every figure that both have.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reconciliation {
    lines: Vec<Line>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
struct Line {
    /// The server's series.
    series: String,
    /// What of it.
    what: String,
    /// What was measured.
    measured: f64,
    /// What the server says; none: it has no such series.
    server: Option<f64>,
    #[serde(skip)]
    unit: Unit,
    verdict: Verdict,
}

/// Whether both say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Equal,
    WithinABucket,
    /// The server has more, as it must: it worked for requests whose clients saw no end.
    AtLeast,
    Mismatch,
    /// The server has no such series.
    Absent,
}

/// What all lines are about.
struct Sides<'a> {
    before: &'a Exposition,
    after: &'a Exposition,
    samples: &'a [Sample],
    /// Requests that were cut short: nobody knows how far the server went.
    cut_short: bool,
    lines: Vec<Line>,
}

impl Reconciliation {
    /// Of what the server said before and after, and what was seen in between.
    pub(crate) fn of(
        path: &str,
        before: &Exposition,
        after: &Exposition,
        samples: &[Sample],
    ) -> Self {
        let cut_short = samples.iter().any(|sample| matches!(sample.ended, Ended::Failed(_)));
        let mut sides = Sides { before, after, samples, cut_short, lines: Vec::new() };
        sides.counts();
        sides.exchanges(path);
        sides.times();
        Self { lines: sides.lines }
    }

    /// How many figures are not the same.
    pub(crate) fn mismatches(&self) -> usize {
        self.lines.iter().filter(|line| line.verdict == Verdict::Mismatch).count()
    }

    /// For people: every mismatch, and how many figures agree.
    pub(crate) fn table(&self) -> String {
        let count = |verdict| self.lines.iter().filter(|line| line.verdict == verdict).count();
        let mut table = format!(
            "reconciled    {} equal, {} within a bucket, {} at least, {} absent, {} mismatched\n",
            count(Verdict::Equal),
            count(Verdict::WithinABucket),
            count(Verdict::AtLeast),
            count(Verdict::Absent),
            count(Verdict::Mismatch)
        );
        for line in self.lines.iter().filter(|line| line.verdict == Verdict::Mismatch) {
            let [series, what, measured, server, _] = line.shown();
            writeln!(table, "  {series} ({what}): measured {measured}, the server says {server}")
                .expect("a string takes everything");
        }
        table
    }

    /// Every figure: series, what of it, measured, the server's, verdict.
    pub(crate) fn rows(&self) -> Vec<[String; 5]> {
        self.lines.iter().map(Line::shown).collect()
    }
}

impl Line {
    fn shown(&self) -> [String; 5] {
        // Counts are shown to the unit.
        let show = |value: f64| match self.unit {
            Unit::Count => format!("{value}"),
            unit => unit.show(value),
        };
        let verdict = match self.verdict {
            Verdict::Equal => "equal",
            Verdict::WithinABucket => "within a bucket",
            Verdict::AtLeast => "at least",
            Verdict::Mismatch => "MISMATCH",
            Verdict::Absent => "absent",
        };
        let server = self.server.map_or_else(|| "–".to_owned(), show);
        let (series, what) = (self.series.clone(), self.what.clone());
        [series, what, show(self.measured), server, verdict.to_owned()]
    }
}

impl Sides<'_> {
    /// What a series grew by.
    fn moved(&self, series: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let after = self.after.total(series, labels)?;
        Some(after - self.before.total(series, labels).unwrap_or(0.0))
    }

    fn sum(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(of).sum()
    }

    /// A count: equal, or no less where requests were cut short.
    fn count(&mut self, series: &str, labels: &[(&str, &str)], what: &str, measured: f64) {
        let server = self.moved(series, labels);
        let verdict = match server {
            None => Verdict::Absent,
            Some(server) if (server - measured).abs() < 0.5 => Verdict::Equal,
            Some(server) if self.cut_short && server > measured => Verdict::AtLeast,
            Some(_) => Verdict::Mismatch,
        };
        let (series, what) = (series.to_owned(), what.to_owned());
        self.lines.push(Line { series, what, measured, server, unit: Unit::Count, verdict });
    }

    fn counts(&mut self) {
        let one = |yes: bool| if yes { 1.0 } else { 0.0 };
        for reason in ["stop", "length"] {
            let finished = Ended::Answered(reason.to_owned());
            let measured = self.sum(|sample| one(sample.ended == finished));
            let labels = [("finished_reason", reason)];
            self.count("vllm:request_success_total", &labels, reason, measured);
        }
        let output = self.sum(|sample| sample.output_tokens.into());
        let prompt = self.sum(|sample| sample.prompt_tokens.into());
        let answered = self.sum(|sample| one(sample.answered()));
        let first = self.sum(|sample| one(sample.output_tokens > 0));
        let later = self.sum(|sample| sample.output_tokens.saturating_sub(1).into());
        for (series, what, measured) in [
            ("vllm:generation_tokens_total", "tokens of answers", output),
            ("vllm:request_generation_tokens_sum", "tokens of answers", output),
            ("vllm:request_generation_tokens_count", "answers", answered),
            ("vllm:request_prompt_tokens_sum", "tokens of prompts", prompt),
            ("vllm:request_prompt_tokens_count", "answers", answered),
            ("vllm:time_to_first_token_seconds_count", "first tokens", first),
            ("vllm:e2e_request_latency_seconds_count", "answers", answered),
            ("vllm:inter_token_latency_seconds_count", "tokens after the first", later),
        ] {
            self.count(series, &[], what, measured);
        }
    }

    /// What HTTP said, by class of status.
    fn exchanges(&mut self, path: &str) {
        for (class, least) in [("2xx", 200), ("4xx", 400), ("5xx", 500)] {
            let in_class = |sample: &Sample| match &sample.ended {
                Ended::Answered(_) => least == 200,
                Ended::Status(status) => status / 100 * 100 == least,
                Ended::Failed(_) => false,
            };
            let measured = self.sum(|sample| if in_class(sample) { 1.0 } else { 0.0 });
            let labels = [("handler", path), ("method", "POST"), ("status", class)];
            if self.moved("http_requests_total", &labels).is_some() || measured > 0.0 {
                self.count("http_requests_total", &labels, &format!("{class} of {path}"), measured);
            }
        }
    }

    fn times(&mut self) {
        let seconds = |of: fn(&Sample) -> Option<f64>| -> Vec<f64> {
            let mut sorted: Vec<f64> =
                self.samples.iter().filter(|sample| sample.answered()).filter_map(of).collect();
            sorted.sort_by(f64::total_cmp);
            sorted
        };
        let e2e = seconds(|sample| Some(sample.e2e.as_secs_f64()));
        let ttft = seconds(|sample| sample.ttft.map(|time| time.as_secs_f64()));
        let tpot = seconds(|sample| sample.tpot().map(|time| time.as_secs_f64()));
        self.spread("vllm:e2e_request_latency_seconds", &e2e);
        self.spread("vllm:time_to_first_token_seconds", &ttft);
        self.spread("vllm:request_time_per_output_token_seconds", &tpot);
    }

    /// Quantiles of a histogram.
    fn spread(&mut self, series: &str, sorted: &[f64]) {
        // With requests that were cut short the server has observed others than the clients.
        if sorted.is_empty() || self.cut_short {
            return;
        }
        let after = self.after.histogram(series);
        let before = self.before.histogram(series).unwrap_or_default();
        let grown = after.map(|after| after.since(&before));
        for (share, what) in [(0.5, "P50"), (0.9, "P90"), (0.99, "P99")] {
            let measured = quantile(sorted, share);
            let server = grown.as_ref().and_then(|grown| grown.quantile(share));
            let verdict = grown
                .as_ref()
                .map_or(Verdict::Absent, |grown| compared(grown, share, measured, sorted));
            let (series, what) = (series.to_owned(), what.to_owned());
            self.lines.push(Line { series, what, measured, server, unit: Unit::Seconds, verdict });
        }
    }
}

/// Where the server's quantile lies beside the client's observations around it: between few values
/// far apart, any of them may be the quantile.
fn compared(grown: &Histogram, share: f64, measured: f64, sorted: &[f64]) -> Verdict {
    let Some(server) = grown.bucket_at(share) else { return Verdict::Mismatch };
    let below = sorted.iter().rev().find(|value| **value <= measured).copied();
    let above = sorted.iter().find(|value| **value >= measured).copied();
    let least = grown.bucket_of(below.unwrap_or(measured)).unwrap_or(usize::MAX);
    let most = grown.bucket_of(above.unwrap_or(measured)).unwrap_or(usize::MAX);
    let off = least.saturating_sub(server).max(server.saturating_sub(most));
    if off <= BUCKETS_OFF_MAX { Verdict::WithinABucket } else { Verdict::Mismatch }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(e2e: f64, tokens: u32) -> Sample {
        Sample {
            start: Duration::ZERO,
            e2e: Duration::from_secs_f64(e2e),
            ttft: Some(Duration::from_millis(50)),
            gaps: Vec::new(),
            prompt_tokens: 7,
            output_tokens: tokens,
            ended: Ended::Answered("stop".to_owned()),
        }
    }

    fn page(tokens: u32, slow: u32) -> Exposition {
        Exposition::read(&format!(
            "vllm:generation_tokens_total {tokens}\n\
             vllm:request_success_total{{finished_reason=\"stop\"}} {answers}\n\
             vllm:e2e_request_latency_seconds_bucket{{le=\"1\"}} {fast}\n\
             vllm:e2e_request_latency_seconds_bucket{{le=\"2\"}} {fast}\n\
             vllm:e2e_request_latency_seconds_bucket{{le=\"4\"}} {fast}\n\
             vllm:e2e_request_latency_seconds_bucket{{le=\"+Inf\"}} {answers}\n\
             vllm:e2e_request_latency_seconds_sum 1\nvllm:e2e_request_latency_seconds_count {answers}\n",
            answers = tokens / 5,
            fast = tokens / 5 - slow,
        ))
    }

    fn found(after: &Exposition, samples: &[Sample]) -> Reconciliation {
        Reconciliation::of("/v1/chat/completions", &page(0, 0), after, samples)
    }

    #[test]
    fn what_is_equal_is_no_mismatch() {
        let all = found(&page(10, 0), &[sample(0.9, 5), sample(1.1, 5)]);
        assert_eq!(all.mismatches(), 0, "{}", all.table());
        assert!(all.table().contains("absent"), "series that are not there are counted");
    }

    #[test]
    fn a_count_that_is_one_off_is_named() {
        let all = found(&page(10, 0), &[sample(0.9, 5), sample(1.1, 4)]);
        let table = all.table();
        assert!(
            table.contains(
                "vllm:generation_tokens_total (tokens of answers): measured 9, the server says 10"
            ),
            "{table}"
        );
    }

    #[test]
    fn a_quantile_two_buckets_off_is_named() {
        let all = found(&page(10, 2), &[sample(0.9, 5), sample(1.1, 5)]);
        assert!(all.table().contains("vllm:e2e_request_latency_seconds (P50)"), "{}", all.table());
    }

    #[test]
    fn the_server_may_have_worked_for_who_went_away() {
        let mut gone = sample(1.0, 0);
        gone.ended = Ended::Failed("no end in time".to_owned());
        let all = found(&page(15, 0), &[sample(0.9, 5), sample(1.1, 5), gone]);
        assert_eq!(all.mismatches(), 0, "{}", all.table());
        let samples = [sample(0.9, 50), sample(1.1, 5)];
        assert!(found(&page(15, 0), &samples).mismatches() > 0);
    }
}
