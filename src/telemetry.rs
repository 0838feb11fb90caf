//! The cards that a worker's `/metrics` tells of.

use worker::metrics::{CardWatch, WorkerMetrics};
use worker::telemetry::Card;

use crate::config::{Backend, DeviceConfig, TelemetryConfig, UsageError};
use crate::ranks;

/// The cards that were asked for; without, those that `world` ranks of this process will drive.
pub(crate) fn cards(
    config: &TelemetryConfig,
    device: &DeviceConfig,
    world: usize,
) -> Result<Vec<Card>, UsageError> {
    let missing = |address| {
        let all: Vec<String> =
            config.machine.cards().iter().map(|card| card.address.to_string()).collect();
        let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        UsageError::new(format!(
            "--telemetry: there is no graphics card of Intel's at {address}; there are: {all}"
        ))
    };
    if config.cards.is_empty() {
        return Ok(driven(config, device, world));
    }
    let addresses = config.cards.iter();
    addresses.map(|&address| config.machine.card(address).ok_or_else(|| missing(address))).collect()
}

/// The cards behind the OpenCL devices that ranks take, in their order; none where a processor computes,
/// or where a driver does not say where its device is.
fn driven(config: &TelemetryConfig, device: &DeviceConfig, world: usize) -> Vec<Card> {
    if !matches!(device.backend, Backend::Auto | Backend::OpenCl) {
        return Vec::new();
    }
    // Whether there must be one is said by whoever takes it.
    let found = device.opencl.devices().unwrap_or_default();
    if device.backend == Backend::Auto && !ranks::is_worth_it(&found) {
        return Vec::new();
    }
    let addresses =
        found.into_iter().take(world).filter_map(|device| device.pci?.to_string().parse().ok());
    addresses.filter_map(|address| config.machine.card(address)).collect()
}

/// Shows them until what this gives is dropped.
pub(crate) fn watch(
    metrics: &WorkerMetrics,
    config: &TelemetryConfig,
    cards: Vec<Card>,
) -> anyhow::Result<Vec<CardWatch>> {
    let watches = cards.into_iter().map(|card| {
        tracing::info!(card = %card.address, name = %card.name, "telemetry of a card");
        Ok(metrics.watch(&config.machine, card)?)
    });
    watches.collect()
}
