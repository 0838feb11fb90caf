//! `POST /v1/completions`

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::generate::generate;
use crate::api::observe::Seen;
use crate::api::parameters::Endpoint;

/// Continues texts.
pub(super) async fn completions(
    State(shared): State<Arc<Shared>>,
    Extension(seen): Extension<Seen>,
    request: Request,
) -> Result<Response, ApiError> {
    generate(&shared, seen, request, Endpoint::Completions).await
}
