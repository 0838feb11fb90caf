//! What a folder says about tokens.

use std::path::Path;

use serde_json::Value;

use crate::error::CheckpointError;
use crate::folder::{Folder, json};
use crate::vocabulary::{END_TEXTS, TemplateTokens, VocabularySource};

/// The `tokenizer.json`, which must be there.
pub(crate) fn source(folder: &Folder) -> Result<VocabularySource, CheckpointError> {
    let path = folder.path().join("tokenizer.json");
    if path.is_file() {
        return Ok(VocabularySource::Json(path));
    }
    Err(CheckpointError::unsupported(folder.path(), "it has no tokenizer.json"))
}

/// From its own file, or from `tokenizer_config.json`: one text, or several by name.
pub(crate) fn chat_template(folder: &Folder) -> Option<String> {
    if let Some(text) = text_file(&folder.path().join("chat_template.jinja")) {
        return Some(text);
    }
    let own = json::read_optional(&folder.path().join("chat_template.json")).ok().flatten();
    let own = own.as_ref().and_then(|json| json.get("chat_template"));
    own.or_else(|| folder.tokenizer_config.get("chat_template")).and_then(default_template)
}

fn text_file(path: &Path) -> Option<String> {
    let bytes = json::read_bytes_optional(path).ok().flatten()?;
    String::from_utf8(bytes).ok()
}

fn default_template(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
    let entry = value.as_array()?.iter().find(named)?;
    entry.get("template").and_then(Value::as_str).map(str::to_owned)
}

/// `bos_token` and `eos_token`, each a text or an object with one.
pub(crate) fn template_tokens(folder: &Folder) -> TemplateTokens {
    let text = |key: &str| {
        let value = folder.tokenizer_config.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
    };
    TemplateTokens { begin: text("bos_token"), end: text("eos_token") }
}

/// Ids that `generation_config.json` and `config.json` name, and special tokens known to end a turn.
pub(crate) fn end_tokens(folder: &Folder) -> Vec<u32> {
    let text_config = folder.config.get("text_config").and_then(|text| text.get("eos_token_id"));
    let named =
        [folder.generation.get("eos_token_id"), folder.config.get("eos_token_id"), text_config];
    let mut ends: Vec<u32> = named.into_iter().flatten().flat_map(ids).collect();
    let added = folder.tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object);
    for (id, token) in added.into_iter().flatten() {
        let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        let text = token.get("content").and_then(Value::as_str).unwrap_or_default();
        if special && END_TEXTS.contains(&text) {
            ends.extend(id.parse::<u32>().ok());
        }
    }
    ends
}

/// One id, or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(all) => all.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}
