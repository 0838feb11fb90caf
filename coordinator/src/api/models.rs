//! `GET /v1/models` and `GET /v1/models/{id}`: what can be asked for, once it can be.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use crate::api::error::ApiError;
use crate::api::openai::{Model, ModelList};
use crate::api::prompts::not_ready;
use crate::api::{Api, Shared};

/// Every name of the model.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let api = &shared.api;
    let context = context(api)?;
    let data = api.model.names.iter().map(|name| model(api, name, context)).collect();
    Ok(Json(ModelList { object: "list", data }).into_response())
}

/// One name. A name may have slashes.
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let api = &shared.api;
    let context = context(api)?;
    let Some(name) = api.model.names.iter().find(|name| **name == id) else {
        return Err(ApiError::NoSuchModel(id.chars().take(200).collect()));
    };
    Ok(Json(model(api, name, context)).into_response())
}

fn context(api: &Api) -> Result<u32, ApiError> {
    let state = api.engine.state();
    let capacity = state.capacity().ok_or_else(|| ApiError::NotReady(not_ready(&state)))?;
    Ok(capacity.model_len_max)
}

fn model<'a>(api: &'a Api, name: &'a str, context: u32) -> Model<'a> {
    Model {
        id: name,
        object: "model",
        created: api.model.created,
        owned_by: "arcmesh",
        root: &api.model.names[0],
        parent: None,
        max_model_len: context,
        permission: [],
    }
}
