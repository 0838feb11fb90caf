//! `arcmesh serve`: coordinator and ranks in one process.

use crate::config::ServeConfig;

/// Runs until it is told to stop.
#[expect(clippy::unused_async, reason = "the parts are joined here next")]
pub(crate) async fn run(_config: ServeConfig) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
