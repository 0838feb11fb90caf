//! `arcmesh demo`: a whole site on this machine, under waves of requests for as long as wanted, and a
//! report of what came of it.
//!
//! Workers and coordinator are processes of their own, as in production. A Prometheus scrapes them if
//! one is installed. The demo reads the same pages itself, and draws from those; at the end it asks
//! whether Prometheus missed any. It fails where memory, handles or latency drift, where a figure is not
//! what the clients saw, and where a process does not end when it is told to.

mod check;
mod families;
mod machine;
mod process;
mod prometheus;
mod report;
mod site;
mod watch;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::spawn_blocking;

use crate::bench::serve::reconciled;
use crate::config::{DemoConfig, ServerConfig};
use crate::demo::check::Check;
use crate::demo::prometheus::Prometheus;
use crate::demo::report::Report;
use crate::demo::site::Site;
use crate::demo::watch::Watch;
use crate::exposition::Exposition;
use crate::load::{Load, Progress, PromptSource, Sample, Target};
use crate::{models, shutdown, terminal};

/// Runs it, from the first process to the report. Fails where any check does.
pub(crate) async fn run(config: DemoConfig) -> anyhow::Result<()> {
    let stop = shutdown::token()?;
    let folder = config.folder.clone();
    fs::create_dir_all(&folder)
        .with_context(|| format!("--folder: cannot make {}", folder.display()))?;
    // Fetched once, not by each process.
    let checkpoint = models::open(config.model.clone()).await?;
    let model = checkpoint.path().to_path_buf();
    drop(checkpoint);
    let name = config.model.reference.served_name();
    let (world, threads, kv_blocks) = (config.world, config.threads, config.kv_blocks);
    terminal::say(&format!(
        "{world} workers of {threads} threads and a coordinator, waves of up to {} requests for {} minutes",
        config.crest,
        config.duration.as_secs_f64() / 60.0
    ))?;
    let starting = folder.clone();
    let site = spawn_blocking(move || {
        Site::start(&starting, (&model, &name), (world, threads, kv_blocks))
    })
    .await??;
    let prometheus = Prometheus::start(&folder, &site, config.duration).await?;
    terminal::say(&match &prometheus {
        Some(running) => format!("Prometheus scrapes them: {}", running.url()),
        None => "Prometheus is not installed: the demo reads the figures by itself".to_owned(),
    })?;
    terminal::say(&format!("watch it at {}/", site.url()))?;
    let ran = load(&config, &site, prometheus.as_ref(), stop).await;
    let mut checks = spawn_blocking(move || site.end()).await?;
    if let Some(prometheus) = prometheus {
        checks.extend(spawn_blocking(move || prometheus.end()).await?);
    }
    let mut report = ran?;
    report.checks.append(&mut checks);
    written(&config, &report)
}

/// The load and what is watched meanwhile.
async fn load(
    config: &DemoConfig,
    site: &Site,
    prometheus: Option<&Prometheus>,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<Report> {
    let server = ServerConfig {
        url: site.url().to_owned(),
        model: None,
        api_key: None,
        endpoint: crate::config::Endpoint::Chat,
    };
    let target = Target::new(&server, &config.asked, config.load.timeout).await?;
    let words = target.word_length(&config.asked.prompts).await?;
    let prompts = Arc::new(PromptSource::new(&config.asked, config.load.seed, words)?);
    let before = Exposition::read(&target.origin.page("/metrics").await?);
    let watch = Watch::start(site, config.duration)?;
    let mut samples: Vec<Sample> = Vec::new();
    let running = Load { target: target.clone(), prompts, config: config.load };
    let every = (config.duration / 20).max(Duration::from_secs(10));
    let mut told = every;
    running
        .run(Arc::new(Progress::default()), stop.clone(), |sample| {
            let at = sample.start + sample.e2e;
            samples.push(sample);
            if at >= told {
                told = at + every;
                progress(&samples, at);
            }
        })
        .await;
    let watched = watch.end().await;
    let mut checks = Check::of_drift(&samples, &watched, config);
    let reconciliation = reconciled(&target, &before, &samples).await?;
    checks.push(Check::of_figures(&reconciliation));
    if let Some(prometheus) = prometheus {
        checks.extend(prometheus.checks(&target).await?);
    }
    if stop.is_cancelled() {
        checks.push(Check::failed("length", "the demo was ended early".to_owned()));
    }
    Ok(Report::new(config, &samples, watched, reconciliation, checks))
}

/// A line for whoever looks now and then.
fn progress(samples: &[Sample], at: Duration) {
    let answered = samples.iter().filter(|sample| sample.answered()).count();
    let minutes = at.as_secs_f64() / 60.0;
    // Nobody who listens any more is no reason to stop.
    drop(terminal::say(&format!(
        "{minutes:.1} min: {answered} requests answered, {} not",
        samples.len() - answered
    )));
}

/// Writes the report and says what came of it.
fn written(config: &DemoConfig, report: &Report) -> anyhow::Result<()> {
    let page = config.folder.join("report.html");
    let json = config.folder.join("report.json");
    fs::write(&page, report.page())
        .and_then(|()| fs::write(&json, serde_json::to_string_pretty(&report.json())?))
        .with_context(|| format!("--folder: cannot write to {}", config.folder.display()))?;
    terminal::say(&report.table())?;
    terminal::say(&format!("report: {}", page.display()))?;
    let failed = report.checks.iter().filter(|check| !check.passed).count();
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}
