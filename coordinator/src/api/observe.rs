//! What is done for every request: its id, its figures, and a status even if its handler fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use scheduler::TenantId;
use uuid::Uuid;

use crate::api::Shared;
use crate::api::error::{ApiError, Rejected};

/// Characters of the longest request id that is taken from a client.
const ID_MAX: usize = 128;

/// What a handler knows of its request besides what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// When its head had come.
    pub(crate) arrival: Instant,
    /// The client's id for it, or one made up.
    pub(crate) id: String,
    /// Whose key it showed.
    pub(crate) tenant: TenantId,
}

/// Around every handler.
pub(super) async fn observe(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let seen = Seen { arrival: Instant::now(), id: id(&request), tenant: TenantId(0) };
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.as_deref().unwrap_or("none").to_owned();
    let method = method(request.method());
    request.extensions_mut().insert(seen.clone());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(request = seen.id, route, "a handler failed");
        ApiError::Failed("the server failed; this is a bug".to_owned()).into_response()
    });
    let metrics = &shared.api.metrics;
    if let Some(Rejected(code)) = response.extensions().get() {
        metrics.rejected(code);
    }
    let seconds = seen.arrival.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    metrics.http_request(&route, method, status, seconds);
    tracing::debug!(request = seen.id, method, route, status, seconds, "answered");
    if let Ok(id) = HeaderValue::from_str(&seen.id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}

/// The client's id if it is one, else a new one.
fn id(request: &Request) -> String {
    let given = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    let is_id = |id: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/+=@".contains(c);
        (1..=ID_MAX).contains(&id.len()) && id.chars().all(allowed)
    };
    given.filter(is_id).map_or_else(|| format!("req-{}", Uuid::new_v4().simple()), str::to_owned)
}

/// Few values, whatever clients send.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
