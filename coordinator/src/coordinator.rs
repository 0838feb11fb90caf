//! Everything joined: a model's files, the ranks, the engine, and HTTP in front of them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use checkpoint::{Checkpoint, CheckpointError};
use tls::ServerCertificate;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiKeys, ApiLimits, MoreMetrics, Origins, ServedModel, router, serve};
use crate::cluster::Roster;
use crate::config::{ConfigError, CoordinatorConfig};
use crate::engine::{self, EngineError, EngineSetup, EngineState, ModelFacts};
use crate::metrics::Metrics;
use crate::prompt::{ChatTemplate, TemplateError, Tokenizer, TokenizerError};
use crate::record::Recording;

/// A coordinator that has begun: its group of workers forms, or has formed.
#[derive(Debug)]
pub struct Coordinator {
    api: Api,
    certificate: Option<ServerCertificate>,
    state: watch::Receiver<EngineState>,
    engine: JoinHandle<Result<(), EngineError>>,
}

/// Why a coordinator did not begin, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model's files do not say what a coordinator needs.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is no tokenizer for the model.
    #[error("the tokenizer: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// The model's chat template is broken.
    #[error("the chat template: {0}")]
    Template(#[from] TemplateError),
    /// What the scheduler is told cannot be recorded.
    #[error("--record: cannot write {file}: {error}")]
    Record {
        /// The file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// The engine could not begin or go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A task is gone: a bug.
    #[error("a part of the coordinator died: {0}")]
    Died(#[from] JoinError),
}

impl Coordinator {
    /// Reads what the model's files say about text, and begins to form the group of workers;
    /// [`Coordinator::state`] tells how far it is. Must be called within a tokio runtime. Takes about a
    /// second of computing.
    ///
    /// # Errors
    /// [`CoordinatorError`]: the configuration makes no sense or does not fit the model, or there is
    /// no tokenizer or chat template for it.
    pub fn start(
        config: CoordinatorConfig,
        checkpoint: &Checkpoint,
        roster: Roster,
        shutdown: CancellationToken,
    ) -> Result<Self, CoordinatorError> {
        let config = config.validate()?;
        let facts = facts(checkpoint);
        let model_len_max = config.limits.model_len_wanted(facts.context)?;
        let begin = checkpoint.config().begin_token;
        let tokenizer = Tokenizer::from_source(checkpoint.vocabulary()?, begin)?;
        let source = checkpoint.chat_template();
        let tokens = checkpoint.template_tokens();
        let template = ChatTemplate::for_model(source.as_deref(), tokens, &tokenizer)?;
        let recording = config.record.as_ref().map(|to| {
            Recording::begin(to).map_err(|error| CoordinatorError::Record {
                file: to.file.display().to_string(),
                error,
            })
        });
        let metrics = Arc::new(Metrics::new(&config.served_names[0], model_len_max));
        let model = served(&config, &facts);
        let limits = ApiLimits {
            ceiling: config.limits.ceiling,
            overlong: config.limits.overlong,
            drain_max: config.patience.drain_max,
            ..ApiLimits::default()
        };
        let setup = EngineSetup {
            limits: config.limits,
            patience: config.patience,
            model: facts,
            roster,
            metrics: Arc::clone(&metrics),
            recording: recording.transpose()?,
        };
        let loading = EngineState::Loading { bytes_done: 0, bytes_total: 0 };
        let (sender, state) = watch::channel(loading);
        let (handle, engine) = engine::start(setup, sender, shutdown);
        let api = Api {
            engine: handle,
            tokenizer: Arc::new(tokenizer),
            template: Arc::new(template),
            model,
            limits,
            keys: ApiKeys::default(),
            origins: Origins::default(),
            metrics,
            more_metrics: MoreMetrics::default(),
        };
        Ok(Self { api, certificate: None, state, engine })
    }

    /// Shows further figures on `/metrics`: those of ranks that share this process.
    #[must_use]
    pub fn with_more_metrics(mut self, more: MoreMetrics) -> Self {
        self.api.more_metrics = more;
        self
    }

    /// Lets in only whoever shows one of these keys.
    #[must_use]
    pub fn with_keys(mut self, keys: ApiKeys) -> Self {
        self.api.keys = keys;
        self
    }

    /// Speaks HTTPS and nothing else, where there is a certificate for it.
    #[must_use]
    pub fn with_certificate(mut self, certificate: Option<ServerCertificate>) -> Self {
        self.certificate = certificate;
        self
    }

    /// Where the engine stands, to be watched.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// Engine, tokenizer and template, to be used without HTTP.
    #[must_use]
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// Serves HTTP, from now until the engine has ended: after a shutdown and the last answer, or on an
    /// error. While the group forms, and while the last answers end, there is HTTP that says so.
    ///
    /// # Errors
    /// [`CoordinatorError`]: why the engine ended, if it was not asked to.
    pub async fn serve(self, listener: TcpListener) -> Result<(), CoordinatorError> {
        let ended = CancellationToken::new();
        let limits = self.api.limits.clone();
        let mut http = tokio::spawn({
            let (router, ended) = (router(self.api), ended.clone());
            let certificate = self.certificate;
            async move { serve(listener, router, &limits, certificate, ended).await }
        });
        let mut engine = self.engine;
        tokio::select! {
            engine = &mut engine => {
                ended.cancel();
                http.await?;
                Ok(engine??)
            }
            // It ends before it is told to only if it has panicked.
            http = &mut http => {
                http?;
                Ok(engine.await??)
            }
        }
    }

    /// Waits until the engine has ended, without HTTP.
    ///
    /// # Errors
    /// [`CoordinatorError`]: why it ended, if it was not asked to.
    pub async fn ended(self) -> Result<(), CoordinatorError> {
        Ok(self.engine.await??)
    }
}

fn facts(checkpoint: &Checkpoint) -> ModelFacts {
    let config = checkpoint.config();
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    ModelFacts {
        digest: checkpoint.digest().to_vec(),
        layers: number(config.layers.len()),
        weight_bytes: checkpoint.file_bytes(),
        context: number(config.context),
        end_tokens: config.end_tokens.clone(),
    }
}

/// The fingerprint names build and files: what may change an answer. The world size may not.
fn served(config: &CoordinatorConfig, facts: &ModelFacts) -> ServedModel {
    let mut fingerprint = format!("arcmesh-{}-", env!("CARGO_PKG_VERSION"));
    for byte in facts.digest.iter().take(6) {
        // Writing to a String cannot fail.
        let _ = write!(fingerprint, "{byte:02x}");
    }
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    ServedModel { names: config.served_names.clone(), created, fingerprint }
}
