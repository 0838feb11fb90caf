//! An answer given all at once.

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use crate::api::choices::{Piece, Spent};
use crate::api::error::ApiError;
use crate::api::generate::{Attention, Envelope, Pieces, usage};
use crate::api::openai::{Answered, Message, MessageChoice, TextChoice};
use crate::api::parameters::Endpoint;

/// Waits for the whole answer.
pub(super) async fn respond(
    mut pieces: Pieces,
    choices: usize,
    envelope: &Envelope,
    attention: &mut Attention,
) -> Result<Response, ApiError> {
    let mut texts = vec![(String::new(), "length"); choices];
    let mut spent = Spent::default();
    while let Some(piece) = pieces.next().await {
        match piece {
            Piece::Text { index, text } => texts[index as usize].0.push_str(&text),
            Piece::Finished { index, reason } => texts[index as usize].1 = reason,
            Piece::Ended(more) => spent.add(more),
            Piece::Failed(message) => {
                attention.failed();
                return Err(ApiError::Failed(message));
            }
        }
    }
    attention.complete(spent.at);
    Ok(body(&texts, spent, envelope))
}

fn body(texts: &[(String, &'static str)], spent: Spent, envelope: &Envelope) -> Response {
    let texts =
        texts.iter().zip(0..).map(|((text, reason), index)| (text.as_str(), *reason, index));
    match envelope.endpoint {
        Endpoint::Chat => {
            let choices = texts.map(|(content, finish_reason, index)| MessageChoice {
                index,
                message: Message { role: "assistant", content, refusal: None },
                logprobs: None,
                finish_reason,
            });
            json("chat.completion", choices.collect(), spent, envelope)
        }
        Endpoint::Completions => {
            let choices = texts.map(|(text, reason, index)| TextChoice {
                index,
                text,
                logprobs: None,
                finish_reason: Some(reason),
            });
            json("text_completion", choices.collect(), spent, envelope)
        }
    }
}

fn json<C: serde::Serialize>(
    object: &'static str,
    choices: Vec<C>,
    spent: Spent,
    envelope: &Envelope,
) -> Response {
    let answered = Answered {
        id: &envelope.id,
        object,
        created: envelope.created,
        model: &envelope.model,
        system_fingerprint: &envelope.fingerprint,
        choices,
        usage: Some(Some(usage(spent))),
    };
    Json(answered).into_response()
}
