//! For whoever watches the process: is it there, can it be asked, what is it, how does it fare.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::openai::{Status, TargetGroup, Version};
use crate::api::prompts::not_ready;

/// Figures that `/metrics` shows besides the coordinator's: those of ranks that share its process.
#[derive(Clone, Default)]
pub struct MoreMetrics(Option<Arc<dyn Fn() -> String + Send + Sync>>);

impl MoreMetrics {
    /// `render` gives them in Prometheus' text format, whenever they are asked for.
    #[must_use]
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(render)))
    }
}

impl fmt::Debug for MoreMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("MoreMetrics").field(&self.0.is_some()).finish()
    }
}

/// `GET /health`: the process is alive.
pub(super) async fn health() -> Response {
    Json(Status { status: "ok" }).into_response()
}

/// `GET /ready`: a step has gone through all ranks, and a request would be answered.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let state = shared.api.engine.state();
    if !state.is_ready() {
        return Err(ApiError::NotReady(not_ready(&state)));
    }
    Ok(Json(Status { status: "ready" }).into_response())
}

/// `GET /version`
pub(super) async fn version() -> Response {
    Json(Version { version: env!("CARGO_PKG_VERSION") }).into_response()
}

/// `GET /sd/prometheus`: where the workers' own figures are, as Prometheus' HTTP discovery reads it.
pub(super) async fn targets(State(shared): State<Arc<Shared>>) -> Response {
    let targets = shared.api.metrics.rank_targets();
    Json([TargetGroup { targets }]).into_response()
}

/// `GET /metrics`, in Prometheus' text format.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = shared.api.metrics.render();
    if let MoreMetrics(Some(more)) = &shared.api.more_metrics {
        text.push_str(&more());
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
