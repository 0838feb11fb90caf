//! What the engine tells: events with what is needed to count them.

use std::time::Duration;

use proto::worker::KvDtype;

/// A step that every rank ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepSeen {
    /// `prefill`, `decode` or `mixed`.
    pub(crate) phase: &'static str,
    /// Tokens computed.
    pub(crate) tokens: usize,
    /// From sending it to the slowest reply.
    pub(crate) duration: Duration,
    /// Between the fastest reply and the slowest.
    pub(crate) skew: Duration,
    /// When no rank was at work: the step was being sent, or the replies came.
    pub(crate) under_way: Duration,
    /// Blocks moved to the host.
    pub(crate) swapped_out: usize,
    /// Blocks moved back.
    pub(crate) swapped_in: usize,
    /// Bytes of a block, over all ranks.
    pub(crate) block_bytes: u64,
}

/// A group that ended, in spans of its life; a point that it never reached leaves none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupSeen {
    /// Tokens of its prompt.
    pub(crate) prompt_tokens: u32,
    /// Of those, had by the prefix cache.
    pub(crate) cached_tokens: u32,
    /// Sequences.
    pub(crate) sequences: u32,
    /// Of these, those that the client gets.
    pub(crate) choices: u32,
    /// Most tokens a sequence could get.
    pub(crate) tokens_max: u32,
    /// Tokens of its longest sequence.
    pub(crate) generated_max: u32,
    /// Times it was preempted.
    pub(crate) preemptions: u32,
    /// Arrival to end.
    pub(crate) e2e: Duration,
    /// Arrival to first step.
    pub(crate) queue: Option<Duration>,
    /// First step to first token.
    pub(crate) prefill: Option<Duration>,
    /// First token to end.
    pub(crate) decode: Option<Duration>,
    /// First step to end.
    pub(crate) inference: Option<Duration>,
    /// All steps that it was part of.
    pub(crate) stepped: Duration,
    /// In them, the busiest rank's device at work.
    pub(crate) computed: Duration,
    /// Its client was told of an error.
    pub(crate) failed: bool,
}

/// The KV cache as the group of workers has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheSeen {
    /// Tokens a block holds.
    pub(crate) block_size: u32,
    /// What keys and values are kept as.
    pub(crate) dtype: KvDtype,
    /// Blocks on the devices: the least over ranks.
    pub(crate) blocks: u32,
    /// Prompts that begin alike are computed once.
    pub(crate) prefix_cache: bool,
    /// Blocks in host memory.
    pub(crate) swap_blocks: u32,
    /// What the operator asked for, 0: nothing.
    pub(crate) blocks_wanted: u32,
    /// Bytes of the host's blocks, over all ranks.
    pub(crate) swap_bytes: u64,
}

/// A group's first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstTokenSeen {
    /// How long after the group's arrival.
    pub(crate) since_arrival: Duration,
    /// Tokens of its prompt.
    pub(crate) prompt_tokens: u32,
    /// The group came before this group of workers had run any step but a heartbeat.
    pub(crate) cold: bool,
}

/// How many ranks are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MembersSeen {
    /// All are loading or connecting.
    Loading(usize),
    /// All are ready, in a group of this epoch.
    Ready(usize, u64),
    /// At least one of them is lost.
    Lost(usize),
}
