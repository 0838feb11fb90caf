//! What is asked of a slice's logits besides a token, and what is told of them.

use std::sync::Arc;

use scheduler::TokenId;

/// What a slice asks of its logits.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SliceWish {
    /// How they are bent before a token is chosen.
    pub(crate) adjustment: Option<Adjustment>,
    /// Whose likelihood is wanted.
    pub(crate) scores: Option<Scores>,
}

/// How logits are bent, in this order: bias, bans, penalties.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Adjustment {
    /// Added to the logits of tokens.
    pub(crate) bias: Arc<[(u32, f32)]>,
    /// Tokens that may not be.
    pub(crate) banned: Arc<[u32]>,
    /// Over 0; 1: off.
    pub(crate) repetition: f32,
    /// 0: off.
    pub(crate) presence: f32,
    /// 0: off.
    pub(crate) frequency: f32,
    /// Tokens of the prompt, each once, in order.
    pub(crate) prompt: Arc<[u32]>,
    /// Tokens of the answer and how often they are there, in order.
    pub(crate) answer: Vec<(u32, u32)>,
}

/// Whose likelihood is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scores {
    /// Known tokens: the first follows the slice's first token, and so on.
    pub(crate) targets: Vec<TokenId>,
    /// The token that is sampled, too.
    pub(crate) sampled: bool,
    /// So many of the likeliest beside each.
    pub(crate) top: u32,
}

/// How likely a token was, by the model's own logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// The natural logarithm of its probability; finite.
    pub logprob: f32,
    /// The likeliest tokens there with theirs, the likeliest first.
    pub likeliest: Vec<(TokenId, f32)>,
}
