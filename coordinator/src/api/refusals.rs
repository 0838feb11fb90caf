//! Parameters that are known and not supported: refused where they would change an answer, taken
//! where they say what is done anyway. And those that change nothing, so nobody is told of them.

use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::fields::Fields;

/// Says whether a value asks for nothing special.
type Neutral = fn(&Value) -> bool;

const REFUSED: &[(&str, Neutral)] = &[
    ("prompt_logprobs", is_off),
    ("length_penalty", is_one),
    ("typical_p", is_one),
    ("mirostat", is_off),
    ("tools", is_off),
    ("tool_choice", is_no_tool),
    ("functions", is_off),
    ("function_call", is_no_tool),
    ("response_format", is_text),
    ("modalities", is_text_alone),
    ("audio", is_off),
    ("web_search_options", is_off),
    ("suffix", is_off),
    ("use_beam_search", is_off),
    ("continue_final_message", is_off),
    ("chat_template", is_off),
    ("documents", is_off),
    ("prompt_embeds", is_off),
    ("truncate_prompt_tokens", is_off),
    ("guided_json", is_off),
    ("guided_regex", is_off),
    ("guided_choice", is_off),
    ("guided_grammar", is_off),
    ("structured_outputs", is_off),
    ("json_schema", is_off),
    ("grammar", is_off),
    ("regex", is_off),
    ("ebnf", is_off),
    ("bad_words", is_off),
    ("allowed_token_ids", is_off),
    ("logits_processors", is_off),
    ("lora_request", is_off),
];

const TOLERATED: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
    "request_id",
    "spaces_between_special_tokens",
];

/// Refuses what is not supported, and takes out what changes nothing.
pub(super) fn check(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    for field in TOLERATED {
        fields.raw(field);
    }
    for (field, is_neutral) in REFUSED {
        if fields.value(field)?.is_some_and(|value| !is_neutral(&value)) {
            let message = format!("`{field}` is not supported");
            return Err(ApiError::Unsupported { param: (*field).to_owned(), message });
        }
    }
    Ok(())
}

/// Nothing, in any type.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn is_no_tool(value: &Value) -> bool {
    matches!(value.as_str(), Some("none" | "auto"))
}

fn is_text(value: &Value) -> bool {
    value.get("type").and_then(Value::as_str) == Some("text")
}

fn is_text_alone(value: &Value) -> bool {
    value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text"))
}
