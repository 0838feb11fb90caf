//! The bounds of everything, and what is said at them.

use crate::event::LengthLimit;
use crate::group::NewGroup;
use crate::rank::Policy;
use crate::units::{BlockCount, TokenCount, TokenId};

/// What the scheduler works within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tokens a KV block holds.
    pub block_size: TokenCount,
    /// KV blocks on the device: the least over all ranks.
    pub blocks: BlockCount,
    /// KV blocks in host memory, to swap to.
    pub swap_blocks: BlockCount,
    /// Sequences of one step. More than `step_tokens_max` never run, for each has a token in every
    /// step.
    pub sequences_max: u32,
    /// Tokens of one step.
    pub step_tokens_max: TokenCount,
    /// Longest sequence, prompt and answer together.
    pub model_len_max: TokenCount,
    /// Most tokens generated for a sequence, whatever the request says.
    pub generation_max: Option<TokenCount>,
    /// Groups that may wait; one more is refused.
    pub waiting_max: usize,
    /// In which order groups are served.
    pub policy: Policy,
    /// What a group that is let in gets room for.
    pub admission: Admission,
    /// Blocks are kept after use, and what begins alike is computed once.
    pub prefix_cache: bool,
    /// The model's end tokens.
    pub end_tokens: Vec<TokenId>,
}

impl Limits {
    /// The same, once they make sense.
    ///
    /// # Errors
    /// When one is zero that may not be.
    pub fn validate(self) -> Result<Self, LimitsError> {
        let numbers = [
            ("block size", self.block_size.0),
            ("blocks", self.blocks.0),
            ("sequences of a step", self.sequences_max),
            ("tokens of a step", self.step_tokens_max.0),
            ("longest sequence", self.model_len_max.0),
            ("most generated tokens", self.generation_max.map_or(1, |most| most.0)),
            ("waiting groups", u32::from(self.waiting_max > 0)),
        ];
        match numbers.iter().find(|(_, number)| *number == 0) {
            Some((name, _)) => Err(LimitsError::Zero(name)),
            None => Ok(self),
        }
    }

    /// Sequences that may run together.
    pub(crate) fn running_max(&self) -> u32 {
        self.sequences_max.min(self.step_tokens_max.0)
    }

    /// Most tokens that each sequence of a group may generate, and which limit says so: the
    /// request's own, the operator's, or the room behind the prompt, whichever is least. Refuses
    /// what can never run. So a group that runs alone always has the blocks it needs.
    pub(crate) fn generated_max(
        &self,
        new: &NewGroup,
    ) -> Result<(TokenCount, LengthLimit), Refusal> {
        let prompt = TokenCount::of(&new.prompt);
        if prompt.0 == 0 {
            return Err(Refusal::Empty);
        }
        let capacity = TokenCount(self.length_max(prompt, 1).0 - 1);
        if prompt > capacity {
            return Err(Refusal::TooLong { wanted: prompt, capacity });
        }
        let capacity = self.group_sequences_max(prompt);
        if new.sequences > capacity {
            return Err(Refusal::TooManySequences { wanted: new.sequences, capacity });
        }
        let room = TokenCount(self.length_max(prompt, new.sequences).0 - prompt.0);
        let request = new.tokens_max.map(|most| (most, LengthLimit::Request));
        let operator = self.generation_max.map(|most| (most, LengthLimit::Operator));
        let limits = [request, operator, Some((room, LengthLimit::Context))];
        Ok(limits.into_iter().flatten().min().expect("the context always limits"))
    }

    /// Longest that each of `sequences` sequences may become: they share the full blocks before the
    /// last token of the prompt, and the other blocks are dealt out evenly.
    fn length_max(&self, prompt: TokenCount, sequences: u32) -> TokenCount {
        let shared = self.shared_blocks(prompt);
        let own = (self.blocks.0 - shared) / sequences;
        let cache = (shared + own).saturating_mul(self.block_size.0);
        self.model_len_max.min(TokenCount(cache))
    }

    /// How many sequences can continue a prompt by one token, if one can.
    fn group_sequences_max(&self, prompt: TokenCount) -> u32 {
        let shared = self.shared_blocks(prompt);
        let own = TokenCount(prompt.0 + 1).blocks(self.block_size).0 - shared;
        self.running_max().min((self.blocks.0 - shared) / own)
    }

    fn shared_blocks(&self, prompt: TokenCount) -> u32 {
        self.blocks.0.min((prompt.0 - 1) / self.block_size.0)
    }
}

/// What a group that is let in beside others gets room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// For the tokens it has: most groups run together, and some are pushed out again.
    Prompt,
    /// For those it will probably have too, learned from the answers that ended, and so for all that
    /// run: few are pushed out.
    Expected,
}

/// Limits that make no sense together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// A limit is zero that may not be.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

/// Why a group was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    Empty,
    /// The prompt leaves no room for an answer: it can never run.
    #[error("the prompt has {wanted} tokens, and at most {capacity} can be served with one token of answer", wanted = wanted.0, capacity = capacity.0)]
    TooLong {
        /// Tokens of the prompt.
        wanted: TokenCount,
        /// Longest prompt that can run.
        capacity: TokenCount,
    },
    /// More sequences than a step can hold.
    #[error("{wanted} sequences were asked for, and at most {capacity} can run")]
    TooManySequences {
        /// Asked for.
        wanted: u32,
        /// Possible.
        capacity: u32,
    },
    /// The queue is full: try later.
    #[error("{waiting} requests are waiting already")]
    QueueFull {
        /// Groups that wait.
        waiting: usize,
    },
}
