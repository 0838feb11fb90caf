//! Reading a body: so many bytes, within so much time.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use futures::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::api::Shared;
use crate::api::error::ApiError;

/// Bodies up to this size need no place among the large ones.
const SMALL_BYTES: usize = 64 << 10;

/// A body read whole. A large one has its place among those that may be held at once.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

/// Reads a JSON body.
pub(super) async fn read(request: Request, shared: &Shared) -> Result<Whole, ApiError> {
    let limits = &shared.api.limits;
    let (head, body) = request.into_parts();
    check_type(&head.headers)?;
    let too_large = || ApiError::BodyTooLarge(limits.body_bytes_max);
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let declared: Option<usize> = declared.and_then(|length| length.parse().ok());
    if declared.is_some_and(|length| length > limits.body_bytes_max) {
        return Err(too_large());
    }
    timeout(limits.body_wait_max, collect(body, shared, limits.body_bytes_max))
        .await
        .map_err(|_| ApiError::BodyTimeout)?
}

async fn collect(body: Body, shared: &Shared, bytes_max: usize) -> Result<Whole, ApiError> {
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut place = None;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| ApiError::Invalid {
            param: None,
            message: format!("the body cannot be read: {error}"),
        })?;
        let length = bytes.len() + part.len();
        if length > bytes_max {
            return Err(ApiError::BodyTooLarge(bytes_max));
        }
        if length > SMALL_BYTES && place.is_none() {
            place = Arc::clone(&shared.large_bodies).acquire_owned().await.ok();
        }
        bytes.extend_from_slice(&part);
    }
    Ok(Whole { bytes, _place: place })
}

/// JSON, or nothing said.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(kind) = text(CONTENT_TYPE) {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "application/json" && !kind.ends_with("+json") {
            let message =
                format!("`{kind}` is not understood: send `Content-Type: application/json`");
            return Err(ApiError::NotJson(message));
        }
    }
    match text(CONTENT_ENCODING) {
        None | Some("identity") => Ok(()),
        Some(encoding) => Err(ApiError::NotJson(format!("`{encoding}` is not understood"))),
    }
}
