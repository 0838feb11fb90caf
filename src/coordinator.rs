//! `arcmesh coordinator`: HTTP and scheduler, over workers that are reached by gRPC.

use coordinator::connect;

use crate::config::CoordinatorConfig;
use crate::worker::bind;
use crate::{front, models, shutdown};

/// Runs until it is told to stop.
pub(crate) async fn run(config: CoordinatorConfig) -> anyhow::Result<()> {
    let shutdown = shutdown::token()?;
    let listener = bind(&config.http.listen, "--host, --port").await?;
    let checkpoint = models::open(config.model).await?;
    let members: Result<Vec<_>, _> =
        config.workers.iter().map(|worker| connect(&worker.to_string())).collect();
    let asked = front::config(&config.http, &config.engine);
    let coordinator = front::start(asked, &checkpoint, members?, shutdown.clone())?;
    let guarded = !config.http.api_keys.is_empty();
    front::serve(coordinator, listener, shutdown, guarded).await
}
