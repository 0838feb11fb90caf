//! `arcmesh worker`: one rank, reached over gRPC.

use anyhow::Context as _;
use registry::Etcd;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use worker::metrics::WorkerMetrics;
use worker::rank::Rank;

use crate::config::{Address, WorkerConfig};
use crate::{membership, models, ranks, shutdown, telemetry, terminal};

/// Serves its rank until it is told to stop.
pub(crate) async fn run(config: WorkerConfig) -> anyhow::Result<()> {
    let shutdown = shutdown::token()?;
    let cards = telemetry::cards(&config.telemetry, &config.device, 1)?;
    // Where nothing is said, others reach us where we reach etcd from.
    let free = || -> anyhow::Result<Address> {
        let host = config.etcd.as_ref().map(membership::own_host).transpose()?;
        Ok(Address { host: host.unwrap_or_else(|| "127.0.0.1".to_owned()), port: 0 })
    };
    let listen = config.listen.clone().map_or_else(free, Ok)?;
    let listener = bind(&listen, "--listen").await?;
    let metrics = config.metrics.clone().map_or_else(free, Ok)?;
    let metrics_listener = bind(&metrics, "--metrics").await?;
    let checkpoint = models::open(config.model).await?;
    let metrics = WorkerMetrics::new();
    let _watches = telemetry::watch(&metrics, &config.telemetry, cards)?;
    let rank = Rank::start(ranks::config(&checkpoint, &config.device)?, checkpoint, &metrics)?;
    let described = rank.describe();
    tracing::info!(device = %described.device, threads = described.threads, "this rank's device");
    let (listening, metrics_at) = (listener.local_addr()?, metrics_listener.local_addr()?);
    let left = CancellationToken::new();
    let announced = match config.etcd {
        Some(etcd) => {
            let said = membership::announcement(
                listening,
                config.advertise.as_ref(),
                metrics_at,
                described,
            )?;
            let (_, said) = watch::channel(said);
            Some(tokio::spawn(registry::announce(Etcd::new(etcd), said, left.clone())))
        }
        None => None,
    };
    terminal::say(&format!("worker on {listening}, metrics on http://{metrics_at}/metrics"))?;
    // Whoever looks must not find us any more when we end.
    let stop = async {
        shutdown.cancelled().await;
        left.cancel();
    };
    worker::service::serve(listener, metrics_listener, rank, stop).await?;
    if let Some(announced) = announced {
        announced.await?;
    }
    Ok(())
}

/// Listens at an address that a flag gave.
pub(crate) async fn bind(address: &Address, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind((address.host.as_str(), address.port))
        .await
        .with_context(|| format!("{flag}: cannot listen on {address}"))
}
