//! How an answer is to be made: sampling, length, stops, delivery. Checked, with defaults filled in.

use std::time::Duration;

use scheduler::Sampling;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::answer::StopStrings;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::limits::ApiLimits;
use crate::api::{logits, patience};
use crate::engine::{Likelihoods, Wishes};

/// Stop strings of a request; OpenAI allows 4.
const STOP_STRINGS_MAX: usize = 16;
/// Bytes of a stop string: so much text may be held back.
const STOP_BYTES_MAX: usize = 1024;
/// Stop tokens of a request.
const STOP_TOKENS_MAX: usize = 128;
/// Beyond this, every distribution is flat.
const TEMPERATURE_MAX: f64 = 100.0;
/// Steps of urgency, up or down.
const PRIORITY_MAX: i32 = 1000;
/// What `/v1/completions` generates where nothing is said, by the request or by the operator.
const LEGACY_TOKENS: u32 = 16;

/// Which of the two ways to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

impl Endpoint {
    /// What a request gets that says nothing, if that is not up to the operator's `usual`.
    fn usual(self, usual: Option<u32>) -> Option<u32> {
        (self == Self::Completions && usual.is_none()).then_some(LEGACY_TOKENS)
    }

    /// The field that the prompt comes in.
    pub(super) const fn prompt_field(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completions => "prompt",
        }
    }
}

/// How the answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// All at once.
    Whole,
    /// As it grows; with the usage at the end, if asked for.
    Stream { usage: bool },
}

/// What the text of a choice begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// What was generated.
    Answer,
    /// The prompt: an echo.
    Prompt,
}

/// How an answer is to be made.
#[derive(Debug, Clone)]
pub(super) struct Parameters {
    pub(super) sampling: Sampling,
    pub(super) wishes: Wishes,
    pub(super) start: Start,
    /// For each prompt.
    pub(super) sequences: u32,
    /// Of these, the choices that the client gets: the likeliest for each of their tokens.
    pub(super) choices: u32,
    /// How likely tokens were, as far as the client is told.
    pub(super) told: Option<Likelihoods>,
    /// 0 only with an echo.
    pub(super) tokens_max: Option<u32>,
    pub(super) tokens_min: u32,
    pub(super) ignore_end: bool,
    /// Less is more urgent, where the operator chose a policy that looks at it.
    pub(super) priority: i32,
    pub(super) stop: StopStrings,
    pub(super) stop_tokens: Vec<u32>,
    /// The token that ended an answer is part of its text.
    pub(super) stop_shown: bool,
    /// Control tokens are part of the text.
    pub(super) special_shown: bool,
    pub(super) delivery: Delivery,
    /// After that, counted from the request's arrival, nobody waits for the answer any more.
    pub(super) timeout: Option<Duration>,
}

impl Parameters {
    /// Nothing is to be generated: the echo alone is the answer.
    pub(super) fn silent(&self) -> bool {
        self.tokens_max == Some(0)
    }

    /// Takes them from a request; `stops` end an answer besides those asked for, and tokens are below
    /// `vocabulary`.
    pub(super) fn take(
        fields: &mut Fields<'_>,
        endpoint: Endpoint,
        stops: &[&str],
        limits: &ApiLimits,
        vocabulary: usize,
    ) -> Result<Self, ApiError> {
        let echo = endpoint == Endpoint::Completions && fields.flag("echo")?;
        let usual = limits.ceiling.usual;
        let tokens_max = tokens_max(fields, endpoint, echo)?.or_else(|| endpoint.usual(usual));
        let tokens_min = count(fields, "min_tokens", 0)?.unwrap_or(0);
        if tokens_max.is_some_and(|most| tokens_min > most) {
            return Err(ApiError::invalid("min_tokens", "min_tokens must not exceed max_tokens"));
        }
        let choices = count(fields, "n", 1)?.unwrap_or(1);
        if choices > limits.sequences_max {
            let message = format!("n must be at most {}", limits.sequences_max);
            return Err(ApiError::invalid("n", message));
        }
        let delivery = delivery(fields)?;
        let sequences = best_of(fields, choices, delivery, limits)?;
        let mut wishes = logits::take(fields, endpoint, echo, vocabulary)?;
        let told = wishes.likelihoods;
        if sequences > choices {
            // By that they are chosen.
            wishes.likelihoods.get_or_insert(Likelihoods { top: 0, prompt: false });
        }
        let stop_shown = fields.flag("include_stop_str_in_output")?;
        let mut strings = stop_strings(fields)?;
        strings.extend(stops.iter().map(|&stop| stop.to_owned()));
        Ok(Self {
            sampling: sampling(fields)?,
            wishes,
            start: if echo { Start::Prompt } else { Start::Answer },
            sequences,
            choices,
            told,
            tokens_max,
            tokens_min,
            ignore_end: fields.flag("ignore_eos")?,
            priority: priority(fields)?,
            stop: StopStrings::new(strings, stop_shown),
            stop_tokens: stop_tokens(fields)?,
            stop_shown,
            special_shown: fields.take("skip_special_tokens")? == Some(false),
            delivery,
            timeout: patience::of_field(fields)?,
        })
    }
}

/// What is beyond the bounds is as urgent as the bound.
fn priority(fields: &mut Fields<'_>) -> Result<i32, ApiError> {
    let priority = fields.integer("priority")?.unwrap_or(0);
    let bound = i64::from(PRIORITY_MAX);
    Ok(i32::try_from(priority.clamp(-bound, bound)).expect("it is within the bounds"))
}

fn sampling(fields: &mut Fields<'_>) -> Result<Sampling, ApiError> {
    let temperature = within(fields, "temperature", 0.0, TEMPERATURE_MAX)?.unwrap_or(1.0);
    // OpenAI takes 0 here: the likeliest token alone.
    let top_p = within(fields, "top_p", 0.0, 1.0)?.unwrap_or(1.0).max(f32::MIN_POSITIVE);
    let min_p = within(fields, "min_p", 0.0, 1.0)?.unwrap_or(0.0);
    let top_k = match fields.integer("top_k")? {
        None | Some(-1 | 0) => 0,
        Some(top_k) => u32::try_from(top_k.clamp(-2, i64::from(u32::MAX)))
            .map_err(|_| ApiError::invalid("top_k", "top_k must be -1, 0 or more"))?,
    };
    Ok(Sampling { temperature, top_p, top_k, min_p, seed: seed(fields)? })
}

/// Any number is a seed; without one, the answer is another each time.
fn seed(fields: &mut Fields<'_>) -> Result<u64, ApiError> {
    let Some(number) = fields.take::<serde_json::Number>("seed")? else {
        return Ok(Uuid::new_v4().as_u64_pair().0);
    };
    let signed = number.as_i64().map(i64::cast_unsigned);
    Ok(signed.or(number.as_u64()).unwrap_or_else(|| number.as_f64().unwrap_or(0.0).to_bits()))
}

pub(super) fn within(
    fields: &mut Fields<'_>,
    field: &str,
    least: f64,
    most: f64,
) -> Result<Option<f32>, ApiError> {
    match fields.number(field)? {
        #[expect(clippy::cast_possible_truncation, reason = "within bounds that f32 holds")]
        Some(number) if (least..=most).contains(&number) => Ok(Some(number as f32)),
        Some(_) => {
            let message = format!("{field} must be between {least} and {most}");
            Err(ApiError::invalid(field, message))
        }
        None => Ok(None),
    }
}

/// A whole number from `least` on; more than fits counts as the most that does.
fn count(fields: &mut Fields<'_>, field: &str, least: i64) -> Result<Option<u32>, ApiError> {
    match fields.integer(field)? {
        Some(number) if number < least => {
            Err(ApiError::invalid(field, format!("{field} must be at least {least}")))
        }
        Some(number) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
        None => Ok(None),
    }
}

/// With an echo there is something to answer even where nothing is generated.
fn tokens_max(
    fields: &mut Fields<'_>,
    endpoint: Endpoint,
    echo: bool,
) -> Result<Option<u32>, ApiError> {
    let old = count(fields, "max_tokens", i64::from(!echo))?;
    match endpoint {
        Endpoint::Chat => Ok(count(fields, "max_completion_tokens", 1)?.or(old)),
        Endpoint::Completions => Ok(old),
    }
}

/// Sequences that are made to choose from. Which they will be is known once all are complete, so they
/// cannot be streamed.
fn best_of(
    fields: &mut Fields<'_>,
    choices: u32,
    delivery: Delivery,
    limits: &ApiLimits,
) -> Result<u32, ApiError> {
    let wrong = |message: String| Err(ApiError::invalid("best_of", message));
    match count(fields, "best_of", 1)? {
        Some(best_of) if best_of < choices => wrong("best_of must not be less than n".to_owned()),
        Some(best_of) if best_of > limits.sequences_max => {
            wrong(format!("best_of must be at most {}", limits.sequences_max))
        }
        Some(best_of) if best_of > choices && delivery != Delivery::Whole => {
            wrong("best_of greater than n cannot be streamed".to_owned())
        }
        Some(best_of) => Ok(best_of),
        None => Ok(choices),
    }
}

fn stop_strings(fields: &mut Fields<'_>) -> Result<Vec<String>, ApiError> {
    let Some(raw) = fields.raw("stop") else { return Ok(Vec::new()) };
    let wrong = |message: &str| ApiError::invalid("stop", message);
    let strings = one_or_more(raw).ok_or_else(|| wrong("stop must be a string or strings"))?;
    if strings.len() > STOP_STRINGS_MAX {
        return Err(wrong(&format!("stop must have at most {STOP_STRINGS_MAX} strings")));
    }
    if strings.iter().any(String::is_empty) {
        return Err(wrong("stop must not contain an empty string"));
    }
    if strings.iter().any(|string| string.len() > STOP_BYTES_MAX) {
        return Err(wrong(&format!("a stop string must have at most {STOP_BYTES_MAX} bytes")));
    }
    Ok(strings)
}

fn one_or_more(raw: &RawValue) -> Option<Vec<String>> {
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).ok().map(|string| vec![string]);
    }
    serde_json::from_str(raw.get()).ok()
}

fn stop_tokens(fields: &mut Fields<'_>) -> Result<Vec<u32>, ApiError> {
    let tokens: Vec<u32> = fields.take("stop_token_ids")?.unwrap_or_default();
    if tokens.len() > STOP_TOKENS_MAX {
        let message = format!("stop_token_ids must have at most {STOP_TOKENS_MAX} tokens");
        return Err(ApiError::invalid("stop_token_ids", message));
    }
    Ok(tokens)
}

fn delivery(fields: &mut Fields<'_>) -> Result<Delivery, ApiError> {
    let stream = fields.flag("stream")?;
    let usage = match fields.raw("stream_options") {
        None => false,
        Some(options) => Fields::of_item("stream_options", options)?.flag("include_usage")?,
    };
    Ok(if stream { Delivery::Stream { usage } } else { Delivery::Whole })
}
