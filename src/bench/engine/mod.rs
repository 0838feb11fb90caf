//! `arcmesh bench engine`: how fast one rank in this process runs a model, beside the limit that
//! memory sets.
//!
//! The rank is asked as the coordinator asks it: prompts are cut into steps of a bounded number of
//! tokens, the last row of a prompt is sampled, then every sequence gets one token a step, the
//! likeliest. There is no HTTP, no scheduler and no second rank. With a prompt, the first generated
//! token comes from prefill and the others are decode; without one, all are decode.

mod measure;
mod report;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use checkpoint::Checkpoint;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::spawn_blocking;
use worker::collective::solo::SoloCollective;
use worker::shard::Shard;
use worker::{LoadOrder, Runner};

use crate::bench::engine::measure::{Bench, Run};
use crate::bench::engine::report::{Report, Setup};
use crate::config::{BenchConfig, BenchLoad, DeviceConfig, UsageError};
use crate::figures::Figures;
use crate::{models, ranks};

/// Measures, and shows what came of it.
pub(crate) async fn run(config: BenchConfig) -> anyhow::Result<()> {
    let BenchConfig { model, device, load, json } = config;
    let figures = Figures::to(json)?;
    let checkpoint = models::open(model).await?;
    let measured = spawn_blocking(move || measured(&checkpoint, &device, load));
    let report = measured.await.context("the measurement died")??;
    figures.say(&report, &report.table())
}

fn measured(
    checkpoint: &Arc<Checkpoint>,
    device: &DeviceConfig,
    load: BenchLoad,
) -> anyhow::Result<Report> {
    let order = order(checkpoint, load)?;
    let choice = ranks::config(checkpoint, device)?.backend;
    let threads = device.threads;
    let solo = Box::new(SoloCollective);
    let bar = bar(u64::from(load.runs) + 1);
    bar.set_message("loading");
    let begun = Instant::now();
    let runner = Runner::load(choice, threads, checkpoint, &order, solo, &mut |_, _| {})?;
    let setup = Setup::of(checkpoint, &runner, choice, begun.elapsed());
    let mut bench = Bench::new(runner, load, checkpoint.config().vocabulary);
    bar.set_message("warming up");
    bench.warm_up()?;
    bar.inc(1);
    let mut runs = Vec::new();
    for nth in 1..=load.runs {
        bar.set_message(format!("run {nth} of {}", load.runs));
        let run = bench.run()?;
        told(&bar, nth, &run);
        runs.push(run);
        bar.inc(1);
    }
    bar.finish_and_clear();
    // Its threads may stay on CPUs of theirs; those that measure the bandwidth are to be free.
    drop(bench);
    Ok(Report::new(setup, load, &runs)?)
}

/// A rank of its own with just the room it needs, once it is known that the model goes that far.
fn order(checkpoint: &Checkpoint, load: BenchLoad) -> Result<LoadOrder, UsageError> {
    let context = checkpoint.config().context;
    let (prompt, generate) = (load.prompt as usize, load.generate as usize);
    let length = prompt.saturating_add(generate);
    if length > context {
        return Err(UsageError::new(format!(
            "--prompt {prompt} and --generate {generate} make sequences of {length} tokens; the model's context is {context}"
        )));
    }
    let block_size = load.block_size as usize;
    let batch = load.batch as usize;
    Ok(LoadOrder {
        epoch: 1,
        shard: Shard::new(0, vec![1]).expect("rank 0 of 1"),
        block_size,
        kv_blocks: length.div_ceil(block_size).saturating_mul(batch),
        kv_cache_bytes: 0,
        kv_dtype: load.kv_dtype,
        swap_blocks: 0,
        swap_bytes: Some(0),
        model_len_max: length,
        step_tokens_max: load.step_tokens_max as usize,
        step_sequences_max: batch,
        ranks_here: 1,
        place_here: 0,
    })
}

/// Shown on a terminal only.
fn bar(steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}");
    let bar = ProgressBar::new(steps).with_style(style.expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Without a terminal, a line for each run.
fn told(bar: &ProgressBar, nth: u32, run: &Run) {
    if bar.is_hidden() {
        let (prefill, decode) = (run.prefill.as_secs_f64(), run.decode.as_secs_f64());
        tracing::info!(run = nth, prefill_seconds = prefill, decode_seconds = decode, "measured");
    }
}
