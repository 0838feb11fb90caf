//! Which sequences run in the next step, and where their keys and values live.
//!
//! Pure policy: no clock (time is an argument), no IO, no randomness, no hash order. The driving loop:
//!
//! ```text
//! scheduler.submit(group, now)?;
//! while let Some(plan) = scheduler.plan(now) {
//!     let outcome = every_rank_runs(plan);          // anything may be submitted or cancelled meanwhile
//!     for event in scheduler.commit(outcome, now) { /* tell whoever waits */ }
//! }
//! ```

mod event;
mod group;
mod limits;
mod plan;
mod stats;
mod units;

pub use event::{CancelReason, Event, FinishReason, GroupTimes, LengthLimit};
pub use group::{NewGroup, Sampling};
pub use limits::{Limits, LimitsError, Refusal};
pub use plan::{BlockPair, Outcome, Slice, StepPlan};
pub use stats::Stats;
pub use units::{BlockCount, BlockId, GroupId, SequenceId, StepId, Time, TokenCount, TokenId};
