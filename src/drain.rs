//! `arcmesh drain`: a worker takes part in no group any more.

use std::time::Duration;

use anyhow::bail;
use registry::Etcd;
use tokio::time::timeout;

use crate::config::DrainConfig;
use crate::terminal;

/// Longest wait for a group without the worker: loading takes most of it.
const DRAINED_MAX: Duration = Duration::from_secs(120);

/// Asks for it, and waits until it is so.
pub(crate) async fn run(config: DrainConfig) -> anyhow::Result<()> {
    let etcd = Etcd::new(config.etcd);
    let address = registry::drain(&etcd, &config.node).await?;
    if timeout(DRAINED_MAX, registry::drained(&etcd, &address)).await.is_err() {
        bail!(
            "{address} is still a rank after {} s: is there another worker that can take its place?",
            DRAINED_MAX.as_secs()
        );
    }
    terminal::say(&format!("{address} is drained: it can be stopped"))?;
    Ok(())
}
