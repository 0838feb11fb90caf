//! `arcmesh bench serve`: load on a server with an OpenAI API, what its clients saw, and whether the
//! server's own figures say the same.

mod html;
mod reconcile;
mod report;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::serve::report::Report;
use crate::config::{BenchServeConfig, LoadConfig};
use crate::exposition::Exposition;
use crate::figures::{Figures, create};
use crate::load::{Load, Progress, PromptSource, Sample, Target};
use crate::shutdown;

pub(crate) use html::reconciled as reconciled_facts;
pub(crate) use reconcile::Reconciliation;

/// How often the server's figures are read until they say what was measured: the end of an answer is
/// counted a moment after its client saw it.
const READS_MAX: u32 = 20;
/// Between two readings.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Measures, and shows what came of it. Fails where nothing was answered, or where the server's
/// figures are compared and say something else.
pub(crate) async fn run(config: BenchServeConfig) -> anyhow::Result<()> {
    let BenchServeConfig { server, load, asked, json, html, reconcile } = config;
    let stop = shutdown::token()?;
    let output = Figures::to(json)?;
    let html_file = html.as_deref().map(|path| create(path, "--html")).transpose()?;
    let target = Target::new(&server, &asked, load.timeout).await?;
    let words = target.word_length(&asked.prompts).await?;
    let prompts = Arc::new(PromptSource::new(&asked, load.seed, words)?);
    let before = if reconcile { Some(figures(&target).await?) } else { None };
    let model = target.model.clone();
    let running = Load { target: target.clone(), prompts, config: load };
    let (samples, held_back) = collect(running, stop).await;
    let mut report = Report::new(&server.url, &model, &load, &samples, held_back);
    if let Some(before) = before {
        report.reconciliation = Some(reconciled(&target, &before, &samples).await?);
    }
    output.say(&report, &report.table())?;
    if let Some(mut file) = html_file {
        let page = html::page(&report, &samples);
        file.write_all(page.as_bytes()).context("--html: the file cannot be written")?;
    }
    judged(&report)
}

/// Whether what was measured is a success.
fn judged(report: &Report) -> anyhow::Result<()> {
    if report.summary.answered == 0 {
        bail!("no request was answered");
    }
    match report.reconciliation.as_ref().map_or(0, Reconciliation::mismatches) {
        0 => Ok(()),
        wrong => bail!("{wrong} of the server's figures are not what was measured"),
    }
}

/// What the server says of itself.
async fn figures(target: &Target) -> anyhow::Result<Exposition> {
    let page = target.origin.page("/metrics").await.context("--reconcile")?;
    Ok(Exposition::read(&page))
}

/// Compares, again and again until all is equal or the time is up.
pub(crate) async fn reconciled(
    target: &Target,
    before: &Exposition,
    samples: &[Sample],
) -> anyhow::Result<Reconciliation> {
    let mut reads = 0;
    loop {
        let after = figures(target).await?;
        let found = Reconciliation::of(target.path(), before, &after, samples);
        reads += 1;
        if found.mismatches() == 0 || reads == READS_MAX {
            return Ok(found);
        }
        tokio::time::sleep(READ_PAUSE).await;
    }
}

/// Runs the load, and shows how far it is. The samples, and how many requests were held back.
async fn collect(load: Load, stop: tokio_util::sync::CancellationToken) -> (Vec<Sample>, u64) {
    let bar = bar(&load.config);
    let progress = Arc::new(Progress::default());
    let mut samples = Vec::new();
    let mut failed = 0_u64;
    let ticking = tokio::spawn({
        let (bar, progress) = (bar.clone(), Arc::clone(&progress));
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(250)).await;
                bar.set_prefix(progress.in_flight.load(Ordering::Relaxed).to_string());
                if bar.length().is_none() {
                    bar.tick();
                }
            }
        }
    });
    load.run(Arc::clone(&progress), stop, |sample| {
        failed += u64::from(!sample.answered());
        bar.inc(1);
        if failed > 0 {
            bar.set_message(format!("{failed} failed"));
        }
        samples.push(sample);
    })
    .await;
    ticking.abort();
    bar.finish_and_clear();
    (samples, progress.held_back.load(Ordering::Relaxed))
}

/// Shown on a terminal only.
fn bar(config: &LoadConfig) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match config.requests_max {
        Some(requests) => {
            (ProgressBar::new(requests), "{pos}/{len} {wide_bar} {prefix} under way {msg} {eta}")
        }
        None => (ProgressBar::no_length(), "{pos} ended, {prefix} under way {msg} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}
