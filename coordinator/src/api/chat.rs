//! `POST /v1/chat/completions`

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::generate::generate;
use crate::api::observe::Seen;
use crate::api::parameters::Endpoint;

/// Answers a conversation.
pub(super) async fn chat(
    State(shared): State<Arc<Shared>>,
    Extension(seen): Extension<Seen>,
    request: Request,
) -> Result<Response, ApiError> {
    generate(&shared, seen, request, Endpoint::Chat).await
}
