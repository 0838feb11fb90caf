//! Answers, whole and in chunks.

use serde::Serialize;

use crate::api::openai::{ChatLogprobs, TextLogprobs};

/// An answer or a chunk of one, around its choices.
#[derive(Debug, Serialize)]
pub(crate) struct Answered<'a, C> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'a str,
    pub(crate) choices: Vec<C>,
    /// Left out, null, or there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
}

/// A choice of a chat's chunk.
#[derive(Debug, Serialize)]
pub(crate) struct DeltaChoice<'a> {
    pub(crate) index: u32,
    pub(crate) delta: Delta<'a>,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// What is new in a message.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<&'a str>,
}

/// A choice of a chat's answer.
#[derive(Debug, Serialize)]
pub(crate) struct MessageChoice<'a> {
    pub(crate) index: u32,
    pub(crate) message: Message<'a>,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: &'static str,
}

/// A whole message.
#[derive(Debug, Serialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: &'static str,
    pub(crate) content: &'a str,
    pub(crate) refusal: Option<()>,
}

/// A choice of a completion, or of a chunk of one.
#[derive(Debug, Serialize)]
pub(crate) struct TextChoice<'a> {
    pub(crate) index: u32,
    pub(crate) text: &'a str,
    pub(crate) logprobs: Option<TextLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// Tokens that an answer took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) total_tokens: u64,
    pub(crate) prompt_tokens_details: CachedTokens,
    /// Which limit cut a choice short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finish_limit: Option<&'static str>,
}

/// Tokens that were had for nothing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CachedTokens {
    pub(crate) cached_tokens: u64,
}
