//! The demo's report: what was measured, the charts, and every check.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::bench::serve::{Reconciliation, reconciled_facts};
use crate::chart::{self, Chart, Line, Lines, Picture, Unit, escape};
use crate::config::DemoConfig;
use crate::demo::check::Check;
use crate::demo::watch::{ProcessSeen, Watched};
use crate::load::{Sample, Summary};

/// All of it.
#[derive(Debug)]
pub(super) struct Report {
    summary: Summary,
    charts: Vec<Chart>,
    reconciliation: Reconciliation,
    /// Whether each thing holds that must.
    pub(super) checks: Vec<Check>,
    about: String,
}

impl Report {
    pub(super) fn new(
        config: &DemoConfig,
        samples: &[Sample],
        watched: Watched,
        reconciliation: Reconciliation,
        mut checks: Vec<Check>,
    ) -> Self {
        let missed = watched.missed;
        let found = format!("{} readings, {missed} pages missed", watched.moments.len());
        checks.push(match missed {
            0 => Check::passed("every page could be read", found),
            _ => Check::failed("every page could be read", found),
        });
        let about = format!(
            "{}, {} workers of {} threads, waves of 1 to {} requests",
            config.model.reference.served_name(),
            config.world,
            config.threads,
            config.crest
        );
        let held = [
            held("Memory of each process", Unit::Bytes, &watched, |process| &process.memory),
            held("Handles of each process", Unit::Count, &watched, |process| &process.handles),
        ];
        let charts = watched.charts.into_iter().chain(held).collect();
        Self { summary: Summary::of(samples), charts, reconciliation, checks, about }
    }

    /// Names and values.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let all = &self.summary;
        let spread = |spread: Option<crate::load::Spread>| {
            spread.map_or_else(
                || "nothing was measured".to_owned(),
                |it| {
                    let [p50, p95, p99] = [it.p50, it.p95, it.p99].map(|it| Unit::Seconds.show(it));
                    format!("P50 {p50}, P95 {p95}, P99 {p99}")
                },
            )
        };
        vec![
            ("site", self.about.clone()),
            (
                "requests",
                format!(
                    "{} in {:.1} min, {} answered",
                    all.requests,
                    all.duration_seconds / 60.0,
                    all.answered
                ),
            ),
            (
                "tokens",
                format!(
                    "{} of prompts, {} of answers ({:.1}/s)",
                    all.prompt_tokens_total, all.output_tokens_total, all.output_tokens_per_second
                ),
            ),
            ("TTFT", spread(all.ttft_seconds)),
            ("TPOT", spread(all.tpot_seconds)),
            ("E2E", spread(all.e2e_seconds)),
        ]
    }

    /// For people at a terminal.
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        for (name, text) in self.facts() {
            writeln!(table, "{name:<10}{text}").expect("a string takes everything");
        }
        for Check { name, passed, found } in &self.checks {
            let verdict = if *passed { "ok    " } else { "FAILED" };
            writeln!(table, "{verdict}    {name}: {found}").expect("a string takes everything");
        }
        for line in self.reconciliation.table().lines().skip(1) {
            writeln!(table, "{line}").expect("a string takes everything");
        }
        table.trim_end().to_owned()
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        json!({
            "site": self.about,
            "summary": self.summary,
            "checks": self.checks,
            "reconciliation": self.reconciliation,
        })
    }

    /// For people in a browser.
    pub(super) fn page(&self) -> String {
        let mut facts = String::from("<div class=\"wide facts\"><table>");
        for (name, text) in self.facts() {
            let text = escape(&text);
            write!(facts, "<tr><th scope=\"row\">{name}</th><td>{text}</td></tr>")
                .expect("a string");
        }
        facts.push_str("</table></div>\n<div class=\"wide facts\"><table>");
        for Check { name, passed, found } in &self.checks {
            let (class, verdict) = if *passed { ("good", "ok") } else { ("bad", "FAILED") };
            write!(
                facts,
                "<tr><th scope=\"row\">{}</th><td class=\"{class}\">{verdict}</td><td>{}</td></tr>",
                escape(name),
                escape(found)
            )
            .expect("a string");
        }
        facts.push_str("</table></div>\n");
        facts.push_str(&reconciled_facts(&self.reconciliation));
        chart::page("arcmesh demo", &facts, &self.charts)
    }
}

/// What each process held over time.
fn held(
    title: &str,
    unit: Unit,
    watched: &Watched,
    of: impl Fn(&ProcessSeen) -> &Vec<f64>,
) -> Chart {
    let lines = watched.processes.iter().map(|process| Line {
        name: process.name.clone(),
        points: watched
            .moments
            .iter()
            .zip(of(process))
            .map(|(at, value)| (*at, Some(*value)))
            .collect(),
    });
    let picture = Picture::Lines(Lines { below: "s", unit, lines: lines.collect() });
    Chart { title: title.to_owned(), note: String::new(), picture }
}
