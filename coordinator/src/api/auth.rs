//! API keys: who may ask.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::live;
use crate::api::observe::Seen;

/// Open to all: they must work for whoever watches the process, and tell nothing of requests.
const OPEN: [&str; 4] = ["/health", "/ready", "/metrics", "/sd/prometheus"];

/// The page for people: a browser that opens it cannot show a key before it was asked for one.
const PAGE: &str = "/";

/// Lets a request through that has a key, or needs none.
pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let keys = &shared.api.keys;
    if keys.is_open() || OPEN.contains(&request.uri().path()) {
        return Ok(next.run(request).await);
    }
    let given = request.headers().get(AUTHORIZATION);
    if given.is_none() && request.uri().path() == PAGE {
        return Ok(live::locked().await);
    }
    let error = match given.and_then(|value| bearer(value.to_str().ok()?)) {
        Some(key) => match keys.accept(key) {
            Some(tenant) => {
                if let Some(seen) = request.extensions_mut().get_mut::<Seen>() {
                    seen.tenant = tenant;
                }
                return Ok(next.run(request).await);
            }
            None => ApiError::WrongKey,
        },
        None => ApiError::NoKey,
    };
    shared.api.metrics.auth_failed();
    Err(error)
}

/// The key of `Bearer key`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer k"), Some("k"));
        assert_eq!(bearer("bearer  k "), Some("k"));
        assert_eq!(bearer("Basic k"), None);
        assert_eq!(bearer("k"), None);
    }
}
