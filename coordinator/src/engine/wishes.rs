//! What a request wants of its logits, besides what the scheduler carries.

use scheduler::TokenId;

/// What a request wants of its logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Wishes {
    /// Added to the logits of these tokens; finite.
    pub bias: Vec<(TokenId, f32)>,
    /// Divides the logits over 0 of all tokens of prompt and answer, and multiplies the others. Over
    /// 0; 1: off.
    pub repetition: f32,
    /// Taken off the logits of all tokens of the answer; 0: off.
    pub presence: f32,
    /// Taken off for each time that a token is in the answer; 0: off.
    pub frequency: f32,
    /// How likely tokens were is to be told.
    pub likelihoods: Option<Likelihoods>,
}

/// Whose likelihoods are to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likelihoods {
    /// So many of the likeliest beside each.
    pub top: u32,
    /// The prompt's tokens, too.
    pub prompt: bool,
}

impl Default for Wishes {
    /// Nothing.
    fn default() -> Self {
        Self { bias: Vec::new(), repetition: 1.0, presence: 0.0, frequency: 0.0, likelihoods: None }
    }
}
