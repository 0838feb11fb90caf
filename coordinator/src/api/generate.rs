//! From a request to an answer that has begun: what both ways to ask have in common.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use futures::stream::{BoxStream, SelectAll, StreamExt, select_all, unfold};
use scheduler::{LengthLimit, NewGroup, TenantId, TokenCount, TokenId};
use uuid::Uuid;

use crate::api::choices::{Choices, Opening, Piece};
use crate::api::error::ApiError;
use crate::api::line::{Complete, Line};
use crate::api::observe::Seen;
use crate::api::openai::{CachedTokens, Usage};
use crate::api::parameters::{Delivery, Endpoint, Parameters};
use crate::api::prompts::{Asked, Prompt, blocking, prepare};
use crate::api::watched::watched;
use crate::api::{Shared, body, patience, sse, whole};
use crate::engine::Submission;
use crate::metrics::Metrics;

/// What all choices of a request become, as it comes.
pub(super) type Pieces = SelectAll<BoxStream<'static, Piece>>;

/// What is the same in every chunk of an answer.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) endpoint: Endpoint,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) fingerprint: String,
    /// Choices say how likely their tokens were.
    pub(super) logprobs: bool,
}

/// How many sequences are made, and how many of them the client gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// Over all prompts.
    pub(super) sequences: usize,
    /// For each prompt.
    pub(super) of: usize,
    /// Of those.
    pub(super) choices: usize,
}

/// Notices a client that goes away before its answer is complete.
#[derive(Debug)]
pub(super) struct Attention {
    metrics: Arc<Metrics>,
    line: Option<Line>,
    arrival: Instant,
    end: End,
}

/// How far an answer has come.
#[derive(Debug, Clone, Copy)]
enum End {
    /// There is more to say.
    Open,
    /// It ended with an error, which was said.
    Failed,
    /// All was said; the last token was there then.
    Complete(Instant),
}

/// Reads, checks, submits, and gives the answer as it was asked for.
pub(super) async fn generate(
    shared: &Arc<Shared>,
    seen: Seen,
    request: Request,
    endpoint: Endpoint,
) -> Result<Response, ApiError> {
    let line = request.extensions().get::<Line>().cloned();
    let timeout = patience::of_header(request.headers())?;
    let body = body::read(request, shared).await?;
    let asked = blocking(shared, body, move |api, body| prepare(api, endpoint, body)).await?;
    let Asked { model, parameters, prompts, ignored, effective_max } = asked;
    let timeout = timeout.into_iter().chain(parameters.timeout).min();
    let parameters = Arc::new(Parameters { timeout, ..parameters });
    let (sequences, choices) = (parameters.sequences as usize, parameters.choices as usize);
    let asked = Made { sequences: prompts.len() * sequences, of: sequences, choices };
    let metrics = Arc::clone(&shared.api.metrics);
    let mut attention = Attention { metrics, line, arrival: seen.arrival, end: End::Open };
    let submitted = submit(shared, &seen, &parameters, prompts, endpoint).await;
    // A refusal is not a client that goes away.
    let pieces = submitted.inspect_err(|_| attention.failed())?;
    let envelope = Envelope {
        endpoint,
        id: id(endpoint),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
        model,
        fingerprint: shared.api.model.fingerprint.clone(),
        logprobs: parameters.told.is_some(),
    };
    let mut response = match parameters.delivery {
        Delivery::Whole => {
            let answer = whole::respond(pieces, asked, &envelope, &mut attention).await;
            // It goes with the body: an answer is with its client once it is written.
            answer?.map(|body| watched(body, attention))
        }
        Delivery::Stream { usage } => {
            let every = shared.api.limits.keep_alive_every;
            sse::respond(pieces, asked.sequences, envelope, usage, every, attention).await?
        }
    };
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("x-max-tokens-effective"),
        HeaderValue::from(effective_max),
    );
    if let (false, Ok(ignored)) = (ignored.is_empty(), HeaderValue::from_str(&ignored)) {
        headers.insert(HeaderName::from_static("x-arcmesh-ignored"), ignored);
    }
    Ok(response)
}

/// A group for each prompt. If one is refused, those before it are dropped, which cancels them.
async fn submit(
    shared: &Arc<Shared>,
    seen: &Seen,
    parameters: &Arc<Parameters>,
    prompts: Vec<Prompt>,
    endpoint: Endpoint,
) -> Result<Pieces, ApiError> {
    let api = &shared.api;
    let mut streams = Vec::with_capacity(prompts.len());
    for (prompt, index) in prompts.into_iter().zip((0..).step_by(parameters.sequences as usize)) {
        let Prompt { tokens, echo } = prompt;
        let opening = Opening::new(&tokens, echo, parameters);
        let answer = api.engine.submit(Submission {
            group: group(tokens, parameters, seen.tenant),
            wishes: parameters.wishes.clone(),
            arrival: seen.arrival,
            timeout: parameters.timeout,
            request_id: seen.id.clone(),
            choices: parameters.choices,
        });
        let answer = answer.await;
        let answer = answer.map_err(|error| ApiError::refused(&error, endpoint.prompt_field()))?;
        let choices = Choices::new(answer, api, Arc::clone(parameters), index, opening);
        let pieces = unfold(choices, |mut choices| async move {
            choices.next().await.map(|piece| (piece, choices))
        });
        streams.push(pieces.boxed());
    }
    Ok(select_all(streams))
}

fn group(tokens: Vec<u32>, parameters: &Parameters, tenant: TenantId) -> NewGroup {
    NewGroup {
        prompt: tokens.into_iter().map(TokenId).collect(),
        sequences: parameters.sequences,
        sampling: parameters.sampling,
        // A sequence ends only with a token; a silent answer drops it.
        tokens_max: parameters.tokens_max.map(|most| TokenCount(most.max(1))),
        tokens_min: TokenCount(parameters.tokens_min),
        ignore_end: parameters.ignore_end,
        stop_tokens: parameters.stop_tokens.iter().copied().map(TokenId).collect(),
        whole_prompt: parameters.wishes.likelihoods.is_some_and(|wanted| wanted.prompt),
        priority: parameters.priority,
        tenant,
    }
}

fn id(endpoint: Endpoint) -> String {
    let prefix = match endpoint {
        Endpoint::Chat => "chatcmpl",
        Endpoint::Completions => "cmpl",
    };
    format!("{prefix}-{}", Uuid::new_v4().simple())
}

/// As clients count.
pub(super) fn usage(spent: crate::api::choices::Spent) -> Usage {
    Usage {
        prompt_tokens: spent.prompt,
        completion_tokens: spent.completion,
        total_tokens: spent.prompt + spent.completion,
        prompt_tokens_details: CachedTokens { cached_tokens: spent.cached },
        finish_limit: spent.limit.map(LengthLimit::name),
    }
}

impl Attention {
    /// All was said; the last token was there `at`.
    pub(super) fn complete(&mut self, at: Option<Instant>) {
        self.end = End::Complete(at.unwrap_or_else(Instant::now));
    }

    /// The client is told of an error.
    pub(super) fn failed(&mut self) {
        self.end = End::Failed;
    }

    /// So many bytes were handed to the connection.
    pub(super) fn bytes(&self, count: usize) {
        if let Some(line) = &self.line {
            line.bytes(&self.metrics, count);
        }
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        match (self.end, &self.line) {
            (End::Open, _) => self.metrics.client_disconnected(),
            (End::Complete(generated), Some(line)) => {
                let complete = Complete { arrival: self.arrival, generated };
                line.complete(&self.metrics, complete);
            }
            (End::Complete(_), None) | (End::Failed, _) => {}
        }
    }
}
