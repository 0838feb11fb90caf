//! The page for people at `/`, and what it asks for besides `/metrics`.
//!
//! The page is one document: style and script are in it, and it asks nobody but this server. It has no
//! figure of its own: the charts are differences between one `/metrics` and the next. Where keys are
//! needed it comes with a 401 and asks for one; whatever it shows was then asked for with that key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::openai::{Live, LiveGroup, LiveRank};
use crate::cluster::RankLook;
use crate::engine::{GroupLook, Stage};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: [&str; 3] =
    [include_str!("figures.js"), include_str!("charts.js"), include_str!("page.js")];

/// `GET /`
pub(in crate::api) async fn page() -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let text = PAGE
        .replace("{style}", STYLE)
        .replace("{script}", &SCRIPT.concat())
        .replace("{nonce}", &nonce);
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).expect("a nonce is hexadecimal");
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, text).into_response()
}

/// The page for whoever has not shown a key: it asks for one.
pub(in crate::api) async fn locked() -> Response {
    let mut response = page().await;
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// `GET /live`: what goes on at this moment, besides `/metrics`.
pub(in crate::api) async fn look(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let api = &shared.api;
    let state = api.engine.state();
    // While there is no group of workers there is nobody to look at.
    let look = api.engine.look().await.unwrap_or_default();
    let capacity = state.capacity();
    let live = Live {
        version: env!("CARGO_PKG_VERSION"),
        model: api.model.names[0].clone(),
        ready: state.is_ready(),
        state: state.sentence(),
        model_len_max: capacity.map(|capacity| capacity.model_len_max),
        kv_tokens: capacity.map(|it| u64::from(it.blocks) * u64::from(it.block_size)),
        groups: look.groups.into_iter().map(group).collect(),
        groups_total: look.groups_total,
        ranks: look.ranks.into_iter().map(rank).collect(),
    };
    let mut response = Json(live).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn group(group: GroupLook) -> LiveGroup {
    LiveGroup {
        request: group.request,
        stage: match group.stage {
            Stage::Waiting => "waiting",
            Stage::Prefill => "prefill",
            Stage::Decode => "decode",
        },
        age_seconds: group.age.as_secs_f64(),
        prompt_tokens: group.prompt_tokens,
        sequences: group.sequences,
        generated: group.generated,
        tokens_max: group.tokens_max,
    }
}

fn rank(rank: RankLook) -> LiveRank {
    let RankLook { name, node, backend, device, threads, memory_bytes, .. } = rank;
    LiveRank { name, node, backend, device, threads, memory_bytes }
}
