//! What is to be told of graphics cards.

use std::path::PathBuf;

use opencl::DeviceChoice;
use worker::telemetry::{Machine, PciAddress};

use crate::config::bench::JsonOutput;
use crate::config::given::{Environment, Given, UsageError};
use crate::config::meant::{self, DeviceConfig, ModelConfig};
use crate::config::values;
use crate::device::Devices;

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
    pub(crate) devices: Devices,
    /// With what the host would compute.
    pub(crate) device: DeviceConfig,
    /// What speed is predicted for.
    pub(crate) model: Option<ModelConfig>,
    /// Where the findings go as JSON.
    pub(crate) json: Option<JsonOutput>,
}

/// `arcmesh bench device`.
#[derive(Debug, Clone)]
pub(crate) struct DeviceBenchConfig {
    /// Of which the first is measured.
    pub(crate) devices: Devices,
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
        device: meant::device(given, environment, 1)?,
        model: asked.map(|()| meant::model(given, environment)).transpose()?,
        json: given.one("json", JsonOutput::parse)?,
    })
}

/// Which OpenCL devices.
pub(super) fn devices(given: &Given) -> Result<Devices, UsageError> {
    Ok(Devices {
        choice: given.one("device", str::parse::<DeviceChoice>)?.unwrap_or_default(),
        library: given.one("opencl-library", |text| Ok(PathBuf::from(text)))?,
    })
}
