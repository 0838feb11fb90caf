//! `POST /tokenize` and `POST /detokenize`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::openai::{Text, Tokens};
use crate::api::prompts::{blocking, conversation, model, text};
use crate::api::{Api, Shared, body};

/// The tokens of a `prompt`, or of `messages` as the template renders them.
pub(super) async fn tokenize(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read(request, &shared).await?;
    let tokens = blocking(&shared, body, tokens).await?;
    Ok(Json(tokens).into_response())
}

/// The text of `tokens`.
pub(super) async fn detokenize(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read(request, &shared).await?;
    let text = blocking(&shared, body, |api, body| {
        let mut fields = Fields::of_body(body)?;
        model(api, &mut fields)?;
        let missing = || ApiError::invalid("tokens", "tokens is missing");
        let tokens: Vec<u32> = fields.take("tokens")?.ok_or_else(missing)?;
        let skip_special = fields.flag("skip_special_tokens")?;
        let prompt = api.tokenizer.decode(&tokens, skip_special);
        let prompt = prompt.map_err(|error| ApiError::invalid("tokens", error.to_string()))?;
        Ok(Text { prompt })
    });
    Ok(Json(text.await?).into_response())
}

fn tokens(api: &Api, body: &[u8]) -> Result<Tokens, ApiError> {
    let mut fields = Fields::of_body(body)?;
    model(api, &mut fields)?;
    let add_begin = fields.take("add_special_tokens")?.unwrap_or(true);
    let with_texts = fields.flag("return_token_strs")?;
    let tokens = match fields.take::<String>("prompt")? {
        Some(prompt) => text(api, &prompt, add_begin, None)?,
        None => conversation(api, &mut fields, None)?.tokens,
    };
    let texts = || {
        let text = |&token| {
            String::from_utf8_lossy(api.tokenizer.token_bytes(token).unwrap_or_default()).into()
        };
        tokens.iter().map(text).collect()
    };
    Ok(Tokens {
        count: tokens.len(),
        max_model_len: api.engine.state().capacity().map(|capacity| capacity.model_len_max),
        token_strs: with_texts.then(texts),
        tokens,
    })
}
