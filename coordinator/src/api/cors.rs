//! Pages of other origins: which may ask, and what they may see.

use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue, ORIGIN};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// Whose pages may ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// Any page that a browser shows.
    #[default]
    Any,
    /// These, such as `https://chat.example.org`; none: no page.
    Only(Vec<String>),
}

/// Headers of ours that a page may read.
const EXPOSED: &str = "x-request-id, x-arcmesh-ignored, x-max-tokens-effective, x-arcmesh-finish-limit, retry-after, retry-after-ms";

/// Answers preflights, and says on every answer who may read it.
pub(super) fn layer(origins: &Origins) -> CorsLayer {
    let allowed = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::Only(list) => {
            AllowOrigin::list(list.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
        }
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
}

/// Says which headers a page may read, where a page asks.
pub(super) async fn expose(request: Request, next: Next) -> Response {
    let from_page = request.headers().contains_key(ORIGIN);
    let mut response = next.run(request).await;
    if from_page {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}
