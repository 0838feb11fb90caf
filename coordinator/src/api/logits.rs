//! What a request wants of its logits: bias, penalties, and to be told how likely tokens were.

use std::collections::BTreeMap;

use scheduler::TokenId;

use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::parameters::{Endpoint, within};
use crate::engine::{Likelihoods, Wishes};

/// Tokens that a request may bend.
const BIASES_MAX: usize = 1024;
/// Likeliest tokens that a request may be told of; OpenAI's bound.
const TOP_MAX: u32 = 20;

/// Takes them from a request; `echo`: the prompt is part of the answer.
pub(super) fn take(
    fields: &mut Fields<'_>,
    endpoint: Endpoint,
    echo: bool,
    vocabulary: usize,
) -> Result<Wishes, ApiError> {
    // OpenAI's range; what multiplies must not be 0.
    let penalty = |fields: &mut Fields<'_>, field| within(fields, field, -2.0, 2.0);
    Ok(Wishes {
        bias: bias(fields, vocabulary)?,
        repetition: within(fields, "repetition_penalty", 0.01, 100.0)?.unwrap_or(1.0),
        presence: penalty(fields, "presence_penalty")?.unwrap_or(0.0),
        frequency: penalty(fields, "frequency_penalty")?.unwrap_or(0.0),
        likelihoods: top(fields, endpoint)?.map(|top| Likelihoods { top, prompt: echo }),
    })
}

/// An object of token ids, as strings, and numbers.
fn bias(fields: &mut Fields<'_>, vocabulary: usize) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let wrong = |message: String| ApiError::invalid("logit_bias", message);
    let given: BTreeMap<String, f64> = fields.take("logit_bias")?.unwrap_or_default();
    if given.len() > BIASES_MAX {
        return Err(wrong(format!("logit_bias must have at most {BIASES_MAX} tokens")));
    }
    let one = |(key, bias): (String, f64)| {
        let token = key.parse().ok().filter(|&token: &u32| (token as usize) < vocabulary);
        let token = token.ok_or_else(|| {
            let key: String = key.chars().take(40).collect();
            wrong(format!("logit_bias: `{key}` is not a token id from 0 to {}", vocabulary - 1))
        })?;
        if !(-100.0..=100.0).contains(&bias) {
            return Err(wrong(format!("logit_bias of {token} must be between -100 and 100")));
        }
        #[expect(clippy::cast_possible_truncation, reason = "within bounds that f32 holds")]
        Ok((TokenId(token), bias as f32))
    };
    given.into_iter().map(one).collect()
}

/// How many of the likeliest tokens are to be told; none: no likelihood at all.
fn top(fields: &mut Fields<'_>, endpoint: Endpoint) -> Result<Option<u32>, ApiError> {
    match endpoint {
        Endpoint::Completions => likeliest(fields, "logprobs"),
        Endpoint::Chat => {
            let wanted = fields.flag("logprobs")?;
            let top = likeliest(fields, "top_logprobs")?;
            if !wanted && top.is_some_and(|top| top > 0) {
                let message = "top_logprobs needs logprobs to be true";
                return Err(ApiError::invalid("top_logprobs", message));
            }
            Ok(wanted.then_some(top.unwrap_or(0)))
        }
    }
}

fn likeliest(fields: &mut Fields<'_>, field: &str) -> Result<Option<u32>, ApiError> {
    let Some(number) = fields.integer(field)? else { return Ok(None) };
    match u32::try_from(number) {
        Ok(top) if top <= TOP_MAX => Ok(Some(top)),
        _ => Err(ApiError::invalid(field, format!("{field} must be from 0 to {TOP_MAX}"))),
    }
}
