//! The lines of a recording: JSON, one thing that happened each. The first says the limits.

use std::time::Duration;

use scheduler::{
    Admission, BlockCount, BlockPair, CancelReason, GroupId, Limits, NewGroup, Policy, Rates,
    StepPlan, TenantId, Time, TokenCount, TokenId,
};
use serde::{Deserialize, Serialize};

/// What the first line calls itself.
pub(super) const KIND: &str = "arcmesh scheduler recording";
/// The format of the lines; one more whenever an older program would misread them.
pub(super) const FORMAT: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    /// The first.
    Recording(Header),
    /// A group was accepted. What is refused changes nothing and is not here.
    Submit(SubmitLine),
    /// A group was ended early.
    Cancel { at: u64, group: u64, reason: Reason },
    /// What giving way costs, in nanoseconds for a token and for a block.
    Rates { token: u64, block: u64 },
    /// A step was planned.
    Plan(PlanLine),
    /// A step was planned while the one before it ran.
    Ahead(PlanLine),
    /// The first of those that were planned ran: a token for each slice that asked. `stops`: which of them are
    /// among their group's stop tokens, by place.
    Commit {
        at: u64,
        tokens: Vec<u32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stops: Vec<u32>,
    },
    /// They did not, and all that the caches held is gone.
    Lost { at: u64 },
    /// The last line, and why.
    End(Ending),
}

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) kind: String,
    pub(super) format: u32,
    pub(super) program: String,
    limits: LimitsLine,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsLine {
    block_size: u32,
    blocks: u32,
    swap_blocks: u32,
    sequences_max: u32,
    step_tokens_max: u32,
    model_len_max: u32,
    generation_max: Option<u32>,
    waiting_max: u64,
    policy: Order,
    /// Nanoseconds.
    priority_level: u64,
    /// Room for what answers usually become.
    expected: bool,
    prefix_cache: bool,
    /// How many end tokens the model has.
    ends: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Fcfs,
    Priority,
    Fair,
}

/// Why a group was ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    Stop,
    Abort,
    Error,
}

/// Why a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The engine did.
    Shutdown,
    /// The file is as long as it may be.
    Full,
    /// The disk did not keep up.
    Slow,
}

/// A group, its tokens veiled. How tokens are chosen is not the scheduler's business, and not here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitLine {
    pub(super) at: u64,
    pub(super) group: u64,
    pub(super) prompt: Vec<u32>,
    sequences: u32,
    tokens_max: Option<u32>,
    tokens_min: u32,
    ignore_end: bool,
    whole_prompt: bool,
    priority: i32,
    tenant: u32,
}

/// A plan, as far as two are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanLine {
    pub(super) at: u64,
    pub(super) step: u64,
    pub(super) slices: Vec<SliceLine>,
    pub(super) swap_out: usize,
    pub(super) swap_in: usize,
    pub(super) copies: usize,
    pub(super) blocks_held: u32,
    pub(super) swap_blocks_held: u32,
    /// Of all that, and of every block table, copy and swap.
    pub(super) digest: u64,
}

/// Group, sequence, first position, tokens, and whether a token is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SliceLine(
    pub(super) u64,
    pub(super) u32,
    pub(super) u32,
    pub(super) usize,
    pub(super) bool,
);

impl Header {
    pub(super) fn new(limits: &Limits) -> Self {
        let (policy, level) = match limits.policy {
            Policy::Fcfs => (Order::Fcfs, Duration::ZERO),
            Policy::Priority { level } => (Order::Priority, level),
            Policy::Fair { level } => (Order::Fair, level),
        };
        Self {
            kind: KIND.to_owned(),
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            limits: LimitsLine {
                block_size: limits.block_size.0,
                blocks: limits.blocks.0,
                swap_blocks: limits.swap_blocks.0,
                sequences_max: limits.sequences_max,
                step_tokens_max: limits.step_tokens_max.0,
                model_len_max: limits.model_len_max.0,
                generation_max: limits.generation_max.map(|most| most.0),
                waiting_max: limits.waiting_max as u64,
                policy,
                priority_level: nanoseconds(level),
                expected: limits.admission == Admission::Expected,
                prefix_cache: limits.prefix_cache,
                ends: TokenCount::of(&limits.end_tokens).0,
            },
        }
    }

    /// The limits, with veiled end tokens.
    pub(super) fn limits(&self) -> Limits {
        let limits = &self.limits;
        let level = Duration::from_nanos(limits.priority_level);
        Limits {
            block_size: TokenCount(limits.block_size),
            blocks: BlockCount(limits.blocks),
            swap_blocks: BlockCount(limits.swap_blocks),
            sequences_max: limits.sequences_max,
            step_tokens_max: TokenCount(limits.step_tokens_max),
            model_len_max: TokenCount(limits.model_len_max),
            generation_max: limits.generation_max.map(TokenCount),
            waiting_max: usize::try_from(limits.waiting_max).unwrap_or(usize::MAX),
            policy: match limits.policy {
                Order::Fcfs => Policy::Fcfs,
                Order::Priority => Policy::Priority { level },
                Order::Fair => Policy::Fair { level },
            },
            admission: if limits.expected { Admission::Expected } else { Admission::Prompt },
            prefix_cache: limits.prefix_cache,
            end_tokens: (0..limits.ends).map(TokenId).collect(),
        }
    }

    /// End tokens there are.
    pub(super) const fn ends(&self) -> u32 {
        self.limits.ends
    }

    /// Sequences of a step.
    pub(super) const fn sequences_max(&self) -> u32 {
        self.limits.sequences_max
    }
}

impl SubmitLine {
    pub(super) fn new(group: GroupId, new: &NewGroup, prompt: Vec<u32>, now: Time) -> Self {
        Self {
            at: nanoseconds(now.0),
            group: group.0,
            prompt,
            sequences: new.sequences,
            tokens_max: new.tokens_max.map(|most| most.0),
            tokens_min: new.tokens_min.0,
            ignore_end: new.ignore_end,
            whole_prompt: new.whole_prompt,
            priority: new.priority,
            tenant: new.tenant.0,
        }
    }

    /// The group, with its veiled stop tokens.
    pub(super) fn group(&self, stop_tokens: Vec<TokenId>) -> NewGroup {
        NewGroup {
            prompt: self.prompt.iter().copied().map(TokenId).collect(),
            sequences: self.sequences,
            sampling: scheduler::Sampling {
                temperature: 0.0,
                top_p: 1.0,
                top_k: 0,
                min_p: 0.0,
                seed: 0,
            },
            tokens_max: self.tokens_max.map(TokenCount),
            tokens_min: TokenCount(self.tokens_min),
            ignore_end: self.ignore_end,
            stop_tokens,
            whole_prompt: self.whole_prompt,
            priority: self.priority,
            tenant: TenantId(self.tenant),
        }
    }
}

impl PlanLine {
    pub(super) fn new(plan: &StepPlan, now: Time) -> Self {
        let slices = plan.slices.iter().map(|slice| {
            let (sequence, sampled) = (slice.sequence, slice.sampling.is_some());
            let count = slice.count().0 as usize;
            SliceLine(sequence.group.0, sequence.index, slice.start.0, count, sampled)
        });
        Self {
            at: nanoseconds(now.0),
            step: plan.id.0,
            slices: slices.collect(),
            swap_out: plan.swap_out.len(),
            swap_in: plan.swap_in.len(),
            copies: plan.copies.len(),
            blocks_held: plan.blocks_held.0,
            swap_blocks_held: plan.swap_blocks_held.0,
            digest: digest(plan),
        }
    }

    /// Tokens of the step.
    pub(super) fn tokens(&self) -> usize {
        self.slices.iter().map(|slice| slice.3).fold(0, usize::saturating_add)
    }
}

impl From<CancelReason> for Reason {
    fn from(reason: CancelReason) -> Self {
        match reason {
            CancelReason::Stop => Self::Stop,
            CancelReason::Abort => Self::Abort,
            CancelReason::Error => Self::Error,
        }
    }
}

impl From<Reason> for CancelReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Stop => Self::Stop,
            Reason::Abort => Self::Abort,
            Reason::Error => Self::Error,
        }
    }
}

impl Line {
    pub(super) fn rates(rates: Rates) -> Self {
        Self::Rates { token: nanoseconds(rates.token), block: nanoseconds(rates.block) }
    }
}

/// Nanoseconds, as far as 584 years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// In the manner of FNV-1a, a number at a time, over all of a plan but the tokens, which follow from what was
/// told.
fn digest(plan: &StepPlan) -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |number: u64| {
        digest = (digest ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    };
    add(plan.id.0);
    add(plan.blocks_held.0.into());
    add(plan.swap_blocks_held.0.into());
    for pairs in [&plan.swap_out, &plan.swap_in, &plan.copies] {
        add(pairs.len() as u64);
        for BlockPair { from, to } in pairs {
            add(from.0.into());
            add(to.0.into());
        }
    }
    for slice in &plan.slices {
        add(slice.sequence.group.0);
        add(slice.sequence.index.into());
        add(slice.start.0.into());
        add(slice.count().0.into());
        add(slice.sampling.is_some().into());
        add(slice.blocks.len() as u64);
        for block in slice.blocks.iter() {
            add(block.0.into());
        }
        if let Some(place) = slice.follows {
            add(place.into());
        }
    }
    digest
}
