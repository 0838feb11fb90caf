//! Messages of a chat, in every form that clients send, to the one form that templates take.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::error::ApiError;
use crate::api::fields::{Fields, items};

/// What a template may look at besides role and content.
const KEPT: [&str; 5] = ["name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning"];

/// Takes the messages of a request. A `developer` speaks as `system`, unless the template knows it.
pub(super) fn take(
    fields: &mut Fields<'_>,
    knows: impl Fn(&str) -> bool,
) -> Result<Vec<Value>, ApiError> {
    let missing = || ApiError::invalid("messages", "messages is missing");
    let list = fields.items("messages")?.ok_or_else(missing)?;
    if list.is_empty() {
        return Err(ApiError::invalid("messages", "messages must not be empty"));
    }
    let knows_developer = knows("developer");
    let message =
        |(place, raw): (usize, &RawValue)| one(&format!("messages[{place}]"), raw, knows_developer);
    list.into_iter().enumerate().map(message).collect()
}

fn one(place: &str, raw: &RawValue, knows_developer: bool) -> Result<Value, ApiError> {
    let mut fields = Fields::of_item(place, raw)?;
    let role: Option<String> = fields.take("role")?;
    let role = match role.as_deref() {
        Some("developer") if !knows_developer => "system",
        // The name that tools had before.
        Some("function") => "tool",
        Some(role @ ("system" | "developer" | "user" | "assistant" | "tool")) => role,
        _ => {
            let name = fields.name("role");
            let message = format!("`{name}` must be system, developer, user, assistant or tool");
            return Err(ApiError::invalid(name, message));
        }
    };
    let content = content(&mut fields)?;
    let mut message = Map::new();
    message.insert("role".to_owned(), role.into());
    for field in KEPT {
        if let Some(value) = fields.value(field)? {
            message.insert(field.to_owned(), value);
        }
    }
    let content = match content {
        Some(text) => text.into(),
        // Where tools are called there need not be a text, and templates ask whether there is.
        None if message.contains_key("tool_calls") => Value::Null,
        None => "".into(),
    };
    message.insert("content".to_owned(), content);
    Ok(message.into())
}

/// A string, or parts of which the texts are joined by line ends.
fn content(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let name = fields.name("content");
    let Some(raw) = fields.raw("content") else { return Ok(None) };
    let wrong = |message: &str| ApiError::invalid(name.clone(), format!("`{name}` {message}"));
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map(Some).map_err(|_| wrong("is not a string"));
    }
    let parts = items(raw).map_err(|_| wrong("must be a string, a list of parts, or null"))?;
    let mut texts = Vec::with_capacity(parts.len());
    for (place, part) in parts.into_iter().enumerate() {
        texts.push(part_text(&format!("{name}[{place}]"), part)?);
    }
    Ok(Some(texts.join("\n")))
}

fn part_text(place: &str, raw: &RawValue) -> Result<String, ApiError> {
    let mut fields = Fields::of_item(place, raw)?;
    let kind: Option<String> = fields.take("type")?;
    match kind.as_deref() {
        Some("text" | "input_text" | "output_text") | None => {
            let text: Option<String> = fields.take("text")?;
            text.ok_or_else(|| ApiError::invalid(fields.name("text"), "a text part needs a text"))
        }
        Some("refusal") => Ok(fields.take("refusal")?.unwrap_or_default()),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            let message = format!("parts of the type `{other}` are not supported");
            Err(ApiError::Unsupported { param: fields.name("type"), message })
        }
    }
}
