//! `arcmesh worker`: one rank, reached over gRPC.

use std::time::Duration;

use anyhow::{Context as _, bail};
use proto::worker::Announcement;
use registry::Etcd;
use tls::Guard;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use worker::metrics::WorkerMetrics;
use worker::rank::Rank;

use crate::config::{Address, WorkerConfig};
use crate::{handover, membership, models, ranks, shutdown, telemetry, terminal};

/// Another has this long to take a rank over from a worker that is told to stop: containers are killed
/// after 10 s.
const DRAIN_MAX: Duration = Duration::from_secs(7);

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
    let guard = membership::guard(config.certificates.as_ref())?;
    if !listener.local_addr()?.ip().is_loopback()
        && matches!(guard, Guard::Open)
        && !config.insecure
    {
        bail!(
            "--listen {listen}: anybody who reaches it could use this worker. Give --tls-ca, --tls-cert and \
             --tls-key (certs init makes them), or --insecure on a network that you trust"
        );
    }
    let metrics = config.metrics.clone().map_or_else(free, Ok)?;
    let metrics_listener = bind(&metrics, "--metrics").await?;
    let etcd = config.etcd.map(Etcd::new);
    let metrics = WorkerMetrics::new();
    let checkpoint = match &config.model_from {
        None => models::open(config.model).await?,
        Some(from) => {
            let sources = &config.model.sources;
            let taken = handover::take(from, etcd.as_ref(), &guard, sources).await?;
            metrics.model_bytes("received", taken.received);
            taken.checkpoint
        }
    };
    let _watches = telemetry::watch(&metrics, &config.telemetry, cards)?;
    let rank_config = worker::config::WorkerConfig {
        guard,
        lane: config.lane,
        metrics: metrics_listener.local_addr()?.to_string(),
        ..ranks::config(&checkpoint, &config.device)?
    };
    let rank = Rank::start(rank_config, checkpoint, &metrics)?;
    let described = rank.describe();
    tracing::info!(device = %described.device, threads = described.threads, "this rank's device");
    let (listening, metrics_at) = (listener.local_addr()?, metrics_listener.local_addr()?);
    let said = membership::announcement(listening, config.advertise.as_ref(), described);
    let announced = match etcd {
        Some(etcd) => Some(Announced::start(etcd, said?)),
        None => None,
    };
    terminal::say(&format!("worker on {listening}, metrics on http://{metrics_at}/metrics"))?;
    let stop = async {
        shutdown.cancelled().await;
        if let Some(announced) = announced {
            announced.leave().await;
        }
    };
    worker::service::serve(listener, metrics_listener, rank, stop).await?;
    Ok(())
}

/// A worker that others know of.
struct Announced {
    etcd: Etcd,
    said: watch::Sender<Announcement>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Announced {
    fn start(etcd: Etcd, announcement: Announcement) -> Self {
        let (said, heard) = watch::channel(announcement);
        let stop = CancellationToken::new();
        let task = tokio::spawn(registry::announce(etcd.clone(), heard, stop.clone()));
        Self { etcd, said, stop, task }
    }

    /// Lets another take its rank over, as long as that may take, and is gone then.
    async fn leave(self) {
        let address = self.said.borrow().address.clone();
        self.said.send_modify(|said| said.draining = true);
        match timeout(DRAIN_MAX, registry::drained(&self.etcd, &address)).await {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::warn!("nobody has taken its rank over: the group loses it"),
        }
        self.stop.cancel();
        // Its lease runs out by itself if it cannot be given back.
        drop(self.task.await);
    }
}

/// Listens at an address that a flag gave.
pub(crate) async fn bind(address: &Address, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind((address.host.as_str(), address.port))
        .await
        .with_context(|| format!("{flag}: cannot listen on {address}"))
}
