//! `arcmesh demo`: how long, how much, and what counts as drift.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::config::given::{Environment, Given, UsageError};
use crate::config::load::{self, AskedConfig, Lengths, LoadConfig, Prompts, Shape};
use crate::config::meant::{self, BLOCK_TOKENS, ModelConfig};
use crate::config::values;

/// Workers that are started unless it is said how many.
const WORLD_DEFAULT: usize = 4;
/// More than a machine can be asked to run.
const WORLD_MAX: u64 = 64;
/// More than a chat template and a synthetic prompt's error add to a prompt.
const TEMPLATE_TOKENS: u32 = 64;
/// What next to no conversation of a file exceeds.
const CONVERSATION_TOKENS: u32 = 4096;
/// A wave is about this long, so that each quarter of the run has whole ones.
const WAVE: f64 = 60.0;

/// `arcmesh demo`.
#[derive(Debug, Clone)]
pub(crate) struct DemoConfig {
    /// What is served.
    pub(crate) model: ModelConfig,
    /// Workers.
    pub(crate) world: usize,
    /// Compute threads of each.
    pub(crate) threads: usize,
    /// KV blocks of each: what is under way at a wave's crest, so that all of them have been used before
    /// memory is looked at. What grows afterwards is a leak.
    pub(crate) kv_blocks: u32,
    /// How long requests are sent.
    pub(crate) duration: Duration,
    /// Requests under way at a wave's crest.
    pub(crate) crest: usize,
    /// When requests start.
    pub(crate) load: LoadConfig,
    /// What they ask.
    pub(crate) asked: AskedConfig,
    /// Where the report, the logs and Prometheus' data go.
    pub(crate) folder: PathBuf,
    /// By what share latency may grow.
    pub(crate) latency_drift_max: f64,
    /// By what share memory may grow.
    pub(crate) memory_drift_max: f64,
}

/// What `arcmesh demo` is to do.
pub(crate) fn demo(given: &mut Given, environment: &Environment) -> Result<DemoConfig, UsageError> {
    let model = meant::model(given, environment)?;
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let world = given.one("world", values::number(1, WORLD_MAX))?;
    let world = world.and_then(|world| usize::try_from(world).ok());
    let world = world.unwrap_or_else(|| cores.min(WORLD_DEFAULT));
    let threads = meant::threads(given, world)?.get();
    let minutes = given.one("minutes", load::real(0.05, 10_080.0))?.unwrap_or(60.0);
    let crest = given.one("concurrency", load::size)?.unwrap_or(8);
    let percent = |name| -> Result<Option<f64>, UsageError> {
        let percent: Option<f64> = given.one(name, load::real(0.0, 1e6))?;
        Ok(percent.map(|percent| percent / 100.0))
    };
    let (latency, memory) = (percent("latency-drift")?, percent("memory-drift")?);
    let duration = Duration::from_secs_f64(minutes * 60.0);
    let quarter = minutes * 60.0 / 4.0;
    let period = Duration::from_secs_f64(quarter / (quarter / WAVE).round().max(1.0));
    let (prompt, answer) = (Lengths::Uniform(32, 256), Lengths::Uniform(16, 96));
    let asked = load::asked(given, prompt, answer)?;
    let tokens = match asked.prompts {
        Prompts::Synthetic(lengths) => lengths.usual_max(),
        Prompts::File(_) => CONVERSATION_TOKENS,
    };
    let tokens = tokens.saturating_add(asked.answer.usual_max()).saturating_add(TEMPLATE_TOKENS);
    let kv_blocks = tokens.div_ceil(BLOCK_TOKENS);
    Ok(DemoConfig {
        model,
        world,
        threads,
        kv_blocks: kv_blocks.saturating_mul(u32::try_from(crest).unwrap_or(u32::MAX)),
        duration,
        crest,
        load: LoadConfig {
            shape: Shape::Wave { crest, period },
            requests_max: None,
            duration_max: Some(duration),
            timeout: Duration::from_secs(600),
            seed: given.one("seed", values::number(0, u64::MAX))?.unwrap_or(1),
        },
        asked,
        folder: given.one("folder", load::file)?.unwrap_or_else(|| PathBuf::from("arcmesh-demo")),
        latency_drift_max: latency.unwrap_or(0.5),
        memory_drift_max: memory.unwrap_or(0.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quarter_has_whole_waves() {
        for minutes in ["0.2", "3", "5", "60"] {
            let words = ["demo", "--minutes", minutes];
            let mut given = Given::of(&words, &[]).unwrap();
            let config = demo(&mut given, &Environment::of(&[("HOME", "/x")])).unwrap();
            let Shape::Wave { period, .. } = config.load.shape else { panic!("waves") };
            let waves = config.duration.as_secs_f64() / 4.0 / period.as_secs_f64();
            assert!((waves - waves.round()).abs() < 1e-6 && waves > 0.9, "{minutes}: {waves}");
        }
    }
}
