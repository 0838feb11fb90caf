//! What a commit or a cancellation tells whoever waits.

use crate::units::{GroupId, SequenceId, Time, TokenCount, TokenId};

/// Something happened to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A sequence grew by a token. End tokens are reported too, before their `SequenceFinished`.
    Token {
        /// Whose.
        sequence: SequenceId,
        /// Which.
        token: TokenId,
    },
    /// A sequence ended.
    SequenceFinished {
        /// Whose.
        sequence: SequenceId,
        /// Why.
        reason: FinishReason,
        /// Tokens generated, the end token included.
        generated: TokenCount,
    },
    /// A group ended: all its sequences have. Comes once, last.
    GroupFinished {
        /// Which.
        group: GroupId,
        /// When it passed what.
        times: GroupTimes,
    },
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or stop token, which is named; or a stop string, found by whoever reads the text.
    Stop(Option<TokenId>),
    /// A limit.
    Length(LengthLimit),
    /// Nobody wants it any more.
    Abort,
    /// It could not be continued.
    Error,
}

/// Which limit ended a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LengthLimit {
    /// The request's own.
    Request,
    /// The operator's ceiling.
    Operator,
    /// The context, or the sequence's part of the whole KV cache if that is smaller.
    Context,
}

impl LengthLimit {
    /// As clients and metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Operator => "operator",
            Self::Context => "context",
        }
    }
}

/// Why a group is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// A stop string was found: the answer is complete.
    Stop,
    /// The client is gone.
    Abort,
    /// The answer cannot be continued.
    Error,
}

/// When a group passed what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupTimes {
    /// Submitted.
    pub arrival: Time,
    /// First part of the prompt in a plan; none: it never ran.
    pub first_scheduled: Option<Time>,
    /// First token committed.
    pub first_token: Option<Time>,
    /// Last token committed.
    pub last_token: Option<Time>,
    /// Ended.
    pub finished: Time,
    /// Times its blocks were taken away, by a preemption or because the caches were lost.
    pub preemptions: u32,
    /// Prompt tokens that came from the prefix cache.
    pub cached_tokens: TokenCount,
}
