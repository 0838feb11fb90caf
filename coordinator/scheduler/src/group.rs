//! A sequence group: one request, its prompt, and the sequences that continue it.

use crate::units::{TenantId, TokenCount, TokenId};

/// How a next token is chosen. Validated by whoever submits: temperature ≥ 0, 0 < `top_p` ≤ 1,
/// 0 ≤ `min_p` ≤ 1. Carried through, not looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: the likeliest.
    pub temperature: f32,
    /// 1: off.
    pub top_p: f32,
    /// 0: off.
    pub top_k: u32,
    /// 0: off.
    pub min_p: f32,
    /// Of the first sequence; sequence `i` uses `seed + i`.
    pub seed: u64,
}

/// A request as the scheduler sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGroup {
    /// At least one token.
    pub prompt: Vec<TokenId>,
    /// How many sequences continue the prompt; 0 is taken as 1.
    pub sequences: u32,
    /// How their tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens the request wants for each sequence; none: as many as the limits allow. 0 is
    /// taken as 1: a sequence ends only with a token.
    pub tokens_max: Option<TokenCount>,
    /// Fewest generated tokens with which an end or stop token ends a sequence, that token counted.
    pub tokens_min: TokenCount,
    /// End tokens do not end it.
    pub ignore_end: bool,
    /// Tokens that end a sequence besides the model's own.
    pub stop_tokens: Vec<TokenId>,
    /// Every token of its prompt is computed although the prefix cache may have it: somebody wants to
    /// know how likely each was.
    pub whole_prompt: bool,
    /// How urgent it is, where the policy looks at that: less comes first, 0 is usual.
    pub priority: i32,
    /// Who asks.
    pub tenant: TenantId,
}
