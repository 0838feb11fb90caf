//! What is meant: every setting understood, checked against the others, defaults filled in.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use catalogue::{HubSettings, ModelReference, Patience, Secret, Settings};
use coordinator::{Ceiling, Overlong, RecordTo};
use proto::worker::KvDtype;
use scheduler::{Admission, Policy};
use tracing_subscriber::EnvFilter;
use worker::Threads;
use worker::backend::opencl::OpenClConfig;

use crate::config::cards::{self, TelemetryConfig};
use crate::config::given::{Environment, Given, UsageError};
use crate::config::record;
use crate::config::values::{self, Address, Backend, Order};

/// Crates whose events a plain level is about; of others we show warnings.
const OURS: [&str; 9] = [
    "arcmesh",
    "catalogue",
    "checkpoint",
    "coordinator",
    "scheduler",
    "proto",
    "registry",
    "tls",
    "worker",
];
/// Ranks of a group: more than anybody has devices for are a mistake.
pub(super) const RANKS_MAX: u64 = 256;
/// Tokens of a KV block, where nothing is said.
pub(super) const BLOCK_TOKENS: u32 = 16;
/// Threads of one rank.
const THREADS_MAX: u64 = 1024;

/// `arcmesh serve`.
#[derive(Debug, Clone)]
pub(crate) struct ServeConfig {
    /// What is served.
    pub(crate) model: ModelConfig,
    /// To whom.
    pub(crate) http: HttpConfig,
    /// Within which bounds.
    pub(crate) engine: EngineConfig,
    /// With what.
    pub(crate) device: DeviceConfig,
    /// Which cards are on `/metrics`.
    pub(crate) telemetry: TelemetryConfig,
    /// Ranks in this process.
    pub(crate) world: usize,
}

/// `arcmesh generate`.
#[derive(Debug, Clone)]
pub(crate) struct GenerateConfig {
    /// What is asked.
    pub(crate) prompt: String,
    /// Who answers.
    pub(crate) model: ModelConfig,
    /// Within which bounds.
    pub(crate) engine: EngineConfig,
    /// With what.
    pub(crate) device: DeviceConfig,
    /// Ranks in this process.
    pub(crate) world: usize,
}

/// `arcmesh pull`.
#[derive(Debug, Clone)]
pub(crate) struct PullConfig {
    /// What is fetched.
    pub(crate) model: ModelConfig,
}

/// A model and where to get it.
#[derive(Debug, Clone)]
pub(crate) struct ModelConfig {
    /// What was asked for.
    pub(crate) reference: ModelReference,
    /// Where it may come from.
    pub(crate) sources: Settings,
}

/// The HTTP API.
#[derive(Debug, Clone)]
pub(crate) struct HttpConfig {
    /// Where it listens.
    pub(crate) listen: Address,
    /// What it calls the model.
    pub(crate) served_model_name: String,
    /// Keys of which a client must show one.
    pub(crate) api_keys: Vec<Secret>,
    /// Further ones; without it and the others none is asked for.
    pub(crate) api_key_file: Option<PathBuf>,
    /// Certificate and key; none: plain HTTP.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

/// The scheduler's bounds and the KV cache.
#[derive(Debug, Clone)]
pub(crate) struct EngineConfig {
    /// Longest sequence; without, the model's context.
    pub(crate) model_len_max: Option<u32>,
    /// Most sequences of a step.
    pub(crate) sequences_max: u32,
    /// Most tokens of a step.
    pub(crate) step_tokens_max: u32,
    /// Most tokens of an answer; without, what the context leaves.
    pub(crate) ceiling: Ceiling,
    /// Longest wait of a request for its first step.
    pub(crate) queue_wait: Duration,
    /// What is done where a request asks for more.
    pub(crate) overlong: Overlong,
    /// Requests that may wait.
    pub(crate) waiting_max: usize,
    /// In which order requests are served.
    pub(crate) policy: Policy,
    /// What a request that is let in gets room for.
    pub(crate) admission: Admission,
    /// Prompts that begin alike are computed once.
    pub(crate) prefix_cache: bool,
    /// Tokens of a KV block.
    pub(crate) block_size: u32,
    /// KV cache of each device.
    pub(crate) kv_cache: KvCacheSize,
    /// What keys and values are kept as.
    pub(crate) kv_dtype: KvDtype,
    /// Host memory for KV blocks of each rank, in bytes; none: the rank decides.
    pub(crate) swap_bytes: Option<u64>,
    /// Where it is recorded what the scheduler is told and plans.
    pub(crate) record: Option<RecordTo>,
}

/// How large the KV cache of each device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvCacheSize {
    /// What the device's memory allows.
    ByMemory,
    /// So many blocks.
    Blocks(u32),
    /// So many bytes.
    Bytes(u64),
}

/// What computes, and how wide.
#[derive(Debug, Clone)]
pub(crate) struct DeviceConfig {
    /// What computes.
    pub(crate) backend: Backend,
    /// Which OpenCL device, if it is one, and how it is reached.
    pub(crate) opencl: OpenClConfig,
    /// Compute threads of each rank.
    pub(crate) threads: Threads,
}

/// The log.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    /// Its form.
    pub(crate) format: LogFormat,
    /// What is written, in the language of `tracing`'s filters.
    pub(crate) filter: String,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What `arcmesh serve` is to do.
pub(crate) fn serve(
    given: &mut Given,
    environment: &Environment,
) -> Result<ServeConfig, UsageError> {
    let model = model(given, environment)?;
    let world = world(given)?;
    Ok(ServeConfig {
        http: http(given, &model)?,
        engine: EngineConfig { record: record::record(given)?, ..engine(given)? },
        device: device(given, environment, world)?,
        telemetry: cards::telemetry(given)?,
        model,
        world,
    })
}

/// What `arcmesh generate` is to do.
pub(crate) fn generate(
    given: &mut Given,
    environment: &Environment,
) -> Result<GenerateConfig, UsageError> {
    let prompt = given.one("prompt", |text| Ok(text.to_owned()))?;
    let world = world(given)?;
    Ok(GenerateConfig {
        prompt: prompt.ok_or_else(|| UsageError::new("PROMPT: what shall be answered?"))?,
        model: model(given, environment)?,
        engine: engine(given)?,
        device: device(given, environment, world)?,
        world,
    })
}

/// What `arcmesh pull` is to do.
pub(crate) fn pull(given: &Given, environment: &Environment) -> Result<PullConfig, UsageError> {
    Ok(PullConfig { model: model(given, environment)? })
}

/// What is logged, and how.
pub(crate) fn log(given: &Given) -> Result<LogConfig, UsageError> {
    let format = given.one("log-format", |text| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("'{text}' is not one of text and json")),
    })?;
    let filter = given.one("log-level", filter)?;
    Ok(LogConfig {
        format: format.unwrap_or(LogFormat::Text),
        filter: filter.unwrap_or_else(|| level("info")),
    })
}

/// A level is about our own crates; anything else is a filter as it stands.
fn filter(text: &str) -> Result<String, String> {
    if ["off", "error", "warn", "info", "debug", "trace"].contains(&text) {
        return Ok(level(text));
    }
    if text.contains('=') && EnvFilter::try_new(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is neither a level nor a filter such as info,worker=debug"))
}

fn level(name: &str) -> String {
    let others = if matches!(name, "off" | "error") { name } else { "warn" };
    OURS.iter().fold(others.to_owned(), |filter, ours| format!("{filter},{ours}={name}"))
}

pub(super) fn model(given: &Given, environment: &Environment) -> Result<ModelConfig, UsageError> {
    let reference = given.one("model", values::model)?.unwrap_or_default();
    Ok(ModelConfig { reference, sources: sources(given, environment)? })
}

fn sources(given: &Given, environment: &Environment) -> Result<Settings, UsageError> {
    let cache = given.one("cache", |text| Ok(PathBuf::from(text)))?;
    let index = given.one("pypi-index", values::url)?;
    let caches = environment
        .get("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let below = |name: &str| {
        let missing = || UsageError::new("--cache: say where to keep models: HOME is not set");
        caches.as_ref().map(|caches| caches.join(name)).ok_or_else(missing)
    };
    let cache = cache.map_or_else(|| below("arcmesh"), Ok)?;
    let hub_cache = environment
        .get("HF_HUB_CACHE")
        .map(PathBuf::from)
        .or_else(|| environment.get("HF_HOME").map(|home| PathBuf::from(home).join("hub")))
        .unwrap_or_else(|| below("huggingface/hub").unwrap_or_else(|_| cache.join("hub")));
    let endpoint = environment.get("HF_ENDPOINT").unwrap_or(HubSettings::ENDPOINT);
    let endpoint = values::url(endpoint)
        .map_err(|reason| UsageError::new(format!("HF_ENDPOINT: {reason}")))?;
    let offline = environment.get("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
    Ok(Settings {
        index: index.unwrap_or_else(|| Settings::INDEX.to_owned()),
        hub: HubSettings {
            cache: hub_cache,
            endpoint,
            token: environment.get("HF_TOKEN").map(|token| Secret(token.trim().to_owned())),
            offline: ["1", "on", "yes", "true"].contains(&offline.as_str()),
        },
        cache,
        patience: Patience::default(),
    })
}

pub(super) fn http(given: &Given, model: &ModelConfig) -> Result<HttpConfig, UsageError> {
    let host = given.one("host", values::host)?.unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = given.one("port", values::port)?.unwrap_or(8000);
    let name = given.one("served-model-name", values::name)?;
    let path = |name| given.one(name, |text| Ok(PathBuf::from(text)));
    let certificate = match (path("http-cert")?, path("http-key")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(UsageError::new("--http-cert and --http-key belong together: give both")),
    };
    Ok(HttpConfig {
        listen: Address { host, port },
        served_model_name: name.unwrap_or_else(|| model.reference.served_name()),
        api_keys: given.many("api-key", values::key)?,
        api_key_file: path("api-key-file")?,
        certificate,
    })
}

pub(super) fn engine(given: &mut Given) -> Result<EngineConfig, UsageError> {
    given.exclude("kv-blocks", "kv-cache-memory")?;
    let blocks = given.one("kv-blocks", values::count(1))?.map(KvCacheSize::Blocks);
    let memory = given.one("kv-cache-memory", values::bytes)?.map(KvCacheSize::Bytes);
    let waiting = given.one("queue-max", values::count(1))?.unwrap_or(1024);
    Ok(EngineConfig {
        model_len_max: given.one("max-model-len", values::count(2))?,
        sequences_max: given.one("max-num-seqs", values::count(1))?.unwrap_or(256),
        step_tokens_max: given.one("max-num-batched-tokens", values::count(1))?.unwrap_or(512),
        ceiling: Ceiling {
            usual: given.one("default-max-tokens", values::count(1))?,
            sequence: given.one("max-generation-tokens", values::count(1))?,
            group: given.one("max-generation-tokens-per-group", values::count(1))?,
        },
        queue_wait: Duration::from_secs(
            given.one("max-queue-time", values::count(1))?.unwrap_or(300).into(),
        ),
        overlong: given.one("overlong", values::overlong)?.unwrap_or_default(),
        waiting_max: usize::try_from(waiting).unwrap_or(usize::MAX),
        policy: policy(given)?,
        admission: given.one("admission", values::admission)?.unwrap_or(Admission::Expected),
        prefix_cache: given.one("prefix-cache", values::switch)?.unwrap_or(true),
        block_size: given.one("block-size", values::count(1))?.unwrap_or(BLOCK_TOKENS),
        kv_cache: blocks.or(memory).unwrap_or(KvCacheSize::ByMemory),
        kv_dtype: given.one("kv-cache-dtype", values::kv_dtype)?.unwrap_or_default(),
        swap_bytes: given.one("swap-space", values::bytes)?,
        record: None,
    })
}

fn policy(given: &Given) -> Result<Policy, UsageError> {
    let seconds = given.one("priority-level", values::count(1))?.unwrap_or(10);
    let level = Duration::from_secs(seconds.into());
    Ok(match given.one("scheduling-policy", values::order)?.unwrap_or(Order::Fcfs) {
        Order::Fcfs => Policy::Fcfs,
        Order::Priority => Policy::Priority { level },
        Order::Fair => Policy::Fair { level },
    })
}

fn world(given: &Given) -> Result<usize, UsageError> {
    let world = given.one("world", values::number(1, RANKS_MAX))?.unwrap_or(1);
    Ok(usize::try_from(world).unwrap_or(1))
}

pub(super) fn device(
    given: &Given,
    environment: &Environment,
    world: usize,
) -> Result<DeviceConfig, UsageError> {
    let wanted = given.one("device", values::opencl_device)?;
    let backend = match (given.one("backend", values::backend)?, wanted) {
        (Some(Backend::Cpu | Backend::Candle), Some(_)) => {
            return Err(UsageError::new(
                "--device: it names an OpenCL device; say --backend opencl",
            ));
        }
        // Whoever names a device wants no other.
        (None | Some(Backend::Auto), Some(_)) => Backend::OpenCl,
        (backend, _) => backend.unwrap_or(Backend::Auto),
    };
    let programs = Some(sources(given, environment)?.cache.join("programs"));
    let opencl = OpenClConfig { programs, ..cards::devices(given)? };
    let pinning = given.one("pin", values::pinning)?.unwrap_or_default();
    let threads = Threads { count: threads(given, world)?.get(), pinning };
    Ok(DeviceConfig { backend, opencl, threads })
}

/// Compute threads of each of so many ranks.
pub(super) fn threads(given: &Given, world: usize) -> Result<NonZeroUsize, UsageError> {
    let threads = given.one("threads", values::number(1, THREADS_MAX))?;
    let threads = threads.and_then(|threads| usize::try_from(threads).ok()).unwrap_or_else(|| {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        cores / world
    });
    Ok(NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN))
}
