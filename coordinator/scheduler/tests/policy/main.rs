//! What the scheduler decides, one trace a rule.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admission;
mod ahead;
mod ends;
mod forks;
mod giving_way;
mod order;
mod prefixes;
mod script;
mod swapping;
