//! The figures, as a table for people and as JSON for scripts.

use std::fmt::Write as _;

use serde::Serialize;

use crate::bench::serve::reconcile::Reconciliation;
use crate::chart::Unit;
use crate::config::{LoadConfig, Shape};
use crate::load::{Sample, Spread, Summary};

/// What was measured, and how. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    url: String,
    model: String,
    /// `concurrency 8`, `rate 2/s`, `wave of 8 in 60 s`
    load: String,
    seed: u64,
    /// Requests of `--rate` that had to wait since too many were under way.
    held_back: u64,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// What the server says, beside what was measured.
    pub(crate) reconciliation: Option<Reconciliation>,
}

impl Report {
    pub(crate) fn new(
        url: &str,
        model: &str,
        load: &LoadConfig,
        samples: &[Sample],
        held_back: u64,
    ) -> Self {
        Self {
            url: url.to_owned(),
            model: model.to_owned(),
            load: shape(load.shape),
            seed: load.seed,
            held_back,
            summary: Summary::of(samples),
            reconciliation: None,
        }
    }

    /// Names and values, in order.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let all = &self.summary;
        let mut facts = vec![
            ("server", format!("{}, model {}", self.url, self.model)),
            ("load", format!("{}, seed {}", self.load, self.seed)),
            (
                "requests",
                format!(
                    "{}, {} answered in {:.1} s: {:.2}/s",
                    all.requests, all.answered, all.duration_seconds, all.answers_per_second
                ),
            ),
            (
                "tokens",
                format!(
                    "{} of prompts ({:.1}/s), {} of answers ({:.1}/s)",
                    all.prompt_tokens_total,
                    all.prompt_tokens_per_second,
                    all.output_tokens_total,
                    all.output_tokens_per_second
                ),
            ),
        ];
        if !all.finish_reasons.is_empty() {
            let reasons = all.finish_reasons.iter().map(|(name, count)| format!("{name} {count}"));
            facts.push(("ended by", reasons.collect::<Vec<_>>().join(", ")));
        }
        for (why, count) in &all.errors {
            facts.push(("failed", format!("{count}: {why}")));
        }
        if self.held_back > 0 {
            facts.push(("held back", format!("{} (see --concurrency)", self.held_back)));
        }
        facts
    }

    /// Names and spreads, in order.
    pub(crate) fn spreads(&self) -> [(&'static str, Unit, Option<Spread>); 6] {
        let all = &self.summary;
        [
            ("TTFT", Unit::Seconds, all.ttft_seconds),
            ("TPOT", Unit::Seconds, all.tpot_seconds),
            ("ITL", Unit::Seconds, all.itl_seconds),
            ("E2E", Unit::Seconds, all.e2e_seconds),
            ("prompt tokens", Unit::Count, all.prompt_tokens),
            ("answer tokens", Unit::Count, all.output_tokens),
        ]
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        for (name, text) in self.facts() {
            writeln!(table, "{name:<14}{text}").expect("a string takes everything");
        }
        let head = ["mean", "P50", "P90", "P95", "P99", "max"].map(|name| format!("{name:>10}"));
        writeln!(table, "\n{:<14}{}", "", head.concat()).expect("a string takes everything");
        for (name, unit, spread) in self.spreads() {
            let Some(spread) = spread else { continue };
            let values = columns(&spread).map(|value| format!("{:>10}", unit.show(value)));
            writeln!(table, "{name:<14}{}", values.concat()).expect("a string takes everything");
        }
        if let Some(found) = &self.reconciliation {
            write!(table, "\n{}", found.table()).expect("a string takes everything");
        }
        table.trim_end().to_owned()
    }
}

/// As the table has them.
pub(super) fn columns(spread: &Spread) -> [f64; 6] {
    let Spread { mean, p50, p90, p95, p99, max, .. } = *spread;
    [mean, p50, p90, p95, p99, max]
}

fn shape(shape: Shape) -> String {
    match shape {
        Shape::Steady { concurrency } => format!("{concurrency} requests at once"),
        Shape::Poisson { rate, .. } => format!("{rate} requests a second at random"),
        Shape::Wave { crest, period } => {
            format!("waves of 1 to {crest} requests at once, {} s each", period.as_secs_f64())
        }
    }
}
