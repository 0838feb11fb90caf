//! The configuration, in two steps: what was [given] in three layers, and what is [meant] by it,
//! checked before any port is bound. Nothing else reads the environment.

mod bench;
mod cards;
mod cluster;
mod demo;
mod given;
mod load;
mod meant;
mod record;
mod values;

pub(crate) use bench::{BenchConfig, BenchLoad, JsonOutput, bench};
pub(crate) use cards::{DeviceBenchConfig, DoctorConfig, TelemetryConfig, bench_device, doctor};
pub(crate) use cluster::{
    CertsConfig, CoordinatorConfig, DrainConfig, ModelFrom, Ranks, WorkerConfig, certs,
    coordinator, drain, worker,
};
pub(crate) use demo::{DemoConfig, demo};
pub(crate) use given::{Environment, Given, UsageError};
pub(crate) use load::{
    AskedConfig, BenchServeConfig, Endpoint, Lengths, LoadConfig, Prompts, ServerConfig, Shape,
    bench_serve,
};
pub(crate) use meant::{
    DeviceConfig, EngineConfig, GenerateConfig, HttpConfig, KvCacheSize, LogConfig, LogFormat,
    ModelConfig, PullConfig, ServeConfig, generate, log, pull, serve,
};
pub(crate) use record::{ReplayConfig, replay};
pub(crate) use values::{Address, Backend};
