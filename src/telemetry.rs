//! The cards that a worker's `/metrics` tells of.

use worker::metrics::{CardWatch, WorkerMetrics};
use worker::telemetry::Card;

use crate::config::{TelemetryConfig, UsageError};

/// The cards that were asked for.
pub(crate) fn cards(config: &TelemetryConfig) -> Result<Vec<Card>, UsageError> {
    let missing = |address| {
        let all: Vec<String> =
            config.machine.cards().iter().map(|card| card.address.to_string()).collect();
        let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        UsageError::new(format!(
            "--telemetry: there is no graphics card of Intel's at {address}; there are: {all}"
        ))
    };
    let addresses = config.cards.iter();
    addresses.map(|&address| config.machine.card(address).ok_or_else(|| missing(address))).collect()
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
