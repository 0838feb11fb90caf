//! Everything joined: a model's files, the ranks, the engine, and HTTP in front of them.

use std::sync::Arc;

use checkpoint::Checkpoint;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Member;
use crate::config::{ConfigError, CoordinatorConfig};
use crate::engine::{self, EngineError, EngineHandle, EngineSetup, EngineState, ModelFacts};
use crate::metrics::Metrics;

/// A coordinator that has begun: its group of workers forms, or has formed.
#[derive(Debug)]
pub struct Coordinator {
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    state: watch::Receiver<EngineState>,
    task: JoinHandle<Result<(), EngineError>>,
}

/// Why a coordinator did not begin, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine could not begin or go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine's task is gone: a bug.
    #[error("the engine died: {0}")]
    Died(String),
}

impl Coordinator {
    /// Begins to form the group of workers; [`Coordinator::state`] says how far it is. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`CoordinatorError`], when the configuration does not fit the model.
    pub fn start(
        config: CoordinatorConfig,
        checkpoint: &Checkpoint,
        members: Vec<Member>,
        shutdown: CancellationToken,
    ) -> Result<Self, CoordinatorError> {
        let config = config.validate()?;
        let model = facts(checkpoint);
        let model_len_max = config.limits.model_len_wanted(model.context)?;
        let metrics = Arc::new(Metrics::new(&config.served_names[0], model_len_max));
        let setup = EngineSetup {
            limits: config.limits.clone(),
            patience: config.patience.clone(),
            model,
            members,
            metrics: Arc::clone(&metrics),
        };
        let loading = EngineState::Loading { bytes_done: 0, bytes_total: 0 };
        let (sender, state) = watch::channel(loading);
        let (engine, task) = engine::start(setup, sender, shutdown);
        Ok(Self { engine, metrics, state, task })
    }

    /// Where the engine stands, to be watched.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// The engine, to be asked without HTTP.
    #[must_use]
    pub const fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    /// Where the figures go.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Waits until the engine has ended: after a shutdown and the last answer, or on an error.
    ///
    /// # Errors
    /// [`CoordinatorError`]: why it ended, if it was not asked to.
    pub async fn ended(self) -> Result<(), CoordinatorError> {
        match self.task.await {
            Ok(ended) => Ok(ended?),
            Err(error) => Err(CoordinatorError::Died(error.to_string())),
        }
    }
}

fn facts(checkpoint: &Checkpoint) -> ModelFacts {
    let config = checkpoint.config();
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    ModelFacts {
        digest: checkpoint.digest().to_vec(),
        layers: number(config.layers.len()),
        kv_heads: number(config.kv_heads),
        head_size: number(config.head_size),
        context: number(config.context),
        end_tokens: config.end_tokens.clone(),
    }
}
