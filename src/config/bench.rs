//! What `arcmesh bench engine` is to measure.

use std::path::PathBuf;

use proto::worker::KvDtype;

use crate::config::given::{Environment, Given, UsageError};
use crate::config::meant::{self, BLOCK_TOKENS, DeviceConfig, ModelConfig};
use crate::config::values;

/// More runs than anybody waits for.
const RUNS_MAX: u64 = 1000;

/// `arcmesh bench engine`.
#[derive(Debug, Clone)]
pub(crate) struct BenchConfig {
    /// Which model runs.
    pub(crate) model: ModelConfig,
    /// With what.
    pub(crate) device: DeviceConfig,
    /// How long and how often.
    pub(crate) load: BenchLoad,
    /// Where the figures go as JSON.
    pub(crate) json: Option<JsonOutput>,
}

/// What runs, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BenchLoad {
    /// Prompt tokens of each sequence; 0: only generation is measured.
    pub(crate) prompt: u32,
    /// Tokens that each sequence generates; 0: only prefill is measured.
    pub(crate) generate: u32,
    /// Sequences at once; at most `step_tokens_max`.
    pub(crate) batch: u32,
    /// Repetitions.
    pub(crate) runs: u32,
    /// Most tokens of a step.
    pub(crate) step_tokens_max: u32,
    /// Tokens of a KV block.
    pub(crate) block_size: u32,
    /// What keys and values are kept as.
    pub(crate) kv_dtype: KvDtype,
}

/// Where JSON goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JsonOutput {
    /// To standard output, and nothing else does.
    Standard,
    /// To a file, in place of what is there.
    File(PathBuf),
}

impl JsonOutput {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("say a file, or - for standard output".to_owned()),
            "-" => Ok(Self::Standard),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

/// What `arcmesh bench engine` is to do.
pub(crate) fn bench(given: &Given, environment: &Environment) -> Result<BenchConfig, UsageError> {
    Ok(BenchConfig {
        model: meant::model(given, environment)?,
        device: meant::device(given, environment, 1)?,
        load: load(given)?,
        json: given.one("json", JsonOutput::parse)?,
    })
}

fn load(given: &Given) -> Result<BenchLoad, UsageError> {
    let runs = given.one("runs", values::number(1, RUNS_MAX))?.unwrap_or(5);
    let load = BenchLoad {
        prompt: given.one("prompt", values::count(0))?.unwrap_or(512),
        generate: given.one("generate", values::count(0))?.unwrap_or(128),
        batch: given.one("batch", values::count(1))?.unwrap_or(1),
        runs: u32::try_from(runs).unwrap_or(u32::MAX),
        step_tokens_max: given.one("max-num-batched-tokens", values::count(1))?.unwrap_or(512),
        block_size: given.one("block-size", values::count(1))?.unwrap_or(BLOCK_TOKENS),
        kv_dtype: given.one("kv-cache-dtype", values::kv_dtype)?.unwrap_or_default(),
    };
    if load.prompt == 0 && load.generate == 0 {
        let line = "--prompt and --generate are both 0: there is nothing to measure";
        return Err(UsageError::new(line));
    }
    if load.batch > load.step_tokens_max {
        let BenchLoad { batch, step_tokens_max, .. } = load;
        return Err(UsageError::new(format!(
            "--batch: {batch} sequences do not fit in a step of {step_tokens_max} tokens (see --max-num-batched-tokens)"
        )));
    }
    Ok(load)
}
