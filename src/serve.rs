//! `arcmesh serve`: coordinator and ranks in one process.

use coordinator::MoreMetrics;
use worker::metrics::WorkerMetrics;

use crate::config::ServeConfig;
use crate::worker::bind;
use crate::{front, models, ranks, shutdown, telemetry};

/// Runs until it is told to stop.
pub(crate) async fn run(config: ServeConfig) -> anyhow::Result<()> {
    let shutdown = shutdown::token()?;
    let cards = telemetry::cards(&config.telemetry, &config.device, config.world)?;
    let listener = bind(&config.http.listen, "--host, --port").await?;
    let door = front::door(&config.http)?;
    let checkpoint = models::open(config.model).await?;
    let metrics = WorkerMetrics::new();
    let _watches = telemetry::watch(&metrics, &config.telemetry, cards)?;
    let (members, ranks) = ranks::start(&checkpoint, &config.device, &metrics, config.world)?;
    let asked = front::config(config.http.served_model_name, &config.engine);
    let coordinator = front::start(asked, &checkpoint, members, shutdown.clone())?
        .with_more_metrics(MoreMetrics::new(move || metrics.render()));
    let serving = front::serve(coordinator, listener, door, shutdown.clone());
    ranks.unless_lost(serving, || shutdown.cancel()).await
}
