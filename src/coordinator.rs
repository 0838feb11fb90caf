//! `arcmesh coordinator`: the HTTP API and the scheduler of ranks in other processes.

use crate::config::CoordinatorConfig;

/// Runs until it is told to stop.
#[expect(clippy::unused_async, reason = "the parts are joined here next")]
pub(crate) async fn run(_config: CoordinatorConfig) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
