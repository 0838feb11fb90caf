//! What watches a worker: `/metrics` for Prometheus, `/health` for whoever restarts it.

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::WorkerMetrics;

pub(super) fn router(metrics: WorkerMetrics) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .route("/health", get(|| async { "ok\n" }))
        .with_state(metrics)
}

async fn render(State(metrics): State<WorkerMetrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}
