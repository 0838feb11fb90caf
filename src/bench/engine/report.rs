//! What was measured, as figures: medians over the runs, beside the limit that memory sets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use checkpoint::{Checkpoint, LayerKind, LayerTensor, ModelConfig, TensorName};
use proto::worker::KvDtype;
use serde::Serialize;
use worker::backend::BackendError;
use worker::backend::cpu::{Path, read_bandwidth};
use worker::telemetry::{resident_bytes, resident_peak_bytes};
use worker::{BackendChoice, Runner};

use crate::bench::engine::measure::Run;
use crate::config::BenchLoad;
use crate::load::median;

/// Every matrix of a layer.
const MATRICES: [LayerTensor; 7] = [
    LayerTensor::Query,
    LayerTensor::Key,
    LayerTensor::Value,
    LayerTensor::AttentionOutput,
    LayerTensor::Gate,
    LayerTensor::Up,
    LayerTensor::Down,
];

/// What runs, and what it holds before the first step. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setup {
    /// The model's file or folder.
    model: String,
    /// How most of the weights are stored.
    file_kind: String,
    /// What computes: `cpu` or `candle`.
    backend: &'static str,
    /// As the processor calls itself.
    device: String,
    /// Instructions that the cpu backend computes with.
    instructions: Option<String>,
    /// Compute threads.
    threads: usize,
    /// Packing the weights and reserving the cache; the file was open.
    load_seconds: f64,
    /// Resident after loading.
    rss_bytes: Option<u64>,
    /// Weights that a step reads, as they are in the file.
    weight_bytes: u64,
    /// Reserved for KV blocks.
    kv_cache_bytes: u64,
    #[serde(skip)]
    kv_blocks: u64,
    #[serde(skip)]
    config: ModelConfig,
}

/// The figures. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    setup: Setup,
    prompt_tokens: u32,
    generate_tokens: u32,
    /// Sequences at once.
    batch: u32,
    runs: u32,
    /// Most tokens of a step: prompts are cut into such chunks.
    chunk_tokens: u32,
    /// Tokens of a KV block.
    block_size: u32,
    /// What keys and values are kept as.
    kv_cache_dtype: &'static str,
    /// Most that was ever resident.
    rss_peak_bytes: Option<u64>,
    /// Of the median sequence, the median run.
    time_to_first_token_seconds: Option<f64>,
    /// Prompt tokens of all sequences ÷ time.
    prefill_tokens_per_second: Option<f64>,
    prefill_tokens_per_second_of_runs: Vec<f64>,
    /// Tokens that steps of decode gave ÷ time.
    decode_tokens_per_second: Option<f64>,
    decode_tokens_per_second_of_runs: Vec<f64>,
    /// Generated tokens of all sequences ÷ time of prefill and decode.
    output_tokens_per_second: Option<f64>,
    output_tokens_per_second_of_runs: Vec<f64>,
    /// Weights and KV that a step of decode reads, on average over the steps.
    bytes_read_per_step: Option<f64>,
    /// The same ÷ batch.
    bytes_read_per_token: Option<f64>,
    /// What decode reads a second.
    decode_bytes_per_second: Option<f64>,
    /// What as many threads read a second from a buffer as large as the weights, in huge pages.
    read_bandwidth_bytes_per_second: f64,
    /// What decode reads ÷ what can be read.
    bandwidth_ratio: Option<f64>,
}

impl Setup {
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        runner: &Runner,
        choice: BackendChoice,
        loading: Duration,
    ) -> Self {
        let (capabilities, loaded) = (runner.capabilities(), runner.loaded());
        let instructions = match choice {
            BackendChoice::Cpu => Some(format!("{:?}", Path::best())),
            BackendChoice::Candle | BackendChoice::OpenCl(_) => None,
        };
        Self {
            model: checkpoint.path().display().to_string(),
            file_kind: file_kind(checkpoint),
            backend: capabilities.backend,
            device: capabilities.device,
            instructions,
            threads: capabilities.threads,
            load_seconds: loading.as_secs_f64(),
            rss_bytes: resident_bytes(),
            weight_bytes: loaded.weight_bytes,
            kv_cache_bytes: loaded.kv_cache_bytes,
            kv_blocks: loaded.kv_blocks as u64,
            config: checkpoint.config().clone(),
        }
    }

    /// Bytes a second that memory gives to as many threads, from as much memory as the weights take.
    fn read_bandwidth(&self) -> Result<f64, BackendError> {
        let bytes = usize::try_from(self.weight_bytes).unwrap_or(usize::MAX);
        read_bandwidth(self.threads, bytes)
    }

    /// What a step of decode reads, on average over the steps that follow a prompt.
    fn step_bytes(&self, load: BenchLoad, steps: u32) -> f64 {
        let layers = self.config.layers.len() as f64;
        let slots = self.kv_blocks as f64 * f64::from(load.block_size);
        let token_bytes = self.kv_cache_bytes as f64 / slots / layers; // of one layer
        let seen = |kind: &LayerKind, position: u32| match kind {
            LayerKind::Full => u64::from(position) + 1,
            LayerKind::Sliding { window } => (u64::from(position) + 1).min(*window as u64),
        };
        let positions = load.prompt..load.prompt + steps;
        let all: u64 = positions
            .map(|position| self.config.layers.iter().map(|kind| seen(kind, position)).sum::<u64>())
            .sum();
        let kv = token_bytes * all as f64 / f64::from(steps.max(1)) * f64::from(load.batch);
        self.weight_bytes as f64 + kv
    }
}

impl Report {
    /// Measures the limit as well, last of all: what that takes counts for nothing else.
    pub(crate) fn new(setup: Setup, load: BenchLoad, runs: &[Run]) -> Result<Self, BackendError> {
        let rss_peak_bytes = resident_peak_bytes();
        let bandwidth = setup.read_bandwidth()?;
        let batch = f64::from(load.batch);
        let steps = runs.first().map_or(0, |run| run.decode_steps);
        let prefill = rates(runs, batch * f64::from(load.prompt), |run| run.prefill);
        let decode = rates(runs, batch * f64::from(steps), |run| run.decode);
        let output = match (load.prompt, load.generate) {
            (0, _) | (_, 0) => Vec::new(),
            (_, generate) => {
                rates(runs, batch * f64::from(generate), |run| run.prefill + run.decode)
            }
        };
        let first = runs.iter().filter_map(|run| {
            median(&run.first_tokens.iter().map(Duration::as_secs_f64).collect::<Vec<_>>())
        });
        let decoded = median(&decode);
        let step_bytes = decoded.map(|_| setup.step_bytes(load, steps));
        let bytes = decoded.zip(step_bytes).map(|(rate, bytes)| rate / batch * bytes);
        Ok(Self {
            rss_peak_bytes,
            prompt_tokens: load.prompt,
            generate_tokens: load.generate,
            batch: load.batch,
            runs: load.runs,
            chunk_tokens: load.step_tokens_max,
            block_size: load.block_size,
            kv_cache_dtype: match load.kv_dtype {
                KvDtype::F16 => "f16",
                KvDtype::Q8 => "q8_0",
            },
            time_to_first_token_seconds: median(&first.collect::<Vec<_>>()),
            prefill_tokens_per_second: median(&prefill),
            prefill_tokens_per_second_of_runs: prefill,
            decode_tokens_per_second: decoded,
            decode_tokens_per_second_of_runs: decode,
            output_tokens_per_second: median(&output),
            output_tokens_per_second_of_runs: output,
            bytes_read_per_step: step_bytes,
            bytes_read_per_token: step_bytes.map(|bytes| bytes / batch),
            decode_bytes_per_second: bytes,
            read_bandwidth_bytes_per_second: bandwidth,
            bandwidth_ratio: bytes.map(|bytes| bytes / bandwidth),
            setup,
        })
    }

    /// For people: a line a figure.
    pub(crate) fn table(&self) -> String {
        let setup = &self.setup;
        let instructions = setup.instructions.as_deref().unwrap_or("as compiled");
        let mut lines = vec![
            ("model", format!("{} ({})", setup.model, setup.file_kind)),
            ("device", format!("{}, {}: {instructions}", setup.device, setup.backend)),
            ("threads", setup.threads.to_string()),
            (
                "sequences",
                format!(
                    "{} of {} + {} tokens",
                    self.batch, self.prompt_tokens, self.generate_tokens
                ),
            ),
            ("steps", format!("of at most {} tokens", self.chunk_tokens)),
            ("load", format!("{:.0} ms", setup.load_seconds * 1e3)),
            ("weights", megabytes(setup.weight_bytes)),
            ("KV cache", megabytes(setup.kv_cache_bytes)),
        ];
        if let Some((now, peak)) = setup.rss_bytes.zip(self.rss_peak_bytes) {
            let text = format!("{} after loading, {} at most", megabytes(now), megabytes(peak));
            lines.push(("resident", text));
        }
        if let Some(seconds) = self.time_to_first_token_seconds {
            lines.push(("first token", format!("{:.1} ms", seconds * 1e3)));
        }
        for (name, rate, of_runs) in [
            ("prefill", self.prefill_tokens_per_second, &self.prefill_tokens_per_second_of_runs),
            ("decode", self.decode_tokens_per_second, &self.decode_tokens_per_second_of_runs),
            ("output", self.output_tokens_per_second, &self.output_tokens_per_second_of_runs),
        ] {
            if let Some(rate) = rate {
                lines.push((name, format!("{rate:.1} tokens/s ({})", range(of_runs))));
            }
        }
        let limit = self.read_bandwidth_bytes_per_second / 1e9;
        lines.push(("memory", format!("{limit:.1} GB/s can be read")));
        if let (Some(token), Some(read), Some(ratio)) =
            (self.bytes_read_per_token, self.decode_bytes_per_second, self.bandwidth_ratio)
        {
            let (token, read) = (token / 1e6, read / 1e9);
            let text = format!("{token:.1} MB a token, {read:.1} GB/s: {ratio:.2} of the limit");
            lines.push(("decode reads", text));
        }
        let mut table = String::new();
        for (name, text) in lines {
            writeln!(table, "{name:<13}{text}").expect("a string takes everything");
        }
        table.trim_end().to_owned()
    }
}

/// How most bytes of the layers' matrices are stored.
fn file_kind(checkpoint: &Checkpoint) -> String {
    let mut bytes: BTreeMap<String, usize> = BTreeMap::new();
    for layer in 0..checkpoint.config().layers.len() {
        for tensor in MATRICES {
            if let Ok(matrix) = checkpoint.matrix(TensorName::Layer(layer, tensor)) {
                let kind = matrix.kind;
                let blocks = matrix.rows * matrix.columns / kind.block_numbers();
                *bytes.entry(format!("{kind:?}")).or_default() += blocks * kind.block_bytes();
            }
        }
    }
    let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    most.map_or_else(|| "none".to_owned(), |(kind, _)| kind)
}

/// Tokens a second of each run; none where there are none to count.
fn rates(runs: &[Run], tokens: f64, time: impl Fn(&Run) -> Duration) -> Vec<f64> {
    if tokens == 0.0 {
        return Vec::new();
    }
    let least = Duration::from_nanos(1);
    runs.iter().map(|run| tokens / time(run).max(least).as_secs_f64()).collect()
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{least:.1} to {most:.1}")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }
}
