//! `arcmesh generate`: one answer on the terminal.

use crate::config::GenerateConfig;

/// Runs until it is told to stop.
#[expect(clippy::unused_async, reason = "the parts are joined here next")]
pub(crate) async fn run(_config: GenerateConfig) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
