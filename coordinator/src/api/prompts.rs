//! A request made ready: parsed, checked, its prompts as tokens. All of it is work for a thread of
//! its own, and only so many do it at once.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::value::RawValue;

use crate::api::body::Whole;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::parameters::{Endpoint, Parameters, Start};
use crate::api::{Api, Shared, messages, refusals};
use crate::config::Overlong;
use crate::engine::EngineState;
use crate::prompt::{Conversation, Specials, TemplateError, TokenizerError};

/// Bodies over this size are worked on one by one.
const LONG_BYTES: usize = 1 << 20;
/// Names of ignored fields that a client is told.
const IGNORED_MAX: usize = 16;

/// A request, ready for the engine.
#[derive(Debug)]
pub(super) struct Asked {
    /// The name that the client used for the model.
    pub(super) model: String,
    pub(super) parameters: Parameters,
    /// At least one.
    pub(super) prompts: Vec<Prompt>,
    /// Fields that were not known, for a header.
    pub(super) ignored: String,
    /// Most tokens that a sequence can get, of all prompts the least.
    pub(super) effective_max: u32,
}

/// A prompt, ready for the engine.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) tokens: Vec<u32>,
    /// Comes before the answer.
    pub(super) echo: String,
}

/// A prompt as it was sent.
enum Source {
    Text(String),
    Tokens(Vec<u32>),
}

/// Works on a body on the blocking pool, when it is its turn.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    body: Whole,
    work: impl FnOnce(&Api, &[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |_| ApiError::Failed("the server failed to read the request".to_owned());
    // Text takes some fifty times its size while it is tokenised, so the longest go one by one.
    let long = match body.bytes.len() > LONG_BYTES {
        true => Some(Arc::clone(&shared.preparing_long).acquire_owned().await),
        false => None,
    };
    // The work holds its turn, so that a client that goes away does not let in one more.
    let turn = Arc::clone(&shared.preparing).acquire_owned().await;
    let shared = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || {
        let _turn = (turn, long);
        work(&shared.api, &body.bytes)
    });
    done.await.map_err(failed)?
}

/// Everything from a body to what the engine takes.
pub(super) fn prepare(api: &Api, endpoint: Endpoint, body: &[u8]) -> Result<Asked, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let model = model(api, &mut fields)?;
    refusals::check(&mut fields)?;
    let stops = match endpoint {
        Endpoint::Chat => api.template.stop_strings(),
        Endpoint::Completions => &[],
    };
    let vocabulary = api.tokenizer.vocabulary();
    let parameters = Parameters::take(&mut fields, endpoint, stops, &api.limits, vocabulary)?;
    let state = api.engine.state();
    let context = state.capacity().map(|capacity| capacity.model_len_max);
    let began = Instant::now();
    let prompts = match endpoint {
        Endpoint::Chat => vec![conversation(api, &mut fields, context)?],
        Endpoint::Completions => texts(api, &mut fields, &parameters, context)?,
    };
    api.metrics.tokenise_seconds(began.elapsed().as_secs_f64());
    let context = context.ok_or_else(|| ApiError::NotReady(not_ready(&state)))?;
    let mut effective_max = u32::MAX;
    for prompt in &prompts {
        let room = check_length(api, endpoint, &parameters, prompt, context)?;
        effective_max = effective_max.min(room);
    }
    Ok(Asked { model, parameters, prompts, ignored: ignored(&fields), effective_max })
}

/// Why the model cannot be asked, for clients.
pub(super) fn not_ready(state: &EngineState) -> String {
    match state {
        EngineState::Loading { .. } => "the model is loading",
        EngineState::Reforming { .. } => "a worker was lost; the group is forming again",
        EngineState::Away { .. } => "a worker is away",
        EngineState::Draining => "the server is shutting down",
        EngineState::Stopped => "the engine has stopped",
        EngineState::Ready(_) => "the model is ready",
    }
    .to_owned()
}

/// The model that is asked for, by the name that was used.
pub(super) fn model(api: &Api, fields: &mut Fields<'_>) -> Result<String, ApiError> {
    let names = &api.model.names;
    match fields.take::<String>("model")? {
        None => Ok(names[0].clone()),
        Some(name) if names.contains(&name) => Ok(name),
        Some(name) => Err(ApiError::NoSuchModel(name.chars().take(200).collect())),
    }
}

/// The tokens of a request's messages, as its template renders them.
pub(super) fn conversation(
    api: &Api,
    fields: &mut Fields<'_>,
    context: Option<u32>,
) -> Result<Prompt, ApiError> {
    let messages = messages::take(fields, |word| api.template.mentions(word))?;
    let mut conversation = Conversation {
        messages,
        add_generation_prompt: fields.take("add_generation_prompt")?.unwrap_or(true),
        variables: serde_json::Map::new(),
    };
    for field in ["chat_template_kwargs", "reasoning_effort"] {
        match fields.value(field)? {
            Some(serde_json::Value::Object(more)) => conversation.variables.extend(more),
            Some(value) if field == "reasoning_effort" => {
                conversation.variables.insert(field.to_owned(), value);
            }
            Some(_) => return Err(ApiError::invalid(field, "this must be an object")),
            None => {}
        }
    }
    let rendered = api
        .template
        .render(conversation, &api.tokenizer, SystemTime::now())
        .map_err(|error| refused_by_template(&error))?;
    check_bytes(api, "messages", rendered.text(), context)?;
    let tokens = api.tokenizer.encode_rendered(&rendered).map_err(|error| failed(&error))?;
    Ok(Prompt { tokens, echo: String::new() })
}

/// The tokens of a text, control tokens in it parsed.
pub(super) fn text(
    api: &Api,
    text: &str,
    add_begin: bool,
    context: Option<u32>,
) -> Result<Vec<u32>, ApiError> {
    check_bytes(api, "prompt", text, context)?;
    api.tokenizer.encode(text, Specials::Parse, add_begin).map_err(|error| failed(&error))
}

fn refused_by_template(error: &TemplateError) -> ApiError {
    ApiError::invalid("messages", error.to_string())
}

fn failed(error: &TokenizerError) -> ApiError {
    ApiError::Failed(error.to_string())
}

fn texts(
    api: &Api,
    fields: &mut Fields<'_>,
    parameters: &Parameters,
    context: Option<u32>,
) -> Result<Vec<Prompt>, ApiError> {
    let missing = || ApiError::invalid("prompt", "prompt is missing");
    let sources = sources(fields.raw("prompt").ok_or_else(missing)?)?;
    let sequences_max = api.limits.sequences_max as usize;
    if sources.is_empty() || sources.len() * parameters.sequences as usize > sequences_max {
        let message = format!("prompts × n (or × best_of) must be from 1 to {sequences_max}");
        return Err(ApiError::invalid("prompt", message));
    }
    let add_begin = fields.take("add_special_tokens")?.unwrap_or(true);
    let prompt = |source| {
        let (tokens, said) = match source {
            Source::Text(said) => (text(api, &said, add_begin, context)?, said),
            Source::Tokens(tokens) => {
                let said = api.tokenizer.decode(&tokens, !parameters.special_shown);
                (tokens, said.map_err(|error| ApiError::invalid("prompt", error.to_string()))?)
            }
        };
        if tokens.is_empty() {
            return Err(ApiError::invalid("prompt", "the prompt is empty"));
        }
        Ok(Prompt {
            tokens,
            echo: if parameters.start == Start::Prompt { said } else { String::new() },
        })
    };
    sources.into_iter().map(prompt).collect()
}

/// A string, strings, token ids, or lists of token ids.
fn sources(raw: &RawValue) -> Result<Vec<Source>, ApiError> {
    let wrong = |_| {
        let message = "prompt must be a string, strings, token ids, or lists of token ids";
        ApiError::invalid("prompt", message)
    };
    let json = raw.get();
    if json.starts_with('"') {
        return serde_json::from_str(json).map(|text| vec![Source::Text(text)]).map_err(wrong);
    }
    let first = json.get(1..).unwrap_or_default().trim_start().chars().next();
    match first {
        Some('"') => {
            let texts: Vec<String> = serde_json::from_str(json).map_err(wrong)?;
            Ok(texts.into_iter().map(Source::Text).collect())
        }
        Some('[') => {
            let lists: Vec<Vec<u32>> = serde_json::from_str(json).map_err(wrong)?;
            Ok(lists.into_iter().map(Source::Tokens).collect())
        }
        _ => {
            let tokens: Vec<u32> = serde_json::from_str(json).map_err(wrong)?;
            Ok(vec![Source::Tokens(tokens)])
        }
    }
}

/// A text that is too long by its bytes alone is not worth tokenising.
fn check_bytes(
    api: &Api,
    field: &'static str,
    text: &str,
    context: Option<u32>,
) -> Result<(), ApiError> {
    let Some(context) = context else { return Ok(()) };
    let least = text.len() / api.tokenizer.token_bytes_max();
    if least < context as usize {
        return Ok(());
    }
    let length = u32::try_from(least).unwrap_or(u32::MAX);
    let wanted = format!("your {field} resulted in at least {least} tokens");
    Err(overlong(api, field, (length, context), &wanted))
}

/// A prompt of `length` tokens does not fit in the context.
fn overlong(
    api: &Api,
    field: &'static str,
    (length, context): (u32, u32),
    wanted: &str,
) -> ApiError {
    api.metrics.refused(length);
    ApiError::context_length(field, wanted, context)
}

/// Tokens there are for each answer.
fn check_length(
    api: &Api,
    endpoint: Endpoint,
    parameters: &Parameters,
    prompt: &Prompt,
    context: u32,
) -> Result<u32, ApiError> {
    let field = endpoint.prompt_field();
    let length = u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX);
    let room = context.saturating_sub(length);
    if room == 0 {
        let wanted = format!("your {field} resulted in {length} tokens");
        return Err(overlong(api, field, (length, context), &wanted));
    }
    let wanted = parameters.tokens_max.unwrap_or(0);
    let ceiling = api.limits.ceiling.of(parameters.tokens_max, parameters.sequences);
    let ceiling = ceiling.unwrap_or(u32::MAX);
    let reject = api.limits.overlong == Overlong::Reject;
    if wanted > room && reject {
        let sum = length.saturating_add(wanted);
        let wanted = format!(
            "you requested {sum} tokens ({length} in the {field}, {wanted} in the completion)"
        );
        return Err(overlong(api, field, (length, context), &wanted));
    }
    if wanted > ceiling && reject {
        let message =
            format!("max_tokens must be at most {ceiling} here, and {wanted} were asked for");
        return Err(ApiError::invalid("max_tokens", message));
    }
    Ok(parameters.tokens_max.unwrap_or(room).min(room).min(ceiling))
}

/// Names that a header can hold.
fn ignored(fields: &Fields<'_>) -> String {
    let plain = |name: &&str| {
        name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    fields.left().filter(plain).take(IGNORED_MAX).collect::<Vec<_>>().join(", ")
}
