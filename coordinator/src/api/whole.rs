//! An answer given all at once.

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use scheduler::LengthLimit;

use crate::api::choices::{Piece, Spent};
use crate::api::error::ApiError;
use crate::api::generate::{Attention, Envelope, Made, Pieces, usage};
use crate::api::openai::{Answered, Message, MessageChoice, TextChoice};
use crate::api::parameters::Endpoint;
use crate::api::spoken::{self, Spoken};

/// A choice so far.
#[derive(Debug, Clone, Default)]
struct Said {
    text: String,
    spoken: Vec<Spoken>,
    reason: &'static str,
    /// What cut it short, and as the how manyth that ended.
    limit: Option<(usize, LengthLimit)>,
    likelihood: f64,
}

/// Waits for the whole answer.
pub(super) async fn respond(
    mut pieces: Pieces,
    made: Made,
    envelope: &Envelope,
    attention: &mut Attention,
) -> Result<Response, ApiError> {
    let mut texts = vec![Said::default(); made.sequences];
    let mut spent = Spent::default();
    let mut finished = 0;
    while let Some(piece) = pieces.next().await {
        match piece {
            Piece::Text { index, text, spoken } => {
                let said = &mut texts[index as usize];
                said.text.push_str(&text);
                said.spoken.extend(spoken);
            }
            Piece::Finished { index, reason, limit, likelihood } => {
                let said = &mut texts[index as usize];
                finished += 1;
                (said.reason, said.likelihood) = (reason, likelihood);
                said.limit = limit.map(|limit| (finished, limit));
            }
            Piece::Ended(more) => spent.add(more),
            Piece::Failed(error) => {
                attention.failed();
                return Err(error);
            }
        }
    }
    attention.complete(spent.at);
    let texts = best(texts, made);
    spent.limit = texts.iter().filter_map(|said| said.limit).max().map(|(_, limit)| limit);
    let mut response = body(&texts, spent, envelope);
    if let Some(limit) = spent.limit {
        let value = HeaderValue::from_static(limit.name());
        response.headers_mut().insert(HeaderName::from_static("x-arcmesh-finish-limit"), value);
    }
    Ok(response)
}

/// Of each prompt's sequences the likeliest for each token, the likeliest first; in order if all are wanted.
fn best(texts: Vec<Said>, made: Made) -> Vec<Said> {
    if made.choices == made.of {
        return texts;
    }
    let mut best = Vec::new();
    let mut texts = texts.into_iter();
    for _ in 0..made.sequences / made.of {
        let mut of_prompt: Vec<Said> = texts.by_ref().take(made.of).collect();
        of_prompt.sort_by(|one, other| other.likelihood.total_cmp(&one.likelihood));
        best.extend(of_prompt.into_iter().take(made.choices));
    }
    best
}

fn body(texts: &[Said], spent: Spent, envelope: &Envelope) -> Response {
    let texts = texts.iter().zip(0..);
    match envelope.endpoint {
        Endpoint::Chat => {
            let choices = texts.map(|(said, index)| MessageChoice {
                index,
                message: Message { role: "assistant", content: &said.text, refusal: None },
                logprobs: envelope.logprobs.then(|| spoken::of_chat(&said.spoken)),
                finish_reason: said.reason,
            });
            json("chat.completion", choices.collect(), spent, envelope)
        }
        Endpoint::Completions => {
            let choices = texts.map(|(said, index)| TextChoice {
                index,
                text: &said.text,
                logprobs: envelope.logprobs.then(|| spoken::of_text(&said.spoken)),
                finish_reason: Some(said.reason),
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
