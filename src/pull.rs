//! `arcmesh pull`: fetches a model into the cache and says where it lies.

use crate::config::PullConfig;
use crate::terminal;

/// Fetches the model.
pub(crate) fn run(config: &PullConfig) -> anyhow::Result<()> {
    let model = &config.model;
    let path = catalogue::resolve(&model.reference, &model.sources, &catalogue::progress::shown())?;
    terminal::say(&path.display().to_string())?;
    Ok(())
}
