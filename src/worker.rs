//! `arcmesh worker`: one rank, reached over gRPC.

use anyhow::Context as _;
use tokio::net::TcpListener;
use worker::metrics::WorkerMetrics;
use worker::rank::Rank;

use crate::config::{Address, WorkerConfig};
use crate::{models, ranks, shutdown, telemetry, terminal};

/// Serves its rank until it is told to stop.
pub(crate) async fn run(config: WorkerConfig) -> anyhow::Result<()> {
    let shutdown = shutdown::token()?;
    let cards = telemetry::cards(&config.telemetry)?;
    let listener = bind(&config.listen, "--listen").await?;
    let metrics_listener = bind(&config.metrics, "--metrics").await?;
    let checkpoint = models::open(config.model).await?;
    let metrics = WorkerMetrics::new();
    let _watches = telemetry::watch(&metrics, &config.telemetry, cards)?;
    let rank = Rank::start(ranks::config(&checkpoint, &config.device)?, checkpoint, &metrics)?;
    let described = rank.describe();
    tracing::info!(device = %described.device, threads = described.threads, "this rank's device");
    terminal::say(&format!(
        "worker on {}, metrics on http://{}/metrics",
        listener.local_addr()?,
        metrics_listener.local_addr()?
    ))?;
    worker::service::serve(listener, metrics_listener, rank, shutdown.cancelled_owned()).await?;
    Ok(())
}

/// Listens at an address that a flag gave.
pub(crate) async fn bind(address: &Address, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind((address.host.as_str(), address.port))
        .await
        .with_context(|| format!("{flag}: cannot listen on {address}"))
}
