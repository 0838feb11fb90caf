//! What is to be told of graphics cards.

use std::path::PathBuf;

use worker::backend::opencl::OpenClConfig;
use worker::telemetry::{Machine, PciAddress};

use crate::config::bench::JsonOutput;
use crate::config::given::{Environment, Given, UsageError};
use crate::config::meant::{self, ModelConfig};
use crate::config::values;

/// Which cards a worker's `/metrics` tells of.
#[derive(Debug, Clone)]
pub(crate) struct TelemetryConfig {
    /// Where they are.
    pub(crate) machine: Machine,
    /// Which of them.
    pub(crate) cards: Vec<PciAddress>,
}

/// `arcmesh doctor`.
#[derive(Debug, Clone)]
pub(crate) struct DoctorConfig {
    /// What is looked at.
    pub(crate) machine: Machine,
    /// What is measured.
    pub(crate) devices: OpenClConfig,
    /// Compute threads of the host.
    pub(crate) threads: usize,
    /// What speed is predicted for.
    pub(crate) model: Option<ModelConfig>,
    /// Where the findings go as JSON.
    pub(crate) json: Option<JsonOutput>,
}

/// `arcmesh bench device`.
#[derive(Debug, Clone)]
pub(crate) struct DeviceBenchConfig {
    /// Of which the first is measured.
    pub(crate) devices: OpenClConfig,
    /// Where the figures go as JSON.
    pub(crate) json: Option<JsonOutput>,
}

/// What `arcmesh bench device` is to do.
pub(crate) fn bench_device(given: &Given) -> Result<DeviceBenchConfig, UsageError> {
    Ok(DeviceBenchConfig { devices: devices(given)?, json: given.one("json", JsonOutput::parse)? })
}

pub(super) fn telemetry(given: &Given) -> Result<TelemetryConfig, UsageError> {
    let cards = given.many("telemetry", values::card)?;
    Ok(TelemetryConfig { machine: machine(given)?, cards })
}

fn machine(given: &Given) -> Result<Machine, UsageError> {
    Ok(given.one("sysfs-root", values::machine)?.unwrap_or_default())
}

/// What `arcmesh doctor` is to do.
pub(crate) fn doctor(given: &Given, environment: &Environment) -> Result<DoctorConfig, UsageError> {
    let asked = given.one("model", |_| Ok(()))?;
    Ok(DoctorConfig {
        machine: machine(given)?,
        devices: devices(given)?,
        threads: meant::threads(given, 1)?.get(),
        model: asked.map(|()| meant::model(given, environment)).transpose()?,
        json: given.one("json", JsonOutput::parse)?,
    })
}

/// Which OpenCL devices.
pub(super) fn devices(given: &Given) -> Result<OpenClConfig, UsageError> {
    Ok(OpenClConfig {
        device: given.one("device", values::opencl_device)?.unwrap_or_default(),
        library: given.one("opencl-library", |text| Ok(PathBuf::from(text)))?,
        programs: None,
    })
}
