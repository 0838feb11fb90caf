//! API keys: who may ask.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use scheduler::TenantId;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::live;
use crate::api::observe::Seen;
use crate::config::API_KEY_BYTES_MAX;

/// Open to all: they must work for whoever watches the process, and tell nothing of requests.
const OPEN: [&str; 4] = ["/health", "/ready", "/metrics", "/sd/prometheus"];

/// The page for people: a browser that opens it cannot show a key before it was asked for one.
const PAGE: &str = "/";

/// Keys of which a request must have one; none: no key is needed. Never shown.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<Key>);

/// A key, padded to the length of the longest, so that comparing it takes the same time whatever it is compared with.
#[derive(Clone)]
struct Key {
    bytes: [u8; API_KEY_BYTES_MAX],
    length: u64,
}

impl ApiKeys {
    /// Empty ones and those longer than 512 bytes are left out: no request could have them.
    #[must_use]
    pub fn new(keys: &[String]) -> Self {
        Self(keys.iter().filter(|key| !key.is_empty()).filter_map(|key| Key::new(key)).collect())
    }

    /// Whose key it is: the first key's is tenant 1.
    fn accept(&self, given: &str) -> Option<TenantId> {
        let given = Key::new(given)?;
        let mut tenant = 0;
        // Every key is looked at, whichever fits.
        for (number, key) in (1..).zip(&self.0) {
            let fits = key.bytes.ct_eq(&given.bytes) & key.length.ct_eq(&given.length);
            tenant.conditional_assign(&number, fits);
        }
        (tenant > 0).then_some(TenantId(tenant))
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

impl Key {
    fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; API_KEY_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u64::try_from(text.len()).ok()? })
    }
}

/// Lets a request through that has a key, or needs none.
pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let keys = &shared.api.keys;
    if keys.0.is_empty() || OPEN.contains(&request.uri().path()) {
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
    fn a_key_is_accepted_only_whole() {
        let keys = ApiKeys::new(&["one".to_owned(), "zwei".to_owned(), String::new()]);
        assert_eq!(keys.accept("one"), Some(TenantId(1)));
        assert_eq!(keys.accept("zwei"), Some(TenantId(2)));
        for wrong in ["", "on", "onee", "ONE", "one\0", "drei", &"x".repeat(1000)] {
            assert_eq!(keys.accept(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer k"), Some("k"));
        assert_eq!(bearer("bearer  k "), Some("k"));
        assert_eq!(bearer("Basic k"), None);
        assert_eq!(bearer("k"), None);
    }
}
