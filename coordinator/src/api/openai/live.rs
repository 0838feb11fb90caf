//! What the page for people asks for.

use serde::Serialize;

/// What goes on at this moment.
#[derive(Debug, Serialize)]
pub(crate) struct Live {
    pub(crate) version: &'static str,
    /// The name that requests use.
    pub(crate) model: String,
    /// A request would be answered now.
    pub(crate) ready: bool,
    /// The same in words.
    pub(crate) state: String,
    /// Longest sequence; none while that is not known.
    pub(crate) model_len_max: Option<u32>,
    /// Tokens that the KV cache holds.
    pub(crate) kv_tokens: Option<u64>,
    /// Groups that have not ended, the oldest first; not all where there are many.
    pub(crate) groups: Vec<LiveGroup>,
    pub(crate) groups_total: usize,
    /// In order of rank; none while the ranks form a group.
    pub(crate) ranks: Vec<LiveRank>,
}

/// A group that has not ended.
#[derive(Debug, Serialize)]
pub(crate) struct LiveGroup {
    pub(crate) request: String,
    /// `waiting`, `prefill` or `decode`.
    pub(crate) stage: &'static str,
    pub(crate) age_seconds: f64,
    pub(crate) prompt_tokens: u32,
    pub(crate) sequences: usize,
    /// Of its longest sequence.
    pub(crate) generated: u32,
    /// Most tokens that a sequence can get.
    pub(crate) tokens_max: u32,
}

/// A rank.
#[derive(Debug, Serialize)]
pub(crate) struct LiveRank {
    /// Its address, or which thread of the coordinator's process.
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) backend: String,
    pub(crate) device: String,
    pub(crate) threads: u32,
    pub(crate) memory_bytes: u64,
}
