//! Which sequences run in the next step, and where their keys and values live.
//!
//! Pure policy: no clock (time is an argument), no IO, no randomness, no hash order. The driving loop:
//!
//! ```
//! use std::time::Duration;
//!
//! use scheduler::{Admission, BlockCount, Event, Limits, NewGroup, Outcome, Policy, Sampling};
//! use scheduler::{Scheduler, StepPlan, TenantId, Time, TokenCount, TokenId};
//!
//! /// Stands for all ranks together: what follows is always the next higher token.
//! fn every_rank_runs(plan: &StepPlan) -> Outcome {
//!     let sampled = plan.slices.iter().filter(|slice| slice.sampling.is_some());
//!     Outcome::Done(sampled.map(|slice| TokenId(slice.tokens.last().unwrap().0 + 1)).collect())
//! }
//!
//! let mut scheduler = Scheduler::new(Limits {
//!     block_size: TokenCount(16),
//!     blocks: BlockCount(100),
//!     swap_blocks: BlockCount(0),
//!     sequences_max: 8,
//!     step_tokens_max: TokenCount(64),
//!     model_len_max: TokenCount(256),
//!     generation_max: None,
//!     waiting_max: 100,
//!     policy: Policy::Fcfs,
//!     admission: Admission::Expected,
//!     prefix_cache: true,
//!     end_tokens: vec![TokenId(15)],
//! })?;
//! let group = NewGroup {
//!     prompt: vec![TokenId(10), TokenId(11)],
//!     sequences: 1,
//!     sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 },
//!     tokens_max: None,
//!     tokens_min: TokenCount(0),
//!     ignore_end: false,
//!     stop_tokens: vec![],
//!     whole_prompt: false,
//!     priority: 0,
//!     tenant: TenantId(0),
//! };
//! let mut now = Time(Duration::ZERO);
//! scheduler.submit(group, now)?;
//! let mut answer = vec![];
//! while let Some(plan) = scheduler.plan(now) {
//!     let outcome = every_rank_runs(&plan); // anything may be submitted or cancelled meanwhile
//!     now = Time(now.0 + Duration::from_millis(20));
//!     for event in scheduler.commit(outcome, now) {
//!         if let Event::Token { token, .. } = event {
//!             answer.push(token.0);
//!         }
//!     }
//! }
//! assert_eq!(answer, [12, 13, 14, 15]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What always holds
//!
//! * A group is in exactly one queue, until it ends; whatever was accepted ends exactly once.
//! * Groups have an order that never changes. It is the last of those that run that gives way. Under
//!   the policy of arrival, who runs is older than who waits: nobody overtakes.
//! * A block is owned, free, or kept because it can be found in the prefix cache; who waits owns none;
//!   a block is back when its last owner has ended. Who is swapped owns blocks of the host alone.
//! * A block that more than one sequence owns is only read: whoever would write to it gets a copy.
//! * A token counts as computed when its step is committed, never before; nor can a block be found
//!   before.
//! * At most two steps are in flight, and ranks run them in order. The second, planned *ahead*, goes on where
//!   the first ends, and has its blocks; what it computes for a sequence that has ended by then is void.
//! * Every sequence that runs has at least one token in every step, but for one planned ahead, which leaves out
//!   those that the step before certainly ends.
//! * What a group may become fits the cache when the group is alone: the first in order can always go
//!   on, so all end.
//! * A sequence's tokens and its end depend on its group and the limits alone, as long as what is
//!   sampled depends on the tokens before and the seed alone.
//!
//! `plan` and `commit` look at what runs and what is admitted, and never at all that wait.

mod scheduler;

mod forecast;
mod rates;
mod waiting;

mod sequence_group;

mod sequence;

mod blocks;
mod limits;
mod plan;
mod prefix;

mod event;
mod group;
mod rank;
mod stats;
mod units;

pub use event::{CancelReason, Event, FinishReason, GroupTimes, LengthLimit};
pub use group::{NewGroup, Sampling};
pub use limits::{Admission, Limits, LimitsError, Refusal};
pub use plan::{BlockPair, Outcome, Slice, StepPlan};
pub use rank::Policy;
pub use rates::Rates;
pub use scheduler::Scheduler;
pub use stats::Stats;
pub use units::{
    BlockCount, BlockId, GroupId, SequenceId, StepId, TenantId, Time, TokenCount, TokenId,
};
