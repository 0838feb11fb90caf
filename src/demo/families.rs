//! The twelve families of figures over time, and what the ranks did with theirs.

use std::collections::VecDeque;

use crate::chart::{Chart, Heat, Line, Lines, Picture, Unit};
use crate::exposition::{Exposition, Histogram};

/// Seconds that quantiles, means and rates look back.
const LOOK_BACK: f64 = 30.0;
/// Columns of a heat map.
const COLUMNS_MAX: usize = 60;
/// Quantiles of times, and their names.
const QUANTILES: [(f64, &str); 4] = [(0.5, "P50"), (0.9, "P90"), (0.95, "P95"), (0.99, "P99")];

/// What is drawn of a family.
#[derive(Debug, Clone)]
enum Kind {
    /// Quantiles and mean of a histogram.
    Quantiles(&'static str),
    /// Growth a second of counters.
    Rates(Vec<Counted>),
    /// Values as they are: name, series.
    Gauges(Unit, &'static [(&'static str, &'static str)]),
    /// Means of histograms: name, series.
    Means(Unit, &'static [(&'static str, &'static str)]),
    /// Growth of a histogram's buckets.
    Buckets(&'static str),
}

/// A counter, or those of its series that have some labels.
#[derive(Debug, Clone)]
struct Counted {
    name: String,
    series: &'static str,
    labels: Vec<(&'static str, String)>,
}

/// A family, and its values so far.
#[derive(Debug)]
struct Family {
    title: &'static str,
    kind: Kind,
    /// When, and a value for each line.
    rows: Vec<(f64, Vec<Option<f64>>)>,
    /// When, and the histogram as it stood.
    buckets: Vec<(f64, Histogram)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Families {
    families: Vec<Family>,
    /// Pages of the last half minute.
    kept: VecDeque<(f64, Exposition)>,
}

const QUEUES: &[(&str, &str)] = &[
    ("running", "vllm:num_requests_running"),
    ("waiting", "vllm:num_requests_waiting"),
    ("swapped", "vllm:num_requests_swapped"),
];
const CACHES: &[(&str, &str)] =
    &[("device blocks", "vllm:gpu_cache_usage_perc"), ("host blocks", "vllm:cpu_cache_usage_perc")];
const PHASES: &[(&str, &str)] = &[
    ("prefill", "vllm:request_prefill_time_seconds"),
    ("decode", "vllm:request_decode_time_seconds"),
];

impl Families {
    /// Of a site of so many ranks.
    pub(super) fn new(world: usize) -> Self {
        let rate =
            |name: &str, series| Counted { name: name.to_owned(), series, labels: Vec::new() };
        let reason = |reason: &str| {
            let labels = vec![("finished_reason", reason.to_owned())];
            Counted { name: reason.to_owned(), series: "vllm:request_success_total", labels }
        };
        let part = |rank: usize, part: &str| {
            let labels = vec![("rank", rank.to_string()), ("part", part.to_owned())];
            let name = format!("rank {rank}");
            Counted { name, series: "arcmesh_rank_step_seconds_total", labels }
        };
        let tokens = vec![
            rate("prompt tokens", "vllm:prompt_tokens_total"),
            rate("answer tokens", "vllm:generation_tokens_total"),
        ];
        let mut families = vec![
            ("End-to-end latency", Kind::Quantiles("vllm:e2e_request_latency_seconds")),
            ("Token throughput", Kind::Rates(tokens)),
            ("Time per output token", Kind::Quantiles("vllm:time_per_output_token_seconds")),
            ("Scheduler state", Kind::Gauges(Unit::Count, QUEUES)),
            ("Time to first token", Kind::Quantiles("vllm:time_to_first_token_seconds")),
            ("Cache utilisation", Kind::Gauges(Unit::Share, CACHES)),
            ("Prompt length, tokens", Kind::Buckets("vllm:request_prompt_tokens")),
            ("Answer length, tokens", Kind::Buckets("vllm:request_generation_tokens")),
            (
                "Finish reason",
                Kind::Rates(["stop", "length", "abort", "error"].map(reason).to_vec()),
            ),
            (
                "Time in the queue, mean",
                Kind::Means(Unit::Seconds, &[("queue", "vllm:request_queue_time_seconds")]),
            ),
            ("Prefill and decode time, mean", Kind::Means(Unit::Seconds, PHASES)),
            (
                "Longest answer of a request, mean",
                Kind::Means(Unit::Count, &[("tokens", "vllm:request_max_num_generation_tokens")]),
            ),
        ];
        for (title, name) in [
            ("Ranks: seconds of computing in a second", "compute"),
            ("Ranks: seconds of moving sums in a second", "transfer"),
            ("Ranks: seconds of waiting for a peer in a second", "wait"),
        ] {
            let lines = (0..world).map(|rank| part(rank, name)).collect();
            families.push((title, Kind::Rates(lines)));
        }
        let family = |(title, kind)| Family { title, kind, rows: Vec::new(), buckets: Vec::new() };
        Self { families: families.into_iter().map(family).collect(), kept: VecDeque::new() }
    }

    /// Takes in the pages of a moment.
    pub(super) fn take(&mut self, at: f64, now: Exposition) {
        while self.kept.len() > 1 && at - self.kept[1].0 >= LOOK_BACK {
            self.kept.pop_front();
        }
        if let Some((then, before)) = self.kept.front() {
            for family in &mut self.families {
                family.take(at, at - then, before, &now);
            }
        }
        self.kept.push_back((at, now));
    }

    /// What came of it, in order.
    pub(super) fn charts(self) -> Vec<Chart> {
        self.families.into_iter().map(Family::chart).collect()
    }
}

impl Family {
    fn take(&mut self, at: f64, span: f64, before: &Exposition, now: &Exposition) {
        let grown = |name: &str| {
            let earlier = before.histogram(name).unwrap_or_default();
            now.histogram(name).map(|histogram| histogram.since(&earlier))
        };
        let values = match &self.kind {
            Kind::Quantiles(name) => {
                let grown = grown(name).unwrap_or_default();
                let quantiles = QUANTILES.iter().map(|(share, _)| grown.quantile(*share));
                quantiles.chain([grown.mean()]).collect()
            }
            Kind::Rates(series) => series
                .iter()
                .map(|counted| {
                    let name = counted.series;
                    let labels: Vec<(&str, &str)> =
                        counted.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
                    let earlier = before.total(name, &labels).unwrap_or(0.0);
                    now.total(name, &labels).map(|total| (total - earlier) / span)
                })
                .collect(),
            Kind::Gauges(_, series) => {
                series.iter().map(|(_, name)| now.total(name, &[])).collect()
            }
            Kind::Means(_, series) => {
                series.iter().map(|(_, name)| grown(name).and_then(|it| it.mean())).collect()
            }
            Kind::Buckets(name) => {
                if let Some(histogram) = now.histogram(name) {
                    self.buckets.push((at, histogram));
                }
                return;
            }
        };
        self.rows.push((at, values));
    }

    fn names(&self) -> Vec<String> {
        match &self.kind {
            Kind::Quantiles(_) => {
                let names = QUANTILES.iter().map(|(_, name)| *name).chain(["mean"]);
                names.map(str::to_owned).collect()
            }
            Kind::Rates(series) => series.iter().map(|it| it.name.clone()).collect(),
            Kind::Gauges(_, series) | Kind::Means(_, series) => {
                series.iter().map(|it| it.0.to_owned()).collect()
            }
            Kind::Buckets(_) => Vec::new(),
        }
    }

    fn chart(self) -> Chart {
        let unit = match &self.kind {
            Kind::Quantiles(_) => Unit::Seconds,
            Kind::Rates(_) => Unit::PerSecond,
            Kind::Gauges(unit, _) | Kind::Means(unit, _) => *unit,
            Kind::Buckets(_) => return self.heat(),
        };
        let lines = self.names().into_iter().enumerate().map(|(nth, name)| Line {
            name,
            points: self.rows.iter().map(|(at, values)| (*at, values[nth])).collect(),
        });
        let picture = Picture::Lines(Lines { below: "s", unit, lines: lines.collect() });
        Chart { title: self.title.to_owned(), note: String::new(), picture }
    }

    /// How many observations fell into each bucket, in as many columns as fit.
    fn heat(self) -> Chart {
        let stride = self.buckets.len().div_ceil(COLUMNS_MAX).max(1);
        let mut heat = Heat { moments: Vec::new(), ranges: Vec::new(), counts: Vec::new() };
        let columns: Vec<&(f64, Histogram)> = self.buckets.iter().step_by(stride).collect();
        let all: Vec<(f64, Histogram)> =
            columns.windows(2).map(|pair| (pair[1].0, pair[1].1.since(&pair[0].1))).collect();
        let rows = all.last().map_or(0, |(_, histogram)| histogram.buckets.len());
        let within = |histogram: &Histogram, row: usize| {
            let below = row.checked_sub(1).map_or(0.0, |below| histogram.buckets[below].1);
            histogram.buckets[row].1 - below
        };
        // Only ranges between the least and the greatest that was seen.
        let used: Vec<usize> =
            (0..rows).filter(|row| all.iter().any(|(_, it)| within(it, *row) > 0.0)).collect();
        if let (Some(first), Some(last), Some((_, any))) = (used.first(), used.last(), all.last()) {
            for row in *first..=*last {
                let bound = any.buckets[row].0;
                heat.ranges.push(if bound.is_finite() {
                    format!("≤ {bound}")
                } else {
                    "more".to_owned()
                });
            }
            for (at, histogram) in &all {
                heat.moments.push(*at);
                heat.counts.push((*first..=*last).map(|row| within(histogram, row)).collect());
            }
        }
        let note = "the stronger the colour, the more requests".to_owned();
        Chart { title: self.title.to_owned(), note, picture: Picture::Heat(heat) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(tokens: u32, requests: u32) -> Exposition {
        Exposition::read(&format!(
            "vllm:generation_tokens_total {tokens}\nvllm:num_requests_running 3\n\
             vllm:request_prompt_tokens_bucket{{le=\"10\"}} 0\n\
             vllm:request_prompt_tokens_bucket{{le=\"20\"}} {requests}\n\
             vllm:request_prompt_tokens_bucket{{le=\"+Inf\"}} {requests}\n\
             vllm:request_prompt_tokens_sum {requests}\nvllm:request_prompt_tokens_count {requests}\n"
        ))
    }

    #[test]
    fn charts_are_of_what_grew() {
        let mut families = Families::new(2);
        for at in 0..40_u32 {
            families.take(at.into(), page(at * 5, at));
        }
        let charts = families.charts();
        assert_eq!(charts.len(), 15);
        let Picture::Lines(throughput) = &charts[1].picture else { panic!("lines") };
        assert!(throughput.lines[0].points.iter().all(|point| point.1.is_none()), "no such series");
        assert!(throughput.lines[1].points.iter().all(|point| point.1 == Some(5.0)));
        let Picture::Lines(queues) = &charts[3].picture else { panic!("lines") };
        assert_eq!(queues.lines[0].points[0].1, Some(3.0));
        let Picture::Heat(heat) = &charts[6].picture else { panic!("a heat map") };
        assert_eq!(heat.ranges, ["≤ 20"]);
        assert!(heat.counts.iter().all(|counts| *counts == [1.0]));
    }
}
