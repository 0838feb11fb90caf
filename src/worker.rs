//! `arcmesh worker`: one device, one rank.

use crate::config::WorkerConfig;

/// Runs until it is told to stop.
#[expect(clippy::unused_async, reason = "the parts are joined here next")]
pub(crate) async fn run(_config: WorkerConfig) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
