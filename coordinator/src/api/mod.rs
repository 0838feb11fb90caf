//! HTTP in, SSE out: the OpenAI API over an engine.
//!
//! A request is read and checked, its prompt made and its group accepted before the status is sent:
//! whatever can be refused is refused with a status of its own. After that an answer is either
//! complete, or ends with an error object.
//!
//! Everything has a bound, see [`ApiLimits`]: connections, the time for headers and bodies, bodies,
//! fields, messages, prompts, stop strings, work on prompts at once, time that a client may take to
//! read.

mod auth;
mod body;
mod chat;
mod choices;
mod completions;
mod cors;
mod error;
mod fields;
mod generate;
mod keys;
mod limits;
mod line;
mod live;
mod logits;
mod messages;
mod models;
mod observe;
mod openai;
mod parameters;
mod patience;
mod probes;
mod prompts;
mod refusals;
mod serve;
mod spoken;
mod sse;
mod stall;
mod tokens;
mod watched;
mod whole;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::engine::EngineHandle;
use crate::metrics::Metrics;
use crate::prompt::{ChatTemplate, Tokenizer};

use error::ApiError;

pub use cors::Origins;
pub use keys::{ApiKeys, KeysError};
pub use limits::ApiLimits;
pub use probes::MoreMetrics;
pub use serve::serve;

/// What the API serves.
#[derive(Debug, Clone)]
pub struct Api {
    /// Answers.
    pub engine: EngineHandle,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Messages to text.
    pub template: Arc<ChatTemplate>,
    /// What the model is called.
    pub model: ServedModel,
    /// The bounds.
    pub limits: ApiLimits,
    /// Who may ask.
    pub keys: ApiKeys,
    /// Whose pages may ask.
    pub origins: Origins,
    /// Where the figures go.
    pub metrics: Arc<Metrics>,
    /// Figures of others that are shown with them.
    pub more_metrics: MoreMetrics,
}

/// What the model is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// Names that requests may use; the first is used where none is given. At least one.
    pub names: Vec<String>,
    /// When it was made or loaded, seconds since 1970.
    pub created: u64,
    /// Changes with whatever may change an answer: weights, quantisation, build.
    pub fingerprint: String,
}

/// What handlers share.
#[derive(Debug)]
struct Shared {
    api: Api,
    /// Prompts made at once.
    preparing: Arc<Semaphore>,
    /// Long ones among them.
    preparing_long: Arc<Semaphore>,
    /// Large bodies held at once.
    large_bodies: Arc<Semaphore>,
}

/// The routes.
///
/// # Panics
/// Where the model has no name.
pub fn router(api: Api) -> Router {
    assert!(!api.model.names.is_empty(), "a model has a name");
    let shared = Arc::new(Shared {
        preparing: Arc::new(Semaphore::new(api.limits.preparing_max.max(1))),
        preparing_long: Arc::new(Semaphore::new(1)),
        large_bodies: Arc::new(Semaphore::new(api.limits.large_bodies_max.max(1))),
        api,
    });
    let cors = cors::layer(&shared.api.origins);
    Router::new()
        .route("/", get(live::page))
        .route("/live", get(live::look))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/version", get(probes::version))
        .route("/health", get(probes::health))
        .route("/ready", get(probes::ready))
        .route("/metrics", get(probes::metrics))
        .route("/sd/prometheus", get(probes::targets))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&shared), auth::check))
        .layer(cors)
        .layer(from_fn(cors::expose))
        .layer(from_fn_with_state(Arc::clone(&shared), observe::observe))
        .with_state(shared)
}

async fn no_such_path(request: Request) -> Result<Response, ApiError> {
    Err(ApiError::NoSuchPath(request.uri().path().to_owned()))
}

async fn method_not_allowed(request: Request) -> Result<Response, ApiError> {
    Err(ApiError::MethodNotAllowed(request.method().to_string()))
}

#[cfg(test)]
mod tests;
