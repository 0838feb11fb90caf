//! The report as a page with charts.

use std::fmt::Write as _;

use crate::bench::serve::report::{Report, columns};
use crate::chart::{self, Bars, Chart, Heat, Line, Lines, Picture, Unit, escape};
use crate::load::{Ended, Sample, quantile};

/// Most moments that a chart over time has.
const MOMENTS_MAX: usize = 60;
/// Fewest.
const MOMENTS_MIN: usize = 8;
/// Bars of a histogram.
const BARS: u32 = 20;

/// Bounds of waits between pieces of text, seconds.
const WAITS: [f64; 9] = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28];

/// The page.
pub(super) fn page(report: &Report, samples: &[Sample]) -> String {
    let all: Vec<&Sample> = samples.iter().collect();
    let charts = [
        throughput(&all),
        under_way(&all),
        over_time("Time to first token over time", &all, |sample| {
            sample.ttft.map(|time| time.as_secs_f64())
        }),
        over_time("Time per output token over time", &all, |sample| {
            sample.tpot().map(|time| time.as_secs_f64())
        }),
        percentiles(
            "Time to first token and end to end",
            &[
                ("time to first token", sorted(&all, |it| it.ttft.map(|time| time.as_secs_f64()))),
                ("end to end", sorted(&all, |it| Some(it.e2e.as_secs_f64()))),
            ],
        ),
        percentiles(
            "Time between tokens",
            &[
                ("between pieces of text", gaps(&all)),
                (
                    "time per output token",
                    sorted(&all, |it| it.tpot().map(|time| time.as_secs_f64())),
                ),
            ],
        ),
        rhythm(&all),
        histogram(
            "Prompt length",
            "tokens, and how many requests",
            &sorted(&all, |it| Some(f64::from(it.prompt_tokens))),
        ),
        histogram(
            "Answer length",
            "tokens, and how many requests",
            &sorted(&all, |it| Some(f64::from(it.output_tokens))),
        ),
        endings(&all),
    ];
    chart::page("arcmesh bench serve", &facts(report), &charts)
}

fn facts(report: &Report) -> String {
    let mut facts = String::from("<div class=\"wide facts\"><table>");
    for (name, text) in report.facts() {
        let text = escape(&text);
        write!(facts, "<tr><th scope=\"row\">{name}</th><td>{text}</td></tr>").expect("a string");
    }
    facts.push_str("</table></div>\n<div class=\"wide\"><table><tr><td></td>");
    for name in ["mean", "P50", "P90", "P95", "P99", "max"] {
        write!(facts, "<th scope=\"col\">{name}</th>").expect("a string");
    }
    facts.push_str("</tr>");
    for (name, unit, spread) in report.spreads() {
        let Some(spread) = spread else { continue };
        write!(facts, "<tr><th scope=\"row\">{name}</th>").expect("a string");
        for value in columns(&spread) {
            write!(facts, "<td>{}</td>", unit.show(value)).expect("a string");
        }
        facts.push_str("</tr>");
    }
    facts.push_str("</table></div>\n");
    if let Some(found) = &report.reconciliation {
        facts.push_str(&reconciled(found));
    }
    facts
}

/// Both sides, figure by figure.
pub(crate) fn reconciled(found: &crate::bench::serve::Reconciliation) -> String {
    let wrong = found.mismatches();
    let (class, verdict) = if wrong == 0 {
        ("good", "The server's figures are what was measured.".to_owned())
    } else {
        ("bad", format!("{wrong} of the server's figures are not what was measured."))
    };
    let mut text = format!(
        "<p class=\"{class}\">{verdict}</p><details><summary>Figure by figure</summary>\
         <div class=\"wide\"><table><tr>"
    );
    for name in ["series", "what", "measured", "server", ""] {
        write!(text, "<th scope=\"col\">{name}</th>").expect("a string");
    }
    text.push_str("</tr>");
    for [series, what, measured, server, verdict] in found.rows() {
        write!(
            text,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{measured}</td><td>{server}</td><td>{verdict}</td></tr>",
            escape(&series),
            escape(&what)
        )
        .expect("a string");
    }
    text + "</table></div></details>\n"
}

fn lines(title: &str, note: &str, unit: Unit, below: &'static str, lines: Vec<Line>) -> Chart {
    let picture = Picture::Lines(Lines { below, unit, lines });
    Chart { title: title.to_owned(), note: note.to_owned(), picture }
}

/// Time, from the start to the last answer's end, in as many spans as there is something to see in.
struct Spans {
    end: f64,
    count: usize,
}

impl Spans {
    fn of(samples: &[&Sample]) -> Self {
        let ends = samples.iter().map(|sample| (sample.start + sample.e2e).as_secs_f64());
        let count = (samples.len() / 2).clamp(MOMENTS_MIN, MOMENTS_MAX);
        Self { end: ends.fold(0.001, f64::max), count }
    }

    fn width(&self) -> f64 {
        self.end / f64::from(u32::try_from(self.count).unwrap_or(1))
    }

    /// The middle of each.
    fn middles(&self) -> Vec<f64> {
        let places = (0..u32::try_from(self.count).unwrap_or(0)).map(f64::from);
        places.map(|nth| (nth + 0.5) * self.width()).collect()
    }

    /// In which a moment lies.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is an index")]
    fn at(&self, moment: f64) -> usize {
        ((moment / self.width()) as usize).min(self.count - 1)
    }
}

fn throughput(samples: &[&Sample]) -> Chart {
    let spans = Spans::of(samples);
    let mut prompt = vec![0.0; spans.count];
    let mut output = vec![0.0; spans.count];
    for sample in samples.iter().filter(|sample| sample.answered()) {
        let Some(ttft) = sample.ttft else { continue };
        let mut at = (sample.start + ttft).as_secs_f64();
        prompt[spans.at(at)] += f64::from(sample.prompt_tokens);
        let pieces = u32::try_from(sample.gaps.len()).unwrap_or(u32::MAX).saturating_add(1);
        let each = f64::from(sample.output_tokens) / f64::from(pieces);
        output[spans.at(at)] += each;
        for gap in &sample.gaps {
            at += gap.as_secs_f64();
            output[spans.at(at)] += each;
        }
    }
    let width = spans.width();
    let line = |name: &str, counts: Vec<f64>| Line {
        name: name.to_owned(),
        points: spans
            .middles()
            .into_iter()
            .zip(counts)
            .map(|(at, count)| (at, Some(count / width)))
            .collect(),
    };
    let note = "tokens a second: of prompts when their first token came, of answers as they came";
    let both = vec![line("prompt tokens", prompt), line("answer tokens", output)];
    lines("Throughput", note, Unit::PerSecond, "s", both)
}

fn under_way(samples: &[&Sample]) -> Chart {
    let count = |at: f64| {
        let there = samples.iter().filter(|sample| {
            let start = sample.start.as_secs_f64();
            start <= at && at < start + sample.e2e.as_secs_f64()
        });
        f64::from(u32::try_from(there.count()).unwrap_or(u32::MAX))
    };
    let points = Spans::of(samples).middles().into_iter().map(|at| (at, Some(count(at)))).collect();
    let name = "requests under way".to_owned();
    lines("Requests under way", "", Unit::Count, "s", vec![Line { name, points }])
}

/// P50, P95 and the worst of what began in each span of time.
fn over_time(title: &str, samples: &[&Sample], of: impl Fn(&Sample) -> Option<f64>) -> Chart {
    let spans = Spans::of(samples);
    let mut values = vec![Vec::new(); spans.count];
    for sample in samples.iter().filter(|sample| sample.answered()) {
        if let Some(value) = of(sample) {
            values[spans.at(sample.start.as_secs_f64())].push(value);
        }
    }
    values.iter_mut().for_each(|values| values.sort_by(f64::total_cmp));
    let line = |name: &str, share: f64| Line {
        name: name.to_owned(),
        points: spans
            .middles()
            .into_iter()
            .zip(&values)
            .map(|(at, values)| (at, (!values.is_empty()).then(|| quantile(values, share))))
            .collect(),
    };
    let all = vec![line("P50", 0.5), line("P95", 0.95), line("worst", 1.0)];
    lines(title, "of the requests sent at that time", Unit::Seconds, "s", all)
}

/// How many pieces of text came after which wait, over time.
fn rhythm(samples: &[&Sample]) -> Chart {
    let spans = Spans::of(samples);
    let mut counts = vec![vec![0.0; WAITS.len() + 1]; spans.count];
    for sample in samples.iter().filter(|sample| sample.answered()) {
        let mut at = (sample.start + sample.ttft.unwrap_or_default()).as_secs_f64();
        for gap in &sample.gaps {
            at += gap.as_secs_f64();
            let range = WAITS.iter().position(|bound| gap.as_secs_f64() <= *bound);
            counts[spans.at(at)][range.unwrap_or(WAITS.len())] += 1.0;
        }
    }
    let mut ranges: Vec<String> =
        WAITS.iter().map(|bound| format!("≤ {}", Unit::Seconds.show(*bound))).collect();
    ranges.push("more".to_owned());
    let picture = Picture::Heat(Heat { moments: spans.middles(), ranges, counts });
    let note = "waits between pieces of text; the stronger the colour, the more of them".to_owned();
    Chart { title: "Rhythm of the text".to_owned(), note, picture }
}

fn sorted(samples: &[&Sample], of: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
    let whole = samples.iter().filter(|sample| sample.answered());
    let mut values: Vec<f64> = whole.filter_map(|sample| of(sample)).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn gaps(samples: &[&Sample]) -> Vec<f64> {
    let whole = samples.iter().filter(|sample| sample.answered());
    let mut values: Vec<f64> =
        whole.flat_map(|sample| &sample.gaps).map(std::time::Duration::as_secs_f64).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The share of requests that had at most this.
fn percentiles(title: &str, of: &[(&str, Vec<f64>)]) -> Chart {
    let line = |(name, values): &(&str, Vec<f64>)| Line {
        name: (*name).to_owned(),
        points: (0..=100_u32)
            .map(f64::from)
            .map(|share| (share, (!values.is_empty()).then(|| quantile(values, share / 100.0))))
            .collect(),
    };
    let all = of.iter().map(line).collect();
    lines(title, "so many in a hundred took at most this long", Unit::Seconds, "%", all)
}

fn histogram(title: &str, note: &str, sorted: &[f64]) -> Chart {
    let mut bars = Vec::new();
    if let (Some(least), Some(most)) = (sorted.first(), sorted.last()) {
        let width = ((most - least + 1.0) / f64::from(BARS)).ceil().max(1.0);
        let mut from = *least;
        while from <= *most {
            let within = sorted.iter().filter(|value| (from..from + width).contains(*value));
            let count = f64::from(u32::try_from(within.count()).unwrap_or(u32::MAX));
            bars.push((Unit::Count.show(from), count));
            from += width;
        }
    }
    let picture = Picture::Bars(Bars { unit: Unit::Count, bars });
    Chart { title: title.to_owned(), note: note.to_owned(), picture }
}

fn endings(samples: &[&Sample]) -> Chart {
    let mut counts = std::collections::BTreeMap::new();
    for sample in samples {
        let name = match &sample.ended {
            Ended::Answered(reason) => reason.clone(),
            Ended::Status(status) => format!("status {status}"),
            Ended::Failed(_) => "failed".to_owned(),
        };
        *counts.entry(name).or_insert(0.0) += 1.0;
    }
    let picture = Picture::Bars(Bars { unit: Unit::Count, bars: counts.into_iter().collect() });
    let note = "finish reason of whole answers, and what became of the others".to_owned();
    Chart { title: "How requests ended".to_owned(), note, picture }
}
