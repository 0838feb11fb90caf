//! A model, fetched and opened.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use checkpoint::Checkpoint;
use tokio::task::spawn_blocking;

use crate::config::ModelConfig;

/// Fetches the model as its name says unless it is here, and opens it.
pub(crate) async fn open(model: ModelConfig) -> anyhow::Result<Arc<Checkpoint>> {
    let opened = spawn_blocking(move || {
        let progress = catalogue::progress::shown();
        let path: PathBuf = catalogue::resolve(&model.reference, &model.sources, &progress)?;
        tracing::info!(model = %path.display(), "opening");
        Ok::<_, anyhow::Error>(Checkpoint::open(&path)?)
    });
    Ok(Arc::new(opened.await.context("the model was not opened")??))
}
